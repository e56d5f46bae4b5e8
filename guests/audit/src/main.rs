//! A guest kernel that executes every system instruction, or random words, and says what each did.
//!
//! It judges nothing: tools/audit runs it on a bare machine and in a VM, and compares. The machine is QEMU's `virt` at
//! EL1. What to do is in the command line: `audit.random=SEED,FIRST,COUNT`, in decimal, the
//! same with `audit.trace` for a line about each word, or `audit.beside`, instead of the sweep.
//!
//! Follows Arm ARM DDI 0487K.a and the arm64 Linux boot protocol.
#![no_std]
#![no_main]

mod beside;
mod console;
mod encoding;
mod machine;
mod random;
mod sweep;

use sweep::Level;
use trapeze_kit::fdt::Fdt;
use trapeze_kit::gic::Gic;
use trapeze_kit::{exception, mrs, msr, psci};

trapeze_kit::entry!(main);

/// Version of the log's format; tools/audit knows the same.
const FORMAT: u64 = 1;

/// SCTLR_EL1 with the MMU off, RES1 bits as in Armv8.0, and everything open to EL0 that can be: UCI, nTWE, nTWI, UCT,
/// DZE, EnRCTX and UMA (Arm ARM DDI 0487K.a, SCTLR_EL1).
pub const SCTLR_OPEN: u64 = 0x30d0_0800 | 1 << 26 | 1 << 18 | 1 << 16 | 1 << 15 | 1 << 14 | 1 << 10 | 1 << 9;
/// CPACR_EL1: SMEN, FPEN, ZEN.
pub const CPACR_OPEN: u64 = 0b11 << 24 | 0b11 << 20 | 0b11 << 16;
/// CNTKCTL_EL1: EL0PTEN, EL0VTEN, EL0VCTEN, EL0PCTEN.
pub const CNTKCTL_OPEN: u64 = 0b11_0000_0011;
/// PMUSERENR_EL0: UEN, ER, CR, SW, EN.
const PMUSERENR_OPEN: u64 = 0b1_1111;

/// Runs after reset; `tree` is the device tree.
fn main(tree: u64) -> ! {
    let arguments = Fdt::at(tree).map_or("", |tree| tree.bootargs());
    if arguments == "audit.beside" {
        beside::run();
    }
    header();
    open_to_el0();
    match words_asked_for(arguments) {
        Some(request) => random::run(&request),
        None => sweep_all(),
    }
    console::trailer();
    psci::power_off()
}

/// Reads `audit.random=SEED,FIRST,COUNT`, or the same with `audit.trace`.
fn words_asked_for(arguments: &str) -> Option<random::Request> {
    let (name, numbers) = arguments.split_once('=')?;
    let mut numbers = numbers.split(',').map(|number| number.parse().ok());
    let mut next = || numbers.next().flatten();
    let (seed, first, count) = (next()?, next()?, next()?);
    matches!(name, "audit.random" | "audit.trace").then(|| random::Request {
        seed,
        first,
        count,
        is_traced: name == "audit.trace",
    })
}

/// Executes every encoding at both levels.
fn sweep_all() {
    let gic = Gic::detect();
    let el1 = sweep::sweep(Level::El1, gic);
    open_to_el0();
    let el0 = sweep::sweep(Level::El0, gic);
    log!("probes el1={el1} el0={el0}");
}

/// Says which guest this is and what it runs on: logs that differ in it are not comparable.
fn header() {
    let gic = if Gic::detect() == Gic::V2 { 2 } else { 3 };
    log!("audit format={FORMAT} guest={:x} midr={:x} gic={gic}", machine::fingerprint(), mrs!("MIDR_EL1"));
}

/// Gives EL0 what EL1 can give, and registers that are UNKNOWN after reset a value.
fn open_to_el0() {
    msr!("SCTLR_EL1", SCTLR_OPEN);
    msr!("CPACR_EL1", CPACR_OPEN);
    msr!("CNTKCTL_EL1", CNTKCTL_OPEN);
    msr!("CNTV_CTL_EL0", 0);
    msr!("CNTV_CVAL_EL0", 0);
    msr!("CNTP_CTL_EL0", 0);
    msr!("CNTP_CVAL_EL0", 0);
    // Where there are no performance monitors it is UNDEFINED.
    let _ = exception::catch(|| msr!("PMUSERENR_EL0", PMUSERENR_OPEN));
}

//! A guest's share of one CPU: EL2's control registers for it, and EL1 as a reset leaves it.
//!
//! Not here: which bits trap what (the table in `dispatcher::traps`), and general-purpose registers (the vectors).
//! Follows Arm ARM DDI 0487K.a, D24, and D1.5.4 for the state of EL1 after a warm reset.

use core::arch::asm;

use aarch64_cpu::registers::{
    CNTHCTL_EL2, CNTVOFF_EL2, CPTR_EL2, HCR_EL2, MDCR_EL2, Readable, VMPIDR_EL2, VTCR_EL2, VTTBR_EL2,
    Writeable,
};
use trapeze::dispatcher::traps::{self, Features, Grants};
use trapeze::ids::Affinity;
use trapeze::interpreter::watchpoint::{MAX_WATCHPOINTS, Watchpoints};

use super::monitor::Controls;
use super::sysreg::{isb, read_sysreg, write_sysreg};

/// SCTLR_EL1 bits that are RES1 where their feature is missing: LSMAOE, nTLSMD, SPAN, EIS, TSCXT, EOS.
const SCTLR_EL1_RES1: u64 = 1 << 29 | 1 << 28 | 1 << 23 | 1 << 22 | 1 << 20 | 1 << 11;
/// SCTLR_EL1 bits that a reset clears: M, C, I, E0E, EE (Arm ARM DDI 0487K.a, D24.2.130).
const SCTLR_EL1_RESET_0: u64 = 1 | 1 << 2 | 1 << 12 | 1 << 24 | 1 << 25;
/// SCTLR_EL1.M.
const SCTLR_EL1_M: u64 = 1;
/// TCR_EL1 by which no walk starts: EPD0 and EPD1. T0SZ, T1SZ and TG1 have values that every CPU has: 16, 16 and 4 KiB.
const TCR_EL1_NO_WALKS: u64 = 1 << 7 | 1 << 23 | 16 | 16 << 16 | 0b10 << 30;
/// VMPIDR_EL2 bit 31, RES1.
const MPIDR_RES1: u64 = 1 << 31;

macro_rules! clear {
    ($($name:literal)*) => { $(write_sysreg!($name, 0);)* };
}

/// Sets EL2 up for the guest that this CPU will run.
pub fn take_control(controls: &Controls, affinity: Affinity, vttbr_el2: u64, counter_offset: u64) {
    // Stage 2 before HCR_EL2.VM: nothing may be walked with the tables of another.
    VTCR_EL2.set(controls.vtcr_el2);
    VTTBR_EL2.set(vttbr_el2);
    isb();
    HCR_EL2.set(controls.hcr_el2);
    grant(controls.traps, Grants::NONE);
    CPTR_EL2.set(controls.cptr_el2);
    CNTHCTL_EL2.set(controls.cnthctl_el2);
    write_sysreg!("hstr_el2", controls.hstr_el2);
    take_fine_control(controls.traps);
    write_sysreg!("vpidr_el2", read_sysreg!("midr_el1"));
    VMPIDR_EL2.set(affinity.to_mpidr() | MPIDR_RES1);
    CNTVOFF_EL2.set(counter_offset);
    if controls.traps.has(Features::RAS) {
        write_sysreg!("S3_4_C5_C2_3", 0); // VSESR_EL2: syndrome of a virtual SError
        write_sysreg!("S3_4_C12_C1_1", 0); // VDISR_EL2: what the guest reads as DISR_EL1
    }
    isb(); // the next ERET runs under all of this
}

/// Writes the control registers of extensions, each where its extension is.
fn take_fine_control(features: Features) {
    if features.has(Features::HCX) {
        write_sysreg!("S3_4_C1_C2_2", traps::hcrx_el2(features));
    }
    if features.has(Features::FGT) {
        write_sysreg!("S3_4_C1_C1_4", traps::hfgrtr_el2(features));
        write_sysreg!("S3_4_C1_C1_5", traps::hfgwtr_el2(features));
        write_sysreg!("S3_4_C1_C1_6", traps::hfgitr_el2(features));
        write_sysreg!("S3_4_C3_C1_4", traps::hdfgrtr_el2(features));
        write_sysreg!("S3_4_C3_C1_5", traps::hdfgwtr_el2(features));
        if features.has(Features::AMU) {
            write_sysreg!("S3_4_C3_C1_6", traps::hafgrtr_el2(features));
        }
    }
    if features.has(Features::FGT2) {
        let word = traps::fgt2_el2(features);
        write_sysreg!("S3_4_C3_C1_2", word); // HFGRTR2_EL2
        write_sysreg!("S3_4_C3_C1_3", word); // HFGWTR2_EL2
        write_sysreg!("S3_4_C3_C1_7", word); // HFGITR2_EL2
        write_sysreg!("S3_4_C3_C1_0", word); // HDFGRTR2_EL2
        write_sysreg!("S3_4_C3_C1_1", word); // HDFGWTR2_EL2
    }
    if features.has(Features::MPAM) {
        write_sysreg!("S3_4_C10_C5_0", traps::mpam2_el2(features));
    }
}

/// Leaves this CPU without a guest: nothing of EL1 translates, counts or interrupts any more.
pub fn give_up(features: Features) {
    stop_what_runs_by_itself(features);
    vacate();
}

/// Gives this CPU, which has no guest, stage 2 of nobody.
pub fn vacate() {
    close_el1(); // before VTTBR_EL2, which says whose walk it would be
    VTTBR_EL2.set(0);
    isb();
}

/// Lets no walk of EL1's stage 1 start on this CPU, until [`reset_el1`].
///
/// A CPU may execute AT speculatively, at EL2 as well, with whatever the registers of EL1 and VTTBR_EL2 hold at that moment,
/// and keep the result in its TLB under that VMID (Cortex-A72 erratum 1319367, Cortex-A57 1319537). While they change
/// hands they belong to nobody. With the MMU on and walks disabled an AT gets a fault; with it off it would go to stage 2.
pub fn close_el1() {
    write_sysreg!("tcr_el1", TCR_EL1_NO_WALKS);
    isb(); // walks are disabled before the MMU is on
    write_sysreg!("sctlr_el1", SCTLR_EL1_RES1 | SCTLR_EL1_M);
    isb();
}

/// Stops the virtual timer and the performance monitors, and lowers their interrupts.
pub fn stop_what_runs_by_itself(features: Features) {
    write_sysreg!("cntv_ctl_el0", 0);
    if features.has(Features::PMU) {
        write_sysreg!("pmcr_el0", 0);
        write_sysreg!("pmintenclr_el1", u64::from(u32::MAX));
    }
    isb();
}

/// Drops every TLB entry of the VM under VTTBR_EL2, both stages, on all CPUs.
pub fn invalidate_tlb() {
    // SAFETY: dropping TLB entries costs time only. DSB before: table writes are done; after: so is this
    // (Arm ARM DDI 0487K.a, D8.16.4).
    unsafe { asm!("dsb ishst", "tlbi vmalls12e1is", "dsb ish", "isb", options(nostack)) }
}

/// Drops every TLB entry of a VM that no CPU runs, both stages, on all CPUs.
pub fn invalidate_tlb_of(vttbr_el2: u64) {
    let present = VTTBR_EL2.get();
    VTTBR_EL2.set(vttbr_el2);
    isb(); // TLBI takes the VMID from the register
    invalidate_tlb();
    VTTBR_EL2.set(present);
    isb();
}

/// How many debug registers of each kind this CPU has (ID_AA64DFR0_EL1.BRPs and WRPs, plus 1). CPUs of one machine may
/// differ, and to name one that is not there may be UNDEFINED.
struct DebugResources {
    breakpoints: u8,
    watchpoints: u8,
}

impl DebugResources {
    fn of_this_cpu() -> Self {
        let dfr0 = read_sysreg!("id_aa64dfr0_el1");
        Self { breakpoints: (dfr0 >> 12 & 0xf) as u8 + 1, watchpoints: (dfr0 >> 20 & 0xf) as u8 + 1 }
    }
}

/// Returns the number of event counters of this CPU: at EL2, PMCR_EL0.N is all there are.
fn event_counters() -> u8 {
    (read_sysreg!("pmcr_el0") >> 11 & 0x1f) as u8
}

/// Lifts the traps of what the vCPU was given, and sets all others.
pub fn grant(features: Features, granted: Grants) {
    let counters = if features.has(Features::PMU) { event_counters() } else { 0 };
    MDCR_EL2.set(traps::mdcr_el2(features, counters, granted));
    // No barrier: the ERET that follows is a context synchronization event.
}

/// Clears the breakpoints and watchpoints that the CPU has, before a vCPU may use them.
pub fn reset_debug() {
    let resources = DebugResources::of_this_cpu();
    macro_rules! pair {
        ($count:expr, $value:literal, $control:literal, $($number:literal)*) => {
            $(if $number < $count {
                write_sysreg!(concat!("S2_0_C0_C", $number, "_", $control), 0);
                write_sysreg!(concat!("S2_0_C0_C", $number, "_", $value), 0);
            })*
        };
    }
    pair!(resources.breakpoints, 4, 5, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    pair!(resources.watchpoints, 6, 7, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    write_sysreg!("mdscr_el1", 0);
    isb();
}

/// Reads the watchpoints that this CPU has.
pub fn watchpoints() -> Watchpoints {
    let resources = DebugResources::of_this_cpu();
    let mut pairs = [(0, 0); MAX_WATCHPOINTS];
    macro_rules! read {
        ($($number:literal)*) => {
            $(if $number < resources.watchpoints {
                pairs[$number] = (
                    read_sysreg!(concat!("S2_0_C0_C", $number, "_6")),
                    read_sysreg!(concat!("S2_0_C0_C", $number, "_7")),
                );
            })*
        };
    }
    read!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    Watchpoints { is_locked: read_sysreg!("oslsr_el1") & 1 << 1 != 0, pairs }
}

/// Gives the performance monitors the state that a reset leaves, before a vCPU may use them.
pub fn reset_performance_monitors() {
    const ALL: u64 = u32::MAX as u64;
    write_sysreg!("pmcntenclr_el0", ALL);
    write_sysreg!("pmintenclr_el1", ALL);
    write_sysreg!("pmcr_el0", 0b110); // P and C: counters to 0; and they do not count
    for counter in 0..u64::from(event_counters()) {
        write_sysreg!("pmselr_el0", counter);
        isb(); // it selects which register the next write is to
        write_sysreg!("pmxevtyper_el0", 0);
    }
    clear!("pmccfiltr_el0" "pmselr_el0" "pmuserenr_el0");
    write_sysreg!("pmovsclr_el0", ALL);
    isb();
}

/// Gives EL1 and EL0 of this CPU the state that a reset leaves. General-purpose registers come with the entry.
///
/// After [`close_el1`] and [`take_control`]: floating point must not trap, and stage 2 is the guest's when EL1 opens.
pub fn reset_el1(controls: &Controls) {
    clear!(
        "cpacr_el1" "ttbr0_el1" "ttbr1_el1" "esr_el1" "afsr0_el1" "afsr1_el1" "far_el1" "mair_el1"
        "amair_el1" "vbar_el1" "contextidr_el1" "tpidr_el0" "tpidrro_el0" "tpidr_el1" "cntkctl_el1" "par_el1"
        "elr_el1" "spsr_el1" "sp_el0" "sp_el1" "csselr_el1" "mdscr_el1" "mdccint_el1"
        "cntv_ctl_el0" "cntv_cval_el0" "cntp_ctl_el0" "cntp_cval_el0"
    );
    if controls.traps.has(Features::PAUTH) {
        clear!(
            "S3_0_C2_C1_0" "S3_0_C2_C1_1" "S3_0_C2_C1_2" "S3_0_C2_C1_3" // APIA, APIB
            "S3_0_C2_C2_0" "S3_0_C2_C2_1" "S3_0_C2_C2_2" "S3_0_C2_C2_3" // APDA, APDB
            "S3_0_C2_C3_0" "S3_0_C2_C3_1" // APGA
        );
    }
    clear_floating_point();
    isb(); // from here on all of EL1's registers are the guest's: it opens, in the reverse order of `close_el1`
    write_sysreg!("sctlr_el1", controls.sctlr_el1_at_boot & !SCTLR_EL1_RESET_0 | SCTLR_EL1_RES1);
    isb();
    write_sysreg!("tcr_el1", 0);
    isb();
}

fn clear_floating_point() {
    // SAFETY: EL2's own code is built without floating point: these registers are the guest's alone, and
    // `take_control` cleared CPTR_EL2.TFP, which a reset leaves UNKNOWN, so the instructions do not trap.
    unsafe {
        asm!(
            ".arch_extension fp",
            ".arch_extension simd",
            "msr fpcr, xzr",
            "msr fpsr, xzr",
            "movi v0.2d, #0",
            "movi v1.2d, #0",
            "movi v2.2d, #0",
            "movi v3.2d, #0",
            "movi v4.2d, #0",
            "movi v5.2d, #0",
            "movi v6.2d, #0",
            "movi v7.2d, #0",
            "movi v8.2d, #0",
            "movi v9.2d, #0",
            "movi v10.2d, #0",
            "movi v11.2d, #0",
            "movi v12.2d, #0",
            "movi v13.2d, #0",
            "movi v14.2d, #0",
            "movi v15.2d, #0",
            "movi v16.2d, #0",
            "movi v17.2d, #0",
            "movi v18.2d, #0",
            "movi v19.2d, #0",
            "movi v20.2d, #0",
            "movi v21.2d, #0",
            "movi v22.2d, #0",
            "movi v23.2d, #0",
            "movi v24.2d, #0",
            "movi v25.2d, #0",
            "movi v26.2d, #0",
            "movi v27.2d, #0",
            "movi v28.2d, #0",
            "movi v29.2d, #0",
            "movi v30.2d, #0",
            "movi v31.2d, #0",
            options(nomem, nostack),
        );
    }
}

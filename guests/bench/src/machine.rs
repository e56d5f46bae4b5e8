//! All of this guest's `unsafe`: the measured instructions, the devices and PSCI.
//!
//! Not here: how often something is measured, and what is printed. A measured block begins with HINT #112 + n and ends
//! with HINT #112: no-ops to a CPU, section n to tools/plugin. The counter is read inside of them.
//!
//! Follows Arm ARM DDI 0487K.a (C6.2 HINT, D12 timers), Arm IHI 0048B.b, Arm IHI 0069H and Arm DEN 0022F (PSCI).

use core::arch::{asm, global_asm};

global_asm!(include_str!("start.s"));

const UART_DR: u64 = 0x0900_0000;
const GICD: u64 = 0x0800_0000;
const GICD_TYPER: u64 = GICD + 0x4;
const GICD_ISENABLER0: u64 = GICD + 0x100;
const GICD_SGIR: u64 = GICD + 0xf00;
const GICC: u64 = 0x0801_0000;
const GICC_PMR: u64 = GICC + 0x4;
const GICR_WAKER: u64 = 0x080a_0014;
const GICR_IGROUPR0: u64 = 0x080b_0080;
const GICR_ISENABLER0: u64 = 0x080b_0100;

/// GICD_CTLR of a GICv3 with one Security state: ARE and EnableGrp1.
const CTLR_ARE_GRP1: u32 = 1 << 4 | 1 << 1;
const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;
/// GICD_SGIR: to this CPU alone, INTID 1.
const SGIR_SELF: u32 = 2 << 24 | 1;
/// ICC_SGI1R_EL1: to the CPU with affinity 0.0.0.0, INTID 1.
const SGI1R_SELF: u64 = 1 << 24 | 1;
/// SGI 1 and the virtual timer's PPI 11, INTID 27.
const ENABLED: u32 = 1 << 1 | 1 << 27;
const ANY_PRIORITY: u32 = 0xff;

const PSCI_VERSION: u64 = 0x8400_0000;
const SYSTEM_OFF: u64 = 0x8400_0008;

/// How far ahead the timer is armed, in ticks: longer than arming it takes, whatever traps.
const AHEAD: u64 = 20_000;

/// Which GIC the CPU speaks to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Gic {
    /// Memory-mapped CPU interface.
    V2,
    /// CPU interface in system registers.
    V3,
}

/// Runs a block between two reads of the counter, into x20 and x21, and returns the ticks. Section, what is executed
/// before it, the block, its operands.
macro_rules! ticks {
    ($section:literal, $before:literal, $body:literal, $($operands:tt)*) => {{
        let (start, end): (u64, u64);
        // SAFETY: the block touches no memory of this guest, and no registers but its operands. Interrupts that it
        // lets in change x9 to x15 only, which are then among them.
        unsafe {
            asm!(
                concat!("hint #112 + ", $section), $before, "isb", "mrs x20, CNTVCT_EL0",
                $body,
                "mrs x21, CNTVCT_EL0", "msr DAIFSet, #2", "hint #112",
                out("x20") start, out("x21") end, $($operands)*
            )
        };
        end.wrapping_sub(start)
    }};
}

/// Measures nothing: what the measuring itself takes.
pub fn nothing() -> Option<u64> {
    Some(ticks!("0", "", "",))
}

/// Measures PSCI_VERSION by HVC; `None` if the machine does not know it.
pub fn hvc() -> Option<u64> {
    let version: i64;
    let ticks = ticks!("1", "", "hvc #0", inout("x0") PSCI_VERSION => version, clobber_abi("C"));
    (version > 0).then_some(ticks)
}

/// Measures PSCI_VERSION by SMC; `None` if the machine does not know it.
pub fn smc() -> Option<u64> {
    let version: i64;
    let ticks = ticks!("2", "", "smc #0", inout("x0") PSCI_VERSION => version, clobber_abi("C"));
    (version > 0).then_some(ticks)
}

/// Measures a read of ID_AA64PFR0_EL1.
pub fn id_register() -> Option<u64> {
    Some(ticks!("3", "", "mrs {value}, ID_AA64PFR0_EL1", value = out(reg) _,))
}

/// Measures a read of GICD_TYPER.
pub fn distributor() -> Option<u64> {
    Some(ticks!("4", "", "ldr {value:w}, [{typer}]", value = out(reg) _, typer = in(reg) GICD_TYPER,))
}

/// Measures a read of GICD_TYPER by a load with write-back, of which the CPU gives no syndrome; `None` if it aborts.
pub fn write_back() -> Option<u64> {
    let fault: u64;
    let ticks = ticks!("9", "", "ldr {value:w}, [{typer}], #4", value = out(reg) _, typer = inout(reg) GICD_TYPER => _,
        inout("x0") 0_u64 => fault,);
    (fault == 0).then_some(ticks)
}

/// Measures an SGI to this CPU: sent, taken, acknowledged, ended and returned from.
pub fn sgi(gic: Gic) -> Option<u64> {
    Some(match gic {
        Gic::V2 => ticks!(
            "5", "msr DAIFClr, #2", "str {value:w}, [{sgir}]\n 2: cbz x11, 2b",
            value = in(reg) SGIR_SELF, sgir = in(reg) GICD_SGIR, out("x9") _, out("x10") _, inout("x11") 0_u64 => _,
            in("x12") GICC, in("x13") once(gic),
        ),
        Gic::V3 => ticks!(
            "5", "msr DAIFClr, #2", "msr ICC_SGI1R_EL1, {value}\n isb\n 2: cbz x11, 2b",
            value = in(reg) SGI1R_SELF, out("x9") _, out("x10") _, inout("x11") 0_u64 => _, in("x13") once(gic),
        ),
    })
}

/// Measures from the deadline of the virtual timer to the first instruction of the IRQ vector.
pub fn timer(gic: Gic) -> Option<u64> {
    let (entered, deadline): (u64, u64);
    let _ = ticks!(
        "6", "msr DAIFClr, #2",
        "add x14, x20, {ahead}\n msr CNTV_CVAL_EL0, x14\n msr CNTV_CTL_EL0, {on}\n isb\n 2: cbz x11, 2b",
        ahead = in(reg) AHEAD, on = in(reg) 1_u64, out("x9") entered, out("x10") _, inout("x11") 0_u64 => _,
        in("x12") GICC, in("x13") once(gic), out("x14") deadline,
    );
    Some(entered.wrapping_sub(deadline))
}

/// Measures a character to the PL011, without a look at its flags.
pub fn character() -> Option<u64> {
    Some(ticks!("7", "", "str {value:w}, [{dr}]", value = in(reg) u32::from(b'.'), dr = in(reg) UART_DR,))
}

/// Measures `rounds` of arithmetic, four instructions each, while the timer ticks every `period` ticks.
pub fn compute(gic: Gic, rounds: u64, period: u64) -> Option<u64> {
    Some(ticks!(
        "8", "msr DAIFClr, #2",
        "add x14, x20, x15
         msr CNTV_CVAL_EL0, x14
         msr CNTV_CTL_EL0, {on}
         2: madd {sum}, {left}, {left}, {sum}
         eor {sum}, {sum}, {sum}, ror #7
         subs {left}, {left}, #1
         b.ne 2b
         msr CNTV_CTL_EL0, xzr",
        on = in(reg) 1_u64, left = inout(reg) rounds => _, sum = inout(reg) 0_u64 => _, out("x9") _, out("x10") _,
        inout("x11") 0_u64 => _, in("x12") GICC, in("x13") tick(gic), out("x14") _, in("x15") period,
    ))
}

/// Returns the address of a symbol of start.s.
macro_rules! address {
    ($symbol:literal) => {{
        let address: u64;
        // SAFETY: computes an address relative to here.
        unsafe {
            asm!(concat!("adrp {0}, ", $symbol), concat!("add {0}, {0}, :lo12:", $symbol), out(reg) address,
                 options(nomem, nostack, pure))
        };
        address
    }};
}

/// Returns the handler that takes one interrupt.
fn once(gic: Gic) -> u64 {
    if gic == Gic::V2 { address!("once_v2") } else { address!("once_v3") }
}

/// Returns the handler that arms the timer again.
fn tick(gic: Gic) -> u64 {
    if gic == Gic::V2 { address!("tick_v2") } else { address!("tick_v3") }
}

/// Reads from ID_AA64PFR0_EL1.GIC which GIC it is, and opens it for the SGI and the timer.
pub fn open_gic() -> Gic {
    let features: u64;
    // SAFETY: the register exists on every Armv8 CPU, and reading it changes nothing.
    unsafe { asm!("mrs {}, ID_AA64PFR0_EL1", out(reg) features, options(nomem, nostack)) };
    if features >> 24 & 0xf == 0 {
        store(GICD_ISENABLER0, ENABLED);
        store(GICD, 1);
        store(GICC_PMR, ANY_PRIORITY);
        store(GICC, 1);
        return Gic::V2;
    }
    store(GICD, CTLR_ARE_GRP1);
    store(GICR_WAKER, load(GICR_WAKER) & !WAKER_PROCESSOR_SLEEP);
    while load(GICR_WAKER) & WAKER_CHILDREN_ASLEEP != 0 {}
    store(GICR_IGROUPR0, u32::MAX);
    store(GICR_ISENABLER0, ENABLED);
    // SAFETY: these registers exist where ID_AA64PFR0_EL1.GIC is not 0; interrupts are masked.
    unsafe {
        asm!("msr ICC_SRE_EL1, {one}", "isb", "msr ICC_PMR_EL1, {priority}", "msr ICC_IGRPEN1_EL1, {one}", "isb",
             one = in(reg) 1_u64, priority = in(reg) u64::from(ANY_PRIORITY), options(nostack));
    }
    Gic::V3
}

/// Prints one byte on the PL011; the emulated one and QEMU's always have room.
pub fn put(byte: u8) {
    store(UART_DR, u32::from(byte));
}

fn load(address: u64) -> u32 {
    let value;
    // SAFETY: every caller names a device register of the board, none of them in this guest's memory.
    unsafe { asm!("ldr {:w}, [{}]", out(reg) value, in(reg) address, options(nostack)) };
    value
}

fn store(address: u64, value: u32) {
    // SAFETY: every caller names a device register of the board, none of them in this guest's memory.
    unsafe { asm!("str {:w}, [{}]", in(reg) value, in(reg) address, options(nostack)) };
}

/// Powers the machine off.
pub fn power_off() -> ! {
    // SAFETY: SYSTEM_OFF does not return where there is PSCI by HVC, as on the `virt` board at EL1.
    unsafe { asm!("hvc #0", in("x0") SYSTEM_OFF, options(nostack), clobber_abi("C")) };
    stop()
}

/// Stops here.
pub fn stop() -> ! {
    loop {
        // SAFETY: WFI changes nothing.
        unsafe { asm!("wfi", options(nomem, nostack)) };
    }
}

//! All of this guest's `unsafe`: system registers, devices in memory and calls to PSCI.
//!
//! Follows Arm ARM DDI 0487K.a, Arm DEN 0022F and Arm DEN 0028E.

use core::arch::{asm, global_asm};

global_asm!(include_str!("start.s"));

const UART_DR: u64 = 0x0900_0000;
const UART_FR: u64 = 0x0900_0018;
const FR_TXFF: u32 = 1 << 5;

const CPU_OFF: u64 = 0x8400_0002;
const CPU_ON: u64 = 0xc400_0003;
const AFFINITY_INFO: u64 = 0xc400_0004;
const SYSTEM_OFF: u64 = 0x8400_0008;

/// Reads a system register that has no side effects.
macro_rules! read {
    ($register:literal) => {{
        let value: u64;
        // SAFETY: the register exists on every Armv8 CPU at EL1, and reading it changes nothing.
        unsafe { asm!(concat!("mrs {}, ", $register), out(reg) value, options(nomem, nostack)) };
        value
    }};
}

/// What AFFINITY_INFO says of a CPU (Arm DEN 0022F, AFFINITY_INFO).
#[derive(PartialEq, Eq)]
pub enum Affinity {
    /// There, and off.
    Off,
    /// On, about to be, or not there at all.
    Other,
}

/// Prints one byte on the PL011 when it has room.
pub fn put(byte: u8) {
    while load(UART_FR) & FR_TXFF != 0 {}
    store(UART_DR, u32::from(byte));
}

/// Reads a 32-bit device register of the `virt` board.
pub fn load(address: u64) -> u32 {
    let value;
    // SAFETY: every caller names a device register of the board, none of them in this guest's memory.
    unsafe { asm!("ldr {:w}, [{}]", out(reg) value, in(reg) address, options(nostack)) };
    value
}

/// Writes a 32-bit device register of the `virt` board.
pub fn store(address: u64, value: u32) {
    // SAFETY: every caller names a device register of the board, none of them in this guest's memory.
    unsafe { asm!("str {:w}, [{}]", in(reg) value, in(reg) address, options(nostack)) };
}

/// Writes a byte of a device register of the `virt` board.
pub fn store8(address: u64, value: u8) {
    // SAFETY: every caller names a device register of the board, none of them in this guest's memory.
    unsafe { asm!("strb {:w}, [{}]", in(reg) u32::from(value), in(reg) address, options(nostack)) };
}

/// Reads the exception level this runs at.
pub fn current_el() -> u64 {
    read!("CurrentEL") >> 2
}

/// Reads which CPU model this is.
pub fn midr() -> u64 {
    read!("MIDR_EL1")
}

/// Reads which CPU of the machine this is.
pub fn mpidr() -> u64 {
    read!("MPIDR_EL1")
}

/// Reads the virtual counter, in ticks.
pub fn ticks() -> u64 {
    let value: u64;
    // SAFETY: the counter exists on every Armv8 CPU; the barrier keeps the read from being made early.
    unsafe { asm!("isb", "mrs {}, CNTVCT_EL0", out(reg) value, options(nostack)) };
    value
}

/// Reads how many ticks a second has, in Hz.
pub fn ticks_per_second() -> u64 {
    read!("CNTFRQ_EL0")
}

/// Arms the virtual timer for counter value `deadline`, interrupt unmasked.
pub fn arm_timer(deadline: u64) {
    // SAFETY: the vectors are set up for the interrupt that this may cause.
    unsafe { asm!("msr CNTV_CVAL_EL0, {}", "msr CNTV_CTL_EL0, {}", "isb", in(reg) deadline, in(reg) 1_u64) };
}

/// Switches the virtual timer off.
pub fn disarm_timer() {
    // SAFETY: takes an interrupt source away, and touches no memory.
    unsafe { asm!("msr CNTV_CTL_EL0, xzr", "isb") };
}

/// Sleeps until an interrupt is pending, then takes it. Masked while asleep: it cannot slip in before the WFI.
pub fn wait_for_interrupt() {
    // SAFETY: the IRQ vector saves what it changes, and uses the stack below this frame only.
    unsafe { asm!("wfi", "msr DAIFClr, #2", "isb", "msr DAIFSet, #2") };
}

/// Says whether ID_AA64PFR0_EL1.GIC, bits [27:24], names the GICv3 system registers.
pub fn has_gic_system_registers() -> bool {
    read!("ID_AA64PFR0_EL1") >> 24 & 0xf != 0
}

/// Opens the GICv3 CPU interface for Group 1 interrupts above `priority`.
pub fn enable_gic_system_registers(priority: u64) {
    // SAFETY: `Gic::detect` saw that these registers exist; the vectors are set up.
    unsafe {
        asm!(
            "msr ICC_SRE_EL1, {one}", "isb", "msr ICC_PMR_EL1, {priority}", "msr ICC_IGRPEN1_EL1, {one}", "isb",
            one = in(reg) 1_u64, priority = in(reg) priority,
        );
    }
}

/// Acknowledges a Group 1 interrupt and returns its INTID.
pub fn acknowledge_group1() -> u32 {
    let intid: u64;
    // SAFETY: runs in the IRQ vector, on a CPU whose GIC has system registers.
    unsafe { asm!("mrs {}, ICC_IAR1_EL1", "dsb sy", out(reg) intid) };
    u32::try_from(intid & 0xff_ffff).unwrap_or(0)
}

/// Ends Group 1 interrupt `intid`.
pub fn end_group1(intid: u32) {
    // SAFETY: ends what `acknowledge_group1` began, on a CPU whose GIC has system registers.
    unsafe { asm!("msr ICC_EOIR1_EL1, {}", "isb", in(reg) u64::from(intid)) };
}

/// Asks PSCI for the state of CPU `cpu`, affinity level 0.
pub fn affinity_info(cpu: u64) -> Affinity {
    if psci(AFFINITY_INFO, cpu, 0, 0) == 1 { Affinity::Off } else { Affinity::Other }
}

/// Starts CPU `cpu` at `secondary_start`; returns PSCI's answer, 0 for success.
pub fn cpu_on(cpu: u64) -> u64 {
    let entry: u64;
    // SAFETY: takes the address of a symbol of start.s, relative to here.
    unsafe {
        asm!(
            "adrp {entry}, secondary_start", "add {entry}, {entry}, :lo12:secondary_start",
            entry = out(reg) entry, options(nomem, nostack),
        );
    }
    psci(CPU_ON, cpu, entry, cpu)
}

/// Powers this CPU off.
pub fn cpu_off() -> ! {
    psci(CPU_OFF, 0, 0, 0);
    sleep_forever()
}

/// Powers the machine off.
pub fn power_off() -> ! {
    psci(SYSTEM_OFF, 0, 0, 0);
    power_off_by_smc()
}

/// Powers the machine off where HVC is not the way: the last thing tried before sleeping for ever.
pub fn power_off_by_smc() -> ! {
    // SAFETY: SYSTEM_OFF does not return; where there is nothing to take the SMC, the exception lands in the vectors.
    unsafe { asm!("smc #0", in("x0") SYSTEM_OFF, clobber_abi("C")) };
    sleep_forever()
}

/// Calls PSCI by HVC (SMC Calling Convention) and returns its answer.
fn psci(function: u64, first: u64, second: u64, third: u64) -> u64 {
    let answer;
    // SAFETY: a PSCI call changes no memory of this guest, and x4 to x17 at most of its registers.
    unsafe {
        asm!("hvc #0", inout("x0") function => answer, in("x1") first, in("x2") second, in("x3") third,
             clobber_abi("C"));
    }
    answer
}

/// Stops here with interrupts masked.
pub fn sleep_forever() -> ! {
    loop {
        // SAFETY: WFI changes nothing.
        unsafe { asm!("wfi", options(nomem, nostack)) };
    }
}

//! All of this guest's `unsafe`: system registers, memory by address, the UART and PSCI.
//!
//! Follows Arm ARM DDI 0487K.a, D8 (translation) and D24, and Arm DEN 0022F.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;

use crate::case::EDGE;

global_asm!(include_str!("start.s"));

const UART_DR: u64 = 0x0900_0000;
const SYSTEM_OFF: u64 = 0x8400_0008;

/// SCTLR_EL1: RES1 bits, MSCEn, UCI, SPAN, DZE, I, C, M.
const SCTLR: u64 = 0x30d0_0800 | 1 << 33 | 1 << 26 | 1 << 14 | 1 << 12 | 1 << 2 | 1;
/// SCTLR_EL1.E0E: data of EL0 is big-endian.
const SCTLR_E0E: u64 = 1 << 24;
/// TCR_EL1: 39 bits of address with tags, write-back tables, TTBR0 only, 40 bits of output.
const TCR: u64 = 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 32 | 1 << 37;
/// MAIR_EL1: 0 normal write-back, 1 Device-nGnRE, 2 normal non-cacheable.
const MAIR: u64 = 0x44_04ff;

/// Blocks of 1 GiB: devices and RAM of EL1, where they are; of EL0 RAM, devices, and devices as if they were RAM.
const BLOCKS: [u64; 5] = [
    1 | 1 << 2 | 1 << 10 | 1 << 53 | 1 << 54,
    0x4000_0000 | 1 | 3 << 8 | 1 << 10 | 1 << 54,
    0x4000_0000 | 1 | 1 << 6 | 3 << 8 | 1 << 10 | 1 << 53,
    1 | 1 << 2 | 1 << 6 | 1 << 10 | 1 << 53 | 1 << 54,
    1 | 2 << 2 | 1 << 6 | 3 << 8 | 1 << 10 | 1 << 53 | 1 << 54,
];

/// Pages of 4 KiB: `case::EDGES` says which. Of level 3 with attributes as above.
const PAGES: [u64; 5] = [
    EDGE | 3 | 1 << 6 | 3 << 8 | 1 << 10 | 1 << 53,
    0x0800_0000 | 3 | 2 << 2 | 1 << 6 | 3 << 8 | 1 << 10 | 1 << 53 | 1 << 54,
    0,
    0x0800_0000 | 3 | 2 << 2 | 1 << 6 | 3 << 8 | 1 << 10 | 1 << 53 | 1 << 54,
    EDGE | 3 | 3 << 6 | 3 << 8 | 1 << 10 | 1 << 53,
];

/// A translation table.
#[repr(C, align(4096))]
struct Table(UnsafeCell<[u64; 512]>);

// SAFETY: one CPU runs, and it writes the tables once, before they are walked.
unsafe impl Sync for Table {}

/// Of levels 1, 2 and 3.
static TABLES: [Table; 3] = [const { Table(UnsafeCell::new([0; 512])) }; 3];

impl Table {
    /// Returns a descriptor that points here.
    fn descriptor(&self) -> u64 {
        let address = u64::try_from(self.0.get().expose_provenance()).unwrap_or(0);
        address | 3
    }

    /// Writes descriptors from the first on.
    fn fill(&self, descriptors: impl Iterator<Item = u64>) {
        let mut slot = self.0.get().cast::<u64>();
        for descriptor in descriptors.take(512) {
            // SAFETY: the table has 512 entries, and no walk has begun.
            unsafe { slot.write_volatile(descriptor) };
            slot = slot.wrapping_add(1);
        }
    }
}

/// All registers of EL0, before and after.
#[repr(C, align(16))]
pub struct Frame {
    /// X0 to X30 and SP.
    pub registers: [u64; 32],
    /// What ended the instructions.
    pub esr_el1: u64,
    /// Where.
    pub elr_el1: u64,
    /// V0 to V31, low half first.
    pub vectors: [u64; 64],
}

impl Frame {
    /// Makes registers of zeroes.
    pub const fn new() -> Self {
        Self { registers: [0; 32], esr_el1: 0, elr_el1: 0, vectors: [0; 64] }
    }
}

/// Maps what the guest uses where it is, and turns the MMU and the caches on.
pub fn enable_mmu() {
    let [first, second, third] = &TABLES;
    third.fill(PAGES.into_iter());
    second.fill([third.descriptor()].into_iter());
    first.fill(BLOCKS.into_iter().chain([second.descriptor()]));
    // SAFETY: code, stack and devices are mapped where they are.
    unsafe {
        asm!(
            "msr MAIR_EL1, {mair}", "msr TCR_EL1, {tcr}", "msr TTBR0_EL1, {table}", "dsb sy", "isb",
            "tlbi vmalle1", "dsb nsh", "isb", "msr SCTLR_EL1, {sctlr}", "isb",
            mair = in(reg) MAIR, tcr = in(reg) TCR, table = in(reg) first.0.get(), sctlr = in(reg) SCTLR,
        );
    }
}

/// Reads a double word of memory that no Rust reference points to.
pub fn read(at: u64) -> u64 {
    let value;
    // SAFETY: the callers name memory of the board that is mapped, outside this image.
    unsafe { asm!("ldr {}, [{}]", out(reg) value, in(reg) at, options(nostack)) };
    value
}

/// Reads a double word of such memory, or of a device, in two halves.
pub fn read_halves(at: u64) -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: as for `read`; the callers name no device whose reads do anything.
    unsafe {
        asm!("ldr {low:w}, [{at}]", "ldr {high:w}, [{at}, #4]", low = out(reg) low, high = out(reg) high, at = in(reg) at,
             options(nostack));
    }
    low | high << 32
}

/// Writes a double word of such memory, or of a device, in two halves.
pub fn write_halves(at: u64, value: u64) {
    // SAFETY: as for `read_halves`.
    unsafe {
        asm!("str {low:w}, [{at}]", "str {high:w}, [{at}, #4]", low = in(reg) value, high = in(reg) value >> 32, at = in(reg) at,
             options(nostack));
    }
}

/// Writes instructions where EL0 executes them.
pub fn write_code(at: u64, [first, second, third, fourth]: [u32; 4]) {
    // SAFETY: as for `read`; the instructions are fetched anew.
    unsafe {
        asm!(
            "stp {first:w}, {second:w}, [{at}]", "stp {third:w}, {fourth:w}, [{at}, #8]", "dc cvau, {at}", "dsb ish",
            "ic ivau, {at}", "dsb ish", "isb",
            first = in(reg) first, second = in(reg) second, third = in(reg) third,
            fourth = in(reg) fourth, at = in(reg) at,
        );
    }
}

/// Executes what is at `at` with the registers of the frame, up to an exception.
pub fn execute_at_el0(frame: &mut Frame, at: u64, big_endian: bool) {
    let sctlr = if big_endian { SCTLR | SCTLR_E0E } else { SCTLR };
    // SAFETY: `execute` of start.s keeps what a function must keep, in floating point too, since there is none here. EL0
    // writes nothing but its own GiB.
    unsafe {
        asm!(
            "msr SCTLR_EL1, {sctlr}", "isb", "bl execute",
            sctlr = in(reg) sctlr, inout("x0") frame => _, in("x1") at, clobber_abi("C"),
        );
    }
}

/// Says a byte.
pub fn put(byte: u8) {
    // SAFETY: the data register of the board's UART, which QEMU always takes at once.
    unsafe { asm!("strb {:w}, [{}]", in(reg) u32::from(byte), in(reg) UART_DR, options(nostack)) };
}

/// Powers the machine off.
pub fn power_off() -> ! {
    // SAFETY: does not return.
    unsafe { asm!("hvc #0", in("x0") SYSTEM_OFF) };
    loop {
        // SAFETY: waits.
        unsafe { asm!("wfi", options(nomem, nostack)) };
    }
}

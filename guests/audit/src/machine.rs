//! Runs a probe: any registers, any PC, any PSTATE, until an exception to EL1 ends it.
//!
//! Not here: what is probed. All of this guest's own `unsafe` is.
//! Follows Arm ARM DDI 0487K.a, D1.3 (exceptions).

use crate::console;
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use trapeze_kit::{cache, exception};

global_asm!(include_str!("probe.s"));

/// Instructions that the buffer holds: one page.
pub const SLOT_WORDS: usize = 1024;
/// Bytes that probes may read and write.
pub const SCRATCH_BYTES: u64 = 2 << 20;

/// Registers of a probe, before and after it. probe.s knows the offsets.
#[repr(C)]
struct Context {
    x: [u64; 31],
    sp: u64,
    pc: u64,
    pstate: u64,
    esr: u64,
    far: u64,
    vector: u64,
    caller: [u64; 14],
}

const _: () = assert!(core::mem::offset_of!(Context, pc) == 0x100);
const _: () = assert!(core::mem::offset_of!(Context, esr) == 0x110);
const _: () = assert!(core::mem::offset_of!(Context, caller) == 0x128);

/// A static that this guest's only CPU writes.
#[repr(C, align(4096))]
struct Page<T>(UnsafeCell<T>);

/// As [`Page`], at a multiple of the largest size of a block.
#[repr(C, align(2097152))]
struct Block<T>(UnsafeCell<T>);

// SAFETY: one CPU, and interrupts are masked outside of probes.
unsafe impl<T> Sync for Page<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Block<T> {}

#[unsafe(no_mangle)]
static CONTEXT: Page<Context> = Page(UnsafeCell::new(Context {
    x: [0; 31],
    sp: 0,
    pc: 0,
    pstate: 0,
    esr: 0,
    far: 0,
    vector: 0,
    caller: [0; 14],
}));
static SLOT: Page<[u32; SLOT_WORDS]> = Page(UnsafeCell::new([0; SLOT_WORDS]));
#[unsafe(link_section = ".noinit")]
static SCRATCH: Block<[u8; SCRATCH_BYTES as usize]> = Block(UnsafeCell::new([0; SCRATCH_BYTES as usize]));

/// What to run, and with which registers.
pub struct Start {
    /// X0 to X30.
    pub x: [u64; 31],
    /// Both stack pointers.
    pub sp: u64,
    /// The first instruction.
    pub pc: u64,
    /// PSTATE, in the layout of SPSR_EL1.
    pub pstate: u64,
}

/// How it ended: an exception to EL1, always.
#[derive(Clone, Copy)]
pub struct End {
    /// X0 to X2.
    pub x: [u64; 3],
    /// PSTATE at that moment.
    pub pstate: u64,
    /// ESR_EL1.
    pub esr: u64,
    /// Number of the vector, 0 to 15.
    pub vector: u64,
    /// Sum of X0 to X30, PC and PSTATE.
    pub sum: u64,
}

unsafe extern "C" {
    /// Runs the probe that the context describes, with vectors of its own.
    fn run_probe(context: *mut Context);
    static relr_start: u8;
}

/// Runs until an exception ends it.
pub fn run(start: &Start) -> End {
    let context = CONTEXT.0.get();
    let before = Context {
        x: start.x,
        sp: start.sp,
        pc: start.pc,
        pstate: start.pstate,
        esr: 0,
        far: 0,
        vector: 0,
        caller: [0; 14],
    };
    // SAFETY: the only user of the context besides the vectors, which do not run before `run_probe`.
    unsafe { context.write_volatile(before) };
    // SAFETY: the vectors bring control back here with the callee-saved registers and the stack of before. What the
    // probe writes elsewhere is confined by what `sweep` and `random` choose to run.
    unsafe { run_probe(context) };
    // SAFETY: as above: the vectors are done.
    let after = unsafe { context.read_volatile() };
    let [x0, x1, x2, ..] = after.x;
    let sum =
        after.x.iter().fold(after.pc ^ after.pstate << 32, |sum, x| sum.rotate_left(7).wrapping_add(*x));
    End { x: [x0, x1, x2], pstate: after.pstate, esr: after.esr, vector: after.vector, sum }
}

/// Sets what a word may have changed and the next needs: the way of the timer's interrupt through a CPU interface in
/// system registers, no debug exceptions, CPACR_EL1, CNTKCTL_EL1 and CNTV_CTL_EL0.
pub fn open_for_words(has_icc: bool, [cpacr, cntkctl, cntv_ctl]: [u64; 3]) {
    if has_icc {
        // SAFETY: the GIC has system registers; interrupts are masked, and nothing is active between words.
        unsafe {
            asm!("msr ICC_CTLR_EL1, xzr", "msr ICC_AP0R0_EL1, xzr", "msr ICC_AP1R0_EL1, xzr", "msr ICC_PMR_EL1, {}",
                 "msr ICC_IGRPEN1_EL1, {}", in(reg) 0xff_u64, in(reg) 1_u64, options(nostack));
        }
    }
    // SAFETY: opens things to EL0 and switches debug exceptions off; `run` has an ISB before the probe.
    unsafe {
        asm!("msr MDSCR_EL1, xzr", "msr CPACR_EL1, {}", "msr CNTKCTL_EL1, {}", "msr CNTV_CTL_EL0, {}",
             in(reg) cpacr, in(reg) cntkctl, in(reg) cntv_ctl, options(nostack));
    }
}

/// Returns the address of the buffer for instructions.
pub fn slot() -> u64 {
    SLOT.0.get().addr() as u64
}

/// Writes instructions into the buffer and makes them visible to fetches.
pub fn load_slot(words: &[u32]) {
    let target = SLOT.0.get().cast::<u32>();
    for (index, word) in words.iter().take(SLOT_WORDS).enumerate() {
        // SAFETY: `index` is below SLOT_WORDS, so the address is inside SLOT, which nobody else uses now.
        let place = unsafe { target.add(index) };
        // SAFETY: as above, aligned as SLOT is.
        unsafe { place.write_volatile(*word) };
    }
    cache::make_executable(slot(), 4 * words.len() as u64);
}

/// Returns the first byte of the memory that probes may use, at a multiple of its size.
pub fn scratch() -> u64 {
    SCRATCH.0.get().addr() as u64
}

/// Sums up this kernel's code and constants: tells one build from another.
pub fn fingerprint() -> u64 {
    let (start, end) = (exception::image_start(), (&raw const relr_start).addr() as u64);
    // SAFETY: what guest.ld places before `relr_start` is code and constants, which nothing writes.
    console::fnv_of(unsafe { core::slice::from_raw_parts(start as *const u8, (end - start) as usize) })
}

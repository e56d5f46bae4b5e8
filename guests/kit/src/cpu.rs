//! What each CPU of the guest has: a slot, a stack of 32 KiB, and a block that assembly and handlers share.
//!
//! A CPU finds its slot by its stack: no system register is taken from the guest for it.

use core::arch::asm;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

/// CPUs that there are slots for.
pub const MAX_CPUS: usize = 8;
/// Bytes of a [`Cpu`] as a power of two.
pub const CPU_BYTES_LOG2: usize = 8;
const STACK_BYTES_LOG2: u32 = 15;
const _: () = assert!(size_of::<Cpu>() == 1 << CPU_BYTES_LOG2);

/// A CPU's block; start.s knows the first eight words.
#[repr(C, align(256))]
pub struct Cpu {
    /// X0 when the CPU started: device tree, or context ID of CPU_ON.
    pub entry_x0: AtomicU64,
    /// SCTLR_EL1 then.
    pub entry_sctlr: AtomicU64,
    /// DAIF then.
    pub entry_daif: AtomicU64,
    /// CurrentEL then.
    pub entry_el: AtomicU64,
    /// MAIR_EL1, TCR_EL1, TTBR0_EL1 and SCTLR_EL1 that a further CPU is to run with.
    pub(crate) regime: [AtomicU64; 4],
    /// Function of a further CPU, and its argument.
    pub(crate) function: AtomicU64,
    pub(crate) argument: AtomicU64,
    /// 1 once the function of a further CPU has returned.
    pub(crate) has_finished: AtomicU64,
    /// 1 inside `exception::catch`.
    pub(crate) expecting: AtomicU64,
    /// Exceptions caught, and the first of them: ESR, ELR, FAR, SPSR, vector.
    pub(crate) caught: AtomicU64,
    pub(crate) last_caught: AtomicU64,
    pub(crate) exception: [AtomicU64; 5],
    /// Frame that runs at EL0, or 0, and the stack pointer to return with.
    pub(crate) el0_frame: AtomicU64,
    pub(crate) el0_stack: AtomicU64,
}

#[unsafe(export_name = "kit_cpus")]
static CPUS: [Cpu; MAX_CPUS] = [const { Cpu::new() }; MAX_CPUS];

impl Cpu {
    const fn new() -> Self {
        Self {
            entry_x0: AtomicU64::new(0),
            entry_sctlr: AtomicU64::new(0),
            entry_daif: AtomicU64::new(0),
            entry_el: AtomicU64::new(0),
            regime: [const { AtomicU64::new(0) }; 4],
            function: AtomicU64::new(0),
            argument: AtomicU64::new(0),
            has_finished: AtomicU64::new(0),
            expecting: AtomicU64::new(0),
            caught: AtomicU64::new(0),
            last_caught: AtomicU64::new(0),
            exception: [const { AtomicU64::new(0) }; 5],
            el0_frame: AtomicU64::new(0),
            el0_stack: AtomicU64::new(0),
        }
    }

    /// Returns the block of slot `slot`.
    pub fn of(slot: usize) -> &'static Self {
        &CPUS[slot]
    }

    /// Returns the block of this CPU.
    pub fn this() -> &'static Self {
        Self::of(slot())
    }

    /// Says whether this CPU started with the MMU off, at EL1 and all masked, and X0 was `x0`.
    pub fn started_as_reset(&self, x0: u64) -> bool {
        self.entry_x0.load(Relaxed) == x0
            && self.entry_el.load(Relaxed) == 1 << 2
            && self.entry_daif.load(Relaxed) == 0xf << 6
            && self.entry_sctlr.load(Relaxed) & 0x1005 == 0
    }
}

/// Returns this CPU's slot, 0 for the boot CPU. Only with SP_EL1 selected, as ever but in a test of SP_EL0.
pub fn slot() -> usize {
    let stack: u64;
    // SAFETY: reads the stack pointer.
    unsafe { asm!("mov {}, sp", out(reg) stack, options(nomem, nostack, preserves_flags)) };
    slot_of_stack(stack)
}

/// Returns the slot whose stack `address` is in.
pub(crate) fn slot_of_stack(address: u64) -> usize {
    let start: u64;
    // SAFETY: takes the address of a linker symbol, relative to here.
    unsafe {
        asm!("adrp {0}, stacks_start", "add {0}, {0}, :lo12:stacks_start", out(reg) start,
             options(nomem, nostack, preserves_flags));
    }
    // A stack's top is the next one's bottom.
    (((address - start - 1) >> STACK_BYTES_LOG2) as usize).min(MAX_CPUS - 1)
}

/// Reads the affinity fields of this CPU's MPIDR_EL1, as PSCI takes them.
pub fn affinity() -> u64 {
    crate::mrs!("MPIDR_EL1") & 0xff_00ff_ffff
}

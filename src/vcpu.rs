//! One virtual CPU: registers and run state, plain data.
//!
//! Not here: EL1 system registers. A vCPU that owns its physical CPU keeps them in the hardware.
//! Follows Arm ARM DDI 0487K.a, B1.2 (general-purpose registers) and C5.2.19 (SPSR_EL2).

use crate::dispatcher::cause::{CLASSES, Cause};
use crate::ids::{Gpr, VcpuId};
use crate::interpreter::device::ptimer::PhysicalTimer;
use crate::interpreter::device::vgic::ListRegisters;

/// PSTATE after a reset or PSCI CPU_ON: EL1 with SP_EL1, D, A, I and F masked (Arm DEN 0022F, 6.4.3).
const PSTATE_AT_START: u64 = 0b1111 << 6 | 0b0101;

/// PSTATE images as SPSR_EL2 holds them (Arm ARM DDI 0487K.a, C5.2.19).
mod pstate {
    pub const AARCH32: u64 = 1 << 4;
    pub const SS: u64 = 1 << 21;
    /// AArch64 only.
    pub const BTYPE: u64 = 0b11 << 10;
    /// AArch32 only: IT[7:2] and IT[1:0].
    pub const IT: u64 = 0b11_1111 << 10 | 0b11 << 25;
}

/// What the vectors save and restore on every exit. `arch` reads it from assembly.
#[repr(C)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// X0 to X30.
    pub x: [u64; 31],
    /// Where the guest goes on: ELR_EL2.
    pub pc: u64,
    /// The guest's PSTATE: SPSR_EL2.
    pub pstate: u64,
}

impl Frame {
    /// Makes the registers of a CPU that starts at `entry` with `context` in X0.
    #[must_use]
    pub fn at_start(entry: u64, context: u64) -> Self {
        let mut x = [0; 31];
        x[0] = context;
        Self { x, pc: entry, pstate: PSTATE_AT_START }
    }

    /// Reads a register operand; XZR is 0.
    #[must_use]
    pub fn get(&self, register: Gpr) -> u64 {
        register.index().and_then(|index| self.x.get(index)).copied().unwrap_or(0)
    }

    /// Writes a register operand; a write to XZR is lost.
    pub fn set(&mut self, register: Gpr, value: u64) {
        if let Some(slot) = register.index().and_then(|index| self.x.get_mut(index)) {
            *slot = value;
        }
    }

    /// Goes on behind an instruction of that many bytes that was executed on the guest's behalf.
    ///
    /// What each instruction does to PSTATE when it completes is done as well: the single step is over
    /// (SSAdvance), no branch was the last instruction (BTypeNext), an IT block is one instruction shorter
    /// (AArch32.ITAdvance; Arm ARM DDI 0487K.a, J1).
    pub fn step(&mut self, instruction_bytes: u64) {
        self.pc = self.pc.wrapping_add(instruction_bytes);
        self.pstate = if self.pstate & pstate::AARCH32 == 0 {
            self.pstate & !(pstate::SS | pstate::BTYPE)
        } else {
            advance_it(self.pstate & !pstate::SS)
        };
    }

    /// Tells whether the guest was at EL0.
    #[must_use]
    pub fn is_el0(&self) -> bool {
        self.pstate & 0b1111 == 0
    }
}

/// Shortens the IT block of an AArch32 PSTATE by one instruction: ITSTATE is IT[7:5], the base condition, and IT[4:0],
/// which moves to the left until its lower three bits are used up.
#[cold]
const fn advance_it(pstate: u64) -> u64 {
    let it = (pstate >> 10 & 0b11_1111) << 2 | pstate >> 25 & 0b11;
    let it = if it & 0b111 == 0 { 0 } else { it & 0b1110_0000 | it << 1 & 0b1_1111 };
    pstate & !pstate::IT | (it >> 2) << 10 | (it & 0b11) << 25
}

/// How often each kind of exit happened.
#[derive(Clone, Debug)]
pub struct Exits {
    /// Synchronous exits by ESR_EL2.EC.
    pub by_class: [u32; CLASSES],
    /// Physical interrupts.
    pub interrupts: u32,
}

impl Exits {
    /// Counts nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { by_class: [0; CLASSES], interrupts: 0 }
    }

    /// Counts a synchronous exit.
    pub fn count(&mut self, cause: &Cause) {
        if let Some(count) = self.by_class.get_mut(cause.class_index()) {
            *count = count.wrapping_add(1);
        }
    }

    /// Returns the number of all exits and counts from 0 again.
    #[must_use]
    pub fn take_total(&mut self) -> u64 {
        core::mem::take(self).total()
    }

    /// Returns the number of all exits.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_class.iter().chain([&self.interrupts]).map(|count| u64::from(*count)).sum()
    }
}

impl Default for Exits {
    fn default() -> Self {
        Self::new()
    }
}

/// A virtual CPU.
#[derive(Debug)]
pub struct Vcpu {
    /// Registers that every exit saves.
    pub frame: Frame,
    /// Which vCPU of its VM this is.
    pub id: VcpuId,
    /// What the list registers hold while it runs.
    pub lists: ListRegisters,
    /// The EL1 physical timer, emulated.
    pub physical_timer: PhysicalTimer,
    /// Whether it was given the debug registers.
    pub has_debug: bool,
    /// Exit counts.
    pub exits: Exits,
}

impl Vcpu {
    /// Makes a vCPU that is off, for a CPU with that many list registers.
    #[must_use]
    pub fn new(id: VcpuId, list_registers: u8) -> Self {
        Self {
            frame: Frame::at_start(0, 0),
            id,
            lists: ListRegisters::new(list_registers),
            physical_timer: PhysicalTimer::new(),
            has_debug: false,
            exits: Exits::new(),
        }
    }

    /// Gives the vCPU the state of a CPU that starts; exit counts go on.
    pub fn start(&mut self, entry: u64, context: u64) {
        self.frame = Frame::at_start(entry, context);
        self.physical_timer = PhysicalTimer::new();
        self.has_debug = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn register_31_reads_zero_and_swallows_writes() {
        let mut frame = Frame::at_start(0x4000, 7);
        frame.set(Gpr::XZR, 5);
        assert_eq!(frame.get(Gpr::XZR), 0);
        assert_eq!((frame.get(Gpr::new(0)), frame.pc, frame.pstate), (7, 0x4000, 0x3c5));
        assert!(!frame.is_el0());
    }

    /// A PSTATE image of AArch32 with an IT block.
    fn thumb(it: u64) -> u64 {
        0x30 | it >> 2 << 10 | (it & 3) << 25
    }

    #[test]
    fn a_step_ends_the_single_step_and_the_branch_type() {
        let mut frame = Frame::at_start(u64::MAX - 1, 0);
        frame.pstate |= 1 << 21 | 0b11 << 10 | 0xf << 28;
        frame.step(4);
        assert_eq!((frame.pc, frame.pstate), (2, 0x3c5 | 0xf << 28));
    }

    #[test]
    fn a_step_shortens_an_it_block_to_its_end() {
        let mut frame = Frame::at_start(0x8000, 0);
        frame.pstate = thumb(0b0000_0101) | 1 << 21; // ITTT EQ: four instructions
        for (left, pc) in [(0b0000_1010, 0x8002), (0b0001_0100, 0x8004), (0b0000_1000, 0x8006), (0, 0x8008)] {
            frame.step(2);
            assert_eq!((frame.pc, frame.pstate), (pc, thumb(left)), "{left:#010b}");
        }
        frame.pstate = thumb(0b1110_0110);
        frame.step(4);
        assert_eq!(frame.pstate, thumb(0b1110_1100), "the base condition stays");
    }

    #[test]
    fn exits_are_counted_by_class_and_as_a_whole() {
        let mut exits = Exits::new();
        for class in [0x16, 0x16, 0x24, 0x3f] {
            exits.count(&Cause::decode(class << 26, 0, 0));
        }
        exits.interrupts = 5;
        assert_eq!((exits.by_class[0x16], exits.by_class[0x24], exits.by_class[0x3f]), (2, 1, 1));
        assert_eq!((exits.total(), exits.take_total(), exits.total()), (9, 9, 0));
    }

    #[test]
    fn counting_wraps_and_goes_on() {
        let mut exits = Exits::default();
        exits.by_class[0x16] = u32::MAX;
        exits.interrupts = u32::MAX;
        assert_eq!(exits.total(), 2 * u64::from(u32::MAX));
        exits.count(&Cause::decode(0x16 << 26, 0, 0));
        assert_eq!(exits.by_class[0x16], 0);
    }

    #[test]
    fn a_vcpu_that_starts_has_nothing_of_its_former_life() {
        use crate::ids::Ticks;
        use crate::interpreter::device::ptimer::Register;

        let mut vcpu = Vcpu::new(VcpuId(2), 4);
        vcpu.frame.x = [u64::MAX; 31];
        vcpu.frame.pstate = 0;
        vcpu.has_debug = true;
        vcpu.physical_timer.write(Register::Control, 1, Ticks(0));
        vcpu.exits.interrupts = 3;
        vcpu.start(0x4008_0000, 9);
        assert_eq!(vcpu.frame, Frame::at_start(0x4008_0000, 9));
        assert!(!vcpu.has_debug && !vcpu.physical_timer.line(Ticks(1)));
        assert_eq!((vcpu.id, vcpu.exits.total()), (VcpuId(2), 3), "it is the same vCPU");
    }

    #[test]
    fn an_application_of_either_state_is_at_el0() {
        let mut frame = Frame::at_start(0, 0);
        for (pstate, is_el0) in [(0, true), (0x10, true), (0x6000_0030, true), (0x3c4, false), (0x3c5, false)]
        {
            frame.pstate = pstate;
            assert_eq!(frame.is_el0(), is_el0, "{pstate:#x}");
        }
    }
}

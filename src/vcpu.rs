//! One virtual CPU: registers and run state, plain data.
//!
//! Not here: moving registers between a vCPU and the CPU that runs it. While it runs, the CPU has those in [`World`].
//! Follows Arm ARM DDI 0487K.a, B1.2 (general-purpose registers) and C5.2.19 (SPSR_EL2).

use alloc::boxed::Box;

use crate::addr::GuestVa;
use crate::dispatcher::cause::CLASSES;
use crate::dispatcher::traps::Grants;
use crate::ids::{Gpr, VcpuId};
use crate::interpreter::device::ptimer::PhysicalTimer;
use crate::interpreter::device::vgic::ListRegisters;
use crate::interpreter::translation::Attempt;
use crate::registers::{Debug, El1, Keys, Monitors, Opening};
use instructions::{Exclusive, Vectors};

/// PSTATE after a reset or PSCI CPU_ON: EL1 with SP_EL1, D, A, I and F masked (Arm DEN 0022F, 6.4.3).
const PSTATE_AT_START: u64 = 0b1111 << 6 | 0b0101;
/// PSTATE.nRW: AArch32, where the bits of BTYPE mean something else.
const PSTATE_NRW: u64 = 1 << 4;
/// PSTATE.PAN: EL1 must not access what EL0 may.
const PSTATE_PAN: u64 = 1 << 22;
/// PSTATE.UAO: unprivileged loads and stores of EL1 are privileged.
const PSTATE_UAO: u64 = 1 << 23;
/// PSTATE.BTYPE: how the instruction was branched to.
const PSTATE_BTYPE: u64 = 0b11 << 10;
/// PSTATE.SS: a software step is due after the next instruction.
const PSTATE_SS: u64 = 1 << 21;
/// PSTATE.IT\[7:2\] and IT\[1:0\] of an AArch32 guest: the rest of its If-Then block.
const PSTATE_IT_HIGH: u64 = 0b11_1111 << 10;
const PSTATE_IT_LOW: u64 = 0b11 << 25;

/// What the vectors save and restore on every exit. `arch` reads it from assembly, with SP_EL2 pointing at it: an SP
/// that is used has to be 16-byte aligned (SCTLR_EL2.SA).
#[repr(C, align(16))]
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

    /// Goes on behind an instruction of `bytes` that was emulated: it ends the effect of a branch before it (BTYPE), its
    /// place in an If-Then block (IT), and a software step (SS; Arm ARM DDI 0487K.a, C5.2.19).
    #[inline]
    pub fn step(&mut self, bytes: u64) {
        self.pc = self.pc.wrapping_add(bytes);
        if self.pstate & PSTATE_NRW == 0 {
            self.pstate &= !(PSTATE_SS | PSTATE_BTYPE);
        } else {
            self.pstate &= !PSTATE_SS;
            self.advance_it();
        }
    }

    /// Tells whether the guest was in AArch32.
    #[must_use]
    pub const fn is_aarch32(&self) -> bool {
        self.pstate & PSTATE_NRW != 0
    }

    /// Tells whether the guest used SP_EL1, in AArch64.
    #[must_use]
    pub const fn uses_sp_el1(&self) -> bool {
        self.pstate & 0b1111 == 0b0101
    }

    /// Returns PSTATE.N, Z, C and V, in bits 3 to 0.
    #[must_use]
    pub const fn nzcv(&self) -> u8 {
        let [_, _, _, high, ..] = self.pstate.to_le_bytes();
        high >> 4
    }

    /// Says how a load or store accesses memory, in AArch64.
    #[must_use]
    pub fn attempt(&self, write: bool, unprivileged: bool) -> Attempt {
        let el0 = self.is_el0() || unprivileged && self.pstate & PSTATE_UAO == 0;
        Attempt { write, el0, pan: !el0 && self.pstate & PSTATE_PAN != 0 }
    }

    /// Takes one instruction off an If-Then block (Arm ARM DDI 0487K.a, AArch32.ITAdvance).
    #[cold]
    #[inline(never)]
    fn advance_it(&mut self) {
        let it = (self.pstate >> 8 & 0b1111_1100) | (self.pstate >> 25 & 0b11);
        let next = if it & 0b111 == 0 { 0 } else { it & 0b1110_0000 | it << 1 & 0b1_1111 };
        self.pstate &= !(PSTATE_IT_HIGH | PSTATE_IT_LOW);
        self.pstate |= (next & 0b1111_1100) << 8 | (next & 0b11) << 25;
    }

    /// Tells whether the guest was at EL0.
    #[must_use]
    pub fn is_el0(&self) -> bool {
        self.pstate & 0b1111 == 0
    }
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

    /// Counts a synchronous exit of an ESR_EL2.EC.
    #[inline]
    pub fn count(&mut self, class: usize) {
        if let Some(count) = self.by_class.get_mut(class) {
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

/// SIMD&FP registers.
#[repr(C, align(16))]
#[derive(Debug)]
pub struct FloatingPoint {
    /// V0 to V31.
    pub vectors: Vectors,
    /// FPCR.
    pub fpcr: u64,
    /// FPSR.
    pub fpsr: u64,
}

/// The CPU interface of the guest's interrupt controller, but for the list registers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuInterface {
    /// ICH_VMCR_EL2 or GICH_VMCR: what of its registers the guest can write.
    pub control: u32,
    /// `ICH_AP0R<n>_EL2`: active priorities of Group 0. The first is GICH_APR of a GICv2.
    pub active_group0: [u32; 4],
    /// `ICH_AP1R<n>_EL2`: active priorities of Group 1.
    pub active_group1: [u32; 4],
    /// ICC_SRE_EL1 of a GICv3.
    pub sre_el1: u64,
}

impl CpuInterface {
    /// Groups off and PMR 0, as after a reset; system registers, where there is a choice.
    #[must_use]
    pub const fn new() -> Self {
        Self { control: 0, active_group0: [0; 4], active_group1: [0; 4], sre_el1: 0b111 }
    }
}

impl Default for CpuInterface {
    fn default() -> Self {
        Self::new()
    }
}

/// Debug registers of a vCPU that was granted them.
#[derive(Clone, Debug, Default)]
pub struct DebugWorld {
    /// Those that every CPU has.
    pub common: Debug,
    /// `DBGBVR<n>_EL1` and `DBGBCR<n>_EL1`.
    pub breakpoints: [(u64, u64); 16],
    /// `DBGWVR<n>_EL1` and `DBGWCR<n>_EL1`.
    pub watchpoints: [(u64, u64); 16],
    /// OSLSR_EL1.OSLK.
    pub is_locked: bool,
    /// DBGCLAIMCLR_EL1: the claim tags.
    pub claim: u64,
}

/// Performance monitors of a vCPU that was granted them.
#[derive(Clone, Debug, Default)]
pub struct MonitorWorld {
    /// Those that every CPU has.
    pub common: Monitors,
    /// PMCNTENSET_EL0: which counters count.
    pub enabled: u64,
    /// PMINTENSET_EL1: which interrupt.
    pub interrupting: u64,
    /// PMOVSSET_EL0: which have overflowed.
    pub overflowed: u64,
    /// `PMEVCNTR<n>_EL0` and `PMEVTYPER<n>_EL0`.
    pub counters: [(u64, u64); 31],
}

/// What a CPU has of a vCPU while it runs it, in registers; and the vCPU itself while it does not run.
#[derive(Debug)]
pub struct World {
    /// EL1 and EL0.
    pub el1: El1,
    /// What opens EL1.
    pub opening: Opening,
    /// Pointer authentication.
    pub keys: Keys,
    /// The interrupt controller's CPU interface.
    pub interface: CpuInterface,
    /// HCR_EL2.VSE: a virtual SError is pending.
    pub has_serror: bool,
    /// VDISR_EL2: what the guest reads as DISR_EL1.
    pub disr_el1: u64,
    /// SIMD&FP registers, also while the vCPU runs, until it uses them.
    pub floating_point: FloatingPoint,
    /// Debug registers, once the vCPU was switched after it got them.
    pub debug: Option<Box<DebugWorld>>,
    /// Performance monitors, likewise.
    pub monitors: Option<Box<MonitorWorld>>,
}

impl World {
    /// Returns the registers as a reset leaves them; SCTLR_EL1 as given.
    #[must_use]
    pub fn at_reset(sctlr_el1: u64) -> Self {
        Self {
            el1: El1::default(),
            opening: Opening { sctlr_el1, ..Opening::default() },
            keys: Keys::default(),
            interface: CpuInterface::new(),
            has_serror: false,
            disr_el1: 0,
            floating_point: FloatingPoint { vectors: Vectors([0; 512]), fpcr: 0, fpsr: 0 },
            debug: None,
            monitors: None,
        }
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
    /// What it was given on first use.
    pub granted: Grants,
    /// The exclusive monitor of emulated devices.
    pub monitor: Option<Exclusive>,
    /// A page that the guest's own tables were seen to map as Device memory, where it last accessed the start of one: there
    /// no access is in two pages.
    pub device_page: Option<GuestVa>,
    /// Exit counts.
    pub exits: Exits,
    /// Registers that the CPU has while it runs the vCPU.
    pub world: World,
    /// The CPU has the vCPU's SIMD&FP registers, and its first use of them no longer traps.
    pub has_floating_point: bool,
    /// Private physical interrupts that are let through for it, one bit for each INTID.
    pub heard: u32,
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
            granted: Grants::NONE,
            monitor: None,
            device_page: None,
            exits: Exits::new(),
            world: World::at_reset(0),
            has_floating_point: false,
            heard: 0,
        }
    }

    /// Gives the vCPU the state of a CPU that starts, with `sctlr_el1` in that register; exit counts go on.
    pub fn start(&mut self, entry: u64, context: u64, sctlr_el1: u64) {
        self.frame = Frame::at_start(entry, context);
        self.lists = ListRegisters::new(self.lists.count);
        self.world = World::at_reset(sctlr_el1);
        self.has_floating_point = false;
        self.heard = 0;
        self.physical_timer = PhysicalTimer::new();
        self.granted = Grants::NONE;
        self.device_page = None;
        self.monitor = None;
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

    #[test]
    fn a_step_ends_a_branch_and_a_software_step() {
        let mut frame = Frame::at_start(0x4000, 0);
        frame.pstate |= PSTATE_SS | PSTATE_BTYPE;
        frame.step(4);
        assert_eq!((frame.pc, frame.pstate), (0x4004, 0x3c5));
    }

    #[test]
    fn a_step_takes_its_instruction_off_the_if_then_block() {
        // ITTE EQ: the condition in IT[7:5], one bit for each instruction that is left below it.
        let pstate = |it: u64| PSTATE_NRW | (it & 0xfc) << 8 | (it & 3) << 25;
        let mut thumb = Frame { pstate: pstate(0b0000_0110) | PSTATE_SS, ..Frame::at_start(0x4004, 0) };
        for (pc, it) in [(0x4006, 0b0000_1100), (0x4008, 0b0001_1000), (0x400a, 0), (0x400c, 0)] {
            thumb.step(2);
            assert_eq!((thumb.pc, thumb.pstate), (pc, pstate(it)));
        }
        let mut last = Frame { pstate: pstate(0b1010_1000), ..Frame::at_start(0, 0) };
        last.step(4);
        assert_eq!(last.pstate, PSTATE_NRW);
    }
}

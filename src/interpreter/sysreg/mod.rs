//! What a trapped MRS, MSR or SYS would have done.
//!
//! Not here: doing it when it needs hardware, another device's state or a resource: the [`Outcome`] says so and the
//! dispatcher takes it there. Nor AArch32 accesses: an application that reaches one of these gets UNDEFINED.
//!
//! What a VM does not have is not in these tables and so is UNDEFINED: SPE, trace, TRBE, BRBE, AMU, MPAM, error
//! records (RAS), LORegions, SVE, SME, MTE, SCXTNUM, ALLINT.
//!
//! Follows Arm ARM DDI 0487K.a and, for ICC registers, Arm IHI 0069H (each register's description); for the
//! IMPLEMENTATION DEFINED space the Technical Reference Manuals that `implementation_defined` names.

mod implementation_defined;
mod register;

pub use register::{Direction, GuestLevel, SystemRegister, SystemRegisterAccess};

use crate::addr::Ipa;
use crate::dispatcher::traps::Grants;
use crate::ids::IntId;
use crate::interpreter::id_registers::{CpuInterface, IdRegisters};

/// ICC_SRE_EL1 of a CPU interface that has system registers only: DIB, DFB and SRE (Arm IHI 0069H, ICC_SRE_EL1).
const SYSTEM_REGISTERS_ONLY: u64 = 0b111;
/// INTID field of ICC_DIR_EL1 (Arm IHI 0069H, ICC_DIR_EL1).
const DIR_INTID: u64 = 0x00ff_ffff;

/// What a vCPU's identification registers say; the same for every exit, so computed once.
#[derive(Clone, Debug)]
pub struct Processor {
    /// The feature registers, as the VM sees them.
    pub ids: IdRegisters,
    /// How the vCPU reaches its GIC CPU interface.
    pub cpu_interface: CpuInterface,
    /// MIDR_EL1: decides which IMPLEMENTATION DEFINED registers there are.
    pub midr_el1: u64,
    /// REVIDR_EL1 of the host; read through a trap only where SME exists (HCR_EL2.TID1).
    pub revidr_el1: u64,
    /// AIDR_EL1 of the host; as REVIDR_EL1.
    pub aidr_el1: u64,
    /// ACTLR_EL1 of the host as EL1 would read it.
    pub actlr_el1: u64,
    /// Number of vCPUs in the VM.
    pub vcpus: u8,
    /// Where the VM's GIC starts: PERIPHBASE of the processors that have one.
    pub peripheral_base: Ipa,
}

/// Which SGIs a write to an SGI register can generate where there is one security state
/// (GICD_CTLR.DS is 1; Arm IHI 0069H, ICC_SGI0R_EL1, ICC_SGI1R_EL1 and ICC_ASGI1R_EL1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SgiGroup {
    /// Those configured as Group 0 only: ICC_SGI0R_EL1, and ICC_ASGI1R_EL1 as there is no other state.
    Zero,
    /// Whatever each target has configured: ICC_SGI1R_EL1.
    AsConfigured,
}

/// Names a register of the EL1 physical timer (Arm ARM DDI 0487K.a, CNTP_CTL_EL0).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PhysicalTimerRegister {
    /// CNTPCT_EL0 or CNTPCTSS_EL0: the counter; never written.
    Counter,
    /// CNTP_TVAL_EL0.
    TimerValue,
    /// CNTP_CTL_EL0.
    Control,
    /// CNTP_CVAL_EL0.
    CompareValue,
}

/// What a trapped access comes to. Except for `Grant` and `Undefined` the instruction has then been
/// executed, and the guest goes on at the next one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Outcome {
    /// The general-purpose register receives this.
    Read(u64),
    /// A write that changes nothing.
    Done,
    /// Cache maintenance by set/way: clean and invalidate that line, whatever the instruction would have dropped.
    SetWay,
    /// SGIs to the targets that `value` names, in the layout of ICC_SGI1R_EL1.
    Sgi {
        /// Which of the targets' SGIs are meant.
        group: SgiGroup,
        /// The value written.
        value: u64,
    },
    /// A write to ICC_DIR_EL1: deactivate this interrupt.
    Deactivate(IntId),
    /// An access to the emulated physical timer; a read when `write` is `None`.
    PhysicalTimer {
        /// The register.
        register: PhysicalTimerRegister,
        /// The value written, if it is a write.
        write: Option<u64>,
    },
    /// First use of registers that the vCPU may have to itself: lift their traps and execute the instruction again.
    /// On a vCPU that was granted them before, this is [`Outcome::Undefined`].
    Grant(Grants),
    /// The VM has no such register: inject an UNDEFINED exception.
    Undefined,
}

/// Says what `access` does. `value` is what the general-purpose register holds (0 for XZR); it counts for writes only.
#[inline]
pub fn access(access: &SystemRegisterAccess, value: u64, from: GuestLevel, processor: &Processor) -> Outcome {
    if from == GuestLevel::El0 && access.register.op1() != 3 {
        return Outcome::Undefined;
    }
    match access.direction {
        Direction::Read => read(access.register, processor),
        Direction::Write => write(access.register, value, processor),
    }
}

#[inline]
fn read(register: SystemRegister, processor: &Processor) -> Outcome {
    use PhysicalTimerRegister::{CompareValue, Control, Counter, TimerValue};
    if register.is_in_id_space() {
        return Outcome::Read(processor.ids.read(register.crm(), register.op2()));
    }
    match register {
        SystemRegister::OSDTRRX_EL1
        | SystemRegister::MDCCINT_EL1
        | SystemRegister::OSDTRTX_EL1
        | SystemRegister::MDCCSR_EL0
        | SystemRegister::DBGDTR_EL0
        | SystemRegister::DBGDTRTX_EL0 => Outcome::Read(NOBODY_AT_THE_OTHER_END),
        SystemRegister::MDRAR_EL1 => Outcome::Read(NO_ROM_TABLE),

        SystemRegister::REVIDR_EL1 => Outcome::Read(processor.revidr_el1),
        SystemRegister::ACTLR_EL1 => Outcome::Read(processor.actlr_el1),
        SystemRegister::ICC_SRE_EL1 => gic(processor, Outcome::Read(SYSTEM_REGISTERS_ONLY)),
        SystemRegister::AIDR_EL1 => Outcome::Read(processor.aidr_el1),

        SystemRegister::CNTPCT_EL0 | SystemRegister::CNTPCTSS_EL0 => timer(Counter, None),
        SystemRegister::CNTP_TVAL_EL0 => timer(TimerValue, None),
        SystemRegister::CNTP_CTL_EL0 => timer(Control, None),
        SystemRegister::CNTP_CVAL_EL0 => timer(CompareValue, None),
        other => grant(other, processor).map_or_else(
            || implementation_defined::read(other, processor).map_or(Outcome::Undefined, Outcome::Read),
            Outcome::Grant,
        ),
    }
}

#[inline]
fn write(register: SystemRegister, value: u64, processor: &Processor) -> Outcome {
    use PhysicalTimerRegister::{CompareValue, Control, TimerValue};
    match register {
        SystemRegister::DC_ISW | SystemRegister::DC_CSW | SystemRegister::DC_CISW => Outcome::SetWay,

        SystemRegister::OSDTRRX_EL1
        | SystemRegister::MDCCINT_EL1
        | SystemRegister::OSDTRTX_EL1
        | SystemRegister::DBGDTR_EL0
        | SystemRegister::DBGDTRTX_EL0 => Outcome::Done,

        SystemRegister::ACTLR_EL1 => Outcome::Done,
        SystemRegister::ICC_DIR_EL1 => gic(processor, Outcome::Deactivate(intid(value))),
        SystemRegister::ICC_SGI1R_EL1 => sgi(processor, SgiGroup::AsConfigured, value),
        SystemRegister::ICC_ASGI1R_EL1 | SystemRegister::ICC_SGI0R_EL1 => {
            sgi(processor, SgiGroup::Zero, value)
        }
        SystemRegister::ICC_SRE_EL1 => gic(processor, Outcome::Done),

        SystemRegister::CNTP_TVAL_EL0 => timer(TimerValue, Some(value)),
        SystemRegister::CNTP_CTL_EL0 => timer(Control, Some(value)),
        SystemRegister::CNTP_CVAL_EL0 => timer(CompareValue, Some(value)),
        other if implementation_defined::ignores_writes(other, processor) => Outcome::Done,
        other => grant(other, processor).map_or(Outcome::Undefined, Outcome::Grant),
    }
}

/// The debug communications channel: no debugger takes or sends a word, no flag is ever up
/// (Arm ARM DDI 0487K.a, MDCCSR_EL0).
const NOBODY_AT_THE_OTHER_END: u64 = 0;
/// MDRAR_EL1.Valid is 0: no debug components in memory (Arm ARM DDI 0487K.a, MDRAR_EL1).
const NO_ROM_TABLE: u64 = 0;

/// Says what a vCPU may have to itself if the register is part of it: state that no other exception level depends on.
fn grant(register: SystemRegister, processor: &Processor) -> Option<Grants> {
    if is_granted_debug(register) {
        Some(Grants::DEBUG)
    } else if register.is_performance_monitor() && processor.ids.has_performance_monitors() {
        Some(Grants::PMU)
    } else {
        None
    }
}

/// MDCR_EL2.TDE 0 keeps debug exceptions away from EL2 (Arm ARM DDI 0487K.a, MDCR_EL2.TDE).
const fn is_granted_debug(register: SystemRegister) -> bool {
    register.is_breakpoint_or_watchpoint()
        || matches!(
            register,
            SystemRegister::MDSCR_EL1
                | SystemRegister::OSECCR_EL1
                | SystemRegister::OSLAR_EL1
                | SystemRegister::OSLSR_EL1
                | SystemRegister::OSDLR_EL1
                | SystemRegister::DBGPRCR_EL1
                | SystemRegister::DBGCLAIMSET_EL1
                | SystemRegister::DBGCLAIMCLR_EL1
                | SystemRegister::DBGAUTHSTATUS_EL1
        )
}

const fn timer(register: PhysicalTimerRegister, write: Option<u64>) -> Outcome {
    Outcome::PhysicalTimer { register, write }
}

/// A GIC that is reached through memory has no ICC registers.
const fn gic(processor: &Processor, outcome: Outcome) -> Outcome {
    match processor.cpu_interface {
        CpuInterface::SystemRegisters => outcome,
        CpuInterface::MemoryMapped => Outcome::Undefined,
    }
}

const fn sgi(processor: &Processor, group: SgiGroup, value: u64) -> Outcome {
    gic(processor, Outcome::Sgi { group, value })
}

const fn intid(icc_dir: u64) -> IntId {
    let [a, b, c, d, ..] = (icc_dir & DIR_INTID).to_le_bytes();
    IntId(u32::from_le_bytes([a, b, c, d]))
}

#[cfg(test)]
mod tests;

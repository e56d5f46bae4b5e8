//! Facts about trapped system registers.

use proptest::prelude::*;

use super::*;
use crate::ids::Gpr;
use crate::interpreter::id_registers::HostIdRegisters;

const MIDR_CORTEX_A72: u64 = 0x410f_d083;

fn processor(cpu_interface: CpuInterface) -> Processor {
    let mut words = [0; 56];
    words[24] = 0x0000_0000_0100_0022; // ID_AA64PFR0_EL1 of a Cortex-A72
    Processor {
        ids: IdRegisters::sanitise(&HostIdRegisters::new(words), cpu_interface),
        cpu_interface,
        midr_el1: MIDR_CORTEX_A72,
        revidr_el1: 0x11,
        aidr_el1: 0x22,
        actlr_el1: 0x33,
        vcpus: 4,
        peripheral_base: Ipa::new(0x0800_0000),
    }
}

fn mrs_from(from: GuestLevel, register: SystemRegister) -> Outcome {
    let mrs = SystemRegisterAccess { register, direction: Direction::Read, gpr: Gpr::new(0) };
    access(&mrs, 0, from, &processor(CpuInterface::SystemRegisters))
}

fn mrs(register: SystemRegister) -> Outcome {
    mrs_from(GuestLevel::El1, register)
}

fn msr(register: SystemRegister, value: u64) -> Outcome {
    let msr = SystemRegisterAccess { register, direction: Direction::Write, gpr: Gpr::new(0) };
    access(&msr, value, GuestLevel::El1, &processor(CpuInterface::SystemRegisters))
}

#[test]
fn a_feature_register_reads_as_the_vm_sees_it() {
    assert_eq!(mrs(SystemRegister::new(3, 0, 0, 4, 0)), Outcome::Read(0x0100_0022));
    assert_eq!(mrs(SystemRegister::new(3, 0, 0, 7, 7)), Outcome::Read(0));
    assert_eq!(msr(SystemRegister::new(3, 0, 0, 4, 0), 0), Outcome::Undefined);
}

#[test]
fn an_application_cannot_read_what_belongs_to_el1() {
    for register in [
        SystemRegister::new(3, 0, 0, 4, 0),
        SystemRegister::ACTLR_EL1,
        SystemRegister::MDSCR_EL1,
        SystemRegister::new(3, 1, 11, 0, 2),
    ] {
        assert_eq!(mrs_from(GuestLevel::El0, register), Outcome::Undefined, "{register}");
    }
    assert!(matches!(mrs_from(GuestLevel::El0, SystemRegister::CNTP_CTL_EL0), Outcome::PhysicalTimer { .. }));
}

#[test]
fn actlr_reads_as_the_host_has_it_and_ignores_writes() {
    assert_eq!(mrs(SystemRegister::ACTLR_EL1), Outcome::Read(0x33));
    assert_eq!(msr(SystemRegister::ACTLR_EL1, !0), Outcome::Done);
}

#[test]
fn revision_registers_read_as_the_host_has_them() {
    assert_eq!(mrs(SystemRegister::REVIDR_EL1), Outcome::Read(0x11));
    assert_eq!(mrs(SystemRegister::AIDR_EL1), Outcome::Read(0x22));
    assert_eq!(msr(SystemRegister::REVIDR_EL1, 0), Outcome::Undefined);
    assert_eq!(mrs(SystemRegister::new(3, 1, 0, 0, 6)), Outcome::Undefined, "SMIDR_EL1");
}

#[test]
fn maintenance_by_set_and_way_asks_for_the_safe_way() {
    for register in [SystemRegister::DC_ISW, SystemRegister::DC_CSW, SystemRegister::DC_CISW] {
        assert_eq!(msr(register, 0), Outcome::SetWay);
    }
}

#[test]
fn debug_registers_are_granted_on_first_use() {
    for register in [
        SystemRegister::MDSCR_EL1,
        SystemRegister::OSLAR_EL1,
        SystemRegister::OSDLR_EL1,
        SystemRegister::new(2, 0, 0, 15, 4),
        SystemRegister::new(2, 0, 0, 0, 7),
    ] {
        assert_eq!(msr(register, 0), Outcome::Grant(Grants::DEBUG), "{register}");
        assert_eq!(mrs(register), Outcome::Grant(Grants::DEBUG), "{register}");
    }
}

#[test]
fn the_debug_channel_is_quiet_without_a_grant() {
    assert_eq!(mrs(SystemRegister::MDCCSR_EL0), Outcome::Read(0));
    assert_eq!(mrs(SystemRegister::DBGDTRTX_EL0), Outcome::Read(0));
    assert_eq!(msr(SystemRegister::DBGDTRTX_EL0, 65), Outcome::Done);
    assert_eq!(msr(SystemRegister::MDCCSR_EL0, 0), Outcome::Undefined);
    assert_eq!(mrs(SystemRegister::MDRAR_EL1), Outcome::Read(0));
}

#[test]
fn sgi_registers_are_write_only_and_carry_the_value() {
    let value = 0x0001_0000_0301_000f;
    assert_eq!(
        msr(SystemRegister::ICC_SGI1R_EL1, value),
        Outcome::Sgi { group: SgiGroup::AsConfigured, value }
    );
    for register in [SystemRegister::ICC_SGI0R_EL1, SystemRegister::ICC_ASGI1R_EL1] {
        assert_eq!(msr(register, value), Outcome::Sgi { group: SgiGroup::Zero, value });
        assert_eq!(mrs(register), Outcome::Undefined);
    }
}

#[test]
fn deactivation_names_its_interrupt() {
    assert_eq!(msr(SystemRegister::ICC_DIR_EL1, 0xffff_ffff_ff00_001b), Outcome::Deactivate(IntId(27)));
}

#[test]
fn system_registers_cannot_be_switched_off() {
    assert_eq!(mrs(SystemRegister::ICC_SRE_EL1), Outcome::Read(7));
    assert_eq!(msr(SystemRegister::ICC_SRE_EL1, 0), Outcome::Done);
}

#[test]
fn a_gic_in_memory_has_no_registers_here() {
    let processor = processor(CpuInterface::MemoryMapped);
    for register in [
        SystemRegister::ICC_SGI1R_EL1,
        SystemRegister::ICC_SGI0R_EL1,
        SystemRegister::ICC_DIR_EL1,
        SystemRegister::ICC_SRE_EL1,
    ] {
        let msr = SystemRegisterAccess { register, direction: Direction::Write, gpr: Gpr::new(0) };
        assert_eq!(access(&msr, 0, GuestLevel::El1, &processor), Outcome::Undefined, "{register}");
    }
}

#[test]
fn the_physical_timer_is_read_and_written_by_register() {
    use PhysicalTimerRegister::{CompareValue, Control, Counter, TimerValue};
    for (name, register) in [
        (SystemRegister::CNTP_TVAL_EL0, TimerValue),
        (SystemRegister::CNTP_CTL_EL0, Control),
        (SystemRegister::CNTP_CVAL_EL0, CompareValue),
    ] {
        assert_eq!(mrs(name), Outcome::PhysicalTimer { register, write: None });
        assert_eq!(msr(name, 5), Outcome::PhysicalTimer { register, write: Some(5) });
    }
    assert_eq!(mrs(SystemRegister::CNTPCT_EL0), Outcome::PhysicalTimer { register: Counter, write: None });
    assert_eq!(msr(SystemRegister::CNTPCT_EL0, 0), Outcome::Undefined);
}

#[test]
fn what_the_manual_calls_read_only_is_undefined_to_write() {
    let cbar = SystemRegister::new(3, 1, 15, 3, 0);
    assert_eq!(mrs(cbar), Outcome::Read(0x0800_0000));
    assert_eq!(msr(cbar, 0), Outcome::Undefined);
}

#[test]
fn a_neoverse_n1_reads_as_after_reset() {
    let n1 = Processor { midr_el1: 0x413f_d0c1, ..processor(CpuInterface::SystemRegisters) };
    let outcome = |crm, op2, direction| {
        let register = SystemRegister::new(3, 0, 15, crm, op2);
        access(&SystemRegisterAccess { register, direction, gpr: Gpr::new(0) }, 0, GuestLevel::El1, &n1)
    };
    assert_eq!(outcome(0, 0, Direction::Read), Outcome::Read(4), "CPUCFR_EL1");
    assert_eq!(outcome(0, 0, Direction::Write), Outcome::Undefined, "CPUCFR_EL1");
    assert_eq!(outcome(1, 4, Direction::Read), Outcome::Read(0x9_6156_3010), "CPUECTLR_EL1");
    assert_eq!(outcome(1, 4, Direction::Write), Outcome::Done, "CPUECTLR_EL1");
    assert_eq!(outcome(7, 0, Direction::Read), Outcome::Read(0), "ATCR_EL1");
}

#[test]
fn implementation_defined_registers_of_a_known_processor_are_inert() {
    let l2ctlr = SystemRegister::new(3, 1, 11, 0, 2);
    let cpuectlr = SystemRegister::new(3, 1, 15, 2, 1);
    assert_eq!(mrs(l2ctlr), Outcome::Read(3 << 24));
    assert_eq!(mrs(cpuectlr), Outcome::Read(0));
    assert_eq!(msr(cpuectlr, !0), Outcome::Done);
    assert_eq!(
        mrs(SystemRegister::new(3, 0, 15, 1, 0)),
        Outcome::Undefined,
        "CPUACTLR_EL1 of another family"
    );
    let unknown = Processor { midr_el1: 0x000f_0510, ..processor(CpuInterface::SystemRegisters) };
    let mrs = SystemRegisterAccess { register: l2ctlr, direction: Direction::Read, gpr: Gpr::new(0) };
    assert_eq!(access(&mrs, 0, GuestLevel::El1, &unknown), Outcome::Undefined);
}

#[test]
fn what_a_vm_does_not_have_is_undefined() {
    for (name, register) in [
        ("PMCR_EL0", SystemRegister::new(3, 3, 9, 12, 0)),
        ("PMCCNTR_EL0", SystemRegister::new(3, 3, 9, 13, 0)),
        ("PMEVCNTR0_EL0", SystemRegister::new(3, 3, 14, 8, 0)),
        ("PMSCR_EL1", SystemRegister::new(3, 0, 9, 9, 0)),
        ("TRBLIMITR_EL1", SystemRegister::new(3, 0, 9, 11, 0)),
        ("TRFCR_EL1", SystemRegister::new(3, 0, 1, 2, 1)),
        ("TRCIDR0", SystemRegister::new(2, 1, 0, 8, 7)),
        ("BRBCR_EL1", SystemRegister::new(2, 1, 9, 0, 0)),
        ("AMCR_EL0", SystemRegister::new(3, 3, 13, 2, 0)),
        ("MPAM1_EL1", SystemRegister::new(3, 0, 10, 5, 0)),
        ("ERRIDR_EL1", SystemRegister::new(3, 0, 5, 3, 0)),
        ("ERXSTATUS_EL1", SystemRegister::new(3, 0, 5, 4, 2)),
        ("LORC_EL1", SystemRegister::new(3, 0, 10, 4, 3)),
        ("ZCR_EL1", SystemRegister::new(3, 0, 1, 2, 0)),
        ("SMCR_EL1", SystemRegister::new(3, 0, 1, 2, 6)),
        ("TPIDR2_EL0", SystemRegister::new(3, 3, 13, 0, 5)),
        ("GMID_EL1", SystemRegister::new(3, 1, 0, 0, 4)),
        ("GCR_EL1", SystemRegister::new(3, 0, 1, 0, 6)),
        ("SCXTNUM_EL1", SystemRegister::new(3, 0, 13, 0, 7)),
        ("SCXTNUM_EL0", SystemRegister::new(3, 3, 13, 0, 7)),
        ("ALLINT", SystemRegister::new(3, 0, 4, 3, 0)),
        ("TCR2_EL1", SystemRegister::new(3, 0, 2, 0, 3)),
        ("SCTLR2_EL1", SystemRegister::new(3, 0, 1, 0, 3)),
        ("HCR_EL2", SystemRegister::new(3, 4, 1, 1, 0)),
    ] {
        assert_eq!(mrs(register), Outcome::Undefined, "{name}");
        assert_eq!(msr(register, 0), Outcome::Undefined, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

    #[test]
    fn no_access_panics_and_reads_never_ask_for_a_write(
        operands in any::<(u8, u8, u8, u8, u8)>(),
        value in any::<u64>(),
        el0 in any::<bool>(),
        is_read in any::<bool>(),
    ) {
        let (op0, op1, crn, crm, op2) = operands;
        let register = SystemRegister::new(op0, op1, crn, crm, op2);
        let direction = if is_read { Direction::Read } else { Direction::Write };
        let from = if el0 { GuestLevel::El0 } else { GuestLevel::El1 };
        let outcome = access(
            &SystemRegisterAccess { register, direction, gpr: Gpr::XZR },
            value,
            from,
            &processor(CpuInterface::SystemRegisters),
        );
        let is_a_write = matches!(
            outcome,
            Outcome::Done | Outcome::SetWay | Outcome::Sgi { .. } | Outcome::Deactivate(_)
                | Outcome::PhysicalTimer { write: Some(_), .. }
        );
        let is_a_read = matches!(outcome, Outcome::Read(_) | Outcome::PhysicalTimer { write: None, .. });
        prop_assert!(if is_read { !is_a_write } else { !is_a_read }, "{outcome:?}");
    }
}

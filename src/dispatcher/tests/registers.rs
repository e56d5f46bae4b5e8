//! Facts about trapped system registers.

use super::super::Next;
use super::bench::{Bench, EL1H, ENTRY, esr, system_esr};
use super::machine::Call;
use crate::dispatcher::traps::Grants;
use crate::ids::Gpr;
use crate::interpreter::device::vgic::GicVersion;
use crate::interpreter::sysreg::SystemRegister;

const ID_AA64PFR0_EL1: SystemRegister = SystemRegister::new(3, 0, 0, 4, 0);
const PMSCR_EL1: SystemRegister = SystemRegister::new(3, 0, 9, 9, 0);
/// EC 0x00, IL 1.
const UNDEFINED: u64 = 1 << 25;

#[test]
fn an_id_register_is_sanitised_and_lands_in_the_right_register() {
    for gpr in 0..31 {
        let mut bench = Bench::new(GicVersion::V3, 1);
        let before = bench.vcpus[0].frame.clone();
        assert_eq!(bench.exit(0, system_esr(ID_AA64PFR0_EL1, gpr, true), 0, 0), Next::Resume);
        let mut expected = before;
        // Neither SVE (35:32) nor EL2 (11:8), but GIC system registers (27:24).
        expected.set(Gpr::new(gpr), 0x0100_0011);
        expected.pc = ENTRY + 4;
        assert_eq!(bench.vcpus[0].frame, expected, "X{gpr}");
    }
}

#[test]
fn a_read_into_xzr_is_lost() {
    let mut bench = Bench::new(GicVersion::V3, 1);
    let mut expected = bench.vcpus[0].frame.clone();
    assert_eq!(bench.exit(0, system_esr(ID_AA64PFR0_EL1, 31, true), 0, 0), Next::Resume);
    expected.pc += 4;
    assert_eq!(bench.vcpus[0].frame, expected);
}

#[test]
fn a_write_of_xzr_writes_zero() {
    let mut bench = Bench::new(GicVersion::V3, 1);
    bench.msr(0, SystemRegister::CNTP_CVAL_EL0, 77);
    assert_eq!(bench.exit(0, system_esr(SystemRegister::CNTP_CVAL_EL0, 31, false), 0, 0), Next::Resume);
    assert_eq!(bench.mrs(0, SystemRegister::CNTP_CVAL_EL0), 0);
}

#[test]
fn a_register_that_the_vm_does_not_have_is_undefined() {
    let mut bench = Bench::new(GicVersion::V3, 1);
    for read in [true, false] {
        let entry = bench.injects(0, system_esr(PMSCR_EL1, 1, read), 0, 0);
        assert_eq!((entry.esr_el1, entry.far_el1), (UNDEFINED, None));
    }
    let write_of_id = bench.injects(0, system_esr(ID_AA64PFR0_EL1, 1, false), 0, 0);
    assert_eq!(write_of_id.esr_el1, UNDEFINED);
}

#[test]
fn a_gicv2_guest_has_no_icc_registers() {
    let mut bench = Bench::new(GicVersion::V2, 2);
    for register in [SystemRegister::ICC_SGI1R_EL1, SystemRegister::ICC_DIR_EL1, SystemRegister::ICC_SRE_EL1]
    {
        assert_eq!(bench.injects(0, system_esr(register, 1, false), 0, 0).esr_el1, UNDEFINED);
    }
}

#[test]
fn an_application_has_no_access_to_el1_registers() {
    let mut bench = Bench::new(GicVersion::V3, 1);
    bench.vcpus[0].frame.pstate = 0;
    for register in [ID_AA64PFR0_EL1, SystemRegister::ICC_SGI1R_EL1, SystemRegister::MDSCR_EL1] {
        bench.vcpus[0].frame.pstate = 0;
        let entry = bench.injects(0, system_esr(register, 1, true), 0, 0);
        assert_eq!((entry.esr_el1, entry.pc), (UNDEFINED, 0x4008_0c00));
    }
}

#[test]
fn set_way_maintenance_cleans_and_invalidates_whatever_was_asked_for() {
    for register in [SystemRegister::DC_ISW, SystemRegister::DC_CSW, SystemRegister::DC_CISW] {
        let mut bench = Bench::new(GicVersion::V3, 1);
        bench.msr(0, register, 0x4000_0022);
        assert_eq!(bench.cpus[0].calls, [Call::SetWay(0x4000_0022)]);
    }
}

#[test]
fn the_first_touch_of_a_debug_register_gives_them_away() {
    let mut bench = Bench::running(GicVersion::V3, 2);
    for read in [true, false] {
        assert_eq!(bench.exit(0, system_esr(SystemRegister::MDSCR_EL1, 1, read), 0, 0), Next::Resume);
        assert_eq!(bench.pc(0), ENTRY + 4, "it is executed again");
        let grant = Call::Grant { all: Grants::DEBUG, new: Grants::DEBUG };
        assert_eq!(bench.cpus[0].take_calls(), [grant]);
        assert_eq!((bench.vcpus[0].granted, bench.vcpus[1].granted), (Grants::DEBUG, Grants::NONE));
        let entry = bench.injects(0, system_esr(SystemRegister::MDSCR_EL1, 1, read), 0, 0);
        assert_eq!(entry.esr_el1, UNDEFINED, "the CPU has none");
        bench.vcpus[0].start(ENTRY + 4, 0, 0);
        assert_eq!(bench.vcpus[0].granted, Grants::NONE);
    }
}

#[test]
fn performance_monitors_are_given_away_beside_what_was_given_before() {
    const PMCR_EL0: SystemRegister = SystemRegister::new(3, 3, 9, 12, 0);
    let mut bench = Bench::new(GicVersion::V3, 1);
    let mut touch = |register| {
        assert_eq!(bench.exit(0, system_esr(register, 1, true), 0, 0), Next::Resume);
        assert_eq!(bench.pc(0), ENTRY, "it is executed again");
        bench.cpus[0].take_calls()
    };
    let both = Grants::DEBUG.with(Grants::PMU);
    assert_eq!(touch(SystemRegister::MDSCR_EL1), [Call::Grant { all: Grants::DEBUG, new: Grants::DEBUG }]);
    assert_eq!(touch(PMCR_EL0), [Call::Grant { all: both, new: Grants::PMU }]);
    let entry = bench.injects(0, system_esr(PMCR_EL0, 1, true), 0, 0);
    assert_eq!(entry.esr_el1, UNDEFINED, "the CPU has no such register");
}

#[test]
fn a_step_ends_the_single_step_and_the_branch_type() {
    // An instruction that completes clears PSTATE.SS and BTYPE, whoever executes it.
    let mut bench = Bench::new(GicVersion::V3, 1);
    bench.vcpus[0].frame.pstate = EL1H | 1 << 21 | 0b11 << 10 | 1 << 29;
    bench.mrs(0, ID_AA64PFR0_EL1);
    assert_eq!(bench.vcpus[0].frame.pstate, EL1H | 1 << 29);
    bench.vcpus[0].frame.pstate = EL1H | 1 << 21;
    assert_eq!(bench.smc(0, [0xc400_0001, 0, 0, 0]), Next::Wait);
    assert_eq!(bench.vcpus[0].frame.pstate, EL1H, "CPU_SUSPEND by SMC as well");
    bench.vcpus[0].frame.pstate = EL1H | 1 << 21;
    assert_eq!(bench.exit(0, system_esr(SystemRegister::MDSCR_EL1, 1, true), 0, 0), Next::Resume);
    assert_eq!(bench.vcpus[0].frame.pstate, EL1H | 1 << 21, "not if it is executed again");
}

#[test]
fn a_processor_answers_for_its_own_registers() {
    let mut bench = Bench::new(GicVersion::V3, 1);
    assert_eq!(bench.mrs(0, SystemRegister::REVIDR_EL1), 0x11);
    assert_eq!(bench.mrs(0, SystemRegister::AIDR_EL1), 0x22);
    bench.msr(0, SystemRegister::ACTLR_EL1, 0xff);
    assert_eq!(bench.mrs(0, SystemRegister::ACTLR_EL1), 0x33);
    assert_eq!(bench.mrs(0, SystemRegister::ICC_SRE_EL1), 7);
    assert_eq!(bench.exit(0, esr(0x03, 0), 0, 0), Next::Resume);
    assert_eq!(bench.pc(0), 0x4008_0a00, "an AArch32 access is UNDEFINED");
}

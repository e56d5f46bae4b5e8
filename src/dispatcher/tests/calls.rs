//! Facts about HVC and SMC, and what they do to vCPUs and the VM.

use super::super::Next;
use super::bench::{Bench, CPU_ON, ENTRY, RAM, esr};
use super::machine::Call;
use crate::ids::{IntId, VcpuId};
use crate::interpreter::device::vgic::GicVersion;
use crate::interpreter::psci;
use crate::interpreter::sysreg::SystemRegister;
use crate::vm::State;

const PSCI_VERSION: u64 = 0x8400_0000;
const CPU_SUSPEND: u64 = 0xc400_0001;
const CPU_OFF: u64 = 0x8400_0002;
const AFFINITY_INFO: u64 = 0xc400_0004;
const SYSTEM_OFF: u64 = 0x8400_0008;
const SYSTEM_RESET: u64 = 0x8400_0009;
const SGI: IntId = IntId(3);

#[test]
fn hvc_returns_where_it_is_and_smc_is_stepped_over() {
    let mut bench = Bench::new(GicVersion::V3, 1);
    assert_eq!(bench.hvc(0, [PSCI_VERSION, 0, 0, 0]), Next::Resume);
    assert_eq!((bench.pc(0), bench.vcpus[0].frame.x[0]), (ENTRY + 4, 0x1_0001));
    assert_eq!(bench.smc(0, [PSCI_VERSION, 0, 0, 0]), Next::Resume);
    assert_eq!((bench.pc(0), bench.vcpus[0].frame.x[0]), (ENTRY + 8, 0x1_0001));
}

#[test]
fn an_unknown_call_changes_x0_alone() {
    for (class, imm16, identifier) in
        [(0x16, 0, 0x8600_ff01), (0x17, 0, 0xc400_0050), (0x16, 1, PSCI_VERSION), (0x17, 0xbeef, 0)]
    {
        let mut bench = Bench::new(GicVersion::V3, 1);
        bench.vcpus[0].frame.x = std::array::from_fn(|index| u64::try_from(index).unwrap() << 32 | 0xabc);
        bench.vcpus[0].frame.x[0] = identifier;
        let before = bench.vcpus[0].frame.clone();
        assert_eq!(bench.exit(0, esr(class, imm16), 0, 0), Next::Resume);
        let after = &bench.vcpus[0].frame;
        assert_eq!(after.x[0], u64::MAX, "{identifier:#x}");
        assert_eq!((&after.x[1..], after.pstate), (&before.x[1..], before.pstate));
        assert_eq!(bench.cpus[0].calls, []);
    }
}

#[test]
fn cpu_on_turns_its_target_on_and_nobody_else() {
    let mut bench = Bench::new(GicVersion::V3, 4);
    assert_eq!(bench.smc(0, [CPU_ON, 2, RAM + 0x1000, 0x77]), Next::Resume);
    assert_eq!((bench.vcpus[0].frame.x[0], bench.pc(0)), (0, ENTRY + 4));
    assert_eq!(bench.cpus[0].calls, [Call::TurnOn(VcpuId(2))]);
    assert!(bench.vm.posts.iter().all(|post| post.take().is_empty()));
    bench.take_start(2);
    let frame = &bench.vcpus[2].frame;
    assert_eq!((frame.pc, frame.x[0], frame.pstate), (RAM + 0x1000, 0x77, 0x3c5));
}

#[test]
fn a_cpu_on_that_fails_kicks_nobody() {
    let mut bench = Bench::running(GicVersion::V3, 2);
    for (registers, error) in [
        ([CPU_ON, 1, ENTRY, 0], -4_i64),       // already on
        ([CPU_ON, 5, ENTRY, 0], -2),           // nobody's affinity
        ([CPU_ON, 1, 0x0900_0000, 0], -9),     // not RAM
        ([CPU_ON | 1 << 32, 0, ENTRY, 0], -4), // only W0 names the function
    ] {
        assert_eq!(bench.hvc(0, registers), Next::Resume);
        assert_eq!(bench.vcpus[0].frame.x[0].cast_signed(), error, "{registers:#x?}");
    }
    assert_eq!(bench.cpus[0].calls, []);
}

#[test]
fn cpu_off_leaves_the_others_running() {
    let mut bench = Bench::running(GicVersion::V3, 2);
    assert_eq!(bench.hvc(1, [CPU_OFF, 0, 0, 0]), Next::Off);
    assert_eq!(bench.vm.power.lock().state(VcpuId(1)), Some(psci::State::Off));
    assert_eq!(bench.hvc(0, [AFFINITY_INFO, 1, 0, 0]), Next::Resume);
    assert_eq!(bench.vcpus[0].frame.x[0], 1);
    assert_eq!(bench.vm.state(), State::Running);
}

#[test]
fn a_vm_whose_last_cpu_goes_off_has_crashed() {
    take_all_off(&mut Bench::new(GicVersion::V3, 2));
    let mut bench = Bench::running(GicVersion::V2, 2);
    assert_eq!(bench.hvc(0, [CPU_OFF, 0, 0, 0]), Next::Off);
    bench.vcpus.swap(0, 1);
    take_all_off(&mut bench);
}

fn take_all_off(bench: &mut Bench) {
    assert_eq!(bench.hvc(0, [CPU_OFF, 0, 0, 0]), Next::Stop(State::Crashed));
}

#[test]
fn an_sgi_to_a_vcpu_that_is_off_waits_for_it() {
    let mut bench = Bench::running(GicVersion::V3, 2);
    bench.listen_to(1, &[SGI]);
    assert_eq!(bench.hvc(1, [CPU_OFF, 0, 0, 0]), Next::Off);
    bench.msr(0, SystemRegister::ICC_SGI1R_EL1, 3 << 24 | 0b10);
    bench.turn_on(1);
    assert_eq!(bench.cpus[1].pending(), [SGI.0]);
}

#[test]
fn a_suspend_that_is_refused_does_not_wait() {
    let mut bench = Bench::new(GicVersion::V3, 1);
    assert_eq!(bench.smc(0, [CPU_SUSPEND, 1 << 16, 0x1000, 0]), Next::Resume);
    assert_eq!((bench.vcpus[0].frame.x[0].cast_signed(), bench.pc(0)), (-9, ENTRY + 4));
}

#[test]
fn system_off_and_reset_stop_the_whole_vm() {
    for (function, state) in
        [(SYSTEM_OFF, State::Off), (SYSTEM_RESET, State::Resetting), (0xc400_0012, State::Resetting)]
    {
        let mut bench = Bench::running(GicVersion::V3, 2);
        assert_eq!(bench.hvc(1, [function, 0, 0, 0]), Next::Stop(state));
        assert_eq!(bench.smc(0, [function, 0, 0, 0]), Next::Stop(state));
    }
}

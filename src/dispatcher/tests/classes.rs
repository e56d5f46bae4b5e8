//! Facts about exception classes, the exceptions that a guest gets, and system errors.

use super::super::{Next, system_error};
use super::bench::{BOTH, Bench, EL1H, ENTRY, KERNEL_VA, esr, hpfar};
use super::journal::take_warnings;
use super::machine::Call;
use crate::interpreter::device::vgic::GicVersion;
use crate::vm::State;

/// Classes that somebody answers; all others are UNDEFINED to a guest.
const ANSWERED: [u64; 8] = [0x01, 0x07, 0x0e, 0x16, 0x17, 0x18, 0x20, 0x24];

const IL: u64 = 1 << 25;

/// ESR_EL1 of an exception.
const fn esr_el1(class: u64, iss: u64) -> u64 {
    class << 26 | IL | iss
}

#[test]
fn every_class_has_an_answer_in_every_state() {
    for version in BOTH {
        for class in 0..64 {
            for (iss, pstate) in [(0, EL1H), (0x1ff_ffff, EL1H), (0, 0), (0x1ff_ffff, 0x10), (0x155_5555, 4)]
            {
                let mut bench = Bench::new(version, 2);
                bench.vcpus[0].frame.pstate = pstate;
                let next = bench.exit(0, esr(class, iss), u64::MAX, u64::MAX);
                let waits = matches!(next, Next::Wait | Next::Idle { .. } | Next::Yield) && class == 0x01;
                assert!(waits || next == Next::Resume, "class {class:#x}, ISS {iss:#x}, PSTATE {pstate:#x}");
            }
        }
    }
}

#[test]
fn a_class_that_nobody_answers_is_undefined() {
    for class in (0..64).filter(|class| !ANSWERED.contains(class)) {
        let mut bench = Bench::new(GicVersion::V3, 1);
        bench.vcpus[0].frame.x[5] = 0x55;
        let entry = bench.injects(0, esr(class, 0x123), KERNEL_VA, 0);
        assert_eq!((entry.esr_el1, entry.far_el1), (esr_el1(0, 0), None), "class {class:#x}");
        assert_eq!((bench.pc(0), bench.vcpus[0].frame.pstate), (0x4008_0a00, EL1H));
        assert_eq!(u64::from(bench.vcpus[0].exits.by_class[usize::try_from(class).unwrap()]), 1);
    }
}

#[test]
fn the_vector_follows_the_state_that_the_exception_comes_from() {
    for (pstate, offset) in [(0x3c4, 0x000), (EL1H, 0x200), (0, 0x400), (0x10, 0x600)] {
        let mut bench = Bench::new(GicVersion::V3, 1);
        bench.vcpus[0].frame.pstate = pstate | 1 << 30; // Z
        let entry = bench.injects(0, esr(0x19, 0), 0, 0);
        assert_eq!(entry.pc, 0x4008_0800 + offset, "PSTATE {pstate:#x}");
        assert_eq!(entry.pstate, EL1H | 1 << 30);
    }
}

#[test]
fn an_unanswered_class_is_logged_once_per_vm() {
    take_warnings();
    let mut bench = Bench::new(GicVersion::V3, 1);
    for _ in 0..3 {
        for class in [0x19, 0x1d] {
            assert_eq!(bench.exit(0, esr(class, 0), 0, 0), Next::Resume);
        }
    }
    let warnings = take_warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("vm test") && warnings[0].contains("SVE"), "{warnings:?}");
    assert_eq!(Bench::new(GicVersion::V3, 1).exit(0, esr(0x19, 0), 0, 0), Next::Resume);
    assert_eq!(take_warnings().len(), 1, "another VM has its own turn");
}

#[test]
fn an_answered_class_is_not_reported() {
    take_warnings();
    let mut bench = Bench::new(GicVersion::V3, 1);
    for class in ANSWERED {
        bench.vcpus[0].frame.pc = ENTRY;
        let _ = bench.exit(0, esr(class, 0), 0, 0);
        assert!(bench.vm.is_first_report(usize::try_from(class).unwrap()));
    }
    assert_eq!(take_warnings(), Vec::<String>::new());
}

#[test]
fn a_trapped_wait_is_stepped_over() {
    // WFI, WFE, WFIT and WFET, whose register X7 is named from FEAT_WFxT on (ISS.RV).
    let named = |kind: u64| kind | 1 << 2 | 7 << 5;
    let forever = Next::Wait;
    for (iss, expected) in [
        (0, forever),
        (1, Next::Yield),
        (2, Next::Yield),
        (named(2), Next::Idle { until: Some(0x55) }),
        (named(3), Next::Yield),
    ] {
        let mut bench = Bench::new(GicVersion::V3, 1);
        bench.vcpus[0].frame.x[7] = 0x55;
        assert_eq!(bench.exit(0, esr(0x01, iss), 0, 0), expected, "{iss:#x}");
        assert_eq!((bench.pc(0), bench.cpus[0].calls.len()), (ENTRY + 4, 0));
    }
}

#[test]
fn the_first_use_of_floating_point_loads_its_registers() {
    let mut bench = Bench::new(GicVersion::V3, 1);
    assert_eq!(bench.exit(0, esr(0x07, 0), 0, 0), Next::Resume);
    assert_eq!((bench.pc(0), bench.cpus[0].take_calls()), (ENTRY, vec![Call::FloatingPoint]));
    // Once it has them, a trap is not EL2's doing.
    let entry = bench.injects(0, esr(0x07, 0), 0, 0);
    assert_eq!(entry.esr_el1, esr_el1(0, 0));
}

#[test]
fn an_illegal_state_reaches_el1_as_one() {
    let mut bench = Bench::new(GicVersion::V3, 1);
    bench.vcpus[0].frame.pstate = EL1H | 1 << 20; // IL
    let entry = bench.injects(0, esr(0x0e, 0), 0, 0);
    assert_eq!(entry.esr_el1, esr_el1(0x0e, 0));
    assert_eq!(entry.pstate & 1 << 20, 0, "the handler is not illegal as well");
}

#[test]
fn a_fetch_from_nothing_is_an_external_abort() {
    let mut bench = Bench::new(GicVersion::V3, 1);
    let entry = bench.injects(0, esr(0x20, 0x07), KERNEL_VA, 0);
    assert_eq!((entry.esr_el1, entry.far_el1), (esr_el1(0x21, 0x10), Some(KERNEL_VA)));
    bench.vcpus[0].frame.pstate = 0;
    bench.vcpus[0].frame.pc = 0x1000;
    let entry = bench.injects(0, esr(0x20, 0x07), 0x1000, 0);
    assert_eq!((entry.esr_el1, entry.far_el1), (esr_el1(0x20, 0x10), Some(0x1000)));
}

#[test]
fn a_guest_whose_handler_cannot_be_fetched_has_crashed() {
    take_warnings();
    let mut bench = Bench::new(GicVersion::V3, 1);
    let fetch = esr(0x20, 0x07);
    bench.vcpus[0].frame.pstate = 0x3c4; // SP_EL0: the first vector is another one
    assert_eq!(bench.exit(0, fetch, ENTRY, 0), Next::Resume);
    assert_eq!(bench.exit(0, fetch, 0x4008_0800, 0), Next::Resume);
    assert_eq!(bench.pc(0), 0x4008_0a00);
    bench.cpus[0].take_calls();
    assert_eq!(bench.exit(0, fetch, 0x4008_0a00, 0), Next::Stop(State::Crashed));
    assert_eq!(bench.cpus[0].calls, []);
    let warnings = take_warnings();
    assert!(warnings.iter().any(|line| line.contains("VBAR_EL1 0x40080800")), "{warnings:?}");
}

#[test]
fn a_tlb_conflict_drops_the_guests_entries_and_tries_again() {
    for class in [0x20, 0x24] {
        let mut bench = Bench::new(GicVersion::V3, 1);
        let before = bench.vcpus[0].frame.clone();
        assert_eq!(bench.exit(0, esr(class, 0x30), KERNEL_VA, 0), Next::Resume);
        assert_eq!(bench.cpus[0].calls, [Call::InvalidateTlb]);
        assert_eq!(bench.vcpus[0].frame, before);
    }
}

#[test]
fn a_system_error_becomes_the_guests_own() {
    take_warnings();
    let mut bench = Bench::new(GicVersion::V3, 1);
    for _ in 0..2 {
        system_error(&mut bench.vcpus[0], &bench.vm, &mut bench.cpus[0]);
    }
    assert_eq!(bench.cpus[0].calls, [Call::VirtualSError; 2]);
    assert_eq!((bench.pc(0), take_warnings().len()), (ENTRY, 1));
}

#[test]
fn what_is_answered_at_once_is_answered_as_at_length() {
    let calls = [0x8400_0000, 0x8400_0006, 0x8000_0001, 0xc400_0003, 0x8400_0008, 0x7fff_ffff];
    let iss_of_id_space =
        (0..8).flat_map(|crm| (0..8).map(move |op2| 3 << 20 | op2 << 17 | 5 << 5 | crm << 1 | 1));
    let iss_of_loads = [0x1c0_0007, 0x181_0047, 0x1a3_8007, 0x142_0007, 0x181_0087, 0x181_000f, 0x01_0007];
    let exits = [0x16, 0x17].into_iter().flat_map(|class| [(class, 0), (class, 1)]);
    let exits =
        exits.chain(iss_of_id_space.map(|iss| (0x18, iss))).chain(iss_of_loads.map(|iss| (0x24, iss)));
    for (class, iss) in exits {
        for (x0, ipa, pstate) in calls
            .into_iter()
            .zip([0x0800_0004, 0x0900_0018, 0x080a_0008, 0x0a00_0000, 0x0800_0802, 0x0900_0000])
            .flat_map(|(x0, ipa)| [(x0, ipa, EL1H), (x0, ipa, 0)])
        {
            let syndrome = [esr(class, iss), KERNEL_VA | ipa, hpfar(ipa)];
            let [at_once, at_length] = [false, true].map(|is_long| {
                let mut bench = Bench::new(GicVersion::V3, 2);
                bench.vcpus[0].frame.x = std::array::from_fn(|index| 0x1000 + u64::try_from(index).unwrap());
                bench.vcpus[0].frame.x[0] = x0;
                bench.vcpus[0].frame.pstate = pstate;
                let (vcpu, machine) = (&mut bench.vcpus[0], &mut bench.cpus[0]);
                let left = if is_long {
                    super::super::at_length(syndrome, vcpu, &bench.vm, machine)
                } else {
                    super::super::exit(syndrome, vcpu, &bench.vm, machine)
                };
                (left, bench.vcpus[0].frame.clone(), bench.cpus[0].take_calls())
            });
            assert_eq!(at_once, at_length, "class {class:#x}, ISS {iss:#x}, X0 {x0:#x}, IPA {ipa:#x}");
        }
    }
}

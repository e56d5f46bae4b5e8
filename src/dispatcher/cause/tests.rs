//! Facts about what a syndrome means.

use proptest::prelude::*;

use super::*;
use crate::addr::{GuestVa, Ipa};
use crate::interpreter::device::Width;

const FAR: u64 = 0xffff_8000_1234_5678;
const HPFAR: u64 = 0x0009_0000; // IPA page 0x0900_0000

/// Builds an ESR_EL2 value with IL set.
const fn esr(class: u64, iss: u64) -> u64 {
    class << 26 | 1 << 25 | iss
}

fn abort(class: u64, iss: u64) -> Abort {
    match Cause::decode(esr(class, iss), FAR, HPFAR) {
        Cause::InstructionAbort(abort) | Cause::DataAbort(abort) => abort,
        other => panic!("{other}"),
    }
}

#[test]
fn every_exception_class_has_a_cause_and_a_name() {
    for class in 0..64 {
        let cause = Cause::decode(esr(class, 0), 0, 0);
        assert_eq!(u64::try_from(cause.class_index()), Ok(class), "{cause}");
        assert!(!cause.name().is_empty() && cause.to_string().starts_with(cause.name()));
        assert_eq!(
            cause.name() == "reserved exception class",
            matches!(cause, Cause::Reserved(_)),
            "{class:#x}"
        );
    }
}

#[test]
fn the_reserved_classes_are_these() {
    let reserved: Vec<u64> =
        (0..64).filter(|class| matches!(Cause::decode(esr(*class, 0), 0, 0), Cause::Reserved(_))).collect();
    assert_eq!(
        reserved,
        [0x02, 0x0b, 0x0f, 0x10, 0x23, 0x29, 0x2a, 0x2b, 0x2e, 0x36, 0x37, 0x39, 0x3b, 0x3e, 0x3f]
    );
}

#[test]
fn an_instruction_is_four_bytes_unless_t32_made_it_two() {
    assert_eq!(instruction_bytes(esr(0x16, 0)), 4);
    assert_eq!(instruction_bytes(0x01 << 26), 2);
}

#[test]
fn a_read_of_an_id_register_names_register_and_destination() {
    // MRS X9, ID_AA64PFR0_EL1
    let cause = Cause::decode(esr(0x18, 3 << 20 | 9 << 5 | 4 << 1 | 1), 0, 0);
    let expected = SystemRegisterAccess {
        register: SystemRegister::new(3, 0, 0, 4, 0),
        direction: Direction::Read,
        gpr: Gpr::new(9),
    };
    assert_eq!(cause, Cause::SystemRegister(expected));
    assert_eq!(cause.to_string(), "MSR, MRS or SYS: read of S3_0_C0_C4_0 into X9");
}

#[test]
fn a_write_of_xzr_to_an_sgi_register_is_a_write_of_nothing() {
    // MSR ICC_SGI1R_EL1, XZR
    let iss = 3 << 20 | 5 << 17 | 12 << 10 | 31 << 5 | 11 << 1;
    let Cause::SystemRegister(access) = Cause::decode(esr(0x18, iss), 0, 0) else { panic!() };
    assert_eq!(access.register, SystemRegister::ICC_SGI1R_EL1);
    assert_eq!((access.direction, access.gpr.index()), (Direction::Write, None));
}

#[test]
fn set_way_maintenance_is_a_write_to_op0_1() {
    // DC CISW, X3
    let iss = 1 << 20 | 2 << 17 | 7 << 10 | 3 << 5 | 14 << 1;
    let Cause::SystemRegister(access) = Cause::decode(esr(0x18, iss), 0, 0) else { panic!() };
    assert_eq!(access.register, SystemRegister::DC_CISW);
}

#[test]
fn calls_carry_their_immediate() {
    assert_eq!(Cause::decode(esr(0x16, 0xbeef), 0, 0), Cause::Hvc { imm16: 0xbeef });
    assert_eq!(Cause::decode(esr(0x17, 0), 0, 0), Cause::Smc { imm16: 0 });
    assert_eq!(Cause::decode(esr(0x3c, 0x1_0001), 0, 0), Cause::Brk(1));
}

#[test]
fn a_wait_with_timeout_names_its_register_only_when_valid() {
    let wfx = |iss| match Cause::decode(esr(0x01, iss), 0, 0) {
        Cause::Wfx(wfx) => wfx,
        other => panic!("{other}"),
    };
    assert_eq!(wfx(0x1e0_0000).instruction, WfxInstruction::Wfi);
    assert_eq!(wfx(0x1e0_0001), Wfx { instruction: WfxInstruction::Wfe, timeout: None });
    assert_eq!(wfx(7 << 5 | 0b110), Wfx { instruction: WfxInstruction::Wfit, timeout: Some(Gpr::new(7)) });
    assert_eq!(wfx(7 << 5 | 0b011), Wfx { instruction: WfxInstruction::Wfet, timeout: None });
}

#[test]
fn a_store_to_a_device_is_complete() {
    // STR W5, [..] at level 3 of stage 2, as a guest does to its UART
    let iss = 1 << 24 | 0b10 << 22 | 5 << 16 | 1 << 6 | 0x07;
    assert_eq!(
        abort(0x24, iss),
        Abort {
            fault: Fault::Translation(3),
            ipa: Some(Ipa::new(0x0900_0678)),
            gva: Some(GuestVa::new(FAR)),
            stage1_walk: false,
            write: true,
            cache_maintenance: false,
            external_type: false,
            access: Some(Access {
                width: Width::Word,
                sign_extend: false,
                gpr: Gpr::new(5),
                sixty_four: false,
                acquire_release: false,
                write: true,
            }),
        }
    );
}

#[test]
fn a_sign_extending_load_says_so() {
    let iss = 1 << 24 | 0b01 << 22 | 1 << 21 | 31 << 16 | 1 << 15 | 1 << 14 | 0x06;
    let access = abort(0x24, iss).access.unwrap();
    assert_eq!((access.width, access.sign_extend, access.sixty_four), (Width::Half, true, true));
    assert_eq!((access.acquire_release, access.write, access.gpr), (true, false, Gpr::XZR));
}

#[test]
fn an_access_that_the_cpu_does_not_describe_is_none() {
    let pair = abort(0x24, 1 << 6 | 0x07);
    assert_eq!((pair.access, pair.write), (None, true));
    let maintenance = abort(0x24, 1 << 8 | 1 << 6 | 0x07);
    assert!(maintenance.cache_maintenance && maintenance.access.is_none());
}

#[test]
fn a_walk_knows_the_page_of_its_descriptor_only() {
    for status in [0x06, 0x0a, 0x0e] {
        let walk = abort(0x24, 1 << 7 | status);
        assert!(walk.stage1_walk);
        assert_eq!(walk.ipa, Some(Ipa::new(0x0900_0000)), "{}", walk.fault);
        assert_eq!(walk.gva, Some(GuestVa::new(FAR)));
    }
}

#[test]
fn a_permission_fault_does_not_report_its_ipa() {
    assert_eq!(abort(0x24, 1 << 6 | 0x0f).ipa, None);
    assert_eq!(abort(0x20, 0x0f).ipa, None);
}

#[test]
fn faults_that_leave_hpfar_unknown_report_no_ipa() {
    for status in 0..64 {
        let reported = abort(0x24, status).ipa.is_some();
        let expected = matches!(status, 0x00..=0x0b | 0x29..=0x2c);
        assert_eq!(reported, expected, "{status:#x}");
    }
}

#[test]
fn an_external_abort_may_not_know_its_address() {
    assert_eq!(abort(0x24, 1 << 10 | 0x10).gva, None);
    assert_eq!(abort(0x24, 0x10).gva, Some(GuestVa::new(FAR)));
    assert!(abort(0x24, 1 << 9 | 0x10).external_type);
}

#[test]
fn an_instruction_abort_is_never_a_write() {
    let fetch = abort(0x20, 0x1ff_ffff & !0x3f | 0x05);
    assert_eq!((fetch.fault, fetch.write, fetch.access), (Fault::Translation(1), false, None));
    assert!(!fetch.cache_maintenance);
}

#[test]
fn levels_are_those_of_the_manual() {
    let fault = |status| abort(0x24, status).fault;
    assert_eq!(fault(0x04), Fault::Translation(0));
    assert_eq!(fault(0x2b), Fault::Translation(-1));
    assert_eq!(fault(0x2a), Fault::Translation(-2));
    assert_eq!(fault(0x0f), Fault::Permission(3));
    assert_eq!(fault(0x15), Fault::ExternalOnWalk(1));
    assert_eq!(fault(0x21), Fault::Alignment);
    assert_eq!(fault(0x30), Fault::TlbConflict);
    assert_eq!(fault(0x3f), Fault::Reserved(0x3f));
}

#[test]
fn hpfar_holds_56_bits_of_address_and_the_rest_is_ignored() {
    let cause = Cause::decode(esr(0x24, 0x07), 0xabc, u64::MAX);
    let Cause::DataAbort(abort) = cause else { panic!() };
    assert_eq!(abort.ipa, Some(Ipa::new(0x00ff_ffff_ffff_fabc)));
}

#[test]
fn an_abort_at_el2_is_told_apart() {
    assert!(matches!(Cause::decode(esr(0x25, 0x07), 0, 0), Cause::DataAbortSame(_)));
    assert!(matches!(Cause::decode(esr(0x21, 0x07), 0, 0), Cause::InstructionAbortSame(_)));
}

#[test]
fn an_abort_in_words() {
    let iss = 1 << 24 | 0b10 << 22 | 5 << 16 | 1 << 6 | 0x07;
    assert_eq!(
        Cause::decode(esr(0x24, iss), FAR, HPFAR).to_string(),
        "data abort: translation fault, level 3, write of 4 bytes, register 5, IPA 0x9000678, VA 0xffff800012345678"
    );
}

#[test]
fn an_serror_has_a_severity_only_when_the_cpu_says_so() {
    assert_eq!(Cause::decode(esr(0x2f, 0x11), 0, 0), Cause::SError(Severity::Uncontainable));
    assert_eq!(Cause::decode(esr(0x2f, 6 << 10 | 0x11), 0, 0), Cause::SError(Severity::Corrected));
    assert_eq!(Cause::decode(esr(0x2f, 1 << 24 | 0x11), 0, 0), Cause::SError(Severity::NotReported));
    assert_eq!(Cause::decode(esr(0x2f, 0), 0, 0), Cause::SError(Severity::NotReported));
}

#[test]
fn an_aarch32_access_keeps_its_operands() {
    // MRC p15, 0, R2, c9, c13, 0
    let Cause::Cp15(mrc) = Cause::decode(esr(0x03, 0x1e0_0000 | 9 << 10 | 2 << 5 | 13 << 1 | 1), 0, 0) else {
        panic!()
    };
    assert_eq!((mrc.opc1, mrc.crn, mrc.crm, mrc.opc2), (0, 9, 13, 0));
    assert_eq!((mrc.gpr, mrc.direction), (Gpr::new(2), Direction::Read));
    // MCRR p15, 2, R2, R3, c14
    let iss = 0x1e0_0000 | 2 << 16 | 3 << 10 | 2 << 5 | 14 << 1;
    let Cause::Cp15Pair(mcrr) = Cause::decode(esr(0x04, iss), 0, 0) else { panic!() };
    assert_eq!((mcrr.opc1, mcrr.crm), (2, 14));
    assert_eq!((mcrr.gprs, mcrr.direction), ([Gpr::new(2), Gpr::new(3)], Direction::Write));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

    #[test]
    fn no_syndrome_panics(esr in any::<u64>(), far in any::<u64>(), hpfar in any::<u64>()) {
        let cause = Cause::decode(esr, far, hpfar);
        prop_assert!(cause.class_index() < CLASSES);
        prop_assert!(!cause.to_string().is_empty());
        prop_assert!(matches!(instruction_bytes(esr), 2 | 4));
    }
}

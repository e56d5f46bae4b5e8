//! Facts about memory copy and set that no comparison with a CPU tells: both options, bounds, and faults in between.

use proptest::prelude::*;

use crate::decode::{Kind, decode};
use crate::execute::tests::Bus;
use crate::execute::{Fault, Reason};

/// X1 is where to, X2 how many bytes, X3 where from.
const SETP: u32 = 0x19c3_0441;
const CPYFP: u32 = 0x1903_0441;
const CPYP: u32 = 0x1d03_0441;
const UNPRIVILEGED_WRITES: u32 = 1 << 12;
const UNPRIVILEGED_READS: u32 = 1 << 13;
const MOST: u64 = 64;

/// What the registers mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Prologue,
    OptionA,
    OptionB,
}

/// Returns the main part that follows a prologue.
fn main_part(prologue: u32) -> u32 {
    prologue | if prologue == SETP { 1 << 14 } else { 1 << 22 }
}

/// A CPU that is about to do as the prologue says or, in other forms, comes from there without a byte done.
fn about_to(prologue: u32, form: Form, [to, from, size]: [u64; 3]) -> (Bus, u32) {
    let mut bus = Bus::new();
    let is_backward = prologue == CPYP && from < to && to - from < size;
    let end = if prologue == SETP { from } else { from + size };
    [bus.x[1], bus.x[3], bus.x[2]] = match (form, is_backward) {
        (Form::OptionA, false) => [to + size, end, size.wrapping_neg()],
        (Form::OptionB, true) => [to + size, end, size],
        _ => [to, from, size],
    };
    bus.nzcv = match (form, is_backward) {
        (Form::OptionB, false) => 0b0010,
        (Form::OptionB, true) => 0b1010,
        _ => 0,
    };
    (bus, if form == Form::Prologue { prologue } else { main_part(prologue) })
}

#[test]
fn each_part_and_each_side_decodes() {
    for (word, kind, is_prologue) in [
        (SETP, Kind::Set, true),
        (SETP | 1 << 14, Kind::Set, false),
        (SETP | 2 << 14, Kind::Set, false),
        (CPYFP, Kind::CopyForward, true),
        (CPYFP | 2 << 22, Kind::CopyForward, false),
        (CPYP | 0xc000, Kind::Copy, true), // CPYPN
        (CPYP | 1 << 22, Kind::Copy, false),
    ] {
        let it = decode(word).unwrap();
        assert_eq!((it.kind, it.is_prologue), (kind, is_prologue), "{word:#x}");
        assert_eq!([it.first, it.second, it.source].map(|register| register.number()), [1, 2, 3]);
    }
    assert!(decode(SETP | 31 << 16).is_some(), "a set of zeroes");
}

#[test]
fn each_side_has_its_own_permissions() {
    for (options, expected) in [
        (0, [false, false]),
        (UNPRIVILEGED_READS, [true, false]),
        (UNPRIVILEGED_WRITES, [false, true]),
        (UNPRIVILEGED_READS | UNPRIVILEGED_WRITES, [true, true]),
    ] {
        let (mut bus, word) = about_to(CPYFP | options, Form::Prologue, [0x3000, 0x1000, 1]);
        bus.run(word).unwrap();
        assert_eq!(bus.translated, [(0x1000, false, expected[0]), (0x3000, true, expected[1])]);
    }
}

#[test]
fn where_nothing_is_left_nothing_is_done() {
    for prologue in [SETP, CPYFP, CPYP] {
        for form in [Form::Prologue, Form::OptionA, Form::OptionB] {
            let (mut bus, word) = about_to(prologue, form, [0x3000, 0x1000, 0]);
            let before = bus.x;
            bus.run(word).unwrap();
            assert_eq!((bus.x, bus.translated), (before, vec![]));
        }
    }
}

#[test]
fn a_prologue_counts_no_more_bytes_than_there_can_be() {
    for (prologue, most) in [(SETP, u64::MAX >> 1), (CPYFP, u64::MAX >> 1), (CPYP, u64::MAX >> 9)] {
        let (mut bus, word) = about_to(prologue, Form::Prologue, [0x1000, 0x3000, 0]);
        bus.x[2] = u64::MAX;
        bus.run(word).unwrap();
        assert_eq!((bus.x[1], bus.x[2]), (0x1000 + MOST, most - MOST));
        assert_eq!(bus.x[3], if prologue == SETP { 0x3000 } else { 0x3000 + MOST });
    }
}

#[test]
fn a_tag_does_not_choose_the_direction() {
    let (mut bus, word) = about_to(CPYP, Form::Prologue, [0x1001, 0x1000, 4]);
    bus.x[3] |= 0xff << 56;
    bus.run(word).unwrap();
    assert_eq!(bus.done[0].0, 0xff << 56 | 0x1003, "the last byte comes first");
}

#[test]
fn what_was_done_before_a_fault_is_in_the_registers() {
    for (faults, write) in [(0x2000, false), (0x6000, true)] {
        for (form, left) in [
            (Form::Prologue, [0x6000, 0x2000, 4]),
            (Form::OptionA, [0x6004, 0x2004, 4_u64.wrapping_neg()]),
            (Form::OptionB, [0x6000, 0x2000, 4]),
        ] {
            let (mut bus, word) = about_to(CPYFP, form, [0x5ffd, 0x1ffd, 7]);
            bus.faults = Some(faults);
            let fault = Fault { address: faults, reason: Reason::Stage1(7), write };
            assert_eq!((bus.run(word), [bus.x[1], bus.x[3], bus.x[2]]), (Err(fault), left), "{form:?}");
            bus.faults = None;
            bus.run(word).unwrap();
            let copied: Vec<u8> = (0x5ffd..0x6004).map(|at| bus.byte(at)).collect();
            assert_eq!(copied, [0xfd, 0xfe, 0xff, 0, 1, 2, 3], "{form:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 32 } else { 2048 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_byte_is_moved_once_and_as_it_was(
        prologue in prop::sample::select(vec![SETP, CPYFP, CPYP]),
        form in prop::sample::select(vec![Form::Prologue, Form::OptionA, Form::OptionB]),
        to in 0x1f00_u64..0x2100,
        from in 0x1f00_u64..0x2100,
        size in 0_u64..200,
    ) {
        // A copy from the first to the last byte over what it has yet to read is not for CPYF*.
        prop_assume!(prologue != CPYFP || to <= from || to - from >= size);
        let (mut bus, word) = about_to(prologue, form, [to, from, size]);
        let (is_set, before) = (prologue == SETP, Bus::new());
        let mut parts = 0;
        while bus.x[2] != 0 {
            bus.done.clear();
            bus.run(word).unwrap();
            let writes = bus.done.iter().filter(|(_, _, value)| value.is_some()).count();
            prop_assert!((1..=64).contains(&writes));
            prop_assert_eq!(bus.done.len(), if is_set { writes } else { 2 * writes });
            parts += 1;
        }
        prop_assert_eq!(parts, size.div_ceil(MOST));
        for at in 0..size {
            let expected = before.byte(if is_set { from } else { from + at });
            prop_assert_eq!(bus.byte(to + at), expected);
        }
        prop_assert_eq!(u64::try_from(bus.written.len()).unwrap(), size);
        // The prologue of a copy from the last byte to the first goes on forward where no overlap is left.
        let is_backward = prologue == CPYP && from < to && to - from < size;
        let done = if is_backward { 0 } else { size };
        if !(is_backward && form == Form::Prologue && size > MOST) {
            prop_assert_eq!(bus.x[1], to + done);
            prop_assert_eq!(bus.x[3], if is_set { from } else { from + done });
        }
    }
}

//! Watchpoints of the guest on what is emulated: memory that is not there makes stage 2 faults, which come before
//! watchpoints, so whoever answers for the memory has to look.
//!
//! Not here: watchpoints on RAM and breakpoints, which the hardware has, and reading the registers. A watchpoint that is
//! linked to a context (WT) does not match: what it depends on is not looked at.
//! Follows Arm ARM DDI 0487K.a, D2.9 (watchpoint exceptions), D24.3.12 (`DBGWCR<n>_EL1`) and D2.4 (enabling).

use crate::addr::GuestVa;
use crate::interpreter::inject::Exception;

/// Most watchpoints that a CPU can have (ID_AA64DFR0_EL1.WRPs).
pub const MAX_WATCHPOINTS: usize = 16;

/// MDSCR_EL1: debug exceptions of EL1 itself (KDE), breakpoints and watchpoints at all (MDE).
const MDSCR_KDE: u64 = 1 << 13;
const MDSCR_MDE: u64 = 1 << 15;
const PSTATE_D: u64 = 1 << 9;
/// Addresses are compared without a tag.
const ADDRESS: u64 = (1 << 56) - 1;

/// What a guest's debug registers say, as far as watchpoints go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watchpoints {
    /// OSLSR_EL1.OSLK: the OS lock silences them all.
    pub is_locked: bool,
    /// `DBGWVR<n>_EL1` and `DBGWCR<n>_EL1`; pairs that the CPU does not have are 0.
    pub pairs: [(u64, u64); MAX_WATCHPOINTS],
}

/// A load or store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Its address.
    pub address: GuestVa,
    /// Bytes that it moves.
    pub bytes: u64,
    /// It is a store.
    pub write: bool,
    /// It is made at EL0, otherwise at EL1.
    pub at_el0: bool,
}

/// Tells whether MDSCR_EL1 and PSTATE let watchpoints through at all: the quick question.
#[must_use]
pub const fn are_enabled(mdscr_el1: u64, pstate: u64, at_el0: bool) -> bool {
    let reaches_el1 = at_el0 || mdscr_el1 & MDSCR_KDE != 0 && pstate & PSTATE_D == 0;
    mdscr_el1 & MDSCR_MDE != 0 && reaches_el1
}

impl Watchpoints {
    /// Tells whether one of them watches the access.
    #[must_use]
    pub fn watch(&self, access: &Access) -> bool {
        !self.is_locked && self.pairs.iter().any(|(value, control)| matches(*value, *control, access))
    }
}

/// Returns the watchpoint exception of an access.
#[must_use]
pub const fn exception(access: &Access) -> Exception {
    const CLASS_LOWER: u64 = 0x34 << 26;
    const IL: u64 = 1 << 25;
    const DEBUG_EVENT: u64 = 0x22;
    let wnr = if access.write { 1 << 6 } else { 0 };
    Exception::Forward { esr_el2: CLASS_LOWER | IL | wnr | DEBUG_EVENT, far: Some(access.address) }
}

/// Tells whether the pair of a value and a control register matches.
fn matches(value: u64, control: u64, access: &Access) -> bool {
    let field = |shift: u32, bits: u32| control >> shift & ((1 << bits) - 1);
    let (enabled, privilege, kind, linked) = (field(0, 1), field(1, 2), field(3, 2), field(20, 1));
    let secure_only = field(14, 2) == 0b10;
    let level = if access.at_el0 { 0b10 } else { 0b01 };
    let direction = if access.write { 0b10 } else { 0b01 };
    enabled != 0
        && linked == 0
        && !secure_only
        && privilege & level != 0
        && kind & direction != 0
        && covers(value, field(5, 8), field(24, 5), access)
}

/// Tells whether any byte of the access is watched: by byte address select, or by a mask of 3 to 31 address bits.
fn covers(value: u64, selected: u64, mask: u64, access: &Access) -> bool {
    let first = access.address.get() & ADDRESS;
    let value = value & ADDRESS & !0b11;
    (0..access.bytes).any(|offset| {
        let byte = first.wrapping_add(offset) & ADDRESS;
        if mask != 0 {
            return (byte ^ value) >> mask == 0;
        }
        // A value that is a multiple of 4 only selects from 4 bytes.
        let most = if value & 0b100 == 0 { 8 } else { 4 };
        let distance = byte.wrapping_sub(value);
        distance < most && selected >> distance & 1 != 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 0xffff_8000_0800_0000;
    const ALL_BYTES: u64 = 0xff << 5;
    const EL1: u64 = 0b01 << 1;
    const EL0: u64 = 0b10 << 1;
    const LOADS: u64 = 0b01 << 3;
    const STORES: u64 = 0b10 << 3;
    const ON: u64 = 1;

    fn load(address: u64, bytes: u64) -> Access {
        Access { address: GuestVa::new(address), bytes, write: false, at_el0: false }
    }

    fn watch(value: u64, control: u64, access: &Access) -> bool {
        let mut watchpoints = Watchpoints { is_locked: false, pairs: [(0, 0); MAX_WATCHPOINTS] };
        watchpoints.pairs[15] = (value, control);
        watchpoints.watch(access)
    }

    #[test]
    fn debug_exceptions_are_let_through_by_mdscr_and_pstate() {
        for (mdscr, pstate, at_el0, enabled) in [
            (0, 0, true, false),
            (MDSCR_KDE, 0, false, false),
            (MDSCR_MDE, PSTATE_D, true, true),
            (MDSCR_MDE, 0, false, false),
            (MDSCR_MDE | MDSCR_KDE, 0, false, true),
            (MDSCR_MDE | MDSCR_KDE, PSTATE_D, false, false),
        ] {
            assert_eq!(are_enabled(mdscr, pstate, at_el0), enabled, "{mdscr:#x} {pstate:#x} {at_el0}");
        }
    }

    #[test]
    fn a_watchpoint_watches_its_level_and_its_direction() {
        let stores = Access { write: true, ..load(AT, 4) };
        let at_el0 = Access { at_el0: true, ..load(AT, 4) };
        for (control, seen) in [
            (ON | EL1 | LOADS, [true, false, false]),
            (ON | EL1 | STORES, [false, true, false]),
            (ON | EL0 | LOADS, [false, false, true]),
            (ON | EL0 | EL1 | LOADS | STORES, [true, true, true]),
            (EL0 | EL1 | LOADS | STORES, [false; 3]),
            (ON | EL1 | LOADS | 1 << 20, [false; 3]),
            (ON | EL1 | LOADS | 0b10 << 14, [false; 3]),
        ] {
            let found = [load(AT, 4), stores, at_el0].map(|access| watch(AT, control | ALL_BYTES, &access));
            assert_eq!(found, seen, "{control:#x}");
        }
    }

    #[test]
    fn bytes_are_selected_one_by_one() {
        let control = ON | EL1 | LOADS | 0b0000_1100 << 5;
        let hits: Vec<u64> = (0..12).filter(|at| watch(AT, control, &load(AT + at, 1))).collect();
        assert_eq!(hits, [2, 3]);
        assert!(watch(AT, control, &load(AT, 4)), "an access that begins before");
        assert!(!watch(AT, control, &load(AT, 2)));
        assert!(!watch(AT, control, &load(AT - 8, 8)));
        let upper = ON | EL1 | LOADS | 0b1111_0001 << 5;
        let hits: Vec<u64> = (0..12).filter(|at| watch(AT + 4, upper, &load(AT + at, 1))).collect();
        assert_eq!(hits, [4], "of a value that is a multiple of 4 the upper half selects nothing");
    }

    #[test]
    fn a_mask_watches_a_range() {
        let control = ON | EL1 | LOADS | ALL_BYTES | 12 << 24;
        for (at, seen) in [(AT, true), (AT + 0xfff, true), (AT + 0x1000, false), (AT - 1, false)] {
            assert_eq!(watch(AT, control, &load(at, 1)), seen, "{at:#x}");
        }
        assert!(watch(AT, control, &load(AT - 2, 4)));
    }

    #[test]
    fn the_os_lock_silences_all() {
        let pairs = [(AT, ON | EL1 | LOADS | ALL_BYTES); MAX_WATCHPOINTS];
        assert!(Watchpoints { is_locked: false, pairs }.watch(&load(AT, 1)));
        assert!(!Watchpoints { is_locked: true, pairs }.watch(&load(AT, 1)));
    }

    #[test]
    fn a_tag_is_not_compared() {
        assert!(watch(AT, ON | EL1 | LOADS | ALL_BYTES, &load(AT ^ 0x5500_0000_0000_0000, 1)));
    }
}

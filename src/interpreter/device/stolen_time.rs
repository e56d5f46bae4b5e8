//! Stolen time: what a guest is told of the time in which its vCPU was ready and did not run.
//!
//! Not here: measuring that time, and the writes to the VM's memory.
//! Follows Arm DEN 0057A (Paravirtualized Time for Arm-based Systems), stolen time. Its calls exist with 64-bit arguments
//! only, as no 32-bit guest has paravirtualized time.

use crate::addr::Ipa;
use crate::ids::{Ticks, VcpuId};

/// PV_TIME_FEATURES.
pub const FEATURES: u32 = 0xc500_0020;
/// PV_TIME_ST.
pub const STOLEN_TIME: u32 = 0xc500_0021;

/// From the structure of one vCPU to the next, and where each has to be aligned: structures of
/// [`MAX_VCPUS`](crate::ids::MAX_VCPUS) fill a page.
pub const STRUCTURE_BYTES: u64 = 64;

const SUCCESS: i64 = 0;
const NOT_SUPPORTED: i64 = -1;

/// Answers the call `identifier`, with `argument` in W1, of `vcpu` in a VM whose structures begin at `page`; `None` in one
/// that has none.
#[must_use]
pub fn call(identifier: u32, argument: u32, page: Option<Ipa>, vcpu: VcpuId) -> i64 {
    match (identifier, argument) {
        (FEATURES, FEATURES) => SUCCESS,
        (FEATURES, STOLEN_TIME) if page.is_some() => SUCCESS,
        (STOLEN_TIME, _) => page
            .and_then(|page| structure(page, vcpu))
            .map_or(NOT_SUPPORTED, |structure| structure.get().cast_signed()),
        _ => NOT_SUPPORTED,
    }
}

/// Returns where the structure of `vcpu` is, in a VM whose structures begin at `page`.
#[must_use]
pub fn structure(page: Ipa, vcpu: VcpuId) -> Option<Ipa> {
    page.checked_add(STRUCTURE_BYTES * u64::from(vcpu.0))
}

/// Makes the two double words of a structure that mean something, as the guest reads them: revision 0 and attributes 0,
/// then the nanoseconds. What follows is padding, 0.
///
/// The second is to be stored in one piece: the guest may be reading it.
#[must_use]
pub const fn double_words(nanoseconds: u64) -> [u64; 2] {
    [0, nanoseconds.to_le()]
}

/// Turns ticks of the system counter into nanoseconds without a division.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nanoseconds {
    /// Nanoseconds of a tick, in units of 2 to the power of -[`Self::FRACTION_BITS`].
    per_tick: u64,
}

impl Nanoseconds {
    /// As many as fit, were the counter to tick once a second.
    const FRACTION_BITS: u32 = 34;
    const PER_SECOND: u64 = 1_000_000_000;

    /// Prepares for a counter of that frequency (CNTFRQ_EL0). One of 0 Hz, which firmware forgot, counts as 1 Hz.
    #[must_use]
    pub fn at(hertz: u32) -> Self {
        let hertz = u64::from(hertz.max(1));
        Self { per_tick: ((Self::PER_SECOND << Self::FRACTION_BITS) + hertz / 2) / hertz }
    }

    /// Returns how many nanoseconds `ticks` are, at most a quarter of a nanosecond off for each second; as many as there
    /// are where they are more than 64 bits can say.
    #[must_use]
    pub fn of(self, ticks: Ticks) -> u64 {
        let exact = u128::from(ticks.0) * u128::from(self.per_tick);
        u64::try_from(exact >> Self::FRACTION_BITS).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::PAGE_BYTES;
    use crate::ids::MAX_VCPUS;
    use proptest::prelude::*;

    const PAGE: Ipa = Ipa::new(0xffff_f000);

    #[test]
    fn features_names_what_the_vm_has() {
        for (function, with_page, without) in [
            (FEATURES, 0, 0),
            (STOLEN_TIME, 0, -1),
            (0xc500_0022, -1, -1),
            (0x8500_0020, -1, -1), // as SMC32
            (0, -1, -1),
        ] {
            assert_eq!(call(FEATURES, function, Some(PAGE), VcpuId(0)), with_page, "{function:#x}");
            assert_eq!(call(FEATURES, function, None, VcpuId(0)), without, "{function:#x}");
        }
    }

    #[test]
    fn each_vcpu_has_a_structure_of_its_own() {
        assert_eq!(STRUCTURE_BYTES * u64::try_from(MAX_VCPUS).unwrap(), PAGE_BYTES);
        for (vcpu, expected) in [(0, 0xffff_f000), (1, 0xffff_f040), (63, 0xffff_ffc0)] {
            assert_eq!(call(STOLEN_TIME, 0, Some(PAGE), VcpuId(vcpu)), expected);
        }
        assert_eq!(call(STOLEN_TIME, 0, None, VcpuId(1)), -1);
        assert_eq!(call(0xc500_0022, FEATURES, Some(PAGE), VcpuId(1)), -1);
        assert_eq!(call(STOLEN_TIME, 0, Some(Ipa::new(u64::MAX)), VcpuId(1)), -1);
    }

    #[test]
    fn a_structure_is_little_endian() {
        let bytes: Vec<u8> =
            double_words(0x1122_3344_5566_7788).into_iter().flat_map(u64::to_ne_bytes).collect();
        assert_eq!(bytes, [0, 0, 0, 0, 0, 0, 0, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
    }

    #[test]
    fn known_counters_are_exact() {
        // QEMU's, a Raspberry Pi 4's, and that of Armv8.6.
        for (hertz, ticks, nanoseconds) in [
            (62_500_000, 1, 16),
            (54_000_000, 54, 1000),
            (1_000_000_000, 12_345, 12_345),
            (0, 3, 3_000_000_000),
        ] {
            assert_eq!(Nanoseconds::at(hertz).of(Ticks(ticks)), nanoseconds, "{hertz} Hz");
        }
        assert_eq!(Nanoseconds::at(1).of(Ticks(u64::MAX)), u64::MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 8 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn a_second_is_less_than_a_nanosecond_off(
            hertz in prop_oneof![1..=u32::MAX, 1_000_000..=1_000_000_000_u32],
            seconds in 0..400_000_000_u64, // twelve years
            part in any::<u32>(),
        ) {
            let ticks = seconds * u64::from(hertz) + u64::from(part % hertz);
            let exact = u128::from(ticks) * 1_000_000_000 / u128::from(hertz);
            let seen = u128::from(Nanoseconds::at(hertz).of(Ticks(ticks)));
            prop_assert!(seen.abs_diff(exact) <= 1 + u128::from(seconds) / 4, "{seen}, not {exact}");
        }

        #[test]
        fn stolen_time_never_goes_back(hertz in any::<u32>(), ticks in any::<u64>(), more in any::<u64>()) {
            let scale = Nanoseconds::at(hertz);
            prop_assert!(scale.of(Ticks(ticks)) <= scale.of(Ticks(ticks.saturating_add(more))));
        }
    }
}

//! What a VM is to have of the CPUs: words that its device tree, the scheduler and the monitor's reports use.
//!
//! Not here: who runs when (the scheduler's), and reading the properties (the platform's).

use crate::ids::PcpuId;

/// Weight of a VM whose tree names none.
pub const DEFAULT_WEIGHT: u16 = 100;
/// Highest weight.
pub const MAX_WEIGHT: u16 = 10_000;
/// Highest priority of the real-time class; 0 is the lowest.
pub const MAX_PRIORITY: u8 = 31;

/// Which rule gives a vCPU its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Before all others of lower priority and before everything shared.
    RealTime {
        /// 0 to [`MAX_PRIORITY`], which is the most urgent.
        priority: u8,
    },
    /// In proportion to its weight.
    Shared {
        /// 1 to [`MAX_WEIGHT`].
        weight: u16,
    },
}

/// What each vCPU of a VM is to have of the CPU that it runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Its class.
    pub class: Class,
    /// Most that it may have, in percent of one CPU, 1 to 100; `None` for no limit.
    pub cap_percent: Option<u8>,
}

impl Default for Share {
    fn default() -> Self {
        Self { class: Class::Shared { weight: DEFAULT_WEIGHT }, cap_percent: None }
    }
}

/// A set of physical CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PcpuSet(u64);

impl PcpuSet {
    /// The set without members.
    pub const EMPTY: Self = Self(0);
    /// The set of all CPUs that there can be.
    pub const ALL: Self = Self(u64::MAX);

    /// Returns the set with `pcpu` as its only member; empty for a number of 64 or above.
    #[must_use]
    pub fn only(pcpu: PcpuId) -> Self {
        Self(1_u64.checked_shl(u32::from(pcpu.0)).unwrap_or(0))
    }

    /// Makes a set of a word, bit n for CPU n.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the members as a word, bit n for CPU n.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Adds the members of `other`.
    pub const fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Returns what is in both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Tells whether `pcpu` is a member.
    #[must_use]
    pub fn contains(self, pcpu: PcpuId) -> bool {
        self.0 & Self::only(pcpu).0 != 0
    }

    /// Returns how many members there are.
    #[must_use]
    pub fn count(self) -> usize {
        usize::try_from(self.0.count_ones()).unwrap_or(usize::MAX)
    }

    /// Tells whether nobody is a member.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Lists the members, lowest first.
    pub fn iter(self) -> impl Iterator<Item = PcpuId> {
        (0..64_u8).map(PcpuId).filter(move |pcpu| self.contains(*pcpu))
    }
}

/// What becomes of a VM that crashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnCrash {
    /// It ends, and what it had is free again.
    #[default]
    Stop,
    /// It starts again, with the machine as new.
    Reset,
    /// It stays as it is, stopped, to be looked at from the monitor.
    Hold,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_cpus_lists_its_members_in_order() {
        let mut set = PcpuSet::only(PcpuId(3));
        set.add(PcpuSet::only(PcpuId(1)));
        assert!(set.iter().eq([PcpuId(1), PcpuId(3)]));
        assert_eq!((set.count(), PcpuSet::ALL.count()), (2, 64));
        assert!(set.and(PcpuSet::only(PcpuId(0))).is_empty());
        assert!(PcpuSet::only(PcpuId(64)).is_empty());
    }
}

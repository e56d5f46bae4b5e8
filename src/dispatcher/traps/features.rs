//! What the physical CPU has that a trap bit depends on.
//!
//! Not here: what the VM sees (`interpreter::id_registers`).
//! Follows Arm ARM DDI 0487K.a, A2.3 (the features) and the descriptions of the ID registers that report them.

use crate::interpreter::id_registers::{HostIdRegisters, IdField};

/// A set of optional features.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features(u32);

impl Features {
    /// The set without members; as a condition it means always.
    pub const NONE: Self = Self(0);
    /// Every feature that is told apart here.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);
    /// FEAT_PAuth: pointer authentication.
    pub const PAUTH: Self = Self(1 << 0);
    /// FEAT_RAS: error records.
    pub const RAS: Self = Self(1 << 1);
    /// FEAT_LOR: limited ordering regions.
    pub const LOR: Self = Self(1 << 2);
    /// FEAT_MTE2: memory tags.
    pub const MTE2: Self = Self(1 << 3);
    /// FEAT_SME: scalable matrices.
    pub const SME: Self = Self(1 << 4);
    /// FEAT_AMUv1: activity monitors.
    pub const AMU: Self = Self(1 << 5);
    /// FEAT_MPAM: memory partitioning and monitoring.
    pub const MPAM: Self = Self(1 << 6);
    /// FEAT_PMUv3: performance monitors.
    pub const PMU: Self = Self(1 << 7);
    /// FEAT_SPE: statistical profiling.
    pub const SPE: Self = Self(1 << 8);
    /// FEAT_TRF: self-hosted trace.
    pub const TRF: Self = Self(1 << 9);
    /// FEAT_TRBE: trace buffer.
    pub const TRBE: Self = Self(1 << 10);
    /// FEAT_FGT: fine-grained traps.
    pub const FGT: Self = Self(1 << 11);
    /// FEAT_FGT2: more of them.
    pub const FGT2: Self = Self(1 << 12);
    /// FEAT_HCX: HCRX_EL2.
    pub const HCX: Self = Self(1 << 13);
    /// FEAT_MOPS: memory copy and set instructions.
    pub const MOPS: Self = Self(1 << 14);
    /// FEAT_NMI: non-maskable interrupts.
    pub const NMI: Self = Self(1 << 15);
    /// FEAT_PMUv3p1: event counters can be stopped at EL2.
    pub const PMU_V3P1: Self = Self(1 << 16);
    /// FEAT_PMUv3p5: so can the cycle counter.
    pub const PMU_V3P5: Self = Self(1 << 17);

    /// Tells whether all of `others` are members.
    #[must_use]
    pub const fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Returns the union of the two sets.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Finds what the CPU with these ID registers has.
    #[must_use]
    pub fn of_host(host: &HostIdRegisters) -> Self {
        REPORTED_BY
            .iter()
            .filter(|report| (report.from..=report.to).contains(&host.field(report.field)))
            .fold(Self::NONE, |all, report| all.with(report.feature))
    }

    /// Lists the names of the members, as the Arm ARM has them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().filter(move |(feature, _)| self.has(*feature)).map(|(_, name)| *name)
    }
}

/// Each feature with its name.
const NAMES: [(Features, &str); 18] = [
    (Features::PAUTH, "FEAT_PAuth"),
    (Features::RAS, "FEAT_RAS"),
    (Features::LOR, "FEAT_LOR"),
    (Features::MTE2, "FEAT_MTE2"),
    (Features::SME, "FEAT_SME"),
    (Features::AMU, "FEAT_AMUv1"),
    (Features::MPAM, "FEAT_MPAM"),
    (Features::PMU, "FEAT_PMUv3"),
    (Features::SPE, "FEAT_SPE"),
    (Features::TRF, "FEAT_TRF"),
    (Features::TRBE, "FEAT_TRBE"),
    (Features::FGT, "FEAT_FGT"),
    (Features::FGT2, "FEAT_FGT2"),
    (Features::HCX, "FEAT_HCX"),
    (Features::MOPS, "FEAT_MOPS"),
    (Features::NMI, "FEAT_NMI"),
    (Features::PMU_V3P1, "FEAT_PMUv3p1"),
    (Features::PMU_V3P5, "FEAT_PMUv3p5"),
];

/// The feature is there if the field is between `from` and `to`; one of several rows is enough.
struct Report {
    feature: Features,
    field: IdField,
    from: u64,
    to: u64,
}

const fn report(feature: Features, field: IdField, from: u64) -> Report {
    Report { feature, field, from, to: 0b1111 }
}

const REPORTED_BY: &[Report] = &[
    report(Features::PAUTH, IdField::new(6, 1, 4), 1), // ID_AA64ISAR1_EL1.APA
    report(Features::PAUTH, IdField::new(6, 1, 8), 1), // ID_AA64ISAR1_EL1.API
    report(Features::PAUTH, IdField::new(6, 2, 12), 1), // ID_AA64ISAR2_EL1.APA3
    report(Features::RAS, IdField::new(4, 0, 28), 1),
    report(Features::LOR, IdField::new(7, 1, 16), 1),
    report(Features::MTE2, IdField::new(4, 1, 8), 2),
    report(Features::SME, IdField::new(4, 1, 24), 1),
    report(Features::AMU, IdField::new(4, 0, 44), 1),
    report(Features::MPAM, IdField::new(4, 0, 40), 1), // ID_AA64PFR0_EL1.MPAM
    report(Features::MPAM, IdField::new(4, 1, 16), 1), // ID_AA64PFR1_EL1.MPAM_frac
    // 0b1111 is a PMU of the implementation's own: no PMUv3 registers.
    Report { feature: Features::PMU, field: IdField::new(5, 0, 8), from: 1, to: 0b1110 },
    Report { feature: Features::PMU_V3P1, field: IdField::new(5, 0, 8), from: 4, to: 0b1110 },
    Report { feature: Features::PMU_V3P5, field: IdField::new(5, 0, 8), from: 6, to: 0b1110 },
    report(Features::SPE, IdField::new(5, 0, 32), 1),
    report(Features::TRF, IdField::new(5, 0, 40), 1),
    report(Features::TRBE, IdField::new(5, 0, 44), 1),
    report(Features::FGT, IdField::new(7, 0, 56), 1),
    report(Features::FGT2, IdField::new(7, 0, 56), 2),
    report(Features::HCX, IdField::new(7, 1, 40), 1),
    report(Features::MOPS, IdField::new(6, 2, 16), 1),
    report(Features::NMI, IdField::new(4, 1, 36), 1),
];

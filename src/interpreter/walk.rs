//! A guest's stage 1 walk, again: which level was it at when nothing answered?
//!
//! Not here: what an address translates to. The CPU makes every walk that counts (`translation`), but of one that stage 2
//! refused it does not tell the level (Arm ARM DDI 0487K.a, ESR_EL2, S1PTW). So only what leads from table to table is
//! read: no permissions, no attributes, and no 52-bit output addresses, which no VM is shown.
//! Follows Arm ARM DDI 0487K.a, D8.2 (translation process), D8.3 (table descriptors), TCR_EL1, TTBR0_EL1.

use tock_registers::register_bitfields;

use crate::addr::{GuestVa, Ipa, PAGE_BYTES};

register_bitfields! [u64,
    /// One half of TCR_EL1: bits 15:0 for TTBR0_EL1, bits 31:16 for TTBR1_EL1.
    HALF [
        TG OFFSET(14) NUMBITS(2) [],
        EPD OFFSET(7) NUMBITS(1) [],
        TSZ OFFSET(0) NUMBITS(6) []
    ],
    SCTLR [
        EE OFFSET(25) NUMBITS(1) []
    ],
    DESCRIPTOR [
        /// A table, but at level 3.
        TYPE OFFSET(0) NUMBITS(2) [ Table = 0b11 ]
    ]
];

/// Bits 47:1 of TTBRn_EL1 and 47:12 of a table descriptor, where a table may begin.
const TABLE: u64 = 0x0000_ffff_ffff_fffe;
const DESCRIPTOR_BITS: u8 = 3;

/// The registers that decide where a guest's walks lead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage1 {
    /// TCR_EL1.
    pub tcr_el1: u64,
    /// TTBR0_EL1 and TTBR1_EL1.
    pub ttbr_el1: [u64; 2],
    /// SCTLR_EL1.
    pub sctlr_el1: u64,
}

impl Stage1 {
    /// Returns the level (-1 to 3) of the first descriptor on the walk for `address` that lies in the page `refused`, or
    /// that `read` has not. `None` if the walk ends before: the tables are not any more what the CPU saw.
    pub fn level_refused(
        &self,
        address: GuestVa,
        refused: Option<Ipa>,
        mut read: impl FnMut(Ipa) -> Option<u64>,
    ) -> Option<i8> {
        let is_high = address.get() & 1 << 55 != 0;
        let [low, high] = self.ttbr_el1;
        let (mut table, half) = if is_high { (high, self.tcr_el1 >> 16) } else { (low, self.tcr_el1) };
        let page_bits = page_bits(is_high, HALF::TG.read(half)).filter(|_| !HALF::EPD.is_set(half))?;
        let [ignored_bits, ..] = HALF::TSZ.read(half).to_le_bytes();
        let input_bits = 64 - ignored_bits;
        let input = address.get() << ignored_bits >> ignored_bits;
        let index_bits = page_bits - DESCRIPTOR_BITS;
        for below in (0..input_bits.saturating_sub(page_bits).div_ceil(index_bits)).rev() {
            let shift = page_bits + index_bits * below;
            // The first table is as short as the input makes it, and aligned to that.
            let table_bytes = 1_u64 << (index_bits.min(input_bits - shift) + DESCRIPTOR_BITS);
            let offset = input >> shift << DESCRIPTOR_BITS & (table_bytes - 1);
            let descriptor = Ipa::new(table & TABLE & !(table_bytes - 1) | offset);
            let is_refused = refused == Some(descriptor.align_down(PAGE_BYTES));
            let Some(value) = read(descriptor).filter(|_| !is_refused) else {
                return Some(3 - below.cast_signed());
            };
            table = if SCTLR::EE.is_set(self.sctlr_el1) { value.swap_bytes() } else { value };
            if !DESCRIPTOR::TYPE::Table.matches_all(table) {
                return None;
            }
        }
        None
    }
}

/// Returns how many bits of an address lie within a page, by TCR_EL1.TG1 or TG0; `None` for a reserved value.
const fn page_bits(is_high: bool, granule: u64) -> Option<u8> {
    match (is_high, granule) {
        (false, 0b00) | (true, 0b10) => Some(12),
        (false, 0b10) | (true, 0b01) => Some(14),
        (false, 0b01) | (true, 0b11) => Some(16),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const TABLES: u64 = 0x4000_0000;
    const NOWHERE: u64 = 0x5000_0000;
    /// Indices at all levels that are not 0, of TTBR0_EL1 and of TTBR1_EL1.
    const LOW: u64 = 0x0000_9234_5678_9abc;
    const HIGH: u64 = 0xffff_9234_5678_9abc;
    const EE: u64 = 1 << 25;

    /// The granules: bits within a page, TCR_EL1.TG0 and TG1.
    const GRANULES: [(u32, u64, u64); 3] = [(12, 0, 2), (14, 2, 1), (16, 1, 3)];

    /// Tables for one address, the one of level `missing` at [`NOWHERE`].
    struct Guest {
        registers: Stage1,
        descriptors: BTreeMap<u64, u64>,
        /// Where the walk asks for the descriptor that is not there.
        last: u64,
    }

    /// Makes them for an address with `bits` bits of input, whose walk begins at `first`, as the levels are drawn in the
    /// Arm ARM: counted up from the page.
    fn guest(
        address: u64,
        bits: u32,
        (page_bits, tg0, tg1): (u32, u64, u64),
        first: i8,
        missing: i8,
    ) -> Guest {
        let input = address & (u64::MAX >> (64 - bits));
        let at = |level: i8| {
            let place = u64::try_from(i16::from(level) - i16::from(first)).unwrap();
            if level == missing { NOWHERE } else { TABLES + (place << page_bits) }
        };
        let entry = |level: i8| {
            let below = u32::try_from(3 - level).unwrap();
            let index = input >> (page_bits + below * (page_bits - 3));
            at(level) + 8 * (index % (1 << (page_bits - 3)))
        };
        let tsz = u64::from(64 - bits);
        let (tcr_el1, ttbr_el1) = if address >> 55 & 1 == 0 {
            (tsz | tg0 << 14 | 1 << 23, [at(first), 0])
        } else {
            (tsz << 16 | tg1 << 30 | 1 << 7, [0, at(first)])
        };
        Guest {
            registers: Stage1 { tcr_el1, ttbr_el1, sctlr_el1: 0 },
            descriptors: (first..missing).map(|level| (entry(level), at(level + 1) | 3)).collect(),
            last: entry(missing),
        }
    }

    impl Guest {
        fn walk(&self, address: u64, refused: Option<u64>) -> (Option<i8>, Vec<u64>) {
            let mut asked = vec![];
            let level = self.registers.level_refused(GuestVa::new(address), refused.map(Ipa::new), |at| {
                asked.push(at.get());
                self.descriptors.get(&at.get()).copied()
            });
            (level, asked)
        }
    }

    #[test]
    fn each_level_of_each_granule_is_named() {
        // Table D8-13 and its like of the Arm ARM: bits of input, and where their walk begins.
        let [k4, k16, k64] = GRANULES;
        for (granule, bits, first) in [
            (k4, 52, -1), // TCR_EL1.DS
            (k4, 49, -1),
            (k4, 48, 0),
            (k4, 40, 0),
            (k4, 39, 1),
            (k4, 31, 1),
            (k4, 30, 2),
            (k4, 22, 2),
            (k4, 21, 3),
            (k4, 16, 3),
            (k16, 52, 0),
            (k16, 48, 0),
            (k16, 47, 1),
            (k16, 37, 1),
            (k16, 36, 2),
            (k16, 26, 2),
            (k16, 25, 3),
            (k64, 52, 1), // FEAT_LVA
            (k64, 48, 1),
            (k64, 43, 1),
            (k64, 42, 2),
            (k64, 30, 2),
            (k64, 29, 3),
        ] {
            for address in [LOW, HIGH] {
                for missing in first..4 {
                    let guest = guest(address, bits, granule, first, missing);
                    let (level, asked) = guest.walk(address, None);
                    let what = format!("{granule:?} {bits} {address:#x}");
                    assert_eq!(level, Some(missing), "{what}");
                    assert_eq!(asked.last(), Some(&guest.last), "{what}");
                    assert_eq!(asked.len(), guest.descriptors.len() + 1, "{what}");
                }
            }
        }
    }

    #[test]
    fn the_first_table_in_the_refused_page_is_the_one() {
        // All can be read: the walk was to set a flag where stage 2 allows no writes.
        const SECOND: u64 = TABLES + 0x2000;
        let [k4, ..] = GRANULES;
        let mut guest = guest(LOW, 48, k4, 0, 3);
        guest.descriptors.insert(guest.last, 3);
        assert_eq!(guest.walk(LOW, Some(NOWHERE)).0, Some(3));
        assert_eq!(guest.walk(LOW, Some(SECOND)).0, Some(2));
        // Level 3 has the table of level 2 as well.
        guest.descriptors.insert(SECOND + 8 * (LOW >> 21 & 0x1ff), SECOND | 3);
        guest.descriptors.insert(SECOND + 8 * (LOW >> 12 & 0x1ff), 3);
        assert_eq!(guest.walk(LOW, Some(SECOND)).0, Some(2));
        assert_eq!(guest.walk(LOW, Some(NOWHERE)).0, None, "the guest has changed it meanwhile");
    }

    #[test]
    fn a_walk_that_ends_names_no_level() {
        for (granule, first) in GRANULES.into_iter().zip([0, 0, 1]) {
            for end in first..4 {
                let mut guest = guest(LOW, 48, granule, first, end);
                for descriptor in [0, 1, 2, NOWHERE | 1] {
                    guest.descriptors.insert(guest.last, descriptor);
                    assert_eq!(guest.walk(LOW, None).0, None, "{granule:?} {end} {descriptor:#x}");
                }
                guest.descriptors.insert(guest.last, NOWHERE | 3);
                assert_eq!(guest.walk(LOW, None).0, (end < 3).then_some(end + 1), "a page at level 3 only");
            }
        }
    }

    #[test]
    fn tags_asids_and_attributes_lead_nowhere_else() {
        const TAG: u64 = 0xab << 56;
        const ASID_AND_CNP: u64 = 0xffff_0000_0000_0001;
        const ATTRIBUTES: u64 = 0xfff0_0000_0000_0ffc;
        let [k4, ..] = GRANULES;
        for address in [LOW, HIGH] {
            let mut guest = guest(address, 48, k4, 0, 3);
            guest.registers.ttbr_el1 = guest.registers.ttbr_el1.map(|table| table | ASID_AND_CNP);
            guest.descriptors.values_mut().for_each(|descriptor| *descriptor |= ATTRIBUTES);
            assert_eq!(guest.walk(address ^ TAG, None).0, Some(3), "{address:#x}");
        }
    }

    #[test]
    fn a_short_first_table_is_aligned_to_its_length() {
        let [k4, ..] = GRANULES;
        let mut guest = guest(LOW, 32, k4, 1, 1); // 4 entries
        guest.registers.ttbr_el1 = [NOWHERE + 0x60, 0];
        assert_eq!(guest.walk(LOW, None), (Some(1), vec![NOWHERE + 0x60 + 8 * (LOW >> 30 & 3)]));
        guest.registers.ttbr_el1 = [NOWHERE + 0x70, 0];
        assert_eq!(guest.walk(LOW, None).1, [NOWHERE + 0x60 + 8 * (LOW >> 30 & 3)]);
    }

    #[test]
    fn big_endian_tables_are_read_as_such() {
        let [k4, ..] = GRANULES;
        let mut guest = guest(LOW, 48, k4, 0, 2);
        guest.registers.sctlr_el1 = EE;
        assert_eq!(guest.walk(LOW, None).0, None);
        guest.descriptors.values_mut().for_each(|descriptor| *descriptor = descriptor.swap_bytes());
        assert_eq!(guest.walk(LOW, None).0, Some(2));
    }

    #[test]
    fn where_no_walk_is_made_nothing_is_read() {
        let [k4, ..] = GRANULES;
        for (address, disabled, reserved) in [(LOW, 1 << 7, 3 << 14), (HIGH, 1 << 23, 3 << 30)] {
            let mut guest = guest(address, 48, k4, 0, 0);
            let tcr_el1 = guest.registers.tcr_el1;
            assert_eq!(guest.walk(address, None).0, Some(0));
            guest.registers.tcr_el1 = tcr_el1 | disabled;
            assert_eq!(guest.walk(address, None), (None, vec![]), "EPD");
            guest.registers.tcr_el1 = if address == LOW { tcr_el1 | reserved } else { tcr_el1 & !reserved };
            assert_eq!(guest.walk(address, None), (None, vec![]), "no granule");
            guest.registers.tcr_el1 = tcr_el1 | 0x3f | 0x3f << 16;
            assert_eq!(guest.walk(address, None), (None, vec![]), "one bit of input");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 8 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn no_tables_lead_a_walk_astray(
            (tcr_el1, low, high, sctlr_el1) in any::<(u64, u64, u64, u64)>(),
            address in any::<u64>(),
            refused in prop::option::of(any::<u64>().prop_map(|page| Ipa::new(page & 0xffff_ffff_f000))),
            descriptors in prop::collection::vec(prop::option::weighted(0.9, any::<u64>()), 8),
            are_tables in any::<bool>(),
        ) {
            let registers = Stage1 { tcr_el1, ttbr_el1: [low, high], sctlr_el1: sctlr_el1 & !EE };
            let mut asked = vec![];
            let level = registers.level_refused(GuestVa::new(address), refused, |at| {
                asked.push(at);
                let next = descriptors.get(asked.len() - 1).copied().flatten();
                next.map(|next| if are_tables { next | 3 } else { next })
            });
            prop_assert!(asked.len() <= 6, "{} reads", asked.len());
            for at in &asked {
                prop_assert!(at.is_aligned(8) && at.get() < 1 << 48, "{at}");
            }
            if let Some(level) = level {
                prop_assert!((-2..4).contains(&level), "{level}");
                let page = asked.last().map(|at| at.align_down(PAGE_BYTES));
                prop_assert!(page == refused || descriptors.get(asked.len() - 1).copied().flatten().is_none());
            }
        }
    }
}

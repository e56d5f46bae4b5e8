//! Cache geometry: which sets and ways there are, as set/way maintenance names them.
//!
//! Not here: the maintenance itself.
//! Follows Arm ARM DDI 0487K.a, CLIDR_EL1, CCSIDR_EL1 (both formats) and DC CISW.

/// The registers that describe one data or unified cache: CCSIDR_EL1 of the level that an operand names.
#[derive(Clone, Copy, Debug)]
pub struct CacheGeometry {
    /// CLIDR_EL1.
    pub clidr_el1: u64,
    /// CCSIDR_EL1 for the level.
    pub ccsidr_el1: u64,
    /// CCSIDR_EL1 has the 64-bit format (FEAT_CCIDX).
    pub has_ccidx: bool,
}

impl CacheGeometry {
    /// Tells whether the set and way of `operand`, of a DC instruction by set/way, are there.
    #[must_use]
    pub fn has(&self, operand: u64) -> bool {
        let level = operand >> 1 & 0b111;
        // Ctype 0b010 and above: a data cache, separate or unified.
        let has_data_cache = level < 7 && self.clidr_el1 >> (3 * level) & 0b111 >= 0b010;
        let (ways, sets) = if self.has_ccidx {
            (self.ccsidr_el1 >> 3 & 0x1f_ffff, self.ccsidr_el1 >> 32 & 0xff_ffff)
        } else {
            (self.ccsidr_el1 >> 3 & 0x3ff, self.ccsidr_el1 >> 13 & 0x7fff)
        };
        let set_shift = (self.ccsidr_el1 & 0b111) + 4;
        // The way is in the topmost bits of the word: as many as the number of ways needs.
        let way_bits = u64::BITS - ways.leading_zeros();
        let operand = operand & 0xffff_ffff;
        let way = operand.unbounded_shr(32 - way_bits);
        let set = (operand & u64::MAX.unbounded_shr(32 + way_bits)) >> set_shift;
        has_data_cache && way <= ways && set <= sets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cortex-A72: L1 data 32 KiB, 2 ways, 256 sets of 64 bytes; L2 unified, 16 ways, 1024 sets.
    const L1: CacheGeometry =
        CacheGeometry { clidr_el1: 0x0a20_0023, ccsidr_el1: 0x701f_e00a, has_ccidx: false };
    const L2: CacheGeometry = CacheGeometry { ccsidr_el1: 0x707f_e07a, ..L1 };

    #[test]
    fn every_set_and_way_of_a_cache_is_there_and_no_other() {
        assert!(L1.has(0) && L1.has(255 << 6) && L1.has(1 << 31 | 255 << 6));
        assert!(!L1.has(256 << 6));
        assert!(L2.has(1 << 1) && L2.has(15 << 28 | 1023 << 6 | 1 << 1));
        assert!(!L2.has(1024 << 6 | 1 << 1));
    }

    #[test]
    fn a_level_without_a_data_cache_has_no_sets() {
        assert!(!L1.has(2 << 1));
        assert!(!L1.has(7 << 1));
        let instructions_only = CacheGeometry { clidr_el1: 0b001, ..L1 };
        assert!(!instructions_only.has(0));
    }

    #[test]
    fn both_formats_mean_the_same() {
        let wide = CacheGeometry { ccsidr_el1: 255 << 32 | 1 << 3 | 2, has_ccidx: true, ..L1 };
        for operand in [0, 255 << 6, 256 << 6, 1 << 31, 1 << 31 | 256 << 6] {
            assert_eq!(wide.has(operand), L1.has(operand));
        }
    }
}

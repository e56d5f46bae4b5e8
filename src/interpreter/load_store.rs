//! What a load or store that faulted at stage 2 does, once a device has answered for the memory.
//!
//! Not here: decoding the syndrome (`dispatcher::cause`), the access, and instructions that no syndrome describes
//! (`instructions`).
//! Follows Arm ARM DDI 0487K.a: C6.2 (LDR, LDRS*, STR) and SCTLR_EL1.{EE, E0E} (endianness of data accesses).

use crate::ids::Gpr;
use crate::interpreter::device::Width;

const SCTLR_E0E: u64 = 1 << 24;
const SCTLR_EE: u64 = 1 << 25;
const SPSR_NRW: u64 = 1 << 4;
const SPSR_E: u64 = 1 << 9;
const SPSR_EL: u64 = 0b11 << 2;

/// Describes one load or store of one general-purpose register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Bytes that move.
    pub width: Width,
    /// A load extends the sign of what it read (LDRS*).
    pub sign_extend: bool,
    /// The register is an X register; otherwise a W register, whose upper half a load clears.
    pub sixty_four: bool,
    /// The register that is loaded or stored.
    pub gpr: Gpr,
    /// The access is a store.
    pub write: bool,
    /// The most significant byte is at the lowest address: see [`is_big_endian`].
    pub big_endian: bool,
}

impl Access {
    /// Returns what a store puts on the bus, given what its register reads.
    #[must_use]
    pub const fn stored(&self, register: u64) -> u64 {
        self.in_bus_order(register & self.width.mask())
    }

    /// Returns what a load leaves in its register, given what the device answered.
    #[must_use]
    pub const fn loaded(&self, answer: u64) -> u64 {
        let value = self.in_bus_order(answer & self.width.mask());
        let extended = if self.sign_extend { self.sign_extended(value) } else { value };
        if self.sixty_four { extended } else { extended & 0xffff_ffff }
    }

    /// Devices are little-endian, so a big-endian access has its bytes the other way round.
    const fn in_bus_order(&self, value: u64) -> u64 {
        if !self.big_endian {
            return value;
        }
        match self.width {
            Width::Byte => value,
            Width::Half => value.swap_bytes() >> 48,
            Width::Word => value.swap_bytes() >> 32,
            Width::Double => value.swap_bytes(),
        }
    }

    const fn sign_extended(&self, value: u64) -> u64 {
        let unused_bits = match self.width {
            Width::Byte => 56,
            Width::Half => 48,
            Width::Word => 32,
            Width::Double => 0,
        };
        ((value << unused_bits).cast_signed() >> unused_bits).cast_unsigned()
    }
}

/// Tells whether the guest's data accesses are big-endian: SCTLR_EL1.EE at EL1, SCTLR_EL1.E0E at EL0,
/// PSTATE.E in AArch32. `pstate` is the image that SPSR_EL2 holds.
#[must_use]
pub const fn is_big_endian(pstate: u64, sctlr_el1: u64) -> bool {
    if pstate & SPSR_NRW != 0 {
        pstate & SPSR_E != 0
    } else if pstate & SPSR_EL == 0 {
        sctlr_el1 & SCTLR_E0E != 0
    } else {
        sctlr_el1 & SCTLR_EE != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WORD_LOAD: Access = Access {
        width: Width::Word,
        sign_extend: false,
        sixty_four: false,
        gpr: Gpr::new(1),
        write: false,
        big_endian: false,
    };

    #[test]
    fn a_store_puts_only_its_width_on_the_bus() {
        let register = 0x1122_3344_5566_7788;
        let stored = |width| Access { width, write: true, ..WORD_LOAD }.stored(register);
        assert_eq!(stored(Width::Byte), 0x88);
        assert_eq!(stored(Width::Half), 0x7788);
        assert_eq!(stored(Width::Word), 0x5566_7788);
        assert_eq!(stored(Width::Double), register);
    }

    #[test]
    fn a_load_extends_as_its_instruction_says() {
        let loaded = |width, sign_extend, sixty_four| {
            Access { width, sign_extend, sixty_four, ..WORD_LOAD }.loaded(0xf1f2_f3f4_f5f6_f7f8)
        };
        assert_eq!(loaded(Width::Byte, false, false), 0xf8);
        assert_eq!(loaded(Width::Byte, true, false), 0xffff_fff8);
        assert_eq!(loaded(Width::Byte, true, true), 0xffff_ffff_ffff_fff8);
        assert_eq!(loaded(Width::Half, true, false), 0xffff_f7f8);
        assert_eq!(loaded(Width::Half, true, true), 0xffff_ffff_ffff_f7f8);
        assert_eq!(loaded(Width::Word, false, true), 0xf5f6_f7f8);
        assert_eq!(loaded(Width::Word, true, true), 0xffff_ffff_f5f6_f7f8);
        assert_eq!(loaded(Width::Double, false, true), 0xf1f2_f3f4_f5f6_f7f8);
    }

    #[test]
    fn a_positive_value_stays_positive() {
        let load = Access { width: Width::Byte, sign_extend: true, sixty_four: true, ..WORD_LOAD };
        assert_eq!(load.loaded(0x7f), 0x7f);
    }

    #[test]
    fn big_endian_swaps_before_it_extends() {
        let load =
            Access { width: Width::Half, sign_extend: true, sixty_four: true, big_endian: true, ..WORD_LOAD };
        assert_eq!(load.loaded(0x01f0), 0xffff_ffff_ffff_f001);
        let store = |width| Access { width, big_endian: true, ..WORD_LOAD }.stored(0x1122_3344_5566_7788);
        assert_eq!(store(Width::Byte), 0x88);
        assert_eq!(store(Width::Half), 0x8877);
        assert_eq!(store(Width::Word), 0x8877_6655);
        assert_eq!(store(Width::Double), 0x8877_6655_4433_2211);
    }

    #[test]
    fn endianness_follows_the_level_that_made_the_access() {
        let (el0, el1, a32) = (0b0000, 0b0101, SPSR_NRW);
        assert!(is_big_endian(el0, SCTLR_E0E) && !is_big_endian(el0, SCTLR_EE));
        assert!(is_big_endian(el1, SCTLR_EE) && !is_big_endian(el1, SCTLR_E0E));
        assert!(is_big_endian(a32 | SPSR_E, 0) && !is_big_endian(a32, SCTLR_E0E | SCTLR_EE));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 8 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn what_was_stored_loads_back(
            width in prop::sample::select(vec![Width::Byte, Width::Half, Width::Word, Width::Double]),
            big_endian: bool,
            register: u64,
        ) {
            let access = Access { width, big_endian, sixty_four: true, ..WORD_LOAD };
            prop_assert_eq!(access.loaded(access.stored(register)), register & access.width.mask());
        }
    }
}

//! The register map: an offset becomes a register and the first interrupt that it speaks of.
//!
//! Not here: what the registers hold. The distributor of both versions and the SGI_base frame of a
//! redistributor share one layout of 128-byte blocks, so one table serves all three.
//! Follows Arm IHI 0048B.b, 4.1.2 and Arm IHI 0069H, 12.8 and 12.10.

use crate::interpreter::device::Width;

/// Names a register array, or the single registers of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Register {
    /// CTLR, TYPER, IIDR and their neighbours, told apart by offset.
    Control,
    /// IGROUPR.
    Group,
    /// ISENABLER.
    SetEnable,
    /// ICENABLER.
    ClearEnable,
    /// ISPENDR.
    SetPending,
    /// ICPENDR.
    ClearPending,
    /// ISACTIVER.
    SetActive,
    /// ICACTIVER.
    ClearActive,
    /// IPRIORITYR.
    Priority,
    /// ITARGETSR.
    Targets,
    /// ICFGR.
    Configuration,
    /// SGIR, CPENDSGIR and SPENDSGIR, told apart by offset.
    SgiControl,
    /// What reads as zero and ignores writes: IGRPMODR, NSACR, reserved space.
    Reserved,
}

use Register::{
    ClearActive, ClearEnable, ClearPending, Configuration, Control, Group, Priority, Reserved, SetActive,
    SetEnable, SetPending, SgiControl, Targets,
};

/// First 4 KiB of the distributor and of SGI_base, in blocks of 128 bytes: the register, and the
/// offset at which its array begins.
const BLOCKS: [(Register, u16); 32] = [
    (Control, 0x000),
    (Group, 0x080),
    (SetEnable, 0x100),
    (ClearEnable, 0x180),
    (SetPending, 0x200),
    (ClearPending, 0x280),
    (SetActive, 0x300),
    (ClearActive, 0x380),
    (Priority, 0x400),
    (Priority, 0x400),
    (Priority, 0x400),
    (Priority, 0x400),
    (Priority, 0x400),
    (Priority, 0x400),
    (Priority, 0x400),
    (Priority, 0x400),
    (Targets, 0x800),
    (Targets, 0x800),
    (Targets, 0x800),
    (Targets, 0x800),
    (Targets, 0x800),
    (Targets, 0x800),
    (Targets, 0x800),
    (Targets, 0x800),
    (Configuration, 0xc00),
    (Configuration, 0xc00),
    (Reserved, 0xd00), // GICD_IGRPMODR
    (Reserved, 0xd00),
    (Reserved, 0xe00), // GICD_NSACR
    (Reserved, 0xe00),
    (SgiControl, 0xf00),
    (Reserved, 0xf80),
];

/// One legal access to a register array.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Access {
    /// Which array.
    pub register: Register,
    bank: u8,
    lane: u8,
    bytes: u8,
}

impl Access {
    /// Returns which 32 interrupts: 0 has the SGIs and PPIs, the others the SPIs from 32 on.
    #[inline]
    pub fn bank(self) -> usize {
        usize::from(self.bank)
    }

    /// Returns the first interrupt of the access within its bank.
    #[inline]
    pub fn lane(self) -> usize {
        usize::from(self.lane)
    }

    /// Returns 1 for a byte-sized access to an array of bytes, else 4.
    #[inline]
    pub fn bytes(self) -> usize {
        usize::from(self.bytes)
    }
}

/// Decodes an access to the first 4 KiB of a frame; `None` if the architecture does not have it.
#[inline]
pub(super) fn decode(offset: u64, width: Width) -> Option<Access> {
    if offset & (width.bytes() - 1) != 0 {
        return None;
    }
    let offset = u16::try_from(offset).ok()?;
    let (register, start) = *BLOCKS.get(usize::from(offset >> 7))?;
    let bytes = match (width, register) {
        (Width::Word, _) => 4,
        (Width::Byte, Priority | Targets | SgiControl) => 1,
        _ => return None,
    };
    let index = offset - start;
    let (bank, lane) = match register {
        Priority | Targets => (index / 32, index % 32),
        Configuration => (index / 8, index % 8 * 4),
        Control | SgiControl => (0, index),
        _ => (index / 4, 0),
    };
    let [bank, lane] = [bank, lane].map(|number| number.to_le_bytes()[0]); // below 128, as the arrays are
    Some(Access { register, bank, lane, bytes })
}

/// Where the identification registers end: CIDR3 is the last word of a frame.
pub(super) const IDENTIFICATION_BYTES: u64 = 0x30;

/// Returns an identification register by its distance from PIDR4, as QEMU's virt board has them
/// (Arm IHI 0048B.b, 4.3.18; Arm IHI 0069H, 12.1.6: architecture revision in PIDR2, bits 7:4).
pub(super) fn identification(distance: u64, part: u8, pidr2: u8, pidr4: u8) -> u64 {
    let value = match distance {
        0x00 => pidr4, // PIDR4
        0x10 => part,  // PIDR0
        0x14 => 0xb4,  // PIDR1
        0x18 => pidr2, // PIDR2
        0x20 => 0x0d,  // CIDR0
        0x24 => 0xf0,  // CIDR1
        0x28 => 0x05,  // CIDR2
        0x2c => 0xb1,  // CIDR3
        _ => 0,
    };
    u64::from(value)
}

/// GICD_IIDR and GICR_IIDR: Arm Limited, product and revision 0, as QEMU's virt board has them.
pub(super) const IIDR: u64 = 0x43b;

/// Spreads 16 bits out to the odd bits of a word: ICFGR has one such bit per interrupt.
pub(super) fn to_odd_bits(bits: u32) -> u32 {
    let bits = bits & 0xffff;
    let bits = (bits | bits << 8) & 0x00ff_00ff;
    let bits = (bits | bits << 4) & 0x0f0f_0f0f;
    let bits = (bits | bits << 2) & 0x3333_3333;
    ((bits | bits << 1) & 0x5555_5555) << 1
}

/// Gathers the odd bits of a word into 16 bits: the inverse of [`to_odd_bits`].
pub(super) fn from_odd_bits(word: u32) -> u32 {
    let bits = word >> 1 & 0x5555_5555;
    let bits = (bits | bits >> 1) & 0x3333_3333;
    let bits = (bits | bits >> 2) & 0x0f0f_0f0f;
    let bits = (bits | bits >> 4) & 0x00ff_00ff;
    (bits | bits >> 8) & 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(register: Register, bank: u8, lane: u8, bytes: u8) -> Option<Access> {
        Some(Access { register, bank, lane, bytes })
    }

    #[test]
    fn each_array_begins_where_the_manual_has_it() {
        assert_eq!(decode(0x104, Width::Word), access(SetEnable, 1, 0, 4));
        assert_eq!(decode(0x421, Width::Byte), access(Priority, 1, 1, 1));
        assert_eq!(decode(0xc0c, Width::Word), access(Configuration, 1, 16, 4));
        assert_eq!(decode(0xf13, Width::Byte), access(SgiControl, 0, 0x13, 1));
        assert_eq!(decode(0xfff, Width::Word), None);
        assert_eq!(decode(0x1000, Width::Word), None);
    }

    #[test]
    fn blocks_lie_within_their_arrays() {
        for (number, (_, start)) in BLOCKS.iter().enumerate() {
            assert!(usize::from(*start) <= number * 128, "block {number}");
        }
    }

    #[test]
    fn only_byte_arrays_take_bytes() {
        for offset in [0, 0x80, 0x100, 0x300, 0xc00, 0xd00] {
            assert_eq!(decode(offset, Width::Byte), None);
            assert_eq!(decode(offset, Width::Half), None);
            assert_eq!(decode(offset, Width::Double), None);
        }
    }

    #[test]
    fn odd_bits_come_back() {
        for bits in (0..=0xffff).step_by(if cfg!(miri) { 771 } else { 1 }) {
            assert_eq!(from_odd_bits(to_odd_bits(bits)), bits);
        }
        assert_eq!(to_odd_bits(0xffff), 0xaaaa_aaaa);
        assert_eq!(from_odd_bits(0x5555_5555), 0);
    }
}

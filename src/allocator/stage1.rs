//! The hypervisor's own map: stage 1 of the EL2 translation regime, an identity map that is W^X.
//!
//! Not here: the shape of tables ([`super::tables`]), and the write of TTBR0_EL2, TCR_EL2, MAIR_EL2 and
//! SCTLR_EL2 (the machine's). HCR_EL2.E2H is 0: the regime has one exception level and one TTBR.
//! Follows Arm ARM DDI 0487K.a, D8.3 (stage 1 descriptors), D8.4 (permissions), D23.2 (TCR_EL2,
//! MAIR_EL2).

use tock_registers::{LocalRegisterCopy, register_bitfields};

use super::tables::{Geometry, MapError, Mapping, TableMemory, Tables, physical_size};
use crate::addr::{Pa, Region};

register_bitfields! { u64,
    /// Attributes of a stage 1 block or page descriptor of a regime with one exception level.
    STAGE1_LEAF [
        AttrIndx OFFSET(2) NUMBITS(3) [
            Normal = 0,
            Device = 1
        ],
        /// RES1 where there is no EL0 to keep out.
        AP1 OFFSET(6) NUMBITS(1) [],
        /// AP[2]: stores fault.
        READ_ONLY OFFSET(7) NUMBITS(1) [],
        SH OFFSET(8) NUMBITS(2) [
            NonShareable = 0b00,
            Inner = 0b11
        ],
        AF OFFSET(10) NUMBITS(1) [],
        XN OFFSET(54) NUMBITS(1) []
    ],
    /// Memory Attribute Indirection Register (Arm ARM DDI 0487K.a, D23.2, MAIR_EL2), by AttrIndx.
    MAIR_EL2 [
        ATTR0 OFFSET(0) NUMBITS(8) [ NormalWriteBack = 0xff ],
        ATTR1 OFFSET(8) NUMBITS(8) [ DeviceNGnRE = 0x04 ]
    ],
    /// Translation Control Register with HCR_EL2.E2H = 0 (Arm ARM DDI 0487K.a, D23.2, TCR_EL2).
    TCR_EL2 [
        T0SZ OFFSET(0) NUMBITS(6) [],
        IRGN0 OFFSET(8) NUMBITS(2) [ WriteBackWriteAllocate = 0b01 ],
        ORGN0 OFFSET(10) NUMBITS(2) [ WriteBackWriteAllocate = 0b01 ],
        SH0 OFFSET(12) NUMBITS(2) [ Inner = 0b11 ],
        TG0 OFFSET(14) NUMBITS(2) [ Granule4KiB = 0b00 ],
        PS OFFSET(16) NUMBITS(3) [],
        RES1_23 OFFSET(23) NUMBITS(1) [],
        RES1_31 OFFSET(31) NUMBITS(1) []
    ]
}

/// Says what the hypervisor does with a region. Nothing is both writable and executable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum El2Access {
    /// Instructions: read and execute.
    Text,
    /// Constants: read.
    ReadOnly,
    /// Variables, stacks, tables, RAM of guests: read and write.
    ReadWrite,
    /// Device registers: read and write, Device-nGnRE.
    Device,
}

impl El2Access {
    fn to_bits(self) -> u64 {
        let (read_only, execute_never) = match self {
            Self::Text => (true, false),
            Self::ReadOnly => (true, true),
            Self::ReadWrite | Self::Device => (false, true),
        };
        let memory = match self {
            Self::Text | Self::ReadOnly | Self::ReadWrite => {
                STAGE1_LEAF::AttrIndx::Normal + STAGE1_LEAF::SH::Inner
            }
            Self::Device => STAGE1_LEAF::AttrIndx::Device + STAGE1_LEAF::SH::NonShareable,
        };
        let permission = STAGE1_LEAF::READ_ONLY.val(read_only.into())
            + STAGE1_LEAF::XN.val(execute_never.into())
            + STAGE1_LEAF::AP1::SET;
        (permission + memory + STAGE1_LEAF::AF::SET).value
    }

    fn from_bits(descriptor: u64) -> Self {
        let leaf = LocalRegisterCopy::<u64, STAGE1_LEAF::Register>::new(descriptor);
        if leaf.matches_all(STAGE1_LEAF::AttrIndx::Device) {
            Self::Device
        } else if !leaf.is_set(STAGE1_LEAF::XN) {
            Self::Text
        } else if leaf.is_set(STAGE1_LEAF::READ_ONLY) {
            Self::ReadOnly
        } else {
            Self::ReadWrite
        }
    }
}

/// Computes MAIR_EL2: attribute 0 is normal write-back memory, attribute 1 Device-nGnRE.
#[must_use]
pub fn mair_el2() -> u64 {
    (MAIR_EL2::ATTR0::NormalWriteBack + MAIR_EL2::ATTR1::DeviceNGnRE).value
}

/// Computes TCR_EL2 for [`Geometry::EL2`]: 48 bits in, what ID_AA64MMFR0_EL1.PARange says out (at most
/// 48), walks inner shareable and write-back cacheable (Arm ARM DDI 0487K.a, D23.2, TCR_EL2).
#[must_use]
pub fn tcr_el2(pa_range: u8) -> u64 {
    let walks = TCR_EL2::IRGN0::WriteBackWriteAllocate
        + TCR_EL2::ORGN0::WriteBackWriteAllocate
        + TCR_EL2::SH0::Inner
        + TCR_EL2::TG0::Granule4KiB;
    let sizes = TCR_EL2::T0SZ.val(64 - u64::from(Geometry::EL2.input_bits()))
        + TCR_EL2::PS.val(physical_size(pa_range));
    (sizes + walks + TCR_EL2::RES1_23::SET + TCR_EL2::RES1_31::SET).value
}

/// Holds the hypervisor's own translation tables: every mapped virtual address equals its physical one.
#[derive(Debug)]
pub struct Stage1 {
    tables: Tables,
}

impl Stage1 {
    /// Makes a map with nothing in it.
    ///
    /// # Errors
    /// [`MapError::OutOfTables`].
    pub fn new(memory: &mut impl TableMemory) -> Result<Self, MapError> {
        Ok(Self { tables: Tables::new(memory, Geometry::EL2)? })
    }

    /// Returns the address of the root table: the value of TTBR0_EL2, CnP being 0.
    #[must_use]
    pub const fn root(&self) -> Pa {
        self.tables.root()
    }

    /// Maps `region` to itself.
    ///
    /// # Errors
    /// Anything that [`MapError`] names; then nothing of it is mapped.
    pub fn map(
        &mut self,
        memory: &mut impl TableMemory,
        region: Region<Pa>,
        access: El2Access,
    ) -> Result<(), MapError> {
        let wanted = Mapping {
            input: region.start.get(),
            output: region.start,
            size_bytes: region.size_bytes,
            attributes: access.to_bits(),
        };
        self.tables.map(memory, wanted)
    }

    /// Unmaps `region`, all of which must be mapped: a guard page, or memory that is to be out of reach.
    ///
    /// With the MMU on, no block that is split for it may hold code, stack or tables in use: for a moment
    /// all of the block faults.
    ///
    /// # Errors
    /// Anything that [`MapError`] names; then everything is mapped as it was.
    pub fn unmap(&mut self, memory: &mut impl TableMemory, region: Region<Pa>) -> Result<(), MapError> {
        self.tables.unmap(memory, region.start.get(), region.size_bytes)
    }

    /// Returns how the hypervisor may access `address`; `None` where it would fault.
    #[must_use]
    pub fn access(&self, memory: &impl TableMemory, address: Pa) -> Option<El2Access> {
        let leaf = self.tables.translate(memory, address.get())?;
        Some(El2Access::from_bits(leaf.attributes))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::ScriptedMemory;
    use super::*;

    const ALL: [El2Access; 4] =
        [El2Access::Text, El2Access::ReadOnly, El2Access::ReadWrite, El2Access::Device];

    fn region(start: u64, size_bytes: u64) -> Region<Pa> {
        Region::<Pa>::new(Pa::new(start), size_bytes).unwrap()
    }

    #[test]
    fn no_access_is_both_writable_and_executable() {
        for access in ALL {
            let bits = access.to_bits();
            let is_writable = bits & 1 << 7 == 0;
            let is_executable = bits & 1 << 54 == 0;
            assert!(!(is_writable && is_executable), "{access:?}");
            assert_eq!(bits & (1 << 6 | 1 << 10), 1 << 6 | 1 << 10, "{access:?}: AP[1] is RES1, AF is set");
            assert_eq!(El2Access::from_bits(bits), access);
        }
    }

    #[test]
    fn descriptors_index_the_attributes_that_mair_holds() {
        let attribute = |access: El2Access| mair_el2() >> (8 * (access.to_bits() >> 2 & 7)) & 0xff;
        assert_eq!(ALL.map(attribute), [0xff, 0xff, 0xff, 0x04]);
    }

    #[test]
    fn tcr_has_48_bits_of_input_and_at_most_48_of_output() {
        assert_eq!(tcr_el2(0b0010), 0x8082_3510);
        assert_eq!(tcr_el2(0b0101), 0x8085_3510);
        assert_eq!(tcr_el2(0b0110), 0x8085_3510);
    }

    #[test]
    fn the_map_is_an_identity_with_a_hole_at_the_guard_page() {
        let mut memory = ScriptedMemory::new();
        let mut map = Stage1::new(&mut memory).unwrap();
        memory.watch(map.root(), 48, 0);
        map.map(&mut memory, region(0x0900_0000, 0x1000), El2Access::Device).unwrap();
        map.map(&mut memory, region(0x4000_0000, 0x20_0000), El2Access::Text).unwrap();
        map.map(&mut memory, region(0x4020_0000, 0x3fe0_0000), El2Access::ReadWrite).unwrap();
        map.unmap(&mut memory, region(0x4040_3000, 0x1000)).unwrap();
        let access = |address| map.access(&memory, Pa::new(address));
        assert_eq!(access(0x0900_0fff), Some(El2Access::Device));
        assert_eq!(access(0x0900_1000), None);
        assert_eq!(access(0x401f_ffff), Some(El2Access::Text));
        assert_eq!(access(0x4040_2fff), Some(El2Access::ReadWrite));
        assert_eq!(access(0x4040_3000), None);
        assert_eq!(access(0x4040_4000), Some(El2Access::ReadWrite));
        assert_eq!(access(u64::MAX), None);
        let leaf = map.tables.translate(&memory, 0x4123_4567).unwrap();
        assert_eq!((leaf.output, leaf.size_bytes), (Pa::new(0x4123_4567), 0x20_0000));
    }
}

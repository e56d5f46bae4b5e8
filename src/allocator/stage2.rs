//! Stage 2: what a VM believes is physical memory, and where it really is.
//!
//! Not here: the shape of tables ([`super::tables`]), who owns the frames ([`super::frames`]), and the
//! write of VTTBR_EL2 and VTCR_EL2 (the machine's).
//! Follows Arm ARM DDI 0487K.a, D8.3 (stage 2 descriptors), D8.6 (stage 2 memory types), D23.2
//! (VTCR_EL2, VTTBR_EL2).

use tock_registers::{LocalRegisterCopy, register_bitfields};

use super::frames::Extents;
use super::tables::{Geometry, MapError, Mapping, TableMemory, Tables, pa_bits, physical_size};
use super::vmid::VmidBits;
use crate::addr::{Ipa, Pa, Region};
use crate::ids::Vmid;

/// Most IPA bits a VM is given: what every CPU that runs Linux guests has, with 3 levels of tables.
const VM_IPA_BITS: u8 = 40;

register_bitfields! { u64,
    /// Attributes of a stage 2 block or page descriptor (Arm ARM DDI 0487K.a, D8.3).
    STAGE2_LEAF [
        MemAttr OFFSET(2) NUMBITS(4) [
            DeviceNGnRE = 0b0001,
            NormalWriteBack = 0b1111
        ],
        READ OFFSET(6) NUMBITS(1) [],
        WRITE OFFSET(7) NUMBITS(1) [],
        SH OFFSET(8) NUMBITS(2) [
            NonShareable = 0b00,
            Inner = 0b11
        ],
        AF OFFSET(10) NUMBITS(1) [],
        XN OFFSET(53) NUMBITS(2) [
            ExecuteAtEl1AndEl0 = 0b00,
            ExecuteNever = 0b10
        ]
    ],
    /// Virtualization Translation Control Register (Arm ARM DDI 0487K.a, D23.2, VTCR_EL2).
    VTCR_EL2 [
        T0SZ OFFSET(0) NUMBITS(6) [],
        SL0 OFFSET(6) NUMBITS(2) [],
        IRGN0 OFFSET(8) NUMBITS(2) [ WriteBackWriteAllocate = 0b01 ],
        ORGN0 OFFSET(10) NUMBITS(2) [ WriteBackWriteAllocate = 0b01 ],
        SH0 OFFSET(12) NUMBITS(2) [ Inner = 0b11 ],
        TG0 OFFSET(14) NUMBITS(2) [ Granule4KiB = 0b00 ],
        PS OFFSET(16) NUMBITS(3) [],
        VS OFFSET(19) NUMBITS(1) [ Vmid8 = 0, Vmid16 = 1 ],
        RES1 OFFSET(31) NUMBITS(1) []
    ]
}

/// Chooses how accesses to a region behave, whatever the guest's own stage 1 wishes beyond that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryType {
    /// Normal memory: inner and outer write-back cacheable, inner shareable.
    Normal,
    /// Device-nGnRE memory: registers of a device.
    Device,
}

/// Says what a VM may do with a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage2Attributes {
    /// Loads are allowed.
    pub read: bool,
    /// Stores are allowed.
    pub write: bool,
    /// Instruction fetches at EL1 and EL0 are allowed.
    pub execute: bool,
    /// Type of memory.
    pub memory: MemoryType,
}

impl Stage2Attributes {
    /// RAM of the VM: everything is allowed.
    pub const RAM: Self = Self { read: true, write: true, execute: true, memory: MemoryType::Normal };
    /// Memory that the VM can read and run but not change.
    pub const ROM: Self = Self { read: true, write: false, execute: true, memory: MemoryType::Normal };
    /// Registers of a device given to the VM.
    pub const DEVICE: Self = Self { read: true, write: true, execute: false, memory: MemoryType::Device };

    fn to_bits(self) -> u64 {
        let execute =
            if self.execute { STAGE2_LEAF::XN::ExecuteAtEl1AndEl0 } else { STAGE2_LEAF::XN::ExecuteNever };
        let memory = match self.memory {
            MemoryType::Normal => STAGE2_LEAF::MemAttr::NormalWriteBack + STAGE2_LEAF::SH::Inner,
            // Device memory is outer shareable whatever SH says.
            MemoryType::Device => STAGE2_LEAF::MemAttr::DeviceNGnRE + STAGE2_LEAF::SH::NonShareable,
        };
        let permission = STAGE2_LEAF::READ.val(self.read.into()) + STAGE2_LEAF::WRITE.val(self.write.into());
        (permission + memory + execute + STAGE2_LEAF::AF::SET).value
    }

    fn from_bits(descriptor: u64) -> Self {
        let leaf = LocalRegisterCopy::<u64, STAGE2_LEAF::Register>::new(descriptor);
        Self {
            read: leaf.is_set(STAGE2_LEAF::READ),
            write: leaf.is_set(STAGE2_LEAF::WRITE),
            execute: leaf.matches_all(STAGE2_LEAF::XN::ExecuteAtEl1AndEl0),
            memory: if leaf.matches_all(STAGE2_LEAF::MemAttr::NormalWriteBack) {
                MemoryType::Normal
            } else {
                MemoryType::Device
            },
        }
    }
}

/// Describes what an IPA translates to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// Physical address of the very byte.
    pub pa: Pa,
    /// What the VM may do there.
    pub attributes: Stage2Attributes,
    /// Size of the block or page in bytes: 1 GiB, 2 MiB or 4 KiB.
    pub leaf_bytes: u64,
}

/// Returns the IPA width that VMs get on a machine with this ID_AA64MMFR0_EL1.PARange: at most 40 bits.
#[must_use]
pub fn ipa_bits(pa_range: u8) -> u8 {
    pa_bits(pa_range).min(VM_IPA_BITS)
}

/// Computes VTCR_EL2 for stage 2 of this geometry: walks are inner shareable and write-back cacheable
/// (Arm ARM DDI 0487K.a, D23.2, VTCR_EL2).
#[must_use]
pub fn vtcr_el2(geometry: Geometry, pa_range: u8, vmid_bits: VmidBits) -> u64 {
    // With the 4 KiB granule 0b00 starts at level 2, 0b01 at level 1, 0b10 at level 0.
    let start = 2_u8.saturating_sub(geometry.start_level().number());
    let vmid_size = match vmid_bits {
        VmidBits::Eight => VTCR_EL2::VS::Vmid8,
        VmidBits::Sixteen => VTCR_EL2::VS::Vmid16,
    };
    let walks = VTCR_EL2::IRGN0::WriteBackWriteAllocate
        + VTCR_EL2::ORGN0::WriteBackWriteAllocate
        + VTCR_EL2::SH0::Inner
        + VTCR_EL2::TG0::Granule4KiB;
    let sizes = VTCR_EL2::T0SZ.val(64 - u64::from(geometry.input_bits()))
        + VTCR_EL2::SL0.val(start.into())
        + VTCR_EL2::PS.val(physical_size(pa_range));
    (sizes + walks + vmid_size + VTCR_EL2::RES1::SET).value
}

/// Returns where the stage 2 that this VTTBR_EL2 names has `ipa`; `None` where the VM would take a translation fault.
///
/// Its VM runs, so that its tables are not destroyed meanwhile.
#[must_use]
pub fn translate(memory: &impl TableMemory, vttbr_el2: u64, ipa_bits: u8, ipa: Ipa) -> Option<Pa> {
    const BADDR: u64 = 0x0000_ffff_ffff_fffe;
    let tables = Tables::at(Pa::new(vttbr_el2 & BADDR), Geometry::stage2(ipa_bits)?);
    tables.translate(memory, ipa.get()).map(|leaf| leaf.output)
}

/// Holds the stage 2 tables of one VM.
///
/// It does not know who owns a frame: RAM comes as [`Extents`], which only
/// [`super::frames::Frames`] makes; [`Self::map`] is for what the configuration gives a VM by address.
#[derive(Debug)]
pub struct Stage2 {
    tables: Tables,
}

impl Stage2 {
    /// Makes a stage 2 with nothing mapped, for a VM with `ipa_bits` (32 to 48) of address.
    ///
    /// # Errors
    /// [`MapError::UnsupportedWidth`] for another width, [`MapError::OutOfTables`].
    pub fn new(memory: &mut impl TableMemory, ipa_bits: u8) -> Result<Self, MapError> {
        let geometry = Geometry::stage2(ipa_bits).ok_or(MapError::UnsupportedWidth(ipa_bits))?;
        Ok(Self { tables: Tables::new(memory, geometry)? })
    }

    /// Returns the shape of the tables.
    #[must_use]
    pub const fn geometry(&self) -> Geometry {
        self.tables.geometry()
    }

    /// Returns the address of the root table.
    #[must_use]
    pub const fn root(&self) -> Pa {
        self.tables.root()
    }

    /// Computes VTTBR_EL2 for a VM with this VMID; CnP is 0 (Arm ARM DDI 0487K.a, D23.2, VTTBR_EL2).
    #[must_use]
    pub fn vttbr_el2(&self, vmid: Vmid) -> u64 {
        const VMID_SHIFT: u32 = 48;
        u64::from(vmid.0) << VMID_SHIFT | self.tables.root().get()
    }

    /// Maps `region` to `pa` and what follows.
    ///
    /// # Errors
    /// Anything that [`MapError`] names; then nothing of it is mapped.
    pub fn map(
        &mut self,
        memory: &mut impl TableMemory,
        region: Region<Ipa>,
        pa: Pa,
        attributes: Stage2Attributes,
    ) -> Result<(), MapError> {
        let wanted = Mapping {
            input: region.start.get(),
            output: pa,
            size_bytes: region.size_bytes,
            attributes: attributes.to_bits(),
        };
        self.tables.map(memory, wanted)
    }

    /// Maps `extents` one after the other from `start` on and returns the region they fill.
    ///
    /// # Errors
    /// Anything that [`MapError`] names; then nothing of it is mapped.
    pub fn map_extents(
        &mut self,
        memory: &mut impl TableMemory,
        start: Ipa,
        extents: &Extents,
        attributes: Stage2Attributes,
    ) -> Result<Region<Ipa>, MapError> {
        let out_of_range = MapError::OutOfRange(start.get());
        let whole = Region::<Ipa>::new(start, extents.size_bytes()).ok_or(out_of_range)?;
        let mut ipa = start;
        for extent in extents.iter() {
            let region = Region { start: ipa, size_bytes: extent.size_bytes };
            if let Err(error) = self.map(memory, region, extent.start, attributes) {
                self.unmap_before(memory, start, ipa);
                return Err(error);
            }
            ipa = ipa.checked_add(extent.size_bytes).ok_or(out_of_range)?;
        }
        Ok(whole)
    }

    /// Unmaps `region`, all of which must be mapped. A block that it takes a part of is split: until the
    /// call returns, other vCPUs can take a stage 2 fault in the rest of that block and must retry.
    ///
    /// # Errors
    /// Anything that [`MapError`] names; then everything is mapped as it was.
    pub fn unmap(&mut self, memory: &mut impl TableMemory, region: Region<Ipa>) -> Result<(), MapError> {
        self.tables.unmap(memory, region.start.get(), region.size_bytes)
    }

    /// Returns what `ipa` translates to; `None` where the VM would take a translation fault.
    #[must_use]
    pub fn translate(&self, memory: &impl TableMemory, ipa: Ipa) -> Option<Translation> {
        let leaf = self.tables.translate(memory, ipa.get())?;
        let attributes = Stage2Attributes::from_bits(leaf.attributes);
        Some(Translation { pa: leaf.output, attributes, leaf_bytes: leaf.size_bytes })
    }

    /// Frees all tables. The caller has made sure that no VTTBR_EL2 holds them any more; the VMID's TLB
    /// entries go when the VMID is used again ([`super::vmid::Grant::Reused`]).
    pub fn destroy(self, memory: &mut impl TableMemory) {
        self.tables.destroy(memory);
    }

    /// Takes back what `map_extents` mapped from `start` up to `end`.
    fn unmap_before(&mut self, memory: &mut impl TableMemory, start: Ipa, end: Ipa) {
        if let Some(size_bytes) = end.offset_from(start).filter(|bytes| *bytes > 0) {
            // Cannot fail: all of it has just been mapped, in leaves that end where extents do.
            let undone = self.unmap(memory, Region { start, size_bytes });
            assert_eq!(undone, Ok(()), "mapped extents could not be unmapped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vtcr_of_40_bits_starts_at_level_1_with_8_bit_vmids() {
        let geometry = Geometry::stage2(40).unwrap();
        assert_eq!(geometry.root_pages(), 2);
        assert_eq!(vtcr_el2(geometry, 0b0010, VmidBits::Eight), 0x8002_3558);
        assert_eq!(vtcr_el2(geometry, 0b0110, VmidBits::Sixteen), 0x800d_3558);
    }

    #[test]
    fn the_root_has_as_few_levels_as_concatenation_allows() {
        let shape = |bits| {
            let geometry = Geometry::stage2(bits).unwrap();
            (geometry.start_level().number(), geometry.root_pages())
        };
        assert_eq!(shape(32), (2, 4));
        assert_eq!(shape(34), (2, 16));
        assert_eq!(shape(35), (1, 1));
        assert_eq!(shape(36), (1, 1));
        assert_eq!(shape(39), (1, 1));
        assert_eq!(shape(40), (1, 2));
        assert_eq!(shape(43), (1, 16));
        assert_eq!(shape(44), (0, 1));
        assert_eq!(shape(48), (0, 1));
        assert_eq!(Geometry::stage2(31), None);
        assert_eq!(Geometry::stage2(49), None);
    }

    #[test]
    fn a_vm_gets_at_most_40_bits_and_what_the_machine_has() {
        let widths: [u8; 8] = core::array::from_fn(|range| ipa_bits(u8::try_from(range).unwrap()));
        assert_eq!(widths, [32, 36, 40, 40, 40, 40, 40, 40]);
        assert_eq!(pa_bits(0b0110), 48);
        assert_eq!(pa_bits(u8::MAX), 48);
    }

    #[test]
    fn attributes_survive_the_descriptor() {
        for bits in 0..16_u8 {
            let [read, write, execute, device] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
            let memory = if device { MemoryType::Device } else { MemoryType::Normal };
            let attributes = Stage2Attributes { read, write, execute, memory };
            assert_eq!(Stage2Attributes::from_bits(attributes.to_bits()), attributes);
        }
    }
}

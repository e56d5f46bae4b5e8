//! Device registers of the real machine, one volatile access each.
//!
//! Not here: which device lives where (the board's tree says that).

use trapeze::addr::{Pa, Region};

/// A span of device registers that EL2's map has as Device-nGnRE.
#[derive(Clone, Copy, Debug)]
pub struct Mmio(Region<Pa>);

impl Mmio {
    /// Takes a register block.
    ///
    /// # Safety
    /// EL2's map has all of `region` as device memory, and a read or write of its registers touches no memory that
    /// Rust knows of.
    pub const unsafe fn new(region: Region<Pa>) -> Self {
        Self(region)
    }

    /// Returns the part of the block from `offset` on, `bytes` long; `None` if it is not all inside.
    pub fn part(self, offset: u64, bytes: u64) -> Option<Self> {
        let start = self.0.start.checked_add(offset)?;
        let part = Region::<Pa>::new(start, bytes)?;
        self.0.encloses(&part).then_some(Self(part))
    }

    fn at(self, offset: u64, bytes: u64) -> usize {
        assert!(
            offset.is_multiple_of(bytes) && offset + bytes <= self.0.size_bytes,
            "register {offset:#x} outside {}",
            self.0
        );
        (self.0.start.get() + offset) as usize
    }

    /// Reads the 32-bit register at `offset`.
    pub fn read32(self, offset: u64) -> u32 {
        // SAFETY: `at` keeps the access inside the block, which `new` was promised to be device registers.
        unsafe { core::ptr::with_exposed_provenance::<u32>(self.at(offset, 4)).read_volatile() }
    }

    /// Writes the 32-bit register at `offset`.
    pub fn write32(self, offset: u64, value: u32) {
        // SAFETY: as for `read32`.
        unsafe { core::ptr::with_exposed_provenance_mut::<u32>(self.at(offset, 4)).write_volatile(value) }
    }

    /// Writes the byte at `offset`.
    pub fn write8(self, offset: u64, value: u8) {
        // SAFETY: as for `read32`.
        unsafe { core::ptr::with_exposed_provenance_mut::<u8>(self.at(offset, 1)).write_volatile(value) }
    }

    /// Reads the 64-bit register at `offset`.
    pub fn read64(self, offset: u64) -> u64 {
        // SAFETY: as for `read32`.
        unsafe { core::ptr::with_exposed_provenance::<u64>(self.at(offset, 8)).read_volatile() }
    }

    /// Writes the 64-bit register at `offset`.
    pub fn write64(self, offset: u64, value: u64) {
        // SAFETY: as for `read32`.
        unsafe { core::ptr::with_exposed_provenance_mut::<u64>(self.at(offset, 8)).write_volatile(value) }
    }
}

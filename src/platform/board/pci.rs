//! The PCI Express host bridge that QEMU's `virt` board has.
//!
//! Not here: what is on the bus.
//! Follows the `pci-host-ecam-generic` binding and IEEE Std 1275 PCI Bus Binding 2.1, 2.2.1.1 (addresses).

use super::{BoardError, physical, registers};
use crate::addr::{Pa, Region};
use crate::dtb::node::{self, Cells, Reason};
use crate::dtb::path::{NodePath, PropertyError};

/// A host bridge with memory-mapped configuration space (ECAM).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PciHost {
    /// Configuration space: 1 MiB for each bus, the first being the first of `buses`.
    pub ecam: Region<Pa>,
    /// First and last bus number.
    pub buses: (u8, u8),
    /// Where 32-bit non-prefetchable BARs can be placed.
    pub mmio: Option<PciWindow>,
}

/// A span of addresses that the bridge passes on to the bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PciWindow {
    /// Where it is for a CPU.
    pub cpu: Region<Pa>,
    /// First address on the bus: what goes into a BAR.
    pub bus_start: u32,
}

/// Fields of the first cell of a PCI address.
mod phys_hi {
    pub(super) const PREFETCHABLE: u32 = 1 << 30;
    pub(super) const SPACE: u32 = 0b11 << 24;
    pub(super) const SPACE_MEMORY_32: u32 = 0b10 << 24;
}

impl PciHost {
    /// Reads the bridge's node.
    pub(super) fn read(path: &NodePath<'_, '_>) -> Result<Self, BoardError> {
        Ok(Self { ecam: registers(path, 0)?, buses: buses(path)?, mmio: window(path)? })
    }
}

fn buses(path: &NodePath<'_, '_>) -> Result<(u8, u8), PropertyError> {
    let property = "bus-range";
    let Some(value) = node::value(path.node(), property) else { return Ok((0, u8::MAX)) };
    let mut cells = Cells::new(value);
    let mut bus = || {
        let number = cells.cell().ok_or_else(|| path.fault(property, Reason::TooFew { wanted: 2 }))?;
        u8::try_from(number).map_err(|_| path.fault(property, Reason::OutOfRange(number.into())))
    };
    let (first, last) = (bus()?, bus()?);
    if last < first { Err(path.fault(property, Reason::OutOfRange(last.into()))) } else { Ok((first, last)) }
}

/// Finds the first entry of `ranges` for 32-bit non-prefetchable memory.
fn window(path: &NodePath<'_, '_>) -> Result<Option<PciWindow>, PropertyError> {
    let property = "ranges";
    let parent_cells = path.parent_cell_counts()?.address;
    let mut cells = Cells::new(node::value(path.node(), property).unwrap_or_default());
    // A PCI address has three cells and a size two, whatever the node says of itself.
    let mut entry = || Some((cells.cell()?, cells.number(2)?, cells.number(parent_cells)?, cells.number(2)?));
    while let Some((kind, bus_start, start, size_bytes)) = entry() {
        if kind & (phys_hi::SPACE | phys_hi::PREFETCHABLE) != phys_hi::SPACE_MEMORY_32 {
            continue;
        }
        let cpu = path.translate(property, start, size_bytes).map(physical)?;
        let fits = bus_start.checked_add(size_bytes).is_some_and(|end| end <= 1 << 32);
        let bus_start = u32::try_from(bus_start).ok().filter(|_| fits);
        let bus_start =
            bus_start.ok_or_else(|| path.fault(property, Reason::NoSpan { start, size_bytes }))?;
        return Ok(Some(PciWindow { cpu, bus_start }));
    }
    Ok(None)
}

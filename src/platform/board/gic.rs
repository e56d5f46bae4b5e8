//! Where the registers of the board's interrupt controller are.
//!
//! Not here: controllers without virtualization (GIC-390, GICv1), and the ITS.
//! Follows the `arm,gic` and `arm,gic-v3` bindings; Arm IHI 0048B.b, 5.1 (GICv2) and Arm IHI 0069H, 12.1
//! (GICv3).

use alloc::vec::Vec;

use fdt::Fdt;

use super::{BoardError, registers};
use crate::addr::{Pa, Region};
use crate::dtb::interrupt::Interrupt;
use crate::dtb::node::{self, Reason};
use crate::dtb::path::{NodePath, PropertyError};

/// Most regions of redistributors; boards have one, or one per socket.
const MAX_REDISTRIBUTOR_REGIONS: u32 = 64;

/// The interrupt controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gic {
    /// What the tree calls it.
    pub phandle: u32,
    /// Where its registers are.
    pub registers: GicRegisters,
    /// Interrupt of the virtual CPU interface: a PPI.
    pub maintenance: Interrupt,
}

/// Where the registers of a GIC are, by architecture version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GicRegisters {
    /// GICv2.
    V2 {
        /// Distributor.
        gicd: Region<Pa>,
        /// CPU interface.
        gicc: Region<Pa>,
        /// Virtual interface control.
        gich: Region<Pa>,
        /// Virtual CPU interface.
        gicv: Region<Pa>,
    },
    /// GICv3 or later.
    V3 {
        /// Distributor.
        gicd: Region<Pa>,
        /// Redistributors, one after the other in each region.
        gicr: Vec<Region<Pa>>,
        /// Bytes from one redistributor to the next, where it is not what GICR_TYPER.VLPIS says.
        stride: Option<u64>,
    },
}

impl Gic {
    /// Reads the controller's node.
    pub(super) fn read(fdt: &Fdt<'_>, path: &NodePath<'_, '_>) -> Result<Self, BoardError> {
        let phandle = node::cell(path.node(), "phandle").map_err(|fault| path.error(fault))?;
        let is_v3 = node::is_compatible(path.node(), &["arm,gic-v3"]);
        let registers = if is_v3 { v3(path)? } else { v2(path)? };
        let maintenance = path.required_interrupt(fdt, 0)?;
        let phandle = phandle.ok_or_else(|| path.fault("phandle", Reason::Missing))?;
        if !maintenance.intid.is_private() || maintenance.controller != phandle {
            let intid = u64::from(maintenance.intid.0);
            return Err(path.fault("interrupts", Reason::OutOfRange(intid)).into());
        }
        Ok(Self { phandle, registers, maintenance })
    }
}

fn v2(path: &NodePath<'_, '_>) -> Result<GicRegisters, PropertyError> {
    let region = |index| registers(path, index);
    Ok(GicRegisters::V2 { gicd: region(0)?, gicc: region(1)?, gich: region(2)?, gicv: region(3)? })
}

fn v3(path: &NodePath<'_, '_>) -> Result<GicRegisters, PropertyError> {
    let property = "#redistributor-regions";
    let count = node::cell(path.node(), property).map_err(|fault| path.error(fault))?.unwrap_or(1);
    if !(1..=MAX_REDISTRIBUTOR_REGIONS).contains(&count) {
        return Err(path.fault(property, Reason::OutOfRange(count.into())));
    }
    let property = "redistributor-stride";
    let stride = node::number(path.node(), property).map_err(|fault| path.error(fault))?;
    // A redistributor is two frames of 64 KiB, or four.
    if let Some(stride) = stride.filter(|stride| *stride < 0x2_0000 || !stride.is_multiple_of(0x1_0000)) {
        return Err(path.fault(property, Reason::OutOfRange(stride)));
    }
    let gicr = (1..).zip(0..count).map(|(index, _)| registers(path, index)).collect::<Result<_, _>>()?;
    Ok(GicRegisters::V3 { gicd: registers(path, 0)?, gicr, stride })
}

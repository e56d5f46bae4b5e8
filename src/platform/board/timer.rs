//! Interrupts of the generic timer.
//!
//! Not here: its frequency, which CNTFRQ_EL0 has; memory-mapped timers.
//! Follows the `arm,arch_timer` binding and Arm ARM DDI 0487K.a, D12.2 (the timers).

use fdt::Fdt;

use super::BoardError;
use crate::dtb::interrupt::{Interrupt, Interrupts};
use crate::dtb::node::{self, Reason};
use crate::dtb::path::{NodePath, PropertyError};
use crate::ids::IntId;

/// The PPIs of the timers that each CPU has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArchTimer {
    /// Secure EL1 physical timer.
    pub secure_physical: Option<IntId>,
    /// Non-secure EL1 physical timer (CNTP).
    pub physical: IntId,
    /// EL1 virtual timer (CNTV).
    pub virtual_el1: IntId,
    /// EL2 physical timer (CNTHP).
    pub hypervisor: IntId,
    /// EL2 virtual timer (CNTHV), of FEAT_VHE.
    pub hypervisor_virtual: Option<IntId>,
}

/// The interrupts in the order of a node without `interrupt-names`, by the names that it would have.
const NAMES: [&str; 5] = ["sec-phys", "phys", "virt", "hyp-phys", "hyp-virt"];

impl ArchTimer {
    /// Reads the timer's node; its interrupts have to be PPIs of the GIC with this phandle.
    pub(super) fn read(fdt: &Fdt<'_>, path: &NodePath<'_, '_>, gic: u32) -> Result<Self, BoardError> {
        let interrupts = path.interrupts(fdt)?;
        let [secure_physical, physical, virtual_el1, hypervisor, hypervisor_virtual] =
            NAMES.map(|name| ppi(path, interrupts, name, gic));
        let required = |ppi: Result<Option<IntId>, PropertyError>| {
            ppi?.ok_or_else(|| path.fault("interrupts", Reason::TooFew { wanted: 4 }))
        };
        Ok(Self {
            secure_physical: secure_physical?,
            physical: required(physical)?,
            virtual_el1: required(virtual_el1)?,
            hypervisor: required(hypervisor)?,
            hypervisor_virtual: hypervisor_virtual?,
        })
    }
}

/// Reads the interrupt with this name, or at its place in [`NAMES`] where none has a name.
fn ppi(
    path: &NodePath<'_, '_>,
    interrupts: Interrupts<'_, '_>,
    name: &str,
    gic: u32,
) -> Result<Option<IntId>, PropertyError> {
    let property = "interrupt-names";
    let index = if node::has(path.node(), property) {
        node::strings(path.node(), property).map_err(|fault| path.error(fault))?.position(|one| one == name)
    } else {
        NAMES.iter().position(|one| *one == name)
    };
    let Some(index) = index else { return Ok(None) };
    let interrupt = interrupts.get(index).map_err(|fault| path.error(fault))?;
    let Some(Interrupt { controller, intid, .. }) = interrupt else { return Ok(None) };
    let is_ppi = controller == gic && intid.is_private();
    is_ppi.then_some(Some(intid)).ok_or_else(|| path.fault("interrupts", Reason::OutOfRange(intid.0.into())))
}

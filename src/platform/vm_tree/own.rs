//! The properties of a VM's tree that are the hypervisor's own: the node that each belongs to, and those of the root,
//! which say how the VM is to run.
//!
//! Not here: those of memory and devices, which are read with their nodes; and what a share comes to (the scheduler's).

#[cfg(test)]
mod tests;

use core::ops::RangeInclusive;

use super::scan::Place;
use super::{VmError, VmFault};
use crate::ids::PcpuId;
use crate::node;
use crate::share::{Class, MAX_PRIORITY, MAX_WEIGHT, OnCrash, PcpuSet, Share};

/// Prefix of properties that are the hypervisor's own.
pub(crate) const OWN_PREFIX: &str = "trapeze,";
/// Of a device that is the host's own: the path of its node there.
pub const PASSTHROUGH: &str = "trapeze,passthrough";
/// Of such a device: it may master the bus, and reach all memory.
pub(crate) const TRUSTED_DMA: &str = "trapeze,trusted-dma";
/// Of memory: it is to be where the guest believes it to be.
pub(super) const IDENTITY: &str = "trapeze,identity";
/// Of the root: the VM's weight among those that share.
pub(super) const WEIGHT: &str = "trapeze,weight";
/// Of the root: the VM's priority in the real-time class.
pub(super) const PRIORITY: &str = "trapeze,priority";
/// Of the root: most that a vCPU may have of its CPU.
const CAP: &str = "trapeze,cap-percent";
/// Of the root: the physical CPUs that the VM may run on.
pub(super) const CPUS: &str = "trapeze,cpus";
/// Of the root: what becomes of the VM when it crashes.
const ON_CRASH: &str = "trapeze,on-crash";

/// Physical CPUs that a tree can name: the width of a [`PcpuSet`].
const NAMED_CPUS: usize = 64;

/// The nodes that a property belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Home {
    /// The root.
    Root,
    /// RAM.
    Memory,
    /// A device.
    Device,
    /// A device that is the host's.
    HostDevice,
}

impl Home {
    /// Returns where to move such a property.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Root => "/",
            Self::Memory => "/memory",
            Self::Device => "a device",
            Self::HostDevice => "a device that has trapeze,passthrough",
        }
    }
}

/// All there are.
const KNOWN: [(&str, Home); 8] = [
    (WEIGHT, Home::Root),
    (PRIORITY, Home::Root),
    (CAP, Home::Root),
    (CPUS, Home::Root),
    (ON_CRASH, Home::Root),
    (IDENTITY, Home::Memory),
    (PASSTHROUGH, Home::Device),
    (TRUSTED_DMA, Home::HostDevice),
];

/// Lists the properties that a node of these kinds can have.
pub(super) fn known_in(homes: &[Home]) -> impl Iterator<Item = &'static str> {
    KNOWN.iter().filter(|(_, home)| homes.contains(home)).map(|(name, _)| *name)
}

/// Requires a node to have no property of the hypervisor's own but those of its kinds.
pub(super) fn refuse_strangers(place: &Place<'_, '_>, homes: &'static [Home]) -> Result<(), VmError> {
    for property in place.node.properties().filter(|property| property.name.starts_with(OWN_PREFIX)) {
        match KNOWN.iter().find(|(name, _)| *name == property.name) {
            Some((_, home)) if homes.contains(home) => {}
            Some((property, home)) => return Err(place.fault(VmFault::Misplaced { property, home: *home })),
            None => {
                let property = node::shown(property.name);
                return Err(place.fault(VmFault::UnknownProperty { property, homes }));
            }
        }
    }
    Ok(())
}

/// What the root says of how the VM is to run.
#[derive(Default)]
pub(super) struct Policy {
    pub(super) share: Share,
    pub(super) cpus: Option<PcpuSet>,
    pub(super) on_crash: OnCrash,
}

impl Policy {
    /// Reads the root.
    pub(super) fn read(root: &Place<'_, '_>) -> Result<Self, VmError> {
        let weight = number(root, WEIGHT, 1..=MAX_WEIGHT)?;
        let priority = number(root, PRIORITY, 0..=MAX_PRIORITY)?;
        let class = match (weight, priority) {
            (None, None) => Share::default().class,
            (Some(weight), None) => Class::Shared { weight },
            (None, Some(priority)) => Class::RealTime { priority },
            (Some(_), Some(_)) => return Err(root.fault(VmFault::TwoClasses)),
        };
        let cap_percent = number(root, CAP, 1..=100)?;
        Ok(Self { share: Share { class, cap_percent }, cpus: cpus(root)?, on_crash: on_crash(root)? })
    }
}

/// Reads a number in one cell.
fn number<T: Copy + PartialOrd + Into<u32> + TryFrom<u32>>(
    root: &Place<'_, '_>,
    property: &'static str,
    wanted: RangeInclusive<T>,
) -> Result<Option<T>, VmError> {
    let Some(value) = node::value(root.node, property) else { return Ok(None) };
    let cell = node::cell(value);
    let number = cell.and_then(|cell| T::try_from(cell).ok()).filter(|number| wanted.contains(number));
    let (least, most) = ((*wanted.start()).into(), (*wanted.end()).into());
    number.map(Some).ok_or_else(|| root.fault(VmFault::Number { property, value: cell, least, most }))
}

/// Reads a set of physical CPUs; whether the board has them is seen when the VM starts.
fn cpus(root: &Place<'_, '_>) -> Result<Option<PcpuSet>, VmError> {
    let Some(value) = node::value(root.node, CPUS) else { return Ok(None) };
    let wanted = "the numbers of physical CPUs, as in <0 1>; without the property all are the VM's";
    let numbers = node::cells(value).filter(|numbers| !numbers.is_empty());
    let mut all = PcpuSet::EMPTY;
    for number in numbers.ok_or_else(|| root.malformed(CPUS, wanted))? {
        let one = u8::try_from(number).map_or(PcpuSet::EMPTY, |number| PcpuSet::only(PcpuId(number)));
        if one.is_empty() {
            return Err(root.fault(VmFault::NoSuchCpu { board: "a board", number, cpus: NAMED_CPUS }));
        }
        if !all.and(one).is_empty() {
            return Err(root.fault(VmFault::SameCpu(number)));
        }
        all.add(one);
    }
    Ok(Some(all))
}

fn on_crash(root: &Place<'_, '_>) -> Result<OnCrash, VmError> {
    let wanted = "\"stop\", \"reset\" or \"hold\"";
    match node::value(root.node, ON_CRASH).map(node::text) {
        None => Ok(OnCrash::default()),
        Some(Some("stop")) => Ok(OnCrash::Stop),
        Some(Some("reset")) => Ok(OnCrash::Reset),
        Some(Some("hold")) => Ok(OnCrash::Hold),
        Some(Some(other)) => {
            let value = alloc::format!("\"{}\"", node::shown(other));
            Err(root.fault(VmFault::Unsupported { property: ON_CRASH, value, wanted }))
        }
        Some(None) => Err(root.malformed(ON_CRASH, wanted)),
    }
}

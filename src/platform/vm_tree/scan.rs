//! Walks a VM's tree and collects what the machine is made of.
//!
//! Not here: whether the parts fit together, which is checked when all of them are known.
//! Follows the Devicetree Specification v0.4, chapters 2 and 3.

use super::devices::{self, Device, SIMPLE_BUS};
use super::own::{self, Home, IDENTITY, PASSTHROUGH, Policy};
use super::{Conduit, Gic, Passthrough, Timer, Uart, VmError, VmFault};
use crate::addr::{Ipa, PAGE_BYTES, Region};
use crate::ids::{Affinity, IntId};
use crate::node::{self, CellCounts, Node};
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use fdt::Fdt;

/// First address above a guest's physical address space: 40 bits of it.
const IPA_LIMIT: u64 = 1 << 40;

/// Something found in the tree, and where.
#[derive(Clone)]
pub(super) struct Found<T> {
    pub(super) path: String,
    pub(super) what: T,
}

/// Everything that was found, not yet checked against each other.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) ram: Vec<Found<Region<Ipa>>>,
    pub(super) identity: bool,
    pub(super) policy: Policy,
    pub(super) reserved: Vec<Found<Region<Ipa>>>,
    pub(super) cpus: Vec<Found<Affinity>>,
    /// A CPU without `enable-method`.
    pub(super) unmethodical: Option<String>,
    pub(super) gic: Option<Found<Gic>>,
    /// What devices call the interrupt controller.
    pub(super) gic_phandle: Option<u32>,
    pub(super) timer: Option<Found<Timer>>,
    pub(super) psci: Option<Found<Conduit>>,
    pub(super) performance_monitors: Option<Found<IntId>>,
    pub(super) uarts: Vec<Uart>,
    pub(super) passthrough: Vec<Passthrough>,
    /// The controllers that interrupts are wired to.
    pub(super) wired_to: Vec<Found<Option<u32>>>,
}

/// What a node is by its place in the tree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Root,
    Top,
    Cpus,
    Reserved,
    /// Below a device of the host's: whatever it is, it is reached through that.
    Passthrough,
    Other,
}

/// A node, its path, and what it inherits.
pub(super) struct Place<'t, 'a> {
    pub(super) node: Node<'t, 'a>,
    pub(super) path: String,
    /// Whether its addresses are those of the guest's physical address space.
    pub(super) is_on_bus: bool,
    kind: Kind,
    cells: CellCounts,
    interrupt_parent: Option<u32>,
}

/// Walks the whole tree; nodes that are not in use are skipped with all below them.
pub(super) fn scan(tree: &Fdt<'_>) -> Result<Parts, VmError> {
    let empty = VmFault::Missing { name: "/", wanted: "the device tree of the VM" };
    let root = node::root(tree).ok_or(VmError { node: "/".to_owned(), fault: empty })?;
    let mut parts = Parts::default();
    let mut ahead = Vec::from([Place {
        node: root,
        path: "/".to_owned(),
        is_on_bus: true,
        kind: Kind::Root,
        cells: CellCounts { address: 2, size: 1 },
        interrupt_parent: None,
    }]);
    while let Some(mut place) = ahead.pop() {
        if !node::is_enabled(place.node) {
            continue;
        }
        if let Some(parent) = place.optional_number("interrupt-parent")? {
            place.interrupt_parent = u32::try_from(parent).ok();
        }
        let next = parts.visit(&place)?;
        let first = ahead.len();
        ahead.extend(place.children(next)?);
        if let Some(children) = ahead.get_mut(first..) {
            children.reverse();
        }
    }
    Ok(parts)
}

/// What the children of a node are.
struct Below {
    kind: Kind,
    is_on_bus: bool,
}

const OTHER: Below = Below { kind: Kind::Other, is_on_bus: false };
const PASSED: Below = Below { kind: Kind::Passthrough, is_on_bus: false };

impl Parts {
    /// Takes what one node says; returns how to see its children.
    fn visit(&mut self, place: &Place<'_, '_>) -> Result<Below, VmError> {
        let base = place.node.name.split('@').next().unwrap_or_default();
        // Kernels go by `device_type`, whatever the name of the node.
        let kind = node::value(place.node, "device_type").and_then(node::text).unwrap_or(base);
        let is_passed = node::value(place.node, PASSTHROUGH).is_some();
        own::refuse_strangers(
            place,
            match (place.kind, kind) {
                (Kind::Root, _) => &[Home::Root],
                (Kind::Top, "memory") => &[Home::Memory],
                (Kind::Top, "cpus" | "reserved-memory") => &[],
                (Kind::Top | Kind::Other, _) if is_passed => &[Home::Device, Home::HostDevice],
                (Kind::Top | Kind::Other, _) if node::value(place.node, "compatible").is_some() => {
                    &[Home::Device]
                }
                _ => &[],
            },
        )?;
        match (place.kind, base) {
            (Kind::Root, _) => {
                self.policy = Policy::read(place)?;
                Ok(Below { kind: Kind::Top, is_on_bus: true })
            }
            (Kind::Passthrough, _) => Ok(PASSED),
            (Kind::Top, "cpus") => Ok(Below { kind: Kind::Cpus, is_on_bus: false }),
            (Kind::Top, "reserved-memory") => Ok(Below { kind: Kind::Reserved, is_on_bus: true }),
            (Kind::Top, "memory") => self.memory(place),
            (Kind::Cpus, "cpu") => self.cpu(place),
            (Kind::Reserved, _) => self.reserved(place),
            (Kind::Top, _) if kind == "memory" => self.memory(place),
            (Kind::Cpus, _) if kind == "cpu" => self.cpu(place),
            _ if is_passed => self.passed(place),
            _ => self.device(place),
        }
    }

    fn memory(&mut self, place: &Place<'_, '_>) -> Result<Below, VmError> {
        if node::text(place.require("device_type", "\"memory\"")?) != Some("memory") {
            return Err(place.malformed("device_type", "\"memory\""));
        }
        self.ram.extend(place.reg()?.into_iter().map(|what| place.found(what)));
        self.identity |= place.flag(IDENTITY)?;
        Ok(OTHER)
    }

    fn reserved(&mut self, place: &Place<'_, '_>) -> Result<Below, VmError> {
        if node::value(place.node, "reg").is_some() {
            self.reserved.extend(place.reg()?.into_iter().map(|what| place.found(what)));
        }
        Ok(Below { kind: Kind::Reserved, is_on_bus: true })
    }

    fn cpu(&mut self, place: &Place<'_, '_>) -> Result<Below, VmError> {
        if node::text(place.require("device_type", "\"cpu\"")?) != Some("cpu") {
            return Err(place.malformed("device_type", "\"cpu\""));
        }
        match node::value(place.node, "enable-method").map(node::text) {
            None => self.unmethodical = Some(place.path.clone()),
            Some(Some("psci")) => {}
            Some(_) => return Err(place.malformed("enable-method", "\"psci\"")),
        }
        let wanted =
            "the CPU's affinity in one cell, with #address-cells = <1> and #size-cells = <0> in /cpus";
        let value = place.require("reg", wanted)?;
        let pairs = place.cells.pairs(value).filter(|_| place.cells.size == 0);
        let Some([(reg, _)]) = pairs.as_deref() else { return Err(place.malformed("reg", wanted)) };
        let affinity = Affinity::from_mpidr(*reg);
        if affinity.to_mpidr() != *reg {
            let wanted = "bits of MPIDR_EL1 0xff00ffffff only";
            return Err(place.fault(VmFault::Affinity { reg: *reg, wanted }));
        }
        self.cpus.push(place.found(affinity));
        Ok(OTHER)
    }

    /// Takes a device of the host's.
    fn passed(&mut self, place: &Place<'_, '_>) -> Result<Below, VmError> {
        let device = devices::passthrough(place)?;
        if !device.interrupts.is_empty() {
            self.wired_to.push(place.found(place.interrupt_parent));
        }
        self.passthrough.push(device);
        Ok(PASSED)
    }

    /// Takes a node by its `compatible`; one without has no driver and so no device, but its children may.
    fn device(&mut self, place: &Place<'_, '_>) -> Result<Below, VmError> {
        let Some(value) = node::value(place.node, "compatible") else { return Ok(OTHER) };
        let names = node::texts(value).ok_or_else(|| place.malformed("compatible", "a list of strings"))?;
        let name = names.first().copied().unwrap_or_default();
        match Device::of(name) {
            Some(device) => self.known(place, device)?,
            None if names.contains(&SIMPLE_BUS) && node::value(place.node, "reg").is_none() => {
                return place.bus();
            }
            None => return Err(place.fault(VmFault::NotProvided(node::shown(name)))),
        }
        Ok(OTHER)
    }

    fn known(&mut self, place: &Place<'_, '_>, device: Device) -> Result<(), VmError> {
        match device {
            Device::GicV2 | Device::GicV3 => {
                place.refuse_second(self.gic.as_ref())?;
                self.gic = Some(place.found(devices::gic(place, device)?));
                self.gic_phandle = place.phandle()?;
            }
            Device::Timer => {
                place.refuse_second(self.timer.as_ref())?;
                self.timer = Some(place.found(devices::timer(place)?));
                self.wired_to.push(place.found(place.interrupt_parent));
            }
            Device::Psci => {
                place.refuse_second(self.psci.as_ref())?;
                self.psci = Some(place.found(devices::psci(place)?));
            }
            Device::PerformanceMonitors => {
                place.refuse_second(self.performance_monitors.as_ref())?;
                self.performance_monitors = Some(place.found(devices::performance_monitors(place)?));
                self.wired_to.push(place.found(place.interrupt_parent));
            }
            Device::Uart => {
                self.uarts.push(devices::uart(place)?);
                self.wired_to.push(place.found(place.interrupt_parent));
            }
            Device::Passive => {}
        }
        Ok(())
    }
}

impl<'t, 'a> Place<'t, 'a> {
    pub(super) fn fault(&self, fault: VmFault) -> VmError {
        VmError { node: self.path.clone(), fault }
    }

    pub(super) fn malformed(&self, property: &'static str, wanted: &'static str) -> VmError {
        self.fault(VmFault::Malformed { property, wanted })
    }

    fn found<T>(&self, what: T) -> Found<T> {
        Found { path: self.path.clone(), what }
    }

    /// Returns the bytes of a property that the node must have.
    pub(super) fn require(&self, name: &'static str, wanted: &'static str) -> Result<&'a [u8], VmError> {
        node::value(self.node, name).ok_or_else(|| self.fault(VmFault::Missing { name, wanted }))
    }

    /// Reads a number that may be absent.
    pub(super) fn optional_number(&self, property: &'static str) -> Result<Option<u64>, VmError> {
        let Some(value) = node::value(self.node, property) else { return Ok(None) };
        node::number(value).map(Some).ok_or_else(|| self.malformed(property, "a number of one or two cells"))
    }

    /// Reads a property that says all by being there.
    pub(super) fn flag(&self, property: &'static str) -> Result<bool, VmError> {
        match node::value(self.node, property) {
            Some([]) => Ok(true),
            Some(_) => Err(self.malformed(property, "it as an empty property, or none")),
            None => Ok(false),
        }
    }

    fn phandle(&self) -> Result<Option<u32>, VmError> {
        Ok(self.optional_number("phandle")?.and_then(|phandle| u32::try_from(phandle).ok()))
    }

    /// Reads `reg` as regions of whole pages.
    pub(super) fn reg(&self) -> Result<Vec<Region<Ipa>>, VmError> {
        self.spans(PAGE_BYTES)
    }

    /// Reads `reg` as regions of whole units of so many bytes.
    pub(super) fn spans(&self, unit: u64) -> Result<Vec<Region<Ipa>>, VmError> {
        let wanted =
            "(address, size) pairs in as many cells as #address-cells and #size-cells of the parent say";
        let value = self.require("reg", wanted)?;
        let pairs = self.cells.pairs(value).ok_or_else(|| self.malformed("reg", wanted))?;
        let region = |(start, bytes): (u64, u64)| {
            if bytes == 0 || !start.is_multiple_of(unit) || !bytes.is_multiple_of(unit) {
                return Err(self.fault(VmFault::Unaligned { start, bytes }));
            }
            Region::<Ipa>::new(Ipa::new(start), bytes)
                .filter(|region| region.last().get() < IPA_LIMIT)
                .ok_or_else(|| self.fault(VmFault::AboveSpace { start, bytes }))
        };
        pairs.into_iter().map(region).collect()
    }

    /// Takes a container of devices, whose addresses must be those of its parent.
    fn bus(&self) -> Result<Below, VmError> {
        let wanted = "it as an empty property: addresses on the bus are taken as they are";
        if self.node.children().next().is_some() && !self.require("ranges", wanted)?.is_empty() {
            return Err(self.malformed("ranges", wanted));
        }
        Ok(Below { kind: Kind::Other, is_on_bus: self.is_on_bus })
    }

    fn refuse_second<T>(&self, first: Option<&Found<T>>) -> Result<(), VmError> {
        first.map_or(Ok(()), |first| Err(self.fault(VmFault::Second(first.path.clone()))))
    }

    /// Lists the children in order.
    fn children(&self, below: Below) -> Result<Vec<Self>, VmError> {
        let cells = CellCounts::of(self.node).map_err(|property| self.malformed(property, "one cell"))?;
        let place = |node: Node<'t, 'a>| Place {
            node,
            path: node::join(&self.path, node.name),
            is_on_bus: below.is_on_bus,
            kind: below.kind,
            cells,
            interrupt_parent: self.interrupt_parent,
        };
        Ok(self.node.children().map(place).collect())
    }
}

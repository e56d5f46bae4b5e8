//! Devices of the host that a VM is to have as they are: what its tree asks for, held against the board's.
//!
//! Not here: who else has them (the allocator's), mapping them, and their interrupts' way.
//! Follows the Devicetree Specification v0.4, 2.3 (standard properties).

// Minutes long under Miri, and nothing in it is unsafe.
#[cfg(test)]
#[cfg(not(miri))]
mod tests;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use fdt::Fdt;

use crate::addr::{Ipa, PAGE_BYTES, Pa, Region};
use crate::board::{Board, physical};
use crate::dtb::interrupt::Trigger;
use crate::dtb::node;
use crate::dtb::path::NodePath;
use crate::ids::{FIRST_SPI, IntId};
use crate::vm_tree::{PASSTHROUGH, Passthrough, TRUSTED_DMA, VmConfig, VmError, VmFault};

/// What is known not to master the bus, by the first string of `compatible`.
const NO_MASTERS: [&str; 7] = [
    "arm,pl011",
    "arm,pl031",
    "arm,pl061",
    "brcm,bcm2835-aux",
    "brcm,bcm2835-aux-uart",
    "brcm,bcm2835-gpio",
    "brcm,bcm2711-gpio",
];

/// First INTID above the SPIs (Arm IHI 0069H, 2.2.1).
const SPI_END: u32 = 1020;

const OTHER_REGISTERS: &str =
    "has other registers: give as many regions, of the same sizes, each as far into a page";

/// Pages of the guest, and the pages of the host that they are.
pub type Pages = (Region<Ipa>, Region<Pa>);

/// A device that a VM may have if nobody else has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// Path of its node in the VM's tree.
    pub path: String,
    /// Path of its node in the board's.
    pub host: String,
    /// Where its registers are, but for what an earlier device of the VM has as well.
    pub pages: Vec<Pages>,
    /// Its interrupts.
    pub lines: Vec<Line>,
}

/// An interrupt of such a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line {
    /// The guest's SPI.
    pub intid: IntId,
    /// The host's SPI.
    pub physical: IntId,
    /// What the host's tree says of it.
    pub trigger: Trigger,
}

/// Finds the devices that a VM is to have.
///
/// # Errors
/// The first that it cannot have, with the property of the VM's tree that asks for it.
#[inline(never)]
pub fn devices(host: &Fdt<'_>, board: &Board, config: &VmConfig) -> Result<Vec<Device>, VmError> {
    let mut devices = Vec::new();
    for wanted in &config.passthrough {
        let device = Search { host, board, config, wanted }.device(&devices);
        devices.push(device.map_err(|refusal| VmError {
            node: wanted.path.clone(),
            fault: VmFault::Host {
                property: refusal.property,
                path: refusal.other.unwrap_or_else(|| wanted.host.clone()),
                why: refusal.why,
            },
        })?);
    }
    Ok(devices)
}

/// Why a VM cannot have a device.
struct Refusal {
    /// The property of the VM's tree that asks for it.
    property: &'static str,
    why: &'static str,
    /// Path of the host's node that stands in the way, where it is another one.
    other: Option<String>,
}

fn refuse(property: &'static str, why: &'static str) -> Refusal {
    Refusal { property, why, other: None }
}

/// What decides about one device.
struct Search<'s, 'a> {
    host: &'s Fdt<'a>,
    board: &'s Board,
    config: &'s VmConfig,
    wanted: &'s Passthrough,
}

impl Search<'_, '_> {
    fn device(&self, earlier: &[Device]) -> Result<Device, Refusal> {
        let found = self.node()?;
        Ok(Device {
            path: self.wanted.path.clone(),
            host: self.wanted.host.clone(),
            pages: self.pages(&found, earlier)?,
            lines: self.lines(&found)?,
        })
    }

    /// Finds the node, and decides whether a VM may have what it stands for.
    fn node(&self) -> Result<NodePath<'_, '_>, Refusal> {
        let Passthrough { host, compatible, trusts_dma, .. } = self.wanted;
        let found = NodePath::find(self.host, host).filter(|found| found.to_string() == *host);
        let absent = "is not in the board's tree: give the path of a node that is";
        let found = found.ok_or_else(|| refuse(PASSTHROUGH, absent))?;
        if !found.is_available() {
            let disabled = "is disabled in the board's tree: the firmware has to set it up";
            return Err(refuse(PASSTHROUGH, disabled));
        }
        let names: Vec<&str> = node::strings(found.node(), "compatible").into_iter().flatten().collect();
        if !names.contains(&&**compatible) {
            return Err(refuse("compatible", "is another device: give what the board's tree says of it"));
        }
        if !names.first().is_some_and(|name| NO_MASTERS.contains(name)) {
            if !trusts_dma {
                let unconfined = "may master the bus and reach all memory, as no SMMU is driven here: \
                                  trapeze,trusted-dma lets it, which gives up isolation";
                return Err(refuse(PASSTHROUGH, unconfined));
            }
            if !self.config.identity {
                let displaced = "reaches memory where it physically is: give trapeze,identity to /memory";
                return Err(refuse(TRUSTED_DMA, displaced));
            }
        }
        Ok(found)
    }

    /// Finds the pages of a device: the guest's and the host's.
    fn pages(&self, found: &NodePath<'_, '_>, earlier: &[Device]) -> Result<Vec<Pages>, Refusal> {
        let registers = registers(found).filter(|all| all.len() == self.wanted.registers.len());
        let registers = registers.ok_or_else(|| refuse("reg", OTHER_REGISTERS))?;
        let mut pages: Vec<Pages> = Vec::new();
        for (ipa, pa) in self.wanted.registers.iter().zip(registers) {
            let place = |address: u64| address % PAGE_BYTES;
            if ipa.size_bytes != pa.size_bytes || place(ipa.start.get()) != place(pa.start.get()) {
                return Err(refuse("reg", OTHER_REGISTERS));
            }
            let (ipa, pa) = (ipa.pages(), pa.pages());
            if self.board.ram.iter().chain(&self.board.reserved).any(|memory| memory.overlaps(&pa)) {
                return Err(refuse("reg", "is memory: give a device"));
            }
            self.refuse_neighbours(pa)?;
            let mut known = earlier.iter().flat_map(|device| &device.pages).chain(&pages);
            match known.find(|(known, _)| *known == ipa) {
                Some((_, same)) if *same == pa => {}
                Some(_) => return Err(refuse("reg", OTHER_REGISTERS)),
                None => pages.push((ipa, pa)),
            }
        }
        Ok(pages)
    }

    /// Requires nothing else to be in the pages, but for what the VM has as well, and what is off.
    fn refuse_neighbours(&self, pages: Region<Pa>) -> Result<(), Refusal> {
        NodePath::walk(self.host, |other| {
            let regions = (0..).map_while(|index| other.region(index).ok().flatten());
            if regions.map(physical).all(|region| !region.overlaps(&pages)) || !other.is_available() {
                return Ok(());
            }
            let path = other.to_string();
            if self.config.passthrough.iter().any(|device| device.host == path) {
                return Ok(());
            }
            let why = "has registers in the same page: give it to the VM, too, or neither";
            Err(Refusal { property: "reg", why, other: Some(path) })
        })
    }

    /// Finds the interrupts of a device: the guest's and the host's.
    fn lines(&self, found: &NodePath<'_, '_>) -> Result<Vec<Line>, Refusal> {
        let other = "has other interrupts: give as many, all of them SPIs on both sides";
        let mut lines = Vec::new();
        for intid in &self.wanted.interrupts {
            let interrupt = found.interrupt(self.host, lines.len()).ok().flatten();
            let line = interrupt.filter(|line| {
                line.controller == self.board.gic.phandle && (FIRST_SPI..SPI_END).contains(&line.intid.0)
            });
            let line = line.ok_or_else(|| refuse("interrupts", other))?;
            lines.push(Line { intid: *intid, physical: line.intid, trigger: line.trigger });
        }
        match found.interrupt(self.host, lines.len()) {
            Ok(None) => Ok(lines),
            _ => Err(refuse("interrupts", other)),
        }
    }
}

/// Reads the registers of a device; `None` if not all can be reached.
fn registers(found: &NodePath<'_, '_>) -> Option<Vec<Region<Pa>>> {
    let mut all = Vec::new();
    while let Some(region) = found.region(all.len()).ok()? {
        all.push(physical(region));
    }
    Some(all)
}

//! The real machine as data: what the monitor has to know of the board, read from the host's device tree.
//!
//! Not here: access to any of it; devices that the monitor has no use for.
//! Follows the Devicetree Specification v0.4, chapter 3 (device nodes), and the bindings named in each file.

mod console;
mod cpu;
mod error;
mod firmware;
mod gic;
mod memory;
mod pci;
mod timer;

// Minutes long under Miri, and nothing in it is unsafe.
#[cfg(test)]
#[cfg(not(miri))]
pub(crate) mod tests;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use fdt::Fdt;

pub use self::console::{Console, UartKind};
pub use self::cpu::{Conduit, Cpu, EnableMethod, MAX_CPUS};
pub use self::error::{BoardError, Wanted};
pub use self::firmware::{Firmware, Trouble};
pub use self::gic::{Gic, GicRegisters};
pub use self::pci::{PciHost, PciWindow};
pub use self::timer::ArchTimer;
use crate::addr::{Pa, Region};
use crate::dtb::node;
use crate::dtb::path::{NodePath, PropertyError};
use crate::ids::IntId;

/// The machine that the monitor runs on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Board {
    /// Whose boot loader it has.
    pub firmware: Firmware,
    /// What the board calls itself: `model`, or nothing.
    pub model: String,
    /// RAM, lowest first, without gaps inside or overlaps between regions; reservations are part of it.
    pub ram: Vec<Region<Pa>>,
    /// Memory that belongs to the firmware or to devices, lowest first, without overlaps: `/memreserve/` and
    /// the children of `/reserved-memory` with a `reg`. It may lie outside of [`Board::ram`].
    pub reserved: Vec<Region<Pa>>,
    /// CPUs that work, in the order of the tree.
    pub cpus: Vec<Cpu>,
    /// How PSCI is called, where the firmware has PSCI 0.2 or later.
    pub psci: Option<Conduit>,
    /// The interrupt controller.
    pub gic: Gic,
    /// Interrupts of the generic timer.
    pub timer: ArchTimer,
    /// Overflow interrupt of the performance monitors, where it is a PPI.
    pub performance_monitors: Option<IntId>,
    /// Where the monitor writes to and reads from.
    pub console: Option<Console>,
    /// What the boot loader gave as initial ramdisk: `linux,initrd-start` and `-end` of `/chosen`.
    pub initrd: Option<Region<Pa>>,
    /// `bootargs` of `/chosen`, empty where there are none.
    pub bootargs: String,
    /// PCI Express host bridge with memory-mapped configuration space.
    pub pci: Option<PciHost>,
    /// Registers of the Broadcom power management block, which has the watchdog that resets the board.
    pub watchdog: Option<Region<Pa>>,
}

impl Board {
    /// Reads the board from a tree that [`crate::dtb::open`] returned.
    ///
    /// # Errors
    /// Something is missing that no board can do without, or a property of something needed is malformed.
    #[inline(never)]
    pub fn read(fdt: &Fdt<'_>) -> Result<Self, BoardError> {
        let devices = Devices::find(fdt);
        let chosen = NodePath::find(fdt, "/chosen");
        let psci = devices.psci.as_ref().map(cpu::conduit).transpose()?;
        let gic = Gic::read(fdt, &devices.gic.ok_or(BoardError::Missing(Wanted::Gic))?)?;
        let timer = devices.timer.ok_or(BoardError::Missing(Wanted::Timer))?;
        let console = Console::find(fdt)?.map(|console| console.interrupting(gic.phandle));
        Ok(Self {
            firmware: Firmware::of(fdt),
            model: model(fdt).unwrap_or_default().to_string(),
            ram: memory::ram(fdt)?,
            reserved: memory::reserved(fdt)?,
            cpus: cpu::cpus(fdt, psci)?,
            psci,
            timer: ArchTimer::read(fdt, &timer, gic.phandle)?,
            performance_monitors: devices.pmu.as_ref().and_then(|path| overflow(fdt, path, gic.phandle)),
            gic,
            console,
            initrd: chosen.as_ref().map(memory::initrd).transpose()?.flatten(),
            bootargs: chosen.as_ref().map(bootargs).transpose()?.unwrap_or_default(),
            pci: devices.pci.as_ref().map(PciHost::read).transpose()?,
            watchdog: devices.watchdog.as_ref().map(|path| registers(path, 0)).transpose()?,
        })
    }

    /// Returns what a board can be stopped with, for a start that fails before or without the rest.
    #[must_use]
    #[inline(never)]
    pub fn ways_to_stop(fdt: &Fdt<'_>) -> WaysToStop {
        let devices = Devices::find(fdt);
        WaysToStop {
            psci: devices.psci.and_then(|path| cpu::conduit(&path).ok()),
            pci: devices.pci.and_then(|path| PciHost::read(&path).ok()),
            watchdog: devices.watchdog.and_then(|path| registers(&path, 0).ok()),
        }
    }

    /// Makes another UART the console.
    pub fn set_console(&mut self, console: Console) {
        self.console = Some(console.interrupting(self.gic.phandle));
    }

    /// Returns what the boot arguments say of `name`: the value of `name=value`, or an empty one for `name` alone.
    #[must_use]
    #[inline(never)]
    pub fn argument(&self, name: &str) -> Option<&str> {
        self.bootargs.split_ascii_whitespace().find_map(|word| match word.strip_prefix(name)? {
            "" => Some(""),
            value => value.strip_prefix('='),
        })
    }

    /// Lists the registers that the hypervisor uses itself, in no order: no VM is to have them.
    #[must_use]
    #[inline(never)]
    pub fn own_registers(&self) -> Vec<Region<Pa>> {
        let mut own = match &self.gic.registers {
            GicRegisters::V2 { gicd, gicc, gich, gicv } => Vec::from([*gicd, *gicc, *gich, *gicv]),
            GicRegisters::V3 { gicd, gicr, .. } => {
                let mut own = gicr.clone();
                own.push(*gicd);
                own
            }
        };
        own.extend(self.console.map(|console| console.registers));
        own.extend(self.watchdog);
        if let Some(pci) = &self.pci {
            own.push(pci.ecam);
            own.extend(pci.mmio.map(|window| window.cpu));
        }
        own
    }

    /// Takes `region` out of the free RAM.
    #[inline(never)]
    pub fn reserve(&mut self, region: Region<Pa>) {
        self.reserved.push(region);
        self.reserved = memory::merge(&self.reserved);
    }

    /// Returns the RAM that is not reserved, lowest first.
    #[must_use]
    #[inline(never)]
    pub fn free_ram(&self) -> Vec<Region<Pa>> {
        memory::subtract(&self.ram, &self.reserved)
    }
}

/// What a board can be stopped with, as [`Board`] has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WaysToStop {
    /// How PSCI is called.
    pub psci: Option<Conduit>,
    /// PCI Express host bridge, which may have a panic notifier.
    pub pci: Option<PciHost>,
    /// Registers of the Broadcom power management block.
    pub watchdog: Option<Region<Pa>>,
}

/// The nodes that are found by `compatible`: of each kind the first that may be used.
#[derive(Default)]
struct Devices<'b, 'a> {
    gic: Option<NodePath<'b, 'a>>,
    timer: Option<NodePath<'b, 'a>>,
    psci: Option<NodePath<'b, 'a>>,
    pmu: Option<NodePath<'b, 'a>>,
    pci: Option<NodePath<'b, 'a>>,
    watchdog: Option<NodePath<'b, 'a>>,
}

impl<'b, 'a> Devices<'b, 'a> {
    fn find(fdt: &'b Fdt<'a>) -> Self {
        let mut devices = Self::default();
        let visited: Result<(), core::convert::Infallible> = NodePath::walk(fdt, |path| {
            for compatible in node::strings(path.node(), "compatible").into_iter().flatten() {
                if let Some(place) = devices.place(compatible)
                    && place.is_none()
                    && path.is_available()
                {
                    *place = Some(path.clone());
                }
            }
            Ok(())
        });
        let Ok(()) = visited;
        devices
    }

    /// Returns where a device with this `compatible` string belongs.
    fn place(&mut self, compatible: &str) -> Option<&mut Option<NodePath<'b, 'a>>> {
        match compatible {
            "arm,gic-400" | "arm,cortex-a15-gic" | "arm,cortex-a7-gic" | "arm,gic-v3" => Some(&mut self.gic),
            "arm,armv8-timer" => Some(&mut self.timer),
            "arm,psci-0.2" | "arm,psci-1.0" => Some(&mut self.psci),
            "arm,armv8-pmuv3" => Some(&mut self.pmu),
            pmu if pmu.starts_with("arm,cortex-") && pmu.ends_with("-pmu") => Some(&mut self.pmu),
            "pci-host-ecam-generic" => Some(&mut self.pci),
            "brcm,bcm2835-pm" | "brcm,bcm2835-pm-wdt" => Some(&mut self.watchdog),
            _ => None,
        }
    }
}

/// Reads entry `index` of a device's `reg` as physical addresses.
fn registers(path: &NodePath<'_, '_>, index: usize) -> Result<Region<Pa>, PropertyError> {
    path.required_region(index).map(physical)
}

/// Names a span of CPU addresses for what it is at EL2: physical.
pub(crate) fn physical(span: Region<u64>) -> Region<Pa> {
    Region { start: Pa::new(span.start), size_bytes: span.size_bytes }
}

/// Reads the interrupt of the performance monitors. One that is not a PPI cannot follow a vCPU and does not count; nor
/// does one that cannot be read, as nothing else depends on it.
fn overflow(fdt: &Fdt<'_>, path: &NodePath<'_, '_>, gic: u32) -> Option<IntId> {
    let interrupt = path.required_interrupt(fdt, 0).ok()?;
    (interrupt.controller == gic && interrupt.intid.is_private()).then_some(interrupt.intid)
}

/// Reads what nothing depends on: one that is no string is as good as none.
fn model<'a>(fdt: &'a Fdt<'a>) -> Option<&'a str> {
    node::string(NodePath::root(fdt)?.node(), "model").ok()?
}

fn bootargs(chosen: &NodePath<'_, '_>) -> Result<String, PropertyError> {
    let text = node::string(chosen.node(), "bootargs").map_err(|fault| chosen.error(fault))?;
    Ok(text.unwrap_or_default().to_string())
}

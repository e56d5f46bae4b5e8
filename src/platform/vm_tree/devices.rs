//! Reads the nodes of the devices that a VM can have.
//!
//! Not here: how they behave, which is the interpreter's.
//! Follows the bindings in Linux Documentation/devicetree/bindings: interrupt-controller/arm,gic-v3 and arm,gic,
//! timer/arm,arch_timer, serial/pl011, arm/psci, arm/pmu.

use super::own::{PASSTHROUGH, TRUSTED_DMA};
use super::scan::Place;
use super::{Conduit, Gic, Passthrough, Timer, Uart, VmError, VmFault};
use crate::addr::{Ipa, Region};
use crate::ids::IntId;
use crate::ids::MAX_SPIS;
use crate::node;
use alloc::string::ToString;
use alloc::vec::Vec;

/// What a node's `compatible` stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Device {
    GicV2,
    GicV3,
    Timer,
    Uart,
    Psci,
    PerformanceMonitors,
    /// Describes something that needs no model.
    Passive,
}

/// The first string of `compatible`, and what it stands for.
const DEVICES: [(&str, Device); 10] = [
    ("arm,gic-v3", Device::GicV3),
    ("arm,gic-400", Device::GicV2),
    ("arm,cortex-a15-gic", Device::GicV2),
    ("arm,armv8-timer", Device::Timer),
    ("arm,pl011", Device::Uart),
    ("arm,psci-1.0", Device::Psci),
    ("arm,psci-0.2", Device::Psci),
    ("arm,armv8-pmuv3", Device::PerformanceMonitors),
    ("fixed-clock", Device::Passive),
    ("cache", Device::Passive),
];

/// Lists what a VM can have, as `compatible` spells it.
pub(super) fn provided() -> impl Iterator<Item = &'static str> {
    DEVICES.iter().map(|(name, _)| *name).chain([SIMPLE_BUS])
}

/// What `compatible` of a container of devices says.
pub(super) const SIMPLE_BUS: &str = "simple-bus";

impl Device {
    /// Recognises a device by the first string of `compatible`, the most specific one.
    ///
    /// Later strings do not count: a driver for the first would find a device that is not there.
    pub(super) fn of(compatible: &str) -> Option<Self> {
        DEVICES.iter().find(|(name, _)| *name == compatible).map(|(_, device)| *device)
    }
}

/// Length of a GICv3 distributor and of a redistributor, in bytes (Arm IHI 0069H, 12.10).
const GICD_V3_BYTES: u64 = 0x1_0000;
pub(super) const GICR_BYTES: u64 = 0x2_0000;

/// What devices interrupt by.
const SPIS: &str = "SPIs, <0 number 4>; a PL011 has one";

/// Length of a PL011, in bytes (Arm DDI 0183G, 3.2).
const PL011_BYTES: u64 = 0x1000;

/// The last interrupts of each kind as the binding counts them (Arm IHI 0069H, 2.2.1), as far as a VM has them.
const LAST_SPI: u32 = MAX_SPIS - 1;
const LAST_PPI: u32 = 15;

/// Reads an interrupt controller of either version.
pub(super) fn gic(place: &Place<'_, '_>, device: Device) -> Result<Gic, VmError> {
    place.require("interrupt-controller", "it as an empty property")?;
    if place.optional_number("#interrupt-cells")? != Some(3) {
        return Err(place.malformed("#interrupt-cells", "<3>"));
    }
    if device == Device::GicV2 { gic_v2(place) } else { gic_v3(place) }
}

fn gic_v2(place: &Place<'_, '_>) -> Result<Gic, VmError> {
    let regions = place.regions()?;
    let [distributor, cpu_interface] = regions[..] else {
        return Err(place.malformed("reg", "two regions, GICD and GICC (a VM has no GICH and GICV)"));
    };
    place.size("GICD", &distributor, 0x1000..=0x1_0000, "0x1000 to 0x10000")?;
    place.size("GICC", &cpu_interface, 0x2000..=0x1_0000, "0x2000 to 0x10000")?;
    Ok(Gic::V2 { distributor, cpu_interface })
}

fn gic_v3(place: &Place<'_, '_>) -> Result<Gic, VmError> {
    let mut redistributors = place.regions()?;
    let count = place.optional_number("#redistributor-regions")?.unwrap_or(1);
    let wanted = "GICD and as many GICR regions as #redistributor-regions says, 1 if not given \
                  (a VM has no GICC, GICH and GICV)";
    if u64::try_from(redistributors.len()).ok() != count.checked_add(1) || count == 0 {
        return Err(place.malformed("reg", wanted));
    }
    let distributor = redistributors.remove(0);
    place.size("GICD", &distributor, GICD_V3_BYTES..=GICD_V3_BYTES, "0x10000")?;
    for region in &redistributors {
        if !region.size_bytes.is_multiple_of(GICR_BYTES) {
            let bytes = region.size_bytes;
            return Err(place.fault(VmFault::Size { what: "GICR", bytes, wanted: "a multiple of 0x20000" }));
        }
    }
    match place.optional_number("redistributor-stride")? {
        None | Some(GICR_BYTES) => Ok(Gic::V3 { distributor, redistributors }),
        Some(_) => Err(place.malformed("redistributor-stride", "<0x20000> or leave it out")),
    }
}

/// Reads a timer: its interrupts come in a fixed order unless `interrupt-names` says otherwise.
pub(super) fn timer(place: &Place<'_, '_>) -> Result<Timer, VmError> {
    let interrupts = place.interrupts()?;
    let names = match node::value(place.node, "interrupt-names") {
        None => Vec::from(["sec-phys", "phys", "virt", "hyp-phys", "hyp-virt"]),
        Some(value) => node::texts(value)
            .ok_or_else(|| place.malformed("interrupt-names", "one string per interrupt"))?,
    };
    let named = |wanted: &str| {
        let at = names.iter().position(|name| *name == wanted)?;
        interrupts.get(at).copied().filter(|interrupt| interrupt.is_private())
    };
    let wanted = "PPIs <1 13 4>, <1 14 4>, <1 11 4>, <1 10 4>: secure, physical, virtual, hypervisor";
    match (named("phys"), named("virt")) {
        (Some(physical), Some(virtual_)) if physical != virtual_ => Ok(Timer { physical, virtual_ }),
        _ => Err(place.malformed("interrupts", wanted)),
    }
}

/// Reads performance monitors: their overflow interrupt.
pub(super) fn performance_monitors(place: &Place<'_, '_>) -> Result<IntId, VmError> {
    match place.interrupts()?[..] {
        [interrupt] if interrupt.is_private() => Ok(interrupt),
        _ => Err(place.malformed("interrupts", "one PPI, <1 7 4>")),
    }
}

/// Reads a PL011.
pub(super) fn uart(place: &Place<'_, '_>) -> Result<Uart, VmError> {
    let regions = place.regions()?;
    let [registers] = regions[..] else { return Err(place.malformed("reg", "one region")) };
    place.size("PL011", &registers, PL011_BYTES..=PL011_BYTES, "0x1000")?;
    match place.interrupts()?[..] {
        [interrupt] if !interrupt.is_private() => Ok(Uart { path: place.path.clone(), registers, interrupt }),
        _ => Err(place.malformed("interrupts", SPIS)),
    }
}

/// Reads a device of the host's: where the guest finds it.
pub(super) fn passthrough(place: &Place<'_, '_>) -> Result<Passthrough, VmError> {
    let text = |property, wanted| {
        let value = node::texts(place.require(property, wanted)?);
        value
            .and_then(|all| Some((*all.first()?).to_string()))
            .ok_or_else(|| place.malformed(property, wanted))
    };
    let has_any = node::value(place.node, "interrupts").is_some();
    let interrupts = if has_any { place.interrupts()? } else { Vec::new() };
    if interrupts.iter().any(|interrupt| interrupt.is_private()) {
        return Err(place.malformed("interrupts", SPIS));
    }
    Ok(Passthrough {
        path: place.path.clone(),
        host: text(PASSTHROUGH, "the path of the device's node in the board's tree")?,
        compatible: text("compatible", "what the board's tree says of it")?,
        registers: place.on_bus()?.spans(1)?,
        interrupts,
        trusts_dma: place.flag(TRUSTED_DMA)?,
    })
}

/// Function numbers that a PSCI node may repeat (Arm DEN 0022F, 5.1), 32-bit and 64-bit.
const PSCI_FUNCTIONS: [(&str, [u32; 2]); 4] = [
    ("cpu_suspend", [0x8400_0001, 0xc400_0001]),
    ("cpu_off", [0x8400_0002, 0x8400_0002]),
    ("cpu_on", [0x8400_0003, 0xc400_0003]),
    ("migrate", [0x8400_0005, 0xc400_0005]),
];

/// Reads how the guest calls PSCI.
pub(super) fn psci(place: &Place<'_, '_>) -> Result<Conduit, VmError> {
    for (property, numbers) in PSCI_FUNCTIONS {
        let standard = |value: &[u8]| node::cell(value).is_some_and(|number| numbers.contains(&number));
        if node::value(place.node, property).is_some_and(|value| !standard(value)) {
            return Err(place.malformed(property, "the number of PSCI 0.2 or leave it out"));
        }
    }
    match node::text(place.require("method", "\"hvc\" or \"smc\"")?) {
        Some("hvc") => Ok(Conduit::Hvc),
        Some("smc") => Ok(Conduit::Smc),
        _ => Err(place.malformed("method", "\"hvc\" or \"smc\"")),
    }
}

impl Place<'_, '_> {
    /// Reads the regions of a device on a bus.
    fn regions(&self) -> Result<Vec<Region<Ipa>>, VmError> {
        self.on_bus()?.reg()
    }

    /// Requires the node to be on a bus.
    fn on_bus(&self) -> Result<&Self, VmError> {
        self.is_on_bus.then_some(self).ok_or_else(|| self.fault(VmFault::NotOnABus))
    }

    fn size(
        &self,
        what: &'static str,
        region: &Region<Ipa>,
        accepted: core::ops::RangeInclusive<u64>,
        wanted: &'static str,
    ) -> Result<(), VmError> {
        if accepted.contains(&region.size_bytes) {
            return Ok(());
        }
        Err(self.fault(VmFault::Size { what, bytes: region.size_bytes, wanted }))
    }

    /// Reads `interrupts` in the three cells of the GIC's binding: kind, number, flags.
    fn interrupts(&self) -> Result<Vec<IntId>, VmError> {
        if node::value(self.node, "interrupts-extended").is_some() {
            let value = "a list of controllers".to_string();
            let wanted = "interrupts and interrupt-parent";
            return Err(self.fault(VmFault::Unsupported { property: "interrupts-extended", value, wanted }));
        }
        let wanted = "<0 number flags> for an SPI up to 255, <1 number flags> for a PPI up to 15";
        let value = self.require("interrupts", wanted)?;
        let cells = node::cells(value).ok_or_else(|| self.malformed("interrupts", wanted))?;
        let (triples, rest) = cells.as_chunks::<3>();
        let intid = |triple: &[u32; 3]| match triple {
            [0, number @ 0..=LAST_SPI, _] => number.checked_add(32).map(IntId),
            [1, number @ 0..=LAST_PPI, _] => number.checked_add(16).map(IntId),
            _ => None,
        };
        let intids: Option<Vec<_>> = triples.iter().map(intid).collect();
        intids.filter(|_| rest.is_empty()).ok_or_else(|| self.malformed("interrupts", wanted))
    }
}

//! Reads a VM's device tree: the machine that its guest sees, as the hypervisor will build it.
//!
//! Not here: building it. What this reads is complete and consistent, or an error that names node and property.
//! A guest never finds a device that is not there: a node that is not provided is such an error.
//! Follows the Devicetree Specification v0.4 and the bindings named in `devices`.

mod devices;
mod error;
mod own;
mod scan;
#[cfg(test)]
pub(crate) mod tests;

use crate::addr::{Ipa, Region, sorted};
use crate::ids::{Affinity, FIRST_SPI, IntId};
use crate::share::{OnCrash, PcpuSet, Share};
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use devices::GICR_BYTES;
use fdt::Fdt;
use scan::{Found, Parts};

pub use error::{VmError, VmFault};
pub use own::{Home, PASSTHROUGH};
pub(crate) use own::{OWN_PREFIX, TRUSTED_DMA};

/// Most vCPUs of a VM, and of one with a GICv2 (Arm IHI 0048B.b, 1.1: eight CPU interfaces).
pub const MAX_CPUS: usize = 8;
const MAX_CPUS_GICV2: usize = 8;

/// First Aff0 that ICC_SGI1R_EL1.TargetList does not reach without a range selector (Arm IHI 0069H, 12.2).
const SGI_TARGETS: u8 = 16;

/// The machine that a VM is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VmConfig {
    /// RAM, at least one region, in order of address.
    pub ram: Vec<Region<Ipa>>,
    /// Path of the node that has the lowest of them.
    pub ram_node: String,
    /// Whether RAM is to lie where it physically is.
    pub identity: bool,
    /// The vCPUs in the order of the tree, which is that of their numbers; the first one boots.
    pub vcpus: Vec<Affinity>,
    /// The interrupt controller.
    pub gic: Gic,
    /// The generic timer.
    pub timer: Timer,
    /// What the tree says of the performance monitors. Without it a CPU that has some keeps them, but for the interrupt.
    pub performance_monitors: Option<PerformanceMonitors>,
    /// PL011s in the order of the tree.
    pub uarts: Vec<Uart>,
    /// Devices of the host, in the order of the tree.
    pub passthrough: Vec<Passthrough>,
    /// How the tree tells the guest to call PSCI.
    pub psci: Conduit,
    /// What each vCPU is to have of the CPU that it runs on.
    pub share: Share,
    /// The physical CPUs that the vCPUs may run on, not empty; `None` for all. See [`check_cpus_exist`].
    pub cpus: Option<PcpuSet>,
    /// What becomes of the VM when it crashes.
    pub on_crash: OnCrash,
}

impl VmConfig {
    /// Returns how many SPIs the interrupt controller is to have, for the devices to use.
    #[must_use]
    #[inline(never)]
    pub fn spis(&self) -> u32 {
        let passed = self.passthrough.iter().flat_map(|device| &device.interrupts);
        let used = self.uarts.iter().map(|uart| &uart.interrupt).chain(passed);
        used.map(|intid| (intid.0 + 1).saturating_sub(FIRST_SPI)).max().unwrap_or(0)
    }

    /// Says that the VM's RAM is more than is free on a board with so many bytes in all.
    #[must_use]
    #[inline(never)]
    pub fn too_large(&self, free_bytes: u64, board_bytes: u64) -> VmError {
        let wanted_bytes = self.ram.iter().fold(0_u64, |sum, ram| sum.saturating_add(ram.size_bytes));
        at(&self.ram_node, VmFault::TooLarge { wanted_bytes, free_bytes, board_bytes })
    }
}

/// An interrupt controller and where its registers are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Gic {
    /// GICv2 (Arm IHI 0048B.b).
    V2 {
        /// GICD, 4 KiB to 64 KiB.
        distributor: Region<Ipa>,
        /// GICC, 8 KiB to 64 KiB.
        cpu_interface: Region<Ipa>,
    },
    /// GICv3 (Arm IHI 0069H).
    V3 {
        /// GICD, 64 KiB.
        distributor: Region<Ipa>,
        /// GICR, 128 KiB for each vCPU in order; what is left over has no redistributor.
        redistributors: Vec<Region<Ipa>>,
    },
}

/// The interrupts of the generic timer that a guest at EL1 can use, both PPIs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timer {
    /// That of CNTP, the EL1 physical timer.
    pub physical: IntId,
    /// That of CNTV, the virtual timer.
    pub virtual_: IntId,
}

/// The performance monitors of each vCPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PerformanceMonitors {
    /// Path of their node.
    pub path: String,
    /// Their overflow interrupt, a PPI.
    pub interrupt: IntId,
}

/// A PL011.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uart {
    /// Path of its node.
    pub path: String,
    /// Its registers, 4 KiB.
    pub registers: Region<Ipa>,
    /// Its combined interrupt, an SPI.
    pub interrupt: IntId,
}

/// A device of the host that the VM is to have as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Passthrough {
    /// Path of its node.
    pub path: String,
    /// Path of its node in the host's tree.
    pub host: String,
    /// What the guest takes it for: the first string of `compatible`.
    pub compatible: String,
    /// Where the guest finds its registers, which need not start or end at a page.
    pub registers: Vec<Region<Ipa>>,
    /// Its interrupts, all SPIs.
    pub interrupts: Vec<IntId>,
    /// Whether it may master the bus.
    pub trusts_dma: bool,
}

/// The instruction of a PSCI call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    /// HVC.
    Hvc,
    /// SMC.
    Smc,
}

/// Reads the machine that `tree` describes.
///
/// # Errors
/// If something is missing, not provided, or does not fit together.
#[inline(never)]
pub fn read(tree: &Fdt<'_>) -> Result<VmConfig, VmError> {
    let mut parts = scan::scan(tree)?;
    check_memory(&mut parts)?;
    check_cpus(&parts)?;
    let gic = need(
        parts.gic.as_ref(),
        "interrupt-controller",
        "a node compatible with \"arm,gic-v3\" or \"arm,gic-400\"",
    )?;
    let timer = need(parts.timer.as_ref(), "timer", "a node compatible with \"arm,armv8-timer\"")?;
    let psci = need(parts.psci.as_ref(), "psci", "a node compatible with \"arm,psci-1.0\"")?;
    check_gic(gic, &parts.cpus)?;
    check_wiring(&parts, gic)?;
    check_overlaps(&parts, gic)?;
    Ok(VmConfig {
        gic: gic.what.clone(),
        timer: timer.what,
        psci: psci.what,
        vcpus: parts.cpus.iter().map(|cpu| cpu.what).collect(),
        ram: parts.ram.iter().map(|ram| ram.what).collect(),
        ram_node: parts.ram.first().map(|ram| ram.path.clone()).unwrap_or_default(),
        performance_monitors: parts
            .performance_monitors
            .map(|Found { path, what: interrupt }| PerformanceMonitors { path, interrupt }),
        uarts: parts.uarts,
        passthrough: parts.passthrough,
        identity: parts.identity,
        share: parts.policy.share,
        cpus: parts.policy.cpus,
        on_crash: parts.policy.on_crash,
    })
}

/// Requires the physical CPUs that a VM may run on to be among the `cpus` that are used of the board, numbered as
/// [`crate::ids::PcpuId`] numbers them.
///
/// # Errors
/// The first that is not.
#[inline(never)]
pub fn check_cpus_exist(config: &VmConfig, cpus: usize) -> Result<(), VmError> {
    let wanted = config.cpus.unwrap_or(PcpuSet::EMPTY);
    match wanted.iter().find(|pcpu| pcpu.index() >= cpus) {
        Some(pcpu) => {
            Err(at("/", VmFault::NoSuchCpu { board: "this board", number: u32::from(pcpu.0), cpus }))
        }
        None => Ok(()),
    }
}

fn at(node: &str, fault: VmFault) -> VmError {
    VmError { node: node.to_owned(), fault }
}

/// Requires a node that every VM has.
fn need<'p, T>(found: Option<&'p T>, name: &'static str, wanted: &'static str) -> Result<&'p T, VmError> {
    found.ok_or_else(|| at("/", VmFault::Missing { name, wanted }))
}

fn check_memory(parts: &mut Parts) -> Result<(), VmError> {
    need(parts.ram.first(), "memory", "the VM RAM: a node memory@40000000")?;
    parts.ram = sorted(&parts.ram, |ram| ram.what.start.get());
    let is_ram = |region: &Region<Ipa>| parts.ram.iter().any(|ram| ram.what.encloses(region));
    match parts.reserved.iter().find(|reserved| !is_ram(&reserved.what)) {
        Some(outside) => Err(at(&outside.path, VmFault::ReservedOutsideRam(outside.what))),
        None => Ok(()),
    }
}

fn check_cpus(parts: &Parts) -> Result<(), VmError> {
    let has = parts.cpus.len();
    need(parts.cpus.first(), "cpus", "the VM a CPU: a node cpu@0 in /cpus")?;
    if has > MAX_CPUS {
        return Err(at("/cpus", VmFault::TooManyCpus { has, most: MAX_CPUS, limit: "a VM" }));
    }
    for (index, cpu) in parts.cpus.iter().enumerate() {
        if let Some(other) = parts.cpus.iter().take(index).find(|other| other.what == cpu.what) {
            return Err(at(&cpu.path, VmFault::SameAffinity(cpu.what, other.path.clone())));
        }
    }
    match &parts.unmethodical {
        Some(cpu) if has > 1 => Err(at(
            cpu,
            VmFault::Missing { name: "enable-method", wanted: "\"psci\" to each of several CPUs" },
        )),
        _ => Ok(()),
    }
}

fn check_gic(gic: &Found<Gic>, cpus: &[Found<Affinity>]) -> Result<(), VmError> {
    let has = cpus.len();
    match &gic.what {
        Gic::V2 { .. } if has > MAX_CPUS_GICV2 => {
            let fault = VmFault::TooManyCpus { has, most: MAX_CPUS_GICV2, limit: "a GICv2" };
            Err(at("/cpus", fault))
        }
        Gic::V2 { .. } => Ok(()),
        Gic::V3 { redistributors, .. } => {
            if let Some(cpu) = cpus.iter().find(|cpu| cpu.what.aff0 >= SGI_TARGETS) {
                let wanted = "a lowest byte below 0x10, which is what SGIs of a GICv3 reach";
                return Err(at(&cpu.path, VmFault::Affinity { reg: cpu.what.to_mpidr(), wanted }));
            }
            let frames = redistributors
                .iter()
                .fold(0_u64, |sum, region| sum.saturating_add(region.size_bytes / GICR_BYTES));
            let cpus = u64::try_from(has).unwrap_or(u64::MAX);
            if frames < cpus {
                return Err(at(&gic.path, VmFault::TooFewRedistributors { frames, cpus }));
            }
            Ok(())
        }
    }
}

/// Requires each device's interrupt to go to the interrupt controller, and to be its own.
fn check_wiring(parts: &Parts, gic: &Found<Gic>) -> Result<(), VmError> {
    if parts.gic_phandle.is_none() {
        let wanted = "it (dtc does where another node refers to this one)";
        return Err(at(&gic.path, VmFault::Missing { name: "phandle", wanted }));
    }
    if let Some(stray) = parts.wired_to.iter().find(|wire| wire.what != parts.gic_phandle) {
        let wanted = "the phandle of the VM's interrupt controller, here or in a parent";
        return Err(at(&stray.path, VmFault::Malformed { property: "interrupt-parent", wanted }));
    }
    if let (Some(monitors), Some(timer)) = (&parts.performance_monitors, &parts.timer)
        && [timer.what.physical, timer.what.virtual_].contains(&monitors.what)
    {
        return Err(at(&monitors.path, VmFault::SameInterrupt(monitors.what, timer.path.clone())));
    }
    let mut all: Vec<_> = parts.uarts.iter().map(|uart| (uart.interrupt, &uart.path)).collect();
    for device in &parts.passthrough {
        all.extend(device.interrupts.iter().map(|intid| (*intid, &device.path)));
    }
    for (index, (intid, path)) in all.iter().enumerate() {
        if let Some((_, other)) = all.iter().take(index).find(|(other, _)| other == intid) {
            return Err(at(path, VmFault::SameInterrupt(*intid, (*other).clone())));
        }
    }
    Ok(())
}

/// Requires RAM and devices to be apart.
fn check_overlaps(parts: &Parts, gic: &Found<Gic>) -> Result<(), VmError> {
    let mut all: Vec<(Region<Ipa>, &str)> = parts.ram.iter().map(|ram| (ram.what, &*ram.path)).collect();
    all.extend(parts.uarts.iter().map(|uart| (uart.registers, &*uart.path)));
    let own = all.len();
    for device in &parts.passthrough {
        for pages in device.registers.iter().map(Region::<Ipa>::pages) {
            // Devices may have a page in common, as they may on the host.
            if !all.iter().skip(own).any(|(other, _)| *other == pages) {
                all.push((pages, &device.path));
            }
        }
    }
    let path = &*gic.path;
    match &gic.what {
        Gic::V2 { distributor, cpu_interface } => all.extend([(*distributor, path), (*cpu_interface, path)]),
        Gic::V3 { distributor, redistributors } => {
            all.extend(redistributors.iter().chain([distributor]).map(|region| (*region, path)));
        }
    }
    let all = sorted(&all, |(region, _)| region.start.get());
    match all.array_windows().find(|[(one, _), (other, _)]| one.overlaps(other)) {
        Some([(_, other), (region, node)]) => {
            Err(at(node, VmFault::Overlap { region: *region, other: (*other).to_owned() }))
        }
        None => Ok(()),
    }
}

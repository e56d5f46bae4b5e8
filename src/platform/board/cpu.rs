//! The board's CPUs, and what starts those that sleep.
//!
//! Not here: starting them.
//! Follows the Devicetree Specification v0.4, 3.8 (`/cpus`), the `arm,cpus` and `arm,psci` bindings, and Arm
//! ARM DDI 0487K.a, D23.2 (MPIDR_EL1).

use alloc::string::ToString;
use alloc::vec::Vec;

use fdt::Fdt;

use super::{BoardError, Wanted};
use crate::addr::Pa;
use crate::dtb::node::{self, Reason};
use crate::dtb::path::{NodePath, PropertyError};
use crate::ids::Affinity;

/// Most CPUs that a board may have: what [`crate::ids::PcpuId`] can number.
pub const MAX_CPUS: usize = 256;

/// A physical CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cpu {
    /// Its place in the machine, as its MPIDR_EL1 says.
    pub affinity: Affinity,
    /// What starts it.
    pub enable: EnableMethod,
}

/// What starts a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EnableMethod {
    /// CPU_ON of PSCI.
    Psci,
    /// It waits until an address to go to is written to memory.
    SpinTable {
        /// Where the 64-bit address is to be written: `cpu-release-addr`.
        release: Pa,
    },
    /// Nothing that is known here: it is of use only if it is the boot CPU.
    None,
}

/// The instruction that calls PSCI (Arm DEN 0022F, 5.2; Arm DEN 0028E, 2.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    /// SMC, to EL3.
    Smc,
    /// HVC, to a hypervisor below this one.
    Hvc,
}

/// Reads how PSCI is called.
pub(super) fn conduit(psci: &NodePath<'_, '_>) -> Result<Conduit, PropertyError> {
    match node::string(psci.node(), "method").map_err(|fault| psci.error(fault))? {
        Some("smc") => Ok(Conduit::Smc),
        Some("hvc") => Ok(Conduit::Hvc),
        Some(_) => Err(psci.fault("method", Reason::NoConduit)),
        None => Err(psci.fault("method", Reason::Missing)),
    }
}

/// Reads the CPUs that work.
pub(super) fn cpus(fdt: &Fdt<'_>, psci: Option<Conduit>) -> Result<Vec<Cpu>, BoardError> {
    let mut cpus: Vec<Cpu> = Vec::new();
    let parent = NodePath::find(fdt, "/cpus");
    for path in parent.iter().flat_map(NodePath::children).filter(is_cpu) {
        let Some(enable) = usable(&path, parent.as_ref())? else { continue };
        let cpu = Cpu { affinity: affinity(&path)?, enable };
        if cpu.enable == EnableMethod::Psci && psci.is_none() {
            return Err(BoardError::Missing(Wanted::Psci));
        }
        if cpus.iter().any(|other| other.affinity == cpu.affinity) {
            return Err(BoardError::DuplicateCpu { node: path.to_string(), affinity: cpu.affinity });
        }
        if cpus.len() == MAX_CPUS {
            return Err(BoardError::TooManyCpus);
        }
        cpus.push(cpu);
    }
    if cpus.is_empty() { Err(BoardError::Missing(Wanted::Cpu)) } else { Ok(cpus) }
}

/// Tells CPUs from the other children of `/cpus`: caches, idle states, `cpu-map`.
fn is_cpu(path: &NodePath<'_, '_>) -> bool {
    let node = path.node();
    let is_named = || !node::has(node, "device_type") && node::base_name(node.name) == "cpu";
    matches!(node::string(node, "device_type"), Ok(Some("cpu"))) || is_named()
}

/// Returns what starts a CPU, if it can be used. For a CPU, "disabled" says that it sleeps: then it has to
/// have something that wakes it. "fail" says that it is broken or not there.
fn usable(
    path: &NodePath<'_, '_>,
    parent: Option<&NodePath<'_, '_>>,
) -> Result<Option<EnableMethod>, PropertyError> {
    let enable = || enable_method(path, parent).map(Some);
    match node::string(path.node(), "status").map_err(|fault| path.error(fault))? {
        None | Some("okay" | "ok") => enable(),
        Some("disabled") => Ok(enable()?.filter(|enable| *enable != EnableMethod::None)),
        Some(_) => Ok(None),
    }
}

/// Reads the affinity fields of MPIDR_EL1 from `reg`; the other bits have to be 0 there.
fn affinity(path: &NodePath<'_, '_>) -> Result<Affinity, PropertyError> {
    let (reg, _) = path.reg()?.next().ok_or_else(|| path.fault("reg", Reason::Missing))?;
    let affinity = Affinity::from_mpidr(reg);
    let is_affinity = affinity.to_mpidr() == reg;
    is_affinity.then_some(affinity).ok_or_else(|| path.fault("reg", Reason::OutOfRange(reg)))
}

/// Reads `enable-method`, of the CPU or else of all CPUs.
fn enable_method(
    path: &NodePath<'_, '_>,
    parent: Option<&NodePath<'_, '_>>,
) -> Result<EnableMethod, PropertyError> {
    let method = |path: &NodePath<'_, '_>| {
        let mut methods = node::strings(path.node(), "enable-method").map_err(|fault| path.error(fault))?;
        Ok::<_, PropertyError>(methods.find_map(|method| match method {
            "psci" => Some(true),
            "spin-table" => Some(false),
            _ => None,
        }))
    };
    let is_psci = match method(path)? {
        None => parent.map(method).transpose()?.flatten(),
        own => own,
    };
    match is_psci {
        None => Ok(EnableMethod::None),
        Some(true) => Ok(EnableMethod::Psci),
        Some(false) => release_address(path).map(|release| EnableMethod::SpinTable { release }),
    }
}

fn release_address(path: &NodePath<'_, '_>) -> Result<Pa, PropertyError> {
    let property = "cpu-release-addr";
    let address = node::number(path.node(), property).map_err(|fault| path.error(fault))?;
    let address = address.ok_or_else(|| path.fault(property, Reason::Missing))?;
    // It is written as one 64-bit store.
    let is_aligned = address.is_multiple_of(8);
    is_aligned.then_some(Pa::new(address)).ok_or_else(|| path.fault(property, Reason::OutOfRange(address)))
}

//! What can be wrong with a board's device tree.
//!
//! Not here: what can be wrong with the blob it comes in ([`crate::dtb::DtbError`]).
//! Follows the Devicetree Specification v0.4, chapter 3.

use alloc::string::String;
use core::fmt;

use crate::dtb::path::PropertyError;
use crate::ids::Affinity;

/// Something that each board needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// RAM.
    Memory,
    /// `/cpus` with a CPU that works.
    Cpu,
    /// PSCI, which a CPU's `enable-method` asks for.
    Psci,
    /// GICv2 or GICv3.
    Gic,
    /// The generic timer.
    Timer,
}

/// Names what keeps the monitor from running on the board that a tree describes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BoardError {
    /// No node describes this.
    Missing(Wanted),
    /// A property is missing or malformed.
    Property(PropertyError),
    /// Two CPUs have the same affinity.
    DuplicateCpu {
        /// Path of the second one.
        node: String,
        /// The affinity in its `reg`.
        affinity: Affinity,
    },
    /// There are more than [`super::MAX_CPUS`] CPUs.
    TooManyCpus,
}

impl From<PropertyError> for BoardError {
    fn from(error: PropertyError) -> Self {
        Self::Property(error)
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "a node /memory with device_type \"memory\" and a `reg` that is not empty",
            Self::Cpu => "a node /cpus with a child of device_type \"cpu\" whose status is not \"fail\"",
            Self::Psci => {
                "a node compatible with \"arm,psci-0.2\" or \"arm,psci-1.0\", as `enable-method` says"
            }
            Self::Gic => "an interrupt controller compatible with \"arm,gic-v3\" or \"arm,gic-400\"",
            Self::Timer => "a node compatible with \"arm,armv8-timer\"",
        })
    }
}

impl fmt::Display for BoardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(wanted) => write!(f, "the board's device tree should have {wanted}"),
            Self::Property(error) => write!(f, "the board's device tree, {error}"),
            Self::DuplicateCpu { node, affinity } => {
                let mpidr = affinity.to_mpidr();
                write!(f, "the board's device tree, {node}: `reg` {mpidr:#x} is that of another CPU")
            }
            Self::TooManyCpus => {
                write!(f, "the board's device tree, /cpus: should have at most {} CPUs", super::MAX_CPUS)
            }
        }
    }
}

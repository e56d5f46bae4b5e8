//! What can be wrong with a VM's device tree, in words.

use super::devices::provided;
use super::own::{CPUS, Home, PRIORITY, WEIGHT, known_in};
use crate::addr::{Ipa, Region};
use crate::ids::{Affinity, IntId};
use alloc::string::String;
use core::fmt;

const MIB: u64 = 1 << 20;

/// A fault of a VM's tree and the node that has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VmError {
    /// Path of the node.
    pub node: String,
    /// What is wrong there.
    pub fault: VmFault,
}

/// What is wrong with a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VmFault {
    /// A node or property is missing.
    Missing {
        /// Its name.
        name: &'static str,
        /// What to give.
        wanted: &'static str,
    },
    /// A property's value does not say what it has to.
    Malformed {
        /// Its name.
        property: &'static str,
        /// What to give.
        wanted: &'static str,
    },
    /// A property's value is one that is not provided.
    Unsupported {
        /// Its name.
        property: &'static str,
        /// What it says.
        value: String,
        /// What to give.
        wanted: &'static str,
    },
    /// A device that is not provided: the first string of its `compatible`.
    NotProvided(String),
    /// A property of the hypervisor's own that it does not know.
    UnknownProperty {
        /// Its name.
        property: String,
        /// What the node is.
        homes: &'static [Home],
    },
    /// A property of the hypervisor's own at a node where it says nothing.
    Misplaced {
        /// Its name.
        property: &'static str,
        /// Where it belongs.
        home: Home,
    },
    /// A number that is none, or out of range.
    Number {
        /// Name of the property.
        property: &'static str,
        /// The number, if it is one cell.
        value: Option<u32>,
        /// Lowest possible.
        least: u32,
        /// Highest possible.
        most: u32,
    },
    /// Both a weight and a priority.
    TwoClasses,
    /// A physical CPU that is named twice.
    SameCpu(u32),
    /// A physical CPU that there is not.
    NoSuchCpu {
        /// What lacks it.
        board: &'static str,
        /// Its number.
        number: u32,
        /// How many there are.
        cpus: usize,
    },
    /// A device with addresses whose parent is no bus.
    NotOnABus,
    /// A region that is empty or not made of whole pages.
    Unaligned {
        /// First address.
        start: u64,
        /// Length in bytes.
        bytes: u64,
    },
    /// A region that ends above the guest's physical address space.
    AboveSpace {
        /// First address.
        start: u64,
        /// Length in bytes.
        bytes: u64,
    },
    /// A region whose length does not fit the device.
    Size {
        /// What has the region.
        what: &'static str,
        /// Length in bytes.
        bytes: u64,
        /// Lengths that fit.
        wanted: &'static str,
    },
    /// A region that another node has too.
    Overlap {
        /// The region.
        region: Region<Ipa>,
        /// Path of the other node.
        other: String,
    },
    /// More RAM than is free.
    TooLarge {
        /// Bytes of RAM of the VM.
        wanted_bytes: u64,
        /// Bytes that are free.
        free_bytes: u64,
        /// Bytes of RAM of the board.
        board_bytes: u64,
    },
    /// Reserved memory where there is no RAM.
    ReservedOutsideRam(Region<Ipa>),
    /// A second device of a kind that a VM has one of; path of the first.
    Second(String),
    /// More CPUs than the machine can have.
    TooManyCpus {
        /// Number of CPUs.
        has: usize,
        /// Most that are possible.
        most: usize,
        /// What limits them.
        limit: &'static str,
    },
    /// A CPU's address with bits that MPIDR_EL1 has no affinity for, or that the interrupt controller cannot reach.
    Affinity {
        /// The address.
        reg: u64,
        /// What to give.
        wanted: &'static str,
    },
    /// Two CPUs with the same address; path of the other.
    SameAffinity(Affinity, String),
    /// Redistributors for fewer CPUs than there are.
    TooFewRedistributors {
        /// Number of redistributors, 128 KiB each.
        frames: u64,
        /// Number of CPUs.
        cpus: u64,
    },
    /// An interrupt that another device has too; path of the other.
    SameInterrupt(IntId, String),
    /// A device of the host that the VM cannot have.
    Host {
        /// The property that asks for it.
        property: &'static str,
        /// Path of the node in the host's tree that stands in the way.
        path: String,
        /// What is wrong with it, and what to give.
        why: &'static str,
    },
    /// A device of the host that somebody has already.
    Taken {
        /// The property that asks for it.
        property: &'static str,
        /// Path of its node in the host's tree.
        path: String,
        /// Who has it.
        by: String,
    },
}

impl fmt::Display for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.node, self.fault)
    }
}

fn list(f: &mut fmt::Formatter<'_>, names: impl Iterator<Item = &'static str>) -> fmt::Result {
    names.enumerate().try_for_each(|(at, name)| {
        f.write_str(if at == 0 { "" } else { ", " })?;
        f.write_str(name)
    })
}

impl fmt::Display for VmFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { name, wanted } => write!(f, "{name}: missing: give {wanted}"),
            Self::Malformed { property, wanted } => write!(f, "{property}: malformed: give {wanted}"),
            Self::Unsupported { property, value, wanted } => {
                write!(f, "{property}: {value} is not supported: give {wanted}")
            }
            Self::NotProvided(compatible) => {
                write!(f, "compatible: \"{compatible}\" is not provided: remove the node; a VM can have ")?;
                list(f, provided())
            }
            Self::UnknownProperty { property, homes } => {
                write!(f, "{property}: unknown property: remove it or correct its name; this node can have ")?;
                if homes.is_empty() { f.write_str("none of Trapeze's") } else { list(f, known_in(homes)) }
            }
            Self::Misplaced { property, home } => {
                write!(f, "{property}: says nothing at this node: move it to {}", home.words())
            }
            Self::Number { property, value, least, most } => {
                write!(f, "{property}: ")?;
                match value {
                    Some(value) => write!(f, "{value} is out of range")?,
                    None => f.write_str("malformed")?,
                }
                write!(f, ": give one cell, <{least}> to <{most}>")
            }
            Self::TwoClasses => write!(
                f,
                "{WEIGHT}: says nothing beside {PRIORITY}: remove {WEIGHT}; or, to share CPUs by weight, {PRIORITY}"
            ),
            Self::SameCpu(number) => write!(f, "{CPUS}: CPU {number} is there twice: give each CPU once"),
            Self::NoSuchCpu { board, number, cpus } => {
                write!(f, "{CPUS}: {board} has no CPU {number}: give numbers below {cpus}")
            }
            Self::NotOnABus => {
                f.write_str("reg: the parent is no bus: move the node to / or below a node compatible with \"simple-bus\"")
            }
            Self::Unaligned { start, bytes } => write!(
                f,
                "reg: {bytes:#x} bytes at {start:#x} are not whole pages: give multiples of 0x1000, not empty"
            ),
            Self::AboveSpace { start, bytes } => write!(
                f,
                "reg: {bytes:#x} bytes at {start:#x} end above 40 bits of address: give an address below 0x10000000000"
            ),
            Self::Size { what, bytes, wanted } => {
                write!(f, "reg: {what} cannot have {bytes:#x} bytes: give {wanted}")
            }
            Self::Overlap { region, other } => write!(f, "reg: {region} overlaps {other}: move one of them"),
            Self::TooLarge { wanted_bytes, free_bytes, board_bytes } => write!(
                f,
                "reg: {} MiB, but {} MiB are free of the board's {} MiB: give this VM less, or another one",
                wanted_bytes.div_ceil(MIB),
                free_bytes / MIB,
                board_bytes / MIB
            ),
            Self::ReservedOutsideRam(region) => {
                write!(f, "reg: {region} is not in the VM's RAM: reserve memory that /memory has")
            }
            Self::Second(first) => write!(f, "compatible: {first} is one already: remove one of them"),
            Self::TooManyCpus { has, most, limit } => {
                write!(f, "{has} CPUs, but {limit} has at most {most}: remove some")
            }
            Self::Affinity { reg, wanted } => write!(f, "reg: {reg:#x} is no address of a CPU: give {wanted}"),
            Self::SameAffinity(affinity, other) => {
                write!(f, "reg: {:#x} is the address of {other} too: give each CPU its own", affinity.to_mpidr())
            }
            Self::TooFewRedistributors { frames, cpus } => write!(
                f,
                "reg: room for {frames} redistributors of 0x20000 bytes, but {cpus} CPUs: make the region longer"
            ),
            Self::Host { property, path, why } => write!(f, "{property}: {path} {why}"),
            Self::Taken { property, path, by } => {
                write!(f, "{property}: {path} is given to \"{by}\" already: give it to one of them")
            }
            Self::SameInterrupt(IntId(number), other) => {
                write!(f, "interrupts: INTID {number} belongs to {other} too: give each device its own")
            }
        }
    }
}

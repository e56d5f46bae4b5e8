//! The report on one address of a VM: where stage 2 leads, and what the VM's tree has there.
//!
//! Not here: the walk.
//! Follows Arm ARM DDI 0487K.a, D8.3 (stage 2 descriptors).

use alloc::format;
use alloc::string::String;

use vocabulary::addr::{Ipa, Pa, Region};

/// What stage 2 makes of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// Normal memory, write-back cacheable.
    Normal,
    /// Device memory.
    Device,
}

/// How a walk of stage 2 ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Walk {
    /// At a block or a page.
    Mapped {
        /// Where the very byte is.
        pa: Pa,
        /// The level of the descriptor: 3 for a page.
        level: u8,
        /// Loads are allowed.
        read: bool,
        /// Stores are allowed.
        write: bool,
        /// Instruction fetches are allowed.
        execute: bool,
        /// Type of memory.
        memory: Memory,
    },
    /// At an invalid descriptor.
    Invalid {
        /// Its level.
        level: u8,
        /// The descriptor.
        descriptor: u64,
    },
}

/// What a VM's tree has somewhere: RAM, or a device.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    /// What it is called there.
    pub name: &'a str,
    /// Where it is.
    pub region: Region<Ipa>,
}

/// An address of a VM.
#[derive(Clone, Copy, Debug)]
pub struct MapStatus<'a> {
    /// The VM's name.
    pub vm: &'a str,
    /// The address.
    pub ipa: Ipa,
    /// Where stage 2 leads.
    pub walk: Walk,
    /// Everything that the VM's tree has, in any order.
    pub nodes: &'a [Node<'a>],
}

/// Says what is at an address of a VM.
#[must_use]
pub fn map(status: &MapStatus<'_>) -> String {
    format!(
        "{}: IPA {}\n  {}\n  {}\n",
        status.vm,
        status.ipa,
        walk(status.walk),
        place(status.ipa, status.nodes)
    )
}

fn walk(walk: Walk) -> String {
    match walk {
        Walk::Mapped { pa, level, read, write, execute, memory } => {
            let may = |allowed: bool, letter: &'static str| if allowed { letter } else { "-" };
            let (r, w, x) = (may(read, "r"), may(write, "w"), may(execute, "x"));
            let kind = if level == 3 { "page" } else { "block" };
            let memory = match memory {
                Memory::Normal => "normal memory",
                Memory::Device => "device memory",
            };
            format!("PA {pa}, {r}{w}{x}, {memory}, by a level-{level} {kind}")
        }
        Walk::Invalid { level, descriptor } => {
            format!("nothing is mapped: level-{level} descriptor {descriptor:#x} is invalid")
        }
    }
}

/// Names the node that has an address, or the one that comes closest.
fn place(ipa: Ipa, nodes: &[Node<'_>]) -> String {
    if let Some((node, offset)) = nodes.iter().find_map(|node| Some((node, node.region.offset_of(ipa, 1)?))) {
        return format!("{} has it, at offset {offset:#x}", node.name);
    }
    let away = |node: &Node<'_>| {
        let above = node.region.start.offset_from(ipa);
        above.or_else(|| ipa.offset_from(node.region.last())).unwrap_or(0)
    };
    match nodes.iter().min_by_key(|node| away(node)) {
        None => "the VM's tree has nothing anywhere".into(),
        Some(node) if node.region.start > ipa => {
            format!("nothing in the VM's tree; {} begins {:#x} bytes above", node.name, away(node))
        }
        Some(node) => format!("nothing in the VM's tree; {} ends {:#x} bytes below", node.name, away(node)),
    }
}

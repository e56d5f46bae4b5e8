//! Writes the device tree that a guest gets: the VM's own, with `/chosen` completed.
//!
//! Not here: what the tree means, which `vm_tree` checked. The blob's format is the `vm-fdt` crate's.
//! Follows the Devicetree Specification v0.4, 3.6 (`/chosen`) and Linux
//! Documentation/devicetree/bindings/chosen.txt (`linux,initrd-start`, `linux,initrd-end`).

#[cfg(test)]
mod tests;

use crate::addr::{Ipa, Region, sorted};
use crate::dtb::field;
use crate::node::{self, Node};
use crate::vm_tree::{OWN_PREFIX, VmConfig};
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use fdt::Fdt;
use vm_fdt::{FdtWriter, FdtWriterNode};

/// Nodes that `dtc -@` adds for overlays, which have been applied or never will be.
const OVERLAY_NODES: [&str; 3] = ["__symbols__", "__fixups__", "__local_fixups__"];

const INITRD_START: &str = "linux,initrd-start";
const INITRD_END: &str = "linux,initrd-end";
const STDOUT_PATH: &str = "stdout-path";

/// A part of the VM's tree that cannot be written again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestFdtError {
    /// Path of the node.
    pub node: String,
    /// What cannot be written there.
    pub fault: GuestFdtFault,
}

/// What cannot be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GuestFdtFault {
    /// The name of the node.
    NodeName,
    /// The name of a property.
    PropertyName(String),
    /// A memory reservation that is empty or wraps, or that overlaps another.
    Reservation,
    /// The tree nests too deeply.
    Depth,
    /// The tree as a whole is too long.
    Length,
}

impl fmt::Display for GuestFdtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.node)?;
        let names = "give 1 to 31 letters, digits and the signs that the specification has";
        match &self.fault {
            GuestFdtFault::NodeName => write!(f, "the node's name is not one: {names}"),
            GuestFdtFault::PropertyName(name) => write!(f, "{name}: the property's name is not one: {names}"),
            GuestFdtFault::Reservation => {
                f.write_str("/memreserve/: empty, too long or overlapping: reserve each byte once")
            }
            GuestFdtFault::Depth => f.write_str("nodes nest deeper than 64: make the tree flatter"),
            GuestFdtFault::Length => f.write_str("the tree is longer than 4 GiB: make it smaller"),
        }
    }
}

/// Returns the exact length in bytes of the tree that [`build`] will write.
///
/// Where RAM disk and tree go depends on this length; it does not depend on where the RAM disk goes.
///
/// # Errors
/// As [`build`].
pub fn size_bytes(tree: &Fdt<'_>, vm: &VmConfig, has_initrd: bool) -> Result<usize, GuestFdtError> {
    let anywhere = Region { start: Ipa::new(0), size_bytes: 1 };
    Ok(build(tree, vm, has_initrd.then_some(anywhere))?.len())
}

/// Writes the guest's tree: `tree` without the hypervisor's own properties and with `/chosen` completed.
///
/// `/chosen` gets the RAM disk's place (or loses what the tree said about one), and `stdout-path`, where it is not
/// given, is the first PL011. CPUs that are not enabled are left out, because kernels start them all the same.
///
/// # Errors
/// If a name, a reservation or the depth of the tree is one that trees cannot have.
#[inline(never)]
pub fn build(tree: &Fdt<'_>, vm: &VmConfig, initrd: Option<Region<Ipa>>) -> Result<Vec<u8>, GuestFdtError> {
    let top = |fault: GuestFdtFault| GuestFdtError { node: "/".to_owned(), fault };
    let reserved = reservations(tree).ok_or_else(|| top(GuestFdtFault::Reservation))?;
    let mut writer = FdtWriter::new().map_err(|_| top(GuestFdtFault::Length))?;
    if let Some(boot) = vm.vcpus.first().and_then(|boot| u32::try_from(boot.to_mpidr()).ok()) {
        writer.set_boot_cpuid_phys(boot);
    }
    let chosen = Chosen { initrd, stdout: vm.uarts.first().map(|uart| uart.path.as_str()) };
    let mut copy = Copy { writer, chosen };
    copy.tree(tree)?;
    let blob = copy.writer.finish().ok().and_then(|blob| reserve(blob, &reserved));
    blob.ok_or_else(|| top(GuestFdtFault::Length))
}

/// Reads the reservations of the blob's header, lowest first; `None` if one is empty or wraps, or two overlap.
fn reservations(tree: &Fdt<'_>) -> Option<Vec<Region<Ipa>>> {
    let region =
        |start, size| Region::<Ipa>::new(Ipa::new(u64::try_from(start).ok()?), u64::try_from(size).ok()?);
    let entries = tree.memory_reservations().map(|entry| region(entry.address().addr(), entry.size()));
    let all = sorted(&entries.collect::<Option<Vec<_>>>()?, |region| region.start.get());
    let is_twice = |pair: &[Region<Ipa>]| matches!(pair, [lower, higher] if lower.overlaps(higher));
    (!all.windows(2).any(is_twice)).then_some(all)
}

/// Puts reservations into a tree that has none. The crate that writes the tree takes them too, but sorts them with
/// 4 KiB of code. `None` if the tree gets too long.
fn reserve(mut blob: Vec<u8>, reserved: &[Region<Ipa>]) -> Option<Vec<u8>> {
    let words = reserved.iter().flat_map(|region| [region.start.get(), region.size_bytes]);
    let entries: Vec<u8> = words.flat_map(u64::to_be_bytes).collect();
    let added = u32::try_from(entries.len()).ok()?;
    for offset in [field::TOTAL_SIZE, field::STRUCTURE_OFFSET, field::STRINGS_OFFSET] {
        let value = blob.get_mut(offset..)?.first_chunk_mut::<4>()?;
        *value = u32::from_be_bytes(*value).checked_add(added)?.to_be_bytes();
    }
    let list = blob.get(field::RESERVATIONS_OFFSET..)?.first_chunk::<4>()?;
    let (before, end_and_tree) = blob.split_at_checked(usize::try_from(u32::from_be_bytes(*list)).ok()?)?;
    Some([before, &entries, end_and_tree].concat())
}

/// What the hypervisor says in `/chosen`.
struct Chosen<'c> {
    initrd: Option<Region<Ipa>>,
    stdout: Option<&'c str>,
}

/// What is still to be written, last first.
enum Ahead<'t, 'a> {
    /// A node, its path, and whether it is at the top of the tree.
    Open(Node<'t, 'a>, String, Level),
    /// `/chosen` of a tree that has none.
    NewChosen,
    /// The end of a node.
    Close(FdtWriterNode),
}

/// How deep a node is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Top,
    Below,
}

struct Copy<'c> {
    writer: FdtWriter,
    chosen: Chosen<'c>,
}

impl Copy<'_> {
    fn tree(&mut self, tree: &Fdt<'_>) -> Result<(), GuestFdtError> {
        let root = node::root(tree).map(|root| Ahead::Open(root, "/".to_owned(), Level::Root));
        let mut ahead: Vec<_> = root.into_iter().collect();
        while let Some(next) = ahead.pop() {
            match next {
                Ahead::Open(node, path, level) => self.node(node, &path, level, &mut ahead)?,
                Ahead::NewChosen => {
                    let open = self.open("chosen", "/chosen")?;
                    self.complete_chosen(None)?;
                    ahead.push(Ahead::Close(open));
                }
                Ahead::Close(node) => self
                    .writer
                    .end_node(node)
                    .map_err(|_| GuestFdtError { node: "/".to_owned(), fault: GuestFdtFault::Depth })?,
            }
        }
        Ok(())
    }

    /// Writes a node up to its children and puts those `ahead`.
    fn node<'t, 'a>(
        &mut self,
        node: Node<'t, 'a>,
        path: &str,
        level: Level,
        ahead: &mut Vec<Ahead<'t, 'a>>,
    ) -> Result<(), GuestFdtError> {
        let is_chosen = level == Level::Top && node.name == "chosen";
        let open = self.open(if level == Level::Root { "" } else { node.name }, path)?;
        for property in node.properties().filter(|property| is_for_guest(property.name, is_chosen)) {
            self.property(path, property.name, property.value)?;
        }
        if is_chosen {
            self.complete_chosen(Some(node))?;
        }
        ahead.push(Ahead::Close(open));
        if level == Level::Root && node::child(node, "chosen").is_none() {
            ahead.push(Ahead::NewChosen);
        }
        let below = if level == Level::Root { Level::Top } else { Level::Below };
        let is_cpus = level == Level::Top && node.name == "cpus";
        let is_kept = |child: &Node<'t, 'a>| match level {
            Level::Root => !OVERLAY_NODES.contains(&child.name),
            _ => !is_cpus || node::is_enabled(*child),
        };
        let mut children: Vec<_> = node
            .children()
            .filter(is_kept)
            .map(|n| Ahead::Open(n, node::join(path, n.name), below))
            .collect();
        children.reverse();
        ahead.append(&mut children);
        Ok(())
    }

    /// Adds to `/chosen` what `given` lacks.
    fn complete_chosen(&mut self, given: Option<Node<'_, '_>>) -> Result<(), GuestFdtError> {
        if let Some(initrd) = self.chosen.initrd {
            let end = initrd.last().get().saturating_add(1);
            self.property("/chosen", INITRD_START, &initrd.start.get().to_be_bytes())?;
            self.property("/chosen", INITRD_END, &end.to_be_bytes())?;
        }
        let has_stdout = given.is_some_and(|node| node::value(node, STDOUT_PATH).is_some());
        if let Some(uart) = self.chosen.stdout.filter(|_| !has_stdout) {
            let text: Vec<u8> = uart.bytes().chain([0]).collect();
            self.property("/chosen", STDOUT_PATH, &text)?;
        }
        Ok(())
    }

    fn open(&mut self, name: &str, path: &str) -> Result<FdtWriterNode, GuestFdtError> {
        self.writer.begin_node(name).map_err(|error| {
            let is_depth = error == vm_fdt::Error::NodeDepthTooLarge;
            let fault = if is_depth { GuestFdtFault::Depth } else { GuestFdtFault::NodeName };
            GuestFdtError { node: path.to_owned(), fault }
        })
    }

    fn property(&mut self, path: &str, name: &str, value: &[u8]) -> Result<(), GuestFdtError> {
        self.writer.property(name, value).map_err(|_| {
            let fault = GuestFdtFault::PropertyName(node::shown(name));
            GuestFdtError { node: path.to_owned(), fault }
        })
    }
}

/// Tells whether a property of the VM's tree is copied.
fn is_for_guest(name: &str, is_chosen: bool) -> bool {
    let is_replaced = is_chosen && [INITRD_START, INITRD_END].contains(&name);
    !is_replaced && !name.starts_with(OWN_PREFIX)
}

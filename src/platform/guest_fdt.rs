//! Writes the device tree that a guest gets: the VM's own, with `/chosen` completed.
//!
//! Not here: what the tree means, which `vm_tree` checked, and whether it is one, which `dtb::open` did.
//! Follows the Devicetree Specification v0.4, 3.6 (`/chosen`) and chapter 5 (flattened format), and Linux
//! Documentation/devicetree/bindings/chosen.txt (`linux,initrd-start`, `linux,initrd-end`).

#[cfg(test)]
mod tests;

use crate::addr::{Ipa, Region};
use crate::node::{self, Node};
use crate::vm_tree::{OWN_PREFIX, VmConfig};
use alloc::vec::Vec;
use fdt::Fdt;

/// Nodes that `dtc -@` adds for overlays, which have been applied or never will be.
const OVERLAY_NODES: [&str; 3] = ["__symbols__", "__fixups__", "__local_fixups__"];

const INITRD_START: &str = "linux,initrd-start";
const INITRD_END: &str = "linux,initrd-end";
const STDOUT_PATH: &str = "stdout-path";

/// Returns the exact length in bytes of the tree that [`build`] will write.
///
/// Where RAM disk and tree go depends on this length; it does not depend on where the RAM disk goes.
#[must_use]
pub fn size_bytes(tree: &Fdt<'_>, vm: &VmConfig, has_initrd: bool) -> usize {
    let anywhere = Region { start: Ipa::new(0), size_bytes: 1 };
    build(tree, vm, has_initrd.then_some(anywhere)).len()
}

/// Writes the guest's tree: `tree` without the hypervisor's own properties and with `/chosen` completed.
///
/// `/chosen` gets the RAM disk's place (or loses what the tree said about one), and `stdout-path`, where it is not
/// given, is the first PL011. CPUs that are not enabled are left out, because kernels start them all the same.
#[must_use]
#[inline(never)]
pub fn build(tree: &Fdt<'_>, vm: &VmConfig, initrd: Option<Region<Ipa>>) -> Vec<u8> {
    let stdout = vm.uarts.first().map(|uart| uart.path.as_str());
    let mut copy = Copy { writer: Writer::default(), initrd, stdout };
    if let Some(root) = node::root(tree) {
        copy.node(root, Level::Root);
    }
    let boot = vm.vcpus.first().and_then(|boot| u32::try_from(boot.to_mpidr()).ok());
    let reserved = tree.memory_reservations().flat_map(|entry| [entry.address().addr(), entry.size()]);
    copy.writer.finish(boot.unwrap_or(0), reserved)
}

/// How deep a node is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Top,
    Below,
}

struct Copy<'c> {
    writer: Writer,
    initrd: Option<Region<Ipa>>,
    stdout: Option<&'c str>,
}

impl Copy<'_> {
    /// Writes a node with all below it. `dtb::open` bounds how deep that goes.
    fn node(&mut self, node: Node<'_, '_>, level: Level) {
        let is_chosen = level == Level::Top && node.name == "chosen";
        let is_cpus = level == Level::Top && node.name == "cpus";
        self.writer.open(if level == Level::Root { "" } else { node.name });
        for property in node.properties().filter(|property| is_for_guest(property.name, is_chosen)) {
            self.writer.property(property.name, property.value);
        }
        if is_chosen {
            self.complete_chosen(node::value(node, STDOUT_PATH).is_some());
        }
        let is_kept = |child: &Node<'_, '_>| match level {
            Level::Root => !OVERLAY_NODES.contains(&child.name),
            _ => !is_cpus || node::is_enabled(*child),
        };
        let below = if level == Level::Root { Level::Top } else { Level::Below };
        for child in node.children().filter(is_kept) {
            self.node(child, below);
        }
        if level == Level::Root && node::child(node, "chosen").is_none() {
            self.writer.open("chosen");
            self.complete_chosen(false);
            self.writer.close();
        }
        self.writer.close();
    }

    /// Adds to `/chosen` what it lacks.
    fn complete_chosen(&mut self, has_stdout: bool) {
        if let Some(initrd) = self.initrd {
            let end = initrd.last().get().saturating_add(1);
            self.writer.property(INITRD_START, &initrd.start.get().to_be_bytes());
            self.writer.property(INITRD_END, &end.to_be_bytes());
        }
        if let Some(uart) = self.stdout.filter(|_| !has_stdout) {
            let text: Vec<u8> = uart.bytes().chain([0]).collect();
            self.writer.property(STDOUT_PATH, &text);
        }
    }
}

/// Tells whether a property of the VM's tree is copied.
fn is_for_guest(name: &str, is_chosen: bool) -> bool {
    let is_replaced = is_chosen && [INITRD_START, INITRD_END].contains(&name);
    !is_replaced && !name.starts_with(OWN_PREFIX)
}

/// Tokens of the structure block (Devicetree Specification v0.4, 5.4.1).
mod token {
    pub(super) const BEGIN_NODE: usize = 1;
    pub(super) const END_NODE: usize = 2;
    pub(super) const PROPERTY: usize = 3;
    pub(super) const END: usize = 9;
}

/// Length of the header in bytes (Devicetree Specification v0.4, 5.2).
const HEADER_BYTES: usize = 40;

/// The structure block and the strings block of a tree that is being written.
#[derive(Default)]
struct Writer {
    structure: Vec<u8>,
    strings: Vec<u8>,
}

impl Writer {
    fn open(&mut self, name: &str) {
        self.word(token::BEGIN_NODE);
        self.structure.extend(name.bytes());
        self.structure.push(0);
        self.pad();
    }

    fn close(&mut self) {
        self.word(token::END_NODE);
    }

    fn property(&mut self, name: &str, value: &[u8]) {
        let mut text: Vec<u8> = name.into();
        text.push(0);
        // As the end of a longer name it will do, too.
        let known = self.strings.windows(text.len()).position(|known| known == text);
        let name = known.unwrap_or(self.strings.len());
        if known.is_none() {
            self.strings.append(&mut text);
        }
        for word in [token::PROPERTY, value.len(), name] {
            self.word(word);
        }
        self.structure.extend_from_slice(value);
        self.pad();
    }

    /// Puts the blocks together, with these words of the memory reservation block.
    fn finish(mut self, boot_cpu: u32, reserved: impl Iterator<Item = usize>) -> Vec<u8> {
        self.word(token::END);
        let words = reserved.chain([0, 0]).map(|word| u64::try_from(word).unwrap_or(u64::MAX));
        let reservations: Vec<u8> = words.flat_map(u64::to_be_bytes).collect();
        let structure = HEADER_BYTES + reservations.len();
        let strings = structure + self.structure.len();
        let total = strings + self.strings.len();
        let boot_cpu = usize::try_from(boot_cpu).unwrap_or(0);
        let mut blob = Vec::with_capacity(total);
        for word in [
            0xd00d_feed, // magic
            total,
            structure,
            strings,
            HEADER_BYTES, // where the reservations are
            17,           // version
            16,           // readers of this version can read it
            boot_cpu,
            self.strings.len(),
            self.structure.len(),
        ] {
            blob.extend(cell(word));
        }
        for block in [reservations, self.structure, self.strings] {
            blob.extend_from_slice(&block);
        }
        blob
    }

    fn word(&mut self, word: usize) {
        self.structure.extend(cell(word));
    }

    /// Fills up to a whole cell.
    fn pad(&mut self) {
        self.structure.resize(self.structure.len().next_multiple_of(4), 0);
    }
}

/// Encodes a number. A VM's tree is short: none has more than 32 bits.
fn cell(number: usize) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes()
}

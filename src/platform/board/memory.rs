//! Spans of the board's memory: RAM, reservations, the initial ramdisk.
//!
//! Not here: who gets which of it; reservations without a place, which are wishes to an operating system.
//! Follows the Devicetree Specification v0.4, 3.4 (`/memory`), 3.5 (`/reserved-memory`), 5.3 (memory
//! reservation block), and Linux' `linux,initrd-start` and `linux,initrd-end` in `/chosen`.

use alloc::vec::Vec;

use fdt::Fdt;

use super::{BoardError, Wanted, physical};
use crate::addr::{Pa, Region, sorted};
use crate::dtb::node::{self, Reason};
use crate::dtb::path::{NodePath, PropertyError, span};

/// Reads the RAM of the board.
pub(super) fn ram(fdt: &Fdt<'_>) -> Result<Vec<Region<Pa>>, BoardError> {
    let mut ram = Vec::new();
    let root = NodePath::root(fdt);
    for memory in root.iter().flat_map(NodePath::children).filter(is_memory) {
        collect_reg(&memory, &mut ram)?;
    }
    if ram.is_empty() { Err(BoardError::Missing(Wanted::Memory)) } else { Ok(merge(&ram)) }
}

/// Reads what is not to be touched, in RAM or elsewhere.
pub(super) fn reserved(fdt: &Fdt<'_>) -> Result<Vec<Region<Pa>>, PropertyError> {
    let mut reserved = Vec::new();
    for entry in fdt.memory_reservations() {
        let start = u64::try_from(entry.address().addr()).unwrap_or(u64::MAX);
        let size_bytes = u64::try_from(entry.size()).unwrap_or(u64::MAX);
        // An entry that would wrap reserves what there is from its start on.
        let size_bytes = size_bytes.min((u64::MAX - start).saturating_add(1));
        reserved.extend(span(start, size_bytes).map(physical));
    }
    // The children's addresses are the root's, whatever is or is not in `ranges`.
    let parent = NodePath::find(fdt, "/reserved-memory");
    for child in parent.iter().flat_map(NodePath::children).filter(NodePath::is_available) {
        collect_reg(&child, &mut reserved)?;
    }
    Ok(merge(&reserved))
}

/// Reads where the boot loader put the initial ramdisk.
pub(super) fn initrd(chosen: &NodePath<'_, '_>) -> Result<Option<Region<Pa>>, PropertyError> {
    let (first, end) = ("linux,initrd-start", "linux,initrd-end");
    let number = |property| node::number(chosen.node(), property).map_err(|fault| chosen.error(fault));
    match (number(first)?, number(end)?) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(chosen.fault(end, Reason::Missing)),
        (None, Some(_)) => Err(chosen.fault(first, Reason::Missing)),
        (Some(start), Some(stop)) => {
            let size_bytes =
                stop.checked_sub(start).ok_or_else(|| chosen.fault(end, Reason::OutOfRange(stop)))?;
            Ok(span(start, size_bytes).map(physical))
        }
    }
}

/// Returns what of `from` is not in `taken`; both are sorted and without overlaps.
pub(super) fn subtract(from: &[Region<Pa>], taken: &[Region<Pa>]) -> Vec<Region<Pa>> {
    let mut left = Vec::new();
    let mut taken = taken.iter().peekable();
    for region in from {
        let (mut start, last) = (Some(region.start), region.last());
        while taken.next_if(|hole| hole.last() < region.start).is_some() {}
        while let Some(hole) = taken.peek().filter(|hole| hole.start <= last) {
            left.extend(start.and_then(|start| between(start, hole.start)));
            start = hole.last().checked_add(1);
            if hole.last() > last {
                break;
            }
            taken.next();
        }
        let rest = start.and_then(|start| Some((start, last.offset_from(start)?.checked_add(1)?)));
        left.extend(rest.and_then(|(start, size_bytes)| Region::<Pa>::new(start, size_bytes)));
    }
    left
}

/// Returns the region from `start` up to `end`, which is not part of it; `None` where that is empty.
fn between(start: Pa, end: Pa) -> Option<Region<Pa>> {
    Region::<Pa>::new(start, end.offset_from(start)?)
}

/// Tells whether a child of the root is usable RAM. The specification demands `device_type`; trees by hand
/// often have the name alone.
fn is_memory(path: &NodePath<'_, '_>) -> bool {
    let node = path.node();
    let is_named = || !node::has(node, "device_type") && node::base_name(node.name) == "memory";
    let is_typed = matches!(node::string(node, "device_type"), Ok(Some("memory")));
    (is_typed || is_named()) && path.is_available()
}

/// Adds the entries of `reg` that are not empty.
fn collect_reg(path: &NodePath<'_, '_>, to: &mut Vec<Region<Pa>>) -> Result<(), PropertyError> {
    for (start, size_bytes) in path.reg()?.filter(|(_, size_bytes)| *size_bytes > 0) {
        let region = span(start, size_bytes);
        to.push(physical(region.ok_or_else(|| path.fault("reg", Reason::NoSpan { start, size_bytes }))?));
    }
    Ok(())
}

/// Sorts regions, and makes one of those that touch or overlap.
pub(super) fn merge(regions: &[Region<Pa>]) -> Vec<Region<Pa>> {
    let mut merged: Vec<Region<Pa>> = Vec::with_capacity(regions.len());
    for region in sorted(regions, |region| region.start.get()) {
        match merged.last_mut() {
            Some(below) if below.last().checked_add(1).is_none_or(|next| region.start <= next) => {
                let last = below.last().max(region.last());
                // Neither wraps, so this is at most 2^64 - 1 but for the whole space, which loses a byte.
                let distance = last.offset_from(below.start).unwrap_or(0);
                below.size_bytes = distance.saturating_add(1);
            }
            _ => merged.push(region),
        }
    }
    merged
}

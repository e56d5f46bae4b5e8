//! A node together with the nodes above it: what says which addresses and interrupts its properties mean.
//!
//! Not here: numbers of interrupts ([`super::interrupt`]).
//! Follows the Devicetree Specification v0.4, 2.2.3 (path names), 2.3.6 (`reg`), 2.3.8 (`ranges`), 3.3
//! (`/aliases`).

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use fdt::Fdt;
use fdt::node::FdtNode;

use super::node::{self, CellCounts, Cells, Fault, Reason, Reg};
use crate::addr::Region;

/// A property that is not as it should be, and the node that has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PropertyError {
    /// Path of the node.
    pub node: String,
    /// The property and what is wrong with it.
    pub fault: Fault,
}

impl fmt::Display for PropertyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.node, self.fault)
    }
}

/// A node and the way to it from the root of a tree that [`super::open`] checked.
#[derive(Clone)]
pub struct NodePath<'b, 'a> {
    /// From the root to the node's parent.
    ancestors: Vec<FdtNode<'b, 'a>>,
    node: FdtNode<'b, 'a>,
}

impl<'b, 'a> NodePath<'b, 'a> {
    /// Returns the root; each checked tree has one.
    #[must_use]
    pub fn root(fdt: &'b Fdt<'a>) -> Option<Self> {
        fdt.all_nodes().next().map(|node| Self { ancestors: Vec::new(), node })
    }

    /// Finds a node by its absolute path, in which names may lack the unit address.
    #[must_use]
    pub fn find(fdt: &'b Fdt<'a>, path: &str) -> Option<Self> {
        let names = path.strip_prefix('/')?.split('/').filter(|name| !name.is_empty());
        names.into_iter().try_fold(Self::root(fdt)?, |path, name| path.child(name))
    }

    /// Finds the node that a property such as `stdout-path` means: a path or an alias, and after a colon
    /// what is not of interest here.
    #[must_use]
    pub fn resolve(fdt: &'b Fdt<'a>, reference: &str) -> Option<Self> {
        let name = reference.split_once(':').map_or(reference, |(name, _)| name);
        if name.starts_with('/') {
            return Self::find(fdt, name);
        }
        let aliases = Self::find(fdt, "/aliases")?;
        let path = core::str::from_utf8(node::value(aliases.node, name)?).ok()?;
        Self::find(fdt, path.trim_end_matches('\0'))
    }

    /// Visits every node, parents before their children, until `visit` fails.
    ///
    /// # Errors
    /// Those of `visit`.
    pub fn walk<E>(fdt: &'b Fdt<'a>, mut visit: impl FnMut(&Self) -> Result<(), E>) -> Result<(), E> {
        let Some(mut path) = Self::root(fdt) else { return Ok(()) };
        visit(&path)?;
        let mut open = vec![path.node.children()];
        while let Some(children) = open.last_mut() {
            if let Some(child) = children.next() {
                path.ancestors.push(core::mem::replace(&mut path.node, child));
                visit(&path)?;
                open.push(child.children());
            } else {
                open.pop();
                if let Some(parent) = path.ancestors.pop() {
                    path.node = parent;
                }
            }
        }
        Ok(())
    }

    /// Returns the node itself, for the functions of [`super::node`].
    #[must_use]
    pub fn node(&self) -> FdtNode<'b, 'a> {
        self.node
    }

    /// Lists the children.
    pub fn children(&self) -> impl Iterator<Item = Self> {
        self.node.children().map(|node| self.below(node))
    }

    /// Finds a child by its name, with the unit address or, where `name` has none, without.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<Self> {
        node::child(self.node, name).map(|node| self.below(node))
    }

    /// Tells whether the node and all above it may be used.
    #[must_use]
    pub fn is_available(&self) -> bool {
        node::is_available(self.node) && self.ancestors.iter().all(|above| node::is_available(*above))
    }

    /// Puts the path of this node to a fault in one of its properties.
    #[must_use]
    pub fn error(&self, fault: Fault) -> PropertyError {
        PropertyError { node: self.to_string(), fault }
    }

    /// Says that a property of this node is wrong.
    #[must_use]
    pub fn fault(&self, property: &'static str, reason: Reason) -> PropertyError {
        self.error(Fault { property, reason })
    }

    /// Reads `reg` as it stands: addresses of the bus that the node is on, sizes in bytes.
    ///
    /// # Errors
    /// `reg` or the parent's cell counts are malformed.
    pub fn reg(&self) -> Result<Reg<'a>, PropertyError> {
        let counts = self.parent_cell_counts()?;
        node::reg(self.node, counts).map_err(|fault| self.error(fault))
    }

    /// Reads the cell counts of the bus that the node is on.
    ///
    /// # Errors
    /// They are malformed, or the node is the root.
    pub fn parent_cell_counts(&self) -> Result<CellCounts, PropertyError> {
        let parent = self.ancestors.last().ok_or_else(|| self.fault("reg", Reason::OnNoBus))?;
        node::cell_counts(*parent).map_err(|fault| self.error_above(1, fault))
    }

    /// Reads entry `index` of `reg` as addresses that a CPU uses, through the `ranges` of all buses above;
    /// `None` where there are fewer entries.
    ///
    /// # Errors
    /// A property needed for this is malformed, or a bus does not pass the whole span on.
    pub fn region(&self, index: usize) -> Result<Option<Region<u64>>, PropertyError> {
        let Some((start, size_bytes)) = self.reg()?.nth(index) else { return Ok(None) };
        self.translate("reg", start, size_bytes).map(Some)
    }

    /// Passes a span, in addresses of the bus that the node is on, through the `ranges` of all buses above.
    ///
    /// # Errors
    /// The span of this property is none, or a bus does not pass the whole of it on.
    pub fn translate(
        &self,
        property: &'static str,
        start: u64,
        size_bytes: u64,
    ) -> Result<Region<u64>, PropertyError> {
        let no_span = |start| self.fault(property, Reason::NoSpan { start, size_bytes });
        let mut region = span(start, size_bytes).ok_or_else(|| no_span(start))?;
        for (levels, pair) in (1..).zip(self.ancestors.windows(2).rev()) {
            if let [above, bus] = pair {
                let start = through_ranges(*bus, *above, region);
                let start = start.map_err(|fault| self.error_above(levels, fault))?;
                region = span(start, size_bytes).ok_or_else(|| no_span(start))?;
            }
        }
        Ok(region)
    }

    /// Reads entry `index` of `reg` as [`Self::region`] does, and takes its absence as an error.
    ///
    /// # Errors
    /// The same, and fewer entries.
    pub fn required_region(&self, index: usize) -> Result<Region<u64>, PropertyError> {
        let reason = if node::has(self.node, "reg") {
            Reason::TooFew { wanted: index.saturating_add(1) }
        } else {
            Reason::Missing
        };
        self.region(index)?.ok_or_else(|| self.fault("reg", reason))
    }

    /// Lists the nodes from this one up to the root.
    pub(super) fn upwards(&self) -> impl Iterator<Item = FdtNode<'b, 'a>> {
        core::iter::once(self.node).chain(self.ancestors.iter().rev().copied())
    }

    /// Puts the path of the node `levels` above to a fault in one of its properties.
    pub(super) fn error_above(&self, levels: usize, fault: Fault) -> PropertyError {
        let depth = self.ancestors.len().saturating_sub(levels);
        match self.ancestors.get(depth) {
            Some(node) if levels > 0 => {
                let ancestors = self.ancestors.iter().take(depth).copied().collect();
                Self { ancestors, node: *node }.error(fault)
            }
            _ => self.error(fault),
        }
    }

    fn below(&self, node: FdtNode<'b, 'a>) -> Self {
        let ancestors = self.ancestors.iter().copied().chain([self.node]).collect();
        Self { ancestors, node }
    }
}

impl fmt::Display for NodePath<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ancestors.is_empty() {
            return f.write_str("/");
        }
        for node in self.ancestors.iter().skip(1).chain([&self.node]) {
            write!(f, "/{}", node.name)?;
        }
        Ok(())
    }
}

/// Makes a span of addresses; `None` when it is empty or its last byte leaves the 64-bit space.
pub fn span(start: u64, size_bytes: u64) -> Option<Region<u64>> {
    start.checked_add(size_bytes.checked_sub(1)?)?;
    Some(Region { start, size_bytes })
}

/// Translates the first address of a span from `bus` to the bus `above`.
fn through_ranges(bus: FdtNode<'_, '_>, above: FdtNode<'_, '_>, from: Region<u64>) -> Result<u64, Fault> {
    let Region { start, size_bytes } = from;
    let fault = |reason| Fault { property: "ranges", reason };
    let value = node::value(bus, "ranges").ok_or(fault(Reason::Missing))?;
    if value.is_empty() {
        return Ok(start);
    }
    let (child, parent) = (node::cell_counts(bus)?, node::cell_counts(above)?);
    node::whole_entries("ranges", value, child.entry_bytes() + node::bytes_of(parent.address))?;
    let mut cells = Cells::new(value);
    let mut entry =
        || Some((cells.number(child.address)?, cells.number(parent.address)?, cells.number(child.size)?));
    while let Some((bus_start, parent_start, bytes)) = entry() {
        let offset = start.checked_sub(bus_start);
        let fits = |offset: &u64| bytes.checked_sub(*offset).is_some_and(|left| size_bytes <= left);
        if let Some(offset) = offset.filter(fits) {
            return parent_start.checked_add(offset).ok_or(fault(Reason::OutOfRange(parent_start)));
        }
    }
    Err(fault(Reason::NotMapped { start, size_bytes }))
}

//! Properties of one node, read without trust in their length or content.
//!
//! Not here: anything that needs to know where in the tree the node is ([`super::path`]).
//! Follows the Devicetree Specification v0.4, 2.2.4 (property values) and 2.3 (standard properties).

use core::fmt;

use fdt::node::FdtNode;

/// A property that is not as it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Its name.
    pub property: &'static str,
    /// What is wrong with it.
    pub reason: Reason,
}

/// Says what is wrong with a property.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// It is not there.
    Missing,
    /// Its length is not that of what it holds.
    Length {
        /// Bytes it should have.
        wanted: usize,
        /// Bytes it has.
        found: usize,
    },
    /// Its length is not a multiple of that of one entry.
    Entries {
        /// Bytes of an entry.
        entry: usize,
        /// Bytes it has.
        found: usize,
    },
    /// It has fewer entries than it should.
    TooFew {
        /// Entries it should have.
        wanted: usize,
    },
    /// It is not UTF-8 that ends in a NUL byte.
    NotText,
    /// The number is more, or less, than can be handled.
    OutOfRange(u64),
    /// The span of addresses is empty or does not end within 64 bits.
    NoSpan {
        /// First address.
        start: u64,
        /// Bytes.
        size_bytes: u64,
    },
    /// No entry of this `ranges` covers the span.
    NotMapped {
        /// First address on the bus.
        start: u64,
        /// Bytes.
        size_bytes: u64,
    },
    /// No node with this phandle is an interrupt controller.
    NoController(u32),
    /// The interrupt is not one that the GIC has.
    NoInterrupt {
        /// First cell: 0 SPI, 1 PPI.
        kind: u32,
        /// Second cell: number within the kind.
        number: u32,
    },
    /// It is neither "smc" nor "hvc".
    NoConduit,
    /// The root has no bus above, on which it could have an address.
    OnNoBus,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let property = self.property;
        match self.reason {
            Reason::Missing => write!(f, "`{property}` is missing"),
            Reason::Length { wanted, found } => {
                write!(f, "`{property}` has {found} bytes, should have {wanted}")
            }
            Reason::Entries { entry, found } => {
                write!(f, "`{property}` has {found} bytes, should have a multiple of {entry}")
            }
            Reason::TooFew { wanted } => write!(f, "`{property}` should have at least {wanted} entries"),
            Reason::NotText => write!(f, "`{property}` should be text that ends in a NUL byte"),
            Reason::OutOfRange(value) => {
                write!(f, "`{property}` has the value {value:#x}, which is out of range")
            }
            Reason::NoSpan { start, size_bytes } => {
                write!(
                    f,
                    "`{property}` has {size_bytes:#x} bytes from {start:#x}, should end above its start"
                )
            }
            Reason::NotMapped { start, size_bytes } => {
                write!(f, "`{property}` should have an entry for {size_bytes:#x} bytes from {start:#x}")
            }
            Reason::NoController(phandle) => {
                write!(f, "`{property}` should lead to an interrupt controller, and {phandle:#x} is none")
            }
            Reason::NoInterrupt { kind, number } => {
                write!(f, "`{property}` should name a GIC's interrupt, and <{kind} {number}> is none")
            }
            Reason::NoConduit => write!(f, "`{property}` should be \"smc\" or \"hvc\""),
            Reason::OnNoBus => write!(f, "`{property}` should not be asked of the root"),
        }
    }
}

/// Numbers of cells that a bus uses for its children's `reg`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CellCounts {
    /// `#address-cells`: 1 or 2.
    pub address: u32,
    /// `#size-cells`: 0 to 2.
    pub size: u32,
}

impl CellCounts {
    /// Returns the length in bytes of a `reg` entry.
    #[must_use]
    pub fn entry_bytes(self) -> usize {
        bytes_of(self.address) + bytes_of(self.size)
    }
}

/// Returns the length in bytes of so many cells.
pub(super) fn bytes_of(cells: u32) -> usize {
    usize::try_from(cells).unwrap_or(usize::MAX).saturating_mul(4)
}

/// Reads big-endian cells one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Cells<'a>(&'a [u8]);

impl<'a> Cells<'a> {
    /// Starts at the first byte of a property's value.
    #[must_use]
    pub fn new(value: &'a [u8]) -> Self {
        Self(value)
    }

    /// Takes one cell; `None` where less than one is left.
    pub fn cell(&mut self) -> Option<u32> {
        let (cell, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*cell))
    }

    /// Passes over so many cells, or all that are left.
    pub fn skip(&mut self, cells: u32) {
        self.0 = self.0.get(bytes_of(cells)..).unwrap_or_default();
    }

    /// Takes a number of `cells` cells, highest first; 0 for no cells, `None` where fewer are left or it has
    /// more than 64 bits.
    pub fn number(&mut self, cells: u32) -> Option<u64> {
        let mut number = 0_u64;
        for _ in 0..cells {
            number = number.checked_mul(1 << 32)?.checked_add(u64::from(self.cell()?))?;
        }
        Some(number)
    }
}

/// The entries of a `reg` property, as addresses and sizes of the bus the node is on.
#[derive(Clone, Copy, Debug)]
pub struct Reg<'a> {
    cells: Cells<'a>,
    counts: CellCounts,
}

impl Iterator for Reg<'_> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.cells.number(self.counts.address)?, self.cells.number(self.counts.size)?))
    }
}

/// Returns the bytes of a property.
#[must_use]
pub fn value<'a>(node: FdtNode<'_, 'a>, property: &str) -> Option<&'a [u8]> {
    node.property(property).map(|found| found.value)
}

/// Reads a property that is one cell.
///
/// # Errors
/// It has another length.
pub fn cell(node: FdtNode<'_, '_>, property: &'static str) -> Result<Option<u32>, Fault> {
    let Some(value) = value(node, property) else { return Ok(None) };
    let bytes = value.try_into().map_err(|_| length(property, 4, value))?;
    Ok(Some(u32::from_be_bytes(bytes)))
}

/// Reads a property that is a number of one or two cells, as writers differ in this.
///
/// # Errors
/// It has another length.
pub fn number(node: FdtNode<'_, '_>, property: &'static str) -> Result<Option<u64>, Fault> {
    match value(node, property) {
        None => Ok(None),
        Some(value) if value.len() == 4 => Ok(Cells(value).number(1)),
        Some(value) if value.len() == 8 => Ok(Cells(value).number(2)),
        Some(value) => Err(length(property, 8, value)),
    }
}

/// Reads a property that is text; of several strings the first.
///
/// # Errors
/// It is not UTF-8 or has no NUL byte at its end.
pub fn string<'a>(node: FdtNode<'_, 'a>, property: &'static str) -> Result<Option<&'a str>, Fault> {
    Ok(strings(node, property)?.next())
}

/// Reads a property that is a list of strings; none where the property is missing.
///
/// # Errors
/// It is not UTF-8 or has no NUL byte at its end.
pub fn strings<'a>(
    node: FdtNode<'_, 'a>,
    property: &'static str,
) -> Result<impl Iterator<Item = &'a str> + use<'a>, Fault> {
    let text = match value(node, property) {
        None => None,
        Some(value) => {
            let text = core::str::from_utf8(value).ok().and_then(|text| text.strip_suffix('\0'));
            Some(text.ok_or(Fault { property, reason: Reason::NotText })?)
        }
    };
    Ok(text.into_iter().flat_map(|text| text.split('\0')))
}

/// Tells whether a property is there, with or without a value.
#[must_use]
pub fn has(node: FdtNode<'_, '_>, property: &str) -> bool {
    node.property(property).is_some()
}

/// Tells whether one of the node's `compatible` strings is among these.
#[must_use]
pub fn is_compatible(node: FdtNode<'_, '_>, with: &[&str]) -> bool {
    strings(node, "compatible").is_ok_and(|mut all| all.any(|one| with.contains(&one)))
}

/// Tells whether `status` lets the node be used: it is missing or says "okay" (or, as once was, "ok").
#[must_use]
pub fn is_available(node: FdtNode<'_, '_>) -> bool {
    !has(node, "status") || matches!(string(node, "status"), Ok(Some("okay" | "ok")))
}

/// Returns a node's name without the unit address.
#[must_use]
pub fn base_name(name: &str) -> &str {
    name.split_once('@').map_or(name, |(base, _)| base)
}

/// Finds a child by its name, with the unit address or, where `name` has none, without.
#[must_use]
pub fn child<'b, 'a>(node: FdtNode<'b, 'a>, name: &str) -> Option<FdtNode<'b, 'a>> {
    node.children().find(|child| child.name == name || base_name(child.name) == name)
}

/// Reads the cell counts that a bus node gives to its children, of which 2 and 1 are the defaults.
///
/// # Errors
/// They are malformed, or such that an address or a size has more than 64 bits.
pub fn cell_counts(bus: FdtNode<'_, '_>) -> Result<CellCounts, Fault> {
    let count = |property, default, least| {
        let cells = cell(bus, property)?.unwrap_or(default);
        let fits = (least..=2).contains(&cells);
        fits.then_some(cells).ok_or(Fault { property, reason: Reason::OutOfRange(cells.into()) })
    };
    Ok(CellCounts { address: count("#address-cells", 2, 1)?, size: count("#size-cells", 1, 0)? })
}

/// Reads the `reg` of a node on a bus with these cell counts; no entries where the property is missing.
///
/// # Errors
/// It does not consist of whole entries.
pub fn reg<'a>(node: FdtNode<'_, 'a>, counts: CellCounts) -> Result<Reg<'a>, Fault> {
    let value = value(node, "reg").unwrap_or_default();
    whole_entries("reg", value, counts.entry_bytes())?;
    Ok(Reg { cells: Cells(value), counts })
}

/// Checks that a property consists of whole entries of this length in bytes.
pub(super) fn whole_entries(property: &'static str, value: &[u8], entry: usize) -> Result<(), Fault> {
    let whole = entry != 0 && value.len().is_multiple_of(entry);
    whole.then_some(()).ok_or(Fault { property, reason: Reason::Entries { entry, found: value.len() } })
}

fn length(property: &'static str, wanted: usize, value: &[u8]) -> Fault {
    Fault { property, reason: Reason::Length { wanted, found: value.len() } }
}

//! Flattened device trees made safe to read: the door between a blob and the `fdt` crate.
//!
//! `fdt` 0.1.5 stays the reader, and panics on malformed blobs and on FDT_NOP tokens. [`open`] checks a
//! blob from header to FDT_END and squeezes the FDT_NOPs out, so that the reader sees neither. A blob that
//! [`open`] accepted is safe for these functions of `fdt`: `all_nodes`, `find_phandle`, `find_compatible`,
//! `memory_reservations`, `strings`, `FdtNode::{children, properties, property, cell_sizes}`.
//! The rest takes for granted what a tree need not have, and is not used in this library: `root`,
//! `chosen`, `cpus`, `memory` and what they return unwrap nodes and properties; `find_node` follows an
//! alias to itself until the stack ends; `raw_reg` never ends where both cell counts are 0; `interrupts`
//! knows no specifier of three cells. [`node`], [`path`] and [`interrupt`] are here instead.
//!
//! Not here: what the nodes of any particular tree mean; writing of trees.
//! Follows the Devicetree Specification v0.4, chapter 5 (flattened format).

pub mod interrupt;
pub mod node;
pub mod path;

#[cfg(test)]
pub(super) mod tests;

use core::fmt;
use core::ops::Range;

pub use fdt::Fdt;

/// Deepest nesting accepted, the root included: `fdt` follows it by recursion, and holds 63 parents.
pub const MAX_DEPTH: usize = 32;

/// Longest property name accepted, in bytes. The specification says 31, and real trees go beyond. There is
/// a limit because names may overlap in the strings block, and `fdt` reads each again at every property.
pub const MAX_PROPERTY_NAME_BYTES: usize = 255;

const MAGIC: u32 = 0xd00d_feed;
/// Header of version 17, which `fdt` reads in any case; in version 16 the last word is not part of it.
const HEADER_BYTES: usize = 40;
const CELL_BYTES: usize = 4;
const RESERVATION_BYTES: usize = 16;

/// Offsets of the header's fields, in bytes (Devicetree Specification v0.4, 5.2).
pub(crate) mod field {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const TOTAL_SIZE: usize = 4;
    pub(crate) const STRUCTURE_OFFSET: usize = 8;
    pub(crate) const STRINGS_OFFSET: usize = 12;
    pub(crate) const RESERVATIONS_OFFSET: usize = 16;
    pub(crate) const VERSION: usize = 20;
    pub(crate) const LAST_COMPATIBLE_VERSION: usize = 24;
    pub(crate) const STRINGS_SIZE: usize = 32;
    pub(crate) const STRUCTURE_SIZE: usize = 36;
}

/// A part of the blob that the header points to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Block {
    /// The list of reserved memory.
    Reservations,
    /// The nodes and properties.
    Structure,
    /// The names of properties.
    Strings,
}

/// Names what is wrong with a blob. An `offset` counts bytes from the start of the structure block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DtbError {
    /// The blob ends before the header or before what the header announces.
    Truncated {
        /// Bytes that should be there.
        wanted: usize,
        /// Bytes that are.
        found: usize,
    },
    /// The first word is not that of a device tree.
    Magic(u32),
    /// The header's version is not one that can be read.
    Version(u32),
    /// The header places this block outside of the blob, or not at a multiple of its alignment.
    Misplaced(Block),
    /// This block shares bytes with another one or with the header.
    Overlap(Block),
    /// No zero entry ends the list of reserved memory.
    EndlessReservations,
    /// The structure block ends inside a token.
    Ends {
        /// Where the token starts.
        offset: usize,
    },
    /// The word is no token, or not one that may stand here.
    Token {
        /// Where it stands.
        offset: usize,
        /// The word.
        token: u32,
    },
    /// A node's name is empty (or, at the root, not), or has characters other than printable ASCII.
    NodeName {
        /// Where the node starts.
        offset: usize,
    },
    /// A property's name lies outside of the strings block, is empty, too long or not printable ASCII.
    PropertyName {
        /// Where the property starts.
        offset: usize,
    },
    /// `#address-cells` or `#size-cells` is not a single cell.
    CellCount {
        /// Where the property starts.
        offset: usize,
    },
    /// Nodes are nested deeper than [`MAX_DEPTH`].
    Depth {
        /// Where the first node too deep starts.
        offset: usize,
    },
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reservations => "memory reservation block",
            Self::Structure => "structure block",
            Self::Strings => "strings block",
        })
    }
}

impl fmt::Display for DtbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { wanted, found } => {
                write!(f, "device tree of {wanted} bytes is cut off after {found}")
            }
            Self::Magic(word) => write!(f, "device tree starts with {word:#010x}, should be {MAGIC:#010x}"),
            Self::Version(version) => {
                write!(f, "device tree has version {version}, should be 17 or compatible with it")
            }
            Self::Misplaced(block) => write!(f, "the {block} is not inside the device tree, or unaligned"),
            Self::Overlap(block) => write!(f, "the {block} overlaps another block of the device tree"),
            Self::EndlessReservations => {
                f.write_str("the memory reservation block has no zero entry at its end")
            }
            Self::Ends { offset } => write!(f, "structure block ends inside the token at {offset:#x}"),
            Self::Token { offset, token } => {
                write!(f, "structure block has {token:#x} at {offset:#x}, where no such token may be")
            }
            Self::NodeName { offset } => {
                write!(f, "node at {offset:#x} of the structure block should have a name of printable ASCII")
            }
            Self::PropertyName { offset } => {
                write!(
                    f,
                    "property at {offset:#x} of the structure block should have a name of printable ASCII"
                )
            }
            Self::CellCount { offset } => {
                write!(f, "cell count at {offset:#x} of the structure block should be one cell")
            }
            Self::Depth { offset } => {
                write!(f, "node at {offset:#x} of the structure block is nested deeper than {MAX_DEPTH}")
            }
        }
    }
}

/// Returns the size in bytes of the whole blob that starts with `header`, at least 40 bytes of it.
///
/// For a blob of which only the address is known, as the one in x0: nothing but the header is checked.
///
/// # Errors
/// The bytes are not the header of a device tree that [`open`] could read.
pub fn total_size(header: &[u8]) -> Result<usize, DtbError> {
    let truncated = DtbError::Truncated { wanted: HEADER_BYTES, found: header.len() };
    let word = |offset| word_at(header, offset).ok_or(truncated);
    let magic = word(field::MAGIC)?;
    if magic != MAGIC {
        return Err(DtbError::Magic(magic));
    }
    let (version, last_compatible) = (word(field::VERSION)?, word(field::LAST_COMPATIBLE_VERSION)?);
    if version < 16 || last_compatible > 17 {
        return Err(DtbError::Version(version));
    }
    let total = to_usize(word(field::TOTAL_SIZE)?);
    if total < HEADER_BYTES || header.len() < HEADER_BYTES {
        return Err(DtbError::Truncated { wanted: HEADER_BYTES, found: total.min(header.len()) });
    }
    Ok(total)
}

/// Checks the device tree at the start of `blob` and returns it for reading.
///
/// The blob changes only if it has FDT_NOP tokens, version 16 or bytes after FDT_END, at which `fdt` would
/// not stop: a hash over it is to be verified before. It may start at any address. The time taken is linear
/// in its size; the values of properties are not looked at, and not moved but where an FDT_NOP came before.
///
/// # Errors
/// Anything that is not as the specification says; the blob is unchanged then.
#[inline(never)]
pub fn open(blob: &mut [u8]) -> Result<Fdt<'_>, DtbError> {
    let total = total_size(blob)?;
    let truncated = DtbError::Truncated { wanted: total, found: blob.len() };
    let blob = blob.get_mut(..total).ok_or(truncated)?;
    let layout = Layout::read(blob)?;
    let outside = DtbError::Misplaced(Block::Structure);
    let strings = blob.get(layout.strings.clone()).ok_or(outside)?;
    let checked = check_structure(blob.get(layout.structure.clone()).ok_or(outside)?, strings)?;
    let ends_with_block = checked.end == layout.structure.len();
    if checked.has_nops || layout.lacks_structure_size || !ends_with_block {
        let end = squeeze(blob.get_mut(layout.structure).ok_or(outside)?)?;
        set_word(blob, field::VERSION, 17);
        set_word(blob, field::STRUCTURE_SIZE, u32::try_from(end).map_err(|_| outside)?);
    }
    Fdt::new(blob).map_err(|_| truncated)
}

/// Where the blocks are: inside the blob, aligned, and none on top of another.
struct Layout {
    structure: Range<usize>,
    strings: Range<usize>,
    /// The header is of version 16: the structure block ends with FDT_END at the latest where the next begins.
    lacks_structure_size: bool,
}

impl Layout {
    fn read(blob: &[u8]) -> Result<Self, DtbError> {
        let word = |offset| word_at(blob, offset).map_or(0, to_usize);
        let lacks_structure_size = word(field::VERSION) < 17;
        let strings =
            block(blob, Block::Strings, word(field::STRINGS_OFFSET), Some(word(field::STRINGS_SIZE)))?;
        let reservations = reservations(blob, word(field::RESERVATIONS_OFFSET))?;
        let start = word(field::STRUCTURE_OFFSET);
        let size = if lacks_structure_size {
            [strings.start, reservations.start].into_iter().filter_map(|next| next.checked_sub(start)).min()
        } else {
            Some(word(field::STRUCTURE_SIZE))
        };
        let structure = block(blob, Block::Structure, start, size)?;
        let mut blocks = [
            (Block::Reservations, reservations),
            (Block::Structure, structure.clone()),
            (Block::Strings, strings.clone()),
        ];
        let place = |(_, range): &(Block, Range<usize>)| (range.start, range.end);
        for [low, high] in [[0, 1], [1, 2], [0, 1]] {
            if let [Some(before), Some(after)] = [blocks.get(low), blocks.get(high)]
                && place(before) > place(after)
            {
                blocks.swap(low, high);
            }
        }
        let mut end = HEADER_BYTES;
        for (block, range) in blocks {
            if range.start < end {
                return Err(DtbError::Overlap(block));
            }
            end = range.end;
        }
        Ok(Self { structure, strings, lacks_structure_size })
    }
}

/// Returns the bytes from `start` on, `size` of them or up to the end of the blob.
fn block(blob: &[u8], block: Block, start: usize, size: Option<usize>) -> Result<Range<usize>, DtbError> {
    let alignment = match block {
        Block::Reservations => 8,
        Block::Structure => CELL_BYTES,
        Block::Strings => 1,
    };
    let end = size.map_or(Some(blob.len()), |size| start.checked_add(size));
    match end {
        Some(end) if start <= end && end <= blob.len() && start.is_multiple_of(alignment) => Ok(start..end),
        _ => Err(DtbError::Misplaced(block)),
    }
}

/// Returns where the memory reservation block is, its last entry included.
fn reservations(blob: &[u8], start: usize) -> Result<Range<usize>, DtbError> {
    let range = block(blob, Block::Reservations, start, None)?;
    let (entries, _) = blob.get(range).unwrap_or_default().as_chunks::<RESERVATION_BYTES>();
    let last = entries.iter().position(|entry| entry.iter().all(|byte| *byte == 0));
    let count = last.ok_or(DtbError::EndlessReservations)? + 1;
    Ok(start..start + count * RESERVATION_BYTES)
}

/// A piece of the structure block (Devicetree Specification v0.4, 5.4.1).
#[derive(Clone, Copy)]
enum Token<'a> {
    BeginNode { name: &'a [u8] },
    EndNode,
    Property { bytes: usize, name_offset: usize },
    Nop,
    End,
}

/// Reads the token at `offset`, and returns it with the offset of the next one, at most `block.len()`.
fn token(block: &[u8], offset: usize) -> Result<(Token<'_>, usize), DtbError> {
    let ends = DtbError::Ends { offset };
    let rest = block.get(offset..).ok_or(ends)?;
    let word = word_at(rest, 0).ok_or(ends)?;
    let (token, bytes) = match word {
        1 => {
            let text = rest.get(CELL_BYTES..).unwrap_or_default();
            let length = text.iter().position(|byte| *byte == 0).ok_or(ends)?;
            (Token::BeginNode { name: text.get(..length).unwrap_or_default() }, CELL_BYTES + length + 1)
        }
        2 => (Token::EndNode, CELL_BYTES),
        3 => {
            let bytes = to_usize(word_at(rest, 4).ok_or(ends)?);
            let name_offset = to_usize(word_at(rest, 8).ok_or(ends)?);
            (Token::Property { bytes, name_offset }, bytes.checked_add(3 * CELL_BYTES).ok_or(ends)?)
        }
        4 => (Token::Nop, CELL_BYTES),
        9 => (Token::End, CELL_BYTES),
        token => return Err(DtbError::Token { offset, token }),
    };
    let padded = bytes.checked_next_multiple_of(CELL_BYTES).filter(|bytes| *bytes <= rest.len());
    Ok((token, offset + padded.ok_or(ends)?))
}

/// What a sound structure block holds beside its nodes.
struct Checked {
    has_nops: bool,
    /// Where FDT_END ends, in bytes from the start of the block.
    end: usize,
}

/// Follows the structure block to FDT_END: one root, each node's properties before its children.
fn check_structure(block: &[u8], strings: &[u8]) -> Result<Checked, DtbError> {
    let (mut offset, mut depth) = (0, 0);
    let (mut has_nops, mut has_root, mut may_have_properties) = (false, false, false);
    loop {
        let (token, next) = token(block, offset)?;
        let misplaced = DtbError::Token { offset, token: word_at(block, offset).unwrap_or(0) };
        match token {
            Token::BeginNode { name } => {
                check_node_name(name, depth).ok_or(DtbError::NodeName { offset })?;
                if depth == 0 && has_root {
                    return Err(misplaced);
                }
                if depth == MAX_DEPTH {
                    return Err(DtbError::Depth { offset });
                }
                (has_root, may_have_properties) = (true, true);
                depth += 1;
            }
            Token::EndNode => {
                depth = depth.checked_sub(1).ok_or(misplaced)?;
                may_have_properties = false;
            }
            Token::Property { .. } if !may_have_properties => return Err(misplaced),
            Token::Property { bytes, name_offset } => {
                let name = property_name(strings, name_offset).ok_or(DtbError::PropertyName { offset })?;
                if matches!(name, b"#address-cells" | b"#size-cells") && bytes != CELL_BYTES {
                    return Err(DtbError::CellCount { offset });
                }
            }
            Token::Nop => has_nops = true,
            Token::End if depth == 0 && has_root => return Ok(Checked { has_nops, end: next }),
            Token::End => return Err(misplaced),
        }
        offset = next;
    }
}

/// Tells by `Some` that the name of a node at this depth is one: the root has none, the others do.
fn check_node_name(name: &[u8], depth: usize) -> Option<()> {
    (name.is_empty() == (depth == 0) && name.iter().all(is_name_byte)).then_some(())
}

/// Finds the name of a property, which is one only if it ends where names have to end.
fn property_name(strings: &[u8], offset: usize) -> Option<&[u8]> {
    let text = strings.get(offset..)?;
    let length = text.iter().take(MAX_PROPERTY_NAME_BYTES + 1).position(|byte| *byte == 0)?;
    text.get(..length).filter(|name| !name.is_empty() && name.iter().all(is_name_byte))
}

/// Tells whether a name may have this byte. The specification allows fewer; these are safe to print, and
/// without the slash a name is no path.
fn is_name_byte(byte: &u8) -> bool {
    byte.is_ascii_graphic() && *byte != b'/'
}

/// Moves the tokens of a checked block together where FDT_NOPs are between; returns where they end now.
fn squeeze(block: &mut [u8]) -> Result<usize, DtbError> {
    let (mut from, mut to) = (0, 0);
    loop {
        let (token, next) = token(block, from)?;
        let (is_nop, is_end) = (matches!(token, Token::Nop), matches!(token, Token::End));
        if !is_nop {
            if to != from {
                block.copy_within(from..next, to);
            }
            to += next - from;
        }
        from = next;
        if is_end {
            return Ok(to);
        }
    }
}

/// Reads the big-endian word at `offset`, in bytes.
fn word_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|word| u32::from_be_bytes(*word))
}

fn set_word(bytes: &mut [u8], offset: usize, value: u32) {
    if let Some(word) = bytes.get_mut(offset..).and_then(|rest| rest.first_chunk_mut()) {
        *word = value.to_be_bytes();
    }
}

/// Widens; a value beyond the address space is as far outside of any blob as the largest one.
fn to_usize(word: u32) -> usize {
    usize::try_from(word).unwrap_or(usize::MAX)
}

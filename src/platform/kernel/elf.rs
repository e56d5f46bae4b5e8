//! Reads the loadable segments of an ELF kernel.
//!
//! Not here: sections, symbols, relocations. A position-independent kernel relocates itself.
//! Follows the System V ABI (ELF-64) and Arm's AAELF64; the structures are read by the `elf` crate.

use super::{KernelFault, Placed, Segment};
use crate::addr::{Ipa, Region, sorted};
use alloc::vec::Vec;
use core::fmt;
use elf::abi::{EM_AARCH64, ET_DYN, ET_EXEC, PT_LOAD};
use elf::endian::{AnyEndian, EndianParse};
use elf::file::{Class, FileHeader, parse_ident};
use elf::segment::{ProgramHeader, SegmentTable};

/// Most segments that a kernel may have.
const MAX_SEGMENTS: usize = 64;

/// Length of `e_ident`, and of a program header of a 64-bit file, in bytes.
const IDENT_BYTES: usize = 16;
const PROGRAM_HEADER_BYTES: u16 = 56;

/// What is wrong with an ELF file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ElfFault {
    /// A header cannot be read.
    Malformed,
    /// `EI_CLASS` says 32 bit.
    Is32Bit,
    /// `EI_DATA` says big-endian.
    IsBigEndian,
    /// `e_machine` is not AArch64.
    Machine(u16),
    /// `e_type` is no program.
    Type(u16),
    /// The program headers are not in the first bytes of a compressed file; their offset.
    HeadersTooFar(u64),
    /// Nothing is to be loaded.
    NoSegments,
    /// More segments are to be loaded than the loader takes.
    TooManySegments,
    /// A segment's bytes are not in the file; its offset and length there.
    BeyondFile(u64, u64),
    /// A segment has more bytes in the file than in memory; both lengths.
    Sizes(u64, u64),
    /// Two segments share memory; their addresses.
    Overlap(Ipa, Ipa),
}

impl fmt::Display for ElfFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ELF: ")?;
        match self {
            Self::Malformed => f.write_str("its headers cannot be read: link the kernel again"),
            Self::Is32Bit => f.write_str("32-bit: link the kernel for 64-bit AArch64"),
            Self::IsBigEndian => f.write_str("big-endian: link the kernel for little-endian AArch64"),
            Self::Machine(machine) => {
                write!(f, "e_machine is {machine}: link the kernel for AArch64, {EM_AARCH64}")
            }
            Self::Type(kind) => write!(f, "e_type is {kind}: give a linked program, {ET_EXEC} or {ET_DYN}"),
            Self::HeadersTooFar(offset) => {
                write!(f, "program headers at {offset:#x} of a compressed file: give the file uncompressed")
            }
            Self::NoSegments => f.write_str("no PT_LOAD segment: link the kernel again"),
            Self::TooManySegments => {
                write!(f, "more than {MAX_SEGMENTS} PT_LOAD segments: link the kernel with fewer")
            }
            Self::BeyondFile(offset, bytes) => {
                write!(
                    f,
                    "segment of {bytes:#x} bytes at offset {offset:#x} is not in the file: copy it again"
                )
            }
            Self::Sizes(file, memory) => {
                write!(
                    f,
                    "segment has {file:#x} bytes in the file and {memory:#x} in memory: link the kernel again"
                )
            }
            Self::Overlap(one, other) => {
                write!(f, "segments at {one} and {other} overlap: link the kernel with p_paddr apart")
            }
        }
    }
}

/// Places the segments of a file of `file_bytes` that starts with `head`.
///
/// `load` moves a position-independent file (`ET_DYN`): its lowest segment goes there.
pub(super) fn place(head: &[u8], file_bytes: u64, load: Option<Ipa>) -> Result<Placed, KernelFault> {
    let header = header(head)?;
    let headers = loadable(&header, head, file_bytes)?;
    let lowest = headers.iter().map(|segment| segment.p_paddr).min().ok_or(ElfFault::NoSegments)?;
    let target = match load {
        Some(says) if header.e_type == ET_EXEC && says.get() != lowest => {
            return Err(KernelFault::Misplaced { property: "load", says, wanted: Ipa::new(lowest) });
        }
        Some(says) => says.get(),
        None => lowest,
    };
    let physical = |address: u64| address.checked_sub(lowest)?.checked_add(target).map(Ipa::new);
    let place = |segment: &ProgramHeader| {
        let outside = KernelFault::OutsideRam { start: Ipa::new(segment.p_paddr), bytes: segment.p_memsz };
        let memory = physical(segment.p_paddr).and_then(|start| Region::<Ipa>::new(start, segment.p_memsz));
        let memory = memory.ok_or(outside)?;
        Ok(Segment { memory, file_offset: segment.p_offset, file_bytes: segment.p_filesz })
    };
    let segments = headers.iter().map(place).collect::<Result<Vec<_>, KernelFault>>()?;
    let segments = sorted(&segments, |segment| segment.memory.start.get());
    refuse_overlaps(&segments)?;
    let entry =
        entry(&header, &headers, physical).ok_or(KernelFault::EntryOutside(Ipa::new(header.e_entry)))?;
    Ok(Placed { segments, entry })
}

/// Reads the file header and checks that it is a program for this machine.
fn header(head: &[u8]) -> Result<FileHeader<AnyEndian>, ElfFault> {
    let (ident, tail) = head.split_at_checked(IDENT_BYTES).ok_or(ElfFault::Malformed)?;
    let ident = parse_ident::<AnyEndian>(ident).map_err(|_| ElfFault::Malformed)?;
    if ident.1 == Class::ELF32 {
        return Err(ElfFault::Is32Bit);
    }
    if !ident.0.is_little() {
        return Err(ElfFault::IsBigEndian);
    }
    let header = FileHeader::parse_tail(ident, tail).map_err(|_| ElfFault::Malformed)?;
    match header {
        FileHeader { e_machine, .. } if e_machine != EM_AARCH64 => Err(ElfFault::Machine(e_machine)),
        FileHeader { e_type, .. } if e_type != ET_EXEC && e_type != ET_DYN => Err(ElfFault::Type(e_type)),
        FileHeader { e_phnum: 0, .. } => Err(ElfFault::NoSegments),
        FileHeader { e_phentsize, .. } if e_phentsize != PROGRAM_HEADER_BYTES => Err(ElfFault::Malformed),
        header => Ok(header),
    }
}

/// Lists the segments that occupy memory, each checked against the file's length.
fn loadable(
    header: &FileHeader<AnyEndian>,
    head: &[u8],
    file_bytes: u64,
) -> Result<Vec<ProgramHeader>, ElfFault> {
    let table = || {
        let start = usize::try_from(header.e_phoff).ok()?;
        let bytes = usize::from(header.e_phnum).checked_mul(usize::from(PROGRAM_HEADER_BYTES))?;
        head.get(start..start.checked_add(bytes)?)
    };
    let is_partial = u64::try_from(head.len()).is_ok_and(|length| length < file_bytes);
    let missing = if is_partial { ElfFault::HeadersTooFar(header.e_phoff) } else { ElfFault::Malformed };
    let table = SegmentTable::new(header.endianness, header.class, table().ok_or(missing)?);
    let is_loaded = |segment: &ProgramHeader| segment.p_type == PT_LOAD && segment.p_memsz != 0;
    let segments: Vec<_> = table.iter().filter(is_loaded).take(MAX_SEGMENTS.saturating_add(1)).collect();
    if segments.len() > MAX_SEGMENTS {
        return Err(ElfFault::TooManySegments);
    }
    for segment in &segments {
        if segment.p_filesz > segment.p_memsz {
            return Err(ElfFault::Sizes(segment.p_filesz, segment.p_memsz));
        }
        if segment.p_offset.checked_add(segment.p_filesz).is_none_or(|end| end > file_bytes) {
            return Err(ElfFault::BeyondFile(segment.p_offset, segment.p_filesz));
        }
    }
    Ok(segments)
}

/// Checks neighbours of a list sorted by address.
fn refuse_overlaps(segments: &[Segment]) -> Result<(), ElfFault> {
    match segments.array_windows().find(|[one, other]| one.memory.overlaps(&other.memory)) {
        Some([one, other]) => Err(ElfFault::Overlap(one.memory.start, other.memory.start)),
        None => Ok(()),
    }
}

/// Finds where the program starts once it is in memory.
///
/// `e_entry` is a virtual address: it is looked up in the segments by `p_vaddr`, as QEMU does.
fn entry(
    header: &FileHeader<AnyEndian>,
    segments: &[ProgramHeader],
    physical: impl Fn(u64) -> Option<Ipa>,
) -> Option<Ipa> {
    segments.iter().find_map(|segment| {
        let offset =
            header.e_entry.checked_sub(segment.p_vaddr).filter(|offset| *offset < segment.p_filesz)?;
        physical(segment.p_paddr.checked_add(offset)?)
    })
}

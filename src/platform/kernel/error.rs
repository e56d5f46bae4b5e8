//! Why a kernel cannot be placed, in words.

use super::elf::ElfFault;
use super::format::Foreign;
use super::gzip::GzipFault;
use crate::addr::{Ipa, Region};
use alloc::string::String;
use core::fmt;

/// A fault of a kernel, a RAM disk or the room for them, and the place it comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelError {
    /// Path of the image in the bundle, or of the VM's node that is too small.
    pub node: String,
    /// What is wrong there.
    pub fault: KernelFault,
}

/// What is wrong with a kernel or the room for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KernelFault {
    /// The image has no bytes.
    Empty,
    /// The image is of a kind that does not run here.
    Foreign(Foreign),
    /// The image cannot be decompressed.
    Gzip(GzipFault),
    /// The ELF file cannot be loaded.
    Elf(ElfFault),
    /// An arm64 `Image` for a big-endian kernel.
    BigEndianImage,
    /// `load` or `entry` contradicts the image itself.
    Misplaced {
        /// The property.
        property: &'static str,
        /// What it says.
        says: Ipa,
        /// What the image needs.
        wanted: Ipa,
    },
    /// `load` or `entry` is not a multiple of an instruction, 4 bytes.
    Unaligned {
        /// The property.
        property: &'static str,
        /// What it says.
        says: Ipa,
    },
    /// The place to start is not in what was loaded.
    EntryOutside(Ipa),
    /// The VM has no RAM.
    NoRam,
    /// A part of the kernel has an address that is not in one region of the VM's RAM.
    OutsideRam {
        /// First address.
        start: Ipa,
        /// Length in bytes.
        bytes: u64,
    },
    /// Something does not fit into the RAM that it has to be in.
    NoRoom {
        /// What it is.
        what: &'static str,
        /// Its length in bytes.
        bytes: u64,
        /// The RAM.
        ram: Region<Ipa>,
    },
    /// The device tree is longer than arm64 kernels accept, in bytes.
    TreeTooLong(u64),
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.node, self.fault)
    }
}

impl fmt::Display for KernelFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => {
                f.write_str("data: empty: give an arm64 Image, a gzipped one, an ELF or a raw binary")
            }
            Self::Foreign(foreign) => write!(f, "data: {foreign}"),
            Self::Gzip(fault) => write!(f, "data: {fault}"),
            Self::Elf(fault) => write!(f, "data: {fault}"),
            Self::BigEndianImage => {
                f.write_str("data: a big-endian arm64 Image: build the kernel with CONFIG_CPU_LITTLE_ENDIAN")
            }
            Self::Misplaced { property, says, wanted } => {
                write!(f, "{property}: {says} contradicts the image: give {wanted} or leave the property out")
            }
            Self::Unaligned { property, says } => {
                write!(f, "{property}: {says} is not a multiple of 4: give the address of an instruction")
            }
            Self::EntryOutside(entry) => {
                write!(
                    f,
                    "entry: {entry} is in no part of the kernel: give the address of its first instruction"
                )
            }
            Self::NoRam => f.write_str("missing: give the VM RAM"),
            Self::OutsideRam { start, bytes } => write!(
                f,
                "data: {bytes:#x} bytes at {start} are not in the VM's RAM: \
                 link or load the kernel for an address in /memory"
            ),
            Self::NoRoom { what, bytes, ram } => {
                write!(
                    f,
                    "{bytes:#x} bytes of {what} do not fit into the RAM at {ram}: give the VM more in /memory"
                )
            }
            Self::TreeTooLong(bytes) => {
                write!(f, "{bytes:#x} bytes of device tree: arm64 kernels accept 2 MiB: make it smaller")
            }
        }
    }
}

impl From<GzipFault> for KernelFault {
    fn from(fault: GzipFault) -> Self {
        Self::Gzip(fault)
    }
}

impl From<ElfFault> for KernelFault {
    fn from(fault: ElfFault) -> Self {
        Self::Elf(fault)
    }
}

impl From<Foreign> for KernelFault {
    fn from(foreign: Foreign) -> Self {
        Self::Foreign(foreign)
    }
}

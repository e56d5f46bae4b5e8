//! Recognises what kind of kernel an image is by its first bytes.
//!
//! Not here: where it goes.
//! Follows Linux Documentation/arch/arm64/booting.rst, section 4 (the 64-byte `Image` header); the kinds that
//! do not run here are known so that the error can say what was given.

use core::fmt;

/// What an image is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    /// An arm64 `Image`.
    Image(ImageHeader),
    /// An ELF file, not yet looked into.
    Elf,
    /// None of the known kinds: instructions from the first byte on.
    Raw,
}

/// The fields of the arm64 `Image` header that decide where it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ImageHeader {
    /// Distance of the image from a 2 MiB boundary, in bytes.
    pub(super) text_offset: u64,
    /// Memory that the kernel needs from its start on, in bytes; 0 if the header does not say.
    pub(super) image_size: u64,
    /// Whether the kernel is big-endian (`flags`, bit 0).
    pub(super) is_big_endian: bool,
}

/// Where kernels without `image_size` (before Linux 3.17) and raw binaries go: this far above the base of RAM.
pub(super) const DEFAULT_TEXT_OFFSET: u64 = 0x8_0000;

const IMAGE_MAGIC: (usize, &[u8]) = (56, b"ARM\x64");

impl ImageHeader {
    fn read(head: &[u8]) -> Option<Self> {
        if !has(head, IMAGE_MAGIC) {
            return None;
        }
        let field = |at: usize| Some(u64::from_le_bytes(*head.get(at..)?.first_chunk()?));
        let (text_offset, image_size, flags) = (field(8)?, field(16)?, field(24)?);
        let text_offset = if image_size == 0 { DEFAULT_TEXT_OFFSET } else { text_offset };
        Some(Self { text_offset, image_size, is_big_endian: flags & 1 != 0 })
    }
}

/// A kind of file that is known and does not run here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Foreign {
    /// Linux for x86.
    X86,
    /// Linux for 32-bit Arm, compressed.
    Arm32,
    /// Linux for RISC-V.
    RiscV,
    /// An EFI program that is no arm64 kernel.
    Efi,
    /// A compressed EFI kernel of arm64 that is not packed with gzip.
    EfiZboot,
    /// An image of U-Boot's first format.
    LegacyUimage,
    /// A device tree or another bundle.
    DeviceTree,
    /// Compressed by something else than gzip.
    Compressed(&'static str),
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arm64 = "give one built for arm64";
        match self {
            Self::X86 => write!(f, "an x86 kernel (bzImage): {arm64}"),
            Self::Arm32 => write!(f, "a 32-bit Arm kernel (zImage): {arm64}"),
            Self::RiscV => write!(f, "a RISC-V kernel: {arm64}"),
            Self::Efi => write!(f, "an EFI program that is no arm64 kernel: {arm64}"),
            Self::EfiZboot => {
                f.write_str("a compressed EFI kernel not packed with gzip: give its arch/arm64/boot/Image")
            }
            Self::LegacyUimage => f.write_str("a legacy uImage: give the kernel that was put into it"),
            Self::DeviceTree => f.write_str("a device tree or a FIT image: give a kernel"),
            Self::Compressed(how) => write!(f, "compressed with {how}: compress it with gzip or not at all"),
        }
    }
}

/// Offset and bytes that give a foreign file away; the first row that fits is taken.
const FOREIGN: [((usize, &[u8]), Foreign); 14] = [
    ((0x202, b"HdrS"), Foreign::X86),
    ((0x24, &[0x18, 0x28, 0x6f, 0x01]), Foreign::Arm32),
    ((0x38, b"RSC\x05"), Foreign::RiscV),
    ((0, b"MZ"), Foreign::Efi),
    ((0, &[0x27, 0x05, 0x19, 0x56]), Foreign::LegacyUimage),
    ((0, &[0xd0, 0x0d, 0xfe, 0xed]), Foreign::DeviceTree),
    ((0, &super::gzip::MAGIC), Foreign::Compressed("gzip twice")),
    ((0, &[0x28, 0xb5, 0x2f, 0xfd]), Foreign::Compressed("zstd")),
    ((0, b"\xfd7zXZ\0"), Foreign::Compressed("xz")),
    ((0, &[0x02, 0x21, 0x4c, 0x18]), Foreign::Compressed("lz4")),
    ((0, &[0x04, 0x22, 0x4d, 0x18]), Foreign::Compressed("lz4")),
    ((0, b"\x89LZO\0"), Foreign::Compressed("lzo")),
    ((0, b"BZh9"), Foreign::Compressed("bzip2")),
    ((0, b"\x5d\0\0\0\x01"), Foreign::Compressed("lzma")),
];

/// Tells what the image is whose first bytes are `head`; 1 KiB of it is enough.
pub(super) fn recognise(head: &[u8]) -> Result<Format, Foreign> {
    if head.starts_with(b"\x7fELF") {
        return Ok(Format::Elf);
    }
    if let Some(header) = ImageHeader::read(head) {
        return Ok(Format::Image(header));
    }
    match FOREIGN.iter().find(|(magic, _)| has(head, *magic)) {
        Some((_, foreign)) => Err(*foreign),
        None => Ok(Format::Raw),
    }
}

/// Returns the gzip file inside a compressed EFI kernel; `None` if the file is none.
///
/// Linux drivers/firmware/efi/libstub/zboot-header.S: offset and size of the payload at 8 and 12, the
/// name of its compression at 24.
pub(super) fn efi_zboot_payload(file: &[u8]) -> Option<Result<&[u8], Foreign>> {
    if !has(file, (0, b"MZ")) || !has(file, (4, b"zimg")) {
        return None;
    }
    let field = |at: usize| usize::try_from(u32::from_le_bytes(*file.get(at..)?.first_chunk()?)).ok();
    let payload = || file.get(field(8)?..)?.get(..field(12)?);
    let gzip = has(file, (24, b"gzip\0"));
    Some(payload().filter(|_| gzip).ok_or(Foreign::EfiZboot))
}

fn has(head: &[u8], (at, magic): (usize, &[u8])) -> bool {
    head.get(at..).is_some_and(|rest| rest.starts_with(magic))
}

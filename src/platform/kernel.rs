//! Recognises a kernel and plans where it, its RAM disk and its device tree go in a VM's RAM.
//!
//! Not here: guest memory itself; a plan is pure data, and loading goes through [`GuestRam`].
//! Follows Linux Documentation/arch/arm64/booting.rst; where that leaves a choice, the layout is that of
//! QEMU's `virt` board, so that what was built for it finds the same addresses.

mod elf;
mod error;
mod format;
mod gzip;
mod load;
#[cfg(test)]
mod tests;

use crate::addr::{Ipa, PAGE_BYTES, Region};
use crate::fit::{Compression, ImageRef};
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use format::{DEFAULT_TEXT_OFFSET, Format, ImageHeader};
use gzip::Gzip;

pub use elf::ElfFault;
pub use error::{KernelError, KernelFault};
pub use format::Foreign;
pub use gzip::GzipFault;
pub use load::{GuestRam, OutsideRam};

/// What an arm64 `Image` is aligned to, and the most that its device tree may have, in bytes.
const TWO_MIB: u64 = 2 << 20;

/// How far above the base of RAM the RAM disk starts at most, in bytes.
const INITRD_OFFSET_MAX: u64 = 128 << 20;

/// A part of the kernel in guest memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Where it is; what the file does not fill is zero.
    pub memory: Region<Ipa>,
    /// Where its bytes are in the uncompressed file.
    pub file_offset: u64,
    /// How many there are.
    pub file_bytes: u64,
}

/// A kernel that found its place.
struct Placed {
    segments: Vec<Segment>,
    entry: Ipa,
}

/// Where the kernel's bytes come from.
#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    Plain(&'a [u8]),
    Gzip(Gzip<'a>),
}

/// Where everything goes that a VM starts with. All of it is in the VM's RAM, and nothing overlaps.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// The kernel, in order of address.
    pub segments: Vec<Segment>,
    /// First instruction.
    pub entry: Ipa,
    /// The RAM disk.
    pub initrd: Option<Region<Ipa>>,
    /// Room for the device tree; its start goes to x0.
    pub dtb: Region<Ipa>,
    kernel_path: String,
    source: Source<'a>,
    ramdisk: &'a [u8],
}

/// Plans a VM: `dtb_bytes` is the length of its final device tree, `ram` its memory.
///
/// Without a `load` of its own, everything goes into the lowest region of RAM:
///
/// ```text
/// base + text_offset     the kernel: Image (text_offset from its header), raw binary (0x80000)
/// p_paddr                the kernel: ELF, and then the device tree at the base if that is free
/// base + min(half, 128 MiB), or after the kernel     the RAM disk
/// the next 2 MiB boundary                            the device tree
/// ```
///
/// # Errors
/// If the kernel is none of the formats, if its addresses are not in RAM, or if there is not enough of it.
#[inline(never)]
pub fn plan<'a>(
    kernel: &ImageRef<'a>,
    ramdisk: Option<&ImageRef<'a>>,
    dtb_bytes: u64,
    ram: &[Region<Ipa>],
) -> Result<Plan<'a>, KernelError> {
    let at = |node: &str| {
        let node = node.to_owned();
        move |fault| KernelError { node, fault }
    };
    let main =
        *ram.iter().min_by_key(|region| region.start).ok_or_else(|| at("/memory")(KernelFault::NoRam))?;
    let (source, format, placed) = place_kernel(kernel, main).map_err(at(&kernel.path))?;
    check_inside(&placed, ram).map_err(at(&kernel.path))?;
    let end = kernel_end(&placed.segments, main);
    let ramdisk_bytes = ramdisk.map_or(&[][..], |image| image.bytes);
    let initrd_node = ramdisk.map_or("/memory", |image| image.path.as_str());
    let (initrd, free) = place_initrd(length(ramdisk_bytes), end, main).map_err(at(initrd_node))?;
    let base_is_free = |room: &Region<Ipa>| !placed.segments.iter().any(|part| part.memory.overlaps(room));
    let low = (format == Format::Elf).then_some(main.start);
    let dtb = place_tree(dtb_bytes, low, free, main, base_is_free).map_err(at("/memory"))?;
    Ok(Plan {
        segments: placed.segments,
        entry: placed.entry,
        initrd,
        dtb,
        kernel_path: kernel.path.clone(),
        source,
        ramdisk: ramdisk_bytes,
    })
}

/// Unwraps, recognises and places the kernel.
fn place_kernel<'a>(
    kernel: &ImageRef<'a>,
    main: Region<Ipa>,
) -> Result<(Source<'a>, Format, Placed), KernelFault> {
    let file = kernel.bytes;
    if file.is_empty() {
        return Err(KernelFault::Empty);
    }
    let packed = match format::efi_zboot_payload(file) {
        Some(payload) => Some(payload?),
        None => (kernel.compression == Compression::Gzip || file.starts_with(&gzip::MAGIC)).then_some(file),
    };
    let inflated;
    let (source, head, file_bytes) = match packed {
        None => (Source::Plain(file), file, length(file)),
        Some(packed) => {
            let gzip = Gzip::open(packed)?;
            inflated = gzip.head()?;
            (Source::Gzip(gzip), &inflated[..], gzip.size_bytes())
        }
    };
    if file_bytes == 0 {
        return Err(KernelFault::Empty);
    }
    let format = format::recognise(head)?;
    let mut placed = match format {
        Format::Image(header) => place_image(header, file_bytes, kernel.load, main)?,
        Format::Elf => elf::place(head, file_bytes, kernel.load)?,
        Format::Raw => place_raw(file_bytes, kernel.load, main)?,
    };
    match (kernel.entry, format) {
        (None, _) => {}
        (Some(says), Format::Image(_)) if says != placed.entry => {
            return Err(KernelFault::Misplaced { property: "entry", says, wanted: placed.entry });
        }
        (Some(says), _) => placed.entry = says,
    }
    Ok((source, format, placed))
}

/// Places an arm64 `Image`: `text_offset` above a 2 MiB boundary.
fn place_image(
    header: ImageHeader,
    file_bytes: u64,
    load: Option<Ipa>,
    main: Region<Ipa>,
) -> Result<Placed, KernelFault> {
    if header.is_big_endian {
        return Err(KernelFault::BigEndianImage);
    }
    let bytes = header.image_size.max(file_bytes);
    let no_room = KernelFault::NoRoom { what: "kernel", bytes, ram: main };
    let default = align_up(main.start, TWO_MIB).and_then(|base| base.checked_add(header.text_offset));
    let start = match (load, default) {
        (Some(load), _) if is_image_base(load, header.text_offset) => load,
        (Some(says), Some(wanted)) => return Err(KernelFault::Misplaced { property: "load", says, wanted }),
        (None, Some(start)) => start,
        (_, None) => return Err(no_room),
    };
    one_segment(start, file_bytes, bytes, load.is_none().then_some(main)).ok_or(no_room)
}

fn is_image_base(load: Ipa, text_offset: u64) -> bool {
    load.get().checked_sub(text_offset).is_some_and(|base| base.is_multiple_of(TWO_MIB))
}

/// Places a raw binary where it asks to be, or where QEMU puts it.
fn place_raw(file_bytes: u64, load: Option<Ipa>, main: Region<Ipa>) -> Result<Placed, KernelFault> {
    let no_room = KernelFault::NoRoom { what: "kernel", bytes: file_bytes, ram: main };
    let start = match load {
        Some(says) if !says.is_aligned(4) => return Err(KernelFault::Unaligned { property: "load", says }),
        Some(says) => says,
        None => main.start.checked_add(DEFAULT_TEXT_OFFSET).ok_or(no_room.clone())?,
    };
    one_segment(start, file_bytes, file_bytes, load.is_none().then_some(main)).ok_or(no_room)
}

/// Makes the only segment of a kernel; `None` if it is not in `within`.
fn one_segment(start: Ipa, file_bytes: u64, bytes: u64, within: Option<Region<Ipa>>) -> Option<Placed> {
    let memory = Region::<Ipa>::new(start, bytes)?;
    if within.is_some_and(|within| !within.encloses(&memory)) {
        return None;
    }
    Some(Placed { segments: vec![Segment { memory, file_offset: 0, file_bytes }], entry: start })
}

/// Requires each segment to be in one region of RAM, and the entry in a segment.
fn check_inside(placed: &Placed, ram: &[Region<Ipa>]) -> Result<(), KernelFault> {
    let is_outside = |segment: &&Segment| !ram.iter().any(|region| region.encloses(&segment.memory));
    if let Some(Segment { memory, .. }) = placed.segments.iter().find(is_outside) {
        return Err(KernelFault::OutsideRam { start: memory.start, bytes: memory.size_bytes });
    }
    if !placed.entry.is_aligned(4) {
        return Err(KernelFault::Unaligned { property: "entry", says: placed.entry });
    }
    if !placed.segments.iter().any(|segment| segment.memory.contains(placed.entry)) {
        return Err(KernelFault::EntryOutside(placed.entry));
    }
    Ok(())
}

/// Returns the first byte of `main` above the kernel; `None` if the kernel reaches the end of the space.
fn kernel_end(segments: &[Segment], main: Region<Ipa>) -> Option<Ipa> {
    let last = segments.iter().map(|segment| segment.memory.last()).filter(|last| main.contains(*last)).max();
    last.map_or(Some(main.start), |last| last.checked_add(1))
}

/// Places the RAM disk, if there is one, and returns the first address that is free after it.
///
/// QEMU hw/arm/boot.c: at half of RAM but at most 128 MiB up, page aligned, and above the kernel.
fn place_initrd(
    bytes: u64,
    kernel_end: Option<Ipa>,
    main: Region<Ipa>,
) -> Result<(Option<Region<Ipa>>, Ipa), KernelFault> {
    let no_room = KernelFault::NoRoom { what: "initrd", bytes, ram: main };
    let usual = main.start.checked_add(INITRD_OFFSET_MAX.min(main.size_bytes / 2));
    let start = usual.zip(kernel_end).and_then(|(usual, end)| align_up(usual.max(end), PAGE_BYTES));
    let start = start.ok_or(no_room.clone())?;
    if bytes == 0 {
        return Ok((None, start));
    }
    let initrd =
        Region::<Ipa>::new(start, bytes).filter(|initrd| main.encloses(initrd)).ok_or(no_room.clone())?;
    Ok((Some(initrd), initrd.last().checked_add(1).ok_or(no_room)?))
}

/// Places the device tree: at `low` if that is free, else at the first boundary of 2 MiB from `free` on.
///
/// Where RAM ends before that boundary, a page boundary does: arm64 kernels ask for no more than 8 bytes.
fn place_tree(
    bytes: u64,
    low: Option<Ipa>,
    free: Ipa,
    main: Region<Ipa>,
    is_free: impl Fn(&Region<Ipa>) -> bool,
) -> Result<Region<Ipa>, KernelFault> {
    if bytes > TWO_MIB {
        return Err(KernelFault::TreeTooLong(bytes));
    }
    let fits = |start: Ipa| Region::<Ipa>::new(start, bytes).filter(|room| main.encloses(room));
    low.and_then(fits)
        .filter(is_free)
        .or_else(|| align_up(free, TWO_MIB).and_then(fits))
        .or_else(|| align_up(free, PAGE_BYTES).and_then(fits))
        .ok_or(KernelFault::NoRoom { what: "device tree", bytes, ram: main })
}

/// Rounds up to a multiple of `bytes`, a power of two; `None` if that leaves the space.
fn align_up(address: Ipa, bytes: u64) -> Option<Ipa> {
    address.get().checked_next_multiple_of(bytes).map(Ipa::new)
}

/// Widens a length; it always fits.
fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

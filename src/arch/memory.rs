//! RAM by physical address: EL2 maps it where it is. Zeroing, copying, cache maintenance, table descriptors.
//!
//! Not here: who owns which page (the allocator's).
//! Follows Arm ARM DDI 0487K.a, D7.5 (cache maintenance) and D8.16 (TLB maintenance).

use core::arch::asm;

use aarch64_cpu::asm::barrier;
use trapeze::addr::{PAGE_BYTES, Pa, Region};

use super::sysreg::read_sysreg;

/// Makes every write before visible to the other CPUs and to table walkers before any access after.
pub fn publish() {
    barrier::dsb(barrier::ISHST);
}

/// Borrows RAM as bytes.
///
/// # Safety
/// `region` is RAM that EL2 maps as Normal memory, and nobody else (CPU, guest, device, Rust reference) uses it
/// for as long as the slice lives.
pub unsafe fn bytes<'a>(region: Region<Pa>) -> &'a mut [u8] {
    let start = core::ptr::with_exposed_provenance_mut::<u8>(region.start.get() as usize);
    // SAFETY: the caller owns the region; it does not wrap (`Region`) and is not at address 0, where no board of ours
    // has memory that is handed out.
    unsafe { core::slice::from_raw_parts_mut(start, region.size_bytes as usize) }
}

/// Clears RAM down to the point of coherency: what reads it with its caches off finds zeroes, too.
///
/// # Safety
/// `region` is page-aligned RAM that belongs to the caller alone.
pub unsafe fn zero(region: Region<Pa>) {
    let line = data_line_bytes();
    let dczid = read_sysreg!("dczid_el0");
    let block = 4_u64 << (dczid & 0xf); // DCZID_EL0.BS: log2 of words
    let start = region.start.get();
    let end = start + region.size_bytes;
    if dczid & (1 << 4) == 0 && block == line && 8 * line <= PAGE_BYTES {
        // SAFETY: DC ZVA clears whole naturally aligned blocks; the region is a whole number of pages, which
        // are eight blocks or more, and the caller owns it. DC CIVAC loses nothing.
        unsafe {
            asm!(
                "2:",
                ".rept 8",
                "dc zva, {at}", "dc civac, {at}", "add {at}, {at}, {block}",
                ".endr",
                "cmp {at}, {end}", "b.lo 2b", "dsb sy",
                at = inout(reg) start => _, block = in(reg) block, end = in(reg) end, options(nostack),
            );
        }
    } else {
        // SAFETY: the caller owns the region.
        unsafe { bytes(region) }.fill(0);
        clean_invalidate(region);
    }
}

/// Copies bytes to RAM, 64 at a time: kernels are long.
///
/// # Safety
/// `to` is RAM that EL2 maps and that belongs to the caller alone.
///
/// # Panics
/// If the lengths differ.
pub unsafe fn copy(from: &[u8], to: Region<Pa>) {
    assert!(from.len() as u64 == to.size_bytes, "{} bytes for {to}", from.len());
    // Normal memory with the MMU on takes unaligned pairs (Arm ARM DDI 0487K.a, B2.8.2).
    let long = from.len() & !63;
    if long != 0 {
        // SAFETY: reads the first `long` bytes of the slice and writes as many of the region, which is as long and the
        // caller's own; `long` is a multiple of what each round moves, and not 0.
        unsafe {
            asm!(
                "2:",
                "ldp {a}, {b}, [{from}]", "ldp {c}, {d}, [{from}, #16]",
                "stp {a}, {b}, [{to}]", "stp {c}, {d}, [{to}, #16]",
                "ldp {a}, {b}, [{from}, #32]", "ldp {c}, {d}, [{from}, #48]",
                "stp {a}, {b}, [{to}, #32]", "stp {c}, {d}, [{to}, #48]",
                "add {from}, {from}, #64", "add {to}, {to}, #64",
                "subs {left}, {left}, #64", "b.ne 2b",
                from = inout(reg) from.as_ptr() => _, to = inout(reg) to.start.get() => _, left = inout(reg) long => _,
                a = out(reg) _, b = out(reg) _, c = out(reg) _, d = out(reg) _, options(nostack),
            );
        }
    }
    // SAFETY: the caller's promise.
    let to = unsafe { bytes(to) };
    to[long..].copy_from_slice(&from[long..]);
}

/// Returns the length of the shortest data cache line (CTR_EL0.DminLine).
fn data_line_bytes() -> u64 {
    4 << ((read_sysreg!("ctr_el0") >> 16) & 0xf)
}

/// Writes back and drops every cache line of `region` down to the point of coherency.
#[inline(never)]
pub fn clean_invalidate(region: Region<Pa>) {
    each_line(region, |at| {
        // SAFETY: clean and invalidate loses no data: it is a write-back. The addresses are mapped RAM.
        unsafe { asm!("dc civac, {at}", at = in(reg) at, options(nostack)) }
    });
}

/// Calls `action` for every data cache line of `region`, between barriers.
fn each_line(region: Region<Pa>, action: impl Fn(u64)) {
    let line = data_line_bytes();
    barrier::dsb(barrier::SY);
    let mut at = region.start.align_down(line).get();
    while at <= region.last().get() {
        action(at);
        at += line;
    }
    barrier::dsb(barrier::SY);
}

/// Drops every cache line of `region` down to the point of coherency, without writing it back.
///
/// Only while the caches of this CPU are off: what the memory holds is what counts then.
pub fn invalidate(region: Region<Pa>) {
    each_line(region, |at| {
        // SAFETY: with the caches off no line can be newer than memory; the addresses are the caller's RAM.
        unsafe { asm!("dc ivac, {at}", at = in(reg) at, options(nostack)) }
    });
}

/// Makes the instruction caches of all CPUs forget everything: guest RAM got new contents.
pub fn invalidate_instruction_caches() {
    // SAFETY: refetching instructions changes nothing but time.
    unsafe { asm!("dsb ish", "ic ialluis", "dsb ish", "isb", options(nostack)) }
}

/// Reads a translation table descriptor.
///
/// # Safety
/// `descriptor` is 8-byte aligned RAM of a table that belongs to the caller.
pub unsafe fn read_descriptor(descriptor: Pa) -> u64 {
    // SAFETY: the caller's promise; volatile, since the walker may set flags in it.
    unsafe { core::ptr::with_exposed_provenance::<u64>(descriptor.get() as usize).read_volatile() }
}

/// Writes a translation table descriptor in one access.
///
/// # Safety
/// As for [`read_descriptor`].
pub unsafe fn write_descriptor(descriptor: Pa, value: u64) {
    // SAFETY: the caller's promise; one aligned 64-bit store is single-copy atomic for the walker.
    unsafe { core::ptr::with_exposed_provenance_mut::<u64>(descriptor.get() as usize).write_volatile(value) }
}

/// Clears `pages` table pages.
///
/// # Safety
/// The pages are aligned RAM of the caller's.
pub unsafe fn zero_tables(table: Pa, pages: u32) {
    for descriptor in 0..u64::from(pages) * PAGE_BYTES / 8 {
        // SAFETY: inside the caller's pages.
        unsafe { write_descriptor(Pa::new(table.get() + 8 * descriptor), 0) };
    }
}

/// Computes CRC-32 with the CPU's own instructions; to be called only where ID_AA64ISAR0_EL1.CRC32 says so.
pub fn crc32(bytes: &[u8]) -> u32 {
    let (blocks, rest) = bytes.as_chunks::<64>();
    let mut crc = u32::MAX;
    if !blocks.is_empty() {
        // SAFETY: reads the blocks, of which there is one at least, and computes in registers; the CPU has the
        // instructions (the caller's part).
        unsafe {
            asm!(
                ".arch_extension crc",
                "2:",
                "ldp {a}, {b}, [{at}], #16", "crc32x {crc:w}, {crc:w}, {a}", "crc32x {crc:w}, {crc:w}, {b}",
                "ldp {a}, {b}, [{at}], #16", "crc32x {crc:w}, {crc:w}, {a}", "crc32x {crc:w}, {crc:w}, {b}",
                "ldp {a}, {b}, [{at}], #16", "crc32x {crc:w}, {crc:w}, {a}", "crc32x {crc:w}, {crc:w}, {b}",
                "ldp {a}, {b}, [{at}], #16", "crc32x {crc:w}, {crc:w}, {a}", "crc32x {crc:w}, {crc:w}, {b}",
                "subs {left}, {left}, #1", "b.ne 2b",
                crc = inout(reg) crc, at = inout(reg) blocks.as_ptr() => _, left = inout(reg) blocks.len() => _,
                a = out(reg) _, b = out(reg) _, options(readonly, nostack),
            );
        }
    }
    for byte in rest {
        // SAFETY: computes in registers only; the CPU has the instruction (the caller's part).
        unsafe {
            asm!(".arch_extension crc", "crc32b {crc:w}, {crc:w}, {byte:w}", crc = inout(reg) crc, byte = in(reg) *byte,
                 options(pure, nomem, nostack, preserves_flags));
        }
    }
    !crc
}

/// Tells whether the CPU has the instructions that [`crc32`] needs.
pub fn has_crc32() -> bool {
    read_sysreg!("id_aa64isar0_el1") >> 16 & 0xf != 0
}

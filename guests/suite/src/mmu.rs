//! Stage 1 translation with each granule that the CPU has: pages, faults, permissions, TLB maintenance, ASIDs, AT.
//!
//! Follows Arm ARM DDI 0487K.a, D8.

use crate::harness::{
    End, Outcome, Test, check, check_eq, device_tree, device_tree_address, fragment, skip_if, tests,
};
use core::arch::asm;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use trapeze_kit::exception::{Exception, catch};
use trapeze_kit::mmu::{self, Attributes, Granule, Map, USER};
use trapeze_kit::{el0, ins, mmio, mrs, msr, smp, timer};

pub const TESTS: &[Test] = tests![
    pages_of_4k,
    pages_of_16k,
    pages_of_64k,
    mmu_off_and_on,
    at_translates,
    at_reports_faults,
    el0_does_not_reach_el1_memory,
    pxn_and_wxn_forbid_execution,
    asids_keep_mappings_apart,
    ttbr1_maps_high_addresses,
    tlb_maintenance_reaches_other_cpus,
    other_cpus_run_with_the_same_map,
    walk_through_nothing_is_an_external_abort,
    walk_through_nothing_names_its_level,
    walk_through_nothing_with_16k_pages,
    walk_through_nothing_with_64k_pages,
    every_part_of_ram_is_its_own,
];

/// Where tests map pages: no block of the kit's map is near.
const AT: u64 = 0x10_0000_0000;
const NOT_GLOBAL: u64 = 1 << 11;

/// Memory to map, two pages of the largest size.
#[repr(C, align(65536))]
struct Pages([AtomicU64; 2 * 8192]);

static PAGES: Pages = Pages([const { AtomicU64::new(0) }; 2 * 8192]);

/// Returns the address of page `index` and its first word.
fn page(index: usize) -> (u64, &'static AtomicU64) {
    let word = &PAGES.0[index * 8192];
    (core::ptr::from_ref(word).addr() as u64, word)
}

/// Says which fault status the exception has.
fn status(result: &Result<u64, Exception>) -> Option<u64> {
    result.as_ref().err().map(|exception| exception.iss() & 0x3f)
}

fn write(address: u64, value: u64) -> Result<u64, Exception> {
    catch(|| {
        mmio::write64(address, value);
        value
    })
}

fn read(address: u64) -> Result<u64, Exception> {
    catch(|| mmio::read64(address))
}

/// Maps two pages crosswise and checks what reads, writes and faults say.
fn pages(granule: Granule) -> Outcome {
    if !granule.is_implemented() {
        return Err(End::Skipped("ID_AA64MMFR0_EL1: no such granule"));
    }
    mmu::disable();
    let map = mmu::enable(granule);
    let size = 1 << granule.shift();
    let ((first_at, first), (second_at, second)) = (page(0), page(1));
    first.store(0x1111, SeqCst);
    second.store(0x2222, SeqCst);
    map.add(AT, second_at, size, Attributes::KERNEL);
    map.add(AT + size, first_at, size, Attributes::READ_ONLY);
    check_eq!(read(AT), Ok(0x2222));
    check_eq!(read(AT + size), Ok(0x1111));
    check_eq!(write(AT, 0x3333), Ok(0x3333));
    check_eq!(second.load(SeqCst), 0x3333);
    let denied = write(AT + size, 1);
    check_eq!(status(&denied), Some(0x0f), "permission fault, level 3: {denied:x?}");
    check_eq!(first.load(SeqCst), 0x1111);
    let absent = read(AT + 2 * size);
    check_eq!(status(&absent), Some(0x07), "translation fault, level 3: {absent:x?}");
    replace(map, AT, second_at, size, Attributes(Attributes::KERNEL.0 & !(1 << 10)));
    let untouched = read(AT);
    check_eq!(status(&untouched), Some(0x0b), "access flag fault, level 3: {untouched:x?}");
    replace(map, AT, first_at, size, Attributes::KERNEL);
    check_eq!(read(AT), Ok(0x1111), "after break-before-make");
    Ok(())
}

/// Replaces a mapping of a page by break-before-make.
fn replace(map: Map, va: u64, pa: u64, size: u64, attributes: Attributes) {
    map.entry(va, 3).store(0, SeqCst);
    mmu::flush();
    map.add(va, pa, size, attributes);
}

fn pages_of_4k() -> Outcome {
    pages(Granule::K4)
}

fn pages_of_16k() -> Outcome {
    pages(Granule::K16)
}

fn pages_of_64k() -> Outcome {
    pages(Granule::K64)
}

fn mmu_off_and_on() -> Outcome {
    let (at, word) = page(0);
    word.store(0xaaaa, SeqCst);
    trapeze_kit::cache::clean_invalidate(at, 64);
    mmu::disable();
    check_eq!(mrs!("SCTLR_EL1") & 1, 0);
    check_eq!(mmio::read64(at), 0xaaaa);
    mmio::write64(at, 0xbbbb);
    mmu::enable(Granule::K4);
    check_eq!(mrs!("SCTLR_EL1") & 1, 1);
    check_eq!(word.load(SeqCst), 0xbbbb);
    Ok(())
}

/// Translates as AT `operation` does and returns PAR_EL1.
macro_rules! translate {
    ($operation:literal, $address:expr) => {{
        // SAFETY: changes PAR_EL1 only.
        unsafe { asm!(concat!("at ", $operation, ", {}"), "isb", in(reg) $address) };
        mrs!("PAR_EL1")
    }};
}

fn at_translates() -> Outcome {
    let (at, _) = page(0);
    let par = translate!("S1E1R", at + 8);
    check_eq!(par & 1, 0, "PAR_EL1 {par:#x}");
    check_eq!(par & 0xffff_ffff_f000, at);
    check_eq!(par >> 56, 0xff, "normal, write-back");
    check_eq!(translate!("S1E1W", at) & 1, 0);
    check_eq!(translate!("S1E0R", USER + at) & 0xffff_ffff_f001, at);
    check_eq!(translate!("S1E1R", 0x0900_0000_u64) >> 56, 0, "Device-nGnRnE");
    Ok(())
}

fn at_reports_faults() -> Outcome {
    let (at, _) = page(0);
    let par = translate!("S1E1R", AT);
    check_eq!(par & 1, 1, "PAR_EL1 {par:#x}");
    check!(matches!(par >> 1 & 0x3f, 4..=7), "translation fault: PAR_EL1 {par:#x}");
    check_eq!(par >> 9 & 1, 0, "stage 1");
    let par = translate!("S1E0W", at);
    check_eq!(par & 1, 1, "EL0 may not: PAR_EL1 {par:#x}");
    check!(matches!(par >> 1 & 0x3f, 0xc..=0xf), "permission fault: PAR_EL1 {par:#x}");
    Ok(())
}

fn el0_does_not_reach_el1_memory() -> Outcome {
    let (at, word) = page(0);
    word.store(0x77, SeqCst);
    let store = fragment!("str x0, [x0]", "svc #0") + USER;
    let (seen, _) = el0::call(store, at, 0);
    check_eq!(seen.class(), 0x24);
    check!(matches!(seen.iss() & 0x3f, 0xc..=0xf), "permission fault: {seen:x?}");
    check_eq!(seen.far, at);
    check_eq!(word.load(SeqCst), 0x77);
    let (seen, _) = el0::call(store, at + USER, 0);
    check_eq!(seen.class(), 0x15);
    check_eq!(word.load(SeqCst), at + USER);
    Ok(())
}

/// Calls code at `address`, and returns what that caused.
fn call(address: u64) -> Result<(), Exception> {
    // SAFETY: a RET is there, or the abort is caught and returns likewise.
    catch(|| unsafe { asm!("blr {0}", in(reg) address, out("x30") _) })
}

fn pxn_and_wxn_forbid_execution() -> Outcome {
    let code = fragment!("ret");
    check_eq!(call(code), Ok(()));
    let seen = call(code + USER);
    let fault = seen.err().map(|exception| (exception.class(), exception.iss() & 0x3c, exception.far));
    check_eq!(fault, Some((0x21, 0xc, code + USER)), "PXN");
    // With WXN nothing that EL1 may write is executed: here only code mapped read-only goes on.
    let map = mmu::enable(Granule::K4);
    let base = code & !0xfff;
    map.add(AT, base, 0x2000, Attributes::READ_ONLY);
    check_eq!(call(AT + code - base), Ok(()));
    map.add(AT + 0x10_0000, base, 0x2000, Attributes(Attributes::KERNEL.0 | 1 << 53));
    let seen = call(AT + 0x10_0000 + code - base).err();
    check_eq!(seen.map(|exception| exception.iss() & 0x3c), Some(0xc), "PXN of a page");
    Ok(())
}

fn asids_keep_mappings_apart() -> Outcome {
    let map = mmu::enable(Granule::K4);
    let ((first_at, first), (second_at, second)) = (page(0), page(1));
    first.store(1, SeqCst);
    second.store(2, SeqCst);
    let table = mrs!("TTBR0_EL1") & 0xffff_ffff_fffe;
    let attributes = Attributes(Attributes::KERNEL.0 | NOT_GLOBAL);
    for asid in [1_u64, 2] {
        msr!("TTBR0_EL1", table | asid << 48);
        // Change the entry without dropping what the TLB has for the other ASID: it is tagged.
        map.entry(AT, 3).store(0, SeqCst);
        // SAFETY: drops what the TLB knows of this ASID.
        unsafe { asm!("dsb ish", "tlbi aside1, {}", "dsb ish", "isb", in(reg) asid << 48) };
        map.add(AT, if asid == 1 { first_at } else { second_at }, 0x1000, attributes);
        check_eq!(read(AT), Ok(asid), "ASID {asid}");
    }
    // SAFETY: drops what the TLB knows of ASID 1.
    unsafe { asm!("tlbi aside1, {}", "dsb ish", "isb", in(reg) 1_u64 << 48) };
    msr!("TTBR0_EL1", table | 1 << 48);
    check_eq!(read(AT), Ok(2), "ASID 1, walked anew");
    Ok(())
}

fn ttbr1_maps_high_addresses() -> Outcome {
    let map = mmu::enable(Granule::K4);
    let (at, word) = page(0);
    word.store(0x5a5a, SeqCst);
    map.add(AT, at, 0x1000, Attributes::KERNEL);
    let tcr = mrs!("TCR_EL1");
    let high = 0xffff_ff80_0000_0000 | AT;
    // The same tables at the top: T1SZ 25, TG1 4 KiB, walks as TTBR0's.
    msr!("TTBR1_EL1", mrs!("TTBR0_EL1"));
    msr!("TCR_EL1", tcr & !(1 << 23) | 25 << 16 | 3 << 28 | 1 << 24 | 1 << 26 | 2 << 30);
    mmu::flush();
    let seen = read(high);
    msr!("TCR_EL1", tcr);
    mmu::flush();
    let off = read(high);
    check_eq!(seen, Ok(0x5a5a));
    check_eq!(status(&off).map(|status| status & 0x3c), Some(4), "EPD1: {off:x?}");
    Ok(())
}

/// 0 while the other CPU is to wait; then what it is to read once more.
static STEP: AtomicU64 = AtomicU64::new(0);
static READ: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Reads the page, waits for word, and reads it again.
fn read_twice(_: u64) {
    READ[0].store(mmio::read64(AT), SeqCst);
    STEP.store(1, SeqCst);
    timer::within_ms(5000, || STEP.load(SeqCst) == 2);
    ins!("isb");
    READ[1].store(mmio::read64(AT), SeqCst);
}

fn tlb_maintenance_reaches_other_cpus() -> Outcome {
    skip_if!(smp::present() < 2, "one CPU");
    let map = mmu::enable(Granule::K4);
    let ((first_at, first), (second_at, second)) = (page(0), page(1));
    first.store(1, SeqCst);
    second.store(2, SeqCst);
    map.add(AT, first_at, 0x1000, Attributes::KERNEL);
    STEP.store(0, SeqCst);
    check_eq!(smp::start(1, read_twice, 0), 0);
    check!(timer::within_ms(5000, || STEP.load(SeqCst) == 1));
    replace(map, AT, second_at, 0x1000, Attributes::KERNEL);
    STEP.store(2, SeqCst);
    check!(smp::wait_off(1));
    check_eq!(READ[0].load(SeqCst), 1);
    check_eq!(READ[1].load(SeqCst), 2, "after TLBI VMALLE1IS on another CPU");
    Ok(())
}

static MAPPED: AtomicU64 = AtomicU64::new(0);

fn add_mapped(_: u64) {
    MAPPED.fetch_add(mmio::read64(AT) | (mrs!("SCTLR_EL1") & 1) << 32, Relaxed);
}

fn other_cpus_run_with_the_same_map() -> Outcome {
    let others = smp::present() - 1;
    skip_if!(others == 0, "one CPU");
    let (at, word) = page(0);
    word.store(5, SeqCst);
    mmu::enable(Granule::K4).add(AT, at, 0x1000, Attributes::KERNEL);
    MAPPED.store(0, SeqCst);
    for cpu in 1..=others {
        check_eq!(smp::start(cpu, add_mapped, 0), 0);
        check!(smp::wait_off(cpu));
    }
    check_eq!(MAPPED.load(SeqCst), others as u64 * (1 << 32 | 5));
    Ok(())
}

/// Returns the first address behind RAM, where nothing is.
fn behind_ram() -> u64 {
    device_tree().and_then(|tree| tree.memory()).map_or(0, |(start, bytes)| start + bytes)
}

fn walk_through_nothing_is_an_external_abort() -> Outcome {
    let map = mmu::enable(Granule::K4);
    map.entry(AT, 2).store(behind_ram() | 3, SeqCst);
    mmu::flush();
    let seen = [read(AT + 0x1000).err(), call(AT + 0x1000).err()];
    map.entry(AT, 2).store(0, SeqCst);
    mmu::flush();
    for (seen, class) in seen.into_iter().zip([0x25, 0x21]) {
        check_eq!(seen.map(|exception| exception.class()), Some(class), "{seen:x?}");
        check_eq!(seen.map(|exception| exception.far), Some(AT + 0x1000), "{seen:x?}");
        let status = seen.map_or(0, |exception| exception.iss() & 0x3f);
        check_eq!(status, 0x17, "on the walk, level 3: {seen:x?}");
    }
    Ok(())
}

/// An address of TTBR1_EL1, 48 bits, whose index is not 0 at any level, and TCR_EL1.T1SZ for it.
const HIGH: u64 = 0xffff_9234_5678_9000;
const T1SZ: u64 = 16;

/// Loads from, stores to, executes and translates [`HIGH`] while its table of `level` lies behind RAM; returns the
/// exceptions. Its other tables are in [`PAGES`], one after the other.
fn walk_through_nothing(granule: Granule, first_level: u32, level: u32) -> [Option<Exception>; 4] {
    let granule_bits = match granule {
        Granule::K4 => 2,
        Granule::K16 => 1,
        Granule::K64 => 3,
    };
    let (tables, entries) = (page(0).0, 1_u64 << (granule.shift() - 3));
    let first_entry = |at: u32| u64::from(at - first_level) * entries;
    let table = |at: u32| if at == level { behind_ram() } else { tables + 8 * first_entry(at) };
    for at in first_level..level {
        let index = HIGH << T1SZ >> T1SZ >> granule.shift_of(at) & (entries - 1);
        PAGES.0[(first_entry(at) + index) as usize].store(table(at + 1) | 3, SeqCst);
    }
    let tcr = mrs!("TCR_EL1");
    msr!("TTBR1_EL1", table(first_level));
    // EPD1 off, walks as TTBR0's.
    msr!("TCR_EL1", tcr & !(1 << 23) | T1SZ << 16 | 3 << 28 | 1 << 24 | 1 << 26 | granule_bits << 30);
    mmu::flush();
    let at = catch(|| translate!("S1E1R", HIGH));
    let seen = [read(HIGH).err(), write(HIGH, 0).err(), call(HIGH).err(), at.err()];
    msr!("TCR_EL1", tcr);
    mmu::flush();
    seen
}

/// Checks that an abort names each level from `first_level` on.
fn walks_name_their_level(granule: Granule, first_level: u32) -> Outcome {
    const WNR: u64 = 1 << 6;
    const CM: u64 = 1 << 8;
    if !granule.is_implemented() {
        return Err(End::Skipped("ID_AA64MMFR0_EL1: no such granule"));
    }
    let kinds = [("load", 0x25, 0), ("store", 0x25, WNR), ("fetch", 0x21, 0), ("AT", 0x25, CM | WNR)];
    for level in first_level..4 {
        let status = 0x14 + u64::from(level);
        for (seen, (kind, class, bits)) in
            walk_through_nothing(granule, first_level, level).into_iter().zip(kinds)
        {
            let told = seen.map(|exception| (exception.class(), exception.iss(), exception.far));
            check_eq!(told, Some((class, status | bits, HIGH)), "{kind}, level {level}: {seen:x?}");
        }
    }
    Ok(())
}

fn walk_through_nothing_names_its_level() -> Outcome {
    walks_name_their_level(Granule::K4, 0)
}

fn walk_through_nothing_with_16k_pages() -> Outcome {
    walks_name_their_level(Granule::K16, 0)
}

fn walk_through_nothing_with_64k_pages() -> Outcome {
    walks_name_their_level(Granule::K64, 1)
}

fn every_part_of_ram_is_its_own() -> Outcome {
    const STEP: u64 = 0x1_0000;
    const MOST: u64 = 16 << 20;
    let (start, bytes) = device_tree().and_then(|tree| tree.memory()).unwrap_or((0, 0));
    let (first, end) = (start + bytes.saturating_sub(MOST), start + bytes);
    skip_if!(
        bytes < 2 * MOST || (first..end).contains(&device_tree_address()),
        "little RAM: the tree is in the way"
    );
    let places = || (first..end).step_by(STEP as usize).map(|at| at + at / STEP % 0x1fff * 8);
    places().for_each(|at| mmio::write64(at, at ^ 0x5a5a_0000_0000));
    for at in places() {
        check_eq!(mmio::read64(at), at ^ 0x5a5a_0000_0000, "{at:#x}");
    }
    mmio::write64(end - 8, 0x1234);
    check_eq!(mmio::read64(end - 8), 0x1234, "the last word");
    Ok(())
}

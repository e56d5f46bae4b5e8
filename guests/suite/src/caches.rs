//! Caches: code that changes itself, maintenance by address and by set and way, DC ZVA.
//!
//! Follows Arm ARM DDI 0487K.a, D7.5. A machine without caches passes trivially, and may.

use crate::harness::{Outcome, Test, check, check_eq, fragment, skip_if, tests};
use core::arch::asm;
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::{AtomicU32, AtomicU64};
use trapeze_kit::exception::catch;
use trapeze_kit::mmu::{self, Granule, USER};
use trapeze_kit::{cache, el0, ins, mmio, mrs, msr, smp, timer};

pub const TESTS: &[Test] = tests![
    code_changes_itself,
    code_changes_for_another_cpu,
    code_changes_for_el0,
    maintenance_by_address_keeps_data,
    maintenance_by_set_and_way_keeps_data,
    set_and_way_reaches_memory,
    clean_reaches_memory_before_the_mmu_goes_off,
    dc_zva_clears_a_block,
    ctr_is_plausible,
    el0_maintenance_is_controlled,
    instruction_cache_maintenance,
];

const MOV_W0: u32 = 0x5280_0000;
const RET: u32 = 0xd65f_03c0;
const SVC: u32 = 0xd400_0001;

#[repr(C, align(4096))]
struct Code([AtomicU32; 1024]);

static CODE: Code = Code([const { AtomicU32::new(0) }; 1024]);

fn code_at() -> u64 {
    core::ptr::from_ref(&CODE).addr() as u64
}

/// Makes the code `mov w0, #value` and `last`.
fn write_code(value: u32, last: u32) {
    CODE.0[0].store(MOV_W0 | value << 5, SeqCst);
    CODE.0[1].store(last, SeqCst);
    cache::make_executable(code_at(), 8);
}

/// Calls the code.
fn call() -> u64 {
    let value: u64;
    // SAFETY: `write_code` has put a function there that changes X0 only.
    unsafe { asm!("blr {0}", in(reg) code_at(), out("x0") value, out("x30") _) };
    value
}

fn code_changes_itself() -> Outcome {
    for value in 0..200 {
        write_code(value, RET);
        check_eq!(call(), u64::from(value));
    }
    Ok(())
}

static TURN: AtomicU64 = AtomicU64::new(0);
static RESULT: AtomicU64 = AtomicU64::new(0);

/// Calls the code each time its turn comes (odd numbers), `rounds` times.
fn call_in_turn(rounds: u64) {
    for round in 0..rounds {
        timer::within_ms(5000, || TURN.load(SeqCst) == 2 * round + 1);
        ins!("isb");
        RESULT.store(call(), SeqCst);
        TURN.store(2 * round + 2, SeqCst);
    }
}

fn code_changes_for_another_cpu() -> Outcome {
    skip_if!(smp::present() < 2, "one CPU");
    TURN.store(0, SeqCst);
    check_eq!(smp::start(1, call_in_turn, 50), 0);
    for round in 0..50 {
        write_code(1000 + round as u32, RET);
        TURN.store(2 * round + 1, SeqCst);
        check!(timer::within_ms(5000, || TURN.load(SeqCst) == 2 * round + 2));
        check_eq!(RESULT.load(SeqCst), 1000 + round);
    }
    check!(smp::wait_off(1));
    Ok(())
}

fn code_changes_for_el0() -> Outcome {
    for value in 0..50 {
        write_code(value, SVC);
        let (seen, frame) = el0::call(code_at() + USER, 0, 0);
        check_eq!(seen.class(), 0x15);
        check_eq!(frame.x[0], u64::from(value));
    }
    Ok(())
}

#[repr(C, align(4096))]
struct Memory([AtomicU64; 2048]);

static MEMORY: Memory = Memory([const { AtomicU64::new(0) }; 2048]);
const BYTES: u64 = 2048 * 8;

fn memory_at() -> u64 {
    core::ptr::from_ref(&MEMORY).addr() as u64
}

fn fill(seed: u64) {
    (0..).zip(&MEMORY.0).for_each(|(index, word)| word.store(seed ^ index, SeqCst));
}

fn is_filled(seed: u64) -> bool {
    (0..).zip(&MEMORY.0).all(|(index, word)| word.load(SeqCst) == seed ^ index)
}

/// Does `operation` of DC by address on all lines of the memory.
macro_rules! by_address {
    ($operation:literal) => {{
        let line = cache::data_line();
        for at in (0..BYTES / line).map(|index| memory_at() + index * line) {
            // SAFETY: loses nothing: what is only invalidated was cleaned before.
            unsafe { asm!(concat!("dc ", $operation, ", {}"), in(reg) at) };
        }
        ins!("dsb sy");
    }};
}

fn maintenance_by_address_keeps_data() -> Outcome {
    fill(0x1111);
    by_address!("cvac");
    check!(is_filled(0x1111));
    by_address!("civac");
    check!(is_filled(0x1111));
    by_address!("cvau");
    check!(is_filled(0x1111));
    by_address!("cvac");
    by_address!("ivac");
    check!(is_filled(0x1111), "cleaned, then invalidated");
    Ok(())
}

/// Calls `each` with the operand of every line of every data or unified cache up to coherency; returns how many.
fn sets_and_ways(each: impl Fn(u64)) -> u64 {
    let clidr = mrs!("CLIDR_EL1");
    let mut count = 0;
    for level in (0..clidr >> 24 & 7).filter(|level| clidr >> (3 * level) & 7 >= 2) {
        msr!("CSSELR_EL1", level << 1);
        let geometry = mrs!("CCSIDR_EL1");
        let wide = mrs!("ID_AA64MMFR2_EL1") >> 20 & 0xf != 0;
        let (ways, sets) = match wide {
            true => (geometry >> 3 & 0x1f_ffff, geometry >> 32 & 0xff_ffff),
            false => (geometry >> 3 & 0x3ff, geometry >> 13 & 0x7fff),
        };
        let set_shift = (geometry & 7) + 4;
        let way_shift = if ways == 0 { 32 } else { u64::from((ways as u32).leading_zeros()) };
        // The first and last sets of a large cache: a full walk of it is a matter of minutes when emulated.
        for set in (0..=sets).filter(|set| *set < 64 || sets - *set < 64) {
            for way in 0..=ways {
                each(if ways == 0 { 0 } else { way << way_shift } | set << set_shift | level << 1);
                count += 1;
            }
        }
    }
    ins!("dsb sy", "isb");
    count
}

fn maintenance_by_set_and_way_keeps_data() -> Outcome {
    fill(0x2222);
    // SAFETY: loses nothing.
    let lines = sets_and_ways(|operand| unsafe { asm!("dc cisw, {}", in(reg) operand) });
    check!(lines > 0, "CLIDR_EL1 names no data cache");
    check!(is_filled(0x2222));
    // SAFETY: loses nothing.
    sets_and_ways(|operand| unsafe { asm!("dc csw, {}", in(reg) operand) });
    check!(is_filled(0x2222));
    Ok(())
}

fn set_and_way_reaches_memory() -> Outcome {
    fill(0x3333);
    by_address!("civac");
    fill(0x4444);
    by_address!("civac");
    // SAFETY: loses nothing.
    sets_and_ways(|operand| unsafe { asm!("dc cisw, {}", in(reg) operand) });
    mmu::disable();
    let is_there = is_filled(0x4444);
    mmu::enable(Granule::K4);
    check!(is_there);
    Ok(())
}

fn clean_reaches_memory_before_the_mmu_goes_off() -> Outcome {
    fill(0x5555);
    cache::clean_invalidate(memory_at(), BYTES);
    mmu::disable();
    let is_there = is_filled(0x5555);
    mmio::write64(memory_at(), 0x9999);
    mmu::enable(Granule::K4);
    check!(is_there);
    check_eq!(MEMORY.0[0].load(SeqCst), 0x9999, "written with the caches off");
    Ok(())
}

fn dc_zva_clears_a_block() -> Outcome {
    let dczid = mrs!("DCZID_EL0");
    skip_if!(dczid >> 4 & 1 != 0, "DCZID_EL0: DC ZVA is prohibited");
    let bytes = 4 << (dczid & 0xf);
    fill(u64::MAX >> 1);
    let middle = memory_at() + bytes;
    // SAFETY: clears a block of this memory.
    unsafe { asm!("dc zva, {}", in(reg) middle + 8) };
    for (index, word) in (0..).zip(&MEMORY.0) {
        let is_cleared = (bytes..2 * bytes).contains(&(index * 8));
        check_eq!(word.load(SeqCst), if is_cleared { 0 } else { u64::MAX >> 1 ^ index }, "word {index}");
    }
    Ok(())
}

fn ctr_is_plausible() -> Outcome {
    let ctr = mrs!("CTR_EL0");
    check_eq!(ctr >> 31 & 1, 1, "RES1");
    check!(
        (16..=2048).contains(&cache::data_line()) && (16..=2048).contains(&cache::instruction_line()),
        "{ctr:#x}"
    );
    Ok(())
}

fn el0_maintenance_is_controlled() -> Outcome {
    let sctlr = mrs!("SCTLR_EL1");
    let (uct, uci, dze) = (1 << 15, 1 << 26, 1 << 14);
    let operations = [
        (uci, fragment!("dc cvau, x0", "svc #0")),
        (uci, fragment!("dc civac, x0", "svc #0")),
        (uci, fragment!("ic ivau, x0", "svc #0")),
        (uct, fragment!("mrs x0, CTR_EL0", "svc #0")),
        (dze, fragment!("dc zva, x0", "svc #0")),
    ];
    for (bit, code) in operations {
        msr!("SCTLR_EL1", sctlr & !(uct | uci | dze));
        let denied = el0::call(code + USER, memory_at() + USER, 0).0;
        msr!("SCTLR_EL1", sctlr | bit);
        let allowed = el0::call(code + USER, memory_at() + USER, 0).0;
        msr!("SCTLR_EL1", sctlr);
        check_eq!(denied.class(), 0x18, "{bit:#x}: {denied:x?}");
        check_eq!(allowed.class(), 0x15, "{bit:#x}: {allowed:x?}");
    }
    Ok(())
}

fn instruction_cache_maintenance() -> Outcome {
    let seen = catch(|| ins!("ic iallu", "dsb nsh", "isb", "ic ialluis", "dsb ish", "isb"));
    check_eq!(seen, Ok(()));
    write_code(7, RET);
    check_eq!(call(), 7);
    Ok(())
}

//! Exclusives and LSE atomics that CPUs contend for, and the order in which they see each other's stores.
//!
//! Follows Arm ARM DDI 0487K.a, B2.9 (exclusive monitors) and B2.3 (memory ordering).

use crate::harness::{Outcome, Test, check, check_eq, skip_if, tests};
use core::arch::asm;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::SeqCst;
use trapeze_kit::{mrs, smp, timer};

pub const TESTS: &[Test] = tests![
    exclusive_pair_alone,
    store_exclusive_fails_after_clrex,
    store_exclusive_fails_after_anothers_store,
    exclusives_contended,
    exclusive_pairs_of_128_bits_contended,
    lock_excludes,
    lse_contended,
    compare_and_swap_contended,
    message_passing_with_acquire_and_release,
    store_buffering_with_barriers,
];

const ROUNDS: u64 = 20_000;

#[repr(align(128))]
struct Line(AtomicU64);

static COUNTERS: [Line; 4] = [const { Line(AtomicU64::new(0)) }; 4];
static READY: AtomicU64 = AtomicU64::new(0);

/// Returns the address of counter `index`.
fn at(index: usize) -> *mut u64 {
    COUNTERS[index].0.as_ptr()
}

/// Runs `work` on all CPUs at once, with the number of each; returns how many there are.
fn on_all(work: fn(u64)) -> Result<u64, crate::harness::End> {
    let cpus = smp::present();
    COUNTERS.iter().for_each(|line| line.0.store(0, SeqCst));
    READY.store(0, SeqCst);
    for cpu in 1..cpus {
        check_eq!(smp::start(cpu, work, cpu as u64), 0);
    }
    work(0);
    for cpu in 1..cpus {
        check!(smp::wait_off(cpu), "CPU {cpu} does not end");
    }
    Ok(cpus as u64)
}

/// Waits until all CPUs are here.
fn meet() {
    READY.fetch_add(1, SeqCst);
    let all = smp::present() as u64;
    timer::within_ms(5000, || READY.load(SeqCst) >= all);
}

/// Adds 1 by an exclusive pair; returns how often the store failed.
fn add_exclusive(address: *mut u64) -> u64 {
    let failures: u64;
    // SAFETY: `address` is a static counter.
    unsafe {
        asm!("mov {f}, #-1", "2: add {f}, {f}, #1", "ldaxr {v}, [{a}]", "add {v}, {v}, #1", "stlxr {s:w}, {v}, [{a}]",
             "cbnz {s:w}, 2b", f = out(reg) failures, v = out(reg) _, s = out(reg) _, a = in(reg) address);
    }
    failures
}

fn exclusive_pair_alone() -> Outcome {
    COUNTERS[0].0.store(41, SeqCst);
    let failures = add_exclusive(at(0));
    check_eq!(COUNTERS[0].0.load(SeqCst), 42);
    check!(failures < 100, "{failures} failures");
    Ok(())
}

fn store_exclusive_fails_after_clrex() -> Outcome {
    COUNTERS[0].0.store(7, SeqCst);
    let status: u64;
    // SAFETY: `address` is a static counter.
    unsafe {
        asm!("ldxr {v}, [{a}]", "clrex", "stxr {s:w}, {v}, [{a}]", v = out(reg) _, s = out(reg) status,
             a = in(reg) at(0));
    }
    check_eq!(status, 1);
    Ok(())
}

/// Stores another value once asked to.
fn store_when_asked(_: u64) {
    timer::within_ms(5000, || READY.load(SeqCst) == 1);
    COUNTERS[0].0.store(99, SeqCst);
    READY.store(2, SeqCst);
}

fn store_exclusive_fails_after_anothers_store() -> Outcome {
    skip_if!(smp::present() < 2, "one CPU");
    COUNTERS[0].0.store(7, SeqCst);
    READY.store(0, SeqCst);
    check_eq!(smp::start(1, store_when_asked, 0), 0);
    let status: u64;
    // SAFETY: both addresses are static words; the loop ends when the other CPU has stored.
    unsafe {
        asm!("ldxr {v}, [{a}]", "mov {v}, #1", "str {v}, [{r}]", "2: ldr {v}, [{r}]", "cmp {v}, #2", "b.ne 2b",
             "stxr {s:w}, {v}, [{a}]", v = out(reg) _, s = out(reg) status, a = in(reg) at(0),
             r = in(reg) READY.as_ptr());
    }
    check!(smp::wait_off(1));
    check_eq!(status, 1);
    check_eq!(COUNTERS[0].0.load(SeqCst), 99);
    Ok(())
}

fn exclusives_contended() -> Outcome {
    let cpus = on_all(|_| {
        meet();
        (0..ROUNDS).for_each(|_| {
            add_exclusive(at(0));
        });
    })?;
    check_eq!(COUNTERS[0].0.load(SeqCst), cpus * ROUNDS);
    Ok(())
}

fn exclusive_pairs_of_128_bits_contended() -> Outcome {
    let cpus = on_all(|_| {
        meet();
        for _ in 0..ROUNDS {
            // SAFETY: 16 bytes of a static line.
            unsafe {
                asm!("2: ldaxp {v}, {w}, [{a}]", "add {v}, {v}, #1", "sub {w}, {w}, #1", "stlxp {s:w}, {v}, {w}, [{a}]",
                     "cbnz {s:w}, 2b", v = out(reg) _, w = out(reg) _, s = out(reg) _, a = in(reg) at(1));
            }
        }
    })?;
    let second = trapeze_kit::mmio::read64(at(1).addr() as u64 + 8);
    check_eq!(COUNTERS[1].0.load(SeqCst), cpus * ROUNDS);
    check_eq!(second, 0_u64.wrapping_sub(cpus * ROUNDS));
    Ok(())
}

fn lock_excludes() -> Outcome {
    let cpus = on_all(|_| {
        meet();
        for _ in 0..ROUNDS / 10 {
            // SAFETY: counter 0 is a lock, counter 1 what it protects, written without being atomic.
            unsafe {
                asm!("2: ldaxr {v}, [{l}]", "cbnz {v}, 2b", "stxr {v:w}, {one}, [{l}]", "cbnz {v:w}, 2b",
                     "ldr {v}, [{c}]", "add {v}, {v}, #1", "str {v}, [{c}]", "stlr xzr, [{l}]",
                     v = out(reg) _, one = in(reg) 1_u64, l = in(reg) at(0), c = in(reg) at(1));
            }
        }
    })?;
    check_eq!(COUNTERS[1].0.load(SeqCst), cpus * (ROUNDS / 10));
    Ok(())
}

/// Says whether this CPU has the LSE atomics (ID_AA64ISAR0_EL1.Atomic).
fn has_lse() -> bool {
    mrs!("ID_AA64ISAR0_EL1") >> 20 & 0xf >= 2
}

fn lse_contended() -> Outcome {
    skip_if!(!has_lse(), "ID_AA64ISAR0_EL1: no atomics");
    let cpus = on_all(|cpu| {
        meet();
        for _ in 0..ROUNDS {
            // SAFETY: static counters.
            unsafe {
                asm!(".arch_extension lse", "ldaddal {one}, {v}, [{a}]", "stadd {two}, [{b}]", "ldsetl {bit}, {v}, [{c}]",
                     ".arch_extension nolse", v = out(reg) _, one = in(reg) 1_u64, two = in(reg) 2_u64,
                     bit = in(reg) 1_u64 << cpu, a = in(reg) at(0), b = in(reg) at(1), c = in(reg) at(2));
            }
        }
    })?;
    check_eq!(COUNTERS[0].0.load(SeqCst), cpus * ROUNDS);
    check_eq!(COUNTERS[1].0.load(SeqCst), 2 * cpus * ROUNDS);
    check_eq!(COUNTERS[2].0.load(SeqCst), (1 << cpus) - 1);
    Ok(())
}

fn compare_and_swap_contended() -> Outcome {
    skip_if!(!has_lse(), "ID_AA64ISAR0_EL1: no atomics");
    let cpus = on_all(|_| {
        meet();
        for _ in 0..ROUNDS / 2 {
            // SAFETY: a static counter.
            unsafe {
                asm!(".arch_extension lse", "2: ldr {e}, [{a}]", "mov {o}, {e}", "add {n}, {e}, #1",
                     "casal {o}, {n}, [{a}]", "cmp {o}, {e}", "b.ne 2b", ".arch_extension nolse", e = out(reg) _,
                     o = out(reg) _, n = out(reg) _, a = in(reg) at(3));
            }
        }
    })?;
    check_eq!(COUNTERS[3].0.load(SeqCst), cpus * (ROUNDS / 2));
    Ok(())
}

static WRONG: AtomicU64 = AtomicU64::new(0);

/// CPU 0 publishes values, the others check that what came before is there.
fn pass_messages(cpu: u64) {
    meet();
    for number in 1..=ROUNDS / 4 {
        if cpu == 0 {
            // SAFETY: static counters; the second store is a release.
            unsafe {
                asm!("str {n}, [{d}]", "stlr {n}, [{f}]", n = in(reg) number, d = in(reg) at(0), f = in(reg) at(1))
            };
        } else {
            let (flag, data): (u64, u64);
            // SAFETY: static counters; the first load is an acquire.
            unsafe {
                asm!("ldar {f}, [{b}]", "ldr {d}, [{a}]", f = out(reg) flag, d = out(reg) data, a = in(reg) at(0),
                     b = in(reg) at(1));
            }
            WRONG.fetch_add(u64::from(data < flag), SeqCst);
        }
    }
}

fn message_passing_with_acquire_and_release() -> Outcome {
    skip_if!(smp::present() < 2, "one CPU");
    WRONG.store(0, SeqCst);
    on_all(pass_messages)?;
    check_eq!(WRONG.load(SeqCst), 0);
    Ok(())
}

static SEEN: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Two CPUs store to one counter each and read the other's, with a barrier between.
fn buffer_stores(cpu: u64) {
    if cpu > 1 {
        return;
    }
    for round in 1..=500_u64 {
        READY.fetch_add(1, SeqCst);
        timer::within_ms(5000, || READY.load(SeqCst) >= 2 * round);
        let (own, other) = (at(cpu as usize), at(1 - cpu as usize));
        let seen: u64;
        // SAFETY: static counters.
        unsafe {
            asm!("str {n}, [{o}]", "dmb ish", "ldr {s}, [{p}]", n = in(reg) round, o = in(reg) own, p = in(reg) other,
                 s = out(reg) seen);
        }
        SEEN[cpu as usize].store(seen, SeqCst);
        COUNTERS[2].0.fetch_add(1, SeqCst);
        timer::within_ms(5000, || COUNTERS[2].0.load(SeqCst) >= 2 * round);
        if cpu == 0 && SEEN[0].load(SeqCst) < round && SEEN[1].load(SeqCst) < round {
            WRONG.fetch_add(1, SeqCst);
        }
        COUNTERS[3].0.fetch_add(1, SeqCst);
        timer::within_ms(5000, || COUNTERS[3].0.load(SeqCst) >= 2 * round);
    }
}

fn store_buffering_with_barriers() -> Outcome {
    skip_if!(smp::present() < 2, "one CPU");
    WRONG.store(0, SeqCst);
    on_all(buffer_stores)?;
    check_eq!(COUNTERS[3].0.load(SeqCst), 1000);
    check_eq!(WRONG.load(SeqCst), 0, "both CPUs missed the other's store");
    Ok(())
}

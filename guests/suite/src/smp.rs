//! Further CPUs: they start, know who they are, work side by side, stop, and start again.
//!
//! Follows Arm DEN 0022F (PSCI) and Arm ARM DDI 0487K.a, D24.2.101 (MPIDR_EL1).

use crate::harness::{Outcome, Test, check, check_eq, skip_if, tests};
use crate::interrupts;
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::{AtomicU64, AtomicUsize};
use trapeze_kit::cpu::{self, MAX_CPUS};
use trapeze_kit::gic::Gic;
use trapeze_kit::{mrs, smp, timer};

pub const TESTS: &[Test] = tests![
    every_cpu_starts_and_knows_itself,
    all_run_at_the_same_time,
    start_and_stop_fifty_times,
    a_cpu_starts_another,
    counters_agree,
    sgis_go_round,
    registers_are_each_cpus_own,
];

static SEEN: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
static ARRIVED: AtomicUsize = AtomicUsize::new(0);

fn clear() {
    SEEN.iter().for_each(|word| word.store(0, SeqCst));
    ARRIVED.store(0, SeqCst);
}

/// Starts all others with `function`, waits until they are off, and returns how many there are.
fn run_on_others(function: fn(u64)) -> Result<usize, crate::harness::End> {
    let others = smp::present() - 1;
    skip_if!(others == 0, "one CPU");
    for cpu in 1..=others {
        check_eq!(smp::start(cpu, function, cpu as u64), 0, "CPU_ON of {cpu}");
    }
    for cpu in 1..=others {
        check!(smp::wait_off(cpu), "CPU {cpu} does not stop");
    }
    Ok(others)
}

fn note_identity(cpu: u64) {
    SEEN[cpu as usize].store(mrs!("MPIDR_EL1"), SeqCst);
}

fn every_cpu_starts_and_knows_itself() -> Outcome {
    clear();
    SEEN[0].store(mrs!("MPIDR_EL1"), SeqCst);
    let others = run_on_others(note_identity)?;
    for (cpu, seen) in SEEN.iter().enumerate().take(others + 1) {
        let mpidr = seen.load(SeqCst);
        check_eq!(mpidr & 0xff_00ff_ffff, cpu as u64);
        check_eq!(mpidr >> 31 & 1, 1, "RES1");
        check_eq!(mpidr >> 30 & 1, 0, "U: not a single CPU");
    }
    Ok(())
}

fn meet(_: u64) {
    ARRIVED.fetch_add(1, SeqCst);
    let all = smp::present() - 1;
    if timer::within_ms(5000, || ARRIVED.load(SeqCst) == all) {
        SEEN[cpu::slot()].store(1, SeqCst);
    }
}

fn all_run_at_the_same_time() -> Outcome {
    clear();
    let others = run_on_others(meet)?;
    check!((1..=others).all(|cpu| SEEN[cpu].load(SeqCst) == 1), "{} arrived", ARRIVED.load(SeqCst));
    Ok(())
}

fn arrive(_: u64) {
    ARRIVED.fetch_add(1, SeqCst);
}

fn start_and_stop_fifty_times() -> Outcome {
    clear();
    for _ in 0..50 {
        run_on_others(arrive)?;
    }
    check_eq!(ARRIVED.load(SeqCst), 50 * (smp::present() - 1));
    Ok(())
}

fn start_next(cpu: u64) {
    arrive(0);
    let next = cpu as usize + 1;
    if next < smp::present() {
        SEEN[next].store(smp::start(next, start_next, next as u64).cast_unsigned() + 1, SeqCst);
    }
}

fn a_cpu_starts_another() -> Outcome {
    let others = smp::present() - 1;
    skip_if!(others == 0, "one CPU");
    clear();
    start_next(0);
    check!(timer::within_ms(5000, || ARRIVED.load(SeqCst) == others + 1));
    for (cpu, seen) in SEEN.iter().enumerate().take(others + 1).skip(1) {
        check_eq!(seen.load(SeqCst), 1, "CPU_ON of {cpu} by {}", cpu - 1);
        check!(smp::wait_off(cpu));
    }
    Ok(())
}

static LATEST: AtomicU64 = AtomicU64::new(0);

/// Checks that this CPU never reads a counter less than one that another has published.
fn compare_counters(_: u64) {
    for _ in 0..2000 {
        let published = LATEST.load(SeqCst);
        let now = timer::now();
        if now < published {
            SEEN[cpu::slot()].fetch_add(1, SeqCst);
        }
        LATEST.fetch_max(now, SeqCst);
    }
}

fn counters_agree() -> Outcome {
    clear();
    LATEST.store(0, SeqCst);
    let others = run_on_others(compare_counters)?;
    for (cpu, seen) in SEEN.iter().enumerate().take(others + 1).skip(1) {
        check_eq!(seen.load(SeqCst), 0, "CPU {cpu} was behind another");
    }
    Ok(())
}

const ROUND: u32 = 5;

/// Waits for the SGI and passes it on, `rounds` times.
fn pass_on(rounds: u64) {
    let gic = Gic::detect();
    let here = cpu::slot();
    let next = (here + 1) % smp::present();
    gic.init_cpu();
    gic.enable(ROUND);
    ARRIVED.fetch_add(1, SeqCst);
    for round in 1..=rounds {
        if interrupts::open_until(5000, || interrupts::count() as u64 >= round) {
            gic.send_sgi(ROUND, 1 << next);
        }
    }
}

fn sgis_go_round() -> Outcome {
    const ROUNDS: u64 = 100;
    let others = smp::present() - 1;
    skip_if!(others == 0, "one CPU");
    clear();
    interrupts::listen();
    for cpu in 1..=others {
        check_eq!(smp::start(cpu, pass_on, ROUNDS), 0);
    }
    check!(timer::within_ms(5000, || ARRIVED.load(SeqCst) == others));
    let gic = Gic::detect();
    gic.enable(ROUND);
    for round in 1..=ROUNDS {
        gic.send_sgi(ROUND, 2);
        check!(interrupts::open_until(5000, || interrupts::count() as u64 >= round), "round {round}");
    }
    for cpu in 0..=others {
        check_eq!(interrupts::count_of(cpu) as u64, ROUNDS, "CPU {cpu}");
        let iar = interrupts::acknowledged_by(cpu, 0);
        check_eq!(iar & 0x3ff, ROUND);
        let source = if cpu == 0 { others } else { cpu - 1 };
        check!(gic == Gic::V3 || iar >> 10 == source as u32, "CPU {cpu}: IAR {iar:#x}");
    }
    Ok(())
}

/// Fills registers, lets the others do the same, and looks.
fn fill_registers(number: u64) {
    let value = 0x1111_1111 * number;
    trapeze_kit::msr!("TPIDR_EL1", value);
    trapeze_kit::msr!("CNTV_CVAL_EL0", value);
    trapeze_kit::msr!("CNTP_CVAL_EL0", value);
    // SAFETY: V9 is nobody's: the kernel is built without it.
    unsafe { core::arch::asm!(".arch_extension fp", "fmov d9, {}", ".arch_extension nofp", in(reg) value) };
    meet(0);
    let fp: u64;
    // SAFETY: as above.
    unsafe { core::arch::asm!(".arch_extension fp", "fmov {}, d9", ".arch_extension nofp", out(reg) fp) };
    let seen = [mrs!("TPIDR_EL1"), mrs!("CNTV_CVAL_EL0"), mrs!("CNTP_CVAL_EL0"), fp];
    SEEN[number as usize].store(u64::from(seen.iter().all(|seen| *seen == value)), SeqCst);
}

fn registers_are_each_cpus_own() -> Outcome {
    clear();
    let others = run_on_others(fill_registers)?;
    for (cpu, seen) in SEEN.iter().enumerate().take(others + 1).skip(1) {
        check_eq!(seen.load(SeqCst), 1, "CPU {cpu}");
    }
    Ok(())
}

//! WFI and WFE: what wakes them, and what they trap at EL0.
//!
//! Follows Arm ARM DDI 0487K.a, D1.6 (mechanisms for entering a low-power state).

use crate::harness::{Outcome, Test, check, check_eq, fragment, skip_if, tests};
use crate::interrupts;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::SeqCst;
use trapeze_kit::gic::Gic;
use trapeze_kit::mmu::USER;
use trapeze_kit::timer::{self, ENABLE, ISTATUS, Timer};
use trapeze_kit::{el0, ins, mrs, msr, smp};

pub const TESTS: &[Test] = tests![
    wfi_wakes_for_a_masked_virtual_timer,
    wfi_wakes_for_a_masked_physical_timer,
    wfi_returns_at_once_with_one_pending,
    wfi_then_the_interrupt_is_taken,
    wfi_wakes_for_an_sgi_of_another_cpu,
    wfe_returns_after_sevl,
    wfe_returns_after_sev_of_another_cpu,
    wfe_returns_by_the_event_stream,
    wfi_and_wfe_trap_from_el0_when_told,
    all_cpus_sleep_and_wake,
    wfit_returns_at_its_time,
];

/// Sleeps, masked, until the timer's condition is met.
fn sleep_until(timer: Timer) -> Outcome {
    let gic = Gic::detect();
    gic.enable(timer.intid());
    for _ in 0..10 {
        let deadline = timer.count() + timer::frequency() / 500;
        timer.set_compare(deadline);
        timer.set_control(ENABLE);
        while timer.control() & ISTATUS == 0 {
            ins!("wfi");
        }
        let now = timer.count();
        check!(now >= deadline, "woke at {now:#x}, before {deadline:#x}");
        check!(now < deadline + timer::frequency() * 3, "woke late, at {now:#x}, not {deadline:#x}");
        timer.set_control(0);
    }
    Ok(())
}

fn wfi_wakes_for_a_masked_virtual_timer() -> Outcome {
    sleep_until(Timer::Virtual)
}

fn wfi_wakes_for_a_masked_physical_timer() -> Outcome {
    sleep_until(Timer::Physical)
}

fn wfi_returns_at_once_with_one_pending() -> Outcome {
    let gic = Gic::detect();
    gic.enable(1);
    gic.send_sgi(1, 1);
    check!(timer::within_ms(1000, || gic.is_pending(1)));
    // Nothing else would ever wake it.
    for _ in 0..100 {
        ins!("wfi");
    }
    let iar = gic.acknowledge();
    check_eq!(iar & 0x3ff, 1);
    gic.end(iar);
    Ok(())
}

fn wfi_then_the_interrupt_is_taken() -> Outcome {
    interrupts::listen();
    Gic::detect().enable(timer::VIRTUAL_INTID);
    Timer::Virtual.set_value(timer::ms(2));
    Timer::Virtual.set_control(ENABLE);
    ins!("msr DAIFClr, #2", "isb");
    while interrupts::count() == 0 {
        ins!("wfi");
        if Timer::Virtual.control() & ISTATUS != 0 {
            break;
        }
    }
    timer::within_ms(1000, || interrupts::count() != 0);
    ins!("msr DAIFSet, #2");
    check_eq!(interrupts::count(), 1);
    check_eq!(interrupts::acknowledged(0), timer::VIRTUAL_INTID);
    Ok(())
}

static READY: AtomicU64 = AtomicU64::new(0);
static WOKEN: AtomicU64 = AtomicU64::new(0);

/// Sleeps until an SGI 2 is there, `rounds` times.
fn sleep_for_sgis(rounds: u64) {
    let gic = Gic::detect();
    gic.init_cpu();
    gic.enable(2);
    for _ in 0..rounds {
        READY.fetch_add(1, SeqCst);
        let mut iar = gic.acknowledge();
        while iar & 0x3ff != 2 {
            ins!("wfi");
            iar = gic.acknowledge();
        }
        gic.end(iar);
        WOKEN.fetch_add(1, SeqCst);
    }
}

fn wfi_wakes_for_an_sgi_of_another_cpu() -> Outcome {
    skip_if!(smp::present() < 2, "one CPU");
    READY.store(0, SeqCst);
    WOKEN.store(0, SeqCst);
    check_eq!(smp::start(1, sleep_for_sgis, 20), 0);
    let gic = Gic::detect();
    for round in 1..=20 {
        check!(timer::within_ms(5000, || READY.load(SeqCst) == round));
        timer::spin_ms(round % 3);
        gic.send_sgi(2, 2);
        check!(timer::within_ms(5000, || WOKEN.load(SeqCst) == round), "round {round}");
    }
    check!(smp::wait_off(1));
    Ok(())
}

fn wfe_returns_after_sevl() -> Outcome {
    for _ in 0..100 {
        ins!("sevl", "wfe");
    }
    Ok(())
}

static FLAG: AtomicU64 = AtomicU64::new(0);

/// Waits by WFE until the flag is set.
fn wait_by_wfe(_: u64) {
    READY.store(1, SeqCst);
    ins!("sevl");
    while FLAG.load(SeqCst) == 0 {
        ins!("wfe");
    }
    WOKEN.store(1, SeqCst);
}

fn wfe_returns_after_sev_of_another_cpu() -> Outcome {
    skip_if!(smp::present() < 2, "one CPU");
    for _ in 0..10 {
        READY.store(0, SeqCst);
        WOKEN.store(0, SeqCst);
        FLAG.store(0, SeqCst);
        check_eq!(smp::start(1, wait_by_wfe, 0), 0);
        check!(timer::within_ms(5000, || READY.load(SeqCst) == 1));
        timer::spin_ms(1);
        FLAG.store(1, SeqCst);
        ins!("dsb sy", "sev");
        check!(timer::within_ms(5000, || WOKEN.load(SeqCst) == 1));
        check!(smp::wait_off(1));
    }
    Ok(())
}

fn wfe_returns_by_the_event_stream() -> Outcome {
    let before = mrs!("CNTKCTL_EL1");
    // EVNTEN, an event for each change of bit 8 of the virtual counter.
    msr!("CNTKCTL_EL1", 1 << 2 | 8 << 4);
    for _ in 0..50 {
        ins!("wfe");
    }
    msr!("CNTKCTL_EL1", before);
    Ok(())
}

fn wfi_and_wfe_trap_from_el0_when_told() -> Outcome {
    let sctlr = mrs!("SCTLR_EL1");
    let wfi = fragment!("wfi", "svc #0") + USER;
    // nTWI and nTWE are 0: trapped.
    msr!("SCTLR_EL1", sctlr & !(1 << 16 | 1 << 18));
    let (seen, _) = el0::call(wfi, 0, 0);
    check_eq!(seen.class(), 1);
    check_eq!(seen.iss() & 3, 0, "TI: WFI");
    check_eq!(seen.elr, wfi);
    msr!("SCTLR_EL1", sctlr | 1 << 16 | 1 << 18);
    // Pending, so that it returns.
    let gic = Gic::detect();
    gic.enable(1);
    gic.send_sgi(1, 1);
    let (seen, _) = el0::call(wfi, 0, 0);
    check_eq!(seen.class(), 0x15);
    let (seen, _) = el0::call(fragment!("sevl", "wfe", "svc #0") + USER, 0, 0);
    check_eq!(seen.class(), 0x15);
    msr!("SCTLR_EL1", sctlr);
    Ok(())
}

/// Sleeps ten times for a timer of its own.
fn sleep_ten_times(_: u64) {
    let gic = Gic::detect();
    gic.init_cpu();
    gic.enable(timer::VIRTUAL_INTID);
    for _ in 0..10 {
        Timer::Virtual.set_value(timer::frequency() / 1000);
        Timer::Virtual.set_control(ENABLE);
        while Timer::Virtual.control() & ISTATUS == 0 {
            ins!("wfi");
        }
        Timer::Virtual.set_control(0);
    }
    WOKEN.fetch_add(10, SeqCst);
}

fn all_cpus_sleep_and_wake() -> Outcome {
    let cpus = smp::present();
    WOKEN.store(0, SeqCst);
    for cpu in 1..cpus {
        check_eq!(smp::start(cpu, sleep_ten_times, 0), 0);
    }
    sleep_ten_times(0);
    for cpu in 1..cpus {
        check!(smp::wait_off(cpu), "CPU {cpu} sleeps on");
    }
    check_eq!(WOKEN.load(SeqCst), 10 * cpus as u64);
    Ok(())
}

fn wfit_returns_at_its_time() -> Outcome {
    skip_if!(mrs!("ID_AA64ISAR2_EL1") & 0xf < 2, "ID_AA64ISAR2_EL1: no WFIT");
    for _ in 0..5 {
        let deadline = Timer::Virtual.count() + timer::frequency() / 500;
        while Timer::Virtual.count() < deadline {
            // SAFETY: WFIT X0: sleeps until the virtual counter is there, or less.
            unsafe { core::arch::asm!("msr S0_3_C1_C0_1, {0}", in(reg) deadline) };
        }
        let late = Timer::Virtual.count() - deadline;
        check!(late < timer::frequency() * 3, "{late} ticks late");
    }
    Ok(())
}

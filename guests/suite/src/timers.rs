//! The EL1 virtual and physical timer: counters, CVAL, TVAL, CTL, their interrupt, and what EL0 may.
//!
//! Follows Arm ARM DDI 0487K.a, D12.2 and D24.10.

use crate::harness::{Outcome, Test, check, check_eq, fragment, skip_if, tests};
use crate::interrupts;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::SeqCst;
use trapeze_kit::gic::Gic;
use trapeze_kit::mmu::USER;
use trapeze_kit::timer::{self, ENABLE, IMASK, ISTATUS, Timer};
use trapeze_kit::{el0, ins, mrs, msr, smp};

pub const TESTS: &[Test] = tests![
    frequency_is_plausible,
    counters_never_go_back,
    counters_advance_alike,
    virtual_control,
    physical_control,
    virtual_values,
    physical_values,
    virtual_status,
    physical_status,
    virtual_interrupt,
    physical_interrupt,
    virtual_interrupt_comes_again_while_its_line_is_up,
    physical_interrupt_comes_again_while_its_line_is_up,
    virtual_interrupt_goes_with_its_line,
    physical_interrupt_goes_with_its_line,
    virtual_mask_holds_the_interrupt,
    physical_mask_holds_the_interrupt,
    virtual_far_future_is_silent,
    physical_far_future_is_silent,
    virtual_past_fires_at_once,
    physical_past_fires_at_once,
    virtual_ticks_a_hundred_times,
    physical_ticks_a_hundred_times,
    both_at_once,
    disabled_in_the_gic_stays_pending,
    each_cpu_has_its_own,
    el0_access_is_controlled,
];

/// Returns a deadline a little ahead.
fn soon(timer: Timer) -> u64 {
    timer.count() + timer::frequency() / 2000
}

fn open(timer: Timer) -> Gic {
    interrupts::listen();
    let gic = Gic::detect();
    gic.enable(timer.intid());
    gic
}

fn frequency_is_plausible() -> Outcome {
    let frequency = timer::frequency();
    check!((1_000_000..=10_000_000_000).contains(&frequency), "CNTFRQ_EL0 {frequency}");
    Ok(())
}

fn counters_never_go_back() -> Outcome {
    for timer in [Timer::Virtual, Timer::Physical] {
        let mut last = timer.count();
        for _ in 0..1000 {
            let now = timer.count();
            check!(now >= last, "{timer:?}: {now:#x} after {last:#x}");
            last = now;
        }
    }
    Ok(())
}

fn counters_advance_alike() -> Outcome {
    let (physical, virtual_) = (Timer::Physical.count(), Timer::Virtual.count());
    timer::spin_ms(20);
    let (virtual_, physical) = (Timer::Virtual.count() - virtual_, Timer::Physical.count() - physical);
    check!(virtual_ >= timer::ms(20), "{virtual_} ticks");
    // Physical was read first and last; a busy host may put any time between the reads, but not take it away.
    check!(physical >= virtual_, "physical {physical}, virtual {virtual_}");
    Ok(())
}

fn control(timer: Timer) -> Outcome {
    timer.set_compare(u64::MAX);
    for value in [0, IMASK, ENABLE, ENABLE | IMASK] {
        timer.set_control(value);
        check_eq!(timer.control() & !ISTATUS, value);
    }
    timer.set_control(!IMASK);
    check_eq!(timer.control(), ENABLE, "ISTATUS is read-only, the rest RES0");
    timer.set_control(0);
    Ok(())
}

fn virtual_control() -> Outcome {
    control(Timer::Virtual)
}

fn physical_control() -> Outcome {
    control(Timer::Physical)
}

fn values(timer: Timer) -> Outcome {
    for value in [0, 1, 0x1234_5678_9abc_def0, u64::MAX, 1 << 63] {
        timer.set_compare(value);
        check_eq!(timer.compare(), value);
    }
    for offset in [0x7fff_ffff_u64, 0x1_0000, 0xffff_ff00, 0x8000_0000, 0xffff_0000_0001_0000] {
        let before = timer.count();
        timer.set_value(offset);
        let after = timer.count();
        let signed = i64::from(offset as u32 as i32).cast_unsigned();
        let compare = timer.compare();
        let distance = compare.wrapping_sub(signed);
        check!(
            (before..=after).contains(&distance),
            "TVAL {offset:#x}: CVAL {compare:#x}, count {before:#x}"
        );
    }
    let ahead = timer.count() + 0x4000_0000;
    timer.set_compare(ahead);
    let before = timer.count();
    let value = timer.value();
    let after = timer.count();
    check!((ahead - after..=ahead - before).contains(&value), "TVAL {value:#x}");
    timer.set_compare(0);
    check!(timer.value() >> 32 == 0, "TVAL has 32 bits: {:#x}", timer.value());
    Ok(())
}

fn virtual_values() -> Outcome {
    values(Timer::Virtual)
}

fn physical_values() -> Outcome {
    values(Timer::Physical)
}

fn status(timer: Timer) -> Outcome {
    timer.set_compare(u64::MAX);
    timer.set_control(ENABLE);
    check_eq!(timer.control(), ENABLE);
    let deadline = soon(timer);
    timer.set_compare(deadline);
    timer.set_control(ENABLE | IMASK);
    check!(timer::within_ms(2000, || timer.control() & ISTATUS != 0));
    check!(timer.count() >= deadline);
    check_eq!(timer.control(), ENABLE | IMASK | ISTATUS);
    let value = timer.value();
    check!(value as u32 as i32 <= 0, "TVAL {value:#x} has passed 0");
    timer.set_compare(timer.count() + timer::frequency() * 100);
    check_eq!(timer.control(), ENABLE | IMASK, "the condition is not met any more");
    timer.set_compare(timer.count() - 1);
    check_eq!(timer.control(), ENABLE | IMASK | ISTATUS);
    Ok(())
}

fn virtual_status() -> Outcome {
    status(Timer::Virtual)
}

fn physical_status() -> Outcome {
    status(Timer::Physical)
}

fn interrupt(timer: Timer) -> Outcome {
    open(timer);
    let deadline = soon(timer);
    timer.set_compare(deadline);
    timer.set_control(ENABLE);
    check!(interrupts::open_for_one(), "no interrupt; CTL {:#x}", timer.control());
    check!(timer.count() >= deadline);
    check_eq!(interrupts::acknowledged(0), timer.intid());
    check_eq!(interrupts::open_for(2), 0, "silenced, it does not come again");
    check_eq!(interrupts::count(), 1);
    Ok(())
}

fn virtual_interrupt() -> Outcome {
    interrupt(Timer::Virtual)
}

fn physical_interrupt() -> Outcome {
    interrupt(Timer::Physical)
}

fn up(timer: Timer) -> Outcome {
    let gic = open(timer);
    timer.set_compare(soon(timer));
    timer.set_control(ENABLE);
    let intid = timer.intid();
    check!(timer::within_ms(2000, || gic.is_pending(intid)));
    for time in 0..3 {
        check!(timer::within_ms(2000, || gic.highest_pending() == intid), "time {time}: the line is up");
        check_eq!(gic.acknowledge(), intid);
        check!(gic.is_active(intid));
        gic.end(intid);
        check!(!gic.is_active(intid));
    }
    check!(timer::within_ms(2000, || gic.is_pending(intid)));
    Ok(())
}

fn virtual_interrupt_comes_again_while_its_line_is_up() -> Outcome {
    up(Timer::Virtual)
}

fn physical_interrupt_comes_again_while_its_line_is_up() -> Outcome {
    up(Timer::Physical)
}

fn down(timer: Timer) -> Outcome {
    let gic = open(timer);
    let intid = timer.intid();
    for _ in 0..3 {
        timer.set_compare(0);
        timer.set_control(ENABLE);
        check!(timer::within_ms(2000, || gic.is_pending(intid)));
        check!(timer::within_ms(2000, || gic.highest_pending() == intid));
        timer.set_control(0);
        check!(timer::within_ms(2000, || !gic.is_pending(intid)), "not pending when the line is down");
        check!(timer::within_ms(2000, || gic.highest_pending() == 1023));
    }
    // While it is active the line still shows.
    timer.set_control(ENABLE);
    check!(timer::within_ms(2000, || gic.highest_pending() == intid));
    check_eq!(gic.acknowledge(), intid);
    check!(gic.is_pending(intid), "active and pending: the line is up");
    timer.set_control(0);
    check!(timer::within_ms(2000, || !gic.is_pending(intid)), "active, and the line is down");
    gic.end(intid);
    check!(timer::within_ms(2000, || gic.highest_pending() == 1023));
    Ok(())
}

fn virtual_interrupt_goes_with_its_line() -> Outcome {
    down(Timer::Virtual)
}

fn physical_interrupt_goes_with_its_line() -> Outcome {
    down(Timer::Physical)
}

fn mask(timer: Timer) -> Outcome {
    let gic = open(timer);
    timer.set_compare(0);
    timer.set_control(ENABLE | IMASK);
    check_eq!(interrupts::open_for(3), 0);
    check!(!gic.is_pending(timer.intid()));
    check_eq!(timer.control() & ISTATUS, ISTATUS);
    timer.set_control(ENABLE);
    check!(interrupts::open_for_one());
    check_eq!(interrupts::acknowledged(0), timer.intid());
    Ok(())
}

fn virtual_mask_holds_the_interrupt() -> Outcome {
    mask(Timer::Virtual)
}

fn physical_mask_holds_the_interrupt() -> Outcome {
    mask(Timer::Physical)
}

fn far_future(timer: Timer) -> Outcome {
    open(timer);
    for ahead in [u64::MAX, 1 << 62, timer::frequency() * 1000] {
        timer.set_compare(timer.count().saturating_add(ahead));
        timer.set_control(ENABLE);
        check_eq!(interrupts::open_for(2), 0, "{ahead:#x} ticks ahead");
    }
    timer.set_value(0x7fff_ffff);
    check_eq!(interrupts::open_for(2), 0);
    Ok(())
}

fn virtual_far_future_is_silent() -> Outcome {
    far_future(Timer::Virtual)
}

fn physical_far_future_is_silent() -> Outcome {
    far_future(Timer::Physical)
}

fn past(timer: Timer) -> Outcome {
    open(timer);
    timer.set_control(ENABLE);
    for way in 0..3 {
        match way {
            0 => timer.set_compare(0),
            1 => timer.set_value(0),
            _ => timer.set_value(u64::from((-1000_i32).cast_unsigned())),
        }
        timer.set_control(ENABLE);
        check!(interrupts::open_for_one(), "way {way}");
    }
    check_eq!(interrupts::count(), 3);
    Ok(())
}

fn virtual_past_fires_at_once() -> Outcome {
    past(Timer::Virtual)
}

fn physical_past_fires_at_once() -> Outcome {
    past(Timer::Physical)
}

fn hundred(timer: Timer) -> Outcome {
    open(timer);
    for number in 0..100 {
        let deadline = timer.count() + timer::frequency() / 10_000;
        timer.set_compare(deadline);
        timer.set_control(ENABLE);
        while interrupts::count() == number {
            // Masked on the way to sleep: the interrupt cannot slip in between.
            ins!("wfi", "msr DAIFClr, #2", "isb", "msr DAIFSet, #2");
            check!(timer.count() < deadline + timer::frequency() * 5, "tick {number} does not come");
        }
        check!(timer.count() >= deadline);
    }
    check_eq!(interrupts::count(), 100);
    Ok(())
}

fn virtual_ticks_a_hundred_times() -> Outcome {
    hundred(Timer::Virtual)
}

fn physical_ticks_a_hundred_times() -> Outcome {
    hundred(Timer::Physical)
}

fn both_at_once() -> Outcome {
    open(Timer::Virtual);
    open(Timer::Physical);
    for timer in [Timer::Virtual, Timer::Physical] {
        timer.set_value(timer::frequency() / 1000);
        timer.set_control(ENABLE);
    }
    check!(interrupts::open_until(2000, || interrupts::count() >= 2));
    let mut seen = [interrupts::acknowledged(0), interrupts::acknowledged(1)];
    seen.sort_unstable();
    check_eq!(seen, [timer::VIRTUAL_INTID, timer::PHYSICAL_INTID]);
    Ok(())
}

fn disabled_in_the_gic_stays_pending() -> Outcome {
    for timer in [Timer::Virtual, Timer::Physical] {
        let gic = open(timer);
        gic.disable(timer.intid());
        timer.set_value(0);
        timer.set_control(ENABLE);
        check_eq!(interrupts::open_for(2), 0, "{timer:?} is disabled");
        check!(gic.is_pending(timer.intid()), "{timer:?}");
        gic.enable(timer.intid());
        check!(interrupts::open_for_one(), "{timer:?} is enabled");
        check_eq!(interrupts::acknowledged(0), timer.intid());
    }
    Ok(())
}

static TICKED: AtomicU64 = AtomicU64::new(0);

/// Takes one interrupt of each timer on this CPU.
fn tick_here(_: u64) {
    let gic = Gic::detect();
    gic.init_cpu();
    for timer in [Timer::Virtual, Timer::Physical] {
        gic.enable(timer.intid());
        timer.set_value(timer::frequency() / 1000);
        timer.set_control(ENABLE);
        if interrupts::open_for_one() {
            TICKED.fetch_add(1, SeqCst);
        }
        timer.set_control(0);
    }
}

fn each_cpu_has_its_own() -> Outcome {
    let others = smp::present() - 1;
    skip_if!(others == 0, "one CPU");
    interrupts::listen();
    TICKED.store(0, SeqCst);
    for timer in [Timer::Virtual, Timer::Physical] {
        timer.set_compare(0x1234_5678);
    }
    for cpu in 1..=others {
        check_eq!(smp::start(cpu, tick_here, 0), 0);
    }
    for cpu in 1..=others {
        check!(smp::wait_off(cpu));
        check_eq!(interrupts::count_of(cpu), 2, "CPU {cpu}");
    }
    check_eq!(TICKED.load(SeqCst), others as u64 * 2);
    check_eq!(interrupts::count(), 0);
    for timer in [Timer::Virtual, Timer::Physical] {
        check_eq!(timer.compare(), 0x1234_5678);
    }
    Ok(())
}

fn el0_access_is_controlled() -> Outcome {
    let before = mrs!("CNTKCTL_EL1");
    let accesses = [
        (1 << 1, fragment!("mrs x0, CNTVCT_EL0", "svc #0")),
        (1 << 0, fragment!("mrs x0, CNTPCT_EL0", "svc #0")),
        (1 << 8, fragment!("mrs x0, CNTV_CVAL_EL0", "svc #0")),
        (1 << 9, fragment!("mrs x0, CNTP_CVAL_EL0", "svc #0")),
        (1 << 9, fragment!("mrs x0, CNTP_CTL_EL0", "svc #0")),
        (1 << 9, fragment!("msr CNTP_TVAL_EL0, x0", "svc #0")),
    ];
    for (bit, code) in accesses {
        msr!("CNTKCTL_EL1", 0);
        let denied = el0::call(code + USER, 0, 0).0;
        msr!("CNTKCTL_EL1", bit);
        let allowed = el0::call(code + USER, 0, 0).0;
        msr!("CNTKCTL_EL1", before);
        check_eq!(denied.class(), 0x18, "CNTKCTL_EL1 0, wanted {bit:#x}: {denied:x?}");
        check_eq!(allowed.class(), 0x15, "CNTKCTL_EL1 {bit:#x}: {allowed:x?}");
    }
    Ok(())
}

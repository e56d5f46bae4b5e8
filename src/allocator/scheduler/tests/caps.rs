//! What a cap lets a member have.

use proptest::prelude::*;

use super::*;

/// Returns what `slot` runs in each of `periods` whole periods.
fn in_each_period(cpu: &mut Cpu, slot: Slot, periods: u64) -> Vec<u64> {
    let mut had = Vec::new();
    for _ in 0..periods {
        let before = cpu.ran(slot);
        cpu.run_until((cpu.now / PERIOD + 1) * PERIOD);
        had.push(cpu.ran(slot) - before);
    }
    had
}

#[test]
fn a_cap_holds_in_each_period_also_alone() {
    for share in [shared(100), real_time(5)] {
        let mut cpu = Cpu::new(HZ);
        let slot = cpu.add(capped(share, 30));
        assert_eq!(cpu.queue.next_event(), Some(Ticks(PERIOD * 30 / 100)));
        assert_eq!(in_each_period(&mut cpu, slot, 100), [PERIOD * 30 / 100; 100]);
        cpu.run_until(cpu.now + PERIOD / 2);
        assert_eq!((cpu.runs(), cpu.does(slot)), (None, Standing::Throttled));
        assert_eq!(cpu.queue.next_event(), Some(Ticks(101 * PERIOD)));
        assert_eq!((cpu.queue.has_waiting(), cpu.queue.runnable()), (false, 0));
        assert!(cpu.queue.steal(Ticks(cpu.now), |_| true).is_none());
        assert_eq!(cpu.wake(slot), Reaction::Nothing);
    }
}

#[test]
fn what_a_cap_leaves_is_for_the_others() {
    let mut cpu = Cpu::new(HZ);
    let urgent = cpu.add(capped(real_time(31), 25));
    let [first, second] = [cpu.add(shared(100)), cpu.add(shared(300))];
    cpu.run_until(HZ);
    assert_eq!(cpu.ran(urgent), HZ / 4);
    assert!(
        cpu.ran(first).abs_diff(HZ * 3 / 16) < 2 * SLICE && cpu.ran(second).abs_diff(HZ * 9 / 16) < 2 * SLICE
    );
}

#[test]
fn a_hundred_percent_are_no_cap() {
    let mut cpu = Cpu::new(HZ);
    let slot = cpu.add(capped(Share::default(), 100));
    assert_eq!((cpu.runs(), cpu.queue.next_event()), (Some(slot), None));
}

#[test]
fn an_overrun_is_charged_to_the_next_period() {
    let mut cpu = Cpu::new(HZ);
    let slot = cpu.add(capped(Share::default(), 10));
    cpu.now = PERIOD / 10 + 700;
    let _ = cpu.attend();
    assert_eq!(cpu.runs(), None);
    cpu.run_until(PERIOD);
    assert_eq!(in_each_period(&mut cpu, slot, 2), [PERIOD / 10 - 700, PERIOD / 10]);
    // Eight periods' worth in one run: the seventh period after it is the first with a budget.
    cpu.now += 8 * PERIOD / 10;
    let _ = cpu.attend();
    cpu.run_until((cpu.now / PERIOD + 1) * PERIOD);
    assert_eq!(in_each_period(&mut cpu, slot, 8), [0, 0, 0, 0, 0, 0, 0, PERIOD / 10]);
}

#[test]
fn who_has_spent_its_budget_is_woken_into_the_next_period() {
    let mut cpu = Cpu::new(HZ);
    let slot = cpu.add(capped(Share::default(), 10));
    cpu.now = PERIOD / 10;
    cpu.switch(After::Waits { until: None });
    assert_eq!(cpu.queue.next_event(), None);
    cpu.now += 5;
    assert_eq!(cpu.wake(slot), Reaction::Attend);
    assert_eq!((cpu.does(slot), cpu.queue.next_event()), (Standing::Throttled, Some(Ticks(PERIOD))));
    cpu.run_until(PERIOD);
    assert_eq!(cpu.runs(), Some(slot));
    assert_eq!(cpu.account(slot).waited, Ticks(PERIOD - PERIOD / 10 - 5));
}

#[test]
fn a_budget_moves_with_its_member() {
    let mut cpu = Cpu::new(HZ);
    let slot = cpu.add(capped(Share::default(), 10));
    cpu.now = PERIOD / 10;
    cpu.switch(After::Waits { until: None });
    let (baggage, share, account) = cpu.queue.leave(slot, Ticks(cpu.now)).unwrap();
    let slot = cpu.queue.join(baggage, share, account);
    let _ = cpu.wake(slot);
    assert_eq!(cpu.does(slot), Standing::Throttled);
}

fn any_capped() -> impl Strategy<Value = Share> {
    let class = prop_oneof![(0_u8..32).prop_map(real_time), (1_u16..1000).prop_map(shared)];
    (class, 1_u8..100).prop_map(|(share, percent)| capped(share, percent))
}

/// Adds members; returns their slots and caps in percent.
fn add_all(cpu: &mut Cpu, shares: Vec<Share>) -> Vec<(Slot, u64)> {
    let cap = |share: Share| u64::from(share.cap_percent.unwrap_or(100));
    shares.into_iter().map(|share| (cpu.add(share), cap(share))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

    #[test]
    fn no_more_than_the_cap_in_each_period(
        shares in prop::collection::vec(any_capped(), 1..6),
        pauses in prop::collection::vec(0..2 * PERIOD, 1..20),
    ) {
        let mut cpu = Cpu::new(HZ);
        let members = add_all(&mut cpu, shares);
        for (period, pause) in pauses.iter().cycle().take(if cfg!(miri) { 5 } else { 50 }).enumerate() {
            let before: Vec<u64> = members.iter().map(|(slot, _)| cpu.ran(*slot)).collect();
            let end = (u64::try_from(period).unwrap() + 1) * PERIOD;
            cpu.run_until(end - pause % PERIOD);
            if cpu.runs().is_some() {
                cpu.wait(cpu.now + pause);
            }
            cpu.run_until(end);
            for ((slot, percent), before) in members.iter().zip(before) {
                prop_assert!(cpu.ran(*slot) - before <= PERIOD * percent / 100);
            }
        }
    }

    #[test]
    fn a_late_caller_gives_nobody_more_than_its_delay(
        shares in prop::collection::vec(any_capped(), 1..6),
        delays in prop::collection::vec(0..3000_u64, 1..20),
    ) {
        let mut cpu = Cpu::new(HZ);
        let members = add_all(&mut cpu, shares);
        let longest = delays.iter().copied().max().unwrap_or(0);
        for delay in delays.iter().cycle().take(if cfg!(miri) { 40 } else { 400 }) {
            cpu.now = cpu.queue.next_event().map_or(cpu.now, |event| event.0.max(cpu.now)) + delay;
            let _ = cpu.attend();
            for (slot, percent) in &members {
                let periods = cpu.now / PERIOD + 1;
                prop_assert!(cpu.ran(*slot) <= periods * PERIOD * percent / 100 + longest);
            }
        }
    }
}

//! Who runs when.

use super::*;

#[test]
fn a_member_waits_until_it_is_woken() {
    let mut cpu = Cpu::new(HZ);
    let slot = cpu.join(Share::default());
    assert_eq!((cpu.queue.attend(Ticks(0)), cpu.does(slot)), (Verdict::Stay, Standing::Waits));
    assert_eq!(cpu.queue.wake(slot, Ticks(1)), Reaction::Attend);
    assert_eq!(cpu.does(slot), Standing::Queued);
    assert_eq!(cpu.queue.attend(Ticks(2)), Verdict::Switch);
    let (started, baggage, account) = cpu.queue.start(Ticks(3)).unwrap();
    assert_eq!((started, baggage, account.waited), (slot, 0, Ticks(2)));
    assert_eq!(cpu.queue.wake(slot, Ticks(4)), Reaction::Runs);
    assert_eq!(cpu.queue.start(Ticks(4)), None);
}

#[test]
fn nobody_and_a_stale_name_are_no_trouble() {
    let mut cpu = Cpu::new(HZ);
    let slot = cpu.join(Share::default());
    assert!(cpu.queue.leave(slot, Ticks(0)).is_some());
    for name in [slot, Slot::new(7), Slot::new(u32::MAX)] {
        assert_eq!(cpu.queue.wake(name, Ticks(0)), Reaction::Nothing);
        assert!(cpu.queue.leave(name, Ticks(0)).is_none());
        assert!(cpu.queue.standing(name, Ticks(0)).is_none());
        assert!(cpu.queue.get(name).is_none());
    }
    assert!(cpu.queue.retire(Ticks(0)).is_none());
    cpu.queue.put_back(Ticks(0), 1, After::Yields);
    assert_eq!((cpu.queue.members(), cpu.queue.runnable(), cpu.queue.next_event()), (0, 0, None));
}

#[test]
fn the_name_of_one_that_left_is_used_again() {
    let mut cpu = Cpu::new(HZ);
    let slot = cpu.join(Share::default());
    cpu.add(Share::default());
    assert_eq!(cpu.queue.leave(slot, Ticks(0)).map(|left| left.0), Some(0));
    assert_eq!(cpu.join(real_time(3)), slot);
    assert_eq!(cpu.queue.get(slot), Some(&2));
}

#[test]
fn no_timer_where_nobody_waits_for_one() {
    let mut cpu = Cpu::new(HZ);
    assert_eq!(cpu.queue.next_event(), None);
    let alone = cpu.add(Share::default());
    assert_eq!((cpu.runs(), cpu.queue.next_event()), (Some(alone), None));
    let other = cpu.join(Share::default());
    cpu.now = 1000 * HZ;
    assert_eq!(cpu.wake(other), Reaction::Attend);
    assert!(cpu.queue.next_event().is_some());
    cpu.run_until(cpu.now + SLICE);
    cpu.switch(After::Waits { until: None });
    assert!(cpu.runs().is_some());
    assert_eq!(cpu.queue.next_event(), None);
    cpu.wait(cpu.now + 5);
    assert_eq!((cpu.runs(), cpu.queue.next_event()), (None, Some(Ticks(cpu.now + 5))));
}

#[test]
fn a_shared_one_needs_no_timer_of_a_real_time_one() {
    let mut cpu = Cpu::new(HZ);
    cpu.add(Share::default());
    let urgent = cpu.add(real_time(0));
    assert_eq!((cpu.runs(), cpu.queue.next_event()), (Some(urgent), None));
    let equal = cpu.join(real_time(0));
    assert_eq!(cpu.queue.wake(equal, Ticks(cpu.now)), Reaction::Attend);
    assert_eq!(cpu.queue.next_event(), Some(Ticks(SLICE)));
}

#[test]
fn a_deadline_wakes_and_a_wake_forgets_the_deadline() {
    let mut cpu = Cpu::new(HZ);
    let slot = cpu.add(Share::default());
    cpu.wait(300);
    cpu.run_until(299);
    assert_eq!(cpu.runs(), None);
    cpu.run_until(300);
    assert_eq!(cpu.runs(), Some(slot));
    for _ in 0..1000 {
        cpu.wait(u64::MAX - 1);
        assert_eq!(cpu.queue.next_event(), Some(Ticks(u64::MAX - 1)));
        assert_eq!(cpu.wake(slot), Reaction::Attend);
        assert_eq!((cpu.runs(), cpu.queue.next_event()), (Some(slot), None));
    }
}

#[test]
fn a_deadline_that_has_come_is_no_wait() {
    let mut cpu = Cpu::new(HZ);
    let slot = cpu.add(Share::default());
    cpu.now = 500;
    cpu.wait(500);
    assert_eq!(cpu.runs(), Some(slot));
}

#[test]
fn higher_priorities_preempt_at_once_and_lower_ones_never() {
    let mut cpu = Cpu::new(HZ);
    let busy = cpu.add(Share::default());
    let [low, high] = [cpu.join(real_time(4)), cpu.join(real_time(31))];
    assert_eq!((cpu.runs(), cpu.wake(low)), (Some(busy), Reaction::Attend));
    assert_eq!((cpu.runs(), cpu.wake(high)), (Some(low), Reaction::Attend));
    assert_eq!(cpu.runs(), Some(high));
    let late = cpu.join(real_time(30));
    assert_eq!(cpu.wake(late), Reaction::Nothing);
    cpu.run_until(HZ);
    for next in [late, low, busy] {
        cpu.switch(After::Waits { until: None });
        assert_eq!(cpu.runs(), Some(next));
    }
    assert_eq!(cpu.ran(high), HZ);
}

#[test]
fn equal_priorities_take_turns_by_slices() {
    let mut cpu = Cpu::new(HZ);
    let slots = [cpu.add(real_time(9)), cpu.add(real_time(9)), cpu.add(real_time(9))];
    for turn in 0..9 {
        assert_eq!(cpu.runs(), Some(slots[turn % 3]));
        cpu.run_until(cpu.now + SLICE);
    }
    assert_eq!(slots.map(|slot| cpu.ran(slot)), [3 * SLICE; 3]);
}

#[test]
fn an_interrupted_slice_goes_on_before_its_equals() {
    let mut cpu = Cpu::new(HZ);
    let [first, second] = [cpu.add(real_time(1)), cpu.add(real_time(1))];
    cpu.run_until(SLICE - 10);
    let urgent = cpu.add(real_time(2));
    cpu.run_until(5 * SLICE);
    assert_eq!(cpu.runs(), Some(urgent));
    cpu.switch(After::Waits { until: None });
    assert_eq!((cpu.runs(), cpu.queue.next_event()), (Some(first), Some(Ticks(5 * SLICE + 10))));
    cpu.run_until(5 * SLICE + 10);
    assert_eq!(cpu.runs(), Some(second));
}

#[test]
fn a_sleeper_preempts_a_busy_neighbour_at_once() {
    for weight in [1, DEFAULT_WEIGHT, 10_000] {
        let mut cpu = Cpu::new(HZ);
        let busy = cpu.add(shared(10_000));
        let sleeper = cpu.join(shared(weight));
        cpu.run_until(7 * SLICE / 2);
        for _ in 0..100 {
            assert_eq!((cpu.runs(), cpu.wake(sleeper)), (Some(busy), Reaction::Attend));
            assert_eq!(cpu.runs(), Some(sleeper));
            cpu.now += 1;
            cpu.switch(After::Waits { until: None });
            cpu.run_until(cpu.now + 20 * SLICE * 10_000 / u64::from(weight) / 100);
        }
    }
}

#[test]
fn one_that_yields_is_behind_the_others() {
    let mut cpu = Cpu::new(HZ);
    let slots = [cpu.add(shared(400)), cpu.add(shared(100)), cpu.add(shared(100))];
    let mut turns = [0; 3];
    for _ in 0..300 {
        let before = cpu.runs().unwrap();
        turns[index(before.index())] += 1;
        cpu.now += 1;
        cpu.switch(After::Yields);
        assert_ne!(cpu.runs(), Some(before));
    }
    assert!(turns.iter().all(|turns| *turns >= 90), "{turns:?} of {slots:?}");
}

#[test]
fn yields_gather_no_claim() {
    let mut cpu = Cpu::new(HZ);
    let [polite, busy] = [cpu.add(Share::default()), cpu.add(Share::default())];
    while cpu.now < HZ {
        if cpu.runs() == Some(polite) {
            cpu.now += 1;
            cpu.switch(After::Yields);
        } else {
            cpu.run_on(HZ);
        }
    }
    let polite_ran = cpu.ran(polite);
    cpu.run_until(2 * HZ);
    assert!(cpu.ran(polite) - polite_ran < HZ / 2 + 2 * SLICE);
    assert!(cpu.ran(busy) > HZ);
}

#[test]
fn the_running_one_leaves_by_retiring_only() {
    let mut cpu = Cpu::new(HZ);
    let slot = cpu.add(shared(7));
    cpu.run_until(123);
    assert!(cpu.queue.leave(slot, Ticks(123)).is_none());
    let (share, account) = cpu.queue.retire(Ticks(125)).unwrap();
    assert_eq!((share, account.ran), (shared(7), Ticks(125)));
    assert_eq!((cpu.queue.members(), cpu.queue.running()), (0, None));
}

#[test]
fn an_idle_cpu_steals_who_would_be_next_and_fits() {
    let mut cpu = Cpu::new(HZ);
    let [_, second, third] =
        [cpu.add(Share::default()), cpu.add(Share::default()), cpu.add(Share::default())];
    let [_, low] = [cpu.add(real_time(3)), cpu.add(real_time(1))];
    cpu.now = 50;
    let (slot, _, share, account) = cpu.queue.steal(Ticks(50), |_| true).unwrap();
    assert_eq!((slot, share, account.waited), (low, real_time(1), Ticks(50)));
    let stolen = cpu.queue.steal(Ticks(50), |baggage| *baggage == 2).unwrap();
    assert_eq!((stolen.0, stolen.1), (third, 2));
    assert!(cpu.queue.steal(Ticks(50), |baggage| *baggage == 3).is_none(), "it runs");
    assert!(cpu.queue.steal(Ticks(50), |_| true).is_some());
    assert_eq!(cpu.queue.steal(Ticks(50), |_| true).map(|stolen| stolen.0), Some(second));
    assert!(!cpu.queue.has_waiting());
}

#[test]
fn who_moves_takes_along_what_it_has_had() {
    let mut cpus = [Cpu::new(HZ), Cpu::new(HZ)];
    for cpu in &mut cpus {
        cpu.add(shared(10_000));
    }
    // Of weight 1, it is ahead by 10,000 slices of its neighbours after one of its own.
    let mut account = Account::default();
    for turn in 0..1000 {
        let cpu = &mut cpus[turn % 2];
        let slot = cpu.queue.join(9, shared(1), account);
        let _ = cpu.wake(slot);
        cpu.run_until(cpu.now + 2 * SLICE);
        if cpu.runs() == Some(slot) {
            cpu.switch(After::Yields);
        }
        account = cpu.queue.leave(slot, Ticks(cpu.now)).unwrap().2;
    }
    assert!(account.ran.0 <= 2 * SLICE, "{account:?}");
    assert!(account.waited.0 >= 1990 * SLICE, "{account:?}");
}

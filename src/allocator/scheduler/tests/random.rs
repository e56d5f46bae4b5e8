//! Whatever the order of events: nobody is lost, ranks hold, time adds up, nothing panics.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Event {
    Join(Share),
    Leave(u32),
    Retire,
    Wake(u32),
    Pass(u64),
    Attend,
    PutBack(After),
    Start,
    Steal(u32),
}

fn any_share() -> impl Strategy<Value = Share> {
    let class = prop_oneof![
        any::<u8>().prop_map(|priority| Class::RealTime { priority }),
        any::<u16>().prop_map(|weight| Class::Shared { weight }),
        (1_u16..5).prop_map(|weight| Class::Shared { weight }),
    ];
    let cap = prop_oneof![Just(None), any::<u8>().prop_map(Some), (0_u8..10).prop_map(Some)];
    (class, cap).prop_map(|(class, cap_percent)| Share { class, cap_percent })
}

fn any_ticks() -> impl Strategy<Value = u64> {
    prop_oneof![0..10_u64, 0..2 * SLICE, 0..3 * PERIOD, any::<u64>()]
}

fn any_event(any_pass: impl Strategy<Value = u64>) -> impl Strategy<Value = Event> {
    let after = prop_oneof![
        Just(After::Yields),
        prop::option::of(any_ticks()).prop_map(|until| After::Waits { until: until.map(Ticks) }),
    ];
    prop_oneof![
        2 => any_share().prop_map(Event::Join),
        1 => (0..12_u32).prop_map(Event::Leave),
        1 => Just(Event::Retire),
        6 => (0..12_u32).prop_map(Event::Wake),
        4 => any_pass.prop_map(Event::Pass),
        4 => Just(Event::Attend),
        4 => after.prop_map(Event::PutBack),
        6 => Just(Event::Start),
        1 => (0..4_u32).prop_map(Event::Steal),
    ]
}

/// A queue, and who should be in it.
struct Watched {
    queue: RunQueue<u32>,
    now: u64,
    joined: u32,
    /// Baggage by slot, of all members.
    members: BTreeMap<u32, u32>,
    runs: Option<(Slot, u32)>,
    busy: u64,
    gone: u64,
}

impl Watched {
    fn new() -> Self {
        let queue = RunQueue::new(HZ);
        Self { queue, now: 0, joined: 0, members: BTreeMap::new(), runs: None, busy: 0, gone: 0 }
    }

    fn take(&mut self, left: Option<(Slot, u32, Account)>) {
        if let Some((slot, baggage, account)) = left {
            assert_eq!(self.members.remove(&slot.index()), Some(baggage));
            self.gone += account.ran.0;
        }
    }

    fn rank(&self, slot: Slot) -> u8 {
        match self.queue.standing(slot, Ticks(self.now)).unwrap().0.class {
            Class::RealTime { priority } => priority.min(MAX_PRIORITY) + 1,
            Class::Shared { .. } => 0,
        }
    }

    fn with_standing(&self, standing: Standing) -> BTreeSet<u32> {
        let now = Ticks(self.now);
        let has = |slot: &u32| self.queue.standing(Slot(*slot), now).is_some_and(|found| found.2 == standing);
        self.members.keys().copied().filter(has).collect()
    }

    fn apply(&mut self, event: Event) {
        let now = Ticks(self.now);
        match event {
            Event::Join(share) => {
                let slot = self.queue.join(self.joined, share, Account::default());
                assert_eq!(self.members.insert(slot.index(), self.joined), None);
                self.joined += 1;
            }
            Event::Leave(slot) => {
                let left = self.queue.leave(Slot(slot), now);
                let may = self.members.contains_key(&slot) && self.queue.running() != Some(Slot(slot));
                assert_eq!(left.is_some(), may);
                self.take(left.map(|(baggage, _, account)| (Slot(slot), baggage, account)));
            }
            Event::Retire => {
                let runs = self.runs.take();
                let retired = self.queue.retire(now);
                assert_eq!(retired.is_some(), runs.is_some());
                self.take(runs.zip(retired).map(|((slot, baggage), (_, account))| (slot, baggage, account)));
            }
            Event::Wake(slot) => self.wake(Slot(slot)),
            Event::Pass(ticks) => {
                let now = self.now.saturating_add(ticks);
                self.busy += if self.runs.is_some() { now - self.now } else { 0 };
                self.now = now;
            }
            Event::Attend => self.attend(),
            Event::PutBack(after) => {
                if let Some((_, baggage)) = self.runs.take() {
                    self.queue.put_back(now, baggage, after);
                }
            }
            Event::Start => self.start(),
            Event::Steal(divisor) => {
                let stolen = self.queue.steal(now, |baggage| baggage % 4 == divisor);
                self.take(stolen.map(|(slot, baggage, _, account)| (slot, baggage, account)));
            }
        }
        self.check();
    }

    fn wake(&mut self, slot: Slot) {
        let before = self.queue.standing(slot, Ticks(self.now)).map(|found| found.2);
        let event = self.queue.next_event();
        let reaction = self.queue.wake(slot, Ticks(self.now));
        match before {
            Some(Standing::Runs) => assert_eq!(reaction, Reaction::Runs),
            Some(Standing::Waits) if reaction == Reaction::Nothing => {
                let is_told_in_time = match (event, self.queue.next_event()) {
                    (_, None) => true,
                    (Some(before), Some(after)) => after >= before.min(Ticks(self.now)),
                    (None, Some(_)) => false,
                };
                assert!(is_told_in_time, "{event:?} then {:?}", self.queue.next_event());
            }
            Some(Standing::Waits) => assert_eq!(reaction, Reaction::Attend),
            _ => assert_eq!(reaction, Reaction::Nothing),
        }
    }

    fn attend(&mut self) {
        let verdict = self.queue.attend(Ticks(self.now));
        assert!(
            self.queue
                .next_event()
                .is_none_or(|event| self.runs.is_none() || event.0 >= self.now || verdict == Verdict::Switch)
        );
        match self.runs {
            None => assert_eq!(verdict == Verdict::Switch, self.queue.has_waiting()),
            Some((slot, _)) => {
                let queued = self.with_standing(Standing::Queued);
                let highest = queued.into_iter().map(|slot| self.rank(Slot(slot))).max();
                if highest.is_some_and(|highest| highest > self.rank(slot)) {
                    assert_eq!(verdict, Verdict::Switch);
                }
            }
        }
    }

    fn start(&mut self) {
        let queued = self.with_standing(Standing::Queued);
        let highest = queued.iter().map(|slot| self.rank(Slot(*slot))).max();
        let had = self.runs.is_some();
        if let Some((slot, baggage, _)) = self.queue.start(Ticks(self.now)) {
            assert!(!had && queued.contains(&slot.index()));
            assert_eq!(highest, Some(self.rank(slot)));
            assert_eq!(self.members.get(&slot.index()), Some(&baggage));
            self.runs = Some((slot, baggage));
        } else {
            assert!(had || queued.is_empty());
        }
    }

    fn check(&self) {
        let queued = self.with_standing(Standing::Queued);
        let runs = self.with_standing(Standing::Runs);
        assert_eq!(self.queue.members(), self.members.len());
        assert_eq!(self.queue.runnable(), queued.len() + runs.len());
        assert_eq!(self.queue.has_waiting(), !queued.is_empty());
        assert!(runs.iter().copied().eq(self.runs.map(|(slot, _)| slot.index())));
        assert_eq!(self.queue.running(), self.runs.map(|(slot, _)| slot));
        let mut ran = self.gone;
        for (slot, baggage) in &self.members {
            let (_, account, standing) = self.queue.standing(Slot(*slot), Ticks(self.now)).unwrap();
            assert_eq!(self.queue.get(Slot(*slot)), (standing != Standing::Runs).then_some(baggage));
            assert!(account.ran.0.checked_add(account.waited.0).is_some_and(|sum| sum <= self.now));
            ran += account.ran.0;
        }
        assert_eq!(ran, self.busy);
        if !self.with_standing(Standing::Throttled).is_empty() {
            assert!(self.queue.next_event().is_some());
        }
    }

    /// Takes all that are left, one after the other, as the queue gives them away.
    fn drain(&mut self) {
        self.apply(Event::Retire);
        for slot in self.with_standing(Standing::Waits) {
            let _ = self.queue.wake(Slot(slot), Ticks(self.now));
        }
        let throttled = self.with_standing(Standing::Throttled);
        for _ in 0..self.members.len() - throttled.len() {
            self.apply(Event::Start);
            self.apply(Event::Retire);
        }
        assert_eq!(self.members.len(), throttled.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

    #[test]
    fn any_events_keep_the_queue_whole(
        events in prop::collection::vec(any_event(prop_oneof![0..10_u64, 0..2 * SLICE, 0..3 * PERIOD]), 0..400),
    ) {
        let mut watched = Watched::new();
        for event in events {
            watched.apply(event);
        }
        watched.drain();
    }

    #[test]
    fn no_clock_panics(
        frequency_hz in prop_oneof![Just(0), 1..1000_u64, any::<u64>()],
        events in prop::collection::vec((any_event(any_ticks()), any::<u64>()), 0..200),
    ) {
        let mut queue = RunQueue::new(frequency_hz);
        let mut runs = None;
        for (event, now) in events {
            let now = Ticks(now);
            match event {
                Event::Join(share) => { queue.join(0, share, Account::default()); }
                Event::Leave(slot) => { let _ = queue.leave(Slot(slot), now); }
                Event::Retire => { runs = None; let _ = queue.retire(now); }
                Event::Wake(slot) => { let _ = queue.wake(Slot(slot), now); }
                Event::Pass(_) | Event::Attend => { let _ = queue.attend(now); }
                Event::PutBack(after) => if runs.take().is_some() { queue.put_back(now, 0, after); },
                Event::Start => runs = queue.start(now).map(|started| started.0).or(runs),
                Event::Steal(_) => { let _ = queue.steal(now, |_| true); }
            }
            let _ = queue.next_event();
            prop_assert_eq!(queue.running(), runs);
        }
    }
}

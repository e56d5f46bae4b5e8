//! Facts about the scheduler, and a CPU that does what the scheduler says, in no time and at the right time.

use super::*;
use crate::share::{Class, DEFAULT_WEIGHT, MAX_PRIORITY};

mod caps;
mod facts;
mod fairness;
mod parts;
mod random;

const HZ: u64 = 1_000_000;
const SLICE: u64 = HZ / 1000;
const PERIOD: u64 = HZ / 100;

const fn shared(weight: u16) -> Share {
    Share { class: Class::Shared { weight }, cap_percent: None }
}

const fn real_time(priority: u8) -> Share {
    Share { class: Class::RealTime { priority }, cap_percent: None }
}

const fn capped(share: Share, percent: u8) -> Share {
    Share { cap_percent: Some(percent), ..share }
}

/// A CPU whose members' baggage is the number under which they joined.
struct Cpu {
    queue: RunQueue<u32>,
    now: u64,
    runs: Option<(Slot, u32)>,
    joined: u32,
    switches: u64,
}

impl Cpu {
    fn new(frequency_hz: u64) -> Self {
        Self { queue: RunQueue::new(frequency_hz), now: 0, runs: None, joined: 0, switches: 0 }
    }

    fn join(&mut self, share: Share) -> Slot {
        let slot = self.queue.join(self.joined, share, Account::default());
        self.joined += 1;
        slot
    }

    /// Joins and wakes one, which may run at once.
    fn add(&mut self, share: Share) -> Slot {
        let slot = self.join(share);
        let _ = self.wake(slot);
        slot
    }

    fn wake(&mut self, slot: Slot) -> Reaction {
        let reaction = self.queue.wake(slot, Ticks(self.now));
        if reaction == Reaction::Attend {
            let _ = self.attend();
        }
        reaction
    }

    fn attend(&mut self) -> Verdict {
        let verdict = self.queue.attend(Ticks(self.now));
        if verdict == Verdict::Switch {
            self.switch(After::Yields);
        }
        verdict
    }

    fn switch(&mut self, after: After) {
        let now = Ticks(self.now);
        if let Some((_, baggage)) = self.runs.take() {
            self.queue.put_back(now, baggage, after);
        }
        self.runs = self.queue.start(now).map(|(slot, baggage, _)| (slot, baggage));
        self.switches += 1;
    }

    fn wait(&mut self, until: u64) {
        self.switch(After::Waits { until: Some(Ticks(until)) });
    }

    /// Lets time pass until `end`, or until another member runs.
    fn run_on(&mut self, end: u64) {
        let runs = self.runs;
        while self.now < end && self.runs == runs {
            self.step(end);
        }
    }

    fn run_until(&mut self, end: u64) {
        while self.now < end {
            self.step(end);
        }
    }

    fn step(&mut self, end: u64) {
        match self.queue.next_event() {
            Some(Ticks(event)) if event <= end => {
                self.now = self.now.max(event);
                let _ = self.attend();
            }
            _ => self.now = end,
        }
    }

    fn account(&self, slot: Slot) -> Account {
        self.queue.standing(slot, Ticks(self.now)).unwrap().1
    }

    fn ran(&self, slot: Slot) -> u64 {
        self.account(slot).ran.0
    }

    fn does(&self, slot: Slot) -> Standing {
        self.queue.standing(slot, Ticks(self.now)).unwrap().2
    }

    fn runs(&self) -> Option<Slot> {
        assert_eq!(self.queue.running(), self.runs.map(|(slot, _)| slot));
        self.queue.running()
    }
}

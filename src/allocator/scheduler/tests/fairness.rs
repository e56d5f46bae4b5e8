//! Who has had how much in the end.

use proptest::prelude::*;

use super::*;

/// A generator for what members do; proptest gives the seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides.max(1)
    }
}

/// Runs members of these weights for a second; returns by how many slices each is off, and how many it should have had.
fn second_of(frequency_hz: u64, weights: &[u16]) -> Vec<(f64, f64)> {
    let mut cpu = Cpu::new(frequency_hz);
    let slots: Vec<Slot> = weights.iter().map(|weight| cpu.add(shared(*weight))).collect();
    cpu.run_until(frequency_hz);
    let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let ran = |slot| u32::try_from(cpu.ran(slot) * 1_000_000 / frequency_hz).map(f64::from).unwrap() / 1000.0;
    let ideal = weights.iter().map(|weight| 1000.0 * f64::from(*weight) / sum);
    slots.into_iter().zip(ideal).map(|(slot, ideal)| ((ran(slot) - ideal).abs(), ideal)).collect()
}

#[test]
fn a_second_is_shared_by_weight() {
    for frequency_hz in [1_000_000, 19_200_000, 54_000_000, 62_500_000, 1_000_000_000] {
        let sets: [&[u16]; 6] =
            [&[1, 2, 4], &[100, 200, 400], &[2500, 5000, 10_000], &[100, 100], &[1, 1, 1], &[10_000, 9999]];
        for weights in sets {
            for (off, ideal) in second_of(frequency_hz, weights) {
                assert!(off <= ideal * 0.02, "{weights:?} at {frequency_hz}: {off} of {ideal}");
            }
        }
    }
}

#[test]
fn sixty_four_of_all_weights_get_their_shares() {
    let weights: Vec<u16> = (1..=64).map(|weight| weight * 150).collect();
    for (off, ideal) in second_of(HZ, &weights) {
        assert!(off <= ideal * 0.02 + 2.0, "{off} of {ideal}");
    }
}

#[test]
fn years_do_not_matter() {
    let mut cpu = Cpu::new(1_000_000_000);
    let slots = [cpu.add(shared(1)), cpu.join(shared(1)), cpu.join(shared(2))];
    cpu.run_until(40 * 365 * 86_400 * 1_000_000_000);
    let start = cpu.now;
    let _ = cpu.wake(slots[1]);
    let _ = cpu.wake(slots[2]);
    let before = slots.map(|slot| cpu.ran(slot));
    cpu.run_until(start + 1_000_000_000);
    let ran = [0, 1, 2].map(|member| (cpu.ran(slots[member]) - before[member]) / 1_000_000);
    assert!((245..=255).contains(&ran[0]) && (245..=255).contains(&ran[1]), "{ran:?}");
}

/// Shared members that do as they like, real-time ones among them, and how long each waited of what these left.
struct Crowd {
    cpu: Cpu,
    slots: Vec<Slot>,
    weights: Vec<u16>,
    urgent: Option<Slot>,
    /// Time that shared members had when each member began to wait.
    since: Vec<u64>,
    longest: Vec<u64>,
}

impl Crowd {
    fn new(weights: Vec<u16>, has_urgent: bool) -> Self {
        let mut cpu = Cpu::new(HZ);
        let slots: Vec<Slot> = weights.iter().map(|weight| cpu.add(shared(*weight))).collect();
        let urgent = has_urgent.then(|| cpu.add(real_time(1)));
        let zeros = vec![0; slots.len()];
        Self { cpu, slots, weights, urgent, since: zeros.clone(), longest: zeros }
    }

    fn note(&mut self) {
        let shared: u64 = self.slots.iter().map(|slot| self.cpu.ran(*slot)).sum();
        for (member, slot) in self.slots.iter().enumerate() {
            if self.cpu.does(*slot) != Standing::Queued {
                self.since[member] = shared;
            }
            self.longest[member] = self.longest[member].max(shared - self.since[member]);
        }
    }

    /// Lets the running member go on for a while, and then do something.
    fn turn(&mut self, dice: &mut Dice) {
        let busy = dice.roll(2 * SLICE);
        let end = self.cpu.now + busy;
        while self.cpu.now < end {
            self.cpu.step(end);
            self.note();
        }
        let some = self.slots[index(u32::try_from(dice.roll(64)).unwrap()) % self.slots.len()];
        match (dice.roll(6), self.cpu.runs()) {
            (_, Some(runs)) if self.urgent == Some(runs) => self.cpu.wait(end + 2 * busy),
            (0, Some(_)) => self.cpu.wait(end + dice.roll(20 * SLICE)),
            (1, Some(_)) => self.cpu.switch(After::Waits { until: None }),
            (2, Some(_)) => self.cpu.switch(After::Yields),
            _ => {
                let _ = self.cpu.wake(some);
            }
        }
        self.note();
    }

    fn bound(&self, member: usize) -> u64 {
        let sum: u64 = self.weights.iter().copied().map(u64::from).sum();
        let members = u64::try_from(self.weights.len()).unwrap();
        SLICE * (sum.div_ceil(u64::from(self.weights[member])) + 3 * members)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

    #[test]
    fn three_always_runnable_ones_share_a_second(weights in prop::array::uniform3(1_u16..=10_000)) {
        prop_assume!(!cfg!(miri));
        for (off, ideal) in second_of(HZ, &weights) {
            prop_assert!(off <= ideal * 0.02 + 1.5, "{:?}: {} of {}", weights, off, ideal);
        }
    }

    #[test]
    fn no_pattern_of_sleep_gets_more_than_the_fair_share(
        weight in 1_u16..=10_000,
        others in prop::collection::vec(1_u16..=10_000, 1..5),
        seed in 1..u64::MAX,
        longest_run in 1..3 * SLICE,
        longest_sleep in 1..10 * SLICE,
    ) {
        let mut cpu = Cpu::new(HZ);
        let busy: Vec<Slot> = others.iter().map(|weight| cpu.add(shared(*weight))).collect();
        let sleeper = cpu.add(shared(weight));
        let sum: u64 = others.iter().copied().map(u64::from).sum::<u64>() + u64::from(weight);
        let mut dice = Dice(seed);
        for _ in 0..if cfg!(miri) { 20 } else { 1000 } {
            if cpu.runs() == Some(sleeper) {
                cpu.run_on(cpu.now + dice.roll(longest_run));
            } else {
                cpu.run_on(cpu.now + SLICE);
            }
            if cpu.runs() == Some(sleeper) {
                match dice.roll(3) {
                    0 => cpu.switch(After::Yields),
                    _ => cpu.wait(cpu.now + dice.roll(longest_sleep)),
                }
            }
            let fair = cpu.now * u64::from(weight) / sum;
            prop_assert!(cpu.ran(sleeper) <= fair + 6 * SLICE, "{} of {} at {}", cpu.ran(sleeper), fair, cpu.now);
        }
        for (slot, weight) in busy.into_iter().zip(others) {
            let fair = cpu.now * u64::from(weight) / sum;
            prop_assert!(cpu.ran(slot) + 6 * SLICE >= fair, "{} of {}", cpu.ran(slot), fair);
        }
    }

    #[test]
    fn no_shared_one_starves(
        weights in prop::collection::vec(1_u16..=10_000, 1..12),
        has_urgent in any::<bool>(),
        seed in 1..u64::MAX,
    ) {
        let mut crowd = Crowd::new(weights, has_urgent);
        let mut dice = Dice(seed);
        for _ in 0..if cfg!(miri) { 20 } else { 2000 } {
            crowd.turn(&mut dice);
        }
        for (member, longest) in crowd.longest.iter().enumerate() {
            prop_assert!(*longest <= crowd.bound(member), "{} of {}", longest, crowd.bound(member));
        }
    }
}

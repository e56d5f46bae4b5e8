//! CPU time: which vCPU a physical CPU runs, from when and until when at the latest.
//!
//! Not here: the world switch, the timer and the kicks that carry it out (the machine's), and which CPU a vCPU
//! belongs to. Time is whatever the caller says it is.
//!
//! - Real-time members run before all of lower priority and before everything shared; equals take turns.
//! - Shared members have time in proportion to their weights ([`claims`]). With a weight of `w` among `n` members that
//!   weigh `sum`, one waits for at most `sum / w + 3 * n` slices of what real-time members leave.
//! - A cap holds for each 10 ms, also where nobody else wants the CPU ([`caps`]).
//!
//! Each step costs the same whatever the number of members, but for deadlines, which are a heap. Only
//! [`RunQueue::join`] allocates. Docs: docs/decisions/0026-scheduler.md.

use alloc::vec::Vec;

use self::caps::Periods;
use self::claims::{Claims, Turn};
use self::deadlines::Deadlines;
use self::lists::{Lists, index};
pub use self::words::{Account, After, Reaction, Slot, Standing, Verdict};
use crate::ids::Ticks;
use crate::share::Share;

mod caps;
mod claims;
mod deadlines;
mod lists;
mod membership;
mod words;

#[cfg(test)]
mod tests;

struct Member<T> {
    share: Share,
    /// 0 in the shared class, from 1 in the real-time class.
    rank: u8,
    /// Most that it may run in a period.
    budget_ticks: Option<u64>,
    standing: Standing,
    /// Since when it runs, as far as it is charged, or could have run.
    since_ticks: u64,
    /// What is left of a slice that a higher class interrupted; 0 for a whole one.
    slice_left_ticks: u64,
    account: Account,
    /// With the caller while the member runs.
    baggage: Option<T>,
}

#[derive(Clone, Copy)]
struct Run {
    slot: u32,
    rank: u8,
    slice_end_ticks: u64,
}

/// The members of one physical CPU.
pub struct RunQueue<T> {
    members: Vec<Option<Member<T>>>,
    running: Option<Run>,
    /// How many are queued.
    queued: usize,
    /// Queued members of the real-time class, a list for each priority.
    urgent: Lists<1>,
    /// Queued members of the shared class.
    shared: Claims,
    /// Throttled members: list 0.
    throttled: Lists<1>,
    refill_at_ticks: u64,
    deadlines: Deadlines,
    periods: Periods,
    slice_ticks: u64,
    /// How many members there are.
    count: usize,
    /// How long members have had the CPU, in all.
    busy: Ticks,
}

#[inline]
fn find<T>(members: &mut [Option<Member<T>>], slot: u32) -> Option<&mut Member<T>> {
    members.get_mut(index(slot))?.as_mut()
}

/// Adds the time since `since` to a total.
#[inline]
fn add(total: &mut Ticks, since_ticks: u64, now_ticks: u64) {
    total.0 = total.0.saturating_add(now_ticks.saturating_sub(since_ticks));
}

impl<T> RunQueue<T> {
    /// Makes a queue without members, for a counter that runs at `frequency_hz`.
    #[must_use]
    pub fn new(frequency_hz: u64) -> Self {
        Self {
            members: Vec::new(),
            running: None,
            queued: 0,
            urgent: Lists::new(),
            shared: Claims::new(),
            throttled: Lists::new(),
            refill_at_ticks: 0,
            deadlines: Deadlines::new(),
            periods: Periods::new(frequency_hz),
            slice_ticks: (frequency_hz / 1000).max(1),
            count: 0,
            busy: Ticks(0),
        }
    }

    /// Wakes a member that waits.
    ///
    /// [`Reaction::Attend`] if it preempts, if nobody runs, or if the CPU must set its timer: the running member had no
    /// end of its slice while it was alone, or the woken one is the first to wait for a new budget.
    pub fn wake(&mut self, slot: Slot, now: Ticks) -> Reaction {
        let Some(member) = find(&mut self.members, slot.0) else { return Reaction::Nothing };
        match member.standing {
            Standing::Runs => return Reaction::Runs,
            Standing::Queued | Standing::Throttled => return Reaction::Nothing,
            Standing::Waits => {}
        }
        self.charge(now);
        let was_timed = self.has_contender();
        let had_throttled = self.throttled.occupied(0) != 0;
        self.deadlines.remove(slot.0);
        if self.awaken(slot.0, now) {
            return if had_throttled { Reaction::Nothing } else { Reaction::Attend };
        }
        let is_due = match self.running {
            Some(run) => self.is_outranked(run.rank) || run.slice_end_ticks <= now.0,
            None => true,
        };
        if is_due || was_timed != self.has_contender() { Reaction::Attend } else { Reaction::Nothing }
    }

    /// Queues a member that waited, and ends the running one's slice if it is behind the woken one. Returns whether it is
    /// throttled instead.
    fn awaken(&mut self, slot: u32, now: Ticks) -> bool {
        self.follow();
        if let Some(member) = find(&mut self.members, slot) {
            member.since_ticks = now.0;
            member.slice_left_ticks = 0;
        }
        self.queue(slot, Turn::Woken, now)
    }

    /// Wakes whose deadline has come, gives new budgets, and says whether another member is to run now.
    pub fn attend(&mut self, now: Ticks) -> Verdict {
        self.charge(now);
        while let Some(slot) = self.deadlines.next_due(now.0) {
            self.awaken(slot, now);
        }
        if self.throttled.occupied(0) != 0 && now.0 >= self.refill_at_ticks {
            self.refill(now);
        }
        let Some(run) = self.running else {
            return if self.queued > 0 { Verdict::Switch } else { Verdict::Stay };
        };
        if self.is_outranked(run.rank) || self.has_spent_its_budget(run.slot) {
            return Verdict::Switch;
        }
        if now.0 < run.slice_end_ticks {
            return Verdict::Stay;
        }
        let is_over = match run.rank {
            0 => self.shared.is_due_before(run.slot),
            _ => self.has_contender(),
        };
        if is_over {
            return Verdict::Switch;
        }
        let slice_end_ticks = now.0.saturating_add(self.slice_ticks);
        self.running = Some(Run { slice_end_ticks, ..run });
        Verdict::Stay
    }

    /// Takes back the running member, which stops running: it is queued again, behind the first whom it would delay, or
    /// waits. Without a running one, `member` is nobody's and is dropped.
    pub fn put_back(&mut self, now: Ticks, member: T, after: After) {
        self.charge(now);
        let Some(run) = self.running.take() else { return };
        let slice_left_ticks = run.slice_end_ticks.saturating_sub(now.0);
        let is_interrupted = slice_left_ticks > 0 && self.is_outranked(run.rank);
        if run.rank == 0 && self.shared.is_empty() {
            self.shared.follow(Some(run.slot));
        }
        let Some(entry) = find(&mut self.members, run.slot) else { return };
        entry.baggage = Some(member);
        entry.standing = Standing::Waits;
        entry.slice_left_ticks = if is_interrupted { slice_left_ticks } else { 0 };
        match after {
            After::Waits { until: None } => {}
            After::Waits { until: Some(until) } if until > now => self.deadlines.insert(run.slot, until.0),
            After::Waits { .. } | After::Yields => {
                let turn = if is_interrupted { Turn::Kept } else { Turn::Over };
                self.queue(run.slot, turn, now);
            }
        }
    }

    /// Takes the next member to run, which runs from now; `None` if nobody can, or somebody runs.
    pub fn start(&mut self, now: Ticks) -> Option<(Slot, T, Account)> {
        if self.running.is_some() {
            return None;
        }
        let slot = match self.most_urgent() {
            Some(list) => self.urgent.pop_front(list)?,
            None => self.shared.next()?,
        };
        self.queued = self.queued.saturating_sub(1);
        let member = find(&mut self.members, slot)?;
        let baggage = member.baggage.take()?;
        if let Some(budget_ticks) = member.budget_ticks {
            member.account.spent.renew(budget_ticks, &mut self.periods, now.0);
        }
        member.standing = Standing::Runs;
        add(&mut member.account.waited, member.since_ticks, now.0);
        member.since_ticks = now.0;
        let slice_ticks =
            if member.slice_left_ticks > 0 { member.slice_left_ticks } else { self.slice_ticks };
        let slice_end_ticks = now.0.saturating_add(slice_ticks);
        self.running = Some(Run { slot, rank: member.rank, slice_end_ticks });
        Some((Slot(slot), baggage, member.account))
    }

    /// Returns who runs.
    #[must_use]
    #[inline]
    pub fn running(&self) -> Option<Slot> {
        self.running.map(|run| Slot(run.slot))
    }

    /// Returns when [`RunQueue::attend`] must be called at the latest; `None` if no timer is needed. The
    /// last tick of all counts as never.
    #[must_use]
    pub fn next_event(&self) -> Option<Ticks> {
        let mut next = self.deadlines.earliest().unwrap_or(u64::MAX);
        if self.throttled.occupied(0) != 0 {
            next = next.min(self.refill_at_ticks);
        }
        if let Some(run) = self.running {
            next = next.min(self.end_of_turn(run));
        }
        (next < u64::MAX).then_some(Ticks(next))
    }

    /// Tells whether somebody could run and does not, other than for its cap.
    #[must_use]
    #[inline]
    pub fn has_waiting(&self) -> bool {
        self.queued > 0
    }

    /// Returns how many members there are.
    #[must_use]
    pub fn members(&self) -> usize {
        self.count
    }

    /// Returns for how long the CPU has run members, in all.
    #[must_use]
    pub fn busy(&self, now: Ticks) -> Ticks {
        let mut busy = self.busy;
        if let Some(member) = self.running.and_then(|run| self.members.get(index(run.slot))?.as_ref()) {
            add(&mut busy, member.since_ticks, now.0);
        }
        busy
    }

    /// Returns how many members run or are queued.
    #[must_use]
    pub fn runnable(&self) -> usize {
        self.queued.saturating_add(usize::from(self.running.is_some()))
    }

    /// Returns the baggage of a member that does not run.
    #[must_use]
    pub fn get(&self, slot: Slot) -> Option<&T> {
        self.members.get(index(slot.0))?.as_ref()?.baggage.as_ref()
    }

    /// Returns what a member is to have, what it has had until now, and what it does.
    #[must_use]
    pub fn standing(&self, slot: Slot, now: Ticks) -> Option<(Share, Account, Standing)> {
        let member = self.members.get(index(slot.0))?.as_ref()?;
        let mut account = member.account;
        match member.standing {
            Standing::Runs => add(&mut account.ran, member.since_ticks, now.0),
            Standing::Queued | Standing::Throttled => add(&mut account.waited, member.since_ticks, now.0),
            Standing::Waits => {}
        }
        Some((member.share, account, member.standing))
    }

    /// Charges the running member for what it has run since it was charged last.
    fn charge(&mut self, now: Ticks) {
        let Some(run) = self.running else { return };
        let Some(member) = find(&mut self.members, run.slot) else { return };
        let since = member.since_ticks;
        add(&mut member.account.ran, since, now.0);
        add(&mut self.busy, since, now.0);
        if let Some(budget_ticks) = member.budget_ticks {
            member.account.spent.charge(budget_ticks, &mut self.periods, since, now.0);
        }
        member.since_ticks = since.max(now.0);
        if run.rank == 0 {
            self.shared.charge(run.slot, now.0.saturating_sub(since));
        }
    }

    /// Lets the shared class know whom those that come now are to be compared with.
    fn follow(&mut self) {
        self.shared.follow(self.running.filter(|run| run.rank == 0).map(|run| run.slot));
    }

    /// Queues a member, or throttles it: then returns true.
    fn queue(&mut self, slot: u32, turn: Turn, now: Ticks) -> bool {
        let Some(member) = find(&mut self.members, slot) else { return false };
        if let Some(budget_ticks) = member.budget_ticks
            && !member.account.spent.renew(budget_ticks, &mut self.periods, now.0)
        {
            member.standing = Standing::Throttled;
            if self.throttled.occupied(0) == 0 {
                self.refill_at_ticks = self.periods.end_ticks();
            }
            self.throttled.push_back(0, slot);
            return true;
        }
        member.standing = Standing::Queued;
        self.queued = self.queued.saturating_add(1);
        match (member.rank.checked_sub(1), turn) {
            (None, _) => self.queue_shared(slot, turn, now),
            (Some(list), Turn::Kept) => self.urgent.push_front(list, slot),
            (Some(list), Turn::Woken | Turn::Over) => self.urgent.push_back(list, slot),
        }
        false
    }

    fn queue_shared(&mut self, slot: u32, turn: Turn, now: Ticks) {
        self.shared.queue(slot, turn);
        if turn == Turn::Woken
            && let Some(run) = self.running.as_mut()
            && run.rank == 0
            && self.shared.virtual_time(slot) < self.shared.virtual_time(run.slot)
        {
            run.slice_end_ticks = run.slice_end_ticks.min(now.0);
        }
    }

    /// Queues again the throttled members that have a budget now.
    fn refill(&mut self, now: Ticks) {
        self.follow();
        let mut next = self.throttled.first(0);
        while let Some(slot) = next {
            next = self.throttled.behind(slot);
            let Some(member) = find(&mut self.members, slot) else { continue };
            let budget_ticks = member.budget_ticks.unwrap_or(u64::MAX);
            if member.account.spent.renew(budget_ticks, &mut self.periods, now.0) {
                self.throttled.remove(slot);
                self.queue(slot, Turn::Woken, now);
            }
        }
        self.refill_at_ticks = self.periods.end_ticks();
    }

    #[inline]
    fn has_spent_its_budget(&mut self, slot: u32) -> bool {
        find(&mut self.members, slot).is_some_and(|member| {
            member.budget_ticks.is_some_and(|budget_ticks| member.account.spent.is_over(budget_ticks))
        })
    }

    /// Returns the highest priority that anybody is queued at, which is the number of its list.
    #[inline]
    fn most_urgent(&self) -> Option<u8> {
        let occupied = self.urgent.occupied(0).checked_ilog2()?;
        u8::try_from(occupied).ok()
    }

    /// Tells whether somebody of a higher rank is queued.
    #[inline]
    fn is_outranked(&self, rank: u8) -> bool {
        self.urgent.occupied(0) >> (rank % 64) != 0
    }

    /// Tells whether the running member has to share the CPU, so that its slice ends.
    #[inline]
    fn has_contender(&self) -> bool {
        match self.running.map(|run| run.rank.checked_sub(1)) {
            None => false,
            Some(None) => !self.shared.is_empty(),
            Some(Some(list)) => self.urgent.first(list).is_some(),
        }
    }

    /// Returns when the running member's turn ends; `u64::MAX` if it does not.
    #[inline]
    fn end_of_turn(&self, run: Run) -> u64 {
        let Some(member) = self.members.get(index(run.slot)).and_then(Option::as_ref) else {
            return u64::MAX;
        };
        if self.is_outranked(run.rank) {
            return member.since_ticks;
        }
        let slice_end = if self.has_contender() { run.slice_end_ticks } else { u64::MAX };
        match member.budget_ticks {
            None => slice_end,
            Some(budget_ticks) => {
                slice_end.min(member.account.spent.end_ticks(budget_ticks, &self.periods, member.since_ticks))
            }
        }
    }
}

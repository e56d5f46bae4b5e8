//! Who belongs to a queue: members join, leave, and move to other CPUs.
//!
//! Not here: who of them runs ([`super`]).

use super::lists::index;
use super::{Account, Member, RunQueue, Slot, Standing};
use crate::ids::Ticks;
use crate::share::{Class, MAX_PRIORITY, Share};

impl<T> RunQueue<T> {
    /// Takes in a member, which waits until it is woken.
    pub fn join(&mut self, member: T, share: Share, account: Account) -> Slot {
        let free = self.members.iter().position(Option::is_none);
        let position = free.unwrap_or(self.members.len());
        if free.is_none() {
            self.members.push(None);
            let slots = self.members.len();
            self.urgent.make_room(slots);
            self.shared.make_room(slots);
            self.throttled.make_room(slots);
            self.deadlines.make_room(slots);
        }
        let slot = u32::try_from(position).unwrap_or(u32::MAX);
        self.count = self.count.saturating_add(1);
        let rank = match share.class {
            Class::RealTime { priority } => priority.min(MAX_PRIORITY).saturating_add(1),
            Class::Shared { weight } => {
                self.shared.join(slot, weight, self.slice_ticks, account.lead);
                0
            }
        };
        if let Some(place) = self.members.get_mut(position) {
            *place = Some(Member {
                share,
                rank,
                budget_ticks: self.periods.budget(share.cap_percent),
                standing: Standing::Waits,
                since_ticks: 0,
                slice_left_ticks: 0,
                account,
                baggage: Some(member),
            });
        }
        Slot(slot)
    }

    /// Takes a member that does not run out for good; `None` if it runs or there is none.
    pub fn leave(&mut self, slot: Slot, now: Ticks) -> Option<(T, Share, Account)> {
        let (share, mut account, standing) = self.standing(slot, now)?;
        let place = self.members.get_mut(index(slot.0))?;
        let baggage = place.as_mut()?.baggage.take()?;
        let rank = place.take().map_or(0, |member| member.rank);
        self.count = self.count.saturating_sub(1);
        match standing {
            Standing::Queued => {
                self.queued = self.queued.saturating_sub(1);
                if rank == 0 { self.shared.remove(slot.0) } else { self.urgent.remove(slot.0) }
            }
            Standing::Throttled => self.throttled.remove(slot.0),
            Standing::Waits => self.deadlines.remove(slot.0),
            Standing::Runs => {}
        }
        account.lead = self.lead(slot.0, rank);
        Some((baggage, share, account))
    }

    /// Lets the running member, which the caller has, leave for good; nobody runs then. `None` if nobody did.
    pub fn retire(&mut self, now: Ticks) -> Option<(Share, Account)> {
        self.charge(now);
        let run = self.running.take()?;
        let mut member = self.members.get_mut(index(run.slot))?.take()?;
        self.count = self.count.saturating_sub(1);
        member.account.lead = self.lead(run.slot, run.rank);
        Some((member.share, member.account))
    }

    /// Takes a queued member that `fits` out, for another CPU that has nothing to do: the first that would run here.
    /// The other CPU runs it at once, so the greatest claim is served first over both of them, and a real-time member
    /// does not wait behind a more urgent one while a CPU idles.
    pub fn steal(
        &mut self,
        now: Ticks,
        mut fits: impl FnMut(&T) -> bool,
    ) -> Option<(Slot, T, Share, Account)> {
        let members = &self.members;
        let mut fits = |slot: u32| {
            let member = members.get(index(slot)).and_then(Option::as_ref);
            member.and_then(|member| member.baggage.as_ref()).is_some_and(&mut fits)
        };
        let urgent = (0..=MAX_PRIORITY).rev().find_map(|list| {
            core::iter::successors(self.urgent.first(list), |slot| self.urgent.behind(*slot))
                .find(|slot| fits(*slot))
        });
        let slot = Slot(urgent.or_else(|| self.shared.find(fits))?);
        let (baggage, share, account) = self.leave(slot, now)?;
        Some((slot, baggage, share, account))
    }

    /// Returns by how much a member that leaves is ahead of the others.
    fn lead(&mut self, slot: u32, rank: u8) -> u64 {
        if rank > 0 {
            return 0;
        }
        self.follow();
        self.shared.lead(slot)
    }
}

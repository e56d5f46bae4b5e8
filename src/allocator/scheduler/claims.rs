//! The shared class: who has had the least for its weight is next.
//!
//! Not here: when a turn ends. A member's virtual time grows while it runs, the slower the more it weighs, so members
//! that keep the same virtual time have had time in proportion to their weights.
//!
//! Queued members are filed by virtual time in buckets, first come, first served within one: 64 buckets for each
//! of what lies near, a coarser 64 for what lies further ahead, and one list for what lies beyond:
//!
//! ```text
//!  near    |.|.|c|.|x|.|x|x|.|.|    the cursor's 64 buckets       -> next is the lowest bit of a word
//!  coarse  |c|.|.|x|.|.|.|x|.|.|    64 buckets each               -> spread over near when the cursor gets there
//!  beyond  |x|                      the 4096 buckets after those  -> spread over coarse and near
//! ```
//!
//! A member is moved so at most twice between two turns, whoever else is there.

use alloc::vec::Vec;

use super::lists::{Lists, index};
use crate::share::MAX_WEIGHT;

/// Virtual time that a slice is for the highest weight. For weight 1, a `u64` of it lasts 228 years.
const SLICE_OF_HEAVIEST: u64 = 1 << 8;
/// Virtual time of a bucket: a 25th of a slice at weight 100, four slices at the highest.
const WIDTH_LOG2: u32 = 10;
const WIDTH: u64 = 1 << WIDTH_LOG2;
/// How far behind a woken one is placed, so that it is before everybody who never slept.
const BONUS: u64 = WIDTH;
/// How far ahead anybody is filed: what a caller's delay cost it beyond that is forgiven.
const RANGE: u64 = 4000 * WIDTH;
/// A slice of weight 1 stays far below what is forgiven.
const _: () = assert!(SLICE_OF_HEAVIEST * 10_000 * 3 / 2 < RANGE && MAX_WEIGHT == 10_000);

const COARSE: u8 = 64;
const BEYOND: u8 = 128;

/// How a member comes to be queued.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It waited for something, and that has come.
    Woken,
    /// It is interrupted by a higher class and goes on where it was.
    Kept,
    /// It has had its turn or gives it up: the first who waits goes before it.
    Over,
}

#[derive(Clone, Copy, Default)]
struct Claim {
    virtual_time: u64,
    /// Virtual time below one, in 2^-32.
    fraction: u32,
    /// Virtual time for each tick, in 2^-32.
    pace: u64,
    /// Where it is filed: the bucket of its virtual time, or a later one if it let others go before it.
    bucket: u64,
}

/// Virtual times of the members of the shared class, and the order of those that are queued.
pub struct Claims {
    claims: Vec<Claim>,
    lists: Lists<3>,
    /// Nobody is placed below: the least virtual time of those who want to run, less the bonus. Never falls.
    floor: u64,
    /// Nobody is filed in a bucket below. Never falls.
    cursor: u64,
}

const fn bucket_of(virtual_time: u64) -> u64 {
    virtual_time >> WIDTH_LOG2
}

/// Returns the low six bits, of a bucket or a coarse bucket, as the number of a list.
#[inline]
fn low_six(bucket: u64) -> u8 {
    let [low, ..] = bucket.to_le_bytes();
    low % 64
}

impl Claims {
    /// Makes an order without members.
    pub const fn new() -> Self {
        Self { claims: Vec::new(), lists: Lists::new(), floor: 0, cursor: 0 }
    }

    /// Makes room for slots below `slots`; nothing else allocates.
    pub fn make_room(&mut self, slots: usize) {
        self.lists.make_room(slots);
        if self.claims.len() < slots {
            self.claims.resize(slots, Claim::default());
        }
    }

    /// Takes in a member of `weight` that is `lead` ahead of the others.
    pub fn join(&mut self, slot: u32, weight: u16, slice_ticks: u64, lead: u64) {
        let weight = u64::from(weight.clamp(1, MAX_WEIGHT));
        let of_weight_1 = (SLICE_OF_HEAVIEST * u64::from(MAX_WEIGHT)) << 32;
        let pace = of_weight_1 / slice_ticks.max(1).saturating_mul(weight);
        let virtual_time = self.floor.saturating_add(BONUS).saturating_add(lead.min(RANGE));
        if let Some(claim) = self.claims.get_mut(index(slot)) {
            *claim = Claim { virtual_time, fraction: 0, pace, bucket: 0 };
        }
    }

    /// Returns how far a member is ahead of the others, which it takes along to another CPU.
    pub fn lead(&self, slot: u32) -> u64 {
        self.virtual_time(slot).saturating_sub(self.floor.saturating_add(BONUS))
    }

    /// Returns a member's virtual time.
    #[inline]
    pub fn virtual_time(&self, slot: u32) -> u64 {
        self.claims.get(index(slot)).map_or(0, |claim| claim.virtual_time)
    }

    /// Charges the running member with `ran_ticks`, and lets the floor follow.
    pub fn charge(&mut self, slot: u32, ran_ticks: u64) {
        let Some(claim) = self.claims.get_mut(index(slot)) else { return };
        let grown = u128::from(ran_ticks) * u128::from(claim.pace) + u128::from(claim.fraction);
        let [whole, fraction] = [grown >> 32, grown & u128::from(u32::MAX)];
        claim.fraction = u32::try_from(fraction).unwrap_or(0);
        claim.virtual_time = claim.virtual_time.saturating_add(u64::try_from(whole).unwrap_or(u64::MAX));
        let virtual_time = claim.virtual_time;
        let first = self.first(bucket_of(virtual_time)).map_or(u64::MAX, |bucket| bucket << WIDTH_LOG2);
        self.raise_floor(virtual_time.min(first));
    }

    /// Lets the floor follow the least virtual time, and the cursor the floor. Whoever is queued in a list that is not
    /// near lies ahead of both, or [`Claims::first`] would have spread the list.
    #[inline]
    fn raise_floor(&mut self, least: u64) {
        self.floor = self.floor.max(least.saturating_sub(BONUS));
        self.cursor = self.cursor.max(bucket_of(self.floor));
    }

    /// Tells whether a queued member is to run before one that has run as long as the running member has.
    #[inline]
    pub fn is_due_before(&mut self, running: u32) -> bool {
        self.first(bucket_of(self.virtual_time(running))).is_some()
    }

    /// Tells whether nobody is queued.
    #[inline]
    pub fn is_empty(&self) -> bool {
        (self.lists.occupied(0) | self.lists.occupied(1) | self.lists.occupied(2)) == 0
    }

    /// Queues a member.
    pub fn queue(&mut self, slot: u32, turn: Turn) {
        let waits = match turn {
            Turn::Over => self.first(u64::MAX).unwrap_or(0),
            Turn::Woken | Turn::Kept => 0,
        };
        let Some(claim) = self.claims.get_mut(index(slot)) else { return };
        claim.virtual_time = claim.virtual_time.clamp(self.floor, self.floor.saturating_add(RANGE));
        let last = self.cursor.saturating_add(0xfff);
        let bucket = bucket_of(claim.virtual_time).max(waits).clamp(self.cursor, last);
        claim.bucket = bucket;
        let list = self.list_of(bucket);
        match turn {
            Turn::Over => self.lists.push_back(list, slot),
            Turn::Woken | Turn::Kept => self.lists.push_front(list, slot),
        }
    }

    /// Takes a queued member out.
    #[inline]
    pub fn remove(&mut self, slot: u32) {
        self.lists.remove(slot);
    }

    /// Takes the member that is to run next out, while none runs.
    pub fn next(&mut self) -> Option<u32> {
        let bucket = self.first(u64::MAX)?;
        let slot = self.lists.first(low_six(bucket))?;
        self.lists.remove(slot);
        self.raise_floor(self.virtual_time(slot));
        Some(slot)
    }

    /// Finds the lowest bucket that has anybody in it, if that is `limit` at most. The cursor must be allowed to go
    /// there: nobody is to be filed below the lower of the two any more.
    fn first(&mut self, limit: u64) -> Option<u64> {
        loop {
            let (bucket, is_exact) = self.lowest()?;
            if bucket > limit {
                return None;
            }
            if is_exact {
                return Some(bucket);
            }
            self.spread(bucket);
        }
    }

    /// Returns the lowest bucket that anybody can be in, and whether somebody is.
    #[inline]
    fn lowest(&self) -> Option<(u64, bool)> {
        let [near, coarse, beyond] = [0, 1, 2].map(|word| self.lists.occupied(word));
        if near != 0 {
            return Some(((self.cursor & !0x3f) | u64::from(near.trailing_zeros()), true));
        }
        if coarse != 0 {
            return Some(((self.cursor & !0xfff) | u64::from(coarse.trailing_zeros()) << 6, false));
        }
        (beyond != 0).then_some(((self.cursor | 0xfff).saturating_add(1), false))
    }

    /// Returns the list of a bucket, as the cursor sees it.
    #[inline]
    fn list_of(&self, bucket: u64) -> u8 {
        match bucket ^ self.cursor {
            0..=0x3f => low_six(bucket),
            0x40..=0xfff => COARSE | low_six(bucket >> 6),
            _ => BEYOND,
        }
    }

    /// Moves the cursor to the first bucket of a list that is not near, and files its members anew.
    fn spread(&mut self, bucket: u64) {
        let list = self.list_of(bucket);
        self.cursor = bucket;
        let mut next = self.lists.first(list);
        let last = bucket.saturating_add(0xfff);
        while let Some(slot) = next {
            next = self.lists.behind(slot);
            self.lists.remove(slot);
            let bucket = self.claims.get(index(slot)).map_or(0, |claim| claim.bucket).clamp(bucket, last);
            self.lists.push_back(self.list_of(bucket), slot);
        }
    }

    /// Finds the first queued member that `fits`, in about the order in which they are to run.
    pub fn find(&self, mut fits: impl FnMut(u32) -> bool) -> Option<u32> {
        for list in 0..=BEYOND {
            let mut next = self.lists.first(list);
            while let Some(slot) = next {
                if fits(slot) {
                    return Some(slot);
                }
                next = self.lists.behind(slot);
            }
        }
        None
    }
}

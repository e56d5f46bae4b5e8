//! Deadlines of members that wait: a binary heap that knows where each member is.
//!
//! Not here: what happens when one comes. A guest can arm a far deadline, be woken otherwise and do so again for ever:
//! so a member has one entry at most, and it goes when the member is woken.

use alloc::vec::Vec;

use super::lists::index;

const NOWHERE: usize = usize::MAX;

#[derive(Clone, Copy)]
struct Deadline {
    at_ticks: u64,
    slot: u32,
}

/// The deadlines, earliest first.
pub struct Deadlines {
    heap: Vec<Deadline>,
    /// Where in the heap each slot is.
    positions: Vec<usize>,
}

impl Deadlines {
    /// Makes an empty heap.
    pub const fn new() -> Self {
        Self { heap: Vec::new(), positions: Vec::new() }
    }

    /// Makes room for slots below `slots`; nothing else allocates.
    pub fn make_room(&mut self, slots: usize) {
        if self.positions.len() < slots {
            self.positions.resize(slots, NOWHERE);
        }
        self.heap.reserve(slots.saturating_sub(self.heap.len()));
    }

    /// Returns the earliest deadline.
    #[inline]
    pub fn earliest(&self) -> Option<u64> {
        self.heap.first().map(|deadline| deadline.at_ticks)
    }

    /// Takes out a member whose deadline has come.
    #[inline]
    pub fn next_due(&mut self, now_ticks: u64) -> Option<u32> {
        let slot = self.heap.first().filter(|deadline| deadline.at_ticks <= now_ticks)?.slot;
        self.remove(slot);
        Some(slot)
    }

    /// Notes the deadline of a member that has none.
    pub fn insert(&mut self, slot: u32, at_ticks: u64) {
        let deadline = Deadline { at_ticks, slot };
        self.heap.push(deadline);
        self.rise(self.heap.len().saturating_sub(1), deadline);
    }

    /// Forgets the deadline of a member, if it has one.
    #[inline]
    pub fn remove(&mut self, slot: u32) {
        match self.positions.get_mut(index(slot)) {
            Some(position) if *position != NOWHERE => {
                let hole = core::mem::replace(position, NOWHERE);
                self.fill(hole);
            }
            _ => {}
        }
    }

    /// Puts the last deadline where one was taken out.
    fn fill(&mut self, hole: usize) {
        let Some(last) = self.heap.pop() else { return };
        if hole < self.heap.len() {
            let sunk = self.sink(hole, last);
            self.rise(sunk, last);
        }
    }

    fn set(&mut self, position: usize, deadline: Deadline) {
        if let Some(place) = self.heap.get_mut(position) {
            *place = deadline;
        }
        if let Some(place) = self.positions.get_mut(index(deadline.slot)) {
            *place = position;
        }
    }

    fn rise(&mut self, mut position: usize, deadline: Deadline) {
        while let Some(above) = position.checked_sub(1).map(|next| next / 2)
            && let Some(parent) = self.heap.get(above).copied()
            && deadline.at_ticks < parent.at_ticks
        {
            self.set(position, parent);
            position = above;
        }
        self.set(position, deadline);
    }

    /// Moves earlier deadlines up until `deadline` can stand at the position that is returned.
    fn sink(&mut self, mut position: usize, deadline: Deadline) -> usize {
        while let Some((below, child)) = self.earlier_child(position)
            && child.at_ticks < deadline.at_ticks
        {
            self.set(position, child);
            position = below;
        }
        position
    }

    fn earlier_child(&self, position: usize) -> Option<(usize, Deadline)> {
        let left = position.checked_mul(2)?.checked_add(1)?;
        let children = self.heap.get(left..)?.iter().copied().take(2);
        (left..).zip(children).min_by_key(|(_, child)| child.at_ticks)
    }
}

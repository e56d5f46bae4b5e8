//! First-come lists of slots, 64 to a word, and a bitmap that tells which have anybody in them.
//!
//! Not here: what a list stands for. Links are kept by slot, so that anybody leaves from anywhere in a few stores.

use alloc::vec::Vec;

/// Number that no slot has.
const NOBODY: u32 = u32::MAX;

/// Where a slot is: its neighbours, and the list.
#[derive(Clone, Copy)]
struct Link {
    before: u32,
    behind: u32,
    list: u8,
}

#[derive(Clone, Copy)]
struct Ends {
    first: u32,
    last: u32,
}

const NO_LINK: Link = Link { before: NOBODY, behind: NOBODY, list: 0 };
const EMPTY: Ends = Ends { first: NOBODY, last: NOBODY };

/// Lists numbered from 0 to 64 * `WORDS` - 1. A slot is in one of them or in none; the caller knows which.
pub struct Lists<const WORDS: usize> {
    links: Vec<Link>,
    ends: [[Ends; 64]; WORDS],
    occupied: [u64; WORDS],
}

/// Splits the number of a list into its word and its bit there.
#[inline]
fn place(list: u8) -> (usize, usize) {
    (usize::from(list / 64), usize::from(list % 64))
}

/// Returns a slot's number as an index.
#[inline]
pub fn index(slot: u32) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}

impl<const WORDS: usize> Lists<WORDS> {
    /// Makes empty lists.
    pub const fn new() -> Self {
        Self { links: Vec::new(), ends: [[EMPTY; 64]; WORDS], occupied: [0; WORDS] }
    }

    /// Makes room for slots below `slots`; nothing else allocates.
    pub fn make_room(&mut self, slots: usize) {
        if self.links.len() < slots {
            self.links.resize(slots, NO_LINK);
        }
    }

    /// Returns which lists of `word` have anybody in them, bit n for its list n.
    #[inline]
    pub fn occupied(&self, word: usize) -> u64 {
        self.occupied.get(word).copied().unwrap_or(0)
    }

    /// Returns who is first in `list`.
    #[inline]
    pub fn first(&self, list: u8) -> Option<u32> {
        let (word, bit) = place(list);
        let first = self.ends.get(word)?.get(bit)?.first;
        (first != NOBODY).then_some(first)
    }

    /// Returns who comes behind `slot` in its list.
    #[inline]
    pub fn behind(&self, slot: u32) -> Option<u32> {
        let behind = self.links.get(index(slot))?.behind;
        (behind != NOBODY).then_some(behind)
    }

    /// Adds `slot`, which is in no list, as the last of `list`.
    #[inline]
    pub fn push_back(&mut self, list: u8, slot: u32) {
        let (word, bit) = place(list);
        let Some(ends) = self.ends.get_mut(word).and_then(|ends| ends.get_mut(bit)) else { return };
        let before = core::mem::replace(&mut ends.last, slot);
        match self.links.get_mut(index(before)) {
            Some(link) => link.behind = slot,
            None => ends.first = slot,
        }
        self.note(list, slot, before, NOBODY);
    }

    /// Adds `slot`, which is in no list, as the first of `list`.
    #[inline]
    pub fn push_front(&mut self, list: u8, slot: u32) {
        let (word, bit) = place(list);
        let Some(ends) = self.ends.get_mut(word).and_then(|ends| ends.get_mut(bit)) else { return };
        let behind = core::mem::replace(&mut ends.first, slot);
        match self.links.get_mut(index(behind)) {
            Some(link) => link.before = slot,
            None => ends.last = slot,
        }
        self.note(list, slot, NOBODY, behind);
    }

    #[inline]
    fn note(&mut self, list: u8, slot: u32, before: u32, behind: u32) {
        let (word, bit) = place(list);
        if let Some(link) = self.links.get_mut(index(slot)) {
            *link = Link { before, behind, list };
        }
        if let Some(occupied) = self.occupied.get_mut(word) {
            *occupied |= 1 << bit;
        }
    }

    /// Takes `slot` out of the list that it is in.
    #[inline]
    pub fn remove(&mut self, slot: u32) {
        let Some(link) = self.links.get(index(slot)).copied() else { return };
        let (word, bit) = place(link.list);
        let Some(ends) = self.ends.get_mut(word).and_then(|ends| ends.get_mut(bit)) else { return };
        match self.links.get_mut(index(link.before)) {
            Some(before) => before.behind = link.behind,
            None => ends.first = link.behind,
        }
        match self.links.get_mut(index(link.behind)) {
            Some(behind) => behind.before = link.before,
            None => ends.last = link.before,
        }
        if ends.first == NOBODY
            && let Some(occupied) = self.occupied.get_mut(word)
        {
            *occupied &= !(1 << bit);
        }
    }
}

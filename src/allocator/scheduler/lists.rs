//! First-come lists of slots, 64 to a word, and a bitmap that tells which have anybody in them.
//!
//! Not here: what a list stands for. Links are kept by slot, so that anybody leaves from anywhere in a few stores.

use alloc::vec::Vec;
use core::mem::replace;

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

    #[inline]
    fn ends(&mut self, list: u8) -> Option<&mut Ends> {
        self.ends.as_flattened_mut().get_mut(usize::from(list))
    }

    /// Returns who is first in `list`.
    #[inline]
    pub fn first(&self, list: u8) -> Option<u32> {
        let first = self.ends.as_flattened().get(usize::from(list))?.first;
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
        let Some(ends) = self.ends(list) else { return };
        let before = replace(&mut ends.last, slot);
        if before == NOBODY {
            ends.first = slot;
            self.set_occupied(list);
        } else if let Some(link) = self.links.get_mut(index(before)) {
            link.behind = slot;
        }
        if let Some(link) = self.links.get_mut(index(slot)) {
            *link = Link { before, behind: NOBODY, list };
        }
    }

    /// Adds `slot`, which is in no list, as the first of `list`.
    #[inline]
    pub fn push_front(&mut self, list: u8, slot: u32) {
        let Some(ends) = self.ends(list) else { return };
        let behind = replace(&mut ends.first, slot);
        if behind == NOBODY {
            ends.last = slot;
            self.set_occupied(list);
        } else if let Some(link) = self.links.get_mut(index(behind)) {
            link.before = slot;
        }
        if let Some(link) = self.links.get_mut(index(slot)) {
            *link = Link { before: NOBODY, behind, list };
        }
    }

    /// Takes the first out of `list`.
    #[inline]
    pub fn pop_front(&mut self, list: u8) -> Option<u32> {
        let slot = self.first(list)?;
        let behind = self.links.get(index(slot))?.behind;
        let ends = self.ends(list)?;
        ends.first = behind;
        if behind == NOBODY {
            ends.last = NOBODY;
            self.clear_occupied(list);
        } else if let Some(link) = self.links.get_mut(index(behind)) {
            link.before = NOBODY;
        }
        Some(slot)
    }

    /// Takes `slot` out of the list that it is in.
    pub fn remove(&mut self, slot: u32) {
        let Some(Link { before, behind, list }) = self.links.get(index(slot)).copied() else { return };
        let Some(ends) = self.ends(list) else { return };
        if before == NOBODY {
            ends.first = behind;
        }
        if behind == NOBODY {
            ends.last = before;
        }
        if ends.first == NOBODY {
            self.clear_occupied(list);
        }
        if let Some(link) = self.links.get_mut(index(before)) {
            link.behind = behind;
        }
        if let Some(link) = self.links.get_mut(index(behind)) {
            link.before = before;
        }
    }

    #[inline]
    fn set_occupied(&mut self, list: u8) {
        if let Some(occupied) = self.occupied.get_mut(usize::from(list / 64)) {
            *occupied |= 1 << (list % 64);
        }
    }

    #[inline]
    fn clear_occupied(&mut self, list: u8) {
        if let Some(occupied) = self.occupied.get_mut(usize::from(list / 64)) {
            *occupied &= !(1 << (list % 64));
        }
    }
}

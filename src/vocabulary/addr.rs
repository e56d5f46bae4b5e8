//! The address spaces, one type each.
//!
//! Not here: any way from one space to another. Only stage 2 turns an [`Ipa`] into a [`Pa`].
//! Follows Arm ARM DDI 0487K.a, D8.1 (address translation stages).

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::fmt;

/// Smallest translation granule used, in bytes (Arm ARM DDI 0487K.a, D8.2, 4KB granule).
pub const PAGE_BYTES: u64 = 4096;

macro_rules! address_space {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Names the byte at `value` of this space.
            #[must_use]
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// Returns the address as a number of bytes from the start of its space.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// Adds `bytes`; `None` if the sum leaves the 64-bit space.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// Returns the distance in bytes from `base` to here; `None` if `base` is above.
            #[must_use]
            pub const fn offset_from(self, base: Self) -> Option<u64> {
                self.0.checked_sub(base.0)
            }

            /// Tells whether the address is a multiple of `bytes`, a power of two.
            #[must_use]
            pub const fn is_aligned(self, bytes: u64) -> bool {
                self.0 & (bytes - 1) == 0
            }

            /// Rounds down to a multiple of `bytes`, a power of two.
            #[must_use]
            pub const fn align_down(self, bytes: u64) -> Self {
                Self(self.0 & !(bytes - 1))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:#x})", stringify!($name), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address_space!(
    /// A virtual address of a guest: input of its own stage 1.
    GuestVa
);
address_space!(
    /// An intermediate physical address: what a guest believes is physical; input of stage 2.
    Ipa
);
address_space!(
    /// A physical address of the real machine: output of stage 2.
    Pa
);

/// A span of one address space that does not wrap: `start` and the number of bytes from there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region<A> {
    /// First address.
    pub start: A,
    /// Length in bytes, never 0.
    pub size_bytes: u64,
}

macro_rules! region_of {
    ($space:ident) => {
        impl Region<$space> {
            /// Makes a region; `None` when it is empty or its last byte leaves the space.
            #[must_use]
            pub const fn new(start: $space, size_bytes: u64) -> Option<Self> {
                match size_bytes.checked_sub(1) {
                    Some(last) if start.checked_add(last).is_some() => Some(Self { start, size_bytes }),
                    _ => None,
                }
            }

            /// Returns the address of the last byte.
            #[must_use]
            pub const fn last(&self) -> $space {
                $space(self.start.0 + (self.size_bytes - 1))
            }

            /// Returns the pages that the region touches.
            #[must_use]
            pub const fn pages(&self) -> Self {
                let start = self.start.align_down(PAGE_BYTES);
                let last = self.last().0 | (PAGE_BYTES - 1);
                Self { start, size_bytes: (last - start.0).saturating_add(1) }
            }

            /// Tells whether `address` lies inside.
            #[must_use]
            pub const fn contains(&self, address: $space) -> bool {
                address.0 >= self.start.0 && address.0 - self.start.0 < self.size_bytes
            }

            /// Returns how far `bytes` at `address` are from the start; `None` if not all are inside.
            #[must_use]
            pub const fn offset_of(&self, address: $space, bytes: u64) -> Option<u64> {
                match address.offset_from(self.start) {
                    Some(offset) if offset < self.size_bytes && self.size_bytes - offset >= bytes => {
                        Some(offset)
                    }
                    _ => None,
                }
            }

            /// Tells whether the two regions share a byte.
            #[must_use]
            pub const fn overlaps(&self, other: &Self) -> bool {
                self.start.0 <= other.last().0 && other.start.0 <= self.last().0
            }

            /// Tells whether `other` lies inside as a whole.
            #[must_use]
            pub const fn encloses(&self, other: &Self) -> bool {
                self.contains(other.start) && self.contains(other.last())
            }
        }

        impl fmt::Display for Region<$space> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}..={:#x}", self.start.0, self.last().0)
            }
        }
    };
}

region_of!(Ipa);
region_of!(Pa);

/// Returns `items` in ascending order of `key`. One sort serves all lists: of numbers, whatever the items are.
#[must_use]
pub fn sorted<T: Clone>(items: &[T], key: impl Fn(&T) -> u64) -> Vec<T> {
    // A heap: the sorts of slices are several KiB of code, for speed that nobody needs here.
    let order: BinaryHeap<(u64, usize)> = items.iter().map(key).zip(0..).collect();
    order.into_sorted_vec().into_iter().filter_map(|(_, index)| items.get(index).cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_cannot_wrap_or_be_empty() {
        assert!(Region::<Ipa>::new(Ipa::new(u64::MAX), 1).is_some());
        assert!(Region::<Ipa>::new(Ipa::new(u64::MAX), 2).is_none());
        assert!(Region::<Pa>::new(Pa::new(0), 0).is_none());
    }

    #[test]
    fn pages_are_those_that_are_touched() {
        let pages = |start, bytes| Region::<Pa>::new(Pa::new(start), bytes).unwrap().pages();
        let region = |start, bytes| Region::<Pa>::new(Pa::new(start), bytes).unwrap();
        assert_eq!(pages(0x1040, 0x40), region(0x1000, 0x1000));
        assert_eq!(pages(0x1fff, 2), region(0x1000, 0x2000));
        assert_eq!(pages(0x1000, 0x1000), region(0x1000, 0x1000));
        assert_eq!(pages(u64::MAX, 1), region(u64::MAX - 0xfff, 0x1000));
    }

    #[test]
    fn sorting_keeps_every_item() {
        assert_eq!(
            sorted(&[(3, 'a'), (1, 'b'), (3, 'c'), (0, 'd')], |item| item.0),
            [(0, 'd'), (1, 'b'), (3, 'a'), (3, 'c')]
        );
    }

    #[test]
    fn neighbours_do_not_overlap() {
        let low = Region::<Pa>::new(Pa::new(0x1000), 0x1000).unwrap();
        let high = Region::<Pa>::new(Pa::new(0x2000), 0x1000).unwrap();
        let both = Region::<Pa>::new(Pa::new(0x1fff), 2).unwrap();
        assert!(!low.overlaps(&high) && !high.overlaps(&low));
        assert!(both.overlaps(&low) && both.overlaps(&high));
        assert!(!low.encloses(&both));
    }
}

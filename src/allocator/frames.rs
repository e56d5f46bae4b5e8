//! Physical frames: which are free, and who owns the others.
//!
//! Not here: zeroing (the machine's) and mapping ([`super::stage2`]). Buddies are merged by the
//! `buddy_system_allocator` crate, which believes whatever it is told to free and rounds every request
//! up to a power of two: the account kept here refuses the former and gives back the rest of the latter.
//!
//! Heap use: an entry of some 40 bytes for each allocation and for each free block, so it grows with the
//! number of tables, extents and holes, not with RAM; none of it is up to a guest.

use alloc::vec::Vec;

use buddy_system_allocator::FrameAllocator;

use super::Owner;
use super::tables::MAX_PA_BITS;
use crate::addr::{PAGE_BYTES, Pa, Region};

/// Number of buddy orders: the biggest free block is 2^32 frames.
const ORDERS: usize = 33;
/// Biggest block, in frames, that free frames merge into.
const MAX_BLOCK: usize = 1 << (ORDERS - 1);
/// Biggest extent of guest RAM, in frames: 1 GiB, the biggest block of stage 2.
const MAX_EXTENT: usize = (1 << 30) / 4096;

type Buddies = FrameAllocator<ORDERS>;

/// Says why frames did not change hands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// The region overlaps this one, which was added earlier.
    AlreadyManaged(Region<Pa>),
    /// The region was never allocated as such, or has been freed already.
    NotAllocated(Region<Pa>),
    /// The region ends above what translation tables can reach, 48 bits.
    OutOfRange(Region<Pa>),
}

#[derive(Clone, Copy, Debug)]
struct Allocation {
    first: usize,
    frames: usize,
    owner: Owner,
}

/// Lists the physical regions that make up RAM of one owner, biggest first.
///
/// Sizes are powers of two that never grow along the list, each region is aligned to its size, and none is
/// bigger than 1 GiB: mapped one after the other from an address aligned to the first one's size, each fits
/// the biggest leaves of stage 2.
#[derive(PartialEq, Eq, Debug)]
pub struct Extents {
    regions: Vec<Region<Pa>>,
}

impl Extents {
    /// Lists the regions in the order in which they make up RAM.
    pub fn iter(&self) -> impl Iterator<Item = Region<Pa>> {
        self.regions.iter().copied()
    }

    /// Returns the length of all regions together in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.regions.iter().map(|region| region.size_bytes).sum()
    }
}

/// Keeps account of the physical frames that were added to it.
#[derive(Default)]
pub struct Frames {
    buddies: Buddies,
    /// What was added; regions do not overlap.
    managed: Vec<Region<Pa>>,
    /// What is not free, in order of the first frame.
    allocations: Vec<Allocation>,
    free_frames: usize,
}

impl Frames {
    /// Makes an account without frames.
    #[must_use]
    pub const fn new() -> Self {
        Self { buddies: Buddies::new(), managed: Vec::new(), allocations: Vec::new(), free_frames: 0 }
    }

    /// Adds the whole frames inside `region` as free ones, and lets them merge with their neighbours.
    ///
    /// # Errors
    /// [`FrameError::AlreadyManaged`] if any were added before, [`FrameError::OutOfRange`].
    pub fn add(&mut self, region: Region<Pa>) -> Result<(), FrameError> {
        let overlap = self.managed.iter().find(|managed| managed.overlaps(&region));
        if let Some(managed) = overlap {
            return Err(FrameError::AlreadyManaged(*managed));
        }
        let end = region.start.checked_add(region.size_bytes).filter(|end| end.get() <= 1 << MAX_PA_BITS);
        let end = end.ok_or(FrameError::OutOfRange(region))?;
        let first = usize::try_from(region.start.get().div_ceil(PAGE_BYTES));
        let end = usize::try_from(end.get() / PAGE_BYTES);
        let (Ok(first), Ok(end)) = (first, end) else { return Err(FrameError::OutOfRange(region)) };
        self.managed.push(region);
        let count = end.saturating_sub(first);
        for (block, frames) in blocks(first, count) {
            self.buddies.add_frame(block, block + frames);
            // The crate merges on dealloc only.
            if self.buddies.alloc_at(block, frames).is_some() {
                self.buddies.dealloc(block, frames);
            }
        }
        self.free_frames += count;
        Ok(())
    }

    /// Allocates contiguous frames for `size_bytes`, rounded up to whole ones, from an address that is a
    /// multiple of `align_bytes`, a power of two; `None` if there is no such run of free frames.
    #[must_use]
    pub fn allocate(&mut self, owner: Owner, size_bytes: u64, align_bytes: u64) -> Option<Region<Pa>> {
        if size_bytes == 0 || !align_bytes.is_power_of_two() {
            return None;
        }
        let frames = usize::try_from(size_bytes.div_ceil(PAGE_BYTES)).ok()?;
        let align = usize::try_from(align_bytes / PAGE_BYTES).ok()?;
        let block = frames.checked_next_power_of_two()?.max(align);
        if block > MAX_BLOCK {
            return None;
        }
        let first = self.buddies.alloc(block)?;
        give_back(&mut self.buddies, first + frames, block - frames);
        let at = self.allocations.partition_point(|other| other.first < first);
        self.allocations.insert(at, Allocation { first, frames, owner });
        self.free_frames -= frames;
        Some(region_of(first, frames))
    }

    /// Allocates RAM of `size_bytes`, rounded up to whole frames, in as few extents as the free blocks
    /// allow; `None`, with nothing allocated, if there are not that many free frames.
    #[must_use]
    pub fn allocate_ram(&mut self, owner: Owner, size_bytes: u64) -> Option<Extents> {
        let mut rest = usize::try_from(size_bytes.div_ceil(PAGE_BYTES)).ok()?;
        if rest == 0 || rest > self.free_frames {
            return None;
        }
        let mut regions = Vec::new();
        let mut frames = MAX_EXTENT;
        while rest > 0 {
            frames = frames.min(largest_power_of_two(rest));
            let bytes = bytes_of(frames);
            match self.allocate(owner, bytes, bytes) {
                Some(region) => {
                    regions.push(region);
                    rest -= frames;
                }
                None if frames > 1 => frames /= 2,
                None => break,
            }
        }
        assert_eq!(rest, 0, "free frames were counted that are not there");
        Some(Extents { regions })
    }

    /// Frees a region as [`Self::allocate`] returned it.
    ///
    /// # Errors
    /// [`FrameError::NotAllocated`] for anything else; nothing is freed then.
    pub fn free(&mut self, region: Region<Pa>) -> Result<(), FrameError> {
        let index = self.allocation_at(region)?;
        let Allocation { first, frames, .. } = self.allocations.remove(index);
        give_back(&mut self.buddies, first, frames);
        self.free_frames += frames;
        Ok(())
    }

    /// Frees all of `extents`.
    ///
    /// # Errors
    /// [`FrameError::NotAllocated`] if one of them is not allocated any more; nothing is freed then.
    pub fn free_ram(&mut self, extents: Extents) -> Result<(), FrameError> {
        for region in extents.iter() {
            self.allocation_at(region)?;
        }
        extents.iter().try_for_each(|region| self.free(region))
    }

    /// Frees everything that `owner` has and returns how many bytes that was.
    pub fn reclaim(&mut self, owner: Owner) -> u64 {
        let mut frames = 0;
        let buddies = &mut self.buddies;
        self.allocations.retain(|allocation| {
            let stays = allocation.owner != owner;
            if !stays {
                give_back(buddies, allocation.first, allocation.frames);
                frames += allocation.frames;
            }
            stays
        });
        self.free_frames += frames;
        bytes_of(frames)
    }

    /// Returns who owns the frame that holds `address`; `None` if it is free or was never added.
    #[must_use]
    pub fn owner(&self, address: Pa) -> Option<Owner> {
        let frame = usize::try_from(address.get() / PAGE_BYTES).ok()?;
        let after = self.allocations.partition_point(|allocation| allocation.first <= frame);
        let allocation = self.allocations.get(after.checked_sub(1)?)?;
        (frame - allocation.first < allocation.frames).then_some(allocation.owner)
    }

    /// Tells whether `address` lies in a region that was added.
    #[must_use]
    pub fn is_managed(&self, address: Pa) -> bool {
        self.managed.iter().any(|region| region.contains(address))
    }

    /// Returns the number of free frames, 4 KiB each.
    #[must_use]
    pub const fn free_frames(&self) -> usize {
        self.free_frames
    }

    /// Returns the size of all free frames in bytes.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        bytes_of(self.free_frames)
    }

    /// Returns the index of the allocation that `region` is.
    fn allocation_at(&self, region: Region<Pa>) -> Result<usize, FrameError> {
        let error = FrameError::NotAllocated(region);
        let first = usize::try_from(region.start.get() / PAGE_BYTES).map_err(|_| error)?;
        let index = self.allocations.binary_search_by_key(&first, |other| other.first).map_err(|_| error)?;
        let is_same = |found: &Allocation| region == region_of(found.first, found.frames);
        if self.allocations.get(index).is_some_and(is_same) { Ok(index) } else { Err(error) }
    }
}

/// Frees `count` frames from `first` on: as the crate wants it, in blocks aligned to their size.
fn give_back(buddies: &mut Buddies, first: usize, count: usize) {
    for (block, frames) in blocks(first, count) {
        buddies.dealloc(block, frames);
    }
}

/// Cuts a run of frames into the fewest blocks of a power of two, each aligned to its size.
fn blocks(first: usize, count: usize) -> impl Iterator<Item = (usize, usize)> {
    let (mut next, mut rest) = (first, count);
    core::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let alignment = if next == 0 { MAX_BLOCK } else { 1 << next.trailing_zeros() };
        let frames = alignment.min(largest_power_of_two(rest)).min(MAX_BLOCK);
        let block = next;
        next += frames;
        rest -= frames;
        Some((block, frames))
    })
}

/// Returns the largest power of two that is not above `count`; 1 for 0.
const fn largest_power_of_two(count: usize) -> usize {
    match count.checked_ilog2() {
        Some(log2) => 1 << log2,
        None => 1,
    }
}

fn region_of(first: usize, frames: usize) -> Region<Pa> {
    Region { start: Pa::new(bytes_of(first)), size_bytes: bytes_of(frames) }
}

/// Frame numbers come from 64-bit addresses: as bytes they fit again.
fn bytes_of(frames: usize) -> u64 {
    u64::try_from(frames).unwrap_or(u64::MAX).saturating_mul(PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::VmId;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    const VM: Owner = Owner::Vm(VmId(0));

    fn region(start: u64, size_bytes: u64) -> Region<Pa> {
        Region::<Pa>::new(Pa::new(start), size_bytes).unwrap()
    }

    fn frames_of(regions: &[(u64, u64)]) -> Frames {
        let mut frames = Frames::new();
        for (start, size_bytes) in regions {
            frames.add(region(*start, *size_bytes)).unwrap();
        }
        frames
    }

    fn sizes(extents: &Extents) -> Vec<u64> {
        extents.iter().map(|extent| extent.size_bytes / MIB).collect()
    }

    #[test]
    fn ram_of_960_mib_does_not_take_a_gib() {
        let mut frames = frames_of(&[(GIB, GIB)]);
        let extents = frames.allocate_ram(VM, 960 * MIB).unwrap();
        assert_eq!(sizes(&extents), [512, 256, 128, 64]);
        assert_eq!(frames.free_bytes(), 64 * MIB);
        assert!(frames.allocate(Owner::Hypervisor, 64 * MIB, PAGE_BYTES).is_some());
        assert_eq!(frames.free_frames(), 0);
    }

    #[test]
    fn big_ram_comes_in_gib_extents_and_then_in_what_is_left() {
        let mut frames = frames_of(&[(GIB + 2 * MIB, 4 * GIB - 2 * MIB)]);
        let extents = frames.allocate_ram(VM, 3 * GIB + 6 * MIB).unwrap();
        assert_eq!(sizes(&extents), [1024, 1024, 1024, 4, 2]);
        let fragmented = frames.allocate_ram(VM, frames.free_bytes()).unwrap();
        assert_eq!(frames.free_frames(), 0);
        frames.free_ram(fragmented).unwrap();
        frames.free_ram(extents).unwrap();
        assert!(frames.allocate(VM, 2 * GIB, GIB).is_some(), "freed extents have not merged");
    }

    #[test]
    fn an_odd_contiguous_size_takes_no_more_than_it_needs() {
        let mut frames = frames_of(&[(GIB, 2 * MIB)]);
        let before = frames.free_bytes();
        let odd = frames.allocate(VM, 5 * PAGE_BYTES - 1, 1).unwrap();
        assert_eq!(odd.size_bytes, 5 * PAGE_BYTES);
        assert_eq!(frames.free_bytes(), before - 5 * PAGE_BYTES);
        frames.free(odd).unwrap();
        assert_eq!(frames.allocate(VM, 2 * MIB, 2 * MIB), Some(region(GIB, 2 * MIB)));
    }

    #[test]
    fn a_refused_allocation_takes_nothing() {
        let mut frames = frames_of(&[(GIB, MIB)]);
        assert_eq!(frames.allocate_ram(VM, MIB + 1), None);
        assert_eq!(frames.allocate_ram(VM, 0), None);
        assert_eq!(frames.allocate_ram(VM, u64::MAX), None);
        assert_eq!(frames.allocate(VM, 0, 1), None);
        assert_eq!(frames.allocate(VM, u64::MAX, 1), None);
        assert_eq!(frames.allocate(VM, 1, 3), None);
        assert_eq!(frames.allocate(VM, 1, 1 << 63), None);
        assert_eq!(frames.free_bytes(), MIB);
    }

    #[test]
    fn only_whole_frames_are_added() {
        let mut frames = frames_of(&[(GIB + 1, 3 * PAGE_BYTES), (0xfff, 1)]);
        assert_eq!(frames.free_frames(), 2);
        assert_eq!(frames.allocate(VM, PAGE_BYTES, 1), Some(region(GIB + PAGE_BYTES, PAGE_BYTES)));
    }

    #[test]
    fn frames_are_not_added_twice() {
        let mut frames = frames_of(&[(GIB, MIB)]);
        let again = frames.add(region(GIB + MIB - 1, MIB));
        assert_eq!(again, Err(FrameError::AlreadyManaged(region(GIB, MIB))));
        assert_eq!(frames.free_bytes(), MIB);
        for top in [region(u64::MAX, 1), region(1 << 48, PAGE_BYTES), region(0x1000_0000_0000, 1 << 60)] {
            assert_eq!(frames.add(top), Err(FrameError::OutOfRange(top)));
        }
    }

    #[test]
    fn neighbours_merge_when_they_are_added() {
        let mut frames = frames_of(&[(0, PAGE_BYTES), (PAGE_BYTES, GIB - PAGE_BYTES)]);
        assert_eq!(frames.allocate(VM, GIB, GIB), Some(region(0, GIB)));
    }

    #[test]
    fn a_double_free_is_refused() {
        let mut frames = frames_of(&[(GIB, MIB)]);
        let taken = frames.allocate(VM, 4 * PAGE_BYTES, 1).unwrap();
        let part = region(taken.start.get(), PAGE_BYTES);
        let inside = region(taken.start.get() + PAGE_BYTES, PAGE_BYTES);
        let astray = region(taken.start.get() + 1, taken.size_bytes);
        for wrong in [part, inside, astray, region(0, PAGE_BYTES)] {
            assert_eq!(frames.free(wrong), Err(FrameError::NotAllocated(wrong)));
        }
        assert_eq!(frames.free(taken), Ok(()));
        assert_eq!(frames.free(taken), Err(FrameError::NotAllocated(taken)));
        assert_eq!(frames.free_bytes(), MIB);
    }

    #[test]
    fn reclaim_frees_all_that_a_vm_has_and_nothing_else() {
        let mut frames = frames_of(&[(GIB, 8 * MIB)]);
        let kept = frames.allocate(Owner::Hypervisor, PAGE_BYTES, 1).unwrap();
        let extents = frames.allocate_ram(VM, 3 * MIB).unwrap();
        let first = extents.iter().next().unwrap();
        assert_eq!(frames.owner(first.last()), Some(VM));
        assert_eq!(frames.reclaim(VM), 3 * MIB);
        assert_eq!(frames.owner(first.start), None);
        assert!(frames.is_managed(first.start));
        assert_eq!(frames.owner(kept.start), Some(Owner::Hypervisor));
        assert_eq!(frames.free_bytes(), 8 * MIB - PAGE_BYTES);
        assert_eq!(frames.free_ram(extents), Err(FrameError::NotAllocated(first)));
    }

    const MOST_STEPS: usize = if cfg!(miri) { 12 } else { 60 };

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Allocate { pages: u64, align_log2: u32 },
        AllocateRam { pages: u64 },
        Free(usize),
        Reclaim,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (1..70_u64, 0..20_u32).prop_map(|(pages, align_log2)| Step::Allocate { pages, align_log2 }),
            2 => (1..700_u64).prop_map(|pages| Step::AllocateRam { pages }),
            4 => any::<usize>().prop_map(Step::Free),
            1 => Just(Step::Reclaim),
        ]
    }

    /// Extents hold what the type promises; sizes never grow and each is aligned to its own.
    fn check_extents(extents: &Extents, pages: u64) {
        assert_eq!(extents.size_bytes(), pages * PAGE_BYTES);
        let regions: Vec<_> = extents.iter().collect();
        assert!(regions.iter().all(|region| region.start.is_aligned(region.size_bytes)));
        assert!(regions.windows(2).all(|pair| pair[0].size_bytes >= pair[1].size_bytes));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

        #[test]
        fn allocations_are_disjoint_and_all_frames_come_back(steps in prop::collection::vec(step(), 1..MOST_STEPS)) {
            let added = [region(0x3000, 0x5_5000), region(0x10_0000, 4 * MIB)];
            let mut frames = frames_of(&added.map(|region| (region.start.get(), region.size_bytes)));
            let whole = frames.free_frames();
            let mut live: Vec<Region<Pa>> = Vec::new();
            for step in steps {
                let taken: Vec<Region<Pa>> = match step {
                    Step::Allocate { pages, align_log2 } => {
                        let region = frames.allocate(VM, pages * PAGE_BYTES, 1 << align_log2);
                        prop_assert!(region.is_none_or(|region| region.start.is_aligned(1 << align_log2)));
                        region.into_iter().collect()
                    }
                    Step::AllocateRam { pages } => {
                        let fits = u64::try_from(frames.free_frames()).unwrap() >= pages;
                        let extents = frames.allocate_ram(VM, pages * PAGE_BYTES);
                        prop_assert_eq!(extents.is_some(), fits);
                        extents.map_or(Vec::new(), |extents| {
                            check_extents(&extents, pages);
                            extents.iter().collect()
                        })
                    }
                    Step::Free(index) if !live.is_empty() => {
                        frames.free(live.swap_remove(index % live.len())).unwrap();
                        Vec::new()
                    }
                    Step::Free(_) => Vec::new(),
                    Step::Reclaim => {
                        let owned: u64 = live.drain(..).map(|region| region.size_bytes).sum();
                        prop_assert_eq!(frames.reclaim(VM), owned);
                        Vec::new()
                    }
                };
                for region in taken {
                    prop_assert!(added.iter().any(|added| added.encloses(&region)));
                    prop_assert!(!live.iter().any(|other| other.overlaps(&region)));
                    prop_assert_eq!(frames.owner(region.last()), Some(VM));
                    live.push(region);
                }
                let used: u64 = live.iter().map(|region| region.size_bytes / PAGE_BYTES).sum();
                prop_assert_eq!(frames.free_frames() + usize::try_from(used).unwrap(), whole);
            }
            frames.reclaim(VM);
            prop_assert_eq!(frames.free_frames(), whole);
            // Merged to the biggest block there is: 4 MiB at 1 MiB holds one aligned block of 2 MiB.
            prop_assert!(frames.allocate(VM, 2 * MIB, 2 * MIB).is_some());
        }
    }
}

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
/// Biggest block, in frames, that free frames above the first GiB merge into.
const MAX_BLOCK: usize = 1 << (ORDERS - 1);
/// Biggest extent of guest RAM, in frames: 1 GiB, the biggest block of stage 2.
const MAX_EXTENT: usize = (1 << 30) / 4096;

/// First frame above the first GiB. Some devices reach no further, a Raspberry Pi 4's for one: what is below is kept as
/// long as there is anything above.
const NEAR_END: usize = MAX_EXTENT;

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

/// Lists the physical regions that make up RAM of one owner.
///
/// Sizes are powers of two, each region is aligned to its size, and none is bigger than 1 GiB. From
/// [`Frames::allocate_ram`] they never grow along the list: mapped one after the other from an address aligned to the
/// first one's size, each fits the biggest leaves of stage 2. From [`Frames::allocate_ram_at`] they come as they lie.
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
    /// Free frames from [`NEAR_END`] on, and those below it: in the order in which they are given away.
    zones: [Buddies; 2],
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
        Self {
            zones: [const { Buddies::new() }; 2],
            managed: Vec::new(),
            allocations: Vec::new(),
            free_frames: 0,
        }
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
            let buddies = zone(&mut self.zones, block);
            buddies.add_frame(block, block + frames);
            // The crate merges on dealloc only.
            if buddies.alloc_at(block, frames).is_some() {
                buddies.dealloc(block, frames);
            }
        }
        self.free_frames += count;
        Ok(())
    }

    /// Allocates contiguous frames for `size_bytes`, rounded up to whole ones, from an address that is a
    /// multiple of `align_bytes`, a power of two; `None` if there is no such run of free frames. Above the first GiB if
    /// that has one.
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
        let first = self.zones.iter_mut().find_map(|zone| zone.alloc(block))?;
        give_back(&mut self.zones, first + frames, block - frames);
        Some(self.note(first, frames, owner))
    }

    /// Allocates RAM of `size_bytes`, rounded up to whole frames, in as few extents as the free blocks
    /// allow; `None`, with nothing allocated, if there are not that many free frames. Below 1 GiB lies only what there
    /// is no room for above.
    #[must_use]
    pub fn allocate_ram(&mut self, owner: Owner, size_bytes: u64) -> Option<Extents> {
        let mut rest = usize::try_from(size_bytes.div_ceil(PAGE_BYTES)).ok()?;
        if rest == 0 || rest > self.free_frames {
            return None;
        }
        let mut regions: Vec<Region<Pa>> = Vec::new();
        for zone in 0..self.zones.len() {
            let mut frames = MAX_EXTENT;
            while rest > 0 && frames > 0 {
                frames = frames.min(largest_power_of_two(rest));
                let Some(first) = self.zones.get_mut(zone).and_then(|zone| zone.alloc(frames)) else {
                    frames /= 2;
                    continue;
                };
                let region = self.note(first, frames, owner);
                // At the end, but for a bigger one in the next zone.
                let at = regions.partition_point(|other| other.size_bytes >= region.size_bytes);
                regions.insert(at, region);
                rest -= frames;
            }
        }
        assert!(rest == 0, "free frames were counted that are not there");
        Some(Extents { regions })
    }

    /// Allocates the very frames of `region`, in whole ones; `None`, with nothing allocated, if they are not all free.
    #[must_use]
    pub fn allocate_ram_at(&mut self, owner: Owner, region: Region<Pa>) -> Option<Extents> {
        if !self.free_regions().iter().any(|free| free.encloses(&region)) {
            return None;
        }
        let first = usize::try_from(region.start.get() / PAGE_BYTES).ok()?;
        let count = usize::try_from(region.size_bytes / PAGE_BYTES).ok()?;
        let mut regions = Vec::new();
        for (block, frames) in blocks(first, count) {
            // Free buddies have merged, so a block that is free is in one piece.
            let taken = zone(&mut self.zones, block).alloc_at(block, frames);
            assert!(taken.is_some(), "free frames were listed that are not there");
            regions.push(self.note(block, frames, owner));
        }
        Some(Extents { regions })
    }

    /// Lists the free frames, as they were added but for what is allocated.
    #[must_use]
    pub fn free_regions(&self) -> Vec<Region<Pa>> {
        let mut free = Vec::new();
        for managed in &self.managed {
            let frame = |address: u64| usize::try_from(address / PAGE_BYTES).unwrap_or(usize::MAX);
            let mut next = frame(managed.start.get().saturating_add(PAGE_BYTES - 1));
            let end = frame(managed.start.get().saturating_add(managed.size_bytes));
            let taken = self.allocations.iter().map(|taken| (taken.first, taken.first + taken.frames));
            for (first, after) in taken.chain([(end, end)]) {
                let hole_end = first.min(end);
                if hole_end > next {
                    free.push(region_of(next, hole_end - next));
                }
                next = next.max(after);
            }
        }
        free
    }

    /// Notes that frames are not free any more.
    fn note(&mut self, first: usize, frames: usize, owner: Owner) -> Region<Pa> {
        let at = self.allocations.partition_point(|other| other.first < first);
        self.allocations.insert(at, Allocation { first, frames, owner });
        self.free_frames -= frames;
        region_of(first, frames)
    }

    /// Frees a region as [`Self::allocate`] returned it.
    ///
    /// # Errors
    /// [`FrameError::NotAllocated`] for anything else; nothing is freed then.
    pub fn free(&mut self, region: Region<Pa>) -> Result<(), FrameError> {
        let index = self.allocation_at(region)?;
        let Allocation { first, frames, .. } = self.allocations.remove(index);
        give_back(&mut self.zones, first, frames);
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
        let zones = &mut self.zones;
        self.allocations.retain(|allocation| {
            let stays = allocation.owner != owner;
            if !stays {
                give_back(zones, allocation.first, allocation.frames);
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
fn give_back(zones: &mut [Buddies; 2], first: usize, count: usize) {
    for (block, frames) in blocks(first, count) {
        zone(zones, block).dealloc(block, frames);
    }
}

/// Returns the zone that a block of [`blocks`] is in.
fn zone(zones: &mut [Buddies; 2], block: usize) -> &mut Buddies {
    let [far, near] = zones;
    if block < NEAR_END { near } else { far }
}

/// Cuts a run of frames into the fewest blocks of a power of two up to [`MAX_EXTENT`], each aligned to its size.
fn blocks(first: usize, count: usize) -> impl Iterator<Item = (usize, usize)> {
    let (mut next, mut rest) = (first, count);
    core::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let alignment = if next == 0 { MAX_EXTENT } else { 1 << next.trailing_zeros() };
        let frames = alignment.min(largest_power_of_two(rest)).min(MAX_EXTENT);
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

    #[test]
    fn the_first_gib_is_kept_while_there_is_room_above() {
        let mut frames = frames_of(&[(512 * MIB, 2 * GIB)]);
        let above = frames.allocate_ram(VM, GIB + 256 * MIB).unwrap();
        assert!(above.iter().all(|extent| extent.start.get() >= GIB));
        assert!(frames.allocate(VM, PAGE_BYTES, 1).is_some_and(|table| table.start.get() >= GIB));
        let rest = frames.allocate_ram(VM, frames.free_bytes()).unwrap();
        assert_eq!(frames.free_frames(), 0);
        check_extents(&rest, rest.size_bytes() / PAGE_BYTES);
        assert_eq!(sizes(&rest)[..2], [512, 128], "the biggest extent comes first, wherever it lies");
        frames.reclaim(VM);
        assert_eq!(frames.allocate(VM, GIB, GIB), Some(region(GIB, GIB)));
    }

    #[test]
    fn the_very_frames_that_are_asked_for_or_none() {
        let mut frames = frames_of(&[(MIB, 63 * MIB), (GIB, GIB)]);
        let extents = frames.allocate_ram_at(VM, region(3 * MIB, 6 * MIB)).unwrap();
        let starts: Vec<_> = extents.iter().map(|extent| extent.start.get() / MIB).collect();
        assert_eq!((starts, sizes(&extents)), (vec![3, 4, 8], vec![1, 4, 1]));
        for taken in [(8 * MIB, MIB), (0, 2 * MIB), (63 * MIB, 2 * MIB), (2 * GIB, MIB), (2 * MIB, 2 * MIB)] {
            assert_eq!(frames.allocate_ram_at(VM, region(taken.0, taken.1)), None);
        }
        assert_eq!(
            frames.free_regions(),
            [region(MIB, 2 * MIB), region(9 * MIB, 55 * MIB), region(GIB, GIB)]
        );
        frames.free_ram(extents).unwrap();
        assert_eq!(frames.free_regions(), [region(MIB, 63 * MIB), region(GIB, GIB)]);
        assert!(frames.allocate_ram_at(VM, region(MIB, 63 * MIB)).is_some());
    }

    /// Where the frames of the property test begin: some are below 1 GiB, some above.
    const BASE: u64 = GIB - 2 * MIB;
    const MOST_STEPS: usize = if cfg!(miri) { 12 } else { 60 };

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Allocate { pages: u64, align_log2: u32 },
        AllocateRam { pages: u64 },
        AllocateAt { page: u64, pages: u64 },
        Free(usize),
        Reclaim,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (1..70_u64, 0..20_u32).prop_map(|(pages, align_log2)| Step::Allocate { pages, align_log2 }),
            2 => (1..700_u64).prop_map(|pages| Step::AllocateRam { pages }),
            2 => (0..0x540_u64, 1..90_u64).prop_map(|(page, pages)| Step::AllocateAt { page, pages }),
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
            let added = [region(BASE + 0x3000, 0x5_5000), region(BASE + MIB, 4 * MIB)];
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
                    Step::AllocateAt { page, pages } => {
                        let wanted = region(BASE + page * PAGE_BYTES, pages * PAGE_BYTES);
                        let is_free = added.iter().any(|added| added.encloses(&wanted))
                            && !live.iter().any(|other| other.overlaps(&wanted));
                        let extents = frames.allocate_ram_at(VM, wanted);
                        prop_assert_eq!(extents.is_some(), is_free);
                        extents.map_or(Vec::new(), |extents| {
                            assert_eq!(extents.iter().next().unwrap().start, wanted.start);
                            assert_eq!(extents.iter().last().unwrap().last(), wanted.last());
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
                let listed: u64 = frames.free_regions().iter().map(|region| region.size_bytes).sum();
                prop_assert_eq!(listed, frames.free_bytes());
            }
            frames.reclaim(VM);
            prop_assert_eq!(frames.free_frames(), whole);
            // Merged to the biggest block there is: 3 MiB from 1 GiB on hold one aligned block of 2 MiB.
            prop_assert!(frames.allocate(VM, 2 * MIB, 2 * MIB).is_some());
        }
    }
}

//! Properties of the translation tables, on memory that checks how they are changed.
//!
//! [`ScriptedMemory`] refuses changes that the architecture calls unpredictable; [`stage2_walk`] is a second
//! walker, written from the manual and the two registers alone.
//! Follows Arm ARM DDI 0487K.a, D8.2, D8.3, D8.16.1.

use std::collections::BTreeMap;

pub(super) use memory::ScriptedMemory;
use proptest::prelude::*;

use super::Owner;
use super::frames::Extents;
use super::stage2::{MemoryType, Stage2, Stage2Attributes, translate, vtcr_el2};
use super::tables::MapError;
use super::vmid::VmidBits;
use crate::addr::{Ipa, PAGE_BYTES, Pa, Region};
use crate::ids::{VmId, Vmid};

mod memory;

const KIB_4: u64 = 4096;
const MIB_2: u64 = 2 << 20;
const GIB: u64 = 1 << 30;

/// What the second walker found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Reached {
    pa: u64,
    /// Size of the leaf.
    size: u64,
    attributes: Stage2Attributes,
}

/// Translates as the manual says, from the values of VTCR_EL2 and VTTBR_EL2.
fn stage2_walk(memory: &ScriptedMemory, vtcr: u64, vttbr: u64, ipa: u64) -> Option<Reached> {
    let bits = 64 - (vtcr & 0x3f);
    if ipa >> bits != 0 {
        return None;
    }
    let start = match vtcr >> 6 & 3 {
        0 => 2,
        1 => 1,
        2 => 0,
        reserved => panic!("SL0 {reserved}"),
    };
    let mut base = vttbr & 0x0000_ffff_ffff_fffe;
    let first_low = 39 - 9 * start;
    assert!((1..=13).contains(&(bits - first_low)), "T0SZ and SL0 do not agree");
    assert_eq!(base % (8 << (bits - first_low)), 0, "the root is not aligned to its size");
    let mut top = bits;
    for level in start..=3 {
        let low = 39 - 9 * level;
        let index = (ipa >> low) & ((1 << (top - low)) - 1);
        let descriptor = memory.word(base + 8 * index);
        match (descriptor & 3, level) {
            (3, 0..=2) => {
                assert_eq!(descriptor & !0x0000_ffff_ffff_f003, 0, "table descriptor with stray bits");
                base = descriptor & 0x0000_ffff_ffff_f000;
            }
            (1, 1 | 2) | (3, 3) => return Some(stage2_leaf(descriptor, low, ipa)),
            (0, _) => return None,
            (kind, level) => panic!("descriptor type {kind:#b} at level {level}"),
        }
        top = low;
    }
    unreachable!("level 3 has no tables")
}

fn stage2_leaf(descriptor: u64, low: u64, ipa: u64) -> Reached {
    let size = 1 << low;
    let output = descriptor & 0x0000_ffff_ffff_f000;
    assert_eq!(output % size, 0, "output address bits below the block are RES0");
    assert_eq!(descriptor >> 10 & 1, 1, "access flag");
    let (memory, shareability) = match descriptor >> 2 & 0xf {
        0b1111 => (MemoryType::Normal, 0b11),
        0b0001 => (MemoryType::Device, 0b00),
        other => panic!("MemAttr {other:#b}"),
    };
    assert_eq!(descriptor >> 8 & 3, shareability);
    let execute = match descriptor >> 53 & 3 {
        0b00 => true,
        0b10 => false,
        other => panic!("XN {other:#b}"),
    };
    let known = 0x0000_ffff_ffff_f000 | 0b11 << 53 | 0x7fc | 3;
    assert_eq!(descriptor & !known, 0, "stray bits in {descriptor:#x}");
    let attributes =
        Stage2Attributes { read: descriptor >> 6 & 1 == 1, write: descriptor >> 7 & 1 == 1, execute, memory };
    Reached { pa: output + ipa % size, size, attributes }
}

/// One VM with what the hardware would be told about it.
struct Watched {
    stage2: Stage2,
    vtcr: u64,
    vttbr: u64,
}

impl Watched {
    fn new(memory: &mut ScriptedMemory, ipa_bits: u8) -> Self {
        memory.watched = None;
        let stage2 = Stage2::new(memory, ipa_bits).unwrap();
        memory.watch_stage2(&stage2);
        memory.check_settled();
        let vtcr = vtcr_el2(stage2.geometry(), 0b0101, VmidBits::Sixteen);
        let vttbr = stage2.vttbr_el2(Vmid(0xabcd));
        assert_eq!(vttbr >> 48, 0xabcd);
        Self { stage2, vtcr, vttbr }
    }

    /// Translates with all walkers, which must agree.
    fn translate(&self, memory: &ScriptedMemory, ipa: u64) -> Option<Reached> {
        let reached = stage2_walk(memory, self.vtcr, self.vttbr, ipa);
        let translation = self.stage2.translate(memory, Ipa::new(ipa));
        let translated = translation.map(|translation| Reached {
            pa: translation.pa.get(),
            size: translation.leaf_bytes,
            attributes: translation.attributes,
        });
        assert_eq!(translated, reached, "at {ipa:#x}");
        let by_register = translate(memory, self.vttbr, self.stage2.geometry().input_bits(), Ipa::new(ipa));
        assert_eq!(by_register, translation.map(|translation| translation.pa), "at {ipa:#x}");
        reached
    }

    fn destroy(self, memory: &mut ScriptedMemory) {
        memory.watched = None;
        self.stage2.destroy(memory);
    }
}

fn ipa_region(start: u64, size_bytes: u64) -> Region<Ipa> {
    Region::<Ipa>::new(Ipa::new(start), size_bytes).unwrap()
}

fn attributes() -> impl Strategy<Value = Stage2Attributes> {
    let memory = prop_oneof![Just(MemoryType::Normal), Just(MemoryType::Device)];
    (any::<[bool; 3]>(), memory).prop_map(|([read, write, execute], memory)| Stage2Attributes {
        read,
        write,
        execute,
        memory,
    })
}

/// A map of what should be there: for each cell of a grid, its first output address and attributes.
type Model = BTreeMap<u64, (u64, Stage2Attributes)>;

#[derive(Clone, Copy, Debug)]
enum Change {
    /// Map from one line of the grid to another, output at a distance.
    Map { from: usize, to: usize, distance: u64, attributes: Stage2Attributes },
    /// Unmap from one line to another.
    Unmap { from: usize, to: usize },
    /// Unmap from the line on as far as everything is mapped, at most to the other.
    UnmapMapped { from: usize, to: usize },
    /// Allow only so many tables from here on.
    Budget(u32),
}

fn change(lines: usize) -> impl Strategy<Value = Change> {
    let distance = prop_oneof![
        3 => Just(0x10_0000_0000_u64),
        1 => Just(0x10_0000_0000 + GIB + MIB_2),
        1 => Just(0x10_0000_0000 + MIB_2),
        1 => Just(0x10_0000_0000 + KIB_4),
    ];
    let span = (0..lines, 0..lines);
    prop_oneof![
        6 => (span.clone(), distance, attributes()).prop_map(|((from, to), distance, attributes)| {
            Change::Map { from, to, distance, attributes }
        }),
        1 => span.clone().prop_map(|(from, to)| Change::Unmap { from, to }),
        5 => span.prop_map(|(from, to)| Change::UnmapMapped { from, to }),
        1 => prop_oneof![3 => 0..6_u32, 2 => Just(u32::MAX)].prop_map(Change::Budget),
    ]
}

/// What the tables must answer to a change, by the model alone; the model is changed if they accept it.
fn expect(model: &mut Model, grid: &[u64], change: Change) -> Result<(), MapError> {
    match change {
        Change::Map { from, to, distance, attributes } => {
            let cells = &grid[from..to];
            if let Some(taken) = cells.iter().find(|cell| model.contains_key(*cell)) {
                return Err(MapError::AlreadyMapped(*taken));
            }
            model.extend(cells.iter().map(|cell| (*cell, (cell + distance, attributes))));
        }
        Change::Unmap { from, to } | Change::UnmapMapped { from, to } => {
            let cells = &grid[from..to];
            if let Some(hole) = cells.iter().find(|cell| !model.contains_key(*cell)) {
                return Err(MapError::NotMapped(*hole));
            }
            model.retain(|cell, _| !cells.contains(cell));
        }
        Change::Budget(_) => {}
    }
    Ok(())
}

/// Makes the change on the tables.
fn carry_out(
    vm: &mut Watched,
    memory: &mut ScriptedMemory,
    grid: &[u64],
    change: Change,
) -> Result<(), MapError> {
    match change {
        Change::Map { from, to, distance, attributes } => {
            let region = ipa_region(grid[from], grid[to] - grid[from]);
            vm.stage2.map(memory, region, Pa::new(grid[from] + distance), attributes)
        }
        Change::Unmap { from, to } | Change::UnmapMapped { from, to } => {
            vm.stage2.unmap(memory, ipa_region(grid[from], grid[to] - grid[from]))
        }
        Change::Budget(tables) => {
            memory.budget = tables;
            Ok(())
        }
    }
}

/// Puts the lines of a change in order; `None` when there is nothing between them.
fn in_order(model: &Model, grid: &[u64], change: Change) -> Option<Change> {
    let order = |from: usize, to: usize| (from != to).then_some((from.min(to), from.max(to)));
    match change {
        Change::Map { from, to, distance, attributes } => {
            let (from, to) = order(from, to)?;
            // Output that is not aligned takes a descriptor for each page: only for a few of them.
            let is_long = grid[to] - grid[from] > 4 * MIB_2;
            let distance = if is_long { distance & !(MIB_2 - 1) } else { distance };
            Some(Change::Map { from, to, distance, attributes })
        }
        Change::Unmap { from, to } => order(from, to).map(|(from, to)| Change::Unmap { from, to }),
        Change::UnmapMapped { from, to } => {
            let (from, to) = order(from, to)?;
            let from = (from..to).find(|line| model.contains_key(&grid[*line]))?;
            let hole = (from..to).find(|line| !model.contains_key(&grid[*line]));
            Some(Change::UnmapMapped { from, to: hole.unwrap_or(to) })
        }
        Change::Budget(_) => Some(change),
    }
}

/// Runs the changes on the tables and on the model and compares what each cell's ends translate to.
fn check_changes(ipa_bits: u8, grid: &[u64], changes: Vec<Change>) {
    let mut memory = ScriptedMemory::new();
    let frames = memory.frames.free_frames();
    let mut vm = Watched::new(&mut memory, ipa_bits);
    let mut model = Model::new();
    for change in changes {
        let Some(change) = in_order(&model, grid, change) else { continue };
        let mut wanted = model.clone();
        let expected = expect(&mut wanted, grid, change);
        let outcome = carry_out(&mut vm, &mut memory, grid, change);
        if outcome == Err(MapError::OutOfTables) && memory.budget == 0 {
            assert_eq!(expected, Ok(()));
        } else {
            assert_eq!(outcome, expected, "{change:x?}");
            model = wanted;
        }
        memory.check_settled();
        check_against(&vm, &memory, grid, &model);
    }
    vm.destroy(&mut memory);
    assert!(memory.tables.is_empty());
    assert_eq!(memory.frames.free_frames(), frames, "tables have not come back");
}

fn check_against(vm: &Watched, memory: &ScriptedMemory, grid: &[u64], model: &Model) {
    for pair in grid.windows(2) {
        let (start, last) = (pair[0], pair[1] - 1);
        let reached = [start, last].map(|ipa| {
            let reached = vm.translate(memory, ipa);
            reached.map(|reached| (reached.pa, reached.attributes))
        });
        let expected = model.get(&start).copied();
        let expected_last = expected.map(|(pa, attributes)| (pa + (last - start), attributes));
        assert_eq!(reached, [expected, expected_last], "cell {start:#x}");
    }
    let outside = [grid[0].checked_sub(1), grid.last().copied(), Some(u64::MAX)];
    for ipa in outside.into_iter().flatten() {
        assert_eq!(vm.translate(memory, ipa), None);
    }
}

/// Lines where pages, blocks and tables begin and end, in 4 GiB on both sides of 4 GiB.
fn wide_grid() -> Vec<u64> {
    let within_gib = [0, KIB_4, MIB_2, 2 * MIB_2 - KIB_4, 3 * MIB_2, GIB - MIB_2, GIB - KIB_4];
    let mut grid: Vec<u64> =
        (2..6).flat_map(|gib| within_gib.map(move |offset| gib * GIB + offset)).collect();
    grid.push(6 * GIB);
    grid
}

/// Every page of the 4 MiB around `middle`.
fn page_grid(middle: u64) -> Vec<u64> {
    (0..=1024).map(|page| middle - MIB_2 + page * KIB_4).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    #[cfg_attr(miri, ignore = "a case makes thousands of descriptors, and nothing here is unsafe")]
    fn tables_agree_with_a_plain_map_of_blocks(
        ipa_bits in 34..=48_u8,
        changes in prop::collection::vec(change(wide_grid().len()), 1..24),
    ) {
        check_changes(ipa_bits, &wide_grid(), changes);
    }

    #[test]
    #[cfg_attr(miri, ignore = "a case makes thousands of descriptors, and nothing here is unsafe")]
    fn one_vm_never_reaches_a_frame_of_another_or_of_the_hypervisor(
        steps in prop::collection::vec(ownership_step(), 1..24),
    ) {
        check_isolation(steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    #[cfg_attr(miri, ignore = "a case makes thousands of descriptors, and nothing here is unsafe")]
    fn tables_agree_with_a_plain_map_of_pages(
        ipa_bits in 32..=48_u8,
        changes in prop::collection::vec(change(1025), 1..8),
    ) {
        check_changes(ipa_bits, &page_grid(GIB), changes);
    }
}

#[derive(Clone, Copy, Debug)]
enum OwnershipStep {
    /// Give a VM this many pages of RAM at a slot.
    Give { vm: usize, slot: u64, pages: u64 },
    /// Take one of the VM's regions away again and free it.
    Take { vm: usize, index: usize },
    /// The hypervisor takes pages, contiguous ones, for itself.
    Keep { pages: u64 },
    /// A VM ends and another one starts in its place.
    Restart { vm: usize },
}

fn ownership_step() -> impl Strategy<Value = OwnershipStep> {
    prop_oneof![
        6 => (0..2_usize, 0..SLOTS, prop_oneof![1..20_u64, 500..700_u64])
            .prop_map(|(vm, slot, pages)| OwnershipStep::Give { vm, slot, pages }),
        4 => (0..2_usize, any::<usize>()).prop_map(|(vm, index)| OwnershipStep::Take { vm, index }),
        2 => (1..40_u64).prop_map(|pages| OwnershipStep::Keep { pages }),
        1 => (0..2_usize).prop_map(|vm| OwnershipStep::Restart { vm }),
    ]
}

const SLOTS: u64 = 4;
const SLOT_BYTES: u64 = MIB_2;

fn check_isolation(steps: Vec<OwnershipStep>) {
    let mut memory = ScriptedMemory::new();
    let all = memory.frames.free_frames();
    let mut kept = 0;
    let mut vms: Vec<Given> = (0..2).map(|_| (Watched::new(&mut memory, 40), Vec::new())).collect();
    for step in steps {
        match step {
            OwnershipStep::Give { vm, slot, pages } => give(&mut memory, &mut vms[vm], vm, slot, pages),
            OwnershipStep::Take { vm, index } => take(&mut memory, &mut vms[vm], index),
            OwnershipStep::Keep { pages } => {
                kept += memory
                    .frames
                    .allocate(Owner::Hypervisor, pages * PAGE_BYTES, PAGE_BYTES)
                    .map_or(0, |region| usize::try_from(region.size_bytes / PAGE_BYTES).unwrap());
            }
            OwnershipStep::Restart { vm } => {
                let fresh = Watched::new(&mut memory, 40);
                let (old, _) = core::mem::replace(&mut vms[vm], (fresh, Vec::new()));
                old.destroy(&mut memory);
                memory.frames.reclaim(owner(vm));
            }
        }
        for (number, (vm, given)) in vms.iter().enumerate() {
            check_reach(&memory, vm, given, owner(number));
        }
    }
    for (number, (vm, _)) in vms.into_iter().enumerate() {
        vm.destroy(&mut memory);
        memory.frames.reclaim(owner(number));
    }
    assert!(memory.tables.is_empty());
    assert_eq!(memory.frames.free_frames() + kept, all, "frames have not come back");
}

fn owner(vm: usize) -> Owner {
    Owner::Vm(VmId(u16::try_from(vm).unwrap()))
}

type Given = (Watched, Vec<(Region<Ipa>, Extents)>);

fn give(memory: &mut ScriptedMemory, (vm, given): &mut Given, number: usize, slot: u64, pages: u64) {
    let Some(extents) = memory.frames.allocate_ram(owner(number), pages * PAGE_BYTES) else { return };
    memory.watch_stage2(&vm.stage2);
    let start = Ipa::new(GIB + slot * SLOT_BYTES);
    match vm.stage2.map_extents(memory, start, &extents, Stage2Attributes::RAM) {
        Ok(region) => given.push((region, extents)),
        Err(MapError::AlreadyMapped(_) | MapError::OutOfTables) => memory.frames.free_ram(extents).unwrap(),
        Err(error) => panic!("{error:?}"),
    }
    memory.check_settled();
}

fn take(memory: &mut ScriptedMemory, (vm, given): &mut Given, index: usize) {
    if given.is_empty() {
        return;
    }
    let (region, extents) = given.swap_remove(index % given.len());
    memory.watch_stage2(&vm.stage2);
    vm.stage2.unmap(memory, region).unwrap();
    memory.check_settled();
    memory.frames.free_ram(extents).unwrap();
}

/// Every leaf in the tables, wherever it is, reaches what the VM was given and nothing else.
fn check_reach(memory: &ScriptedMemory, vm: &Watched, given: &[(Region<Ipa>, Extents)], owner: Owner) {
    let leaves = memory.leaves(&vm.stage2);
    for (ipa, size) in &leaves {
        let reached = vm.translate(memory, *ipa).unwrap();
        assert_eq!(reached.size, *size);
        for page in (reached.pa..reached.pa + size).step_by(4096) {
            assert_eq!(memory.frames.owner(Pa::new(page)), Some(owner), "{ipa:#x} reaches {page:#x}");
        }
    }
    let mapped: u64 = leaves.iter().map(|(_, size)| size).sum();
    assert_eq!(mapped, given.iter().map(|(region, _)| region.size_bytes).sum());
}

#[test]
fn the_biggest_leaf_that_fits_is_used() {
    let mut memory = ScriptedMemory::new();
    let mut vm = Watched::new(&mut memory, 40);
    let start = GIB - MIB_2 - KIB_4;
    let size_bytes = KIB_4 + MIB_2 + GIB + MIB_2 + KIB_4;
    let pa = Pa::new(0x10_0000_0000 + start);
    vm.stage2.map(&mut memory, ipa_region(start, size_bytes), pa, Stage2Attributes::RAM).unwrap();
    let leaves = [start, start + KIB_4, GIB, 2 * GIB, 2 * GIB + MIB_2]
        .map(|ipa| vm.translate(&memory, ipa).unwrap().size);
    assert_eq!(leaves, [KIB_4, MIB_2, GIB, MIB_2, KIB_4]);
    assert_eq!(memory.tables.len(), 5, "root, two of level 2, two of level 3");
}

#[test]
fn level_0_has_no_blocks() {
    let mut memory = ScriptedMemory::new();
    let mut vm = Watched::new(&mut memory, 48);
    vm.stage2.map(&mut memory, ipa_region(0, 512 * GIB), Pa::new(0), Stage2Attributes::RAM).unwrap();
    assert_eq!(vm.translate(&memory, 0).unwrap().size, GIB);
    assert_eq!(vm.translate(&memory, 512 * GIB - 1).unwrap().pa, 512 * GIB - 1);
}

#[test]
fn one_gib_takes_no_table_but_the_root() {
    let mut memory = ScriptedMemory::new();
    let mut vm = Watched::new(&mut memory, 40);
    vm.stage2.map(&mut memory, ipa_region(GIB, GIB), Pa::new(0x40_0000_0000), Stage2Attributes::RAM).unwrap();
    assert_eq!(memory.tables.len(), 1);
}

#[test]
fn a_hole_in_a_gib_splits_it_twice_and_leaves_the_rest() {
    let mut memory = ScriptedMemory::new();
    let mut vm = Watched::new(&mut memory, 40);
    vm.stage2.map(&mut memory, ipa_region(0, GIB), Pa::new(GIB), Stage2Attributes::ROM).unwrap();
    vm.stage2.unmap(&mut memory, ipa_region(MIB_2 + KIB_4, KIB_4)).unwrap();
    memory.check_settled();
    let reached = |ipa| vm.translate(&memory, ipa).map(|reached| (reached.pa, reached.size));
    assert_eq!(reached(0), Some((GIB, MIB_2)));
    assert_eq!(reached(MIB_2), Some((GIB + MIB_2, KIB_4)));
    assert_eq!(reached(MIB_2 + KIB_4), None);
    assert_eq!(reached(MIB_2 + 2 * KIB_4), Some((GIB + MIB_2 + 2 * KIB_4, KIB_4)));
    assert_eq!(reached(GIB - 1), Some((2 * GIB - 1, MIB_2)));
}

#[test]
fn a_split_without_tables_changes_nothing() {
    let mut memory = ScriptedMemory::new();
    let mut vm = Watched::new(&mut memory, 40);
    vm.stage2.map(&mut memory, ipa_region(0, GIB), Pa::new(GIB), Stage2Attributes::RAM).unwrap();
    memory.budget = 1;
    let part = ipa_region(0, KIB_4);
    assert_eq!(vm.stage2.unmap(&mut memory, part), Err(MapError::OutOfTables));
    memory.check_settled();
    assert_eq!(vm.translate(&memory, 0).unwrap().pa, GIB);
}

#[test]
fn what_cannot_be_mapped_is_named() {
    let mut memory = ScriptedMemory::new();
    let mut vm = Watched::new(&mut memory, 40);
    let mut map = |start, size_bytes, pa| {
        let region = Region { start: Ipa::new(start), size_bytes };
        vm.stage2.map(&mut memory, region, Pa::new(pa), Stage2Attributes::RAM)
    };
    let top = 1 << 40;
    assert_eq!(map(0x800, KIB_4, 0), Err(MapError::Unaligned(0x800)));
    assert_eq!(map(0, 0x1800, 0), Err(MapError::Unaligned(0x1800)));
    assert_eq!(map(0, KIB_4, 0x10), Err(MapError::Unaligned(0x10)));
    assert_eq!(map(KIB_4, 0, 0), Err(MapError::Empty(KIB_4)));
    assert_eq!(map(top - KIB_4, 2 * KIB_4, 0), Err(MapError::OutOfRange(top - KIB_4)));
    assert_eq!(map(u64::MAX - 0xfff, KIB_4, 0), Err(MapError::OutOfRange(u64::MAX - 0xfff)));
    let last_frame = (1 << 48) - KIB_4;
    assert_eq!(map(0, 2 * KIB_4, last_frame), Err(MapError::OutputOutOfRange(Pa::new(last_frame))));
    assert_eq!(map(top - KIB_4, KIB_4, last_frame), Ok(()));
    assert_eq!(map(0, top, 0), Err(MapError::AlreadyMapped(top - KIB_4)));
    assert_eq!(Stage2::new(&mut memory, 31).err(), Some(MapError::UnsupportedWidth(31)));
    memory.budget = 0;
    assert_eq!(Stage2::new(&mut memory, 40).err(), Some(MapError::OutOfTables));
}

#[test]
fn extents_that_do_not_fit_leave_nothing_mapped() {
    let mut memory = ScriptedMemory::new();
    let mut vm = Watched::new(&mut memory, 40);
    let start = Ipa::new(GIB);
    let obstacle = ipa_region(GIB + MIB_2 + KIB_4, KIB_4);
    vm.stage2.map(&mut memory, obstacle, Pa::new(0), Stage2Attributes::DEVICE).unwrap();
    let extents = memory.frames.allocate_ram(owner(0), MIB_2 + 2 * KIB_4 + KIB_4).unwrap();
    let outcome = vm.stage2.map_extents(&mut memory, start, &extents, Stage2Attributes::RAM);
    assert_eq!(outcome, Err(MapError::AlreadyMapped(obstacle.start.get())));
    memory.check_settled();
    assert_eq!(vm.translate(&memory, GIB), None);
    assert_eq!(vm.translate(&memory, obstacle.start.get()).unwrap().pa, 0);
}

#[test]
fn a_walk_reads_no_more_descriptors_than_there_are_levels() {
    let mut memory = ScriptedMemory::new();
    let mut vm = Watched::new(&mut memory, 40);
    vm.stage2.map(&mut memory, ipa_region(GIB, KIB_4), Pa::new(0), Stage2Attributes::RAM).unwrap();
    memory.reads.set(0);
    assert!(vm.stage2.translate(&memory, Ipa::new(GIB)).is_some());
    assert_eq!(memory.reads.get(), 3, "40 bits start at level 1");
}

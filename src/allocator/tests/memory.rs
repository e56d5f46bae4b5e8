//! Memory for tables that checks how they are changed.
//!
//! It refuses what the architecture calls unpredictable: a valid descriptor replaced without
//! break-before-make, a table linked before its contents are visible, a table freed while a TLB may know it.
//! Follows Arm ARM DDI 0487K.a, D8.16.1.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use super::super::Owner;
use super::super::frames::Frames;
use super::super::stage2::Stage2;
use super::super::tables::TableMemory;
use crate::addr::{Pa, Region};

use super::KIB_4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    Written,
    Published,
}

/// Memory for tables, with a TLB that remembers every descriptor until it is told not to.
pub(in crate::allocator) struct ScriptedMemory {
    pub(in crate::allocator) frames: Frames,
    /// Number of tables that can still be allocated.
    pub(in crate::allocator) budget: u32,
    /// Root, input width and start level of the tables that are changed; none while they are destroyed.
    pub(super) watched: Option<(Pa, u32, u32)>,
    roots: BTreeSet<u64>,
    /// Words of each live table, by its address.
    pub(super) tables: BTreeMap<u64, Vec<u64>>,
    broken: BTreeMap<u64, Broken>,
    /// Pages with stores that no walker need see yet.
    unpublished: BTreeSet<u64>,
    pub(super) reads: Cell<u64>,
}

impl ScriptedMemory {
    pub(in crate::allocator) fn new() -> Self {
        let mut frames = Frames::new();
        frames.add(Region { start: Pa::new(0x8000_0000), size_bytes: 64 << 20 }).unwrap();
        Self {
            frames,
            budget: u32::MAX,
            watched: None,
            roots: BTreeSet::new(),
            tables: BTreeMap::new(),
            broken: BTreeMap::new(),
            unpublished: BTreeSet::new(),
            reads: Cell::new(0),
        }
    }

    /// Says which tables the next changes are made to.
    pub(in crate::allocator) fn watch(&mut self, root: Pa, input_bits: u32, start_level: u32) {
        self.watched = Some((root, input_bits, start_level));
        self.roots.insert(root.get());
    }

    pub(super) fn watch_stage2(&mut self, stage2: &Stage2) {
        let geometry = stage2.geometry();
        self.watch(stage2.root(), geometry.input_bits().into(), geometry.start_level().number().into());
    }

    /// The descriptor at `address`, which lies in a live table.
    pub(super) fn word(&self, address: u64) -> u64 {
        let (table, words) = self.tables.range(..=address).next_back().expect("no table there");
        assert!(address.is_multiple_of(8), "{address:#x} is no descriptor");
        *words.get(index_of(address - table)).unwrap_or_else(|| panic!("{address:#x} is in no live table"))
    }

    /// Input address and size of every leaf there is, found from the stored words and not by walking.
    pub(super) fn leaves(&self, stage2: &Stage2) -> Vec<(u64, u64)> {
        let start = u32::from(stage2.geometry().start_level().number());
        let mut leaves = Vec::new();
        let mut tables = vec![(stage2.root().get(), start, 0)];
        while let Some((table, level, base)) = tables.pop() {
            let entry_bytes = 1 << (39 - 9 * level);
            for (index, word) in (0..).zip(&self.tables[&table]).filter(|(_, word)| **word & 1 == 1) {
                let input = base + index * entry_bytes;
                if word & 3 == 3 && level < 3 {
                    tables.push((word & 0xffff_ffff_f000, level + 1, input));
                } else {
                    leaves.push((input, entry_bytes));
                }
            }
        }
        leaves
    }

    /// Descriptors that a walk for `input` reads, root first.
    fn path(&self, input: u64) -> Vec<u64> {
        let (root, bits, start) = self.watched.unwrap();
        let (mut base, mut top, mut path) = (root.get(), bits, Vec::new());
        for level in start..=3 {
            let low = 39 - 9 * level;
            let address = base + 8 * ((input >> low) & ((1 << (top - low)) - 1));
            path.push(address);
            let word = self.word(address);
            if word & 3 != 3 || level == 3 {
                break;
            }
            (base, top) = (word & 0xffff_ffff_f000, low);
        }
        path
    }

    /// Every table but the root holds a valid descriptor, and every change has been finished.
    pub(super) fn check_settled(&self) {
        assert!(self.broken.is_empty(), "broken and never invalidated: {:x?}", self.broken);
        assert!(self.unpublished.is_empty(), "never published: {:x?}", self.unpublished);
        for (table, words) in self.tables.iter().filter(|(table, _)| !self.roots.contains(table)) {
            assert!(words.iter().any(|word| word & 1 == 1), "table {table:#x} is empty");
        }
    }
}

fn index_of(offset: u64) -> usize {
    usize::try_from(offset / 8).unwrap()
}

impl TableMemory for ScriptedMemory {
    fn read(&self, descriptor: Pa) -> u64 {
        self.reads.set(self.reads.get() + 1);
        self.word(descriptor.get())
    }

    fn write(&mut self, descriptor: Pa, value: u64) {
        let address = descriptor.get();
        let old = self.word(address);
        match (old & 1 == 1, value & 1 == 1) {
            (true, true) => assert_eq!(old, value, "{address:#x} changed without a break"),
            (true, false) => {
                self.broken.insert(address, Broken::Written);
            }
            (false, true) => {
                let state = self.broken.get(&address);
                assert_eq!(state, None, "{address:#x} made before the break is finished");
            }
            (false, false) => {}
        }
        let target = value & 0xffff_ffff_f000;
        if value & 3 == 3 && self.tables.contains_key(&target) {
            assert!(!self.unpublished.contains(&target), "{target:#x} linked before it is published");
        }
        let (table, words) = self.tables.range_mut(..=address).next_back().unwrap();
        words[index_of(address - table)] = value;
        self.unpublished.insert(address & !0xfff);
    }

    fn allocate(&mut self, pages: u32) -> Option<Pa> {
        self.budget = self.budget.checked_sub(1)?;
        let bytes = u64::from(pages) * KIB_4;
        let start = self.frames.allocate(Owner::Hypervisor, bytes, bytes)?.start;
        self.tables.insert(start.get(), vec![0; index_of(bytes)]);
        self.unpublished.extend((0..u64::from(pages)).map(|page| start.get() + page * KIB_4));
        Some(start)
    }

    fn free(&mut self, table: Pa, pages: u32) {
        let size_bytes = u64::from(pages) * KIB_4;
        let words = self.tables.remove(&table.get()).expect("no such table");
        assert_eq!(words.len(), index_of(size_bytes));
        self.roots.remove(&table.get());
        if self.watched.is_some() {
            assert!(self.broken.is_empty(), "{table} freed while a walker may use it");
            let is_linked = self.tables.values().flatten().any(|word| *word == table.get() | 3);
            assert!(!is_linked, "{table} freed while linked");
        }
        self.frames.free(Region { start: table, size_bytes }).unwrap();
    }

    fn publish(&mut self) {
        self.unpublished.clear();
        self.broken.values_mut().for_each(|state| *state = Broken::Published);
    }

    fn invalidate(&mut self, input: u64) {
        for descriptor in self.path(input) {
            let state = self.broken.remove(&descriptor);
            assert_ne!(state, Some(Broken::Written), "{descriptor:#x} invalidated before it is published");
        }
    }
}

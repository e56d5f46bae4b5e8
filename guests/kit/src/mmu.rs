//! Translation tables of EL1 and EL0 with any granule: 39 bits of addresses, blocks where they fit.
//!
//! [`enable`] maps devices and RAM where they are, for EL1, and RAM once more at [`USER`] for EL0.
//! Follows Arm ARM DDI 0487K.a, D8.

use crate::{ins, mrs, msr};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

/// SCTLR_EL1 with its RES1 bits and nothing else: MMU, caches and alignment checks off.
pub const SCTLR_OFF: u64 = 0x30d0_0800;
const SCTLR_M: u64 = 1;
const SCTLR_C: u64 = 1 << 2;
const SCTLR_I: u64 = 1 << 12;

/// Where EL0 finds RAM, read, write and execute: at its address plus this.
pub const USER: u64 = 1 << 38;
/// Bits of an address.
const VA_BITS: u32 = 39;
/// Start of RAM.
pub const RAM: u64 = 0x4000_0000;
/// Bytes of RAM that [`enable`] maps.
pub const RAM_BYTES: u64 = 0x4000_0000;

/// MAIR_EL1: 0 Device-nGnRnE, 1 normal write-back, 2 normal non-cacheable, 3 Device-nGnRE.
pub const MAIR: u64 = 0x04_44_ff_00;

const VALID: u64 = 1;
/// A table, or at the last level a page.
const TABLE: u64 = 1 << 1;
const ACCESS_FLAG: u64 = 1 << 10;
const INNER_SHAREABLE: u64 = 3 << 8;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// What a mapping allows: bits of a block or page descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes(pub u64);

impl Attributes {
    /// Device-nGnRnE, EL1 only, never executed.
    pub const DEVICE: Self = Self(ACCESS_FLAG | 1 << 53 | 1 << 54);
    /// Normal memory, EL1 only: read, write, execute.
    pub const KERNEL: Self = Self(ACCESS_FLAG | INNER_SHAREABLE | 1 << 2 | 1 << 54);
    /// Normal memory, EL1 only: read.
    pub const READ_ONLY: Self = Self(Self::KERNEL.0 | 1 << 7);
    /// Normal memory for EL0: read, write, execute; not executed by EL1.
    pub const USER: Self = Self(ACCESS_FLAG | INNER_SHAREABLE | 1 << 2 | 1 << 6 | 1 << 53);
}

/// A translation granule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Granule {
    /// 4 KiB.
    K4,
    /// 16 KiB.
    K16,
    /// 64 KiB.
    K64,
}

impl Granule {
    /// Returns a page's size as a power of two.
    pub fn shift(self) -> u32 {
        match self {
            Self::K4 => 12,
            Self::K16 => 14,
            Self::K64 => 16,
        }
    }

    /// Says whether this CPU has it (ID_AA64MMFR0_EL1).
    pub fn is_implemented(self) -> bool {
        let features = mrs!("ID_AA64MMFR0_EL1");
        match self {
            Self::K4 => features >> 28 & 0xf != 0xf,
            Self::K16 => features >> 20 & 0xf != 0,
            Self::K64 => features >> 24 & 0xf != 0xf,
        }
    }

    /// Returns TCR_EL1: TTBR0_EL1 only, 40 bits of output, write-back inner shareable walks.
    fn tcr(self) -> u64 {
        let granule = match self {
            Self::K4 => 0,
            Self::K16 => 2,
            Self::K64 => 1,
        };
        let (inner_shareable, write_back, epd1, ips_40) = (3 << 12, 1 << 8 | 1 << 10, 1 << 23, 2 << 32);
        u64::from(64 - VA_BITS) | write_back | inner_shareable | granule << 14 | epd1 | ips_40
    }

    /// Returns how many address bits lie below the entries of level `level`.
    pub fn shift_of(self, level: u32) -> u32 {
        self.shift() + (3 - level) * (self.shift() - 3)
    }

    /// Returns the level at which a walk begins.
    fn first_level(self) -> u32 {
        (0..4).find(|level| self.shift_of(*level) < VA_BITS).unwrap_or(3)
    }

    /// Says whether level `level` has blocks or pages.
    fn has_leaf(self, level: u32) -> bool {
        level >= 2 || level == 1 && self == Self::K4
    }
}

/// Tables of a map; there is a pool for the one in use and one for the next.
const MAP_TABLES: usize = 10;
const POOL_TABLES: usize = 2 * MAP_TABLES;
const ENTRIES_MOST: usize = 8192;

#[repr(C, align(65536))]
struct Table([AtomicU64; ENTRIES_MOST]);

#[unsafe(link_section = ".noinit")]
static POOL: [Table; POOL_TABLES] =
    [const { Table([const { AtomicU64::new(0) }; ENTRIES_MOST]) }; POOL_TABLES];
/// First table of the latest map, and how many of its tables are in use.
static FIRST: AtomicU64 = AtomicU64::new(0);
static USED: AtomicU64 = AtomicU64::new(0);

/// A map. Two can be there at a time, so that one is made while the other translates.
#[derive(Clone, Copy)]
pub struct Map {
    granule: Granule,
    first: usize,
}

impl Map {
    /// Begins an empty map; the one before the latest is lost.
    pub fn new(granule: Granule) -> Self {
        let first = if FIRST.load(Relaxed) == 0 { MAP_TABLES } else { 0 };
        FIRST.store(first as u64, Relaxed);
        USED.store(0, Relaxed);
        let map = Self { granule, first };
        map.take();
        map
    }

    /// Takes an empty table from the pool.
    fn take(self) -> &'static Table {
        let used = USED.fetch_add(1, Relaxed) as usize;
        assert!(used < MAP_TABLES, "a map has no more tables");
        let table = &POOL[self.first + used];
        table.0.iter().take(1 << (self.granule.shift() - 3)).for_each(|entry| entry.store(0, Relaxed));
        table
    }

    /// Maps `bytes` bytes at `va` to `pa`, all multiples of the granule, replacing what is there.
    pub fn add(self, va: u64, pa: u64, bytes: u64, attributes: Attributes) {
        let mut done = 0;
        while done < bytes {
            done += self.add_leaf(va + done, pa + done, bytes - done, attributes);
        }
        ins!("dsb ish", "isb");
    }

    /// Maps the largest block that fits, and returns its bytes.
    fn add_leaf(self, va: u64, pa: u64, bytes: u64, attributes: Attributes) -> u64 {
        let mut level = self.granule.first_level();
        loop {
            let size = 1 << self.granule.shift_of(level);
            if level == 3 || self.granule.has_leaf(level) && (va | pa).is_multiple_of(size) && bytes >= size {
                let kind = if level == 3 { VALID | TABLE } else { VALID };
                self.entry(va, level).store(pa | attributes.0 | kind, Relaxed);
                return size;
            }
            level += 1;
        }
    }

    /// Returns the entry for `va` at `level`, splitting and making tables on the way.
    pub fn entry(self, va: u64, level: u32) -> &'static AtomicU64 {
        let mut table = &POOL[self.first];
        let mut at = self.granule.first_level();
        loop {
            let shift = self.granule.shift_of(at);
            let index = va >> shift & ((1 << (self.granule.shift() - 3)) - 1);
            let entry = &table.0[index as usize];
            if at == level {
                return entry;
            }
            table = self.below(entry, at);
            at += 1;
        }
    }

    /// Returns the table that `entry` of level `level` points to; makes one, with what a block there maps.
    fn below(self, entry: &AtomicU64, level: u32) -> &'static Table {
        let descriptor = entry.load(Relaxed);
        if descriptor & (VALID | TABLE) == VALID | TABLE {
            let base = address(&POOL[0]);
            return &POOL[((descriptor & ADDRESS) - base) as usize / size_of::<Table>()];
        }
        let table = self.take();
        if descriptor & VALID != 0 {
            let kind = if level == 2 { TABLE } else { 0 };
            let size = 1_u64 << self.granule.shift_of(level + 1);
            for (index, below) in (0..).zip(table.0.iter().take(1 << (self.granule.shift() - 3))) {
                below.store((descriptor + index * size) | kind, Relaxed);
            }
        }
        entry.store(address(table) | VALID | TABLE, Relaxed);
        table
    }

    /// Turns this CPU's MMU and caches on with this map, instead of one with the same granule if they are on.
    pub fn enable(self) {
        msr!("MAIR_EL1", MAIR);
        msr!("TCR_EL1", self.granule.tcr());
        msr!("TTBR0_EL1", address(&POOL[self.first]));
        ins!("dsb sy", "isb", "tlbi vmalle1", "ic iallu", "dsb nsh", "isb");
        msr!("SCTLR_EL1", SCTLR_OFF | SCTLR_M | SCTLR_C | SCTLR_I);
    }
}

/// Maps devices below RAM and 1 GiB of RAM where they are, and that RAM at [`USER`] for EL0, and turns the MMU on.
pub fn enable(granule: Granule) -> Map {
    let map = Map::new(granule);
    map.add(0, 0, RAM, Attributes::DEVICE);
    map.add(RAM, RAM, RAM_BYTES, Attributes::KERNEL);
    map.add(USER + RAM, RAM, RAM_BYTES, Attributes::USER);
    map.enable();
    map
}

/// Turns this CPU's MMU and caches off. Lines of its caches may hide what is written then: clean what matters.
pub fn disable() {
    msr!("SCTLR_EL1", SCTLR_OFF);
    ins!("dsb sy", "tlbi vmalle1", "dsb nsh", "isb");
}

/// Drops what all CPUs' TLBs know; for after a change of the map.
pub fn flush() {
    ins!("dsb ishst", "tlbi vmalle1is", "dsb ish", "isb");
}

/// Returns MAIR_EL1, TCR_EL1, TTBR0_EL1 and SCTLR_EL1 of this CPU.
pub(crate) fn regime() -> [u64; 4] {
    [mrs!("MAIR_EL1"), mrs!("TCR_EL1"), mrs!("TTBR0_EL1"), mrs!("SCTLR_EL1")]
}

/// Returns where a table is: virtual and physical addresses are the same here.
fn address(table: &'static Table) -> u64 {
    core::ptr::from_ref(table).addr() as u64
}

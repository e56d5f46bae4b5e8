//! VMSAv8-64 translation tables with the 4 KiB granule: their geometry, and walking and changing them.
//!
//! Not here: what attribute bits mean ([`super::stage1`], [`super::stage2`]), and how a descriptor
//! gets to memory and a stale one out of a TLB ([`TableMemory`]). Nothing here locks or allocates by
//! itself, so that the hypervisor can build its own map before its MMU is on.
//! Follows Arm ARM DDI 0487K.a, D8.2 (translation process), D8.3 (descriptor formats) and D8.16.1
//! (break-before-make).
//!
//! ```text
//! input   47     39 38     30 29     21 20     12 11       0
//!         [level 0 ][level 1 ][level 2 ][level 3 ][ offset ]
//! leaf                 1 GiB     2 MiB     4 KiB
//! ```
//!
//! Outside a call each table but the root holds at least one valid descriptor.

use crate::addr::{PAGE_BYTES, Pa};

/// Widest output address in bits: more needs FEAT_LPA2 or another granule (Arm ARM DDI 0487K.a, D8.1).
pub const MAX_PA_BITS: u8 = 48;

const DESCRIPTOR_BYTES: u64 = 8;
const TABLE_ENTRIES: u64 = PAGE_BYTES / DESCRIPTOR_BYTES;
const TABLE_BITS: u8 = 9;
const PAGE_BITS: u8 = 12;
/// At most 16 tables, 4 bits of input, may be concatenated at the start of stage 2.
const MAX_CONCATENATED_BITS: u8 = 4;

const TYPE: u64 = 0b11;
const BLOCK: u64 = 0b01;
const TABLE_OR_PAGE: u64 = 0b11;
const INVALID: u64 = 0;
/// Output address or next-level table address, bits 47:12.
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

const _: () = assert!(PAGE_BYTES == 1 << PAGE_BITS && TABLE_ENTRIES == 1 << TABLE_BITS);
const _: () = assert!(Level(0).table_bits() == MAX_PA_BITS);

/// Reaches the memory that holds translation tables, and the TLBs that cache them.
pub trait TableMemory {
    /// Reads the 64-bit descriptor at `descriptor`.
    fn read(&self, descriptor: Pa) -> u64;

    /// Stores a 64-bit descriptor in one single-copy atomic write: a walker may be reading it.
    fn write(&mut self, descriptor: Pa, value: u64);

    /// Hands out `pages` contiguous zeroed pages, aligned to their total size; `pages` is a power of two.
    fn allocate(&mut self, pages: u32) -> Option<Pa>;

    /// Takes back `pages` pages that [`Self::allocate`] gave.
    fn free(&mut self, table: Pa, pages: u32);

    /// Makes all earlier stores visible to the table walkers (DSB ISHST, and an ISB for one's own regime).
    fn publish(&mut self);

    /// Removes from the TLBs of all CPUs what they hold of the translation of `input`, and waits for it.
    ///
    /// That includes walk caches (no last-level form of TLBI) and, at stage 2, what stage 1 and 2 combine
    /// to: TLBI IPAS2E1IS, DSB ISH, TLBI VMALLE1IS, DSB ISH with the VM's VMID in VTTBR_EL2. `input` is an
    /// IPA at stage 2, a VA at stage 1. One address that the broken descriptor covered is given for it,
    /// which is enough for a whole block.
    fn invalidate(&mut self, input: u64);
}

/// Says why a map or unmap was refused; the tables translate as before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// The input address, output address or size that is no multiple of 4 KiB.
    Unaligned(u64),
    /// The range at this input address has no bytes.
    Empty(u64),
    /// The range at this input address leaves the input width.
    OutOfRange(u64),
    /// The range at this output address leaves 48 bits.
    OutputOutOfRange(Pa),
    /// This input address is mapped already: the first such one of the range.
    AlreadyMapped(u64),
    /// This input address is not mapped: the first such one of the range.
    NotMapped(u64),
    /// There is no page left for a table.
    OutOfTables,
    /// No geometry with the 4 KiB granule translates this number of input bits.
    UnsupportedWidth(u8),
}

/// Returns the number of physical address bits that ID_AA64MMFR0_EL1.PARange stands for, at most 48.
#[must_use]
pub fn pa_bits(pa_range: u8) -> u8 {
    const PA_BITS: [u8; 6] = [32, 36, 40, 42, 44, MAX_PA_BITS];
    PA_BITS.get(usize::from(pa_range)).copied().unwrap_or(MAX_PA_BITS)
}

/// Returns the value of TCR_EL2.PS and VTCR_EL2.PS for a PARange: the same encoding, at most 48 bits.
#[must_use]
pub fn physical_size(pa_range: u8) -> u64 {
    const PS_48_BITS: u8 = 0b101;
    u64::from(pa_range.min(PS_48_BITS))
}

/// Numbers a lookup level as Arm does: 0 is nearest to the root, 3 holds pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Level(u8);

impl Level {
    /// Returns the level as a number, 0 to 3.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Returns how many bytes of input one entry of this level covers.
    #[must_use]
    pub const fn entry_bytes(self) -> u64 {
        1 << self.shift()
    }

    const fn shift(self) -> u8 {
        PAGE_BITS + TABLE_BITS * (3 - self.0)
    }

    /// Number of input bits that one table of this level resolves, with all that is below it.
    const fn table_bits(self) -> u8 {
        self.shift() + TABLE_BITS
    }

    fn below(self) -> Option<Self> {
        (self.0 < 3).then_some(Self(self.0 + 1))
    }

    /// Level 0 has no blocks unless FEAT_LPA2 is in use.
    fn has_leaves(self) -> bool {
        self.0 > 0
    }
}

/// Fixes the shape of a set of tables: input width, level of the root, number of pages of the root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    input_bits: u8,
    start: Level,
    root_pages: u32,
}

impl Geometry {
    /// The hypervisor's own map: 48 bits of input from level 0.
    pub const EL2: Self = Self { input_bits: 48, start: Level(0), root_pages: 1 };

    /// Shapes a stage 2 of 32 to 48 bits of input with as few levels as concatenation of up to 16 root
    /// tables allows (Arm ARM DDI 0487K.a, D8.2); `None` for other widths.
    #[must_use]
    pub const fn stage2(input_bits: u8) -> Option<Self> {
        let start = match input_bits {
            32..=34 => Level(2),
            35..=43 => Level(1),
            44..=48 => Level(0),
            _ => return None,
        };
        let concatenated_bits = input_bits.saturating_sub(start.table_bits());
        assert!(concatenated_bits <= MAX_CONCATENATED_BITS);
        Some(Self { input_bits, start, root_pages: 1 << concatenated_bits })
    }

    /// Returns the number of input address bits.
    #[must_use]
    pub const fn input_bits(self) -> u8 {
        self.input_bits
    }

    /// Returns the level at which a walk starts.
    #[must_use]
    pub const fn start_level(self) -> Level {
        self.start
    }

    /// Returns the number of concatenated root tables, a page each.
    #[must_use]
    pub const fn root_pages(self) -> u32 {
        self.root_pages
    }

    /// First input address above the range.
    const fn limit(self) -> u64 {
        1 << self.input_bits
    }
}

/// Asks for `size_bytes` from `input` to reach `output` and what follows, with `attributes`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// First input address: an IPA at stage 2, a VA at stage 1.
    pub input: u64,
    /// First output address.
    pub output: Pa,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Attribute bits of a leaf descriptor; the type and address bits are 0.
    pub attributes: u64,
}

impl Mapping {
    /// Tells whether a leaf of `level` can stand at the start of the mapping.
    fn fits(&self, level: Level) -> bool {
        let bytes = level.entry_bytes();
        let aligned = (self.input | self.output.get()) & (bytes - 1) == 0;
        level.has_leaves() && aligned && self.size_bytes >= bytes
    }

    /// What is left when the first `bytes` are mapped; the ranges are checked not to wrap.
    fn after(self, bytes: u64) -> Self {
        Self {
            input: self.input + bytes,
            output: Pa::new(self.output.get() + bytes),
            size_bytes: self.size_bytes - bytes,
            attributes: self.attributes,
        }
    }
}

/// Describes what one input address translates to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// Output address of the very byte.
    pub output: Pa,
    /// Attribute bits of the descriptor.
    pub attributes: u64,
    /// Size of the block or page in bytes: 1 GiB, 2 MiB or 4 KiB.
    pub size_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    Invalid,
    Table(Pa),
    Leaf { output: Pa, attributes: u64 },
}

impl Entry {
    fn decode(descriptor: u64, level: Level) -> Self {
        let address = Pa::new(descriptor & ADDRESS);
        match (descriptor & TYPE, level.number()) {
            (TABLE_OR_PAGE, 0..=2) => Self::Table(address),
            (TABLE_OR_PAGE, 3) | (BLOCK, 1 | 2) => {
                Self::Leaf { output: address, attributes: descriptor & !(ADDRESS | TYPE) }
            }
            _ => Self::Invalid,
        }
    }

    fn leaf(level: Level, output: Pa, attributes: u64) -> u64 {
        let kind = if level.below().is_some() { BLOCK } else { TABLE_OR_PAGE };
        output.get() | attributes | kind
    }
}

/// Where a walk ended: at the first descriptor that points to no further table.
struct Walk {
    level: Level,
    /// Address of the descriptor.
    descriptor: Pa,
    entry: Entry,
    /// Address of the descriptor that points to the table; `None` in the root.
    link: Option<Pa>,
}

/// Holds the root of a set of translation tables of either stage.
///
/// Callers serialise changes. The tables stay in memory until [`Self::destroy`].
#[derive(Debug)]
pub struct Tables {
    root: Pa,
    geometry: Geometry,
}

impl Tables {
    /// Makes tables in which nothing is mapped.
    ///
    /// # Errors
    /// [`MapError::OutOfTables`] when there is no memory for the root.
    pub fn new(memory: &mut impl TableMemory, geometry: Geometry) -> Result<Self, MapError> {
        let root = memory.allocate(geometry.root_pages).ok_or(MapError::OutOfTables)?;
        memory.publish();
        Ok(Self { root, geometry })
    }

    /// Names tables that somebody else holds, to translate by them.
    pub(super) const fn at(root: Pa, geometry: Geometry) -> Self {
        Self { root, geometry }
    }

    /// Returns the address of the root, aligned to its size: the base address of a TTBR.
    #[must_use]
    pub const fn root(&self) -> Pa {
        self.root
    }

    /// Returns the shape of the tables.
    #[must_use]
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Maps `wanted` with the biggest leaves that alignment and size allow.
    ///
    /// # Errors
    /// Anything that [`MapError`] names; then nothing of it is mapped.
    pub fn map(&mut self, memory: &mut impl TableMemory, wanted: Mapping) -> Result<(), MapError> {
        let end = self.check_input(wanted.input, wanted.size_bytes)?;
        check_output(wanted.output, wanted.size_bytes)?;
        self.check_unmapped(memory, wanted.input, end)?;
        let mut rest = wanted;
        while rest.size_bytes > 0 {
            let Some(bytes) = self.map_leaf(memory, &rest) else {
                self.clear(memory, wanted.input, rest.input);
                self.prune(memory, rest.input);
                return Err(MapError::OutOfTables);
            };
            rest = rest.after(bytes);
        }
        // A descriptor that was invalid is in no TLB (D8.16.1): visible is enough.
        memory.publish();
        Ok(())
    }

    /// Unmaps `size_bytes` from `input`, all of which must be mapped. Blocks that reach over an end are
    /// split first, so for a moment their other parts fault as well.
    ///
    /// # Errors
    /// Anything that [`MapError`] names; then everything is mapped as it was.
    pub fn unmap(
        &mut self,
        memory: &mut impl TableMemory,
        input: u64,
        size_bytes: u64,
    ) -> Result<(), MapError> {
        let end = self.check_input(input, size_bytes)?;
        self.check_mapped(memory, input, end)?;
        self.split_at(memory, input)?;
        self.split_at(memory, end)?;
        self.clear(memory, input, end);
        Ok(())
    }

    /// Returns what `input` translates to; `None` where the walker would fault.
    #[must_use]
    pub fn translate(&self, memory: &impl TableMemory, input: u64) -> Option<Leaf> {
        if input >= self.geometry.limit() {
            return None;
        }
        let walk = self.walk(memory, input);
        let Entry::Leaf { output, attributes } = walk.entry else { return None };
        let size_bytes = walk.level.entry_bytes();
        Some(Leaf { output: Pa::new(output.get() + (input & (size_bytes - 1))), attributes, size_bytes })
    }

    /// Frees all tables. The caller has made sure that no CPU's TTBR holds the root any more, and
    /// invalidates the TLBs before the VMID or ASID is used again.
    pub fn destroy(self, memory: &mut impl TableMemory) {
        let entries = u64::from(self.geometry.root_pages) * TABLE_ENTRIES;
        free_below(memory, self.root, self.geometry.start, entries);
        memory.free(self.root, self.geometry.root_pages);
    }

    /// Returns the end of the range, exclusive, if it can be walked.
    fn check_input(&self, input: u64, size_bytes: u64) -> Result<u64, MapError> {
        check_aligned(input)?;
        check_aligned(size_bytes)?;
        if size_bytes == 0 {
            return Err(MapError::Empty(input));
        }
        let end = input.checked_add(size_bytes).filter(|end| *end <= self.geometry.limit());
        end.ok_or(MapError::OutOfRange(input))
    }

    fn check_unmapped(&self, memory: &impl TableMemory, start: u64, end: u64) -> Result<(), MapError> {
        let mut cursor = start;
        while cursor < end {
            let walk = self.walk(memory, cursor);
            if walk.entry != Entry::Invalid {
                return Err(MapError::AlreadyMapped(cursor));
            }
            cursor = next_entry(cursor, walk.level);
        }
        Ok(())
    }

    fn check_mapped(&self, memory: &impl TableMemory, start: u64, end: u64) -> Result<(), MapError> {
        let mut cursor = start;
        while cursor < end {
            let walk = self.walk(memory, cursor);
            if walk.entry == Entry::Invalid {
                return Err(MapError::NotMapped(cursor));
            }
            cursor = next_entry(cursor, walk.level);
        }
        Ok(())
    }

    /// Walks as the hardware does; `input` is below the limit.
    fn walk(&self, memory: &impl TableMemory, input: u64) -> Walk {
        let (mut table, mut level, mut link) = (self.root, self.geometry.start, None);
        loop {
            // Concatenated root tables are contiguous: their index simply has more bits.
            let index = input >> level.shift();
            let index = if link.is_none() { index } else { index % TABLE_ENTRIES };
            let descriptor = entry_address(table, index);
            match (Entry::decode(memory.read(descriptor), level), level.below()) {
                (Entry::Table(next), Some(below)) => {
                    (table, level, link) = (next, below, Some(descriptor));
                }
                (entry, _) => return Walk { level, descriptor, entry, link },
            }
        }
    }

    /// Maps the start of `rest`, which is not mapped, and returns how much; adds tables until a leaf
    /// fits, as one does at level 3. `None` when there are no tables left.
    fn map_leaf(&self, memory: &mut impl TableMemory, rest: &Mapping) -> Option<u64> {
        loop {
            let walk = self.walk(memory, rest.input);
            if rest.fits(walk.level) {
                memory.write(walk.descriptor, Entry::leaf(walk.level, rest.output, rest.attributes));
                return Some(walk.level.entry_bytes());
            }
            let table = memory.allocate(1)?;
            // The walker must not find what the page held before it was zeroed.
            memory.publish();
            memory.write(walk.descriptor, table.get() | TABLE_OR_PAGE);
        }
    }

    /// Splits blocks until none has `boundary` inside; translations stay the same.
    fn split_at(&self, memory: &mut impl TableMemory, boundary: u64) -> Result<(), MapError> {
        if boundary >= self.geometry.limit() {
            return Ok(());
        }
        loop {
            let walk = self.walk(memory, boundary);
            let block = boundary & !(walk.level.entry_bytes() - 1);
            let (Entry::Leaf { output, attributes }, Some(below)) = (walk.entry, walk.level.below()) else {
                return Ok(());
            };
            if boundary == block {
                return Ok(());
            }
            let table = memory.allocate(1).ok_or(MapError::OutOfTables)?;
            for index in 0..TABLE_ENTRIES {
                let part = Pa::new(output.get() + index * below.entry_bytes());
                memory.write(entry_address(table, index), Entry::leaf(below, part, attributes));
            }
            // The publish of the break covers the new table as well.
            break_entry(memory, walk.descriptor, block);
            memory.write(walk.descriptor, table.get() | TABLE_OR_PAGE);
            memory.publish();
        }
    }

    /// Unmaps the leaves from `start` to `end`, none of which reaches over an end.
    fn clear(&self, memory: &mut impl TableMemory, start: u64, end: u64) {
        let mut cursor = start;
        while cursor < end {
            let walk = self.walk(memory, cursor);
            if walk.entry != Entry::Invalid {
                break_entry(memory, walk.descriptor, cursor);
            }
            let next = next_entry(cursor, walk.level);
            let is_last_of_table = next & ((1 << walk.level.table_bits()) - 1) == 0;
            if is_last_of_table || next >= end {
                self.prune(memory, cursor);
            }
            cursor = next;
        }
    }

    /// Frees the tables on the way to `input` that have become empty, lowest first; the root stays.
    fn prune(&self, memory: &mut impl TableMemory, input: u64) {
        loop {
            let walk = self.walk(memory, input);
            let Some(link) = walk.link else { return };
            let table = walk.descriptor.align_down(PAGE_BYTES);
            if !is_empty(memory, table, walk.level) {
                return;
            }
            break_entry(memory, link, input);
            memory.free(table, 1);
        }
    }
}

/// Makes a valid descriptor invalid and waits until no TLB has it: the break of break-before-make
/// (Arm ARM DDI 0487K.a, D8.16.1).
fn break_entry(memory: &mut impl TableMemory, descriptor: Pa, input: u64) {
    memory.write(descriptor, INVALID);
    memory.publish();
    memory.invalidate(input);
}

/// Frees the tables that `table` points to; as deep as there are levels.
fn free_below(memory: &mut impl TableMemory, table: Pa, level: Level, entries: u64) {
    let Some(below) = level.below() else { return };
    for index in 0..entries {
        if let Entry::Table(next) = Entry::decode(memory.read(entry_address(table, index)), level) {
            free_below(memory, next, below, TABLE_ENTRIES);
            memory.free(next, 1);
        }
    }
}

fn is_empty(memory: &impl TableMemory, table: Pa, level: Level) -> bool {
    (0..TABLE_ENTRIES)
        .all(|index| Entry::decode(memory.read(entry_address(table, index)), level) == Entry::Invalid)
}

fn entry_address(table: Pa, index: u64) -> Pa {
    Pa::new(table.get() + index * DESCRIPTOR_BYTES)
}

fn next_entry(input: u64, level: Level) -> u64 {
    let bytes = level.entry_bytes();
    (input & !(bytes - 1)) + bytes
}

fn check_aligned(value: u64) -> Result<(), MapError> {
    if value.is_multiple_of(PAGE_BYTES) { Ok(()) } else { Err(MapError::Unaligned(value)) }
}

fn check_output(output: Pa, size_bytes: u64) -> Result<(), MapError> {
    check_aligned(output.get())?;
    match output.checked_add(size_bytes) {
        Some(end) if end.get() <= 1 << MAX_PA_BITS => Ok(()),
        _ => Err(MapError::OutputOutOfRange(output)),
    }
}

//! EL2's own map: where its tables lie, and how it is switched on.
//!
//! Not here: the shape of tables and descriptors (the allocator's `tables` and `stage1`).
//! Follows Arm ARM DDI 0487K.a, D8.2 (enabling a stage of translation) and D8.16 (TLB maintenance).

use core::arch::asm;
use core::cell::UnsafeCell;

use aarch64_cpu::registers::{MAIR_EL2, Readable, SCTLR_EL2, TCR_EL2, TTBR0_EL2, Writeable};
use trapeze::addr::{PAGE_BYTES, Pa, Region};
use trapeze::allocator::stage1::{self, El2Access, Stage1};
use trapeze::allocator::tables::{MapError, TableMemory};

use super::memory;
use super::percpu::CPU_AREAS;
use super::sysreg::{isb, read_sysreg};

/// SCTLR_EL2 of a running CPU: RES1 bits, and M, C, SA, I, WXN (Arm ARM DDI 0487K.a, D24.2.131).
///
/// WXN makes the hardware refuse to execute what is writable, whatever the tables say.
const SCTLR_ON: u64 = 0x30c5_0830 | 1 | 1 << 2 | 1 << 3 | 1 << 12 | 1 << 19;

const POOL_PAGES: usize = 64;

#[repr(C, align(4096))]
struct Pool(UnsafeCell<[[u8; PAGE_BYTES as usize]; POOL_PAGES]>);

// SAFETY: only `El2Tables` uses the pages, each of which it hands out once.
unsafe impl Sync for Pool {}

#[unsafe(link_section = ".noinit")]
static POOL: Pool = Pool(UnsafeCell::new([[0; PAGE_BYTES as usize]; POOL_PAGES]));

/// The pages of the image that hold EL2's tables.
struct El2Tables {
    used: usize,
}

impl TableMemory for El2Tables {
    fn read(&self, descriptor: Pa) -> u64 {
        // SAFETY: the tables call with descriptors inside pages that `allocate` gave them.
        unsafe { memory::read_descriptor(descriptor) }
    }

    fn write(&mut self, descriptor: Pa, value: u64) {
        // SAFETY: as for `read`.
        unsafe { memory::write_descriptor(descriptor, value) }
    }

    fn allocate(&mut self, pages: u32) -> Option<Pa> {
        let first = self.used;
        self.used = first.checked_add(pages as usize).filter(|used| pages == 1 && *used <= POOL_PAGES)?;
        let table = Pa::new(POOL.0.get().addr() as u64 + first as u64 * PAGE_BYTES);
        // SAFETY: the page is in the pool and nobody has it yet.
        unsafe { memory::zero_tables(table, pages) };
        Some(table)
    }

    /// EL2's map only grows.
    fn free(&mut self, _table: Pa, _pages: u32) {}

    fn publish(&mut self) {
        memory::publish();
        isb();
    }

    fn invalidate(&mut self, _input: u64) {
        // SAFETY: dropping TLB entries costs time only; DSB on both sides as D8.16.4 asks.
        unsafe { asm!("dsb ishst", "tlbi alle2is", "dsb ish", "isb", options(nostack)) }
    }
}

/// The map of EL2: every address where it physically is.
pub struct El2Map {
    tables: El2Tables,
    map: Stage1,
}

/// What a further CPU needs to use the same map.
pub struct Regime {
    /// MAIR_EL2.
    pub mair_el2: u64,
    /// TCR_EL2.
    pub tcr_el2: u64,
    /// TTBR0_EL2.
    pub ttbr0_el2: u64,
    /// SCTLR_EL2.
    pub sctlr_el2: u64,
}

unsafe extern "C" {
    static image_start: u8;
    static text_end: u8;
    static rodata_end: u8;
    static image_end: u8;
}

fn address_of(symbol: &u8) -> u64 {
    core::ptr::from_ref(symbol).addr() as u64
}

/// Returns the memory that the image occupies, with what is not in its file.
pub fn image() -> Region<Pa> {
    // SAFETY: the linker script defines both symbols; only their addresses are used.
    let (start, end) = unsafe { (&image_start, &image_end) };
    span(address_of(start), address_of(end))
}

fn span(start: u64, end: u64) -> Region<Pa> {
    match Region::<Pa>::new(Pa::new(start), end - start) {
        Some(region) => region,
        None => unreachable!("the linker script puts {start:#x} below {end:#x}"),
    }
}

impl El2Map {
    /// Maps the image, each part with its own permission and without the guard pages. Runs with the MMU off.
    pub fn of_image() -> Result<Self, MapError> {
        let mut tables = El2Tables { used: 0 };
        let map = Stage1::new(&mut tables)?;
        let mut this = Self { tables, map };
        // SAFETY: the linker script defines both symbols; only their addresses are used.
        let (text, rodata) = unsafe { (&text_end, &rodata_end) };
        let (start, end) = (image().start.get(), image().last().get() + 1);
        this.add(span(start, address_of(text)), El2Access::Text)?;
        this.add(span(address_of(text), address_of(rodata)), El2Access::ReadOnly)?;
        let mut from = address_of(rodata);
        for guard in CPU_AREAS.iter().flat_map(|area| area.guards()) {
            if from < guard {
                this.add(span(from, guard), El2Access::ReadWrite)?;
            }
            from = guard + PAGE_BYTES;
        }
        this.add(span(from, end), El2Access::ReadWrite)?;
        Ok(this)
    }

    /// Maps `region`, which is not mapped yet.
    pub fn add(&mut self, region: Region<Pa>, access: El2Access) -> Result<(), MapError> {
        self.map.map(&mut self.tables, region, access)
    }

    /// Maps the pages around `region`, those that are mapped already left as they are.
    pub fn add_missing(&mut self, region: Region<Pa>, access: El2Access) -> Result<(), MapError> {
        let mut page = region.start.align_down(PAGE_BYTES);
        let end = region.last().align_down(PAGE_BYTES).get() + PAGE_BYTES;
        match self.add(span(page.get(), end), access) {
            Err(MapError::AlreadyMapped(_)) => {} // some of it: nothing was done
            done => return done,
        }
        while page <= region.last() {
            if self.map.access(&self.tables, page).is_none() {
                self.add(span(page.get(), page.get() + PAGE_BYTES), access)?;
            }
            page = Pa::new(page.get() + PAGE_BYTES);
        }
        Ok(())
    }

    /// Returns the register values that make a CPU use the map.
    pub fn regime(&self) -> Regime {
        let pa_range = (read_sysreg!("id_aa64mmfr0_el1") & 0xf) as u8;
        Regime {
            mair_el2: stage1::mair_el2(),
            tcr_el2: stage1::tcr_el2(pa_range),
            ttbr0_el2: self.map.root().get(),
            sctlr_el2: SCTLR_ON,
        }
    }

    /// Turns MMU and caches on: every address stays what it was.
    ///
    /// The tables were written with the caches off, so no line of them may be in a cache: the start code dropped
    /// them before, and this drops what speculation fetched since.
    pub fn enable(&self) {
        memory::invalidate(image_written());
        let regime = self.regime();
        MAIR_EL2.set(regime.mair_el2);
        TCR_EL2.set(regime.tcr_el2);
        TTBR0_EL2.set(regime.ttbr0_el2);
        // SAFETY: the tables map what runs and what it uses at the addresses in use, so nothing moves. Barriers:
        // tables and registers before the TLB forgets, that before the MMU may walk (D8.2.1).
        unsafe {
            asm!(
                "dsb sy", "isb", "tlbi alle2", "ic iallu", "dsb nsh", "isb",
                "msr sctlr_el2, {on}", "isb",
                on = in(reg) regime.sctlr_el2, options(nostack),
            );
        }
        debug_assert!(SCTLR_EL2.matches_all(SCTLR_EL2::M::Enable));
    }
}

/// What relocation, Rust and the table code write: all but the text.
fn image_written() -> Region<Pa> {
    // SAFETY: the linker script defines the symbol; only its address is used.
    let text = unsafe { &text_end };
    span(address_of(text), image().last().get() + 1)
}

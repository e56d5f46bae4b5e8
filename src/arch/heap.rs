//! The heap of EL2: for what is made when a VM is made. No exit allocates.
//!
//! Not here: guest RAM and translation tables (the allocator's frames).

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::NonNull;

use buddy_system_allocator::Heap;
use trapeze::addr::{Pa, Region};

use super::lock::Lock;

const FIRST_BYTES: usize = 128 * 1024;

#[repr(C, align(4096))]
struct First(UnsafeCell<[u8; FIRST_BYTES]>);

// SAFETY: only the allocator below uses it, under its lock.
unsafe impl Sync for First {}

#[unsafe(link_section = ".noinit")]
static FIRST: First = First(UnsafeCell::new([0; FIRST_BYTES]));

struct Allocator(Lock<Heap<32>>);

#[global_allocator]
static HEAP: Allocator = Allocator(Lock::new(Heap::empty()));

// SAFETY: the buddy heap hands out disjoint, aligned blocks of what it was given, under one lock.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.with(|heap| heap.alloc(layout).map_or(core::ptr::null_mut(), NonNull::as_ptr))
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            self.0.with(|heap| {
                // SAFETY: the caller of `dealloc` promises that `alloc` returned the block for this layout.
                unsafe { heap.dealloc(block, layout) }
            });
        }
    }
}

/// Opens the heap with the memory that the image brings along. Once, by the boot CPU.
pub fn open() {
    let start = FIRST.0.get().addr();
    // SAFETY: the static is used by nothing else and this runs once.
    HEAP.0.with(|heap| unsafe { heap.init(start, FIRST_BYTES) });
}

/// Gives the heap more RAM, for good.
///
/// # Safety
/// `region` is RAM that EL2 maps as Normal memory and that nobody else will use.
pub unsafe fn extend(region: Region<Pa>) {
    let start = region.start.get() as usize;
    HEAP.0.with(|heap| {
        // SAFETY: the caller's promise.
        unsafe { heap.add_to_heap(start, start + region.size_bytes as usize) }
    });
}

//! A lock for what exists before the MMU: while one CPU runs with its MMU off there are no exclusives, and no need.
//!
//! Not here: locks of VMs and devices (the library's `spin::Mutex`, which is only used with the MMU on).
//! Follows Arm ARM DDI 0487K.a, B2.12.2: exclusives need Normal memory, which nothing is while the MMU is off.

use core::cell::UnsafeCell;

use aarch64_cpu::registers::{Readable, SCTLR_EL2};
use spin::Mutex;

/// A value that one CPU at a time uses.
pub struct Lock<T> {
    lock: Mutex<()>,
    value: UnsafeCell<T>,
}

// SAFETY: `with` gives out the value to one caller at a time: by the lock, or because only the boot CPU runs.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    /// Wraps `value`.
    pub const fn new(value: T) -> Self {
        Self { lock: Mutex::new(()), value: UnsafeCell::new(value) }
    }

    /// Runs `action` with the value. Not reentrant: interrupts are masked at EL2 and no `action` calls back.
    pub fn with<R>(&self, action: impl FnOnce(&mut T) -> R) -> R {
        let guard = at_el2_with_mmu().then(|| self.lock.lock());
        // SAFETY: the guard is held, or no second CPU has been started.
        let result = action(unsafe { &mut *self.value.get() });
        drop(guard);
        result
    }

    /// Runs `action` even if the lock is held: for the last words of a machine that stops.
    ///
    /// # Safety
    /// Nothing runs after `action` that relies on the value.
    pub unsafe fn seize<R>(&self, action: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: the caller's promise.
        action(unsafe { &mut *self.value.get() })
    }
}

fn at_el2_with_mmu() -> bool {
    use aarch64_cpu::registers::CurrentEL;
    CurrentEL.read(CurrentEL::EL) == 2 && SCTLR_EL2.matches_all(SCTLR_EL2::M::Enable)
}

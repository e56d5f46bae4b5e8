//! Cache maintenance by address.
//!
//! Follows Arm ARM DDI 0487K.a, D7.5.

use crate::mrs;
use core::arch::asm;

/// Smallest data cache line, in bytes (CTR_EL0.DminLine).
pub fn data_line() -> u64 {
    4 << (mrs!("CTR_EL0") >> 16 & 0xf)
}

/// Smallest instruction cache line, in bytes (CTR_EL0.IminLine).
pub fn instruction_line() -> u64 {
    4 << (mrs!("CTR_EL0") & 0xf)
}

/// Calls `each` with the address of every line of `bytes` bytes at `address`.
fn lines(address: u64, bytes: u64, line: u64, each: impl Fn(u64)) {
    let mut at = address & !(line - 1);
    while at < address + bytes {
        each(at);
        at += line;
    }
    crate::ins!("dsb sy");
}

/// Cleans and invalidates to the point of coherency.
pub fn clean_invalidate(address: u64, bytes: u64) {
    lines(address, bytes, data_line(), |line| {
        // SAFETY: loses nothing.
        unsafe { asm!("dc civac, {}", in(reg) line) }
    });
}

/// Makes code that was written at `address` be what is executed there, on this CPU and all others in the domain.
pub fn make_executable(address: u64, bytes: u64) {
    lines(address, bytes, data_line(), |line| {
        // SAFETY: loses nothing.
        unsafe { asm!("dc cvau, {}", in(reg) line) }
    });
    lines(address, bytes, instruction_line(), |line| {
        // SAFETY: an instruction cache has nothing to lose.
        unsafe { asm!("ic ivau, {}", in(reg) line) }
    });
    crate::ins!("isb");
}

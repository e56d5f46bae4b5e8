//! Device registers by address. Plain loads and stores: an access that is emulated has a valid syndrome.

use core::arch::asm;

/// Reads a 32-bit device register.
pub fn read32(address: u64) -> u32 {
    let mut value = 0;
    // SAFETY: a load changes no memory; an address that is not there ends in the guest's vectors.
    unsafe { asm!("ldr {0:w}, [{1}]", inout(reg) value, in(reg) address, options(nostack)) };
    value
}

/// Writes a 32-bit device register.
pub fn write32(address: u64, value: u32) {
    // SAFETY: callers name device registers, which are no memory of Rust's.
    unsafe { asm!("str {0:w}, [{1}]", in(reg) value, in(reg) address, options(nostack)) };
}

/// Reads a 64-bit device register.
pub fn read64(address: u64) -> u64 {
    let mut value = 0;
    // SAFETY: as in `read32`.
    unsafe { asm!("ldr {0}, [{1}]", inout(reg) value, in(reg) address, options(nostack)) };
    value
}

/// Writes a 64-bit device register.
pub fn write64(address: u64, value: u64) {
    // SAFETY: as in `write32`.
    unsafe { asm!("str {0}, [{1}]", in(reg) value, in(reg) address, options(nostack)) };
}

/// Reads a byte of a device register.
pub fn read8(address: u64) -> u8 {
    let mut value = 0_u32;
    // SAFETY: as in `read32`.
    unsafe { asm!("ldrb {0:w}, [{1}]", inout(reg) value, in(reg) address, options(nostack)) };
    (value & 0xff) as u8
}

/// Writes a byte of a device register.
pub fn write8(address: u64, value: u8) {
    // SAFETY: as in `write32`.
    unsafe { asm!("strb {0:w}, [{1}]", in(reg) u32::from(value), in(reg) address, options(nostack)) };
}

/// Reads a half-word of a device register.
pub fn read16(address: u64) -> u16 {
    let mut value = 0_u32;
    // SAFETY: as in `read32`.
    unsafe { asm!("ldrh {0:w}, [{1}]", inout(reg) value, in(reg) address, options(nostack)) };
    (value & 0xffff) as u16
}

/// Writes a half-word of a device register.
pub fn write16(address: u64, value: u16) {
    // SAFETY: as in `write32`.
    unsafe { asm!("strh {0:w}, [{1}]", in(reg) u32::from(value), in(reg) address, options(nostack)) };
}

//! Text on the PL011 of the board, polled. No lock: lines of several CPUs at once are mixed.
//!
//! Follows Arm DDI 0183G (PL011).

use crate::mmio;
use core::fmt::{self, Write};

/// Address of the PL011.
pub const UART: u64 = 0x0900_0000;
const DR: u64 = UART;
const FR: u64 = UART + 0x18;
const FR_BUSY: u32 = 1 << 3;
const FR_TXFF: u32 = 1 << 5;

/// The UART as a place to write to.
pub struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(put);
        Ok(())
    }
}

/// Prints one byte when there is room for it.
pub fn put(byte: u8) {
    while mmio::read32(FR) & FR_TXFF != 0 {}
    mmio::write32(DR, u32::from(byte));
}

/// Waits until all that was printed has left.
pub fn flush() {
    while mmio::read32(FR) & FR_BUSY != 0 {}
}

/// Prints what [`print!`] was given.
pub fn print(arguments: fmt::Arguments<'_>) {
    // Nothing to do about an error: `Console` has none.
    let _ = Console.write_fmt(arguments);
}

/// Prints, formatted.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => { $crate::console::print(format_args!($($argument)*)) };
}

/// Prints a line, formatted.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($argument:tt)*) => { $crate::console::print(format_args!("{}\n", format_args!($($argument)*))) };
}

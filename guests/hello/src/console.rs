//! Lines of text on the PL011. Not `core::fmt`: its tables of pointers would need relocating, and it is larger than
//! the rest of this guest.

use crate::machine;

/// A line being printed; each call appends to it.
pub struct Line(());

impl Line {
    /// Starts a line with this guest's name.
    pub fn new() -> Self {
        Self(()).text("hello: ")
    }

    /// Appends `text`.
    pub fn text(self, text: &str) -> Self {
        text.bytes().for_each(machine::put);
        self
    }

    /// Appends `value` in base 10.
    pub fn decimal(self, value: u64) -> Self {
        digits(value, 10);
        self
    }

    /// Appends `value` in base 16 after `0x`.
    pub fn hex(self, value: u64) -> Self {
        let line = self.text("0x");
        digits(value, 16);
        line
    }

    /// Ends the line.
    pub fn end(self) {
        machine::put(b'\r');
        machine::put(b'\n');
    }
}

/// Prints `value` without leading zeros; `base` is 10 or 16.
fn digits(value: u64, base: u64) {
    let mut unit = 1;
    while value / unit >= base {
        unit *= base;
    }
    while unit > 0 {
        let digit = u8::try_from(value / unit % base).unwrap_or(0);
        machine::put(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
        unit /= base;
    }
}

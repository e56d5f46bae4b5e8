//! The log: lines that start with `@`, with a running checksum over all of them.
//!
//! Not here: what the lines mean. tools/audit reads them and refuses a log whose count or checksum is wrong.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use trapeze_kit::{console, println};

/// FNV-1a, 64 bits, over every byte of every line, `@` included and line ends not.
static SUM: AtomicU64 = AtomicU64::new(FNV_OFFSET);
static LINES: AtomicU64 = AtomicU64::new(0);

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

/// Sums up bytes, FNV-1a.
pub fn fnv(sum: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(sum, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}

/// Sums up `bytes` alone.
pub fn fnv_of(bytes: &[u8]) -> u64 {
    fnv(FNV_OFFSET, bytes)
}

/// Where lines go.
pub struct Log;

impl Write for Log {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        SUM.store(fnv(SUM.load(Relaxed), text.as_bytes()), Relaxed);
        text.bytes().for_each(console::put);
        Ok(())
    }
}

/// Prints one line.
pub fn line(arguments: fmt::Arguments<'_>) {
    // Nothing to do about an error: `Log` has none.
    let _ = Log.write_fmt(format_args!("@{arguments}"));
    LINES.fetch_add(1, Relaxed);
    println!("\r");
}

/// Ends the log: how many lines came before, and their checksum.
pub fn trailer() {
    line(format_args!("end lines={} sum={:x}", LINES.load(Relaxed), SUM.load(Relaxed)));
}

/// Prints one line, formatted.
#[macro_export]
macro_rules! log {
    ($($argument:tt)*) => { $crate::console::line(format_args!($($argument)*)) };
}

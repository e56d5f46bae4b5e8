//! A bug of ours: say where, and stop the machine.

use core::panic::PanicInfo;

use super::{console, power};

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    console::last_words(format_args!("bug: {info}"));
    power::fail()
}

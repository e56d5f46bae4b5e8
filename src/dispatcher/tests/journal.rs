//! What the monitor says while a test runs.
//!
//! Not here: what other tests make it say; each has a thread, and a journal, of its own.

use std::cell::RefCell;

/// Takes the place of the image's logger.
struct Journal;

thread_local! {
    static WARNINGS: RefCell<Vec<String>> = const { RefCell::new(vec![]) };
}

impl log::Log for Journal {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        // Formatted whatever its level: what a guest chose must not break a message.
        let message = record.args().to_string();
        if self.enabled(record.metadata()) {
            WARNINGS.with_borrow_mut(|warnings| warnings.push(message));
        }
    }

    fn flush(&self) {}
}

/// Returns the warnings and errors that this test has logged since it asked last.
pub fn take_warnings() -> Vec<String> {
    let _ = log::set_logger(&Journal);
    log::set_max_level(log::LevelFilter::Trace);
    WARNINGS.take()
}

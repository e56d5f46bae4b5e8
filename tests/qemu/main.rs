//! The real image in QEMU, driven from the host: what `make build guests` made, through `tools/qemu`, `tools/bundle` and
//! `tools/run`.
//!
//! Not here: anything that can be said without a machine; those tests are with the code they test. An exception at EL2
//! itself is not here either: no guest can cause one.
//!
//! Each test starts machines of its own, and each machine is killed at its time limit.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "these are tests: what is not as expected ends the test"
)]

mod boot;
mod bundle;
mod code;
mod console;
mod debian;
mod ends;
mod errors;
mod formats;
mod machine;
mod passthrough;
mod rpi4;
mod several;

//! The machine: all `unsafe` and all assembly. What the library decides is carried out here.
//!
//! Not here: policy. EL2 runs without VHE, one handler at a time, interrupts masked.
#![expect(
    clippy::as_conversions,
    reason = "addresses become pointers and registers become fields of other widths"
)]
#![expect(
    clippy::indexing_slicing,
    reason = "our own tables; an index out of range is a bug that stops the machine"
)]

pub mod access;
pub mod boot;
pub mod console;
pub mod cpus;
pub mod exit;
pub mod gic;
pub mod granted;
pub mod guest;
pub mod hardware;
pub mod heap;
pub mod lifecycle;
pub mod loader;
pub mod lock;
pub mod memory;
pub mod mmio;
pub mod mmu;
pub mod monitor;
pub mod operator;
pub mod panic;
pub mod percpu;
pub mod power;
pub mod run;
pub mod secondary;
pub mod start;
pub mod sysreg;
pub mod tenant;
pub mod timer;
pub mod vectors;
pub mod world;

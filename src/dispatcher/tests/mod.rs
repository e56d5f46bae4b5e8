//! Facts about the dispatcher, seen from the guest and from a scripted CPU.
//!
//! Not here: what single rooms and devices do; they have tests of their own.

mod bench;
mod calls;
mod classes;
mod console;
mod delivery;
mod instruction;
mod journal;
mod machine;
mod mmio;
mod random;
mod registers;
mod timers;

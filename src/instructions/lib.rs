//! A64 loads and stores: [`decode`] says what a word is, [`execute`] does it on a [`Cpu`].
//!
//! Part of room 3, in a package of its own to be built small: few guests ever come here. So nothing in it is generic, and
//! the CPU is a trait object.
//!
//! Not here: fetching the word, translating addresses, and what lies there.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod block;
mod bulk;
mod decode;
mod execute;

pub use decode::{Base, Extend, Extended, Index, Instruction, Kind, Offset, Registers, Update, decode};
pub use execute::{Cpu, Exclusive, Fault, Place, Reason, Vectors, execute};

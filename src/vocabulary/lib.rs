//! The words that all rooms share: address spaces as types, and names of what the monitor counts.
//!
//! Not here: anything that these words are about.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod addr;
pub mod ids;
pub mod registers;
pub mod share;

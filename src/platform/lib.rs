//! Machines as data: the host's device tree, the bundle (a FIT image) and the transfer that brings one, a VM's device
//! tree.
//!
//! Not here: anything that acts on what was read.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

use vocabulary::{addr, ids, share};

pub mod board;
pub mod dtb;
pub mod fit;
pub mod guest_fdt;
pub mod kernel;
mod node;
pub mod passthrough;
#[cfg(test)]
mod test_tree;
pub mod vm_tree;
pub mod ymodem;

//! Trapeze, an AArch64 type-1 hypervisor: the monitor, without the machine.
//!
//! Popek and Goldberg (1974) say that a hypervisor is three modules, and so it is here:
//!
//! - [`dispatcher`]: hardware traps jump to it. It says what trapped and who answers.
//! - [`allocator`]: it decides who owns which resource. Every change of resources happens there.
//! - [`interpreter`]: it does what a trapped instruction would have done on the real machine.
//!
//! Arrows go one way: the image (`main.rs`, `arch/`) calls the dispatcher, the dispatcher calls
//! allocator and interpreter, all of them use the vocabulary ([`addr`], [`ids`]), and
//! allocator and interpreter never call each other. Handlers do nothing themselves: they return what
//! happens next, and `arch/` carries it out through [`machine::Machine`], the only door to hardware.
//!
//! [`platform`] reads what describes machines: the host's device tree, the bundle, a VM's tree. [`shell`] is what an
//! operator types to, and how reports look.
//!
//! There is no hardware access and no `unsafe` in this crate, so what the host tests is what ships.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub use platform;
pub use shell;
pub use vocabulary::{addr, ids, registers, share};

pub mod allocator;
pub mod dispatcher;
pub mod interpreter;
pub mod machine;
pub mod terminal;
pub mod vcpu;
pub mod vm;

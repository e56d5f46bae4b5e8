//! Room 2: who owns what? Frames, translation tables, VMIDs, interrupts, devices; every change of resources happens here.
//!
//! Not here: what an instruction would have done (the interpreter's), and the stores, barriers and TLB
//! maintenance that make a change real (the machine's, behind [`tables::TableMemory`]).
//! Follows Popek and Goldberg (1974), "the allocator".

use crate::ids::VmId;

pub mod devices;
pub mod frames;
pub mod interrupts;
pub mod scheduler;
pub mod stage1;
pub mod stage2;
pub mod tables;
pub mod vmid;

#[cfg(test)]
mod tests;

/// Names who holds a resource.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Owner {
    /// The hypervisor itself: no guest may ever reach it.
    Hypervisor,
    /// One virtual machine.
    Vm(VmId),
}

//! Machines as data: the host's device tree, the bundle (a FIT image), a VM's device tree.
//!
//! Not here: anything that acts on what was read.

//! Room 3: what would the instruction have done?
//!
//! Not here: any change of who owns what; an interpreter that needs a resource says so in what it returns.

pub mod cache;
pub mod device;
pub mod id_registers;
pub mod inject;
pub mod load_store;
pub mod psci;
pub mod smccc;
pub mod sysreg;
pub mod translation;
pub mod walk;
pub mod watchpoint;

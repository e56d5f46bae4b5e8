//! Room 1: what trapped, and who answers?
//!
//! Not here: the answers themselves.

pub mod cause;
pub mod traps;

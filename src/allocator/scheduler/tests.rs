//! Facts about the scheduler.

//! Pure models of the devices that a guest sees: registers in, registers and effects out.
//!
//! Not here: clocks, locks, callbacks and hardware. Time is an argument.

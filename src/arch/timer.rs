//! The system counter and EL2's own timer.
//!
//! Not here: the timers of guests (the virtual one is the guest's own; the physical one is a model).
//! Follows Arm ARM DDI 0487K.a, D11.

use aarch64_cpu::registers::{CNTHP_CTL_EL2, CNTPCT_EL0, Readable, Writeable};
use trapeze::ids::Ticks;

use super::sysreg::{isb, write_sysreg};

/// Reads the physical counter, not earlier than what was done before.
pub fn now() -> Ticks {
    isb(); // the counter may be read speculatively (Arm ARM DDI 0487K.a, D11.1.2)
    Ticks(CNTPCT_EL0.get())
}

/// Makes EL2's physical timer fire at `deadline`, or never.
pub fn set_deadline(deadline: Option<Ticks>) {
    match deadline {
        Some(at) => {
            write_sysreg!("cnthp_cval_el2", at.0);
            CNTHP_CTL_EL2.write(CNTHP_CTL_EL2::ENABLE::SET);
        }
        None => CNTHP_CTL_EL2.set(0),
    }
    isb(); // the interrupt line follows before the guest goes on
}

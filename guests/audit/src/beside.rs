//! The neighbour of a VM that executes random words: holds memory, and says again and again that it is as it was.
//!
//! Not here: a verdict; tools/audit waits for lines of this one after the other VM has come to its end.

use crate::machine::{self, SCRATCH_BYTES};
use trapeze_kit::gic::Gic;
use trapeze_kit::timer::{self, Timer};
use trapeze_kit::{ins, mmio, mrs, println};

/// Holds its memory for ever, and says so several times a second.
pub fn run() -> ! {
    let start = machine::scratch();
    let words = || (start..start + SCRATCH_BYTES).step_by(8);
    let gic = Gic::detect();
    gic.init_distributor();
    gic.init_cpu();
    gic.enable(timer::VIRTUAL_INTID);
    words().for_each(|at| mmio::write64(at, pattern(at)));
    let mut rounds = 0_u64;
    loop {
        let changed = words().filter(|at| mmio::read64(*at) != pattern(*at)).count();
        rounds += 1;
        println!("@beside round={rounds} changed={changed}\r");
        // Masked, the timer's interrupt ends WFI and is not taken.
        Timer::Virtual.set_compare(Timer::Virtual.count() + mrs!("CNTFRQ_EL0") / 4);
        Timer::Virtual.set_control(timer::ENABLE);
        ins!("wfi");
        Timer::Virtual.set_control(0);
        gic.end(gic.acknowledge());
    }
}

/// What the word at `at` holds.
fn pattern(at: u64) -> u64 {
    at.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

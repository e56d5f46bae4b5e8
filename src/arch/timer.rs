//! The system counter and EL2's own timer.
//!
//! Not here: the timers of guests (the virtual one is the guest's own; the physical one is a model).
//! Follows Arm ARM DDI 0487K.a, D11.

use core::cell::Cell;

use aarch64_cpu::registers::{CNTFRQ_EL0, CNTHP_CTL_EL2, CNTPCT_EL0, Readable, Writeable};
use trapeze::ids::Ticks;

use super::sysreg::{isb, write_sysreg};

/// Reads the physical counter, not earlier than what was done before.
pub fn now() -> Ticks {
    isb(); // the counter may be read speculatively (Arm ARM DDI 0487K.a, D11.1.2)
    Ticks(CNTPCT_EL0.get())
}

/// EL2's physical timer on one CPU. It fires for what comes first: the next event of the run queue, the guest's emulated
/// timer, the end of a watch, or lines that the console has kept back long enough.
pub struct Deadlines {
    schedule: Cell<u64>,
    guest: Cell<u64>,
    watch: Cell<u64>,
    lines: Cell<u64>,
}

/// A deadline that does not come.
const NEVER: u64 = u64::MAX;

fn count(deadline: Option<Ticks>) -> u64 {
    deadline.map_or(NEVER, |at| at.0)
}

impl Deadlines {
    /// Takes the timer of the CPU that runs this over; it does not fire.
    pub fn new() -> Self {
        let never = || Cell::new(NEVER);
        let this = Self { schedule: never(), guest: never(), watch: never(), lines: never() };
        this.program();
        this
    }

    /// Makes it fire for the run queue at `schedule`, and at `guest` for the vCPU that this CPU is about to run.
    pub fn set(&self, schedule: Option<Ticks>, guest: Option<Ticks>) {
        self.schedule.set(count(schedule));
        self.guest.set(count(guest));
        self.program();
    }

    /// Makes it fire for the run queue, or not for that.
    pub fn set_schedule(&self, deadline: Option<Ticks>) {
        self.schedule.set(count(deadline));
        self.program();
    }

    /// Tells whether the run queue is to be looked at.
    pub fn is_schedule_due(&self) -> bool {
        self.schedule.get() <= CNTPCT_EL0.get()
    }

    /// Makes it fire at `deadline` for the guest, or not for the guest.
    pub fn set_guest(&self, deadline: Option<Ticks>) {
        self.guest.set(count(deadline));
        self.program();
    }

    /// Makes it fire 10 ms from now, or not for a watch; an earlier watch is over.
    pub fn watch(&self, on: bool) {
        self.watch.set(if on { CNTPCT_EL0.get() + CNTFRQ_EL0.get() / 100 } else { NEVER });
        self.program();
    }

    /// Makes it fire 100 ms from now, or not, for lines that are kept back.
    pub fn keep_lines(&self, on: bool) {
        self.lines.set(if on { CNTPCT_EL0.get() + CNTFRQ_EL0.get() / 10 } else { NEVER });
        self.program();
    }

    /// Tells whether lines are kept back.
    pub fn has_lines(&self) -> bool {
        self.lines.get() != NEVER
    }

    fn program(&self) {
        let at = self.schedule.get().min(self.guest.get()).min(self.watch.get()).min(self.lines.get());
        if at == NEVER {
            CNTHP_CTL_EL2.set(0);
        } else {
            write_sysreg!("cnthp_cval_el2", at);
            CNTHP_CTL_EL2.write(CNTHP_CTL_EL2::ENABLE::SET);
        }
        isb(); // the interrupt line follows before the guest goes on
    }
}

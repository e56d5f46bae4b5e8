//! What the scheduler and its caller say to each other.
//!
//! Not here: what follows from it ([`super::RunQueue`]).

use super::caps::Spent;
use crate::ids::Ticks;

/// Names a member of one queue. The number is used again when the member has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot(pub(super) u32);

impl Slot {
    /// Makes the name of the member with this number.
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// Returns the number.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0
    }
}

/// What a member has had; it goes with one that moves to another CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Account {
    /// How long it has had the CPU.
    pub ran: Ticks,
    /// How long it could have run and did not have the CPU: stolen time.
    pub waited: Ticks,
    /// What its cap has been charged with.
    pub(super) spent: Spent,
    /// Virtual time by which it was ahead of the others on the CPU that it left.
    pub(super) lead: u64,
}

/// What the caller of [`super::RunQueue::wake`] has to do.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaction {
    /// Nothing: it is queued and has its turn in time, or it is as it was.
    Nothing,
    /// The CPU must call [`super::RunQueue::attend`].
    Attend,
    /// It has the CPU now: the CPU must look at what it was woken for.
    Runs,
}

/// What becomes of a member that stops running.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    /// It could go on.
    Yields,
    /// It waits until it is woken, by its deadline if there is one.
    Waits {
        /// When it is to be woken at the latest.
        until: Option<Ticks>,
    },
}

/// What the CPU does next.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Goes on with what it does.
    Stay,
    /// Puts back the running member, if there is one, and starts the next, if there is one.
    Switch,
}

/// What a member does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It has the CPU.
    Runs,
    /// It could run.
    Queued,
    /// It waits to be woken.
    Waits,
    /// It could run and has used up its cap.
    Throttled,
}

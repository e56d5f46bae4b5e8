//! Caps: at most so much of a CPU in each period of 10 ms.
//!
//! Not here: who is throttled (the queue knows). Periods are counted from the counter's 0, so all CPUs agree on them and
//! all that are throttled get their next budget at one time.

/// The period that a queue is in.
pub struct Periods {
    length_ticks: u64,
    number: u64,
    end_ticks: u64,
}

impl Periods {
    /// Starts at the counter's 0.
    pub fn new(frequency_hz: u64) -> Self {
        let length_ticks = (frequency_hz / 100).max(1);
        Self { length_ticks, number: 0, end_ticks: length_ticks }
    }

    /// Goes on to the period that `now_ticks` is in. The one division is at most once in 10 ms.
    #[inline]
    pub fn roll(&mut self, now_ticks: u64) {
        if now_ticks >= self.end_ticks {
            self.number = now_ticks / self.length_ticks;
            self.end_ticks = self.end_of(self.number);
        }
    }

    /// Returns when the period ends.
    #[inline]
    pub fn end_ticks(&self) -> u64 {
        self.end_ticks
    }

    #[inline]
    fn end_of(&self, period: u64) -> u64 {
        period.saturating_add(1).saturating_mul(self.length_ticks)
    }

    /// Returns what `percent` of a period is; `None` where that limits nothing.
    pub fn budget(&self, percent: Option<u8>) -> Option<u64> {
        let percent = percent.filter(|percent| *percent < 100)?;
        let ticks = u128::from(self.length_ticks) * u128::from(percent.max(1)) / 100;
        Some(u64::try_from(ticks).unwrap_or(u64::MAX).max(1))
    }
}

/// What a capped member has had, as of the last time that it was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spent {
    period: u64,
    ticks: u64,
}

impl Spent {
    /// Forgets what earlier periods' budgets have paid for; what exceeds them is charged to this one.
    #[inline]
    pub fn refill(&mut self, budget_ticks: u64, periods: &Periods) {
        let passed = periods.number.saturating_sub(self.period);
        if passed > 0 {
            self.ticks = self.ticks.saturating_sub(budget_ticks.saturating_mul(passed));
            self.period = periods.number;
        }
    }

    /// Charges a run from `since_ticks`, which is in the period of the last look, to `now_ticks`.
    pub fn charge(&mut self, budget_ticks: u64, periods: &Periods, since_ticks: u64, now_ticks: u64) {
        let ran = now_ticks.saturating_sub(since_ticks);
        let end = periods.end_of(self.period);
        let before = ran.min(end.saturating_sub(since_ticks));
        self.ticks = self.ticks.saturating_add(before);
        // The budget of the period that has ended pays for what was run in it and for nothing after it.
        if periods.number > self.period {
            self.ticks = self.ticks.saturating_sub(budget_ticks);
            self.period = self.period.saturating_add(1);
        }
        self.ticks = self.ticks.saturating_add(ran.saturating_sub(before));
        self.refill(budget_ticks, periods);
    }

    /// Tells whether the budget is used up.
    #[inline]
    pub fn is_over(&self, budget_ticks: u64) -> bool {
        self.ticks >= budget_ticks
    }

    /// Returns when a run that goes on at `since_ticks` uses the budget up: in this period, or early in the next.
    pub fn end_ticks(&self, budget_ticks: u64, periods: &Periods, since_ticks: u64) -> u64 {
        let end = since_ticks.saturating_add(budget_ticks.saturating_sub(self.ticks));
        let period_end = periods.end_of(self.period);
        if end <= period_end { end } else { period_end.saturating_add(budget_ticks) }
    }
}

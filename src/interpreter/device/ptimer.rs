//! The EL1 physical timer of one vCPU: CNTP_CTL_EL0, CNTP_CVAL_EL0 and CNTP_TVAL_EL0.
//!
//! Not here: the counter. What CNTPCT_EL0 reads in the guest is an argument of every call.
//! Follows Arm ARM DDI 0487K.a, The Generic Timer in AArch64 state (operation of the CompareValue and
//! TimerValue views), and the pages of the CNTP_* registers.

use crate::ids::Ticks;

const ENABLE: u64 = 1 << 0;
const IMASK: u64 = 1 << 1;
const ISTATUS: u64 = 1 << 2;

/// Names one of the timer's registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Register {
    /// CNTP_CTL_EL0: enable, mask and status.
    Control,
    /// CNTP_CVAL_EL0: the count at which the timer condition is met.
    CompareValue,
    /// CNTP_TVAL_EL0: the same as a signed 32-bit distance from now.
    TimerValue,
}

/// Holds the physical timer of one vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PhysicalTimer {
    is_enabled: bool,
    is_masked: bool,
    compare_value: u64,
}

impl PhysicalTimer {
    /// Makes a timer out of reset: disabled, so that it asks for nothing until the guest writes it.
    #[must_use]
    pub const fn new() -> Self {
        Self { is_enabled: false, is_masked: false, compare_value: 0 }
    }

    /// Reads `register` at the count `now`.
    ///
    /// With ENABLE clear ISTATUS and TimerValue are UNKNOWN (Arm ARM DDI 0487K.a, CNTP_CTL_EL0,
    /// CNTP_TVAL_EL0): here ISTATUS is 0 and TimerValue still counts.
    #[must_use]
    pub fn read(&self, register: Register, now: Ticks) -> u64 {
        match register {
            Register::Control => self.control(now),
            Register::CompareValue => self.compare_value,
            Register::TimerValue => self.compare_value.wrapping_sub(now.0) & 0xffff_ffff,
        }
    }

    /// Writes `register` at the count `now`; the read-only and reserved bits of Control are ignored.
    pub fn write(&mut self, register: Register, value: u64, now: Ticks) {
        match register {
            Register::Control => {
                self.is_enabled = value & ENABLE != 0;
                self.is_masked = value & IMASK != 0;
            }
            Register::CompareValue => self.compare_value = value,
            Register::TimerValue => self.compare_value = now.0.wrapping_add(sign_extend_word(value)),
        }
    }

    /// Tells whether the timer is on.
    #[must_use]
    pub const fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Tells whether the timer's interrupt line is asserted at the count `now`.
    #[must_use]
    pub fn line(&self, now: Ticks) -> bool {
        self.is_enabled && !self.is_masked && self.condition_is_met(now)
    }

    /// Returns the count at which the line will be asserted; `None` if it is, or if no count asserts it as
    /// the registers stand.
    #[must_use]
    pub fn deadline(&self, now: Ticks) -> Option<Ticks> {
        (self.is_enabled && !self.is_masked && !self.condition_is_met(now))
            .then_some(Ticks(self.compare_value))
    }

    fn control(&self, now: Ticks) -> u64 {
        let mut value = 0;
        if self.is_enabled {
            value |= ENABLE;
            if self.condition_is_met(now) {
                value |= ISTATUS;
            }
        }
        if self.is_masked {
            value |= IMASK;
        }
        value
    }

    /// Compares unsigned, so a compare value near the top is not met until the counter is there: the
    /// architecture has no wrap-around here.
    const fn condition_is_met(&self, now: Ticks) -> bool {
        now.0 >= self.compare_value
    }
}

/// Sign-extends bits 31:0, as a write of TimerValue does.
const fn sign_extend_word(value: u64) -> u64 {
    (value << 32).cast_signed().wrapping_shr(32).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn armed(compare_value: u64) -> PhysicalTimer {
        let mut timer = PhysicalTimer::new();
        timer.write(Register::CompareValue, compare_value, Ticks(0));
        timer.write(Register::Control, ENABLE, Ticks(0));
        timer
    }

    #[test]
    fn after_reset_the_timer_is_disabled_and_asks_for_nothing() {
        let timer = PhysicalTimer::new();
        assert_eq!(timer, PhysicalTimer::default());
        assert_eq!(timer.read(Register::Control, Ticks(5)), 0);
        assert_eq!(timer.read(Register::CompareValue, Ticks(5)), 0);
        assert!(!timer.line(Ticks(u64::MAX)));
        assert_eq!(timer.deadline(Ticks(0)), None);
    }

    #[test]
    fn the_line_rises_at_the_compare_value_and_not_before() {
        let timer = armed(100);
        assert!(!timer.line(Ticks(99)));
        assert_eq!(timer.deadline(Ticks(99)), Some(Ticks(100)));
        assert_eq!(timer.read(Register::Control, Ticks(99)), ENABLE);
        assert!(timer.line(Ticks(100)));
        assert_eq!(timer.deadline(Ticks(100)), None);
        assert_eq!(timer.read(Register::Control, Ticks(100)), ENABLE | ISTATUS);
    }

    #[test]
    fn a_masked_timer_shows_its_status_and_holds_the_line_low() {
        let mut timer = armed(100);
        timer.write(Register::Control, ENABLE | IMASK, Ticks(0));
        assert_eq!(timer.deadline(Ticks(0)), None);
        assert!(!timer.line(Ticks(200)));
        assert_eq!(timer.read(Register::Control, Ticks(200)), ENABLE | IMASK | ISTATUS);
    }

    #[test]
    fn status_and_reserved_bits_are_not_writable() {
        let mut timer = armed(100);
        timer.write(Register::Control, !ENABLE, Ticks(0));
        assert_eq!(timer.read(Register::Control, Ticks(200)), IMASK);
    }

    #[test]
    fn a_timer_value_is_a_signed_distance() {
        let mut timer = armed(0);
        timer.write(Register::TimerValue, 50, Ticks(1000));
        assert_eq!(timer.read(Register::CompareValue, Ticks(1000)), 1050);
        timer.write(Register::TimerValue, 0xffff_ffff, Ticks(1000));
        assert_eq!(timer.read(Register::CompareValue, Ticks(1000)), 999);
        assert!(timer.line(Ticks(1000)));
        timer.write(Register::TimerValue, 0x5_8000_0000, Ticks(1 << 32));
        assert_eq!(timer.read(Register::CompareValue, Ticks(0)), (1 << 32) - (1 << 31));
    }

    #[test]
    fn a_past_timer_value_reads_negative_in_32_bits() {
        assert_eq!(armed(100).read(Register::TimerValue, Ticks(101)), 0xffff_ffff);
        assert_eq!(armed(100).read(Register::TimerValue, Ticks(90)), 10);
    }

    #[test]
    fn a_timer_value_below_count_zero_wraps_to_the_far_future() {
        let mut timer = armed(0);
        timer.write(Register::TimerValue, 0xffff_ffff, Ticks(0));
        assert_eq!(timer.deadline(Ticks(0)), Some(Ticks(u64::MAX)));
    }

    fn register() -> impl Strategy<Value = Register> {
        prop_oneof![Just(Register::Control), Just(Register::CompareValue), Just(Register::TimerValue)]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 8 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn no_sequence_panics_and_the_views_agree(
            writes in prop::collection::vec((register(), any::<u64>(), any::<u64>()), 0..16),
            now in any::<u64>(),
        ) {
            let mut timer = PhysicalTimer::new();
            for (register, value, at) in writes {
                timer.write(register, value, Ticks(at));
            }
            let now = Ticks(now);
            let control = timer.read(Register::Control, now);
            prop_assert_eq!(timer.line(now), control & (ENABLE | IMASK | ISTATUS) == ENABLE | ISTATUS);
            if let Some(deadline) = timer.deadline(now) {
                prop_assert!(deadline > now && !timer.line(now) && timer.line(deadline));
                prop_assert!(!timer.line(Ticks(deadline.0 - 1)));
            }
        }

        #[test]
        fn a_timer_value_reads_back_at_the_same_count(value in any::<u32>(), now in any::<u64>()) {
            let mut timer = PhysicalTimer::new();
            timer.write(Register::TimerValue, u64::from(value), Ticks(now));
            prop_assert_eq!(timer.read(Register::TimerValue, Ticks(now)), u64::from(value));
        }
    }
}

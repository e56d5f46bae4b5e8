//! Counters and the EL1 timers.
//!
//! Follows Arm ARM DDI 0487K.a, D12.

use crate::{mrs, msr};

/// INTID of the EL1 virtual timer: PPI 11.
pub const VIRTUAL_INTID: u32 = 27;
/// INTID of the EL1 physical timer: PPI 14.
pub const PHYSICAL_INTID: u32 = 30;

/// CTL bits.
pub const ENABLE: u64 = 1;
/// The interrupt is masked.
pub const IMASK: u64 = 1 << 1;
/// The condition is met.
pub const ISTATUS: u64 = 1 << 2;

/// One of the two EL1 timers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    /// CNTV_*.
    Virtual,
    /// CNTP_*.
    Physical,
}

impl Timer {
    /// Returns its interrupt.
    pub fn intid(self) -> u32 {
        match self {
            Self::Virtual => VIRTUAL_INTID,
            Self::Physical => PHYSICAL_INTID,
        }
    }

    /// Reads its counter.
    pub fn count(self) -> u64 {
        match self {
            Self::Virtual => mrs!("CNTVCT_EL0"),
            Self::Physical => mrs!("CNTPCT_EL0"),
        }
    }

    /// Reads its CTL register.
    pub fn control(self) -> u64 {
        match self {
            Self::Virtual => mrs!("CNTV_CTL_EL0"),
            Self::Physical => mrs!("CNTP_CTL_EL0"),
        }
    }

    /// Writes its CTL register.
    pub fn set_control(self, value: u64) {
        match self {
            Self::Virtual => msr!("CNTV_CTL_EL0", value),
            Self::Physical => msr!("CNTP_CTL_EL0", value),
        }
    }

    /// Reads its compare value.
    pub fn compare(self) -> u64 {
        match self {
            Self::Virtual => mrs!("CNTV_CVAL_EL0"),
            Self::Physical => mrs!("CNTP_CVAL_EL0"),
        }
    }

    /// Writes its compare value.
    pub fn set_compare(self, value: u64) {
        match self {
            Self::Virtual => msr!("CNTV_CVAL_EL0", value),
            Self::Physical => msr!("CNTP_CVAL_EL0", value),
        }
    }

    /// Reads TVAL: a signed distance of 32 bits.
    pub fn value(self) -> u64 {
        match self {
            Self::Virtual => mrs!("CNTV_TVAL_EL0"),
            Self::Physical => mrs!("CNTP_TVAL_EL0"),
        }
    }

    /// Writes TVAL.
    pub fn set_value(self, value: u64) {
        match self {
            Self::Virtual => msr!("CNTV_TVAL_EL0", value),
            Self::Physical => msr!("CNTP_TVAL_EL0", value),
        }
    }
}

/// Reads how many ticks a second has.
pub fn frequency() -> u64 {
    mrs!("CNTFRQ_EL0")
}

/// Reads the virtual counter.
pub fn now() -> u64 {
    mrs!("CNTVCT_EL0")
}

/// Returns `ms` milliseconds in ticks.
pub fn ms(ms: u64) -> u64 {
    frequency() / 1000 * ms
}

/// Asks until the answer is yes, or `limit_ms` milliseconds are over: then returns the last answer.
pub fn within_ms(limit_ms: u64, mut condition: impl FnMut() -> bool) -> bool {
    let start = now();
    while now().wrapping_sub(start) < ms(limit_ms) {
        if condition() {
            return true;
        }
    }
    condition()
}

/// Spins for `duration_ms` milliseconds.
pub fn spin_ms(duration_ms: u64) {
    within_ms(duration_ms, || false);
}

//! PSCI: what a call asks for, and the answers that need no state.
//!
//! Not here: which vCPUs are on ([`Power`]), and starting, stopping or waking anything.
//! Follows Arm DEN 0022F (Power State Coordination Interface), version 1.1.

mod power;

pub use power::{Power, PowerError, PsciNext, State};

use crate::addr::Ipa;
use crate::interpreter::smccc::{Answer, low_word};

const SUCCESS: i64 = 0;
const VERSION_1_1: i64 = 0x1_0001;
const SMCCC_VERSION: u32 = 0x8000_0000;

/// MIGRATE_INFO_TYPE: no Trusted OS, or one that need not migrate (Arm DEN 0022F, MIGRATE_INFO_TYPE).
const MIGRATION_NOT_REQUIRED: i64 = 2;

/// Set in a function identifier whose arguments are 64 bits wide.
const SMC64: u32 = 1 << 30;

/// StateType of CPU_SUSPEND's power_state in the original format (Arm DEN 0022F, CPU_SUSPEND): power down.
const POWER_DOWN: u32 = 1 << 16;
/// Bits of power_state that are zero in the original format; PSCI_FEATURES says that it is the one in use.
const POWER_STATE_RESERVED: u32 = 0xfcfe_0000;

/// Names the ways in which a PSCI call fails (Arm DEN 0022F, Return error codes).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The function is not implemented.
    NotSupported,
    /// An argument names something that is not there, or reserved bits are set.
    InvalidParameters,
    /// The call is not allowed; no caller is refused anything here today.
    Denied,
    /// The target is on already.
    AlreadyOn,
    /// The target is about to start, on another caller's behalf.
    OnPending,
    /// The monitor could not do what it has accepted.
    InternalFailure,
    /// The entry point is not in the guest's RAM, or no A64 instruction can be there.
    InvalidAddress,
}

impl Error {
    /// Returns the value that the caller finds in x0.
    #[must_use]
    pub const fn code(self) -> i64 {
        match self {
            Self::NotSupported => -1,
            Self::InvalidParameters => -2,
            Self::Denied => -3,
            Self::AlreadyOn => -4,
            Self::OnPending => -5,
            Self::InternalFailure => -6,
            Self::InvalidAddress => -9,
        }
    }
}

/// Says where a vCPU begins: at EL1 in AArch64, MMU and caches off, x0 = `context` (Arm DEN 0022F, Initial
/// core configuration).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// Address of the first instruction.
    pub entry: Ipa,
    /// Value of x0 at the first instruction.
    pub context: u64,
}

/// A well-formed call that only the VM's power state can answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// CPU_SUSPEND to standby, or to power down with the entry point to resume at.
    CpuSuspend {
        /// The entry point, for a power-down state.
        power_down: Option<Ipa>,
    },
    /// CPU_OFF of the caller.
    CpuOff,
    /// CPU_ON.
    CpuOn {
        /// MPIDR format, not yet checked.
        target: u64,
        /// Where the target is to begin.
        start: Start,
    },
    /// AFFINITY_INFO.
    AffinityInfo {
        /// MPIDR format, not yet checked.
        target: u64,
        /// Affinity fields below this one are ignored.
        lowest_level: u32,
    },
    /// SYSTEM_OFF.
    SystemOff,
    /// SYSTEM_RESET, or SYSTEM_RESET2 with the architectural warm reset.
    SystemReset,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Function {
    Version,
    CpuSuspend,
    CpuOff,
    CpuOn,
    AffinityInfo,
    MigrateInfoType,
    SystemOff,
    SystemReset,
    Features,
    SystemReset2,
}

impl Function {
    /// Tells which of the provided functions an identifier names (Arm DEN 0022F, Function prototypes).
    ///
    /// Mandatory ones, and what costs nothing to do rightly. Absent on purpose: MIGRATE and
    /// MIGRATE_INFO_UP_CPU (there is nothing to migrate), CPU_FREEZE, CPU_DEFAULT_SUSPEND, NODE_HW_STATE,
    /// SYSTEM_SUSPEND, PSCI_SET_SUSPEND_MODE, PSCI_STAT_*, MEM_PROTECT*.
    const fn named(identifier: u32) -> Option<Self> {
        match identifier {
            0x8400_0000 => Some(Self::Version),
            0x8400_0001 | 0xc400_0001 => Some(Self::CpuSuspend),
            0x8400_0002 => Some(Self::CpuOff),
            0x8400_0003 | 0xc400_0003 => Some(Self::CpuOn),
            0x8400_0004 | 0xc400_0004 => Some(Self::AffinityInfo),
            0x8400_0006 => Some(Self::MigrateInfoType),
            0x8400_0008 => Some(Self::SystemOff),
            0x8400_0009 => Some(Self::SystemReset),
            0x8400_000a => Some(Self::Features),
            0x8400_0012 | 0xc400_0012 => Some(Self::SystemReset2),
            _ => None,
        }
    }
}

/// Answers the call `identifier` with its `arguments` x1 to x3, as far as that needs no state. What is not one of PSCI's that
/// is provided is [`Answer::Service`].
///
/// A 32-bit function sees the W view of its arguments (Arm DEN 0028E, Register use).
pub fn decode(identifier: u32, arguments: [u64; 3]) -> Answer {
    let Some(function) = Function::named(identifier) else { return Answer::Service };
    let wide = identifier & SMC64 != 0;
    let [first, second, third] =
        arguments.map(|argument| if wide { argument } else { u64::from(low_word(argument)) });
    match function {
        Function::Version => Answer::Return(VERSION_1_1),
        Function::CpuSuspend => suspend(low_word(first), Ipa::new(second)),
        Function::CpuOff => Answer::Power(Request::CpuOff),
        Function::CpuOn => {
            let start = Start { entry: Ipa::new(second), context: third };
            Answer::Power(Request::CpuOn { target: first, start })
        }
        Function::AffinityInfo => {
            Answer::Power(Request::AffinityInfo { target: first, lowest_level: low_word(second) })
        }
        Function::MigrateInfoType => Answer::Return(MIGRATION_NOT_REQUIRED),
        Function::SystemOff => Answer::Power(Request::SystemOff),
        Function::SystemReset => Answer::Power(Request::SystemReset),
        Function::Features => features(low_word(first)),
        Function::SystemReset2 => reset2(low_word(first)),
    }
}

const fn failed(error: Error) -> Answer {
    Answer::Return(error.code())
}

/// Checks power_state in the original format. Level and StateID are hints to a VM: every state is standby
/// here.
const fn suspend(power_state: u32, entry: Ipa) -> Answer {
    if power_state & POWER_STATE_RESERVED != 0 {
        return failed(Error::InvalidParameters);
    }
    let power_down = if power_state & POWER_DOWN != 0 { Some(entry) } else { None };
    Answer::Power(Request::CpuSuspend { power_down })
}

/// Answers PSCI_FEATURES. All flags are 0: CPU_SUSPEND takes the original format and knows no OS-initiated
/// mode. SMCCC_VERSION counts as one: that is how a guest learns that it may ask for it (Arm DEN 0022F,
/// PSCI_FEATURES).
const fn features(identifier: u32) -> Answer {
    if identifier == SMCCC_VERSION || Function::named(identifier).is_some() {
        Answer::Return(SUCCESS)
    } else {
        failed(Error::NotSupported)
    }
}

/// Checks reset_type: 0 is SYSTEM_WARM_RESET, the only architectural one; those with bit 31 are a vendor's,
/// and there are none.
const fn reset2(reset_type: u32) -> Answer {
    match reset_type {
        0 => Answer::Power(Request::SystemReset),
        _ => failed(Error::InvalidParameters),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANSWERS: [(u32, Answer); 4] = [
        (0x8400_0000, Answer::Return(0x1_0001)),
        (0x8400_0006, Answer::Return(2)),
        (0x8400_0005, Answer::Service), // MIGRATE
        (0x8400_0007, Answer::Service), // MIGRATE_INFO_UP_CPU
    ];

    const PROVIDED: [u32; 14] = [
        0x8400_0000,
        0x8400_0001,
        0xc400_0001,
        0x8400_0002,
        0x8400_0003,
        0xc400_0003,
        0x8400_0004,
        0xc400_0004,
        0x8400_0006,
        0x8400_0008,
        0x8400_0009,
        0x8400_000a,
        0x8400_0012,
        0xc400_0012,
    ];

    fn feature(identifier: u32) -> Answer {
        decode(0x8400_000a, [u64::from(identifier), 0, 0])
    }

    #[test]
    fn stateless_calls_are_answered_at_once() {
        for (identifier, expected) in ANSWERS {
            assert_eq!(decode(identifier, [0; 3]), expected, "{identifier:#x}");
        }
    }

    #[test]
    fn features_lists_exactly_what_is_provided() {
        for number in 0..0x20 {
            for identifier in [0x8400_0000 | number, 0xc400_0000 | number] {
                let is_provided = PROVIDED.contains(&identifier);
                let expected = if is_provided { 0 } else { -1 };
                assert_eq!(feature(identifier), Answer::Return(expected), "{identifier:#x}");
                assert_eq!(decode(identifier, [0; 3]) != Answer::Service, is_provided, "{identifier:#x}");
            }
        }
        assert_eq!(feature(SMCCC_VERSION), Answer::Return(0));
        assert_eq!(feature(0x8000_0001), Answer::Return(-1));
    }

    #[test]
    fn a_32_bit_call_sees_only_the_low_half_of_its_arguments() {
        let arguments = [0xffff_ffff_0000_0001, 0xffff_ffff_4000_0000, 0xffff_ffff_0000_0007];
        let narrow = Start { entry: Ipa::new(0x4000_0000), context: 7 };
        let wide = Start { entry: Ipa::new(arguments[1]), context: arguments[2] };
        assert_eq!(
            decode(0x8400_0003, arguments),
            Answer::Power(Request::CpuOn { target: 1, start: narrow })
        );
        assert_eq!(
            decode(0xc400_0003, arguments),
            Answer::Power(Request::CpuOn { target: arguments[0], start: wide })
        );
    }

    #[test]
    fn power_state_is_32_bits_in_both_widths() {
        for identifier in [0x8400_0001, 0xc400_0001] {
            let standby = Answer::Power(Request::CpuSuspend { power_down: None });
            assert_eq!(decode(identifier, [0xffff_ffff_0300_ffff, 0, 0]), standby);
            let down = Answer::Power(Request::CpuSuspend { power_down: Some(Ipa::new(0x4000)) });
            assert_eq!(decode(identifier, [0x1_0000, 0x4000, 0]), down);
        }
    }

    #[test]
    fn each_reserved_bit_of_power_state_is_refused() {
        for bit in (17..24).chain(26..32) {
            assert_eq!(decode(0xc400_0001, [1 << bit, 0, 0]), Answer::Return(-2), "bit {bit}");
        }
    }

    #[test]
    fn only_the_warm_reset_is_an_architectural_one() {
        for identifier in [0x8400_0012, 0xc400_0012] {
            assert_eq!(decode(identifier, [0, 5, 0]), Answer::Power(Request::SystemReset));
            assert_eq!(decode(identifier, [1, 0, 0]), Answer::Return(-2));
            assert_eq!(decode(identifier, [0x8000_0000, 0, 0]), Answer::Return(-2));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 8 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn what_is_provided_has_an_answer_and_nothing_else(
            identifier in prop_oneof![any::<u32>(), prop::sample::select(PROVIDED.to_vec())],
            arguments in any::<[u64; 3]>(),
        ) {
            prop_assert_eq!(decode(identifier, arguments) != Answer::Service, PROVIDED.contains(&identifier));
        }
    }
}

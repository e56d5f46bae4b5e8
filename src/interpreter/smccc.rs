//! Calls by HVC and SMC: the front door that says whose call it is.
//!
//! Not here: the power states that PSCI calls ask about ([`psci`]). Nothing is ever forwarded to firmware: a
//! call is answered here, or goes to [`psci::Power`] of the VM that made it.
//! Follows Arm DEN 0028E (SMC Calling Convention), version 1.1. HVC and SMC are answered alike, so the
//! conduit is no argument; the dispatcher steps over a trapped SMC, which HVC does by itself.
//!
//! Results: x0 alone changes. Since version 1.1 the callee preserves every register that does not carry a
//! result (DEN 0028E, Register use), and no call here has a second one. A 32-bit result is sign-extended to
//! x0: the upper half is without meaning to an SMC32 caller, and an SMC64 caller must find -1 in the whole of
//! x0 when the function is unknown.

use crate::interpreter::device::stolen_time;
use crate::interpreter::psci;

/// The answer to a call that is not there: x0 of an unknown function (Arm DEN 0028E, Unknown Function
/// Identifier).
pub const NOT_SUPPORTED: i64 = -1;

const SUCCESS: i64 = 0;
const VERSION_1_1: i64 = 0x1_0001;

const SMCCC_VERSION: u32 = 0x8000_0000;
const SMCCC_ARCH_FEATURES: u32 = 0x8000_0001;

/// Says what becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Answer {
    /// The caller finds this in x0.
    Return(i64),
    /// The VM's power state decides: see [`psci::Power::call`].
    Power(psci::Request),
    /// It is no call of the architecture's or of PSCI's: [`stolen_time::call`] has the services that depend on the VM.
    Service,
}

/// Routes the call that an HVC or SMC with this `immediate` makes with `registers` x0 to x3.
///
/// An immediate other than 0 is no call under this convention (Arm DEN 0028E, SMC and HVC immediate value):
/// not supported.
pub fn call(immediate: u16, registers: [u64; 4]) -> Answer {
    if immediate != 0 {
        return Answer::Return(NOT_SUPPORTED);
    }
    let [x0, x1, x2, x3] = registers;
    match low_word(x0) {
        SMCCC_VERSION => Answer::Return(VERSION_1_1),
        SMCCC_ARCH_FEATURES => Answer::Return(arch_features(low_word(x1))),
        identifier => psci::decode(identifier, [x1, x2, x3]),
    }
}

/// Tells whether an architecture call is there (Arm DEN 0028E, SMCCC_ARCH_FEATURES), or PV_TIME_FEATURES, which is to be
/// looked for here (Arm DEN 0057A).
///
/// The workarounds 1, 2 and 3 are not: "not supported" says that calling does not mitigate, and that is so,
/// since nothing goes to the firmware that could. A CPU that needs none says it in the ID registers (CSV2,
/// SSBS).
const fn arch_features(identifier: u32) -> i64 {
    match identifier {
        SMCCC_VERSION | SMCCC_ARCH_FEATURES | stolen_time::FEATURES => SUCCESS,
        _ => NOT_SUPPORTED,
    }
}

/// Returns the W view of a register.
#[must_use]
pub const fn low_word(register: u64) -> u32 {
    let [byte0, byte1, byte2, byte3, ..] = register.to_le_bytes();
    u32::from_le_bytes([byte0, byte1, byte2, byte3])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn called(identifier: u64, argument: u64) -> Answer {
        call(0, [identifier, argument, 0, 0])
    }

    #[test]
    fn the_version_is_1_1() {
        assert_eq!(called(0x8000_0000, 0), Answer::Return(0x1_0001));
    }

    #[test]
    fn arch_features_knows_itself_the_version_and_paravirtualized_time_only() {
        for (identifier, expected) in [
            (0x8000_0000, 0),
            (0x8000_0001, 0),
            (0xc500_0020, 0), // PV_TIME_FEATURES
            (0x8500_0020, -1),
            (0xc500_0021, -1), // PV_TIME_ST: PV_TIME_FEATURES answers for that
            (0x8000_0002, -1), // SMCCC_ARCH_SOC_ID
            (0x8000_8000, -1), // SMCCC_ARCH_WORKAROUND_1
            (0x8000_7fff, -1), // SMCCC_ARCH_WORKAROUND_2
            (0x8000_3fff, -1), // SMCCC_ARCH_WORKAROUND_3
            (0x8400_0000, -1), // PSCI_VERSION: PSCI_FEATURES answers for that
        ] {
            assert_eq!(called(0x8000_0001, identifier), Answer::Return(expected), "{identifier:#x}");
        }
    }

    #[test]
    fn only_w0_names_the_function() {
        assert_eq!(called(0xdead_beef_8000_0000, 0), Answer::Return(VERSION_1_1));
        assert_eq!(called(0x8000_0001, 0xdead_beef_8000_0000), Answer::Return(SUCCESS));
    }

    #[test]
    fn psci_calls_reach_psci_in_both_widths() {
        assert_eq!(called(0x8400_0002, 0), Answer::Power(psci::Request::CpuOff));
        let affinity = psci::Request::AffinityInfo { target: 7, lowest_level: 0 };
        assert_eq!(called(0xc400_0004, 7), Answer::Power(affinity));
        assert_eq!(called(0x8400_0004, 7), Answer::Power(affinity));
    }

    #[test]
    fn paravirtualized_time_is_a_service() {
        for identifier in [0xc500_0020, 0xc500_0021] {
            assert_eq!(called(identifier, 0xc500_0021), Answer::Service, "{identifier:#x}");
        }
    }

    #[test]
    fn calls_of_other_owners_are_left_to_services() {
        for identifier in [
            0x0000_0000_u64, // yielding call
            0x0400_0000,     // yielding call with a PSCI number
            0xc000_0000,     // SMCCC_VERSION as SMC64
            0x8000_8000,     // SMCCC_ARCH_WORKAROUND_1
            0x8200_0000,     // SiP
            0x8400_0050,     // TRNG_VERSION
            0x8400_ff01,     // UID of the standard secure service
            0x8600_ff01,     // UID of the hypervisor service
            0x8500_0020,     // PV_TIME_FEATURES as SMC32
            0x8500_0021,     // PV_TIME_ST as SMC32
            0xc500_0022,
            0x8401_0000, // PSCI_VERSION with the SVE hint of version 1.3, which 1.1 reserves
            0xffff_ffff,
        ] {
            assert_eq!(called(identifier, 0), Answer::Service, "{identifier:#x}");
        }
    }

    #[test]
    fn an_immediate_makes_it_no_call() {
        for immediate in [1, 0xea1, u16::MAX] {
            assert_eq!(call(immediate, [0x8400_0008, 0, 0, 0]), Answer::Return(NOT_SUPPORTED));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 8 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn only_identifiers_in_the_psci_range_reach_the_power_state(
            registers in any::<[u64; 4]>(),
            near in 0_u64..32,
        ) {
            let [identifier, rest @ ..] = registers;
            for identifier in [identifier, 0x8400_0000 | near, 0xc400_0000 | near] {
                let [x1, x2, x3] = rest;
                if let Answer::Power(_) = call(0, [identifier, x1, x2, x3]) {
                    prop_assert_eq!(identifier & 0xbfff_ffe0, 0x8400_0000, "of W0 {:#x}", identifier);
                }
            }
        }
    }
}

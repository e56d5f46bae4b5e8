//! What a CPU does when it takes an exception to EL1: the registers before, the registers after.
//!
//! Not here: deciding that the guest has earned one, and IRQ, FIQ and virtual SError, which hardware
//! delivers.
//! Follows Arm ARM DDI 0487K.a: AArch64.TakeException, Exception vectors (D1.3), and the syndromes of
//! ESR_EL1.

use crate::addr::GuestVa;

/// Offset of synchronous exceptions in one group of the vector table.
const SYNCHRONOUS: u64 = 0x000;
/// Offset of SErrors in one group of the vector table.
const SERROR: u64 = 0x180;

/// Bits of a PSTATE image as SPSR_ELx holds them.
mod psr {
    pub const EL1H: u64 = 0b0101;
    pub const SP: u64 = 1 << 0;
    pub const EL: u64 = 0b11 << 2;
    pub const NRW: u64 = 1 << 4;
    pub const DAIF: u64 = 0b1111 << 6;
    pub const SSBS: u64 = 1 << 12;
    pub const ALLINT: u64 = 1 << 13;
    pub const PAN: u64 = 1 << 22;
    pub const DIT: u64 = 1 << 24;
    pub const TCO: u64 = 1 << 25;
    pub const NZCV: u64 = 0b1111 << 28;
    pub const EXLOCK: u64 = 1 << 34;
}

/// Bits of SCTLR_EL1 that act on exception entry.
mod sctlr {
    pub const SPAN: u64 = 1 << 23;
    pub const DSSBS: u64 = 1 << 44;
    pub const SPINTMASK: u64 = 1 << 62;
}

/// Exception classes and syndrome bits of ESR_EL1.
mod esr {
    pub const EC_SHIFT: u32 = 26;
    pub const EC: u64 = 0b11_1111 << EC_SHIFT;
    pub const IL: u64 = 1 << 25;
    pub const ISS: u64 = IL - 1;

    pub const UNKNOWN: u64 = 0x00;
    pub const ILLEGAL_STATE: u64 = 0x0e;
    pub const INSTRUCTION_ABORT_LOWER: u64 = 0x20;
    pub const DATA_ABORT_LOWER: u64 = 0x24;
    pub const SERROR: u64 = 0x2f;
    pub const BREAKPOINT_LOWER: u64 = 0x30;
    pub const SOFTWARE_STEP_LOWER: u64 = 0x32;
    pub const WATCHPOINT_LOWER: u64 = 0x34;

    pub const WNR: u64 = 1 << 6;
    pub const CM: u64 = 1 << 8;
    pub const FNV: u64 = 1 << 10;
}

/// Says which optional features the CPU has: as the hardware is, whatever ID registers the guest is shown,
/// since PSTATE follows the hardware. UAO and BTYPE are zero on entry and in CPUs without them alike, and DIT
/// is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features {
    /// FEAT_PAN: ID_AA64MMFR1_EL1.PAN.
    pub pan: bool,
    /// FEAT_SSBS: ID_AA64PFR1_EL1.SSBS.
    pub ssbs: bool,
    /// FEAT_MTE: ID_AA64PFR1_EL1.MTE.
    pub mte: bool,
    /// FEAT_NMI: ID_AA64PFR1_EL1.NMI.
    pub nmi: bool,
}

/// The state of a vCPU, stopped at the instruction that is to take the exception.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct El1 {
    /// Where the guest returns to by default (ELR_EL2): for all that is injected here, the instruction
    /// itself.
    pub pc: u64,
    /// PSTATE as SPSR_EL2 holds it, of AArch32 EL0 too.
    pub pstate: u64,
    /// SCTLR_EL1.
    pub sctlr_el1: u64,
    /// VBAR_EL1.
    pub vbar_el1: u64,
    /// GCSCR_EL1.EXLOCKEN, false on a CPU without FEAT_GCS.
    pub exlocken: bool,
}

/// The state with which the guest's handler begins; every register not named here stays as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Entry {
    /// Address of the handler (for ELR_EL2).
    pub pc: u64,
    /// Process state of the handler (for SPSR_EL2).
    pub pstate: u64,
    /// ELR_EL1.
    pub elr_el1: u64,
    /// SPSR_EL1.
    pub spsr_el1: u64,
    /// ESR_EL1.
    pub esr_el1: u64,
    /// FAR_EL1; `None` leaves it as it is.
    pub far_el1: Option<u64>,
}

/// Says what is wrong with a data access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataFault {
    /// Nothing answers at that address.
    External,
    /// Nothing answers where a stage 1 table of this level (-1 to 3) should be.
    ExternalOnWalk(i8),
    /// The address is not aligned as the memory type demands.
    Alignment,
    /// The memory does not support exclusive or atomic accesses.
    UnsupportedAtomic,
    /// The guest's stage 1 does not allow it: the fault status as ESR_EL1.ISS.DFSC has it.
    Stage1(u8),
}

/// Names an exception to EL1 and what its syndrome says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exception {
    /// The instruction is UNDEFINED.
    Undefined,
    /// PSTATE.IL was set.
    IllegalState,
    /// A synchronous external abort of an instruction fetch.
    InstructionAbort {
        /// The level of the stage 1 table that nothing answered for (-1 to 3); `None` for the fetch itself.
        walk_level: Option<i8>,
        /// Address that was fetched from, if known.
        far: Option<GuestVa>,
    },
    /// A synchronous abort of a data access.
    DataAbort {
        /// What was wrong with it.
        fault: DataFault,
        /// It was a store.
        write: bool,
        /// It was cache maintenance, which counts as a store.
        cache_maintenance: bool,
        /// Address that was accessed, if known.
        far: Option<GuestVa>,
    },
    /// An SError; not to be injected while [`masks_serror`].
    SError {
        /// ESR_EL1.ISS: 25 bits.
        iss: u32,
    },
    /// What trapped to EL2 although EL1 should have had it: FP, SVE or SME access, BRK, other debug
    /// exceptions, ...
    Forward {
        /// ESR_EL2 as it was.
        esr_el2: u64,
        /// Address for the classes that report one.
        far: Option<GuestVa>,
    },
}

/// Tells whether PSTATE.A keeps SErrors from being taken at EL1.
#[must_use]
pub const fn masks_serror(pstate: u64) -> bool {
    pstate & (1 << 8) != 0
}

/// Takes `exception` to EL1 from the state `from`, on a CPU with `features`.
pub fn enter_el1(exception: Exception, from: &El1, features: &Features) -> Entry {
    let (esr_el1, far) = syndrome(exception, is_at_el0(from.pstate));
    let offset = if matches!(exception, Exception::SError { .. }) { SERROR } else { SYNCHRONOUS };
    Entry {
        pc: (from.vbar_el1 & !0x7ff) | vector_group(from.pstate) | offset,
        pstate: handler_pstate(from, features),
        elr_el1: from.pc,
        spsr_el1: from.pstate,
        esr_el1,
        far_el1: far.map(GuestVa::get),
    }
}

/// AArch32 below EL1 is EL0, whatever its mode field says there.
const fn is_at_el0(pstate: u64) -> bool {
    pstate & psr::NRW != 0 || pstate & psr::EL == 0
}

/// Picks the group of four vectors by where the exception comes from (D1.3, Exception vectors).
const fn vector_group(pstate: u64) -> u64 {
    if pstate & psr::NRW != 0 {
        0x600
    } else if is_at_el0(pstate) {
        0x400
    } else if pstate & psr::SP != 0 {
        0x200
    } else {
        0x000
    }
}

/// Builds the handler's PSTATE bit by bit: what is not named is 0 on entry (IL, SS, UAO, BTYPE, nRW, PACM,
/// ...).
///
/// NZCV, DIT and PAN have the same places in the AArch32 image of SPSR_EL2; SSBS and UAO have not, and
/// neither of them is kept.
const fn handler_pstate(from: &El1, features: &Features) -> u64 {
    let mut pstate = psr::EL1H | psr::DAIF | from.pstate & (psr::NZCV | psr::DIT | psr::PAN);
    if features.pan && from.sctlr_el1 & sctlr::SPAN == 0 {
        pstate |= psr::PAN;
    }
    if features.ssbs && from.sctlr_el1 & sctlr::DSSBS != 0 {
        pstate |= psr::SSBS;
    }
    if features.mte {
        pstate |= psr::TCO;
    }
    if features.nmi && from.sctlr_el1 & sctlr::SPINTMASK == 0 {
        pstate |= psr::ALLINT;
    }
    if from.exlocken && !is_at_el0(from.pstate) {
        pstate |= psr::EXLOCK;
    }
    pstate
}

/// Returns ESR_EL1 and the address for FAR_EL1. IL is 1 for all of these, whatever the size of the
/// instruction; a forwarded syndrome brings its own.
fn syndrome(exception: Exception, from_el0: bool) -> (u64, Option<GuestVa>) {
    let (class, iss, far) = match exception {
        Exception::Undefined => (esr::UNKNOWN, 0, None),
        Exception::IllegalState => (esr::ILLEGAL_STATE, 0, None),
        Exception::InstructionAbort { walk_level, far } => {
            let status = walk_level.map_or(EXTERNAL, external_on_walk);
            (esr::INSTRUCTION_ABORT_LOWER, u64::from(status) | address_is_not_valid(status, far), far)
        }
        Exception::DataAbort { fault, write, cache_maintenance, far } => {
            let status = data_fault_status(fault);
            let kind = match (cache_maintenance, write) {
                (true, _) => esr::CM | esr::WNR,
                (false, true) => esr::WNR,
                (false, false) => 0,
            };
            (esr::DATA_ABORT_LOWER, u64::from(status) | kind | address_is_not_valid(status, far), far)
        }
        Exception::SError { iss } => (esr::SERROR, u64::from(iss) & esr::ISS, None),
        Exception::Forward { esr_el2, far } => {
            let class = class_at_el1((esr_el2 & esr::EC) >> esr::EC_SHIFT, from_el0);
            return (esr_el2 & !esr::EC | class << esr::EC_SHIFT, far);
        }
    };
    (class_at_el1(class, from_el0) << esr::EC_SHIFT | esr::IL | iss, far)
}

/// Turns the class that names a lower Exception level, the only one EL2 ever sees, into its twin if the
/// exception comes from EL1 itself.
const fn class_at_el1(class: u64, from_el0: bool) -> u64 {
    match class {
        esr::INSTRUCTION_ABORT_LOWER
        | esr::DATA_ABORT_LOWER
        | esr::BREAKPOINT_LOWER
        | esr::SOFTWARE_STEP_LOWER
        | esr::WATCHPOINT_LOWER
            if !from_el0 =>
        {
            class | 1
        }
        _ => class,
    }
}

/// Fault status: synchronous external abort, not on a table walk.
const EXTERNAL: u8 = 0b01_0000;

/// Returns the fault status of an external abort on a walk. ISS.S1PTW stays 0: it speaks of stage 2 faults, and to the
/// guest there is no stage 2.
#[must_use]
pub const fn external_on_walk(level: i8) -> u8 {
    match level {
        -1 => 0b01_0011,
        0 => 0b01_0100,
        1 => 0b01_0101,
        2 => 0b01_0110,
        3 => 0b01_0111,
        _ => EXTERNAL,
    }
}

const fn data_fault_status(fault: DataFault) -> u8 {
    match fault {
        DataFault::External => EXTERNAL,
        DataFault::ExternalOnWalk(level) => external_on_walk(level),
        DataFault::Alignment => 0b10_0001,
        DataFault::UnsupportedAtomic => 0b11_0101,
        DataFault::Stage1(status) => status & 0x3f,
    }
}

/// FnV exists for external aborts that are not on a walk; every other fault knows its address.
const fn address_is_not_valid(status: u8, far: Option<GuestVa>) -> u64 {
    if status == EXTERNAL && far.is_none() { esr::FNV } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EL0T: u64 = 0b0000;
    const EL1T: u64 = 0b0100;
    const EL1H: u64 = 0b0101;
    const A32_USER: u64 = 0b1_0000;
    const IL: u64 = 1 << 25;

    const NOTHING: Features = Features { pan: false, ssbs: false, mte: false, nmi: false };
    const EVERYTHING: Features = Features { pan: true, ssbs: true, mte: true, nmi: true };

    /// SCTLR_EL1 that asks for nothing on entry: SPAN and SPINTMASK set, DSSBS clear.
    const QUIET_SCTLR: u64 = 1 << 23 | 1 << 62;

    fn stopped(pstate: u64) -> El1 {
        El1 {
            pc: 0xffff_8000_1234_5678,
            pstate,
            sctlr_el1: QUIET_SCTLR,
            vbar_el1: 0xffff_8000_0001_0800,
            exlocken: false,
        }
    }

    fn data_abort(fault: DataFault) -> Exception {
        Exception::DataAbort {
            fault,
            write: false,
            cache_maintenance: false,
            far: Some(GuestVa::new(0x1234)),
        }
    }

    fn esr(exception: Exception, pstate: u64) -> u64 {
        enter_el1(exception, &stopped(pstate), &NOTHING).esr_el1
    }

    #[test]
    fn every_source_has_its_vector() {
        for (pstate, group) in [(EL1T, 0x000), (EL1H, 0x200), (EL0T, 0x400), (A32_USER, 0x600)] {
            let from = stopped(pstate);
            let synchronous = enter_el1(Exception::Undefined, &from, &NOTHING);
            assert_eq!(synchronous.pc, from.vbar_el1 + group);
            let serror = enter_el1(Exception::SError { iss: 0 }, &from, &NOTHING);
            assert_eq!(serror.pc, from.vbar_el1 + group + 0x180);
        }
    }

    #[test]
    fn reserved_bits_of_the_vector_base_are_ignored() {
        let from = El1 { vbar_el1: 0x8_07ff, ..stopped(EL1H) };
        assert_eq!(enter_el1(Exception::Undefined, &from, &NOTHING).pc, 0x8_0200);
    }

    #[test]
    fn return_address_and_state_are_saved_as_they_were() {
        for pstate in [EL0T | 0x6240_0c00, A32_USER | 0xffff_ffc0, EL1H | 1 << 34] {
            let entry = enter_el1(Exception::Undefined, &stopped(pstate), &EVERYTHING);
            assert_eq!((entry.elr_el1, entry.spsr_el1), (0xffff_8000_1234_5678, pstate));
        }
    }

    #[test]
    fn the_handler_runs_at_el1h_with_everything_masked() {
        for pstate in [EL0T, EL1T, EL1H, A32_USER] {
            let entry = enter_el1(Exception::Undefined, &stopped(pstate), &NOTHING);
            assert_eq!(entry.pstate, 0b0101 | 0b1111 << 6);
        }
    }

    #[test]
    fn flags_and_dit_and_pan_are_kept() {
        for bit in [31, 30, 29, 28, 24, 22] {
            for mode in [EL0T, EL1H, A32_USER] {
                let entry = enter_el1(Exception::Undefined, &stopped(mode | 1 << bit), &NOTHING);
                assert_eq!(entry.pstate, 0x3c5 | 1 << bit, "bit {bit} of mode {mode:#x}");
            }
        }
    }

    #[test]
    fn everything_else_is_cleared() {
        // UAO (SSBS in AArch32), SS, IL, ALLINT, SSBS, BTYPE, TCO, PM, PPEND, EXLOCK, PACM, UINJ
        for bit in [23, 21, 20, 13, 12, 11, 10, 25, 32, 33, 34, 35, 36] {
            let entry = enter_el1(Exception::Undefined, &stopped(EL1H | 1 << bit), &NOTHING);
            assert_eq!(entry.pstate, 0x3c5, "bit {bit}");
        }
        // Q, IT, GE, E and T of AArch32
        let entry = enter_el1(Exception::Undefined, &stopped(A32_USER | 0x0e0f_fe20), &NOTHING);
        assert_eq!(entry.pstate, 0x3c5);
    }

    #[test]
    fn each_feature_sets_its_bit_when_sctlr_says_so() {
        let asked = |sctlr_el1, features| {
            enter_el1(Exception::Undefined, &El1 { sctlr_el1, ..stopped(EL1H) }, &features).pstate & !0x3c5
        };
        let pan = Features { pan: true, ..NOTHING };
        assert_eq!(asked(0, pan), 1 << 22);
        assert_eq!(asked(1 << 23, pan), 0);
        let ssbs = Features { ssbs: true, ..NOTHING };
        assert_eq!(asked(1 << 44, ssbs), 1 << 12);
        assert_eq!(asked(0, ssbs), 0);
        let nmi = Features { nmi: true, ..NOTHING };
        assert_eq!(asked(0, nmi), 1 << 13);
        assert_eq!(asked(1 << 62, nmi), 0);
        assert_eq!(asked(0, Features { mte: true, ..NOTHING }), 1 << 25);
        assert_eq!(asked(1 << 44, NOTHING), 0);
    }

    #[test]
    fn the_exception_lock_closes_for_exceptions_from_el1_itself() {
        for (mode, expected) in [(EL1H, 1 << 34), (EL1T, 1 << 34), (EL0T, 0), (A32_USER, 0)] {
            let from = El1 { exlocken: true, ..stopped(mode) };
            assert_eq!(enter_el1(Exception::Undefined, &from, &NOTHING).pstate & 1 << 34, expected);
        }
    }

    #[test]
    fn undefined_and_illegal_state_say_no_more_than_their_class() {
        for mode in [EL0T, EL1H, A32_USER] {
            assert_eq!(esr(Exception::Undefined, mode), IL);
            assert_eq!(esr(Exception::IllegalState, mode), 0x0e << 26 | IL);
        }
    }

    #[test]
    fn a_data_abort_names_the_level_it_comes_from() {
        let abort = data_abort(DataFault::External);
        assert_eq!(esr(abort, EL0T), 0x24 << 26 | IL | 0x10);
        assert_eq!(esr(abort, A32_USER), 0x24 << 26 | IL | 0x10);
        assert_eq!(esr(abort, EL1T), 0x25 << 26 | IL | 0x10);
        assert_eq!(esr(abort, EL1H), 0x25 << 26 | IL | 0x10);
    }

    #[test]
    fn each_data_fault_has_its_status() {
        for (fault, status) in [
            (DataFault::External, 0x10),
            (DataFault::ExternalOnWalk(-1), 0x13),
            (DataFault::ExternalOnWalk(0), 0x14),
            (DataFault::ExternalOnWalk(1), 0x15),
            (DataFault::ExternalOnWalk(2), 0x16),
            (DataFault::ExternalOnWalk(3), 0x17),
            (DataFault::ExternalOnWalk(4), 0x10),
            (DataFault::Alignment, 0x21),
            (DataFault::UnsupportedAtomic, 0x35),
        ] {
            assert_eq!(esr(data_abort(fault), EL1H) & 0x1ff_ffff, status, "{fault:?}");
        }
    }

    #[test]
    fn stores_and_cache_maintenance_are_told_apart() {
        for (write, cache_maintenance, expected) in
            [(false, false, 0), (true, false, 1 << 6), (false, true, 0x140), (true, true, 0x140)]
        {
            let far = Some(GuestVa::new(0));
            let abort = Exception::DataAbort { fault: DataFault::Alignment, write, cache_maintenance, far };
            assert_eq!(esr(abort, EL1H) & 0x1ff_ffff & !0x3f, expected);
        }
    }

    #[test]
    fn the_faulting_address_is_given_or_declared_unknown() {
        let abort = |far| Exception::InstructionAbort { walk_level: None, far };
        let known = enter_el1(abort(Some(GuestVa::new(0xabc))), &stopped(EL1H), &NOTHING);
        assert_eq!((known.far_el1, known.esr_el1), (Some(0xabc), 0x21 << 26 | IL | 0x10));
        let unknown = enter_el1(abort(None), &stopped(EL0T), &NOTHING);
        assert_eq!((unknown.far_el1, unknown.esr_el1), (None, 0x20 << 26 | IL | 1 << 10 | 0x10));
        let data = Exception::DataAbort {
            fault: DataFault::External,
            write: true,
            cache_maintenance: false,
            far: None,
        };
        assert_eq!(esr(data, EL1H), 0x25 << 26 | IL | 1 << 10 | 1 << 6 | 0x10);
        assert_eq!(enter_el1(Exception::Undefined, &stopped(EL1H), &NOTHING).far_el1, None);
    }

    #[test]
    fn an_instruction_abort_on_a_walk_names_the_level() {
        let abort = Exception::InstructionAbort { walk_level: Some(2), far: Some(GuestVa::new(4)) };
        assert_eq!(esr(abort, EL0T), 0x20 << 26 | IL | 0x16);
    }

    #[test]
    fn an_serror_carries_its_syndrome_and_no_address() {
        let entry = enter_el1(Exception::SError { iss: u32::MAX }, &stopped(EL1H), &NOTHING);
        assert_eq!((entry.esr_el1, entry.far_el1), (0x2f << 26 | IL | 0x1ff_ffff, None));
        assert!(masks_serror(entry.pstate) && !masks_serror(EL1H | 0b1011 << 6));
    }

    #[test]
    fn a_forwarded_exception_keeps_its_syndrome() {
        for (class, from_el1) in [
            (0x07_u64, 0x07_u64), // FP access
            (0x19, 0x19),         // SVE access
            (0x1d, 0x1d),         // SME access
            (0x30, 0x31),         // breakpoint
            (0x32, 0x33),         // software step
            (0x34, 0x35),         // watchpoint
            (0x3c, 0x3c),         // BRK
            (0x20, 0x21),
            (0x24, 0x25),
        ] {
            let iss = 0x1f_01e0_1234;
            let forward = Exception::Forward { esr_el2: class << 26 | iss, far: None };
            assert_eq!(esr(forward, EL1H), from_el1 << 26 | iss, "{class:#x}");
            assert_eq!(esr(forward, EL0T), class << 26 | iss, "{class:#x}");
        }
        let watchpoint = Exception::Forward { esr_el2: 0x34 << 26, far: Some(GuestVa::new(8)) };
        assert_eq!(enter_el1(watchpoint, &stopped(EL0T), &NOTHING).far_el1, Some(8));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 8 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn any_state_enters_el1h_masked_inside_the_vector_table(
            (pc, pstate, sctlr_el1, vbar_el1) in any::<(u64, u64, u64, u64)>(),
            (exlocken, pan, ssbs, mte, nmi) in any::<(bool, bool, bool, bool, bool)>(),
            esr_el2 in any::<u64>(),
        ) {
            let from = El1 { pc, pstate, sctlr_el1, vbar_el1, exlocken };
            let features = Features { pan, ssbs, mte, nmi };
            let entry = enter_el1(Exception::Forward { esr_el2, far: None }, &from, &features);
            prop_assert_eq!(entry.pstate & 0x3df, 0x3c5);
            prop_assert_eq!(entry.pc & !0x7ff, vbar_el1 & !0x7ff);
            prop_assert_eq!(entry.pc & 0x7f, 0);
            prop_assert_eq!((entry.elr_el1, entry.spsr_el1), (pc, pstate));
        }
    }
}

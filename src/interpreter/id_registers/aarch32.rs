//! CRm 1 to 3: what an AArch32 application would find; UNKNOWN where the processor has no AArch32.
//!
//! Not here: AArch64 state. The same features are hidden as there, so that the two views agree.
//! Follows Arm ARM DDI 0487K.a, the descriptions of ID_PFR0_EL1 to ID_MMFR5_EL1 and MVFR0_EL1 to MVFR2_EL1.

use super::{Field, Register, at_most, gic, hidden, native, native_bits, standard_at_most};

/// A register in which every field describes instructions or EL1 and EL0 state.
const ALL_NATIVE: &[Field] = &[native_bits("all", 0, 32)];

/// The registers in manual order.
pub const REGISTERS: &[Register] = &[
    Register { name: "ID_PFR0_EL1", crm: 1, op2: 0, fields: ID_PFR0 },
    Register { name: "ID_PFR1_EL1", crm: 1, op2: 1, fields: ID_PFR1 },
    Register { name: "ID_DFR0_EL1", crm: 1, op2: 2, fields: ID_DFR0 },
    Register { name: "ID_AFR0_EL1", crm: 1, op2: 3, fields: &[] },
    Register { name: "ID_MMFR0_EL1", crm: 1, op2: 4, fields: ALL_NATIVE },
    Register { name: "ID_MMFR1_EL1", crm: 1, op2: 5, fields: ALL_NATIVE },
    Register { name: "ID_MMFR2_EL1", crm: 1, op2: 6, fields: ALL_NATIVE },
    Register { name: "ID_MMFR3_EL1", crm: 1, op2: 7, fields: ALL_NATIVE },
    Register { name: "ID_ISAR0_EL1", crm: 2, op2: 0, fields: ALL_NATIVE },
    Register { name: "ID_ISAR1_EL1", crm: 2, op2: 1, fields: ALL_NATIVE },
    Register { name: "ID_ISAR2_EL1", crm: 2, op2: 2, fields: ALL_NATIVE },
    Register { name: "ID_ISAR3_EL1", crm: 2, op2: 3, fields: ALL_NATIVE },
    Register { name: "ID_ISAR4_EL1", crm: 2, op2: 4, fields: ALL_NATIVE },
    Register { name: "ID_ISAR5_EL1", crm: 2, op2: 5, fields: ALL_NATIVE },
    Register { name: "ID_MMFR4_EL1", crm: 2, op2: 6, fields: ID_MMFR4 },
    Register { name: "ID_ISAR6_EL1", crm: 2, op2: 7, fields: ALL_NATIVE },
    Register { name: "MVFR0_EL1", crm: 3, op2: 0, fields: ALL_NATIVE },
    Register { name: "MVFR1_EL1", crm: 3, op2: 1, fields: ALL_NATIVE },
    Register { name: "MVFR2_EL1", crm: 3, op2: 2, fields: ALL_NATIVE },
    Register { name: "ID_PFR2_EL1", crm: 3, op2: 4, fields: ID_PFR2 },
    Register { name: "ID_DFR1_EL1", crm: 3, op2: 5, fields: ID_DFR1 },
    Register { name: "ID_MMFR5_EL1", crm: 3, op2: 6, fields: &[native("ETS", 0), native("nTLBPA", 4)] },
];

const ID_PFR0: &[Field] = &[
    native_bits("State0 to State3", 0, 16),
    at_most("CSV2", 16, 1), // 2 brings SCXTNUM
    hidden("AMU", 20),
    native("DIT", 24),
    hidden("RAS", 28),
];

const ID_PFR1: &[Field] = &[
    native("ProgMod", 0),
    hidden("Security", 4), // no EL3 to be seen
    native("MProgMod", 8),
    hidden("Virtualization", 12), // no EL2 to be seen
    native("GenTimer", 16),
    native("Sec_frac", 20),
    hidden("Virt_frac", 24),
    gic(28),
];

const ID_DFR0: &[Field] = &[
    at_most("CopDbg", 0, 10), // as ID_AA64DFR0_EL1.DebugVer
    hidden("CopSDbg", 4),     // debug of Secure state
    native("MMapDbg", 8),
    hidden("CopTrc", 12),
    hidden("MMapTrc", 16),
    native("MProfDbg", 20),
    standard_at_most("PerfMon", 24, 8), // as ID_AA64DFR0_EL1.PMUVer
    hidden("TraceFilt", 28),
];

const ID_MMFR4: &[Field] = &[
    native("SpecSEI", 0),
    native("AC2", 4),
    hidden("XNX", 8), // stage 2's
    native("CnP", 12),
    native("HPDS", 16),
    native("LSM", 20),
    native("CCIDX", 24),
    hidden("EVT", 28),
];

const ID_PFR2: &[Field] = &[native("CSV3", 0), native("SSBS", 4), hidden("RAS_frac", 8)];

const ID_DFR1: &[Field] = &[hidden("MTPMU", 0), hidden("HPMN0", 4)];

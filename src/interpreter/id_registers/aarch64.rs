//! CRm 4 to 7: the features of AArch64 state.
//!
//! Not here: how a hidden feature is kept out of reach; each one that has a trap bit has a row in `dispatcher::traps`.
//! Follows Arm ARM DDI 0487K.a, the descriptions of ID_AA64PFR0_EL1 to ID_AA64MMFR4_EL1.

use super::{Field, Register, at_most, at_most_zero, gic, hidden, native, standard_at_most};

/// The registers in manual order.
pub const REGISTERS: &[Register] = &[
    Register { name: "ID_AA64PFR0_EL1", crm: 4, op2: 0, fields: PFR0 },
    Register { name: "ID_AA64PFR1_EL1", crm: 4, op2: 1, fields: PFR1 },
    Register { name: "ID_AA64PFR2_EL1", crm: 4, op2: 2, fields: PFR2 },
    Register { name: "ID_AA64ZFR0_EL1", crm: 4, op2: 4, fields: &[] }, // SVE
    Register { name: "ID_AA64SMFR0_EL1", crm: 4, op2: 5, fields: &[] }, // SME
    Register { name: "ID_AA64FPFR0_EL1", crm: 4, op2: 7, fields: &[] }, // FP8: needs FPMR
    Register { name: "ID_AA64DFR0_EL1", crm: 5, op2: 0, fields: DFR0 },
    Register { name: "ID_AA64DFR1_EL1", crm: 5, op2: 1, fields: &[] }, // more breakpoints, system PMU
    Register { name: "ID_AA64DFR2_EL1", crm: 5, op2: 2, fields: &[] }, // STEP, BWE, SPE and TRBE exceptions
    Register { name: "ID_AA64AFR0_EL1", crm: 5, op2: 4, fields: &[] }, // IMPLEMENTATION DEFINED
    Register { name: "ID_AA64AFR1_EL1", crm: 5, op2: 5, fields: &[] },
    Register { name: "ID_AA64ISAR0_EL1", crm: 6, op2: 0, fields: ISAR0 },
    Register { name: "ID_AA64ISAR1_EL1", crm: 6, op2: 1, fields: ISAR1 },
    Register { name: "ID_AA64ISAR2_EL1", crm: 6, op2: 2, fields: ISAR2 },
    Register { name: "ID_AA64ISAR3_EL1", crm: 6, op2: 3, fields: ISAR3 },
    Register { name: "ID_AA64MMFR0_EL1", crm: 7, op2: 0, fields: MMFR0 },
    Register { name: "ID_AA64MMFR1_EL1", crm: 7, op2: 1, fields: MMFR1 },
    Register { name: "ID_AA64MMFR2_EL1", crm: 7, op2: 2, fields: MMFR2 },
    Register { name: "ID_AA64MMFR3_EL1", crm: 7, op2: 3, fields: MMFR3 },
    Register { name: "ID_AA64MMFR4_EL1", crm: 7, op2: 4, fields: &[] }, // all of EL2, EL3 or hidden features
];

const PFR0: &[Field] = &[
    native("EL0", 0),
    native("EL1", 4), // fixed at reset to AArch64, as on a machine whose highest level is EL1
    hidden("EL2", 8),
    hidden("EL3", 12),
    native("FP", 16),
    native("AdvSIMD", 20),
    gic(24),
    hidden("RAS", 28), // error records are the machine's; ESB stays a hint
    hidden("SVE", 32),
    hidden("SEL2", 36),
    hidden("MPAM", 40),
    hidden("AMU", 44),
    native("DIT", 48),
    hidden("RME", 52),
    at_most("CSV2", 56, 1), // 2 brings SCXTNUM_EL0 and SCXTNUM_EL1
    native("CSV3", 60),
];

const PFR1: &[Field] = &[
    native("BT", 0),
    native("SSBS", 4),
    at_most("MTE", 8, 1), // instructions that act on registers; stage 2 maps no tags
    hidden("RAS_frac", 12),
    hidden("MPAM_frac", 16),
    hidden("SME", 24),
    hidden("RNDR_trap", 28), // EL3's
    hidden("CSV2_frac", 32),
    hidden("NMI", 36),
    hidden("MTE_frac", 40),
    hidden("GCS", 44),
    hidden("THE", 48),
    hidden("MTEX", 52),
    hidden("DF2", 56),
    hidden("PFAR", 60),
];

const PFR2: &[Field] = &[
    hidden("MTEPERM", 0),
    hidden("MTESTOREONLY", 4),
    hidden("MTEFAR", 8),
    hidden("GCIE", 12),
    hidden("UINJ", 16),
    hidden("FPMR", 32),
];

const DFR0: &[Field] = &[
    at_most("DebugVer", 0, 10), // 11 (v8.9) adds MDSELR_EL1
    hidden("TraceVer", 4),
    standard_at_most("PMUVer", 8, 8), // granted on first use; 9 (v3p9) adds PMUACR_EL1
    native("BRPs", 12),               // the debug registers are granted on first use
    hidden("PMSS", 16),
    native("WRPs", 20),
    hidden("SEBEP", 24),
    native("CTX_CMPs", 28),
    hidden("PMSVer", 32),
    native("DoubleLock", 36), // signed: 0 is implemented
    hidden("TraceFilt", 40),
    hidden("TraceBuffer", 44),
    hidden("MTPMU", 48),
    hidden("BRBE", 52),
    hidden("ExtTrcBuff", 56),
    hidden("HPMN0", 60),
];

const ISAR0: &[Field] = &[
    native("AES", 4),
    native("SHA1", 8),
    native("SHA2", 12),
    native("CRC32", 16),
    native("Atomic", 20),
    hidden("TME", 24),
    native("RDM", 28),
    native("SHA3", 32),
    native("SM3", 36),
    native("SM4", 40),
    native("DP", 44),
    native("FHM", 48),
    native("TS", 52),
    native("TLB", 56),
    native("RNDR", 60),
];

const ISAR1: &[Field] = &[
    native("DPB", 0),
    at_most("APA", 4, 5), // 6 is PAuth_LR, with PACM under HCRX_EL2.PACMEn
    at_most("API", 8, 5),
    native("JSCVT", 12),
    native("FCMA", 16),
    native("LRCPC", 20),
    native("GPA", 24),
    native("GPI", 28),
    native("FRINTTS", 32),
    native("SB", 36),
    native("SPECRES", 40),
    native("BF16", 44),
    native("DGH", 48),
    native("I8MM", 52),
    native("XS", 56),
    hidden("LS64", 60), // EL2 would have to enable it
];

const ISAR2: &[Field] = &[
    native("WFxT", 0),
    native("RPRES", 4),
    native("GPA3", 8),
    at_most("APA3", 12, 5), // as APA
    native("MOPS", 16),     // HCRX_EL2.MSCEn
    native("BC", 20),
    native("PAC_frac", 24),
    native("CLRBHB", 28),
    hidden("SYSREG_128", 32),
    hidden("SYSINSTR_128", 36),
    native("PRFMSLC", 40),
    native("PCDPHINT", 44),
    native("RPRFM", 48),
    native("CSSC", 52),
    native("LUT", 56),
    native("ATS1A", 60),
];

const ISAR3: &[Field] = &[
    at_most("CPA", 0, 1), // 2 is controlled by SCTLR2_EL1
    native("FAMINMAX", 4),
    hidden("TLBIW", 8), // stage 2's
    hidden("PACM", 12),
    native("LSFE", 16),
    native("OCCMO", 20),
    native("LSUI", 24),
    native("FPRCVT", 28),
];

const MMFR0: &[Field] = &[
    at_most("PARange", 0, 5), // 48 bits: stage 2 has no 52-bit descriptors
    native("ASIDBits", 4),
    native("BigEnd", 8),
    native("SNSMem", 12),
    native("BigEndEL0", 16),
    at_most("TGran16", 20, 1),  // 2 is LPA2
    native("TGran64", 24),      // signed: 0 is implemented
    at_most_zero("TGran4", 28), // 1 is LPA2
    hidden("TGran16_2", 32),    // stage 2's
    hidden("TGran64_2", 36),
    hidden("TGran4_2", 40),
    native("ExS", 44),
    hidden("FGT", 56),
    at_most("ECV", 60, 1), // 2 adds CNTPOFF_EL2
];

const MMFR1: &[Field] = &[
    at_most("HAFDBS", 0, 2), // 3 is controlled by TCR2_EL1, 4 is stage 2's
    hidden("VMIDBits", 4),
    hidden("VH", 8),
    native("HPDS", 12),
    hidden("LO", 16), // HCR_EL2.TLOR
    native("PAN", 20),
    native("SpecSEI", 24),
    hidden("XNX", 28), // stage 2's
    native("TWED", 32),
    native("ETS", 36),
    hidden("HCX", 40),
    native("AFP", 44),
    native("nTLBPA", 48),
    native("TIDCP1", 52),
    native("CMOW", 56),
    native("ECBHB", 60),
];

const MMFR2: &[Field] = &[
    native("CnP", 0),
    native("UAO", 4),
    native("LSM", 8),
    hidden("IESB", 12), // part of RAS
    native("VARange", 16),
    native("CCIDX", 20),
    hidden("NV", 24),
    native("ST", 28),
    native("AT", 32),
    at_most("IDS", 36, 1), // 2 is EL3's
    hidden("FWB", 40),     // stage 2's
    native("TTL", 48),
    native("BBM", 52),
    hidden("EVT", 56), // EL2's traps
    native("E0PD", 60),
];

const MMFR3: &[Field] = &[
    hidden("TCRX", 0),
    hidden("SCTLRX", 4),
    hidden("S1PIE", 8),
    hidden("S2PIE", 12),
    hidden("S1POE", 16),
    hidden("S2POE", 20),
    hidden("AIE", 24),
    hidden("MEC", 28),
    hidden("D128", 32),
    hidden("D128_2", 36),
    hidden("SNERR", 40), // part of RAS
    hidden("ANERR", 44),
    hidden("SDERR", 52),
    hidden("ADERR", 56),
    native("Spec_FPACC", 60),
];

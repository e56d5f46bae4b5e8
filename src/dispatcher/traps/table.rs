//! The table of traps.
//!
//! Not here: how it becomes words, or a page of documentation.
//! Follows Arm ARM DDI 0487K.a, the description of each register, in ascending order of bits.

use super::{Features, Grants, Row};

/// A control register of EL2 that has rows in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(non_camel_case_types, reason = "registers are spelled as the Arm ARM spells them")]
pub enum ControlRegister {
    /// Hypervisor configuration.
    HCR_EL2,
    /// Monitor debug configuration.
    MDCR_EL2,
    /// Architectural feature traps.
    CPTR_EL2,
    /// Counter-timer control.
    CNTHCTL_EL2,
    /// AArch32 CP15 traps by CRn.
    HSTR_EL2,
    /// Extended hypervisor configuration.
    HCRX_EL2,
    /// MPAM controls.
    MPAM2_EL2,
    /// Fine-grained read traps.
    HFGRTR_EL2,
    /// Fine-grained write traps.
    HFGWTR_EL2,
    /// Fine-grained instruction traps.
    HFGITR_EL2,
    /// Debug fine-grained read traps.
    HDFGRTR_EL2,
    /// Debug fine-grained write traps.
    HDFGWTR_EL2,
    /// Activity monitors fine-grained read traps.
    HAFGRTR_EL2,
    /// The five registers of FEAT_FGT2.
    FGT2_EL2,
}

/// One field of a control register.
#[derive(Clone, Copy, Debug)]
pub struct Trap {
    /// Name of the field, or of several neighbours.
    pub field: &'static str,
    /// Lowest bit.
    pub lsb: u8,
    /// Number of bits.
    pub width: u8,
    /// Value of the field.
    pub value: u64,
    /// On which CPUs it has that value; 0 on others.
    pub when: Features,
    /// The grant by which it is lifted; none: it stays.
    pub until: Grants,
    /// Why it has that value.
    pub why: &'static str,
    /// The module that answers what it traps; empty if it traps nothing.
    pub answers: &'static str,
}

impl Trap {
    /// Returns the value in its place in the register.
    #[must_use]
    pub const fn in_place(&self) -> u64 {
        self.value << self.lsb
    }

    const fn when(self, features: Features) -> Self {
        Self { when: features, ..self }
    }

    const fn until(self, until: Grants) -> Self {
        Self { until, ..self }
    }
}

/// Counts the rows of the table that set bits.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which refuses an index out of range")]
pub(super) const fn rows() -> usize {
    let (mut count, mut register) = (0, 0);
    while register < TABLE.len() {
        let (_, traps) = TABLE[register];
        let mut number = 0;
        while number < traps.len() {
            if traps[number].value != 0 {
                count += 1;
            }
            number += 1;
        }
        register += 1;
    }
    count
}

/// The rows of the table that set bits, without its words.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which refuses an index out of range")]
pub(super) const ROWS: [Row; rows()] = {
    let nothing =
        Row { register: ControlRegister::HCR_EL2, when: Features::NONE, bits: 0, until: Grants::NONE };
    let mut all = [nothing; rows()];
    let (mut count, mut register) = (0, 0);
    while register < TABLE.len() {
        let (name, traps) = TABLE[register];
        let mut number = 0;
        while number < traps.len() {
            let Trap { value, when, until, .. } = traps[number];
            if value != 0 {
                all[count] = Row { register: name, when, bits: traps[number].in_place(), until };
                count += 1;
            }
            number += 1;
        }
        register += 1;
    }
    all
};

/// A field is 0 on purpose and traps nothing.
const fn clear(field: &'static str, lsb: u8, width: u8, why: &'static str) -> Trap {
    Trap { field, lsb, width, value: 0, when: Features::NONE, until: Grants::NONE, why, answers: "" }
}

/// All bits of a field are set and trap nothing: something is given, or the bits are RES1.
const fn set(field: &'static str, lsb: u8, width: u8, why: &'static str) -> Trap {
    Trap { value: !(u64::MAX << width), ..clear(field, lsb, width, why) }
}

/// A bit is set so that `answers` gets to see what the guest does.
const fn trap(field: &'static str, lsb: u8, why: &'static str, answers: &'static str) -> Trap {
    Trap { answers, ..set(field, lsb, 1, why) }
}

/// A field with negative polarity is 0, so that what it guards is trapped or off.
const fn closed(field: &'static str, lsb: u8, width: u8, why: &'static str) -> Trap {
    Trap { answers: UNDEFINED, ..clear(field, lsb, width, why) }
}

const STAGE_2: &str = "allocator::stage2";
const SMCCC: &str = "interpreter::smccc";
const SYSREG: &str = "interpreter::sysreg";
const ID_REGISTERS: &str = "interpreter::id_registers";
const VGIC: &str = "interpreter::device::vgic";
const TIMER: &str = "interpreter::device::ptimer";
const UNDEFINED: &str = "interpreter::sysreg (UNDEFINED)";
const INJECT: &str = "interpreter::inject";

/// Every field that has a reason, by register.
pub const TABLE: &[(ControlRegister, &[Trap])] = &[
    (ControlRegister::HCR_EL2, HCR_EL2),
    (ControlRegister::MDCR_EL2, MDCR_EL2),
    (ControlRegister::CPTR_EL2, CPTR_EL2),
    (ControlRegister::CNTHCTL_EL2, CNTHCTL_EL2),
    (ControlRegister::HSTR_EL2, HSTR_EL2),
    (ControlRegister::HCRX_EL2, HCRX_EL2),
    (ControlRegister::MPAM2_EL2, MPAM2_EL2),
    (ControlRegister::HFGRTR_EL2, HFGRTR_EL2),
    (ControlRegister::HFGWTR_EL2, HFGRTR_EL2),
    (ControlRegister::HFGITR_EL2, HFGITR_EL2),
    (ControlRegister::HDFGRTR_EL2, HDFGRTR_EL2),
    (ControlRegister::HDFGWTR_EL2, HDFGWTR_EL2),
    (ControlRegister::HAFGRTR_EL2, HAFGRTR_EL2),
    (ControlRegister::FGT2_EL2, FGT2_EL2),
];

const HCR_EL2: &[Trap] = &[
    trap("VM", 0, "stage 2 is on: the VM reaches its own memory and no other", STAGE_2),
    set("SWIO", 1, 1, "DC ISW cleans as well: it must not lose what others wrote"),
    trap("PTW", 2, "a stage 1 walk must not read a device", INJECT),
    trap("FMO", 3, "physical FIQs come to EL2, the guest gets virtual ones", VGIC),
    trap("IMO", 4, "physical IRQs come to EL2, the guest gets virtual ones; SGI registers trap", VGIC),
    trap("AMO", 5, "physical SErrors come to EL2, the guest gets virtual ones", INJECT),
    clear("VF, VI", 6, 2, "virtual interrupts come from the list registers"),
    clear("VSE", 8, 1, "set for one entry when an SError is injected"),
    set("FB", 9, 1, "a vCPU moves from CPU to CPU: its local TLB and cache maintenance reaches all of them"),
    Trap { value: 1, ..set("BSU", 10, 2, "so do its barriers: at least the inner shareable domain") },
    clear("DC", 12, 1, "with its MMU off the guest is uncached, as on the machine"),
    clear("TWI", 13, 1, "WFI runs natively; 1 where vCPUs share CPUs: another one could use the time"),
    clear("TWE", 14, 1, "WFE runs natively; 1 where vCPUs share CPUs: another one could use the time"),
    clear("TID0", 15, 1, "AArch32 FPSID and JIDR are the CPU's own"),
    trap("TID1", 16, "SMIDR_EL1 is hidden; REVIDR_EL1 and AIDR_EL1 trap with it", SYSREG).when(Features::SME),
    clear("TID2", 17, 1, "the cache hierarchy is the CPU's own"),
    trap("TID3", 18, "the VM sees the features that it gets", ID_REGISTERS),
    trap("TSC", 19, "no SMC reaches the firmware unseen", SMCCC),
    trap("TIDCP", 20, "implementation defined registers tune what others use too", SYSREG),
    trap("TACR", 21, "so does ACTLR_EL1", SYSREG),
    trap("TSW", 22, "set/way maintenance would name sets of a cache that others use", SYSREG),
    clear("TPCP, TPU, TTLB", 23, 3, "maintenance by address and of the VM's own TLB entries is harmless"),
    clear("TVM", 26, 1, "stage 1 is the guest's own"),
    clear("TGE", 27, 1, "EL1 is the guest's"),
    clear("TDZ", 28, 1, "DC ZVA writes the VM's memory only"),
    clear("HCD", 29, 1, "HVC is how a guest calls PSCI"),
    clear("TRVM", 30, 1, "stage 1 is the guest's own"),
    set("RW", 31, 1, "EL1 is AArch64"),
    clear("CD, ID", 32, 2, "stage 2 attributes decide about caching"),
    clear("E2H", 34, 1, "no VHE: the same layout on every CPU"),
    trap("TLOR", 35, "LORegions are hidden: they span the machine's memory", UNDEFINED).when(Features::LOR),
    trap("TERR", 36, "error records are the machine's", UNDEFINED).when(Features::RAS),
    trap("TEA", 37, "external aborts come to EL2, which tells the machine's from the VM's", INJECT)
        .when(Features::RAS),
    set("APK", 40, 1, "given: the keys are the vCPU's own").when(Features::PAUTH),
    set("API", 41, 1, "given: pointer authentication runs natively").when(Features::PAUTH),
    clear("NV, NV1", 42, 2, "EL2 is hidden"),
    clear("AT", 44, 1, "address translation instructions run natively"),
    clear("NV2", 45, 1, "EL2 is hidden"),
    clear("FWB", 46, 1, "stage 1 and stage 2 attributes combine as on every CPU"),
    closed("FIEN", 47, 1, "error record fault injection is the machine's"),
    clear("GPF", 48, 1, "granule protection is not EL2's"),
    clear("TID4", 49, 1, "the cache hierarchy is the CPU's own"),
    clear("TICAB", 50, 1, "instruction cache maintenance is harmless"),
    clear("AMVOFFEN", 51, 1, "activity monitors are hidden"),
    clear("TOCU", 52, 1, "maintenance to the point of unification is harmless"),
    closed("EnSCXT", 53, 1, "SCXTNUM_EL1 and SCXTNUM_EL0 are hidden: CSV2 is at most 1"),
    clear("TTLBIS, TTLBOS", 54, 2, "broadcast TLB maintenance is confined to the VMID"),
    closed("ATA", 56, 1, "memory tags are hidden"),
    clear("DCT", 57, 1, "memory tags are hidden"),
    trap("TID5", 58, "memory tags are hidden: so is GMID_EL1", UNDEFINED).when(Features::MTE2),
    clear("TWEDEn, TWEDEL", 59, 5, "no delay: WFE is not trapped"),
];

const MDCR_EL2: &[Trap] = &[
    clear("HPMN", 0, 5, "filled in with PMCR_EL0.N: EL2 keeps no counter for itself"),
    trap("TPMCR", 5, "performance monitors are granted on first use", SYSREG)
        .when(Features::PMU)
        .until(Grants::PMU),
    trap("TPM", 6, "performance monitors are granted on first use", SYSREG)
        .when(Features::PMU)
        .until(Grants::PMU),
    clear("HPME", 7, 1, "EL2 keeps no counter for itself"),
    clear("TDE", 8, 1, "debug exceptions are the guest's, and never taken from EL2"),
    trap("TDA", 9, "debug registers are granted on first use", SYSREG).until(Grants::DEBUG),
    trap("TDOSA", 10, "the OS lock is granted with them", SYSREG).until(Grants::DEBUG),
    trap("TDRA", 11, "no debug component is in the VM's memory: MDRAR_EL1 reads as 0", SYSREG),
    closed("E2PB", 12, 2, "statistical profiling is hidden: its buffer is EL2's"),
    trap("TPMS", 14, "statistical profiling is hidden", UNDEFINED).when(Features::SPE),
    closed("EnSPM", 15, 1, "system PMUs are hidden"),
    set("HPMD", 17, 1, "the VM's event counters stand still at EL2").when(Features::PMU_V3P1),
    trap("TTRF", 19, "trace is hidden", UNDEFINED).when(Features::TRF),
    set("HCCD", 23, 1, "so does its cycle counter").when(Features::PMU_V3P5),
    closed("E2TB", 24, 2, "trace is hidden: its buffer is EL2's"),
    clear("HLP", 26, 1, "EL2 keeps no counter for itself"),
    trap("TDCC", 27, "the debug channel leads to the machine's debugger: it reads as idle", SYSREG)
        .when(Features::FGT),
    clear("MTPME", 28, 1, "a counter counts for its own thread only"),
    clear("HPMFZO", 29, 1, "EL2 keeps no counter for itself"),
    clear("PMSSE", 30, 2, "snapshots are hidden"),
    clear("HPMFZS", 36, 1, "EL2 keeps no counter for itself"),
    clear("PMEE", 40, 2, "profiling exceptions are hidden: an overflow is an interrupt"),
    closed("EBWE", 43, 1, "more than 16 breakpoints are hidden"),
    closed("EnSTEPOP", 50, 1, "stepping by opcode is hidden"),
];

const CPTR_EL2: &[Trap] = &[
    set("RES1", 0, 8, "RES1"),
    trap("TZ", 8, "SVE is hidden; RES1 on a CPU without it", UNDEFINED),
    set("RES1", 9, 1, "RES1"),
    clear(
        "TFP",
        10,
        1,
        "given: floating point and SIMD run natively; 1 until the vCPU's first use after a switch",
    ),
    trap("TSM", 12, "SME is hidden; RES1 on a CPU without it", UNDEFINED),
    set("RES1", 13, 1, "RES1"),
    trap("TTA", 20, "trace is hidden", UNDEFINED),
    trap("TAM", 30, "activity monitors are hidden", UNDEFINED).when(Features::AMU),
    clear("TCPAC", 31, 1, "CPACR_EL1 is the guest's own"),
];

const CNTHCTL_EL2: &[Trap] = &[
    set("EL1PCTEN", 0, 1, "given: CNTPCT_EL0 is read natively"),
    Trap { answers: TIMER, ..clear("EL1PCEN", 1, 1, "the physical timer is EL2's; the guest's is emulated") },
    clear("EVNTEN, EVNTDIR, EVNTI", 2, 6, "no event stream of EL2's"),
    clear("ECV", 12, 1, "CNTPOFF_EL2 is not used: the counter is the machine's"),
    clear("EL1TVT, EL1TVCT", 13, 2, "given: the virtual timer and counter are native"),
    clear("EL1NVPCT, EL1NVVCT", 15, 2, "EL2 is hidden"),
    clear("EVNTIS", 17, 1, "no event stream of EL2's"),
    clear("CNTVMASK, CNTPMASK", 18, 2, "the GIC masks timer interrupts"),
];

const HSTR_EL2: &[Trap] =
    &[clear("T0 to T15", 0, 16, "an AArch32 application reaches by CP15 what its kernel opens to it")];

const HCRX_EL2: &[Trap] = &[
    closed("EnAS0, EnALS, EnASR", 0, 3, "64-byte accesses are hidden"),
    clear("FnXS, FGTnXS", 3, 2, "TLBI waits for what the guest asks it to wait for"),
    clear("SMPME", 5, 1, "SME is hidden: no mapping of priorities"),
    trap("TALLINT", 6, "non-maskable interrupts are hidden", UNDEFINED).when(Features::NMI),
    clear("VINMI, VFNMI", 7, 2, "non-maskable interrupts are hidden"),
    clear("CMOW", 9, 1, "stage 2 does not ask for write permission in cache maintenance"),
    clear("MCE2", 10, 1, "all CPUs copy and set memory alike: such exceptions are the guest's"),
    set("MSCEn", 11, 1, "given: memory copy and set run natively").when(Features::MOPS),
    closed("TCR2En", 14, 1, "TCR2_EL1 is hidden"),
    closed("SCTLR2En", 15, 1, "SCTLR2_EL1 is hidden"),
    clear("PTTWI", 16, 1, "hidden with TCR2_EL1"),
    closed("D128En", 17, 1, "128-bit descriptors and registers are hidden"),
    clear("EnSNERR", 18, 1, "error records are the machine's"),
    clear("TMEA", 19, 1, "asynchronous error exceptions keep to EL1's masks"),
    clear("EnSDERR", 20, 1, "error records are the machine's"),
    closed("EnIDCP128", 21, 1, "128-bit implementation defined registers are hidden"),
    closed("GCSEn", 22, 1, "guarded control stacks are hidden"),
    closed("EnFPM", 23, 1, "FPMR is hidden"),
    clear("PACMEn", 24, 1, "PAuth_LR is hidden"),
    closed("SRMASKEn", 26, 1, "masks of system registers are hidden"),
];

const MPAM2_EL2: &[Trap] = &[
    clear("PARTID_I, PARTID_D, PMG_I, PMG_D", 0, 48, "EL2 is in the default partition"),
    trap("TRAPMPAM1EL1", 48, "partitioning is hidden", UNDEFINED).when(Features::MPAM),
    trap("TRAPMPAM0EL1", 49, "partitioning is hidden", UNDEFINED).when(Features::MPAM),
];

/// Reads and writes alike: what is guarded here is guarded in both directions.
const HFGRTR_EL2: &[Trap] = &[
    clear("AFSR0_EL1 to ERXADDR_EL1", 0, 50, "given, or trapped by HCR_EL2"),
    closed("nACCDATA_EL1", 50, 1, "64-byte accesses are hidden"),
    closed("nGCS_EL0, nGCS_EL1", 52, 2, "guarded control stacks are hidden"),
    closed("nSMPRI_EL1, nTPIDR2_EL0", 54, 2, "SME is hidden"),
    closed("nRCWMASK_EL1", 56, 1, "translation hardening is hidden"),
    closed("nPIRE0_EL1, nPIR_EL1", 57, 2, "permission indirection is hidden"),
    closed("nPOR_EL0, nPOR_EL1, nS2POR_EL1", 59, 3, "permission overlays are hidden"),
    closed("nMAIR2_EL1, nAMAIR2_EL1", 62, 2, "attribute index extension is hidden"),
];

const HFGITR_EL2: &[Trap] = &[
    clear("ICIALLUIS to DCCVAC", 0, 55, "given, or trapped by HCR_EL2"),
    closed("nBRBINJ, nBRBIALL", 55, 2, "branch records are hidden"),
    closed("nGCSPUSHM_EL1, nGCSSTR_EL1, nGCSEPP", 57, 3, "guarded control stacks are hidden"),
    clear("COSPRCTX to PSBCSYNC", 60, 4, "given, or hints"),
];

const HDFGRTR_EL2: &[Trap] = &[
    clear("DBGBCRn_EL1 to TRBBASER_EL1", 0, 51, "given, or trapped by MDCR_EL2 and CPTR_EL2"),
    trap("TRBIDR_EL1", 51, "trace is hidden; nothing else traps this one", UNDEFINED).when(Features::TRBE),
    clear("TRBLIMITR_EL1 to PMCEIDn_EL0", 52, 7, "trapped by MDCR_EL2"),
    closed("nBRBIDR, nBRBCTL, nBRBDATA", 59, 3, "branch records are hidden"),
    closed("nPMSNEVFR_EL1", 62, 1, "statistical profiling is hidden"),
    trap("PMBIDR_EL1", 63, "statistical profiling is hidden; nothing else traps this one", UNDEFINED)
        .when(Features::SPE),
];

const HDFGWTR_EL2: &[Trap] = &[
    clear("DBGBCRn_EL1 to PMUSERENR_EL0", 0, 58, "given, or trapped by MDCR_EL2 and CPTR_EL2"),
    closed("nBRBCTL, nBRBDATA", 60, 2, "branch records are hidden"),
    closed("nPMSNEVFR_EL1", 62, 1, "statistical profiling is hidden"),
];

const HAFGRTR_EL2: &[Trap] = &[clear("all", 0, 50, "CPTR_EL2.TAM traps all activity monitors")];

const FGT2_EL2: &[Trap] = &[closed(
    "all that start with n",
    0,
    64,
    "PMUv3p9, system PMUs, PFAR, DC CIVAPS, register masks and aliases are hidden",
)];

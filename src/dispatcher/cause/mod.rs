//! What trapped: ESR_EL2, FAR_EL2 and HPFAR_EL2 as one typed value.
//!
//! Not here: who answers. Past this door nobody shifts or masks a syndrome.
//!
//! Follows Arm ARM DDI 0487K.a, the descriptions of ESR_EL2 (EC and the ISS encodings), FAR_EL2 and HPFAR_EL2. Causes
//! that this hypervisor's settings rule out are decoded all the same: a cause nobody expected is named, not guessed.

mod abort;
mod name;

pub use abort::{Abort, Access, DeviceAccess, Fault};
pub use name::class_name;

use tock_registers::register_bitfields;

use crate::ids::Gpr;
use crate::interpreter::sysreg::{Direction, SystemRegister, SystemRegisterAccess};

/// Number of exception classes that ESR_EL2.EC can tell apart.
pub const CLASSES: usize = 64;

register_bitfields! [u64,
    /// ESR_EL2, what all classes have in common.
    ESR [
        /// Exception class.
        EC OFFSET(26) NUMBITS(6) [],
        /// Instruction length: 0 is 16 bits, 1 is 32 bits.
        IL OFFSET(25) NUMBITS(1) []
    ],
    /// ISS of a trapped WFI, WFE, WFIT or WFET (EC 0x01).
    WFX [
        RN OFFSET(5) NUMBITS(5) [],
        RV OFFSET(2) NUMBITS(1) [],
        TI OFFSET(0) NUMBITS(2) []
    ],
    /// ISS of MRS, MSR and SYS (EC 0x18); MCR and MRC have the same but for Op0.
    SYSTEM [
        OP0 OFFSET(20) NUMBITS(2) [],
        OP2 OFFSET(17) NUMBITS(3) [],
        OP1 OFFSET(14) NUMBITS(3) [],
        CRN OFFSET(10) NUMBITS(4) [],
        RT OFFSET(5) NUMBITS(5) [],
        CRM OFFSET(1) NUMBITS(4) [],
        IS_READ OFFSET(0) NUMBITS(1) []
    ],
    /// ISS of MCRR and MRRC (EC 0x04 and 0x0c), where it differs.
    PAIR [
        OPC1 OFFSET(16) NUMBITS(4) [],
        RT2 OFFSET(10) NUMBITS(5) []
    ],
    /// ISS of HVC, SMC, SVC, BRK and BKPT.
    CALL [
        IMM16 OFFSET(0) NUMBITS(16) []
    ],
    /// ISS of an SError (EC 0x2f).
    SERROR [
        IDS OFFSET(24) NUMBITS(1) [],
        AET OFFSET(10) NUMBITS(3) [],
        DFSC OFFSET(0) NUMBITS(6) []
    ]
];

/// Why the CPU came to EL2 by a synchronous exception or an SError.
///
/// `*Same` variants come from EL2 itself and are our own bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Cause {
    /// EC 0x00: nothing more is known; mostly an UNDEFINED instruction.
    Unknown,
    /// EC 0x01: a wait that HCR_EL2.TWI or TWE traps.
    Wfx(Wfx),
    /// EC 0x03: AArch32 MCR or MRC to coprocessor 15.
    Cp15(Coprocessor),
    /// EC 0x04: AArch32 MCRR or MRRC to coprocessor 15.
    Cp15Pair(CoprocessorPair),
    /// EC 0x05: AArch32 MCR or MRC to coprocessor 14.
    Cp14(Coprocessor),
    /// EC 0x06: AArch32 LDC or STC of a debug register.
    Cp14LoadStore,
    /// EC 0x07: floating point or SIMD that CPTR_EL2.TFP traps.
    FloatingPoint,
    /// EC 0x08: AArch32 VMRS of an identification register.
    Vmrs(Coprocessor),
    /// EC 0x09: a pointer authentication instruction that HCR_EL2.API traps.
    PointerAuthentication,
    /// EC 0x0a: an instruction without a class of its own, such as LD64B.
    OtherInstruction,
    /// EC 0x0c: AArch32 MCRR or MRRC to coprocessor 14.
    Cp14Pair(CoprocessorPair),
    /// EC 0x0d: a branch to where none may land (BTI).
    BranchTarget,
    /// EC 0x0e: PSTATE.IL was set.
    IllegalState,
    /// EC 0x11: SVC from AArch32.
    Svc32(u16),
    /// EC 0x12: HVC from AArch32.
    Hvc32(u16),
    /// EC 0x13: SMC from AArch32.
    Smc32,
    /// EC 0x14: MRRS, MSRR or SYSP, 128 bits; the general-purpose register is the first of a pair.
    SystemRegisterPair(SystemRegisterAccess),
    /// EC 0x15: SVC from AArch64.
    Svc(u16),
    /// EC 0x16: HVC from AArch64.
    Hvc {
        /// The immediate; 0 for SMCCC calls.
        imm16: u16,
    },
    /// EC 0x17: SMC from AArch64, trapped by HCR_EL2.TSC before it is executed.
    Smc {
        /// The immediate; 0 for SMCCC calls.
        imm16: u16,
    },
    /// EC 0x18: MRS, MSR or SYS.
    SystemRegister(SystemRegisterAccess),
    /// EC 0x19: SVE that CPTR_EL2.TZ traps.
    Sve,
    /// EC 0x1a: ERET that HCR_EL2.NV or HFGITR_EL2.ERET traps.
    Eret,
    /// EC 0x1b: TSTART.
    TransactionStart,
    /// EC 0x1c: a pointer failed its authentication (FEAT_FPAC).
    PointerAuthenticationFailure,
    /// EC 0x1d: SME that CPTR_EL2.TSM traps.
    Sme,
    /// EC 0x1e: granule protection check; reported at EL3.
    GranuleProtection,
    /// EC 0x1f: IMPLEMENTATION DEFINED; reported at EL3.
    ImplementationDefined,
    /// EC 0x20: the guest fetched what stage 2 does not give.
    InstructionAbort(Abort),
    /// EC 0x21: the same at EL2.
    InstructionAbortSame(Abort),
    /// EC 0x22: PC alignment.
    PcAlignment,
    /// EC 0x24: the guest loaded or stored what stage 2 does not give.
    DataAbort(Abort),
    /// EC 0x25: the same at EL2.
    DataAbortSame(Abort),
    /// EC 0x26: SP alignment.
    SpAlignment,
    /// EC 0x27: memory copy or set in a state that the CPU does not continue from.
    MemoryCopyOrSet,
    /// EC 0x28: floating-point exception from AArch32.
    FloatingPointException32,
    /// EC 0x2c: floating-point exception from AArch64.
    FloatingPointException,
    /// EC 0x2d: guarded control stack.
    GuardedControlStack,
    /// EC 0x2f: SError.
    SError(Severity),
    /// EC 0x30: breakpoint in the guest.
    Breakpoint,
    /// EC 0x31: breakpoint at EL2.
    BreakpointSame,
    /// EC 0x32: software step of the guest.
    SoftwareStep,
    /// EC 0x33: software step of EL2.
    SoftwareStepSame,
    /// EC 0x34: watchpoint in the guest.
    Watchpoint,
    /// EC 0x35: watchpoint at EL2.
    WatchpointSame,
    /// EC 0x38: BKPT from AArch32.
    Bkpt32(u16),
    /// EC 0x3a: vector catch from AArch32.
    VectorCatch32,
    /// EC 0x3c: BRK from AArch64.
    Brk(u16),
    /// EC 0x3d: PMU, SPE or TRBE profiling exception.
    Profiling,
    /// An exception class that has no meaning in Arm ARM DDI 0487K.a.
    Reserved(u8),
}

/// A trapped wait (ESR_EL2.ISS.TI). From AArch32 it may be one whose condition failed: waiting is still allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wfx {
    /// Which instruction.
    pub instruction: WfxInstruction,
    /// The register with the CNTVCT_EL0 value at which WFIT and WFET end, if the CPU names it (ISS.RV).
    pub timeout: Option<Gpr>,
}

/// The instructions that wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WfxInstruction {
    /// Wait for interrupt.
    Wfi,
    /// Wait for event.
    Wfe,
    /// Wait for interrupt with timeout.
    Wfit,
    /// Wait for event with timeout.
    Wfet,
}

/// A trapped AArch32 MCR, MRC or VMRS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coprocessor {
    /// opc1.
    pub opc1: u8,
    /// CRn.
    pub crn: u8,
    /// CRm.
    pub crm: u8,
    /// opc2.
    pub opc2: u8,
    /// Rt as AArch64 names it.
    pub gpr: Gpr,
    /// MRC and VMRS read.
    pub direction: Direction,
}

/// A trapped AArch32 MCRR or MRRC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CoprocessorPair {
    /// opc1.
    pub opc1: u8,
    /// CRm.
    pub crm: u8,
    /// Rt and Rt2 as AArch64 names them: low and high half.
    pub gprs: [Gpr; 2],
    /// MRRC reads.
    pub direction: Direction,
}

/// How bad an SError is (ESR_EL2.ISS.AET where DFSC says that it is valid).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Severity {
    /// State may be corrupt anywhere.
    Uncontainable,
    /// The interrupted software cannot go on.
    Unrecoverable,
    /// The interrupted software can go on if the error is repaired.
    Restartable,
    /// The interrupted software can go on.
    Recoverable,
    /// The hardware has corrected it.
    Corrected,
    /// The CPU does not say, or in a way of its own (IDS).
    NotReported,
}

impl Cause {
    /// Decodes the three syndrome registers as they are after an exception to EL2.
    #[inline(always)]
    pub fn decode(esr_el2: u64, far_el2: u64, hpfar_el2: u64) -> Self {
        match low_byte(ESR::EC.read(esr_el2)) {
            0x00 => Self::Unknown,
            0x01 => Self::Wfx(Wfx::decode(esr_el2)),
            0x03 => Self::Cp15(Coprocessor::decode(esr_el2)),
            0x04 => Self::Cp15Pair(CoprocessorPair::decode(esr_el2)),
            0x05 => Self::Cp14(Coprocessor::decode(esr_el2)),
            0x06 => Self::Cp14LoadStore,
            0x07 => Self::FloatingPoint,
            0x08 => Self::Vmrs(Coprocessor::decode(esr_el2)),
            0x09 => Self::PointerAuthentication,
            0x0a => Self::OtherInstruction,
            0x0c => Self::Cp14Pair(CoprocessorPair::decode(esr_el2)),
            0x0d => Self::BranchTarget,
            0x0e => Self::IllegalState,
            0x11 => Self::Svc32(immediate(esr_el2)),
            0x12 => Self::Hvc32(immediate(esr_el2)),
            0x13 => Self::Smc32,
            0x14 => Self::SystemRegisterPair(system_register(esr_el2)),
            0x15 => Self::Svc(immediate(esr_el2)),
            0x16 => Self::Hvc { imm16: immediate(esr_el2) },
            0x17 => Self::Smc { imm16: immediate(esr_el2) },
            0x18 => Self::SystemRegister(system_register(esr_el2)),
            0x19 => Self::Sve,
            0x1a => Self::Eret,
            0x1b => Self::TransactionStart,
            0x1c => Self::PointerAuthenticationFailure,
            0x1d => Self::Sme,
            0x1e => Self::GranuleProtection,
            0x1f => Self::ImplementationDefined,
            0x20 => Self::InstructionAbort(Abort::decode_instruction(esr_el2, far_el2, hpfar_el2)),
            0x21 => Self::InstructionAbortSame(Abort::decode_instruction(esr_el2, far_el2, hpfar_el2)),
            0x22 => Self::PcAlignment,
            0x24 => Self::DataAbort(Abort::decode_data(esr_el2, far_el2, hpfar_el2)),
            0x25 => Self::DataAbortSame(Abort::decode_data(esr_el2, far_el2, hpfar_el2)),
            0x26 => Self::SpAlignment,
            0x27 => Self::MemoryCopyOrSet,
            0x28 => Self::FloatingPointException32,
            0x2c => Self::FloatingPointException,
            0x2d => Self::GuardedControlStack,
            0x2f => Self::SError(Severity::decode(esr_el2)),
            0x30 => Self::Breakpoint,
            0x31 => Self::BreakpointSame,
            0x32 => Self::SoftwareStep,
            0x33 => Self::SoftwareStepSame,
            0x34 => Self::Watchpoint,
            0x35 => Self::WatchpointSame,
            0x38 => Self::Bkpt32(immediate(esr_el2)),
            0x3a => Self::VectorCatch32,
            0x3c => Self::Brk(immediate(esr_el2)),
            0x3d => Self::Profiling,
            class => Self::Reserved(class),
        }
    }
}

/// What traps every day and is answered from registers alone: the head start of a [`Cause`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Everyday {
    /// HVC or SMC with an immediate of 0.
    Call {
        /// An SMC, which trapped before it was executed.
        is_smc: bool,
    },
    /// A read of the ID space that HCR_EL2.TID3 traps.
    IdRegister {
        /// CRm, 1 to 7.
        crm: u8,
        /// op2.
        op2: u8,
        /// Where the value goes.
        gpr: Gpr,
    },
}

impl Everyday {
    /// Decodes ESR_EL2, if it is one of these.
    #[inline(always)]
    #[must_use]
    pub fn decode(esr_el2: u64) -> Option<Self> {
        /// Op0 3, Op1 0, CRn 0, CRm below 8, and a read.
        const ID_SPACE: u64 = 0b11 << 20 | 1;
        const ID_SPACE_MASK: u64 = 0b11 << 20 | 0b111 << 14 | 0b1111 << 10 | 1 << 4 | 1;
        match ESR::EC.read(esr_el2) {
            class @ (0x16 | 0x17) if CALL::IMM16.read(esr_el2) == 0 => {
                Some(Self::Call { is_smc: class == 0x17 })
            }
            0x18 if esr_el2 & ID_SPACE_MASK == ID_SPACE && SYSTEM::CRM.read(esr_el2) != 0 => {
                Some(Self::IdRegister {
                    crm: low_byte(SYSTEM::CRM.read(esr_el2)),
                    op2: low_byte(SYSTEM::OP2.read(esr_el2)),
                    gpr: gpr(SYSTEM::RT.read(esr_el2)),
                })
            }
            _ => None,
        }
    }
}

/// Returns ESR_EL2.EC as an index into counters by class: below [`CLASSES`].
#[must_use]
#[inline]
pub fn class_index(esr_el2: u64) -> usize {
    usize::from(low_byte(ESR::EC.read(esr_el2)))
}

/// Returns the length in bytes of the instruction that trapped (ESR_EL2.IL), by which to step over it.
#[must_use]
#[inline]
pub fn instruction_bytes(esr_el2: u64) -> u64 {
    if ESR::IL.is_set(esr_el2) { 4 } else { 2 }
}

impl Wfx {
    fn decode(iss: u64) -> Self {
        let instruction = match WFX::TI.read(iss) {
            0 => WfxInstruction::Wfi,
            1 => WfxInstruction::Wfe,
            2 => WfxInstruction::Wfit,
            _ => WfxInstruction::Wfet,
        };
        let has_register = WFX::RV.is_set(iss) && WFX::TI.read(iss) >= 2;
        Self { instruction, timeout: has_register.then(|| gpr(WFX::RN.read(iss))) }
    }
}

#[inline(always)]
fn system_register(iss: u64) -> SystemRegisterAccess {
    SystemRegisterAccess {
        register: SystemRegister::new(
            low_byte(SYSTEM::OP0.read(iss)),
            low_byte(SYSTEM::OP1.read(iss)),
            low_byte(SYSTEM::CRN.read(iss)),
            low_byte(SYSTEM::CRM.read(iss)),
            low_byte(SYSTEM::OP2.read(iss)),
        ),
        direction: direction(iss),
        gpr: gpr(SYSTEM::RT.read(iss)),
    }
}

impl Coprocessor {
    fn decode(iss: u64) -> Self {
        Self {
            opc1: low_byte(SYSTEM::OP1.read(iss)),
            crn: low_byte(SYSTEM::CRN.read(iss)),
            crm: low_byte(SYSTEM::CRM.read(iss)),
            opc2: low_byte(SYSTEM::OP2.read(iss)),
            gpr: gpr(SYSTEM::RT.read(iss)),
            direction: direction(iss),
        }
    }
}

impl CoprocessorPair {
    fn decode(iss: u64) -> Self {
        Self {
            opc1: low_byte(PAIR::OPC1.read(iss)),
            crm: low_byte(SYSTEM::CRM.read(iss)),
            gprs: [gpr(SYSTEM::RT.read(iss)), gpr(PAIR::RT2.read(iss))],
            direction: direction(iss),
        }
    }
}

impl Severity {
    fn decode(iss: u64) -> Self {
        const ASYNCHRONOUS: u64 = 0b01_0001;
        if SERROR::IDS.is_set(iss) || SERROR::DFSC.read(iss) != ASYNCHRONOUS {
            return Self::NotReported;
        }
        match SERROR::AET.read(iss) {
            0 => Self::Uncontainable,
            1 => Self::Unrecoverable,
            2 => Self::Restartable,
            3 => Self::Recoverable,
            6 => Self::Corrected,
            _ => Self::NotReported,
        }
    }
}

#[inline]
fn direction(iss: u64) -> Direction {
    if SYSTEM::IS_READ.is_set(iss) { Direction::Read } else { Direction::Write }
}

#[inline]
fn gpr(number: u64) -> Gpr {
    Gpr::new(low_byte(number))
}

#[inline]
fn immediate(iss: u64) -> u16 {
    let [low, high, ..] = CALL::IMM16.read(iss).to_le_bytes();
    u16::from_le_bytes([low, high])
}

#[inline]
const fn low_byte(value: u64) -> u8 {
    let [low, ..] = value.to_le_bytes();
    low
}

#[cfg(test)]
mod tests;

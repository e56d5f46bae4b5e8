//! Causes in words, for register dumps, messages and counters.
//!
//! Not here: anything on the way of an ordinary exit.
//! Follows Arm ARM DDI 0487K.a, ESR_EL2.EC.

use core::fmt;

use super::{CLASSES, Cause};

/// What each value of ESR_EL2.EC means.
#[rustfmt::skip]
const NAMES: [&str; CLASSES] = [
    /* 0x00 */ "unknown reason", "WFI or WFE", RESERVED, "MCR or MRC to CP15",
    /* 0x04 */ "MCRR or MRRC to CP15", "MCR or MRC to CP14", "LDC or STC to CP14", "floating point or SIMD",
    /* 0x08 */ "VMRS", "pointer authentication", "instruction without a class", RESERVED,
    /* 0x0c */ "MCRR or MRRC to CP14", "branch target", "illegal execution state", RESERVED,
    /* 0x10 */ RESERVED, "SVC from AArch32", "HVC from AArch32", "SMC from AArch32",
    /* 0x14 */ "MSRR, MRRS or SYSP", "SVC", "HVC", "SMC",
    /* 0x18 */ "MSR, MRS or SYS", "SVE", "ERET", "TSTART",
    /* 0x1c */ "pointer authentication failure", "SME", "granule protection check", "implementation defined",
    /* 0x20 */ "instruction abort", "instruction abort at EL2", "PC alignment", RESERVED,
    /* 0x24 */ "data abort", "data abort at EL2", "SP alignment", "memory copy or set",
    /* 0x28 */ "floating-point exception from AArch32", RESERVED, RESERVED, RESERVED,
    /* 0x2c */ "floating-point exception", "guarded control stack", RESERVED, "SError",
    /* 0x30 */ "breakpoint", "breakpoint at EL2", "software step", "software step at EL2",
    /* 0x34 */ "watchpoint", "watchpoint at EL2", RESERVED, RESERVED,
    /* 0x38 */ "BKPT from AArch32", RESERVED, "vector catch from AArch32", RESERVED,
    /* 0x3c */ "BRK", "profiling", RESERVED, RESERVED,
];

const RESERVED: &str = "reserved exception class";

/// Returns a value of ESR_EL2.EC in words: what a counter by class has counted.
#[must_use]
pub fn class_name(class: usize) -> &'static str {
    NAMES.get(class).copied().unwrap_or(RESERVED)
}

impl Cause {
    /// Returns the exception class in words, the same for all causes of a class.
    #[must_use]
    pub fn name(&self) -> &'static str {
        class_name(self.class_index())
    }

    /// Returns ESR_EL2.EC, as an index into counters by class: below [`CLASSES`].
    #[must_use]
    #[inline]
    pub fn class_index(&self) -> usize {
        match *self {
            Self::Unknown => 0x00,
            Self::Wfx(_) => 0x01,
            Self::Cp15(_) => 0x03,
            Self::Cp15Pair(_) => 0x04,
            Self::Cp14(_) => 0x05,
            Self::Cp14LoadStore => 0x06,
            Self::FloatingPoint => 0x07,
            Self::Vmrs(_) => 0x08,
            Self::PointerAuthentication => 0x09,
            Self::OtherInstruction => 0x0a,
            Self::Cp14Pair(_) => 0x0c,
            Self::BranchTarget => 0x0d,
            Self::IllegalState => 0x0e,
            Self::Svc32(_) => 0x11,
            Self::Hvc32(_) => 0x12,
            Self::Smc32 => 0x13,
            Self::SystemRegisterPair(_) => 0x14,
            Self::Svc(_) => 0x15,
            Self::Hvc { .. } => 0x16,
            Self::Smc { .. } => 0x17,
            Self::SystemRegister(_) => 0x18,
            Self::Sve => 0x19,
            Self::Eret => 0x1a,
            Self::TransactionStart => 0x1b,
            Self::PointerAuthenticationFailure => 0x1c,
            Self::Sme => 0x1d,
            Self::GranuleProtection => 0x1e,
            Self::ImplementationDefined => 0x1f,
            Self::InstructionAbort(_) => 0x20,
            Self::InstructionAbortSame(_) => 0x21,
            Self::PcAlignment => 0x22,
            Self::DataAbort(_) => 0x24,
            Self::DataAbortSame(_) => 0x25,
            Self::SpAlignment => 0x26,
            Self::MemoryCopyOrSet => 0x27,
            Self::FloatingPointException32 => 0x28,
            Self::FloatingPointException => 0x2c,
            Self::GuardedControlStack => 0x2d,
            Self::SError(_) => 0x2f,
            Self::Breakpoint => 0x30,
            Self::BreakpointSame => 0x31,
            Self::SoftwareStep => 0x32,
            Self::SoftwareStepSame => 0x33,
            Self::Watchpoint => 0x34,
            Self::WatchpointSame => 0x35,
            Self::Bkpt32(_) => 0x38,
            Self::VectorCatch32 => 0x3a,
            Self::Brk(_) => 0x3c,
            Self::Profiling => 0x3d,
            Self::Reserved(class) => usize::from(class & 0x3f),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match *self {
            Self::Wfx(wfx) => write!(f, ": {:?}", wfx.instruction),
            Self::Cp15(access) | Self::Cp14(access) | Self::Vmrs(access) => {
                let super::Coprocessor { opc1, crn, crm, opc2, direction, .. } = access;
                write!(f, ": {direction:?} of opc1 {opc1}, c{crn}, c{crm}, opc2 {opc2}")
            }
            Self::Cp15Pair(access) | Self::Cp14Pair(access) => {
                write!(f, ": {:?} of opc1 {}, c{}", access.direction, access.opc1, access.crm)
            }
            Self::SystemRegister(access) | Self::SystemRegisterPair(access) => write!(f, ": {access}"),
            Self::Svc(imm16)
            | Self::Svc32(imm16)
            | Self::Hvc32(imm16)
            | Self::Bkpt32(imm16)
            | Self::Brk(imm16) => {
                write!(f, " #{imm16:#x}")
            }
            Self::Hvc { imm16 } | Self::Smc { imm16 } => write!(f, " #{imm16:#x}"),
            Self::InstructionAbort(abort)
            | Self::InstructionAbortSame(abort)
            | Self::DataAbort(abort)
            | Self::DataAbortSame(abort) => write!(f, ": {abort}"),
            Self::SError(severity) => write!(f, ": {severity:?}"),
            Self::Reserved(class) => write!(f, " {class:#04x}"),
            _ => Ok(()),
        }
    }
}

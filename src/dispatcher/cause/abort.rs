//! Instruction Aborts and Data Aborts: what was touched, how, and what is wrong with it.
//!
//! Not here: what lies at the address.
//! Follows Arm ARM DDI 0487K.a, ESR_EL2 (ISS encodings for an Instruction Abort and a Data Abort), HPFAR_EL2 (when it
//! is valid) and FAR_EL2.

use core::fmt;

use tock_registers::register_bitfields;

use super::{gpr, low_byte};
use crate::addr::{GuestVa, Ipa};
use crate::ids::Gpr;
use crate::interpreter::device::Width;

register_bitfields! [u64,
    /// ISS of aborts; an Instruction Abort has EA, FNV, S1PTW and FSC only.
    ABORT [
        ISV OFFSET(24) NUMBITS(1) [],
        SAS OFFSET(22) NUMBITS(2) [],
        SSE OFFSET(21) NUMBITS(1) [],
        SRT OFFSET(16) NUMBITS(5) [],
        SF OFFSET(15) NUMBITS(1) [],
        AR OFFSET(14) NUMBITS(1) [],
        FNV OFFSET(10) NUMBITS(1) [],
        EA OFFSET(9) NUMBITS(1) [],
        CM OFFSET(8) NUMBITS(1) [],
        S1PTW OFFSET(7) NUMBITS(1) [],
        WNR OFFSET(6) NUMBITS(1) [],
        FSC OFFSET(0) NUMBITS(6) []
    ],
    /// HPFAR_EL2: bits 55:12 of the IPA. Bits 43:4 until FEAT_D128, which adds the upper four.
    HPFAR [
        FIPA OFFSET(4) NUMBITS(44) []
    ]
];

const PAGE_SHIFT: u32 = 12;
const PAGE_OFFSET: u64 = 0xfff;

/// An abort that was taken to EL2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Abort {
    /// What is wrong.
    pub fault: Fault,
    /// The IPA that stage 2 does not give. Exact to the byte, except to the page for a walk (`stage1_walk`). `None` when
    /// the CPU does not report it, above all for a permission fault outside a walk: ask the address translation
    /// instruction AT S1E1R or AT S1E1W then.
    pub ipa: Option<Ipa>,
    /// The guest's virtual address; `None` when the CPU says that FAR_EL2 is not valid (FnV).
    pub gva: Option<GuestVa>,
    /// The access was a stage 1 table walk on behalf of the instruction (S1PTW).
    pub stage1_walk: bool,
    /// The access was a write (WnR); as good as meaningless for a walk.
    pub write: bool,
    /// The instruction was cache maintenance or address translation, not a load or store (CM).
    pub cache_maintenance: bool,
    /// IMPLEMENTATION DEFINED classification of an external abort (EA).
    pub external_type: bool,
    /// The load or store, when the CPU describes it (ISV).
    pub access: Option<Access>,
}

/// A load or store of one general-purpose register, as ESR_EL2 describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// How much is accessed (SAS).
    pub width: Width,
    /// A load sign-extends (SSE).
    pub sign_extend: bool,
    /// The register loaded or stored (SRT).
    pub gpr: Gpr,
    /// The register is 64 bits wide; else a load clears bits 63:32 (SF).
    pub sixty_four: bool,
    /// Load-acquire or store-release (AR).
    pub acquire_release: bool,
    /// A store (WnR).
    pub write: bool,
}

/// Fault status: what is wrong, and at which level of the tables (ESR_EL2.ISS.DFSC, IFSC).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// An address is wider than configured.
    AddressSize(i8),
    /// There is no mapping.
    Translation(i8),
    /// The mapping has never been used.
    AccessFlag(i8),
    /// The mapping does not allow this kind of access.
    Permission(i8),
    /// The memory system answered with an error.
    External,
    /// The memory system answered a table walk with an error.
    ExternalOnWalk(i8),
    /// The allocation tag is another one (MTE).
    TagCheck,
    /// Parity or ECC.
    Parity,
    /// Parity or ECC during a table walk.
    ParityOnWalk(i8),
    /// The address is not aligned as it must be.
    Alignment,
    /// The granule belongs to another world (RME).
    GranuleProtection,
    /// The granule of a translation table belongs to another world.
    GranuleProtectionOnWalk(i8),
    /// More than one TLB entry matches: invalidate the VM's TLB entries and try again.
    TlbConflict,
    /// The memory cannot do the atomic update of a descriptor.
    UnsupportedAtomicUpdate,
    /// IMPLEMENTATION DEFINED: lockdown.
    Lockdown,
    /// IMPLEMENTATION DEFINED: exclusive or atomic access to memory that has none.
    UnsupportedExclusive,
    /// A status that has no meaning in Arm ARM DDI 0487K.a.
    Reserved(u8),
}

impl Abort {
    #[inline(always)]
    pub(super) fn decode_data(esr_el2: u64, far_el2: u64, hpfar_el2: u64) -> Self {
        Self {
            write: ABORT::WNR.is_set(esr_el2),
            cache_maintenance: ABORT::CM.is_set(esr_el2),
            access: Access::decode(esr_el2),
            ..Self::decode_instruction(esr_el2, far_el2, hpfar_el2)
        }
    }

    #[inline]
    pub(super) fn decode_instruction(esr_el2: u64, far_el2: u64, hpfar_el2: u64) -> Self {
        let fault = Fault::decode(esr_el2);
        let stage1_walk = ABORT::S1PTW.is_set(esr_el2);
        let page = HPFAR::FIPA.read(hpfar_el2) << PAGE_SHIFT;
        // FAR_EL2 is the address whose translation needed the walk: it says nothing about the descriptor's.
        let offset = if stage1_walk { 0 } else { far_el2 & PAGE_OFFSET };
        // FnV belongs to external aborts outside a walk; elsewhere the bit is RES0.
        let far_is_valid = fault != Fault::External || !ABORT::FNV.is_set(esr_el2);
        Self {
            fault,
            ipa: fault.reports_ipa(stage1_walk).then(|| Ipa::new(page | offset)),
            gva: far_is_valid.then(|| GuestVa::new(far_el2)),
            stage1_walk,
            write: false,
            cache_maintenance: false,
            external_type: ABORT::EA.is_set(esr_el2),
            access: None,
        }
    }
}

/// A load or store of one register that the CPU describes in full, at an address that stage 2 does not map: what an
/// access to a device looks like every day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceAccess {
    /// What is accessed.
    pub ipa: Ipa,
    /// How.
    pub access: Access,
}

impl DeviceAccess {
    /// Decodes the syndrome of a data abort from a lower level, if it is of this kind and the address aligned.
    #[inline(always)]
    #[must_use]
    pub fn decode([esr_el2, far_el2, hpfar_el2]: [u64; 3]) -> Option<Self> {
        /// EC, S1PTW and what tells a translation fault from others.
        const KIND: u64 = 0b11_1111 << 26 | 1 << 7 | 0b11_1100;
        /// A data abort from a lower level by a translation fault outside a stage 1 walk.
        const TRANSLATION: u64 = 0x24 << 26 | 0b00_0100;
        let access = Access::decode(esr_el2).filter(|_| esr_el2 & KIND == TRANSLATION)?;
        let ipa = Ipa::new(HPFAR::FIPA.read(hpfar_el2) << PAGE_SHIFT | far_el2 & PAGE_OFFSET);
        // At the start of a page it may be the rest of an access that is not aligned.
        let is_whole = ipa.get() & PAGE_OFFSET != 0 || access.width == Width::Byte;
        (is_whole && ipa.is_aligned(access.width.bytes())).then_some(Self { ipa, access })
    }
}

impl Access {
    #[inline(always)]
    fn decode(iss: u64) -> Option<Self> {
        ABORT::ISV.is_set(iss).then(|| Self {
            width: match ABORT::SAS.read(iss) {
                0 => Width::Byte,
                1 => Width::Half,
                2 => Width::Word,
                _ => Width::Double,
            },
            sign_extend: ABORT::SSE.is_set(iss),
            gpr: gpr(ABORT::SRT.read(iss)),
            sixty_four: ABORT::SF.is_set(iss),
            acquire_release: ABORT::AR.is_set(iss),
            write: ABORT::WNR.is_set(iss),
        })
    }
}

impl Fault {
    #[inline]
    fn decode(iss: u64) -> Self {
        let status = low_byte(ABORT::FSC.read(iss));
        let level = match status & 3 {
            0 => 0,
            1 => 1,
            2 => 2,
            _ => 3,
        };
        match status {
            0x00..=0x03 => Self::AddressSize(level),
            0x04..=0x07 => Self::Translation(level),
            0x08..=0x0b => Self::AccessFlag(level),
            0x0c..=0x0f => Self::Permission(level),
            0x10 => Self::External,
            0x11 => Self::TagCheck,
            0x12 => Self::ExternalOnWalk(-2),
            0x13 => Self::ExternalOnWalk(-1),
            0x14..=0x17 => Self::ExternalOnWalk(level),
            0x18 => Self::Parity,
            0x1b => Self::ParityOnWalk(-1),
            0x1c..=0x1f => Self::ParityOnWalk(level),
            0x21 => Self::Alignment,
            0x22 => Self::GranuleProtectionOnWalk(-2),
            0x23 => Self::GranuleProtectionOnWalk(-1),
            0x24..=0x27 => Self::GranuleProtectionOnWalk(level),
            0x28 => Self::GranuleProtection,
            0x29 => Self::AddressSize(-1),
            0x2a => Self::Translation(-2),
            0x2b => Self::Translation(-1),
            0x2c => Self::AddressSize(-2),
            0x30 => Self::TlbConflict,
            0x31 => Self::UnsupportedAtomicUpdate,
            0x34 => Self::Lockdown,
            0x35 => Self::UnsupportedExclusive,
            reserved => Self::Reserved(reserved),
        }
    }

    /// Tells whether HPFAR_EL2 was written: Translation, Access flag and Address size faults always, Permission faults
    /// only on a stage 1 walk; UNKNOWN otherwise (Arm ARM DDI 0487K.a, HPFAR_EL2).
    #[inline]
    const fn reports_ipa(self, stage1_walk: bool) -> bool {
        match self {
            Self::Translation(_) | Self::AccessFlag(_) | Self::AddressSize(_) => true,
            Self::Permission(_) => stage1_walk,
            _ => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, level) = match *self {
            Self::AddressSize(level) => ("address size fault", Some(level)),
            Self::Translation(level) => ("translation fault", Some(level)),
            Self::AccessFlag(level) => ("access flag fault", Some(level)),
            Self::Permission(level) => ("permission fault", Some(level)),
            Self::External => ("external abort", None),
            Self::ExternalOnWalk(level) => ("external abort on a table walk", Some(level)),
            Self::TagCheck => ("tag check fault", None),
            Self::Parity => ("parity or ECC error", None),
            Self::ParityOnWalk(level) => ("parity or ECC error on a table walk", Some(level)),
            Self::Alignment => ("alignment fault", None),
            Self::GranuleProtection => ("granule protection fault", None),
            Self::GranuleProtectionOnWalk(level) => ("granule protection fault on a table walk", Some(level)),
            Self::TlbConflict => ("TLB conflict", None),
            Self::UnsupportedAtomicUpdate => ("unsupported atomic update of a descriptor", None),
            Self::Lockdown => ("lockdown", None),
            Self::UnsupportedExclusive => ("unsupported exclusive or atomic access", None),
            Self::Reserved(status) => return write!(f, "fault with the reserved status {status:#04x}"),
        };
        f.write_str(what)?;
        level.map_or(Ok(()), |level| write!(f, ", level {level}"))
    }
}

impl fmt::Display for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.fault, f)?;
        if self.stage1_walk {
            f.write_str(", during a stage 1 walk")?;
        }
        if self.cache_maintenance {
            f.write_str(", cache maintenance")?;
        }
        if let Some(access) = self.access {
            let verb = if access.write { "write" } else { "read" };
            write!(f, ", {verb} of {} bytes, register {}", access.width.bytes(), access.gpr.number())?;
        }
        if let Some(ipa) = self.ipa {
            write!(f, ", IPA {ipa}")?;
        }
        self.gva.map_or(Ok(()), |gva| write!(f, ", VA {gva}"))
    }
}

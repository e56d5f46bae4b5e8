//! Names of system registers and system instructions, and one trapped access to one of them.
//!
//! Not here: what an access does (the parent module), and the bits of ESR_EL2 (`dispatcher::cause`).
//! Follows Arm ARM DDI 0487K.a, C5.1.2 (the op0, op1, CRn, CRm, op2 name space) and the register descriptions.

use core::fmt;

use crate::ids::Gpr;

/// Names one system register or system instruction by its encoding, in the order of the encoding
/// (Arm ARM DDI 0487K.a, C5.1.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemRegister(u16);

impl SystemRegister {
    /// Packs an encoding into a key of 16 bits; what does not fit an operand is dropped.
    #[must_use]
    pub const fn new(op0: u8, op1: u8, crn: u8, crm: u8, op2: u8) -> Self {
        let high = (op0 & 3) << 6 | (op1 & 7) << 3 | (crn & 15) >> 1;
        let low = (crn & 1) << 7 | (crm & 15) << 3 | (op2 & 7);
        Self(u16::from_be_bytes([high, low]))
    }

    /// Returns op0: 1 for instructions, 2 for debug and trace, 3 for everything else.
    #[must_use]
    pub const fn op0(self) -> u8 {
        let [high, _] = self.0.to_be_bytes();
        high >> 6
    }

    /// Returns op1: 3 for what EL0 may reach, 4 and up for EL2 and above.
    #[must_use]
    pub const fn op1(self) -> u8 {
        let [high, _] = self.0.to_be_bytes();
        (high >> 3) & 7
    }

    /// Returns CRn.
    #[must_use]
    pub const fn crn(self) -> u8 {
        let [high, low] = self.0.to_be_bytes();
        (high & 7) << 1 | low >> 7
    }

    /// Returns CRm.
    #[must_use]
    pub const fn crm(self) -> u8 {
        let [_, low] = self.0.to_be_bytes();
        (low >> 3) & 15
    }

    /// Returns op2.
    #[must_use]
    pub const fn op2(self) -> u8 {
        let [_, low] = self.0.to_be_bytes();
        low & 7
    }

    /// Tells whether HCR_EL2.TID3 traps a read: op0 3, op1 0, CRn 0, CRm 1 to 7.
    #[must_use]
    pub const fn is_in_id_space(self) -> bool {
        self.0 >= Self::new(3, 0, 0, 1, 0).0 && self.0 <= Self::new(3, 0, 0, 7, 7).0
    }

    /// Tells whether it is `DBGBVR<n>_EL1`, `DBGBCR<n>_EL1`, `DBGWVR<n>_EL1` or `DBGWCR<n>_EL1`.
    #[must_use]
    pub const fn is_breakpoint_or_watchpoint(self) -> bool {
        self.op0() == 2 && self.op1() == 0 && self.crn() == 0 && self.op2() >= 4
    }

    /// Tells whether it is a performance monitor: what MDCR_EL2.TPM and TPMCR trap.
    #[must_use]
    pub const fn is_performance_monitor(self) -> bool {
        match (self.op0(), self.op1(), self.crn()) {
            (3, 3, 9) => matches!(self.crm(), 12..=14),
            (3, 3, 14) => self.crm() >= 8,
            (3, 0, 9) => self.crm() == 14,
            _ => false,
        }
    }

    /// Tells whether the encoding is left to implementations: CRn 11 or 15, trapped by HCR_EL2.TIDCP.
    #[must_use]
    pub const fn is_implementation_defined(self) -> bool {
        self.op0() & 1 == 1 && matches!(self.crn(), 11 | 15)
    }

    /// Returns the Arm name, or `None` for a register that nobody here answers by name.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        NAMES.iter().find(|(register, _)| *register == self).map(|(_, name)| *name)
    }
}

macro_rules! named {
    ($($name:ident = $op0:literal, $op1:literal, $crn:literal, $crm:literal, $op2:literal;)*) => {
        impl SystemRegister {
            $(
                #[doc = concat!("Names `", stringify!($name), "` (Arm ARM DDI 0487K.a, its register description).")]
                pub const $name: Self = Self::new($op0, $op1, $crn, $crm, $op2);
            )*
        }

        /// Each constant of [`SystemRegister`] with its name, in the order of the encoding.
        const NAMES: &[(SystemRegister, &str)] = &[$((SystemRegister::$name, stringify!($name)),)*];
    };
}

named! {
    DC_ISW = 1, 0, 7, 6, 2;
    DC_CSW = 1, 0, 7, 10, 2;
    DC_CISW = 1, 0, 7, 14, 2;

    OSDTRRX_EL1 = 2, 0, 0, 0, 2;
    MDCCINT_EL1 = 2, 0, 0, 2, 0;
    MDSCR_EL1 = 2, 0, 0, 2, 2;
    OSDTRTX_EL1 = 2, 0, 0, 3, 2;
    OSECCR_EL1 = 2, 0, 0, 6, 2;
    MDRAR_EL1 = 2, 0, 1, 0, 0;
    OSLAR_EL1 = 2, 0, 1, 0, 4;
    OSLSR_EL1 = 2, 0, 1, 1, 4;
    OSDLR_EL1 = 2, 0, 1, 3, 4;
    DBGPRCR_EL1 = 2, 0, 1, 4, 4;
    DBGCLAIMSET_EL1 = 2, 0, 7, 8, 6;
    DBGCLAIMCLR_EL1 = 2, 0, 7, 9, 6;
    DBGAUTHSTATUS_EL1 = 2, 0, 7, 14, 6;
    MDCCSR_EL0 = 2, 3, 0, 1, 0;
    DBGDTR_EL0 = 2, 3, 0, 4, 0;
    DBGDTRTX_EL0 = 2, 3, 0, 5, 0;

    REVIDR_EL1 = 3, 0, 0, 0, 6;
    ACTLR_EL1 = 3, 0, 1, 0, 1;
    ICC_DIR_EL1 = 3, 0, 12, 11, 1;
    ICC_SGI1R_EL1 = 3, 0, 12, 11, 5;
    ICC_ASGI1R_EL1 = 3, 0, 12, 11, 6;
    ICC_SGI0R_EL1 = 3, 0, 12, 11, 7;
    ICC_SRE_EL1 = 3, 0, 12, 12, 5;
    AIDR_EL1 = 3, 1, 0, 0, 7;
    CNTPCT_EL0 = 3, 3, 14, 0, 1;
    CNTPCTSS_EL0 = 3, 3, 14, 0, 5;
    CNTP_TVAL_EL0 = 3, 3, 14, 2, 0;
    CNTP_CTL_EL0 = 3, 3, 14, 2, 1;
    CNTP_CVAL_EL0 = 3, 3, 14, 2, 2;
}

impl fmt::Display for SystemRegister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S{}_{}_C{}_C{}_{}", self.op0(), self.op1(), self.crn(), self.crm(), self.op2())?;
        self.name().map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}

impl fmt::Debug for SystemRegister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Tells which way a register access goes (ESR_EL2.ISS.Direction).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// MRS: from the system register.
    Read,
    /// MSR or SYS: to the system register.
    Write,
}

/// Describes one trapped MRS, MSR or SYS (Arm ARM DDI 0487K.a, ESR_EL2, ISS encoding for EC 0x18).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SystemRegisterAccess {
    /// What the instruction names.
    pub register: SystemRegister,
    /// Which way the value goes.
    pub direction: Direction,
    /// The general-purpose register at the other end.
    pub gpr: Gpr,
}

impl fmt::Display for SystemRegisterAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, preposition) = match self.direction {
            Direction::Read => ("read of", "into"),
            Direction::Write => ("write to", "from"),
        };
        write!(f, "{verb} {} {preposition} ", self.register)?;
        match self.gpr.index() {
            Some(index) => write!(f, "X{index}"),
            None => f.write_str("XZR"),
        }
    }
}

/// Exception level of a guest at the moment of a trap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestLevel {
    /// An application, AArch64 or AArch32.
    El0,
    /// The guest's kernel, always AArch64 (HCR_EL2.RW is 1).
    El1,
}

impl GuestLevel {
    /// Takes the level out of an SPSR_EL2 value (bit 4 of M is AArch32, bits 3:2 are the level).
    #[must_use]
    pub const fn from_spsr(spsr_el2: u64) -> Self {
        const M4_AARCH32: u64 = 1 << 4;
        const M_LEVEL: u64 = 0b11 << 2;
        if spsr_el2 & M4_AARCH32 != 0 || spsr_el2 & M_LEVEL == 0 { Self::El0 } else { Self::El1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_survives_packing() {
        for key in 0..=u16::MAX {
            let register = SystemRegister(key);
            let again = SystemRegister::new(
                register.op0(),
                register.op1(),
                register.crn(),
                register.crm(),
                register.op2(),
            );
            assert_eq!(register, again);
        }
    }

    #[test]
    fn the_names_are_in_the_order_of_the_encoding() {
        assert!(NAMES.is_sorted_by(|(low, _), (high, _)| low < high));
    }

    #[test]
    fn a_register_prints_its_encoding_and_its_name() {
        assert_eq!(SystemRegister::MDSCR_EL1.to_string(), "S2_0_C0_C2_2 (MDSCR_EL1)");
        assert_eq!(SystemRegister::new(3, 0, 0, 4, 0).to_string(), "S3_0_C0_C4_0");
    }

    #[test]
    fn the_id_space_is_what_tid3_traps() {
        let traps = |crm, op2| SystemRegister::new(3, 0, 0, crm, op2).is_in_id_space();
        assert!(traps(1, 0) && traps(4, 0) && traps(7, 7));
        assert!(!traps(0, 0) && !traps(0, 7) && !traps(8, 0));
        assert!(!SystemRegister::new(3, 1, 0, 4, 0).is_in_id_space());
        assert!(!SystemRegister::new(2, 0, 0, 4, 0).is_in_id_space());
    }

    #[test]
    fn an_application_of_either_state_is_el0() {
        assert_eq!(GuestLevel::from_spsr(0b0_0000), GuestLevel::El0);
        assert_eq!(GuestLevel::from_spsr(0b1_0000), GuestLevel::El0);
        assert_eq!(GuestLevel::from_spsr(0x6000_03c5), GuestLevel::El1);
        assert_eq!(GuestLevel::from_spsr(0b0_0100), GuestLevel::El1);
    }
}

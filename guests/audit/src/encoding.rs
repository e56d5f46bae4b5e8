//! The system instruction space: 65,536 encodings, each as a read and as a write.
//!
//! Not here: what a probe does with one.
//! Follows Arm ARM DDI 0487K.a, C4.1.94 ("Branches, Exception Generating and System instructions") and C5.1.2.

/// Names one encoding: op0 in bits 15:14, op1 13:11, CRn 10:7, CRm 6:3, op2 2:0.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Encoding(pub u32);

/// Number of encodings.
pub const ENCODINGS: u32 = 1 << 16;
/// Encodings that differ in CRm and op2 only.
pub const BLOCK: u32 = 1 << 7;

pub const ISB: u32 = 0xd503_3fdf;
pub const SEVL: u32 = 0xd503_20bf;
/// What ends each probe: an SVC with a number that no other instruction here has.
pub const SVC_END: u32 = 0xd400_0001 | END_NUMBER << 5;
/// The number.
pub const END_NUMBER: u32 = 0xa0d1;

const READ: u32 = 1 << 21;

impl Encoding {
    /// Names the encoding of its operands.
    pub const fn new(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> Self {
        Self(op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2)
    }

    pub const fn op0(self) -> u32 {
        self.0 >> 14
    }

    pub const fn op1(self) -> u32 {
        self.0 >> 11 & 7
    }

    pub const fn crn(self) -> u32 {
        self.0 >> 7 & 15
    }

    pub const fn crm(self) -> u32 {
        self.0 >> 3 & 15
    }

    pub const fn op2(self) -> u32 {
        self.0 & 7
    }

    /// Returns the instruction that reads into Xt: MRS or SYSL.
    pub const fn read(self, t: u32) -> u32 {
        0xd500_0000 | READ | self.0 << 5 | t
    }

    /// Returns the instruction that writes from Xt: MSR or SYS.
    pub const fn write(self, t: u32) -> u32 {
        0xd500_0000 | self.0 << 5 | t
    }

    /// Returns the write as it is allocated: without a register (Rt is 31) for hints, barriers and PSTATE.
    pub const fn write_alone(self) -> u32 {
        let has_register = self.op0() != 0 || self.crn() == 1;
        self.write(if has_register { 0 } else { 31 })
    }

    /// Says whether it is WFE, WFI, WFET or WFIT.
    pub const fn waits(self) -> bool {
        let hint = self.0 == Self::new(0, 3, 2, 0, 2).0 || self.0 == Self::new(0, 3, 2, 0, 3).0;
        hint || self.0 >> 1 == Self::new(0, 3, 1, 0, 0).0 >> 1
    }

    /// Says whether it is an AT instruction, whose result is in PAR_EL1.
    pub const fn is_address_translation(self) -> bool {
        self.op0() == 1 && self.crn() == 7 && matches!(self.crm(), 8 | 9)
    }
}

const _: () = assert!(Encoding::new(3, 0, 1, 0, 0).read(0) == 0xd538_1000);
const _: () = assert!(Encoding::new(0, 3, 2, 0, 3).write_alone() == 0xd503_207f);

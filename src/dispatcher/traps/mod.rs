//! Which trap bits are set, why, and who answers: the words for the EL2 control registers.
//!
//! Not here: writing them, which is the machine's, and GIC traps (ICH_HCR_EL2), which are the vGIC's.
//!
//! A bit that a CPU does not have is RES0 and stays 0. A fine-grained trap is used only where no coarse bit does the same.
//! docs/traps.md is the table in readable form; a test keeps the two the same.
//!
//! Follows Arm ARM DDI 0487K.a, the descriptions of the registers that the table names, with HCR_EL2.E2H 0 throughout.

mod features;
mod table;

pub use features::Features;
pub use table::{ControlRegister, TABLE, Trap};

/// Registers that trap until a vCPU first uses them, and are its own from then on until it is switched off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Grants(u8);

impl Grants {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Breakpoints, watchpoints and the OS lock.
    pub const DEBUG: Self = Self(1);
    /// Performance monitors.
    pub const PMU: Self = Self(1 << 1);

    /// Tells whether all of `others` are among them.
    #[must_use]
    pub const fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Returns the union of the two sets.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

/// Computes HCR_EL2. VSE, VI and VF are 0; TWI and TWE too: a CPU that several vCPUs share adds them.
#[must_use]
pub fn hcr_el2(features: Features) -> u64 {
    word(ControlRegister::HCR_EL2, features)
}

/// Computes MDCR_EL2 for a vCPU with these grants. `counters` is PMCR_EL0.N of the CPU, for HPMN: with fewer, the rest
/// would be EL2's own.
#[must_use]
pub fn mdcr_el2(features: Features, counters: u8, granted: Grants) -> u64 {
    const HPMN: u64 = 0b1_1111;
    let hpmn = if features.has(Features::PMU) { u64::from(counters) & HPMN } else { 0 };
    let lifted = sum(ControlRegister::MDCR_EL2, |row| row.until != Grants::NONE && granted.has(row.until));
    (word(ControlRegister::MDCR_EL2, features) | hpmn) & !lifted
}

/// Computes CPTR_EL2 in its E2H 0 format.
#[must_use]
pub fn cptr_el2(features: Features) -> u64 {
    word(ControlRegister::CPTR_EL2, features)
}

/// Computes CNTHCTL_EL2 in its E2H 0 format.
#[must_use]
pub fn cnthctl_el2(features: Features) -> u64 {
    word(ControlRegister::CNTHCTL_EL2, features)
}

/// Computes HSTR_EL2.
#[must_use]
pub fn hstr_el2(features: Features) -> u64 {
    word(ControlRegister::HSTR_EL2, features)
}

/// Computes HCRX_EL2; write it only where [`Features::HCX`] is.
#[must_use]
pub fn hcrx_el2(features: Features) -> u64 {
    word(ControlRegister::HCRX_EL2, features)
}

/// Computes MPAM2_EL2; write it only where [`Features::MPAM`] is.
#[must_use]
pub fn mpam2_el2(features: Features) -> u64 {
    word(ControlRegister::MPAM2_EL2, features)
}

/// Computes HFGRTR_EL2; write it only where [`Features::FGT`] is.
#[must_use]
pub fn hfgrtr_el2(features: Features) -> u64 {
    word(ControlRegister::HFGRTR_EL2, features)
}

/// Computes HFGWTR_EL2; write it only where [`Features::FGT`] is.
#[must_use]
pub fn hfgwtr_el2(features: Features) -> u64 {
    word(ControlRegister::HFGWTR_EL2, features)
}

/// Computes HFGITR_EL2; write it only where [`Features::FGT`] is.
#[must_use]
pub fn hfgitr_el2(features: Features) -> u64 {
    word(ControlRegister::HFGITR_EL2, features)
}

/// Computes HDFGRTR_EL2; write it only where [`Features::FGT`] is.
#[must_use]
pub fn hdfgrtr_el2(features: Features) -> u64 {
    word(ControlRegister::HDFGRTR_EL2, features)
}

/// Computes HDFGWTR_EL2; write it only where [`Features::FGT`] is.
#[must_use]
pub fn hdfgwtr_el2(features: Features) -> u64 {
    word(ControlRegister::HDFGWTR_EL2, features)
}

/// Computes HAFGRTR_EL2; write it only where [`Features::FGT`] and [`Features::AMU`] are.
#[must_use]
pub fn hafgrtr_el2(features: Features) -> u64 {
    word(ControlRegister::HAFGRTR_EL2, features)
}

/// Computes HFGRTR2_EL2, HFGWTR2_EL2, HFGITR2_EL2, HDFGRTR2_EL2 and HDFGWTR2_EL2, which are alike; write them only where
/// [`Features::FGT2`] is.
#[must_use]
pub fn fgt2_el2(features: Features) -> u64 {
    word(ControlRegister::FGT2_EL2, features)
}

/// Adds up what the table says about a register on a CPU with `features`.
fn word(register: ControlRegister, features: Features) -> u64 {
    sum(register, |row| features.has(row.when))
}

fn sum(register: ControlRegister, wanted: impl Fn(&Row) -> bool) -> u64 {
    ROWS.iter().filter(|row| row.register == register && wanted(row)).fold(0, |word, row| word | row.bits)
}

/// What a row of the table does, without the words that say why: those stay out of the image.
#[derive(Clone, Copy)]
struct Row {
    register: ControlRegister,
    when: Features,
    bits: u64,
    until: Grants,
}

static ROWS: [Row; table::rows()] = table::ROWS;

#[cfg(test)]
mod tests;

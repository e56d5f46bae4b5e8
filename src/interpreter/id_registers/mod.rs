//! The feature registers as a VM sees them: op0 3, op1 0, CRn 0, CRm 1 to 7, which HCR_EL2.TID3 traps.
//!
//! Not here: the traps that keep a hidden feature out of reach (`dispatcher::traps`), and MIDR_EL1, MPIDR_EL1 and their
//! like (CRm 0), which the guest reads natively.
//!
//! One rule decides: what acts on state that is the VM's own, or on none, is given; what is EL2's, or shared with other
//! VMs, or state that nobody saves, is hidden. The rows are an allow-list: a field without a row reads as zero.
//!
//! Follows Arm ARM DDI 0487K.a, the descriptions of ID_PFR0_EL1 to ID_AA64MMFR4_EL1, and "Principles of the ID scheme
//! for fields in ID registers" (signed and unsigned fields).

mod aarch32;
mod aarch64;

/// Words in the space: CRm 1 to 7, op2 0 to 7.
pub const ID_REGISTERS: usize = 56;

/// How a VM reaches its GIC CPU interface; decides ID_AA64PFR0_EL1.GIC (Arm ARM DDI 0487K.a).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CpuInterface {
    /// GICv2: GICC in memory.
    MemoryMapped,
    /// GICv3: ICC system registers.
    SystemRegisters,
}

/// Names a 4-bit field of a feature register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdField {
    /// CRm of the register, 1 to 7.
    pub crm: u8,
    /// op2 of the register.
    pub op2: u8,
    /// Lowest bit of the field.
    pub lsb: u8,
}

impl IdField {
    /// Names the field that starts at bit `lsb` of S3_0_C0_C`crm`_`op2`.
    #[must_use]
    pub const fn new(crm: u8, op2: u8, lsb: u8) -> Self {
        Self { crm, op2, lsb }
    }
}

/// The feature registers of a physical CPU, as EL2 reads them. Not for a guest's eyes.
#[derive(Clone, Debug)]
pub struct HostIdRegisters([u64; ID_REGISTERS]);

impl HostIdRegisters {
    /// Takes the registers in the order CRm 1 op2 0, CRm 1 op2 1, ... CRm 7 op2 7.
    #[must_use]
    pub const fn new(words: [u64; ID_REGISTERS]) -> Self {
        Self(words)
    }

    /// Returns the value of a field.
    #[must_use]
    pub fn field(&self, field: IdField) -> u64 {
        bits(word(&self.0, field.crm, field.op2), field.lsb, 4)
    }
}

/// The feature registers of a vCPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdRegisters([u64; ID_REGISTERS]);

impl IdRegisters {
    /// Reduces what the host has to what the VM gets.
    #[must_use]
    pub fn sanitise(host: &HostIdRegisters, cpu_interface: CpuInterface) -> Self {
        let mut words = [0; ID_REGISTERS];
        for row in &ROWS {
            let host = word(&host.0, row.crm, row.op2);
            if let Some(slot) = index(row.crm, row.op2).and_then(|index| words.get_mut(index)) {
                *slot |= row.shown(host, cpu_interface);
            }
        }
        Self(words)
    }

    /// Tells whether the VM has the PMUv3 (ID_AA64DFR0_EL1.PMUVer).
    #[must_use]
    pub fn has_performance_monitors(&self) -> bool {
        bits(self.read(5, 0), 8, 4) != 0
    }

    /// Returns what the VM reads from S3_0_C0_C`crm`_`op2`; 0 outside the space.
    #[must_use]
    #[inline]
    pub fn read(&self, crm: u8, op2: u8) -> u64 {
        word(&self.0, crm, op2)
    }
}

/// Every register that has fields, in manual order.
const REGISTERS: [&[Register]; 2] = [aarch32::REGISTERS, aarch64::REGISTERS];

/// One field of one register, without its name: names stay out of the image.
#[derive(Clone, Copy)]
struct Row {
    crm: u8,
    op2: u8,
    lsb: u8,
    width: u8,
    policy: Policy,
}

static ROWS: [Row; count()] = rows();

/// Counts the fields of all registers.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which refuses an index out of range")]
const fn count() -> usize {
    let (mut count, mut group) = (0, 0);
    while group < REGISTERS.len() {
        let mut register = 0;
        while register < REGISTERS[group].len() {
            count += REGISTERS[group][register].fields.len();
            register += 1;
        }
        group += 1;
    }
    count
}

/// Lists the fields of all registers.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which refuses an index out of range")]
const fn rows() -> [Row; count()] {
    let mut all = [Row { crm: 0, op2: 0, lsb: 0, width: 0, policy: Policy::Hidden }; count()];
    let (mut count, mut group) = (0, 0);
    while group < REGISTERS.len() {
        let mut register = 0;
        while register < REGISTERS[group].len() {
            let Register { crm, op2, fields, .. } = REGISTERS[group][register];
            let mut number = 0;
            while number < fields.len() {
                let Field { lsb, width, policy, .. } = fields[number];
                all[count] = Row { crm, op2, lsb, width, policy };
                (count, number) = (count + 1, number + 1);
            }
            register += 1;
        }
        group += 1;
    }
    all
}

#[inline]
fn index(crm: u8, op2: u8) -> Option<usize> {
    Some(usize::from(crm.checked_sub(1)?) << 3 | usize::from(op2 & 7))
}

#[inline]
fn word(words: &[u64; ID_REGISTERS], crm: u8, op2: u8) -> u64 {
    index(crm, op2).and_then(|index| words.get(index)).copied().unwrap_or(0)
}

fn bits(word: u64, lsb: u8, width: u8) -> u64 {
    (word >> lsb) & !(u64::MAX << width)
}

/// One register and what the VM sees of it.
#[derive(Clone, Copy)]
struct Register {
    #[cfg_attr(not(test), expect(dead_code, reason = "for the reader, and for what a failing test prints"))]
    name: &'static str,
    crm: u8,
    op2: u8,
    fields: &'static [Field],
}

/// One field, or several that share a policy.
#[derive(Clone, Copy)]
struct Field {
    #[cfg_attr(not(test), expect(dead_code, reason = "for the reader, and for what a failing test prints"))]
    name: &'static str,
    lsb: u8,
    width: u8,
    policy: Policy,
}

/// What the VM sees of a field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// What the host has.
    Native,
    /// What the host has, but no more than this (unsigned).
    AtMost(u8),
    /// What the host has, but no more than 0; 0b1111 is -1 and means not implemented (signed).
    AtMostZero,
    /// What the host has, but no more than this; 0b1111 is something of the implementation's own and reads as 0.
    StandardAtMost(u8),
    /// Nothing. A row of this kind is there to say so.
    Hidden,
    /// Which CPU interface the VM's GIC has.
    Gic,
}

impl Row {
    /// Returns the field in its place, as the VM sees it.
    fn shown(&self, host: u64, cpu_interface: CpuInterface) -> u64 {
        const MINUS_ONE: u64 = 0b1111;
        let host = bits(host, self.lsb, self.width);
        let shown = match self.policy {
            Policy::Native => host,
            Policy::AtMost(most) => host.min(u64::from(most)),
            Policy::AtMostZero => {
                if host == MINUS_ONE {
                    host
                } else {
                    0
                }
            }
            Policy::StandardAtMost(most) => {
                if host == MINUS_ONE {
                    0
                } else {
                    host.min(u64::from(most))
                }
            }
            Policy::Hidden => 0,
            Policy::Gic => u64::from(cpu_interface == CpuInterface::SystemRegisters),
        };
        shown << self.lsb
    }
}

/// A 4-bit field that is the VM's to see.
const fn native(name: &'static str, lsb: u8) -> Field {
    Field { name, lsb, width: 4, policy: Policy::Native }
}

/// Neighbouring fields, all of them the VM's to see.
const fn native_bits(name: &'static str, lsb: u8, width: u8) -> Field {
    Field { name, lsb, width, policy: Policy::Native }
}

/// A 4-bit field of which the VM sees a lower version.
const fn at_most(name: &'static str, lsb: u8, most: u8) -> Field {
    Field { name, lsb, width: 4, policy: Policy::AtMost(most) }
}

/// A signed 4-bit field of which the VM sees the first version.
const fn at_most_zero(name: &'static str, lsb: u8) -> Field {
    Field { name, lsb, width: 4, policy: Policy::AtMostZero }
}

/// A 4-bit field of which the VM sees a lower version, and none that is IMPLEMENTATION DEFINED.
const fn standard_at_most(name: &'static str, lsb: u8, most: u8) -> Field {
    Field { name, lsb, width: 4, policy: Policy::StandardAtMost(most) }
}

/// A 4-bit field of something that the VM does not get.
const fn hidden(name: &'static str, lsb: u8) -> Field {
    Field { name, lsb, width: 4, policy: Policy::Hidden }
}

/// The 4-bit field of the GIC CPU interface.
const fn gic(lsb: u8) -> Field {
    Field { name: "GIC", lsb, width: 4, policy: Policy::Gic }
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;

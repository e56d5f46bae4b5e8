//! The IMPLEMENTATION DEFINED registers that HCR_EL2.TIDCP traps (CRn 11 and 15), for processors that are known.
//!
//! Not here: any real configuration. A guest reads them as a machine would that nobody has tuned, and its writes are
//! ignored, because they control caches and clusters that other VMs run on. What is not listed is UNDEFINED.
//!
//! Follows Arm DDI 0500J, 4.2 (Cortex-A53), Arm DDI 0488H, 4.2 (Cortex-A57), Arm 100095_0003_06, 4.2 (Cortex-A72),
//! Arm 100798_0401_01, B2 (Cortex-A76) and Arm 100616_0400_00, B2 (Neoverse N1).

use super::{Processor, SystemRegister};
use crate::addr::Ipa;

const L2CTLR_EL1: SystemRegister = SystemRegister::new(3, 1, 11, 0, 2);
const CBAR_EL1: SystemRegister = SystemRegister::new(3, 1, 15, 3, 0);

/// Registers of Cortex-A35, A53, A57, A72 and A73, in the order of the encoding.
const CORTEX_A50S_AND_A70S: [SystemRegister; 8] = [
    L2CTLR_EL1,
    SystemRegister::new(3, 1, 11, 0, 3), // L2ECTLR_EL1
    SystemRegister::new(3, 1, 15, 0, 0), // L2ACTLR_EL1
    SystemRegister::new(3, 1, 15, 2, 0), // CPUACTLR_EL1
    SystemRegister::new(3, 1, 15, 2, 1), // CPUECTLR_EL1
    SystemRegister::new(3, 1, 15, 2, 2), // CPUMERRSR_EL1
    SystemRegister::new(3, 1, 15, 2, 3), // L2MERRSR_EL1
    CBAR_EL1,
];

const CPUCFR_EL1: SystemRegister = SystemRegister::new(3, 0, 15, 0, 0);
const CPUECTLR_EL1: SystemRegister = SystemRegister::new(3, 0, 15, 1, 4);

/// Registers of the processors with a DynamIQ cluster, in the order of the encoding.
const DYNAMIQ: [SystemRegister; 6] = [
    CPUCFR_EL1,
    SystemRegister::new(3, 0, 15, 1, 0), // CPUACTLR_EL1
    SystemRegister::new(3, 0, 15, 1, 1), // CPUACTLR2_EL1
    SystemRegister::new(3, 0, 15, 1, 2), // CPUACTLR3_EL1
    CPUECTLR_EL1,
    SystemRegister::new(3, 0, 15, 2, 7), // CPUPWRCTLR_EL1
];

/// Registers of Neoverse N1, in the order of the encoding.
const NEOVERSE_N1: [SystemRegister; 7] = {
    let [cfr, actlr, actlr2, actlr3, ectlr, pwrctlr] = DYNAMIQ;
    [cfr, actlr, actlr2, actlr3, ectlr, pwrctlr, SystemRegister::new(3, 0, 15, 7, 0)] // ATCR_EL1
};

/// MIDR_EL1.PartNum of Neoverse N1.
const PART_NEOVERSE_N1: u64 = 0xd0c;
/// CPUCFR_EL1 of Neoverse N1 without a snoop control unit: the VM reaches none (Arm 100616_0400_00, B2.32).
const CPUCFR_WITHOUT_SCU: u64 = 1 << 2;
/// CPUECTLR_EL1 of Neoverse N1 after reset (Arm 100616_0400_00, B2.33).
const CPUECTLR_RESET: u64 = 0x9_6156_3010;

/// Returns what a read gives, or `None` when the processor has no such register.
pub fn read(register: SystemRegister, processor: &Processor) -> Option<u64> {
    if !known(processor.midr_el1).contains(&register) {
        return None;
    }
    Some(match register {
        L2CTLR_EL1 => l2ctlr(processor.vcpus),
        CBAR_EL1 => cbar(processor.peripheral_base),
        CPUCFR_EL1 if part(processor.midr_el1) == PART_NEOVERSE_N1 => CPUCFR_WITHOUT_SCU,
        CPUECTLR_EL1 if part(processor.midr_el1) == PART_NEOVERSE_N1 => CPUECTLR_RESET,
        _ => 0,
    })
}

/// Tells whether the processor has the register and it can be written: then a write is ignored rather than UNDEFINED.
pub fn ignores_writes(register: SystemRegister, processor: &Processor) -> bool {
    let is_read_only = matches!(register, CBAR_EL1 | CPUCFR_EL1);
    register.is_implementation_defined() && !is_read_only && known(processor.midr_el1).contains(&register)
}

/// Lists the registers of the processor that MIDR_EL1 names (Arm ARM DDI 0487K.a, MIDR_EL1: Implementer, PartNum).
fn known(midr_el1: u64) -> &'static [SystemRegister] {
    const ARM_LIMITED: u64 = 0x41;
    if (midr_el1 >> 24) & 0xff != ARM_LIMITED {
        return &[];
    }
    match part(midr_el1) {
        0xd03 | 0xd04 | 0xd07 | 0xd08 | 0xd09 => &CORTEX_A50S_AND_A70S,
        PART_NEOVERSE_N1 => &NEOVERSE_N1,
        0xd05 | 0xd0a | 0xd0b | 0xd0d | 0xd40 | 0xd41 | 0xd44 => &DYNAMIQ,
        _ => &[],
    }
}

/// MIDR_EL1.PartNum, bits 15:4.
const fn part(midr_el1: u64) -> u64 {
    (midr_el1 >> 4) & 0xfff
}

/// L2CTLR_EL1.NumCPUs, bits 25:24: cores in the cluster less one; a cluster has at most four.
fn l2ctlr(vcpus: u8) -> u64 {
    u64::from(vcpus.saturating_sub(1).min(3)) << 24
}

/// PERIPHBASE as CBAR_EL1 has it: address bits 31:18 in place, bits 43:32 in bits 11:0.
const fn cbar(base: Ipa) -> u64 {
    (base.get() & 0xfffc_0000) | ((base.get() >> 32) & 0xfff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_register_is_in_the_trapped_space() {
        for register in CORTEX_A50S_AND_A70S.iter().chain(&NEOVERSE_N1) {
            assert!(register.is_implementation_defined(), "{register}");
        }
        assert!(CORTEX_A50S_AND_A70S.is_sorted() && NEOVERSE_N1.is_sorted());
    }

    #[test]
    fn cbar_holds_the_peripheral_base() {
        assert_eq!(cbar(Ipa::new(0x0800_0000)), 0x0800_0000);
        assert_eq!(cbar(Ipa::new(0xf23_4567_89ab)), 0x4564_0f23);
    }

    #[test]
    fn a_cluster_reports_at_most_four_cores() {
        assert_eq!(l2ctlr(1), 0);
        assert_eq!(l2ctlr(4), 3 << 24);
        assert_eq!(l2ctlr(8), 3 << 24);
        assert_eq!(l2ctlr(0), 0);
    }
}

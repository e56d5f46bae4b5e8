//! Facts about what a VM sees of its processor.

use proptest::prelude::*;

use super::fixtures::{
    CORTEX_A72_AT_EL2, CORTEX_A72_BARE, CORTEX_A76_AT_EL2, CORTEX_A76_BARE, MAX_AT_EL2, MAX_BARE,
};
use super::*;

/// Lists every register that has fields, in manual order.
fn registers() -> impl Iterator<Item = &'static Register> {
    REGISTERS.into_iter().flatten()
}

fn vm(host: [u64; ID_REGISTERS]) -> IdRegisters {
    IdRegisters::sanitise(&HostIdRegisters::new(host), CpuInterface::SystemRegisters)
}

/// Lists (register, field) of the rows that differ between what a VM sees and a machine without EL2.
fn differences(host: [u64; ID_REGISTERS], bare: [u64; ID_REGISTERS]) -> Vec<(&'static str, &'static str)> {
    let vm = vm(host);
    let mut found = Vec::new();
    for register in registers() {
        let differs = vm.read(register.crm, register.op2) ^ word(&bare, register.crm, register.op2);
        for field in register.fields {
            if bits(differs, field.lsb, field.width) != 0 {
                found.push((register.name, field.name));
            }
        }
    }
    found
}

#[test]
fn a_cortex_a72_lacks_nothing() {
    assert_eq!(differences(CORTEX_A72_AT_EL2, CORTEX_A72_BARE), []);
}

#[test]
fn a_cortex_a72_has_no_field_without_a_row() {
    let vm = vm(CORTEX_A72_AT_EL2);
    for (crm, op2) in (1..=7).flat_map(|crm| (0..8).map(move |op2| (crm, op2))) {
        assert_eq!(vm.read(crm, op2), word(&CORTEX_A72_BARE, crm, op2), "CRm {crm} op2 {op2}");
    }
}

#[test]
fn a_cortex_a76_lacks_its_error_records_and_what_is_el2s() {
    assert_eq!(
        differences(CORTEX_A76_AT_EL2, CORTEX_A76_BARE),
        [
            ("ID_PFR0_EL1", "RAS"),
            ("ID_MMFR4_EL1", "XNX"),
            ("ID_AA64PFR0_EL1", "RAS"),
            ("ID_AA64MMFR1_EL1", "VMIDBits"),
            ("ID_AA64MMFR1_EL1", "VH"),
            ("ID_AA64MMFR1_EL1", "LO"),
            ("ID_AA64MMFR1_EL1", "XNX"),
            ("ID_AA64MMFR2_EL1", "IESB"),
        ]
    );
}

#[test]
fn what_qemu_max_loses_is_what_the_rule_hides() {
    let lost = differences(MAX_AT_EL2, MAX_BARE);
    assert!(lost.contains(&("ID_AA64PFR0_EL1", "SVE")) && lost.contains(&("ID_AA64PFR1_EL1", "SME")));
    for (register, field) in lost {
        let row = registers()
            .find(|row| row.name == register)
            .and_then(|row| row.fields.iter().find(|row| row.name == field));
        assert!(row.is_some_and(|row| row.policy != Policy::Native), "{register}.{field}");
    }
}

#[test]
fn features_that_need_el2_or_are_shared_read_as_zero() {
    let vm = vm([u64::MAX; ID_REGISTERS]);
    for (name, crm, op2, lsb) in [
        ("EL2", 4, 0, 8),
        ("EL3", 4, 0, 12),
        ("RAS", 4, 0, 28),
        ("SVE", 4, 0, 32),
        ("MPAM", 4, 0, 40),
        ("AMU", 4, 0, 44),
        ("SME", 4, 1, 24),
        ("NMI", 4, 1, 36),
        ("GCS", 4, 1, 44),
        ("THE", 4, 1, 48),
        ("PMSVer", 5, 0, 32),
        ("TraceVer", 5, 0, 4),
        ("TraceFilt", 5, 0, 40),
        ("TraceBuffer", 5, 0, 44),
        ("BRBE", 5, 0, 52),
        ("LS64", 6, 1, 60),
        ("FGT", 7, 0, 56),
        ("VH", 7, 1, 8),
        ("LO", 7, 1, 16),
        ("HCX", 7, 1, 40),
        ("NV", 7, 2, 24),
        ("FWB", 7, 2, 40),
        ("EVT", 7, 2, 56),
        ("S1PIE", 7, 3, 8),
        ("S1POE", 7, 3, 16),
    ] {
        assert_eq!(bits(vm.read(crm, op2), lsb, 4), 0, "{name}");
    }
    assert_eq!(vm.read(4, 4) | vm.read(4, 5) | vm.read(7, 4), 0, "SVE, SME and EL2 details");
}

#[test]
fn tags_are_in_addresses_and_not_in_memory() {
    assert_eq!(bits(vm([u64::MAX; ID_REGISTERS]).read(4, 1), 8, 4), 1, "MTE");
    assert_eq!(bits(vm([0; ID_REGISTERS]).read(4, 1), 8, 4), 0, "MTE of a CPU without it");
}

#[test]
fn addresses_have_at_most_48_bits() {
    let vm = vm(MAX_AT_EL2);
    assert_eq!(bits(vm.read(7, 0), 0, 4), 5, "PARange");
    assert_eq!(bits(vm.read(7, 0), 20, 4), 1, "TGran16 without LPA2");
    assert_eq!(bits(vm.read(7, 0), 28, 4), 0, "TGran4 without LPA2");
    let without_4k = [0xf000_0000; ID_REGISTERS];
    assert_eq!(
        bits(self::vm(without_4k).read(7, 0), 28, 4),
        0b1111,
        "a granule that is missing stays missing"
    );
}

#[test]
fn the_gic_fields_follow_the_vm_and_not_the_host() {
    let host = HostIdRegisters::new(CORTEX_A76_AT_EL2);
    let v2 = IdRegisters::sanitise(&host, CpuInterface::MemoryMapped);
    let v3 = IdRegisters::sanitise(&host, CpuInterface::SystemRegisters);
    assert_eq!((bits(v2.read(4, 0), 24, 4), bits(v2.read(1, 1), 28, 4)), (0, 0));
    assert_eq!((bits(v3.read(4, 0), 24, 4), bits(v3.read(1, 1), 28, 4)), (1, 1));
}

#[test]
fn rows_are_in_manual_order_and_do_not_overlap() {
    assert!(registers().is_sorted_by(|low, high| (low.crm, low.op2) < (high.crm, high.op2)));
    for register in registers() {
        let mut next = 0;
        for field in register.fields {
            assert!(field.lsb >= next && field.lsb + field.width <= 64, "{}.{}", register.name, field.name);
            next = field.lsb + field.width;
        }
    }
}

#[test]
fn registers_outside_the_space_read_as_zero() {
    let vm = vm([u64::MAX; ID_REGISTERS]);
    assert_eq!(vm.read(0, 0), 0);
    assert_eq!(vm.read(8, 0), 0);
    assert_eq!(vm.read(255, 255), 0);
}

fn host() -> impl Strategy<Value = [u64; ID_REGISTERS]> {
    proptest::collection::vec(any::<u64>(), ID_REGISTERS).prop_map(|words| words.try_into().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

    #[test]
    fn no_field_exceeds_the_host(host in host()) {
        let vm = vm(host);
        for register in registers() {
            for field in register.fields.iter().filter(|field| field.policy != Policy::Gic) {
                let shown = bits(vm.read(register.crm, register.op2), field.lsb, field.width);
                let had = bits(word(&host, register.crm, register.op2), field.lsb, field.width);
                prop_assert!(shown <= had, "{}.{}", register.name, field.name);
            }
        }
    }

    #[test]
    fn sanitising_twice_changes_nothing(host in host()) {
        let once = vm(host);
        prop_assert_eq!(vm(once.0), once);
    }

    #[test]
    fn nothing_shows_outside_the_rows(host in host()) {
        let vm = vm(host);
        let listed = |crm, op2| registers().find(|row| (row.crm, row.op2) == (crm, op2));
        for (crm, op2) in (1..=7).flat_map(|crm| (0..8).map(move |op2| (crm, op2))) {
            let fields = listed(crm, op2).map_or(&[][..], |row| row.fields);
            let mask = fields.iter().fold(0, |all, row| all | bits(u64::MAX, 0, row.width) << row.lsb);
            prop_assert_eq!(vm.read(crm, op2) & !mask, 0);
        }
    }
}

//! Facts about the trap bits, and the page that documents them.

use std::fmt::Write;

use super::*;
use crate::interpreter::id_registers::HostIdRegisters;

/// Finds the row of a field by the start of its name.
fn row(register: ControlRegister, field: &str) -> &'static Trap {
    let (_, traps) = TABLE.iter().find(|(name, _)| *name == register).unwrap();
    traps.iter().find(|trap| trap.field.split(", ").any(|name| name == field)).unwrap_or_else(|| {
        panic!("{register:?} has no row for {field}");
    })
}

/// Feature registers with these 4-bit fields (CRm, op2, lsb, value).
fn host(fields: &[(usize, usize, u32, u64)]) -> HostIdRegisters {
    let mut words = [0; 56];
    for (crm, op2, lsb, value) in fields {
        words[(crm - 1) * 8 + op2] |= value << lsb;
    }
    HostIdRegisters::new(words)
}

#[test]
fn a_cortex_a72_gets_these_words() {
    let features = Features::of_host(&host(&[(5, 0, 8, 1)]));
    assert_eq!(features, Features::PMU);
    assert_eq!(hcr_el2(features), 0x0000_0000_807c_063f);
    assert_eq!(mdcr_el2(features, 6, Grants::NONE), 0xe66);
    assert_eq!(mdcr_el2(features, 6, Grants::DEBUG), 0x866);
    assert_eq!(mdcr_el2(features, 6, Grants::DEBUG.with(Grants::PMU)), 0x806);
    assert_eq!(cptr_el2(features), 0x0010_33ff);
    assert_eq!(cnthctl_el2(features), 1);
    assert_eq!(hstr_el2(features), 0);
}

#[test]
fn the_bits_that_must_be_set_are_set() {
    use ControlRegister::{CPTR_EL2, HCR_EL2, HCRX_EL2, HDFGRTR_EL2, MDCR_EL2, MPAM2_EL2};
    for (register, field, bit) in [
        (HCR_EL2, "VM", 0),
        (HCR_EL2, "SWIO", 1),
        (HCR_EL2, "FMO", 3),
        (HCR_EL2, "IMO", 4),
        (HCR_EL2, "AMO", 5),
        (HCR_EL2, "TID1", 16),
        (HCR_EL2, "TID3", 18),
        (HCR_EL2, "TSC", 19),
        (HCR_EL2, "TIDCP", 20),
        (HCR_EL2, "TACR", 21),
        (HCR_EL2, "TSW", 22),
        (HCR_EL2, "RW", 31),
        (HCR_EL2, "TLOR", 35),
        (HCR_EL2, "TERR", 36),
        (HCR_EL2, "TEA", 37),
        (HCR_EL2, "APK", 40),
        (HCR_EL2, "API", 41),
        (HCR_EL2, "TID5", 58),
        (MDCR_EL2, "TPMCR", 5),
        (MDCR_EL2, "TPM", 6),
        (MDCR_EL2, "TDA", 9),
        (MDCR_EL2, "TDOSA", 10),
        (MDCR_EL2, "TDRA", 11),
        (MDCR_EL2, "TPMS", 14),
        (MDCR_EL2, "TTRF", 19),
        (MDCR_EL2, "TDCC", 27),
        (CPTR_EL2, "TZ", 8),
        (CPTR_EL2, "TSM", 12),
        (CPTR_EL2, "TTA", 20),
        (CPTR_EL2, "TAM", 30),
        (HCRX_EL2, "TALLINT", 6),
        (HCRX_EL2, "MSCEn", 11),
        (MPAM2_EL2, "TRAPMPAM1EL1", 48),
        (MPAM2_EL2, "TRAPMPAM0EL1", 49),
        (HDFGRTR_EL2, "TRBIDR_EL1", 51),
        (HDFGRTR_EL2, "PMBIDR_EL1", 63),
    ] {
        assert_eq!(row(register, field).lsb, bit, "{register:?}.{field}");
        assert_eq!(word(register, Features::ALL) >> bit & 1, 1, "{register:?}.{field}");
    }
}

#[test]
fn what_would_give_away_the_machine_stays_closed() {
    use ControlRegister::{CNTHCTL_EL2, HCR_EL2, HCRX_EL2, HFGITR_EL2, HFGRTR_EL2, HFGWTR_EL2, MDCR_EL2};
    for (register, field) in [
        (HCR_EL2, "E2H"),
        (HCR_EL2, "NV"),
        (HCR_EL2, "ATA"),
        (HCR_EL2, "EnSCXT"),
        (HCR_EL2, "FIEN"),
        (MDCR_EL2, "E2PB"),
        (MDCR_EL2, "E2TB"),
        (MDCR_EL2, "TDE"),
        (CNTHCTL_EL2, "EL1PCEN"),
        (HCRX_EL2, "TCR2En"),
        (HCRX_EL2, "SCTLR2En"),
        (HCRX_EL2, "GCSEn"),
        (HCRX_EL2, "EnFPM"),
        (HCRX_EL2, "EnALS"),
        (HCRX_EL2, "EnIDCP128"),
        (HFGRTR_EL2, "nTPIDR2_EL0"),
        (HFGWTR_EL2, "nPOR_EL0"),
        (HFGITR_EL2, "nBRBIALL"),
    ] {
        assert_eq!(row(register, field).value, 0, "{register:?}.{field}");
    }
    assert_eq!(hfgrtr_el2(Features::ALL) | hfgwtr_el2(Features::ALL) | hfgitr_el2(Features::ALL), 0);
    assert_eq!(fgt2_el2(Features::ALL) | hafgrtr_el2(Features::ALL) | hdfgwtr_el2(Features::ALL), 0);
}

#[test]
fn a_bit_that_the_cpu_does_not_have_stays_zero() {
    assert_eq!(hcr_el2(Features::NONE) >> 32, 0);
    assert_eq!(mdcr_el2(Features::NONE, 31, Grants::NONE), 0xe00);
    assert_eq!(cptr_el2(Features::NONE) >> 30, 0);
    assert_eq!(hcrx_el2(Features::HCX), 0);
    assert_eq!(hcrx_el2(Features::HCX.with(Features::MOPS)), 1 << 11);
    assert_eq!(hdfgrtr_el2(Features::FGT), 0);
}

#[test]
fn a_grant_lifts_its_own_traps_and_nothing_else() {
    let trapped = mdcr_el2(Features::ALL, 6, Grants::NONE);
    for (grant, bits) in [(Grants::DEBUG, 0b110 << 8), (Grants::PMU, 0b11 << 5)] {
        let granted = mdcr_el2(Features::ALL, 6, grant);
        assert_eq!(trapped ^ granted, bits);
        assert_eq!(trapped & granted, granted);
    }
}

#[test]
fn rows_are_in_order_and_do_not_overlap() {
    for (register, traps) in TABLE {
        let mut next = 0;
        for trap in *traps {
            assert!(trap.lsb >= next && trap.lsb + trap.width <= 64, "{register:?}.{}", trap.field);
            assert_eq!(trap.value.checked_shr(u32::from(trap.width)).unwrap_or(0), 0, "{}", trap.field);
            next = trap.lsb + trap.width;
        }
    }
}

#[test]
fn whoever_traps_is_answered_and_says_why() {
    for (register, traps) in TABLE {
        for trap in *traps {
            assert!(!trap.why.is_empty(), "{register:?}.{}", trap.field);
            let module = trap.answers.split_whitespace().next();
            assert!(module.is_none_or(|module| module.contains("::")), "{register:?}.{}", trap.field);
        }
    }
}

#[test]
fn features_are_found_where_the_manual_reports_them() {
    for (feature, field) in [
        (Features::PAUTH, (6, 1, 4, 1)),
        (Features::PAUTH, (6, 1, 8, 4)),
        (Features::PAUTH, (6, 2, 12, 3)),
        (Features::RAS, (4, 0, 28, 2)),
        (Features::LOR, (7, 1, 16, 1)),
        (Features::MTE2, (4, 1, 8, 2)),
        (Features::SME, (4, 1, 24, 1)),
        (Features::AMU, (4, 0, 44, 1)),
        (Features::MPAM, (4, 0, 40, 1)),
        (Features::MPAM, (4, 1, 16, 1)),
        (Features::PMU, (5, 0, 8, 1)),
        (Features::PMU.with(Features::PMU_V3P1), (5, 0, 8, 4)),
        (Features::PMU.with(Features::PMU_V3P1).with(Features::PMU_V3P5), (5, 0, 8, 6)),
        (Features::SPE, (5, 0, 32, 1)),
        (Features::TRF, (5, 0, 40, 1)),
        (Features::TRBE, (5, 0, 44, 1)),
        (Features::FGT, (7, 0, 56, 1)),
        (Features::FGT.with(Features::FGT2), (7, 0, 56, 2)),
        (Features::HCX, (7, 1, 40, 1)),
        (Features::MOPS, (6, 2, 16, 1)),
        (Features::NMI, (4, 1, 36, 1)),
    ] {
        assert_eq!(Features::of_host(&host(&[field])), feature, "{field:?}");
    }
    assert_eq!(Features::of_host(&host(&[(4, 1, 8, 1)])), Features::NONE, "MTE without tags in memory");
    assert_eq!(Features::of_host(&host(&[(5, 0, 8, 15)])), Features::NONE, "a PMU of another kind");
}

#[test]
fn every_feature_has_one_name() {
    let names: Vec<_> = Features::ALL.names().collect();
    assert_eq!(names.len(), 18);
    assert_eq!(Features::MOPS.names().collect::<Vec<_>>(), ["FEAT_MOPS"]);
    assert_eq!(Features::NONE.names().count(), 0);
}

/// Writes the table as docs/traps.md has it.
fn page() -> String {
    let mut page = String::from(
        "# Traps\n\nWhich bit is set, why, and who answers. Made from `src/dispatcher/traps/table.rs` by\n\
         `UPDATE_DOCS=1 cargo test --lib traps`; a test compares the two.\n\n\
         A row without an answer traps nothing: the field is given, or off, or RES1. A field that holds 0 and has an\n\
         answer guards by being 0. A condition names what the CPU must have; the field is 0 on others, where it is RES0.\n",
    );
    for (register, traps) in TABLE {
        write!(page, "\n## {register:?}\n\n").unwrap();
        page.push_str("| bits | field | value | when | why | who answers |\n|---|---|---|---|---|---|\n");
        for trap in *traps {
            let last = trap.lsb + trap.width - 1;
            let bits = if trap.width == 1 { trap.lsb.to_string() } else { format!("{last}:{}", trap.lsb) };
            let condition: Vec<_> = trap.when.names().collect();
            let condition = condition.join(", ");
            let when = match (condition.as_str(), trap.until == Grants::NONE) {
                ("", true) => "always",
                ("", false) => "until granted",
                (_, true) => &condition,
                (_, false) => &format!("{condition}, until granted"),
            };
            let Trap { field, value, why, answers, .. } = trap;
            let answers = if answers.is_empty() { String::new() } else { format!("`{answers}`") };
            writeln!(page, "| {bits} | {field} | {value:#x} | {when} | {why} | {answers} |").unwrap();
        }
    }
    page
}

#[test]
fn the_page_says_what_the_table_says() {
    if cfg!(miri) {
        return; // no files in there
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/traps.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == page, "docs/traps.md is out of date: run `UPDATE_DOCS=1 cargo test --lib traps`");
}

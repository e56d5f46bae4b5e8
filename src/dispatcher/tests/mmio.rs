//! Facts about accesses to devices, and to nothing.

use super::super::Next;
use super::super::traps::Grants;
use super::bench::{
    Bench, EL1H, GICC_DIR, GICD, GICR, GICR_HIGH, KERNEL_VA, RAM, SGI_BASE, Touch, UART, esr, hpfar,
};
use super::machine::Call;
use crate::interpreter::device::Width;
use crate::interpreter::device::vgic::GicVersion;

const WIDTHS: [Width; 4] = [Width::Byte, Width::Half, Width::Word, Width::Double];
const GICD_TYPER_V3: u64 = 0x0378_0008;
const GICD_PRIORITIES: u64 = GICD + 0x400 + 64;
/// ESR_EL1 of a synchronous external abort on a load from EL1.
const EXTERNAL: u64 = 0x25 << 26 | 1 << 25 | 0x10;
const WNR: u64 = 1 << 6;

/// Fills four priorities with bytes whose sign bit is set.
fn with_priorities() -> Bench {
    let mut bench = Bench::new(GicVersion::V3, 1);
    bench.write_word(0, GICD_PRIORITIES, 0xf8e8_d8c8);
    bench
}

/// Loads into X1 and returns it.
fn loaded(bench: &mut Bench, touch: Touch) -> u64 {
    bench.vcpus[0].frame.x[1] = u64::MAX;
    assert_eq!(bench.touch(0, touch), Next::Resume);
    bench.vcpus[0].frame.x[1]
}

#[test]
fn a_load_has_the_width_and_the_sign_of_its_instruction() {
    let load = |width| Touch::load(GICD_PRIORITIES, width);
    for (touch, expected) in [
        (load(Width::Byte), 0xc8),
        (load(Width::Word), 0xf8e8_d8c8),
        (Touch { sign_extend: true, ..load(Width::Byte) }, 0xffff_ffc8),
        (Touch { sign_extend: true, sixty_four: true, ..load(Width::Byte) }, 0xffff_ffff_ffff_ffc8),
        (Touch { sign_extend: true, sixty_four: true, ..load(Width::Word) }, 0xffff_ffff_f8e8_d8c8),
        (Touch { ipa: GICD_PRIORITIES + 3, ..load(Width::Byte) }, 0xf8),
    ] {
        assert_eq!(loaded(&mut with_priorities(), touch), expected);
    }
}

#[test]
fn a_big_endian_guest_sees_the_bytes_turned() {
    const EE: u64 = 1 << 25;
    let mut bench = with_priorities();
    bench.cpus[0].sctlr_el1 = EE;
    assert_eq!(loaded(&mut bench, Touch::load(GICD_PRIORITIES, Width::Word)), 0xc8d8_e8f8);
    let signed = Touch { sign_extend: true, sixty_four: true, ..Touch::load(GICD_PRIORITIES, Width::Word) };
    assert_eq!(loaded(&mut bench, signed), 0xffff_ffff_c8d8_e8f8);
    assert_eq!(loaded(&mut bench, Touch::load(GICD_PRIORITIES + 1, Width::Byte)), 0xd8);
    bench.write_word(0, GICD_PRIORITIES, 0x1020_3040);
    bench.cpus[0].sctlr_el1 = 0;
    assert_eq!(bench.read_word(0, GICD_PRIORITIES), 0x4030_2010);
    bench.vcpus[0].frame.pstate = 0; // EL0 follows E0E, not EE
    bench.cpus[0].sctlr_el1 = EE;
    assert_eq!(bench.read_word(0, GICD_PRIORITIES), 0x4030_2010);
}

#[test]
fn each_width_stores_its_own_bytes() {
    for (width, expected) in
        [(Width::Byte, 0xf8e8_d810), (Width::Half, 0xf8e8_d8c8), (Width::Word, 0x8070_6010)]
    {
        let mut bench = with_priorities();
        bench.write(0, GICD_PRIORITIES, width, 0xffff_ffff_8070_6010);
        assert_eq!(bench.read_word(0, GICD_PRIORITIES), expected, "{width:?}");
    }
}

#[test]
fn a_route_is_64_bits_wide() {
    let mut bench = Bench::new(GicVersion::V3, 2);
    let router = GICD + 0x6000 + 8 * 33;
    bench.write(0, router, Width::Double, 0x1_0000_0001);
    assert_eq!(bench.read(0, router, Width::Double), 0x1_0000_0001);
    assert_eq!((bench.read_word(0, router), bench.read_word(0, router + 4)), (1, 1));
}

#[test]
fn every_width_is_answered_everywhere_in_a_device() {
    for version in [GicVersion::V2, GicVersion::V3] {
        let mut bench = Bench::new(version, 2);
        let devices = match version {
            GicVersion::V2 => vec![GICD, UART, GICC_DIR],
            GicVersion::V3 => vec![GICD, UART, GICR, GICR + SGI_BASE],
        };
        let step = if cfg!(miri) { 64 } else { 1 };
        for (base, width) in devices.iter().flat_map(|base| WIDTHS.map(|width| (base, width))) {
            let aligned = |offset: &u64| offset.is_multiple_of(width.bytes());
            for offset in (0..=0x1000 - width.bytes()).step_by(step).filter(aligned) {
                let value = bench.read(0, base + offset, width);
                assert_eq!(value & !width.mask(), 0);
                bench.write(0, base + offset, width, u64::MAX);
            }
        }
    }
}

#[test]
fn a_store_of_xzr_stores_zero_and_a_load_of_it_is_lost() {
    let mut bench = with_priorities();
    assert_eq!(bench.touch(0, Touch { gpr: 31, ..Touch::store(GICD_PRIORITIES, Width::Byte) }), Next::Resume);
    assert_eq!(bench.read_word(0, GICD_PRIORITIES), 0xf8e8_d800);
    let before = bench.vcpus[0].frame.x;
    assert_eq!(bench.touch(0, Touch { gpr: 31, ..Touch::load(GICD_PRIORITIES, Width::Word) }), Next::Resume);
    assert_eq!(bench.vcpus[0].frame.x, before);
}

#[test]
fn a_device_is_found_at_its_last_byte_and_not_behind_it() {
    let mut bench = Bench::new(GicVersion::V3, 4);
    assert_eq!(bench.read(0, UART + 0xfff, Width::Byte), 0);
    for (ipa, width) in [
        (UART + 0xffd, Width::Word),
        (UART + 0xfff, Width::Half),
        (UART + 0x1000, Width::Byte),
        (UART - 1, Width::Half),
        (GICD + 0x1_0000 - 4, Width::Double),
        (GICR - 4, Width::Double),
        (GICR_HIGH + 0x4_0000 - 1, Width::Half),
    ] {
        for touch in [Touch::load(ipa, width), Touch::store(ipa, width)] {
            let entry = bench.injects(0, touch.esr(), KERNEL_VA | ipa, hpfar(ipa));
            let syndrome = if touch.write { EXTERNAL | WNR } else { EXTERNAL };
            assert_eq!((entry.esr_el1, entry.far_el1), (syndrome, Some(KERNEL_VA | ipa)), "{ipa:#x}");
        }
    }
}

#[test]
fn an_access_that_the_syndrome_does_not_describe_is_an_external_abort() {
    let mut bench = Bench::new(GicVersion::V3, 1);
    for ipa in [UART, GICD, GICR] {
        let pair = esr(0x24, WNR | 0x07);
        let entry = bench.injects(0, pair, KERNEL_VA | ipa, hpfar(ipa));
        assert_eq!((entry.esr_el1, entry.far_el1), (EXTERNAL | WNR, Some(KERNEL_VA | ipa)));
    }
    assert_eq!(bench.vm.uarts[0].model.lock().clone(), crate::interpreter::device::pl011::Pl011::new());
}

#[test]
fn an_application_gets_the_abort_of_a_lower_level() {
    let mut bench = Bench::new(GicVersion::V3, 1);
    bench.vcpus[0].frame.pstate = 0;
    let entry = bench.injects(0, Touch::load(0x1000, Width::Word).esr(), 0x1000, hpfar(0x1000));
    assert_eq!((entry.esr_el1, entry.pc), (0x24 << 26 | 1 << 25 | 0x10, 0x4008_0c00));
}

#[test]
fn what_is_no_translation_fault_never_reaches_a_device() {
    let store = Touch { gpr: 2, ..Touch::store(UART, Width::Word) };
    for (status, expected) in [
        (0x0f, 0x10), // permission
        (0x0b, 0x10), // access flag
        (0x03, 0x10), // address size
        (0x10, 0x10), // external
        (0x21, 0x21), // alignment
        (0x35, 0x35), // unsupported exclusive
    ] {
        let mut bench = Bench::new(GicVersion::V3, 1);
        let entry = bench.injects(0, store.esr() & !0x3f | status, KERNEL_VA | UART, hpfar(UART));
        assert_eq!(entry.esr_el1 & 0x3f, expected, "{status:#x}");
    }
}

#[test]
fn an_abort_without_an_address_says_so() {
    let mut bench = Bench::new(GicVersion::V3, 1);
    let entry = bench.injects(0, esr(0x24, 1 << 10 | 0x10), 0x1234, 0);
    assert_eq!((entry.esr_el1, entry.far_el1), (EXTERNAL | 1 << 10, None));
}

#[test]
fn cache_maintenance_of_what_is_not_memory_does_nothing() {
    // DC CIVAC on a device: there is no line to clean, and no transaction that could fail.
    const CM: u64 = 1 << 8;
    for ipa in [UART, 0x1000] {
        let mut bench = Bench::new(GicVersion::V3, 1);
        let pc = bench.pc(0);
        assert_eq!(bench.exit(0, esr(0x24, CM | WNR | 0x07), KERNEL_VA | ipa, hpfar(ipa)), Next::Resume);
        assert_eq!((bench.pc(0), bench.cpus[0].calls.len()), (pc + 4, 0));
        // Its own translation tables lie there: that is another matter.
        let entry = bench.injects(0, esr(0x24, CM | WNR | 1 << 7 | 0x07), KERNEL_VA | ipa, hpfar(ipa));
        assert_eq!(entry.esr_el1, EXTERNAL | WNR | CM);
    }
}

#[test]
fn a_table_walk_never_reads_a_device() {
    let mut bench = Bench::new(GicVersion::V3, 1);
    bench.receive(0, b"x");
    let entry = bench.injects(0, esr(0x24, 1 << 7 | 0x07), KERNEL_VA, hpfar(UART));
    assert_eq!(entry.esr_el1, EXTERNAL);
    assert_eq!(bench.read_word(0, UART), u64::from(b'x'), "the character is still there");
}

/// Makes a VM whose walks for [`KERNEL_VA`] find tables in RAM down to one at `end`, of level 2.
fn with_tables(end: u64) -> Bench {
    const TABLES: u64 = RAM + 0x10_0000;
    let mut bench = Bench::new(GicVersion::V3, 1);
    let machine = &mut bench.cpus[0];
    (machine.tcr_el1, machine.ttbr_el1) = (16 << 16 | 2 << 30, [0, TABLES]); // T1SZ, TG1: 4 KiB
    for (descriptor, next) in [(TABLES + 8 * 0x100, TABLES + 0x1000), (TABLES + 0x1000, end)] {
        machine.ram.extend((descriptor..).zip((next | 3).to_le_bytes()));
    }
    bench
}

#[test]
fn a_walk_through_nothing_names_its_level() {
    const S1PTW: u64 = 1 << 7;
    const PERMISSION: u64 = 0x0f;
    const FETCH: u64 = 0x21 << 26 | 1 << 25;
    const LOAD: u64 = 0x25 << 26 | 1 << 25;
    // Nothing there, a device that is emulated, or one that the VM has and whose registers no walk may read (HCR_EL2.PTW).
    for (end, fault) in [(0x1000, 0x07), (UART, 0x07), (0x0801_0000, PERMISSION)] {
        let take = |class, iss| {
            let mut bench = with_tables(end);
            bench.injects(0, esr(class, S1PTW | iss), KERNEL_VA | 0x1234, hpfar(end)).esr_el1
        };
        assert_eq!(take(0x24, fault), LOAD | 0x16, "{end:#x}");
        assert_eq!(take(0x24, fault | WNR), LOAD | WNR | 0x16, "{end:#x}");
        assert_eq!(take(0x20, fault), FETCH | 0x16, "{end:#x}");
    }
    // The guest has changed its tables since, or the access itself was refused.
    let mut bench = with_tables(RAM);
    assert_eq!(bench.injects(0, esr(0x24, S1PTW | 0x07), KERNEL_VA, hpfar(0x1000)).esr_el1, EXTERNAL);
    let mut bench = with_tables(0x1000);
    assert_eq!(
        bench.injects(0, Touch::load(0x1000, Width::Word).esr(), KERNEL_VA, hpfar(0x1000)).esr_el1,
        EXTERNAL
    );
    let mut bench = with_tables(0x1000);
    assert_eq!(bench.injects(0, esr(0x20, 0x07), KERNEL_VA, hpfar(0x1000)).esr_el1, FETCH | 0x10);
}

#[test]
fn ram_is_not_a_device() {
    let mut bench = Bench::new(GicVersion::V3, 1);
    for ipa in [RAM, RAM + 0x0fff_ffff, (1 << 48) - 1] {
        assert_eq!(bench.injects(0, Touch::load(ipa, Width::Byte).esr(), ipa, hpfar(ipa)).esr_el1, EXTERNAL);
        bench.vcpus[0].frame.pstate = EL1H;
    }
}

#[test]
fn redistributors_in_two_regions_are_one_row() {
    let mut bench = Bench::new(GicVersion::V3, 4);
    assert_eq!(bench.read_word(0, GICD + 4), GICD_TYPER_V3);
    for (cpu, base) in [(0, GICR), (1, GICR + 0x2_0000), (2, GICR_HIGH), (3, GICR_HIGH + 0x2_0000)] {
        let last = u64::from(cpu == 3) << 4;
        assert_eq!(bench.read(0, base + 8, Width::Double), cpu << 32 | 1 << 24 | cpu << 8 | last);
    }
}

#[test]
fn a_write_to_a_character_register_is_one_character() {
    for (width, value) in WIDTHS.into_iter().zip([0x41, 0x4142, 0x4142_4341, 0x4141_4141_4141_4141]) {
        let mut bench = Bench::new(GicVersion::V3, 1);
        bench.write(0, UART, width, value);
        let [byte, ..] = value.to_le_bytes();
        assert_eq!(bench.cpus[0].calls, [Call::Transmit(byte)]);
    }
}

#[test]
fn a_watchpoint_on_a_device_is_the_guests_before_the_device_is_asked() {
    const WATCHPOINT: u64 = 0x35 << 26 | 1 << 25 | 0x22;
    let mut bench = Bench::new(GicVersion::V3, 1);
    let store = Touch::store(UART, Width::Byte);
    bench.cpus[0].mdscr_el1 = 1 << 15 | 1 << 13; // MDE, KDE
    bench.cpus[0].watchpoint = (KERNEL_VA | UART, 1 | 0b01 << 1 | 0b10 << 3 | 0xff << 5); // stores of EL1
    bench.vcpus[0].frame.pstate = 0x5;
    assert_eq!(bench.touch(0, store), Next::Resume);
    assert_eq!(bench.cpus[0].take_calls(), [Call::Transmit(0)], "it has not been granted the registers yet");
    bench.vcpus[0].granted = Grants::DEBUG;
    let entry = bench.injects(0, store.esr(), KERNEL_VA | UART, hpfar(UART));
    assert_eq!((entry.esr_el1, entry.far_el1), (WATCHPOINT | WNR, Some(KERNEL_VA | UART)));
    bench.vcpus[0].frame.pstate = 0x5;
    assert_eq!(bench.touch(0, Touch::load(UART + 0x18, Width::Word)), Next::Resume);
    assert_eq!(bench.cpus[0].calls, [], "a load, of something else");
    bench.vcpus[0].frame.pstate = 0x205;
    assert_eq!(bench.touch(0, store), Next::Resume);
    assert!(matches!(bench.cpus[0].calls[..], [Call::Transmit(_)]), "PSTATE.D masks it");
}

//! The distributor's registers.

use super::*;
use proptest::prelude::*;

/// Every word of the frame that is not zero after reset.
fn reset_values(vgic: &Vgic, bytes: u64) -> Vec<(u64, u64)> {
    let words = (0..bytes).step_by(4).map(|offset| (offset, vgic.gicd(CPU0, offset)));
    words.filter(|(_, value)| *value != 0).collect()
}

#[test]
fn a_gicv2_comes_out_of_reset_as_on_qemu_virt() {
    let mut expected = vec![(0x4, 0x68), (0x8, 0x43b), (0x100, 0xffff), (0x180, 0xffff)];
    expected.extend((0x800..0x820).step_by(4).map(|offset| (offset, 0x0101_0101)));
    expected.extend([(0xc00, 0xaaaa_aaaa), (0xfd0, 0x04), (0xfe0, 0x90), (0xfe4, 0xb4), (0xfe8, 0x2b)]);
    expected.extend([(0xff0, 0x0d), (0xff4, 0xf0), (0xff8, 0x05), (0xffc, 0xb1)]);
    assert_eq!(reset_values(&new(GicVersion::V2, 4), 0x2000), expected);
}

#[test]
fn a_gicv3_comes_out_of_reset_as_on_qemu_virt_without_lpis() {
    let expected = [
        (0x0, 0x50),
        (0x4, 0x378_0008),
        (0x8, 0x43b),
        (0xffd0, 0x44),
        (0xffe0, 0x92),
        (0xffe4, 0xb4),
        (0xffe8, 0x3b),
        (0xfff0, 0x0d),
        (0xfff4, 0xf0),
        (0xfff8, 0x05),
        (0xfffc, 0xb1),
    ];
    assert_eq!(reset_values(&new(GicVersion::V3, 4), 0x1_1000), expected);
}

#[test]
fn reset_makes_the_gic_as_new_again() {
    for version in BOTH {
        let mut vgic = running(version, 2, &[UART, IntId(20)]);
        vgic.set_line(CPU1, IntId(20), true);
        vgic.set_line(CPU0, UART, true);
        vgic.planned(CPU0);
        vgic.reset();
        let bytes = 0x1_0000;
        assert_eq!(reset_values(&vgic, bytes), reset_values(&new(version, 2), bytes));
        assert!(!vgic.has_pending(CPU0) && !vgic.has_pending(CPU1));
        assert_eq!(vgic.planned(CPU0).used, 0);
    }
}

#[test]
fn the_cpu_number_in_typer_counts_the_vcpus_of_a_gicv2() {
    assert_eq!(new(GicVersion::V2, 1).gicd(CPU0, 4), 0x08);
    assert_eq!(new(GicVersion::V2, 8).gicd(CPU0, 4), 0xe8);
    assert_eq!(new(GicVersion::V2, 9).gicd(CPU0, 4), 0xe8);
}

#[test]
fn control_keeps_the_group_enables_only() {
    for (version, expected) in [(GicVersion::V2, 0x3), (GicVersion::V3, 0x53)] {
        let mut vgic = new(version, 2);
        let mut both = VcpuSet::only(CPU0);
        both.add(VcpuSet::only(CPU1));
        assert_eq!(vgic.set_gicd(CPU0, CTLR, 0xffff_ffff), both);
        assert_eq!(vgic.gicd(CPU0, CTLR), expected);
        assert!(vgic.set_gicd(CPU0, CTLR, 3).is_empty());
    }
}

#[test]
fn set_and_clear_registers_show_the_same_bits() {
    let pairs = [(ISENABLER, ICENABLER), (ISPENDR, ICPENDR), (ISACTIVER, ICACTIVER)];
    for version in BOTH {
        for (set, clear) in pairs {
            let mut vgic = new(version, 4);
            vgic.set_gicd(CPU0, set + 0x20, 0x8421_8421);
            assert_eq!(vgic.gicd(CPU0, set + 0x20), 0x8421_8421);
            assert_eq!(vgic.gicd(CPU1, clear + 0x20), 0x8421_8421);
            vgic.set_gicd(CPU1, clear + 0x20, 0x8000_0001);
            assert_eq!(vgic.gicd(CPU0, set + 0x20), 0x0421_8420);
            vgic.set_gicd(CPU0, set + 0x24, 0xffff_ffff);
            assert_eq!(vgic.gicd(CPU0, set + 0x24), 0, "SPIs end at 287");
        }
    }
}

#[test]
fn private_registers_are_banked_in_a_gicv2_and_absent_in_a_gicv3() {
    let arrays = [IGROUPR, ISENABLER, ISPENDR, ISACTIVER, IPRIORITYR + 16, ICFGR + 4];
    for array in arrays {
        let mut vgic = new(GicVersion::V2, 2);
        let other = vgic.gicd(CPU1, array);
        vgic.set_gicd(CPU0, array, 0xaaaa_0000);
        assert_eq!(vgic.gicd(CPU0, array) & 0xffff_0000, 0xaaaa_0000);
        assert_eq!(vgic.gicd(CPU1, array), other);
        let mut vgic = new(GicVersion::V3, 2);
        vgic.set_gicd(CPU0, array, 0xffff_ffff);
        assert_eq!(vgic.gicd(CPU0, array), 0);
    }
}

#[test]
fn sgis_of_a_gicv2_are_always_enabled_and_edge_triggered() {
    let mut vgic = new(GicVersion::V2, 2);
    vgic.set_gicd(CPU0, ICENABLER, 0xffff_ffff);
    vgic.set_gicd(CPU0, ICFGR, 0);
    vgic.set_gicd(CPU0, ISPENDR, 0xffff_ffff);
    assert_eq!(vgic.gicd(CPU0, ISENABLER), 0xffff);
    assert_eq!(vgic.gicd(CPU0, ICFGR), 0xaaaa_aaaa);
    assert_eq!(vgic.gicd(CPU0, ISPENDR), 0xffff_0000);
}

#[test]
fn priorities_and_targets_are_accessible_by_bytes() {
    let mut vgic = new(GicVersion::V2, 4);
    for (array, written, read) in [(IPRIORITYR, 0x5a, 0x5a), (ITARGETSR, 0xf6, 0x06)] {
        vgic.distributor_write(CPU0, array + 0x21, Width::Byte, written);
        assert_eq!(vgic.gicd(CPU0, array + 0x20), read << 8);
        assert_eq!(vgic.distributor_read(CPU0, array + 0x21, Width::Byte), read);
        vgic.distributor_write(CPU0, array + 0x20, Width::Half, 0xffff);
        assert_eq!(vgic.gicd(CPU0, array + 0x20), read << 8);
    }
}

#[test]
fn configuration_has_the_odd_bits_only() {
    for version in BOTH {
        let mut vgic = new(version, 1);
        vgic.set_gicd(CPU0, ICFGR + 8, 0xffff_ffff);
        vgic.set_gicd(CPU0, ICFGR + 12, 0x9999_9999);
        assert_eq!(vgic.gicd(CPU0, ICFGR + 8), 0xaaaa_aaaa);
        assert_eq!(vgic.gicd(CPU0, ICFGR + 12), 0x8888_8888);
        assert_eq!(vgic.gicd(CPU0, ICFGR + 16), 0);
    }
}

#[test]
fn targets_of_private_interrupts_name_the_reader() {
    let vgic = new(GicVersion::V2, 4);
    assert_eq!(vgic.gicd(VcpuId(2), ITARGETSR), 0x0404_0404);
    assert_eq!(vgic.gicd(VcpuId(2), ITARGETSR + 0x1c), 0x0404_0404);
}

#[test]
fn a_single_cpu_has_no_target_registers_and_takes_every_spi() {
    let mut vgic = new(GicVersion::V2, 1);
    vgic.set_gicd(CPU0, CTLR, 1);
    vgic.set_gicd(CPU0, ITARGETSR + 0x20, 0x0101_0101);
    assert_eq!(vgic.gicd(CPU0, ITARGETSR), 0);
    assert_eq!(vgic.gicd(CPU0, ITARGETSR + 0x20), 0);
    vgic.set_bit(CPU0, ISENABLER, UART);
    assert_eq!(vgic.set_line(CPU0, UART, true), VcpuSet::only(CPU0));
    assert!(vgic.has_pending(CPU0));
}

#[test]
fn a_router_is_one_register_or_two_halves() {
    let mut vgic = new(GicVersion::V3, 2);
    let offset = IROUTER + 8 * 33;
    vgic.distributor_write(CPU0, offset, Width::Double, 0x1234_5678_9abc_def0);
    assert_eq!(vgic.gicd(CPU0, offset), 0x9abc_def0);
    assert_eq!(vgic.gicd(CPU0, offset + 4), 0x1234_5678);
    vgic.set_gicd(CPU0, offset + 4, 7);
    assert_eq!(vgic.distributor_read(CPU0, offset, Width::Double), 0x7_9abc_def0);
    for (hole, width) in
        [(offset + 4, Width::Double), (IROUTER, Width::Double), (IROUTER + 8 * 288, Width::Word)]
    {
        vgic.distributor_write(CPU0, hole, width, u64::MAX);
        assert_eq!(vgic.distributor_read(CPU0, hole, width), 0);
    }
    assert_eq!(vgic.distributor_read(CPU0, offset, Width::Double), 0x7_9abc_def0);
    let mut v2 = new(GicVersion::V2, 2);
    v2.distributor_write(CPU0, offset, Width::Double, u64::MAX);
    assert_eq!(v2.distributor_read(CPU0, offset, Width::Double), 0);
}

#[test]
fn unknown_vcpus_read_zero_and_write_nothing() {
    for version in BOTH {
        let mut vgic = new(version, 2);
        for cpu in [VcpuId(2), VcpuId(64), VcpuId(255)] {
            assert!(vgic.set_gicd(cpu, ISENABLER, 0xffff_ffff).is_empty());
            assert_eq!(vgic.gicd(cpu, ISENABLER), 0);
            assert!(vgic.set_line(cpu, TIMER, true).is_empty());
            assert!(!vgic.has_pending(cpu));
            assert_eq!(vgic.planned(cpu).used, 0);
            assert!(vgic.deactivate(cpu, IntId(5000)).is_empty());
        }
        assert_eq!(Vgic::new(version, &[], MAX_SPIS).planned(CPU0).used, 0);
    }
}

#[derive(Clone, Debug)]
enum Op {
    Gicd(u8, u64, Width, u64),
    Gicr(u64, Width, u64),
    Sgi(u8, SgiRegister, u64),
    Line(u8, u32, bool),
    Deactivate(u8, u32),
    Plan(u8, u8),
    Fold(u8, u8, u64),
    Withdraw(u8),
    Reset,
}

fn any_width() -> impl Strategy<Value = Width> {
    prop::sample::select(vec![Width::Byte, Width::Half, Width::Word, Width::Double])
}

fn any_op() -> impl Strategy<Value = Op> {
    let cpu = 0..5_u8;
    let near = prop_oneof![0..0x1000_u64, 0x6000..0x8000_u64, any::<u64>()];
    let frame = prop_oneof![0..0x8_0000_u64, any::<u64>()];
    let frame_bits = (0..4_u64, 0..0x400_u64).prop_map(|(cpu, word)| cpu * 0x2_0000 + 0x1_0000 + word * 4);
    let register = prop::sample::select(vec![SgiRegister::Sgi0r, SgiRegister::Sgi1r, SgiRegister::Asgi1r]);
    let sgi = prop_oneof![any::<u64>(), (0..16_u64, 0..16_u64).prop_map(|(id, list)| id << 24 | list)];
    prop_oneof![
        6 => (cpu.clone(), near, any_width(), any::<u64>()).prop_map(|(c, o, w, v)| Op::Gicd(c, o, w, v)),
        6 => (cpu.clone(), 0..0x400_u64, any::<u64>()).prop_map(|(c, o, v)| Op::Gicd(c, o * 4, Width::Word, v)),
        4 => (prop_oneof![frame, frame_bits], any_width(), any::<u64>()).prop_map(|(o, w, v)| Op::Gicr(o, w, v)),
        2 => (cpu.clone(), register, sgi).prop_map(|(c, r, v)| Op::Sgi(c, r, v)),
        4 => (cpu.clone(), 0..300_u32, any::<bool>()).prop_map(|(c, i, l)| Op::Line(c, i, l)),
        2 => (cpu.clone(), 0..300_u32).prop_map(|(c, i)| Op::Deactivate(c, i)),
        4 => (cpu.clone(), prop_oneof![Just(4), any::<u8>()]).prop_map(|(c, n)| Op::Plan(c, n)),
        4 => (cpu.clone(), 0..4_u8, any::<u64>()).prop_map(|(c, e, s)| Op::Fold(c, e, s)),
        1 => cpu.prop_map(Op::Withdraw),
        1 => Just(Op::Reset),
    ]
}

/// Applies an operation; list registers come back with any states at all, `scramble` says which.
fn apply(vgic: &mut Vgic, loaded: &mut [ListRegisters], op: &Op) {
    match *op {
        Op::Gicd(cpu, offset, width, value) => {
            let _ = vgic.distributor_read(VcpuId(cpu), offset, width);
            vgic.distributor_write(VcpuId(cpu), offset, width, value);
        }
        Op::Gicr(offset, width, value) => {
            let _ = vgic.redistributor_read(offset, width);
            vgic.redistributor_write(offset, width, value);
        }
        Op::Sgi(cpu, register, value) => {
            vgic.send_sgi_v3(VcpuId(cpu), register, value);
        }
        Op::Line(cpu, intid, level) => {
            vgic.set_line(VcpuId(cpu), IntId(intid), level);
        }
        Op::Deactivate(cpu, intid) => {
            vgic.deactivate(VcpuId(cpu), IntId(intid));
        }
        Op::Plan(cpu, count) => {
            let out = &mut loaded[usize::from(cpu)];
            out.count = count;
            vgic.plan(VcpuId(cpu), out);
        }
        Op::Fold(cpu, eois, scramble) => {
            let out = &mut loaded[usize::from(cpu)];
            out.eoi_count = eois;
            for (number, entry) in out.entries.iter_mut().enumerate() {
                let bits = scramble >> (2 * number);
                entry.state = State::new(bits & 1 != 0, bits & 2 != 0);
            }
            let _ = vgic.fold(VcpuId(cpu), out);
        }
        Op::Withdraw(cpu) => while vgic.take_errand(VcpuId(cpu)).is_some() {},
        Op::Reset => {
            vgic.reset();
            loaded.iter_mut().for_each(ListRegisters::clear);
        }
    }
}

#[test]
fn a_distributor_has_the_shared_interrupts_that_it_was_made_with() {
    for version in BOTH {
        let mut vgic = Vgic::new(version, &affinities(2), 64);
        assert_eq!(vgic.gicd(CPU0, 4) & 0x1f, 2, "ITLinesNumber");
        vgic.set_gicd(CPU0, CTLR, 3);
        let (last, beyond) = (IntId(95), IntId(96));
        for (intid, there) in [(last, true), (beyond, false)] {
            vgic.set_bit(CPU0, ISENABLER, intid);
            vgic.set_priority(CPU0, intid, 0x80);
            vgic.set_target(intid, CPU1);
            vgic.set_bit(CPU0, ISPENDR, intid);
            assert_eq!(vgic.bit(CPU0, ISENABLER, intid), there);
            assert_eq!(vgic.distributor_read(CPU0, IPRIORITYR + u64::from(intid.0), Width::Byte) != 0, there);
            let target = match version {
                GicVersion::V2 => ITARGETSR + u64::from(intid.0),
                GicVersion::V3 => IROUTER + u64::from(intid.0) * 8,
            };
            let width = if version == GicVersion::V2 { Width::Byte } else { Width::Double };
            assert_eq!(vgic.distributor_read(CPU0, target, width) != 0, there);
            assert_eq!(vgic.planned(CPU1).in_use().any(|entry| entry.virtual_id == intid), there);
            assert!(there || vgic.set_line(CPU0, intid, true).is_empty());
        }
        assert_eq!(vgic.busy & !0b11, 0, "banks that are not there are not looked at");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn no_sequence_panics_or_shows_an_interrupt_twice(
        version in prop::sample::select(BOTH.to_vec()),
        ops in prop::collection::vec(any_op(), 1..if cfg!(miri) { 12 } else { 120 }),
    ) {
        let mut vgic = new(version, 4);
        vgic.back_by_hardware(TIMER, TIMER);
        vgic.back_by_hardware(IntId(40), IntId(72));
        let mut loaded = vec![ListRegisters::new(4); 5];
        for op in &ops {
            apply(&mut vgic, &mut loaded, op);
            // Every interrupt that list registers may show is known to the bank, and to one vCPU only.
            for (index, bank) in vgic.spis.iter().enumerate() {
                let mut seen = 0;
                let mut owned = 0;
                for vcpu in &vgic.vcpus {
                    prop_assert_eq!(seen & vcpu.resident[index], 0);
                    prop_assert_eq!(owned & vcpu.owned[index], 0);
                    seen |= vcpu.resident[index];
                    owned |= vcpu.owned[index];
                }
                prop_assert_eq!(seen, bank.resident);
                prop_assert_eq!(owned & !bank.active, 0);
                let waits = !bank.is_idle(vgic.groups);
                prop_assert!(!waits || vgic.busy >> index & 1 != 0, "bank {} is forgotten", index);
            }
            for vcpu in &vgic.vcpus {
                let spis: u32 = vcpu.resident.iter().map(|word| word.count_ones()).sum();
                prop_assert_eq!(vcpu.residents, spis + vcpu.private.resident.count_ones());
            }
        }
    }

    #[test]
    fn reads_never_change_state(
        version in prop::sample::select(BOTH.to_vec()),
        ops in prop::collection::vec(any_op(), 1..if cfg!(miri) { 8 } else { 40 }),
        offset in 0..0x1_0000_u64,
    ) {
        let mut vgic = new(version, 4);
        let mut loaded = vec![ListRegisters::new(4); 5];
        ops.iter().for_each(|op| apply(&mut vgic, &mut loaded, op));
        for width in [Width::Byte, Width::Half, Width::Word, Width::Double] {
            let value = vgic.distributor_read(CPU1, offset, width);
            prop_assert_eq!(value & !width.mask(), 0);
            prop_assert_eq!(vgic.distributor_read(CPU1, offset, width), value);
        }
    }
}

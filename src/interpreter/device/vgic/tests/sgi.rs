//! Software generated interrupts.

use super::*;

fn set(vcpus: &[u8]) -> VcpuSet {
    let mut set = VcpuSet::EMPTY;
    vcpus.iter().for_each(|vcpu| set.add(VcpuSet::only(VcpuId(*vcpu))));
    set
}

/// A GICv3 with SGI 5 of every vCPU enabled, in Group 1.
fn group1(vgic: &mut Vgic, vcpus: u8) {
    vgic.set_gicd(CPU0, CTLR, 3);
    for cpu in (0..vcpus).map(VcpuId) {
        vgic.set_bit(cpu, IGROUPR, IntId(5));
        vgic.set_bit(cpu, ISENABLER, IntId(5));
    }
}

#[test]
fn a_target_list_names_vcpus_by_affinity() {
    let places = [(0, 0), (0, 3), (1, 3), (0, 19)];
    let places = places.map(|(aff1, aff0)| Affinity { aff1, aff0, ..Affinity::default() });
    let mut vgic = Vgic::new(GicVersion::V3, &places, MAX_SPIS);
    group1(&mut vgic, 4);
    let sgi5 = 5 << 24;
    let mut send = |value: u64| vgic.send_sgi_v3(CPU0, SgiRegister::Sgi1r, sgi5 | value);
    assert_eq!(send(0b1001), set(&[0, 1]));
    assert_eq!(send(1 << 16 | 0b1001), set(&[2]));
    assert_eq!(send(1 << 44 | 0b1001), set(&[3]));
    assert_eq!(send(1 << 32 | 0b1001), set(&[]));
    assert_eq!(send(1 << 48 | 0b1001), set(&[]));
    assert_eq!(send(1 << 40), set(&[1, 2, 3]));
}

#[test]
fn a_register_reaches_the_sgis_of_its_group_only() {
    let mut vgic = new(GicVersion::V3, 2);
    group1(&mut vgic, 1);
    vgic.set_bit(CPU1, ISENABLER, IntId(5));
    for register in [SgiRegister::Sgi0r, SgiRegister::Asgi1r] {
        assert_eq!(vgic.send_sgi_v3(CPU0, register, 5 << 24 | 3), set(&[1]));
    }
    assert!(!vgic.bit(CPU0, ISPENDR, IntId(5)));
    assert_eq!(vgic.send_sgi_v3(CPU0, SgiRegister::Sgi1r, 5 << 24 | 3), set(&[0]));
}

#[test]
fn sgi_to_a_powered_off_vcpu_stays_pending() {
    let mut vgic = new(GicVersion::V3, 2);
    assert!(vgic.send_sgi_v3(CPU0, SgiRegister::Sgi0r, 5 << 24 | 2).is_empty());
    assert!(vgic.bit(CPU1, ISPENDR, IntId(5)) && !vgic.has_pending(CPU1));
    vgic.set_gicd(CPU0, CTLR, 1);
    vgic.set_bit(CPU1, ISENABLER, IntId(5));
    assert!(vgic.has_pending(CPU1));
    assert_eq!(vgic.planned(CPU1).entries[0].virtual_id, IntId(5));
    let mut v2 = new(GicVersion::V2, 2);
    v2.set_gicd(CPU0, CTLR, 1);
    assert_eq!(v2.set_gicd(CPU0, SGIR, 1 << 24 | 7), set(&[1]));
    assert_eq!(v2.gicd(CPU1, SPENDSGIR + 4), 1 << 24);
    assert_eq!(v2.planned(CPU1).entries[0].virtual_id, IntId(7));
}

#[test]
fn sgir_filters_list_others_or_self() {
    let mut vgic = running(GicVersion::V2, 4, &[]);
    assert_eq!(vgic.set_gicd(CPU1, SGIR, 0xf5 << 16 | 2), set(&[0, 2]));
    assert_eq!(vgic.set_gicd(CPU1, SGIR, 1 << 24 | 3), set(&[0, 2, 3]));
    assert_eq!(vgic.set_gicd(CPU1, SGIR, 2 << 24 | 4), set(&[1]));
    assert_eq!(vgic.set_gicd(CPU1, SGIR, 3 << 24 | 0xf << 16 | 5), set(&[]));
    assert_eq!(vgic.gicd(CPU0, SPENDSGIR), 0x0202_0000);
    assert_eq!(vgic.gicd(CPU1, ISPENDR), 1 << 4);
    assert_eq!(vgic.gicd(CPU1, SGIR), 0);
}

#[test]
fn sgi_pending_registers_have_a_byte_of_sources_for_each() {
    let mut vgic = running(GicVersion::V2, 2, &[]);
    vgic.distributor_write(CPU0, SPENDSGIR + 5, Width::Byte, 0xff);
    assert_eq!(vgic.gicd(CPU0, CPENDSGIR + 4), 0x0300, "there are two sources");
    vgic.distributor_write(CPU0, CPENDSGIR + 5, Width::Byte, 1);
    assert_eq!(vgic.distributor_read(CPU0, SPENDSGIR + 5, Width::Byte), 2);
    assert!(vgic.bit(CPU0, ISPENDR, IntId(5)));
    vgic.set_gicd(CPU0, CPENDSGIR + 4, 0xffff_ffff);
    assert!(!vgic.bit(CPU0, ISPENDR, IntId(5)) && !vgic.has_pending(CPU0));
}

#[test]
fn each_source_of_a_v2_sgi_is_delivered_by_itself() {
    let mut vgic = running(GicVersion::V2, 4, &[]);
    vgic.set_gicd(VcpuId(3), SGIR, 1 << 16 | 7);
    vgic.set_gicd(CPU1, SGIR, 1 << 16 | 7);
    let mut loaded = vgic.planned(CPU0);
    let first = loaded.entries[0];
    assert_eq!((loaded.used, first.source, first.eoi_maintenance), (1, CPU1, true));
    assert_eq!(vgic.gicd(CPU0, SPENDSGIR + 4), 0b1010 << 24);
    loaded.entries[0].state = State::Active;
    assert!(vgic.fold(CPU0, &loaded).is_empty());
    let mut loaded = vgic.planned(CPU0);
    let first = loaded.entries[0];
    assert_eq!((first.state, first.source, first.eoi_maintenance), (State::Active, CPU1, true));
    loaded.entries[0].state = State::Invalid;
    assert!(vgic.fold(CPU0, &loaded).is_empty());
    let loaded = vgic.planned(CPU0);
    let second = loaded.entries[0];
    assert_eq!((second.state, second.source, second.eoi_maintenance), (State::Pending, VcpuId(3), false));
    assert!(vgic.fold(CPU0, &loaded).is_empty());
    assert_eq!(vgic.gicd(CPU0, SPENDSGIR + 4), 0b1000 << 24, "not taken: back where it was");
}

#[test]
fn a_v2_sgi_can_be_cleared_while_it_is_in_a_list_register() {
    let mut vgic = running(GicVersion::V2, 2, &[]);
    vgic.set_gicd(CPU1, SGIR, 1 << 16 | 7);
    let loaded = vgic.planned(CPU0);
    vgic.set_gicd(CPU0, CPENDSGIR + 4, 2 << 24);
    assert_eq!(vgic.gicd(CPU0, SPENDSGIR + 4), 0);
    assert!(vgic.fold(CPU0, &loaded).is_empty());
    assert_eq!(vgic.planned(CPU0).used, 0);
}

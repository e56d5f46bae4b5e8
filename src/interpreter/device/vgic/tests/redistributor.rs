//! The redistributors' registers.

use super::*;

fn read(vgic: &Vgic, offset: u64) -> u64 {
    vgic.redistributor_read(offset, Width::Word)
}

#[test]
fn a_redistributor_comes_out_of_reset_as_on_qemu_virt() {
    let vgic = new(GicVersion::V3, 4);
    let words =
        (0..REDISTRIBUTOR_BYTES).step_by(4).map(|offset| (offset, read(&vgic, REDISTRIBUTOR_BYTES + offset)));
    let found: Vec<_> = words.filter(|(_, value)| *value != 0).collect();
    let expected = [
        (0x4, 0x43b),
        (0x8, 0x100_0100),
        (0xc, 1),
        (0x14, 6),
        (0xffd0, 0x44),
        (0xffe0, 0x93),
        (0xffe4, 0xb4),
        (0xffe8, 0x3b),
        (0xfff0, 0x0d),
        (0xfff4, 0xf0),
        (0xfff8, 0x05),
        (0xfffc, 0xb1),
        (0x1_0c00, 0xaaaa_aaaa),
    ];
    assert_eq!(found, expected);
}

#[test]
fn typer_has_the_affinity_and_marks_the_last_frame() {
    let place = Affinity { aff3: 4, aff2: 3, aff1: 2, aff0: 1 };
    let vgic = Vgic::new(GicVersion::V3, &[Affinity::default(), place], MAX_SPIS);
    let offset = REDISTRIBUTOR_BYTES + 8;
    assert_eq!(vgic.redistributor_read(offset, Width::Double), 0x0403_0201_0100_0110);
    assert_eq!(read(&vgic, offset), 0x0100_0110);
    assert_eq!(read(&vgic, offset + 4), 0x0403_0201);
    assert_eq!(vgic.redistributor_read(8, Width::Double), 0x0100_0000);
}

#[test]
fn children_sleep_and_wake_with_the_processor() {
    let mut vgic = new(GicVersion::V3, 2);
    vgic.redistributor_write(0x14, Width::Word, 0);
    assert_eq!((read(&vgic, 0x14), read(&vgic, REDISTRIBUTOR_BYTES + 0x14)), (0, 6));
    vgic.redistributor_write(0x14, Width::Word, 2);
    assert_eq!(read(&vgic, 0x14), 6);
    vgic.redistributor_write(0x14, Width::Word, 0xffff_fffd);
    assert_eq!(read(&vgic, 0x14), 0);
}

#[test]
fn each_private_register_is_writable_as_on_qemu_virt() {
    let ones = 0xffff_ffff;
    let rows = [
        (IGROUPR, ones),
        (ISENABLER, ones),
        (ISPENDR, ones),
        (ISACTIVER, ones),
        (IPRIORITYR, ones),
        (IPRIORITYR + 0x1c, ones),
        (IPRIORITYR + 0x20, 0),
        (ICFGR, 0xaaaa_aaaa),
        (ICFGR + 4, 0xaaaa_aaaa),
        (0xd00, 0),
        (0xe00, 0),
        (ISENABLER + 4, 0),
        (ITARGETSR, 0),
        (SGIR, 0),
        (CPENDSGIR, 0),
    ];
    for (offset, expected) in rows {
        let mut vgic = new(GicVersion::V3, 2);
        let offset = REDISTRIBUTOR_BYTES + SGI_BASE + offset;
        vgic.redistributor_write(offset, Width::Word, ones);
        assert_eq!(read(&vgic, offset), expected, "{offset:#x}");
        assert_eq!(read(&vgic, offset - REDISTRIBUTOR_BYTES), read(&new(GicVersion::V3, 2), offset));
    }
}

#[test]
fn there_are_no_lpi_registers() {
    let mut vgic = new(GicVersion::V3, 1);
    for offset in [0x0, 0x70, 0x78, 0x1000] {
        for width in [Width::Word, Width::Double] {
            vgic.redistributor_write(offset, width, u64::MAX);
            assert_eq!(vgic.redistributor_read(offset, width), 0);
        }
    }
}

#[test]
fn there_is_nothing_behind_the_last_frame_nor_in_a_gicv2() {
    let mut vgic = new(GicVersion::V3, 2);
    let mut v2 = new(GicVersion::V2, 2);
    assert!(
        vgic.redistributor_write(2 * REDISTRIBUTOR_BYTES + SGI_BASE + ISENABLER, Width::Word, 1).is_empty()
    );
    assert_eq!(read(&vgic, 2 * REDISTRIBUTOR_BYTES + 4), 0);
    assert_eq!(read(&vgic, u64::MAX - 3), 0);
    v2.redistributor_write(SGI_BASE + ISENABLER, Width::Word, 0xffff_ffff);
    assert_eq!(read(&v2, 4), 0);
    assert_eq!(v2.gicd(CPU0, ISENABLER), 0xffff);
}

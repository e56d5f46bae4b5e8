//! Delivery through list registers, one fact at a time.

use super::cpu::VirtualCpu;
use super::*;

const SPI_A: IntId = IntId(40);

/// Loads a plan into a CPU interface with four list registers.
fn entered(vgic: &mut Vgic, cpu: VcpuId) -> VirtualCpu {
    let mut state = VirtualCpu::new(cpu, 4);
    state.enter(vgic);
    state
}

fn timer_gic(version: GicVersion) -> Vgic {
    let mut vgic = running(version, 2, &[]);
    vgic.back_by_hardware(TIMER, IntId(30));
    assert_eq!(vgic.set_bit(CPU0, ISENABLER, TIMER), VcpuSet::only(CPU0), "hardware_enabled changes");
    vgic
}

#[test]
fn nothing_pending_plans_nothing() {
    for version in BOTH {
        let planned = running(version, 1, &[UART]).planned(CPU0);
        assert_eq!(planned, ListRegisters::new(4));
    }
}

#[test]
fn the_timer_is_ended_by_the_hardware() {
    for version in BOTH {
        let mut vgic = timer_gic(version);
        assert_eq!(vgic.planned(CPU0).hardware_enabled, 1 << 27);
        assert_eq!(vgic.set_line(CPU0, TIMER, true), VcpuSet::only(CPU0));
        let mut cpu = entered(&mut vgic, CPU0);
        let entry = cpu.acknowledge().unwrap();
        assert_eq!((entry.virtual_id, entry.physical), (TIMER, Some(IntId(30))));
        assert!(!entry.eoi_maintenance);
        cpu.end(false);
        assert_eq!(cpu.deactivated, [IntId(30)]);
        assert!(cpu.leave(&mut vgic).is_empty());
        let planned = vgic.planned(CPU0);
        assert_eq!((planned.used, planned.withdrawn), (0, false), "its line counts as low");
        assert_eq!(vgic.set_line(CPU0, TIMER, true), VcpuSet::only(CPU0));
        assert_eq!(vgic.planned(CPU0).used, 1);
    }
}

#[test]
fn a_timer_disabled_while_pending_is_withdrawn() {
    for version in BOTH {
        let mut vgic = timer_gic(version);
        vgic.set_line(CPU0, TIMER, true);
        let cpu = &mut entered(&mut vgic, CPU0);
        assert!(cpu.leave(&mut vgic).is_empty());
        assert_eq!(vgic.set_bit(CPU0, ICENABLER, TIMER), VcpuSet::only(CPU0));
        assert!(!vgic.is_enabled(CPU0, TIMER));
        let planned = vgic.planned(CPU0);
        assert_eq!((planned.used, planned.withdrawn, planned.hardware_enabled), (0, true, 0));
        assert_eq!(vgic.take_errand(CPU0), Some(Errand::Deactivate(IntId(30))));
        assert_eq!(vgic.take_errand(CPU0), None);
        assert!(!vgic.planned(CPU0).withdrawn);
    }
}

#[test]
fn a_physical_interrupt_cleared_by_the_guest_is_withdrawn() {
    for version in BOTH {
        for resident in [false, true] {
            let mut vgic = timer_gic(version);
            vgic.set_line(CPU0, TIMER, true);
            let cpu = resident.then(|| entered(&mut vgic, CPU0));
            assert_eq!(vgic.set_bit(CPU0, ICPENDR, TIMER), VcpuSet::only(CPU0));
            assert!(!vgic.bit(CPU0, ISPENDR, TIMER));
            if let Some(mut cpu) = cpu {
                assert!(cpu.leave(&mut vgic).is_empty());
            }
            assert_eq!(vgic.planned(CPU0).used, 0);
            assert_eq!(vgic.take_errand(CPU0), Some(Errand::Deactivate(IntId(30))));
        }
    }
}

#[test]
fn a_physical_interrupt_that_nobody_listens_to_is_withdrawn() {
    let mut vgic = running(GicVersion::V3, 1, &[]);
    vgic.back_by_hardware(TIMER, TIMER);
    vgic.back_by_hardware(SPI_A, IntId(72));
    vgic.set_target(SPI_A, CPU0);
    for (intid, physical) in [(TIMER, TIMER), (SPI_A, IntId(72))] {
        assert_eq!(vgic.set_line(CPU0, intid, true), VcpuSet::only(CPU0));
        let planned = vgic.planned(CPU0);
        assert_eq!((planned.used, planned.withdrawn), (0, true));
        assert_eq!(vgic.take_errand(CPU0), Some(Errand::Deactivate(physical)));
        assert_eq!(vgic.take_errand(CPU0), None);
    }
}

/// A GIC with a device of the host's behind SPI_A, which the guest routes to vCPU 0 and enables.
fn device_gic(version: GicVersion) -> Vgic {
    let mut vgic = running(version, 2, &[]);
    vgic.back_by_hardware(SPI_A, DEVICE);
    let mut concerned = vgic.set_bit(CPU0, ISENABLER, SPI_A);
    concerned.add(vgic.set_target(SPI_A, CPU0)); // a GICv2 begins without a route
    assert_eq!(concerned, VcpuSet::only(CPU0), "somebody is to let it through");
    assert!(vgic.planned(CPU0).withdrawn);
    assert_eq!(vgic.take_errand(CPU0), Some(Errand::LetThrough(DEVICE, true)));
    assert_eq!(vgic.take_errand(CPU0), None);
    assert!(!vgic.planned(CPU0).withdrawn);
    vgic
}

/// The physical interrupt behind SPI_A.
const DEVICE: IntId = IntId(72);

#[test]
fn a_devices_interrupt_is_let_through_as_the_guest_wishes() {
    for version in BOTH {
        let mut vgic = device_gic(version);
        assert_eq!(vgic.set_bit(CPU1, ICENABLER, SPI_A), VcpuSet::only(CPU0));
        assert!(vgic.planned(CPU0).withdrawn);
        assert_eq!(vgic.take_errand(CPU0), Some(Errand::LetThrough(DEVICE, false)));
        assert_eq!(vgic.take_errand(CPU0), None);
        vgic.set_bit(CPU0, ISENABLER, SPI_A);
        vgic.set_gicd(CPU0, CTLR, 0);
        vgic.planned(CPU1);
        assert_eq!(vgic.take_errand(CPU1), None, "on and off again, or a group that is off");
        vgic.set_gicd(CPU0, CTLR, 3);
        assert!(vgic.planned(CPU1).withdrawn, "whoever plans next lets it through");
        assert_eq!(vgic.take_errand(CPU1), Some(Errand::LetThrough(DEVICE, true)));
    }
}

#[test]
fn a_devices_interrupt_is_ended_by_the_hardware_wherever_the_guest_takes_it() {
    for version in BOTH {
        let mut vgic = device_gic(version);
        vgic.set_target(SPI_A, CPU1);
        // The physical one goes to the CPU of vCPU 0, whatever the guest's route is.
        assert_eq!(vgic.set_line(CPU0, SPI_A, true), VcpuSet::only(CPU1));
        let mut cpu = entered(&mut vgic, CPU1);
        let entry = cpu.acknowledge().unwrap();
        assert_eq!((entry.virtual_id, entry.physical), (SPI_A, Some(DEVICE)));
        cpu.end(false);
        assert_eq!(cpu.deactivated, [DEVICE]);
        // It fires again before the list register was looked at.
        assert_eq!(vgic.set_line(CPU0, SPI_A, true), VcpuSet::only(CPU1));
        assert!(cpu.leave(&mut vgic).is_empty());
        cpu.enter(&mut vgic);
        assert_eq!(cpu.signalled(), Some(SPI_A));
    }
}

#[test]
fn a_reset_stops_a_devices_interrupt_before_it_gives_it_back() {
    let mut vgic = device_gic(GicVersion::V3);
    vgic.set_line(CPU0, SPI_A, true);
    vgic.planned(CPU0);
    vgic.reset();
    assert!(vgic.planned(CPU0).withdrawn);
    assert_eq!(vgic.take_errand(CPU0), Some(Errand::LetThrough(DEVICE, false)));
    assert_eq!(vgic.take_errand(CPU0), Some(Errand::Deactivate(DEVICE)));
    assert_eq!(vgic.take_errand(CPU0), None);
}

#[test]
fn an_edge_is_kept_for_a_guest_that_does_not_listen() {
    for edge in [false, true] {
        let mut vgic = device_gic(GicVersion::V3);
        vgic.set_edge(CPU0, SPI_A, edge);
        vgic.set_line(CPU0, SPI_A, true);
        vgic.set_bit(CPU0, ICENABLER, SPI_A);
        assert_eq!(vgic.planned(CPU0).used, 0);
        assert_eq!(vgic.take_errand(CPU0), Some(Errand::LetThrough(DEVICE, false)));
        // A level comes again; an edge would be lost.
        assert_eq!(vgic.take_errand(CPU0), (!edge).then_some(Errand::Deactivate(DEVICE)));
        vgic.set_bit(CPU0, ISENABLER, SPI_A);
        assert_eq!(vgic.planned(CPU0).used, u8::from(edge));
    }
}

#[test]
fn a_physical_interrupt_is_never_pending_and_active() {
    let mut vgic = timer_gic(GicVersion::V3);
    vgic.set_line(CPU0, TIMER, true);
    let mut cpu = entered(&mut vgic, CPU0);
    cpu.acknowledge();
    assert!(cpu.leave(&mut vgic).is_empty());
    vgic.set_bit(CPU0, ISPENDR, TIMER);
    cpu.enter(&mut vgic);
    assert_eq!(cpu.loaded.entries[0].state, State::Active);
}

#[test]
fn a_group_that_is_off_disables_the_physical_timer_too() {
    let mut vgic = timer_gic(GicVersion::V3);
    vgic.set_gicd(CPU0, CTLR, 2);
    assert!(!vgic.is_enabled(CPU0, TIMER));
    assert_eq!(vgic.planned(CPU0).hardware_enabled, 0);
}

#[test]
fn reset_gives_physical_interrupts_back() {
    let mut vgic = timer_gic(GicVersion::V3);
    vgic.set_line(CPU0, TIMER, true);
    vgic.planned(CPU0);
    vgic.reset();
    assert!(vgic.planned(CPU0).withdrawn);
    assert_eq!(vgic.take_errand(CPU0), Some(Errand::Deactivate(IntId(30))));
}

#[test]
fn a_level_that_stays_high_is_pending_again_after_its_end() {
    for version in BOTH {
        let mut vgic = running(version, 1, &[UART]);
        vgic.set_line(CPU0, UART, true);
        let mut cpu = entered(&mut vgic, CPU0);
        assert!(cpu.acknowledge().unwrap().eoi_maintenance);
        cpu.end(false);
        assert!(cpu.wants_maintenance());
        assert!(cpu.leave(&mut vgic).is_empty());
        cpu.enter(&mut vgic);
        assert_eq!(cpu.signalled(), Some(UART));
    }
}

#[test]
fn a_level_that_falls_in_the_handler_ends_without_an_exit() {
    for version in BOTH {
        let mut vgic = running(version, 1, &[UART]);
        vgic.set_line(CPU0, UART, true);
        let mut cpu = entered(&mut vgic, CPU0);
        cpu.acknowledge();
        assert!(cpu.leave(&mut vgic).is_empty());
        assert_eq!(vgic.set_line(CPU0, UART, false), VcpuSet::only(CPU0));
        cpu.enter(&mut vgic);
        assert_eq!(cpu.loaded.entries[0].state, State::Active);
        cpu.end(false);
        assert!(!cpu.wants_maintenance());
        assert!(cpu.leave(&mut vgic).is_empty());
        assert_eq!(vgic.planned(CPU0).used, 0);
    }
}

#[test]
fn a_level_that_falls_before_it_is_taken_is_gone() {
    let mut vgic = running(GicVersion::V3, 1, &[UART]);
    vgic.set_line(CPU0, UART, true);
    let mut cpu = entered(&mut vgic, CPU0);
    assert_eq!(vgic.set_line(CPU0, UART, false), VcpuSet::only(CPU0));
    assert!(cpu.leave(&mut vgic).is_empty());
    assert_eq!(vgic.planned(CPU0).used, 0);
    assert!(!vgic.has_pending(CPU0));
}

#[test]
fn software_pends_a_level_interrupt_once() {
    for version in BOTH {
        let mut vgic = running(version, 1, &[UART]);
        vgic.set_bit(CPU0, ISPENDR, UART);
        let mut cpu = entered(&mut vgic, CPU0);
        assert!(cpu.leave(&mut vgic).is_empty());
        assert!(vgic.bit(CPU0, ISPENDR, UART), "not taken: still pending");
        cpu.enter(&mut vgic);
        cpu.acknowledge();
        cpu.end(false);
        assert!(cpu.leave(&mut vgic).is_empty());
        assert!(!vgic.bit(CPU0, ISPENDR, UART));
    }
}

#[test]
fn a_second_edge_while_active_is_pending_and_active() {
    for version in BOTH {
        let mut vgic = running(version, 1, &[UART]);
        vgic.set_edge(CPU0, UART, true);
        for _ in 0..2 {
            vgic.set_line(CPU0, UART, true);
            assert!(vgic.set_line(CPU0, UART, false).is_empty());
        }
        let mut cpu = entered(&mut vgic, CPU0);
        cpu.acknowledge();
        vgic.set_line(CPU0, UART, true);
        assert!(cpu.leave(&mut vgic).is_empty());
        cpu.enter(&mut vgic);
        assert_eq!(cpu.loaded.entries[0].state, State::PendingActive);
        assert!(!vgic.has_pending(CPU0), "an active interrupt wakes nobody");
        cpu.end(false);
        assert_eq!(cpu.signalled(), Some(UART));
    }
}

#[test]
fn an_edge_that_meets_a_pending_interrupt_in_a_list_register_merges() {
    let mut vgic = running(GicVersion::V3, 1, &[UART]);
    vgic.set_edge(CPU0, UART, true);
    vgic.set_line(CPU0, UART, true);
    let mut cpu = entered(&mut vgic, CPU0);
    vgic.set_line(CPU0, UART, false);
    assert_eq!(vgic.set_line(CPU0, UART, true), VcpuSet::only(CPU0));
    assert!(cpu.leave(&mut vgic).is_empty());
    cpu.enter(&mut vgic);
    cpu.acknowledge();
    cpu.end(false);
    assert!(cpu.leave(&mut vgic).is_empty());
    assert_eq!(vgic.planned(CPU0).used, 0);
}

#[test]
fn an_interrupt_disabled_elsewhere_is_withdrawn_at_the_next_fold() {
    for version in BOTH {
        let mut vgic = running(version, 2, &[UART]);
        vgic.set_edge(CPU0, UART, true);
        vgic.set_line(CPU0, UART, true);
        let mut cpu = entered(&mut vgic, CPU0);
        assert_eq!(vgic.set_bit(CPU1, ICENABLER, UART), VcpuSet::only(CPU0));
        assert!(cpu.leave(&mut vgic).is_empty());
        cpu.enter(&mut vgic);
        assert_eq!(cpu.loaded.used, 0);
        assert_eq!(vgic.set_bit(CPU1, ISENABLER, UART), VcpuSet::only(CPU0));
        cpu.enter(&mut vgic);
        assert_eq!(cpu.signalled(), Some(UART));
    }
}

#[test]
fn an_interrupt_that_moves_is_shown_once() {
    for version in BOTH {
        let mut vgic = running(version, 2, &[UART]);
        vgic.set_line(CPU0, UART, true);
        let mut old = entered(&mut vgic, CPU0);
        let mut both = VcpuSet::only(CPU0);
        both.add(VcpuSet::only(CPU1));
        assert_eq!(vgic.set_target(UART, CPU1), both);
        assert_eq!(vgic.planned(CPU1).used, 0, "vCPU 0 still has it");
        assert_eq!(vgic.set_priority(CPU0, UART, 0x10), both);
        assert_eq!(old.leave(&mut vgic), VcpuSet::only(CPU1));
        assert_eq!(vgic.planned(CPU0).used, 0);
        assert_eq!(vgic.planned(CPU1).used, 1);
    }
}

#[test]
fn an_interrupt_that_moves_while_active_ends_where_it_was_taken() {
    for version in BOTH {
        let mut vgic = running(version, 2, &[UART]);
        vgic.set_line(CPU0, UART, true);
        let mut old = entered(&mut vgic, CPU0);
        old.acknowledge();
        let _ = vgic.set_target(UART, CPU1);
        assert!(old.leave(&mut vgic).is_empty());
        assert_eq!(vgic.planned(CPU1).used, 0);
        assert!(vgic.set_priority(CPU0, UART, 0x10).contains(CPU0));
        old.enter(&mut vgic);
        assert_eq!(old.loaded.entries[0].state, State::Active);
        old.end(false);
        assert!(old.wants_maintenance());
        assert_eq!(old.leave(&mut vgic), VcpuSet::only(CPU1));
        assert_eq!(vgic.planned(CPU1).used, 1);
    }
}

#[test]
fn the_lowest_target_gets_an_spi_of_several() {
    let mut vgic = running(GicVersion::V2, 4, &[UART]);
    vgic.distributor_write(CPU0, ITARGETSR + 33, Width::Byte, 0b1100);
    assert_eq!(vgic.set_line(CPU0, UART, true), VcpuSet::only(VcpuId(2)));
    vgic.distributor_write(CPU0, ITARGETSR + 33, Width::Byte, 0);
    assert!((0..4).all(|cpu| !vgic.has_pending(VcpuId(cpu))));
    assert!(vgic.bit(CPU0, ISPENDR, UART), "nobody's target: it stays pending");
}

#[test]
fn an_spi_for_any_vcpu_goes_to_one_that_is_awake() {
    let mut vgic = running(GicVersion::V3, 3, &[UART]);
    vgic.distributor_write(CPU0, IROUTER + 8 * 33, Width::Double, 1 << 31 | 2);
    vgic.set_line(CPU0, UART, true);
    assert!(vgic.has_pending(CPU0), "all asleep: the first");
    let moved = vgic.redistributor_write(REDISTRIBUTOR_BYTES + 0x14, Width::Word, 0);
    assert!(moved.contains(CPU0) && moved.contains(CPU1));
    assert!(vgic.has_pending(CPU1) && !vgic.has_pending(CPU0));
}

#[test]
fn a_route_to_nobody_keeps_an_spi_pending() {
    let mut vgic = running(GicVersion::V3, 2, &[UART]);
    vgic.set_target(UART, VcpuId(9));
    assert!(vgic.set_line(CPU0, UART, true).is_empty());
    assert!(!vgic.has_pending(CPU0) && !vgic.has_pending(CPU1));
    assert_eq!(vgic.set_target(UART, CPU1), VcpuSet::only(CPU1));
    assert!(vgic.has_pending(CPU1));
}

#[test]
fn priorities_and_groups_travel_in_list_registers() {
    let mut vgic = running(GicVersion::V3, 1, &[UART]);
    vgic.set_bit(CPU0, IGROUPR, UART);
    vgic.set_priority(CPU0, UART, 0xa0);
    vgic.set_line(CPU0, UART, true);
    let entry = vgic.planned(CPU0).entries[0];
    assert_eq!((entry.priority, entry.group1, entry.physical), (0xa0, true, None));
    assert_eq!(vgic.set_priority(CPU0, UART, 0x40), VcpuSet::only(CPU0));
    assert_eq!(vgic.planned(CPU0).entries[0].priority, 0x40);
}

/// A GIC with eight edge-triggered SPIs from 40 on, the first of the highest priority.
fn crowd() -> Vgic {
    let ids: Vec<IntId> = (40..48).map(IntId).collect();
    let mut vgic = running(GicVersion::V3, 1, &ids);
    for id in ids {
        vgic.set_edge(CPU0, id, true);
        vgic.set_priority(CPU0, id, u8::try_from(id.0 * 4 - 100).unwrap());
    }
    vgic
}

#[test]
fn the_best_of_a_crowd_get_the_list_registers() {
    let mut vgic = crowd();
    (40..48).rev().for_each(|id| {
        vgic.set_line(CPU0, IntId(id), true);
    });
    let planned = vgic.planned(CPU0);
    let mut shown: Vec<u32> = planned.in_use().map(|entry| entry.virtual_id.0).collect();
    shown.sort_unstable();
    assert_eq!(shown, [40, 41, 42, 43]);
    assert!(planned.no_pending_maintenance && !planned.not_present_maintenance);
}

#[test]
fn a_crowd_is_served_to_the_last() {
    let mut vgic = crowd();
    (40..48).for_each(|id| {
        vgic.set_line(CPU0, IntId(id), true);
    });
    let mut cpu = entered(&mut vgic, CPU0);
    for id in 40..48 {
        assert_eq!(cpu.acknowledge().unwrap().virtual_id, IntId(id));
        cpu.end(false);
        if cpu.wants_maintenance() {
            assert!(cpu.leave(&mut vgic).is_empty());
            cpu.enter(&mut vgic);
        }
    }
    assert!(cpu.signalled().is_none());
}

#[test]
fn nested_interrupts_without_a_list_register_end_by_eoi_count() {
    let mut vgic = crowd();
    let mut cpu = entered(&mut vgic, CPU0);
    for id in (40..48).rev() {
        vgic.set_line(CPU0, IntId(id), true);
        assert!(cpu.leave(&mut vgic).is_empty());
        cpu.enter(&mut vgic);
        assert_eq!(cpu.acknowledge().unwrap().virtual_id, IntId(id));
    }
    assert!(cpu.leave(&mut vgic).is_empty());
    cpu.enter(&mut vgic);
    assert!(cpu.loaded.not_present_maintenance && cpu.loaded.trap_deactivation);
    for _ in 40..44 {
        cpu.end(false);
    }
    assert!(!cpu.wants_maintenance(), "the highest four were resident");
    cpu.end(false);
    assert!(cpu.wants_maintenance());
    assert!(cpu.leave(&mut vgic).is_empty());
    let active = vgic.gicd(CPU0, ISACTIVER + 4);
    assert_eq!(active, 0b1110_0000 << 8);
}

#[test]
fn a_counted_end_is_that_of_the_highest_priority() {
    let mut vgic = crowd();
    for id in 40..48 {
        vgic.set_priority(CPU0, IntId(id), u8::try_from(200 - id).unwrap());
    }
    vgic.set_gicd(CPU0, ISACTIVER + 4, 0b1111_1111 << 8);
    let mut planned = vgic.planned(CPU0);
    assert!(planned.in_use().all(|entry| entry.virtual_id.0 >= 44));
    planned.eoi_count = 1;
    assert!(vgic.fold(CPU0, &planned).is_empty());
    assert_eq!(vgic.gicd(CPU0, ISACTIVER + 4), 0b1111_0111 << 8);
}

#[test]
fn an_end_is_counted_once() {
    let mut vgic = crowd();
    vgic.set_gicd(CPU0, ISACTIVER + 4, 0b1111_1000 << 8);
    let mut lists = vgic.planned(CPU0);
    lists.eoi_count = 1;
    assert!(vgic.fold(CPU0, &lists).is_empty());
    vgic.plan(CPU0, &mut lists);
    vgic.set_gicd(CPU0, ISACTIVER + 4, 1 << 8);
    assert!(vgic.fold(CPU0, &lists).is_empty());
    assert_eq!(vgic.gicd(CPU0, ISACTIVER + 4) & 1 << 8, 1 << 8);
}

#[test]
fn active_interrupts_come_before_pending_ones_of_the_same_priority() {
    let mut vgic = crowd();
    (40..48).for_each(|id| {
        vgic.set_priority(CPU0, IntId(id), 0x80);
    });
    (40..44).for_each(|id| {
        vgic.set_line(CPU0, IntId(id), true);
    });
    vgic.set_gicd(CPU0, ISACTIVER + 4, 0b1111_0000 << 8);
    let planned = vgic.planned(CPU0);
    let shown: Vec<u32> = planned.in_use().map(|entry| entry.virtual_id.0).collect();
    assert_eq!(shown, [40, 44, 45, 46], "the best pending one gets in all the same");
}

#[test]
fn a_crowd_shows_active_interrupts_without_their_pending_part() {
    for id in [IntId(47), IntId(20)] {
        let mut vgic = crowd();
        vgic.set_bit(CPU0, ISENABLER, id);
        vgic.set_bit(CPU0, ISPENDR, id);
        vgic.set_bit(CPU0, ISACTIVER, id);
        vgic.set_priority(CPU0, id, 1);
        (40..46).for_each(|id| {
            vgic.set_line(CPU0, IntId(id), true);
        });
        let planned = vgic.planned(CPU0);
        let entry = planned.in_use().find(|entry| entry.virtual_id == id).unwrap();
        assert_eq!((entry.state, entry.eoi_maintenance), (State::Active, true));
    }
}

#[test]
fn a_better_pending_interrupt_displaces_an_active_one() {
    let mut vgic = crowd();
    vgic.set_gicd(CPU0, ISACTIVER + 4, 0b1111_0000 << 8);
    vgic.set_line(CPU0, IntId(40), true);
    let planned = vgic.planned(CPU0);
    let shown: Vec<IntId> = planned.in_use().map(|entry| entry.virtual_id).collect();
    assert!(shown.contains(&IntId(40)) && !shown.contains(&IntId(47)));
    assert!(planned.not_present_maintenance && !planned.no_pending_maintenance);
}

#[test]
fn every_better_pending_interrupt_displaces_an_active_one() {
    let mut vgic = crowd();
    vgic.set_gicd(CPU0, ISACTIVER + 4, 0b1111_0000 << 8);
    (40..43).for_each(|id| {
        vgic.set_line(CPU0, IntId(id), true);
    });
    let shown: Vec<u32> = vgic.planned(CPU0).in_use().map(|entry| entry.virtual_id.0).collect();
    assert_eq!(shown, [40, 41, 42, 44]);
}

#[test]
fn an_spi_in_the_list_registers_of_one_vcpu_wakes_that_one() {
    let mut vgic = running(GicVersion::V3, 2, &[SPI_A]);
    vgic.set_line(CPU0, SPI_A, true);
    vgic.planned(CPU0);
    let _ = vgic.set_target(SPI_A, CPU1);
    assert_eq!(vgic.planned(CPU1).used, 0);
    assert!(vgic.has_pending(CPU0) && !vgic.has_pending(CPU1));
}

#[test]
fn a_group_that_the_cpu_interface_has_off_does_not_crowd_out_the_other() {
    let mut vgic = crowd();
    vgic.set_bit(CPU0, IGROUPR, IntId(47));
    (40..48).for_each(|id| {
        vgic.set_line(CPU0, IntId(id), true);
    });
    let mut out = ListRegisters::new(4);
    out.group_off = [true, false];
    vgic.plan(CPU0, &mut out);
    assert!(out.in_use().any(|entry| entry.virtual_id == IntId(47)));
    assert!(out.group_enable_maintenance && !out.no_pending_maintenance);
}

#[test]
fn a_trapped_dir_deactivates_what_has_no_list_register() {
    let mut vgic = crowd();
    vgic.set_gicd(CPU0, ISACTIVER + 4, 0b1111_1111 << 8);
    let mut cpu = entered(&mut vgic, CPU0);
    assert!(cpu.loaded.trap_deactivation);
    assert!(cpu.leave(&mut vgic).is_empty());
    assert_eq!(vgic.deactivate(CPU0, IntId(46)), VcpuSet::only(CPU0));
    assert_eq!(vgic.gicd(CPU0, ISACTIVER + 4), 0b1011_1111 << 8);
}

#[test]
fn another_vcpu_can_deactivate_an_spi() {
    for version in BOTH {
        let mut vgic = running(version, 2, &[SPI_A]);
        vgic.set_line(CPU0, SPI_A, true);
        let mut cpu = entered(&mut vgic, CPU0);
        cpu.acknowledge();
        assert!(cpu.loaded.trap_deactivation);
        vgic.set_line(CPU0, SPI_A, false);
        assert_eq!(vgic.deactivate(CPU1, SPI_A), VcpuSet::only(CPU0));
        assert!(cpu.leave(&mut vgic).is_empty());
        assert_eq!(vgic.planned(CPU0).used, 0);
        assert!(!vgic.bit(CPU1, ISACTIVER, SPI_A));
    }
}

#[test]
fn a_write_of_active_reaches_an_interrupt_in_a_list_register() {
    let mut vgic = running(GicVersion::V3, 2, &[SPI_A]);
    vgic.set_line(CPU0, SPI_A, true);
    let mut cpu = entered(&mut vgic, CPU0);
    assert_eq!(vgic.set_bit(CPU1, ISACTIVER, SPI_A), VcpuSet::only(CPU0));
    assert!(vgic.bit(CPU1, ISACTIVER, SPI_A));
    assert!(cpu.leave(&mut vgic).is_empty());
    assert!(vgic.bit(CPU1, ISACTIVER, SPI_A));
    assert_eq!(vgic.set_bit(CPU1, ICACTIVER, SPI_A), VcpuSet::only(CPU0));
    assert!(!vgic.bit(CPU1, ISACTIVER, SPI_A));
}

#[test]
fn planning_twice_without_a_fold_gives_the_same_answer() {
    for version in BOTH {
        let mut vgic = timer_gic(version);
        vgic.set_bit(CPU0, ISENABLER, UART);
        vgic.set_target(UART, CPU0);
        vgic.set_line(CPU0, TIMER, true);
        let one = vgic.planned(CPU0);
        assert_eq!((one.used, &vgic.planned(CPU0)), (1, &one));
        vgic.set_line(CPU0, UART, true);
        if version == GicVersion::V2 {
            vgic.set_gicd(CPU1, SGIR, 1 << 16 | 3);
        }
        assert_eq!(vgic.planned(CPU0), vgic.planned(CPU0));
    }
}

#[test]
fn no_list_registers_mean_no_interrupts_but_no_loss() {
    for intid in [UART, IntId(20)] {
        let mut vgic = running(GicVersion::V3, 1, &[intid]);
        vgic.planned(CPU0);
        vgic.set_line(CPU0, intid, true);
        let mut out = ListRegisters::new(0);
        vgic.plan(CPU0, &mut out);
        assert_eq!(out.used, 0);
        assert!(vgic.has_pending(CPU0));
    }
}

#[test]
fn a_route_that_changes_nothing_kicks_nobody() {
    let mut vgic = running(GicVersion::V2, 4, &[UART]);
    assert!(vgic.set_target(UART, CPU1).is_empty(), "it is not pending");
    vgic.set_line(CPU0, UART, true);
    let more = vgic.distributor_write(CPU0, ITARGETSR + 33, Width::Byte, 0b1110);
    assert!(more.is_empty(), "the lowest target is the same");
}

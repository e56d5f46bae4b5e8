//! Facts about interrupts between vCPUs, and how they get into list registers.

use super::super::interrupts::{self, Disposition, Source};
use super::bench::{BOTH, Bench, DEVICE_SPI, GICC_DIR, GICD, HOST_DEVICE};
use super::machine::Call;
use crate::ids::{IntId, PcpuId};
use crate::interpreter::device::vgic::{GicVersion, State};
use crate::interpreter::sysreg::SystemRegister;
use crate::vm::Requests;

const SGI: IntId = IntId(5);
const SGIS: [IntId; 6] = [IntId(0), IntId(1), IntId(2), IntId(3), IntId(4), IntId(5)];
const SPI: IntId = IntId(64);

/// Sends an SGI to the vCPUs in `targets`, as each version does it.
fn send(bench: &mut Bench, from: usize, intid: IntId, targets: u64) {
    let version = bench.vm.vgic.lock().version();
    match version {
        GicVersion::V2 => bench.write_word(from, GICD + 0xf00, targets << 16 | u64::from(intid.0)),
        GicVersion::V3 => {
            bench.msr(from, SystemRegister::ICC_SGI1R_EL1, u64::from(intid.0) << 24 | targets);
        }
    }
}

/// Deactivates, as each version does it.
fn write_dir(bench: &mut Bench, cpu: usize, intid: IntId) {
    let version = bench.vm.vgic.lock().version();
    match version {
        GicVersion::V2 => bench.write_word(cpu, GICC_DIR, u64::from(intid.0)),
        GicVersion::V3 => bench.msr(cpu, SystemRegister::ICC_DIR_EL1, u64::from(intid.0)),
    }
}

#[test]
fn an_sgi_reaches_the_other_vcpu_by_a_request_and_a_kick() {
    for version in BOTH {
        let mut bench = Bench::running(version, 3);
        bench.listen_to(1, &[SGI]);
        send(&mut bench, 0, SGI, 0b010);
        assert_eq!(bench.cpus[0].calls, [Call::Kick(PcpuId(11))]);
        assert!(bench.vm.posts[1].take().contains(Requests::PLAN));
        bench.vm.posts[1].leave(Requests::PLAN);
        assert_eq!(bench.cpus[1].pending(), [], "its list registers are its own CPU's");
        assert_eq!(bench.interrupt(1, Source::Kick), Disposition::End);
        assert_eq!(bench.serve_kicks(), [1]);
        assert_eq!(bench.cpus[1].pending(), [5]);
        assert_eq!(bench.handle(1), Some(5));
        assert_eq!(bench.interrupt(1, Source::Maintenance), Disposition::End);
        assert_eq!(bench.cpus[1].pending(), []);
    }
}

#[test]
fn an_sgi_to_oneself_is_there_on_return() {
    for version in BOTH {
        let mut bench = Bench::running(version, 2);
        bench.listen_to(0, &[SGI]);
        send(&mut bench, 0, SGI, 0b01);
        assert_eq!(bench.cpus[0].pending(), [5]);
        assert_eq!(bench.cpus[0].calls, [], "nobody is kicked");
    }
}

#[test]
fn an_sgi_to_everyone_kicks_everyone_else() {
    let mut bench = Bench::running(GicVersion::V3, 4);
    for cpu in 0..4 {
        bench.listen_to(cpu, &[SGI]);
    }
    bench.msr(2, SystemRegister::ICC_SGI1R_EL1, 1 << 40 | 5 << 24);
    assert_eq!(bench.serve_kicks(), [0, 1, 3]);
    let pending: Vec<_> = bench.cpus.iter().map(|cpu| cpu.pending().len()).collect();
    assert_eq!(pending, [1, 1, 0, 1]);
}

#[test]
fn an_sgi_that_the_target_does_not_listen_to_kicks_nobody() {
    let mut bench = Bench::running(GicVersion::V3, 2);
    bench.listen_to(0, &[SGI]);
    bench.msr(0, SystemRegister::ICC_SGI1R_EL1, 5 << 24 | 0b10);
    bench.msr(0, SystemRegister::ICC_SGI1R_EL1, 5 << 24 | 0b1000);
    bench.msr(0, SystemRegister::ICC_SGI0R_EL1, 5 << 24 | 0b01);
    assert_eq!((bench.cpus[0].calls.len(), bench.cpus[0].pending()), (0, vec![]));
}

#[test]
fn a_vcpu_kicked_twice_sees_both_interrupts() {
    let mut bench = Bench::running(GicVersion::V3, 3);
    bench.listen_to(2, &[SGI, IntId(6)]);
    send(&mut bench, 0, SGI, 0b100);
    send(&mut bench, 1, IntId(6), 0b100);
    assert_eq!(bench.serve_kicks(), [2]);
    assert_eq!(bench.cpus[2].pending(), [5, 6]);
}

#[test]
fn what_finds_no_list_register_comes_with_the_maintenance_interrupt() {
    for version in BOTH {
        let mut bench = Bench::with_list_registers(version, 2, 2);
        bench.listen_to(0, &SGIS);
        for intid in SGIS {
            send(&mut bench, 0, intid, 0b01);
        }
        let mut handled = vec![];
        for _ in 0..20 {
            handled.extend(bench.handle(0));
            if bench.cpus[0].wants_maintenance() {
                assert_eq!(bench.interrupt(0, Source::Maintenance), Disposition::End);
            }
        }
        assert_eq!(handled, [0, 1, 2, 3, 4, 5]);
        assert!(!bench.cpus[0].wants_maintenance());
    }
}

#[test]
fn an_end_without_a_list_register_is_counted_once() {
    let mut bench = Bench::with_list_registers(GicVersion::V3, 2, 1);
    bench.listen_to(0, &[SGI, SPI]);
    bench.write_word(0, GICD + 0x400 + 64, 0xa0a0_a020); // SPI 64 gets ahead of the SGI
    send(&mut bench, 0, SGI, 0b01);
    assert_eq!(bench.cpus[0].acknowledge(), Some(SGI));
    bench.write_word(0, GICD + 0x200 + 8, 1);
    assert_eq!(bench.cpus[0].acknowledge(), Some(SPI), "it pushes the active SGI out");
    bench.cpus[0].end(SPI);
    bench.cpus[0].end(SGI);
    assert!(bench.cpus[0].wants_maintenance());
    assert_eq!(bench.interrupt(0, Source::Maintenance), Disposition::End);
    assert_eq!(bench.cpus[0].lists, [], "both have ended");
    // vCPU 1 makes a PPI of vCPU 0 active while that is in its guest.
    let frame = bench.private_frame(0);
    bench.write_word(1, frame + 0x300, 1 << 20);
    assert_eq!(bench.serve_kicks(), [0]);
    assert_eq!(bench.read_word(0, frame + 0x300), 1 << 20, "the old end is not this one's");
}

#[test]
fn deactivation_on_its_own_counts_with_eoimode_1_only() {
    for version in BOTH {
        let mut bench = Bench::running(version, 2);
        bench.listen_to(0, &[SPI]);
        bench.route(SPI, 0);
        bench.write_word(0, GICD + 0x200 + 8, 1);
        assert_eq!(bench.cpus[0].acknowledge(), Some(SPI));
        let state = |bench: &Bench| bench.cpus[0].lists.first().map(|entry| entry.state);
        write_dir(&mut bench, 0, SPI);
        assert_eq!(state(&bench), Some(State::Active));
        bench.cpus[0].splits = true;
        for nonsense in [1020, 1023, 0xff_ffff] {
            write_dir(&mut bench, 0, IntId(nonsense));
        }
        assert_eq!(state(&bench), Some(State::Active));
        write_dir(&mut bench, 0, SPI);
        assert_eq!(state(&bench), None);
    }
}

#[test]
fn a_vcpu_may_deactivate_what_another_one_acknowledged() {
    for version in BOTH {
        let mut bench = Bench::running(version, 2);
        bench.listen_to(0, &[SPI]);
        bench.route(SPI, 0);
        bench.write_word(0, GICD + 0x200 + 8, 1);
        assert_eq!(bench.cpus[0].acknowledge(), Some(SPI));
        bench.cpus[1].splits = true;
        write_dir(&mut bench, 1, SPI);
        assert_eq!(bench.serve_kicks(), [0]);
        assert_eq!(bench.cpus[0].lists, []);
    }
}

#[test]
fn the_dir_page_of_a_gicv2_has_one_register() {
    let mut bench = Bench::running(GicVersion::V2, 1);
    bench.cpus[0].splits = true;
    assert_eq!(bench.read_word(0, GICC_DIR), 0);
    bench.write_word(0, GICC_DIR + 4, 33);
    bench.write_word(0, GICC_DIR + 0xffc, u64::MAX);
    assert_eq!(bench.cpus[0].calls, []);
}

#[test]
fn an_interrupt_that_changes_its_route_changes_its_vcpu() {
    for version in BOTH {
        let mut bench = Bench::running(version, 3);
        bench.listen_to(0, &[SPI]);
        bench.route(SPI, 1);
        bench.write_word(0, GICD + 0x200 + 8, 1);
        assert_eq!(bench.serve_kicks(), [1]);
        assert_eq!(bench.cpus[1].pending(), [64]);
        bench.route(SPI, 2);
        // What vCPU 1 gives back, it passes on.
        bench.serve_kicks();
        assert_eq!((bench.cpus[1].pending(), bench.cpus[2].pending()), (vec![], vec![64]));
    }
}

#[test]
fn a_devices_interrupt_goes_where_the_guest_routes_it() {
    for version in BOTH {
        let mut bench = Bench::running(version, 2);
        bench.route(DEVICE_SPI, 1);
        bench.listen_to(0, &[DEVICE_SPI]);
        assert_eq!(bench.cpus[1].take_calls(), [Call::LetThrough(HOST_DEVICE, true)]);
        assert_eq!(bench.interrupt(0, Source::Device(HOST_DEVICE)), Disposition::LeaveActive);
        assert_eq!(bench.serve_kicks(), [1]);
        assert_eq!(bench.handle(1), Some(DEVICE_SPI.0));
        assert_eq!(bench.cpus[1].ended, [HOST_DEVICE]);

        bench.route(DEVICE_SPI, 0);
        assert_eq!(bench.interrupt(0, Source::Device(HOST_DEVICE)), Disposition::LeaveActive);
        assert_eq!(bench.kicked(), [], "this CPU looks at its post by itself");
        assert!(bench.vm.posts[0].take().contains(Requests::PLAN));
        interrupts::replan(&mut bench.vcpus[0], &bench.vm, &mut bench.cpus[0]);
        assert_eq!(bench.cpus[0].pending(), [DEVICE_SPI.0]);
        bench.write_word(1, GICD + 0x180 + 8, 1 << (DEVICE_SPI.0 % 32));
        assert_eq!(bench.serve_kicks(), [0]);
        let calls = [Call::LetThrough(HOST_DEVICE, false), Call::Deactivate(HOST_DEVICE)];
        assert_eq!(bench.cpus[0].take_calls(), calls, "in this order: its level would come again at once");
    }
}

#[test]
fn a_wait_that_another_vcpu_ends_ends_with_the_interrupt() {
    let mut bench = Bench::running(GicVersion::V3, 2);
    bench.listen_to(0, &SGIS[..1]);
    send(&mut bench, 1, SGIS[0], 1);
    // CPU_SUSPEND takes all requests, and then looks whether it is over.
    bench.vm.posts[0].take();
    assert!(interrupts::is_interrupted(&mut bench.vcpus[0], &bench.vm, &mut bench.cpus[0]));
    assert_eq!(bench.cpus[0].pending(), [SGIS[0].0]);
}

#[test]
fn an_unasked_interrupt_of_the_machine_changes_nothing() {
    let mut bench = Bench::running(GicVersion::V3, 1);
    let before = bench.vcpus[0].frame.clone();
    for source in [Source::Kick, Source::Console, Source::Maintenance] {
        assert_eq!(bench.interrupt(0, source), Disposition::End);
    }
    assert_eq!(bench.interrupt(0, Source::Device(IntId(1019))), Disposition::Silence);
    assert_eq!((&bench.vcpus[0].frame, bench.cpus[0].calls.len()), (&before, 0));
}

#[test]
fn an_end_with_eoi_mode_1_deactivates_nothing_that_found_no_list_register() {
    for version in BOTH {
        let mut bench = Bench::with_list_registers(version, 1, 2);
        bench.listen_to(0, &SGIS[..3]);
        bench.cpus[0].splits = true;
        for sgi in &SGIS[..3] {
            send(&mut bench, 0, *sgi, 1);
            assert_eq!(bench.cpus[0].acknowledge(), Some(*sgi));
            bench.cpus[0].end(*sgi);
        }
        let absent =
            SGIS[..3].iter().find(|sgi| bench.cpus[0].lists.iter().all(|entry| entry.virtual_id != **sgi));
        bench.cpus[0].end(*absent.unwrap());
        assert!(bench.cpus[0].wants_maintenance());
        assert_eq!(bench.interrupt(0, Source::Maintenance), Disposition::End);
        let frame = bench.private_frame(0);
        assert_eq!(bench.read_word(0, frame + 0x300), 0b111, "all three are active");
        for (sgi, left) in SGIS[..3].iter().zip([0b110, 0b100, 0]) {
            write_dir(&mut bench, 0, *sgi);
            assert_eq!(bench.read_word(0, frame + 0x300), left);
        }
    }
}

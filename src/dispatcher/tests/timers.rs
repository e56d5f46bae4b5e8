//! Facts about the two timers of a guest: the hardware's virtual one and the emulated physical one.

use super::super::Next;
use super::super::interrupts::{self, Disposition, Source};
use super::bench::{
    BOTH, Bench, GICD, HOST_MONITORS, HOST_TIMER, PERFORMANCE_MONITORS, PHYSICAL_TIMER, UART_SPI,
    VIRTUAL_TIMER, system_esr,
};
use super::machine::Call;
use crate::ids::{IntId, Ticks, VcpuId};
use crate::interpreter::device::Width;
use crate::interpreter::device::vgic::{GicVersion, State};
use crate::interpreter::sysreg::SystemRegister;
use crate::vm::Requests;

const CPU_OFF: u64 = 0x8400_0002;
const SET_ENABLE: u64 = 0x100;
const CLEAR_ENABLE: u64 = 0x180;
const SET_PENDING: u64 = 0x200;
const TIMER_BIT: u64 = 1 << VIRTUAL_TIMER.0;

#[test]
fn the_guests_wish_for_its_timer_reaches_the_hardware() {
    for version in BOTH {
        let mut bench = Bench::running(version, 1);
        bench.write_word(0, 0x0800_0000, 3);
        bench.cpus[0].take_calls();
        let frame = bench.private_frame(0);
        bench.write_word(0, frame + SET_ENABLE, TIMER_BIT);
        bench.write_word(0, frame + SET_ENABLE, TIMER_BIT);
        assert_eq!(bench.cpus[0].take_calls(), [Call::LetThrough(HOST_TIMER, true)], "once");
        bench.write_word(0, frame + CLEAR_ENABLE, TIMER_BIT);
        assert_eq!(bench.cpus[0].take_calls(), [Call::LetThrough(HOST_TIMER, false)]);
    }
}

#[test]
fn a_distributor_that_is_off_turns_everyones_timer_off() {
    let mut bench = Bench::running(GicVersion::V3, 2);
    for cpu in 0..2 {
        bench.listen_to(cpu, &[VIRTUAL_TIMER]);
    }
    bench.write_word(0, 0x0800_0000, 0);
    assert_eq!(bench.serve_kicks(), [1]);
    for cpu in &mut bench.cpus {
        assert_eq!(cpu.take_calls(), [Call::LetThrough(HOST_TIMER, false)]);
    }
}

#[test]
fn a_virtual_timer_interrupt_is_the_guests_to_end() {
    for version in BOTH {
        let mut bench = Bench::running(version, 2);
        bench.listen_to(1, &[VIRTUAL_TIMER]);
        for _ in 0..2 {
            assert_eq!(bench.interrupt(1, Source::VirtualTimer), Disposition::LeaveActive);
            let [entry] = bench.cpus[1].lists[..] else { panic!("{:?}", bench.cpus[1].lists) };
            assert_eq!((entry.virtual_id, entry.physical), (VIRTUAL_TIMER, Some(HOST_TIMER)));
            assert_eq!((entry.state, entry.group1, entry.priority), (State::Pending, true, 0xa0));
            assert_eq!(bench.handle(1), Some(27));
            assert_eq!(std::mem::take(&mut bench.cpus[1].ended), [HOST_TIMER], "its end is the physical end");
        }
        assert_eq!(bench.cpus[1].calls, [], "and the monitor does nothing");
        assert_eq!(bench.cpus[0].lists, []);
    }
}

#[test]
fn a_timer_that_the_guest_disables_while_it_fires_is_given_back() {
    for version in BOTH {
        for acknowledged in [false, true] {
            let mut bench = Bench::running(version, 1);
            bench.listen_to(0, &[VIRTUAL_TIMER]);
            assert_eq!(bench.interrupt(0, Source::VirtualTimer), Disposition::LeaveActive);
            if acknowledged {
                bench.cpus[0].acknowledge();
            }
            let frame = bench.private_frame(0);
            bench.write_word(0, frame + CLEAR_ENABLE, TIMER_BIT);
            let calls = bench.cpus[0].take_calls();
            assert!(calls.contains(&Call::LetThrough(HOST_TIMER, false)), "{calls:?}");
            // An active one is still the guest's to end.
            assert_eq!(calls.contains(&Call::Deactivate(HOST_TIMER)), !acknowledged, "{calls:?}");
            assert_eq!(bench.cpus[0].pending(), []);
            if acknowledged {
                bench.cpus[0].end(VIRTUAL_TIMER);
                assert_eq!(bench.cpus[0].ended, [HOST_TIMER]);
            }
        }
    }
}

#[test]
fn a_timer_that_nobody_listens_to_is_given_back_at_once() {
    let mut bench = Bench::running(GicVersion::V3, 1);
    assert_eq!(bench.interrupt(0, Source::VirtualTimer), Disposition::LeaveActive);
    assert_eq!(bench.cpus[0].calls, [Call::Deactivate(HOST_TIMER)]);
    assert_eq!(bench.cpus[0].lists, []);
}

#[test]
fn a_physical_timer_sets_the_deadline_of_its_cpu() {
    let mut bench = Bench::running(GicVersion::V3, 2);
    bench.msr(0, SystemRegister::CNTP_CVAL_EL0, 5000);
    assert_eq!(bench.cpus[0].take_calls(), [Call::Deadline(None)], "not enabled yet");
    bench.msr(0, SystemRegister::CNTP_CTL_EL0, 1);
    assert_eq!(bench.cpus[0].take_calls(), [Call::Deadline(Some(Ticks(5000)))]);
    bench.msr(0, SystemRegister::CNTP_TVAL_EL0, 50);
    assert_eq!(bench.cpus[0].take_calls(), [Call::Deadline(Some(Ticks(1050)))]);
    bench.msr(0, SystemRegister::CNTP_CTL_EL0, 3);
    assert_eq!(bench.cpus[0].take_calls(), [Call::Deadline(None)], "masked");
    assert_eq!(bench.cpus[1].calls, []);
}

#[test]
fn a_physical_timer_that_is_due_interrupts_until_it_is_served() {
    let mut bench = Bench::running(GicVersion::V3, 1);
    bench.listen_to(0, &[PHYSICAL_TIMER]);
    bench.msr(0, SystemRegister::CNTP_CVAL_EL0, 5000);
    bench.msr(0, SystemRegister::CNTP_CTL_EL0, 1);
    bench.cpus[0].take_calls();
    bench.cpus[0].now = 4999;
    assert_eq!(bench.interrupt(0, Source::HypervisorTimer), Disposition::End);
    assert_eq!(bench.cpus[0].take_calls(), [Call::Deadline(Some(Ticks(5000)))], "too early: once more");
    assert_eq!(bench.cpus[0].pending(), []);
    bench.cpus[0].now = 5000;
    assert_eq!(bench.interrupt(0, Source::HypervisorTimer), Disposition::End);
    assert_eq!(bench.cpus[0].take_calls(), [Call::Deadline(None)]);
    assert_eq!(bench.cpus[0].pending(), [30]);
    assert_eq!(bench.mrs(0, SystemRegister::CNTP_CTL_EL0), 0b101);
    let intid = bench.cpus[0].acknowledge().unwrap();
    bench.msr(0, SystemRegister::CNTP_CVAL_EL0, 6000);
    bench.cpus[0].end(intid);
    assert_eq!(bench.cpus[0].take_calls(), [Call::Deadline(Some(Ticks(6000)))]);
    assert_eq!(bench.interrupt(0, Source::Maintenance), Disposition::End);
    assert_eq!(bench.cpus[0].pending(), []);
}

#[test]
fn the_physical_timer_reads_back() {
    let mut bench = Bench::running(GicVersion::V2, 1);
    bench.cpus[0].now = 0x1_0000_0000;
    assert_eq!(bench.mrs(0, SystemRegister::CNTPCT_EL0), 0x1_0000_0000);
    assert_eq!(bench.mrs(0, SystemRegister::CNTPCTSS_EL0), 0x1_0000_0000);
    bench.msr(0, SystemRegister::CNTP_TVAL_EL0, 0xffff_fff6);
    assert_eq!(bench.mrs(0, SystemRegister::CNTP_CVAL_EL0), 0xffff_fff6);
    assert_eq!(bench.mrs(0, SystemRegister::CNTP_TVAL_EL0), 0xffff_fff6);
}

#[test]
fn an_application_may_use_the_physical_timer_as_its_kernel_lets_it() {
    // CNTKCTL_EL1 was asked by the CPU before EL2 was.
    let mut bench = Bench::running(GicVersion::V3, 1);
    bench.vcpus[0].frame.pstate = 0;
    assert_eq!(bench.mrs(0, SystemRegister::CNTPCT_EL0), 1000);
    let write = system_esr(SystemRegister::CNTPCT_EL0, 1, false);
    assert_eq!(bench.injects(0, write, 0, 0).esr_el1, 1 << 25, "the counter is read-only");
}

#[test]
fn an_overflow_of_the_performance_monitors_is_the_guests_to_end() {
    for version in BOTH {
        let mut bench = Bench::running(version, 1);
        let frame = bench.private_frame(0);
        bench.write_word(0, GICD, 3);
        bench.write_word(0, frame + SET_ENABLE, 1 << PERFORMANCE_MONITORS.0);
        assert_eq!(bench.cpus[0].take_calls(), [Call::LetThrough(HOST_MONITORS, true)], "and not the timer");
        bench.listen_to(0, &[PERFORMANCE_MONITORS, VIRTUAL_TIMER]);
        for _ in 0..2 {
            assert_eq!(bench.interrupt(0, Source::PerformanceMonitors), Disposition::LeaveActive);
            assert_eq!(bench.handle(0), Some(PERFORMANCE_MONITORS.0));
            assert_eq!(std::mem::take(&mut bench.cpus[0].ended), [HOST_MONITORS]);
        }
    }
}

#[test]
fn a_vcpu_that_goes_off_takes_its_timers_along() {
    for version in BOTH {
        let mut bench = Bench::running(version, 2);
        bench.listen_to(1, &[VIRTUAL_TIMER, PHYSICAL_TIMER]);
        bench.msr(1, SystemRegister::CNTP_CVAL_EL0, 1500);
        bench.msr(1, SystemRegister::CNTP_CTL_EL0, 1);
        assert_eq!(bench.interrupt(1, Source::VirtualTimer), Disposition::LeaveActive);
        bench.cpus[1].take_calls();
        assert_eq!(bench.hvc(1, [CPU_OFF, 0, 0, 0]), Next::Off);
        let calls = bench.cpus[1].take_calls();
        assert_eq!(calls, [Call::PowerDown, Call::Deadline(None), Call::Deactivate(HOST_TIMER)]);
        assert_eq!((bench.cpus[1].lists.len(), bench.vcpus[1].lists.used), (0, 0));
        bench.cpus[1].now = 2000;
        bench.turn_on(1);
        assert_eq!(bench.cpus[1].pending(), [], "neither comes from an earlier life");
        assert_eq!(bench.mrs(1, SystemRegister::CNTP_CTL_EL0), 0);
    }
}

#[test]
fn what_else_is_pending_waits_for_the_vcpu_to_come_back() {
    let mut bench = Bench::running(GicVersion::V3, 2);
    bench.listen_to(1, &[IntId(5)]);
    bench.msr(0, SystemRegister::ICC_SGI1R_EL1, 5 << 24 | 0b10);
    bench.serve_kicks();
    assert_eq!(bench.cpus[1].pending(), [5]);
    assert_eq!(bench.hvc(1, [CPU_OFF, 0, 0, 0]), Next::Off);
    assert_eq!(bench.cpus[1].lists, []);
    bench.turn_on(1);
    assert_eq!(bench.cpus[1].pending(), [5]);
    assert_eq!(bench.handle(1), Some(5));
}

#[test]
fn a_shared_interrupt_leaves_a_vcpu_that_goes_off_for_its_new_target() {
    let mut bench = Bench::running(GicVersion::V3, 2);
    bench.listen_to(1, &[UART_SPI]);
    bench.route(UART_SPI, 1);
    bench.vm.vgic.lock().set_line(VcpuId(0), UART_SPI, true);
    bench.vm.posts[1].leave(Requests::PLAN);
    interrupts::replan(&mut bench.vcpus[1], &bench.vm, &mut bench.cpus[1]);
    assert_eq!(bench.cpus[1].pending(), [UART_SPI.0]);
    bench.write(0, GICD + 0x6000 + u64::from(UART_SPI.0) * 8, Width::Double, 0);
    bench.kicked();
    assert_eq!(bench.hvc(1, [CPU_OFF, 0, 0, 0]), Next::Off);
    assert_eq!(bench.serve_kicks(), [0], "vCPU 0 hears of it");
    assert_eq!(bench.cpus[0].pending(), [UART_SPI.0]);
}

#[test]
fn a_suspend_ends_with_an_interrupt_and_goes_on_behind_the_call() {
    let mut bench = Bench::running(GicVersion::V3, 1);
    bench.listen_to(0, &[VIRTUAL_TIMER]);
    let pc = bench.pc(0);
    assert_eq!(bench.hvc(0, [0xc400_0001, 0, 0, 0]), Next::Wait);
    assert_eq!((bench.pc(0), bench.vcpus[0].frame.x[0]), (pc + 4, 0));
    assert!(!interrupts::is_interrupted(&mut bench.vcpus[0], &bench.vm, &mut bench.cpus[0]));
    assert_eq!(bench.interrupt(0, Source::VirtualTimer), Disposition::LeaveActive);
    assert!(interrupts::is_interrupted(&mut bench.vcpus[0], &bench.vm, &mut bench.cpus[0]));
    assert_eq!(bench.cpus[0].pending(), [VIRTUAL_TIMER.0], "it is there when the vCPU goes on");
}

#[test]
fn a_timer_interrupt_whose_line_goes_down_before_it_is_taken_is_withdrawn() {
    for version in BOTH {
        let mut bench = Bench::running(version, 1);
        bench.listen_to(0, &[VIRTUAL_TIMER]);
        let pending = bench.private_frame(0) + SET_PENDING;
        bench.cpus[0].physical = vec![(HOST_TIMER, State::PendingActive)];
        assert_eq!(bench.interrupt(0, Source::VirtualTimer), Disposition::LeaveActive);
        assert_eq!(bench.read_word(0, pending) & TIMER_BIT, TIMER_BIT);
        assert_eq!(bench.cpus[0].pending(), [27]);
        bench.cpus[0].take_calls();
        bench.cpus[0].physical = vec![(HOST_TIMER, State::Active)];
        assert_eq!(bench.read_word(0, pending) & TIMER_BIT, 0);
        assert_eq!(bench.cpus[0].take_calls(), [Call::Deactivate(HOST_TIMER)]);
        assert_eq!(bench.cpus[0].pending(), []);
    }
}

#[test]
fn a_timer_interrupt_that_is_active_shows_its_line_and_stays_the_guests_to_end() {
    for version in BOTH {
        let mut bench = Bench::running(version, 1);
        bench.listen_to(0, &[VIRTUAL_TIMER]);
        let pending = bench.private_frame(0) + SET_PENDING;
        assert_eq!(bench.interrupt(0, Source::VirtualTimer), Disposition::LeaveActive);
        assert_eq!(bench.cpus[0].acknowledge(), Some(VIRTUAL_TIMER));
        for (state, seen) in [(State::PendingActive, TIMER_BIT), (State::Active, 0)] {
            bench.cpus[0].physical = vec![(HOST_TIMER, state)];
            assert_eq!(bench.read_word(0, pending) & TIMER_BIT, seen);
        }
        assert_eq!(bench.cpus[0].calls, []);
        bench.cpus[0].end(VIRTUAL_TIMER);
        assert_eq!(bench.cpus[0].ended, [HOST_TIMER]);
    }
}

#[test]
fn a_timer_that_the_guest_does_not_listen_to_shows_its_line() {
    for version in BOTH {
        let mut bench = Bench::running(version, 1);
        let pending = bench.private_frame(0) + SET_PENDING;
        for (state, seen) in [(State::Pending, TIMER_BIT), (State::Invalid, 0)] {
            bench.cpus[0].physical = vec![(HOST_TIMER, state)];
            assert_eq!(bench.read_word(0, pending) & TIMER_BIT, seen);
            assert_eq!(bench.read_word(0, pending + 0x80) & TIMER_BIT, seen);
        }
    }
}

#[test]
fn a_timer_interrupt_that_software_made_pending_needs_no_line() {
    for version in BOTH {
        let mut bench = Bench::running(version, 1);
        bench.listen_to(0, &[VIRTUAL_TIMER]);
        let pending = bench.private_frame(0) + SET_PENDING;
        bench.write_word(0, pending, TIMER_BIT);
        assert_eq!(bench.read_word(0, pending) & TIMER_BIT, TIMER_BIT);
        assert_eq!(bench.cpus[0].pending(), [27]);
    }
}

#[test]
fn a_timer_that_was_made_pending_while_it_was_active_comes_once_when_it_fires() {
    for version in BOTH {
        let mut bench = Bench::running(version, 1);
        bench.listen_to(0, &[VIRTUAL_TIMER]);
        assert_eq!(bench.interrupt(0, Source::VirtualTimer), Disposition::LeaveActive);
        assert_eq!(bench.cpus[0].acknowledge(), Some(VIRTUAL_TIMER));
        let pending = bench.private_frame(0) + SET_PENDING;
        bench.write_word(0, pending, TIMER_BIT);
        bench.cpus[0].end(VIRTUAL_TIMER);
        assert_eq!(bench.interrupt(0, Source::VirtualTimer), Disposition::LeaveActive);
        assert_eq!(bench.handle(0), Some(VIRTUAL_TIMER.0));
        interrupts::replan(&mut bench.vcpus[0], &bench.vm, &mut bench.cpus[0]);
        assert_eq!(bench.cpus[0].pending(), [], "no second one from nowhere");
    }
}

//! What a CPU does between guests: waits for a vCPU to run, starts it, stops it, gathers a VM's vCPUs.
//!
//! Not here: exits that go straight back (`exit`).

use alloc::boxed::Box;

use trapeze::dispatcher::{Left, interrupts};
use trapeze::interpreter::device::vgic::ListRegisters;
use trapeze::vcpu::{Frame, Vcpu};
use trapeze::vm::{Requests, State};

use super::exit::{self, take_interrupt};
use super::guest;
use super::hardware::Hardware;
use super::percpu::{Guest, Pcpu};

/// Runs the CPU's first guest, when there is one.
pub fn enter(cpu: &mut Pcpu) -> ! {
    unsafe extern "C" {
        fn enter_guest(frame: *const Frame) -> !;
    }
    let frame = find_work(cpu);
    // SAFETY: `frame` belongs to the vCPU in `cpu.guest`, which lives until this CPU drops it; the CPU's
    // registers are set up for that guest, and nothing on this stack is needed again.
    unsafe { enter_guest(frame) }
}

/// Does what the dispatcher's answer asks beyond registers, and returns whom to run.
#[cold]
pub fn carry_out(cpu: &mut Pcpu, left: Left) -> *const Frame {
    match left {
        Left::Wait => wait(cpu),
        Left::Stop(state) => {
            stop(cpu, state);
            find_work(cpu)
        }
        Left::Off => find_work(cpu),
        Left::Nothing => go_on(cpu),
    }
}

/// Returns to the guest that this CPU has, after looking at what other CPUs asked of it.
pub fn go_on(cpu: &mut Pcpu) -> *const Frame {
    if let Some(guest) = &mut cpu.guest {
        let requests = guest.post().take();
        if is_to_park(guest, requests) {
            return find_work(cpu);
        }
        if requests.contains(Requests::PLAN) {
            let mut machine = Hardware { gic: &cpu.gic, timer: &cpu.timer, monitor: cpu.monitor };
            interrupts::replan(&mut guest.vcpu, &guest.tenant.vm, &mut machine);
            return watched(cpu);
        }
        return &raw const guest.vcpu.frame;
    }
    find_work(cpu)
}

/// Returns the frame of this CPU's guest, which may have been planned a physical interrupt.
fn watched(cpu: &mut Pcpu) -> *const Frame {
    if cpu.gic.wants_watch() {
        exit::watch(cpu);
    }
    match &cpu.guest {
        Some(guest) => &raw const guest.vcpu.frame,
        None => find_work(cpu),
    }
}

/// Tells whether the vCPU is to stop. A request that is older than the last reset has been met: a vCPU that was off
/// saw the state of its VM and parked without looking at its post.
fn is_to_park(guest: &Guest, requests: Requests) -> bool {
    requests.contains(Requests::PARK) && guest.tenant.vm.state() != State::Running
}

/// Waits until an interrupt is pending for the vCPU: CPU_SUSPEND in standby.
fn wait(cpu: &mut Pcpu) -> *const Frame {
    loop {
        while take_interrupt(cpu) {}
        let Some(guest) = &mut cpu.guest else { break };
        let mut machine = Hardware { gic: &cpu.gic, timer: &cpu.timer, monitor: cpu.monitor };
        let requests = guest.post().take();
        if is_to_park(guest, requests) {
            break;
        }
        if interrupts::is_interrupted(&mut guest.vcpu, &guest.tenant.vm, &mut machine) {
            return watched(cpu);
        }
        aarch64_cpu::asm::wfi(); // a pending interrupt ends it although it is masked
    }
    find_work(cpu)
}

/// Waits for a vCPU to start on this CPU and returns its frame.
fn find_work(cpu: &mut Pcpu) -> *const Frame {
    loop {
        if cpu.guest.is_none()
            && let Some(seat) = cpu.monitor.take_seat(cpu.id)
        {
            let vcpu = Box::new(Vcpu::new(seat.vcpu, cpu.gic.list_registers()));
            cpu.guest = Some(Guest { vcpu, tenant: seat.tenant, parked_in: 0 });
        }
        if let Some(guest) = &mut cpu.guest {
            let (state, epoch) = guest.tenant.vm.standing();
            match state {
                State::Running => {
                    let start = guest.tenant.vm.power.lock().take_start(guest.vcpu.id);
                    if let Some(start) = start {
                        guest.vcpu.start(start.entry.get(), start.context);
                        return start_guest(cpu);
                    }
                }
                _ if guest.parked_in != epoch => park(cpu, epoch),
                State::Resetting => {}
                State::Off | State::Crashed => {
                    cpu.guest = None;
                    continue; // the kick that was for the next seat may have been taken already
                }
            }
        }
        aarch64_cpu::asm::wfi();
        while take_interrupt(cpu) {}
    }
}

fn start_guest(cpu: &mut Pcpu) -> *const Frame {
    let Some(guest) = &mut cpu.guest else { unreachable!("a start without a guest") };
    let controls = &cpu.monitor.controls;
    let tenant = &guest.tenant;
    cpu.gic.reset_virtual();
    guest::close_el1();
    guest::take_control(controls, tenant.affinity(guest.vcpu.id), tenant.vttbr_el2, tenant.counter_offset());
    guest::reset_el1(controls);
    let mut machine = Hardware { gic: &cpu.gic, timer: &cpu.timer, monitor: cpu.monitor };
    interrupts::power_up(&mut guest.vcpu, &tenant.vm, &mut machine);
    &raw const guest.vcpu.frame
}

/// Takes the vCPU off this CPU because its VM leaves `State::Running`.
fn park(cpu: &mut Pcpu, epoch: u32) {
    let Some(guest) = &mut cpu.guest else { return };
    cpu.gic.reset_virtual();
    cpu.timer.set_guest(None);
    guest::give_up(cpu.monitor.controls.traps);
    for intid in cpu.monitor.guest_interrupts() {
        cpu.gic.set_enabled(intid, false);
        cpu.gic.deactivate(intid);
    }
    guest.vcpu.lists = ListRegisters::new(cpu.gic.list_registers());
    guest.parked_in = epoch;
    guest.tenant.vm.parked(guest.vcpu.exits.take_total());
}

/// Ends or resets the guest's VM: this CPU gathers all vCPUs, then does it.
fn stop(cpu: &mut Pcpu, state: State) {
    let Some(guest) = &mut cpu.guest else { return };
    let tenant = guest.tenant.clone();
    let me = guest.vcpu.id;
    if !tenant.vm.leave_running(state) {
        return; // another vCPU was first; its request to park is on the way
    }
    let mut machine = Hardware { gic: &cpu.gic, timer: &cpu.timer, monitor: cpu.monitor };
    tenant.vm.notify(tenant.vm.vcpus().without(me), Requests::PARK, &mut machine);
    // Nobody begins the next epoch before this CPU has gathered all vCPUs.
    let (_, epoch) = tenant.vm.standing();
    park(cpu, epoch);
    while !tenant.vm.is_gathered() {
        core::hint::spin_loop();
    }
    match state {
        State::Resetting => {
            tenant.reload(cpu.monitor);
            tenant.vm.run_again();
            let mut machine = Hardware { gic: &cpu.gic, timer: &cpu.timer, monitor: cpu.monitor };
            tenant.vm.notify(tenant.vm.vcpus().without(me), Requests::START, &mut machine);
            interrupts::console(&tenant.vm, &mut machine); // its UARTs are new: they have room again
        }
        State::Running | State::Off | State::Crashed => {
            tenant.silence(&cpu.gic);
            tenant.release(cpu.monitor);
            cpu.guest = None;
            cpu.monitor.ended(&tenant, state);
        }
    }
}

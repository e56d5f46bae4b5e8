//! Which vCPU a CPU runs: it looks at its run queue, switches, waits for work.
//!
//! Not here: who is to run next (the allocator's scheduler), moving registers (`world`), exits that go straight back
//! (`exit`), and the life of a VM (`lifecycle`).

use spin::MutexGuard;
use trapeze::allocator::scheduler::{After, RunQueue, Verdict};
use trapeze::dispatcher::{Left, interrupts};
use trapeze::ids::Ticks;
use trapeze::interpreter::device::vgic::ListRegister;
use trapeze::vcpu::{Frame, Vcpu};
use trapeze::vm::{Requests, State};

use super::exit::{self, take_interrupt};
use super::guest;
use super::hardware::Hardware;
use super::percpu::{Guest, Pcpu};
use super::sysreg::read_sysreg;
use super::{lifecycle, timer, world};

/// Runs the CPU's first guest, when there is one.
pub fn enter(cpu: &mut Pcpu) -> ! {
    unsafe extern "C" {
        fn enter_guest(frame: *const Frame) -> !;
    }
    let frame = next(cpu);
    // SAFETY: `frame` belongs to the vCPU in `cpu.guest`, which lives until this CPU drops it; the CPU's
    // registers are set up for that guest, and nothing on this stack is needed again.
    unsafe { enter_guest(frame) }
}

/// Does what the dispatcher's answer asks beyond registers, and returns whom to run.
#[cold]
pub fn carry_out(cpu: &mut Pcpu, left: Left) -> *const Frame {
    match left {
        Left::Nothing => go_on(cpu),
        Left::Wait { until } => wait(cpu, until),
        Left::Yield => give_way(cpu),
        Left::Off => {
            lifecycle::rest_current(cpu);
            next(cpu)
        }
        Left::Stop(state) => {
            if let Some(guest) = &cpu.guest {
                let tenant = guest.tenant.clone();
                lifecycle::stop(cpu.monitor, &cpu.gic, &tenant, state); // another vCPU may have been first
            }
            lifecycle::rest_current(cpu);
            next(cpu)
        }
    }
}

/// Returns to the guest that this CPU has, after looking at what was asked of the CPU and of the vCPU.
pub fn go_on(cpu: &mut Pcpu) -> *const Frame {
    if cpu.monitor.cpus.is_called(cpu.id) {
        return attend(cpu);
    }
    resume(cpu)
}

/// Returns to the guest that this CPU has, after looking at what was asked of the vCPU.
fn resume(cpu: &mut Pcpu) -> *const Frame {
    let Some(guest) = &cpu.guest else { return next(cpu) };
    let requests = guest.post().take();
    if requests.is_empty() {
        return &raw const guest.vcpu.frame;
    }
    // A request to park may be older than the state of the VM.
    if requests.contains(Requests::PARK) && guest.tenant.vm.state() != State::Running {
        lifecycle::rest_current(cpu);
        return next(cpu);
    }
    lifecycle::answer(cpu, requests);
    watched(cpu)
}

/// Returns the frame of this CPU's guest, which may have been planned a physical interrupt.
fn watched(cpu: &mut Pcpu) -> *const Frame {
    if cpu.gic.wants_watch() {
        exit::watch(cpu);
    }
    match &cpu.guest {
        Some(guest) => &raw const guest.vcpu.frame,
        None => next(cpu),
    }
}

/// Looks at the run queue, and switches to another vCPU if that is to run now.
#[inline(never)]
fn attend(cpu: &mut Pcpu) -> *const Frame {
    let monitor = cpu.monitor;
    if monitor.cpus.is_asked(cpu.id) {
        publish_exits(cpu);
    }
    monitor.cpus.answers(cpu.id);
    let now = timer::now();
    let mut queue = monitor.cpus.queue(cpu.id);
    if queue.attend(now) == Verdict::Switch {
        return switch(cpu, queue, now, After::Yields);
    }
    let (event, traps_waiting) = outlook(cpu, &queue);
    drop(queue);
    cpu.timer.set_schedule(event);
    if cpu.guest.is_some() {
        world::trap_waiting(&monitor.controls, traps_waiting);
    }
    resume(cpu)
}

#[cold]
fn publish_exits(cpu: &Pcpu) {
    cpu.guest.iter().for_each(Guest::publish_exits);
    cpu.monitor.cpus.has_published(cpu.id);
}

/// Tells when the run queue is to be looked at again, and whether the vCPU's waiting is to trap: others could use the time.
#[inline]
fn outlook(cpu: &Pcpu, queue: &RunQueue<Guest>) -> (Option<Ticks>, bool) {
    (queue.next_event(), queue.members() > 1 || cpu.monitor.cpus.are_shared())
}

/// Lets others run that wait for this CPU: WFE is what a guest waits with for another of its CPUs.
#[inline(never)]
fn give_way(cpu: &mut Pcpu) -> *const Frame {
    let queue = cpu.monitor.cpus.queue(cpu.id);
    if queue.has_waiting() {
        return switch(cpu, queue, timer::now(), After::Yields);
    }
    drop(queue);
    go_on(cpu)
}

/// Waits until an interrupt is pending for the vCPU, or until its virtual counter is at `until`: WFI where others could use
/// the time, and CPU_SUSPEND in standby.
#[inline(never)]
fn wait(cpu: &mut Pcpu, until: Option<u64>) -> *const Frame {
    while take_interrupt(cpu) {}
    let Some(Guest { vcpu, tenant }) = &mut cpu.guest else { return next(cpu) };
    let mut machine = Hardware { gic: &cpu.gic, timer: &cpu.timer, monitor: cpu.monitor };
    if interrupts::is_interrupted(vcpu, &tenant.vm, &mut machine) {
        return resume(cpu);
    }
    let now = timer::now();
    let offset = tenant.counter_offset();
    let limits =
        [virtual_deadline(vcpu), until].map(|count| count.map(|count| Ticks(count.saturating_add(offset))));
    let deadline = limits.into_iter().chain([vcpu.physical_timer.deadline(now)]).flatten().min();
    let queue = cpu.monitor.cpus.queue(cpu.id);
    // Who leaves word does so before he looks whether the vCPU waits.
    if cpu.guest.as_ref().is_some_and(|guest| guest.post().has_requests()) {
        drop(queue);
        return go_on(cpu);
    }
    switch(cpu, queue, now, After::Waits { until: deadline })
}

/// Returns the count at which the virtual timer will interrupt the vCPU, whose registers this CPU has. Not if it stands
/// behind an interrupt that the vCPU is at already.
fn virtual_deadline(vcpu: &Vcpu) -> Option<u64> {
    let is_armed = read_sysreg!("cntv_ctl_el0") & 0b11 == 0b01; // ENABLE without IMASK
    let is_held = |entry: &ListRegister| entry.physical.is_some();
    (is_armed && vcpu.heard != 0 && !vcpu.lists.in_use().any(is_held)).then(|| read_sysreg!("cntv_cval_el0"))
}

/// Takes the vCPU off this CPU, which runs another one, or none.
fn switch(
    cpu: &mut Pcpu,
    mut queue: MutexGuard<'_, RunQueue<Guest>>,
    now: Ticks,
    after: After,
) -> *const Frame {
    if let Some(mut guest) = cpu.guest.take() {
        world::leave(&cpu.monitor.controls, &cpu.gic, &mut cpu.left, &mut guest.vcpu);
        queue.put_back(now, guest, after);
    }
    match start(cpu, queue, now) {
        Some(frame) => frame,
        None => next(cpu),
    }
}

/// Runs the vCPU whose turn it is, if there is one.
fn start(cpu: &mut Pcpu, mut queue: MutexGuard<'_, RunQueue<Guest>>, now: Ticks) -> Option<*const Frame> {
    let (_, guest, _) = queue.start(now)?;
    let (event, traps_waiting) = outlook(cpu, &queue);
    drop(queue);
    let (tenant, vcpu) = (&guest.tenant, &guest.vcpu);
    let control = tenant.control(&cpu.monitor.vmids, cpu.id, vcpu.id);
    world::enter(&cpu.monitor.controls, &cpu.gic, &cpu.left, vcpu, &control);
    if !traps_waiting {
        world::trap_waiting(&cpu.monitor.controls, false);
    }
    if tenant.follows_sibling(cpu.id, vcpu.id) {
        world::forget_siblings();
    }
    cpu.timer.set(event, vcpu.physical_timer.deadline(now));
    let has_physical_timer = vcpu.physical_timer.is_enabled();
    cpu.guest = Some(guest);
    if has_physical_timer {
        catch_up(cpu);
    }
    Some(resume(cpu))
}

/// Brings the line of the emulated timer up to the time.
#[cold]
fn catch_up(cpu: &mut Pcpu) {
    if let Some(Guest { vcpu, tenant }) = &mut cpu.guest {
        let mut machine = Hardware { gic: &cpu.gic, timer: &cpu.timer, monitor: cpu.monitor };
        interrupts::update_physical_timer(vcpu, &tenant.vm, &mut machine);
    }
}

/// Runs the next vCPU of this CPU, which has none, as soon as there is one; one that waits for another CPU, too.
#[inline(never)]
fn next(cpu: &mut Pcpu) -> *const Frame {
    let monitor = cpu.monitor;
    let mut is_vacant = false;
    loop {
        monitor.cpus.has_published(cpu.id); // it runs nobody who has something to publish
        monitor.cpus.answers(cpu.id);
        let now = timer::now();
        let mut queue = monitor.cpus.queue(cpu.id);
        let _ = queue.attend(now); // whoever is to run does so now
        let event = queue.next_event();
        if queue.runnable() == 0 {
            drop(queue);
        } else if let Some(frame) = start(cpu, queue, now) {
            return frame;
        }
        if !is_vacant {
            guest::vacate();
            is_vacant = true;
        }
        // Whoever queues a vCPU elsewhere from now on sees that this CPU could run it.
        monitor.cpus.set_idle(cpu.id, true);
        if !monitor.cpus.steal(&cpu.gic, cpu.id) && !monitor.cpus.is_called(cpu.id) {
            cpu.timer.set(event, None);
            aarch64_cpu::asm::wfi(); // a pending interrupt ends it although it is masked
        }
        monitor.cpus.set_idle(cpu.id, false);
        while take_interrupt(cpu) {}
    }
}

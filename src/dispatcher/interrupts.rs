//! Physical interrupts and the way of virtual ones: model, list registers, other vCPUs.
//!
//! Not here: the state of interrupts (the vGIC model's), and acknowledging physical ones (`arch/`).

use crate::ids::{IntId, VcpuId, VcpuSet};
use crate::interpreter::device::ptimer::PhysicalTimer;
use crate::interpreter::device::vgic::{Errand, Vgic};
use crate::machine::Machine;
use crate::vcpu::Vcpu;
use crate::vm::{Requests, Vm};

/// What an interrupt of the real machine stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// Another CPU left word.
    Kick,
    /// The guest's virtual timer.
    VirtualTimer,
    /// An overflow of the guest's performance monitors.
    PerformanceMonitors,
    /// EL2's timer: the guest's emulated physical timer is due.
    HypervisorTimer,
    /// The list registers want a new plan.
    Maintenance,
    /// The console received something.
    Console,
    /// Another one, by its physical INTID: that of a device which the VM was given, or nobody's.
    Device(IntId),
}

/// What becomes of the physical interrupt.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disposition {
    /// It stays active: the guest deactivates it through its list register.
    LeaveActive,
    /// It is over.
    End,
    /// It is over, and is not to come again: nobody asked for it.
    Silence,
}

/// Answers a physical interrupt on a CPU that has a vCPU.
pub fn physical(source: Source, vcpu: &mut Vcpu, vm: &Vm, machine: &mut impl Machine) -> Disposition {
    match source {
        Source::VirtualTimer => fired(Some(vm.layout.virtual_timer), vcpu, vm, machine),
        Source::PerformanceMonitors => fired(vm.layout.performance_monitors, vcpu, vm, machine),
        Source::HypervisorTimer => {
            update_physical_timer(vcpu, vm, machine);
            Disposition::End
        }
        Source::Maintenance => {
            replan(vcpu, vm, machine);
            Disposition::End
        }
        Source::Device(physical) => device(physical, Some(vcpu.id), vm, machine),
        // What a kick is about is in the vCPU's post; the console is not one VM's.
        Source::Kick | Source::Console => Disposition::End,
    }
}

/// Makes the interrupt pending that a device of the host's stands behind, which the VM was given; `here` is the vCPU of the
/// VM that this CPU runs. It may be another vCPU's, or that of one which is off: this one, too, is planned when it looks at
/// its post, which is before it goes on.
#[inline(never)]
pub fn device(physical: IntId, here: Option<VcpuId>, vm: &Vm, machine: &mut impl Machine) -> Disposition {
    let Some((_, intid)) = vm.layout.devices.iter().find(|(own, _)| *own == physical) else {
        return Disposition::Silence;
    };
    let mut concerned = vm.vgic.lock().set_line(here.unwrap_or(VcpuId(0)), *intid, true);
    if let Some(here) = here.filter(|here| concerned.contains(*here))
        && let Some(post) = vm.posts.get(here.index())
    {
        post.leave(Requests::PLAN);
        concerned = concerned.without(here);
    }
    vm.notify(concerned, Requests::PLAN, machine);
    Disposition::LeaveActive
}

/// Makes the interrupt pending that a physical one stands behind.
fn fired(intid: Option<IntId>, vcpu: &mut Vcpu, vm: &Vm, machine: &mut impl Machine) -> Disposition {
    let Some(intid) = intid else { return Disposition::End };
    if !renewed(intid, vcpu, vm, machine) {
        change(vcpu, vm, machine, |vgic, vcpu| vgic.set_line(vcpu, intid, true));
    }
    Disposition::LeaveActive
}

/// Takes the short way where the interrupt was ended in its list register and nothing else goes on: a timer that ticks.
#[inline(always)]
fn renewed(intid: IntId, vcpu: &mut Vcpu, vm: &Vm, machine: &mut impl Machine) -> bool {
    if vcpu.lists.used != 1 || vcpu.lists.wants_maintenance() {
        return false;
    }
    machine.save_first(&mut vcpu.lists);
    let is_renewed = vm.vgic.lock().renew(vcpu.id, intid, &mut vcpu.lists);
    if is_renewed {
        machine.load_first(&vcpu.lists);
    }
    is_renewed
}

/// Takes everything about the vCPU's interrupts back into the model, where it stays until the vCPU starts again: what is
/// pending or active, as a GIC keeps it (Arm DEN 0022F, CPU_OFF), but for the timers and monitors, which lose power.
pub fn power_down(vcpu: &mut Vcpu, vm: &Vm, machine: &mut impl Machine) {
    machine.power_down();
    vcpu.physical_timer = PhysicalTimer::new();
    machine.set_deadline(None);
    let mut vgic = vm.vgic.lock();
    let mut concerned = fold(&mut vgic, vcpu, machine);
    for intid in vm.layout.private_lines() {
        concerned.add(vgic.set_line(vcpu.id, intid, false));
    }
    vcpu.lists.empty();
    machine.load_lists(&vcpu.lists);
    run_errands(&mut vgic, vcpu.id, machine);
    drop(vgic);
    vm.notify(concerned.without(vcpu.id), Requests::PLAN, machine);
}

/// Plans the list registers of a vCPU that starts. Its timers and monitors are off: what they asked for in an earlier life,
/// and what came of that while the vCPU was off, is over.
pub fn power_up(vcpu: &mut Vcpu, vm: &Vm, machine: &mut impl Machine) {
    change(vcpu, vm, machine, |vgic, id| {
        for intid in vm.layout.private_lines() {
            let _ = vgic.set_line(id, intid, false); // this vCPU is planned anew
        }
        VcpuSet::only(id)
    });
}

/// Brings the list registers back into the model, changes it, and puts the new plan into them.
pub fn change(
    vcpu: &mut Vcpu,
    vm: &Vm,
    machine: &mut impl Machine,
    action: impl FnOnce(&mut Vgic, VcpuId) -> VcpuSet,
) {
    with_vgic(vcpu, vm, machine, |vgic, id, _| ((), action(vgic, id)));
}

/// Like [`change`], for an access that has an answer.
pub fn with_vgic<R, M: Machine>(
    vcpu: &mut Vcpu,
    vm: &Vm,
    machine: &mut M,
    action: impl FnOnce(&mut Vgic, VcpuId, &mut M) -> (R, VcpuSet),
) -> R {
    let mut vgic = vm.vgic.lock();
    let mut concerned = VcpuSet::EMPTY;
    // Empty list registers have nothing to say, and stay right until something concerns this vCPU.
    let is_loaded = vcpu.lists.used != 0;
    if is_loaded {
        concerned = fold(&mut vgic, vcpu, machine);
    }
    let (answer, changed) = action(&mut vgic, vcpu.id, machine);
    concerned.add(changed);
    if is_loaded || concerned.contains(vcpu.id) {
        plan(&mut vgic, vcpu, machine);
    }
    drop(vgic);
    vm.notify(concerned.without(vcpu.id), Requests::PLAN, machine);
    answer
}

/// Tells the model, before the guest reads what is pending, about lines that only the hardware sees.
#[cold]
pub fn sample_lines(vgic: &mut Vgic, cpu: VcpuId, vm: &Vm, machine: &impl Machine) -> VcpuSet {
    let mut changed = VcpuSet::EMPTY;
    for intid in vm.layout.private_lines() {
        if let Some(physical) = vgic.physical(intid) {
            changed.add(vgic.sample_line(cpu, intid, machine.physical_state(physical)));
        }
    }
    changed
}

/// Plans the list registers anew: another vCPU changed something, or they ran out.
pub fn replan(vcpu: &mut Vcpu, vm: &Vm, machine: &mut impl Machine) {
    change(vcpu, vm, machine, |_, vcpu| VcpuSet::only(vcpu));
}

fn fold(vgic: &mut Vgic, vcpu: &mut Vcpu, machine: &mut impl Machine) -> VcpuSet {
    machine.save_lists(&mut vcpu.lists);
    // With EOImode 1 only DIR deactivates, which traps when it may concern what has no list register. There are CPU
    // interfaces that count EOIR all the same, QEMU's GICv3 up to 10.0 among them.
    if vcpu.lists.eoi_count != 0 && machine.splits_deactivation() {
        vcpu.lists.eoi_count = 0;
    }
    vgic.fold(vcpu.id, &vcpu.lists)
}

fn plan(vgic: &mut Vgic, vcpu: &mut Vcpu, machine: &mut impl Machine) {
    let heard = vcpu.lists.hardware_enabled;
    vgic.plan(vcpu.id, &mut vcpu.lists);
    machine.load_lists(&vcpu.lists);
    if vcpu.lists.withdrawn {
        run_errands(vgic, vcpu.id, machine);
    }
    if vcpu.lists.hardware_enabled != heard {
        let_through(vgic, heard, vcpu, machine);
    }
}

/// Does what the model wants of physical interrupts.
#[inline(never)]
fn run_errands(vgic: &mut Vgic, cpu: VcpuId, machine: &mut impl Machine) {
    while let Some(errand) = vgic.take_errand(cpu) {
        match errand {
            Errand::Deactivate(physical) => machine.deactivate(physical),
            Errand::LetThrough(physical, on) => machine.let_through(physical, on),
        }
    }
}

/// Makes the physical GIC listen to what stands behind the guest's private interrupts as the guest does; `before` are
/// those that it listened to, bit by bit.
#[cold]
fn let_through(vgic: &Vgic, before: u32, vcpu: &mut Vcpu, machine: &mut impl Machine) {
    let wanted = vcpu.lists.hardware_enabled;
    for number in (0..32).filter(|number| (wanted ^ before) >> number & 1 != 0) {
        if let Some(physical) = vgic.physical(IntId(number)) {
            let is_wanted = wanted >> number & 1 != 0;
            machine.let_through(physical, is_wanted);
            let bit = 1_u32.unbounded_shl(physical.0);
            vcpu.heard = if is_wanted { vcpu.heard | bit } else { vcpu.heard & !bit };
        }
    }
}

/// Tells whether an interrupt would end the vCPU's wait. It is planned anew all the same: whoever asked for that has left
/// word once.
pub fn is_interrupted(vcpu: &mut Vcpu, vm: &Vm, machine: &mut impl Machine) -> bool {
    with_vgic(vcpu, vm, machine, |vgic, id, _| (vgic.has_pending(id), VcpuSet::only(id)))
}

/// Makes the interrupt line and the deadline of the physical timer follow its registers.
pub fn update_physical_timer(vcpu: &mut Vcpu, vm: &Vm, machine: &mut impl Machine) {
    let now = machine.now();
    let level = vcpu.physical_timer.line(now);
    machine.set_deadline(vcpu.physical_timer.deadline(now));
    let intid = vm.layout.physical_timer;
    change(vcpu, vm, machine, |vgic, vcpu| vgic.set_line(vcpu, intid, level));
}

/// Gives what the console received to the VM's first UART, as far as that has room.
///
/// What it has no room for stays in the console, whose interrupt is off until the guest reads.
pub fn console(vm: &Vm, machine: &mut impl Machine) {
    let Some(uart) = vm.uarts.first() else {
        while machine.receive(vm.id).is_some() {}
        return;
    };
    let mut model = uart.model.lock();
    while model.can_receive() {
        let Some(byte) = machine.receive(vm.id) else { break };
        let _ = model.receive(byte);
    }
    machine.listen(model.can_receive());
    // The model stays locked: two CPUs must not bring its levels to the vGIC in the other order.
    let changed = vm.vgic.lock().set_line(VcpuId(0), uart.intid, model.line());
    drop(model);
    vm.notify(changed, Requests::PLAN, machine);
}

//! The life of a VM: its vCPUs begin, rest and come together, and what follows when all of them rest.
//!
//! Not here: making a VM (`tenant`), and which vCPU has which CPU (`run`, `monitor`).
//!
//! A vCPU is *in play* while it is in a run queue, whether it runs, waits for a CPU or for an interrupt; otherwise it
//! *rests* in the roster of its VM: it is off, or the VM does not run. Who makes the last one rest does what is to be done
//! then, so nobody ever waits for another CPU. Locks are taken in this order: roster, run queue.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use trapeze::allocator::scheduler::Account;
use trapeze::dispatcher::interrupts;
use trapeze::ids::{VcpuId, VmId};
use trapeze::interpreter::psci;
use trapeze::share::OnCrash;
use trapeze::vcpu::Vcpu;
use trapeze::vm::{Place, Requests, State};

use super::cpus::Found;
use super::gic::Gic;
use super::hardware::Hardware;
use super::monitor::Monitor;
use super::percpu::{Guest, Pcpu};
use super::tenant::Tenant;
use super::{timer, world};

/// Which vCPUs of a VM rest.
pub struct Roster {
    resting: Vec<Option<Resting>>,
    in_play: usize,
}

/// A vCPU that is in no run queue.
struct Resting {
    vcpu: Box<Vcpu>,
    account: Account,
}

impl Roster {
    /// Makes the roster of a VM all of whose vCPUs are off.
    pub fn new(vcpus: u8, list_registers: u8) -> Self {
        let rest = |id| {
            let vcpu = Box::new(Vcpu::new(VcpuId(id), list_registers));
            Some(Resting { vcpu, account: Account::default() })
        };
        Self { resting: (0..vcpus).map(rest).collect(), in_play: 0 }
    }

    /// Returns for how many ticks the vCPUs that rest had a CPU.
    pub fn ran(&self) -> u64 {
        self.resting.iter().flatten().map(|resting| resting.account.ran.0).sum()
    }
}

/// Lets a VM run that is new, or was reset: the vCPUs that PSCI has turned on begin.
pub fn begin(monitor: &'static Monitor, gic: &Gic, tenant: &Arc<Tenant>) {
    let mut roster = tenant.roster.lock();
    tenant.vm.set_state(State::Running);
    for id in tenant.vm.vcpus().iter() {
        start(monitor, gic, tenant, &mut roster, id);
    }
}

/// Lets a vCPU begin that PSCI turned on. One that has not come to rest yet will see that by itself.
pub fn turn_on(monitor: &'static Monitor, gic: &Gic, vm: VmId, vcpu: VcpuId) {
    if let Some(tenant) = monitor.tenant(vm) {
        start(monitor, gic, &tenant, &mut tenant.roster.lock(), vcpu);
    }
}

fn start(monitor: &'static Monitor, gic: &Gic, tenant: &Arc<Tenant>, roster: &mut Roster, id: VcpuId) {
    let Some(slot) = roster.resting.get_mut(id.index()) else { return };
    if slot.is_none() || tenant.vm.state() != State::Running {
        return;
    }
    let Some(start) = tenant.vm.power.lock().take_start(id) else { return };
    let Some(Resting { mut vcpu, account }) = slot.take() else { return };
    vcpu.start(start.entry.get(), start.context, monitor.controls.sctlr_el1_at_reset);
    let post = &tenant.vm.posts[id.index()];
    post.take(); // what was asked of it in an earlier life
    post.leave(Requests::START);
    roster.in_play += 1;
    monitor.cpus.enqueue(gic, Guest { vcpu, tenant: tenant.clone() }, account);
}

/// Takes the vCPU that this CPU runs off it, to rest.
pub fn rest_current(cpu: &mut Pcpu) {
    let Some(mut guest) = cpu.guest.take() else { return };
    world::leave(&cpu.monitor.controls, &cpu.gic, &mut cpu.left, &mut guest.vcpu);
    let mut roster = guest.tenant.roster.lock();
    let mut queue = cpu.monitor.cpus.queue(cpu.id);
    let account = queue.retire(timer::now()).map_or_else(Account::default, |(_, account)| account);
    guest.post().set_place(Place::Resting);
    drop(queue);
    rest(cpu.monitor, &cpu.gic, &guest.tenant, &mut roster, Resting { vcpu: guest.vcpu, account });
    let over = over(&guest.tenant, &roster);
    drop(roster);
    settle(cpu.monitor, &cpu.gic, &guest.tenant, over);
}

/// Tells what the VM has come to, if all of its vCPUs rest. Asked once for each state: by whom brings it about last.
fn over(tenant: &Tenant, roster: &Roster) -> Option<State> {
    (roster.in_play == 0).then(|| tenant.vm.state())
}

fn rest(
    monitor: &'static Monitor,
    gic: &Gic,
    tenant: &Arc<Tenant>,
    roster: &mut Roster,
    mut resting: Resting,
) {
    let id = resting.vcpu.id;
    tenant.vm.add_exits(resting.vcpu.exits.take_total());
    tenant.vm.posts[id.index()].publish_exits(0);
    roster.resting[id.index()] = Some(resting);
    roster.in_play -= 1;
    monitor.cpus.left(gic);
    start(monitor, gic, tenant, roster, id); // somebody may have turned it on meanwhile
}

/// Makes a VM leave the state in which its vCPUs run: each is brought to rest. `false` if it runs no more already.
pub fn stop(monitor: &'static Monitor, gic: &Gic, tenant: &Arc<Tenant>, next: State) -> bool {
    let mut roster = tenant.roster.lock();
    let state = tenant.vm.state();
    let is_held = state == State::Crashed && tenant.on_crash == OnCrash::Hold && roster.in_play == 0;
    let may = match state {
        State::Running => true,
        State::Paused => next != State::Paused,
        State::Crashed => is_held && matches!(next, State::Off | State::Resetting),
        State::Resetting | State::Off => false,
    };
    if !may {
        return false;
    }
    tenant.vm.set_state(next);
    for id in tenant.vm.vcpus().iter() {
        recall(monitor, gic, tenant, &mut roster, id);
    }
    let over = over(tenant, &roster);
    drop(roster);
    settle(monitor, gic, tenant, over);
    true
}

/// Brings a vCPU to rest, or has the CPU that runs it do so.
fn recall(monitor: &'static Monitor, gic: &Gic, tenant: &Arc<Tenant>, roster: &mut Roster, id: VcpuId) {
    let post = &tenant.vm.posts[id.index()];
    let Some(Found { pcpu, slot, mut queue }) = monitor.cpus.find(post) else { return };
    let Some((guest, _, account)) = queue.leave(slot, timer::now()) else {
        post.leave(Requests::PARK); // while the queue is held: it cannot begin to wait without seeing this
        return monitor.cpus.kick(gic, pcpu);
    };
    post.set_place(Place::Resting);
    drop(queue);
    rest(monitor, gic, tenant, roster, Resting { vcpu: guest.vcpu, account });
}

/// Lets a paused VM go on where it was. `false` if it was not paused, or not all of its vCPUs rest yet.
pub fn resume(monitor: &'static Monitor, gic: &Gic, tenant: &Arc<Tenant>) -> bool {
    let mut roster = tenant.roster.lock();
    if tenant.vm.state() != State::Paused || roster.in_play != 0 {
        return false;
    }
    tenant.end_pause();
    tenant.vm.set_state(State::Running);
    for id in tenant.vm.vcpus().iter() {
        let is_on = tenant.vm.power.lock().state(id) == Some(psci::State::On);
        if is_on && let Some(Resting { vcpu, account }) = roster.resting[id.index()].take() {
            roster.in_play += 1;
            monitor.cpus.enqueue(gic, Guest { vcpu, tenant: tenant.clone() }, account);
        } else {
            start(monitor, gic, tenant, &mut roster, id);
        }
    }
    true
}

/// Does what follows when all vCPUs of a VM rest.
fn settle(monitor: &'static Monitor, gic: &Gic, tenant: &Arc<Tenant>, over: Option<State>) {
    match over {
        None | Some(State::Running) => {}
        Some(State::Paused) => tenant.begin_pause(),
        Some(State::Resetting) => begin_anew(monitor, gic, tenant),
        Some(State::Crashed) if tenant.on_crash == OnCrash::Hold => {
            monitor.note_failure();
            log::error!("vm {}: crashed, and is held", tenant.vm.name);
        }
        Some(State::Crashed) if tenant.on_crash == OnCrash::Reset => {
            monitor.note_failure();
            begin_anew(monitor, gic, tenant);
        }
        Some(state @ (State::Off | State::Crashed)) => {
            tenant.silence(gic);
            tenant.release(monitor);
            monitor.ended(tenant, state);
        }
    }
}

fn begin_anew(monitor: &'static Monitor, gic: &Gic, tenant: &Arc<Tenant>) {
    tenant.reload(monitor);
    begin(monitor, gic, tenant);
}

/// Does for a vCPU that this CPU is about to run what others have asked of it.
#[inline(never)]
pub fn answer(cpu: &mut Pcpu, requests: Requests) {
    let Some(Guest { vcpu, tenant }) = &mut cpu.guest else { return };
    let mut machine = Hardware { gic: &cpu.gic, timer: &cpu.timer, monitor: cpu.monitor };
    if requests.contains(Requests::START) {
        interrupts::power_up(vcpu, &tenant.vm, &mut machine);
        interrupts::console(&tenant.vm, &mut machine); // after a reset its UARTs are new: they have room again
    } else if requests.contains(Requests::PLAN) {
        interrupts::replan(vcpu, &tenant.vm, &mut machine);
    }
}

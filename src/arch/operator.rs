//! What the operator's commands do.
//!
//! Not here: how they are typed and what reports look like (the package `shell`), and who is in front of the console (the
//! library's `terminal`).

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use aarch64_cpu::registers::{CNTFRQ_EL0, Readable};
use shell::report::{self, CpuStatus, MemStatus, Standing, VmStatus};
use shell::{Command, Name};
use trapeze::ids::{Ticks, VcpuId};
use trapeze::share::OnCrash;
use trapeze::shell;
use trapeze::vm::{Place, Post, State};

use super::cpus::Found;
use super::monitor::Monitor;
use super::percpu::{Guest, Pcpu};
use super::tenant::Tenant;
use super::{console, lifecycle, timer};

/// What a VM had had when it was last listed.
#[derive(Clone, Copy, Default)]
pub struct Sample {
    at: u64,
    ran: u64,
    exits: u64,
}

/// Carries a command out, and answers it.
pub fn carry_out(cpu: &Pcpu, command: Command) {
    let (monitor, gic) = (cpu.monitor, &cpu.gic);
    let text = match command {
        Command::Quit => {
            console::share(|terminal, mut out| terminal.close_shell(&mut out));
            return;
        }
        Command::Console(name) => match find(monitor, &name) {
            Ok(tenant) => {
                let _ = console::share(|terminal, mut out| terminal.bring(tenant.vm.id, &mut out));
                return;
            }
            Err(text) => text,
        },
        Command::Off => monitor.stop(),
        Command::List => list(cpu),
        Command::Cpus => cpus(monitor),
        Command::Mem => mem(monitor),
        Command::Stop(name) => {
            on(monitor, &name, |tenant| lifecycle::stop(monitor, gic, tenant, State::Off).then_some("stops"))
        }
        Command::Reset(name) => on(monitor, &name, |tenant| {
            lifecycle::stop(monitor, gic, tenant, State::Resetting).then_some("resets")
        }),
        Command::Pause(name) => on(monitor, &name, |tenant| {
            lifecycle::stop(monitor, gic, tenant, State::Paused).then_some("is paused")
        }),
        Command::Resume(name) => {
            on(monitor, &name, |tenant| lifecycle::resume(monitor, gic, tenant).then_some("goes on"))
        }
        Command::Start(_) | Command::Exits(_) | Command::Map(..) => "this version does not do that\n".into(),
    };
    console::answer(&text);
}

fn find(monitor: &Monitor, name: &Name) -> Result<Arc<Tenant>, String> {
    let tenants = monitor.tenants();
    match tenants.iter().find(|tenant| *tenant.vm.name == **name) {
        Some(tenant) => Ok(tenant.clone()),
        None => Err(shell::unknown_vm(name, tenants.iter().map(|tenant| tenant.vm.name.as_str()))),
    }
}

/// Does something to a VM, and says what becomes of it, or why it does not.
fn on(monitor: &Monitor, name: &Name, action: impl FnOnce(&Arc<Tenant>) -> Option<&'static str>) -> String {
    match find(monitor, name) {
        Ok(tenant) => match action(&tenant) {
            Some(what) => format!("vm {name} {what}\n"),
            None => format!("vm {name} is {}: nothing is done\n", standing(tenant.vm.state()).name()),
        },
        Err(text) => text,
    }
}

const fn standing(state: State) -> Standing {
    match state {
        State::Running => Standing::Running,
        State::Paused => Standing::Paused,
        State::Resetting => Standing::Resetting,
        State::Off => Standing::Off,
        State::Crashed => Standing::Crashed,
    }
}

fn list(cpu: &Pcpu) -> String {
    cpu.guest.iter().for_each(Guest::publish_exits);
    cpu.monitor.cpus.ask_for_exits(&cpu.gic, cpu.id);
    let tenants = cpu.monitor.tenants();
    let now = timer::now();
    let rows: Vec<_> = tenants.iter().map(|tenant| status(cpu.monitor, tenant, now)).collect();
    report::list(&rows)
}

fn status<'a>(monitor: &Monitor, tenant: &'a Tenant, now: Ticks) -> VmStatus<'a> {
    let posts = &tenant.vm.posts;
    let in_play: u64 = posts.iter().map(|post| look(monitor, post, now)).sum();
    let ran = in_play + tenant.roster.lock().ran();
    let exits = tenant.vm.total_exits();
    let before = core::mem::replace(&mut *tenant.sample.lock(), Sample { at: now.0, ran, exits });
    // Since it was listed last, or since it started.
    let span = now.0.saturating_sub(before.at.max(tenant.started_at())).max(1);
    VmStatus {
        number: tenant.vm.id.0 + 1,
        name: &tenant.vm.name,
        standing: match standing(tenant.vm.state()) {
            Standing::Crashed if tenant.on_crash == OnCrash::Hold => Standing::Held,
            other => other,
        },
        vcpus: posts.len(),
        cpu_permille: (ran.saturating_sub(before.ran).saturating_mul(1000) / span) as u32,
        memory_bytes: tenant.memory_bytes(),
        exits_per_second: exits.saturating_sub(before.exits).saturating_mul(CNTFRQ_EL0.get()) / span,
        share: tenant.share,
    }
}

/// Returns how long a vCPU that is in play has run. One that does not run now has its exits published.
fn look(monitor: &Monitor, post: &Post, now: Ticks) -> u64 {
    let Some(Found { slot, queue, .. }) = monitor.cpus.find(post) else { return 0 };
    queue.get(slot).into_iter().for_each(Guest::publish_exits);
    queue.standing(slot, now).map_or(0, |(_, account, _)| account.ran.0)
}

fn cpus(monitor: &Monitor) -> String {
    let tenants = monitor.tenants();
    let now = timer::now();
    let on_cpu = |pcpu| {
        let all = tenants.iter().flat_map(|tenant| {
            let numbered = (0_u8..).map(VcpuId).zip(&tenant.vm.posts);
            numbered.map(move |(vcpu, post)| (tenant.vm.name.as_str(), vcpu, post.place()))
        });
        let queue = monitor.cpus.queue(pcpu);
        let (running, queued, members) = (queue.running(), queue.runnable(), queue.members());
        let busy = queue.busy(now).0;
        drop(queue);
        let is_it = |place: Place| running.is_some_and(|slot| place == Place::At(pcpu, slot.index()));
        CpuStatus {
            pcpu,
            running: all.clone().find(|(.., place)| is_it(*place)).map(|(name, vcpu, _)| (name, vcpu)),
            queued: queued - usize::from(running.is_some()),
            members,
            busy_permille: monitor.cpus.busy_permille(pcpu, now, busy),
        }
    };
    let rows: Vec<_> = monitor.cpus.up().iter().map(on_cpu).collect();
    report::cpus(&rows)
}

fn mem(monitor: &Monitor) -> String {
    let tenants = monitor.tenants();
    let vms: Vec<_> = tenants.iter().map(|tenant| (tenant.vm.name.as_str(), tenant.memory_bytes())).collect();
    let free_bytes = monitor.frames.lock().free_bytes();
    let used: u64 = vms.iter().map(|(_, bytes)| bytes).sum();
    report::mem(&MemStatus {
        total_bytes: monitor.ram_bytes,
        free_bytes,
        hypervisor_bytes: monitor.ram_bytes.saturating_sub(free_bytes + used),
        vms: &vms,
    })
}

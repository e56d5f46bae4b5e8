//! Reports: what the monitor knows, as tables of at most 100 columns. Data in, text out.
//!
//! Not here: where the numbers come from.

mod exits;
mod map;
mod table;

use alloc::string::String;

use vocabulary::ids::{PcpuId, VcpuId};
use vocabulary::share::{Class, Share};

pub use exits::{Cost, ExitRow, exits};
pub use map::{MapStatus, Memory, Node, Walk, map};
use table::{Column, Table};

/// What a VM is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Its vCPUs run.
    Running,
    /// Its vCPUs stand still until the operator lets them go on.
    Paused,
    /// It is about to start again.
    Resetting,
    /// It powered itself off, or was stopped.
    Off,
    /// It could not go on.
    Crashed,
    /// It could not go on, and stays to be looked at.
    Held,
    /// It has not been started, or could not start.
    NotStarted,
}

impl Standing {
    /// Returns the word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Resetting => "resetting",
            Self::Off => "off",
            Self::Crashed => "crashed",
            Self::Held => "held",
            Self::NotStarted => "not started",
        }
    }
}

/// A VM, in a list of them.
#[derive(Clone, Copy, Debug)]
pub struct VmStatus<'a> {
    /// Its number, from 1 on: what is typed after Ctrl-].
    pub number: u16,
    /// Its name.
    pub name: &'a str,
    /// What it is doing.
    pub standing: Standing,
    /// How many vCPUs it has.
    pub vcpus: usize,
    /// What all its vCPUs had of late, in tenths of a percent of one CPU.
    pub cpu_permille: u32,
    /// Its RAM in bytes.
    pub memory_bytes: u64,
    /// Exits per second, of late.
    pub exits_per_second: u64,
    /// What it is to have of the CPUs.
    pub share: Share,
}

/// Lists VMs.
#[must_use]
pub fn list(vms: &[VmStatus<'_>]) -> String {
    let mut table = Table::new(&[
        Column::Right("#"),
        Column::Left("NAME"),
        Column::Left("STATE"),
        Column::Right("VCPUS"),
        Column::Right("CPU%"),
        Column::Right("MIB"),
        Column::Right("EXITS/S"),
        Column::Left("SHARE"),
        Column::Right("CAP%"),
    ]);
    for vm in vms {
        table
            .number(vm.number.into())
            .word(vm.name)
            .word(vm.standing.name())
            .cell(format_args!("{}", vm.vcpus));
        table.tenths(vm.cpu_permille.into()).number(vm.memory_bytes >> 20).number(vm.exits_per_second);
        match vm.share.class {
            Class::RealTime { priority } => table.cell(format_args!("priority {priority}")),
            Class::Shared { weight } => table.cell(format_args!("weight {weight}")),
        };
        match vm.share.cap_percent {
            Some(cap) => table.number(cap.into()),
            None => table.word("-"),
        };
    }
    table.write()
}

/// A physical CPU.
#[derive(Clone, Copy, Debug)]
pub struct CpuStatus<'a> {
    /// Its number.
    pub pcpu: PcpuId,
    /// The vCPU that runs there now, with the name of its VM; `None` where it is idle.
    pub running: Option<(&'a str, VcpuId)>,
    /// How many vCPUs wait for it.
    pub queued: usize,
    /// How many vCPUs belong to it, running, waiting or asleep.
    pub members: usize,
    /// What it was busy of late, in tenths of a percent.
    pub busy_permille: u32,
}

/// Lists physical CPUs.
#[must_use]
pub fn cpus(cpus: &[CpuStatus<'_>]) -> String {
    let mut table = Table::new(&[
        Column::Right("CPU"),
        Column::Left("RUNS"),
        Column::Right("QUEUED"),
        Column::Right("MEMBERS"),
        Column::Right("BUSY%"),
    ]);
    for cpu in cpus {
        table.number(cpu.pcpu.0.into());
        match cpu.running {
            Some((vm, vcpu)) => table.cell(format_args!("{vm}/{}", vcpu.0)),
            None => table.word("idle"),
        };
        table.cell(format_args!("{}", cpu.queued)).cell(format_args!("{}", cpu.members));
        table.tenths(cpu.busy_permille.into());
    }
    table.write()
}

/// Memory of the machine, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct MemStatus<'a> {
    /// All of it.
    pub total_bytes: u64,
    /// What no one has.
    pub free_bytes: u64,
    /// The hypervisor's own: image, heap and tables.
    pub hypervisor_bytes: u64,
    /// What each VM has, with its name.
    pub vms: &'a [(&'a str, u64)],
}

/// Says whose memory is whose.
#[must_use]
pub fn mem(memory: &MemStatus<'_>) -> String {
    let mut table = Table::new(&[Column::Left("WHOSE"), Column::Right("MIB")]);
    table.word("hypervisor").tenths(tenths_of_mib(memory.hypervisor_bytes));
    for (vm, bytes) in memory.vms {
        table.cell(format_args!("vm {vm}")).tenths(tenths_of_mib(*bytes));
    }
    table.word("free").tenths(tenths_of_mib(memory.free_bytes));
    table.word("all").tenths(tenths_of_mib(memory.total_bytes));
    table.write()
}

/// Rounds to a tenth of a MiB.
fn tenths_of_mib(bytes: u64) -> u64 {
    const KIB: u64 = 10;
    ((bytes >> KIB).saturating_mul(10) + 512) >> KIB
}

#[cfg(test)]
mod tests;

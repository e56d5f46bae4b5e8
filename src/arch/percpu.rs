//! What belongs to one physical CPU: its stacks and its `Pcpu`, which TPIDR_EL2 names.
//!
//! Not here: anything shared between CPUs.

use core::cell::UnsafeCell;

use alloc::boxed::Box;
use alloc::sync::Arc;
use trapeze::ids::PcpuId;
use trapeze::vcpu::Vcpu;
use trapeze::vm::Post;

use super::gic::Gic;
use super::monitor::Monitor;
use super::tenant::Tenant;
use super::timer::Deadlines;
use super::world::Left;

/// Most physical CPUs that one machine can have.
pub const MAX_PCPUS: usize = 16;
const PAGE: usize = 4096;
const STACK_BYTES: usize = 32 * 1024;
/// Offset of the first byte above the emergency stack within a [`CpuArea`].
pub const EMERGENCY_TOP: usize = 2 * PAGE;
/// Size of one [`CpuArea`]; the stack ends where the area ends.
pub const AREA_BYTES: usize = 3 * PAGE + STACK_BYTES;

/// The stacks of one CPU, each above a page that is never mapped.
///
/// ```text
///   | guard | emergency | guard | stack ... |   addresses grow to the right, stacks to the left
/// ```
#[repr(C, align(4096))]
pub struct CpuArea(UnsafeCell<[u8; AREA_BYTES]>);

// SAFETY: nothing reads or writes an area through this type; only its address is taken, and each
// CPU uses none but its own as stack memory.
unsafe impl Sync for CpuArea {}

/// The areas of all CPUs; the boot CPU has the first.
#[unsafe(link_section = ".noinit")]
#[unsafe(export_name = "cpu_areas")]
pub static CPU_AREAS: [CpuArea; MAX_PCPUS] = [const { CpuArea(UnsafeCell::new([0; AREA_BYTES])) }; MAX_PCPUS];

impl CpuArea {
    /// Returns the address of the area's first byte.
    pub fn base(&self) -> u64 {
        self.0.get().addr() as u64
    }

    /// Returns the addresses of the two guard pages.
    pub fn guards(&self) -> [u64; 2] {
        [self.base(), self.base() + EMERGENCY_TOP as u64]
    }

    /// Returns the first address above the stack.
    pub fn stack_top(&self) -> u64 {
        self.base() + AREA_BYTES as u64
    }

    /// Returns the first address above the emergency stack.
    pub fn emergency_top(&self) -> u64 {
        self.base() + EMERGENCY_TOP as u64
    }
}

/// The state of one physical CPU. The vectors read the first two fields.
#[repr(C)]
pub struct Pcpu {
    /// SP_EL2 for a handler: every exit starts with an empty stack.
    pub stack_top: u64,
    /// SP_EL2 for a fatal exception of EL2 itself.
    pub emergency_top: u64,
    /// Which CPU this is.
    pub id: PcpuId,
    /// The CPU's own part of the interrupt controller.
    pub gic: Gic,
    /// The CPU's timer of EL2.
    pub timer: Deadlines,
    /// What all CPUs share.
    pub monitor: &'static Monitor,
    /// Whether an SError was pending when the CPU came up: it is taken when the first guest runs, and nobody's.
    pub has_old_serror: bool,
    /// What the last vCPU left in it.
    pub left: Left,
    /// The virtual CPU whose registers it has, if any.
    pub guest: Option<Guest>,
}

/// A vCPU with its VM: what run queues hold, and a CPU has of the one that it runs.
pub struct Guest {
    /// Its registers and state.
    pub vcpu: Box<Vcpu>,
    /// The VM that it belongs to, with what the VM owns.
    pub tenant: Arc<Tenant>,
}

impl Guest {
    /// Publishes how many exits the vCPU has had since it last rested.
    pub fn publish_exits(&self) {
        self.post().publish_exits(self.vcpu.exits.total());
    }

    /// Returns where other CPUs leave word for the vCPU.
    pub fn post(&self) -> &Post {
        match self.tenant.vm.posts.get(self.vcpu.id.index()) {
            Some(post) => post,
            None => unreachable!("a vCPU that its VM does not have"),
        }
    }
}

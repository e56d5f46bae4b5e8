//! One virtual machine: what its vCPUs share.
//!
//! Not here: the vCPUs themselves. Each belongs to the physical CPU that runs it; others reach it by a
//! request and a kick.

use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use spin::Mutex;

use crate::addr::{Ipa, Region};
use crate::ids::{IntId, PcpuId, VcpuId, VcpuSet, VmId};
use crate::interpreter::device::pl011::Pl011;
use crate::interpreter::device::vgic::Vgic;
use crate::interpreter::psci::Power;
use crate::interpreter::sysreg::Processor;
use crate::machine::Machine;

/// What another CPU wants of a vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Requests(u32);

impl Requests {
    /// Plan the list registers anew.
    pub const PLAN: Self = Self(1);
    /// Leave the guest: the VM is being stopped or reset.
    pub const PARK: Self = Self(1 << 1);
    /// Start: PSCI turned the vCPU on.
    pub const START: Self = Self(1 << 2);

    /// Tells whether `other` is among them.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Where other CPUs leave word for a vCPU.
#[derive(Debug)]
pub struct Post {
    /// The physical CPU that the vCPU runs on.
    pub pcpu: PcpuId,
    requests: AtomicU32,
}

impl Post {
    /// Makes an empty post.
    #[must_use]
    pub const fn new(pcpu: PcpuId) -> Self {
        Self { pcpu, requests: AtomicU32::new(0) }
    }

    /// Leaves a request; the poster kicks `pcpu` afterwards.
    pub fn leave(&self, request: Requests) {
        self.requests.fetch_or(request.0, Ordering::Release);
    }

    /// Takes all requests.
    pub fn take(&self) -> Requests {
        Requests(self.requests.swap(0, Ordering::Acquire))
    }
}

/// A UART of the guest.
#[derive(Debug)]
pub struct Uart {
    /// Its registers.
    pub region: Region<Ipa>,
    /// Its interrupt.
    pub intid: IntId,
    /// Its model.
    pub model: Mutex<Pl011>,
}

/// Where a guest finds its devices.
#[derive(Debug)]
pub struct Layout {
    /// GIC distributor.
    pub distributor: Region<Ipa>,
    /// GICv3 redistributors: each region, and how many bytes of redistributors come before it.
    pub redistributors: Vec<(Region<Ipa>, u64)>,
    /// The page of a GICv2 CPU interface that holds GICC_DIR; the page before it is the hardware's.
    pub deactivation: Option<Region<Ipa>>,
    /// RAM.
    pub ram: Vec<Region<Ipa>>,
    /// INTID of the virtual timer (a PPI).
    pub virtual_timer: IntId,
    /// INTID of the EL1 physical timer (a PPI).
    pub physical_timer: IntId,
    /// INTID of the performance monitors (a PPI), where the VM's tree has them.
    pub performance_monitors: Option<IntId>,
    /// Interrupts of the devices that the VM was given: the physical INTID and the guest's, both SPIs.
    pub devices: Vec<(IntId, IntId)>,
    /// Page of the vCPUs' stolen time, where the VM has one: see [`stolen_time`](crate::interpreter::device::stolen_time).
    pub stolen_time: Option<Ipa>,
}

impl Layout {
    /// Lists the interrupts that a vCPU raises itself.
    pub fn private_lines(&self) -> impl Iterator<Item = IntId> {
        [self.virtual_timer, self.physical_timer].into_iter().chain(self.performance_monitors)
    }
}

/// What becomes of a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Its vCPUs run, or are off by PSCI.
    Running,
    /// It asked for a reset; its vCPUs gather.
    Resetting,
    /// It ended by itself; its vCPUs gather.
    Off,
    /// It could not go on; its vCPUs gather.
    Crashed,
}

/// A virtual machine.
#[derive(Debug)]
pub struct Vm {
    /// Its number.
    pub id: VmId,
    /// Its name: the node of the bundle.
    pub name: String,
    /// What its processors are.
    pub processor: Processor,
    /// Where its devices are.
    pub layout: Layout,
    /// Its interrupt controller.
    pub vgic: Mutex<Vgic>,
    /// Its UARTs; the first one is the console.
    pub uarts: Vec<Uart>,
    /// Which of its CPUs are on.
    pub power: Mutex<Power>,
    /// Where to leave word for each vCPU.
    pub posts: Vec<Post>,
    parked: AtomicU32,
    /// Exits of all vCPUs that have stopped.
    pub exits: AtomicU64,
    /// Classes of exit already reported: one bit for each ESR_EL2.EC.
    pub reported: AtomicU64,
    /// Epoch above [`State::BITS`], state below: who reads one of them gets the other of the same moment.
    standing: AtomicU32,
}

/// What a [`Vm`] is made of.
pub struct Parts {
    /// See [`Vm::id`].
    pub id: VmId,
    /// See [`Vm::name`].
    pub name: String,
    /// See [`Vm::processor`].
    pub processor: Processor,
    /// See [`Vm::layout`].
    pub layout: Layout,
    /// See [`Vm::vgic`].
    pub vgic: Vgic,
    /// See [`Vm::uarts`].
    pub uarts: Vec<Uart>,
    /// See [`Vm::power`].
    pub power: Power,
    /// The physical CPU of each vCPU.
    pub pcpus: Vec<PcpuId>,
}

impl State {
    const ALL: [Self; 4] = [Self::Running, Self::Resetting, Self::Off, Self::Crashed];

    /// Width of [`State::code`].
    const BITS: u32 = 2;
    const CODE: u32 = (1 << Self::BITS) - 1;

    fn from_code(code: u32) -> Self {
        Self::ALL.into_iter().find(|state| state.code() == code & Self::CODE).unwrap_or(Self::Crashed)
    }

    const fn code(self) -> u32 {
        match self {
            Self::Running => 0,
            Self::Resetting => 1,
            Self::Off => 2,
            Self::Crashed => 3,
        }
    }
}

impl Vm {
    /// Puts the parts together; the VM is running.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { id, name, processor, layout, vgic, uarts, power, pcpus } = parts;
        Self {
            id,
            name,
            processor,
            layout,
            vgic: Mutex::new(vgic),
            uarts,
            power: Mutex::new(power),
            posts: pcpus.into_iter().map(Post::new).collect(),
            parked: AtomicU32::new(0),
            exits: AtomicU64::new(0),
            reported: AtomicU64::new(0),
            standing: AtomicU32::new(1 << State::BITS | State::Running.code()),
        }
    }

    /// Returns what is becoming of the VM.
    #[must_use]
    pub fn state(&self) -> State {
        self.standing().0
    }

    /// Returns what is becoming of the VM and in which epoch: 1 after its start, one more for each reset.
    ///
    /// Both are of one moment. With the state of one epoch and the number of the next, a vCPU would count itself as
    /// stopped in an epoch in which it is about to run.
    #[must_use]
    pub fn standing(&self) -> (State, u32) {
        let standing = self.standing.load(Ordering::Acquire);
        (State::from_code(standing), standing >> State::BITS)
    }

    /// Ends or resets the VM. `true` for the one caller whose word counts: it gathers the vCPUs.
    #[must_use]
    pub fn leave_running(&self, next: State) -> bool {
        let leave = |standing: u32| {
            (State::from_code(standing) == State::Running).then_some(standing & !State::CODE | next.code())
        };
        self.standing.fetch_update(Ordering::AcqRel, Ordering::Acquire, leave).is_ok()
    }

    /// Counts a vCPU that has stopped, with the exits it had since it started.
    pub fn parked(&self, exits: u64) {
        self.exits.fetch_add(exits, Ordering::Relaxed);
        self.parked.fetch_add(1, Ordering::Release);
    }

    /// Tells whether every vCPU has stopped.
    #[must_use]
    pub fn is_gathered(&self) -> bool {
        usize::try_from(self.parked.load(Ordering::Acquire)).is_ok_and(|parked| parked >= self.posts.len())
    }

    /// Lets the VM run again after a reset.
    pub fn run_again(&self) {
        self.parked.store(0, Ordering::Relaxed);
        let (_, epoch) = self.standing();
        let next = epoch.wrapping_add(1) << State::BITS | State::Running.code();
        self.standing.store(next, Ordering::Release);
    }

    /// Leaves `request` for each of `vcpus` and makes their physical CPUs look.
    #[inline]
    pub fn notify(&self, vcpus: VcpuSet, request: Requests, machine: &mut impl Machine) {
        if !vcpus.is_empty() {
            self.notify_each(vcpus, request, machine);
        }
    }

    #[inline(never)]
    fn notify_each(&self, vcpus: VcpuSet, request: Requests, machine: &mut impl Machine) {
        for (number, post) in (0_u8..).zip(&self.posts) {
            if vcpus.contains(VcpuId(number)) {
                post.leave(request);
                machine.kick(post.pcpu);
            }
        }
    }

    /// Returns the vCPUs.
    #[must_use]
    pub fn vcpus(&self) -> VcpuSet {
        let mut all = VcpuSet::EMPTY;
        for (number, _) in (0_u8..).zip(&self.posts) {
            all.add(VcpuSet::only(VcpuId(number)));
        }
        all
    }

    /// Tells whether a device of the VM has a register at `ipa`.
    #[must_use]
    pub fn has_device_at(&self, ipa: Ipa) -> bool {
        self.layout.distributor.contains(ipa)
            || self.layout.redistributors.iter().any(|(region, _)| region.contains(ipa))
            || self.layout.deactivation.is_some_and(|region| region.contains(ipa))
            || self.uarts.iter().any(|uart| uart.region.contains(ipa))
    }

    /// Tells whether this is the first time that a class of exit is met that nobody answers.
    #[must_use]
    pub fn is_first_report(&self, class: usize) -> bool {
        let bit = 1 << (class % 64);
        self.reported.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Affinity;
    use crate::interpreter::device::vgic::{GicVersion, MAX_SPIS};
    use crate::interpreter::id_registers::{CpuInterface, HostIdRegisters, IdRegisters};
    use crate::interpreter::psci::Start;

    fn vm() -> Vm {
        let cpu_interface = CpuInterface::SystemRegisters;
        let boot = Affinity::from_mpidr(0);
        let start = Start { entry: Ipa::new(0), context: 0 };
        Vm::new(Parts {
            id: VmId(0),
            name: String::new(),
            processor: Processor {
                ids: IdRegisters::sanitise(&HostIdRegisters::new([0; 56]), cpu_interface),
                cpu_interface,
                midr_el1: 0,
                revidr_el1: 0,
                aidr_el1: 0,
                actlr_el1: 0,
                vcpus: 1,
                peripheral_base: Ipa::new(0),
            },
            layout: Layout {
                distributor: Region::<Ipa>::new(Ipa::new(0), 0x1_0000).unwrap(),
                redistributors: Vec::new(),
                deactivation: None,
                ram: Vec::new(),
                virtual_timer: IntId(27),
                physical_timer: IntId(30),
                performance_monitors: None,
                devices: Vec::new(),
                stolen_time: None,
            },
            vgic: Vgic::new(GicVersion::V3, &[boot], MAX_SPIS),
            uarts: Vec::new(),
            power: Power::new([boot], VcpuId(0), start).unwrap(),
            pcpus: [PcpuId(0)].into(),
        })
    }

    #[test]
    fn the_first_to_end_a_vm_decides_how() {
        let vm = vm();
        assert_eq!(vm.standing(), (State::Running, 1));
        assert!(vm.leave_running(State::Resetting));
        assert!(!vm.leave_running(State::Off));
        assert_eq!(vm.standing(), (State::Resetting, 1));
    }

    #[test]
    fn a_reset_begins_the_next_epoch_with_nobody_parked() {
        let vm = vm();
        assert!(vm.leave_running(State::Resetting));
        vm.parked(3);
        assert!(vm.is_gathered());
        vm.run_again();
        assert_eq!(vm.standing(), (State::Running, 2));
        assert!(!vm.is_gathered());
        assert!(vm.leave_running(State::Crashed));
        assert_eq!(vm.standing(), (State::Crashed, 2));
    }
}

//! One virtual machine: what its vCPUs share.
//!
//! Not here: the vCPUs themselves. Each belongs to the physical CPU that runs it; others reach it by a
//! request and a kick.

use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

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
    epoch: AtomicU32,
    /// Exits of all vCPUs that have stopped.
    pub exits: AtomicU64,
    /// Classes of exit already reported: one bit for each ESR_EL2.EC.
    pub reported: AtomicU64,
    state: AtomicU8,
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

    const fn code(self) -> u8 {
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
            epoch: AtomicU32::new(1),
            exits: AtomicU64::new(0),
            reported: AtomicU64::new(0),
            state: AtomicU8::new(State::Running.code()),
        }
    }

    /// Returns what is becoming of the VM.
    #[must_use]
    pub fn state(&self) -> State {
        let code = self.state.load(Ordering::Acquire);
        State::ALL.into_iter().find(|state| state.code() == code).unwrap_or(State::Crashed)
    }

    /// Ends or resets the VM. `true` for the one caller whose word counts: it gathers the vCPUs.
    #[must_use]
    pub fn leave_running(&self, next: State) -> bool {
        let running = State::Running.code();
        self.state.compare_exchange(running, next.code(), Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Returns how many times the VM began to run: 1 after its start, one more for each reset.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
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
        self.epoch.fetch_add(1, Ordering::Relaxed);
        self.state.store(State::Running.code(), Ordering::Release);
    }

    /// Leaves `request` for each of `vcpus` and makes their physical CPUs look.
    pub fn notify(&self, vcpus: VcpuSet, request: Requests, machine: &mut impl Machine) {
        if vcpus.is_empty() {
            return;
        }
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
    use crate::interpreter::device::vgic::GicVersion;
    use crate::interpreter::id_registers::{CpuInterface, HostIdRegisters, IdRegisters};
    use crate::interpreter::psci::Start;

    fn region(start: u64, size_bytes: u64) -> Region<Ipa> {
        Region::<Ipa>::new(Ipa::new(start), size_bytes).unwrap()
    }

    /// A VM with devices at 0x1000, 0x3000, 0x5000 and 0x7000.
    fn vm(vcpus: u8) -> Vm {
        let affinities: Vec<_> = (0..vcpus).map(|aff0| Affinity { aff0, ..Affinity::default() }).collect();
        let cpu_interface = CpuInterface::MemoryMapped;
        let start = Start { entry: Ipa::new(0x4000_0000), context: 0 };
        let uart = Uart { region: region(0x7000, 0x1000), intid: IntId(33), model: Mutex::new(Pl011::new()) };
        Vm::new(Parts {
            id: VmId(0),
            name: "test".into(),
            processor: Processor {
                ids: IdRegisters::sanitise(&HostIdRegisters::new([0; 56]), cpu_interface),
                cpu_interface,
                midr_el1: 0,
                revidr_el1: 0,
                aidr_el1: 0,
                actlr_el1: 0,
                vcpus,
                peripheral_base: Ipa::new(0x1000),
            },
            layout: Layout {
                distributor: region(0x1000, 0x1000),
                redistributors: alloc::vec![(region(0x3000, 0x1000), 0)],
                deactivation: Some(region(0x5000, 0x1000)),
                ram: alloc::vec![region(0x4000_0000, 0x1000)],
                virtual_timer: IntId(27),
                physical_timer: IntId(30),
            },
            vgic: Vgic::new(GicVersion::V3, &affinities),
            uarts: alloc::vec![uart],
            power: Power::new(affinities, VcpuId(0), start).unwrap(),
            pcpus: (0..vcpus).map(PcpuId).collect(),
        })
    }

    #[test]
    fn requests_gather_until_they_are_taken() {
        let post = Post::new(PcpuId(3));
        post.leave(Requests::PLAN);
        post.leave(Requests::START);
        post.leave(Requests::PLAN);
        let taken = post.take();
        assert!(taken.contains(Requests::PLAN) && taken.contains(Requests::START));
        assert!(!taken.contains(Requests::PARK));
        assert!(!post.take().contains(Requests::PLAN), "each is taken once");
    }

    #[test]
    fn only_the_first_to_end_a_vm_gathers_its_vcpus() {
        let vm = vm(2);
        assert_eq!((vm.state(), vm.epoch()), (State::Running, 1));
        assert!(vm.leave_running(State::Resetting));
        assert!(!vm.leave_running(State::Off) && !vm.leave_running(State::Crashed));
        assert_eq!(vm.state(), State::Resetting);
    }

    #[test]
    fn every_state_is_remembered_as_itself() {
        for state in [State::Off, State::Crashed, State::Resetting] {
            let vm = vm(1);
            assert!(vm.leave_running(state));
            assert_eq!(vm.state(), state);
        }
    }

    #[test]
    fn a_vm_is_gathered_when_its_last_vcpu_has_stopped() {
        let vm = vm(2);
        assert!(vm.leave_running(State::Resetting));
        vm.parked(10);
        assert!(!vm.is_gathered());
        vm.parked(5);
        assert!(vm.is_gathered());
        vm.run_again();
        assert_eq!((vm.state(), vm.epoch()), (State::Running, 2));
        assert!(!vm.is_gathered(), "the next end gathers anew");
        assert_eq!(vm.exits.load(Ordering::Relaxed), 15, "exits go on counting");
        assert!(vm.leave_running(State::Off));
    }

    #[test]
    fn a_device_is_known_by_every_byte_and_no_more() {
        let vm = vm(1);
        for start in [0x1000, 0x3000, 0x5000, 0x7000] {
            assert!(vm.has_device_at(Ipa::new(start)) && vm.has_device_at(Ipa::new(start + 0xfff)));
            assert!(!vm.has_device_at(Ipa::new(start - 1)) && !vm.has_device_at(Ipa::new(start + 0x1000)));
        }
        assert!(!vm.has_device_at(Ipa::new(0x4000_0000)), "RAM is none");
    }

    #[test]
    fn a_report_is_first_once_per_class() {
        let vm = vm(1);
        for class in 0..64 {
            assert!(vm.is_first_report(class), "{class:#x}");
        }
        assert!((0..64).all(|class| !vm.is_first_report(class)));
    }

    #[test]
    fn the_vcpus_of_a_vm_are_those_it_was_made_with() {
        assert_eq!((vm(1).vcpus().bits(), vm(8).vcpus().bits()), (1, 0xff));
    }
}

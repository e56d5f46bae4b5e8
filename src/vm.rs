//! One virtual machine: what its vCPUs share.
//!
//! Not here: the vCPUs themselves. Each is in the run queue of a physical CPU, or rests; others reach it by a request in
//! its [`Post`].

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
    /// Leave the guest: the VM is being stopped, paused or reset.
    pub const PARK: Self = Self(1 << 1);
    /// Begin: the vCPU was turned on and has not run yet.
    pub const START: Self = Self(1 << 2);

    /// Tells whether `other` is among them.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Tells whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Where a vCPU is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// On no CPU: it is off, or its VM does not run.
    Resting,
    /// Between two CPUs, for a moment.
    Moving,
    /// In the run queue of a physical CPU, in this slot.
    At(PcpuId, u32),
}

impl Place {
    const RESTING: u32 = u32::MAX;
    const MOVING: u32 = u32::MAX - 1;
    const SLOT_BITS: u32 = 24;
    const SLOT: u32 = (1 << Self::SLOT_BITS) - 1;

    fn code(self) -> u32 {
        match self {
            Self::Resting => Self::RESTING,
            Self::Moving => Self::MOVING,
            Self::At(pcpu, slot) => u32::from(pcpu.0) << Self::SLOT_BITS | slot & Self::SLOT,
        }
    }

    fn from_code(code: u32) -> Self {
        let [pcpu, ..] = code.to_be_bytes();
        match code {
            Self::RESTING => Self::Resting,
            Self::MOVING => Self::Moving,
            _ => Self::At(PcpuId(pcpu), code & Self::SLOT),
        }
    }
}

/// Where other CPUs leave word for a vCPU.
#[derive(Debug)]
pub struct Post {
    requests: AtomicU32,
    place: AtomicU32,
    /// Exits since the vCPU last rested, as far as they were published.
    exits: AtomicU64,
}

impl Post {
    /// Makes the empty post of a vCPU that rests.
    #[must_use]
    pub const fn new() -> Self {
        Self { requests: AtomicU32::new(0), place: AtomicU32::new(Place::RESTING), exits: AtomicU64::new(0) }
    }

    /// Leaves a request; [`Machine::summon`] makes the vCPU look.
    pub fn leave(&self, request: Requests) {
        self.requests.fetch_or(request.0, Ordering::Release);
    }

    /// Takes all requests.
    #[inline]
    pub fn take(&self) -> Requests {
        Requests(self.requests.swap(0, Ordering::Acquire))
    }

    /// Tells whether a request waits.
    #[inline]
    #[must_use]
    pub fn has_requests(&self) -> bool {
        self.requests.load(Ordering::Acquire) != 0
    }

    /// Publishes how many exits the vCPU has had since it last rested.
    pub fn publish_exits(&self, exits: u64) {
        self.exits.store(exits, Ordering::Relaxed);
    }

    /// Returns where the vCPU is. Who needs it to stay there holds the lock of that CPU's run queue, and asks again.
    #[must_use]
    pub fn place(&self) -> Place {
        Place::from_code(self.place.load(Ordering::Acquire))
    }

    /// Says where the vCPU is from now on; the caller holds the lock of the run queue that it is in, or was in.
    pub fn set_place(&self, place: Place) {
        self.place.store(place.code(), Ordering::Release);
    }
}

impl Default for Post {
    fn default() -> Self {
        Self::new()
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
    /// Tells whether a physical interrupt is that of a device which the VM was given.
    #[must_use]
    pub fn has(&self, physical: IntId) -> bool {
        self.devices.iter().any(|(own, _)| *own == physical)
    }

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
    /// Its vCPUs rest until somebody lets it go on.
    Paused,
    /// It gets the machine as new, once its vCPUs rest.
    Resetting,
    /// It ended by itself.
    Off,
    /// It could not go on.
    Crashed,
}

impl State {
    const ALL: [Self; 5] = [Self::Running, Self::Paused, Self::Resetting, Self::Off, Self::Crashed];

    const fn code(self) -> u8 {
        match self {
            Self::Running => 0,
            Self::Paused => 1,
            Self::Resetting => 2,
            Self::Off => 3,
            Self::Crashed => 4,
        }
    }
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
    /// How many vCPUs it has.
    pub vcpus: usize,
}

impl Vm {
    /// Puts the parts together; the VM is running.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { id, name, processor, layout, vgic, uarts, power, vcpus } = parts;
        Self {
            id,
            name,
            processor,
            layout,
            vgic: Mutex::new(vgic),
            uarts,
            power: Mutex::new(power),
            posts: (0..vcpus).map(|_| Post::new()).collect(),
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

    /// Says what is becoming of the VM. Callers take turns: they hold the lock of who of its vCPUs rests.
    pub fn set_state(&self, state: State) {
        self.state.store(state.code(), Ordering::Release);
    }

    /// Returns the number of all exits, as far as they were published.
    #[must_use]
    pub fn total_exits(&self) -> u64 {
        let published = self.posts.iter().map(|post| post.exits.load(Ordering::Relaxed));
        published.fold(self.exits.load(Ordering::Relaxed), u64::wrapping_add)
    }

    /// Counts exits of a vCPU that has stopped.
    pub fn add_exits(&self, exits: u64) {
        self.exits.fetch_add(exits, Ordering::Relaxed);
    }

    /// Leaves `request` for each of `vcpus` and makes them look.
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
                machine.summon(post);
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
            vcpus: 1,
        })
    }

    #[test]
    fn every_state_is_read_as_it_was_set() {
        let vm = vm();
        assert_eq!(vm.state(), State::Running);
        for state in State::ALL {
            vm.set_state(state);
            assert_eq!(vm.state(), state);
        }
    }

    #[test]
    fn a_place_survives_its_encoding() {
        let post = Post::new();
        assert_eq!(post.place(), Place::Resting);
        for place in
            [Place::At(PcpuId(0), 0), Place::At(PcpuId(63), 0xff_fffd), Place::Moving, Place::Resting]
        {
            post.set_place(place);
            assert_eq!(post.place(), place);
        }
    }
}

//! What all physical CPUs share: the board, the free resources, the VMs and who sits where.
//!
//! Not here: anything that one CPU has for itself (`percpu`).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::{fmt, iter};

use spin::Mutex;
use trapeze::addr::Ipa;
use trapeze::allocator::Owner;
use trapeze::allocator::devices::Devices;
use trapeze::allocator::frames::Frames;
use trapeze::allocator::interrupts::{InterruptError, Interrupts};
use trapeze::allocator::stage2;
use trapeze::allocator::tables::Geometry;
use trapeze::allocator::vmid::{VmidBits, Vmids};
use trapeze::dispatcher::interrupts::{self, Source};
use trapeze::dispatcher::traps;
use trapeze::ids::{IntId, PcpuId, VcpuId};
use trapeze::interpreter::id_registers::{CpuInterface, HostIdRegisters, IdField, IdRegisters};
use trapeze::interpreter::inject;
use trapeze::interpreter::sysreg::Processor;
use trapeze::machine::Machine;
use trapeze::platform::board::Board;
use trapeze::platform::passthrough::{Device, Line};
use trapeze::platform::vm_tree::{PASSTHROUGH, VmError, VmFault};
use trapeze::vm::State;

use super::console;
use super::gic::{Gic, GicParts, KICK};
use super::power::Off;
use super::sysreg::{id_space, read_sysreg};
use super::tenant::Tenant;

/// EL2's control registers for guests, worked out once from the table in `dispatcher::traps`.
pub struct Controls {
    /// HCR_EL2.
    pub hcr_el2: u64,
    /// CPTR_EL2.
    pub cptr_el2: u64,
    /// CNTHCTL_EL2.
    pub cnthctl_el2: u64,
    /// HSTR_EL2.
    pub hstr_el2: u64,
    /// VTCR_EL2: one shape of stage 2 for all VMs.
    pub vtcr_el2: u64,
    /// Input bits of every VM's stage 2.
    pub ipa_bits: u8,
    /// What the CPU has beyond Armv8.0, as the trap table sees it.
    pub traps: traps::Features,
    /// What exception entry to EL1 depends on.
    pub el1_features: inject::Features,
    /// SCTLR_EL1 as it was when the image started.
    pub sctlr_el1_at_boot: u64,
}

impl Controls {
    /// Works the registers out for the CPU that runs this.
    fn of_this_cpu(ids: &HostIdRegisters) -> Option<Self> {
        let traps = traps::Features::of_host(ids);
        let field = |crm, op2, lsb| ids.field(IdField::new(crm, op2, lsb));
        let pa_range = field(7, 0, 0) as u8; // ID_AA64MMFR0_EL1.PARange
        let ipa_bits = stage2::ipa_bits(pa_range);
        Some(Self {
            hcr_el2: traps::hcr_el2(traps),
            cptr_el2: traps::cptr_el2(traps),
            cnthctl_el2: traps::cnthctl_el2(traps),
            hstr_el2: traps::hstr_el2(traps),
            vtcr_el2: stage2::vtcr_el2(Geometry::stage2(ipa_bits)?, pa_range, vmid_bits(ids)),
            ipa_bits,
            traps,
            el1_features: inject::Features {
                pan: field(7, 1, 20) != 0, // ID_AA64MMFR1_EL1.PAN
                ssbs: field(4, 1, 4) != 0, // ID_AA64PFR1_EL1.SSBS
                mte: field(4, 1, 8) >= 2,  // ID_AA64PFR1_EL1.MTE
                nmi: field(4, 1, 36) != 0, // ID_AA64PFR1_EL1.NMI
            },
            sctlr_el1_at_boot: read_sysreg!("sctlr_el1"),
        })
    }
}

fn vmid_bits(ids: &HostIdRegisters) -> VmidBits {
    VmidBits::from_id(ids.field(IdField::new(7, 1, 4)) as u8) // ID_AA64MMFR1_EL1.VMIDBits
}

/// Describes the processor of a VM: this CPU, less what VMs do not get.
pub fn processor(cpu_interface: CpuInterface, vcpus: u8, peripheral_base: Ipa) -> Processor {
    Processor {
        ids: IdRegisters::sanitise(&HostIdRegisters::new(id_space()), cpu_interface),
        cpu_interface,
        midr_el1: read_sysreg!("midr_el1"),
        revidr_el1: read_sysreg!("revidr_el1"),
        aidr_el1: read_sysreg!("aidr_el1"),
        actlr_el1: read_sysreg!("actlr_el1"),
        vcpus,
        peripheral_base,
    }
}

/// Interrupts of the real machine that the hypervisor uses.
pub struct HostInterrupts {
    /// The virtual timer: the guest's.
    pub virtual_timer: IntId,
    /// Overflow of the performance monitors: the guest's.
    pub performance_monitors: Option<IntId>,
    /// EL2's physical timer.
    pub hypervisor_timer: IntId,
    /// List registers run out, or the guest ended an interrupt that was to be watched.
    pub maintenance: IntId,
    /// The console's UART.
    pub console: Option<IntId>,
}

impl HostInterrupts {
    fn of(board: &Board) -> Self {
        Self {
            virtual_timer: board.timer.virtual_el1,
            performance_monitors: board.performance_monitors,
            hypervisor_timer: board.timer.hypervisor,
            maintenance: board.gic.maintenance.intid,
            console: board.console.as_ref().and_then(|console| console.interrupt).map(|line| line.intid),
        }
    }

    /// Takes them for the hypervisor, each once. It lends the private ones of a guest to the vCPU on the same CPU.
    fn claim(&self, account: &mut Interrupts) -> Result<(), InterruptError> {
        [KICK, self.virtual_timer, self.hypervisor_timer, self.maintenance]
            .into_iter()
            .chain(self.performance_monitors)
            .chain(self.console)
            .try_for_each(|intid| account.claim(intid, Owner::Hypervisor))
    }
}

/// Why a board cannot be used.
pub enum Unusable {
    /// ID_AA64MMFR0_EL1.PARange allows no stage 2.
    NoStage2,
    /// An interrupt that the tree names cannot be had.
    Interrupt(InterruptError),
}

impl From<InterruptError> for Unusable {
    fn from(error: InterruptError) -> Self {
        Self::Interrupt(error)
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStage2 => {
                f.write_str("the CPU's physical address range (ID_AA64MMFR0_EL1.PARange) allows no stage 2")
            }
            Self::Interrupt(InterruptError::NoSuchInterrupt(intid)) => {
                write!(f, "the board's device tree: interrupts: the GIC has no INTID {}", intid.0)
            }
            Self::Interrupt(InterruptError::OwnedBy(intid, _) | InterruptError::NotOwned(intid)) => {
                write!(f, "the board's device tree: interrupts: INTID {} is given two uses", intid.0)
            }
        }
    }
}

/// A place for a vCPU on a physical CPU.
pub struct Seat {
    /// Its VM.
    pub tenant: Arc<Tenant>,
    /// Which vCPU.
    pub vcpu: VcpuId,
}

/// What the other CPUs know of a physical CPU.
pub struct CpuPost {
    /// By what name to kick it.
    address: AtomicU64,
    is_up: AtomicBool,
    is_taken: AtomicBool,
    seat: Mutex<Option<Seat>>,
}

/// Who has what of the host's devices.
pub struct Given {
    /// Registers.
    pub devices: Devices,
    /// Interrupts.
    pub interrupts: Interrupts,
}

impl Given {
    /// Takes for the hypervisor what it uses itself. No VM will have it.
    fn new(board: &Board, interrupts: Interrupts) -> Self {
        let mut devices = Devices::new();
        for registers in board.own_registers() {
            // They may share pages with each other.
            let claimed = devices.claim(registers, Owner::Hypervisor, "the hypervisor");
            assert!(claimed.is_ok(), "somebody has {registers} before any VM");
        }
        Self { devices, interrupts }
    }

    /// Gives a VM a device with its interrupts.
    ///
    /// # Errors
    /// Somebody else has a part of it, or the GIC lacks the interrupt. Then the VM is to give all back.
    pub fn claim(&mut self, device: &Device, owner: Owner, vm: &str) -> Result<(), VmError> {
        let Err((property, other)) = self.claim_parts(device, owner, vm) else { return Ok(()) };
        let by = other.map_or("nobody, as the GIC lacks it", |other| self.devices.name(other));
        Err(VmError {
            node: device.path.clone(),
            fault: VmFault::Taken { property, path: device.host.clone(), by: by.into() },
        })
    }

    fn claim_parts(
        &mut self,
        device: &Device,
        owner: Owner,
        vm: &str,
    ) -> Result<(), (&'static str, Option<Owner>)> {
        for (_, pages) in &device.pages {
            self.devices.claim(*pages, owner, vm).map_err(|other| (PASSTHROUGH, Some(other)))?;
        }
        for line in &device.lines {
            self.interrupts.claim(line.physical, owner).map_err(|error| match error {
                InterruptError::OwnedBy(_, other) => ("interrupts", Some(other)),
                _ => ("interrupts", None),
            })?;
        }
        Ok(())
    }

    /// Takes back what a VM has.
    pub fn release(&mut self, owner: Owner) {
        self.devices.release_all(owner);
        self.interrupts.release_all(owner);
    }
}

/// The state that all CPUs share.
pub struct Monitor {
    /// EL2's control registers.
    pub controls: Controls,
    /// Free RAM.
    pub frames: Mutex<Frames>,
    /// Devices of the host.
    pub given: Mutex<Given>,
    /// Free VMIDs.
    pub vmids: Mutex<Vmids>,
    /// What the interrupts in use stand for.
    pub interrupts: HostInterrupts,
    /// What each CPU opens its interrupt controller from.
    pub gic: GicParts,
    /// How to stop the machine.
    pub off: Off,
    cpus: Vec<CpuPost>,
    tenants: Mutex<Vec<Arc<Tenant>>>,
    live: AtomicU32,
    has_failed: AtomicBool,
}

impl Monitor {
    /// Makes the shared state; `cpus` is the number of CPUs.
    ///
    /// # Errors
    /// If the CPU has no stage 2 that serves, or an interrupt of the board is no interrupt or has two uses.
    pub fn new(
        board: &Board,
        frames: Frames,
        gic: GicParts,
        off: Off,
        cpus: usize,
    ) -> Result<Self, Unusable> {
        let post = |_| CpuPost {
            address: AtomicU64::new(0),
            is_up: AtomicBool::new(false),
            is_taken: AtomicBool::new(false),
            seat: Mutex::new(None),
        };
        let ids = HostIdRegisters::new(id_space());
        let interrupts = HostInterrupts::of(board);
        let mut account = Interrupts::new(gic.intids());
        interrupts.claim(&mut account)?;
        Ok(Self {
            controls: Controls::of_this_cpu(&ids).ok_or(Unusable::NoStage2)?,
            frames: Mutex::new(frames),
            given: Mutex::new(Given::new(board, account)),
            vmids: Mutex::new(Vmids::new(vmid_bits(&ids))),
            interrupts,
            gic,
            off,
            cpus: (0..cpus).map(post).collect(),
            tenants: Mutex::new(Vec::new()),
            live: AtomicU32::new(1), // the boot CPU, until all VMs have their seats
            has_failed: AtomicBool::new(false),
        })
    }

    /// Tells what an interrupt of the real machine stands for.
    pub fn source_of(&self, intid: IntId) -> Source {
        let known = &self.interrupts;
        match intid {
            _ if intid == KICK => Source::Kick,
            _ if intid == known.virtual_timer => Source::VirtualTimer,
            _ if intid == known.hypervisor_timer => Source::HypervisorTimer,
            _ if intid == known.maintenance => Source::Maintenance,
            _ if Some(intid) == known.performance_monitors => Source::PerformanceMonitors,
            _ if Some(intid) == known.console => Source::Console,
            _ => Source::Device(intid),
        }
    }

    /// Lists the private interrupts that follow the guest's wishes.
    pub fn guest_interrupts(&self) -> impl Iterator<Item = IntId> {
        iter::once(self.interrupts.virtual_timer).chain(self.interrupts.performance_monitors)
    }

    /// Lists the private interrupts that EL2 wants on every CPU.
    pub fn own_interrupts(&self) -> [IntId; 2] {
        [self.interrupts.hypervisor_timer, self.interrupts.maintenance]
    }

    /// Marks a CPU as running in EL2, reachable by its interrupt controller's name for it.
    pub fn came_up(&self, pcpu: PcpuId, gic: &Gic) {
        if let Some(cpu) = self.cpus.get(pcpu.index()) {
            cpu.address.store(gic.address(), Ordering::Relaxed);
            cpu.is_up.store(true, Ordering::Release);
        }
    }

    /// Tells whether a CPU runs in EL2.
    pub fn is_up(&self, pcpu: PcpuId) -> bool {
        self.cpus.get(pcpu.index()).is_some_and(|cpu| cpu.is_up.load(Ordering::Acquire))
    }

    /// Lists the CPUs that run and have no vCPU.
    pub fn free_cpus(&self) -> Vec<PcpuId> {
        let is_free =
            |cpu: &CpuPost| cpu.is_up.load(Ordering::Acquire) && !cpu.is_taken.load(Ordering::Acquire);
        (0_u8..).map(PcpuId).zip(&self.cpus).filter(|(_, cpu)| is_free(cpu)).map(|(pcpu, _)| pcpu).collect()
    }

    /// Sends an interrupt that a VM was given to the CPU of its first vCPU, once the VM lets it through.
    pub fn route(&self, gic: &Gic, line: &Line, pcpu: PcpuId) {
        if let Some(cpu) = self.cpus.get(pcpu.index()) {
            gic.route(line.physical, line.trigger, cpu.address.load(Ordering::Relaxed));
        }
    }

    /// Interrupts another CPU, or this one.
    pub fn kick(&self, gic: &Gic, pcpu: PcpuId) {
        if let Some(cpu) = self.cpus.get(pcpu.index()) {
            gic.kick(cpu.address.load(Ordering::Relaxed));
        }
    }

    /// Gives each vCPU of a new VM its place.
    pub fn seat(&self, gic: &Gic, tenant: &Arc<Tenant>) {
        self.live.fetch_add(1, Ordering::AcqRel);
        self.tenants.lock().push(tenant.clone());
        console::share(|terminal, _| terminal.join(tenant.vm.id, &tenant.vm.name));
        for (vcpu, post) in (0_u8..).map(VcpuId).zip(&tenant.vm.posts) {
            if let Some(cpu) = self.cpus.get(post.pcpu.index()) {
                cpu.is_taken.store(true, Ordering::Release);
                *cpu.seat.lock() = Some(Seat { tenant: tenant.clone(), vcpu });
                self.kick(gic, post.pcpu);
            }
        }
    }

    /// Takes what waits for this CPU.
    pub fn take_seat(&self, pcpu: PcpuId) -> Option<Seat> {
        self.cpus.get(pcpu.index())?.seat.lock().take()
    }

    /// Hands received characters to the VMs that they are for.
    pub fn receive(&self, machine: &mut impl Machine) {
        let _command = console::collect();
        for at in 0.. {
            let Some(tenant) = self.tenants.lock().get(at).cloned() else { break };
            if console::share(|terminal, _| terminal.has_typed(tenant.vm.id)) {
                interrupts::console(&tenant.vm, machine);
            }
        }
        if self.tenants.lock().is_empty() {
            let _ = console::get(); // nobody's
        }
    }

    /// Ends the start: from here on the last VM to end ends the machine, which may be now.
    pub fn all_seated(&self) {
        console::share(|terminal, _| terminal.opened());
        self.leave();
    }

    fn leave(&self) {
        if self.live.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.stop();
        }
    }

    /// Notes that a VM could not start.
    pub fn note_failure(&self) {
        self.has_failed.store(true, Ordering::Release);
    }

    /// Notes the end of a VM and reports it; the last one ends the machine.
    pub fn ended(&self, tenant: &Arc<Tenant>, state: State) {
        if state == State::Crashed {
            self.note_failure();
        }
        self.tenants.lock().retain(|other| !Arc::ptr_eq(other, tenant));
        console::share(|terminal, mut out| terminal.leave(tenant.vm.id, &mut out));
        console::listen(true); // the next one in front may read
        tenant.report(state); // what is typed from here on is the next one's
        for post in &tenant.vm.posts {
            if let Some(cpu) = self.cpus.get(post.pcpu.index()) {
                cpu.is_taken.store(false, Ordering::Release);
            }
        }
        self.leave();
    }

    /// Stops the machine: nothing runs any more.
    pub fn stop(&self) -> ! {
        self.off.stop(self.has_failed.load(Ordering::Acquire))
    }
}

//! What all physical CPUs share: the board, the free resources, the VMs and who sits where.
//!
//! Not here: anything that one CPU has for itself (`percpu`).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use spin::Mutex;
use trapeze::addr::Ipa;
use trapeze::allocator::Owner;
use trapeze::allocator::devices::Devices;
use trapeze::allocator::frames::Frames;
use trapeze::allocator::interrupts::{InterruptError, Interrupts};
use trapeze::allocator::stage2;
use trapeze::allocator::tables::Geometry;
use trapeze::allocator::vmid::{VmidBits, Vmids};
use trapeze::dispatcher::interrupts::{self, Disposition, Source};
use trapeze::dispatcher::traps;
use trapeze::ids::{IntId, PcpuId, VmId};
use trapeze::interpreter::id_registers::{CpuInterface, HostIdRegisters, IdField, IdRegisters};
use trapeze::interpreter::inject;
use trapeze::interpreter::sysreg::Processor;
use trapeze::machine::Machine;
use trapeze::platform::board::Board;
use trapeze::platform::passthrough::{Device, Line};
use trapeze::platform::vm_tree::{PASSTHROUGH, VmError, VmFault};
use trapeze::shell::Command;
use trapeze::vm::State;

use super::cpus::Cpus;
use super::gic::{Gic, GicParts, KICK};
use super::power::Off;
use super::sysreg::{id_space, read_sysreg};
use super::tenant::Tenant;
use super::{console, granted, guest};

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
    /// SCTLR_EL1 of a vCPU after a reset.
    pub sctlr_el1_at_reset: u64,
    /// OSLSR_EL1.OSLK as it was when the image started.
    pub os_lock_at_boot: bool,
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
            sctlr_el1_at_reset: guest::sctlr_el1_at_reset(read_sysreg!("sctlr_el1")),
            os_lock_at_boot: granted::is_os_locked(),
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
        let path = device.host.clone();
        let host = |why| VmFault::Host { property, path: path.clone(), why };
        let fault = match other {
            None => host("has an interrupt that the board's GIC lacks: remove the node"),
            Some(Owner::Hypervisor) => host("is the hypervisor's own: remove the node"),
            Some(other) => VmFault::Taken { property, path, by: self.devices.name(other).into() },
        };
        Err(VmError { node: device.path.clone(), fault })
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
    /// Who has which VMID.
    pub vmids: Mutex<Vmids>,
    /// What the interrupts in use stand for.
    pub interrupts: HostInterrupts,
    /// What each CPU opens its interrupt controller from.
    pub gic: GicParts,
    /// How to stop the machine.
    pub off: Off,
    /// RAM of the board.
    pub ram_bytes: u64,
    /// The CPUs, and who is in their run queues.
    pub cpus: Cpus,
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
        let ids = HostIdRegisters::new(id_space());
        let interrupts = HostInterrupts::of(board);
        let mut account = Interrupts::new(gic.intids());
        interrupts.claim(&mut account)?;
        Ok(Self {
            controls: Controls::of_this_cpu(&ids).ok_or(Unusable::NoStage2)?,
            frames: Mutex::new(frames),
            given: Mutex::new(Given::new(board, account)),
            vmids: Mutex::new(Vmids::new(vmid_bits(&ids), cpus)),
            interrupts,
            gic,
            off,
            ram_bytes: board.ram.iter().map(|region| region.size_bytes).sum(),
            cpus: Cpus::new(cpus),
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

    /// Lists the private interrupts that EL2 wants on every CPU.
    pub fn own_interrupts(&self) -> [IntId; 2] {
        [self.interrupts.hypervisor_timer, self.interrupts.maintenance]
    }

    /// Sends an interrupt that a VM was given to a CPU, once the VM lets it through.
    pub fn route(&self, gic: &Gic, line: &Line, pcpu: PcpuId) {
        gic.route(line.physical, line.trigger, self.cpus.address(pcpu));
    }

    /// Takes a new VM in, which runs from now on.
    pub fn admit(&self, tenant: &Arc<Tenant>) {
        self.live.fetch_add(1, Ordering::AcqRel);
        self.tenants.lock().push(tenant.clone());
        console::share(|terminal, _| terminal.join(tenant.vm.id, &tenant.vm.name));
    }

    /// Finds a VM.
    pub fn tenant(&self, vm: VmId) -> Option<Arc<Tenant>> {
        self.tenants.lock().iter().find(|tenant| tenant.vm.id == vm).cloned()
    }

    /// Hands an interrupt on that belongs to a VM whose vCPU this CPU does not run.
    pub fn device(&self, physical: IntId, machine: &mut impl Machine) -> Disposition {
        let owner = self.tenants.lock().iter().find(|tenant| tenant.vm.layout.has(physical)).cloned();
        match owner {
            Some(tenant) => interrupts::device(physical, None, &tenant.vm, machine),
            None => Disposition::Silence,
        }
    }

    /// Hands received characters to the VMs that they are for. A command to the monitor is for the caller.
    #[must_use]
    pub fn receive(&self, machine: &mut impl Machine) -> Option<Command> {
        let command = console::collect();
        for at in 0.. {
            let Some(tenant) = self.tenants.lock().get(at).cloned() else { break };
            if console::share(|terminal, _| terminal.has_typed(tenant.vm.id)) {
                interrupts::console(&tenant.vm, machine);
            }
        }
        command
    }

    /// Lists the VMs that have not ended.
    pub fn tenants(&self) -> Vec<Arc<Tenant>> {
        self.tenants.lock().clone()
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
        tenant.part(state); // what is typed from here on is the next one's
        console::listen(true); // which may read
        self.leave();
    }

    /// Stops the machine: nothing runs any more.
    pub fn stop(&self) -> ! {
        self.off.stop(self.has_failed.load(Ordering::Acquire))
    }
}

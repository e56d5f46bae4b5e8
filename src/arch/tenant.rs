//! A VM with what it owns: made from a configuration of the bundle, loaded, reset, and released.
//!
//! Not here: the rules of who may own what (the allocator's), and formats (the library's `platform`).

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::arch::asm;
use core::fmt;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use spin::Mutex;
use trapeze::addr::{Ipa, PAGE_BYTES, Pa, Region};
use trapeze::allocator::Owner;
use trapeze::allocator::frames::{Extents, Frames};
use trapeze::allocator::stage2::{self, Stage2, Stage2Attributes};
use trapeze::allocator::tables::{MapError, TableMemory};
use trapeze::allocator::vmid::{Before, Tag, Vmids};
use trapeze::dispatcher::traps::Features;
use trapeze::ids::{Affinity, PcpuId, VcpuId, VmId, Vmid};
use trapeze::interpreter::device::pl011::Pl011;
use trapeze::interpreter::device::vgic::{GicVersion, Vgic};
use trapeze::interpreter::id_registers::CpuInterface;
use trapeze::interpreter::psci::{Power, Start};
use trapeze::platform::board::{Board, Firmware, GicRegisters, Trouble};
use trapeze::platform::dtb::{self, DtbError, Fdt};
use trapeze::platform::fit::{Bundle, FitError, VmImages};
use trapeze::platform::guest_fdt::{self, GuestFdtError};
use trapeze::platform::kernel::{self, GuestRam, KernelError, OutsideRam, Plan};
use trapeze::platform::passthrough::{self, Device};
use trapeze::platform::vm_tree::{self, Gic, VmConfig, VmError, VmFault};
use trapeze::share::{OnCrash, PcpuSet, Share};
use trapeze::vm::{Layout, Parts, State, Uart, Vm};

use super::gic::Gic as PhysicalGic;
use super::lifecycle::{self, Roster};
use super::monitor::Monitor;
use super::operator::Sample;
use super::percpu::{MAX_PCPUS, Pcpu};
use super::sysreg::read_sysreg;
use super::world::Control;
use super::{console, guest, memory, monitor, timer};

/// Longest device tree of a VM: it is copied to the heap, and again when it is completed.
const MAX_TREE_BYTES: usize = 1 << 20;

/// In `Tenant::last_ran`: no vCPU of the VM.
const NOBODY: u8 = u8::MAX;

/// The machine that VMs are made on.
pub struct Host<'a> {
    /// What the hypervisor knows of it.
    pub board: &'a Board,
    /// All that its tree says.
    pub tree: &'a Fdt<'a>,
}

/// A VM and its resources.
pub struct Tenant {
    /// What its vCPUs share.
    pub vm: Vm,
    /// What each of them is to have of the CPUs.
    pub share: Share,
    /// The CPUs that may run them.
    pub cpus: PcpuSet,
    /// What becomes of it when it crashes.
    pub on_crash: OnCrash,
    /// Which of them rest.
    pub roster: Mutex<Roster>,
    /// The vCPU that each CPU ran last; it left translations in that CPU's TLB.
    last_ran: [AtomicU8; MAX_PCPUS],
    tag: AtomicU64,
    /// VTTBR_EL2 of its vCPUs, without the VMID.
    vttbr_el2: u64,
    affinities: Vec<Affinity>,
    counter_offset: AtomicU64,
    paused_at: AtomicU64,
    /// What it had had when it was last listed.
    pub sample: Mutex<Sample>,
    holdings: Mutex<Option<Holdings>>,
    plan: Plan<'static>,
    tree: Vec<u8>,
}

/// RAM regions of a VM, each with the frames behind it.
type RamParts = Vec<(Region<Ipa>, Extents)>;

/// What a VM owns and gives back.
struct Holdings {
    owner: Owner,
    stage2: Stage2,
    ram: Vec<(Region<Ipa>, Extents)>,
}

/// Frames as memory for the tables of one VM.
struct TableFrames<'a> {
    frames: &'a mut Frames,
    owner: Owner,
}

impl TableMemory for TableFrames<'_> {
    fn read(&self, descriptor: Pa) -> u64 {
        // SAFETY: the tables call with descriptors inside frames that `allocate` gave them.
        unsafe { memory::read_descriptor(descriptor) }
    }

    fn write(&mut self, descriptor: Pa, value: u64) {
        // SAFETY: as for `read`.
        unsafe { memory::write_descriptor(descriptor, value) }
    }

    fn allocate(&mut self, pages: u32) -> Option<Pa> {
        let size_bytes = u64::from(pages) * PAGE_BYTES;
        let table = self.frames.allocate(Owner::Hypervisor, size_bytes, size_bytes)?;
        // SAFETY: the frames were free until now.
        unsafe { memory::zero_tables(table.start, pages) };
        Some(table.start)
    }

    fn free(&mut self, table: Pa, pages: u32) {
        let size_bytes = u64::from(pages) * PAGE_BYTES;
        let freed = self.frames.free(Region { start: table, size_bytes });
        assert!(freed.is_ok(), "a table of {:?} at {table} that was not allocated", self.owner);
    }

    fn publish(&mut self) {
        memory::publish();
    }

    fn invalidate(&mut self, input: u64) {
        // SAFETY: dropping TLB entries costs time only. Stage 1 and 2 combined go as well, since the TLB may hold
        // what an IPA led to under its virtual address (Arm ARM DDI 0487K.a, D8.16.4).
        unsafe {
            asm!(
                "dsb ishst", "tlbi ipas2e1is, {page}", "dsb ish", "tlbi vmalle1is", "dsb ish", "isb",
                page = in(reg) input >> 12, options(nostack),
            );
        }
    }
}

/// Returns where stage 2 of the guest whose registers are in this CPU has `ipa`. That guest's exit is being answered: so
/// VTTBR_EL2 names tables of a VM that is not gathered, and nobody takes their frames back.
pub fn stage2(monitor: &Monitor, ipa: Ipa) -> Option<Pa> {
    let tables = TableFrames { frames: &mut monitor.frames.lock(), owner: Owner::Hypervisor };
    stage2::translate(&tables, read_sysreg!("vttbr_el2"), monitor.controls.ipa_bits, ipa)
}

/// Why a VM does not start.
enum StartError {
    Fit(FitError),
    Tree { node: String, error: DtbError },
    TreeTooLong { node: String, bytes: usize },
    Vm(VmError),
    Kernel(KernelError),
    GuestFdt(GuestFdtError),
    Map(MapError),
    Power,
    GicVersion { wanted: GicVersion },
    PerformanceMonitors { node: String, why: &'static str },
    Cpus,
    Place { wanted: Region<Ipa>, free: Vec<Region<Pa>> },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fit(error) => write!(f, "{error}"),
            Self::Tree { node, error } => write!(f, "{node}: {error}"),
            Self::TreeTooLong { node, bytes } => {
                write!(f, "{node}: data: a device tree of {bytes} bytes; at most {MAX_TREE_BYTES} are read")
            }
            Self::Vm(error) => write!(f, "{error}"),
            Self::Kernel(error) => write!(f, "{error}"),
            Self::GuestFdt(error) => write!(f, "{error}"),
            Self::Map(MapError::OutOfTables) => write!(f, "no memory is left for its translation tables"),
            Self::Map(_) => write!(f, "/memory: reg: what it names cannot be mapped"),
            Self::Power => write!(f, "/cpus: two CPUs with one reg, or too many"),
            Self::GicVersion { wanted: GicVersion::V2 } => {
                write!(
                    f,
                    "its interrupt controller: compatible: a GICv2, but this board has a GICv3: give the VM an \"arm,gic-v3\""
                )
            }
            Self::GicVersion { wanted: GicVersion::V3 } => {
                write!(
                    f,
                    "its interrupt controller: compatible: a GICv3, but this board has a GICv2: give the VM an \"arm,gic-400\""
                )
            }
            Self::PerformanceMonitors { node, why } => write!(f, "{node}: {why}: remove the node"),
            Self::Cpus => write!(f, "/: trapeze,cpus: none of these CPUs did start: name others"),
            Self::Place { wanted, free } => {
                write!(f, "/memory: reg: {wanted} is not all free: with trapeze,identity give a part of")?;
                let fits = |region: &&Region<Pa>| region.size_bytes >= wanted.size_bytes;
                free.iter().filter(fits).try_for_each(|region| write!(f, " {region}"))
            }
        }
    }
}

macro_rules! from_error {
    ($($variant:ident($error:ty)),*) => {
        $(impl From<$error> for StartError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })*
    };
}
from_error!(Fit(FitError), Vm(VmError), Kernel(KernelError), GuestFdt(GuestFdtError), Map(MapError));

/// The bundle that is built in: a VM for a GICv3, and one for a GICv2.
static BUILT_IN: &[u8] = include_bytes!(env!("TRAPEZE_BUNDLE"));

/// Starts every VM of the bundle that can be started. None: the machine stops with a failure.
pub fn start_all(host: &Host<'_>, monitor: &'static Monitor, cpu: &Pcpu, bundle: Option<&'static mut [u8]>) {
    let started = match bundle {
        Some(blob) => start_bundle(host, monitor, cpu, blob, None),
        None => {
            if host.board.firmware == Firmware::RaspberryPi {
                log::info!("no bundle{}; runs the built-in one", host.board.firmware.advice(Trouble::Bundle));
            }
            let fitting = u16::from(matches!(host.board.gic.registers, GicRegisters::V2 { .. }));
            start_bundle(host, monitor, cpu, Vec::leak(BUILT_IN.to_vec()), Some(fitting))
        }
    };
    if let Err(error) = started {
        log::error!("the bundle: {error}{}", host.board.firmware.advice(Trouble::Bundle));
        monitor.note_failure();
    }
    if let Some(intid) = monitor.interrupts.console {
        cpu.gic.set_enabled(intid, true);
        console::listen(true);
    }
    monitor.all_seated();
}

/// Starts the VMs of a bundle, or the one with that number alone.
fn start_bundle(
    host: &Host<'_>,
    monitor: &'static Monitor,
    cpu: &Pcpu,
    blob: &'static mut [u8],
    only: Option<u16>,
) -> Result<(), StartError> {
    let (tree, external) = trapeze::platform::fit::split(blob)?;
    let fdt = dtb::open(tree).map_err(|error| StartError::Tree { node: "bundle".into(), error })?;
    let mut bundle = Bundle::open(&fdt, external)?;
    if memory::has_crc32() {
        bundle = bundle.with_crc32(memory::crc32);
    }
    console::settle(); // a VM may get one of the UARTs
    if only.is_none() && bundle.has_several() {
        console::share(|terminal, _| terminal.open());
    }
    let numbered = (0_u16..).zip(bundle.virtual_machines());
    for (number, (name, images)) in numbered.filter(|(number, _)| only.is_none_or(|only| only == *number)) {
        let made = images
            .map_err(StartError::from)
            .and_then(|images| Tenant::make(VmId(number), &images, host, cpu));
        match made {
            Ok(tenant) => {
                let tenant = Arc::new(tenant);
                log::info!("vm {name}: starts, {} vCPUs", tenant.affinities.len());
                monitor.admit(&tenant);
                lifecycle::begin(monitor, &cpu.gic, &tenant);
            }
            Err(error) => {
                let is_memory =
                    matches!(&error, StartError::Vm(VmError { fault: VmFault::TooLarge { .. }, .. }));
                let advice = if is_memory { host.board.firmware.advice(Trouble::Memory) } else { "" };
                log::error!("vm {name} does not start: {error}{advice}");
                monitor.note_failure();
            }
        }
    }
    Ok(())
}

impl Tenant {
    fn make(id: VmId, images: &VmImages<'static>, host: &Host<'_>, cpu: &Pcpu) -> Result<Self, StartError> {
        let monitor = cpu.monitor;
        if images.fdt.bytes.len() > MAX_TREE_BYTES {
            return Err(StartError::TreeTooLong {
                node: images.fdt.path.clone(),
                bytes: images.fdt.bytes.len(),
            });
        }
        let mut tree = images.fdt.bytes.to_vec();
        let fdt = dtb::open(&mut tree)
            .map_err(|error| StartError::Tree { node: images.fdt.path.clone(), error })?;
        let config = vm_tree::read(&fdt)?;
        check_gic_version(&config, host.board)?;
        vm_tree::check_cpus_exist(&config, monitor.cpus.count())?;
        let cpus = config.cpus.unwrap_or(PcpuSet::ALL);
        let home = cpus.and(monitor.cpus.up()).iter().next().ok_or(StartError::Cpus)?;
        check_performance_monitors(&config, monitor)?;
        let tree_bytes = guest_fdt::size_bytes(&fdt, &config, images.ramdisk.is_some())?;
        let plan = kernel::plan(&images.kernel, images.ramdisk.as_ref(), tree_bytes as u64, &config.ram)?;
        let finished = guest_fdt::build(&fdt, &config, plan.initrd)?;
        let start = Start { entry: plan.entry, context: plan.dtb.start.get() };
        let power =
            Power::new(config.vcpus.iter().copied(), VcpuId(0), start).map_err(|_| StartError::Power)?;
        let devices = passthrough::devices(host.tree, host.board, &config)?;
        let wanted = Wanted { id, name: images.name, config: &config, devices: &devices };
        let holdings = Holdings::take(&wanted, host.board, monitor)?;
        for line in devices.iter().flat_map(|device| &device.lines) {
            monitor.route(&cpu.gic, line, home);
        }
        let vm = Vm::new(parts(&wanted, power, monitor));
        let tenant = Self {
            vm,
            share: config.share,
            on_crash: config.on_crash,
            cpus,
            roster: Mutex::new(Roster::new(config.vcpus.len() as u8, cpu.gic.list_registers())),
            last_ran: [const { AtomicU8::new(NOBODY) }; MAX_PCPUS],
            tag: AtomicU64::new(Tag::NONE.word()),
            vttbr_el2: holdings.stage2.vttbr_el2(Vmid(0)),
            affinities: config.vcpus.clone(),
            counter_offset: AtomicU64::new(0),
            paused_at: AtomicU64::new(0),
            sample: Mutex::default(),
            holdings: Mutex::new(Some(holdings)),
            plan,
            tree: finished,
        };
        match tenant.load() {
            Ok(()) => Ok(tenant),
            Err(error) => {
                tenant.release(monitor);
                Err(error.into())
            }
        }
    }

    /// Stops the interrupts of the VM's devices, whatever they were at. Its vCPUs are gathered.
    pub fn silence(&self, gic: &PhysicalGic) {
        for (physical, _) in &self.vm.layout.devices {
            gic.set_enabled(*physical, false);
            gic.deactivate(*physical);
        }
    }

    /// Returns what a CPU needs to run one of its vCPUs.
    #[inline]
    pub fn control(&self, vmids: &Mutex<Vmids>, pcpu: PcpuId, vcpu: VcpuId) -> Control {
        let mut vmids = vmids.lock();
        let mut tag = Tag::from_word(self.tag.load(Ordering::Relaxed));
        if vmids.enter(pcpu, &mut tag) == Before::InvalidateAll {
            guest::invalidate_all_tlbs(); // under the lock: nobody uses a VMID of the new generation before
        }
        self.tag.store(tag.word(), Ordering::Relaxed);
        drop(vmids);
        Control {
            vttbr_el2: self.vttbr_el2 | u64::from(tag.vmid().0) << 48,
            counter_offset: self.counter_offset.load(Ordering::Relaxed),
            affinity: self.affinities[vcpu.index()],
        }
    }

    /// Returns the virtual counter's distance from the physical one.
    pub fn counter_offset(&self) -> u64 {
        self.counter_offset.load(Ordering::Relaxed)
    }

    /// Notes that a CPU runs a vCPU; tells whether it ran another one of this VM last.
    #[inline]
    pub fn follows_sibling(&self, pcpu: PcpuId, vcpu: VcpuId) -> bool {
        let last = &self.last_ran[pcpu.index()];
        let before = last.load(Ordering::Relaxed);
        if before == vcpu.0 {
            return false;
        }
        last.store(vcpu.0, Ordering::Relaxed);
        before != NOBODY
    }

    /// Returns the physical count at which the VM was made, or reset.
    pub fn started_at(&self) -> u64 {
        self.counter_offset()
    }

    /// Returns the size of its RAM in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.vm.layout.ram.iter().map(|region| region.size_bytes).sum()
    }

    /// Stops the VM's clock. Its vCPUs rest.
    pub fn begin_pause(&self) {
        self.paused_at.store(timer::now().0, Ordering::Relaxed);
    }

    /// Lets the VM's clock go on where it was.
    pub fn end_pause(&self) {
        self.counter_offset
            .fetch_add(timer::now().0 - self.paused_at.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Fills RAM with what the VM starts with: zeroes, kernel, RAM disk, tree.
    fn load(&self) -> Result<(), KernelError> {
        let mut holdings = self.holdings.lock();
        let Some(holdings) = holdings.as_mut() else { unreachable!("a VM without memory is loaded") };
        for chunk in holdings.ram.iter().flat_map(|(_, extents)| extents.iter()) {
            // SAFETY: the chunk belongs to this VM, none of whose vCPUs runs.
            unsafe { memory::zero(chunk) };
        }
        let loaded = self.plan.load(&self.tree, &mut LoadedRam { ram: &holdings.ram });
        memory::invalidate_instruction_caches();
        self.counter_offset.store(timer::now().0, Ordering::Relaxed);
        loaded
    }

    /// Gives the VM the machine as new. Its vCPUs are gathered.
    pub fn reload(&self, monitor: &Monitor) {
        log::info!("vm {}: resets", self.vm.name);
        if let Err(error) = self.load() {
            // It was loaded from the same bytes before; the bundle is not a guest's to change.
            log::error!("vm {}: {error}", self.vm.name);
            monitor.note_failure();
        }
        self.tag.store(Tag::NONE.word(), Ordering::Relaxed); // what TLBs have of it stays with its former VMID
        self.vm.vgic.lock().reset();
        for uart in &self.vm.uarts {
            *uart.model.lock() = Pl011::new();
        }
        self.vm.power.lock().reset();
    }

    /// Takes back what the VM owns. Its vCPUs are gathered.
    pub fn release(&self, monitor: &Monitor) {
        let Some(holdings) = self.holdings.lock().take() else { return };
        let mut frames = monitor.frames.lock();
        holdings.stage2.destroy(&mut TableFrames { frames: &mut frames, owner: holdings.owner });
        for (_, extents) in holdings.ram {
            let freed = frames.free_ram(extents);
            assert!(freed.is_ok(), "RAM of vm {} that was not allocated", self.vm.name);
        }
        drop(frames);
        monitor.given.lock().release(holdings.owner);
    }

    /// Takes the VM off the console and says how it ended.
    pub fn part(&self, state: State) {
        let exits = self.vm.exits.load(Ordering::Relaxed);
        let how = if state == State::Crashed { "crashed" } else { "is off" };
        console::part(self.vm.id, format_args!("vm {}: {how} after {exits} exits", self.vm.name));
    }
}

fn check_gic_version(config: &VmConfig, board: &Board) -> Result<(), StartError> {
    match (&config.gic, &board.gic.registers) {
        (Gic::V2 { .. }, GicRegisters::V3 { .. }) => Err(StartError::GicVersion { wanted: GicVersion::V2 }),
        (Gic::V3 { .. }, GicRegisters::V2 { .. }) => Err(StartError::GicVersion { wanted: GicVersion::V3 }),
        _ => Ok(()),
    }
}

/// Returns how many SPIs the VM's distributor is to have: those that its devices use, and some to spare for software.
///
/// Kernels write a register for each when they start, and each such write is an exit.
fn spis(config: &VmConfig) -> u32 {
    const AT_LEAST: u32 = 96;
    config.spis().max(AT_LEAST)
}

/// Requires the board to have performance monitors that interrupt, if the VM is to.
fn check_performance_monitors(config: &VmConfig, monitor: &Monitor) -> Result<(), StartError> {
    let Some(wanted) = &config.performance_monitors else { return Ok(()) };
    let refuse = |why| Err(StartError::PerformanceMonitors { node: wanted.path.clone(), why });
    if !monitor.controls.traps.has(Features::PMU) {
        refuse("compatible: this board's CPUs have no performance monitors (PMUv3)")
    } else if monitor.interrupts.performance_monitors.is_none() {
        refuse("interrupts: the performance monitors of this board interrupt by no PPI")
    } else {
        Ok(())
    }
}

/// What a VM is to be.
struct Wanted<'a> {
    id: VmId,
    name: &'a str,
    config: &'a VmConfig,
    devices: &'a [Device],
}

fn parts(wanted: &Wanted<'_>, power: Power, monitor: &Monitor) -> Parts {
    let Wanted { id, name, config, devices } = *wanted;
    let mut redistributors = Vec::new();
    let (version, cpu_interface, distributor, deactivation) = match &config.gic {
        Gic::V2 { distributor, cpu_interface } => {
            let (_, second) = gicc_pages(*cpu_interface);
            (GicVersion::V2, CpuInterface::MemoryMapped, *distributor, second)
        }
        Gic::V3 { distributor, redistributors: regions } => {
            let mut before = 0;
            for region in regions {
                redistributors.push((*region, before));
                before += region.size_bytes;
            }
            (GicVersion::V3, CpuInterface::SystemRegisters, *distributor, None)
        }
    };
    let mut vgic = Vgic::new(version, &config.vcpus, spis(config));
    vgic.back_by_hardware(config.timer.virtual_, monitor.interrupts.virtual_timer);
    let performance_monitors = config.performance_monitors.as_ref().map(|node| node.interrupt);
    if let (Some(intid), Some(physical)) = (performance_monitors, monitor.interrupts.performance_monitors) {
        vgic.back_by_hardware(intid, physical);
    }
    let mut lines = Vec::new();
    for line in devices.iter().flat_map(|device| &device.lines) {
        vgic.back_by_hardware(line.intid, line.physical);
        lines.push((line.physical, line.intid));
    }
    let uart = |uart: &vm_tree::Uart| Uart {
        region: uart.registers,
        intid: uart.interrupt,
        model: Mutex::new(Pl011::new()),
    };
    Parts {
        id,
        name: name.into(),
        processor: monitor::processor(cpu_interface, config.vcpus.len() as u8, distributor.start),
        layout: Layout {
            distributor,
            redistributors,
            deactivation,
            ram: config.ram.clone(),
            virtual_timer: config.timer.virtual_,
            physical_timer: config.timer.physical,
            performance_monitors,
            devices: lines,
            stolen_time: None,
        },
        vgic,
        uarts: config.uarts.iter().map(uart).collect(),
        power,
        vcpus: config.vcpus.len(),
    }
}

impl Holdings {
    /// Takes RAM, devices and tables for a VM, or nothing.
    fn take(wanted: &Wanted<'_>, board: &Board, monitor: &Monitor) -> Result<Self, StartError> {
        let owner = Owner::Vm(wanted.id);
        let taken = Self::take_parts(owner, wanted, board, monitor);
        let (stage2, ram) = taken.inspect_err(|_| monitor.given.lock().release(owner))?;
        Ok(Self { owner, stage2, ram })
    }

    fn take_parts(
        owner: Owner,
        wanted: &Wanted<'_>,
        board: &Board,
        monitor: &Monitor,
    ) -> Result<(Stage2, RamParts), StartError> {
        let config = wanted.config;
        for device in wanted.devices {
            monitor.given.lock().claim(device, owner, wanted.name)?;
        }
        let mut frames = monitor.frames.lock();
        let mut ram = Vec::new();
        for region in &config.ram {
            let extents = if config.identity {
                let here = Region { start: Pa::new(region.start.get()), size_bytes: region.size_bytes };
                frames.allocate_ram_at(owner, here)
            } else {
                frames.allocate_ram(owner, region.size_bytes)
            };
            match extents {
                Some(extents) => ram.push((*region, extents)),
                None => {
                    let free_bytes = frames.free_bytes() + frames.reclaim(owner);
                    return Err(if config.identity {
                        StartError::Place { wanted: *region, free: frames.free_regions() }
                    } else {
                        config.too_large(free_bytes, monitor.ram_bytes).into()
                    });
                }
            }
        }
        let mapped = map(&mut TableFrames { frames: &mut frames, owner }, &ram, wanted, board, monitor);
        match mapped {
            Ok(stage2) => Ok((stage2, ram)),
            Err(error) => {
                frames.reclaim(owner);
                Err(error.into())
            }
        }
    }
}

fn map(
    tables: &mut TableFrames<'_>,
    ram: &[(Region<Ipa>, Extents)],
    wanted: &Wanted<'_>,
    board: &Board,
    monitor: &Monitor,
) -> Result<Stage2, MapError> {
    let mut stage2 = Stage2::new(tables, monitor.controls.ipa_bits)?;
    match fill(&mut stage2, tables, ram, wanted, board) {
        Ok(()) => Ok(stage2),
        Err(error) => {
            stage2.destroy(tables);
            Err(error)
        }
    }
}

fn fill(
    stage2: &mut Stage2,
    tables: &mut TableFrames<'_>,
    ram: &[(Region<Ipa>, Extents)],
    wanted: &Wanted<'_>,
    board: &Board,
) -> Result<(), MapError> {
    for (region, extents) in ram {
        stage2.map_extents(tables, region.start, extents, Stage2Attributes::RAM)?;
    }
    if let (Gic::V2 { cpu_interface, .. }, GicRegisters::V2 { gicv, .. }) =
        (&wanted.config.gic, &board.gic.registers)
    {
        let (first, _) = gicc_pages(*cpu_interface);
        stage2.map(tables, first, gicv.start, Stage2Attributes::DEVICE)?;
    }
    for (ipa, pa) in wanted.devices.iter().flat_map(|device| &device.pages) {
        stage2.map(tables, *ipa, pa.start, Stage2Attributes::DEVICE)?;
    }
    Ok(())
}

/// Returns the page of a GICv2 CPU interface that is the hardware's GICV, and the one with GICC_DIR, which is
/// emulated: an interrupt that is deactivated may not be in the list registers (Arm IHI 0048B.b, 5.5).
fn gicc_pages(cpu_interface: Region<Ipa>) -> (Region<Ipa>, Option<Region<Ipa>>) {
    let first = Region { start: cpu_interface.start, size_bytes: PAGE_BYTES };
    let second =
        cpu_interface.start.checked_add(PAGE_BYTES).and_then(|page| Region::<Ipa>::new(page, PAGE_BYTES));
    (first, second.filter(|page| cpu_interface.encloses(page)))
}

/// A VM's RAM while nobody runs in it.
struct LoadedRam<'a> {
    ram: &'a [(Region<Ipa>, Extents)],
}

impl LoadedRam<'_> {
    /// Calls `action` with each contiguous piece of `bytes` bytes from `start` on, and how far into them it is.
    fn each_piece(
        &self,
        start: Ipa,
        bytes: u64,
        mut action: impl FnMut(Region<Pa>, u64),
    ) -> Result<(), OutsideRam> {
        let outside = OutsideRam(start);
        let (region, extents) =
            self.ram.iter().find(|(region, _)| region.offset_of(start, bytes).is_some()).ok_or(outside)?;
        let first = start.offset_from(region.start).ok_or(outside)?;
        let (mut at, mut done) = (0, 0);
        for extent in extents.iter() {
            let skip = (first + done).saturating_sub(at);
            if done < bytes && skip < extent.size_bytes {
                let length = (extent.size_bytes - skip).min(bytes - done);
                let piece = Region::<Pa>::new(Pa::new(extent.start.get() + skip), length).ok_or(outside)?;
                action(piece, done);
                done += length;
            }
            at += extent.size_bytes;
        }
        if done == bytes { Ok(()) } else { Err(outside) }
    }
}

impl GuestRam for LoadedRam<'_> {
    fn write(&mut self, start: Ipa, bytes: &[u8]) -> Result<(), OutsideRam> {
        self.each_piece(start, bytes.len() as u64, |piece, done| {
            let source = &bytes[done as usize..][..piece.size_bytes as usize];
            // SAFETY: the piece is RAM of a VM none of whose vCPUs runs, held under its lock.
            unsafe { memory::copy(source, piece) };
            // A guest starts with its caches off: what is in the caches would be invisible to it, and be written
            // over what it writes (Arm ARM DDI 0487K.a, D7.5).
            memory::clean_invalidate(piece);
        })
    }

    /// `Tenant::load` has cleared all of it.
    fn zero(&mut self, start: Ipa, bytes: u64) -> Result<(), OutsideRam> {
        self.each_piece(start, bytes, |_, _| {})
    }
}

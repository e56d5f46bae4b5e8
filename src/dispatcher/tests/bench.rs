//! A VM on scripted CPUs: what a guest does comes out as the exits that it causes.
//!
//! Not here: facts. Each exit goes the way that `arch` takes, and leaves no lock held.

use super::super::interrupts::{self, Disposition, Source};
use super::super::{Left, Next};
use super::machine::{Call, Scripted};
use crate::addr::{Ipa, Region};
use crate::ids::{Affinity, IntId, PcpuId, VcpuId, VmId};
use crate::interpreter::device::Width;
use crate::interpreter::device::pl011::Pl011;
use crate::interpreter::device::vgic::{GicVersion, MAX_SPIS, REDISTRIBUTOR_BYTES, Vgic};
use crate::interpreter::id_registers::{CpuInterface, HostIdRegisters, IdRegisters};
use crate::interpreter::inject::Entry;
use crate::interpreter::psci::{Power, Start};
use crate::interpreter::sysreg::{Processor, SystemRegister};
use crate::vcpu::Vcpu;
use crate::vm::{Layout, Parts, Place, Requests, Uart, Vm};

pub const GICD: u64 = 0x0800_0000;
pub const GICC_DIR: u64 = 0x0801_1000;
pub const GICR: u64 = 0x080a_0000;
/// The second region of redistributors, from vCPU 2 on.
pub const GICR_HIGH: u64 = 0x40_0000_0000;
pub const SGI_BASE: u64 = 0x1_0000;
pub const UART: u64 = 0x0900_0000;
pub const SECOND_UART: u64 = 0x0904_0000;
pub const RAM: u64 = 0x4000_0000;

pub const UART_SPI: IntId = IntId(33);
pub const SECOND_UART_SPI: IntId = IntId(40);
pub const VIRTUAL_TIMER: IntId = IntId(27);
/// The real machine's virtual timer has another number, so that the two are not mistaken for each other.
pub const HOST_TIMER: IntId = IntId(26);
pub const PHYSICAL_TIMER: IntId = IntId(30);
pub const PERFORMANCE_MONITORS: IntId = IntId(23);
pub const HOST_MONITORS: IntId = IntId(24);
/// A device of the host's that the VM was given, in the guest and on the host.
pub const DEVICE_SPI: IntId = IntId(65);
pub const HOST_DEVICE: IntId = IntId(153);

pub const BOTH: [GicVersion; 2] = [GicVersion::V2, GicVersion::V3];

/// Where every guest begins, at EL1.
pub const ENTRY: u64 = RAM + 0x8_0000;
pub const EL1H: u64 = 0x3c5;
/// Where the tests' loads and stores have the virtual address of an IPA.
pub const KERNEL_VA: u64 = 0xffff_8000_0000_0000;

pub const CPU_ON: u64 = 0xc400_0003;

/// One load or store as its syndrome describes it; a load of a word into W1 unless said otherwise.
#[derive(Clone, Copy)]
pub struct Touch {
    pub ipa: u64,
    pub width: Width,
    pub gpr: u8,
    pub write: bool,
    pub sign_extend: bool,
    pub sixty_four: bool,
}

impl Touch {
    pub fn load(ipa: u64, width: Width) -> Self {
        let sixty_four = width == Width::Double;
        Self { ipa, width, gpr: 1, write: false, sign_extend: false, sixty_four }
    }

    pub fn store(ipa: u64, width: Width) -> Self {
        Self { write: true, ..Self::load(ipa, width) }
    }

    /// Returns ESR_EL2 of the data abort: a translation fault at level 3.
    pub fn esr(&self) -> u64 {
        let size = match self.width {
            Width::Byte => 0,
            Width::Half => 1,
            Width::Word => 2,
            Width::Double => 3,
        };
        let flags =
            u64::from(self.sign_extend) << 21 | u64::from(self.sixty_four) << 15 | u64::from(self.write) << 6;
        esr(0x24, 1 << 24 | size << 22 | u64::from(self.gpr) << 16 | flags | 0x07)
    }
}

/// Builds ESR_EL2 of a 4-byte instruction.
pub const fn esr(class: u64, iss: u64) -> u64 {
    class << 26 | 1 << 25 | iss
}

/// Builds ESR_EL2 of MRS (`read`) or MSR.
pub fn system_esr(register: SystemRegister, gpr: u8, read: bool) -> u64 {
    let field = |value: u8, at: u32| u64::from(value) << at;
    let iss = field(register.op0(), 20)
        | field(register.op2(), 17)
        | field(register.op1(), 14)
        | field(register.crn(), 10)
        | field(gpr, 5)
        | field(register.crm(), 1)
        | u64::from(read);
    esr(0x18, iss)
}

pub const fn hpfar(ipa: u64) -> u64 {
    (ipa >> 12) << 4
}

/// A VM and the CPUs that run it, one for each vCPU.
pub struct Bench {
    pub vm: Vm,
    pub vcpus: Vec<Vcpu>,
    pub cpus: Vec<Scripted>,
}

impl Bench {
    /// Makes a VM whose vCPU 0 runs, on CPUs with four list registers.
    pub fn new(version: GicVersion, vcpus: u8) -> Self {
        Self::with_list_registers(version, vcpus, 4)
    }

    pub fn with_list_registers(version: GicVersion, vcpus: u8, count: u8) -> Self {
        let vm = Vm::new(parts(version, vcpus));
        for (post, id) in vm.posts.iter().zip(10..) {
            post.set_place(Place::At(PcpuId(id), 0));
        }
        let start = vm.power.lock().take_start(VcpuId(0)).unwrap();
        let mut bench = Self {
            vm,
            vcpus: (0..vcpus).map(|id| Vcpu::new(VcpuId(id), count)).collect(),
            cpus: (0..vcpus).map(|_| Scripted::new(version, count)).collect(),
        };
        bench.vcpus[0].start(start.entry.get(), start.context, 0);
        bench
    }

    /// Makes a VM whose vCPUs all run.
    pub fn running(version: GicVersion, vcpus: u8) -> Self {
        let mut bench = Self::new(version, vcpus);
        for id in 1..vcpus {
            bench.turn_on(id);
        }
        bench.vcpus[0].frame.x = [0; 31];
        for cpu in &mut bench.cpus {
            cpu.take_calls();
        }
        bench
    }

    /// Turns a vCPU on, from vCPU 0.
    pub fn turn_on(&mut self, id: u8) {
        assert_eq!(self.hvc(0, [CPU_ON, u64::from(id), ENTRY, 0]), Next::Resume);
        assert_eq!(self.vcpus[0].frame.x[0], 0);
        self.take_start(id);
    }

    /// Does what a CPU does that finds its vCPU turned on.
    pub fn take_start(&mut self, id: u8) {
        let at = usize::from(id);
        self.vm.posts[at].take();
        let start = self.vm.power.lock().take_start(VcpuId(id)).unwrap();
        self.vcpus[at].start(start.entry.get(), start.context, 0);
        self.cpus[at].reset_virtual();
        interrupts::power_up(&mut self.vcpus[at], &self.vm, &mut self.cpus[at]);
    }

    /// Takes a synchronous exit to its end, the way that `arch` takes. What an exit leaves to do is what was to be next.
    pub fn exit(&mut self, cpu: usize, esr_el2: u64, far_el2: u64, hpfar_el2: u64) -> Next {
        let (vcpu, machine) = (&mut self.vcpus[cpu], &mut self.cpus[cpu]);
        let left = super::super::exit([esr_el2, far_el2, hpfar_el2], vcpu, &self.vm, machine);
        self.check_locks();
        match left {
            Left::Nothing => Next::Resume,
            Left::Wait { until: None } => Next::Wait,
            Left::Wait { until } => Next::Idle { until },
            Left::Yield => Next::Yield,
            Left::Off => Next::Off,
            Left::Stop(state) => Next::Stop(state),
        }
    }

    /// Takes a physical interrupt.
    pub fn interrupt(&mut self, cpu: usize, source: Source) -> Disposition {
        let (vcpu, machine) = (&mut self.vcpus[cpu], &mut self.cpus[cpu]);
        let disposition = interrupts::physical(source, vcpu, &self.vm, machine);
        self.check_locks();
        disposition
    }

    /// Makes the console interrupt on a CPU.
    pub fn receive(&mut self, cpu: usize, characters: &[u8]) {
        self.cpus[cpu].input.extend(characters);
        interrupts::console(&self.vm, &mut self.cpus[cpu]);
        self.check_locks();
    }

    pub fn check_locks(&self) {
        assert!(self.vm.vgic.try_lock().is_some() && self.vm.power.try_lock().is_some());
        assert!(self.vm.uarts.iter().all(|uart| uart.model.try_lock().is_some()));
    }

    /// Lets the CPUs that were kicked look at their requests, as they do before they go back to the guest.
    /// Returns who planned anew.
    pub fn serve_kicks(&mut self) -> Vec<usize> {
        let mut planned = vec![];
        for pcpu in self.kicked() {
            let cpu = self.vm.posts.iter().position(|post| post.place() == Place::At(pcpu, 0)).unwrap();
            if self.vm.posts[cpu].take().contains(Requests::PLAN) {
                interrupts::replan(&mut self.vcpus[cpu], &self.vm, &mut self.cpus[cpu]);
                planned.push(cpu);
            }
        }
        planned
    }

    /// Takes the kicks out of the CPUs' calls.
    pub fn kicked(&mut self) -> Vec<PcpuId> {
        let mut kicked = vec![];
        for cpu in &mut self.cpus {
            cpu.calls.retain(|call| match call {
                Call::Kick(pcpu) => {
                    kicked.push(*pcpu);
                    false
                }
                _ => true,
            });
        }
        kicked
    }

    pub fn pc(&self, cpu: usize) -> u64 {
        self.vcpus[cpu].frame.pc
    }

    /// Calls by HVC: the CPU has stepped over it before it comes here.
    pub fn hvc(&mut self, cpu: usize, registers: [u64; 4]) -> Next {
        self.vcpus[cpu].frame.x[..4].copy_from_slice(&registers);
        self.vcpus[cpu].frame.pc += 4;
        self.exit(cpu, esr(0x16, 0), 0, 0)
    }

    /// Calls by SMC, which traps before it executes.
    pub fn smc(&mut self, cpu: usize, registers: [u64; 4]) -> Next {
        self.vcpus[cpu].frame.x[..4].copy_from_slice(&registers);
        self.exit(cpu, esr(0x17, 0), 0, 0)
    }

    /// Reads a system register into X1, which must succeed.
    pub fn mrs(&mut self, cpu: usize, register: SystemRegister) -> u64 {
        self.executes(cpu, system_esr(register, 1, true), 0, 0);
        self.vcpus[cpu].frame.x[1]
    }

    /// Writes a system register from X1, which must succeed.
    pub fn msr(&mut self, cpu: usize, register: SystemRegister, value: u64) {
        self.vcpus[cpu].frame.x[1] = value;
        self.executes(cpu, system_esr(register, 1, false), 0, 0);
    }

    /// Makes a load or store.
    pub fn touch(&mut self, cpu: usize, touch: Touch) -> Next {
        self.exit(cpu, touch.esr(), KERNEL_VA | touch.ipa, hpfar(touch.ipa))
    }

    /// Loads from a device, which must succeed.
    pub fn read(&mut self, cpu: usize, ipa: u64, width: Width) -> u64 {
        self.executes(cpu, Touch::load(ipa, width).esr(), KERNEL_VA | ipa, hpfar(ipa));
        self.vcpus[cpu].frame.x[1]
    }

    /// Stores to a device, which must succeed.
    pub fn write(&mut self, cpu: usize, ipa: u64, width: Width, value: u64) {
        self.vcpus[cpu].frame.x[1] = value;
        self.executes(cpu, Touch::store(ipa, width).esr(), KERNEL_VA | ipa, hpfar(ipa));
    }

    pub fn read_word(&mut self, cpu: usize, ipa: u64) -> u64 {
        self.read(cpu, ipa, Width::Word)
    }

    pub fn write_word(&mut self, cpu: usize, ipa: u64, value: u64) {
        self.write(cpu, ipa, Width::Word, value);
    }

    /// Takes an exit after which the guest goes on at the next instruction.
    fn executes(&mut self, cpu: usize, esr_el2: u64, far_el2: u64, hpfar_el2: u64) {
        let pc = self.pc(cpu);
        assert_eq!(self.exit(cpu, esr_el2, far_el2, hpfar_el2), Next::Resume);
        assert_eq!(self.pc(cpu), pc + 4, "the instruction was not stepped over");
    }

    /// Takes an exit that injects an exception; returns what was injected.
    pub fn injects(&mut self, cpu: usize, esr_el2: u64, far_el2: u64, hpfar_el2: u64) -> Entry {
        let frame = self.vcpus[cpu].frame.clone();
        self.cpus[cpu].take_calls();
        assert_eq!(self.exit(cpu, esr_el2, far_el2, hpfar_el2), Next::Resume);
        let calls = self.cpus[cpu].take_calls();
        let [Call::EnterEl1(entry)] = calls[..] else { panic!("{calls:?}") };
        let now = &self.vcpus[cpu].frame;
        assert_eq!((now.pc, now.pstate), (entry.pc, entry.pstate));
        assert_eq!(now.x, frame.x, "an exception changes no general-purpose register");
        assert_eq!((entry.elr_el1, entry.spsr_el1), (frame.pc, frame.pstate));
        entry
    }

    /// Where a vCPU finds the bank of its SGIs and PPIs.
    pub fn private_frame(&self, cpu: usize) -> u64 {
        match self.vm.vgic.lock().version() {
            GicVersion::V2 => GICD,
            GicVersion::V3 => {
                let region = if cpu < 2 { GICR } else { GICR_HIGH };
                region + SGI_BASE + REDISTRIBUTOR_BYTES * u64::try_from(cpu % 2).unwrap()
            }
        }
    }

    /// Does what a guest's GIC driver does on a CPU: both groups on, `intids` in Group 1 and enabled.
    pub fn listen_to(&mut self, cpu: usize, intids: &[IntId]) {
        self.write_word(cpu, GICD, 3);
        for intid in intids {
            let frame = if intid.is_private() { self.private_frame(cpu) } else { GICD };
            let (bank, bit) = (u64::from(intid.0 / 32) * 4, 1 << (intid.0 % 32));
            let group = self.read_word(cpu, frame + 0x80 + bank);
            self.write_word(cpu, frame + 0x80 + bank, group | bit);
            self.write(cpu, frame + 0x400 + u64::from(intid.0), Width::Byte, 0xa0);
            self.write_word(cpu, frame + 0x100 + bank, bit);
        }
        self.serve_kicks();
        self.cpus[cpu].take_calls();
    }

    /// Routes an SPI to one vCPU.
    pub fn route(&mut self, spi: IntId, to: u8) {
        let version = self.vm.vgic.lock().version();
        match version {
            GicVersion::V2 => self.write(0, GICD + 0x800 + u64::from(spi.0), Width::Byte, 1 << to),
            GicVersion::V3 => {
                self.write(0, GICD + 0x6000 + u64::from(spi.0) * 8, Width::Double, u64::from(to));
            }
        }
        self.serve_kicks();
    }

    /// Acknowledges and ends an interrupt, as a handler does.
    pub fn handle(&mut self, cpu: usize) -> Option<u32> {
        let intid = self.cpus[cpu].acknowledge()?;
        self.cpus[cpu].end(intid);
        Some(intid.0)
    }
}

fn region(start: u64, size_bytes: u64) -> Region<Ipa> {
    Region::<Ipa>::new(Ipa::new(start), size_bytes).unwrap()
}

/// Feature registers of a CPU with SVE, EL2 and AArch64 at every level.
fn host_ids() -> HostIdRegisters {
    let mut words = [0; 56];
    words[24] = 1 << 32 | 0x1111; // ID_AA64PFR0_EL1
    words[32] = 1 << 8; // ID_AA64DFR0_EL1
    words[48] = 0x1122; // ID_AA64MMFR0_EL1
    HostIdRegisters::new(words)
}

fn processor(version: GicVersion, vcpus: u8) -> Processor {
    let cpu_interface = match version {
        GicVersion::V2 => CpuInterface::MemoryMapped,
        GicVersion::V3 => CpuInterface::SystemRegisters,
    };
    Processor {
        ids: IdRegisters::sanitise(&host_ids(), cpu_interface),
        cpu_interface,
        midr_el1: 0x410f_d083, // Cortex-A72
        revidr_el1: 0x11,
        aidr_el1: 0x22,
        actlr_el1: 0x33,
        vcpus,
        peripheral_base: Ipa::new(GICD),
    }
}

fn parts(version: GicVersion, vcpus: u8) -> Parts {
    let affinities: Vec<_> = (0..vcpus).map(|aff0| Affinity { aff0, ..Affinity::default() }).collect();
    let mut vgic = Vgic::new(version, &affinities, MAX_SPIS);
    vgic.back_by_hardware(VIRTUAL_TIMER, HOST_TIMER);
    vgic.back_by_hardware(PERFORMANCE_MONITORS, HOST_MONITORS);
    vgic.back_by_hardware(DEVICE_SPI, HOST_DEVICE);
    let uart = |start, intid| Uart { region: region(start, 0x1000), intid, model: Pl011::new().into() };
    let two = REDISTRIBUTOR_BYTES * 2;
    let (redistributors, deactivation) = match version {
        GicVersion::V2 => (vec![], Some(region(GICC_DIR, 0x1000))),
        GicVersion::V3 => (vec![(region(GICR, two), 0), (region(GICR_HIGH, two), two)], None),
    };
    let start = Start { entry: Ipa::new(ENTRY), context: 0 };
    Parts {
        id: VmId(7),
        name: "test".into(),
        processor: processor(version, vcpus),
        layout: Layout {
            distributor: region(GICD, 0x1_0000),
            redistributors,
            deactivation,
            ram: vec![region(RAM, 0x1000_0000)],
            virtual_timer: VIRTUAL_TIMER,
            physical_timer: PHYSICAL_TIMER,
            performance_monitors: Some(PERFORMANCE_MONITORS),
            devices: vec![(HOST_DEVICE, DEVICE_SPI)],
        },
        vgic,
        uarts: vec![uart(UART, UART_SPI), uart(SECOND_UART, SECOND_UART_SPI)],
        power: Power::new(affinities, VcpuId(0), start).unwrap(),
        vcpus: usize::from(vcpus),
    }
}

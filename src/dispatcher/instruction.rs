//! Loads and stores that trapped and that the syndrome does not describe: the instruction is read and interpreted.
//!
//! Not here: its meaning (`load_store`), and the devices (`mmio`). In AArch32 nothing is interpreted.
//! Follows Arm ARM DDI 0487K.a, ESR_EL2 (ISS.ISV) and C5.4 (address translation instructions).

use instructions::{Cpu, Exclusive, Fault, Place, Reason, Registers, Vectors, decode, execute};

use crate::addr::{GuestVa, PAGE_BYTES};
use crate::ids::Gpr;
use crate::interpreter::device::Width;
use crate::interpreter::inject::{DataFault, Exception, external_on_walk};
use crate::interpreter::load_store::is_big_endian;
use crate::interpreter::translation::{self, Attempt, Stages};
use crate::machine::Machine;
use crate::vcpu::Vcpu;
use crate::vm::Vm;

use super::cause::Abort;
use super::{Next, mmio};

/// SCTLR_EL1.M: without it all data accesses are to Device memory.
const SCTLR_M: u64 = 1;
/// The instruction is fetched with the permissions that every page has from which EL1 or EL0 executes.
const FETCH: Attempt = Attempt { write: false, el0: false, pan: false };

/// Executes the load or store that aborted; `None` if it is not one that this knows.
#[cold]
#[inline(never)]
pub fn interpret(abort: &Abort, vcpu: &mut Vcpu, vm: &Vm, machine: &mut impl Machine) -> Option<Next> {
    if vcpu.frame.is_aarch32() {
        return None;
    }
    let far = abort.gva?.get();
    let pc = vcpu.frame.pc;
    let mut guest = Guest { vcpu, vm, machine };
    let Some(word) = guest.fetch(pc) else {
        return Some(Next::Resume); // another CPU has unmapped it: that is for the next fetch to find
    };
    let instruction = decode(word)?;
    if !matches!(instruction.registers, Registers::General { .. })
        && is_floating_point_off(guest.vcpu, guest.machine)
    {
        return Some(Next::Resume); // another CPU has written this word since: it traps by itself
    }
    Some(match execute(&instruction, far, &mut guest) {
        // What is left of a memory copy or set, nothing maybe, is for the CPU to find.
        Ok(()) if instruction.kind.is_bulk() => Next::Resume,
        Ok(()) => Next::Step,
        Err(Fault { address, reason, write }) => {
            let fault = match reason {
                Reason::External => DataFault::External,
                Reason::Stage1(status) => DataFault::Stage1(status),
            };
            let far = Some(GuestVa::new(address));
            Next::Inject(Exception::DataAbort { fault, write, cache_maintenance: false, far })
        }
    })
}

/// Tells whether the address that aborted is Device memory by the guest's own tables.
#[inline(never)]
pub fn is_device_memory(gva: Option<GuestVa>, machine: &mut impl Machine) -> bool {
    let has_stage1 = machine.sctlr_el1() & SCTLR_M != 0;
    !has_stage1 || gva.is_some_and(|gva| translation::is_device(machine.translate(gva, Stages::First, FETCH)))
}

/// Tells whether CPACR_EL1.FPEN keeps the vCPU from its SIMD&FP registers, which may be those of another process.
fn is_floating_point_off(vcpu: &Vcpu, machine: &impl Machine) -> bool {
    match machine.cpacr_el1() >> 20 & 0b11 {
        0b11 => false,
        0b01 => vcpu.frame.is_el0(),
        _ => true,
    }
}

/// The vCPU that executes, with its memory and devices.
struct Guest<'a, M> {
    vcpu: &'a mut Vcpu,
    vm: &'a Vm,
    machine: &'a mut M,
}

impl<M: Machine> Guest<'_, M> {
    fn find(&mut self, address: u64, attempt: Attempt) -> Result<Place, Reason> {
        let address = GuestVa::new(address);
        let first = self.machine.translate(address, Stages::First, attempt);
        let both = self.machine.translate(address, Stages::Both, attempt);
        translation::page(first, both).map_err(|reason| match reason {
            Reason::External => mmio::level_refused(address, None, self.vm, self.machine)
                .map_or(reason, |level| Reason::Stage1(external_on_walk(level))),
            Reason::Stage1(_) => reason,
        })
    }

    /// Reads the instruction at `pc`; instructions are little-endian.
    fn fetch(&mut self, pc: u64) -> Option<u32> {
        let page = self.find(pc, FETCH).ok()?;
        let Place::Ram(at) = page.plus(pc & (PAGE_BYTES - 4)) else { return None };
        let word = self.machine.access_ram(self.vm.id, at, Width::Word, None)?;
        u32::try_from(word).ok()
    }
}

impl<M: Machine> Cpu for Guest<'_, M> {
    fn get(&self, register: Gpr) -> u64 {
        self.vcpu.frame.get(register)
    }

    fn set(&mut self, register: Gpr, value: u64) {
        self.vcpu.frame.set(register, value);
    }

    fn nzcv(&self) -> u8 {
        self.vcpu.frame.nzcv()
    }

    fn pc(&self) -> u64 {
        self.vcpu.frame.pc
    }

    fn stack_pointer(&self) -> u64 {
        self.machine.stack_pointer(self.vcpu.frame.uses_sp_el1())
    }

    fn set_stack_pointer(&mut self, value: u64) {
        self.machine.set_stack_pointer(self.vcpu.frame.uses_sp_el1(), value);
    }

    fn vectors(&self) -> Vectors {
        self.machine.vectors()
    }

    fn set_vectors(&mut self, vectors: &Vectors) {
        self.machine.set_vectors(vectors);
    }

    fn monitor(&mut self) -> &mut Option<Exclusive> {
        &mut self.vcpu.monitor
    }

    fn is_big_endian(&self) -> bool {
        is_big_endian(self.vcpu.frame.pstate, self.machine.sctlr_el1())
    }

    fn zero_block_bytes(&self) -> u64 {
        self.machine.zero_block_bytes()
    }

    fn translate(&mut self, address: u64, write: bool, unprivileged: bool) -> Result<Place, Reason> {
        let attempt = self.vcpu.frame.attempt(write, unprivileged);
        self.find(address, attempt)
    }

    fn access(&mut self, at: Place, bytes: u8, write: Option<u64>) -> Option<u64> {
        let width = match bytes {
            1 => Width::Byte,
            2 => Width::Half,
            4 => Width::Word,
            _ => Width::Double,
        };
        match at {
            Place::Ram(at) => self.machine.access_ram(self.vm.id, at, width, write),
            Place::Elsewhere(at) => {
                mmio::device_at_length(at, width, write, self.vcpu, self.vm, self.machine)
            }
        }
    }
}

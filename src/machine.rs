//! The only door to hardware: what the monitor asks of the physical CPU that it runs on.
//!
//! Not here: an implementation. The real one is in `arch/`, a scripted one in the dispatcher's tests.

use crate::addr::{GuestVa, Ipa, Pa};
use crate::dispatcher::traps::Grants;
use crate::ids::{IntId, Ticks, VcpuId, VmId};
use crate::interpreter::device::Width;
use crate::interpreter::device::vgic::{ListRegisters, State};
use crate::interpreter::inject::{El1, Entry, Features};
use crate::interpreter::translation::{Attempt, Stages};
use crate::interpreter::walk::Stage1;
use crate::interpreter::watchpoint::Watchpoints;
use crate::vcpu::Vcpu;
use crate::vm::Post;
use instructions::Vectors;

/// The physical CPU under the running vCPU.
pub trait Machine {
    /// Reads the system counter.
    fn now(&self) -> Ticks;

    /// Reads what decides how the guest takes an exception to EL1 from `pc` with `pstate`.
    fn el1(&self, pc: u64, pstate: u64) -> El1;

    /// Reads CPACR_EL1.
    fn cpacr_el1(&self) -> u64;

    /// Reads SCTLR_EL1.
    fn sctlr_el1(&self) -> u64;

    /// Returns the optional features of the CPU that exception entry depends on.
    fn features(&self) -> &Features;

    /// Writes the EL1 registers that an exception sets: ESR_EL1, ELR_EL1, SPSR_EL1 and, when given, FAR_EL1.
    fn enter_el1(&mut self, entry: &Entry);

    /// Makes a virtual SError pending for the guest (HCR_EL2.VSE).
    fn raise_virtual_serror(&mut self);

    /// Reads back in which state the list registers were left; nothing else of them changes in the guest's hands.
    fn save_lists(&mut self, lists: &mut ListRegisters);

    /// Reads back in which state the first list register was left.
    fn save_first(&self, lists: &mut ListRegisters);

    /// Writes the first list register.
    fn load_first(&mut self, lists: &ListRegisters);

    /// Writes the list registers.
    fn load_lists(&mut self, lists: &ListRegisters);

    /// Lets a physical interrupt that stands behind one of the guest's through, or stops it: as the guest does with its
    /// own.
    fn let_through(&mut self, physical: IntId, on: bool);

    /// Returns the state of a private physical interrupt: pending as its line is, active until somebody deactivates it.
    fn physical_state(&self, physical: IntId) -> State;

    /// Tells whether the guest's CPU interface leaves deactivation to DIR (EOImode is 1).
    fn splits_deactivation(&self) -> bool;

    /// Makes a physical interrupt inactive that the guest will not deactivate any more.
    fn deactivate(&mut self, intid: IntId);

    /// Makes a vCPU look at its post: kicks the CPU that runs it, or wakes it. One that rests will look by itself.
    fn summon(&mut self, post: &Post);

    /// Lets a vCPU begin that PSCI turned on.
    fn turn_on(&mut self, vm: VmId, vcpu: VcpuId);

    /// Loads the vCPU's SIMD&FP registers, which no longer trap.
    fn give_floating_point(&mut self, vcpu: &mut Vcpu);

    /// Makes the hypervisor's timer of this CPU fire at `deadline`, or never.
    fn set_deadline(&mut self, deadline: Option<Ticks>);

    /// Sends a VM's character to the console.
    fn transmit(&mut self, vm: VmId, byte: u8);

    /// Takes a character that the console received, if it is for this VM.
    fn receive(&mut self, vm: VmId) -> Option<u8>;

    /// Lets the console interrupt when it has received something, or not.
    fn listen(&mut self, on: bool);

    /// Cleans and invalidates one set and way, as DC CISW with this operand does.
    fn clean_invalidate_set_way(&mut self, operand: u64);

    /// Drops every TLB entry of the guest on this CPU: it found two for one address.
    fn invalidate_guest_tlb(&mut self);

    /// Gives the vCPU registers on its first use of them, as a reset leaves them. `all` is what it has now, `new` among
    /// it: none of that traps any more.
    fn grant(&mut self, all: Grants, new: Grants);

    /// Reads MDSCR_EL1.
    fn mdscr_el1(&self) -> u64;

    /// Reads the guest's watchpoints; it has been granted the debug registers.
    fn watchpoints(&self) -> Watchpoints;

    /// Stops what goes on by itself in a CPU that is on: the virtual timer and the performance monitors.
    fn power_down(&mut self);

    /// Translates a guest's address as an access of that kind would be; returns PAR_EL1 after the AT instruction.
    fn translate(&mut self, address: GuestVa, stages: Stages, attempt: Attempt) -> u64;

    /// Reads the registers that decide where the guest's walks lead.
    fn stage1(&self) -> Stage1;

    /// Returns where stage 2 of the guest has `ipa`; `None` where it maps nothing.
    fn stage2(&self, ipa: Ipa) -> Option<Pa>;

    /// Reads or writes `width` bytes at an aligned address; `None` if the VM does not own the frame. The value means
    /// nothing for a write.
    fn access_ram(&mut self, owner: VmId, at: Pa, width: Width, write: Option<u64>) -> Option<u64>;

    /// Reads the guest's SP_EL1, or SP_EL0.
    fn stack_pointer(&self, el1: bool) -> u64;

    /// Writes the guest's SP_EL1, or SP_EL0.
    fn set_stack_pointer(&mut self, el1: bool, value: u64);

    /// Reads the guest's SIMD&FP registers.
    fn vectors(&self) -> Vectors;

    /// Writes the guest's SIMD&FP registers.
    fn set_vectors(&mut self, vectors: &Vectors);

    /// Returns the size of what DC ZVA clears (DCZID_EL0.BS).
    fn zero_block_bytes(&self) -> u64;
}

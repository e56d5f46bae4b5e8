//! The world switch: a vCPU's registers between the CPU and memory.
//!
//! Not here: who runs (`run`), general-purpose registers (the vectors), and which registers there are: that is the table
//! `vocabulary::registers`, of whose rows the code here is made.
//! Follows Arm ARM DDI 0487K.a, D24, and Arm IHI 0069H, 6.3 (context of a virtual CPU interface).

use core::arch::asm;

use aarch64_cpu::registers::{CNTVOFF_EL2, CPTR_EL2, HCR_EL2, Readable, VMPIDR_EL2, VTTBR_EL2, Writeable};
use trapeze::dispatcher::traps::{Features, Grants};
use trapeze::ids::{Affinity, IntId};
use trapeze::registers::{El1, Keys, Opening};
use trapeze::vcpu::{FloatingPoint, Vcpu};

use super::gic::Gic;
use super::guest::{self, HCR_VSE, MPIDR_RES1};
use super::monitor::Controls;
use super::sysreg::{isb, read_sysreg, write_sysreg};
use super::{access, granted};

/// CPTR_EL2.TFP.
const CPTR_TFP: u64 = 1 << 10;
/// HCR_EL2.TWI and TWE.
const HCR_TRAP_WAITING: u64 = 0b11 << 13;

/// Makes code of rows of the table.
macro_rules! save_and_load {
    ($name:ident, $what:literal: $($field:ident $register:literal $op0:literal $op1:literal $crn:literal $crm:literal $op2:literal;)*) => {
        impl $crate::arch::world::Registers for $name {
            #[inline(always)]
            fn save(&mut self) {
                $(self.$field = read_sysreg!(concat!("S", $op0, "_", $op1, "_C", $crn, "_C", $crm, "_", $op2));)*
            }

            #[inline(always)]
            fn load(&self) {
                $(write_sysreg!(concat!("S", $op0, "_", $op1, "_C", $crn, "_C", $crm, "_", $op2), self.$field);)*
            }
        }
    };
}

pub(super) use save_and_load;

/// Rows of the table, as code.
pub trait Registers {
    /// Reads them all from the CPU.
    fn save(&mut self);
    /// Writes them all to the CPU.
    fn load(&self);
}

vocabulary::el1_registers!(save_and_load);
vocabulary::key_registers!(save_and_load);

/// What a vCPU brings along from its VM.
#[derive(Clone, Copy)]
pub struct Control {
    /// VTTBR_EL2.
    pub vttbr_el2: u64,
    /// CNTVOFF_EL2.
    pub counter_offset: u64,
    /// Its place in the VM's machine.
    pub affinity: Affinity,
}

/// What the last vCPU left in the CPU, so that only changes are written.
pub struct Left {
    /// Private physical interrupts that are let through.
    pub heard: u32,
    /// What it was granted.
    pub granted: Grants,
}

impl Left {
    /// What is left when EL2 has taken the CPU over.
    pub const fn new() -> Self {
        Self { heard: 0, granted: Grants::NONE }
    }
}

/// Takes a vCPU's registers out of the CPU, which is nobody's then: nothing of EL1 translates, counts or interrupts.
pub fn leave(controls: &Controls, gic: &Gic, left: &mut Left, vcpu: &mut Vcpu) {
    let world = &mut vcpu.world;
    world.el1.save();
    world.opening = Opening {
        sctlr_el1: read_sysreg!("sctlr_el1"),
        tcr_el1: read_sysreg!("tcr_el1"),
        cntv_ctl_el0: read_sysreg!("cntv_ctl_el0"),
    };
    write_sysreg!("cntv_ctl_el0", 0);
    guest::close_el1();
    if controls.traps.has(Features::PAUTH) {
        world.keys.save();
    }
    if controls.traps.has(Features::RAS) {
        world.disr_el1 = read_sysreg!("S3_4_C12_C1_1"); // VDISR_EL2
    }
    world.has_serror = HCR_EL2.get() & HCR_VSE != 0;
    if vcpu.has_floating_point {
        save_floating_point(&mut world.floating_point);
        vcpu.has_floating_point = false;
    }
    if vcpu.granted != Grants::NONE {
        granted::leave(vcpu.granted, world);
    }
    gic.leave(&mut vcpu.lists, &mut vcpu.world.interface);
    *left = Left { heard: vcpu.heard, granted: vcpu.granted };
}

/// Puts a vCPU's registers into the CPU, which is nobody's. The next ERET runs it.
pub fn enter(controls: &Controls, gic: &Gic, left: &Left, vcpu: &Vcpu, control: &Control) {
    let Control { vttbr_el2, counter_offset, affinity } = *control;
    let world = &vcpu.world;
    VTTBR_EL2.set(vttbr_el2);
    CNTVOFF_EL2.set(counter_offset);
    VMPIDR_EL2.set(affinity.to_mpidr() | MPIDR_RES1);
    let serror = if world.has_serror { HCR_VSE } else { 0 };
    HCR_EL2.set(controls.hcr_el2 | HCR_TRAP_WAITING | serror);
    CPTR_EL2.set(controls.cptr_el2 | CPTR_TFP);
    if controls.traps.has(Features::RAS) {
        write_sysreg!("S3_4_C12_C1_1", world.disr_el1); // VDISR_EL2
    }
    if vcpu.granted != left.granted {
        granted::open(controls.traps, vcpu.granted);
    }
    if vcpu.granted != Grants::NONE {
        granted::enter(vcpu.granted, world);
    }
    if controls.traps.has(Features::PAUTH) {
        world.keys.load();
    }
    world.el1.load();
    let Opening { sctlr_el1, tcr_el1, cntv_ctl_el0 } = world.opening;
    isb(); // from here on all but these two are the vCPU's: EL1 opens, in the reverse order of `close_el1`
    write_sysreg!("sctlr_el1", sctlr_el1);
    isb();
    write_sysreg!("tcr_el1", tcr_el1);
    if vcpu.heard != left.heard {
        listen(gic, vcpu.heard, left.heard);
    }
    gic.enter(&vcpu.lists, &world.interface);
    // After its physical interrupt is active again, where the guest is still at it.
    write_sysreg!("cntv_ctl_el0", cntv_ctl_el0);
    // No barrier: the ERET that follows is a context synchronization event.
}

/// Sets whether WFI and WFE of the vCPU in this CPU trap, as they do when it enters.
pub fn trap_waiting(controls: &Controls, on: bool) {
    let waiting = if on { HCR_TRAP_WAITING } else { 0 };
    HCR_EL2.set(controls.hcr_el2 | waiting | HCR_EL2.get() & HCR_VSE);
}

/// Lets private interrupts through as the vCPU has them.
#[cold]
#[inline(never)]
fn listen(gic: &Gic, wanted: u32, before: u32) {
    for number in (16..32).filter(|number| (wanted ^ before) >> number & 1 != 0) {
        gic.set_enabled(IntId(number), wanted >> number & 1 != 0);
    }
}

/// Gives a vCPU that was caught at its first use of them since it entered its SIMD&FP registers.
pub fn give_floating_point(controls: &Controls, vcpu: &mut Vcpu) {
    CPTR_EL2.set(controls.cptr_el2);
    isb(); // CPTR_EL2.TFP traps EL2 as well
    let FloatingPoint { vectors, fpcr, fpsr } = &vcpu.world.floating_point;
    access::set_vectors(vectors);
    write_sysreg!("S3_3_C4_C4_0", *fpcr);
    write_sysreg!("S3_3_C4_C4_1", *fpsr);
    vcpu.has_floating_point = true;
}

fn save_floating_point(to: &mut FloatingPoint) {
    access::save_vectors(&mut to.vectors);
    to.fpcr = read_sysreg!("S3_3_C4_C4_0");
    to.fpsr = read_sysreg!("S3_3_C4_C4_1");
}

/// Makes sure that the TLB of this CPU has nothing of another vCPU of the same VM: an address space of one is not that of
/// the other, though they have one VMID (Arm ARM DDI 0487K.a, D8.16).
#[cold]
#[inline(never)]
pub fn forget_siblings() {
    isb(); // VTTBR_EL2 says whose entries
    // SAFETY: dropping TLB entries and instructions costs time only. This CPU alone.
    unsafe { asm!("tlbi vmalle1", "ic iallu", "dsb nsh", "isb", options(nostack)) }
}

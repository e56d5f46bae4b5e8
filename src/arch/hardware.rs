//! The real side of the library's door to hardware.
//!
//! Not here: decisions. Each method moves a value to where the CPU or a device wants it.

use core::arch::asm;

use aarch64_cpu::registers::{HCR_EL2, Readable, Writeable};
use instructions::Vectors;
use trapeze::addr::{GuestVa, Ipa, Pa};
use trapeze::dispatcher::traps::Grants;
use trapeze::ids::{IntId, Ticks, VcpuId, VmId};
use trapeze::interpreter::cache::CacheGeometry;
use trapeze::interpreter::device::Width;
use trapeze::interpreter::device::vgic::{ListRegisters, State};
use trapeze::interpreter::inject::{El1, Entry, Features};
use trapeze::interpreter::translation::{Attempt, Stages};
use trapeze::interpreter::walk::Stage1;
use trapeze::interpreter::watchpoint::Watchpoints;
use trapeze::machine::Machine;
use trapeze::vcpu::Vcpu;
use trapeze::vm::Post;

use super::gic::Gic;
use super::guest::HCR_VSE;
use super::monitor::Monitor;
use super::sysreg::{isb, read_sysreg, write_sysreg};
use super::timer::Deadlines;
use super::{access, console, granted, guest, lifecycle, tenant, timer, world};

/// The CPU that runs this, as the monitor sees it.
pub struct Hardware<'a> {
    /// Its interrupt controller.
    pub gic: &'a Gic,
    /// Its timer of EL2.
    pub timer: &'a Deadlines,
    /// What all CPUs share.
    pub monitor: &'static Monitor,
}

impl Machine for Hardware<'_> {
    fn now(&self) -> Ticks {
        timer::now()
    }

    fn el1(&self, pc: u64, pstate: u64) -> El1 {
        // No VM is shown FEAT_GCS, so it cannot set GCSCR_EL1.EXLOCKEN.
        El1 { pc, pstate, sctlr_el1: self.sctlr_el1(), vbar_el1: read_sysreg!("vbar_el1"), exlocken: false }
    }

    fn cpacr_el1(&self) -> u64 {
        read_sysreg!("cpacr_el1")
    }

    fn sctlr_el1(&self) -> u64 {
        read_sysreg!("sctlr_el1")
    }

    fn features(&self) -> &Features {
        &self.monitor.controls.el1_features
    }

    fn enter_el1(&mut self, entry: &Entry) {
        write_sysreg!("elr_el1", entry.elr_el1);
        write_sysreg!("spsr_el1", entry.spsr_el1);
        write_sysreg!("esr_el1", entry.esr_el1);
        if let Some(far_el1) = entry.far_el1 {
            write_sysreg!("far_el1", far_el1);
        }
        // No barrier: the ERET that follows is a context synchronization event.
    }

    fn save_lists(&mut self, lists: &mut ListRegisters) {
        self.gic.save(lists);
    }

    fn save_first(&self, lists: &mut ListRegisters) {
        let [first, ..] = &mut lists.entries;
        first.state = self.gic.first_state();
    }

    fn load_first(&mut self, lists: &ListRegisters) {
        let [first, ..] = &lists.entries;
        self.gic.load_first(first);
    }

    fn load_lists(&mut self, lists: &ListRegisters) {
        self.gic.load(lists);
    }

    fn let_through(&mut self, physical: IntId, on: bool) {
        self.gic.set_enabled(physical, on);
    }

    fn physical_state(&self, physical: IntId) -> State {
        self.gic.private_state(physical)
    }

    fn mdscr_el1(&self) -> u64 {
        read_sysreg!("mdscr_el1")
    }

    fn watchpoints(&self) -> Watchpoints {
        granted::watchpoints()
    }

    fn splits_deactivation(&self) -> bool {
        self.gic.splits_deactivation()
    }

    fn raise_virtual_serror(&mut self) {
        HCR_EL2.set(HCR_EL2.get() | HCR_VSE); // the CPU clears it when the guest takes the SError
    }

    fn invalidate_guest_tlb(&mut self) {
        guest::invalidate_tlb();
    }

    fn deactivate(&mut self, intid: IntId) {
        self.gic.deactivate(intid);
    }

    fn summon(&mut self, post: &Post) {
        self.monitor.cpus.summon(self.gic, post);
    }

    fn turn_on(&mut self, vm: VmId, vcpu: VcpuId) {
        lifecycle::turn_on(self.monitor, self.gic, vm, vcpu);
    }

    fn give_floating_point(&mut self, vcpu: &mut Vcpu) {
        world::give_floating_point(&self.monitor.controls, vcpu);
    }

    fn set_deadline(&mut self, deadline: Option<Ticks>) {
        self.timer.set_guest(deadline);
    }

    fn transmit(&mut self, vm: VmId, byte: u8) {
        if console::put_of(vm, byte) && !self.timer.has_lines() {
            self.timer.keep_lines(true);
        }
    }

    fn receive(&mut self, vm: VmId) -> Option<u8> {
        console::get_for(vm)
    }

    fn listen(&mut self, on: bool) {
        if console::listen(on) && !self.timer.has_lines() {
            self.timer.keep_lines(true);
        }
    }

    fn clean_invalidate_set_way(&mut self, operand: u64) {
        if !set_way_exists(operand) {
            return; // CONSTRAINED UNPREDICTABLE, and may be UNDEFINED: at EL2 that would be our end
        }
        // SAFETY: DC CISW writes back before it drops: whatever set, way and level the guest names, no data is
        // lost, on this CPU or any other (Arm ARM DDI 0487K.a, C5.3).
        unsafe { asm!("dc cisw, {operand}", "dsb sy", operand = in(reg) operand, options(nostack)) }
    }

    fn grant(&mut self, all: Grants, new: Grants) {
        if new.has(Grants::DEBUG) {
            granted::reset_debug(self.monitor.controls.os_lock_at_boot);
        }
        if new.has(Grants::PMU) {
            granted::reset_monitors();
        }
        granted::open(self.monitor.controls.traps, all);
    }

    fn power_down(&mut self) {
        guest::stop_what_runs_by_itself(self.monitor.controls.traps);
        guest::close_el1(); // the VM's other vCPUs may make other use of its tables
    }

    fn translate(&mut self, address: GuestVa, stages: Stages, attempt: Attempt) -> u64 {
        access::translate(address, stages, attempt)
    }

    fn stage1(&self) -> Stage1 {
        Stage1 {
            tcr_el1: read_sysreg!("tcr_el1"),
            ttbr_el1: [read_sysreg!("ttbr0_el1"), read_sysreg!("ttbr1_el1")],
            sctlr_el1: self.sctlr_el1(),
        }
    }

    fn stage2(&self, ipa: Ipa) -> Option<Pa> {
        tenant::stage2(self.monitor, ipa)
    }

    fn access_ram(&mut self, owner: VmId, at: Pa, width: Width, write: Option<u64>) -> Option<u64> {
        access::ram(&self.monitor.frames, owner, at, width, write)
    }

    fn stack_pointer(&self, el1: bool) -> u64 {
        if el1 { read_sysreg!("sp_el1") } else { read_sysreg!("sp_el0") }
    }

    fn set_stack_pointer(&mut self, el1: bool, value: u64) {
        if el1 { write_sysreg!("sp_el1", value) } else { write_sysreg!("sp_el0", value) }
    }

    fn vectors(&self) -> Vectors {
        access::vectors()
    }

    fn set_vectors(&mut self, vectors: &Vectors) {
        access::set_vectors(vectors);
    }

    fn zero_block_bytes(&self) -> u64 {
        4 << (read_sysreg!("dczid_el0") & 0xf)
    }
}

/// Reads the syndrome of the exit that just happened: ESR_EL2, FAR_EL2, HPFAR_EL2.
pub fn syndrome() -> [u64; 3] {
    [read_sysreg!("esr_el2"), read_sysreg!("far_el2"), read_sysreg!("hpfar_el2")]
}

/// Tells whether this CPU has the set and way of a cache that the operand of a DC instruction names.
fn set_way_exists(operand: u64) -> bool {
    let level = operand >> 1 & 0b111;
    let selected = read_sysreg!("csselr_el1");
    write_sysreg!("csselr_el1", level << 1); // the data or unified cache of that level
    isb(); // CCSIDR_EL1 follows
    let geometry = CacheGeometry {
        clidr_el1: read_sysreg!("clidr_el1"),
        ccsidr_el1: read_sysreg!("ccsidr_el1"),
        has_ccidx: read_sysreg!("S3_0_C0_C7_2") >> 20 & 0xf != 0, // ID_AA64MMFR2_EL1.CCIDX
    };
    write_sysreg!("csselr_el1", selected);
    geometry.has(operand)
}

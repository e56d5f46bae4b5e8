//! One CPU between guests: EL2's control registers for them, EL1 closed, TLB maintenance.
//!
//! Not here: which bits trap what (the table in `dispatcher::traps`), and what a vCPU brings along (`world`).
//! Follows Arm ARM DDI 0487K.a, D24, and D1.5.4 for the state of EL1 after a warm reset.

use core::arch::asm;

use aarch64_cpu::registers::{CNTHCTL_EL2, HCR_EL2, VTCR_EL2, VTTBR_EL2, Writeable};
use trapeze::dispatcher::traps::{self, Features, Grants};

use super::granted;
use super::monitor::Controls;
use super::sysreg::{isb, read_sysreg, write_sysreg};

/// SCTLR_EL1 bits that are RES1 where their feature is missing: LSMAOE, nTLSMD, SPAN, EIS, TSCXT, EOS.
const SCTLR_EL1_RES1: u64 = 1 << 29 | 1 << 28 | 1 << 23 | 1 << 22 | 1 << 20 | 1 << 11;
/// SCTLR_EL1 bits that a reset clears: M, C, I, E0E, EE (Arm ARM DDI 0487K.a, D24.2.130).
const SCTLR_EL1_RESET_0: u64 = 1 | 1 << 2 | 1 << 12 | 1 << 24 | 1 << 25;
/// SCTLR_EL1.M.
const SCTLR_EL1_M: u64 = 1;
/// TCR_EL1 by which no walk starts: EPD0 and EPD1. T0SZ, T1SZ and TG1 have values that every CPU has: 16, 16 and 4 KiB.
const TCR_EL1_NO_WALKS: u64 = 1 << 7 | 1 << 23 | 16 | 16 << 16 | 0b10 << 30;
/// VMPIDR_EL2 bit 31, RES1.
pub const MPIDR_RES1: u64 = 1 << 31;
/// HCR_EL2.VSE.
pub const HCR_VSE: u64 = 1 << 8;

/// Returns what SCTLR_EL1 of a vCPU is after a reset, where it was `at_boot` when the image started.
pub const fn sctlr_el1_at_reset(at_boot: u64) -> u64 {
    at_boot & !SCTLR_EL1_RESET_0 | SCTLR_EL1_RES1
}

/// Sets EL2 of this CPU up for guests: what is the same for all of them.
pub fn take_control(controls: &Controls) {
    VTCR_EL2.set(controls.vtcr_el2);
    granted::open(controls.traps, Grants::NONE);
    CNTHCTL_EL2.set(controls.cnthctl_el2);
    write_sysreg!("hstr_el2", controls.hstr_el2);
    take_fine_control(controls.traps);
    write_sysreg!("vpidr_el2", read_sysreg!("midr_el1"));
    if controls.traps.has(Features::RAS) {
        write_sysreg!("S3_4_C5_C2_3", 0); // VSESR_EL2: syndrome of a virtual SError
    }
    HCR_EL2.set(controls.hcr_el2);
    // What no vCPU has in its world: the physical timer is EL2's, and debug registers are granted.
    write_sysreg!("cntp_ctl_el0", 0);
    write_sysreg!("cntp_cval_el0", 0);
    write_sysreg!("mdscr_el1", 0);
    write_sysreg!("mdccint_el1", 0);
    isb(); // all of it is in force before anything of a guest's is
}

/// Writes the control registers of extensions, each where its extension is.
fn take_fine_control(features: Features) {
    if features.has(Features::HCX) {
        write_sysreg!("S3_4_C1_C2_2", traps::hcrx_el2(features));
    }
    if features.has(Features::FGT) {
        write_sysreg!("S3_4_C1_C1_4", traps::hfgrtr_el2(features));
        write_sysreg!("S3_4_C1_C1_5", traps::hfgwtr_el2(features));
        write_sysreg!("S3_4_C1_C1_6", traps::hfgitr_el2(features));
        write_sysreg!("S3_4_C3_C1_4", traps::hdfgrtr_el2(features));
        write_sysreg!("S3_4_C3_C1_5", traps::hdfgwtr_el2(features));
        if features.has(Features::AMU) {
            write_sysreg!("S3_4_C3_C1_6", traps::hafgrtr_el2(features));
        }
    }
    if features.has(Features::FGT2) {
        let word = traps::fgt2_el2(features);
        write_sysreg!("S3_4_C3_C1_2", word); // HFGRTR2_EL2
        write_sysreg!("S3_4_C3_C1_3", word); // HFGWTR2_EL2
        write_sysreg!("S3_4_C3_C1_7", word); // HFGITR2_EL2
        write_sysreg!("S3_4_C3_C1_0", word); // HDFGRTR2_EL2
        write_sysreg!("S3_4_C3_C1_1", word); // HDFGWTR2_EL2
    }
    if features.has(Features::MPAM) {
        write_sysreg!("S3_4_C10_C5_0", traps::mpam2_el2(features));
    }
}

/// Gives this CPU, whose EL1 is closed, stage 2 of nobody.
pub fn vacate() {
    VTTBR_EL2.set(0);
    isb();
}

/// Lets no walk of EL1's stage 1 start on this CPU, until a vCPU enters.
///
/// A CPU may execute AT speculatively, at EL2 as well, with whatever the registers of EL1 and VTTBR_EL2 hold at that moment,
/// and keep the result in its TLB under that VMID (Cortex-A72 erratum 1319367, Cortex-A57 1319537). While they change
/// hands they belong to nobody. With the MMU on and walks disabled an AT gets a fault; with it off it would go to stage 2.
pub fn close_el1() {
    write_sysreg!("tcr_el1", TCR_EL1_NO_WALKS);
    isb(); // walks are disabled before the MMU is on
    write_sysreg!("sctlr_el1", SCTLR_EL1_RES1 | SCTLR_EL1_M);
    isb();
}

/// Stops the virtual timer and the performance monitors, and lowers their interrupts.
pub fn stop_what_runs_by_itself(features: Features) {
    write_sysreg!("cntv_ctl_el0", 0);
    if features.has(Features::PMU) {
        granted::stop_monitors();
    }
    isb();
}

/// Drops every TLB entry of the VM under VTTBR_EL2, both stages, on all CPUs.
pub fn invalidate_tlb() {
    // SAFETY: dropping TLB entries costs time only. DSB before: table writes are done; after: so is this
    // (Arm ARM DDI 0487K.a, D8.16.4).
    unsafe { asm!("dsb ishst", "tlbi vmalls12e1is", "dsb ish", "isb", options(nostack)) }
}

/// Drops every TLB entry of every VM, both stages, on all CPUs: VMIDs begin anew.
pub fn invalidate_all_tlbs() {
    // SAFETY: as above.
    unsafe { asm!("dsb ishst", "tlbi alle1is", "dsb ish", "isb", options(nostack)) }
}

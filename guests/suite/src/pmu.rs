//! The performance monitors: the cycle counter, an event that software makes, overflow, filters, access from EL0.
//!
//! Not here: how many cycles or events there are; that is the CPU's affair.
//! Follows Arm ARM DDI 0487K.a, D13.

use crate::harness::{End, Outcome, Test, check, check_eq, fragment, tests};
use crate::interrupts::{self, PMU_INTID};
use trapeze_kit::gic::Gic;
use trapeze_kit::mmu::USER;
use trapeze_kit::{el0, ins, mrs, msr, timer};

pub const TESTS: &[Test] = tests![
    control_register,
    cycle_counter_counts,
    cycle_counter_stops,
    cycle_counter_is_reset,
    cycle_counter_reads_back,
    software_increments,
    event_counters_are_as_many_as_said,
    overflow_sets_its_flag,
    overflow_interrupts,
    filters_leave_el1_out,
    enable_bits_read_back,
    el0_access_is_controlled,
    counters_go_on_across_exits,
];

/// PMCR_EL0: E, P, C, LC.
const E: u64 = 1;
const P: u64 = 1 << 1;
const C: u64 = 1 << 2;
const LC: u64 = 1 << 6;
/// The cycle counter's bit.
const CYCLES: u64 = 1 << 31;
/// Event 0: an instruction that writes PMSWINC_EL0.
const SW_INCR: u64 = 0;

/// Ends the test where ID_AA64DFR0_EL1 names no PMU; else resets all of it and turns it off.
fn begin() -> Result<u64, End> {
    let version = mrs!("ID_AA64DFR0_EL1") >> 8 & 0xf;
    if matches!(version, 0 | 0xf) {
        return Err(End::Skipped("ID_AA64DFR0_EL1: no PMUv3"));
    }
    msr!("PMCNTENCLR_EL0", 0xffff_ffff);
    msr!("PMINTENCLR_EL1", 0xffff_ffff);
    msr!("PMOVSCLR_EL0", 0xffff_ffff);
    msr!("PMCCFILTR_EL0", 0);
    msr!("PMUSERENR_EL0", 0);
    msr!("PMCR_EL0", P | C | LC);
    Ok(mrs!("PMCR_EL0") >> 11 & 0x1f)
}

/// Lets the cycle counter run.
fn run_cycles() {
    msr!("PMCNTENSET_EL0", CYCLES);
    msr!("PMCR_EL0", E | LC);
}

fn control_register() -> Outcome {
    let counters = begin()?;
    check!(counters <= 31);
    check_eq!(mrs!("PMCR_EL0") & E, 0);
    msr!("PMCR_EL0", E | LC);
    check_eq!(mrs!("PMCR_EL0") & (E | P | C), E, "P and C read as zero");
    check_eq!(mrs!("PMCR_EL0") >> 11 & 0x1f, counters, "N is read-only");
    begin().map(|_| ())
}

fn cycle_counter_counts() -> Outcome {
    begin()?;
    run_cycles();
    let before = mrs!("PMCCNTR_EL0");
    timer::spin_ms(2);
    let after = mrs!("PMCCNTR_EL0");
    check!(after > before, "{before} then {after}");
    begin().map(|_| ())
}

fn cycle_counter_stops() -> Outcome {
    begin()?;
    run_cycles();
    timer::spin_ms(1);
    msr!("PMCR_EL0", LC);
    let before = mrs!("PMCCNTR_EL0");
    timer::spin_ms(1);
    check_eq!(mrs!("PMCCNTR_EL0"), before, "PMCR_EL0.E is 0");
    msr!("PMCR_EL0", E | LC);
    msr!("PMCNTENCLR_EL0", CYCLES);
    let before = mrs!("PMCCNTR_EL0");
    timer::spin_ms(1);
    check_eq!(mrs!("PMCCNTR_EL0"), before, "PMCNTENCLR_EL0.C");
    begin().map(|_| ())
}

fn cycle_counter_is_reset() -> Outcome {
    begin()?;
    msr!("PMCCNTR_EL0", 0x1234_5678_9abc);
    msr!("PMCR_EL0", C | LC);
    check_eq!(mrs!("PMCCNTR_EL0"), 0);
    Ok(())
}

fn cycle_counter_reads_back() -> Outcome {
    begin()?;
    for value in [0, 1, 0xffff_ffff, 0x1234_5678_9abc_def0] {
        msr!("PMCCNTR_EL0", value);
        check_eq!(mrs!("PMCCNTR_EL0"), value);
    }
    Ok(())
}

fn software_increments() -> Outcome {
    let counters = begin()?;
    if counters == 0 {
        return Err(End::Skipped("PMCR_EL0: no event counters"));
    }
    msr!("PMEVTYPER0_EL0", SW_INCR);
    msr!("PMCNTENSET_EL0", 1);
    msr!("PMCR_EL0", E | LC);
    for _ in 0..37 {
        msr!("PMSWINC_EL0", 1);
    }
    check_eq!(mrs!("PMEVCNTR0_EL0"), 37);
    msr!("PMSELR_EL0", 0);
    check_eq!(mrs!("PMXEVCNTR_EL0"), 37, "by PMSELR_EL0");
    msr!("PMCNTENCLR_EL0", 1);
    msr!("PMSWINC_EL0", 1);
    check_eq!(mrs!("PMEVCNTR0_EL0"), 37, "disabled");
    msr!("PMCR_EL0", P | LC);
    check_eq!(mrs!("PMEVCNTR0_EL0"), 0);
    Ok(())
}

fn event_counters_are_as_many_as_said() -> Outcome {
    let counters = begin()?;
    msr!("PMCNTENSET_EL0", 0xffff_ffff);
    check_eq!(mrs!("PMCNTENSET_EL0"), CYCLES | ((1 << counters) - 1));
    begin()?;
    for number in 0..counters {
        msr!("PMSELR_EL0", number);
        msr!("PMXEVTYPER_EL0", SW_INCR);
        msr!("PMXEVCNTR_EL0", 100 + number);
    }
    for number in 0..counters {
        msr!("PMSELR_EL0", number);
        check_eq!(mrs!("PMXEVCNTR_EL0"), 100 + number, "counter {number}");
    }
    Ok(())
}

fn overflow_sets_its_flag() -> Outcome {
    begin()?;
    msr!("PMCCNTR_EL0", u64::MAX - 10);
    check_eq!(mrs!("PMOVSSET_EL0"), 0);
    run_cycles();
    check!(timer::within_ms(1000, || mrs!("PMOVSSET_EL0") & CYCLES != 0));
    check_eq!(mrs!("PMOVSCLR_EL0") & CYCLES, CYCLES);
    msr!("PMCR_EL0", LC);
    msr!("PMOVSCLR_EL0", CYCLES);
    check_eq!(mrs!("PMOVSSET_EL0"), 0);
    Ok(())
}

fn overflow_interrupts() -> Outcome {
    begin()?;
    interrupts::listen();
    let gic = Gic::detect();
    gic.enable(PMU_INTID);
    msr!("PMINTENSET_EL1", CYCLES);
    check_eq!(interrupts::open_for(1), 0);
    msr!("PMCCNTR_EL0", u64::MAX - 1000);
    run_cycles();
    check!(
        interrupts::open_until(2000, || interrupts::count() != 0),
        "PMOVSSET_EL0 {:#x}",
        mrs!("PMOVSSET_EL0")
    );
    check_eq!(interrupts::acknowledged(0), PMU_INTID);
    check_eq!(interrupts::open_for(1), 0, "PMINTENCLR_EL1 silenced it");
    begin().map(|_| ())
}

fn filters_leave_el1_out() -> Outcome {
    begin()?;
    msr!("PMCCFILTR_EL0", 1 << 31);
    run_cycles();
    let before = mrs!("PMCCNTR_EL0");
    timer::spin_ms(1);
    check_eq!(mrs!("PMCCNTR_EL0"), before, "PMCCFILTR_EL0.P");
    let spin = fragment!("2: subs x0, x0, #1", "b.ne 2b", "svc #0") + USER;
    el0::call(spin, 100_000, 0);
    let after = mrs!("PMCCNTR_EL0");
    check!(after > before, "EL0 counts: {before}, {after}");
    msr!("PMCCFILTR_EL0", 1 << 30);
    let before = mrs!("PMCCNTR_EL0");
    timer::spin_ms(1);
    check!(mrs!("PMCCNTR_EL0") > before, "EL1 counts again");
    begin().map(|_| ())
}

fn enable_bits_read_back() -> Outcome {
    let counters = begin()?;
    let all = CYCLES | ((1 << counters) - 1);
    msr!("PMINTENSET_EL1", all);
    check_eq!(mrs!("PMINTENSET_EL1"), all);
    check_eq!(mrs!("PMINTENCLR_EL1"), all);
    msr!("PMINTENCLR_EL1", CYCLES);
    check_eq!(mrs!("PMINTENSET_EL1"), all & !CYCLES);
    msr!("PMCNTENSET_EL0", all);
    check_eq!(mrs!("PMCNTENCLR_EL0"), all);
    begin()?;
    check_eq!(mrs!("PMINTENSET_EL1") | mrs!("PMCNTENSET_EL0"), 0);
    Ok(())
}

fn el0_access_is_controlled() -> Outcome {
    begin()?;
    run_cycles();
    let code = fragment!("mrs x0, PMCCNTR_EL0", "svc #0") + USER;
    let (denied, _) = el0::call(code, 0, 0);
    msr!("PMUSERENR_EL0", 1 << 2);
    let (allowed, frame) = el0::call(code, 0, 0);
    begin()?;
    check_eq!(denied.class(), 0x18);
    check_eq!(allowed.class(), 0x15, "PMUSERENR_EL0.CR");
    check!(frame.x[0] > 0);
    Ok(())
}

fn counters_go_on_across_exits() -> Outcome {
    let counters = begin()?;
    if counters != 0 {
        msr!("PMEVTYPER0_EL0", SW_INCR);
        msr!("PMEVCNTR0_EL0", 5);
    }
    msr!("PMCNTENSET_EL0", CYCLES | 1);
    msr!("PMCR_EL0", E | LC);
    let mut last = mrs!("PMCCNTR_EL0");
    for _ in 0..20 {
        trapeze_kit::psci::psci(0x8400_0000, 0, 0, 0);
        trapeze_kit::mmio::read32(trapeze_kit::gic::GICD + 4);
        let now = mrs!("PMCCNTR_EL0");
        check!(now >= last, "{now} after {last}");
        last = now;
    }
    if counters != 0 {
        check_eq!(mrs!("PMEVCNTR0_EL0"), 5, "an exit is no event of software's");
    }
    ins!("isb");
    begin().map(|_| ())
}

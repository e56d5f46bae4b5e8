//! Registers that a vCPU is granted on first use: debug, and the performance monitors.
//!
//! Not here: the grant (the dispatcher's), and what every vCPU has (`world`).
//! Follows Arm ARM DDI 0487K.a, D2 (self-hosted debug), D13 (performance monitors) and D24.

use aarch64_cpu::registers::{MDCR_EL2, Writeable};
use trapeze::dispatcher::traps::{self, Features, Grants};
use trapeze::interpreter::watchpoint::{MAX_WATCHPOINTS, Watchpoints};
use trapeze::registers::{Debug, Monitors};
use trapeze::vcpu::{DebugWorld, MonitorWorld, World};

use super::sysreg::{isb, read_sysreg, write_sysreg};
use super::world::{Registers, save_and_load};

vocabulary::debug_registers!(save_and_load);
vocabulary::monitor_registers!(save_and_load);

/// All counters, in the registers with a bit for each.
const ALL: u64 = u32::MAX as u64;

/// Lifts the traps of what the vCPU was given, and sets all others.
pub fn open(features: Features, granted: Grants) {
    let counters = if features.has(Features::PMU) { event_counters() } else { 0 };
    MDCR_EL2.set(traps::mdcr_el2(features, counters, granted));
    // No barrier: the ERET that follows is a context synchronization event.
}

/// Takes what a vCPU was granted out of the CPU.
#[inline(never)]
pub fn leave(granted: Grants, world: &mut World) {
    if granted.has(Grants::DEBUG) {
        save_debug(world.debug.get_or_insert_default());
    }
    if granted.has(Grants::PMU) {
        save_monitors(world.monitors.get_or_insert_default());
    }
}

/// Puts what a vCPU was granted into the CPU.
#[inline(never)]
pub fn enter(granted: Grants, world: &World) {
    if granted.has(Grants::DEBUG)
        && let Some(debug) = &world.debug
    {
        load_debug(debug);
    }
    if granted.has(Grants::PMU)
        && let Some(monitors) = &world.monitors
    {
        load_monitors(monitors);
    }
}

/// How many debug registers of each kind this CPU has (ID_AA64DFR0_EL1.BRPs and WRPs, plus 1). CPUs of one machine may
/// differ, and to name one that is not there may be UNDEFINED.
struct DebugResources {
    breakpoints: u8,
    watchpoints: u8,
}

impl DebugResources {
    fn of_this_cpu() -> Self {
        let dfr0 = read_sysreg!("id_aa64dfr0_el1");
        Self { breakpoints: (dfr0 >> 12 & 0xf) as u8 + 1, watchpoints: (dfr0 >> 20 & 0xf) as u8 + 1 }
    }
}

/// Hands every number of a pair of debug registers to `$with`: it is part of the instruction.
macro_rules! pair_numbers {
    ($with:ident $($argument:tt)*) => {
        $with!($($argument)* 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
}

type Pairs = [(u64, u64); MAX_WATCHPOINTS];

macro_rules! read_pairs {
    ($pairs:expr, $count:expr, $value:literal, $control:literal, $($number:literal)*) => {
        $(if $number < $count {
            $pairs[$number] = (
                read_sysreg!(concat!("S2_0_C0_C", $number, "_", $value)),
                read_sysreg!(concat!("S2_0_C0_C", $number, "_", $control)),
            );
        })*
    };
}

macro_rules! write_pairs {
    ($pairs:expr, $count:expr, $value:literal, $control:literal, $($number:literal)*) => {
        $(if $number < $count {
            let (value, control) = $pairs[$number];
            write_sysreg!(concat!("S2_0_C0_C", $number, "_", $value), value);
            write_sysreg!(concat!("S2_0_C0_C", $number, "_", $control), control);
        })*
    };
}

fn read_breakpoints(pairs: &mut Pairs, count: u8) {
    pair_numbers!(read_pairs pairs, count, 4, 5,);
}

fn read_watchpoints(pairs: &mut Pairs, count: u8) {
    pair_numbers!(read_pairs pairs, count, 6, 7,);
}

fn write_breakpoints(pairs: &Pairs, count: u8) {
    pair_numbers!(write_pairs pairs, count, 4, 5,);
}

fn write_watchpoints(pairs: &Pairs, count: u8) {
    pair_numbers!(write_pairs pairs, count, 6, 7,);
}

/// Gives the debug registers the state that a reset leaves, before a vCPU may use them; the OS lock as it was
/// `locked_at_boot`, since only a cold reset changes it.
pub fn reset_debug(locked_at_boot: bool) {
    load_debug(&DebugWorld { is_locked: locked_at_boot, ..DebugWorld::default() });
}

/// Tells whether the OS lock is set.
pub fn is_os_locked() -> bool {
    read_sysreg!("oslsr_el1") & 1 << 1 != 0
}

/// Reads the watchpoints that this CPU has.
pub fn watchpoints() -> Watchpoints {
    let mut pairs = Pairs::default();
    read_watchpoints(&mut pairs, DebugResources::of_this_cpu().watchpoints);
    Watchpoints { is_locked: is_os_locked(), pairs }
}

/// Saves them; none of them matches any more.
fn save_debug(debug: &mut DebugWorld) {
    debug.is_locked = is_os_locked();
    write_sysreg!("oslar_el1", 1); // some are there under the OS lock alone, and nothing matches under it
    isb();
    debug.common.save();
    debug.claim = read_sysreg!("S2_0_C7_C9_6"); // DBGCLAIMCLR_EL1
    let resources = DebugResources::of_this_cpu();
    read_breakpoints(&mut debug.breakpoints, resources.breakpoints);
    read_watchpoints(&mut debug.watchpoints, resources.watchpoints);
    write_sysreg!("mdscr_el1", 0); // neither step nor match for who has not been granted any
    write_sysreg!("mdccint_el1", 0);
}

fn load_debug(debug: &DebugWorld) {
    write_sysreg!("oslar_el1", 1);
    isb(); // as above: nothing matches before all is in place
    let resources = DebugResources::of_this_cpu();
    write_breakpoints(&debug.breakpoints, resources.breakpoints);
    write_watchpoints(&debug.watchpoints, resources.watchpoints);
    write_sysreg!("S2_0_C7_C9_6", 0xff); // DBGCLAIMCLR_EL1
    write_sysreg!("S2_0_C7_C8_6", debug.claim); // DBGCLAIMSET_EL1
    debug.common.load();
    isb();
    write_sysreg!("oslar_el1", u64::from(debug.is_locked));
    isb();
}

/// Returns the number of event counters of this CPU: at EL2, PMCR_EL0.N is all there are.
fn event_counters() -> u8 {
    (read_sysreg!("pmcr_el0") >> 11 & 0x1f) as u8
}

/// Stops the performance monitors, and lowers their interrupt.
pub fn stop_monitors() {
    write_sysreg!("pmcr_el0", 0);
    write_sysreg!("pmintenclr_el1", ALL);
}

/// Gives the performance monitors the state that a reset leaves, before a vCPU may use them.
pub fn reset_monitors() {
    load_monitors(&MonitorWorld::default());
}

/// Saves them; none of them counts or interrupts any more.
fn save_monitors(monitors: &mut MonitorWorld) {
    let control = read_sysreg!("pmcr_el0");
    write_sysreg!("pmcr_el0", 0);
    isb(); // nothing counts from here on
    monitors.common.save();
    monitors.common.pmcr_el0 = control;
    monitors.enabled = read_sysreg!("pmcntenset_el0");
    monitors.interrupting = read_sysreg!("pmintenset_el1");
    monitors.overflowed = read_sysreg!("pmovsset_el0");
    for (number, (count, kind)) in (0..event_counters()).zip(&mut monitors.counters) {
        write_sysreg!("pmselr_el0", u64::from(number));
        isb(); // it selects which registers the next two are
        *count = read_sysreg!("pmxevcntr_el0");
        *kind = read_sysreg!("pmxevtyper_el0");
    }
    stop_monitors();
}

fn load_monitors(monitors: &MonitorWorld) {
    /// PMCR_EL0.P and C: they would clear the counters.
    const CLEAR: u64 = 0b110;
    for (number, (count, kind)) in (0..event_counters()).zip(&monitors.counters) {
        write_sysreg!("pmselr_el0", u64::from(number));
        isb(); // it selects which registers the next two are
        write_sysreg!("pmxevcntr_el0", *count);
        write_sysreg!("pmxevtyper_el0", *kind);
    }
    write_sysreg!("pmintenclr_el1", ALL);
    write_sysreg!("pmintenset_el1", monitors.interrupting);
    write_sysreg!("pmovsclr_el0", ALL);
    write_sysreg!("pmovsset_el0", monitors.overflowed);
    write_sysreg!("pmcntenclr_el0", ALL);
    write_sysreg!("pmcntenset_el0", monitors.enabled);
    let common = Monitors { pmcr_el0: monitors.common.pmcr_el0 & !CLEAR, ..monitors.common.clone() };
    common.load();
    isb();
}

//! Runs tests and prints KTAP: the plan, a line for each test, and what a failed check saw as a diagnostic before it.
//!
//! Not here: judging the log. A test that hangs is found by whoever reads it.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use trapeze_kit::cpu::Cpu;
use trapeze_kit::fdt::Fdt;
use trapeze_kit::gic::Gic;
use trapeze_kit::mmu::{self, Granule};
use trapeze_kit::timer::Timer;
use trapeze_kit::{exception, ins, println, psci, smp};

/// Why a test did not pass.
pub enum End {
    /// A check did not hold, and has been reported.
    Failed,
    /// The machine lacks what the test is about.
    Skipped(&'static str),
}

/// How a test ends.
pub type Outcome = Result<(), End>;

/// A test: its name within the group, and its function.
pub type Test = (&'static str, fn() -> Outcome);

/// Tests of a subject: its name, and they.
pub type Group = (&'static str, &'static [Test]);

static DEVICE_TREE: AtomicU64 = AtomicU64::new(0);

/// Makes a list of tests from functions of their names.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => { &[$((stringify!($name), $name)),+] };
}
pub(crate) use tests;

/// Ends the test as failed unless the condition holds; further arguments, formatted, say what was seen.
macro_rules! check {
    ($condition:expr $(, $($detail:tt)+)?) => {
        if !$condition {
            trapeze_kit::println!("# {}:{}: not so: {}", file!(), line!(), stringify!($condition));
            $(trapeze_kit::println!("#   {}", format_args!($($detail)+));)?
            return Err($crate::harness::End::Failed);
        }
    };
}
pub(crate) use check;

/// Ends the test as failed unless what is seen is what is wanted.
macro_rules! check_eq {
    ($seen:expr, $wanted:expr $(, $($detail:tt)+)?) => {{
        let (seen, wanted) = ($seen, $wanted);
        if seen != wanted {
            trapeze_kit::println!(
                "# {}:{}: {} is {:x?}, not {:x?}", file!(), line!(), stringify!($seen), seen, wanted,
            );
            $(trapeze_kit::println!("#   {}", format_args!($($detail)+));)?
            return Err($crate::harness::End::Failed);
        }
    }};
}
pub(crate) use check_eq;

/// Ends the test as skipped if the condition holds.
macro_rules! skip_if {
    ($condition:expr, $reason:literal) => {
        if $condition {
            return Err($crate::harness::End::Skipped($reason));
        }
    };
}
pub(crate) use skip_if;

/// Returns the address of code for EL0 or for a jump; the code is stepped over where it stands.
macro_rules! fragment {
    ($($line:literal),+ $(,)?) => {{
        let address: u64;
        // SAFETY: jumps over its own code, and takes that code's address.
        unsafe {
            core::arch::asm!("adr {0}, 20f", "b 30f", "20:", $($line,)+ "30:", out(reg) address,
                             options(nomem, nostack, preserves_flags));
        }
        address
    }};
}
pub(crate) use fragment;

/// Returns the tree that the boot CPU was given.
pub fn device_tree() -> Option<Fdt> {
    Fdt::at(DEVICE_TREE.load(Relaxed))
}

/// Returns the address of the tree.
pub fn device_tree_address() -> u64 {
    DEVICE_TREE.load(Relaxed)
}

/// Runs the tests that the command line asks for and powers the machine off.
pub fn run(groups: &[Group], device_tree: u64) -> ! {
    DEVICE_TREE.store(device_tree, Relaxed);
    let arguments = Fdt::at(device_tree).map_or("", |tree| tree.bootargs());
    let only = arguments.split(' ').find_map(|word| word.strip_prefix("suite.only=")).unwrap_or("");
    let chosen = || {
        let all = groups.iter().flat_map(|(group, tests)| tests.iter().map(move |test| (*group, test)));
        all.filter(move |(group, test)| is_chosen(group, test.0, only))
    };
    println!("KTAP version 1");
    println!("1..{}", chosen().count());
    for (number, (group, (name, test))) in (1..).zip(chosen()) {
        reset();
        let is_list = arguments.contains("suite.list");
        let outcome = if is_list { Err(End::Skipped("listed only")) } else { run_one(*test) };
        match outcome {
            Ok(()) => println!("ok {number} {group}.{name}"),
            Err(End::Failed) => println!("not ok {number} {group}.{name}"),
            Err(End::Skipped(reason)) => println!("ok {number} {group}.{name} # SKIP {reason}"),
        }
        stop_others();
    }
    psci::power_off()
}

/// Runs a test; an exception that it does not expect is a failure.
fn run_one(test: fn() -> Outcome) -> Outcome {
    exception::catch(test).unwrap_or_else(|exception| {
        println!("# exception: {exception:x?}, image at {:#x}", exception::image_start());
        Err(End::Failed)
    })
}

/// Says whether `group.name` begins with `only`.
fn is_chosen(group: &str, name: &str, only: &str) -> bool {
    match only.strip_prefix(group) {
        Some(rest) => rest.is_empty() || rest.strip_prefix('.').is_some_and(|rest| name.starts_with(rest)),
        None => group.starts_with(only),
    }
}

/// Puts the boot CPU into the state that every test begins with: all masked and silent, MMU on with 4 KiB pages.
fn reset() {
    ins!("msr DAIFSet, #0xf");
    exception::set_synchronous(None);
    exception::set_interrupt(None);
    Timer::Virtual.set_control(0);
    Timer::Physical.set_control(0);
    mmu::disable();
    mmu::enable(if Granule::K4.is_implemented() { Granule::K4 } else { Granule::K64 });
    let gic = Gic::detect();
    gic.init_distributor();
    gic.init_cpu();
}

/// Waits for CPUs that a test has started: the next one could do nothing with them running.
fn stop_others() {
    for cpu in 1..smp::present() {
        let has_started = Cpu::of(cpu).entry_el.swap(0, Relaxed) != 0;
        if has_started && !smp::wait_off(cpu) {
            println!("Bail out! CPU {cpu} does not stop");
            psci::power_off()
        }
    }
}

//! A guest kernel that tests the machine it runs on, one property per test, and prints KTAP (version 1).
//!
//! Not only for Trapeze: it runs on QEMU's `virt` board at EL1 without a hypervisor as well, and there every test has
//! to pass or say what the CPU lacks. `suite.only=PREFIX` on the command line chooses tests by the beginning of their
//! names, `suite.list` prints them. Nothing in here asks what it runs on.
//!
//! Follows Linux Documentation/dev-tools/ktap.rst, and what the groups name.
#![no_std]
#![no_main]

mod harness;
mod interrupts;

mod alignment;
mod atomics;
mod caches;
mod debug;
mod devices;
mod emulation;
mod exceptions;
mod gic;
mod gic_delivery;
mod gic_versions;
mod isolation;
mod kept;
mod mmu;
mod pmu;
mod psci;
mod smp;
mod timers;
mod uart;
mod wfx;

use harness::Group;

/// Every test, group by group.
const GROUPS: &[Group] = &[
    ("exceptions", exceptions::TESTS),
    ("kept", kept::TESTS),
    ("mmu", mmu::TESTS),
    ("timers", timers::TESTS),
    ("gic", gic::TESTS),
    ("gic", gic_delivery::TESTS),
    ("gic", gic_versions::TESTS),
    ("psci", psci::TESTS),
    ("smp", smp::TESTS),
    ("wfx", wfx::TESTS),
    ("atomics", atomics::TESTS),
    ("alignment", alignment::TESTS),
    ("caches", caches::TESTS),
    ("emulation", emulation::TESTS),
    ("debug", debug::TESTS),
    ("pmu", pmu::TESTS),
    ("uart", uart::TESTS),
    ("isolation", isolation::TESTS),
    ("devices", devices::TESTS),
];

trapeze_kit::entry!(main);

/// Runs on the boot CPU after reset.
fn main(device_tree: u64) -> ! {
    harness::run(GROUPS, device_tree)
}

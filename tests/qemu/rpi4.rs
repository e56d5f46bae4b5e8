//! The Raspberry Pi 4, as QEMU's raspi4b has it: the same image, a spin table, a GIC-400, the mini UART, no PSCI.

use std::time::Duration;

use crate::bundle::{Bundle, Guest};
use crate::debian;
use crate::machine::{Machine, Scratch};

fn guest(name: &str, cpus: &str) -> Guest {
    Guest::hello(name).with("GIC", "2").with("CPUS", cpus).with("PMU", "0")
}

fn on_board(machine: Machine) -> Machine {
    machine.with("BOARD", "rpi4")
}

#[test]
fn a_board_without_a_bundle_runs_the_one_in_the_image_and_powers_off() {
    let outcome = on_board(Machine::new()).run();
    outcome.succeeded().complains(&[]).vm("hello-gicv2", "is off after ").contains("hello: Goodbye");
}

#[test]
fn several_vms_share_the_board() {
    let bundle = Bundle::of(&[guest("one", "2"), guest("two", "1"), guest("three", "1")]);
    let outcome = on_board(bundle.machine()).run();
    outcome.succeeded().complains(&[]);
    for vm in ["one", "two", "three"] {
        outcome.vm(vm, "is off after ");
    }
}

#[test]
fn debian_boots_with_4_vcpus_and_powers_the_board_off() {
    let settings = [("BOARD", "rpi4"), ("CPUS", "4"), ("APPEND", "quiet trapeze.test=boot"), ("MEM", "256M")];
    let outcome = Machine::as_make_runs_it()
        .with_all(settings)
        .within(Duration::from_secs(120))
        .after("TEST uart ready", "a line for the UART\n")
        .run();
    debian::all_facts_hold(&outcome, 4);
    outcome.contains("received 'a line for the UART'").vm("linux", "is off after ");
}

#[test]
fn a_vm_that_crashes_fails_the_board() {
    let scratch = Scratch::new();
    let kernel = scratch.file("raw", &[0; 4]);
    let broken = Guest::new("broken", &kernel.to_string_lossy()).with("GIC", "2").with("PMU", "0");
    let outcome = on_board(Bundle::of(&[broken, guest("sound", "1")]).machine()).run();
    outcome.failed().vm("broken", "crashed after ").vm("sound", "is off after ").complains(&[
        "vm broken: vcpu 0 stopped: it has no exception handler at 0x200 (VBAR_EL1 0x0)",
        "the machine stops after a failure",
    ]);
}

#[test]
fn a_bundle_that_is_none_is_an_error_on_the_console() {
    let scratch = Scratch::new();
    let bundle = scratch.file("itb", b"this is no bundle, but it is there");
    let outcome = on_board(Machine::new()).with("BUNDLE", bundle).run();
    outcome.failed().complains(&[
        "the bundle: bundle: not a FIT image (no d00dfeed at its start): build one with mkimage -f",
        "the machine stops after a failure",
    ]);
}

#[test]
fn a_loader_waits_for_enter_and_the_board_starts_anew() {
    let board = on_board(Machine::new()).with("QEMU_ARGS", "-append trapeze.loader -action reboot=reset");
    let outcome = board.after("or press Enter", "\r").until("send a bundle by YMODEM", 2).run();
    outcome.complains(&[]).vm("hello-gicv2", "is off after ").contains("hello: Goodbye");
    outcome.contains(concat!(
        "Trapeze ",
        env!("CARGO_PKG_VERSION"),
        " on Raspberry Pi 4 Model B, EL2, 4 CPUs"
    ));
}

#[test]
fn a_loader_with_a_limit_goes_on_by_itself_wherever_there_is_a_console() {
    for board in ["rpi4", "virt"] {
        let machine =
            Machine::new().with("BOARD", board).with("QEMU_ARGS", "-append trapeze.loader=1 -no-reboot");
        machine.run().succeeded().complains(&[]).contains("YMODEM").contains("hello: Goodbye");
    }
}

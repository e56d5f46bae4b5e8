//! The Raspberry Pi 4, as QEMU's raspi4b has it: the same image, a spin table, a GIC-400, the mini UART, no PSCI.

use std::time::Duration;

use crate::bundle::{Bundle, Guest};
use crate::debian;
use crate::machine::{Machine, Scratch, command};

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
fn firmware_that_does_not_know_the_header_may_load_the_image_at_0x8_0000() {
    let scratch = Scratch::new();
    let mut image = std::fs::read(crate::machine::root("target/trapeze.img")).unwrap();
    image[56..60].fill(0); // without its magic QEMU takes it for any binary
    let outcome = on_board(Machine::new()).with("IMAGE", scratch.file("img", &image)).run();
    outcome.succeeded().complains(&[]).contains("hello: Goodbye");
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

/// Runs a board that cannot start: it has to say so on its console and on the PL011. Without a tree it does not know its
/// power switch, and halts.
fn says_everywhere(machine: Machine, error: &str) {
    let scratch = Scratch::new();
    let other = scratch.path("pl011");
    let chardev = format!("file:{}", other.display());
    let last = "the machine stops after a failure";
    let outcome = on_board(machine).with("PL011", chardev).until(last, 1).run();
    outcome.complains(&[error, last]);
    let heard = std::fs::read_to_string(other).unwrap();
    assert!(heard.contains(&format!("trapeze: error: {error}\r\n")), "the PL011 heard {heard:?}");
}

#[test]
fn a_bundle_that_is_none_is_told_of_on_every_uart() {
    let scratch = Scratch::new();
    let bundle = scratch.file("itb", b"this is no bundle, but it is there");
    says_everywhere(
        Machine::new().with("BUNDLE", bundle),
        "the bundle: bundle: not a FIT image (no d00dfeed at its start): build one with mkimage -f; in config.txt \
         say `initramfs bundle.itb followkernel`, without `=`, and copy the file anew",
    );
}

#[test]
fn half_a_bundle_is_told_of_on_every_uart() {
    let scratch = Scratch::new();
    let whole = std::fs::read(Bundle::of(&[guest("one", "1")]).path()).unwrap();
    let bundle = scratch.file("itb", &whole[..whole.len() / 2]);
    let outcome = on_board(Machine::new()).with("BUNDLE", bundle).run();
    outcome.failed().contains("in config.txt say `initramfs bundle.itb followkernel`");
}

#[test]
fn no_device_tree_is_told_of_on_every_uart() {
    says_everywhere(
        Machine::new().with("DTB", "none"),
        "no device tree: x0 points to none, and there is none at the base of RAM; in config.txt say \
         device_tree=bcm2711-rpi-4-b.dtb, and put that file on the card",
    );
}

#[test]
fn an_entry_at_el3_by_all_cpus_is_told_of_once_on_every_uart() {
    // QEMU starts an ELF so.
    says_everywhere(
        Machine::new().with("IMAGE", "target/aarch64-unknown-none-softfloat/release/trapeze"),
        "started at EL3, but a hypervisor needs EL2; in config.txt say arm_64bit=1 and kernel=kernel8.img, and leave \
         armstub= out",
    );
}

#[test]
fn a_start_in_32_bit_state_is_told_of_on_either_uart() {
    for serial in [["-serial", "stdio"], ["-serial", "null"]] {
        let mut qemu = command("qemu-system-aarch64");
        qemu.args([
            "-machine",
            "raspi2b",
            "-nodefaults",
            "-display",
            "none",
            "-kernel",
            "target/trapeze.img",
        ]);
        qemu.args(serial).args(if serial[1] == "null" { ["-serial", "stdio"] } else { ["-serial", "null"] });
        let line = "trapeze: error: started in 32-bit state: in config.txt say arm_64bit=1";
        Machine::of(qemu).until(line, 1).run().contains(line);
    }
}

#[test]
fn a_vm_larger_than_the_board_is_told_what_is_free() {
    let outcome = on_board(Bundle::of(&[guest("large", "1").with("MEM", "4G")]).machine()).run();
    outcome
        .failed()
        .contains("vm large does not start: /memory@40000000: reg: 4096 MiB, but ")
        .contains("in config.txt say nothing of gpu_mem= and total_mem=");
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

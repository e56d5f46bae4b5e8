//! Devices of the host that a VM is given as they are. The guest is the suite with `suite.devices`: it says of each what it
//! finds there.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use crate::bundle::{Bundle, Guest};
use crate::code::Code;
use crate::machine::{Machine, Scratch};

/// The real-time clock of QEMU's `virt`, where the host has it.
const RTC: &str = r#"pl031@9010000 {
        compatible = "arm,pl031", "arm,primecell";
        reg = <0 0x09010000 0 0x1000>;
        interrupts = <0 2 4>;
        trapeze,passthrough = "/pl031@9010000";
    };"#;

/// Its GPIO.
const GPIO: &str = r#"pl061@9030000 {
        compatible = "arm,pl061", "arm,primecell";
        reg = <0 0x09030000 0 0x1000>;
        interrupts = <0 7 4>;
        trapeze,passthrough = "/pl061@9030000";
    };"#;

/// The PL011 and the GPIO of a Raspberry Pi 4, elsewhere, and with other numbers.
const OF_A_PI: &str = r#"serial@9020000 {
        compatible = "arm,pl011", "arm,primecell";
        reg = <0 0x09020000 0 0x200>;
        interrupts = <0 8 4>;
        trapeze,passthrough = "/soc/serial@7e201000";
        bluetooth { compatible = "brcm,bcm43438-bt"; };
    };
    gpio@9030000 {
        compatible = "brcm,bcm2711-gpio";
        reg = <0 0x09030000 0 0xb4>;
        interrupts = <0 10 4>, <0 11 4>, <0 12 4>, <0 13 4>;
        trapeze,passthrough = "/soc/gpio@7e200000";
    };"#;

/// A network card of `virt`'s: it masters the bus.
const VIRTIO: &str = r#"virtio_mmio@a000000 {
        compatible = "virtio,mmio";
        reg = <0 0x0a000000 0 0x200>;
        interrupts = <0 16 1>;
        trapeze,passthrough = "/virtio_mmio@a000000";
    };"#;

/// A VM that runs the suite's tests of devices.
fn suite(name: &str, gic: &str, cpus: &str) -> Guest {
    let guest = Guest::new(name, "target/suite.img").with("MEM", "32M").with("PMU", "0");
    guest.with("GIC", gic).with("CPUS", cpus).with("APPEND", "suite.only=devices suite.devices")
}

/// Adds nodes to a VM's tree.
fn given(bundle: Bundle, vm: &str, nodes: &str) -> Bundle {
    let clock = "apb_pclk: apb-pclk {";
    bundle.with_tree(vm, clock, &format!("{nodes}\n    {clock}"))
}

/// Prepares the machine of a bundle with this GIC.
fn machine(bundle: &Bundle, gic: &str) -> Machine {
    bundle.machine().with_all([("GIC", gic), ("CPUS", "4"), ("MEM", "256M")])
}

#[test]
fn a_vm_has_the_clock_with_its_alarm_on_any_of_its_cpus() {
    for (gic, cpus) in [("2", "2"), ("3", "2"), ("2", "1")] {
        let bundle = Bundle::of(&[suite("clock", gic, cpus), Guest::hello("other").with("GIC", gic)]);
        let bundle = given(given(bundle, "clock", RTC), "clock", GPIO);
        let outcome = machine(&bundle, gic).within(Duration::from_secs(90)).run();
        outcome.succeeded().complains(&[]).lacks("not ok").vm("clock", "is off after ");
        for test in
            ["rtc_identification", "rtc_alarm_interrupts", "rtc_alarm_on_another_cpu", "gpio_reads_back"]
        {
            let is_there = cpus != "1" || test != "rtc_alarm_on_another_cpu";
            let passed = outcome.of_guests().iter().any(|line| line.ends_with(&format!("devices.{test}")));
            assert_eq!(passed, is_there, "{test}:\n{outcome}");
        }
    }
}

#[test]
fn a_reset_gives_the_device_back_and_takes_it_again() {
    for gic in ["2", "3"] {
        let bundle =
            Bundle::of(&[suite("clock", gic, "1").with("APPEND", "suite.only=devices suite.devices=reset")]);
        let outcome = machine(&given(bundle, "clock", RTC), gic).within(Duration::from_secs(60)).run();
        outcome.succeeded().complains(&[]).lacks("not ok").vm("clock", "resets");
        outcome.says("ok 2 devices.rtc_alarm_after_a_reset").says("ok 3 devices.rtc_alarm_interrupts");
    }
}

#[test]
fn a_vm_that_crashes_with_a_device_disturbs_nobody() {
    // The alarm is set and let through, its level stays up, and nobody takes it.
    let code = Code::new();
    let code = [(0x0901_0010, 1), (0x0901_0004, 1), (0x0800_0000, 3), (0x0800_0104, 4)]
        .into_iter()
        .fold(code, |code, (register, value)| code.set(4, register).set(5, value).store(5, 4));
    let scratch = Scratch::new();
    for (gic, code) in [("2", code.clone()), ("3", code)] {
        let kernel = scratch.file("raw", &code.print("set").word(0).bytes());
        let broken = Guest::new("broken", &kernel.to_string_lossy()).with("GIC", gic).with("PMU", "0");
        let bundle = Bundle::of(&[broken, Guest::hello("sound").with("GIC", gic)]);
        let outcome = machine(&given(bundle, "broken", RTC), gic).run();
        outcome.failed().vm("broken", "crashed after ").vm("sound", "is off after ").contains("Goodbye");
    }
}

#[test]
fn a_device_has_one_vm_and_a_vm_that_does_not_start_gives_it_back() {
    let guests = [
        suite("big", "3", "1").with("MEM", "64G"),
        suite("first", "3", "1").with("APPEND", "suite.only=devices.rtc_identification suite.devices"),
        suite("second", "3", "1"),
    ];
    let bundle = guests
        .iter()
        .zip(["big", "first", "second"])
        .fold(Bundle::of(&guests), |bundle, (_, name)| given(bundle, name, RTC));
    let outcome = machine(&bundle, "3").run();
    outcome.failed().vm("first", "is off after ").says("ok 1 devices.rtc_identification").complains(&[
        "vm big does not start: /memory@40000000: reg: 65536 MiB, but ... MiB are free of ...",
        "vm second does not start: /pl031@9010000: trapeze,passthrough: /pl031@9010000 is given to \"first\" already: ...",
    ]);
}

/// Asserts that a VM with these nodes does not start, for this reason alone.
fn refused(nodes: &str, reason: &str) {
    let bundle = Bundle::of(&[suite("bad", "3", "1"), Guest::hello("good")]);
    let outcome = machine(&given(bundle, "bad", nodes), "3").run();
    outcome.complains(&[&format!("vm bad does not start: {reason}")]).failed().vm("good", "is off after ");
}

#[test]
fn what_the_hypervisor_uses_is_not_given_away() {
    let console = RTC.replace("pl031", "pl011").replace("9010000", "9000000");
    let console =
        console.replace("pl011@9000000 {", "pl011@9020000 {").replace("<0 0x09000000", "<0 0x09020000");
    refused(
        &console.replace("<0 2 4>", "<0 9 4>"),
        "/pl011@9020000: trapeze,passthrough: /pl011@9000000 is the hypervisor's own: remove the node",
    );
}

#[test]
fn what_the_board_lacks_or_describes_otherwise_is_refused() {
    for (from, to, reason) in [
        ("= \"/pl031@9010000\"", "= \"/rtc\"", "trapeze,passthrough: /rtc is not in the board's tree: ..."),
        ("\"arm,pl031\"", "\"arm,pl030\"", "compatible: /pl031@9010000 is another device: ..."),
        ("0 0x1000>", "0 0x800>", "reg: /pl031@9010000 has other registers: ..."),
        ("<0 2 4>", "<0 2 4>, <0 3 4>", "interrupts: /pl031@9010000 has other interrupts: ..."),
        ("trapeze,passthrough", "trapeze,passthru", "trapeze,passthru: unknown property: ..."),
    ] {
        refused(&RTC.replace(from, to), &format!("/pl031@9010000: {reason}"));
    }
    refused(
        &VIRTIO.replace("virtio_mmio@a000000 {", "virtio_mmio@a000000 { trapeze,trusted-dma;"),
        "/virtio_mmio@a000000: trapeze,trusted-dma: /virtio_mmio@a000000 reaches memory where it physically is: ...",
    );
}

#[test]
fn what_may_master_the_bus_is_refused_unless_it_is_trusted() {
    refused(
        VIRTIO,
        "/virtio_mmio@a000000: trapeze,passthrough: /virtio_mmio@a000000 may master the bus and reach all memory, \
         as no SMMU is driven here: trapeze,trusted-dma lets it, which gives up isolation",
    );
}

#[test]
fn ram_lies_where_the_guest_believes_it_or_the_vm_does_not_start() {
    let identity = |vm: &str, at: &str, bundle: Bundle| {
        let memory = "device_type = \"memory\";";
        bundle.with_tree(vm, memory, &format!("{memory} trapeze,identity;")).with_tree(
            vm,
            "<0x0 0x40000000",
            at,
        )
    };
    let guests = [suite("low", "3", "1"), suite("there", "3", "1"), Guest::hello("other")];
    let bundle =
        identity("there", "<0x0 0x50000000", identity("low", "<0x0 0x40000000", Bundle::of(&guests)));
    let outcome = machine(&bundle, "3").run();
    outcome.vm("there", "is off after ").vm("other", "is off after ").failed().complains(&[
        "vm low does not start: /memory: reg: 0x40000000..=0x41ffffff is not all free: with trapeze,identity give a part \
         of 0x4...",
    ]);
}

/// Plays the other end of a line: answers a line with its last character, until it is thanked. Returns what it was told.
fn partner(listener: UnixListener) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let (mut line, _) = listener.accept().expect("QEMU connects");
        let mut told = String::new();
        let mut byte = [0];
        while !told.ends_with("thanks\n") && line.read_exact(&mut byte).is_ok() {
            told.push(byte[0].into());
            if let Some(wanted) = told.strip_suffix('\n').and_then(|told| told.chars().last()) {
                let mut answer = [0; 4];
                let answer = wanted.encode_utf8(&mut answer);
                let _ = line.write_all(answer.as_bytes()); // a machine that has ended says so itself
            }
        }
        told
    })
}

#[test]
fn a_vm_has_the_pl011_and_the_gpio_of_a_raspberry_pi() {
    let scratch = Scratch::new();
    let socket = scratch.path("pl011");
    let partner = partner(UnixListener::bind(&socket).expect("target is writable"));
    let bundle =
        Bundle::of(&[suite("given", "2", "2"), Guest::hello("other").with("GIC", "2").with("PMU", "0")]);
    let bundle = given(bundle, "given", OF_A_PI);
    let machine = bundle.machine().with("BOARD", "rpi4");
    let outcome =
        machine.with("PL011", format!("unix:{}", socket.display())).within(Duration::from_secs(60)).run();
    outcome
        .succeeded()
        .complains(&[])
        .lacks("not ok")
        .vm("given", "is off after ")
        .vm("other", "is off after ");
    outcome
        .contains("ok 5 devices.uart_receives_by_its_interrupt\n")
        .contains("ok 7 devices.gpio_of_a_bcm2711_reads_back\n");
    assert_eq!(
        partner.join().expect("it says what it was told"),
        "send me x\nsend me y\nsend me z\nthanks\n"
    );
}

#[test]
fn debian_has_the_pl011_of_a_raspberry_pi_as_its_second_uart() {
    let scratch = Scratch::new();
    let socket = scratch.path("pl011");
    let partner = partner(UnixListener::bind(&socket).expect("target is writable"));
    let debian = Guest::new("debian", "target/debian/Image").with("INITRD", "target/initramfs.cpio");
    let debian = debian.with("MEM", "256M").with("CPUS", "2").with("GIC", "2").with("PMU", "0");
    let more = "arm,primecell-periphid = <0x341011>;
        clocks = <&apb_pclk>, <&apb_pclk>;
        clock-names = \"uartclk\", \"apb_pclk\";
        trapeze,passthrough = \"/soc/serial@7e201000\";";
    let nodes = OF_A_PI.replace("trapeze,passthrough = \"/soc/serial@7e201000\";", more);
    // What the tree has behind a UART is a driver's, and nobody else's.
    let nodes = nodes.replace("bluetooth { compatible = \"brcm,bcm43438-bt\"; };", "");
    let bundle = given(Bundle::of(&[debian.with("APPEND", "quiet")]), "debian", &nodes);
    let bundle = bundle.with_tree("debian", "aliases {", "aliases { serial1 = \"/serial@9020000\";");
    let outcome = bundle
        .machine()
        .with("BOARD", "rpi4")
        .with("PL011", format!("unix:{}", socket.display()))
        .within(Duration::from_secs(120))
        .after(
            "/ # ",
            "stty -F /dev/ttyAMA1 raw -echo; exec 3<>/dev/ttyAMA1; echo a line x >&3; read -n 1 c <&3\n",
        )
        .after("/ # ", "echo thanks >&3; echo got ${c}y; grep uart /proc/interrupts; poweroff\n")
        .run();
    outcome.succeeded().complains(&[]).says("got xy").vm("debian", "is off after ");
    assert_eq!(partner.join().expect("it says what it was told"), "a line x\nthanks\n");
}

#[test]
fn two_vms_that_want_the_uart_of_a_raspberry_pi_are_told_apart() {
    let guests = [suite("one", "2", "1"), suite("two", "2", "1")];
    let bundle = given(given(Bundle::of(&guests), "one", OF_A_PI), "two", OF_A_PI);
    let outcome = bundle.machine().with("BOARD", "rpi4").within(Duration::from_secs(60)).run();
    outcome.failed().complains(&[
        "vm two does not start: /serial@9020000: trapeze,passthrough: /soc/serial@7e201000 is given to \"one\" already: ...",
        "the machine stops after a failure",
    ]);
}

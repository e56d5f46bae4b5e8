//! Facts about the UART: characters in both directions, and its interrupt.

use super::super::interrupts;
use super::bench::{BOTH, Bench, SECOND_UART, SECOND_UART_SPI, UART, UART_SPI};
use super::machine::Call;
use crate::interpreter::device::vgic::GicVersion;
use crate::vm::Vm;

const FR: u64 = UART + 0x18;
const LCR_H: u64 = UART + 0x2c;
const CR: u64 = UART + 0x30;
const IMSC: u64 = UART + 0x38;
const ICR: u64 = UART + 0x44;
const RX: u64 = 1 << 4;
const TX: u64 = 1 << 5;
const FIFO: u64 = 1 << 4;
const LOOPBACK: u64 = 1 << 7;

#[test]
fn what_a_guest_writes_reaches_the_console_in_order() {
    let mut bench = Bench::new(GicVersion::V3, 2);
    for (cpu, byte) in [(0, b'h'), (1, b'e'), (0, 0xff)] {
        bench.write_word(cpu, UART, u64::from(byte));
        assert_eq!(bench.cpus[cpu].take_calls(), [Call::Transmit(byte)]);
    }
}

#[test]
fn the_console_is_heard_until_the_fifo_is_full() {
    let mut bench = Bench::new(GicVersion::V3, 1);
    bench.write_word(0, LCR_H, FIFO);
    bench.receive(0, b"0123456789abcde");
    assert_eq!(bench.cpus[0].take_calls(), [Call::Listen(true)]);
    bench.receive(0, b"fgh");
    assert_eq!(bench.cpus[0].take_calls(), [Call::Listen(false)]);
    assert_eq!(bench.cpus[0].input, b"gh");
    assert_eq!(bench.read_word(0, FR) & 0x50, 0x40, "full");
}

#[test]
fn the_console_is_heard_again_when_the_guest_has_read() {
    let mut bench = Bench::new(GicVersion::V3, 1);
    bench.receive(0, b"abc"); // no FIFO: room for one
    assert_eq!(bench.cpus[0].take_calls(), [Call::Listen(false)]);
    for (expected, listens) in [(b'a', false), (b'b', false), (b'c', true)] {
        assert_eq!(bench.read_word(0, UART), u64::from(expected));
        assert_eq!(bench.cpus[0].take_calls(), [Call::Listen(listens)]);
    }
    assert_eq!(bench.read_word(0, UART), 0);
    assert_eq!(bench.cpus[0].take_calls(), [], "an empty FIFO was not full");
}

#[test]
fn a_larger_fifo_takes_what_waits() {
    let mut bench = Bench::new(GicVersion::V3, 1);
    bench.receive(0, b"abc");
    bench.cpus[0].take_calls();
    bench.write_word(0, LCR_H, FIFO); // empties it, and makes room
    assert_eq!(bench.cpus[0].take_calls(), [Call::Listen(true)]);
    assert_eq!([bench.read_word(0, UART), bench.read_word(0, UART)], [u64::from(b'b'), u64::from(b'c')]);
}

#[test]
fn a_uart_in_loopback_leaves_the_console_alone() {
    let mut bench = Bench::new(GicVersion::V3, 1);
    bench.write_word(0, LCR_H, FIFO);
    bench.write_word(0, CR, LOOPBACK);
    bench.receive(0, b"a");
    assert_eq!(bench.cpus[0].take_calls(), [Call::Listen(false)]);
    bench.write_word(0, CR, 0);
    assert_eq!(bench.cpus[0].take_calls(), [Call::Listen(true)]);
    assert_eq!(bench.read_word(0, UART), u64::from(b'a'));
}

#[test]
fn a_character_interrupts_the_vcpu_that_the_uart_is_routed_to() {
    for version in BOTH {
        let mut bench = Bench::running(version, 3);
        bench.listen_to(0, &[UART_SPI]);
        bench.route(UART_SPI, 2);
        bench.write_word(0, IMSC, RX);
        bench.receive(1, b"a");
        assert_eq!(bench.serve_kicks(), [2]);
        assert_eq!((bench.cpus[2].pending(), bench.cpus[0].pending()), (vec![33], vec![]));
        // The handler reads the character, which takes the line down, then ends the interrupt.
        let intid = bench.cpus[2].acknowledge().unwrap();
        assert_eq!(bench.read_word(2, UART), u64::from(b'a'));
        bench.cpus[2].end(intid);
        bench.serve_kicks();
        bench.read_word(2, FR);
        assert_eq!(bench.cpus[2].pending(), []);
    }
}

#[test]
fn a_line_that_stays_high_interrupts_again() {
    for version in BOTH {
        let mut bench = Bench::running(version, 1);
        bench.listen_to(0, &[UART_SPI]);
        bench.write_word(0, IMSC, RX);
        bench.receive(0, b"ab");
        bench.serve_kicks();
        assert_eq!(bench.handle(0), Some(33), "without reading");
        interrupts::replan(&mut bench.vcpus[0], &bench.vm, &mut bench.cpus[0]); // the maintenance interrupt
        assert_eq!(bench.handle(0), Some(33));
    }
}

#[test]
fn transmitting_interrupts_the_sender_at_once() {
    let mut bench = Bench::running(GicVersion::V3, 2);
    bench.listen_to(0, &[UART_SPI]);
    bench.write_word(0, IMSC, TX);
    bench.write_word(0, UART, u64::from(b'x'));
    assert_eq!(bench.cpus[0].pending(), [33]);
    assert_eq!(bench.cpus[0].take_calls(), [Call::Transmit(b'x')], "and nobody is kicked");
    bench.write_word(0, ICR, TX);
    assert_eq!(bench.cpus[0].pending(), []);
}

#[test]
fn a_uart_that_another_vcpu_silences_leaves_its_list_register() {
    let mut bench = Bench::running(GicVersion::V3, 2);
    bench.listen_to(0, &[UART_SPI]);
    bench.write_word(0, IMSC, TX);
    bench.write_word(0, UART, 0);
    bench.write_word(1, ICR, TX);
    assert_eq!(bench.serve_kicks(), [0]);
    assert_eq!(bench.cpus[0].pending(), []);
}

#[test]
fn the_second_uart_has_its_own_interrupt_and_no_input() {
    let mut bench = Bench::running(GicVersion::V3, 1);
    bench.listen_to(0, &[UART_SPI, SECOND_UART_SPI]);
    bench.write_word(0, SECOND_UART + 0x38, TX | RX);
    bench.write_word(0, SECOND_UART, u64::from(b'z'));
    assert_eq!(bench.cpus[0].pending(), [40]);
    assert_eq!(bench.cpus[0].take_calls(), [Call::Transmit(b'z')]);
    bench.receive(0, b"a");
    bench.cpus[0].take_calls();
    assert_eq!(bench.read_word(0, SECOND_UART), 0);
    bench.write_word(0, SECOND_UART + 0x30, LOOPBACK);
    bench.write_word(0, SECOND_UART, u64::from(b'q'));
    assert_eq!(bench.read_word(0, SECOND_UART), u64::from(b'q'));
    assert_eq!(bench.cpus[0].take_calls(), [Call::Transmit(b'q')], "its FIFO is not the console's");
}

#[test]
fn a_vm_without_a_uart_swallows_the_console() {
    let mut bench = Bench::new(GicVersion::V3, 1);
    let vm: &mut Vm = &mut bench.vm;
    vm.uarts.clear();
    bench.receive(0, b"lost");
    assert!(bench.cpus[0].input.is_empty());
}

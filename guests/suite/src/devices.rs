//! Devices of the board that a VM was given as they are: tests/qemu/passthrough.rs puts them here. Bare, QEMU's `virt` has
//! the PL031 and the PL061 at the same places.
//!
//! They wait for seconds, or for somebody at the other end of a line: only with `suite.devices` on the command line.
//! Follows Arm DDI 0224C (PL031), Arm DDI 0183G (PL011), Arm DDI 0190B (PL061) and the BCM2711 peripherals' manual, 5.

use crate::harness::{self, Outcome, Test, check, check_eq, skip_if, tests};
use crate::interrupts;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::SeqCst;
use trapeze_kit::exception::{self, Frame};
use trapeze_kit::gic::{Gic, PRIORITY};
use trapeze_kit::{cpu, mmio, psci, smp, timer};

pub const TESTS: &[Test] = tests![
    rtc_identification,
    rtc_alarm_after_a_reset,
    rtc_alarm_interrupts,
    rtc_alarm_on_another_cpu,
    uart_receives_by_its_interrupt,
    gpio_reads_back,
    gpio_of_a_bcm2711_reads_back,
];

const RTC: u64 = 0x0901_0000;
const RTC_INTID: u32 = 34;
const RTC_DR: u64 = RTC;
const RTC_MR: u64 = RTC + 0x4;
const RTC_IMSC: u64 = RTC + 0x10;
const RTC_RIS: u64 = RTC + 0x14;
const RTC_ICR: u64 = RTC + 0x1c;

/// A second PL011; the first one is the console.
const UART: u64 = 0x0902_0000;
const UART_INTID: u32 = 40;
const UART_DR: u64 = UART;
const UART_FR: u64 = UART + 0x18;
const UART_IBRD: u64 = UART + 0x24;
const UART_LCRH: u64 = UART + 0x2c;
const UART_CR: u64 = UART + 0x30;
const UART_IMSC: u64 = UART + 0x38;
const UART_ICR: u64 = UART + 0x44;
/// Receive, and receive timeout.
const RX: u32 = 1 << 4 | 1 << 6;

const GPIO: u64 = 0x0903_0000;

/// Skips a test of a device that the tree does not have, or that nobody asked for.
fn needs(node: &str) -> Outcome {
    let tree = harness::device_tree();
    let is_asked = tree.is_some_and(|tree| tree.bootargs().contains("suite.devices"));
    skip_if!(!is_asked, "no suite.devices on the command line");
    skip_if!(!tree.is_some_and(|tree| tree.has_node(node)), "no such device in the tree");
    Ok(())
}

/// What was taken since [`listen`], and by which CPU last.
static TAKEN: AtomicUsize = AtomicUsize::new(0);
static TAKER: AtomicUsize = AtomicUsize::new(0);

/// Takes the interrupts of these devices from now on.
fn listen(gic: Gic, intid: u32, to: u32) {
    TAKEN.store(0, SeqCst);
    exception::set_interrupt(Some(take));
    gic.set_priority(intid, PRIORITY);
    gic.set_edge(intid, false);
    gic.route(intid, to);
    gic.enable(intid);
}

fn take(_frame: &mut Frame) {
    let gic = Gic::detect();
    let acknowledged = gic.acknowledge();
    match acknowledged & interrupts::INTID {
        RTC_INTID => mmio::write32(RTC_ICR, 1),
        UART_INTID => mmio::write32(UART_IMSC, 0),
        _ => {}
    }
    TAKER.store(cpu::slot(), SeqCst);
    TAKEN.fetch_add(1, SeqCst);
    gic.end(acknowledged);
}

/// Sets the alarm to the second after next.
fn set_alarm() {
    mmio::write32(RTC_MR, mmio::read32(RTC_DR) + 1);
    mmio::write32(RTC_IMSC, 1);
}

fn rtc_identification() -> Outcome {
    needs("pl031@")?;
    for (offset, wanted) in
        [(0xfe0, 0x31), (0xfe4, 0x10), (0xff0, 0x0d), (0xff4, 0xf0), (0xff8, 5), (0xffc, 0xb1)]
    {
        check_eq!(mmio::read32(RTC + offset), wanted, "at {offset:#x}");
    }
    let before = mmio::read32(RTC_DR);
    check!(before > 1_600_000_000, "seconds since 1970: {before}");
    check!(timer::within_ms(3000, || mmio::read32(RTC_DR) != before));
    Ok(())
}

/// Runs twice: the first life ends in a reset with the interrupt taken, not ended, and the level still up.
fn rtc_alarm_after_a_reset() -> Outcome {
    needs("pl031@")?;
    skip_if!(
        !harness::device_tree().is_some_and(|tree| tree.bootargs().contains("suite.devices=reset")),
        "no reset wanted"
    );
    let gic = Gic::detect();
    if mmio::read32(RTC_IMSC) == 0 {
        mmio::write32(RTC_ICR, 1);
        listen(gic, RTC_INTID, 0);
        set_alarm();
        check!(timer::within_ms(4000, || gic.acknowledge() & interrupts::INTID == RTC_INTID));
        psci::psci(psci::function::SYSTEM_RESET, 0, 0, 0);
    }
    // The device is as it was: its level comes through as soon as somebody listens.
    check_eq!(mmio::read32(RTC_RIS), 1);
    check!(!gic.is_enabled(RTC_INTID) && !gic.is_active(RTC_INTID));
    listen(gic, RTC_INTID, 0);
    check!(interrupts::open_until(2000, || TAKEN.load(SeqCst) == 1));
    check_eq!(mmio::read32(RTC_RIS), 0);
    Ok(())
}

fn rtc_alarm_interrupts() -> Outcome {
    needs("pl031@")?;
    let gic = Gic::detect();
    mmio::write32(RTC_ICR, 1);
    listen(gic, RTC_INTID, 0);
    for round in 1..=2 {
        set_alarm();
        check!(interrupts::open_until(4000, || TAKEN.load(SeqCst) == round), "{}", TAKEN.load(SeqCst));
        check_eq!(mmio::read32(RTC_RIS), 0);
        check!(!gic.is_active(RTC_INTID));
    }
    // Not listened to it does not come, and comes when it is.
    gic.disable(RTC_INTID);
    set_alarm();
    check!(timer::within_ms(4000, || mmio::read32(RTC_RIS) == 1));
    check_eq!(interrupts::open_until(50, || TAKEN.load(SeqCst) > 2), false);
    gic.enable(RTC_INTID);
    check!(interrupts::open_until(2000, || TAKEN.load(SeqCst) == 3));
    check_eq!(interrupts::open_until(50, || TAKEN.load(SeqCst) > 3), false);
    mmio::write32(RTC_IMSC, 0);
    Ok(())
}

fn wait_for_one(_: u64) {
    Gic::detect().init_cpu();
    interrupts::open_until(8000, || TAKEN.load(SeqCst) == 2);
}

fn rtc_alarm_on_another_cpu() -> Outcome {
    needs("pl031@")?;
    skip_if!(smp::present() < 2, "one CPU");
    let gic = Gic::detect();
    mmio::write32(RTC_ICR, 1);
    listen(gic, RTC_INTID, 1);
    check_eq!(smp::start(1, wait_for_one, 0), 0);
    for round in 1..=2 {
        set_alarm();
        check!(timer::within_ms(4000, || TAKEN.load(SeqCst) == round), "{}", TAKEN.load(SeqCst));
        check_eq!(TAKER.load(SeqCst), 1);
    }
    check!(smp::wait_off(1));
    mmio::write32(RTC_IMSC, 0);
    Ok(())
}

/// Prints on the UART, as far as it takes it at once.
fn print(text: &str) {
    for byte in text.bytes() {
        timer::within_ms(1000, || mmio::read32(UART_FR) & 1 << 5 == 0);
        mmio::write32(UART_DR, u32::from(byte));
    }
}

/// Somebody at the other end answers each line with its last character, and a line of its own.
fn uart_receives_by_its_interrupt() -> Outcome {
    needs("serial@")?;
    let gic = Gic::detect();
    mmio::write32(UART_CR, 0);
    mmio::write32(UART_IBRD, 13);
    mmio::write32(UART_LCRH, 3 << 5);
    mmio::write32(UART_ICR, 0x7ff);
    mmio::write32(UART_CR, 1 | 1 << 8 | 1 << 9);
    listen(gic, UART_INTID, 0);
    for (round, byte) in (1..).zip(*b"xyz") {
        mmio::write32(UART_IMSC, RX);
        print("send me ");
        mmio::write32(UART_DR, u32::from(byte));
        print("\n");
        check!(interrupts::open_until(8000, || TAKEN.load(SeqCst) == round), "round {round}");
        check_eq!(mmio::read32(UART_DR) & 0xff, u32::from(byte));
    }
    print("thanks\n");
    Ok(())
}

fn gpio_reads_back() -> Outcome {
    needs("pl061@")?;
    const DIR: u64 = GPIO + 0x400;
    check_eq!(mmio::read32(GPIO + 0xfe0), 0x61);
    for value in [0x10, 0] {
        mmio::write32(DIR, value);
        check_eq!(mmio::read32(DIR), value);
    }
    Ok(())
}

fn gpio_of_a_bcm2711_reads_back() -> Outcome {
    needs("gpio@")?;
    const GPFSEL2: u64 = GPIO + 0x8;
    const GPSET0: u64 = GPIO + 0x1c;
    const GPCLR0: u64 = GPIO + 0x28;
    const GPLEV0: u64 = GPIO + 0x34;
    // Pin 21 as an output.
    mmio::write32(GPFSEL2, 1 << 3);
    check_eq!(mmio::read32(GPFSEL2), 1 << 3);
    mmio::write32(GPSET0, 1 << 21);
    check_eq!(mmio::read32(GPLEV0) & 1 << 21, 1 << 21);
    mmio::write32(GPCLR0, 1 << 21);
    check_eq!(mmio::read32(GPLEV0) & 1 << 21, 0);
    mmio::write32(GPFSEL2, 0);
    Ok(())
}

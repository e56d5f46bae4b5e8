//! The PL011: registers, and both directions by its loopback, so that nobody has to type.
//!
//! What is printed while the loopback is on would come back: checks are made behind it. A UART may let looped bytes
//! out as well: they are printable, and come as a diagnostic.
//! Follows Arm DDI 0183G (PL011).

use crate::harness::{Outcome, Test, check, check_eq, tests};
use crate::interrupts::{self, UART_INTID};
use trapeze_kit::console::{self, UART};
use trapeze_kit::gic::Gic;
use trapeze_kit::{mmio, timer};

pub const TESTS: &[Test] = tests![
    identification,
    flags_when_idle,
    line_settings_read_back,
    masks_read_back,
    raw_status_is_cleared,
    accesses_of_a_byte_and_a_half_word,
    transmit_leaves_room,
    loopback_returns_bytes_in_order,
    loopback_fills_the_fifo,
    receive_interrupt,
    receive_interrupt_is_level_sensitive,
    receive_timeout_without_fifo,
    transmit_interrupt,
    masked_receive_is_silent,
];

const DR: u64 = UART;
const FR: u64 = UART + 0x18;
const IBRD: u64 = UART + 0x24;
const FBRD: u64 = UART + 0x28;
const LCRH: u64 = UART + 0x2c;
const CR: u64 = UART + 0x30;
const IFLS: u64 = UART + 0x34;
const IMSC: u64 = UART + 0x38;
const RIS: u64 = UART + 0x3c;
const MIS: u64 = UART + 0x40;
const ICR: u64 = UART + 0x44;

const RXFE: u32 = 1 << 4;
const TXFF: u32 = 1 << 5;
const RXFF: u32 = 1 << 6;
const TXFE: u32 = 1 << 7;
const FEN: u32 = 1 << 4;
const WORD_8: u32 = 3 << 5;
/// CR: UARTEN, LBE, TXE, RXE.
const ON: u32 = 1 | 1 << 8 | 1 << 9;
const LOOP: u32 = ON | 1 << 7;
const RX: u32 = 1 << 4;
const TX: u32 = 1 << 5;

/// Runs `closure` with the loopback on and the FIFOs as said, empty before and after.
fn looped<T>(has_fifo: bool, closure: impl FnOnce() -> T) -> T {
    trapeze_kit::print!("# looped: ");
    console::flush();
    let (control, line) = (mmio::read32(CR), mmio::read32(LCRH));
    mmio::write32(IMSC, 0);
    mmio::write32(CR, 0);
    mmio::write32(LCRH, WORD_8 | if has_fifo { FEN } else { 0 });
    drain();
    mmio::write32(ICR, 0x7ff);
    mmio::write32(CR, LOOP);
    let result = closure();
    mmio::write32(CR, 0);
    mmio::write32(IMSC, 0);
    drain();
    mmio::write32(ICR, 0x7ff);
    mmio::write32(LCRH, line);
    mmio::write32(CR, control);
    trapeze_kit::println!();
    result
}

fn drain() {
    for _ in 0..64 {
        if mmio::read32(FR) & RXFE != 0 {
            return;
        }
        mmio::read32(DR);
    }
}

fn identification() -> Outcome {
    let wanted = [0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1];
    for (offset, wanted) in (0..).step_by(4).zip(wanted) {
        let seen = mmio::read32(UART + 0xfe0 + offset);
        // The upper half of PeriphID2 is the revision.
        check_eq!(
            if offset == 8 { seen & 0xf } else { seen },
            if offset == 8 { wanted & 0xf } else { wanted }
        );
    }
    Ok(())
}

fn flags_when_idle() -> Outcome {
    console::flush();
    let flags = mmio::read32(FR);
    check_eq!(flags & (RXFE | TXFF | RXFF | TXFE), RXFE | TXFE);
    Ok(())
}

fn line_settings_read_back() -> Outcome {
    console::flush();
    let before = [IBRD, FBRD, LCRH, IFLS].map(mmio::read32);
    mmio::write32(IBRD, 0x1234);
    mmio::write32(FBRD, 0x2a);
    mmio::write32(LCRH, 0x70);
    mmio::write32(IFLS, 0x12);
    let seen = [IBRD, FBRD, LCRH, IFLS].map(mmio::read32);
    for (register, value) in [IBRD, FBRD, LCRH, IFLS].into_iter().zip(before) {
        mmio::write32(register, value);
    }
    check_eq!(seen, [0x1234, 0x2a, 0x70, 0x12]);
    Ok(())
}

fn masks_read_back() -> Outcome {
    for mask in [0x7ff, 0x010, 0x050, 0] {
        mmio::write32(IMSC, mask);
        let seen = mmio::read32(IMSC);
        mmio::write32(IMSC, 0);
        check_eq!(seen, mask);
    }
    Ok(())
}

fn raw_status_is_cleared() -> Outcome {
    let (before, after) = looped(true, || {
        mmio::write32(ICR, 0x7ff);
        let before = mmio::read32(RIS);
        mmio::write32(DR, 0x61);
        timer::within_ms(100, || mmio::read32(FR) & RXFE == 0);
        mmio::write32(ICR, 0x7ff);
        (before, mmio::read32(RIS))
    });
    check_eq!(before & RX, 0);
    check_eq!(after & (RX | TX), 0);
    Ok(())
}

fn accesses_of_a_byte_and_a_half_word() -> Outcome {
    let before = mmio::read32(IBRD);
    mmio::write16(IBRD, 0x4321);
    let (half, byte, word) = (mmio::read16(IBRD), mmio::read8(IBRD), mmio::read32(IBRD));
    mmio::write32(IBRD, before);
    check_eq!((half, byte, word), (0x4321, 0x21, 0x4321));
    Ok(())
}

fn transmit_leaves_room() -> Outcome {
    console::print(format_args!("# a line of transmitted text that is longer than the FIFO has entries\n"));
    check!(timer::within_ms(1000, || mmio::read32(FR) & TXFE != 0));
    check!(timer::within_ms(1000, || mmio::read32(FR) & 1 << 3 == 0), "BUSY");
    Ok(())
}

fn loopback_returns_bytes_in_order() -> Outcome {
    let seen = looped(true, || {
        core::array::from_fn::<_, 8, _>(|index| {
            mmio::write32(DR, 0x41 + index as u32);
            timer::within_ms(100, || mmio::read32(FR) & RXFE == 0);
            mmio::read32(DR)
        })
    });
    check_eq!(seen, [0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48]);
    Ok(())
}

fn loopback_fills_the_fifo() -> Outcome {
    let (full_after, seen, is_empty) = looped(true, || {
        let mut full_after = 0;
        for byte in 0..16 {
            mmio::write32(DR, 0x60 + byte);
            timer::within_ms(1, || false);
            if full_after == 0 && mmio::read32(FR) & RXFF != 0 {
                full_after = byte + 1;
            }
        }
        let seen = core::array::from_fn::<_, 16, _>(|_| mmio::read32(DR) & 0xff);
        (full_after, seen, mmio::read32(FR) & RXFE != 0)
    });
    check_eq!(full_after, 16, "RXFF");
    check_eq!(seen, core::array::from_fn(|index| 0x60 + index as u32));
    check!(is_empty);
    Ok(())
}

/// Opens the UART's interrupt at CPU 0.
fn open() -> Gic {
    interrupts::listen();
    let gic = Gic::detect();
    gic.set_edge(UART_INTID, false);
    gic.route(UART_INTID, 0);
    gic.enable(UART_INTID);
    gic
}

fn receive_interrupt() -> Outcome {
    open();
    let (before, taken, masked) = looped(true, || {
        mmio::write32(IMSC, RX | 1 << 6);
        let before = interrupts::open_for(1);
        // Half a FIFO is the level after reset; fill it.
        for byte in 0..16 {
            mmio::write32(DR, 0x60 + byte);
        }
        let taken = interrupts::open_until(2000, || interrupts::count() != 0);
        (before, taken, mmio::read32(MIS))
    });
    check_eq!(before, 0);
    check!(taken);
    check_eq!(interrupts::acknowledged(0), UART_INTID);
    check_eq!(masked, 0, "the handler masked it");
    check_eq!(interrupts::count(), 1);
    Ok(())
}

fn receive_interrupt_is_level_sensitive() -> Outcome {
    let gic = open();
    let (first, again, gone) = looped(true, || {
        mmio::write32(IMSC, RX);
        for byte in 0..16 {
            mmio::write32(DR, 0x60 + byte);
        }
        let comes = || timer::within_ms(1000, || gic.highest_pending() & 0x3ff == UART_INTID);
        let first = comes();
        let iar = gic.acknowledge();
        gic.end(iar);
        let again = comes();
        drain();
        mmio::write32(ICR, RX);
        (first, again, timer::within_ms(1000, || !gic.is_pending(UART_INTID)))
    });
    check!(first);
    check!(again, "the line is up still");
    check!(gone, "the line is down");
    check_eq!(gic.acknowledge() & 0x3ff, 1023);
    Ok(())
}

fn receive_timeout_without_fifo() -> Outcome {
    open();
    let (raw, masked, byte) = looped(false, || {
        mmio::write32(IMSC, RX);
        mmio::write32(DR, 0x5a);
        timer::within_ms(100, || mmio::read32(FR) & RXFE == 0);
        (mmio::read32(RIS), mmio::read32(MIS), mmio::read32(DR))
    });
    check_eq!(raw & RX, RX, "one byte fills a UART without FIFO");
    check_eq!(masked & RX, RX);
    check_eq!(byte, 0x5a);
    Ok(())
}

fn transmit_interrupt() -> Outcome {
    open();
    let taken = looped(true, || {
        mmio::write32(IMSC, TX);
        for byte in 0..16 {
            mmio::write32(DR, 0x60 + byte);
        }
        interrupts::open_until(1000, || interrupts::count() != 0)
    });
    check!(taken, "the FIFO has drained");
    check_eq!(interrupts::acknowledged(0), UART_INTID);
    Ok(())
}

fn masked_receive_is_silent() -> Outcome {
    let gic = open();
    let (taken, pending) = looped(true, || {
        for byte in 0..16 {
            mmio::write32(DR, 0x60 + byte);
        }
        (interrupts::open_for(2), gic.is_pending(UART_INTID))
    });
    check_eq!(taken, 0);
    check!(!pending, "IMSC is 0");
    Ok(())
}

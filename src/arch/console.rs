//! The board's UART: where guests' characters go and come from, and where the hypervisor says its own.
//!
//! Not here: the UART that a guest sees (the library's PL011 model).
//! Follows Arm DDI 0183G (PL011) and the BCM2835 ARM Peripherals manual, 2.2 (mini UART).

use alloc::vec::Vec;
use core::fmt::{self, Write};

use aarch64_cpu::registers::{CNTFRQ_EL0, Readable};
use log::{Level, LevelFilter, Log, Metadata, Record};
use trapeze::addr::{Pa, Region};
use trapeze::ids::VmId;
use trapeze::shell::Command;
use trapeze::terminal::Terminal;

use super::lock::Lock;
use super::mmio::Mmio;
use super::timer;

const PL011_DR: u64 = 0x00;
const PL011_FR: u64 = 0x18;
const PL011_CR: u64 = 0x30;
const PL011_IMSC: u64 = 0x38;
const PL011_FR_TXFF: u32 = 1 << 5;
const PL011_FR_RXFE: u32 = 1 << 4;
const PL011_FR_BUSY: u32 = 1 << 3;
/// PrimeCell identification: the last four words of the block, and the byte in each (Arm DDI 0183G, 3.3.19).
const PL011_ID: [(u64, u32); 4] = [(0xff0, 0x0d), (0xff4, 0xf0), (0xff8, 0x05), (0xffc, 0xb1)];
/// Receive and receive-timeout interrupts.
const PL011_RX: u32 = 1 << 4 | 1 << 6;
/// UARTEN, TXE, RXE.
const PL011_ON: u32 = 1 | 1 << 8 | 1 << 9;
const MINI_IO: u64 = 0x00;
const MINI_IER: u64 = 0x04;
const MINI_LSR: u64 = 0x14;
const MINI_LSR_ROOM: u32 = 1 << 5;
const MINI_LSR_IDLE: u32 = 1 << 6;
const MINI_LSR_READY: u32 = 1;

/// The kinds of UART that a console can be.
#[derive(Clone, Copy, Debug)]
pub enum Uart {
    /// Arm PrimeCell UART.
    Pl011(Mmio),
    /// The mini UART of the BCM2835 family.
    Mini(Mmio),
}

impl Uart {
    /// Turns the UART on as the firmware left it: speed and format are not ours to choose.
    fn turn_on(self) {
        if let Self::Pl011(registers) = self {
            registers.write32(PL011_IMSC, 0);
            registers.write32(PL011_CR, PL011_ON);
        }
    }

    fn put(self, byte: u8) {
        match self {
            Self::Pl011(registers) => {
                while !self.has_room() {}
                registers.write32(PL011_DR, u32::from(byte));
            }
            Self::Mini(registers) => {
                while !self.has_room() {}
                registers.write32(MINI_IO, u32::from(byte));
            }
        }
    }

    #[inline(always)]
    fn has_room(self) -> bool {
        match self {
            Self::Pl011(registers) => registers.read32(PL011_FR) & PL011_FR_TXFF == 0,
            Self::Mini(registers) => registers.read32(MINI_LSR) & MINI_LSR_ROOM != 0,
        }
    }

    fn is_sending(self) -> bool {
        match self {
            Self::Pl011(registers) => registers.read32(PL011_FR) & PL011_FR_BUSY != 0,
            Self::Mini(registers) => registers.read32(MINI_LSR) & MINI_LSR_IDLE == 0,
        }
    }

    fn get(self) -> Option<u8> {
        match self {
            Self::Pl011(registers) => {
                (registers.read32(PL011_FR) & PL011_FR_RXFE == 0).then(|| registers.read32(PL011_DR) as u8)
            }
            Self::Mini(registers) => {
                (registers.read32(MINI_LSR) & MINI_LSR_READY != 0).then(|| registers.read32(MINI_IO) as u8)
            }
        }
    }

    fn listen(self, on: bool) {
        match self {
            // UARTICR stays untouched: reading the FIFO ends the interrupt, and one that was cleared with characters
            // left in it would not come again.
            Self::Pl011(registers) => registers.write32(PL011_IMSC, if on { PL011_RX } else { 0 }),
            Self::Mini(registers) => registers.write32(MINI_IER, u32::from(on)),
        }
    }
}

/// Most bytes that are taken from the UART at once: its interrupt comes again where there are more.
const AT_ONCE: u32 = 64;

struct Console {
    uart: Option<Uart>,
    /// UARTs where somebody may be listening as well: errors of the start go there, too.
    others: Vec<Uart>,
    /// Who shares it.
    terminal: Terminal,
}

static CONSOLE: Lock<Console> =
    Lock::new(Console { uart: None, others: Vec::new(), terminal: Terminal::new() });

/// A UART that may be connected to nothing, or off.
struct Doubtful(Uart);

/// How often such a one is asked whether it takes a byte before it counts as dead; tens of milliseconds, where a byte
/// takes less than one.
const POLLS: u32 = 1 << 18;

impl Write for Doubtful {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if !(0..POLLS).any(|_| self.0.has_room()) {
                return Err(fmt::Error);
            }
            self.0.put(byte);
        }
        Ok(())
    }
}

impl Console {
    fn put(&mut self, byte: u8) {
        if let Some(uart) = self.uart {
            self.terminal.put_plain(byte, &mut |byte| uart.put(byte));
        }
    }

    #[inline(never)]
    fn put_named(&mut self, vm: VmId, byte: u8) -> bool {
        self.uart.is_some_and(|uart| self.terminal.put(vm, byte, timer::now(), &mut |byte| uart.put(byte)))
    }

    /// Takes what the UART holds to whom it is for, up to the first command to the monitor. What there is no room for stays
    /// where it is: the FIFO is the flow control.
    #[inline(never)]
    fn collect(&mut self) -> Option<Command> {
        let uart = self.uart?;
        let mut command = None;
        for _ in 0..AT_ONCE {
            let now = timer::now();
            let Some(byte) = self.terminal.has_room(now).then(|| uart.get()).flatten() else { break };
            command = self.terminal.typed(byte, now, &mut |byte| uart.put(byte));
            if command.is_some() {
                break;
            }
        }
        self.listen(false);
        command
    }

    fn share<R>(&mut self, action: impl FnOnce(&mut Terminal, &mut dyn FnMut(u8)) -> R) -> R {
        let uart = self.uart;
        action(&mut self.terminal, &mut |byte| {
            if let Some(uart) = uart {
                uart.put(byte);
            }
        })
    }

    /// Turns the receive interrupt on, or on if there is room.
    fn listen(&self, on: bool) {
        if let Some(uart) = self.uart {
            // A VM that does not read must not hide what is typed to the terminal.
            uart.listen(on || self.terminal.has_room(timer::now()));
        }
    }

    fn line(&mut self, level: Level, text: fmt::Arguments<'_>) {
        let mark = match level {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info | Level::Debug | Level::Trace => "",
        };
        if let Some(uart) = self.uart {
            self.terminal.make_way(&mut |byte| uart.put(byte));
        }
        // Writing to the UART cannot fail; `fmt::Error` is what the trait asks for.
        let _ = writeln!(self, "trapeze: {mark}{text}");
        if let Some(uart) = self.uart {
            self.terminal.give_back(&mut |byte| uart.put(byte));
        }
        for uart in self.others.iter().filter(|_| level == Level::Error) {
            let _ = write!(Doubtful(*uart), "\r\ntrapeze: {mark}{text}\r\n");
        }
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.put(b'\r');
            }
            self.put(byte);
        }
        Ok(())
    }
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            CONSOLE.with(|console| console.line(record.level(), *record.args()));
        }
    }

    fn flush(&self) {}
}

/// Opens the console on `uart` and makes it the target of `log`, up to `level`.
pub fn open(uart: Uart, level: LevelFilter) {
    uart.turn_on();
    CONSOLE.with(|console| {
        console.uart = Some(uart);
        console.terminal.set_patience(patience());
    });
    // Not `set_logger`, which begins with an exclusive: the MMU may be off, as in `boot::refuse_level`, and memory Device
    // (Arm ARM DDI 0487K.a, B2.12.2). A second logger is refused: there is only this one, and `open` may be called again.
    // SAFETY: consoles are opened by the boot CPU, before it starts another one: no other call is under way.
    let _ = unsafe { log::set_logger_racy(&Logger) };
    log::set_max_level(level);
}

/// Returns how long a VM may be silent in the middle of a line before it has stopped there: 100 ms, in ticks.
fn patience() -> u64 {
    CNTFRQ_EL0.get() / 10
}

/// Adds a UART that errors of the start go to as well.
pub fn also(uart: Uart) {
    uart.turn_on();
    CONSOLE.with(|console| console.others.push(uart));
}

/// Leaves the other UARTs alone from now on: they may be a guest's.
pub fn settle() {
    CONSOLE.with(|console| console.others = Vec::new());
}

/// Tells whether a PL011 says that it is one.
pub fn is_pl011(registers: Mmio) -> bool {
    PL011_ID.into_iter().all(|(offset, byte)| registers.read32(offset) & 0xff == byte)
}

/// Sends a byte as it is.
pub fn put(byte: u8) {
    CONSOLE.with(|console| console.put(byte));
}

/// Takes a received byte, if there is one.
pub fn get() -> Option<u8> {
    CONSOLE.with(|console| console.uart.and_then(Uart::get))
}

/// Sends a guest's character. Tells whether it ends a line that is kept back.
pub fn put_of(vm: VmId, byte: u8) -> bool {
    CONSOLE.with(|console| {
        if !console.terminal.is_plain() {
            return console.put_named(vm, byte);
        }
        console.put(byte);
        false
    })
}

/// Looks after what has to wait, if it is time: lines that were kept back, and what is typed. Tells whether there is more.
pub fn write_kept_lines() -> bool {
    let has_lines = share(|terminal, mut out| terminal.write_lines(timer::now(), &mut out));
    listen(false) || has_lines
}

/// Takes a received character for a VM, if there is one.
pub fn get_for(vm: VmId) -> Option<u8> {
    CONSOLE.with(|console| console.terminal.read(vm, timer::now()))
}

/// Takes what was received to whom it is for, whether they read it or not. A command to the monitor is to be carried out
/// and [`answer`]ed.
pub fn collect() -> Option<Command> {
    CONSOLE.with(Console::collect)
}

/// Writes what the monitor says to a command, and asks for the next one. A VM that writes waits for one line at most.
pub fn answer(text: &str) {
    for line in text.split_inclusive('\n') {
        share(|terminal, mut out| terminal.say(line, &mut out));
    }
    share(|terminal, mut out| terminal.prompt(&mut out));
}

/// Takes a VM off and says so, both at once: nobody else has the console alone before that was said.
pub fn part(vm: VmId, text: fmt::Arguments<'_>) {
    CONSOLE.with(|console| {
        console.share(|terminal, mut out| terminal.leave(vm, &mut out));
        if Level::Info <= log::max_level() {
            console.line(Level::Info, text);
        }
    });
}

/// Runs `action` with what VMs share the console by, and a way to write.
pub fn share<R>(action: impl FnOnce(&mut Terminal, &mut dyn FnMut(u8)) -> R) -> R {
    CONSOLE.with(|console| console.share(action))
}

/// Turns the UART's receive interrupt on, as it is anyway while there is room for what is typed. Tells whether there is
/// none: [`write_kept_lines`] is to be called in a while.
pub fn listen(on: bool) -> bool {
    CONSOLE.with(|console| {
        console.listen(on);
        console.terminal.is_waiting()
    })
}

/// Prints the last words of a machine that stops, whoever holds the console.
pub fn last_words(text: fmt::Arguments<'_>) {
    // SAFETY: the caller stops the machine; no other line matters any more.
    unsafe { CONSOLE.seize(|console| console.line(Level::Error, text)) };
}

/// Waits until the UART has sent everything, whoever holds the console.
pub fn drain() {
    // SAFETY: the UART is only read, and the caller stops the machine.
    unsafe {
        CONSOLE.seize(|console| while console.uart.is_some_and(Uart::is_sending) {});
    }
}

/// Makes the register block of a UART that EL2 maps as a device.
///
/// # Safety
/// As for [`Mmio::new`].
pub unsafe fn pl011(region: Region<Pa>) -> Uart {
    // SAFETY: the caller's promise.
    Uart::Pl011(unsafe { Mmio::new(region) })
}

/// Makes the register block of a mini UART that EL2 maps as a device.
///
/// # Safety
/// As for [`Mmio::new`].
pub unsafe fn mini(region: Region<Pa>) -> Uart {
    // SAFETY: the caller's promise.
    Uart::Mini(unsafe { Mmio::new(region) })
}

//! The PL011 UART of a VM: registers, receive FIFO and the combined interrupt UARTINTR.
//!
//! Not here: baud rates, parity, DMA, and where characters come from or go to.
//! Follows Arm DDI 0183G (PrimeCell UART PL011), revision r1p1 in UARTPeriphID2: its FIFOs are 16 deep.
//!
//! Guests written for QEMU's virt board run unmodified, so three things are as there and not as in silicon:
//!
//! - A disabled UART (UARTCR.UARTEN, TXE, RXE) transmits and receives: many small guests write UARTDR and
//!   no more.
//! - A character is out at once. The transmitter is never busy nor full, and each write sets UARTRIS.TXRIS,
//!   the passing of the transmit level.
//! - Each received character sets UARTRIS.RXRIS, not only the one that reaches the level in UARTIFLS: many
//!   guests enable that interrupt alone, and a lone keystroke would tell them nothing. Below the level RTRIS
//!   is set as well: the line has gone silent, so the timeout of 32 bit periods is taken as over.

use super::Width;

/// Depth of the receive FIFO while UARTLCR_H.FEN is set, in characters.
const FIFO_DEPTH: u8 = 16;

/// Register offsets in bytes (Arm DDI 0183G, table 3-1).
mod offset {
    pub const DR: u64 = 0x000;
    pub const RSR_ECR: u64 = 0x004;
    pub const FR: u64 = 0x018;
    pub const ILPR: u64 = 0x020;
    pub const IBRD: u64 = 0x024;
    pub const FBRD: u64 = 0x028;
    pub const LCR_H: u64 = 0x02c;
    pub const CR: u64 = 0x030;
    pub const IFLS: u64 = 0x034;
    pub const IMSC: u64 = 0x038;
    pub const RIS: u64 = 0x03c;
    pub const MIS: u64 = 0x040;
    pub const ICR: u64 = 0x044;
    pub const DMACR: u64 = 0x048;
    pub const PERIPH_ID0: u64 = 0xfe0;
    pub const PCELL_ID3: u64 = 0xffc;
}

/// UARTPeriphID0-3 and UARTPCellID0-3: Arm, part 0x011, revision 1.
const IDENTIFICATION: [u8; 8] = [0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// UARTRIS, UARTMIS, UARTIMSC and UARTICR (3.3.10).
mod interrupt {
    pub const RI: u16 = 1 << 0;
    pub const CTS: u16 = 1 << 1;
    pub const DCD: u16 = 1 << 2;
    pub const DSR: u16 = 1 << 3;
    pub const RX: u16 = 1 << 4;
    pub const TX: u16 = 1 << 5;
    pub const RT: u16 = 1 << 6;
    pub const BE: u16 = 1 << 9;
    pub const OE: u16 = 1 << 10;
    pub const ALL: u16 = 0x7ff;
}

/// UARTFR (3.3.3).
mod flag {
    pub const CTS: u16 = 1 << 0;
    pub const DSR: u16 = 1 << 1;
    pub const DCD: u16 = 1 << 2;
    pub const RXFE: u16 = 1 << 4;
    pub const RXFF: u16 = 1 << 6;
    pub const TXFE: u16 = 1 << 7;
    pub const RI: u16 = 1 << 8;
}

/// UARTCR (3.3.8).
mod control {
    pub const LBE: u16 = 1 << 7;
    pub const TXE: u16 = 1 << 8;
    pub const RXE: u16 = 1 << 9;
    pub const DTR: u16 = 1 << 10;
    pub const RTS: u16 = 1 << 11;
    pub const OUT1: u16 = 1 << 12;
    pub const OUT2: u16 = 1 << 13;
    pub const WRITABLE: u16 = 0xff87;
}

/// UARTLCR_H (3.3.7).
mod line_control {
    pub const BRK: u8 = 1 << 0;
    pub const FEN: u8 = 1 << 4;
}

/// UARTDR.BE: the character is a break (3.3.1).
const DATA_BREAK: u16 = 1 << 10;
/// UARTDR.OE: characters were lost before the FIFO had room again.
const DATA_OVERRUN: u16 = 1 << 11;
/// UARTRSR.OE (3.3.2).
const STATUS_OVERRUN: u8 = 1 << 3;
/// UARTRSR.FE, PE and BE, which describe the character last read.
const STATUS_OF_CHARACTER: u8 = 0b111;

/// Modem lines: the output in UARTCR, and in loopback the input that it feeds in UARTFR and UARTRIS (3.3.8,
/// LBE).
const MODEM_LINES: [(u16, u16, u16); 4] = [
    (control::RTS, flag::CTS, interrupt::CTS),
    (control::DTR, flag::DSR, interrupt::DSR),
    (control::OUT1, flag::DCD, interrupt::DCD),
    (control::OUT2, flag::RI, interrupt::RI),
];

/// Says what an access has done to the outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Effect {
    /// Character to send.
    pub transmit: Option<u8>,
    /// Level of UARTINTR from now on.
    pub line: bool,
}

/// Says what became of a character that arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Reception {
    /// It is in the FIFO; otherwise it is lost.
    pub accepted: bool,
    /// Level of UARTINTR from now on.
    pub line: bool,
}

/// Holds one UART.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pl011 {
    fifo: Fifo,
    /// Characters were lost since the FIFO last took one.
    has_overrun: bool,
    receive_status: u8,
    ilpr: u8,
    ibrd: u16,
    fbrd: u8,
    lcr_h: u8,
    cr: u16,
    ifls: u8,
    imsc: u16,
    ris: u16,
    dmacr: u8,
}

impl Default for Pl011 {
    fn default() -> Self {
        Self::new()
    }
}

impl Pl011 {
    /// Makes a UART out of reset (Arm DDI 0183G, table 3-1).
    #[must_use]
    pub const fn new() -> Self {
        Self {
            fifo: Fifo::new(),
            has_overrun: false,
            receive_status: 0,
            ilpr: 0,
            ibrd: 0,
            fbrd: 0,
            lcr_h: 0,
            cr: control::TXE | control::RXE,
            ifls: 0x12,
            imsc: 0,
            ris: 0,
            dmacr: 0,
        }
    }

    /// Reads at `offset` bytes into the page. Only a read of UARTDR changes anything: it takes a character.
    ///
    /// Registers are 32 bits apart and at most 16 wide: a narrow access sees its bytes of the register, the upper
    /// half of a word is zero. The bus is 32 bits wide, so 64 bits are two registers, the lower first.
    pub fn read(&mut self, offset: u64, width: Width) -> (u64, Effect) {
        if width == Width::Double {
            let (low, _) = self.read(offset, Width::Word);
            let (high, effect) = self.read(offset.wrapping_add(4), Width::Word);
            return (high << 32 | low, effect);
        }
        let value = match offset & !0b11 {
            offset::DR => self.take_character(),
            register => self.register(register),
        };
        let lane_bits = (offset & 0b11) * 8;
        ((u64::from(value) >> lane_bits) & width.mask(), self.effect(None))
    }

    /// Writes at `offset` bytes into the page. A register is written through its lowest byte, with the bits that the
    /// access does not have taken as zero; 64 bits are two registers, the lower first.
    pub fn write(&mut self, offset: u64, width: Width, value: u64) -> Effect {
        if width == Width::Double {
            let low = self.write(offset, Width::Word, value);
            let high = self.write(offset.wrapping_add(4), Width::Word, value >> 32);
            return Effect { transmit: low.transmit.or(high.transmit), line: high.line };
        }
        let [low, high, ..] = (value & width.mask()).to_le_bytes();
        let half = u16::from_le_bytes([low, high]);
        let mut transmit = None;
        match offset {
            offset::DR => transmit = Some(self.send(low)),
            offset::RSR_ECR => self.receive_status = 0,
            offset::ILPR => self.ilpr = low,
            offset::IBRD => self.ibrd = half,
            offset::FBRD => self.fbrd = low & 0x3f,
            offset::LCR_H => self.set_line_control(low),
            offset::CR => self.set_control(half & control::WRITABLE),
            offset::IFLS => self.ifls = low & 0x3f,
            offset::IMSC => self.imsc = half & interrupt::ALL,
            offset::ICR => self.ris &= !half,
            offset::DMACR => self.dmacr = low & 0b111,
            _ => {}
        }
        self.effect(transmit)
    }

    /// Takes a character from outside. When the FIFO is full it is lost and the guest sees an overrun; in
    /// loopback the input is disconnected, and it is lost unseen. Ask [`Pl011::can_receive`] first to lose
    /// none.
    pub fn receive(&mut self, character: u8) -> Reception {
        let accepted = !self.is_looped_back() && self.push(u16::from(character));
        Reception { accepted, line: self.line() }
    }

    /// Tells whether a character from outside would be accepted now.
    #[must_use]
    pub const fn can_receive(&self) -> bool {
        !self.is_looped_back() && self.fifo.count < self.depth()
    }

    /// Returns the level of the combined interrupt UARTINTR.
    #[must_use]
    pub const fn line(&self) -> bool {
        self.ris & self.imsc != 0
    }

    const fn effect(&self, transmit: Option<u8>) -> Effect {
        Effect { transmit, line: self.line() }
    }

    /// Returns what a register reads, without touching it; zero where there is none or where it is
    /// write-only.
    fn register(&self, offset: u64) -> u16 {
        match offset {
            offset::RSR_ECR => u16::from(self.receive_status),
            offset::FR => self.flags(),
            offset::ILPR => u16::from(self.ilpr),
            offset::IBRD => self.ibrd,
            offset::FBRD => u16::from(self.fbrd),
            offset::LCR_H => u16::from(self.lcr_h),
            offset::CR => self.cr,
            offset::IFLS => u16::from(self.ifls),
            offset::IMSC => self.imsc,
            offset::RIS => self.ris,
            offset::MIS => self.ris & self.imsc,
            offset::DMACR => u16::from(self.dmacr),
            offset::PERIPH_ID0..=offset::PCELL_ID3 => identification(offset),
            _ => 0,
        }
    }

    fn flags(&self) -> u16 {
        let mut flags = flag::TXFE | self.modem_inputs();
        if self.fifo.count == 0 {
            flags |= flag::RXFE;
        }
        if self.fifo.count >= self.depth() {
            flags |= flag::RXFF;
        }
        flags
    }

    /// Outside loopback nothing is connected to the modem inputs.
    fn modem_inputs(&self) -> u16 {
        if !self.is_looped_back() {
            return 0;
        }
        MODEM_LINES
            .iter()
            .filter(|(output, ..)| self.cr & output != 0)
            .fold(0, |flags, (_, input, _)| flags | input)
    }

    fn set_control(&mut self, value: u16) {
        let before = self.modem_inputs();
        self.cr = value;
        let changed = before ^ self.modem_inputs();
        for (_, input, interrupt) in MODEM_LINES {
            if changed & input != 0 {
                self.ris |= interrupt;
            }
        }
    }

    /// Empties the FIFO when FEN changes, and sends a break to ourselves when BRK rises in loopback.
    fn set_line_control(&mut self, value: u8) {
        let changed = self.lcr_h ^ value;
        self.lcr_h = value;
        if changed & line_control::FEN != 0 {
            self.fifo = Fifo::new();
            self.has_overrun = false;
            self.ris &= !(interrupt::RX | interrupt::RT);
        }
        if changed & value & line_control::BRK != 0 && self.is_looped_back() {
            self.push(DATA_BREAK);
        }
    }

    fn send(&mut self, character: u8) -> u8 {
        self.ris |= interrupt::TX;
        if self.is_looped_back() {
            self.push(u16::from(character));
        }
        character
    }

    fn push(&mut self, entry: u16) -> bool {
        if self.fifo.count >= self.depth() {
            self.has_overrun = true;
            self.receive_status |= STATUS_OVERRUN;
            self.ris |= interrupt::OE;
            return false;
        }
        self.fifo.push(entry);
        self.has_overrun = false;
        self.ris |= interrupt::RX;
        if self.fifo.count < self.receive_level() {
            self.ris |= interrupt::RT;
        }
        if entry & DATA_BREAK != 0 {
            self.ris |= interrupt::BE;
        }
        true
    }

    /// Reads UARTDR. An empty FIFO reads 0; an emptied one takes its interrupts back.
    fn take_character(&mut self) -> u16 {
        let Some(entry) = self.fifo.pop() else { return 0 };
        if self.fifo.count == 0 {
            self.ris &= !(interrupt::RX | interrupt::RT);
        }
        let [_, errors] = entry.to_le_bytes();
        self.receive_status = self.receive_status & STATUS_OVERRUN | errors & STATUS_OF_CHARACTER;
        if self.has_overrun { entry | DATA_OVERRUN } else { entry }
    }

    const fn is_looped_back(&self) -> bool {
        self.cr & control::LBE != 0
    }

    const fn depth(&self) -> u8 {
        if self.lcr_h & line_control::FEN != 0 { FIFO_DEPTH } else { 1 }
    }

    /// Returns UARTIFLS.RXIFLSEL in characters: eighths 1, 2, 4, 6 and 7 of the FIFO (3.3.9).
    const fn receive_level(&self) -> u8 {
        if self.depth() == 1 {
            return 1;
        }
        match (self.ifls >> 3) & 0b111 {
            0 => 2,
            1 => 4,
            2 => 8,
            3 => 12,
            _ => 14,
        }
    }
}

fn identification(offset: u64) -> u16 {
    let index = offset.saturating_sub(offset::PERIPH_ID0) / 4;
    usize::try_from(index).ok().and_then(|index| IDENTIFICATION.get(index)).map_or(0, |byte| u16::from(*byte))
}

/// Characters with their error bits, as UARTDR reads them.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Fifo {
    entries: [u16; 16],
    head: u8,
    count: u8,
}

impl Fifo {
    const fn new() -> Self {
        Self { entries: [0; 16], head: 0, count: 0 }
    }

    fn push(&mut self, entry: u16) {
        let tail = (self.head + self.count) % FIFO_DEPTH;
        if let Some(slot) = self.entries.get_mut(usize::from(tail)) {
            *slot = entry;
            self.count += 1;
        }
    }

    fn pop(&mut self) -> Option<u16> {
        self.count = self.count.checked_sub(1)?;
        let entry = self.entries.get(usize::from(self.head)).copied();
        self.head = (self.head + 1) % FIFO_DEPTH;
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RX: u64 = 1 << 4;
    const TX: u64 = 1 << 5;
    const RT: u64 = 1 << 6;
    const OE: u64 = 1 << 10;

    fn peek(uart: &Pl011, offset: u64) -> u64 {
        uart.clone().read(offset, Width::Word).0
    }

    fn set(uart: &mut Pl011, offset: u64, value: u64) -> Effect {
        uart.write(offset, Width::Word, value)
    }

    fn with_fifo() -> Pl011 {
        let mut uart = Pl011::new();
        let _ = set(&mut uart, offset::LCR_H, 0x70);
        uart
    }

    fn fed(mut uart: Pl011, characters: &[u8]) -> Pl011 {
        for character in characters {
            assert!(uart.receive(*character).accepted);
        }
        uart
    }

    #[test]
    fn registers_read_their_reset_values() {
        let uart = Pl011::new();
        assert_eq!(uart, Pl011::default());
        for (offset, value) in [
            (0x000, 0),
            (0x004, 0),
            (0x018, 0x90),
            (0x020, 0),
            (0x024, 0),
            (0x028, 0),
            (0x02c, 0),
            (0x030, 0x300),
            (0x034, 0x12),
            (0x038, 0),
            (0x03c, 0),
            (0x040, 0),
            (0x044, 0),
            (0x048, 0),
            (0xfe0, 0x11),
            (0xfe4, 0x10),
            (0xfe8, 0x14),
            (0xfec, 0x00),
            (0xff0, 0x0d),
            (0xff4, 0xf0),
            (0xff8, 0x05),
            (0xffc, 0xb1),
        ] {
            assert_eq!(peek(&uart, offset), value, "{offset:#x}");
        }
        assert!(!uart.line() && uart.can_receive());
    }

    #[test]
    fn each_register_keeps_the_bits_that_it_has() {
        for (offset, kept) in [
            (0x004, 0),
            (0x008, 0),
            (0x018, 0x90),
            (0x020, 0xff),
            (0x024, 0xffff),
            (0x028, 0x3f),
            (0x02c, 0xff),
            (0x034, 0x3f),
            (0x038, 0x7ff),
            (0x03c, 0),
            (0x040, 0),
            (0x044, 0),
            (0x048, 0x7),
            (0x04c, 0),
            (0xfe0, 0x11),
            (0x1000, 0),
            (u64::MAX, 0),
        ] {
            let mut uart = Pl011::new();
            let effect = set(&mut uart, offset, u64::MAX);
            assert_eq!(effect, Effect { transmit: None, line: false }, "{offset:#x}");
            assert_eq!(peek(&uart, offset), kept, "{offset:#x}");
        }
        let mut uart = Pl011::new();
        let _ = set(&mut uart, offset::CR, !(1 << 7));
        assert_eq!(peek(&uart, offset::CR), 0xff07);
    }

    #[test]
    fn a_guest_that_configures_nothing_sends_and_receives() {
        let mut uart = Pl011::new();
        assert_eq!(set(&mut uart, offset::DR, u64::from(b'A')), Effect { transmit: Some(b'A'), line: false });
        assert_eq!(peek(&uart, offset::FR), 0x90);
        assert_eq!(uart.receive(b'z'), Reception { accepted: true, line: false });
        assert_eq!(peek(&uart, offset::FR), 0xc0);
        assert_eq!(uart.read(offset::DR, Width::Word).0, u64::from(b'z'));
        assert_eq!(peek(&uart, offset::FR), 0x90);
    }

    #[test]
    fn a_disabled_uart_sends_and_receives_as_on_the_virt_board() {
        let mut uart = Pl011::new();
        let _ = set(&mut uart, offset::CR, 0);
        assert_eq!(set(&mut uart, offset::DR, 0x41).transmit, Some(0x41));
        assert!(uart.receive(0x42).accepted);
    }

    #[test]
    fn sixty_four_bits_are_two_registers() {
        let mut uart = Pl011::new();
        assert_eq!(uart.read(0xff8, Width::Double).0, 0xb1_0000_0005, "UARTPCellID2 and 3");
        let _ = uart.write(offset::IBRD, Width::Double, 0x3f_0000_1234);
        assert_eq!((uart.ibrd, uart.fbrd), (0x1234, 0x3f));
        assert_eq!(uart.read(offset::IBRD, Width::Double).0, 0x3f_0000_1234);
    }

    #[test]
    fn only_the_low_byte_goes_out() {
        let mut uart = Pl011::new();
        assert_eq!(uart.write(offset::DR, Width::Double, 0x1234_5678_9abc_de41).transmit, Some(0x41));
        assert_eq!(uart.write(offset::DR, Width::Byte, 0x42).transmit, Some(0x42));
        assert_eq!(uart.write(offset::DR + 1, Width::Byte, 0x43).transmit, None);
    }

    #[test]
    fn a_narrow_read_sees_its_bytes_of_the_register() {
        let mut uart = Pl011::new();
        let _ = set(&mut uart, offset::IBRD, 0x1234);
        assert_eq!(uart.read(offset::IBRD, Width::Byte).0, 0x34);
        assert_eq!(uart.read(offset::IBRD + 1, Width::Byte).0, 0x12);
        assert_eq!(uart.read(offset::IBRD + 2, Width::Half).0, 0);
        assert_eq!(uart.read(offset::IBRD, Width::Double).0, 0x1234);
    }

    #[test]
    fn a_written_character_raises_the_transmit_interrupt_until_it_is_cleared() {
        let mut uart = Pl011::new();
        assert!(!set(&mut uart, offset::IMSC, TX).line);
        assert!(set(&mut uart, offset::DR, 0x41).line);
        assert_eq!((peek(&uart, offset::RIS), peek(&uart, offset::MIS)), (TX, TX));
        assert!(set(&mut uart, offset::ICR, RX).line);
        assert!(!set(&mut uart, offset::ICR, TX).line);
        assert_eq!(peek(&uart, offset::RIS), 0);
    }

    #[test]
    fn a_masked_interrupt_shows_in_ris_alone() {
        let mut uart = fed(Pl011::new(), b"a");
        assert_eq!((peek(&uart, offset::RIS), peek(&uart, offset::MIS)), (RX, 0));
        assert!(!uart.line());
        assert!(set(&mut uart, offset::IMSC, RX).line);
        assert_eq!(peek(&uart, offset::MIS), RX);
        assert!(!set(&mut uart, offset::IMSC, 0).line);
    }

    #[test]
    fn without_fifos_one_character_fits() {
        let mut uart = fed(Pl011::new(), b"a");
        assert!(!uart.can_receive());
        assert!(!uart.receive(b'b').accepted);
        assert_eq!(uart.read(offset::DR, Width::Word).0 & 0xff, u64::from(b'a'));
        assert!(uart.can_receive());
    }

    #[test]
    fn with_fifos_sixteen_characters_come_out_in_order() {
        let mut uart = with_fifo();
        for round in 0..3_u8 {
            for character in 0..16 {
                assert!(uart.can_receive());
                assert!(uart.receive(round ^ character).accepted);
            }
            assert!(!uart.can_receive());
            assert_eq!(peek(&uart, offset::FR), 0xc0);
            for character in 0..16 {
                assert_eq!(uart.read(offset::DR, Width::Byte).0, u64::from(round ^ character));
            }
            assert_eq!(peek(&uart, offset::FR), 0x90);
        }
    }

    #[test]
    fn the_receive_interrupt_falls_when_the_fifo_is_empty() {
        let mut uart = fed(with_fifo(), b"ab");
        let _ = set(&mut uart, offset::IMSC, RX | RT);
        assert!(uart.read(offset::DR, Width::Word).1.line);
        assert!(!uart.read(offset::DR, Width::Word).1.line);
        assert_eq!(peek(&uart, offset::RIS), 0);
    }

    #[test]
    fn a_cleared_receive_interrupt_rises_with_the_next_character() {
        let mut uart = fed(with_fifo(), b"a");
        let _ = set(&mut uart, offset::IMSC, RX);
        assert!(!set(&mut uart, offset::ICR, RX).line);
        assert!(uart.receive(b'b').line);
    }

    #[test]
    fn the_timeout_is_for_characters_below_the_level() {
        for (selection, level) in [(0, 2), (1, 4), (2, 8), (3, 12), (4, 14), (7, 14)] {
            let mut uart = with_fifo();
            let _ = set(&mut uart, offset::IFLS, selection << 3);
            for count in 1..=16 {
                assert!(uart.receive(0).accepted);
                let expected = if count < level { RX | RT } else { RX };
                assert_eq!(peek(&uart, offset::RIS), expected, "{count} of {level}");
                let _ = set(&mut uart, offset::ICR, 0x7ff);
            }
        }
    }

    #[test]
    fn an_overrun_keeps_what_is_there_and_marks_it() {
        let mut uart = fed(Pl011::new(), b"a");
        let _ = set(&mut uart, offset::IMSC, OE);
        assert_eq!(uart.receive(b'b'), Reception { accepted: false, line: true });
        assert_eq!(peek(&uart, offset::RSR_ECR), 8);
        assert_eq!(uart.read(offset::DR, Width::Word).0, 0x800 | u64::from(b'a'));
        assert_eq!(peek(&uart, offset::RSR_ECR), 8);
        let _ = set(&mut uart, offset::RSR_ECR, 0);
        assert_eq!(peek(&uart, offset::RSR_ECR), 0);
        assert!(uart.receive(b'c').accepted);
        assert_eq!(uart.read(offset::DR, Width::Word).0, u64::from(b'c'));
        assert!(!set(&mut uart, offset::ICR, OE).line);
    }

    #[test]
    fn turning_fifos_on_or_off_empties_them() {
        let mut uart = fed(with_fifo(), b"abc");
        let _ = set(&mut uart, offset::LCR_H, 0x70);
        assert_eq!(peek(&uart, offset::FR) & 0x10, 0);
        let _ = set(&mut uart, offset::LCR_H, 0x60);
        assert_eq!(peek(&uart, offset::FR), 0x90);
        assert_eq!(peek(&uart, offset::RIS), 0);
    }

    #[test]
    fn an_empty_fifo_reads_zero_and_stays_empty() {
        let mut uart = with_fifo();
        assert_eq!(uart.read(offset::DR, Width::Word).0, 0);
        assert_eq!(uart, with_fifo());
    }

    #[test]
    fn loopback_returns_what_is_sent_and_disconnects_the_outside() {
        let mut uart = with_fifo();
        let _ = set(&mut uart, offset::CR, 0x381);
        assert!(!uart.can_receive());
        assert!(!uart.receive(b'x').accepted);
        assert_eq!(set(&mut uart, offset::DR, 0x41).transmit, Some(0x41));
        assert_eq!(peek(&uart, offset::RIS), RX | TX | RT);
        assert_eq!(uart.read(offset::DR, Width::Word).0, 0x41);
        for character in 0..17 {
            let _ = set(&mut uart, offset::DR, character);
        }
        assert_eq!(peek(&uart, offset::RIS) & OE, OE);
        let _ = set(&mut uart, offset::CR, 0x301);
        assert_eq!(uart.read(offset::DR, Width::Word).0, 0x800);
        assert!(uart.can_receive());
    }

    #[test]
    fn loopback_joins_each_modem_output_to_its_input() {
        for (output, input, interrupt) in [
            (1 << 11, 1 << 0, 1 << 1),
            (1 << 10, 1 << 1, 1 << 3),
            (1 << 12, 1 << 2, 1 << 2),
            (1 << 13, 1 << 8, 1),
        ] {
            let mut uart = Pl011::new();
            let _ = set(&mut uart, offset::CR, output);
            assert_eq!((peek(&uart, offset::FR), peek(&uart, offset::RIS)), (0x90, 0));
            let _ = set(&mut uart, offset::CR, output | 1 << 7);
            assert_eq!((peek(&uart, offset::FR), peek(&uart, offset::RIS)), (0x90 | input, interrupt));
            let _ = set(&mut uart, offset::ICR, 0x7ff);
            let _ = set(&mut uart, offset::CR, output | 1 << 7);
            assert_eq!(peek(&uart, offset::RIS), 0);
            let _ = set(&mut uart, offset::CR, 1 << 7);
            assert_eq!((peek(&uart, offset::FR), peek(&uart, offset::RIS)), (0x90, interrupt));
        }
    }

    #[test]
    fn a_break_in_loopback_arrives_as_one() {
        let mut uart = with_fifo();
        let _ = set(&mut uart, offset::LCR_H, 0x71);
        assert_eq!(peek(&uart, offset::FR), 0x90);
        let _ = set(&mut uart, offset::LCR_H, 0x70);
        let _ = set(&mut uart, offset::CR, 0x380);
        let _ = set(&mut uart, offset::LCR_H, 0x71);
        assert_eq!(peek(&uart, offset::RIS), RX | RT | 1 << 9);
        assert_eq!(uart.read(offset::DR, Width::Word).0, 1 << 10);
        assert_eq!(peek(&uart, offset::RSR_ECR), 1 << 2);
        let _ = set(&mut uart, offset::LCR_H, 0x70);
        assert_eq!(uart.read(offset::DR, Width::Word).0, 0, "the end of a break is no character");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Read(u64, Width),
        Write(u64, Width, u64),
        Receive(u8),
    }

    fn width() -> impl Strategy<Value = Width> {
        prop::sample::select(vec![Width::Byte, Width::Half, Width::Word, Width::Double])
    }

    fn any_offset() -> impl Strategy<Value = u64> {
        prop_oneof![6 => (0_u64..0x13).prop_map(|word| word * 4), 1 => 0_u64..0x1000, 1 => any::<u64>()]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => (any_offset(), width()).prop_map(|(offset, width)| Step::Read(offset, width)),
            2 => (any_offset(), width(), any::<u64>())
                .prop_map(|(offset, width, value)| Step::Write(offset, width, value)),
            3 => any::<u8>().prop_map(Step::Receive),
        ]
    }

    /// Takes a step and returns the level of the line that it reported.
    fn take(uart: &mut Pl011, step: Step) -> bool {
        match step {
            Step::Read(offset, width) => {
                let (value, effect) = uart.read(offset, width);
                assert_eq!(value & !width.mask(), 0);
                assert_eq!(effect.transmit, None);
                effect.line
            }
            Step::Write(offset, width, value) => {
                let effect = uart.write(offset, width, value);
                assert_eq!(effect.transmit.is_some(), offset == offset::DR);
                effect.line
            }
            Step::Receive(character) => {
                let could = uart.can_receive();
                let reception = uart.receive(character);
                assert_eq!(reception.accepted, could);
                reception.line
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 8 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn no_sequence_panics_and_the_line_is_what_mis_says(steps in prop::collection::vec(step(), 0..64)) {
            let mut uart = Pl011::new();
            for step in steps {
                let line = take(&mut uart, step);
                prop_assert_eq!(line, uart.line());
                prop_assert_eq!(line, peek(&uart, offset::MIS) != 0);
                prop_assert!(uart.fifo.count <= uart.depth());
            }
        }

        #[test]
        fn reads_never_change_state_except_of_the_data_register(
            steps in prop::collection::vec(step(), 0..32),
            (offset, width) in (any_offset(), width()),
        ) {
            let mut uart = Pl011::new();
            for step in steps {
                let _ = take(&mut uart, step);
            }
            let before = uart.clone();
            let (first, _) = uart.read(offset, width);
            if offset >= 4 {
                prop_assert_eq!(&uart, &before);
                prop_assert_eq!(uart.read(offset, width).0, first);
            } else {
                prop_assert_eq!(uart.fifo.count, before.fifo.count.saturating_sub(1));
            }
        }
    }
}

//! The receiving end of YMODEM: how a bundle comes over a serial line.
//!
//! Not here: the UART, and what becomes of the bytes. Every byte may be noise or hostile, and time is an argument.
//! Follows Chuck Forsberg, *XMODEM/YMODEM Protocol Reference*, 14 October 1988, chapters 4 to 7: CRC-16, blocks of 128
//! and 1024 bytes, one file. YMODEM-g and checksums of one byte are not spoken.
//!
//! ```text
//!   here        there (`sb`)
//!   C           SOH 0 "name" 0 "size"      block 0; until it comes, C once a second
//!   ACK C       STX 1 1024 bytes
//!   ACK         ...                        a block that is damaged: silence, then NAK
//!   ACK         EOT
//!   ACK C       SOH 0 0...                 no further file
//!   ACK
//! ```

use core::fmt;
use crc::{CRC_16_XMODEM, Crc, NoTable};

use crate::ids::Ticks;

#[cfg(test)]
mod tests;

const SOH: u8 = 0x01;
const STX: u8 = 0x02;
const EOT: u8 = 0x04;
const ACK: u8 = 0x06;
const NAK: u8 = 0x15;
const CAN: u8 = 0x18;

/// Start, number, its complement.
const HEADER_BYTES: usize = 3;
const CRC_BYTES: usize = 2;
const SHORT_BYTES: usize = HEADER_BYTES + 128 + CRC_BYTES;
const LONG_BYTES: usize = HEADER_BYTES + 1024 + CRC_BYTES;
/// So many CANs in a row, in a block that was cut off, are a sender that gave up.
const CANCELS: [u8; 5] = [CAN; 5];
/// How long the line is silent before something is said again, in seconds, while nothing has begun or bytes are missing.
const BEAT_SECONDS: u64 = 1;
/// The same between blocks.
const PAUSE_SECONDS: u64 = 3;
/// How long a transfer may go without a further block, in seconds.
const PATIENCE_SECONDS: u64 = 30;

static CRC16: Crc<u16, NoTable> = Crc::<u16, NoTable>::new(&CRC_16_XMODEM);

/// Says why a transfer failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The sender gave up.
    Cancelled,
    /// Nothing useful came for too long.
    Silent,
    /// A block is missing, or there is one too many.
    OutOfStep,
    /// The bundle is longer than this room, in bytes.
    TooLong(usize),
    /// A second file follows.
    SecondFile,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "the sender cancelled",
            Self::Silent => "no block came for 30 s",
            Self::OutOfStep => "blocks are missing, or too many",
            Self::SecondFile => "a second file follows: send one",
            Self::TooLong(room) => return write!(f, "it is longer than the {room} bytes that are free"),
        })
    }
}

/// Says how an offer ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// So many bytes are in the memory.
    Received(usize),
    /// Enter was pressed, or the time is over.
    Declined,
    /// A transfer began and failed.
    Failed(Failure),
}

/// What to do now: send this, and stop if there is an outcome.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Bytes for the sender.
    pub reply: &'static [u8],
    /// How the offer ended.
    pub outcome: Option<Outcome>,
}

const fn send(reply: &'static [u8]) -> Step {
    Step { reply, outcome: None }
}

const LISTEN: Step = send(&[]);

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Block 0, or Enter.
    Offer,
    /// The next block of the file, or its end.
    Blocks,
    /// The block that says that no file follows.
    Closing,
    /// Silence, to say why.
    Failed(Failure),
}

/// A receiver of one file.
pub struct Receiver<'m> {
    memory: &'m mut [u8],
    second: u64,
    deadline: Option<Ticks>,
    phase: Phase,
    /// Length of the file, where block 0 says it.
    announced: Option<usize>,
    received: usize,
    /// Number of the block that comes next.
    next: u8,
    packet: [u8; LONG_BYTES],
    filled: usize,
    wanted: usize,
    /// Whether bytes are ignored until the line is silent: what follows a damaged start is not to be understood.
    is_deaf: bool,
    was_can: bool,
    /// When the last byte came or went.
    heard: Ticks,
    /// When the last block was taken.
    moved: Ticks,
}

impl<'m> Receiver<'m> {
    #[inline(never)]
    /// Offers to receive into `memory`, from `now` on: for so many seconds, or until something comes. A second has
    /// `second` ticks.
    #[must_use]
    pub fn new(memory: &'m mut [u8], second: u64, now: Ticks, seconds: Option<u32>) -> Self {
        let limit = |seconds| Ticks(now.0.saturating_add(second.saturating_mul(u64::from(seconds))));
        Self {
            memory,
            second,
            deadline: seconds.map(limit),
            phase: Phase::Offer,
            announced: None,
            received: 0,
            next: 0,
            packet: [0; LONG_BYTES],
            filled: 0,
            wanted: 0,
            is_deaf: false,
            was_can: false,
            heard: now,
            moved: now,
        }
    }

    /// Takes what the line has `now`: a byte, or nothing.
    #[inline(never)]
    pub fn take(&mut self, byte: Option<u8>, now: Ticks) -> Step {
        let is_over = self.is_past(self.moved, PATIENCE_SECONDS, now);
        match self.phase {
            Phase::Offer if self.filled == 0 && self.deadline.is_some_and(|deadline| deadline <= now) => {
                return self.end(Outcome::Declined);
            }
            Phase::Blocks if is_over => return self.fail(Failure::Silent, now),
            Phase::Closing if is_over => return self.end(Outcome::Received(self.received)),
            Phase::Failed(failure) if is_over => return self.end(Outcome::Failed(failure)),
            _ => {}
        }
        let Some(byte) = byte else { return self.silence(now) };
        self.heard = now;
        if self.is_deaf {
            return LISTEN;
        }
        if self.filled == 0 {
            return self.first(byte, now);
        }
        self.push(byte);
        if self.filled < self.wanted {
            return LISTEN;
        }
        self.filled = 0;
        self.block(now)
    }

    fn is_past(&self, since: Ticks, seconds: u64, now: Ticks) -> bool {
        now.0.saturating_sub(since.0) >= self.second.saturating_mul(seconds)
    }

    fn end(&self, outcome: Outcome) -> Step {
        let reply: &[u8] = if matches!(outcome, Outcome::Received(_)) { &[ACK] } else { &[] };
        Step { reply, outcome: Some(outcome) }
    }

    fn fail(&mut self, failure: Failure, now: Ticks) -> Step {
        self.phase = Phase::Failed(failure);
        self.is_deaf = true;
        self.moved = now;
        send(&CANCELS)
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.packet.get_mut(self.filled) {
            *place = byte;
            self.filled += 1;
        }
    }

    /// Says again what is wanted, once nothing came for long enough.
    fn silence(&mut self, now: Ticks) -> Step {
        let is_waiting = self.phase == Phase::Offer || self.is_deaf || self.filled > 0;
        if !self.is_past(self.heard, if is_waiting { BEAT_SECONDS } else { PAUSE_SECONDS }, now) {
            return LISTEN;
        }
        self.heard = now;
        self.is_deaf = false;
        let cut_off = self.packet.get(..self.filled).unwrap_or_default();
        let is_cancelled = cut_off.windows(CANCELS.len()).any(|bytes| bytes == CANCELS);
        self.filled = 0;
        match self.phase {
            Phase::Failed(failure) => self.end(Outcome::Failed(failure)),
            Phase::Blocks if is_cancelled => self.fail(Failure::Cancelled, now),
            Phase::Blocks if self.received > 0 => send(&[NAK]),
            Phase::Offer | Phase::Blocks | Phase::Closing => send(b"C"),
        }
    }

    /// Takes a byte that is not inside a block.
    fn first(&mut self, byte: u8, now: Ticks) -> Step {
        let was_can = core::mem::replace(&mut self.was_can, byte == CAN);
        match (byte, self.phase) {
            (SOH | STX, _) => {
                self.wanted = if byte == SOH { SHORT_BYTES } else { LONG_BYTES };
                self.push(byte);
                LISTEN
            }
            (b'\r' | b'\n', Phase::Offer) => self.end(Outcome::Declined),
            (CAN, Phase::Blocks) if was_can => self.fail(Failure::Cancelled, now),
            // A byte of noise may look like the end: the sender repeats what it meant.
            (EOT, Phase::Blocks) if self.announced.is_some_and(|length| self.received < length) => {
                send(&[NAK])
            }
            (EOT, Phase::Blocks | Phase::Closing) => {
                self.phase = Phase::Closing;
                send(&[ACK, b'C'])
            }
            _ => LISTEN,
        }
    }

    /// Takes the block in `packet`.
    fn block(&mut self, now: Ticks) -> Step {
        let packet = self.packet;
        let [_, number, complement, checked @ ..] = packet.get(..self.wanted).unwrap_or_default() else {
            return LISTEN;
        };
        // The CRC of bytes with their CRC behind them is 0.
        if number ^ complement != u8::MAX || CRC16.checksum(checked) != 0 {
            self.is_deaf = true;
            return LISTEN;
        }
        let content = checked.get(..checked.len().saturating_sub(CRC_BYTES)).unwrap_or_default();
        match (self.phase, *number) {
            (Phase::Offer, 0) => self.begin(content, now),
            (Phase::Blocks, number) if number == self.next => self.store(content, now),
            (Phase::Blocks, 0) if self.received == 0 => send(&[ACK, b'C']), // our answer was lost
            (Phase::Blocks, number) if number == self.next.wrapping_sub(1) => send(&[ACK]),
            (Phase::Blocks, _) => self.fail(Failure::OutOfStep, now),
            (Phase::Closing, 0) if content.first() == Some(&0) => self.end(Outcome::Received(self.received)),
            (Phase::Closing, 0) => self.fail(Failure::SecondFile, now),
            _ => {
                self.is_deaf = true;
                LISTEN
            }
        }
    }

    /// Takes block 0: name, NUL, length in decimal.
    fn begin(&mut self, content: &[u8], now: Ticks) -> Step {
        let mut fields = content.split(|byte| matches!(*byte, 0 | b' '));
        if fields.next().unwrap_or_default().is_empty() {
            return send(&[ACK]); // no file at all
        }
        let digits = fields.next().unwrap_or_default();
        let length = digits.iter().fold(0_usize, |sum, digit| {
            sum.saturating_mul(10).saturating_add(usize::from(digit.saturating_sub(b'0')))
        });
        self.announced = (!digits.is_empty()).then_some(length);
        if length > self.memory.len() {
            return self.fail(Failure::TooLong(self.memory.len()), now);
        }
        self.phase = Phase::Blocks;
        self.next = 1;
        self.moved = now;
        send(&[ACK, b'C'])
    }

    /// Takes a block of the file, whose end may be padding.
    fn store(&mut self, content: &[u8], now: Ticks) -> Step {
        let content = match self.announced.map(|length| length.saturating_sub(self.received)) {
            Some(0) => return self.fail(Failure::OutOfStep, now),
            Some(left) => content.get(..left).unwrap_or(content),
            None => content,
        };
        let end = self.received.saturating_add(content.len());
        let Some(place) = self.memory.get_mut(self.received..end) else {
            return self.fail(Failure::TooLong(self.memory.len()), now);
        };
        place.copy_from_slice(content);
        self.received = end;
        self.next = self.next.wrapping_add(1);
        self.moved = now;
        send(&[ACK])
    }
}

//! A sender on a line that loses, damages and repeats; and bytes that nobody meant.

use super::*;
use alloc::vec;
use alloc::vec::Vec;
use proptest::collection;
use proptest::prelude::*;

/// Ticks of a second.
const SECOND: u64 = 1000;

fn block(number: u8, content: &[u8], bytes: usize) -> Vec<u8> {
    let mut body = content.to_vec();
    body.resize(bytes, 0x1a);
    let crc = CRC16.checksum(&body);
    let start = if bytes == 128 { SOH } else { STX };
    [&[start, number, !number][..], &body, &crc.to_be_bytes()].concat()
}

fn header(text: &[u8]) -> Vec<u8> {
    block(0, &[text, &[0; 20]].concat(), 128)
}

/// A receiver and its clock.
struct Line<'m> {
    receiver: Receiver<'m>,
    now: u64,
}

impl<'m> Line<'m> {
    fn new(memory: &'m mut [u8]) -> Self {
        Self { receiver: Receiver::new(memory, SECOND, Ticks(0), None), now: 0 }
    }

    /// Sends bytes, a tick each, until there is an outcome.
    fn send(&mut self, bytes: &[u8]) -> (Vec<u8>, Option<Outcome>) {
        let mut replies = Vec::new();
        for byte in bytes {
            self.now += 1;
            let step = self.receiver.take(Some(*byte), Ticks(self.now));
            replies.extend(step.reply);
            if step.outcome.is_some() {
                return (replies, step.outcome);
            }
        }
        (replies, None)
    }

    /// Sends bytes that are to be answered so.
    fn exchange(&mut self, bytes: &[u8], reply: &[u8]) {
        assert_eq!(self.send(bytes), (reply.to_vec(), None));
    }

    /// Lets time pass until something is said, or there is an outcome.
    fn wait(&mut self) -> (u64, Step) {
        for ticks in 1..100 * SECOND {
            self.now += 1;
            let step = self.receiver.take(None, Ticks(self.now));
            if step != LISTEN {
                return (ticks, step);
            }
        }
        panic!("nothing happens any more");
    }

    /// Waits for the outcome.
    fn outcome(&mut self) -> Outcome {
        loop {
            if let (_, Step { outcome: Some(outcome), .. }) = self.wait() {
                return outcome;
            }
        }
    }
}

#[test]
fn a_file_comes_in_blocks_of_both_lengths() {
    let file: Vec<u8> = (0..2500_u16).map(|n| n.to_be_bytes()[1] ^ 0x5a).collect();
    let mut memory = [0; 4000];
    let mut line = Line::new(&mut memory);
    assert_eq!(line.wait(), (SECOND, send(b"C")));
    assert_eq!(line.wait(), (SECOND, send(b"C")));
    line.exchange(&header(b"bundle.itb\x002500 15301440446 100644 0 1 2500"), &[ACK, b'C']);
    line.exchange(&block(1, &file[..1024], 1024), &[ACK]);
    line.exchange(&block(2, &file[1024..2048], 1024), &[ACK]);
    for (number, rest) in (3..).zip(file[2048..].chunks(128)) {
        line.exchange(&block(number, rest, 128), &[ACK]);
    }
    line.exchange(&[EOT], &[ACK, b'C']);
    assert_eq!(line.send(&header(b"")), (vec![ACK], Some(Outcome::Received(2500))));
    assert_eq!(memory[..2500], file);
    assert_eq!(memory[2500..], [0; 1500]);
}

#[test]
fn block_numbers_wrap() {
    let mut memory = vec![0; 300 * 128];
    let mut line = Line::new(&mut memory);
    line.exchange(&header(b"x\x0038400"), &[ACK, b'C']);
    for number in 1..=300_u16 {
        line.exchange(&block(number.to_le_bytes()[0], &number.to_le_bytes(), 128), &[ACK]);
    }
    line.exchange(&[EOT], &[ACK, b'C']);
    assert_eq!(line.send(&header(b"")).1, Some(Outcome::Received(38400)));
    assert_eq!(memory[299 * 128..][..2], 300_u16.to_le_bytes());
}

#[test]
fn enter_declines_before_a_transfer_and_never_within() {
    for enter in [b"\r", b"\n"] {
        assert_eq!(Line::new(&mut []).send(enter).1, Some(Outcome::Declined));
    }
    let mut memory = [0; 128];
    let mut line = Line::new(&mut memory);
    line.exchange(&header(b"x\x00100"), &[ACK, b'C']);
    line.exchange(b"\r\n", &[]);
}

#[test]
fn an_offer_with_a_limit_ends_there_whatever_the_noise() {
    let mut memory = [0; 128];
    let mut receiver = Receiver::new(&mut memory, SECOND, Ticks(5), Some(3));
    let noise = [SOH, 3, 4, CAN, EOT, 0, 0xff];
    let end = (0..100 * SECOND)
        .zip(noise.iter().cycle())
        .find(|(now, byte)| receiver.take(Some(**byte), Ticks(5 + now)).outcome == Some(Outcome::Declined));
    assert!((3 * SECOND..6 * SECOND).contains(&end.unwrap().0));
}

#[test]
fn a_transfer_that_has_begun_outlives_the_limit() {
    let mut memory = [0; 128];
    let mut receiver = Receiver::new(&mut memory, SECOND, Ticks(0), Some(1));
    for (byte, now) in header(b"x\x00100").iter().zip(SECOND - 10..) {
        assert_eq!(receiver.take(Some(*byte), Ticks(now)).outcome, None);
    }
    assert_eq!(receiver.take(None, Ticks(2 * SECOND)), LISTEN);
}

#[test]
fn a_damaged_block_is_asked_for_again_after_silence() {
    let mut memory = [0; 128];
    let mut line = Line::new(&mut memory);
    line.exchange(&header(b"x\x00100"), &[ACK, b'C']);
    let good = block(1, &[7; 100], 128);
    for damaged in [3, 50, SHORT_BYTES - 1] {
        let mut bad = good.clone();
        bad[damaged] ^= 0x10;
        line.exchange(&bad, &[]);
        line.exchange(b"\x04\x18\x18\x01", &[]); // deaf
        assert_eq!(line.wait(), (SECOND, send(b"C"))); // nothing was taken yet
    }
    line.exchange(&good[..70], &[]);
    assert_eq!(line.wait(), (SECOND, send(b"C")));
    line.exchange(&good, &[ACK]);
    line.exchange(&good[..3], &[]);
    assert_eq!(line.wait(), (SECOND, send(&[NAK])));
    line.exchange(&good, &[ACK]); // our answer was lost
    line.exchange(&[EOT], &[ACK, b'C']);
    line.exchange(&[EOT], &[ACK, b'C']);
    assert_eq!(line.send(&header(b"")).1, Some(Outcome::Received(100)));
    assert_eq!(memory[..100], [7; 100]);
}

#[test]
fn an_end_too_early_is_noise() {
    let mut memory = [0; 256];
    let mut line = Line::new(&mut memory);
    line.exchange(&header(b"x\x00200"), &[ACK, b'C']);
    line.exchange(&header(b"x\x00200"), &[ACK, b'C']); // our answer was lost
    line.exchange(&block(1, &[1; 128], 128), &[ACK]);
    line.exchange(&[EOT], &[NAK]);
    line.exchange(&block(2, &[2; 72], 128), &[ACK]);
    line.exchange(&[EOT], &[ACK, b'C']);
    assert_eq!(line.outcome(), Outcome::Received(200)); // a sender that says no more is forgiven
}

#[test]
fn a_file_of_unknown_length_is_as_long_as_its_blocks() {
    let mut memory = [0; 256];
    let mut line = Line::new(&mut memory);
    line.exchange(&header(b"x"), &[ACK, b'C']);
    line.exchange(&block(1, &[1; 128], 128), &[ACK]);
    line.exchange(&[EOT], &[ACK, b'C']);
    assert_eq!(line.send(&header(b"")).1, Some(Outcome::Received(128)));
}

#[test]
fn transfers_fail_for_a_reason_and_once_the_line_is_silent() {
    let first = block(1, &[1; 128], 128);
    let cut_off = [&block(1, &[1; 128], 1024)[..60], &CANCELS, &[8; 10]].concat();
    let cases: [(&[u8], &[u8], Failure); 9] = [
        (b"x\x00100", &[CAN, CAN], Failure::Cancelled),
        (b"x\x00100", &cut_off, Failure::Cancelled),
        (b"x\x00100", &[], Failure::Silent),
        (b"x\x00100", &block(2, &[], 128), Failure::OutOfStep),
        (b"x\x00100", &[&first[..], &block(2, &[], 128)].concat(), Failure::OutOfStep),
        (b"x\x00257", &[], Failure::TooLong(256)),
        (b"x\x0099999999999999999999999999", &[], Failure::TooLong(256)),
        (b"x", &block(1, &[1; 1024], 1024), Failure::TooLong(256)),
        (b"x\x00100", &[&first[..], &[EOT], &header(b"y\x00100")].concat(), Failure::SecondFile),
    ];
    for (text, bytes, failure) in cases {
        let mut memory = [0; 256];
        let mut line = Line::new(&mut memory);
        let _ = line.send(&header(text));
        assert_eq!(line.send(bytes).1, None, "{failure:?}");
        assert_eq!(line.outcome(), Outcome::Failed(failure));
        assert!(line.now < 32 * SECOND, "{failure:?} took {} ticks", line.now);
    }
}

#[test]
fn a_sender_that_keeps_talking_does_not_keep_a_failed_transfer() {
    let mut memory = [0; 256];
    let mut line = Line::new(&mut memory);
    let _ = line.send(&header(b"x\x00257"));
    let (_, outcome) = line.send(&vec![STX; 40_000]);
    assert_eq!(outcome, Some(Outcome::Failed(Failure::TooLong(256))));
}

#[test]
fn a_batch_without_files_changes_nothing() {
    let mut memory = [0; 256];
    let mut line = Line::new(&mut memory);
    line.exchange(&header(b""), &[ACK]);
    assert_eq!(line.wait(), (SECOND, send(b"C")));
}

#[test]
fn failures_say_what_to_do() {
    let said = alloc::format!("{}, {}", Failure::TooLong(5), Failure::SecondFile);
    assert_eq!(said, "it is longer than the 5 bytes that are free, a second file follows: send one");
}

/// What happens to one byte on its way.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Lost,
    Changed(u8),
    Doubled,
}

/// A sender as `sb` is one; `fates` happen to its bytes by number, and answers by number are lost.
fn transfer(file: &[u8], fates: &[(usize, Fate)], lost_answers: &[usize]) -> (Vec<u8>, Outcome) {
    let mut memory = vec![0; file.len() + 10];
    let mut line = Line::new(&mut memory);
    let blocks =
        file.chunks(1024).zip(1_u16..).map(|(content, number)| block(number.to_le_bytes()[0], content, 1024));
    let text = alloc::format!("x\0{} 0", file.len());
    let packets: Vec<_> =
        [header(text.as_bytes())].into_iter().chain(blocks).chain([vec![EOT], header(b"")]).collect();
    let (mut sent, mut answered, mut at) = (0, 0, 0);
    let outcome = loop {
        let Some(packet) = packets.get(at) else { break line.outcome() };
        let mut bytes = Vec::new();
        for byte in packet {
            match fates.iter().find(|(number, _)| *number == sent).map(|(_, fate)| *fate) {
                None => bytes.push(*byte),
                Some(Fate::Lost) => {}
                Some(Fate::Changed(by)) => bytes.push(byte ^ by),
                Some(Fate::Doubled) => bytes.extend([*byte; 2]),
            }
            sent += 1;
        }
        let (mut reply, mut outcome) = line.send(&bytes);
        while reply.is_empty() && outcome.is_none() {
            let (_, step) = line.wait();
            (reply, outcome) = (step.reply.to_vec(), step.outcome);
        }
        answered += 1;
        if let Some(outcome) = outcome {
            break outcome;
        }
        if reply.first() == Some(&CAN) {
            break line.outcome();
        }
        // An answer that is lost makes the sender say it all again.
        at += usize::from(reply[0] == ACK && !lost_answers.contains(&answered));
    };
    (memory, outcome)
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![Just(Fate::Lost), (1..=255_u8).prop_map(Fate::Changed), Just(Fate::Doubled)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]

    #[test]
    fn what_is_received_is_what_was_sent(
        file in collection::vec(any::<u8>(), 1..5000),
        fates in collection::vec((0..6000_usize, fate()), 0..4),
        lost_answers in collection::vec(1..12_usize, 0..3),
    ) {
        let (memory, outcome) = transfer(&file, &fates, &lost_answers);
        match outcome {
            Outcome::Received(length) => prop_assert_eq!(&memory[..length], &file[..]),
            Outcome::Failed(_) => {}
            Outcome::Declined => prop_assert!(fates.iter().any(|(number, _)| *number < SHORT_BYTES)),
        }
        if fates.is_empty() && lost_answers.is_empty() {
            prop_assert_eq!(outcome, Outcome::Received(file.len()));
        }
    }

    #[test]
    fn no_bytes_at_no_time_panic_or_leave_the_memory(
        room in 0..3000_usize,
        pieces in collection::vec(prop_oneof![
            collection::vec(any::<u8>(), 0..1100),
            collection::vec(prop_oneof![Just(SOH), Just(STX), Just(EOT), Just(CAN), Just(b'\r')], 0..40),
            (any::<u8>(), any::<bool>(), collection::vec(any::<u8>(), 0..128))
                .prop_map(|(number, long, content)| block(number % 4, &content, if long { 1024 } else { 128 })),
            prop_oneof![Just(0_u64), any::<u64>()].prop_map(|size| header(alloc::format!("x\0{size}").as_bytes())),
        ], 0..12),
        pauses in collection::vec(any::<u64>(), 12),
        second in prop_oneof![Just(0), Just(SECOND), any::<u64>()],
        limit in any::<Option<u32>>(),
    ) {
        let mut memory = vec![0; room];
        let mut now = Ticks(0);
        let mut receiver = Receiver::new(&mut memory, second, now, limit);
        for (piece, pause) in pieces.iter().zip(pauses) {
            for byte in piece {
                if let Some(Outcome::Received(length)) = receiver.take(Some(*byte), now).outcome {
                    prop_assert!(length <= room);
                }
            }
            now = Ticks(now.0.saturating_add(pause >> (pause & 63)));
            let _ = receiver.take(None, now);
        }
    }
}

//! Keys, from the bytes that a terminal sends for them.
//!
//! Not here: what a key does to the line.
//! Follows ECMA-48, 5.4 (control sequences) and what xterm and the VT220 send: cursor and editing keys.

/// A key, or what several of them mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    /// A printable ASCII character.
    Character(char),
    Enter,
    Tab,
    Backspace,
    Delete,
    Left,
    Right,
    WordLeft,
    WordRight,
    Home,
    End,
    /// The line typed before.
    Up,
    /// The line typed after.
    Down,
    EraseWord,
    EraseLine,
    /// Ctrl-C: the line is not meant.
    Cancel,
    /// Ctrl-D.
    EndOfInput,
    /// Ctrl-L.
    ClearScreen,
}

const ESCAPE: u8 = 0x1b;

/// What was typed of a key that takes several bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    None,
    /// ESC.
    Escape,
    /// ESC O.
    Application,
    /// ESC \[ and its parameters.
    Sequence([u8; 2], Parameter),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Parameter {
    First,
    Second,
    Further,
}

/// Turns bytes into keys. Bytes that are no key are lost: a sequence that is not known, and what is not ASCII.
#[derive(Debug)]
pub struct Keys {
    part: Part,
    /// The last byte was a carriage return: a line feed after it is the same Enter.
    was_return: bool,
}

impl Keys {
    pub const fn new() -> Self {
        Self { part: Part::None, was_return: false }
    }

    /// Takes a byte; returns the key that it completes.
    pub fn take(&mut self, byte: u8) -> Option<Key> {
        let was_return = core::mem::replace(&mut self.was_return, byte == b'\r');
        let part = core::mem::replace(&mut self.part, Part::None);
        match (part, byte) {
            (_, ESCAPE) => {
                self.part = Part::Escape;
                None
            }
            // A control character ends what was begun: Enter always works.
            (_, b'\n') if was_return => None,
            (_, 0..0x20) | (Part::None, _) => plain(byte),
            (Part::Escape, _) => self.after_escape(byte),
            (Part::Application, _) => cursor(byte, false),
            (Part::Sequence(numbers, at), _) => self.in_sequence(numbers, at, byte),
        }
    }

    fn after_escape(&mut self, byte: u8) -> Option<Key> {
        match byte {
            b'[' => self.part = Part::Sequence([0; 2], Parameter::First),
            b'O' => self.part = Part::Application,
            b'b' => return Some(Key::WordLeft),
            b'f' => return Some(Key::WordRight),
            0x7f => return Some(Key::EraseWord),
            _ => {}
        }
        None
    }

    fn in_sequence(&mut self, [first, second]: [u8; 2], at: Parameter, byte: u8) -> Option<Key> {
        let more = |number: u8| number.saturating_mul(10).saturating_add(byte.wrapping_sub(b'0'));
        let (numbers, at) = match (byte, at) {
            (0x40..=0x7e, _) => return sequence(byte, first, second),
            (b'0'..=b'9', Parameter::First) => ([more(first), second], at),
            (b'0'..=b'9', Parameter::Second) => ([first, more(second)], at),
            (b';', Parameter::First) => ([first, second], Parameter::Second),
            (b';', _) => ([first, second], Parameter::Further),
            (0x80.., _) => return None,
            _ => ([first, second], at),
        };
        self.part = Part::Sequence(numbers, at);
        None
    }
}

fn plain(byte: u8) -> Option<Key> {
    Some(match byte {
        b' '..=b'~' => Key::Character(byte.into()),
        b'\r' | b'\n' => Key::Enter,
        b'\t' => Key::Tab,
        0x08 | 0x7f => Key::Backspace,
        0x01 => Key::Home,
        0x02 => Key::Left,
        0x03 => Key::Cancel,
        0x04 => Key::EndOfInput,
        0x05 => Key::End,
        0x06 => Key::Right,
        0x0c => Key::ClearScreen,
        0x0e => Key::Down,
        0x10 => Key::Up,
        0x15 => Key::EraseLine,
        0x17 => Key::EraseWord,
        _ => return None,
    })
}

/// Reads a control sequence that `last` ends; the second parameter says which modifiers were held.
fn sequence(last: u8, first: u8, second: u8) -> Option<Key> {
    match (last, first) {
        (b'~', 1 | 7) => Some(Key::Home),
        (b'~', 4 | 8) => Some(Key::End),
        (b'~', 3) => Some(Key::Delete),
        _ => cursor(last, second > 1),
    }
}

fn cursor(last: u8, is_modified: bool) -> Option<Key> {
    Some(match last {
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'C' if is_modified => Key::WordRight,
        b'D' if is_modified => Key::WordLeft,
        b'C' => Key::Right,
        b'D' => Key::Left,
        b'H' => Key::Home,
        b'F' => Key::End,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut keys = Keys::new();
        bytes.iter().filter_map(|byte| keys.take(*byte)).collect()
    }

    #[test]
    fn every_way_to_end_a_line_is_one_enter() {
        for (bytes, enters) in
            [(&b"\r"[..], 1), (b"\n", 1), (b"\r\n", 1), (b"\n\n", 2), (b"\r\r\n", 2), (b"\r\n\n", 2)]
        {
            assert_eq!(keys(bytes), [Key::Enter].repeat(enters), "{bytes:?}");
        }
    }

    #[test]
    fn terminals_differ_in_what_they_send() {
        for (bytes, key) in [
            (&b"\x1b[A"[..], Key::Up),
            (b"\x1bOB", Key::Down),
            (b"\x1b[1;5D", Key::WordLeft),
            (b"\x1bf", Key::WordRight),
            (b"\x1b[C", Key::Right),
            (b"\x1b[H", Key::Home),
            (b"\x1b[4~", Key::End),
            (b"\x1b[3~", Key::Delete),
            (b"\x7f", Key::Backspace),
            (b"\x08", Key::Backspace),
            (b"\x1b\x7f", Key::EraseWord),
        ] {
            assert_eq!(keys(bytes), [key], "{bytes:?}");
        }
    }

    #[test]
    fn an_unknown_sequence_leaves_nothing_behind() {
        assert_eq!(keys(b"\x1b[200~\x1b[?1;2c\x1bOP\x1b[99999;99999;99999Z"), []);
    }

    #[test]
    fn an_unfinished_sequence_does_not_eat_the_enter() {
        assert_eq!(keys(b"\x1b[1;\r\x1b\r\x1bO\r"), [Key::Enter; 3]);
        assert_eq!(keys(b"\x1b[\x1b[A"), [Key::Up]);
    }

    #[test]
    fn what_is_not_ascii_is_no_key() {
        assert_eq!(keys("\u{fc}x\u{20ac}".as_bytes()), [Key::Character('x')]);
        assert_eq!(keys(&[0xff, 0x80, 0x00, b'a']), [Key::Character('a')]);
    }
}

//! The monitor's shell: lines as they are typed, the commands that they are, and reports as text.
//!
//! Not here: carrying a command out, and who else writes on the terminal (the library's `terminal`).
//! Follows ECMA-48 (control sequences); the line itself and the history are `editline`'s.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod command;
mod keys;
pub mod report;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use editline::{History, LineBuffer};

pub use command::{Command, Name, unknown_vm};
use command::{Line, completions, last_word};
use keys::{Key, Keys};

const BANNER: &str = "The monitor: 'help' lists its commands, Ctrl-] goes back.\n";
const PROMPT: &str = "trapeze> ";
/// Most characters of a line: with the prompt it stays in 80 columns.
const MAX_LINE: usize = 70;
/// Lines that are remembered.
const MAX_HISTORY: usize = 16;

const BELL: u8 = 0x07;

/// A shell: what is being typed, and what was.
pub struct Shell {
    keys: Keys,
    line: LineBuffer,
    history: History,
    names: Vec<Name>,
}

impl fmt::Debug for Shell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shell").field("line", &self.text()).finish_non_exhaustive()
    }
}

impl Default for Shell {
    fn default() -> Self {
        Self::new()
    }
}

impl Shell {
    /// Makes a shell in which nothing was typed yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            keys: Keys::new(),
            line: LineBuffer::new(MAX_LINE),
            history: History::new(MAX_HISTORY),
            names: Vec::new(),
        }
    }

    /// Says which VMs there are: Tab completes their names.
    pub fn set_names(&mut self, names: Vec<Name>) {
        self.names = names;
    }

    /// Writes what the shell begins with, and a prompt; what was typed before and not ended is forgotten.
    pub fn open(&mut self, out: &mut dyn FnMut(u8)) {
        self.keys = Keys::new();
        write(BANNER, out);
        self.prompt(out);
    }

    /// Begins a new line.
    pub fn prompt(&mut self, out: &mut dyn FnMut(u8)) {
        self.line.clear();
        self.history.reset_view();
        self.redraw(out);
    }

    /// Takes a typed byte. A command comes back when its line has ended; the prompt is then the caller's to ask for, after
    /// what the command has to say.
    #[must_use]
    pub fn typed(&mut self, byte: u8, out: &mut dyn FnMut(u8)) -> Option<Command> {
        match self.keys.take(byte)? {
            Key::Enter => return self.enter(out),
            Key::EndOfInput if self.line.is_empty() => {
                write("\n", out);
                return Some(Command::Quit);
            }
            Key::Character(character) => self.insert(character, out),
            Key::Tab => self.complete(out),
            Key::Cancel => {
                write("^C\n", out);
                self.prompt(out);
            }
            Key::ClearScreen => {
                write("\x1b[H\x1b[2J", out);
                self.redraw(out);
            }
            key => {
                self.edit(key);
                self.redraw(out);
            }
        }
        None
    }

    /// Writes the prompt and the line on the row of the cursor, over what is there.
    pub fn redraw(&self, out: &mut dyn FnMut(u8)) {
        Self::erase(out);
        write(PROMPT, out);
        write(self.text(), out);
        let behind = self.line.len() - self.line.cursor_pos();
        (0..behind).for_each(|_| out(0x08));
    }

    /// Empties the row of the cursor, for somebody else's line.
    pub fn erase(out: &mut dyn FnMut(u8)) {
        write("\r\x1b[K", out);
    }

    /// Returns what is being typed: ASCII, so that a byte is a column.
    fn text(&self) -> &str {
        self.line.as_str().unwrap_or_default()
    }

    fn enter(&mut self, out: &mut dyn FnMut(u8)) -> Option<Command> {
        write("\n", out);
        let text = String::from(self.text());
        self.history.add(&text);
        match Line::read(&text) {
            Line::Command(command) => return Some(command),
            Line::Answered(answer) => write(&answer, out),
            Line::Empty => {}
        }
        self.prompt(out);
        None
    }

    fn insert(&mut self, character: char, out: &mut dyn FnMut(u8)) {
        if self.line.len() >= MAX_LINE {
            return out(BELL);
        }
        self.line.insert_char(character);
        if self.line.cursor_pos() == self.line.len() {
            write(character.encode_utf8(&mut [0; 4]), out);
        } else {
            self.redraw(out);
        }
    }

    fn edit(&mut self, key: Key) {
        let line = &mut self.line;
        match key {
            Key::Backspace => _ = line.delete_before_cursor(),
            Key::Delete | Key::EndOfInput => _ = line.delete_at_cursor(),
            Key::Left => _ = line.move_cursor_left(),
            Key::Right => _ = line.move_cursor_right(),
            Key::WordLeft => _ = line.move_cursor_word_left(),
            Key::WordRight => _ = line.move_cursor_word_right(),
            Key::Home => _ = line.move_cursor_to_start(),
            Key::End => _ = line.move_cursor_to_end(),
            Key::EraseWord => _ = line.delete_word_left(),
            Key::EraseLine => line.clear(),
            Key::Up => {
                let text = String::from(line.as_str().unwrap_or_default());
                if let Some(older) = self.history.previous(&text) {
                    line.load(older);
                }
            }
            Key::Down => {
                if let Some(newer) = self.history.next_entry() {
                    line.load(newer);
                }
            }
            Key::Character(_) | Key::Enter | Key::Tab | Key::Cancel | Key::ClearScreen => {}
        }
    }

    /// Completes the word before the cursor as far as there is one way, or lists the ways.
    fn complete(&mut self, out: &mut dyn FnMut(u8)) {
        let begun = self.text().get(..self.line.cursor_pos()).unwrap_or_default();
        let typed = last_word(begun).1.len();
        let found = completions(begun, &self.names);
        let Some(first) = found.first() else { return out(BELL) };
        let common = found.iter().fold(*first, |common, word| shared_start(common, word));
        let mut rest = String::from(common.get(typed..).unwrap_or_default());
        if found.len() == 1 {
            rest.push(' ');
        } else if rest.is_empty() {
            write("\n", out);
            write(&found.join("  "), out);
            write("\n", out);
            return self.redraw(out);
        }
        rest.chars().for_each(|character| self.insert(character, out));
    }
}

/// Returns what both words begin with.
fn shared_start<'a>(one: &'a str, other: &str) -> &'a str {
    let end = one.char_indices().zip(other.chars()).find(|((_, one), other)| one != other);
    let length = end.map_or(one.len().min(other.len()), |((at, _), _)| at);
    one.get(..length).unwrap_or(one)
}

/// Writes text for a terminal, where a line ends in two characters.
pub fn write(text: &str, out: &mut dyn FnMut(u8)) {
    for byte in text.bytes() {
        if byte == b'\n' {
            out(b'\r');
        }
        out(byte);
    }
}

#[cfg(test)]
mod tests;

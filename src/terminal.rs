//! One terminal for all VMs: in what order their output comes, and who gets what is typed (`typed.rs`).
//!
//! Not here: the UART. What one VM alone writes goes through byte by byte. Of several VMs each line begins with the VM's
//! name: that of the VM in front as it is written, those of the others when they are whole. While the one in front is
//! writing, the others wait for the end of its line; one that stops in the middle, as at a prompt, does not hold them up.
//! While the monitor's shell is open it is in front of all VMs, and their lines come above its prompt.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use shell::{Name, Shell};

use crate::ids::{Ticks, VmId};

mod typed;

pub use typed::ESCAPE;
use typed::MAX_TYPED_BYTES;

/// Most that is kept of a VM's output, in bytes as they will be written; a longer line comes in pieces. It is what others
/// may have to wait for.
const MAX_KEPT_BYTES: usize = 512;

/// A VM that writes.
#[derive(Debug)]
struct Voice {
    vm: VmId,
    name: Box<str>,
    /// What it has written while it was not in front, and is not on the terminal yet: whole lines, and part of one.
    kept: Vec<u8>,
    /// What that comes to on the terminal, in bytes.
    cost: usize,
    /// What was typed to it, and it has not read.
    typed: VecDeque<u8>,
    /// There was no more room for what is typed, and has not been since: the half of it has to be read.
    is_full: bool,
}

impl Voice {
    fn has_line(&self) -> bool {
        self.kept.contains(&b'\n')
    }

    /// Returns what a byte adds on the terminal: the end of a line also the name before it.
    fn line_cost(&self, byte: u8) -> usize {
        if byte == b'\n' { self.name.len() + b"[] \r\n".len() } else { 1 }
    }
}

/// The terminal.
#[derive(Debug)]
pub struct Terminal {
    voices: Vec<Voice>,
    /// Place of the VM that is in front.
    front: usize,
    /// The cursor stands behind a part of a line.
    is_mid_line: bool,
    /// When the VM in front wrote last.
    front_wrote: Ticks,
    /// How long it may be silent in the middle of a line before others go on, in ticks.
    patience: u64,
    /// More VMs are about to join.
    is_opening: bool,
    is_escaped: bool,
    /// What the VM writes comes as it is.
    is_plain: bool,
    /// When what was typed to the VM in front filled its room, or when a VM read last.
    waits_since: Ticks,
    /// The monitor's shell, once it was opened.
    shell: Option<Box<Shell>>,
    is_shell_open: bool,
    /// The shell's prompt is on the row of the cursor.
    has_prompt: bool,
    /// Names that are completed.
    names: Vec<Name>,
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

impl Terminal {
    /// Makes a terminal that nobody uses yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            voices: Vec::new(),
            front: 0,
            is_mid_line: false,
            front_wrote: Ticks(0),
            patience: 0,
            is_opening: false,
            is_escaped: false,
            is_plain: true,
            waits_since: Ticks(0),
            shell: None,
            is_shell_open: false,
            has_prompt: false,
            names: Vec::new(),
        }
    }

    /// Sets how long the one in front may be silent in the middle of a line before it has stopped there, in ticks.
    pub fn set_patience(&mut self, patience: u64) {
        self.patience = patience;
    }

    /// Says that several VMs are going to join: the first must not begin as if it were alone.
    pub fn open(&mut self) {
        self.is_opening = true;
        self.note_change();
    }

    /// Says that all have joined.
    pub fn opened(&mut self) {
        self.is_opening = false;
        self.note_change();
    }

    fn note_change(&mut self) {
        self.is_plain = !self.is_shared() && !self.is_shell_open;
    }

    /// Lets a VM write. The first one is in front.
    pub fn join(&mut self, vm: VmId, name: &str) {
        self.voices.push(Voice {
            vm,
            name: name.into(),
            kept: Vec::with_capacity(MAX_KEPT_BYTES),
            cost: 0,
            typed: VecDeque::with_capacity(MAX_TYPED_BYTES),
            is_full: false,
        });
        self.know(name);
        self.note_change();
    }

    /// Lets the shell complete the name of a VM that may join. One that has joined stays known.
    pub fn know(&mut self, name: &str) {
        if self.names.iter().all(|known| &**known != name) {
            self.names.push(name.into());
            if let Some(shell) = &mut self.shell {
                shell.set_names(self.names.clone());
            }
        }
    }

    /// Takes a VM off, with what is left of its last line.
    pub fn leave(&mut self, vm: VmId, out: &mut dyn FnMut(u8)) {
        let Some(at) = self.place_of(vm) else { return };
        self.write_kept(at, true, out);
        self.voices.remove(at);
        self.note_change();
        let was_in_front = at == self.front;
        if at < self.front || self.front == self.voices.len() {
            self.front = self.front.saturating_sub(1);
        }
        // What the next one has written so far was not to be seen.
        if was_in_front
            && !self.is_shell_open
            && self.voices.get(self.front).is_some_and(|voice| !voice.kept.is_empty())
        {
            self.show_front(out);
        }
    }

    /// Returns the VM in front: the one that is typed to.
    #[must_use]
    pub fn front(&self) -> Option<VmId> {
        self.voices.get(self.front).map(|voice| voice.vm)
    }

    /// Tells whether several VMs share it.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.is_opening || self.voices.len() > 1
    }

    /// Tells whether what a VM writes goes to [`Self::put_plain`]: it is alone, and in front.
    #[must_use]
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Takes a byte that comes as it is.
    #[inline]
    pub fn put_plain(&mut self, byte: u8, out: &mut impl FnMut(u8)) {
        self.is_mid_line = byte != b'\n';
        out(byte);
    }

    /// Takes a byte that a VM writes `now`. Tells whether it ends a line that is kept back: [`Self::write_lines`] is to
    /// be called when the VM in front has had its time.
    pub fn put(&mut self, vm: VmId, byte: u8, now: Ticks, out: &mut dyn FnMut(u8)) -> bool {
        let Some(at) = self.place_of(vm) else { return false };
        if at != self.front || self.is_shell_open {
            return self.keep(at, byte, now, out);
        }
        self.front_wrote = now;
        self.put_in_front(byte, out);
        false
    }

    fn put_in_front(&mut self, byte: u8, out: &mut dyn FnMut(u8)) {
        let Some(voice) = self.voices.get_mut(self.front) else { return };
        // A carriage return alone begins no line: consoles end theirs with both.
        if !self.is_mid_line && byte != b'\r' {
            name(&voice.name, out);
            self.is_mid_line = true;
        }
        out(byte);
        if byte == b'\n' {
            self.is_mid_line = false;
            self.write_next(out);
        }
    }

    /// Writes lines that were kept back, of one VM, unless the one in front is still in the middle of a line. Tells
    /// whether there are more.
    pub fn write_lines(&mut self, now: Ticks, out: &mut dyn FnMut(u8)) -> bool {
        if !self.is_front_busy(now) {
            self.write_next(out);
        }
        self.voices.iter().any(Voice::has_line)
    }

    fn is_front_busy(&self, now: Ticks) -> bool {
        !self.is_shell_open && self.is_mid_line && now.0.wrapping_sub(self.front_wrote.0) < self.patience
    }

    fn write_next(&mut self, out: &mut dyn FnMut(u8)) {
        if let Some(at) = self.voices.iter().position(Voice::has_line) {
            self.write_kept(at, false, out);
        }
    }

    fn keep(&mut self, at: usize, byte: u8, now: Ticks, out: &mut dyn FnMut(u8)) -> bool {
        let is_full = |voice: &Voice| voice.cost + voice.line_cost(byte) > MAX_KEPT_BYTES;
        if self.voices.get(at).is_some_and(is_full) {
            self.write_kept(at, true, out);
        }
        let Some(voice) = self.voices.get_mut(at).filter(|_| byte != b'\r') else { return false };
        voice.cost += voice.line_cost(byte);
        voice.kept.push(byte);
        if byte == b'\n' && !self.is_front_busy(now) {
            self.write_kept(at, false, out);
        }
        self.voices.get(at).is_some_and(Voice::has_line)
    }

    /// Writes the whole lines that are kept of a VM, or all that is.
    fn write_kept(&mut self, at: usize, all: bool, out: &mut dyn FnMut(u8)) {
        let Some(voice) = self.voices.get_mut(at) else { return };
        let whole = voice.kept.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let end = if all { voice.kept.len() } else { whole };
        let Some(lines) = voice.kept.get(..end).filter(|lines| !lines.is_empty()) else { return };
        if self.has_prompt {
            Shell::erase(out);
        }
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            end_line(&mut self.is_mid_line, out);
            name(&voice.name, out);
            line.iter().copied().filter(|byte| *byte != b'\n').for_each(&mut *out);
            self.is_mid_line = true;
            end_line(&mut self.is_mid_line, out);
        }
        voice.kept.drain(..end);
        voice.cost = voice.kept.len();
        self.give_back(out);
    }

    /// Leaves the line that the cursor is on, for one that is nobody's here; [`Self::give_back`] is to follow it.
    pub fn make_way(&mut self, out: &mut dyn FnMut(u8)) {
        if self.has_prompt {
            Shell::erase(out);
        }
        end_line(&mut self.is_mid_line, out);
    }

    /// Goes back to the line that was left, if that is the shell's.
    pub fn give_back(&self, out: &mut dyn FnMut(u8)) {
        if let Some(shell) = self.shell.as_ref().filter(|_| self.has_prompt) {
            shell.redraw(out);
        }
    }

    /// Writes what the VM in front has of its line: the cursor goes there.
    fn show_front(&mut self, out: &mut dyn FnMut(u8)) {
        self.write_kept(self.front, false, out);
        end_line(&mut self.is_mid_line, out);
        let is_shared = self.is_shared();
        let Some(voice) = self.voices.get_mut(self.front) else { return };
        if is_shared || !voice.kept.is_empty() {
            name(&voice.name, out);
            self.is_mid_line = true;
        }
        voice.kept.drain(..).for_each(out);
        voice.cost = 0;
    }

    fn place_of(&self, vm: VmId) -> Option<usize> {
        self.voices.iter().position(|voice| voice.vm == vm)
    }
}

fn end_line(is_mid_line: &mut bool, out: &mut dyn FnMut(u8)) {
    if core::mem::take(is_mid_line) {
        b"\r\n".iter().copied().for_each(out);
    }
}

fn name(name: &str, out: &mut dyn FnMut(u8)) {
    b"[".iter().chain(name.as_bytes()).chain(b"] ").copied().for_each(out);
}

#[cfg(test)]
mod tests;

//! One terminal for all VMs: in what order their output comes, and who gets what is typed.
//!
//! Not here: the UART. What one VM alone writes goes through byte by byte. Of several VMs each line begins with the VM's
//! name: that of the VM in front as it is written, those of the others when they are whole. While the one in front is
//! writing, the others wait for the end of its line; one that stops in the middle, as at a prompt, does not hold them up.
//! While the monitor's shell is open it is in front of all VMs, and their lines come above its prompt.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use shell::{Command, Name, Shell};

use crate::ids::{Ticks, VmId};

/// What begins a command to the terminal: Ctrl-]. Typed twice it is itself.
pub const ESCAPE: u8 = 0x1d;

/// What Ctrl-] does, in a line.
const HELP: &str = "trapeze: after Ctrl-]: m monitor, n next VM, 1-9 that VM, Ctrl-] itself\n";

/// Most that is kept of a VM's output, in bytes as they will be written; a longer line comes in pieces. It is what others
/// may have to wait for.
const MAX_KEPT_BYTES: usize = 512;

/// Most that is typed ahead to a VM that does not read, in bytes. What is more waits in the UART if the VM is alone and not
/// dead; otherwise it is lost, and the escape is still seen.
const MAX_TYPED_BYTES: usize = 1024;

/// How long a VM alone may leave what was typed to it before it counts as dead, in times of [`Terminal::set_patience`].
const LIFE: u64 = 50;

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
#[derive(Debug, Default)]
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
    /// Names of all VMs that have ever joined.
    names: Vec<Name>,
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

    /// Says that several VMs are going to join: the first must not begin as if it were alone. One in front that has been
    /// silent for `patience` ticks in the middle of a line has stopped there.
    pub fn open(&mut self, patience: u64) {
        self.is_opening = true;
        self.patience = patience;
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
        if self.names.iter().all(|known| &**known != name) {
            self.names.push(name.into());
        }
        self.note_change();
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

    /// Takes a byte that was typed `now`. After [`ESCAPE`], m opens the shell, a digit puts the VM of that number in front, n
    /// the next one, and ? or h says so. In the shell, it leads back to the VM in front.
    ///
    /// A command is to be carried out; [`Self::prompt`] is to follow what it has to say.
    #[must_use]
    pub fn typed(&mut self, byte: u8, now: Ticks, out: &mut dyn FnMut(u8)) -> Option<Command> {
        if self.is_shell_open {
            return self.typed_to_shell(byte, out);
        }
        let is_command = self.is_escaped;
        self.is_escaped = !is_command && byte == ESCAPE;
        if is_command && byte != ESCAPE {
            self.command(byte, out);
        } else if !self.is_escaped
            && let Some(voice) = self.voices.get_mut(self.front)
            && voice.typed.len() < MAX_TYPED_BYTES
        {
            voice.typed.push_back(byte);
            if voice.typed.len() == MAX_TYPED_BYTES {
                voice.is_full = true;
                self.waits_since = now;
            }
        }
        None
    }

    fn typed_to_shell(&mut self, byte: u8, out: &mut dyn FnMut(u8)) -> Option<Command> {
        if byte == ESCAPE {
            self.close_shell(out);
            return None;
        }
        let command = self.shell.as_mut()?.typed(byte, out)?;
        self.has_prompt = false;
        Some(command)
    }

    fn command(&mut self, byte: u8, out: &mut dyn FnMut(u8)) {
        match byte {
            b'm' => self.open_shell(out),
            b'n' => self.show(if self.front + 1 >= self.voices.len() { 0 } else { self.front + 1 }, out),
            b'1'..=b'9' => {
                if let Some(at) = self.place_of(VmId(u16::from(byte - b'1'))) {
                    self.show(at, out);
                }
            }
            b'?' | b'h' => self.say(HELP, out),
            _ => {}
        }
    }

    fn open_shell(&mut self, out: &mut dyn FnMut(u8)) {
        self.make_way(out);
        self.is_shell_open = true;
        self.note_change();
        let shell = self.shell.get_or_insert_with(|| Box::new(Shell::new()));
        shell.set_names(self.names.clone());
        shell.open(out);
        self.has_prompt = true;
    }

    /// Leaves the shell, for the VM in front.
    pub fn close_shell(&mut self, out: &mut dyn FnMut(u8)) {
        if self.is_shell_open {
            if self.has_prompt {
                shell::write("\n", out);
            }
            self.has_prompt = false;
            self.is_shell_open = false;
            self.note_change();
            self.show_front(out);
        }
    }

    /// Writes what the monitor has to say, in whole lines.
    pub fn say(&mut self, text: &str, out: &mut dyn FnMut(u8)) {
        self.make_way(out);
        shell::write(text, out);
        self.give_back(out);
    }

    /// Lets the shell, if it is open, ask for the next command.
    pub fn prompt(&mut self, out: &mut dyn FnMut(u8)) {
        if let Some(shell) = self.shell.as_mut().filter(|_| self.is_shell_open) {
            self.has_prompt = true;
            shell.prompt(out);
        }
    }

    /// Puts a VM in front and leaves the shell. `false` if the VM has not joined.
    #[must_use]
    pub fn bring(&mut self, vm: VmId, out: &mut dyn FnMut(u8)) -> bool {
        let Some(at) = self.place_of(vm) else { return false };
        if self.is_shell_open {
            self.front = at;
            self.close_shell(out);
        } else {
            self.show(at, out);
        }
        true
    }

    fn show(&mut self, at: usize, out: &mut dyn FnMut(u8)) {
        if at < self.voices.len() && at != self.front {
            self.front = at;
            self.show_front(out);
        }
    }

    /// Tells whether a byte may be taken from the UART `now`. What is typed to one VM alone waits there while the VM has too
    /// much of it already, unless it has not read for so long that it would keep the escape from being seen.
    #[must_use]
    pub fn has_room(&self, now: Ticks) -> bool {
        let is_dead = || self.patience != 0 && now.0.wrapping_sub(self.waits_since.0) >= self.patience * LIFE;
        !self.is_waiting() || is_dead()
    }

    /// Tells whether what is typed has to wait for a VM: whether there is room is to be asked again.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.is_plain && self.voices.first().is_some_and(|voice| voice.is_full)
    }

    /// Returns the next byte that was typed to a VM, which reads it `now`.
    pub fn read(&mut self, vm: VmId, now: Ticks) -> Option<u8> {
        let at = self.place_of(vm)?;
        let voice = self.voices.get_mut(at)?;
        let byte = voice.typed.pop_front()?;
        voice.is_full &= voice.typed.len() > MAX_TYPED_BYTES / 2;
        self.waits_since = now;
        Some(byte)
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

    /// Tells whether a VM has not read all that was typed to it.
    #[must_use]
    pub fn has_typed(&self, vm: VmId) -> bool {
        self.voices.iter().any(|voice| voice.vm == vm && !voice.typed.is_empty())
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

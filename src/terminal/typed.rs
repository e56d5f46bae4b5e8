//! What is typed at the terminal: to a VM, to the monitor's shell, or to the terminal itself.
//!
//! Not here: what a command to the monitor does.

use alloc::boxed::Box;

use shell::{Command, Shell};

use super::Terminal;
use crate::ids::{Ticks, VmId};

/// What begins a command to the terminal: Ctrl-]. Typed twice it is itself.
pub const ESCAPE: u8 = 0x1d;

/// What Ctrl-] does, in a line.
pub(super) const HELP: &str = "trapeze: after Ctrl-]: m monitor, n next VM, 1-9 that VM, Ctrl-] itself\n";

/// Most that is typed ahead to a VM that does not read, in bytes. What is more waits in the UART if the VM is alone and not
/// dead; otherwise it is lost, and the escape is still seen.
pub(super) const MAX_TYPED_BYTES: usize = 1024;

/// How long a VM alone may leave what was typed to it before it counts as dead, in times of [`Terminal::set_patience`].
pub(super) const LIFE: u64 = 50;

impl Terminal {
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
        let names = &self.names;
        let shell = self.shell.get_or_insert_with(|| {
            let mut shell = Box::new(Shell::new());
            shell.set_names(names.clone());
            shell
        });
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
        let is_dead = || {
            self.patience != 0 && now.0.wrapping_sub(self.waits_since.0) >= self.patience.saturating_mul(LIFE)
        };
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

    /// Tells whether a VM has not read all that was typed to it.
    #[must_use]
    pub fn has_typed(&self, vm: VmId) -> bool {
        self.voices.iter().any(|voice| voice.vm == vm && !voice.typed.is_empty())
    }
}

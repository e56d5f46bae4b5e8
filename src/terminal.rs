//! One terminal for all VMs: in what order their output comes, and who gets what is typed.
//!
//! Not here: the UART. What one VM alone writes goes through byte by byte. Of several VMs each line begins with the VM's
//! name: that of the VM in front as it is written, those of the others when they are whole, so that lines never mix.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::ids::VmId;

/// What begins a command to the terminal where there are several VMs: Ctrl-]. Typed twice it is itself.
pub const ESCAPE: u8 = 0x1d;

/// Longest line that is kept whole, in bytes; a longer one comes in pieces.
const MAX_LINE_BYTES: usize = 256;

/// What became of a byte that was typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Typed {
    /// It goes to the VM in front.
    Pass(u8),
    /// It was a command, or the beginning of one.
    Taken,
    /// Another VM is in front now.
    Switched,
}

/// A VM that writes.
#[derive(Debug)]
struct Voice {
    vm: VmId,
    name: Box<str>,
    /// What it has written of a line that is not whole yet, while it is not in front.
    line: Vec<u8>,
}

/// The terminal.
#[derive(Debug, Default)]
pub struct Terminal {
    voices: Vec<Voice>,
    /// Place of the VM that is in front.
    front: usize,
    /// The cursor stands behind a part of a line.
    is_mid_line: bool,
    is_escaped: bool,
}

impl Terminal {
    /// Makes a terminal that nobody uses yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { voices: Vec::new(), front: 0, is_mid_line: false, is_escaped: false }
    }

    /// Lets a VM write. The first one is in front.
    pub fn join(&mut self, vm: VmId, name: &str) {
        self.voices.push(Voice { vm, name: name.into(), line: Vec::new() });
    }

    /// Takes a VM off, with what is left of its last line.
    pub fn leave(&mut self, vm: VmId, out: &mut impl FnMut(u8)) {
        let Some(at) = self.place_of(vm) else { return };
        if self.voices.get(at).is_some_and(|voice| !voice.line.is_empty()) {
            self.write_line(at, out);
        }
        self.voices.remove(at);
        let was_in_front = at == self.front;
        if at < self.front || self.front == self.voices.len() {
            self.front = self.front.saturating_sub(1);
        }
        // What the next one has written so far was not to be seen.
        if was_in_front && self.voices.get(self.front).is_some_and(|voice| !voice.line.is_empty()) {
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
        self.voices.len() > 1
    }

    /// Takes a byte that a VM has written.
    pub fn put(&mut self, vm: VmId, byte: u8, out: &mut impl FnMut(u8)) {
        if !self.is_shared() {
            self.is_mid_line = byte != b'\n';
            return out(byte);
        }
        let Some(at) = self.place_of(vm) else { return };
        if at == self.front { self.put_in_front(byte, out) } else { self.keep(at, byte, out) }
    }

    fn put_in_front(&mut self, byte: u8, out: &mut impl FnMut(u8)) {
        let Some(voice) = self.voices.get_mut(self.front) else { return };
        // A carriage return alone begins no line: consoles end theirs with both.
        if !self.is_mid_line && byte != b'\r' {
            name(&voice.name, out);
            self.is_mid_line = true;
        }
        out(byte);
        if byte == b'\n' {
            self.is_mid_line = false;
        }
    }

    fn keep(&mut self, at: usize, byte: u8, out: &mut impl FnMut(u8)) {
        let Some(voice) = self.voices.get_mut(at) else { return };
        if byte != b'\n' && voice.line.len() < MAX_LINE_BYTES {
            voice.line.push(byte);
        } else {
            self.write_line(at, out);
            if byte != b'\n' {
                self.keep(at, byte, out);
            }
        }
    }

    /// Writes what is kept of a VM's line as a line.
    fn write_line(&mut self, at: usize, out: &mut impl FnMut(u8)) {
        self.end_line(out);
        let Some(voice) = self.voices.get_mut(at) else { return };
        name(&voice.name, out);
        voice.line.drain(..).filter(|byte| *byte != b'\r').for_each(&mut *out);
        self.is_mid_line = true;
        self.end_line(out);
    }

    /// Ends the line that the cursor is on, for somebody else's.
    pub fn end_line(&mut self, out: &mut impl FnMut(u8)) {
        if self.is_mid_line {
            out(b'\r');
            out(b'\n');
            self.is_mid_line = false;
        }
    }

    /// Takes a byte that was typed: after [`ESCAPE`], a digit puts the VM of that number in front, and n the next one.
    pub fn typed(&mut self, byte: u8, out: &mut impl FnMut(u8)) -> Typed {
        if !self.is_shared() {
            return Typed::Pass(byte);
        }
        if !self.is_escaped {
            self.is_escaped = byte == ESCAPE;
            return if self.is_escaped { Typed::Taken } else { Typed::Pass(byte) };
        }
        self.is_escaped = false;
        let wanted = match byte {
            ESCAPE => return Typed::Pass(byte),
            b'n' => (self.front + 1) % self.voices.len(),
            b'1'..=b'9' => usize::from(byte - b'1'),
            _ => return Typed::Taken,
        };
        if wanted >= self.voices.len() || wanted == self.front {
            return Typed::Taken;
        }
        self.front = wanted;
        self.show_front(out);
        Typed::Switched
    }

    /// Writes what the VM in front has of its line: the cursor goes there.
    fn show_front(&mut self, out: &mut impl FnMut(u8)) {
        self.end_line(out);
        let Some(voice) = self.voices.get_mut(self.front) else { return };
        name(&voice.name, out);
        voice.line.drain(..).for_each(out);
        self.is_mid_line = true;
    }

    fn place_of(&self, vm: VmId) -> Option<usize> {
        self.voices.iter().position(|voice| voice.vm == vm)
    }
}

fn name(name: &str, out: &mut impl FnMut(u8)) {
    b"[".iter().chain(name.as_bytes()).chain(b"] ").copied().for_each(out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;

    const ONE: VmId = VmId(0);
    const TWO: VmId = VmId(1);

    /// A terminal with what is to be seen on it.
    struct Seen {
        terminal: Terminal,
        text: String,
    }

    impl Seen {
        fn by(names: &[&str]) -> Self {
            let mut terminal = Terminal::new();
            (0..).map(VmId).zip(names).for_each(|(vm, name)| terminal.join(vm, name));
            Self { terminal, text: String::new() }
        }

        fn put(&mut self, vm: VmId, text: &str) -> &mut Self {
            for byte in text.bytes() {
                self.terminal.put(vm, byte, &mut |byte| self.text.push(byte.into()));
            }
            self
        }

        fn typed(&mut self, bytes: &[u8]) -> Vec<Typed> {
            let out = &mut |byte: u8| self.text.push(byte.into());
            bytes.iter().map(|byte| self.terminal.typed(*byte, out)).collect()
        }

        fn leave(&mut self, vm: VmId) {
            self.terminal.leave(vm, &mut |byte| self.text.push(byte.into()));
        }
    }

    #[test]
    fn one_vm_alone_is_passed_through_both_ways() {
        let mut seen = Seen::by(&["one"]);
        seen.put(ONE, "a\rb\n\x1b[6n\n");
        assert_eq!(seen.text, "a\rb\n\x1b[6n\n");
        assert_eq!(seen.typed(&[ESCAPE, b'n']), [Typed::Pass(ESCAPE), Typed::Pass(b'n')]);
    }

    #[test]
    fn lines_of_several_vms_never_mix() {
        let mut seen = Seen::by(&["one", "two"]);
        seen.put(ONE, "pro")
            .put(TWO, "whole ")
            .put(ONE, "mpt> ")
            .put(TWO, "line\r\n\r\npart")
            .put(ONE, "typed\r\n");
        assert_eq!(seen.text, "[one] prompt> \r\n[two] whole line\r\n[two] \r\n[one] typed\r\n");
    }

    #[test]
    fn a_line_without_an_end_comes_in_pieces() {
        let mut seen = Seen::by(&["one", "two"]);
        seen.put(TWO, &"x".repeat(2 * MAX_LINE_BYTES + 1));
        assert_eq!(seen.text, ["[two] ", &"x".repeat(MAX_LINE_BYTES), "\r\n"].concat().repeat(2));
    }

    #[test]
    fn the_escape_puts_another_vm_in_front_with_what_it_has_written() {
        let mut seen = Seen::by(&["one", "two"]);
        seen.put(ONE, "# ").put(TWO, "$ ");
        assert_eq!(seen.typed(&[b'a', ESCAPE, b'2']), [Typed::Pass(b'a'), Typed::Taken, Typed::Switched]);
        assert_eq!(seen.terminal.front(), Some(TWO));
        seen.put(TWO, "b");
        assert_eq!(seen.text, "[one] # \r\n[two] $ b");
        assert_eq!(seen.typed(&[ESCAPE, ESCAPE]), [Typed::Taken, Typed::Pass(ESCAPE)]);
        assert_eq!(seen.typed(&[ESCAPE, b'9', ESCAPE, b'x']), [Typed::Taken; 4]);
        assert_eq!(seen.typed(&[ESCAPE, b'n']), [Typed::Taken, Typed::Switched]);
        assert_eq!(seen.terminal.front(), Some(ONE));
    }

    #[test]
    fn what_a_vm_leaves_is_written_and_the_last_one_is_alone() {
        let mut seen = Seen::by(&["one", "two", "three"]);
        seen.put(TWO, "last words").put(VmId(2), "$ ");
        seen.leave(TWO);
        assert_eq!(seen.text, "[two] last words\r\n");
        seen.leave(ONE);
        assert_eq!(seen.terminal.front(), Some(VmId(2)));
        seen.put(VmId(2), "ls\n");
        assert_eq!(seen.text, "[two] last words\r\n[three] $ ls\n");
        seen.leave(VmId(2));
        assert_eq!(seen.terminal.front(), None);
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost_and_each_line_is_one_vms(
            steps in proptest::collection::vec((0_u16..3, proptest::sample::select(b"ab\n".to_vec())), 0..200),
        ) {
            let mut seen = Seen::by(&["0", "1", "2"]);
            let mut wrote = [const { String::new() }; 3];
            for (vm, byte) in steps {
                wrote[usize::from(vm)].push(byte.into());
                seen.put(VmId(vm), &String::from(char::from(byte)));
            }
            (0..3).map(VmId).for_each(|vm| seen.leave(vm));
            for (vm, text) in wrote.iter().enumerate() {
                let begins = alloc::format!("[{vm}] ");
                let letters = |text: &str| text.chars().filter(char::is_ascii_lowercase).collect::<String>();
                let of_it: String = seen.text.lines().filter_map(|line| line.strip_prefix(&*begins)).collect();
                proptest::prop_assert_eq!(letters(&of_it), letters(text));
            }
        }
    }
}

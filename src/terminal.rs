//! One terminal for all VMs: in what order their output comes, and who gets what is typed.
//!
//! Not here: the UART. What one VM alone writes goes through byte by byte. Of several VMs each line begins with the VM's
//! name: that of the VM in front as it is written, those of the others when they are whole. While the one in front is
//! writing, the others wait for the end of its line; one that stops in the middle, as at a prompt, does not hold them up.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::ids::{Ticks, VmId};

/// What begins a command to the terminal where there are several VMs: Ctrl-]. Typed twice it is itself.
pub const ESCAPE: u8 = 0x1d;

/// Most that is kept of a VM's output, in bytes as they will be written; a longer line comes in pieces. It is what others
/// may have to wait for.
const MAX_KEPT_BYTES: usize = 512;

/// Most that is typed ahead to a VM that does not read, in bytes; what is more is lost, and the escape is still seen.
const MAX_TYPED_BYTES: usize = 1024;

/// A VM that writes.
#[derive(Debug)]
struct Voice {
    vm: VmId,
    name: Box<str>,
    /// What it has written while it was not in front, and is not on the terminal yet: whole lines, and part of one.
    kept: Vec<u8>,
    /// What that comes to on the terminal, in bytes.
    cost: usize,
    /// What was typed to it while several VMs were here, and it has not read.
    typed: VecDeque<u8>,
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
        }
    }

    /// Says that several VMs are going to join: the first must not begin as if it were alone. One in front that has been
    /// silent for `patience` ticks in the middle of a line has stopped there.
    pub fn open(&mut self, patience: u64) {
        self.is_opening = true;
        self.patience = patience;
    }

    /// Says that all have joined.
    pub fn opened(&mut self) {
        self.is_opening = false;
    }

    /// Lets a VM write. The first one is in front.
    pub fn join(&mut self, vm: VmId, name: &str) {
        self.voices.push(Voice {
            vm,
            name: name.into(),
            kept: Vec::with_capacity(MAX_KEPT_BYTES),
            cost: 0,
            typed: VecDeque::with_capacity(MAX_TYPED_BYTES),
        });
    }

    /// Takes a VM off, with what is left of its last line.
    pub fn leave(&mut self, vm: VmId, out: &mut impl FnMut(u8)) {
        let Some(at) = self.place_of(vm) else { return };
        self.write_kept(at, true, out);
        self.voices.remove(at);
        let was_in_front = at == self.front;
        if at < self.front || self.front == self.voices.len() {
            self.front = self.front.saturating_sub(1);
        }
        // What the next one has written so far was not to be seen.
        if was_in_front && self.voices.get(self.front).is_some_and(|voice| !voice.kept.is_empty()) {
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
    #[inline]
    pub fn is_shared(&self) -> bool {
        self.is_opening || self.voices.len() > 1
    }

    /// Takes a byte that comes as it is.
    #[inline]
    pub fn put_plain(&mut self, byte: u8, out: &mut impl FnMut(u8)) {
        self.is_mid_line = byte != b'\n';
        out(byte);
    }

    /// Takes a byte that a VM writes `now`. Tells whether it ends a line that is kept back: [`Self::write_lines`] is to
    /// be called when the VM in front has had its time.
    pub fn put(&mut self, vm: VmId, byte: u8, now: Ticks, out: &mut impl FnMut(u8)) -> bool {
        let Some(at) = self.place_of(vm) else { return false };
        if at != self.front {
            return self.keep(at, byte, now, out);
        }
        self.front_wrote = now;
        self.put_in_front(byte, out);
        false
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
            self.write_next(out);
        }
    }

    /// Writes lines that were kept back, of one VM, unless the one in front is still in the middle of a line. Tells
    /// whether there are more.
    pub fn write_lines(&mut self, now: Ticks, out: &mut impl FnMut(u8)) -> bool {
        if !self.is_front_busy(now) {
            self.write_next(out);
        }
        self.voices.iter().any(Voice::has_line)
    }

    fn is_front_busy(&self, now: Ticks) -> bool {
        self.is_mid_line && now.0.wrapping_sub(self.front_wrote.0) < self.patience
    }

    fn write_next(&mut self, out: &mut impl FnMut(u8)) {
        if let Some(at) = self.voices.iter().position(Voice::has_line) {
            self.write_kept(at, false, out);
        }
    }

    fn keep(&mut self, at: usize, byte: u8, now: Ticks, out: &mut impl FnMut(u8)) -> bool {
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
    fn write_kept(&mut self, at: usize, all: bool, out: &mut impl FnMut(u8)) {
        let Some(voice) = self.voices.get_mut(at) else { return };
        let whole = voice.kept.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let end = if all { voice.kept.len() } else { whole };
        let lines = voice.kept.get(..end).unwrap_or_default();
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            end_line(&mut self.is_mid_line, out);
            name(&voice.name, out);
            line.iter().copied().filter(|byte| *byte != b'\n').for_each(&mut *out);
            self.is_mid_line = true;
            end_line(&mut self.is_mid_line, out);
        }
        voice.kept.drain(..end);
        voice.cost = voice.kept.len();
    }

    /// Ends the line that the cursor is on, for somebody else's.
    pub fn end_line(&mut self, out: &mut impl FnMut(u8)) {
        end_line(&mut self.is_mid_line, out);
    }

    /// Takes a byte that was typed: after [`ESCAPE`], a digit puts the VM of that number in front, and n the next one.
    pub fn typed(&mut self, byte: u8, out: &mut impl FnMut(u8)) {
        let is_command = self.is_escaped;
        self.is_escaped = !is_command && byte == ESCAPE;
        if is_command && byte != ESCAPE {
            self.command(byte, out);
        } else if !self.is_escaped
            && let Some(voice) = self.voices.get_mut(self.front)
            && voice.typed.len() < MAX_TYPED_BYTES
        {
            voice.typed.push_back(byte);
        }
    }

    fn command(&mut self, byte: u8, out: &mut impl FnMut(u8)) {
        let wanted = match byte {
            b'n' if self.front + 1 >= self.voices.len() => 0,
            b'n' => self.front + 1,
            b'1'..=b'9' => usize::from(byte - b'1'),
            _ => return,
        };
        if wanted < self.voices.len() && wanted != self.front {
            self.front = wanted;
            self.show_front(out);
        }
    }

    /// Returns the next byte that was typed to a VM.
    pub fn read(&mut self, vm: VmId) -> Option<u8> {
        let at = self.place_of(vm)?;
        self.voices.get_mut(at)?.typed.pop_front()
    }

    /// Writes what the VM in front has of its line: the cursor goes there.
    fn show_front(&mut self, out: &mut impl FnMut(u8)) {
        self.write_kept(self.front, false, out);
        self.end_line(out);
        let Some(voice) = self.voices.get_mut(self.front) else { return };
        name(&voice.name, out);
        voice.kept.drain(..).for_each(out);
        voice.cost = 0;
        self.is_mid_line = true;
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

fn end_line(is_mid_line: &mut bool, out: &mut impl FnMut(u8)) {
    if core::mem::take(is_mid_line) {
        b"\r\n".iter().copied().for_each(out);
    }
}

fn name(name: &str, out: &mut impl FnMut(u8)) {
    b"[".iter().chain(name.as_bytes()).chain(b"] ").copied().for_each(out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec;

    const ONE: VmId = VmId(0);
    const TWO: VmId = VmId(1);
    const PATIENCE: u64 = 1000;

    /// A terminal with what is to be seen on it.
    struct Seen {
        terminal: Terminal,
        text: String,
        now: Ticks,
    }

    impl Seen {
        fn by(names: &[&str]) -> Self {
            let mut terminal = Terminal::new();
            (0..).map(VmId).zip(names).for_each(|(vm, name)| terminal.join(vm, name));
            terminal.open(PATIENCE);
            terminal.opened();
            Self { terminal, text: String::new(), now: Ticks(0) }
        }

        fn put(&mut self, vm: VmId, text: &str) -> &mut Self {
            self.now.0 += PATIENCE; // whoever is in front has stopped
            self.put_at_once(vm, text)
        }

        fn put_at_once(&mut self, vm: VmId, text: &str) -> &mut Self {
            for byte in text.bytes() {
                let out = &mut |byte: u8| self.text.push(byte.into());
                if self.terminal.is_shared() {
                    let _ = self.terminal.put(vm, byte, self.now, out);
                } else {
                    self.terminal.put_plain(byte, out);
                }
            }
            self
        }

        fn typed(&mut self, bytes: &[u8]) {
            let out = &mut |byte: u8| self.text.push(byte.into());
            bytes.iter().for_each(|byte| self.terminal.typed(*byte, out));
        }

        fn read(&mut self, vm: VmId) -> Vec<u8> {
            core::iter::from_fn(|| self.terminal.read(vm)).collect()
        }

        fn leave(&mut self, vm: VmId) {
            self.terminal.leave(vm, &mut |byte| self.text.push(byte.into()));
        }
    }

    #[test]
    fn what_one_vm_alone_writes_is_passed_through() {
        let mut seen = Seen::by(&["one"]);
        seen.put(ONE, "a\rb\n\x1b[6n\n");
        assert_eq!(seen.text, "a\rb\n\x1b[6n\n");
    }

    #[test]
    fn what_is_typed_ahead_has_an_end_and_does_not_hide_the_escape() {
        let mut seen = Seen::by(&["one", "two"]);
        seen.typed(&[b'x'; MAX_TYPED_BYTES + 1]);
        seen.typed(&[ESCAPE, b'n', b'y']);
        assert_eq!(seen.read(ONE), [b'x'; MAX_TYPED_BYTES]);
        assert_eq!(seen.read(TWO), b"y");
    }

    #[test]
    fn the_first_of_several_is_not_alone() {
        let mut seen = Seen::by(&["one"]);
        seen.terminal.open(PATIENCE);
        seen.put(ONE, "a\n");
        seen.terminal.opened();
        seen.put(ONE, "b\n");
        assert_eq!(seen.text, "[one] a\nb\n");
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
        seen.put(TWO, &"x".repeat(2 * MAX_KEPT_BYTES + 1));
        assert_eq!(seen.text, ["[two] ", &"x".repeat(MAX_KEPT_BYTES), "\r\n"].concat().repeat(2));
    }

    #[test]
    fn others_wait_for_the_line_that_is_being_written() {
        let mut seen = Seen::by(&["one", "two"]);
        seen.put(ONE, "be").put_at_once(TWO, "a\r\nb\r\nc").put_at_once(ONE, "gin\r\n");
        assert_eq!(seen.text, "[one] begin\r\n[two] a\r\n[two] b\r\n");
        seen.text.clear();
        seen.put(ONE, "prompt").put_at_once(TWO, "d\n");
        assert!(seen.terminal.write_lines(seen.now, &mut |_| panic!("too early")));
        seen.put(TWO, "e\n");
        assert_eq!(seen.text, "[one] prompt\r\n[two] cd\r\n[two] e\r\n");
        assert!(!seen.terminal.write_lines(seen.now, &mut |_| panic!("nothing is kept")));
    }

    #[test]
    fn the_escape_puts_another_vm_in_front_with_what_it_has_written() {
        let mut seen = Seen::by(&["one", "two"]);
        seen.put(ONE, "# ").put(TWO, "$ ");
        seen.typed(&[b'a', ESCAPE, b'2', b'b']);
        assert_eq!(seen.terminal.front(), Some(TWO));
        seen.put(TWO, "b");
        assert_eq!(seen.text, "[one] # \r\n[two] $ b");
        seen.typed(&[ESCAPE, ESCAPE, ESCAPE, b'9', ESCAPE, b'x', b'c']);
        assert_eq!((seen.read(ONE), seen.read(TWO)), (vec![b'a'], vec![b'b', ESCAPE, b'c']));
        seen.typed(&[ESCAPE, b'n']);
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

//! Several VMs, an operator and the monitor at one terminal.

use super::typed::{HELP, LIFE};
use super::*;
use alloc::string::String;
use alloc::vec;
use shell::Command;

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
        terminal.set_patience(PATIENCE);
        terminal.open();
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
            if self.terminal.is_plain() {
                self.terminal.put_plain(byte, out);
            } else {
                let _ = self.terminal.put(vm, byte, self.now, out);
            }
        }
        self
    }

    fn typed(&mut self, bytes: &[u8]) -> Vec<Command> {
        let out = &mut |byte: u8| self.text.push(byte.into());
        bytes.iter().filter_map(|byte| self.terminal.typed(*byte, self.now, out)).collect()
    }

    fn read(&mut self, vm: VmId) -> Vec<u8> {
        core::iter::from_fn(|| self.terminal.read(vm, self.now)).collect()
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
    let _ = seen.typed(&[b'x'; MAX_TYPED_BYTES + 1]);
    let _ = seen.typed(&[ESCAPE, b'n', b'y']);
    assert_eq!(seen.read(ONE), [b'x'; MAX_TYPED_BYTES]);
    assert_eq!(seen.read(TWO), b"y");
}

#[test]
fn the_first_of_several_is_not_alone() {
    let mut seen = Seen::by(&["one"]);
    seen.terminal.set_patience(PATIENCE);
    seen.terminal.open();
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
    let _ = seen.typed(&[b'a', ESCAPE, b'2', b'b']);
    assert_eq!(seen.terminal.front(), Some(TWO));
    seen.put(TWO, "b");
    assert_eq!(seen.text, "[one] # \r\n[two] $ b");
    let _ = seen.typed(&[ESCAPE, ESCAPE, ESCAPE, b'9', ESCAPE, b'x', b'c']);
    assert_eq!((seen.read(ONE), seen.read(TWO)), (vec![b'a'], vec![b'b', ESCAPE, b'c']));
    let _ = seen.typed(&[ESCAPE, b'n']);
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

const BANNER: &str = "The monitor: 'help' lists its commands, Ctrl-] goes back.\r\n";
/// How the shell writes its prompt: over what is on the row.
const PROMPT: &str = "\r\x1b[Ktrapeze> ";
const ERASE: &str = "\r\x1b[K";

#[test]
fn the_escape_opens_the_monitor_over_one_vm_and_leads_back() {
    let mut seen = Seen::by(&["one"]);
    seen.put(ONE, "# ");
    assert_eq!(seen.typed(&[b'a', ESCAPE, b'm']), []);
    assert_eq!(seen.text, ["# \r\n", BANNER, PROMPT].concat());
    seen.text.clear();
    assert_eq!(seen.typed(b"mem\r"), [Command::Mem]);
    assert_eq!(seen.text, "mem\r\n");
    seen.terminal.say("much\n", &mut |byte| seen.text.push(byte.into()));
    seen.terminal.prompt(&mut |byte| seen.text.push(byte.into()));
    assert_eq!(seen.text, ["mem\r\nmuch\r\n", PROMPT].concat());
    seen.text.clear();
    assert_eq!(seen.typed(&[ESCAPE, b'b']), []);
    assert_eq!(seen.text, "\r\n");
    assert_eq!(seen.read(ONE), b"ab");
    seen.put(ONE, "x\ry");
    assert_eq!(seen.text, "\r\nx\ry");
}

#[test]
fn lines_come_above_the_prompt_while_the_shell_is_open() {
    let mut seen = Seen::by(&["one", "two"]);
    let _ = seen.typed(&[ESCAPE, b'm', b'v', b'm']);
    seen.text.clear();
    seen.put(ONE, "front\r\npart").put(TWO, "back\n");
    let after = [PROMPT, "vm"].concat();
    let lines = [ERASE, "[one] front\r\n", &after, ERASE, "[two] back\r\n", &after].concat();
    assert_eq!(seen.text, lines);
    seen.text.clear();
    let out = &mut |byte: u8| seen.text.push(byte.into());
    seen.terminal.make_way(out);
    "own\r\n".bytes().for_each(|byte| seen.terminal.put_plain(byte, out));
    seen.terminal.give_back(out);
    assert_eq!(seen.text, [ERASE, "own\r\n", &after].concat());
    seen.text.clear();
    let _ = seen.typed(&[ESCAPE]);
    assert_eq!(seen.text, "\r\n[one] part");
}

#[test]
fn a_vm_is_brought_to_the_front_by_its_number_or_from_the_shell() {
    let mut seen = Seen::by(&["one", "two", "three"]);
    seen.leave(ONE);
    let _ = seen.typed(&[ESCAPE, b'3', ESCAPE, b'1']);
    assert_eq!(seen.terminal.front(), Some(VmId(2)), "numbers stay, and there is no 1");
    assert_eq!(
        seen.typed(&[&[ESCAPE, b'm'], &b"console two\r"[..]].concat()),
        [Command::Console("two".into())]
    );
    assert!(seen.terminal.bring(TWO, &mut |byte| seen.text.push(byte.into())));
    assert!(!seen.terminal.bring(ONE, &mut |_| panic!("it has left")));
    let _ = seen.typed(b"a");
    assert_eq!(seen.read(TWO), b"a");
    assert!(seen.text.ends_with("console two\r\n[two] "), "{}", seen.text);
}

#[test]
fn the_escape_says_what_it_does() {
    let mut seen = Seen::by(&["one"]);
    seen.put(ONE, "# ");
    let _ = seen.typed(&[ESCAPE, b'?']);
    let help = HELP.trim_end();
    assert!(help.len() < 80, "{help}");
    assert_eq!(seen.text, ["# \r\n", help, "\r\n"].concat());
}

#[test]
fn vms_come_and_go_while_the_shell_is_open() {
    let mut seen = Seen::by(&["one", "two"]);
    let _ = seen.typed(&[ESCAPE, b'm']);
    seen.put(ONE, "last words").put(TWO, "$ ");
    seen.text.clear();
    seen.leave(ONE);
    assert_eq!(seen.text, [ERASE, "[one] last words\r\n", PROMPT].concat());
    seen.leave(TWO);
    seen.terminal.join(ONE, "one");
    seen.text.clear();
    let _ = seen.typed(b"console t\t");
    assert_eq!(seen.text, "console two ", "a name stays known");
    let _ = seen.typed(&[ESCAPE, b'a']);
    assert_eq!(seen.read(ONE), b"a");
}

#[test]
fn a_vm_alone_that_reads_slowly_loses_nothing_and_a_dead_one_does_not_hide_the_escape() {
    let mut seen = Seen::by(&["one"]);
    let _ = seen.typed(&[b'x'; MAX_TYPED_BYTES]);
    assert!(seen.terminal.is_waiting() && !seen.terminal.has_room(seen.now));
    seen.now.0 += PATIENCE * LIFE - 1;
    for _ in 1..MAX_TYPED_BYTES / 2 {
        assert_eq!(seen.terminal.read(ONE, seen.now), Some(b'x'));
        assert!(!seen.terminal.has_room(seen.now), "half of it makes room");
    }
    seen.now.0 += PATIENCE * LIFE;
    assert!(seen.terminal.has_room(seen.now), "it is dead");
    assert_eq!(seen.terminal.read(ONE, seen.now), Some(b'x'));
    assert!(!seen.terminal.is_waiting() && seen.terminal.has_room(seen.now));
    let _ = seen.typed(&[b'y'; MAX_TYPED_BYTES]);
    let _ = seen.typed(&[ESCAPE, b'm']);
    assert!(seen.text.ends_with(PROMPT) && seen.terminal.has_room(seen.now));
}

#[test]
fn without_a_clock_no_vm_counts_as_dead() {
    let mut terminal = Terminal::new();
    terminal.join(ONE, "one");
    (0..MAX_TYPED_BYTES).for_each(|_| assert_eq!(terminal.typed(b'x', Ticks(0), &mut |_| ()), None));
    assert!(!terminal.has_room(Ticks(u64::MAX)));
}

proptest::proptest! {
    #[test]
    fn the_escape_is_never_lost_whatever_is_typed_and_written(
        vms in 1_u16..4,
        steps in proptest::collection::vec((proptest::bool::ANY, 0_u16..4, proptest::num::u8::ANY), 0..400),
    ) {
        let names: Vec<String> = (0..vms).map(|vm| alloc::format!("vm-{vm}")).collect();
        let mut seen = Seen::by(&names.iter().map(String::as_str).collect::<Vec<_>>());
        for (is_typed, vm, byte) in steps {
            let byte = match byte % 16 {
                0 => ESCAPE,
                1 => b'm',
                _ => byte,
            };
            if is_typed {
                let _ = seen.typed(&[byte]);
                seen.terminal.prompt(&mut |_| ());
            } else if vm < vms {
                let _ = seen.terminal.put(VmId(vm), byte, seen.now, &mut |_| ());
            }
        }
        // Out of the shell, or to the end of a command that was begun; and again, for what that may have opened.
        let _ = seen.typed(&[ESCAPE, b'?', ESCAPE, b'?']);
        proptest::prop_assert_eq!(seen.typed(&[&[ESCAPE, b'm'], &b"cpus\r"[..]].concat()), [Command::Cpus]);
    }

    #[test]
    fn what_one_vm_reads_is_what_was_typed_if_the_terminal_is_asked_first(
        reads in proptest::collection::vec(0_usize..64, 1..200),
    ) {
        let mut seen = Seen::by(&["one"]);
        let mut source = (0..=255_u8).filter(|byte| *byte != ESCAPE).cycle();
        let mut expected = source.clone();
        for count in reads {
            while seen.terminal.has_room(seen.now) {
                let byte = source.next().unwrap();
                let _ = seen.typed(&[byte]);
            }
            for _ in 0..count {
                proptest::prop_assert_eq!(seen.terminal.read(ONE, seen.now), expected.next());
            }
        }
    }
}

//! A shell as it is seen and typed into.

use super::*;

/// A terminal of one row that understands what the shell writes.
#[derive(Default)]
struct Screen {
    rows: Vec<String>,
    row: Vec<u8>,
    column: usize,
    sequence: Option<String>,
}

impl Screen {
    fn put(&mut self, byte: u8) {
        if let Some(sequence) = &mut self.sequence {
            sequence.push(byte.into());
            match sequence.as_str() {
                "[" | "[2" => return,
                "[K" => self.row.truncate(self.column),
                "[H" => self.column = 0,
                "[2J" => self.row.clear(),
                other => panic!("the shell wrote {other:?}"),
            }
            self.sequence = None;
            return;
        }
        match byte {
            0x1b => self.sequence = Some(String::new()),
            b'\r' => self.column = 0,
            b'\n' => self.rows.push(String::from_utf8(core::mem::take(&mut self.row)).unwrap()),
            0x08 => self.column -= 1,
            BELL => {}
            b' '..=b'~' => {
                self.row.resize(self.row.len().max(self.column + 1), b' ');
                self.row[self.column] = byte;
                self.column += 1;
            }
            other => panic!("the shell wrote {other:#x}"),
        }
    }
}

struct Session {
    shell: Shell,
    screen: Screen,
}

impl Session {
    fn new() -> Self {
        let mut session = Self { shell: Shell::new(), screen: Screen::default() };
        session.shell.set_names(["linux".into(), "linux-2".into(), "hello".into()].into());
        session.shell.open(&mut |byte| session.screen.put(byte));
        session
    }

    fn typed(&mut self, bytes: &[u8]) -> Vec<Command> {
        let mut commands = Vec::new();
        for byte in bytes {
            if let Some(command) = self.shell.typed(*byte, &mut |byte| self.screen.put(byte)) {
                commands.push(command);
                self.shell.prompt(&mut |byte| self.screen.put(byte));
            }
        }
        commands
    }

    fn row(&self) -> &str {
        core::str::from_utf8(&self.screen.row).unwrap()
    }
}

#[test]
fn the_shell_begins_with_a_hint_and_a_prompt() {
    let session = Session::new();
    assert_eq!(session.screen.rows, ["The monitor: 'help' lists its commands, Ctrl-] goes back."]);
    assert_eq!(session.row(), "trapeze> ");
}

#[test]
fn a_line_is_echoed_and_comes_back_as_a_command() {
    let mut session = Session::new();
    assert_eq!(session.typed(b"vm stop linux\r\n"), [Command::Stop("linux".into())]);
    assert_eq!(session.screen.rows[1], "trapeze> vm stop linux");
    assert_eq!(session.row(), "trapeze> ");
}

#[test]
fn a_wrong_line_is_answered_at_once() {
    let mut session = Session::new();
    assert_eq!(session.typed(b"vm stop\rfoo\r\r"), []);
    let seen = [
        "trapeze> vm stop",
        "usage: vm stop NAME",
        "trapeze> foo",
        "no command is called foo; 'help' lists them",
        "trapeze> ",
    ];
    assert_eq!(session.screen.rows[1..], seen);
}

#[test]
fn a_line_is_edited_where_the_cursor_stands() {
    let mut session = Session::new();
    session.typed(b"vm stp\x1b[Do\x08o linux");
    assert_eq!(session.row(), "trapeze> vm sto linuxp");
    session.typed(b"\x15m\x7fcpux\x08s");
    assert_eq!(session.row(), "trapeze> cpus");
    session.typed(b" \x01\x1b[3~\x1b[3~\x1b[3~\x1b[3~exit\x1b[F hello\x17x");
    assert_eq!(session.row(), "trapeze> exit  x");
    assert_eq!(session.typed(b"\x03mem\r"), [Command::Mem]);
    assert_eq!(session.screen.rows[1..], ["trapeze> exit  x^C", "trapeze> mem"]);
}

#[test]
fn earlier_lines_come_back() {
    let mut session = Session::new();
    session.typed(b"mem\rcpus\rvm li\x1b[A\x1b[A");
    assert_eq!(session.row(), "trapeze> mem");
    session.typed(b"\x1b[B");
    assert_eq!(session.row(), "trapeze> cpus");
    session.typed(b"\x1b[B");
    assert_eq!(session.row(), "trapeze> vm li");
    assert_eq!(session.typed(b"\x10\r\x10\x10\r"), [Command::Cpus, Command::Mem]);
}

#[test]
fn tab_completes_words_and_names_and_lists_where_there_are_several() {
    let mut session = Session::new();
    session.typed(b"v\tre\t");
    assert_eq!(session.row(), "trapeze> vm res");
    session.typed(b"\t");
    assert_eq!(session.screen.rows[1..], ["trapeze> vm res", "reset  resume"]);
    session.typed(b"e\tli\t");
    assert_eq!(session.row(), "trapeze> vm reset linux");
    assert_eq!(session.typed(b"-\t\r"), [Command::Reset("linux-2".into())]);
}

#[test]
fn ctrl_d_leaves_where_the_line_is_empty() {
    let mut session = Session::new();
    assert_eq!(session.typed(b"a\x01\x04"), []);
    assert_eq!(session.typed(b"\x04"), [Command::Quit]);
}

#[test]
fn a_line_has_an_end() {
    let mut session = Session::new();
    session.typed(&[b'x'; MAX_LINE + 9]);
    assert_eq!(session.row().len(), PROMPT.len() + MAX_LINE);
    assert_eq!(session.typed(b"\r"), []);
}

/// Keys, commands and noise.
fn noise() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
    use proptest::prelude::*;
    const KEYS: [&[u8]; 16] = [
        b"\x1b[A",
        b"\x1b[B",
        b"\x1b[C",
        b"\x1b[D",
        b"\x1b[3~",
        b"\x1bb",
        b"\t",
        b"\r",
        b"\x7f",
        b"\x15",
        b"\x17",
        b"\x03",
        b"vm ",
        b"vm list\r",
        b"map linux 0x",
        b"l",
    ];
    let part = prop_oneof![
        proptest::sample::select(&KEYS[..]).prop_map(Vec::from),
        proptest::collection::vec(any::<u8>(), 0..8),
    ];
    proptest::collection::vec(part, 0..64).prop_map(|parts| parts.concat())
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(if cfg!(miri) { 8 } else { 512 }))]

    /// The screen panics on what a terminal would not understand.
    #[test]
    fn noise_never_panics_and_the_row_shows_the_line(bytes in noise()) {
        let mut session = Session::new();
        session.typed(&bytes);
        let line = session.shell.text();
        proptest::prop_assert!(line.len() <= MAX_LINE && line.bytes().all(|byte| matches!(byte, b' '..=b'~')));
        proptest::prop_assert_eq!(session.row(), alloc::format!("{}{}", PROMPT, line));
        proptest::prop_assert_eq!(session.screen.column, PROMPT.len() + session.shell.line.cursor_pos());
    }

    #[test]
    fn after_any_noise_a_command_is_understood(bytes in noise()) {
        let mut session = Session::new();
        session.typed(&bytes);
        proptest::prop_assert_eq!(session.typed(b"\x03cpus\r"), [Command::Cpus]);
    }
}

//! Commands: what a line means, how each is used, and how it goes on.
//!
//! Not here: carrying one out.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use vocabulary::addr::Ipa;

/// Name of a VM, as it was typed: there may be none of that name.
pub type Name = Box<str>;

/// What the operator wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Report all VMs.
    List,
    /// Start a VM that is off.
    Start(Name),
    /// End a VM.
    Stop(Name),
    /// Start a VM again, as new.
    Reset(Name),
    /// Let a VM's vCPUs stand still.
    Pause(Name),
    /// Let them go on.
    Resume(Name),
    /// Put a VM in front, and leave the shell.
    Console(Name),
    /// Report the physical CPUs.
    Cpus,
    /// Report memory.
    Mem,
    /// Report exits of all VMs, or of one.
    Exits(Option<Name>),
    /// Report what a VM has at an address.
    Map(Name, Ipa),
    /// Leave the shell.
    Quit,
    /// Stop the machine.
    Off,
}

/// What a line that has the form of a command means.
enum Meaning {
    Plain(Command),
    /// With the name that is the last word.
    Named(fn(Name) -> Command),
    Exits,
    Map,
    Help,
}

/// How a command is typed, words in capitals for what it is given and brackets for what it may be, and what it does.
struct Usage {
    form: &'static str,
    effect: &'static str,
    meaning: Meaning,
}

#[rustfmt::skip]
static USAGES: [Usage; 14] = [
    Usage { form: "vm list", effect: "all VMs: state, CPU time, memory, exits", meaning: Meaning::Plain(Command::List) },
    Usage { form: "vm start NAME", effect: "start a VM that is off", meaning: Meaning::Named(Command::Start) },
    Usage { form: "vm stop NAME", effect: "end a VM, at once", meaning: Meaning::Named(Command::Stop) },
    Usage { form: "vm reset NAME", effect: "start a VM again, as new", meaning: Meaning::Named(Command::Reset) },
    Usage { form: "vm pause NAME", effect: "stop a VM's vCPUs where they are", meaning: Meaning::Named(Command::Pause) },
    Usage { form: "vm resume NAME", effect: "let a paused VM go on", meaning: Meaning::Named(Command::Resume) },
    Usage { form: "console NAME", effect: "give the console to a VM", meaning: Meaning::Named(Command::Console) },
    Usage { form: "cpus", effect: "physical CPUs: what runs there, and how busy it is", meaning: Meaning::Plain(Command::Cpus) },
    Usage { form: "mem", effect: "memory: whose it is", meaning: Meaning::Plain(Command::Mem) },
    Usage { form: "exits [NAME]", effect: "exits of all VMs, or of one, by cause and device", meaning: Meaning::Exits },
    Usage { form: "map NAME IPA", effect: "what a VM has at an address", meaning: Meaning::Map },
    Usage { form: "help", effect: "this list", meaning: Meaning::Help },
    Usage { form: "quit", effect: "back to the VM in front; Ctrl-] does the same", meaning: Meaning::Plain(Command::Quit) },
    Usage { form: "off", effect: "stop the machine", meaning: Meaning::Plain(Command::Off) },
];

/// Width of the forms in the list of commands, in characters.
const FORM_WIDTH: usize = 16;

/// What a line is.
#[derive(PartialEq, Eq, Debug)]
pub enum Line {
    /// Nothing.
    Empty,
    /// A command, for others.
    Command(Command),
    /// Answered with this: help, or what is wrong.
    Answered(String),
}

impl Line {
    /// Reads a line.
    pub fn read(text: &str) -> Self {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let Some(last) = words.last() else { return Self::Empty };
        let Some(usage) = USAGES.iter().find(|usage| usage.fits(&words)) else {
            return Self::Answered(usage(&words));
        };
        Self::Command(match &usage.meaning {
            Meaning::Plain(command) => command.clone(),
            Meaning::Named(command) => command((*last).into()),
            Meaning::Exits => Command::Exits(words.get(1).map(|name| (*name).into())),
            Meaning::Map => match (words.get(1), address(last)) {
                (Some(name), Some(ipa)) => Command::Map((*name).into(), ipa),
                _ => return Self::Answered(self::usage(&words)),
            },
            Meaning::Help => return Self::Answered(help()),
        })
    }
}

/// Reads an address: hexadecimal after 0x, decimal otherwise.
fn address(word: &str) -> Option<Ipa> {
    let (digits, radix) = word.strip_prefix("0x").map_or((word, 10), |digits| (digits, 16));
    let is_number = digits.chars().all(|digit| digit.is_digit(radix));
    u64::from_str_radix(digits, radix).ok().filter(|_| is_number).map(Ipa::new)
}

/// Lists all commands.
fn help() -> String {
    let mut text = String::new();
    for Usage { form, effect, .. } in &USAGES {
        text += &format!("  {form:FORM_WIDTH$} {effect}\n");
    }
    text
}

/// Says how the command is used that begins with these words.
fn usage(words: &[&str]) -> String {
    let common = USAGES.iter().map(|usage| usage.words_in_common(words)).max().unwrap_or(0);
    if common == 0 {
        return format!("no command is called {}; 'help' lists them\n", words.join(" "));
    }
    let mut text = String::new();
    for usage in USAGES.iter().filter(|usage| usage.words_in_common(words) == common) {
        text += if text.is_empty() { "usage: " } else { "       " };
        text += usage.form;
        text.push('\n');
    }
    text
}

/// Tells whether a word of a form stands for what is given.
fn is_place(own: &str) -> bool {
    own.bytes().any(|byte| byte.is_ascii_uppercase())
}

impl Usage {
    /// Tells whether these words have the form of this command.
    fn fits(&self, words: &[&str]) -> bool {
        let mut words = words.iter();
        let fit = |own: &str| words.next().map_or(own.starts_with('['), |word| own == *word || is_place(own));
        self.form.split(' ').all(fit) && words.next().is_none()
    }

    /// Counts the words at the start that are this command's own.
    fn words_in_common(&self, words: &[&str]) -> usize {
        self.form.split(' ').zip(words).take_while(|(own, word)| own == *word).count()
    }

    /// Returns what may come after these words: a word, or a place for one.
    fn next(&self, words: &[&str]) -> Option<&'static str> {
        let mut own = self.form.split(' ');
        let is_begun = words.iter().all(|word| own.next().is_some_and(|own| own == *word || is_place(own)));
        own.next().filter(|_| is_begun)
    }
}

/// Cuts a line before its last word, which may be empty.
pub fn last_word(text: &str) -> (&str, &str) {
    let start = text.bytes().rposition(|byte| byte == b' ').map_or(0, |space| space + 1);
    text.split_at_checked(start).unwrap_or((text, ""))
}

/// Lists how the last word of a line may be completed, each once: the words of commands, and the names of VMs.
pub fn completions<'a>(text: &str, names: &'a [Name]) -> Vec<&'a str> {
    let (before, begun) = last_word(text);
    let words: Vec<&str> = before.split_ascii_whitespace().collect();
    let mut found: Vec<&'a str> = Vec::new();
    for next in USAGES.iter().filter_map(|usage| usage.next(&words)) {
        let (word, names) = match next {
            "NAME" | "[NAME]" => (None, names),
            place if is_place(place) => (None, [].as_slice()),
            word => (Some(word), [].as_slice()),
        };
        for candidate in word.into_iter().chain(names.iter().map(|name| &**name)) {
            if candidate.starts_with(begun) && !found.contains(&candidate) {
                found.push(candidate);
            }
        }
    }
    found
}

/// Says that no VM has this name, and which names there are.
#[must_use]
pub fn unknown_vm<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        return format!("no VM is called {name}: there is none\n");
    }
    format!("no VM is called {name}; there are: {}\n", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn answer(text: &str) -> String {
        match Line::read(text) {
            Line::Answered(answer) => answer,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn each_command_is_read() {
        let name = || Name::from("linux");
        for (text, command) in [
            ("vm list", Command::List),
            ("  vm   start linux ", Command::Start(name())),
            ("vm stop linux", Command::Stop(name())),
            ("vm reset linux", Command::Reset(name())),
            ("vm pause linux", Command::Pause(name())),
            ("vm resume linux", Command::Resume(name())),
            ("console linux", Command::Console(name())),
            ("cpus", Command::Cpus),
            ("mem", Command::Mem),
            ("exits", Command::Exits(None)),
            ("exits linux", Command::Exits(Some(name()))),
            ("map linux 0x4000_0000".replace('_', "").as_str(), Command::Map(name(), Ipa::new(0x4000_0000))),
            ("map linux 4096", Command::Map(name(), Ipa::new(4096))),
            ("quit", Command::Quit),
            ("off", Command::Off),
        ] {
            assert_eq!(Line::read(text), Line::Command(command), "{text}");
        }
        assert_eq!(Line::read("  "), Line::Empty);
    }

    #[test]
    fn wrong_arguments_are_answered_with_the_usage() {
        for (text, usage) in [
            ("vm start", "usage: vm start NAME\n"),
            ("vm start a b", "usage: vm start NAME\n"),
            ("console", "usage: console NAME\n"),
            ("cpus 1", "usage: cpus\n"),
            ("exits a b", "usage: exits [NAME]\n"),
            ("map linux", "usage: map NAME IPA\n"),
            ("map linux 0x", "usage: map NAME IPA\n"),
            ("map linux 12f", "usage: map NAME IPA\n"),
            ("map linux +1", "usage: map NAME IPA\n"),
            ("map linux 0x10000000000000000", "usage: map NAME IPA\n"),
            ("off now", "usage: off\n"),
        ] {
            assert_eq!(answer(text), usage, "{text}");
        }
        let all = "usage: vm list\n       vm start NAME\n       vm stop NAME\n       vm reset NAME\n       \
                   vm pause NAME\n       vm resume NAME\n";
        assert_eq!(answer("vm"), all);
        assert_eq!(answer("vm destroy linux"), all);
    }

    #[test]
    fn an_unknown_command_points_to_help() {
        assert_eq!(answer("ls -l"), "no command is called ls -l; 'help' lists them\n");
        assert_eq!(answer("help ls"), "usage: help\n");
    }

    #[test]
    fn help_lists_every_command_in_80_columns() {
        let help = answer("help");
        assert_eq!(help.lines().count(), USAGES.len());
        assert!(help.starts_with("  vm list          all VMs: state, CPU time, memory, exits\n"), "{help}");
        assert!(help.lines().all(|line| line.len() < 80), "{help}");
        assert!(USAGES.iter().all(|usage| usage.form.len() <= FORM_WIDTH));
    }

    #[test]
    fn words_and_names_are_completed() {
        let names = ["linux".into(), "hello".into(), "linux-2".into()];
        let of = |text: &str| completions(text, &names);
        assert_eq!(of("v"), ["vm"]);
        assert_eq!(of("vm st"), ["start", "stop"]);
        assert_eq!(of("vm stop li"), ["linux", "linux-2"]);
        assert_eq!(of("console h"), ["hello"]);
        assert_eq!(of("exits "), ["linux", "hello", "linux-2"]);
        assert_eq!(of("map hello "), vec![""; 0]);
        assert_eq!(of("vm list "), vec![""; 0]);
        assert_eq!(of("nothing "), vec![""; 0]);
    }

    #[test]
    fn an_unknown_vm_is_answered_with_those_there_are() {
        assert_eq!(unknown_vm("a", ["b", "c"].into_iter()), "no VM is called a; there are: b, c\n");
        assert_eq!(unknown_vm("a", [].into_iter()), "no VM is called a: there is none\n");
    }
}

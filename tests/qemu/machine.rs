//! A machine to run: what it is made of, what is typed into it, and what it said.
//!
//! Not here: QEMU's options; `tools/qemu` knows those.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long a machine may take that has little to do: a busy host is slow.
const SHORT: Duration = Duration::from_secs(30);
/// How every line of the hypervisor's own begins.
const PREFIX: &str = "trapeze: ";
/// What the scripts read from the environment; a test's machine has nothing of its caller's.
const SETTINGS: [&str; 19] = [
    "APPEND",
    "BOARD",
    "BUNDLE",
    "CPU",
    "CPUS",
    "DTB",
    "GIC",
    "GUEST",
    "IMAGE",
    "INITRD",
    "KERNEL",
    "LOG",
    "MEM",
    "PCPUS",
    "PL011",
    "PMU",
    "PORT",
    "QEMU_ARGS",
    "QUIET",
];

/// Returns a path in the repository.
pub fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Prepares a command of the repository's, with no setting inherited.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for setting in SETTINGS {
        command.env_remove(setting);
    }
    command.current_dir(root(".")).stdin(Stdio::null());
    command
}

/// A machine that has not been started.
pub struct Machine {
    command: Command,
    script: VecDeque<(String, String)>,
    endings: Vec<(String, usize)>,
    limit: Duration,
    _scratch: Option<Scratch>,
}

impl Machine {
    /// Prepares the image on a board, with the bundle that is built in.
    pub fn new() -> Self {
        Self::of(command("tools/qemu"))
    }

    /// Prepares what `make run` runs when all is built; with a bundle of its own, since tests run at once.
    pub fn as_make_runs_it() -> Self {
        let scratch = Scratch::new();
        let bundle = scratch.path("guest.itb");
        let machine = Self::of(command("tools/run")).with("BUNDLE", bundle);
        Self { _scratch: Some(scratch), ..machine }
    }

    /// Prepares a machine from the command that starts it.
    pub fn of(command: Command) -> Self {
        Self { command, script: VecDeque::new(), endings: Vec::new(), limit: SHORT, _scratch: None }
    }

    /// Gives a setting of `make run` or `tools/qemu`.
    pub fn with(mut self, setting: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(setting, value);
        self
    }

    /// Gives several settings.
    pub fn with_all<const N: usize>(self, settings: [(&str, &str); N]) -> Self {
        settings.into_iter().fold(self, |machine, (setting, value)| machine.with(setting, value))
    }

    /// Types `text` once `prompt` was printed, after what was typed before.
    pub fn after(mut self, prompt: &str, text: &str) -> Self {
        self.script.push_back((prompt.into(), text.into()));
        self
    }

    /// Ends the machine from outside once it has printed `text` this many times, and all that earlier calls named.
    pub fn until(mut self, text: &str, times: usize) -> Self {
        self.endings.push((text.into(), times));
        self
    }

    /// Gives it more or less time.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs the machine to its end.
    ///
    /// # Panics
    /// When it cannot be started, or has not ended in time.
    pub fn run(mut self) -> Outcome {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Guard(self.command.spawn().expect("the script is there"));
        let mut keyboard = child.0.stdin.take().unwrap();
        let console = listen(child.0.stdout.take().unwrap());
        let complaints = listen(child.0.stderr.take().unwrap());
        let deadline = Instant::now() + self.limit;
        let (mut output, mut typed_at, mut in_time) = (Vec::new(), 0, true);
        loop {
            match console.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => output.extend(bytes),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    in_time = false;
                    break;
                }
            }
            if let Some((prompt, text)) = self.script.front()
                && count(&output[typed_at..], prompt) > 0
            {
                typed_at = output.len();
                // A machine that has ended takes no more: its outcome says so.
                let _ = keyboard.write_all(text.as_bytes());
                self.script.pop_front();
            }
            if !self.endings.is_empty()
                && self.endings.iter().all(|(text, times)| count(&output, text) >= *times)
            {
                break;
            }
        }
        if !in_time || !self.endings.is_empty() {
            child.0.kill().expect("it is our child");
        }
        let status = child.0.wait().expect("it is our child");
        let errors = complaints.iter().flatten().collect::<Vec<u8>>();
        let outcome = Outcome { status, console: text(&output), errors: text(&errors) };
        assert!(in_time, "not done after {:?}:\n{outcome}", self.limit);
        outcome
    }
}

/// A child that does not outlive the test.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill(); // SIGKILL; it may be gone already
        let _ = self.0.wait();
    }
}

/// Reads a pipe as it fills.
fn listen(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

fn count(output: &[u8], text: &str) -> usize {
    output.windows(text.len()).filter(|window| *window == text.as_bytes()).count()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\r', "")
}

/// What became of a machine.
pub struct Outcome {
    status: ExitStatus,
    /// Standard output, without carriage returns.
    pub console: String,
    /// Standard error.
    pub errors: String,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "--- console\n{}\n--- errors\n{}\n--- {}", self.console, self.errors, self.status)
    }
}

impl Outcome {
    /// Asserts that the machine was powered off, and all was well.
    pub fn succeeded(&self) -> &Self {
        assert!(self.status.success(), "failed:\n{self}");
        self
    }

    /// Asserts that the machine ended by itself and told whoever started it of a failure.
    pub fn failed(&self) -> &Self {
        assert!(self.status.code().is_some_and(|code| code != 0), "did not fail:\n{self}");
        self
    }

    /// Lists the lines of the hypervisor's own.
    pub fn of_trapeze(&self) -> Vec<&str> {
        self.console.lines().filter_map(|line| line.strip_prefix(PREFIX)).collect()
    }

    /// Lists the lines of the guests.
    pub fn of_guests(&self) -> Vec<&str> {
        self.console.lines().filter(|line| !line.starts_with(PREFIX)).collect()
    }

    /// Asserts that a guest printed exactly this line.
    pub fn says(&self, line: &str) -> &Self {
        assert!(self.of_guests().contains(&line), "no line `{line}`:\n{self}");
        self
    }

    /// Asserts that the console has this text somewhere.
    pub fn contains(&self, text: &str) -> &Self {
        assert!(self.console.contains(text), "no `{text}`:\n{self}");
        self
    }

    /// Asserts that the console has this text nowhere.
    pub fn lacks(&self, text: &str) -> &Self {
        assert!(!self.console.contains(text), "`{text}` is there:\n{self}");
        self
    }

    /// Asserts that the hypervisor printed errors, these and no others. `...` in one stands for anything.
    pub fn complains(&self, expected: &[&str]) -> &Self {
        let errors: Vec<_> =
            self.of_trapeze().into_iter().filter_map(|line| line.strip_prefix("error: ")).collect();
        let as_expected = errors.len() == expected.len()
            && errors.iter().zip(expected).all(|(error, pattern)| matches(error, pattern));
        assert!(as_expected, "expected the errors {expected:#?}:\n{self}");
        self
    }

    /// Asserts that the hypervisor says so of a VM, such as `is off`.
    pub fn vm(&self, name: &str, how: &str) -> &Self {
        let start = format!("vm {name}: {how}");
        assert!(self.of_trapeze().iter().any(|line| line.starts_with(&start)), "no `{start}`:\n{self}");
        self
    }
}

/// Tells whether `text` is `pattern`, with something in place of each `...`.
fn matches(text: &str, pattern: &str) -> bool {
    let Some((start, rest)) = pattern.split_once("...") else { return text == pattern };
    let Some(text) = text.strip_prefix(start) else { return false };
    (0..=text.len()).any(|at| text.get(at..).is_some_and(|text| matches(text, rest)))
}

/// A directory of a test's own, gone when the test passes.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes an empty one.
    pub fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("target is writable");
        Self(path)
    }

    /// Returns the path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file in it and returns its path.
    pub fn file(&self, name: &str, content: &[u8]) -> OsString {
        let path = self.path(name);
        std::fs::write(&path, content).expect("target is writable");
        path.into()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0); // what stays costs disk only
        }
    }
}

//! QEMU as the oracle. The same random loads and stores are executed natively by a guest on RAM and interpreted by the
//! library on RAM of the host; and executed by the guest on a device, of the bare machine and of a VM of Trapeze. Registers,
//! memory, and the exception if there is one must be the same.
//!
//! Not here: faults of translation.
//!
//! `ORACLE_CASES` is the number of cases of each class (1,000; a fifth of it on devices), `ORACLE_SEED` the number of the
//! first one, `ORACLE_CPU` the model of CPU for the devices (max).
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "these are tests: what is not as expected ends the test"
)]

#[path = "../../guests/oracle/src/case.rs"]
mod case;
mod classes;
mod model;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use case::{CASES_OFFSET, Case, Header, RESULT_DOUBLES, digest};
use classes::{CLASSES, Class, ZERO};
use model::Model;

/// Cases that one machine executes.
const AT_ONCE: usize = 1_000_000;

/// A machine for the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Machine {
    /// QEMU's, with RAM to work on.
    Bare,
    /// QEMU's, with a device to work on.
    BareDevice,
    /// A VM of Trapeze, with a device to work on.
    Trapeze,
}

/// Executes cases and returns what the guest said.
fn execute(machine: Machine, cases: &[Case], is_verbose: bool) -> Vec<u8> {
    let is_device = machine != Machine::Bare;
    let header = Header { count: u64::try_from(cases.len()).unwrap(), is_verbose, is_device };
    let mut image = std::fs::read(root("target/oracle.img")).expect("`make guests` makes it");
    image.resize(usize::try_from(CASES_OFFSET).unwrap(), 0);
    image.extend(
        header.encode().into_iter().chain(cases.iter().flat_map(Case::encode)).flat_map(u64::to_le_bytes),
    );
    let size = u64::try_from(image.len()).unwrap().to_le_bytes();
    image[16..24].copy_from_slice(&size); // image_size of the header
    let kernel = Scratch::new();
    std::fs::write(&kernel.0, image).expect("target is writable");
    match machine {
        Machine::Trapeze => under_trapeze(&kernel),
        _ => output(
            limited("tools/qemu")
                .envs([("BARE", "1"), ("GIC", "3"), ("CPU", &cpu(machine)), ("CPUS", "1"), ("MEM", "256M")])
                .env("IMAGE", &kernel.0),
        ),
    }
}

fn under_trapeze(kernel: &Scratch) -> Vec<u8> {
    let bundle = Scratch::new();
    let cpu = cpu(Machine::Trapeze);
    let settings = ["NAME=oracle", "CPUS=1", "MEM=64M", "GIC=3", "INITRD=", "APPEND="];
    let kernel = format!("KERNEL={}", kernel.0.display());
    output(limited("tools/bundle").arg(&bundle.0).args(settings).arg(format!("CPU={cpu}")).arg(kernel));
    let machine = [("QUIET", "1"), ("GIC", "3"), ("CPU", &cpu), ("CPUS", "1"), ("MEM", "64M")];
    output(limited("tools/qemu").envs(machine).env("BUNDLE", &bundle.0))
}

/// Names the model of CPU: the interpreter alone is compared with the most capable one.
fn cpu(machine: Machine) -> String {
    let chosen = std::env::var("ORACLE_CPU").ok().filter(|_| machine != Machine::Bare);
    chosen.unwrap_or_else(|| "max".into())
}

/// Prepares a command that is killed if it takes too long.
fn limited(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "1200", program]).current_dir(root(".")).stdin(Stdio::null());
    command
}

fn output(command: &mut Command) -> Vec<u8> {
    let output = command.output().expect("timeout is there");
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A file that goes away.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("oracle-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // what stays costs disk only
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// Asserts that `digest_of` says of each case what a machine says.
fn compare(
    name: &str,
    cases: &[Case],
    left: &dyn Fn(&[Case], bool) -> Vec<u8>,
    right: &dyn Fn(&[Case], bool) -> Vec<u8>,
) {
    for some in cases.chunks(AT_ONCE) {
        let [lefts, rights] = [left(some, false), right(some, false)];
        assert_eq!(lefts.len(), some.len() * 4, "{name}: the guest did not come to its end");
        assert_eq!(rights.len(), some.len() * 4, "{name}: the guest did not come to its end");
        let digests = lefts.as_chunks::<4>().0.iter().zip(rights.as_chunks::<4>().0);
        let different: Vec<&Case> = some
            .iter()
            .zip(digests)
            .filter(|(_, (left, right))| left != right)
            .map(|(case, _)| case)
            .collect();
        if let Some(case) = different.first() {
            let told = explain(case, &left(&[**case], true), &right(&[**case], true));
            panic!("{name}: {} of {} differ, as\n{told}", different.len(), some.len());
        }
    }
}

/// What the library makes of cases, as the guest would say it.
fn interpreted(cases: &[Case], is_verbose: bool) -> Vec<u8> {
    let say = |case| {
        let result = Model::run(case);
        if is_verbose {
            result.into_iter().flat_map(u64::to_le_bytes).collect()
        } else {
            digest(result.iter()).to_le_bytes().to_vec()
        }
    };
    cases.iter().flat_map(say).collect()
}

/// Says what differs.
fn explain(case: &Case, left: &[u8], right: &[u8]) -> String {
    let mut text = format!("{case:#x?}\n");
    let doubles = |bytes: &[u8]| -> Vec<u64> {
        bytes.as_chunks::<8>().0.iter().map(|double| u64::from_le_bytes(*double)).collect()
    };
    let (left, right) = (doubles(left), doubles(right));
    assert_eq!((left.len(), right.len()), (RESULT_DOUBLES, RESULT_DOUBLES));
    for (slot, (left, right)) in
        left.iter().zip(&right).enumerate().filter(|(_, (left, right))| left != right)
    {
        let name = match slot {
            0..=30 => format!("x{slot}"),
            31 => "sp".into(),
            32 => "ending".into(),
            33..=96 => format!("v{}[{}]", (slot - 33) / 2, (slot - 33) % 2),
            _ => format!("memory {:#x}", 8 * (slot - 97)),
        };
        text += &format!("{name}: {left:#x}, {right:#x}\n");
    }
    text
}

/// Calls `check` for every class, and fails with what all of them said.
fn for_each_class(check: impl Fn(&Class) + std::panic::RefUnwindSafe) {
    let failures: Vec<String> = CLASSES
        .iter()
        .chain(&[ZERO])
        .filter_map(|class| {
            let outcome = std::panic::catch_unwind(|| check(class)).err()?;
            Some(outcome.downcast_ref::<String>().cloned().unwrap_or_else(|| class.name.into()))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_class_does_on_ram_what_the_cpu_does() {
    let (first, count) = (setting("ORACLE_SEED", 0), setting("ORACLE_CASES", 1000));
    for_each_class(|class| {
        let cases: Vec<Case> = (first..first + count).map(|seed| class.case(seed)).collect();
        compare(class.name, &cases, &|some, verbose| execute(Machine::Bare, some, verbose), &interpreted);
    });
}

#[test]
fn every_class_does_on_a_device_what_the_bare_machine_does() {
    // A case takes some 400 exits of a VM, just to fill the registers and to read them back.
    let (first, count) = (setting("ORACLE_SEED", 0), setting("ORACLE_CASES", 1000) / 5);
    for_each_class(|class| {
        let cases: Vec<Case> = (first..first + count).filter_map(|seed| class.device_case(seed)).collect();
        let run = |machine| move |some: &[Case], verbose| execute(machine, some, verbose);
        compare(class.name, &cases, &run(Machine::BareDevice), &run(Machine::Trapeze));
    });
}

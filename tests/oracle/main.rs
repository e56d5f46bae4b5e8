//! QEMU as the oracle: the same random loads and stores, executed natively by a guest on RAM and interpreted by the
//! library on RAM of the host. Registers, memory, and the exception if there is one must be the same.
//!
//! Not here: devices, faults of translation, and what the CPU checks before it translates.
//!
//! `ORACLE_CASES` is the number of cases of each class (1,000), `ORACLE_SEED` the number of the first one.
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

use case::{CASES, Case, REPORT_ALL, RESULT_DOUBLES, digest};
use classes::{CLASSES, Class, ZERO};
use model::Model;

/// Cases that one machine executes.
const AT_ONCE: usize = 1_000_000;

/// Executes cases natively and returns what the guest said.
fn natively(cases: &[Case], report: u64) -> Vec<u8> {
    let scratch = Scratch::new();
    let header = [u64::try_from(cases.len()).unwrap(), report];
    let doubles = header.into_iter().chain(cases.iter().flat_map(Case::encode));
    let bytes: Vec<u8> = doubles.flat_map(u64::to_le_bytes).collect();
    std::fs::write(&scratch.0, bytes).expect("target is writable");
    let output = Command::new("timeout")
        .args(["-s", "KILL", "1200", "qemu-system-aarch64", "-machine", "virt", "-cpu", "max", "-m", "1280M"])
        .args(["-nodefaults", "-display", "none", "-serial", "stdio", "-kernel"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/oracle.img"))
        .arg("-device")
        .arg(format!("loader,file={},addr={CASES:#x},force-raw=on", scratch.0.display()))
        .stdin(Stdio::null())
        .output()
        .expect("qemu-system-aarch64 is there");
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    output.stdout
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

/// Compares as many cases of a class as `ORACLE_CASES` says.
fn compare(class: &Class) {
    let (first, count) = (setting("ORACLE_SEED", 0), setting("ORACLE_CASES", 1000));
    let cases: Vec<Case> = (first..first + count).map(|seed| class.case(seed)).collect();
    for some in cases.chunks(AT_ONCE) {
        let digests = natively(some, 0);
        assert_eq!(digests.len(), some.len() * 4, "{}: the guest did not come to its end", class.name);
        let differs = |(case, native): &(&Case, &[u8; 4])| digest(Model::run(case).iter()).to_le_bytes() != **native;
        let different: Vec<&Case> =
            some.iter().zip(digests.as_chunks::<4>().0).filter(differs).map(|(case, _)| case).collect();
        if let Some(case) = different.first() {
            panic!("{}: {} of {} differ, as\n{}", class.name, different.len(), some.len(), explain(case));
        }
    }
}

/// Says what differs: natively, and interpreted.
fn explain(case: &Case) -> String {
    let said = natively(&[*case], REPORT_ALL);
    let native: Vec<u64> = said.as_chunks::<8>().0.iter().map(|double| u64::from_le_bytes(*double)).collect();
    assert_eq!(native.len(), RESULT_DOUBLES);
    let interpreted = Model::run(case);
    let mut text = format!("{case:#x?}\n");
    for (slot, (native, interpreted)) in native.iter().zip(&interpreted).enumerate() {
        if native != interpreted {
            let name = match slot {
                0..=30 => format!("x{slot}"),
                31 => "sp".into(),
                32 => "ending".into(),
                33..=96 => format!("v{}[{}]", (slot - 33) / 2, (slot - 33) % 2),
                _ => format!("memory {:#x}", case::WINDOW + 8 * u64::try_from(slot - 97).unwrap()),
            };
            text += &format!("{name}: natively {native:#x}, interpreted {interpreted:#x}\n");
        }
    }
    text
}

#[test]
fn every_class_does_what_the_cpu_does() {
    let failures: Vec<String> = CLASSES
        .iter()
        .chain(&[ZERO])
        .filter_map(|class| {
            let outcome = std::panic::catch_unwind(|| compare(class)).err()?;
            Some(outcome.downcast_ref::<String>().cloned().unwrap_or_else(|| class.name.into()))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

//! Bundles for the tests: made by `tools/bundle`, then damaged where a test wants that.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::machine::{Machine, Scratch, command};

/// Path of the guest that most tests run.
pub const HELLO: &str = "target/hello.img";

/// Settings of one VM, as `tools/bundle` takes them.
#[derive(Clone)]
pub struct Guest(Vec<String>);

impl Guest {
    /// Makes a VM of 16 MiB and one CPU that runs `kernel`.
    pub fn new(name: &str, kernel: &str) -> Self {
        Self(vec![
            format!("NAME={name}"),
            format!("KERNEL={kernel}"),
            "CPUS=1".into(),
            "MEM=16M".into(),
            "CPU=max".into(),
        ])
    }

    /// Makes a VM that runs hello.
    pub fn hello(name: &str) -> Self {
        Self::new(name, HELLO)
    }

    /// Changes a setting.
    pub fn with(mut self, setting: &str, value: &str) -> Self {
        self.0.push(format!("{setting}={value}"));
        self
    }
}

/// A bundle on disk, with the sources that it was made of.
pub struct Bundle {
    scratch: Scratch,
}

impl Bundle {
    /// Makes a bundle of these VMs.
    pub fn of(guests: &[Guest]) -> Self {
        let bundle = Self { scratch: Scratch::new() };
        let mut tool = command("tools/bundle");
        tool.arg(bundle.path());
        for (number, guest) in guests.iter().enumerate() {
            tool.args((number > 0).then_some("--")).args(&guest.0);
        }
        succeed(&mut tool);
        bundle
    }

    /// Returns where it is.
    pub fn path(&self) -> PathBuf {
        self.scratch.path("bundle.itb")
    }

    /// Prepares a machine with 2 CPUs that runs it.
    pub fn machine(&self) -> Machine {
        Machine::new().with_all([("CPUS", "2"), ("MEM", "64M")]).with("BUNDLE", self.path())
    }

    /// Replaces text in the source of a VM's tree, and makes the bundle anew.
    pub fn with_tree(self, vm: &str, from: &str, to: &str) -> Self {
        let source = self.scratch.path(&format!("bundle.{vm}.dts"));
        replace(&source, from, to);
        let tree = self.scratch.path(&format!("bundle.{vm}.fdt"));
        succeed(command("dtc").args(["-q", "-I", "dts", "-O", "dtb", "-o"]).args([tree, source]));
        self.made_anew()
    }

    /// Replaces text in the bundle's source, and makes the bundle anew.
    pub fn with_source(self, from: &str, to: &str) -> Self {
        replace(&self.scratch.path("bundle.its"), from, to);
        self.made_anew()
    }

    /// Replaces a VM's kernel, and makes the bundle anew: `tools/bundle` would refuse it.
    pub fn with_kernel(self, vm: &str, kernel: &[u8]) -> Self {
        self.scratch.file(&format!("bundle.{vm}.kernel"), kernel);
        self.made_anew()
    }

    /// Changes the bundle's bytes.
    pub fn damaged(self, damage: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut bytes = fs::read(self.path()).expect("it was just made");
        damage(&mut bytes);
        self.scratch.file("bundle.itb", &bytes);
        self
    }

    fn made_anew(self) -> Self {
        succeed(command("mkimage").arg("-f").args([self.scratch.path("bundle.its"), self.path()]));
        self
    }
}

fn replace(path: &PathBuf, from: &str, to: &str) {
    let source = fs::read_to_string(path).expect("tools/bundle left it");
    assert!(source.contains(from), "no `{from}` in {}:\n{source}", path.display());
    fs::write(path, source.replace(from, to)).expect("target is writable");
}

fn succeed(tool: &mut Command) {
    let done = tool.output().unwrap_or_else(|error| panic!("{tool:?}: {error}"));
    assert!(done.status.success(), "{tool:?}: {}", String::from_utf8_lossy(&done.stderr));
}

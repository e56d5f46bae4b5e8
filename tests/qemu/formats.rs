//! Each format that a kernel may have, through `make run`'s own script.

use std::fs;
use std::process::{Command, Stdio};

use crate::boot::hello_is_content;
use crate::bundle::HELLO;
use crate::code::{Code, Conduit, SYSTEM_OFF};
use crate::machine::{Machine, Scratch, command, root};

const HELLO_ELF: &str = "target/guests/aarch64-unknown-none-softfloat/release/hello";
/// First word of a device tree as a little-endian CPU reads it.
const TREE_MAGIC: u32 = 0xd00d_feed_u32.swap_bytes();
/// Where QEMU's virt board puts a raw binary.
const RAW_AT: u32 = 0x4008_0000;

/// Prepares `make run KERNEL=kernel`, with a small VM.
fn run(kernel: impl AsRef<std::ffi::OsStr>) -> Machine {
    Machine::as_make_runs_it().with_all([("CPUS", "2"), ("MEM", "16M")]).with("KERNEL", kernel)
}

#[test]
fn an_arm64_image_runs() {
    hello_is_content(&run(HELLO).run(), "3", "2");
}

#[test]
fn a_gzipped_image_runs() {
    let scratch = Scratch::new();
    let gzip = Command::new("gzip")
        .arg("-c")
        .arg(root(HELLO))
        .stderr(Stdio::null())
        .output()
        .expect("gzip is there");
    hello_is_content(&run(scratch.file("Image.gz", &gzip.stdout)).run(), "3", "2");
}

/// hello is linked at 0 and runs anywhere: this moves its segments into RAM, as a linker would.
fn moved_into_ram(mut elf: Vec<u8>) -> Vec<u8> {
    let word = |elf: &[u8], at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().unwrap());
    let half = |elf: &[u8], at: usize| usize::from(u16::from_le_bytes(elf[at..at + 2].try_into().unwrap()));
    let headers = usize::try_from(word(&elf, 32)).unwrap();
    let (size, count) = (half(&elf, 54), half(&elf, 56));
    let mut places = vec![24]; // e_entry
    places.extend((0..count).flat_map(|number| [headers + number * size + 16, headers + number * size + 24]));
    for place in places {
        let moved = word(&elf, place) + u64::from(RAW_AT);
        elf[place..place + 8].copy_from_slice(&moved.to_le_bytes());
    }
    elf[16..18].copy_from_slice(&2_u16.to_le_bytes()); // ET_EXEC
    elf
}

#[test]
fn an_elf_runs() {
    let scratch = Scratch::new();
    let elf = moved_into_ram(fs::read(root(HELLO_ELF)).expect("make guests built it"));
    hello_is_content(&run(scratch.file("hello.elf", &elf)).run(), "3", "2");
}

#[test]
fn a_raw_binary_starts_at_ram_base_plus_0x80000_with_the_tree_in_x0() {
    let code = Code::new()
        .here(4)
        .unless(4, RAW_AT, |code| code.print("elsewhere "))
        .load(5, 0)
        .unless(5, TREE_MAGIC, |code| code.print("no tree "))
        .print("done\n")
        .power_off();
    let scratch = Scratch::new();
    let outcome = run(scratch.file("raw", &code.bytes())).run();
    outcome.succeeded().complains(&[]);
    assert_eq!(outcome.of_guests(), ["done"], "{outcome}");
}

#[test]
fn system_off_ends_the_machine_by_hvc_and_by_smc() {
    for conduit in [Conduit::Hvc, Conduit::Smc] {
        let code = Code::new().call(SYSTEM_OFF, conduit).print("still here\n").power_off();
        let scratch = Scratch::new();
        let outcome = run(scratch.file("raw", &code.bytes())).run();
        outcome.succeeded().lacks("still here").vm("vm", "is off after ");
    }
}

#[test]
fn a_missing_file_fails_make_with_its_name() {
    for setting in ["KERNEL", "INITRD"] {
        let mut make = command("make");
        make.args(["run", &format!("{setting}=no/such/file"), "CPUS=1"]);
        let outcome = Machine::of(make).within(std::time::Duration::from_secs(120)).run();
        outcome.failed();
        assert!(
            outcome.errors.contains(&format!("{setting}=no/such/file: No such file or directory")),
            "{outcome}"
        );
        assert!(outcome.of_trapeze().is_empty() && outcome.of_guests().is_empty(), "{outcome}");
    }
}

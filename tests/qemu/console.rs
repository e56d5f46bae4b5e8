//! The operator at the console: Ctrl-], the monitor's shell, and what is typed to a VM alone.

use std::time::Duration;

use crate::machine::Machine;

/// Prepares Debian, alone on its machine, with time to boot.
fn debian() -> Machine {
    Machine::as_make_runs_it().with("GUEST", "linux").within(Duration::from_secs(120))
}

#[test]
fn the_monitor_opens_over_one_vm_and_leads_back() {
    let outcome = debian()
        .after("/ # ", "\x1dm")
        .after("trapeze> ", "help\r")
        .after("trapeze> ", "vm sto\x7f\x7f\x7fstop\r")
        .after("trapeze> ", "\x1d")
        .after("\n", "echo back to-$((0+1)); poweroff\n")
        .run();
    outcome.succeeded().complains(&[]).vm("linux", "is off after ");
    outcome.says("usage: vm stop NAME").says("  off              stop the machine").says("back to-1");
}

#[test]
fn a_vm_alone_writes_while_the_monitor_is_open() {
    let outcome = debian()
        .after("/ # ", "sleep 3; echo from-$((1+1)); sleep 3; poweroff\n\x1dm")
        .after("[linux] from-2", "\x1d")
        .run();
    outcome.succeeded().complains(&[]).vm("linux", "is off after ").contains("[linux] from-2\n");
}

#[test]
fn a_paste_of_100_kb_arrives_whole() {
    let letter = |at: u64| char::from(b'a' + u8::try_from(at * at / 7 % 26).unwrap());
    let paste: String = (0..100_000).map(letter).collect();
    let outcome = debian()
        .after("/ # ", "stty raw -echo; echo rea''dy; head -c 100000 | crc32; stty sane; poweroff\r")
        .after("ready", &paste)
        .run();
    outcome.succeeded().complains(&[]).contains(&format!("{:08x}", crc32(paste.as_bytes())));
}

/// Computes the CRC-32 of gzip.
fn crc32(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
}

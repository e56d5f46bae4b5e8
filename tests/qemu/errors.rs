//! Bad bundles: one error line for each VM that does not start, and the others run.

use crate::bundle::{Bundle, Guest};
use crate::machine::{Machine, Scratch};

/// VM `bad`, first in the bundle so that it is not the last that is told apart, and VM `good`.
fn bad_and_good(bad: Guest) -> Bundle {
    Bundle::of(&[bad, Guest::hello("good")])
}

/// Asserts that `bad` does not start for this reason alone, that `good` runs all the same, and that the machine fails.
fn refuses(bundle: &Bundle, reason: &str) {
    let outcome = bundle.machine().run();
    outcome.complains(&[&format!("vm bad does not start: {reason}")]).failed();
    outcome.vm("good", "is off after ").says("hello: Goodbye");
    assert_eq!(outcome.of_guests().len(), 6, "more than one hello:\n{outcome}");
}

/// Asserts that nothing starts, for this reason said behind the banner, and that the machine ends with a failure.
fn refuses_all(machine: Machine, reason: &str) {
    let outcome = machine.run();
    outcome.complains(&[reason]).failed();
    assert_eq!(outcome.console.lines().count(), 2, "{outcome}");
}

/// Flips a bit in the first copy of hello.
#[expect(clippy::ptr_arg, reason = "one of several changes to a bundle, some of which change its length")]
fn flip_a_bit_of_the_first_kernel(bytes: &mut Vec<u8>) {
    let magic = bytes.windows(4).position(|four| four == b"ARM\x64").expect("an Image is in it");
    bytes[magic + 100] ^= 1;
}

#[test]
fn a_kernel_that_does_not_match_its_hash_is_refused() {
    let bundle = bad_and_good(Guest::hello("bad")).damaged(flip_a_bit_of_the_first_kernel);
    refuses(
        &bundle,
        "/images/kernel-bad/hash-1: value: crc32 is 0x..., the data says 0x...: rebuild the bundle with mkimage",
    );
}

#[test]
fn sha1_and_sha256_are_verified_too() {
    for algorithm in ["sha1", "sha256"] {
        let bundle = bad_and_good(Guest::hello("bad")).with_source("\"crc32\"", &format!("\"{algorithm}\""));
        bundle.machine().run().succeeded().complains(&[]);
        let damaged = bundle.damaged(flip_a_bit_of_the_first_kernel);
        refuses(
            &damaged,
            &format!("/images/kernel-bad/hash-1: value: {algorithm} is ...: rebuild the bundle with mkimage"),
        );
    }
}

#[test]
fn a_device_that_is_not_provided_is_refused() {
    let bundle = bad_and_good(Guest::hello("bad")).with_tree(
        "bad",
        "\"arm,pl011\", \"arm,primecell\"",
        "\"acme,uart\"",
    );
    refuses(
        &bundle,
        "/pl011@9000000: compatible: \"acme,uart\" is not provided: remove the node; a VM can have ...",
    );
}

#[test]
fn overlapping_regions_are_refused() {
    let bundle = bad_and_good(Guest::hello("bad")).with_tree("bad", "0x09000000", "0x08000000");
    refuses(&bundle, "/...: reg: ... overlaps /...: move one of them");
}

#[test]
fn more_memory_than_the_board_has_is_refused() {
    let bundle = bad_and_good(Guest::hello("bad").with("MEM", "64G"));
    refuses(&bundle, "/memory@40000000: reg: 65536 MiB, but ... MiB are free of the board's ... MiB: ...");
}

#[test]
fn a_cpu_that_the_board_does_not_have_is_refused() {
    let bundle = bad_and_good(Guest::hello("bad").with("ON", "0+7"));
    refuses(&bundle, "/: trapeze,cpus: this board has no CPU 7: give numbers below 2");
}

#[test]
fn a_kernel_for_another_machine_is_refused() {
    let mut x86 = vec![0; 4096];
    x86[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    x86[0x202..0x206].copy_from_slice(b"HdrS");
    let bundle = bad_and_good(Guest::hello("bad")).with_kernel("bad", &x86);
    refuses(&bundle, "/images/kernel-bad: data: an x86 kernel (bzImage)...");
}

#[test]
fn a_kernel_larger_than_the_ram_is_refused() {
    let bundle = bad_and_good(Guest::hello("bad").with("MEM", "2M")).with_kernel("bad", &vec![1; 4 << 20]);
    refuses(
        &bundle,
        "...: 0x400000 bytes of kernel do not fit into the RAM at ...: give the VM more in /memory",
    );
}

#[test]
fn the_other_gic_is_refused() {
    let bundle = bad_and_good(Guest::hello("bad").with("GIC", "2"));
    refuses(&bundle, "...: compatible: a GICv2, but this board has a GICv3: give the VM an \"arm,gic-v3\"");
}

#[test]
fn an_image_that_is_not_there_is_refused() {
    let bundle =
        bad_and_good(Guest::hello("bad")).with_source("kernel = \"kernel-bad\"", "kernel = \"kernel-worse\"");
    refuses(&bundle, "/configurations/bad: kernel: there is no /images/kernel-worse: name a node of /images");
}

#[test]
fn a_machine_whose_vms_cannot_start_ends_with_a_failure() {
    let bundle = Bundle::of(&[Guest::hello("bad").with("ON", "7"), Guest::hello("worse").with("GIC", "2")]);
    let outcome = bundle.machine().run();
    outcome.failed().complains(&[
        "vm bad does not start: /: trapeze,cpus: ...",
        "vm worse does not start: ...: compatible: ...",
    ]);
    assert_eq!(outcome.console.lines().count(), 3, "{outcome}");
}

#[test]
fn a_truncated_bundle_is_refused() {
    let bundle = Bundle::of(&[Guest::hello("good")]).damaged(|bytes| bytes.truncate(bytes.len() / 2));
    refuses_all(bundle.machine(), "the bundle: bundle: truncated: the header says ... bytes, there are ...");
}

#[test]
fn a_file_that_is_no_bundle_is_refused() {
    let scratch = Scratch::new();
    for content in [&b"#!/bin/sh\n"[..], &[0; 4096], &[0xff; 70_000]] {
        let machine = Machine::new().with("BUNDLE", scratch.file("no.itb", content));
        refuses_all(
            machine,
            "the bundle: bundle: not a FIT image (no d00dfeed at its start): build one with mkimage -f",
        );
    }
}

#[test]
fn a_device_tree_without_vms_is_refused() {
    let tree = include_bytes!("../data/virt-gicv3.dtb");
    let scratch = Scratch::new();
    let machine = Machine::new().with("BUNDLE", scratch.file("no.itb", tree));
    refuses_all(machine, "the bundle: /: images: missing node: a FIT image has /images and /configurations");
}

#[test]
fn a_corrupted_bundle_is_refused() {
    // Where the structure block starts, as the header says; every token after that is nonsense.
    let bundle = Bundle::of(&[Guest::hello("good")]).damaged(|bytes| {
        let start = usize::try_from(u32::from_be_bytes(bytes[8..12].try_into().unwrap())).unwrap();
        bytes[start..start + 256].fill(0xa5);
    });
    refuses_all(bundle.machine(), "the bundle: ...");
}

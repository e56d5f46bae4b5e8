//! Trees as guests get them.

use super::*;
use crate::dtb;
use crate::test_tree::{Tree, changes};
use crate::vm_tree;
use crate::vm_tree::tests::virt;
use alloc::string::{String, ToString};
use proptest::prelude::*;
use vm_fdt::{FdtReserveEntry, FdtWriter};

fn initrd() -> Region<Ipa> {
    Region::<Ipa>::new(Ipa::new(0x4800_0000), 0x1234).unwrap()
}

fn build_tree(tree: &Tree, initrd: Option<Region<Ipa>>) -> Vec<u8> {
    let (blob, plain) = (tree.blob(), virt(2).blob());
    let (tree, plain) = (Fdt::new(&blob).unwrap(), Fdt::new(&plain).unwrap());
    let vm = vm_tree::read(&tree).or_else(|_| vm_tree::read(&plain)).unwrap();
    let built = build(&tree, &vm, initrd);
    assert_eq!(size_bytes(&tree, &vm, initrd.is_some()), built.len());
    if dtb::open(&mut blob.clone()).is_ok() {
        let mut checked = built.clone();
        assert!(dtb::open(&mut checked).is_ok(), "it is a tree");
        assert_eq!(checked, built, "and one without anything to correct");
    }
    built
}

/// Lists every node and property of a blob.
fn listed(blob: &[u8]) -> Vec<String> {
    let tree = Fdt::new(blob).unwrap();
    let mut lines = Vec::new();
    let mut ahead = Vec::from([(node::root(&tree).unwrap(), "/".to_string())]);
    while let Some((node, path)) = ahead.pop() {
        lines.push(path.clone());
        lines.extend(node.properties().map(|p| alloc::format!("{path}: {} = {:?}", p.name, p.value)));
        ahead.extend(node.children().map(|child| (child, node::join(&path, child.name))));
    }
    lines.sort();
    lines
}

fn chosen(tree: Tree, initrd: Option<Region<Ipa>>) -> Vec<String> {
    let built = build_tree(&tree, initrd);
    let tree = Fdt::new(&built).unwrap();
    let chosen = node::child(node::root(&tree).unwrap(), "chosen").unwrap();
    chosen.properties().map(|p| alloc::format!("{} = {:x?}", p.name, p.value)).collect()
}

#[test]
fn the_guest_gets_its_tree_and_the_place_of_its_ramdisk() {
    let uart = alloc::format!("{:x?}", b"/pl011@9000000\0");
    let bootargs = alloc::format!("bootargs = {:x?}", b"console=ttyAMA0\0");
    let stdout = alloc::format!("stdout-path = {uart}");
    let start = "linux,initrd-start = [0, 0, 0, 0, 48, 0, 0, 0]".to_string();
    let end = "linux,initrd-end = [0, 0, 0, 0, 48, 0, 12, 34]".to_string();
    let both = [bootargs.clone(), start.clone(), end.clone(), stdout.clone()];
    assert_eq!(chosen(virt(2), Some(initrd())), both);
    assert_eq!(chosen(virt(2), None), [bootargs.clone(), stdout.clone()]);
    assert_eq!(chosen(virt(2).without("chosen"), Some(initrd())), [start, end, stdout.clone()]);
    assert_eq!(chosen(virt(2).without("chosen"), None), [stdout]);
    assert_eq!(chosen(virt(2).without("pl011@9000000"), None), [bootargs]);
}

#[test]
fn what_chosen_says_is_kept_but_the_old_ramdisk() {
    let given = |n: Tree| {
        n.text("stdout-path", "serial0").cells("linux,initrd-start", &[1]).cells("linux,initrd-end", &[2])
    };
    let lines = chosen(virt(1).with("/chosen", given), None);
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1], alloc::format!("stdout-path = {:x?}", b"serial0\0"));
}

#[test]
fn all_else_is_copied() {
    let tree = virt(3).with("/chosen", |n| n.text("stdout-path", "serial0"));
    assert_eq!(listed(&build_tree(&tree, None)), listed(&tree.blob()));
}

#[test]
fn a_copy_of_the_copy_is_the_same() {
    let first = build_tree(&virt(2), Some(initrd()));
    let tree = Fdt::new(&first).unwrap();
    let vm = vm_tree::read(&tree).unwrap();
    let second = build(&tree, &vm, Some(initrd()));
    assert_eq!(listed(&second), listed(&first));
}

#[test]
fn what_is_not_for_the_guest_is_left_out() {
    let tree = virt(2)
        .with("/cpus", |n| n.cells("trapeze,secret", &[1]))
        .with("/cpus/cpu@1", |n| n.text("status", "disabled"))
        .child(Tree::node("rtc").text("status", "disabled"));
    let lines = listed(&build_tree(&tree, None));
    assert!(lines.iter().all(|line| !line.contains("trapeze,") && !line.contains("cpu@1")));
    assert!(lines.contains(&"/rtc".to_string()));
    assert!(lines.contains(&"/cpus/cpu@0".to_string()));
}

#[test]
fn reservations_and_the_boot_cpu_are_kept() {
    let mut writer =
        FdtWriter::new_with_mem_reserv(&[FdtReserveEntry::new(0x4000_0000, 0x1000).unwrap()]).unwrap();
    let root = writer.begin_node("").unwrap();
    writer.end_node(root).unwrap();
    let (blob, plain) =
        (writer.finish().unwrap(), virt(1).with("/cpus/cpu@0", |n| n.cells("reg", &[0x100])).blob());
    let vm = vm_tree::read(&Fdt::new(&plain).unwrap()).unwrap();
    let built = build(&Fdt::new(&blob).unwrap(), &vm, None);
    let tree = Fdt::new(&built).unwrap();
    let kept: Vec<_> =
        tree.memory_reservations().map(|entry| (entry.address().addr(), entry.size())).collect();
    assert_eq!(kept, [(0x4000_0000, 0x1000)]);
    assert_eq!(built[28..32], 0x100_u32.to_be_bytes());
}

#[test]
fn what_overlays_were_made_with_is_left_out() {
    // `vm-fdt` writes no such names.
    let name = "n".repeat("__symbols__".len());
    let mut blob = virt(1).child(Tree::node(&name).text("uart", "/pl011@9000000")).blob();
    let at = blob.windows(name.len()).position(|window| window == name.as_bytes()).unwrap();
    blob[at..at + name.len()].copy_from_slice(b"__symbols__");
    let tree = Fdt::new(&blob).unwrap();
    let vm = vm_tree::read(&tree).unwrap();
    assert_eq!(listed(&build(&tree, &vm, None)), listed(&build_tree(&virt(1), None)));
}

#[test]
fn a_name_that_ends_another_is_told_apart() {
    let tree = virt(1).cells("interrupt-parent", &[7]).cells("parent", &[8]).cells("ent", &[9]);
    let built = build_tree(&tree, None);
    let root = Fdt::new(&built).unwrap();
    let root = node::root(&root).unwrap();
    let of = |name| node::cell(node::value(root, name).unwrap()).unwrap();
    assert_eq!([of("interrupt-parent"), of("parent"), of("ent")], [7, 8, 9]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

    /// Whatever the tree holds, the guest's tree is written, and says where the RAM disk is.
    #[test]
    fn no_tree_panics_and_the_ramdisk_is_there(changes in proptest::collection::vec(changes(), 0..4)) {
        let mut tree = virt(2);
        for change in changes {
            change.apply(&mut tree);
        }
        let lines = listed(&build_tree(&tree, Some(initrd())));
        let start = lines.iter().filter(|line| line.starts_with("/chosen: linux,initrd-start")).count();
        prop_assert!(start >= 1, "{:?}", lines);
    }
}

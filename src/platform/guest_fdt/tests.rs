//! Trees as guests get them.

use super::*;
use crate::test_tree::{Tree, changes};
use crate::vm_tree;
use crate::vm_tree::tests::virt;
use alloc::string::ToString;
use proptest::prelude::*;
use vm_fdt::FdtReserveEntry;

fn initrd() -> Region<Ipa> {
    Region::<Ipa>::new(Ipa::new(0x4800_0000), 0x1234).unwrap()
}

fn build_tree(tree: &Tree, initrd: Option<Region<Ipa>>) -> Result<Vec<u8>, GuestFdtError> {
    let (blob, plain) = (tree.blob(), virt(2).blob());
    let (tree, plain) = (Fdt::new(&blob).unwrap(), Fdt::new(&plain).unwrap());
    let vm = vm_tree::read(&tree).or_else(|_| vm_tree::read(&plain)).unwrap();
    let built = build(&tree, &vm, initrd)?;
    assert_eq!(size_bytes(&tree, &vm, initrd.is_some()), Ok(built.len()));
    Ok(built)
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
    let built = build_tree(&tree, initrd).unwrap();
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
    assert_eq!(listed(&build_tree(&tree, None).unwrap()), listed(&tree.blob()));
}

#[test]
fn a_copy_of_the_copy_is_the_same() {
    let first = build_tree(&virt(2), Some(initrd())).unwrap();
    let tree = Fdt::new(&first).unwrap();
    let vm = vm_tree::read(&tree).unwrap();
    let second = build(&tree, &vm, Some(initrd())).unwrap();
    assert_eq!(listed(&second), listed(&first));
}

#[test]
fn what_is_not_for_the_guest_is_left_out() {
    let tree = virt(2)
        .with("/cpus", |n| n.cells("trapeze,secret", &[1]))
        .cells("trapeze,weight", &[200])
        .text("trapeze,on-crash", "reset")
        .with("/cpus/cpu@1", |n| n.text("status", "disabled"))
        .child(Tree::node("rtc").text("status", "disabled"));
    let lines = listed(&build_tree(&tree, None).unwrap());
    assert!(lines.iter().all(|line| !line.contains("trapeze,") && !line.contains("cpu@1")));
    assert!(lines.contains(&"/rtc".to_string()));
    assert!(lines.contains(&"/cpus/cpu@0".to_string()));
}

/// A tree of a root node and a property, with these reservations.
fn reserving(reserved: &[(usize, usize)]) -> Vec<u8> {
    let entry = |(start, size): &(usize, usize)| {
        FdtReserveEntry::new(u64::try_from(*start).unwrap(), u64::try_from(*size).unwrap()).unwrap()
    };
    let mut writer = FdtWriter::new_with_mem_reserv(&reserved.iter().map(entry).collect::<Vec<_>>()).unwrap();
    let root = writer.begin_node("").unwrap();
    writer.property_string("model", "one that reserves").unwrap();
    writer.end_node(root).unwrap();
    writer.finish().unwrap()
}

#[test]
fn reservations_and_the_boot_cpu_are_kept() {
    let plain = virt(1).with("/cpus/cpu@0", |n| n.cells("reg", &[0x100])).blob();
    let vm = vm_tree::read(&Fdt::new(&plain).unwrap()).unwrap();
    for reserved in [&[][..], &[(0x4000_0000, 0x1000)], &[(0x4100_0000, 8), (0x4000_0000, 0x1000)]] {
        let blob = reserving(reserved);
        let built = build(&Fdt::new(&blob).unwrap(), &vm, None).unwrap();
        let tree = Fdt::new(&built).unwrap();
        let mut kept: Vec<_> =
            tree.memory_reservations().map(|entry| (entry.address().addr(), entry.size())).collect();
        kept.reverse(); // they come out lowest first
        assert_eq!(kept, reserved);
        let model = node::value(node::root(&tree).unwrap(), "model");
        assert_eq!(model, Some(&b"one that reserves\0"[..]));
        assert_eq!(
            (built.len(), built[28..32].to_vec()),
            (tree.total_size(), 0x100_u32.to_be_bytes().to_vec())
        );
    }
}

#[test]
fn reservations_that_no_tree_can_have_are_refused() {
    let plain = virt(1).blob();
    let vm = vm_tree::read(&Fdt::new(&plain).unwrap()).unwrap();
    let good = reserving(&[(0x4000_0000, 0x1000), (0x4100_0000, 0x1000)]);
    for second in [(0x4100_0000, 0_u64), (u64::MAX, 2), (0x4000_0fff, 1), (0x3000_0000, 0x1000_0001)] {
        let mut blob = good.clone();
        blob[56..64].copy_from_slice(&u64::to_be_bytes(second.0));
        blob[64..72].copy_from_slice(&second.1.to_be_bytes());
        let error = build(&Fdt::new(&blob).unwrap(), &vm, None).unwrap_err();
        assert_eq!(error.fault, GuestFdtFault::Reservation, "{second:x?}");
    }
}

/// A blob of a root node, its property of this name, and its child of this name.
fn odd_names(property: &str, child: &str) -> Vec<u8> {
    let blob =
        Tree::root().flag(&"p".repeat(property.len())).child(Tree::node(&"n".repeat(child.len()))).blob();
    let replaced = |blob: Vec<u8>, from: u8, to: &str| {
        let at = blob.windows(to.len() + 1).position(|w| w.iter().rev().skip(1).all(|b| *b == from)).unwrap();
        [&blob[..at], to.as_bytes(), &blob[at + to.len()..]].concat()
    };
    replaced(replaced(blob, b'p', property), b'n', child)
}

#[test]
fn names_that_trees_cannot_have_are_refused() {
    let plain = virt(1).blob();
    let vm = vm_tree::read(&Fdt::new(&plain).unwrap()).unwrap();
    let said = |blob: &[u8]| build(&Fdt::new(blob).unwrap(), &vm, None).map_err(|error| error.to_string());
    let names = "give 1 to 31 letters, digits and the signs that the specification has";
    assert_eq!(
        said(&odd_names("a b", "nnnn")),
        Err(alloc::format!("/: a b: the property's name is not one: {names}"))
    );
    assert_eq!(
        said(&odd_names("ppp", "7@b!")),
        Err(alloc::format!("/7@b!: the node's name is not one: {names}"))
    );
    let overlay = odd_names("ppp", "__symbols__");
    assert!(listed(&said(&overlay).unwrap()).iter().all(|line| !line.contains("__symbols__")));
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
        let lines = listed(&build_tree(&tree, Some(initrd())).unwrap());
        let start = lines.iter().filter(|line| line.starts_with("/chosen: linux,initrd-start")).count();
        prop_assert!(start >= 1, "{:?}", lines);
    }
}

//! Properties of the hypervisor's own: right, wrong, and in the wrong place.

use super::*;
use crate::share::DEFAULT_WEIGHT;
use crate::test_tree::Tree;
use crate::vm_tree::check_cpus_exist;
use crate::vm_tree::tests::{read_tree, rtc, said, virt};
use alloc::format;
use alloc::string::ToString;
use proptest::prelude::*;

#[test]
fn properties_of_the_hypervisors_own_are_known_where_they_mean_something() {
    let placed = [
        ("/", "trapeze,identity", "/memory"),
        ("/", "trapeze,passthrough", "a device"),
        ("/memory@40000000", "trapeze,passthrough", "a device"),
        ("/memory@40000000", "trapeze,trusted-dma", "a device that has trapeze,passthrough"),
        ("/memory@40000000", "trapeze,weight", "/"),
        ("/cpus", "trapeze,passthrough", "a device"),
        ("/cpus", "trapeze,cpus", "/"),
        ("/cpus/cpu@0", "trapeze,passthrough", "a device"),
        ("/cpus/cpu@0", "trapeze,priority", "/"),
        ("/chosen", "trapeze,identity", "/memory"),
        ("/chosen", "trapeze,on-crash", "/"),
        ("/pl011@9000000", "trapeze,trusted-dma", "a device that has trapeze,passthrough"),
        ("/pl011@9000000", "trapeze,identity", "/memory"),
        ("/pl011@9000000", "trapeze,cap-percent", "/"),
    ];
    for (node, property, home) in placed {
        let wanted = format!("{node}: {property}: says nothing at this node: move it to {home}");
        assert_eq!(said(&virt(1).with(node, |n| n.text(property, "/x"))), wanted);
    }
    let misplaced = |tree: &Tree| said(tree).contains(": says nothing at this node: ");
    assert!(misplaced(&virt(1).child(rtc().flag("trapeze,identity"))));
    assert!(misplaced(&virt(1).child(rtc().child(Tree::node("below").text("trapeze,passthrough", "/x")))));
    let nothing = virt(1).child(rtc().flag("trapeze,passthrough"));
    assert!(said(&nothing).starts_with("/rtc@a000040: trapeze,passthrough: malformed: "));
}

#[test]
fn an_unknown_property_of_the_hypervisors_own_is_told_with_the_known_ones() {
    let of_root =
        "trapeze,weight, trapeze,priority, trapeze,cap-percent, trapeze,cpus, trapeze,on-crash".to_string();
    let rows = [
        ("/", of_root.as_str()),
        ("/memory@40000000", "trapeze,identity"),
        ("/pl011@9000000", "trapeze,passthrough"),
        ("/timer", "trapeze,passthrough"),
        ("/rtc@a000040", "trapeze,passthrough, trapeze,trusted-dma"),
        ("/cpus", "none of Trapeze's"),
        ("/cpus/cpu@0", "none of Trapeze's"),
        ("/chosen", "none of Trapeze's"),
    ];
    for (node, known) in rows {
        let tree = virt(1).child(rtc()).with(node, |n| n.cells("trapeze,wieght", &[1]));
        let wanted = "trapeze,wieght: unknown property: remove it or correct its name; this node can have";
        assert_eq!(said(&tree), format!("{node}: {wanted} {known}"));
    }
}

#[test]
fn a_property_that_is_there_or_not_has_no_value() {
    let wanted = "malformed: give it as an empty property, or none";
    let identity = virt(1).with("/memory@40000000", |n| n.cells("trapeze,identity", &[0]));
    assert_eq!(said(&identity), format!("/memory@40000000: trapeze,identity: {wanted}"));
    let trusted = virt(1).child(rtc().cells("trapeze,trusted-dma", &[0]));
    assert_eq!(said(&trusted), format!("/rtc@a000040: trapeze,trusted-dma: {wanted}"));
}

#[test]
fn a_tree_says_what_share_of_the_cpus_its_vm_is_to_have() {
    let read = |change: fn(Tree) -> Tree| {
        let vm = read_tree(&change(virt(1))).unwrap();
        (vm.share.class, vm.share.cap_percent, vm.cpus.map(PcpuSet::bits), vm.on_crash)
    };
    let weight = |weight| Class::Shared { weight };
    assert_eq!(read(|n| n), (weight(DEFAULT_WEIGHT), None, None, OnCrash::Stop));
    let all = read(|n| {
        n.cells("trapeze,weight", &[MAX_WEIGHT.into()])
            .cells("trapeze,cap-percent", &[100])
            .cells("trapeze,cpus", &[3, 0])
            .text("trapeze,on-crash", "reset")
    });
    assert_eq!(all, (weight(MAX_WEIGHT), Some(100), Some(0b1001), OnCrash::Reset));
    let least = read(|n| {
        n.cells("trapeze,weight", &[1])
            .cells("trapeze,cap-percent", &[1])
            .cells("trapeze,cpus", &[63])
            .text("trapeze,on-crash", "hold")
    });
    assert_eq!(least, (weight(1), Some(1), Some(1 << 63), OnCrash::Hold));
    for priority in [0, MAX_PRIORITY] {
        let tree = virt(1).cells("trapeze,priority", &[priority.into()]).text("trapeze,on-crash", "stop");
        let vm = read_tree(&tree).unwrap();
        assert_eq!((vm.share.class, vm.on_crash), (Class::RealTime { priority }, OnCrash::Stop));
    }
}

#[test]
fn each_mistake_in_a_share_has_its_sentence() {
    let both = "trapeze,weight: says nothing beside trapeze,priority: remove trapeze,weight; \
                or, to share CPUs by weight, trapeze,priority";
    assert_eq!(
        said(&virt(1).cells("trapeze,weight", &[1]).cells("trapeze,priority", &[1])),
        format!("/: {both}")
    );
    for (property, least, most) in
        [("trapeze,weight", 1, 10_000), ("trapeze,priority", 0, 31), ("trapeze,cap-percent", 1, 100)]
    {
        let wanted = format!("give one cell, <{least}> to <{most}>");
        for number in [0, most + 1, 0x100, 0x1_0000, u32::MAX] {
            let outcome = read_tree(&virt(1).cells(property, &[number])).map_err(|error| error.to_string());
            if (least..=most).contains(&number) {
                assert!(outcome.is_ok(), "{property} {number}");
            } else {
                assert_eq!(outcome, Err(format!("/: {property}: {number} is out of range: {wanted}")));
            }
        }
        for wrong in [&[][..], &[1], &[0; 3], &[0, 0, 0, 0, 0, 0, 0, 1], b"low\0\0"] {
            let tree = virt(1).bytes(property, wrong);
            assert_eq!(said(&tree), format!("/: {property}: malformed: {wanted}"), "{wrong:?}");
        }
    }
}

#[test]
fn each_mistake_in_a_list_of_cpus_has_its_sentence() {
    let malformed = "/: trapeze,cpus: malformed: give the numbers of physical CPUs, as in <0 1>; \
                     without the property all are the VM's";
    for wrong in [&[][..], &[0], &[0; 5], b"0\0"] {
        assert_eq!(said(&virt(1).bytes("trapeze,cpus", wrong)), malformed, "{wrong:?}");
    }
    assert_eq!(
        said(&virt(1).cells("trapeze,cpus", &[2, 1, 2])),
        "/: trapeze,cpus: CPU 2 is there twice: give each CPU once"
    );
    for number in [64, 255, 256, u32::MAX] {
        assert_eq!(
            said(&virt(1).cells("trapeze,cpus", &[0, number])),
            format!("/: trapeze,cpus: a board has no CPU {number}: give numbers below 64")
        );
    }
}

#[test]
fn a_vm_can_run_on_cpus_that_the_board_has() {
    let checked = |tree: &Tree, cpus| {
        check_cpus_exist(&read_tree(tree).unwrap(), cpus).map_err(|error| error.to_string())
    };
    assert_eq!(checked(&virt(1), 1), Ok(()));
    let some = virt(1).cells("trapeze,cpus", &[5, 0, 3]);
    assert_eq!(checked(&some, 6), Ok(()));
    let error = "/: trapeze,cpus: this board has no CPU 5: give numbers below 4".to_string();
    assert_eq!(checked(&some, 4), Err(error));
    let error = "/: trapeze,cpus: this board has no CPU 3: give numbers below 1".to_string();
    assert_eq!(checked(&some, 1), Err(error));
}

#[test]
fn each_mistake_in_what_a_crash_leads_to_has_its_sentence() {
    let wanted = "give \"stop\", \"reset\" or \"hold\"";
    let other = virt(1).text("trapeze,on-crash", "restart");
    assert_eq!(said(&other), format!("/: trapeze,on-crash: \"restart\" is not supported: {wanted}"));
    for wrong in [&[][..], b"stop", b"stop\0hold\0", &[0, 0, 0, 1], b"\xff\0"] {
        let tree = virt(1).bytes("trapeze,on-crash", wrong);
        assert_eq!(said(&tree), format!("/: trapeze,on-crash: malformed: {wanted}"), "{wrong:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

    /// Whatever the root says of the VM's share: it is a share, or refused at its property.
    #[test]
    fn no_bytes_in_a_share_panic(
        property in 0_usize..5,
        bytes in proptest::collection::vec(prop_oneof![Just(0), any::<u8>()], 0..20),
        cpus in 0_usize..80,
    ) {
        let names =
            ["trapeze,weight", "trapeze,priority", "trapeze,cap-percent", "trapeze,cpus", "trapeze,on-crash"];
        match read_tree(&virt(1).bytes(names[property], &bytes)) {
            Err(error) => {
                let start = format!("/: {}: ", names[property]);
                prop_assert!(error.to_string().starts_with(&start), "{}", error);
            }
            Ok(vm) => {
                let is_possible = match vm.share.class {
                    Class::Shared { weight } => (1..=MAX_WEIGHT).contains(&weight),
                    Class::RealTime { priority } => priority <= MAX_PRIORITY,
                };
                prop_assert!(is_possible);
                prop_assert!(vm.share.cap_percent.is_none_or(|cap| (1..=100).contains(&cap)));
                prop_assert!(vm.cpus.is_none_or(|cpus| !cpus.is_empty()));
                let all_exist = vm.cpus.is_none_or(|set| set.iter().all(|pcpu| pcpu.index() < cpus));
                prop_assert_eq!(check_cpus_exist(&vm, cpus).is_ok(), all_exist);
            }
        }
    }
}

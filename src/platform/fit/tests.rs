//! Bundles that are right, and bundles that are wrong in one place each.

use super::*;
use crate::test_tree::Tree;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use proptest::prelude::*;

const KERNEL_BYTES: &[u8] = b"the kernel";
const FDT_BYTES: &[u8] = b"the tree";
const RAMDISK_BYTES: &[u8] = b"the ramdisk";

fn crc32(bytes: &[u8]) -> Tree {
    Tree::node("hash-1").text("algo", "crc32").bytes("value", &hash::CRC32.checksum(bytes).to_be_bytes())
}

fn image(name: &str, kind: &str, bytes: &[u8]) -> Tree {
    Tree::node(name).bytes("data", bytes).text("type", kind).text("arch", "arm64").child(crc32(bytes))
}

fn configuration(name: &str) -> Tree {
    Tree::node(name).text("kernel", "kernel-1").text("fdt", "fdt-1").text("ramdisk", "ramdisk-1")
}

fn bundle() -> Tree {
    let kernel = image("kernel-1", "kernel", KERNEL_BYTES)
        .text("os", "linux")
        .text("compression", "none")
        .cells("load", &[0x4000_0000])
        .cells("entry", &[0, 0x4000_0000]);
    Tree::root()
        .child(Tree::node("images").child(kernel).child(image("fdt-1", "flat_dt", FDT_BYTES)).child(image(
            "ramdisk-1",
            "ramdisk",
            RAMDISK_BYTES,
        )))
        .child(
            Tree::node("configurations")
                .text("default", "conf-2")
                .child(configuration("conf-1").text("description", "the first"))
                .child(configuration("conf-2").without("ramdisk")),
        )
}

/// Reads a bundle as the machine does and calls `check` with its VMs.
fn read<R>(mut file: Vec<u8>, check: impl FnOnce(Vec<(&str, Result<VmImages<'_>, FitError>)>) -> R) -> R {
    let (tree, external) = split(&mut file).unwrap();
    let tree = Fdt::new(tree).unwrap();
    let bundle = Bundle::open(&tree, external).unwrap();
    check(bundle.virtual_machines().collect())
}

/// Returns what is said about each VM; `None` for one that can run.
fn said(tree: Tree) -> Vec<Option<String>> {
    read(tree.blob(), |vms| vms.into_iter().map(|(_, vm)| vm.err().map(|e| e.to_string())).collect())
}

/// Returns what is said about the first VM, which must be wrong.
fn said_first(tree: Tree) -> String {
    said(tree).swap_remove(0).unwrap()
}

#[test]
fn each_configuration_is_a_vm_in_the_order_of_the_file() {
    read(bundle().blob(), |vms| {
        let [(first, Ok(one)), (second, Ok(two))] = &vms[..] else { unreachable!("{vms:?}") };
        assert_eq!((*first, *second), ("conf-1", "conf-2"));
        assert_eq!((one.name, one.description), ("conf-1", Some("the first")));
        assert_eq!(one.kernel.path, "/images/kernel-1");
        assert_eq!((one.kernel.bytes, one.fdt.bytes), (KERNEL_BYTES, FDT_BYTES));
        assert_eq!(one.ramdisk.as_ref().unwrap().bytes, RAMDISK_BYTES);
        assert_eq!(
            (one.kernel.load, one.kernel.entry),
            (Some(Ipa::new(0x4000_0000)), Some(Ipa::new(0x4000_0000)))
        );
        assert_eq!(one.kernel.compression, Compression::None);
        assert_eq!((two.description, two.ramdisk.as_ref()), (None, None));
    });
}

#[test]
fn gzip_is_for_the_kernel_to_undo_and_for_the_guest_otherwise() {
    let packed = |node: Tree| node.text("compression", "gzip");
    let tree = bundle().with("/images/kernel-1", packed).with("/images/ramdisk-1", packed);
    read(tree.blob(), |vms| {
        let vm = vms[0].1.as_ref().unwrap();
        assert_eq!(vm.kernel.compression, Compression::Gzip);
        assert_eq!(vm.ramdisk.as_ref().unwrap().compression, Compression::None);
    });
    assert_eq!(
        said_first(bundle().with("/images/fdt-1", packed)),
        "/images/fdt-1: compression: \"gzip\" is not supported: give \"none\""
    );
}

#[test]
fn all_three_hashes_are_checked() {
    for (algo, value) in [
        ("crc32", hash::CRC32.checksum(KERNEL_BYTES).to_be_bytes().to_vec()),
        ("sha1", Hash::Sha1([0; 20]).same_over(KERNEL_BYTES, hash::crc32).to_string().into_bytes()),
        ("sha256", Hash::Sha256([0; 32]).same_over(KERNEL_BYTES, hash::crc32).to_string().into_bytes()),
    ] {
        let value: Vec<u8> = match value.strip_prefix(b"0x") {
            None => value,
            Some(hex) => hex
                .chunks(2)
                .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect(),
        };
        let good = |node: Tree| node.text("algo", algo).bytes("value", &value);
        assert_eq!(said(bundle().with("/images/kernel-1/hash-1", good)), [None, None]);
        let bad = |node: Tree| node.bytes("data", b"The kernel");
        let message =
            said_first(bundle().with("/images/kernel-1/hash-1", good).with("/images/kernel-1", bad));
        assert!(message.starts_with(&format!("/images/kernel-1/hash-1: value: {algo} is 0x")), "{message}");
    }
}

#[test]
fn an_image_without_a_hash_is_taken_as_it_is() {
    assert_eq!(said(bundle().with("/images/kernel-1", |node| node.without("hash-1"))), [None, None]);
}

#[test]
fn properties_of_the_hypervisors_own_are_in_no_bundle() {
    let wanted = "unknown property: a bundle has none of Trapeze's; \
                  remove it or move it to the VM's tree, the image that fdt names";
    let weight = |node: Tree| node.cells("trapeze,weight", &[100]);
    let [first, second] = &said(bundle().with("/configurations/conf-1", weight))[..] else { unreachable!() };
    assert_eq!(*first, Some(format!("/configurations/conf-1: trapeze,weight: {wanted}")));
    assert_eq!(*second, None);
    let misspelt = |node: Tree| node.flag("trapeze,wait");
    let [first, second] = &said(bundle().with("/images/ramdisk-1", misspelt))[..] else { unreachable!() };
    assert_eq!(*first, Some(format!("/images/ramdisk-1: trapeze,wait: {wanted}")));
    assert_eq!(*second, None);
}

#[test]
fn every_hash_of_an_image_counts() {
    let second = crc32(b"something else");
    let second = Tree { name: "hash@2".to_string(), ..second };
    let message = said_first(bundle().with("/images/kernel-1", |node| node.child(second)));
    assert_eq!(
        message,
        "/images/kernel-1/hash@2: value: crc32 is 0x55b3a7a9, the data says 0x4035c263: rebuild the bundle with mkimage"
    );
}

#[test]
fn one_damaged_image_stops_only_the_vms_that_use_it() {
    let damaged = |node: Tree| node.bytes("data", b"damaged");
    let [first, second] = &said(bundle().with("/images/ramdisk-1", damaged))[..] else { unreachable!() };
    assert_eq!(
        first.as_deref(),
        Some(
            "/images/ramdisk-1/hash-1: value: crc32 is 0xfc03debb, the data says 0xdcc8afeb: \
             rebuild the bundle with mkimage"
        )
    );
    assert_eq!(*second, None);
}

#[test]
fn each_mistake_in_a_bundle_has_its_sentence() {
    type Change = fn(Tree) -> Tree;
    let rows: [(&str, Change, &str); 22] = [
        (
            "/configurations/conf-1",
            |n| n.without("kernel"),
            "kernel: missing: give the name of a node of /images",
        ),
        ("/configurations/conf-1", |n| n.without("fdt"), "fdt: missing: give the name of a node of /images"),
        (
            "/configurations/conf-1",
            |n| n.text("fdt", "fdt-1|fdt-2"),
            "fdt: names several images: name one (apply overlays when building the tree)",
        ),
        (
            "/configurations/conf-1",
            |n| n.text("kernel", "kernel-9"),
            "kernel: there is no /images/kernel-9: name a node of /images",
        ),
        (
            "/configurations/conf-1",
            |n| n.bytes("kernel", b"open end"),
            "kernel: malformed: give the name of a node of /images",
        ),
        (
            "/configurations/conf-1",
            |n| n.text("loadables", "fw"),
            "loadables: a VM has kernel, fdt and ramdisk only: remove this property",
        ),
        (
            "/configurations/conf-1",
            |n| n.cells("description", &[1]),
            "description: malformed: give one string",
        ),
        (
            "/images/kernel-1",
            |n| n.text("type", "ramdisk"),
            "type: \"ramdisk\" is not supported: give \"kernel\"",
        ),
        (
            "/images/fdt-1",
            |n| n.text("type", "kernel"),
            "type: \"kernel\" is not supported: give \"flat_dt\"",
        ),
        ("/images/ramdisk-1", |n| n.text("type", "x"), "type: \"x\" is not supported: give \"ramdisk\""),
        ("/images/kernel-1", |n| n.text("arch", "arm"), "arch: \"arm\" is not supported: give \"arm64\""),
        (
            "/images/kernel-1",
            |n| n.text("compression", "zstd"),
            "compression: \"zstd\" is not supported: give \"gzip\" or \"none\"",
        ),
        (
            "/images/kernel-1",
            |n| n.bytes("load", &[0; 3]),
            "load: malformed: give a number of one or two cells",
        ),
        (
            "/images/kernel-1",
            |n| n.child(Tree::node("cipher")),
            "cipher: encrypted images are not supported: store it in the clear",
        ),
        (
            "/images/kernel-1",
            |n| n.without("data"),
            "data: missing: give the image itself, with /incbin/(\"file\") in the .its",
        ),
        (
            "/images/kernel-1",
            |n| n.without("data").cells("data-offset", &[0]),
            "data-size: missing: give the length of the data in bytes (mkimage -E writes it)",
        ),
        (
            "/images/kernel-1",
            |n| n.without("data").cells("data-position", &[8]).cells("data-size", &[9]),
            "data-position: 9 bytes at 8 are not in the bundle's FILE: \
             rebuild the bundle or copy it again with what follows its tree",
        ),
        ("/images/kernel-1/hash-1", |n| n.without("algo"), "algo: missing: give crc32, sha1 or sha256"),
        (
            "/images/kernel-1/hash-1",
            |n| n.text("algo", "md5"),
            "algo: \"md5\" is not supported: give crc32, sha1 or sha256",
        ),
        (
            "/images/kernel-1/hash-1",
            |n| n.without("value"),
            "value: missing: give it by building the bundle with mkimage",
        ),
        (
            "/images/kernel-1/hash-1",
            |n| n.bytes("value", &[0; 5]),
            "value: crc32 has 4 bytes, not 5: rebuild the bundle with mkimage",
        ),
        (
            "/images/kernel-1/hash-1",
            |n| n.bytes("value", &[0; 4]),
            "value: crc32 is 0x00000000, the data says 0x4035c263: rebuild the bundle with mkimage",
        ),
    ];
    for (path, change, wanted) in rows {
        let wrong = bundle().with(path, change);
        let wanted = wanted.replace("FILE", &wrong.blob().len().to_string());
        assert_eq!(said_first(wrong), format!("{path}: {wanted}"));
    }
}

#[test]
fn a_file_that_is_no_bundle_says_so() {
    let said = |mut file: Vec<u8>| split(&mut file).unwrap_err().to_string();
    let wanted = "bundle: not a FIT image (no d00dfeed at its start): build one with mkimage -f";
    assert_eq!(said(vec![]), wanted);
    assert_eq!(said(vec![0; 100]), wanted);
    let file = bundle().blob();
    let half = file[..100].to_vec();
    assert_eq!(
        said(half),
        format!(
            "bundle: truncated: the header says {} bytes, there are 100: copy the file again",
            file.len()
        )
    );
    assert_eq!(
        said(FDT_MAGIC.to_vec()),
        "bundle: truncated: the header says 40 bytes, there are 4: copy the file again"
    );
}

#[test]
fn a_tree_that_is_no_fit_image_says_so() {
    let said = |tree: Tree| {
        let mut file = tree.blob();
        let (tree, external) = split(&mut file).unwrap();
        let tree = Fdt::new(tree).unwrap();
        Bundle::open(&tree, external).err().unwrap().to_string()
    };
    let wanted = "missing node: a FIT image has /images and /configurations";
    assert_eq!(said(Tree::root()), format!("/: images: {wanted}"));
    assert_eq!(said(bundle().without("configurations")), format!("/: configurations: {wanted}"));
    assert_eq!(
        said(bundle().with("/configurations", |n| n.without("conf-1").without("conf-2"))),
        "/configurations: empty: each node in it is one VM, add one"
    );
}

#[test]
fn external_data_is_found_after_the_tree_and_nowhere_else() {
    let tail = |position: u32, how: &str, size: u32| {
        let external = |n: Tree| n.without("data").cells(how, &[position]).cells("data-size", &[size]);
        let mut file = bundle().with("/images/kernel-1", external).blob();
        file.resize(file.len().next_multiple_of(4), 0);
        file.extend_from_slice(b"....");
        file.extend_from_slice(KERNEL_BYTES);
        file
    };
    let ends = u32::try_from(tail(0, "data-position", 0).len()).unwrap();
    let size = u32::try_from(KERNEL_BYTES.len()).unwrap();
    for file in [tail(4, "data-offset", size), tail(ends - size, "data-position", size)] {
        read(file, |vms| assert_eq!(vms[0].1.as_ref().map(|vm| vm.kernel.bytes), Ok(KERNEL_BYTES)));
    }
    for (position, size) in [(4, size + 1), (u32::MAX, size), (4, u32::MAX)] {
        let message =
            read(tail(position, "data-offset", size), |vms| vms[0].1.clone().unwrap_err().to_string());
        assert!(message.starts_with("/images/kernel-1: data-offset: "), "{message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

    /// Whatever the properties hold, each VM is read or refused.
    #[test]
    fn no_bundle_panics(changes in proptest::collection::vec(crate::test_tree::changes(), 1..4)) {
        let mut tree = bundle();
        for change in changes {
            change.apply(&mut tree);
        }
        let mut file = tree.blob();
        let (tree, external) = split(&mut file).unwrap();
        let tree = Fdt::new(tree).unwrap();
        if let Ok(bundle) = Bundle::open(&tree, external) {
            for (_, vm) in bundle.virtual_machines() {
                if let Err(error) = vm {
                    prop_assert!(!error.to_string().is_empty());
                }
            }
        }
    }

    /// A flipped bit in any image is found by its hash.
    #[test]
    fn a_flipped_bit_is_found(at in 0..KERNEL_BYTES.len(), bit in 0..8) {
        let mut damaged = KERNEL_BYTES.to_vec();
        damaged[at] ^= 1_u8 << bit;
        let said = said_first(bundle().with("/images/kernel-1", |n| n.bytes("data", &damaged)));
        prop_assert!(said.starts_with("/images/kernel-1/hash-1: value: crc32 is 0x4035c263"), "{}", said);
    }
}

#[test]
fn what_mkimage_writes_is_read() {
    let files = [&include_bytes!("fixtures/embedded.itb")[..], include_bytes!("fixtures/external.itb")];
    for file in files {
        read(file.to_vec(), |vms| {
            let [("one", Ok(one)), ("two", Ok(two))] = &vms[..] else { unreachable!("{vms:?}") };
            assert_eq!((one.kernel.bytes, one.fdt.bytes), (KERNEL_BYTES, FDT_BYTES));
            assert_eq!(one.ramdisk.as_ref().unwrap().bytes, RAMDISK_BYTES);
            assert_eq!((one.description, &two.kernel, &two.ramdisk), (Some("the first"), &one.kernel, &None));
        });
    }
}

#[test]
fn a_bundle_cut_short_loses_only_what_is_gone() {
    let whole = include_bytes!("fixtures/external.itb");
    let tree_bytes = usize::try_from(u32::from_be_bytes(whole[4..8].try_into().unwrap())).unwrap();
    let cut = whole[..tree_bytes.next_multiple_of(4) + KERNEL_BYTES.len() + FDT_BYTES.len() + 4].to_vec();
    read(cut, |vms| {
        let said = vms[0].1.as_ref().unwrap_err().to_string();
        assert!(said.starts_with("/images/ramdisk-1: data-offset: 11 bytes at "), "{said}");
        assert!(vms[1].1.is_ok(), "{:?}", vms[1]);
    });
}

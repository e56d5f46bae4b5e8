//! Devices of QEMU's `virt` and of a board in the shape of a Raspberry Pi 4's, asked for rightly and wrongly.

use super::*;
use crate::board::tests::pi;
use crate::dtb;
use crate::dtb::tests::{Branch, VIRT_GICV3, branch};
use crate::test_tree::{Tree, changes};
use crate::vm_tree;
use crate::vm_tree::tests::virt;
use proptest::prelude::*;

/// A device of the host's in a VM's tree.
fn passed(name: &str, host: &str, compatible: &str, reg: [u32; 2], spis: &[u32]) -> Tree {
    let node = Tree::node(name).text("compatible", compatible).cells("reg", &[0, reg[0], 0, reg[1]]);
    let lines: Vec<u32> = spis.iter().flat_map(|spi| [0, *spi, 4]).collect();
    let node = if spis.is_empty() { node } else { node.cells("interrupts", &lines) };
    node.text("trapeze,passthrough", host)
}

fn rtc() -> Tree {
    passed("rtc@9020000", "/pl031@9010000", "arm,pl031|arm,primecell", [0x902_0000, 0x1000], &[9])
}

fn identity(tree: Tree) -> Tree {
    tree.with("/memory@40000000", |memory| memory.flag("trapeze,identity"))
}

/// Reads what a VM with this tree is to have of the host with that one.
fn devices_of(host: &[u8], vm: &Tree) -> Result<Vec<Device>, VmError> {
    let (mut host, blob) = (host.to_vec(), vm.blob());
    let host = dtb::open(&mut host).unwrap();
    let board = Board::read(&host).unwrap();
    devices(&host, &board, &vm_tree::read(&Fdt::new(&blob).unwrap())?)
}

/// What is said of a VM that QEMU's `virt` has no such device for.
fn said(device: Tree) -> String {
    devices_of(VIRT_GICV3, &virt(1).child(device)).unwrap_err().to_string()
}

fn ipa(start: u64, size_bytes: u64) -> Region<Ipa> {
    Region::<Ipa>::new(Ipa::new(start), size_bytes).unwrap()
}

fn pa(start: u64, size_bytes: u64) -> Region<Pa> {
    Region::<Pa>::new(Pa::new(start), size_bytes).unwrap()
}

/// Encodes an interrupt.
fn cells(numbers: [u32; 3]) -> Vec<u8> {
    numbers.into_iter().flat_map(u32::to_be_bytes).collect()
}

/// The Pi with what is in the pages around its UARTs: the real one's tree says so.
fn pi_with_neighbours() -> Branch {
    let aux = branch("aux@7e215000").text("compatible", "brcm,bcm2835-aux").cells("reg", &[0x7e21_5000, 8]);
    let spi = branch("spi@7e215080")
        .text("compatible", "brcm,bcm2835-aux-spi")
        .cells("reg", &[0x7e21_5080, 0x40])
        .text("status", "disabled");
    let uart2 = branch("serial@7e201400")
        .text("compatible", "arm,pl011")
        .cells("reg", &[0x7e20_1400, 0x200])
        .text("status", "disabled");
    let mut tree = pi();
    let soc = tree.at("/soc");
    *soc = soc.clone().with(aux).with(spi).with(uart2);
    tree
}

fn mini_uart(address: u32) -> Tree {
    passed("serial@9", "/soc/serial@7e215040", "brcm,bcm2835-aux-uart", [address, 0x40], &[20])
}

#[test]
fn a_device_is_where_the_vm_wants_it_with_the_hosts_interrupt() {
    let given = devices_of(VIRT_GICV3, &virt(1).child(rtc())).unwrap();
    let line = Line { intid: IntId(41), physical: IntId(34), trigger: Trigger::Level };
    let wanted = Device {
        path: "/rtc@9020000".to_string(),
        host: "/pl031@9010000".to_string(),
        pages: vec![(ipa(0x902_0000, 0x1000), pa(0x901_0000, 0x1000))],
        lines: vec![line],
    };
    assert_eq!(given, [wanted]);
    assert_eq!(devices_of(VIRT_GICV3, &virt(1)), Ok(vec![]));
}

#[test]
fn addresses_of_a_bus_become_those_of_the_cpu_in_whole_pages() {
    let node =
        passed("serial@902", "/soc/serial@7e201000", "arm,pl011|arm,primecell", [0x902_0000, 0x200], &[3]);
    let given = devices_of(&pi_with_neighbours().blob(&[]), &virt(1).child(node)).unwrap();
    assert_eq!(given[0].pages, [(ipa(0x902_0000, 0x1000), pa(0xfe20_1000, 0x1000))]);
    assert_eq!(given[0].lines[0].physical, IntId(153));
}

#[test]
fn what_shares_a_page_goes_along_or_neither_does() {
    let host = pi_with_neighbours().blob(&[]);
    let alone = virt(1).child(mini_uart(0x902_0040));
    assert_eq!(
        devices_of(&host, &alone).unwrap_err().to_string(),
        "/serial@9: reg: /soc/aux@7e215000 has registers in the same page: give it to the VM, too, or neither"
    );
    let aux = |address| passed("aux@9", "/soc/aux@7e215000", "brcm,bcm2835-aux", [address, 8], &[]);
    let given = devices_of(&host, &alone.clone().child(aux(0x902_0000))).unwrap();
    assert_eq!(given[0].pages, [(ipa(0x902_0000, 0x1000), pa(0xfe21_5000, 0x1000))]);
    assert_eq!((given[1].pages.as_slice(), given[1].lines.len()), (&[][..], 0), "the page is there already");
    let apart = devices_of(&host, &alone.clone().child(aux(0x903_0000))).unwrap();
    assert_eq!(apart[1].pages, [(ipa(0x903_0000, 0x1000), pa(0xfe21_5000, 0x1000))]);
    // One page of the guest cannot be two of the host.
    let pl011 = passed("uart@9", "/soc/serial@7e201000", "arm,pl011", [0x902_0000, 0x200], &[21]);
    let mixed = devices_of(&host, &alone.child(aux(0x903_0000)).child(pl011)).unwrap_err().to_string();
    assert!(mixed.starts_with("/uart@9: reg: /soc/serial@7e201000 has other registers"), "{mixed}");
}

#[test]
fn what_the_host_has_not_or_not_so_is_refused() {
    let with = |property: &str, value: &str| said(rtc().text(property, value));
    let passthrough = |path: &str| with("trapeze,passthrough", path);
    let absent = "is not in the board's tree: give the path of a node that is";
    for path in ["/pl031", "/pl031@9010000/", "pl031@9010000", "/soc/rtc", ""] {
        assert_eq!(
            passthrough(path),
            alloc::format!("/rtc@9020000: trapeze,passthrough: {path} {absent}"),
            "{path}"
        );
    }
    assert_eq!(
        with("compatible", "acme,rtc|arm,pl031"),
        "/rtc@9020000: compatible: /pl031@9010000 is another device: give what the board's tree says of it"
    );
    let registers = alloc::format!("/rtc@9020000: reg: /pl031@9010000 {OTHER_REGISTERS}");
    for reg in [
        &[0, 0x902_0000, 0, 0x800][..],
        &[0, 0x902_0800, 0, 0x1000],
        &[0, 0x902_0000, 0, 0x1000, 0, 0x903_0000, 0, 0x1000],
    ] {
        assert_eq!(said(rtc().cells("reg", reg)), registers);
    }
    let interrupts = "/rtc@9020000: interrupts: /pl031@9010000 has other interrupts: give as many, all of them SPIs on both sides";
    assert_eq!(said(rtc().without("interrupts")), interrupts);
    assert_eq!(said(rtc().cells("interrupts", &[0, 9, 4, 0, 10, 4])), interrupts);
    assert_eq!(
        said(rtc().cells("interrupts", &[1, 9, 4])),
        "/rtc@9020000: interrupts: malformed: give SPIs, <0 number 4>; a PL011 has one"
    );
}

#[test]
fn what_is_off_and_what_is_memory_is_refused() {
    let mut host = pi();
    host.at("/soc/serial@7e201000").set("status", b"disabled\0");
    let pl011 = || passed("uart@9", "/soc/serial@7e201000", "arm,pl011", [0x902_0000, 0x200], &[3]);
    let error = devices_of(&host.blob(&[]), &virt(1).child(pl011())).unwrap_err().to_string();
    assert!(
        error
            .ends_with("/soc/serial@7e201000 is disabled in the board's tree: the firmware has to set it up")
    );
    let mut host = pi();
    // Registers where RAM is, and where something is reserved.
    for ranges in [[0x7e00_0000, 0, 0x10_0000, 0x180_0000], [0x7e00_0000, 0, 0x3b40_0000, 0x180_0000]] {
        let cells: Vec<u8> = ranges
            .iter()
            .chain(&[0x4000_0000, 0, 0xff80_0000, 0x80_0000])
            .flat_map(|cell: &u32| cell.to_be_bytes())
            .collect();
        host.at("/soc").set("ranges", &cells);
        let error = devices_of(&host.blob(&[]), &virt(1).child(pl011())).unwrap_err().to_string();
        assert_eq!(error, "/uart@9: reg: /soc/serial@7e201000 is memory: give a device");
    }
}

#[test]
fn a_bus_master_wants_trust_and_ram_where_it_is() {
    let card = |flags: &[&str]| {
        let host = "/virtio_mmio@a000000";
        let node = passed("net@a000000", host, "virtio,mmio", [0xa00_0000, 0x200], &[16]);
        flags.iter().fold(node, |node, flag| node.flag(flag))
    };
    assert_eq!(
        said(card(&[])),
        "/net@a000000: trapeze,passthrough: /virtio_mmio@a000000 may master the bus and reach all memory, \
         as no SMMU is driven here: trapeze,trusted-dma lets it, which gives up isolation"
    );
    assert_eq!(
        said(card(&["trapeze,trusted-dma"])),
        "/net@a000000: trapeze,trusted-dma: /virtio_mmio@a000000 reaches memory where it physically is: \
         give trapeze,identity to /memory"
    );
    let trusted = identity(virt(1)).child(card(&["trapeze,trusted-dma"]));
    // Eight of them are in each page, all enabled.
    let error = devices_of(VIRT_GICV3, &trusted).unwrap_err().to_string();
    assert!(
        error.starts_with("/net@a000000: reg: /virtio_mmio@a000200 has registers in the same page"),
        "{error}"
    );
}

#[test]
fn an_edge_of_the_hosts_stays_one() {
    let mut host = pi();
    host.at("/soc/serial@7e201000").set("interrupts", &cells([0, 121, 1]));
    let pl011 = passed("uart@9", "/soc/serial@7e201000", "arm,pl011", [0x902_0000, 0x200], &[3]);
    let given = devices_of(&host.blob(&[]), &virt(1).child(pl011.clone())).unwrap();
    assert_eq!(given[0].lines[0].trigger, Trigger::Edge);
    // A PPI cannot be had, nor what no GIC numbers as an SPI.
    for numbers in [[1, 5, 4], [2, 5, 4]] {
        host.at("/soc/serial@7e201000").set("interrupts", &cells(numbers));
        let error = devices_of(&host.blob(&[]), &virt(1).child(pl011.clone())).unwrap_err().to_string();
        assert!(
            error.starts_with("/uart@9: interrupts: /soc/serial@7e201000 has other interrupts"),
            "{error}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

    /// Whatever a VM asks for, it gets whole pages in which the host has a device of those that it named, or an error.
    #[test]
    fn a_vm_gets_devices_that_it_named_and_no_memory(changes in proptest::collection::vec(changes(), 0..4)) {
        let aux = passed("aux@9", "/soc/aux@7e215000", "brcm,bcm2835-aux", [0x902_0000, 8], &[]);
        let pl011 = passed("uart@9", "/soc/serial@7e201000", "arm,pl011", [0x903_0000, 0x200], &[21]);
        let mut tree = virt(1).child(mini_uart(0x902_0040)).child(aux).child(pl011);
        for change in changes {
            change.apply(&mut tree);
        }
        let own = [pa(0xfe21_5000, 0x1000), pa(0xfe20_1000, 0x1000)];
        if let Ok(given) = devices_of(&pi_with_neighbours().blob(&[]), &tree) {
            let pages: Vec<_> = given.iter().flat_map(|device| &device.pages).collect();
            for (index, (guest, host)) in pages.iter().enumerate() {
                prop_assert!(own.contains(host) && guest.size_bytes == host.size_bytes);
                prop_assert!(guest.start.is_aligned(PAGE_BYTES));
                prop_assert!(pages.iter().take(index).all(|(other, _)| !other.overlaps(guest)));
            }
            let lines: Vec<_> = given.iter().flat_map(|device| &device.lines).collect();
            prop_assert!(lines.iter().all(|line| [IntId(125), IntId(153)].contains(&line.physical)));
        }
    }
}

//! Machines that are right, and machines that are wrong in one place each.

use super::*;
use crate::test_tree::{Tree, changes};
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use proptest::prelude::*;

/// A CPU with this affinity in one cell.
pub(crate) fn cpu(mpidr: u32) -> Tree {
    Tree::node(&format!("cpu@{mpidr:x}"))
        .text("device_type", "cpu")
        .text("compatible", "arm,cortex-a72")
        .cells("reg", &[mpidr])
        .text("enable-method", "psci")
}

/// A PL011 at this address.
pub(crate) fn uart(address: u32, spi: u32) -> Tree {
    Tree::node(&format!("pl011@{address:x}"))
        .text("compatible", "arm,pl011|arm,primecell")
        .cells("reg", &[0, address, 0, 0x1000])
        .cells("interrupts", &[0, spi, 4])
        .cells("clocks", &[0x8000, 0x8000])
        .text("clock-names", "uartclk|apb_pclk")
}

/// The default machine, laid out as QEMU's `virt`, with this many CPUs.
pub(crate) fn virt(cpus: u32) -> Tree {
    let map = Tree::node("cpu-map")
        .child(Tree::node("cluster0").child(Tree::node("core0").cells("cpu", &[0x8001])));
    let cpus = (0..cpus).map(cpu).fold(
        Tree::node("cpus").cells("#address-cells", &[1]).cells("#size-cells", &[0]).child(map),
        Tree::child,
    );
    Tree::root()
        .cells("interrupt-parent", &[0x8005])
        .text("compatible", "linux,dummy-virt")
        .cells("#size-cells", &[2])
        .cells("#address-cells", &[2])
        .child(
            Tree::node("psci")
                .text("compatible", "arm,psci-1.0|arm,psci-0.2|arm,psci")
                .text("method", "hvc")
                .cells("cpu_on", &[0xc400_0003]),
        )
        .child(
            Tree::node("memory@40000000")
                .text("device_type", "memory")
                .cells("reg", &[0, 0x4000_0000, 0, 0x2000_0000]),
        )
        .child(uart(0x900_0000, 1))
        .child(
            Tree::node("intc@8000000")
                .cells("phandle", &[0x8005])
                .text("compatible", "arm,gic-v3")
                .cells("reg", &[0, 0x800_0000, 0, 0x1_0000, 0, 0x80a_0000, 0, 0xf6_0000])
                .cells("#redistributor-regions", &[1])
                .flag("interrupt-controller")
                .cells("#interrupt-cells", &[3]),
        )
        .child(cpus)
        .child(
            Tree::node("timer")
                .text("compatible", "arm,armv8-timer|arm,armv7-timer")
                .cells("interrupts", &[1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4])
                .flag("always-on"),
        )
        .child(Tree::node("apb-pclk").text("compatible", "fixed-clock").cells("phandle", &[0x8000]))
        .child(Tree::node("aliases").text("serial0", "/pl011@9000000"))
        .child(Tree::node("chosen").text("bootargs", "console=ttyAMA0"))
}

/// Turns the interrupt controller into a GICv2.
fn gic_v2(tree: Tree) -> Tree {
    tree.with("/intc@8000000", |node| {
        node.text("compatible", "arm,cortex-a15-gic")
            .cells("reg", &[0, 0x800_0000, 0, 0x1_0000, 0, 0x801_0000, 0, 0x1_0000])
    })
}

/// Reads a VM's machine.
pub(crate) fn read_tree(tree: &Tree) -> Result<VmConfig, VmError> {
    let blob = tree.blob();
    read(&Fdt::new(&blob).unwrap())
}

/// Returns what is said of a machine, which must be wrong.
pub(crate) fn said(tree: &Tree) -> String {
    read_tree(tree).unwrap_err().to_string()
}

fn region(start: u64, bytes: u64) -> Region<Ipa> {
    Region::<Ipa>::new(Ipa::new(start), bytes).unwrap()
}

/// A device of the host's.
pub(crate) fn rtc() -> Tree {
    Tree::node("rtc@a000040")
        .text("compatible", "arm,pl031|arm,primecell")
        .cells("reg", &[0, 0xa00_0040, 0, 0x40])
        .cells("interrupts", &[0, 7, 4])
        .text("trapeze,passthrough", "/soc/rtc")
}

#[test]
fn a_device_of_the_hosts_is_not_emulated_and_need_not_fill_pages() {
    let below = Tree::node("bluetooth").text("compatible", "acme,bluetooth").cells("reg", &[7]);
    let trusted = virt(1).child(rtc().child(below).flag("trapeze,trusted-dma"));
    let vm = read_tree(&trusted.with("/memory@40000000", |n| n.flag("trapeze,identity"))).unwrap();
    let wanted = Passthrough {
        path: "/rtc@a000040".to_string(),
        host: "/soc/rtc".to_string(),
        compatible: "arm,pl031".to_string(),
        registers: vec![region(0xa00_0040, 0x40)],
        interrupts: vec![IntId(39)],
        trusts_dma: true,
    };
    assert_eq!((vm.passthrough.as_slice(), vm.identity, vm.spis()), (&[wanted][..], true, 8));
    let uart = virt(1).with("/pl011@9000000", |n| n.text("trapeze,passthrough", "/pl011@0"));
    let vm = read_tree(&uart).unwrap();
    assert_eq!((vm.uarts.len(), vm.passthrough.len(), vm.identity, vm.spis()), (0, 1, false, 2));
}

#[test]
fn a_device_of_the_hosts_is_apart_from_all_that_is_not() {
    let at = |cells: &[u32]| said(&virt(1).child(rtc().cells("reg", cells)));
    assert_eq!(
        at(&[0, 0x900_0ff0, 0, 0x20]),
        "/rtc@a000040: reg: 0x9000000..=0x9001fff overlaps /pl011@9000000: move one of them"
    );
    assert_eq!(
        at(&[0, 0xa00_0000, 0, 0]),
        "/rtc@a000040: reg: 0x0 bytes at 0xa000000 are not whole pages: give multiples of 0x1000, not empty"
    );
    assert_eq!(
        said(&virt(1).child(rtc().cells("interrupts", &[0, 1, 4]))),
        "/rtc@a000040: interrupts: INTID 33 belongs to /pl011@9000000 too: give each device its own"
    );
    let wired = "/rtc@a000040: interrupt-parent: malformed: give the phandle of the VM's interrupt controller, here or in a parent";
    assert_eq!(said(&virt(1).child(rtc().cells("interrupt-parent", &[9]))), wired);
    // Two of them may have a page in common, but not a part of their pages.
    let second = |start, bytes| {
        let node = Tree { name: "second@b".to_string(), ..rtc() };
        virt(1).child(rtc()).child(node.cells("reg", &[0, start, 0, bytes]).cells("interrupts", &[0, 8, 4]))
    };
    assert_eq!(read_tree(&second(0xa00_0080, 0x40)).map(|vm| vm.passthrough.len()), Ok(2));
    assert!(said(&second(0xa00_0080, 0x1000)).contains("overlaps"));
}

#[test]
fn the_default_machine_is_read_as_it_is() {
    let wanted = VmConfig {
        ram: vec![region(0x4000_0000, 0x2000_0000)],
        ram_node: "/memory@40000000".to_string(),
        vcpus: vec![Affinity::from_mpidr(0), Affinity::from_mpidr(1)],
        gic: Gic::V3 {
            distributor: region(0x800_0000, 0x1_0000),
            redistributors: vec![region(0x80a_0000, 0xf6_0000)],
        },
        timer: Timer { physical: IntId(30), virtual_: IntId(27) },
        performance_monitors: None,
        passthrough: vec![],
        identity: false,
        uarts: vec![Uart {
            path: "/pl011@9000000".to_string(),
            registers: region(0x900_0000, 0x1000),
            interrupt: IntId(33),
        }],
        psci: Conduit::Hvc,
        share: Share::default(),
        cpus: None,
        on_crash: OnCrash::Stop,
    };
    assert_eq!(read_tree(&virt(2)), Ok(wanted.clone()));
    let gic =
        Gic::V2 { distributor: region(0x800_0000, 0x1_0000), cpu_interface: region(0x801_0000, 0x1_0000) };
    assert_eq!(read_tree(&gic_v2(virt(2))), Ok(VmConfig { gic, ..wanted }));
}

#[test]
fn all_the_ways_to_say_the_same_are_read() {
    let base = read_tree(&virt(1)).unwrap();
    let names = |n: Tree| n.text("interrupt-names", "virt|phys").cells("interrupts", &[1, 9, 4, 1, 12, 4]);
    let named = read_tree(&virt(1).with("/timer", names)).unwrap();
    assert_eq!(named.timer, Timer { physical: IntId(28), virtual_: IntId(25) });
    assert_eq!(read_tree(&virt(1).with("/psci", |n| n.text("method", "smc"))).unwrap().psci, Conduit::Smc);
    let wide =
        |n: Tree| n.cells("#address-cells", &[2]).with("/cpu@0", |n| n.cells("reg", &[0x12, 0x34_560f]));
    let wide = read_tree(&virt(1).with("/cpus", wide)).unwrap();
    assert_eq!(wide.vcpus, [Affinity { aff3: 0x12, aff2: 0x34, aff1: 0x56, aff0: 0xf }]);
    let renamed = |n: Tree| Tree { name: "ram".to_string(), ..n };
    let renamed = read_tree(&virt(1).with("/memory@40000000", renamed)).unwrap();
    assert_eq!((renamed.ram, &*renamed.ram_node), (base.ram.clone(), "/ram"));
    let two = |n: Tree| n.cells("reg", &[1, 0, 0, 0x1000, 0, 0x4000_0000, 0, 0x1000]);
    let two = read_tree(&virt(1).with("/memory@40000000", two)).unwrap();
    assert_eq!(two.ram, [region(0x4000_0000, 0x1000), region(0x1_0000_0000, 0x1000)]);
    let one_way = virt(1).with("/cpus/cpu@0", |n| n.without("enable-method"));
    assert_eq!(read_tree(&one_way), Ok(base));
}

#[test]
fn what_is_not_in_use_is_not_there() {
    let rtc = Tree::node("rtc").text("compatible", "arm,pl031").text("status", "disabled");
    let tree = virt(2).child(rtc).with("/cpus/cpu@1", |n| n.text("status", "disabled"));
    assert_eq!(read_tree(&tree), read_tree(&virt(1)));
    assert_eq!(read_tree(&virt(1).with("/timer", |n| n.text("status", "okay"))), read_tree(&virt(1)));
}

#[test]
fn what_needs_no_model_is_accepted() {
    let bus = Tree::node("soc")
        .text("compatible", "acme,soc|simple-bus")
        .flag("ranges")
        .cells("#address-cells", &[2]);
    let bus = bus.cells("#size-cells", &[2]).child(uart(0xa00_0000, 2));
    let reserved =
        Tree::node("reserved-memory").cells("#address-cells", &[2]).cells("#size-cells", &[2]).flag("ranges");
    let pool =
        Tree::node("pool@50000000").text("compatible", "ramoops").cells("reg", &[0, 0x5000_0000, 0, 0x1000]);
    let cma = Tree::node("cma").text("compatible", "shared-dma-pool").cells("size", &[0, 0x10_0000]);
    let tree = virt(1)
        .child(bus)
        .child(
            Tree::node("empty").text("compatible", "qemu,platform|simple-bus").cells("ranges", &[0, 0, 0x10]),
        )
        .child(reserved.child(pool).child(cma))
        .with("/cpus", |n| n.child(Tree::node("l2-cache").text("compatible", "cache")));
    assert_eq!(read_tree(&tree).unwrap().uarts[1].path, "/soc/pl011@a000000");
}

#[test]
fn a_machine_has_up_to_eight_cpus() {
    assert_eq!(read_tree(&virt(8)).unwrap().vcpus.len(), 8);
    assert_eq!(read_tree(&gic_v2(virt(8))).unwrap().vcpus.len(), 8);
    assert_eq!(said(&virt(9)), "/cpus: 9 CPUs, but a VM has at most 8: remove some");
    assert_eq!(said(&virt(0)), "/: cpus: missing: give the VM a CPU: a node cpu@0 in /cpus");
}

#[test]
fn every_part_of_a_machine_must_be_there() {
    let rows = [
        ("memory@40000000", "memory: missing: give the VM RAM: a node memory@40000000"),
        ("cpus", "cpus: missing: give the VM a CPU: a node cpu@0 in /cpus"),
        (
            "intc@8000000",
            "interrupt-controller: missing: give a node compatible with \"arm,gic-v3\" or \"arm,gic-400\"",
        ),
        ("timer", "timer: missing: give a node compatible with \"arm,armv8-timer\""),
        ("psci", "psci: missing: give a node compatible with \"arm,psci-1.0\""),
    ];
    for (node, wanted) in rows {
        assert_eq!(said(&virt(1).without(node)), format!("/: {wanted}"));
    }
    assert_eq!(read_tree(&virt(1).without("pl011@9000000")).unwrap().uarts, []);
}

#[test]
fn a_device_that_is_not_provided_is_named_wherever_it_is() {
    let rtc = Tree::node("rtc@9010000").text("compatible", "arm,pl031|arm,primecell");
    let provided = "is not provided: remove the node; a VM can have arm,gic-v3, arm,gic-400, arm,cortex-a15-gic, \
                    arm,armv8-timer, arm,pl011, arm,psci-1.0, arm,psci-0.2, arm,armv8-pmuv3, fixed-clock, cache, simple-bus";
    for parent in ["/", "/cpus", "/cpus/cpu@0", "/chosen", "/intc@8000000", "/psci", "/aliases"] {
        let path = format!("{}/rtc@9010000", parent.trim_end_matches('/'));
        let tree = virt(1).with(parent, |node| node.child(rtc.clone()));
        assert_eq!(said(&tree), format!("{path}: compatible: \"arm,pl031\" {provided}"));
    }
    for compatible in ["arm,armv8-pmu", "acme,uart|arm,pl011", "arm,psci", "virtio,mmio", "qemu,fw-cfg-mmio"]
    {
        let first = compatible.split('|').next().unwrap();
        let tree = virt(1).child(Tree::node("odd").text("compatible", compatible));
        assert_eq!(said(&tree), format!("/odd: compatible: \"{first}\" {provided}"));
    }
}

#[test]
fn performance_monitors_interrupt_by_a_ppi_of_their_own() {
    let pmu = |interrupt: &[u32]| {
        virt(1).child(Tree::node("pmu").text("compatible", "arm,armv8-pmuv3").cells("interrupts", interrupt))
    };
    let monitors = PerformanceMonitors { path: "/pmu".to_string(), interrupt: IntId(23) };
    let read = read_tree(&pmu(&[1, 7, 4])).map(|vm| vm.performance_monitors);
    assert_eq!(read, Ok(Some(monitors)));
    assert_eq!(said(&pmu(&[0, 7, 4])), "/pmu: interrupts: malformed: give one PPI, <1 7 4>");
    let taken = "/pmu: interrupts: INTID 27 belongs to /timer too: give each device its own";
    assert_eq!(said(&pmu(&[1, 11, 4])), taken);
}

#[test]
fn each_mistake_in_a_machine_has_its_sentence() {
    type Change = fn(Tree) -> Tree;
    let rows: [(&str, Change, &str); 44] = [
        ("/", |n| n.bytes("#size-cells", &[2]), "#size-cells: malformed: give one cell"),
        (
            "/",
            |n| n.cells("interrupt-parent", &[]),
            "interrupt-parent: malformed: give a number of one or two cells",
        ),
        (
            "/timer",
            |n| n.cells("trapeze,priority", &[1]),
            "trapeze,priority: says nothing at this node: move it to /",
        ),
        ("/memory@40000000", |n| n.without("device_type"), "device_type: missing: give \"memory\""),
        ("/memory@40000000", |n| n.text("device_type", "ram"), "device_type: malformed: give \"memory\""),
        (
            "/memory@40000000",
            |n| n.without("reg"),
            "reg: missing: give (address, size) pairs in as many cells as #address-cells and #size-cells of the parent say",
        ),
        (
            "/memory@40000000",
            |n| n.cells("reg", &[0x4000_0000, 0x1000, 0]),
            "reg: malformed: give (address, size) pairs in as many cells as #address-cells and #size-cells of the parent say",
        ),
        (
            "/memory@40000000",
            |n| n.cells("reg", &[0, 0x4000_0800, 0, 0x1000]),
            "reg: 0x1000 bytes at 0x40000800 are not whole pages: give multiples of 0x1000, not empty",
        ),
        (
            "/memory@40000000",
            |n| n.cells("reg", &[0, 0x4000_0000, 0, 0]),
            "reg: 0x0 bytes at 0x40000000 are not whole pages: give multiples of 0x1000, not empty",
        ),
        (
            "/memory@40000000",
            |n| n.cells("reg", &[0xff, 0xffff_f000, 0, 0x2000]),
            "reg: 0x2000 bytes at 0xfffffff000 end above 40 bits of address: give an address below 0x10000000000",
        ),
        (
            "/memory@40000000",
            |n| n.cells("reg", &[u32::MAX, 0xffff_f000, 0, 0x2000]),
            "reg: 0x2000 bytes at 0xfffffffffffff000 end above 40 bits of address: give an address below 0x10000000000",
        ),
        (
            "/memory@40000000",
            |n| n.cells("reg", &[0, 0x4000_0000, 0, 0x3000, 0, 0x4000_2000, 0, 0x1000]),
            "reg: 0x40002000..=0x40002fff overlaps /memory@40000000: move one of them",
        ),
        (
            "/pl011@9000000",
            |n| n.cells("reg", &[0, 0x4000_0000, 0, 0x1000]),
            "reg: 0x40000000..=0x40000fff overlaps /memory@40000000: move one of them",
        ),
        (
            "/pl011@9000000",
            |n| n.cells("reg", &[0, 0x80b_0000, 0, 0x1000]),
            "reg: 0x80b0000..=0x80b0fff overlaps /intc@8000000: move one of them",
        ),
        (
            "/pl011@9000000",
            |n| n.cells("reg", &[0, 0x900_0000, 0, 0x1_0000]),
            "reg: PL011 cannot have 0x10000 bytes: give 0x1000",
        ),
        (
            "/pl011@9000000",
            |n| n.cells("reg", &[0, 0x900_0000, 0, 0x1000, 0, 0xa00_0000, 0, 0x1000]),
            "reg: malformed: give one region",
        ),
        (
            "/pl011@9000000",
            |n| n.cells("interrupts", &[1, 1, 4]),
            "interrupts: malformed: give SPIs, <0 number 4>; a PL011 has one",
        ),
        (
            "/pl011@9000000",
            |n| n.cells("interrupts", &[0, 256, 4]),
            "interrupts: malformed: give <0 number flags> for an SPI up to 255, <1 number flags> for a PPI up to 15",
        ),
        (
            "/pl011@9000000",
            |n| n.without("interrupts"),
            "interrupts: missing: give <0 number flags> for an SPI up to 255, <1 number flags> for a PPI up to 15",
        ),
        (
            "/pl011@9000000",
            |n| n.cells("interrupts-extended", &[0x8005, 0, 1, 4]),
            "interrupts-extended: a list of controllers is not supported: give interrupts and interrupt-parent",
        ),
        (
            "/pl011@9000000",
            |n| n.cells("interrupt-parent", &[7]),
            "interrupt-parent: malformed: give the phandle of the VM's interrupt controller, here or in a parent",
        ),
        (
            "/pl011@9000000",
            |n| n.bytes("compatible", b"arm"),
            "compatible: malformed: give a list of strings",
        ),
        (
            "/timer",
            |n| n.cells("interrupts", &[1, 13, 4, 1, 14, 4]),
            "interrupts: malformed: give PPIs <1 13 4>, <1 14 4>, <1 11 4>, <1 10 4>: \
             secure, physical, virtual, hypervisor",
        ),
        (
            "/timer",
            |n| n.cells("interrupts", &[1, 13, 4, 1, 14, 4, 1, 14, 4]),
            "interrupts: malformed: give PPIs <1 13 4>, <1 14 4>, <1 11 4>, <1 10 4>: \
             secure, physical, virtual, hypervisor",
        ),
        (
            "/timer",
            |n| n.bytes("interrupt-names", b"virt"),
            "interrupt-names: malformed: give one string per interrupt",
        ),
        (
            "/intc@8000000",
            |n| n.without("interrupt-controller"),
            "interrupt-controller: missing: give it as an empty property",
        ),
        ("/intc@8000000", |n| n.cells("#interrupt-cells", &[4]), "#interrupt-cells: malformed: give <3>"),
        (
            "/intc@8000000",
            |n| n.without("phandle"),
            "phandle: missing: give it (dtc does where another node refers to this one)",
        ),
        (
            "/intc@8000000",
            |n| n.cells("#redistributor-regions", &[2]),
            "reg: malformed: give GICD and as many GICR regions as #redistributor-regions says, 1 if not given \
             (a VM has no GICC, GICH and GICV)",
        ),
        (
            "/intc@8000000",
            |n| n.cells("redistributor-stride", &[0, 0x4_0000]),
            "redistributor-stride: malformed: give <0x20000> or leave it out",
        ),
        (
            "/intc@8000000",
            |n| n.cells("reg", &[0, 0x800_0000, 0, 0x2_0000, 0, 0x80a_0000, 0, 0xf6_0000]),
            "reg: GICD cannot have 0x20000 bytes: give 0x10000",
        ),
        (
            "/intc@8000000",
            |n| n.cells("reg", &[0, 0x800_0000, 0, 0x1_0000, 0, 0x80a_0000, 0, 0x3_0000]),
            "reg: GICR cannot have 0x30000 bytes: give a multiple of 0x20000",
        ),
        (
            "/intc@8000000",
            |n| n.cells("reg", &[0, 0x800_0000, 0, 0x1_0000, 0, 0x80a_0000, 0, 0x2_0000]),
            "reg: room for 1 redistributors of 0x20000 bytes, but 2 CPUs: make the region longer",
        ),
        (
            "/intc@8000000",
            |n| n.text("compatible", "arm,gic-400").cells("reg", &[0, 0x800_0000, 0, 0x1000]),
            "reg: malformed: give two regions, GICD and GICC (a VM has no GICH and GICV)",
        ),
        (
            "/intc@8000000",
            |n| {
                n.text("compatible", "arm,gic-400")
                    .cells("reg", &[0, 0x800_0000, 0, 0x1000, 0, 0x801_0000, 0, 0x1000])
            },
            "reg: GICC cannot have 0x1000 bytes: give 0x2000 to 0x10000",
        ),
        ("/psci", |n| n.text("method", "svc"), "method: malformed: give \"hvc\" or \"smc\""),
        ("/psci", |n| n.without("method"), "method: missing: give \"hvc\" or \"smc\""),
        (
            "/psci",
            |n| n.cells("cpu_on", &[1]),
            "cpu_on: malformed: give the number of PSCI 0.2 or leave it out",
        ),
        ("/cpus/cpu@1", |n| n.without("device_type"), "device_type: missing: give \"cpu\""),
        ("/cpus/cpu@1", |n| n.text("enable-method", "spin-table"), "enable-method: malformed: give \"psci\""),
        (
            "/cpus/cpu@1",
            |n| n.without("enable-method"),
            "enable-method: missing: give \"psci\" to each of several CPUs",
        ),
        (
            "/cpus/cpu@1",
            |n| n.cells("reg", &[0]),
            "reg: 0x0 is the address of /cpus/cpu@0 too: give each CPU its own",
        ),
        (
            "/cpus/cpu@1",
            |n| n.cells("reg", &[0x8000_0001]),
            "reg: 0x80000001 is no address of a CPU: give bits of MPIDR_EL1 0xff00ffffff only",
        ),
        (
            "/cpus/cpu@1",
            |n| n.cells("reg", &[0x10]),
            "reg: 0x10 is no address of a CPU: give a lowest byte below 0x10, which is what SGIs of a GICv3 reach",
        ),
    ];
    for (path, change, wanted) in rows {
        assert_eq!(said(&virt(2).with(path, change)), format!("{path}: {wanted}"));
    }
}

#[test]
fn a_vm_that_is_too_large_is_told_what_is_free_and_what_there_is() {
    let refused = |tree: &Tree| read_tree(tree).unwrap().too_large((800 << 20) + 0xfff, 2 << 30).to_string();
    assert_eq!(
        refused(&virt(1)),
        "/memory@40000000: reg: 512 MiB, but 800 MiB are free of the board's 2048 MiB: \
         give this VM less, or another one"
    );
    let two = |n: Tree| n.cells("reg", &[0, 0x8000_0000, 0, 0x1000, 0, 0x4000_0000, 0, 0x2000_0000]);
    let error = refused(&virt(1).with("/memory@40000000", two));
    assert!(error.starts_with("/memory@40000000: reg: 513 MiB, but 800 MiB"), "{error}");
}

#[test]
fn there_is_one_of_each_but_uarts() {
    let second = |path: &str, name: &str| {
        let mut tree = virt(1);
        let copy = Tree { name: name.to_string(), ..tree.at(path).clone() };
        said(&tree.child(copy))
    };
    for path in ["/intc@8000000", "/timer", "/psci"] {
        assert_eq!(
            second(path, "two"),
            format!("/two: compatible: {path} is one already: remove one of them")
        );
    }
    assert_eq!(
        said(&virt(1).child(uart(0xa00_0000, 1))),
        "/pl011@a000000: interrupts: INTID 33 belongs to /pl011@9000000 too: give each device its own"
    );
}

#[test]
fn addresses_count_on_a_bus_only() {
    let bus = |n: Tree| n.cells("#address-cells", &[2]).cells("#size-cells", &[2]).child(uart(0xa00_0000, 2));
    assert_eq!(
        said(&virt(1).child(bus(Tree::node("box")))),
        "/box/pl011@a000000: reg: the parent is no bus: move the node to / \
         or below a node compatible with \"simple-bus\""
    );
    let bus = bus(Tree::node("soc").text("compatible", "simple-bus"));
    let wanted = "give it as an empty property: addresses on the bus are taken as they are";
    assert_eq!(said(&virt(1).child(bus.clone())), format!("/soc: ranges: missing: {wanted}"));
    assert_eq!(said(&virt(1).child(bus.cells("ranges", &[0]))), format!("/soc: ranges: malformed: {wanted}"));
}

#[test]
fn memory_can_be_reserved_in_ram_only() {
    let pool = Tree::node("pool@0").cells("reg", &[0, 0, 0, 0x1000]);
    let reserved = Tree::node("reserved-memory").cells("#address-cells", &[2]).cells("#size-cells", &[2]);
    assert_eq!(
        said(&virt(1).child(reserved.child(pool))),
        "/reserved-memory/pool@0: reg: 0x0..=0xfff is not in the VM's RAM: reserve memory that /memory has"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

    /// Whatever the properties hold: a machine is consistent or refused.
    #[test]
    fn no_tree_panics_and_no_machine_overlaps(changes in proptest::collection::vec(changes(), 1..4)) {
        let mut tree = virt(2);
        for change in changes {
            change.apply(&mut tree);
        }
        match read_tree(&tree) {
            Err(error) => prop_assert!(error.to_string().starts_with('/'), "{}", error),
            Ok(vm) => {
                let mut all = vm.ram.clone();
                all.extend(vm.uarts.iter().map(|uart| uart.registers));
                match vm.gic {
                    Gic::V2 { distributor, cpu_interface } => all.extend([distributor, cpu_interface]),
                    Gic::V3 { distributor, redistributors } => {
                        all.push(distributor);
                        all.extend(redistributors);
                    }
                }
                for (index, one) in all.iter().enumerate() {
                    prop_assert!(one.last().get() < 1 << 40);
                    prop_assert!(all[index + 1..].iter().all(|other| !one.overlaps(other)));
                }
                prop_assert!((1..=MAX_CPUS).contains(&vm.vcpus.len()));
            }
        }
    }
}

//! Tests of the board against trees that QEMU wrote and against one in the shape of a Raspberry Pi 4's.

use super::*;
use crate::dtb::interrupt::{Interrupt, Trigger};
use crate::dtb::open;
use crate::dtb::tests::{Branch, VIRT_GICV2, VIRT_GICV3, branch, nop_out};
use crate::ids::{Affinity, IntId};

fn pa(start: u64, size_bytes: u64) -> Region<Pa> {
    Region::<Pa>::new(Pa::new(start), size_bytes).unwrap()
}

fn read(blob: &[u8]) -> Result<Board, BoardError> {
    Board::read(&open(&mut blob.to_vec()).unwrap())
}

/// Reads a tree that is broken and returns what is said about it.
fn error_of(tree: &Branch) -> String {
    read(&tree.blob(&[])).unwrap_err().to_string()
}

fn cell_bytes(cells: &[u32]) -> Vec<u8> {
    cells.iter().flat_map(|cell| cell.to_be_bytes()).collect()
}

/// A board with a bus between CPU and devices, spin tables, two kinds of UART and reservations.
pub(crate) fn pi() -> Branch {
    let cpu = |n: u32| {
        branch(&format!("cpu@{n}"))
            .text("device_type", "cpu")
            .cells("reg", &[n])
            .text("enable-method", "spin-table")
            .cells("cpu-release-addr", &[0, 0xd8 + 8 * n])
    };
    let cpus = branch("cpus").cells("#address-cells", &[1]).cells("#size-cells", &[0]);
    let cpus =
        cpus.text("enable-method", "some,other-smp").with(branch("l2-cache0").text("compatible", "cache"));
    let gic = branch("interrupt-controller@40041000")
        .text("compatible", "arm,gic-400")
        .cells("reg", &[0x4004_1000, 0x1000, 0x4004_2000, 0x2000, 0x4004_4000, 0x2000, 0x4004_6000, 0x2000])
        .cells("interrupts", &[1, 9, 0xf04])
        .bytes("interrupt-controller", &[])
        .cells("#interrupt-cells", &[3])
        .cells("phandle", &[1]);
    let pl011 = branch("serial@7e201000")
        .text("compatible", "arm,pl011\0arm,primecell")
        .cells("reg", &[0x7e20_1000, 0x200])
        .cells("interrupts", &[0, 121, 4]);
    let mini_uart = branch("serial@7e215040")
        .text("compatible", "brcm,bcm2835-aux-uart")
        .cells("reg", &[0x7e21_5040, 0x40])
        .cells("interrupts", &[0, 93, 4])
        .text("status", "okay");
    let watchdog = branch("watchdog@7e100000")
        .text("compatible", "brcm,bcm2711-pm\0brcm,bcm2835-pm-wdt")
        .cells("reg", &[0x7e10_0000, 0x114, 0x7e00_a000, 0x24]);
    let soc = branch("soc")
        .cells("#address-cells", &[1])
        .cells("#size-cells", &[1])
        .cells("ranges", &[0x7e00_0000, 0, 0xfe00_0000, 0x180_0000, 0x4000_0000, 0, 0xff80_0000, 0x80_0000])
        .with(pl011)
        .with(mini_uart)
        .with(gic)
        .with(watchdog);
    let nvram = branch("nvram@0").cells("reg", &[0, 0, 0]).text("status", "disabled");
    let reserved = branch("reserved-memory").cells("#address-cells", &[2]).cells("#size-cells", &[1]);
    let reserved = reserved
        .bytes("ranges", &[])
        .with(branch("linux,cma").cells("size", &[0x400_0000]))
        .with(nvram)
        .with(branch("gpu@3b400000").cells("reg", &[0, 0x3b40_0000, 0x4c0_0000]).bytes("no-map", &[]));
    branch("")
        .cells("#address-cells", &[2])
        .cells("#size-cells", &[1])
        .cells("interrupt-parent", &[1])
        .with(
            branch("aliases").text("serial0", "/soc/serial@7e201000").text("serial1", "/soc/serial@7e215040"),
        )
        .with(branch("chosen").text("stdout-path", "serial1:115200n8"))
        .with(
            branch("memory@0")
                .text("device_type", "memory")
                .cells("reg", &[0, 0, 0x3b40_0000, 0, 0x4000_0000, 0xbc00_0000]),
        )
        .with(reserved)
        .with(soc)
        .with(
            branch("timer")
                .text("compatible", "arm,armv8-timer")
                .cells("interrupts", &[1, 13, 0xf08, 1, 14, 0xf08, 1, 11, 0xf08, 1, 10, 0xf08]),
        )
        .with((0..4).fold(cpus, |cpus, n| cpus.with(cpu(n))))
}

/// The Pi with one property set to these cells.
fn pi_with(path: &str, property: &str, cells: &[u32]) -> Branch {
    let mut tree = pi();
    tree.at(path).set(property, &cell_bytes(cells));
    tree
}

#[test]
fn virt_with_gicv2_is_read_in_full() {
    let board = read(VIRT_GICV2).unwrap();
    assert_eq!(board.ram, [pa(0x4000_0000, 0x4000_0000)]);
    assert_eq!((board.reserved.len(), board.free_ram()), (0, board.ram.clone()));
    let affinities: Vec<_> = board.cpus.iter().map(|cpu| cpu.affinity.to_mpidr()).collect();
    assert_eq!(affinities, [0, 1, 2, 3]);
    assert!(board.cpus.iter().all(|cpu| cpu.enable == EnableMethod::Psci));
    assert_eq!(board.psci, Some(Conduit::Smc));
    let registers = GicRegisters::V2 {
        gicd: pa(0x800_0000, 0x1_0000),
        gicc: pa(0x801_0000, 0x1_0000),
        gich: pa(0x803_0000, 0x1_0000),
        gicv: pa(0x804_0000, 0x1_0000),
    };
    assert_eq!(board.gic.registers, registers);
    assert_eq!(board.gic.maintenance.intid, IntId(25));
    let timer = ArchTimer {
        secure_physical: Some(IntId(29)),
        physical: IntId(30),
        virtual_el1: IntId(27),
        hypervisor: IntId(26),
        hypervisor_virtual: None,
    };
    assert_eq!(board.timer, timer);
    let interrupt = Interrupt { controller: 0x8005, intid: IntId(33), trigger: Trigger::Level };
    let registers = pa(0x900_0000, 0x1000);
    assert_eq!(board.console, Some(Console { kind: UartKind::Pl011, registers, interrupt: Some(interrupt) }));
    let mmio = PciWindow { cpu: pa(0x1000_0000, 0x2eff_0000), bus_start: 0x1000_0000 };
    let pci = PciHost { ecam: pa(0x40_1000_0000, 0x1000_0000), buses: (0, 255), mmio: Some(mmio) };
    assert_eq!(board.pci, Some(pci));
    assert_eq!((board.initrd, board.bootargs.as_str(), board.watchdog), (None, "", None));
}

#[test]
fn virt_with_gicv3_has_redistributors() {
    let board = read(VIRT_GICV3).unwrap();
    assert_eq!(board.ram, [pa(0x4000_0000, 0xc000_0000)]);
    assert_eq!(board.cpus.len(), 2);
    let gicr = vec![pa(0x80a_0000, 0xf6_0000)];
    assert_eq!(board.gic.registers, GicRegisters::V3 { gicd: pa(0x800_0000, 0x1_0000), gicr, stride: None });
    assert_eq!(board.gic.maintenance.intid, IntId(25));
    assert_eq!(board.timer.hypervisor, IntId(26));
}

#[test]
fn redistributors_may_be_in_several_regions() {
    let path = "/soc/interrupt-controller@40041000";
    let mut tree =
        pi_with(path, "reg", &[0x4000_0000, 0x1_0000, 0x4010_0000, 0x8_0000, 0x4020_0000, 0x8_0000]);
    let gic = tree.at(path);
    gic.set("compatible", b"arm,gic-v3\0");
    gic.set("#redistributor-regions", &cell_bytes(&[2]));
    gic.set("redistributor-stride", &cell_bytes(&[0, 0x4_0000]));
    let registers = GicRegisters::V3 {
        gicd: pa(0xff80_0000, 0x1_0000),
        gicr: vec![pa(0xff90_0000, 0x8_0000), pa(0xffa0_0000, 0x8_0000)],
        stride: Some(0x4_0000),
    };
    assert_eq!(read(&tree.blob(&[])).unwrap().gic.registers, registers);
    tree.at(path).set("redistributor-stride", &cell_bytes(&[0x1_0000]));
    assert!(error_of(&tree).contains("`redistributor-stride` has the value 0x10000"));
    tree.at(path).set("#redistributor-regions", &cell_bytes(&[3]));
    tree.at(path).remove("redistributor-stride");
    assert!(error_of(&tree).contains("`reg` should have at least 4 entries"));
}

#[test]
fn the_pci_window_is_32_bit_memory_without_prefetch() {
    let (io, prefetchable, wide) = (0x100_0000, 0x4200_0000, 0x300_0000);
    let entry = |kind, size| [kind, 0, 0x1000_0000, 0x50, 0x2000_0000, 0, size];
    let bridge = |ranges: &[[u32; 7]]| {
        let bridge = branch("pcie").text("compatible", "pci-host-ecam-generic").cells("bus-range", &[2, 3]);
        let bridge = bridge.cells("#address-cells", &[3]).cells("#size-cells", &[2]);
        let tree = pi().with(bridge.cells("reg", &[1, 0, 0x20_0000]).cells("ranges", &ranges.concat()));
        read(&tree.blob(&[])).map(|board| board.pci.unwrap()).map_err(|error| error.to_string())
    };
    let others = [entry(io, 0x10), entry(prefetchable, 0x20), entry(wide, 0x30)];
    assert_eq!(bridge(&others).unwrap(), PciHost { ecam: pa(1 << 32, 0x20_0000), buses: (2, 3), mmio: None });
    let mmio = PciWindow { cpu: pa(0x50_2000_0000, 0x40), bus_start: 0x1000_0000 };
    let found = bridge(&[others[0], others[1], others[2], entry(0x200_0000, 0x40)]).unwrap();
    assert_eq!(found.mmio, Some(mmio));
    assert!(bridge(&[entry(0x200_0000, 0)]).unwrap_err().contains("/pcie: `ranges` has 0x0 bytes"));
    assert!(bridge(&[entry(0x200_0000, 0xf000_0001)]).unwrap_err().contains("/pcie: `ranges`"));
}

#[test]
fn bus_addresses_of_the_pi_become_physical() {
    let board = read(&pi().blob(&[(0, 0x1000)])).unwrap();
    let registers = GicRegisters::V2 {
        gicd: pa(0xff84_1000, 0x1000),
        gicc: pa(0xff84_2000, 0x2000),
        gich: pa(0xff84_4000, 0x2000),
        gicv: pa(0xff84_6000, 0x2000),
    };
    assert_eq!(board.gic.registers, registers);
    let console = board.console.unwrap();
    assert_eq!((console.kind, console.registers), (UartKind::Bcm2835MiniUart, pa(0xfe21_5040, 0x40)));
    assert_eq!(console.interrupt.unwrap().intid, IntId(125));
    assert_eq!(board.watchdog, Some(pa(0xfe10_0000, 0x114)));
    assert_eq!((board.psci, board.pci), (None, None));
    for (n, cpu) in (0..).zip(&board.cpus) {
        assert_eq!(cpu.affinity, Affinity { aff0: n, ..Affinity::default() });
        assert_eq!(cpu.enable, EnableMethod::SpinTable { release: Pa::new(0xd8 + 8 * u64::from(n)) });
    }
    assert_eq!(board.cpus.len(), 4);
}

#[test]
fn reserved_memory_is_not_free() {
    let board = read(&pi().blob(&[(0, 0x1000)])).unwrap();
    assert_eq!(board.ram, [pa(0, 0x3b40_0000), pa(0x4000_0000, 0xbc00_0000)]);
    assert_eq!(board.reserved, [pa(0, 0x1000), pa(0x3b40_0000, 0x4c0_0000)]);
    assert_eq!(board.free_ram(), [pa(0x1000, 0x3b3f_f000), pa(0x4000_0000, 0xbc00_0000)]);
}

/// What the firmware writes for a Raspberry Pi 4 with so many GiB, all but what the GPU has.
#[test]
fn every_size_of_the_pi_is_read() {
    let low = [0, 0, 0x3b40_0000];
    let halves = [[1, 0, 0x8000_0000], [1, 0x8000_0000, 0x8000_0000]].as_flattened();
    let (second, most) = ([0, 0x4000_0000, 0x4000_0000], [0, 0x4000_0000, 0xbc00_0000]);
    let below = pa(0, 0x3b40_0000);
    let sizes = [
        (low.to_vec(), vec![below]),
        ([low, second].concat(), vec![below, pa(0x4000_0000, 0x4000_0000)]),
        ([low, most].concat(), vec![below, pa(0x4000_0000, 0xbc00_0000)]),
        ([&low, &most, halves].concat(), vec![below, pa(0x4000_0000, 0xbc00_0000), pa(1 << 32, 1 << 32)]),
    ];
    for (reg, ram) in sizes {
        let mut tree = pi();
        tree.at("/memory@0").set("reg", &cell_bytes(&reg));
        assert_eq!(read(&tree.blob(&[])).unwrap().ram, ram);
    }
}

#[test]
fn parts_that_qemu_nops_out_are_not_there() {
    let mut blob = pi().blob(&[]);
    nop_out(&mut blob, |path, property| {
        path == "/soc/serial@7e215040" || path == "/cpus/cpu@3" || property == Some("no-map")
    });
    let board = read(&blob).unwrap();
    let console = board.console.unwrap();
    assert_eq!((console.kind, console.registers), (UartKind::Pl011, pa(0xfe20_1000, 0x200)));
    assert_eq!(board.cpus.len(), 3);
}

#[test]
fn a_board_without_a_uart_has_no_console() {
    let mut tree = pi();
    tree.at("/soc/serial@7e201000").set("status", b"disabled\0");
    tree.at("/soc").remove("serial@7e215040");
    assert_eq!(read(&tree.blob(&[])).unwrap().console, None);
    assert_eq!(Console::find(&open(&mut tree.blob(&[])).unwrap()), Ok(None));
}

#[test]
fn stdout_path_may_be_a_path_with_options() {
    for (text, kind) in [
        ("/soc/serial@7e201000:9600", UartKind::Pl011),
        ("serial0", UartKind::Pl011),
        ("serial1", UartKind::Bcm2835MiniUart),
        ("/soc/watchdog", UartKind::Pl011),
        ("nowhere", UartKind::Pl011),
    ] {
        let mut tree = pi();
        tree.at("/chosen").set("stdout-path", format!("{text}\0").as_bytes());
        assert_eq!(read(&tree.blob(&[])).unwrap().console.unwrap().kind, kind, "{text}");
    }
}

#[test]
fn the_console_is_where_the_pins_of_the_header_lead() {
    let gpio =
        branch("gpio@7e200000").text("compatible", "brcm,bcm2711-gpio").cells("reg", &[0x7e20_0000, 0xb4]);
    let with_pins = || {
        let mut tree = pi();
        let soc = tree.at("/soc");
        *soc = core::mem::replace(soc, branch("")).with(gpio.clone());
        tree
    };
    let chosen = |tree: &Branch, gpfsel1| {
        let mut blob = tree.blob(&[]);
        let fdt = open(&mut blob).unwrap();
        Console::find(&fdt).unwrap().unwrap().at_the_header(&fdt, |pins| {
            assert_eq!(pins, pa(0xfe20_0000, 0xb4));
            gpfsel1
        })
    };
    let said = UartKind::Bcm2835MiniUart;
    for (gpfsel1, kind) in
        [(0, said), (0b010 << 12, said), (0b100 << 12, UartKind::Pl011), (0b111 << 12, said)]
    {
        assert_eq!(chosen(&with_pins(), gpfsel1).kind, kind, "{gpfsel1:#x}");
    }
    assert_eq!(chosen(&with_pins(), 0b100 << 12).interrupt.unwrap().intid, IntId(153));
    let mut alone = with_pins();
    alone.at("/soc/serial@7e201000").set("status", b"disabled\0");
    assert_eq!(chosen(&alone, 0b100 << 12).kind, said, "there is no other one");
    assert_eq!(chosen(&pi(), 0b100 << 12).kind, said, "and here are no pins");
}

#[test]
fn an_interrupt_of_another_controller_is_not_the_consoles() {
    let mut tree = pi_with("/soc/serial@7e215040", "interrupt-parent", &[2]);
    let other = branch("gpio").cells("phandle", &[2]).cells("#interrupt-cells", &[3]);
    tree = tree.with(other);
    assert_eq!(read(&tree.blob(&[])).unwrap().console.unwrap().interrupt, None);
}

#[test]
fn interrupts_extended_names_the_controller_of_each() {
    let gpio = branch("gpio").cells("phandle", &[2]).cells("#interrupt-cells", &[2]);
    let mut tree =
        pi_with("/timer", "interrupts-extended", &[1, 1, 13, 8, 1, 1, 14, 8, 1, 1, 11, 8, 1, 1, 10, 8]);
    tree.at("/timer").remove("interrupts");
    tree.at("/soc/serial@7e215040").set("interrupts-extended", &cell_bytes(&[2, 5, 5, 1, 0, 93, 4]));
    let blob = tree.with(gpio).blob(&[]);
    let board = read(&blob).unwrap();
    assert_eq!((board.timer.virtual_el1, board.timer.hypervisor), (IntId(27), IntId(26)));
    let mut blob = blob;
    let fdt = open(&mut blob).unwrap();
    let uart = NodePath::find(&fdt, "/soc/serial@7e215040").unwrap();
    assert!(uart.interrupt(&fdt, 0).is_err());
    assert_eq!(uart.interrupt(&fdt, 1).unwrap().unwrap().intid, IntId(125));
    assert_eq!(uart.interrupt(&fdt, 2), Ok(None));
}

#[test]
fn the_timers_interrupts_may_have_names() {
    let mut tree = pi_with("/timer", "interrupts", &[1, 10, 8, 1, 11, 8, 1, 14, 8, 1, 12, 8]);
    tree.at("/timer").set("interrupt-names", b"hyp-phys\0virt\0phys\0hyp-virt\0");
    let timer = read(&tree.blob(&[])).unwrap().timer;
    assert_eq!((timer.hypervisor, timer.virtual_el1, timer.physical), (IntId(26), IntId(27), IntId(30)));
    assert_eq!((timer.hypervisor_virtual, timer.secure_physical), (Some(IntId(28)), None));
}

#[test]
fn a_cpus_status_decides_whether_it_counts() {
    for (status, method, count) in [
        ("okay", "psci", 4),
        ("disabled", "spin-table", 4),
        ("disabled", "unheard-of", 3),
        ("okay", "unheard-of", 4),
        ("fail", "spin-table", 3),
        ("fail-hot", "spin-table", 3),
    ] {
        let psci = branch("psci").text("compatible", "arm,psci-1.0\0arm,psci-0.2").text("method", "hvc");
        let mut tree = pi().with(psci);
        tree.at("/cpus/cpu@2").set("status", format!("{status}\0").as_bytes());
        tree.at("/cpus/cpu@2").set("enable-method", format!("{method}\0").as_bytes());
        let board = read(&tree.blob(&[])).unwrap();
        assert_eq!((board.cpus.len(), board.psci), (count, Some(Conduit::Hvc)), "{status} {method}");
    }
}

#[test]
fn affinity_has_the_width_that_cpus_gives_it() {
    let mut tree = pi();
    tree.at("/cpus").set("#address-cells", &cell_bytes(&[2]));
    for n in 0..4 {
        tree.at(&format!("/cpus/cpu@{n}")).set("reg", &cell_bytes(&[n + 1, 0x1_0200]));
    }
    let board = read(&tree.blob(&[])).unwrap();
    assert_eq!(board.cpus[3].affinity, Affinity { aff3: 4, aff2: 1, aff1: 2, aff0: 0 });
}

#[test]
fn initrd_ends_may_have_one_or_two_cells() {
    let initrd = |start: &[u32], end: &[u32]| {
        let mut tree = pi_with("/chosen", "linux,initrd-start", start);
        tree.at("/chosen").set("linux,initrd-end", &cell_bytes(end));
        read(&tree.blob(&[])).map(|board| board.initrd).map_err(|error| error.to_string())
    };
    assert_eq!(initrd(&[0x4800_0000], &[0x4800_1000]), Ok(Some(pa(0x4800_0000, 0x1000))));
    assert_eq!(initrd(&[1, 0], &[1, 0x10]), Ok(Some(pa(0x1_0000_0000, 0x10))));
    assert_eq!(initrd(&[0x4800_0000], &[0x4800_0000]), Ok(None));
    assert!(initrd(&[0x4800_0000], &[0x47ff_ffff]).unwrap_err().contains("/chosen: `linux,initrd-end`"));
    assert!(initrd(&[], &[1]).unwrap_err().contains("`linux,initrd-start` has 0 bytes, should have 8"));
    let tree = pi_with("/chosen", "linux,initrd-start", &[1]);
    assert!(error_of(&tree).contains("/chosen: `linux,initrd-end` is missing"));
}

#[test]
fn a_board_may_have_a_name() {
    let mut tree = pi();
    assert_eq!(read(&tree.blob(&[])).unwrap().model, "");
    tree.set("model", b"Raspberry Pi 4 Model B\0");
    assert_eq!(read(&tree.blob(&[])).unwrap().model, "Raspberry Pi 4 Model B");
    tree.set("model", b"no end");
    assert_eq!(read(&tree.blob(&[])).unwrap().model, "");
}

#[test]
fn bootargs_are_text() {
    let mut tree = pi();
    tree.at("/chosen").set("bootargs", b"loglevel=7 vm=0 loader\0");
    let board = read(&tree.blob(&[])).unwrap();
    assert_eq!(board.bootargs, "loglevel=7 vm=0 loader");
    assert_eq!((board.argument("vm"), board.argument("loader")), (Some("0"), Some("")));
    assert_eq!(
        (board.argument("load"), board.argument("level"), board.argument("loaders")),
        (None, None, None)
    );
    tree.at("/chosen").set("bootargs", b"no end");
    assert!(error_of(&tree).contains("/chosen: `bootargs` should be text that ends in a NUL byte"));
}

#[test]
fn errors_name_the_node_the_property_and_what_would_be_right() {
    let gic = "/soc/interrupt-controller@40041000";
    let redistributors = |path: &str| {
        let mut tree = pi_with(path, "#redistributor-regions", &[65]);
        tree.at(path).set("compatible", b"arm,gic-v3\0");
        tree
    };
    let mut conduit = pi().with(branch("psci").text("compatible", "arm,psci-0.2").text("method", "smile"));
    let cases = [
        (pi_with(gic, "reg", &[0x4004_1000, 0x1000]), format!("{gic}: `reg` should have at least 2 entries")),
        (pi_with(gic, "reg", &[1]), format!("{gic}: `reg` has 4 bytes, should have a multiple of 8")),
        (pi_with(gic, "reg", &[0x4004_1000, 0]), format!("{gic}: `reg` has 0x0 bytes from 0x40041000")),
        (pi_with(gic, "interrupts", &[0, 9, 4]), format!("{gic}: `interrupts` has the value 0x29")),
        (pi_with(gic, "interrupts", &[1, 16, 4]), format!("{gic}: `interrupts` should name")),
        (pi_with(gic, "#interrupt-cells", &[1]), "`interrupts` should lead to an interrupt".into()),
        (redistributors(gic), format!("{gic}: `#redistributor-regions` has the value 0x41")),
        (
            pi_with("/soc", "ranges", &[0x7e00_0000, 0, 0xfe00_0000, 0x10]),
            "/soc: `ranges` should have".into(),
        ),
        (
            pi_with("/soc", "ranges", &[0x4000_0000, 0, 0xff80_0000, 0x4_1fff]),
            "/soc: `ranges` should have an entry for 0x1000 bytes from 0x40041000".into(),
        ),
        (pi_with("/soc", "ranges", &[1, 2]), "/soc: `ranges` has 8 bytes".into()),
        (pi_with("/soc", "#size-cells", &[3]), "/soc: `#size-cells` has the value 0x3".into()),
        (pi_with("/", "interrupt-parent", &[77]), "/: `interrupt-parent` should lead to".into()),
        (pi_with("/memory@0", "reg", &[0, 1]), "/memory@0: `reg` has 8 bytes".into()),
        (pi_with("/memory@0", "reg", &[!0, !0, 2]), "/memory@0: `reg` has 0x2 bytes".into()),
        (pi_with("/memory@0", "reg", &[0, 0, 0]), "should have a node /memory".into()),
        (pi_with("/cpus/cpu@1", "reg", &[2]), "/cpus/cpu@2: `reg` 0x2 is that of another CPU".into()),
        (pi_with("/cpus/cpu@1", "reg", &[0x8000_0001]), "/cpus/cpu@1: `reg` has the value".into()),
        (pi_with("/cpus/cpu@1", "reg", &[]), "/cpus/cpu@1: `reg` is missing".into()),
        (pi_with("/cpus/cpu@1", "cpu-release-addr", &[0, 4]), "/cpus/cpu@1: `cpu-release-addr`".into()),
        (pi_with("/timer", "interrupts", &[1, 13, 4]), "/timer: `interrupts` should have at least 4".into()),
        (pi_with("/timer", "interrupts", &[0, 13, 4]), "/timer: `interrupts` has the value 0x2d".into()),
        (conduit.clone(), "/psci: `method` should be \"smc\" or \"hvc\"".into()),
    ];
    for (tree, wanted) in cases {
        let error = error_of(&tree);
        assert!(error.contains(&wanted), "{error:?} should contain {wanted:?}");
    }
    conduit.at("/psci").remove("method");
    assert!(error_of(&conduit).contains("/psci: `method` is missing"));
}

#[test]
fn what_no_board_can_do_without_is_named() {
    for (parent, name, wanted) in [
        ("/", "memory@0", Wanted::Memory),
        ("/", "cpus", Wanted::Cpu),
        ("/", "timer", Wanted::Timer),
        ("/soc", "interrupt-controller@40041000", Wanted::Gic),
    ] {
        let mut tree = pi();
        tree.at(parent).remove(name);
        assert_eq!(read(&tree.blob(&[])), Err(BoardError::Missing(wanted)));
    }
    let mut tree = pi();
    tree.at("/cpus/cpu@0").set("enable-method", b"psci\0");
    assert_eq!(read(&tree.blob(&[])), Err(BoardError::Missing(Wanted::Psci)));
    tree = pi();
    (0..4).for_each(|n| tree.at(&format!("/cpus/cpu@{n}")).set("status", b"fail\0"));
    assert_eq!(read(&tree.blob(&[])), Err(BoardError::Missing(Wanted::Cpu)));
}

#[test]
fn no_more_cpus_than_can_be_numbered() {
    let cpu = |n: u32| branch(&format!("cpu@{n:x}")).cells("reg", &[(n >> 8 << 8) | (n & 0xff)]);
    let mut tree = pi();
    tree.at("/").remove("cpus");
    let cpus = branch("cpus").cells("#address-cells", &[1]).cells("#size-cells", &[0]);
    let many = |count: u32| tree.clone().with((0..count).fold(cpus.clone(), |cpus, n| cpus.with(cpu(n))));
    assert_eq!(read(&many(256).blob(&[])).unwrap().cpus.len(), MAX_CPUS);
    assert_eq!(read(&many(257).blob(&[])), Err(BoardError::TooManyCpus));
}

#[test]
fn a_disabled_bus_disables_what_is_on_it() {
    let mut tree = pi();
    tree.at("/soc").set("status", b"disabled\0");
    assert_eq!(read(&tree.blob(&[])), Err(BoardError::Missing(Wanted::Gic)));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

    #[test]
    fn free_ram_is_what_is_ram_and_not_reserved(
        ram in proptest::collection::vec((0..40_u32, 0..12_u32), 1..5),
        reserved in proptest::collection::vec((0..40_u32, 1..12_u32), 0..5),
    ) {
        let mut tree = pi();
        tree.at("/").remove("reserved-memory");
        let entries: Vec<u32> = ram.iter().flat_map(|(start, size)| [0, *start, *size]).collect();
        tree.at("/memory@0").set("reg", &cell_bytes(&entries));
        let mut memory = branch("reserved-memory").cells("#address-cells", &[1]).cells("#size-cells", &[1]);
        for (index, (start, size)) in reserved.iter().enumerate() {
            memory = memory.with(branch(&format!("region{index}")).cells("reg", &[*start, *size]));
        }
        let is_in = |list: &[(u32, u32)], byte: u32| list.iter().any(|(start, size)| (*start..start + size).contains(&byte));
        let result = read(&tree.with(memory).blob(&[]));
        if ram.iter().all(|(_, size)| *size == 0) {
            proptest::prop_assert_eq!(result, Err(BoardError::Missing(Wanted::Memory)));
        } else {
            let board = result.unwrap();
            let free = board.free_ram();
            for byte in 0..60 {
                let is_free = free.iter().any(|region| region.contains(Pa::new(byte.into())));
                proptest::prop_assert_eq!(is_free, is_in(&ram, byte) && !is_in(&reserved, byte));
            }
            for list in [&board.ram, &board.reserved, &free] {
                proptest::prop_assert!(list.windows(2).all(|pair| pair[0].last() < pair[1].start));
            }
        }
    }
}

//! The steps of the start, in the order of `boot_cpu_entry`.
//!
//! Not here: reading trees (the library's `platform`). A step that fails says why and stops the machine.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt::Display;

use aarch64_cpu::registers::{MPIDR_EL1, Readable, TPIDR_EL2, Writeable};
use log::LevelFilter;
use trapeze::addr::{PAGE_BYTES, Pa, Region};
use trapeze::allocator::frames::Frames;
use trapeze::allocator::stage1::El2Access;
use trapeze::ids::{Affinity, PcpuId};
use trapeze::platform::board::{
    Board, Conduit, Console, Cpu, EnableMethod, Firmware, GicRegisters, PciHost, Trouble, UartKind,
};
use trapeze::platform::dtb::{self, Fdt};

use super::console::{self, Uart};
use super::gic::{Blocks, Distributor, Gic, GicParts, V2, V3};
use super::mmio::Mmio;
use super::mmu::{self, El2Map};
use super::monitor::Monitor;
use super::percpu::{CPU_AREAS, MAX_PCPUS, Pcpu};
use super::power::{self, Off};
use super::sysreg::read_sysreg;
use super::timer::Deadlines;
use super::world::Left;
use super::{guest, heap, memory};

/// RAM that the heap gets beside what the image brings along.
const HEAP_BYTES: u64 = 8 << 20;
const GIB: u64 = 1 << 30;
/// ISR_EL1.A: an SError is pending.
const ISR_A: u64 = 1 << 8;

/// What the start left: RAM for VMs, and the bundle if the boot loader brought one.
pub struct Claimed {
    /// Free RAM, but for one piece of it.
    pub frames: Frames,
    /// That piece, the largest.
    pub largest: Region<Pa>,
    /// The initial ramdisk.
    pub bundle: Option<&'static mut [u8]>,
}

/// Says why the machine does not start, and stops it.
fn stop(reason: &dyn Display) -> ! {
    console::last_words(format_args!("{reason}"));
    power::fail()
}

/// Finds the device tree: where x0 points, or at the start of the GiB that the image lies in, where QEMU puts it
/// for an ELF.
pub fn locate_device_tree(x0: u64) -> Option<Region<Pa>> {
    let image = mmu::image().start;
    [Pa::new(x0), image.align_down(GIB)].into_iter().find_map(|candidate| {
        if candidate.get() == 0 || !candidate.is_aligned(8) {
            return None;
        }
        let header = Region::<Pa>::new(candidate, 40)?;
        // The boot protocol has the image cleaned to the point of coherency, not the tree: what a boot loader wrote of it
        // may be in the caches only, which are off (Arm ARM DDI 0487K.a, B2.11 and D7.5).
        memory::clean_invalidate(header);
        // SAFETY: the boot protocol says that a tree is there; if not, the header read is of RAM near the image or
        // of where the boot loader pointed, and is checked.
        let size = dtb::total_size(unsafe { memory::bytes(header) }).ok()?;
        let tree = Region::<Pa>::new(candidate, size as u64)?;
        memory::clean_invalidate(tree); // `refuse_level` reads and mends all of it
        Some(tree)
    })
}

/// Says on the console that EL2 is missing, and stops. Runs with the MMU off.
pub fn refuse_level(level: u64, tree: Option<Region<Pa>>) -> ! {
    let mut off = Off::default();
    let firmware;
    // SAFETY: the tree is RAM that nobody else uses.
    if let Some(Ok(fdt)) = tree.map(|tree| dtb::open(unsafe { memory::bytes(tree) })) {
        // What a hypervisor needs may be missing in the tree of a machine without EL2; this much is there.
        firmware = Firmware::of(&fdt);
        if let Ok(Some(console)) = Console::find(&fdt) {
            console::open(uart(&console), LevelFilter::Off);
            console.others(&fdt).iter().for_each(|other| console::also(uart(other)));
        }
        let ways = Board::ways_to_stop(&fdt);
        // At EL3 an SMC would come back here.
        off = stopping(ways.psci.filter(|_| level != 3), ways.pci.as_ref(), ways.watchdog);
    } else {
        firmware = open_guessed(|_| {});
    }
    console::last_words(format_args!(
        "started at EL{level}, but a hypervisor needs EL2{}",
        firmware.advice(Trouble::Level)
    ));
    off.stop(true)
}

fn uart(console: &Console) -> Uart {
    match console.kind {
        // SAFETY: the board's tree says that a UART is there; it is mapped as a device, or the MMU is off.
        UartKind::Pl011 => unsafe { console::pl011(console.registers) },
        // SAFETY: as above.
        UartKind::Bcm2835MiniUart => unsafe { console::mini(console.registers) },
    }
}

/// Opens the UARTs that a board without a tree has, if they are there. `map` makes them accessible.
fn open_guessed(mut map: impl FnMut(Region<Pa>)) -> Firmware {
    for (firmware, consoles) in Firmware::guesses(mmu::image().start) {
        consoles.iter().for_each(|console| map(console.registers));
        let is_there = consoles.iter().filter(|console| console.kind == UartKind::Pl011).any(|console| {
            // SAFETY: a read of what is a PL011 on one of the boards that have RAM where the image is.
            console::is_pl011(unsafe { Mmio::new(console.registers) })
        });
        if let Some((first, others)) = consoles.split_first().filter(|_| is_there) {
            console::open(uart(first), LevelFilter::Info);
            others.iter().for_each(|other| console::also(uart(other)));
            return firmware;
        }
    }
    Firmware::Other
}

/// Maps the image and the device tree, and turns the MMU on.
pub fn enable_mmu(tree: Option<Region<Pa>>) -> El2Map {
    let map = El2Map::of_image().and_then(|mut map| {
        if let Some(tree) = tree {
            map.add(tree.pages(), El2Access::ReadWrite)?;
        }
        Ok(map)
    });
    match map {
        Ok(map) => {
            map.enable();
            map
        }
        Err(_) => power::fail(), // the pool of tables is too small for the image: nobody could be told
    }
}

/// Reads the board and opens its console.
pub fn read_board(tree: Option<Region<Pa>>, map: &mut El2Map) -> (Board, Fdt<'static>) {
    let Some(tree) = tree else {
        let firmware = open_guessed(|registers| add_device(map, registers));
        stop(&format_args!(
            "no device tree: x0 points to none, and there is none at the base of RAM{}",
            firmware.advice(Trouble::Tree)
        ))
    };
    // SAFETY: `enable_mmu` mapped the tree, and nobody else uses it.
    let fdt = dtb::open(unsafe { memory::bytes(tree) });
    let console = fdt.as_ref().ok().and_then(|fdt| {
        let console = Console::find(fdt).ok()??;
        Some(console.at_the_header(fdt, |pins| {
            add_device(map, pins);
            // SAFETY: device registers by the board's tree, mapped as such; reading them changes nothing.
            unsafe { Mmio::new(pins) }.read32(4)
        }))
    });
    if let Some(console) = &console {
        add_device(map, console.registers);
        console::open(uart(console), LevelFilter::Info);
        for other in fdt.iter().flat_map(|fdt| console.others(fdt)) {
            add_device(map, other.registers);
            console::also(uart(&other));
        }
    }
    let fdt = fdt.unwrap_or_else(|error| {
        let firmware = open_guessed(|registers| add_device(map, registers));
        stop(&format_args!("the board's device tree: {error}{}", firmware.advice(Trouble::Tree)))
    });
    let mut board = Board::read(&fdt).unwrap_or_else(|error| {
        let advice = Firmware::of(&fdt).advice(Trouble::Tree);
        stop(&format_args!("the board's device tree: {error}{advice}"))
    });
    if let Some(console) = console {
        board.set_console(console);
    }
    let level = board.argument("trapeze.log").and_then(|level| level.parse().ok());
    log::set_max_level(level.unwrap_or(LevelFilter::Info));
    log::info!(
        concat!("Trapeze ", env!("CARGO_PKG_VERSION"), " on {}, EL2, {} CPUs"),
        board.model,
        board.cpus.len()
    );
    board.reserve(tree.pages());
    board.reserve(mmu::image());
    (board, fdt)
}

fn add_device(map: &mut El2Map, registers: Region<Pa>) {
    if map.add_missing(registers, El2Access::Device).is_err() {
        stop(&format_args!("no room in EL2's map for the device at {registers}"));
    }
}

/// Finds out how the machine can be stopped.
pub fn ways_to_stop(board: &Board, map: &mut El2Map) -> Off {
    for registers in board.pci.iter().filter_map(panic_notifier_pages).flatten().chain(board.watchdog) {
        add_device(map, registers);
    }
    stopping(board.psci, board.pci.as_ref(), board.watchdog)
}

/// Opens what the machine can be stopped with.
fn stopping(psci: Option<Conduit>, pci: Option<&PciHost>, watchdog: Option<Region<Pa>>) -> Off {
    // SAFETY: device registers by the board's tree; mapped by `ways_to_stop`, or the MMU is off.
    let watchdog = watchdog.map(|registers| unsafe { Mmio::new(registers) });
    Off { psci, panic_notifier: pci.and_then(panic_notifier), watchdog }
}

/// Returns what finding and using a panic notifier touches: bus 0 of the configuration space, and one page of the
/// memory window. Not its first: a BAR of 0 would mean that there is none.
fn panic_notifier_pages(pci: &PciHost) -> Option<[Region<Pa>; 2]> {
    let page = pci.mmio.as_ref()?.cpu.start.checked_add(PAGE_BYTES)?;
    let bus = Region::<Pa>::new(pci.ecam.start, pci.ecam.size_bytes.min(1 << 20))?;
    Some([bus, Region::<Pa>::new(page, PAGE_BYTES)?])
}

fn panic_notifier(pci: &PciHost) -> Option<Mmio> {
    let [bus, page] = panic_notifier_pages(pci)?;
    let base = pci.mmio.as_ref()?.bus_start.checked_add(PAGE_BYTES as u32)?;
    // SAFETY: device memory by the board's tree; mapped by `ways_to_stop`, or the MMU is off.
    let configuration = unsafe { Mmio::new(bus) };
    power::find_panic_notifier(configuration, page, base)
}

/// Maps all RAM that is free, opens the heap and hands the rest to the allocator, but for its largest piece; takes the
/// bundle out first.
pub fn claim_memory(board: &Board, map: &mut El2Map) -> Claimed {
    let mut without_bundle = board.clone();
    if let Some(initrd) = board.initrd {
        without_bundle.reserve(initrd.pages());
    }
    let free: Vec<Region<Pa>> = board.free_ram().into_iter().filter_map(whole_pages).collect();
    for region in free.iter().copied() {
        if map.add(region, El2Access::ReadWrite).is_err() {
            stop(&format_args!("no room in EL2's map for the RAM at {region}"));
        }
    }
    // Boot loaders reserve what they hand over (`/memreserve/`), and firmware the words of its spin table.
    let releases = cpus(board).into_iter().filter_map(|cpu| match cpu.enable {
        EnableMethod::SpinTable { release } => Region::<Pa>::new(release, 8),
        _ => None,
    });
    let is_free = |region: &Region<Pa>| free.iter().any(|ram| ram.encloses(region));
    for region in board.initrd.into_iter().chain(releases).filter(|region| !is_free(region)) {
        if map.add_missing(region, El2Access::ReadWrite).is_err() {
            stop(&format_args!("no room in EL2's map for the memory at {region}"));
        }
    }
    let mut frames = Frames::new();
    let mut largest: Option<Region<Pa>> = None;
    let mut needs_heap = true;
    for region in without_bundle.free_ram().into_iter().filter_map(whole_pages) {
        let mut region = region;
        if needs_heap && let Some((heap_part, rest)) = split(region, HEAP_BYTES) {
            // SAFETY: free RAM that was just mapped, and is not given to anyone else.
            unsafe { heap::extend(heap_part) };
            needs_heap = false;
            region = rest;
        }
        let smaller = match largest {
            Some(other) if other.size_bytes >= region.size_bytes => Some(region),
            _ => largest.replace(region),
        };
        if let Some(smaller) = smaller {
            add_free(&mut frames, smaller);
        }
    }
    let (false, Some(largest)) = (needs_heap, largest) else {
        let advice = board.firmware.advice(Trouble::Memory);
        stop(&format_args!("too little memory: no {HEAP_BYTES} bytes of RAM in one piece{advice}"));
    };
    let bundle = board.initrd.map(|region| {
        // SAFETY: RAM that is mapped, and that `frames` does not have.
        unsafe { memory::bytes(region) }
    });
    Claimed { frames, largest, bundle }
}

/// Gives free RAM to VMs.
pub fn add_free(frames: &mut Frames, region: Region<Pa>) {
    if frames.add(region).is_err() {
        stop(&format_args!("the board's memory at {region} overlaps other memory, or is out of range"));
    }
}

/// Splits `bytes` off the start; `None` if nothing would be left.
fn split(region: Region<Pa>, bytes: u64) -> Option<(Region<Pa>, Region<Pa>)> {
    Some((Region::<Pa>::new(region.start, bytes)?, without(region, bytes)?))
}

/// Returns the region without its first `bytes`; `None` if nothing is left.
pub fn without(region: Region<Pa>, bytes: u64) -> Option<Region<Pa>> {
    Region::<Pa>::new(region.start.checked_add(bytes)?, region.size_bytes.checked_sub(bytes)?)
}

/// Returns the pages that are wholly inside the region.
fn whole_pages(region: Region<Pa>) -> Option<Region<Pa>> {
    let start = region.start.get().next_multiple_of(PAGE_BYTES);
    let end = (region.last().get() + 1) & !(PAGE_BYTES - 1);
    Region::<Pa>::new(Pa::new(start), end.checked_sub(start)?)
}

/// Lists the CPUs that will be used: this one first.
pub fn cpus(board: &Board) -> Vec<Cpu> {
    let this = Affinity::from_mpidr(MPIDR_EL1.get());
    let mut cpus = board.cpus.clone();
    if let Some(at) = cpus.iter().position(|cpu| cpu.affinity == this) {
        let boot = cpus.remove(at);
        cpus.insert(0, boot);
    }
    cpus.truncate(MAX_PCPUS);
    cpus
}

/// Takes the interrupt controller over and makes what all CPUs share.
pub fn make_monitor(board: &Board, map: &mut El2Map, frames: Frames, off: Off) -> &'static Monitor {
    let used = cpus(board).len();
    if board.cpus.len() > used {
        log::warn!("{used} of {} CPUs are used", board.cpus.len());
    }
    let gic = open_gic(board, map);
    match Monitor::new(board, frames, gic, off, used) {
        Ok(monitor) => Box::leak(Box::new(monitor)),
        Err(unusable) => stop(&unusable),
    }
}

fn open_gic(board: &Board, map: &mut El2Map) -> GicParts {
    let mut device = |region: Region<Pa>| {
        add_device(map, region);
        // SAFETY: the board's tree says that these are device registers, and they are mapped as such.
        unsafe { Mmio::new(region) }
    };
    match &board.gic.registers {
        GicRegisters::V2 { gicd, gicc, gich, .. } => {
            let blocks = Blocks { distributor: device(*gicd), cpu: device(*gicc), hypervisor: device(*gich) };
            blocks.initialise();
            GicParts::V2(blocks)
        }
        GicRegisters::V3 { gicd, gicr, stride } => {
            let home = Affinity::from_mpidr(MPIDR_EL1.get());
            let distributor = Distributor::initialise(device(*gicd), home);
            GicParts::V3 {
                distributor,
                redistributors: gicr.iter().map(|region| device(*region)).collect(),
                stride: *stride,
            }
        }
    }
}

/// Makes this CPU's own state and names it in TPIDR_EL2. `number` counts as in [`cpus`].
#[expect(clippy::mut_from_ref, reason = "the Pcpu is a new one; the monitor is only named in it")]
pub fn make_cpu(monitor: &'static Monitor, number: usize) -> &'static mut Pcpu {
    let affinity = Affinity::from_mpidr(MPIDR_EL1.get());
    let gic = match &monitor.gic {
        GicParts::V2(blocks) => Gic::V2(V2::open(*blocks)),
        GicParts::V3 { distributor, redistributors, stride } => {
            match V3::open(*distributor, redistributors, *stride, affinity) {
                Some(gic) => Gic::V3(gic),
                None => stop(&format_args!(
                    "CPU {:#x}: no GIC redistributor has its affinity",
                    affinity.to_mpidr()
                )),
            }
        }
    };
    guest::close_el1(); // a reset leaves EL1's registers and VTTBR_EL2 unknown
    guest::vacate();
    guest::take_control(&monitor.controls);
    let id = PcpuId(number as u8);
    let area = &CPU_AREAS[number];
    let cpu = Box::into_raw(Box::new(Pcpu {
        stack_top: area.stack_top(),
        emergency_top: area.emergency_top(),
        id,
        gic,
        timer: Deadlines::new(), // a reset leaves it unknown, and its interrupt goes on
        monitor,
        has_old_serror: read_sysreg!("isr_el1") & ISR_A != 0,
        left: Left::new(),
        guest: None,
    }));
    TPIDR_EL2.set(cpu.expose_provenance() as u64); // the vectors give it to each handler
    // SAFETY: the box was just made and is never dropped. Handlers get it by TPIDR_EL2 only once this CPU runs a
    // guest, which is after the last use of what is returned here.
    let cpu = unsafe { &mut *cpu };
    for intid in monitor.own_interrupts() {
        cpu.gic.set_enabled(intid, true);
    }
    monitor.cpus.came_up(id, &cpu.gic);
    cpu
}

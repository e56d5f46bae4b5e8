//! The interrupt controller where GICv2 and GICv3 differ: sources of SGIs, targets, affinity routing, FIQs, groups.
//!
//! Follows Arm IHI 0048B.b, chapter 4, and Arm IHI 0069H, chapter 12.

use crate::harness::{Outcome, Test, check, check_eq, skip_if, tests};
use crate::interrupts;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::SeqCst;
use trapeze_kit::exception::{self, Frame, catch};
use trapeze_kit::gic::{GICC, GICD, GICR, Gic, PRIORITY, SPURIOUS, redistributor};
use trapeze_kit::{cpu, ins, mmio, mrs, msr, smp, timer};

pub const TESTS: &[Test] = tests![
    identification,
    fiq_of_group_0,
    one_of_many_takes_an_spi,
    v2_banked_targets_are_this_cpu,
    v2_targets_read_back,
    v2_sgi_filters,
    v2_sgis_of_two_sources_are_two,
    v2_sgi_pending_registers,
    v2_group_1_needs_its_enable,
    v3_system_registers_are_on,
    v3_icc_control,
    v3_redistributors,
    v3_affinity_routing_reads_back,
    v3_sgis_merge,
    v3_sgi_to_nobody_is_ignored,
    v3_sgi_of_group_0,
    v3_redistributor_of_another_cpu,
    v3_banked_registers_of_the_distributor_are_raz,
];

/// An SPI that no device of the board has.
const A: u32 = 42;
const IGROUPR: u64 = 0x80;
const SGIR: u64 = GICD + 0xf00;

/// The part of a test that is for one version.
macro_rules! only_on {
    ($version:ident) => {{
        skip_if!(Gic::detect() != Gic::$version, "the machine has the other GIC version");
        Gic::$version
    }};
}

fn identification() -> Outcome {
    let (expected, pidr2) = match Gic::detect() {
        Gic::V2 => (2, mmio::read32(GICD + 0xfe8)),
        Gic::V3 => (3, mmio::read32(GICD + 0xffe8)),
    };
    check_eq!(pidr2 >> 4 & 0xf, expected, "ArchRev of GICD_PIDR2 {pidr2:#x}");
    check!(mmio::read32(GICD + 8) != 0, "GICD_IIDR");
    check_eq!(Gic::detect().intids() % 32, 0);
    let typer = mmio::read32(GICD + 4);
    if Gic::detect() == Gic::V2 {
        check_eq!((typer >> 5 & 7) as usize + 1, smp::present(), "CPUNumber of GICD_TYPER {typer:#x}");
        check_eq!(mmio::read32(GICC + 0xfc) >> 16 & 0xf, 2, "architecture of GICC_IIDR");
    }
    Ok(())
}

static FIQS: AtomicUsize = AtomicUsize::new(0);

/// Takes a Group 0 interrupt; anything else is not counted.
fn take_fiq(frame: &mut Frame) {
    let iar = match Gic::detect() {
        Gic::V2 => mmio::read32(GICC + 0xc),
        Gic::V3 => mrs!("ICC_IAR0_EL1") as u32,
    };
    match Gic::detect() {
        Gic::V2 => mmio::write32(GICC + 0x10, iar),
        Gic::V3 => msr!("ICC_EOIR0_EL1", u64::from(iar)),
    }
    if frame.vector == 6 && iar == A {
        FIQS.fetch_add(1, SeqCst);
    }
}

fn fiq_of_group_0() -> Outcome {
    let gic = Gic::detect();
    FIQS.store(0, SeqCst);
    exception::set_interrupt(Some(take_fiq));
    gic.set_edge(A, true);
    gic.route(A, 0);
    gic.set_priority(A, 0x40);
    gic.set_group(A, 0);
    mmio::write32(GICD, mmio::read32(GICD) | 1);
    match gic {
        Gic::V2 => mmio::write32(GICC, 1 | 1 << 3),
        Gic::V3 => msr!("ICC_IGRPEN0_EL1", 1),
    }
    gic.enable(A);
    gic.set_pending(A);
    ins!("msr DAIFClr, #1", "isb");
    let came = timer::within_ms(2000, || FIQS.load(SeqCst) != 0);
    ins!("msr DAIFSet, #1", "isb");
    if gic == Gic::V3 {
        msr!("ICC_IGRPEN0_EL1", 0);
    }
    check!(came, "no FIQ");
    check_eq!(FIQS.load(SeqCst), 1);
    Ok(())
}

static TAKERS: AtomicUsize = AtomicUsize::new(0);
static READY: AtomicUsize = AtomicUsize::new(0);

/// Takes what comes within a while, and counts.
fn take_some(_: u64) {
    let gic = Gic::detect();
    gic.init_cpu();
    READY.fetch_add(1, SeqCst);
    timer::within_ms(1000, || {
        let iar = gic.acknowledge();
        if iar & 0x3ff != SPURIOUS {
            TAKERS.fetch_add(1, SeqCst);
            gic.end(iar);
        }
        false
    });
}

fn one_of_many_takes_an_spi() -> Outcome {
    let gic = Gic::detect();
    let others = smp::present() - 1;
    skip_if!(others == 0, "one CPU");
    TAKERS.store(0, SeqCst);
    READY.store(0, SeqCst);
    for cpu in 1..=others {
        check_eq!(smp::start(cpu, take_some, 0), 0);
    }
    check!(timer::within_ms(5000, || READY.load(SeqCst) == others));
    gic.set_edge(A, true);
    match gic {
        Gic::V2 => mmio::write8(GICD + 0x800 + u64::from(A), ((1 << (others + 1)) - 1) as u8),
        Gic::V3 => mmio::write64(GICD + 0x6000 + 8 * u64::from(A), 1 << 31),
    }
    gic.enable(A);
    gic.set_pending(A);
    take_some(0);
    for cpu in 1..=others {
        check!(smp::wait_off(cpu));
    }
    // QEMU's GICv2 gives it to each of the targets, once.
    let takers = TAKERS.load(SeqCst);
    check!(takers == 1 || gic == Gic::V2 && (1..=others + 1).contains(&takers), "taken {takers} times");
    Ok(())
}

fn v2_banked_targets_are_this_cpu() -> Outcome {
    only_on!(V2);
    skip_if!(smp::present() == 1, "one CPU: the registers may read as zero");
    (0..8).try_for_each(|word| {
        let register = GICD + 0x800 + 4 * word;
        check_eq!(mmio::read32(register), 0x0101_0101);
        mmio::write32(register, 0);
        check_eq!(mmio::read32(register), 0x0101_0101, "read-only");
        Ok(())
    })
}

fn v2_targets_read_back() -> Outcome {
    only_on!(V2);
    let cpus = smp::present();
    skip_if!(cpus == 1, "one CPU: the registers may read as zero");
    let register = GICD + 0x800 + u64::from(A);
    for mask in 0..1_u16 << cpus {
        mmio::write8(register, mask as u8);
        check_eq!(u16::from(mmio::read8(register)), mask);
    }
    Ok(())
}

fn v2_sgi_filters() -> Outcome {
    let gic = only_on!(V2);
    gic.enable(9);
    mmio::write32(SGIR, 2 << 24 | 9);
    check!(timer::within_ms(1000, || gic.highest_pending() & 0x3ff == 9), "filter 2: this CPU");
    let iar = gic.acknowledge();
    check_eq!(iar, 9, "and this CPU is the source");
    gic.end(iar);
    mmio::write32(SGIR, 1 << 24 | 0xff << 16 | 9);
    check!(!gic.is_pending(9), "filter 1: not this CPU");
    mmio::write32(SGIR, 9);
    check!(!gic.is_pending(9), "an empty target list");
    Ok(())
}

/// Sends SGI `intid` to CPU 0 from here.
fn send(intid: u64) {
    Gic::detect().send_sgi(intid as u32, 1);
}

fn v2_sgis_of_two_sources_are_two() -> Outcome {
    let gic = only_on!(V2);
    skip_if!(smp::present() < 2, "one CPU");
    gic.enable(6);
    gic.send_sgi(6, 1);
    check_eq!(smp::start(1, send, 6), 0);
    check!(smp::wait_off(1));
    let mut iars = [0; 2];
    for iar in &mut iars {
        check!(timer::within_ms(1000, || gic.highest_pending() & 0x3ff == 6));
        *iar = gic.acknowledge();
        gic.end(*iar);
    }
    iars.sort_unstable();
    check_eq!(iars, [6, 1 << 10 | 6]);
    check_eq!(gic.acknowledge() & 0x3ff, SPURIOUS);
    Ok(())
}

fn v2_sgi_pending_registers() -> Outcome {
    let gic = only_on!(V2);
    gic.enable(5);
    gic.set_priority_mask(0);
    let (set, clear) = (GICD + 0xf20 + 4, GICD + 0xf10 + 4);
    mmio::write8(set + 1, 1);
    check_eq!(mmio::read32(set), 1 << 8, "SGI 5 of CPU 0");
    check_eq!(mmio::read32(clear), 1 << 8);
    mmio::write8(clear + 1, 1);
    check_eq!(mmio::read32(set), 0);
    mmio::write8(set + 1, 1);
    gic.set_priority_mask(0xff);
    check!(timer::within_ms(1000, || gic.highest_pending() & 0x3ff == 5));
    let iar = gic.acknowledge();
    check_eq!(iar, 5);
    gic.end(iar);
    check_eq!(mmio::read32(set), 0);
    Ok(())
}

fn v2_group_1_needs_its_enable() -> Outcome {
    let gic = only_on!(V2);
    gic.set_edge(A, true);
    gic.route(A, 0);
    gic.set_priority(A, PRIORITY);
    gic.set_group(A, 1);
    check_eq!(mmio::read32(GICD + IGROUPR + u64::from(A / 32 * 4)) >> (A % 32) & 1, 1);
    gic.enable(A);
    gic.set_pending(A);
    check!(gic.acknowledge() & 0x3ff >= 1022, "neither distributor nor interface has Group 1 on");
    mmio::write32(GICD, 3);
    mmio::write32(GICC, 3);
    check!(
        timer::within_ms(1000, || gic.acknowledge() & 0x3ff == 1022),
        "IAR is for Group 0, unless AckCtl is set"
    );
    mmio::write32(GICC, 1 << 2 | 3);
    let iar = gic.acknowledge();
    check_eq!(iar, A);
    gic.end(iar);
    check!(!gic.is_active(A));
    Ok(())
}

fn v3_system_registers_are_on() -> Outcome {
    only_on!(V3);
    check_eq!(mrs!("ICC_SRE_EL1") & 1, 1);
    msr!("ICC_SRE_EL1", 0);
    let after = mrs!("ICC_SRE_EL1");
    msr!("ICC_SRE_EL1", 1);
    check_eq!(after & 1, 1, "RAO/WI: no memory-mapped interface to fall back to");
    check_eq!(mmio::read32(GICD) & 1 << 4, 1 << 4, "GICD_CTLR.ARE");
    Ok(())
}

fn v3_icc_control() -> Outcome {
    only_on!(V3);
    let control = mrs!("ICC_CTLR_EL1");
    check!(control >> 8 & 7 >= 3, "PRIbits: at least 4 bits of priority, ICC_CTLR_EL1 {control:#x}");
    for point in 0..8 {
        msr!("ICC_BPR1_EL1", point);
        let seen = mrs!("ICC_BPR1_EL1");
        check!(seen >= point && (seen == point || seen <= 3), "BPR1 {point}: {seen}");
    }
    msr!("ICC_CTLR_EL1", 1 << 1);
    check_eq!(mrs!("ICC_CTLR_EL1") >> 1 & 1, 1, "EOImode");
    msr!("ICC_CTLR_EL1", 0);
    for mask in [0x00, 0x50, 0xf0] {
        msr!("ICC_PMR_EL1", mask);
        check_eq!(mrs!("ICC_PMR_EL1"), mask);
    }
    msr!("ICC_PMR_EL1", 0xff);
    Ok(())
}

fn v3_redistributors() -> Outcome {
    only_on!(V3);
    let cpus = smp::present();
    for cpu in 0..cpus as u64 {
        let base = GICR + 0x2_0000 * cpu;
        let typer = mmio::read64(base + 8);
        check_eq!(typer >> 32, cpu, "affinity");
        check_eq!(typer >> 8 & 0xffff, cpu, "processor number");
        check_eq!(typer >> 4 & 1, u64::from(cpu + 1 == cpus as u64), "Last of {cpu}");
        check_eq!(mmio::read32(base + 8), (typer & 0xffff_ffff) as u32, "the half by itself");
        check_eq!(mmio::read32(base + 12), (typer >> 32) as u32);
        check_eq!(mmio::read32(base + 0xffe8) >> 4 & 0xf, 3, "ArchRev");
    }
    let waker = redistributor() + 0x14;
    check_eq!(mmio::read32(waker) & 6, 0, "awake");
    Ok(())
}

fn v3_affinity_routing_reads_back() -> Outcome {
    only_on!(V3);
    let register = GICD + 0x6000 + 8 * u64::from(A);
    let values = [0, 3, 1 << 31];
    for value in values {
        mmio::write64(register, value);
        check_eq!(mmio::read64(register), value);
    }
    mmio::write32(register, 1);
    mmio::write32(register + 4, 0);
    check_eq!(mmio::read64(register), 1, "by halves");
    Ok(())
}

fn v3_sgis_merge() -> Outcome {
    let gic = only_on!(V3);
    gic.enable(6);
    (0..3).for_each(|_| gic.send_sgi(6, 1));
    if smp::present() > 1 {
        check_eq!(smp::start(1, send, 6), 0);
        check!(smp::wait_off(1));
    }
    check!(timer::within_ms(1000, || gic.highest_pending() == 6));
    let iar = gic.acknowledge();
    check_eq!(iar, 6, "no source in it");
    gic.end(iar);
    check_eq!(gic.acknowledge(), SPURIOUS, "SGIs of a GICv3 have no sources to count by");
    Ok(())
}

fn v3_sgi_to_nobody_is_ignored() -> Outcome {
    let gic = only_on!(V3);
    gic.enable(2);
    let affinities = [1_u64 << 16, 0xff << 16, 1 << 32, 1 << 48];
    for affinity in affinities {
        msr!("ICC_SGI1R_EL1", affinity | 2 << 24 | 1);
        check!(!gic.is_pending(2), "{affinity:#x}");
    }
    msr!("ICC_SGI1R_EL1", 2 << 24);
    check!(!gic.is_pending(2), "an empty target list");
    check_eq!(gic.acknowledge(), SPURIOUS);
    Ok(())
}

fn v3_sgi_of_group_0() -> Outcome {
    let gic = only_on!(V3);
    gic.enable(11);
    msr!("ICC_SGI0R_EL1", 11 << 24 | 1);
    check!(!gic.is_pending(11), "SGI 11 is of Group 1");
    gic.set_group(11, 0);
    msr!("ICC_SGI0R_EL1", 11 << 24 | 1);
    check!(gic.is_pending(11));
    gic.clear_pending(11);
    check!(!gic.is_pending(11));
    Ok(())
}

fn v3_redistributor_of_another_cpu() -> Outcome {
    let gic = only_on!(V3);
    skip_if!(smp::present() < 2, "one CPU");
    interrupts::listen();
    READY.store(0, SeqCst);
    TAKERS.store(0, SeqCst);
    check_eq!(smp::start(1, take_some, 0), 0);
    check!(timer::within_ms(5000, || READY.load(SeqCst) == 1));
    let sgi_base = GICR + 0x2_0000 + 0x1_0000;
    // SGI 12 of CPU 1, all by memory.
    mmio::write32(sgi_base + 0x100, 1 << 12);
    check_eq!(mmio::read32(sgi_base + 0x100) >> 12 & 1, 1);
    mmio::write32(sgi_base + 0x200, 1 << 12);
    check!(smp::wait_off(1));
    check_eq!(TAKERS.load(SeqCst), 1);
    check!(!gic.is_pending(12), "CPU 0 has none");
    check_eq!(cpu::slot(), 0);
    Ok(())
}

fn v3_banked_registers_of_the_distributor_are_raz() -> Outcome {
    only_on!(V3);
    for offset in [0x80, 0x100, 0x200, 0x300, 0x400, 0xc00] {
        let seen = catch(|| {
            mmio::write32(GICD + offset, u32::MAX);
            mmio::read32(GICD + offset)
        });
        check_eq!(seen, Ok(0), "{offset:#x}: with affinity routing these are the redistributor's");
    }
    Ok(())
}

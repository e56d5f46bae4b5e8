//! The interrupt controller between CPUs and under load: routing, SGIs, more interrupts than a CPU interface holds,
//! accesses of every width, absent INTIDs, random writes.
//!
//! Follows Arm IHI 0048B.b (GICv2) and Arm IHI 0069H (GICv3), chapters on interrupt handling and the programmers' models.

use crate::gic::{A, C, comes, sgi_to_self, spi, spi_life_of_an_interrupt, take};
use crate::harness::{Outcome, Test, check, check_eq, skip_if, tests};
use crate::interrupts;
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::{AtomicU32, AtomicUsize};
use trapeze_kit::exception::{self, Frame};
use trapeze_kit::gic::{GICD, Gic, PRIORITY, SPURIOUS};
use trapeze_kit::{cpu, mmio, smp, timer};

pub const TESTS: &[Test] = tests![
    all_spis_at_once,
    spi_is_routed,
    spi_route_changes_while_pending,
    sgi_to_others,
    sgi_to_all_but_self,
    sgi_while_target_is_masked,
    byte_and_word_accesses,
    absent_intids_are_raz_wi,
    set_pending_of_another_cpus_spi,
    a_thousand_back_to_back,
    random_writes_are_forgotten_by_a_reset,
];

fn all_spis_at_once() -> Outcome {
    let gic = Gic::detect();
    let last = gic.intids().min(288);
    // From the first that no device of the board has; 15 levels of priority, mixed.
    let priority_of = |intid: u32| (intid.wrapping_mul(7) % 15) as u8 * 16;
    for intid in A..last {
        spi(gic, intid, priority_of(intid));
        gic.set_pending(intid);
    }
    let (mut taken, mut priority) = (0, 0);
    loop {
        let iar = gic.acknowledge();
        if iar & 0x3ff == SPURIOUS {
            break;
        }
        check!((A..last).contains(&iar), "{iar}");
        check!(
            priority_of(iar) >= priority,
            "{iar} of priority {:#x} behind {priority:#x}",
            priority_of(iar)
        );
        priority = priority_of(iar);
        taken += 1;
        gic.end(iar);
        // What had no room in the CPU interface may take a moment to get there.
        timer::within_ms(20, || gic.highest_pending() & 0x3ff != SPURIOUS || taken == last - A);
    }
    check_eq!(taken, last - A);
    Ok(())
}

static GOT: [AtomicU32; cpu::MAX_CPUS] = [const { AtomicU32::new(0) }; cpu::MAX_CPUS];
static READY: AtomicUsize = AtomicUsize::new(0);
/// 1 when those that have got none need not wait any longer.
static DONE: AtomicUsize = AtomicUsize::new(0);

/// Waits for one interrupt on this CPU and notes it (plus one).
fn get_one(enabled: u64) {
    let gic = Gic::detect();
    gic.init_cpu();
    (0..16).filter(|intid| enabled >> intid & 1 != 0).for_each(|intid| gic.enable(intid));
    READY.fetch_add(1, SeqCst);
    timer::within_ms(10_000, || {
        let iar = gic.acknowledge();
        let is_one = iar & 0x3ff != SPURIOUS;
        if is_one {
            gic.end(iar);
            GOT[cpu::slot()].store(iar + 1, SeqCst);
        }
        is_one || DONE.load(SeqCst) != 0
    });
}

/// Has the others wait for an interrupt each; returns how many there are.
fn others_get_one(enabled: u64) -> Result<usize, crate::harness::End> {
    let others = smp::present() - 1;
    skip_if!(others == 0, "one CPU");
    GOT.iter().for_each(|word| word.store(0, SeqCst));
    READY.store(0, SeqCst);
    DONE.store(0, SeqCst);
    for cpu in 1..=others {
        check_eq!(smp::start(cpu, get_one, enabled), 0);
    }
    check!(timer::within_ms(5000, || READY.load(SeqCst) == others));
    Ok(others)
}

fn got(cpu: usize) -> u32 {
    smp::wait_off(cpu);
    GOT[cpu].load(SeqCst)
}

fn spi_is_routed() -> Outcome {
    let gic = Gic::detect();
    let others = others_get_one(0)?;
    for cpu in 1..=others {
        let intid = A + cpu as u32;
        spi(gic, intid, PRIORITY);
        gic.route(intid, cpu as u32);
        gic.set_pending(intid);
    }
    for cpu in 1..=others {
        check_eq!(got(cpu), A + cpu as u32 + 1, "CPU {cpu}");
    }
    check_eq!(gic.acknowledge() & 0x3ff, SPURIOUS);
    Ok(())
}

fn spi_route_changes_while_pending() -> Outcome {
    let gic = Gic::detect();
    others_get_one(0)?;
    spi(gic, A, PRIORITY);
    gic.set_pending(A);
    check!(comes(gic, A));
    gic.route(A, 1);
    let taken = got(1);
    DONE.store(1, SeqCst);
    check_eq!(taken, A + 1);
    check_eq!(gic.acknowledge() & 0x3ff, SPURIOUS);
    Ok(())
}

fn sgi_to_others() -> Outcome {
    let gic = Gic::detect();
    let others = others_get_one(0xffff)?;
    for cpu in 1..=others {
        gic.send_sgi(cpu as u32, 1 << cpu);
        check_eq!(got(cpu), cpu as u32 + 1, "from CPU 0");
    }
    check_eq!(gic.acknowledge() & 0x3ff, SPURIOUS);
    Ok(())
}

fn sgi_to_all_but_self() -> Outcome {
    let gic = Gic::detect();
    gic.enable(7);
    let others = others_get_one(1 << 7)?;
    gic.send_sgi_to_others(7);
    for cpu in 1..=others {
        check_eq!(got(cpu), 7 + 1, "CPU {cpu}");
    }
    check_eq!(gic.acknowledge() & 0x3ff, SPURIOUS, "not the sender");
    Ok(())
}

fn sgi_while_target_is_masked() -> Outcome {
    let gic = Gic::detect();
    gic.set_priority_mask(0);
    gic.enable(4);
    gic.send_sgi(4, 1);
    check!(gic.is_pending(4));
    check_eq!(gic.acknowledge() & 0x3ff, SPURIOUS);
    gic.set_priority_mask(0xff);
    let iar = take!(gic, 4);
    gic.end(iar);
    Ok(())
}

fn byte_and_word_accesses() -> Outcome {
    let gic = Gic::detect();
    let register = GICD + 0x400 + u64::from(C);
    mmio::write32(register, 0x4030_2010);
    for (offset, byte) in (0..4).zip([0x10_u8, 0x20, 0x30, 0x40]) {
        check_eq!(mmio::read8(register + offset), byte);
    }
    mmio::write8(register + 2, 0x70);
    check_eq!(mmio::read32(register), 0x4070_2010);
    check_eq!(gic.priority(C + 3), 0x40);
    Ok(())
}

fn absent_intids_are_raz_wi() -> Outcome {
    let gic = Gic::detect();
    let intids = gic.intids();
    check!(intids >= 64, "GICD_TYPER says {intids}");
    skip_if!(intids >= 1020, "the distributor has every INTID");
    let register = u64::from(intids / 32 * 4);
    for array in [0x100, 0x200, 0x300] {
        mmio::write32(GICD + array + register, u32::MAX);
        check_eq!(mmio::read32(GICD + array + register), 0, "{array:#x}");
    }
    let priority = GICD + 0x400 + u64::from(intids);
    mmio::write32(priority, u32::MAX);
    check_eq!(mmio::read32(priority), 0);
    Ok(())
}

/// Makes SPI `intid`, which is CPU 0's, pending from here.
fn pend(intid: u64) {
    Gic::detect().set_pending(intid as u32);
}

fn set_pending_of_another_cpus_spi() -> Outcome {
    skip_if!(smp::present() < 2, "one CPU");
    let gic = Gic::detect();
    spi(gic, A, PRIORITY);
    check_eq!(smp::start(1, pend, u64::from(A)), 0);
    check!(smp::wait_off(1));
    let iar = take!(gic, A);
    check!(gic.is_active(A));
    gic.end(iar);
    Ok(())
}

/// Interrupts that `again` has taken.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Takes an interrupt and makes it pending again at once, up to a thousand times.
fn again(_: &mut Frame) {
    let gic = Gic::detect();
    let iar = gic.acknowledge();
    COUNT.fetch_add(1, SeqCst);
    if COUNT.load(SeqCst) < 1000 {
        gic.set_pending(iar & 0x3ff);
    }
    gic.end(iar);
}

fn a_thousand_back_to_back() -> Outcome {
    let gic = Gic::detect();
    spi(gic, A, PRIORITY);
    COUNT.store(0, SeqCst);
    exception::set_interrupt(Some(again));
    gic.set_pending(A);
    interrupts::open_until(5000, || COUNT.load(SeqCst) >= 1000);
    check_eq!(COUNT.load(SeqCst), 1000);
    check!(!gic.is_pending(A) && !gic.is_active(A));
    Ok(())
}

/// Lists the registers whose setting outlives a test: priorities, targets and configurations.
fn settings(gic: Gic) -> impl Iterator<Item = u64> {
    let intids = u64::from(gic.intids());
    let arrays = (0x400..0x400 + intids).chain(0x800..0x800 + intids).chain(0xc00..0xc00 + intids / 4);
    arrays.step_by(4).map(|offset| GICD + offset).chain([gic.bank(0) + 0xc04])
}

fn random_writes_are_forgotten_by_a_reset() -> Outcome {
    let gic = Gic::detect();
    let mut before = [0; 1024];
    settings(gic).zip(&mut before).for_each(|(register, value)| *value = mmio::read32(register));
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..5000 {
        let (place, value) = (random(), random());
        // All arrays of the distributor and of this CPU's SGIs and PPIs, and GICD_CTLR, but nothing that sends SGIs.
        let base = if place >> 63 == 0 { GICD } else { gic.bank(0) };
        mmio::write32(base + (place & 0xfff & !3).min(0xcfc), value as u32);
    }
    // As after a reset, as far as writes reach.
    for word in 0..u64::from(gic.intids() / 32) {
        let bank = gic.bank(word as u32 * 32) + word * 4;
        [0x180, 0x280, 0x380].into_iter().for_each(|array| mmio::write32(bank + array, u32::MAX));
    }
    settings(gic).zip(before).for_each(|(register, value)| mmio::write32(register, value));
    gic.init_distributor();
    gic.init_cpu();
    check_eq!(gic.acknowledge() & 0x3ff, SPURIOUS);
    spi_life_of_an_interrupt()?;
    sgi_to_self()
}

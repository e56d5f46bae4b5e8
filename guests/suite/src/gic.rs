//! The interrupt controller of one CPU where GICv2 and GICv3 are alike. Most tests poll the CPU interface, all masked.
//!
//! Follows Arm IHI 0048B.b (GICv2) and Arm IHI 0069H (GICv3), chapters on interrupt handling and prioritization.

use crate::harness::{Outcome, Test, check, check_eq, tests};
use crate::interrupts;
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::{AtomicU32, AtomicUsize};
use trapeze_kit::exception::{self, Frame};
use trapeze_kit::gic::{GICD, Gic, PRIORITY, SPURIOUS};
use trapeze_kit::{ins, mmio, timer};

pub const TESTS: &[Test] = tests![
    nothing_pending_is_1023,
    sgi_to_self,
    ppi_made_pending,
    spi_life_of_an_interrupt,
    enable_bits_read_back,
    pending_can_be_withdrawn,
    disabled_stays_pending,
    priorities_read_back,
    higher_priority_comes_first,
    running_priority_holds_lower_ones,
    priority_mask_holds_lower_ones,
    preemption_by_higher_priority,
    binary_point_forbids_preemption,
    nested_handlers,
    eoi_mode_0_deactivates,
    eoi_mode_1_splits,
    eoi_mode_1_out_of_order,
    active_bit_holds_the_interrupt,
    active_and_pending,
    edge_pulses_merge,
    level_made_pending_by_software,
    configuration_reads_back,
    distributor_off_holds_interrupts,
    cpu_interface_off_holds_interrupts,
];

/// SPIs that no device of the board has, up to three behind C.
pub const A: u32 = 42;
pub const B: u32 = 43;
pub const C: u32 = 44;

/// Opens an edge-triggered SPI to CPU 0.
pub fn spi(gic: Gic, intid: u32, priority: u8) {
    gic.set_edge(intid, true);
    gic.route(intid, 0);
    gic.set_priority(intid, priority);
    gic.enable(intid);
}

/// Waits until `intid` is what would be acknowledged next.
pub fn comes(gic: Gic, intid: u32) -> bool {
    timer::within_ms(2000, || gic.highest_pending() & 0x3ff == intid)
}

/// Acknowledges what is expected now, and checks that.
macro_rules! take {
    ($gic:expr, $intid:expr) => {{
        check!(comes($gic, $intid), "{} is pending, not {}", $gic.highest_pending(), $intid);
        let iar = $gic.acknowledge();
        check_eq!(iar & 0x3ff, $intid);
        iar
    }};
}

pub(crate) use take;

fn nothing_pending_is_1023() -> Outcome {
    let gic = Gic::detect();
    check_eq!(gic.highest_pending() & 0x3ff, SPURIOUS);
    check_eq!(gic.acknowledge() & 0x3ff, SPURIOUS);
    check_eq!(gic.running_priority(), 0xff);
    gic.end(SPURIOUS);
    check_eq!(gic.running_priority(), 0xff);
    Ok(())
}

pub fn sgi_to_self() -> Outcome {
    let gic = Gic::detect();
    for intid in 0..16 {
        gic.enable(intid);
        gic.send_sgi(intid, 1);
        let iar = take!(gic, intid);
        check!(gic.is_active(intid) && !gic.is_pending(intid));
        check_eq!(gic.running_priority(), PRIORITY);
        gic.end(iar);
        check!(!gic.is_active(intid));
        check_eq!(gic.running_priority(), 0xff);
    }
    Ok(())
}

fn ppi_made_pending() -> Outcome {
    let gic = Gic::detect();
    let intid = 20;
    gic.set_edge(intid, true);
    gic.enable(intid);
    gic.set_pending(intid);
    check!(gic.is_pending(intid));
    let iar = take!(gic, intid);
    gic.end(iar);
    check!(!gic.is_pending(intid));
    Ok(())
}

pub fn spi_life_of_an_interrupt() -> Outcome {
    let gic = Gic::detect();
    spi(gic, A, PRIORITY);
    check!(!gic.is_pending(A) && !gic.is_active(A));
    gic.set_pending(A);
    check!(gic.is_pending(A) && !gic.is_active(A));
    let iar = take!(gic, A);
    check!(!gic.is_pending(A) && gic.is_active(A));
    check_eq!(gic.highest_pending() & 0x3ff, SPURIOUS);
    gic.end(iar);
    check!(!gic.is_pending(A) && !gic.is_active(A));
    Ok(())
}

fn enable_bits_read_back() -> Outcome {
    let gic = Gic::detect();
    for intid in [3, 20, 27, A, B, gic.intids() - 1] {
        gic.enable(intid);
        let register = gic.bank(intid) + u64::from(intid / 32 * 4);
        check!(gic.is_enabled(intid), "{intid}");
        check_eq!(mmio::read32(register + 0x100), mmio::read32(register + 0x180), "set and clear read alike");
        mmio::write32(register + 0x100, 0);
        mmio::write32(register + 0x180, 0);
        check!(gic.is_enabled(intid), "{intid}: writing 0 changes nothing");
        gic.disable(intid);
        check!(gic == Gic::V2 && intid < 16 || !gic.is_enabled(intid), "{intid}");
    }
    Ok(())
}

fn pending_can_be_withdrawn() -> Outcome {
    let gic = Gic::detect();
    spi(gic, A, PRIORITY);
    gic.set_pending(A);
    check!(comes(gic, A));
    gic.clear_pending(A);
    check!(!gic.is_pending(A));
    check!(comes(gic, SPURIOUS));
    check_eq!(gic.acknowledge() & 0x3ff, SPURIOUS);
    Ok(())
}

fn disabled_stays_pending() -> Outcome {
    let gic = Gic::detect();
    spi(gic, A, PRIORITY);
    gic.disable(A);
    gic.set_pending(A);
    check!(gic.is_pending(A));
    check_eq!(gic.acknowledge() & 0x3ff, SPURIOUS);
    gic.enable(A);
    let iar = take!(gic, A);
    gic.disable(A);
    check!(gic.is_active(A), "disabling does not deactivate");
    gic.end(iar);
    check!(!gic.is_active(A));
    Ok(())
}

fn priorities_read_back() -> Outcome {
    let gic = Gic::detect();
    for intid in [0, 9, 20, 27, A, gic.intids() - 1] {
        for priority in [0_u8, 0x10, 0x50, 0xf0] {
            gic.set_priority(intid, priority);
            check_eq!(gic.priority(intid), priority, "INTID {intid}");
        }
    }
    // At least 16 levels, and what is not implemented is zero.
    gic.set_priority(A, 0xff);
    let implemented = gic.priority(A);
    check!(implemented >= 0xf0 && (!implemented).wrapping_add(1).is_power_of_two() || implemented == 0xff);
    Ok(())
}

fn higher_priority_comes_first() -> Outcome {
    let gic = Gic::detect();
    spi(gic, A, 0xa0);
    spi(gic, B, 0x60);
    spi(gic, C, 0x80);
    [A, B, C].iter().for_each(|intid| gic.set_pending(*intid));
    for intid in [B, C, A] {
        let iar = take!(gic, intid);
        gic.end(iar);
    }
    check_eq!(gic.acknowledge() & 0x3ff, SPURIOUS);
    Ok(())
}

fn running_priority_holds_lower_ones() -> Outcome {
    let gic = Gic::detect();
    spi(gic, A, 0x60);
    spi(gic, B, 0x60);
    spi(gic, C, 0x80);
    gic.set_pending(A);
    let iar = take!(gic, A);
    check_eq!(gic.running_priority(), 0x60);
    gic.set_pending(B);
    gic.set_pending(C);
    check_eq!(gic.acknowledge() & 0x3ff, SPURIOUS, "neither is of a higher priority");
    gic.end(iar);
    let iar = take!(gic, B);
    gic.end(iar);
    let iar = take!(gic, C);
    gic.end(iar);
    Ok(())
}

fn priority_mask_holds_lower_ones() -> Outcome {
    let gic = Gic::detect();
    spi(gic, A, 0x80);
    gic.set_priority_mask(0x80);
    check_eq!(gic.priority_mask(), 0x80);
    gic.set_pending(A);
    check_eq!(gic.acknowledge() & 0x3ff, SPURIOUS, "only what is higher than the mask comes through");
    check!(gic.is_pending(A));
    gic.set_priority_mask(0x90);
    let iar = take!(gic, A);
    gic.end(iar);
    gic.set_priority_mask(0);
    gic.set_priority(A, 0);
    gic.set_pending(A);
    check_eq!(gic.acknowledge() & 0x3ff, SPURIOUS, "a mask of 0 lets nothing through");
    gic.set_priority_mask(0xff);
    let iar = take!(gic, A);
    gic.end(iar);
    Ok(())
}

fn preemption_by_higher_priority() -> Outcome {
    let gic = Gic::detect();
    spi(gic, A, 0x60);
    spi(gic, B, 0x40);
    gic.set_pending(A);
    let first = take!(gic, A);
    gic.set_pending(B);
    let second = take!(gic, B);
    check_eq!(gic.running_priority(), 0x40);
    check!(gic.is_active(A) && gic.is_active(B));
    gic.end(second);
    check_eq!(gic.running_priority(), 0x60);
    check!(gic.is_active(A) && !gic.is_active(B));
    gic.end(first);
    check_eq!(gic.running_priority(), 0xff);
    Ok(())
}

fn binary_point_forbids_preemption() -> Outcome {
    let gic = Gic::detect();
    gic.set_binary_point(7);
    check_eq!(gic.binary_point(), 7);
    spi(gic, A, 0x60);
    spi(gic, B, 0x40);
    gic.set_pending(A);
    let first = take!(gic, A);
    gic.set_pending(B);
    check_eq!(gic.acknowledge() & 0x3ff, SPURIOUS, "both are of the same group priority");
    gic.end(first);
    let second = take!(gic, B);
    gic.end(second);
    // Of two that are pending the sub-priority still decides.
    gic.set_pending(A);
    gic.set_pending(B);
    let second = take!(gic, B);
    gic.end(second);
    let first = take!(gic, A);
    gic.end(first);
    Ok(())
}

/// Order of entering (INTID) and leaving (INTID + 1000) of `nest`.
static ORDER: [AtomicU32; 8] = [const { AtomicU32::new(0) }; 8];
static ORDER_COUNT: AtomicUsize = AtomicUsize::new(0);

fn note_order(what: u32) {
    ORDER[ORDER_COUNT.fetch_add(1, SeqCst) % 8].store(what, SeqCst);
}

/// Takes an interrupt; on A's behalf makes B pending and lets it in.
fn nest(_: &mut Frame) {
    let gic = Gic::detect();
    let iar = gic.acknowledge();
    note_order(iar);
    if iar == A {
        gic.set_pending(B);
        gic.set_pending(C);
        ins!("msr DAIFClr, #2", "isb");
        timer::within_ms(1000, || ORDER_COUNT.load(SeqCst) >= 3);
        ins!("msr DAIFSet, #2", "isb");
    }
    gic.end(iar);
    note_order(iar + 1000);
}

fn nested_handlers() -> Outcome {
    let gic = Gic::detect();
    spi(gic, A, 0x60);
    spi(gic, B, 0x40);
    spi(gic, C, 0x80);
    ORDER_COUNT.store(0, SeqCst);
    exception::set_interrupt(Some(nest));
    gic.set_pending(A);
    interrupts::open_until(2000, || ORDER_COUNT.load(SeqCst) >= 6);
    let order: [u32; 6] = core::array::from_fn(|index| ORDER[index].load(SeqCst));
    check_eq!(order, [A, B, B + 1000, A + 1000, C, C + 1000]);
    Ok(())
}

fn eoi_mode_0_deactivates() -> Outcome {
    let gic = Gic::detect();
    gic.set_eoi_mode(false);
    spi(gic, A, PRIORITY);
    for _ in 0..10 {
        gic.set_pending(A);
        let iar = take!(gic, A);
        check!(gic.is_active(A));
        gic.end(iar);
        check!(!gic.is_active(A));
    }
    Ok(())
}

fn eoi_mode_1_splits() -> Outcome {
    let gic = Gic::detect();
    gic.set_eoi_mode(true);
    spi(gic, A, PRIORITY);
    spi(gic, B, PRIORITY);
    gic.set_pending(A);
    let first = take!(gic, A);
    gic.end(first);
    check_eq!(gic.running_priority(), 0xff, "EOI drops the priority");
    check!(gic.is_active(A), "and nothing more");
    gic.set_pending(B);
    let second = take!(gic, B);
    gic.end(second);
    gic.set_pending(A);
    check_eq!(gic.acknowledge() & 0x3ff, SPURIOUS, "active, it does not come again");
    gic.deactivate(first);
    check!(!gic.is_active(A));
    let first = take!(gic, A);
    gic.end(first);
    gic.deactivate(first);
    gic.deactivate(second);
    check!(!gic.is_active(A) && !gic.is_active(B));
    gic.set_eoi_mode(false);
    Ok(())
}

fn eoi_mode_1_out_of_order() -> Outcome {
    let gic = Gic::detect();
    gic.set_eoi_mode(true);
    let all = [A, B, C, C + 1, C + 2, C + 3];
    for intid in all {
        spi(gic, intid, PRIORITY);
        gic.set_pending(intid);
    }
    // More are active at once than a virtual CPU interface has room for.
    for _ in all {
        let iar = gic.acknowledge();
        check!(all.contains(&iar), "{iar}");
        gic.end(iar);
    }
    check_eq!(gic.acknowledge() & 0x3ff, SPURIOUS);
    check!(all.iter().all(|intid| gic.is_active(*intid)));
    for intid in [C + 3, A, C, B, C + 2, C + 1] {
        gic.deactivate(intid);
        check!(!gic.is_active(intid), "{intid}");
    }
    gic.set_eoi_mode(false);
    Ok(())
}

fn active_bit_holds_the_interrupt() -> Outcome {
    let gic = Gic::detect();
    spi(gic, A, PRIORITY);
    gic.set_active(A);
    check!(gic.is_active(A));
    gic.set_pending(A);
    check!(gic.is_pending(A));
    check_eq!(gic.acknowledge() & 0x3ff, SPURIOUS);
    gic.clear_active(A);
    check!(!gic.is_active(A));
    let iar = take!(gic, A);
    gic.end(iar);
    Ok(())
}

fn active_and_pending() -> Outcome {
    let gic = Gic::detect();
    spi(gic, A, PRIORITY);
    gic.set_pending(A);
    let iar = take!(gic, A);
    gic.set_pending(A);
    check!(gic.is_active(A) && gic.is_pending(A));
    check_eq!(gic.acknowledge() & 0x3ff, SPURIOUS);
    gic.end(iar);
    check!(!gic.is_active(A) && gic.is_pending(A));
    let iar = take!(gic, A);
    gic.end(iar);
    check!(!gic.is_active(A) && !gic.is_pending(A));
    Ok(())
}

fn edge_pulses_merge() -> Outcome {
    let gic = Gic::detect();
    spi(gic, A, PRIORITY);
    (0..5).for_each(|_| gic.set_pending(A));
    let iar = take!(gic, A);
    gic.end(iar);
    check_eq!(gic.acknowledge() & 0x3ff, SPURIOUS);
    Ok(())
}

fn level_made_pending_by_software() -> Outcome {
    let gic = Gic::detect();
    spi(gic, A, PRIORITY);
    gic.set_edge(A, false);
    gic.set_pending(A);
    check!(gic.is_pending(A));
    let iar = take!(gic, A);
    gic.end(iar);
    check!(!gic.is_pending(A), "the line is down, and the acknowledge took what software made");
    gic.set_pending(A);
    gic.clear_pending(A);
    check!(!gic.is_pending(A));
    check_eq!(gic.acknowledge() & 0x3ff, SPURIOUS);
    Ok(())
}

fn configuration_reads_back() -> Outcome {
    let gic = Gic::detect();
    let register = GICD + 0xc00 + u64::from(A / 16 * 4);
    gic.set_edge(A, true);
    check_eq!(mmio::read32(register) >> (A % 16 * 2) & 2, 2);
    gic.set_edge(A, false);
    check_eq!(mmio::read32(register) >> (A % 16 * 2) & 2, 0);
    let sgis = gic.bank(0) + 0xc00;
    let before = mmio::read32(sgis);
    check_eq!(before & 0xaaaa_aaaa, 0xaaaa_aaaa, "SGIs are edge-triggered");
    mmio::write32(sgis, 0);
    check_eq!(mmio::read32(sgis), before, "and stay so");
    Ok(())
}

fn distributor_off_holds_interrupts() -> Outcome {
    let gic = Gic::detect();
    spi(gic, A, PRIORITY);
    let control = mmio::read32(GICD);
    mmio::write32(GICD, control & !3);
    gic.set_pending(A);
    check!(gic.is_pending(A));
    check_eq!(gic.acknowledge() & 0x3ff, SPURIOUS);
    mmio::write32(GICD, control);
    let iar = take!(gic, A);
    gic.end(iar);
    Ok(())
}

fn cpu_interface_off_holds_interrupts() -> Outcome {
    let gic = Gic::detect();
    spi(gic, A, PRIORITY);
    interrupts::listen();
    let set = |enabled: u64| match gic {
        Gic::V2 => mmio::write32(trapeze_kit::gic::GICC, enabled as u32),
        Gic::V3 => trapeze_kit::msr!("ICC_IGRPEN1_EL1", enabled),
    };
    set(0);
    gic.set_pending(A);
    check_eq!(interrupts::open_for(2), 0);
    set(1);
    check!(interrupts::open_for_one());
    check_eq!(interrupts::acknowledged(0), A);
    Ok(())
}

//! Accesses to devices that a hypervisor emulates: every kind of load and store that a bare device answers as well.
//!
//! Registers to play with are the baud rate divisors of the PL011, IBRD and FBRD, four bytes apart, and four priorities
//! of the GIC that are accessible by bytes.
//! Follows Arm ARM DDI 0487K.a, C3.2 (loads and stores) and B2.7 (Device memory).

use crate::harness::{Outcome, Test, check, check_eq, fragment, skip_if, tests};
use core::arch::asm;
use trapeze_kit::console::{self, UART};
use trapeze_kit::exception::catch;
use trapeze_kit::gic::{GICD, Gic};
use trapeze_kit::mmu::{self, Attributes, Granule, USER};
use trapeze_kit::{el0, mmio, mrs, msr};

pub const TESTS: &[Test] = tests![
    sign_extension,
    xzr_and_sp,
    write_back,
    register_offsets,
    acquire_and_release,
    pair_of_words,
    unscaled_and_unprivileged,
    simd_and_fp,
    literal_is_memory,
    el0_reaches_what_it_is_given,
    big_endian_at_el0,
    device_with_the_mmu_off,
    device_across_granules,
    every_word_of_the_distributor_reads,
    cache_maintenance_of_a_device_does_nothing,
    atomics_on_a_device_do_not_hang,
];

const IBRD: u64 = UART + 0x24;
const FBRD: u64 = UART + 0x28;
/// Priorities of SPIs that no device has: INTID 44 to 47.
const PRIORITIES: u64 = GICD + 0x400 + 44;

/// Runs a test that plays with the divisors, and puts them back.
fn with_divisors(test: impl FnOnce() -> Outcome) -> Outcome {
    console::flush();
    let before = [IBRD, FBRD].map(mmio::read32);
    let outcome = test();
    mmio::write32(IBRD, before[0]);
    mmio::write32(FBRD, before[1]);
    outcome
}

/// Loads by an instruction of X1 from X3, and returns X1 and X3 behind it.
macro_rules! load {
    ($base:expr, $instruction:literal) => {{
        let (mut value, mut base) = (u64::MAX, $base);
        // SAFETY: a load from a device.
        unsafe { asm!($instruction, inout("x1") value, inout("x3") base) };
        (value, base)
    }};
}

fn sign_extension() -> Outcome {
    mmio::write32(PRIORITIES, 0x80f0_10a0);
    check_eq!(load!(PRIORITIES, "ldrb w1, [x3]").0, 0xa0);
    check_eq!(load!(PRIORITIES, "ldrsb w1, [x3]").0, 0xffff_ffa0);
    check_eq!(load!(PRIORITIES, "ldrsb x1, [x3]").0, 0xffff_ffff_ffff_ffa0);
    check_eq!(load!(PRIORITIES, "ldrsb x1, [x3, #1]").0, 0x10);
    check_eq!(load!(PRIORITIES, "ldr w1, [x3]").0, 0x80f0_10a0);
    check_eq!(load!(PRIORITIES, "ldrsw x1, [x3]").0, 0xffff_ffff_80f0_10a0);
    Ok(())
}

fn xzr_and_sp() -> Outcome {
    with_divisors(|| {
        mmio::write32(IBRD, 0x1234);
        // SAFETY: stores zero to a device, and loads into nothing.
        unsafe { asm!("ldr wzr, [{0}]", "str wzr, [{0}]", in(reg) IBRD) };
        check_eq!(mmio::read32(IBRD), 0);
        let value: u64;
        // SAFETY: nothing uses the stack while SP_EL0, whatever it is, is selected as the base of a load.
        unsafe {
            asm!("mrs {s}, SP_EL0", "msr SP_EL0, {a}", "msr SPSel, #0", "ldr {v:w}, [sp]", "msr SPSel, #1",
                 "msr SP_EL0, {s}", s = out(reg) _, a = in(reg) GICD, v = out(reg) value, options(nostack));
        }
        check_eq!(value, u64::from(mmio::read32(GICD)));
        Ok(())
    })
}

fn write_back() -> Outcome {
    with_divisors(|| {
        mmio::write32(IBRD, 0x1111);
        mmio::write32(FBRD, 0x22);
        check_eq!(load!(IBRD, "ldr w1, [x3], #4"), (0x1111, IBRD + 4));
        check_eq!(load!(IBRD, "ldr w1, [x3, #4]!"), (0x22, IBRD + 4));
        check_eq!(load!(FBRD, "ldrh w1, [x3], #-4"), (0x22, FBRD - 4));
        check_eq!(load!(PRIORITIES, "ldrsb x1, [x3], #1").1, PRIORITIES + 1);
        let mut base = IBRD;
        // SAFETY: stores to a device.
        unsafe {
            asm!("str w1, [x3], #4", "str w2, [x3, #-4]!", in("x1") 0x3333, in("x2") 0x4444, inout("x3") base)
        };
        check_eq!(base, IBRD);
        check_eq!(mmio::read32(IBRD), 0x4444);
        Ok(())
    })
}

fn register_offsets() -> Outcome {
    with_divisors(|| {
        mmio::write32(IBRD, 0x5555);
        let mut value = 0_u64;
        // SAFETY: a load from a device.
        unsafe { asm!("ldr {0:w}, [{1}, {2}, lsl #2]", out(reg) value, in(reg) UART, in(reg) 9_u64) };
        check_eq!(value, 0x5555);
        // SAFETY: a load from a device.
        unsafe {
            asm!("ldr {0:w}, [{1}, {2:w}, sxtw]", out(reg) value, in(reg) FBRD, in(reg) u64::from(-4_i32 as u32))
        };
        check_eq!(value, 0x5555);
        // SAFETY: a store to a device.
        unsafe { asm!("str {0:w}, [{1}, {2:w}, uxtw #2]", in(reg) 0x6666, in(reg) UART, in(reg) 9_u64) };
        check_eq!(mmio::read32(IBRD), 0x6666);
        Ok(())
    })
}

fn acquire_and_release() -> Outcome {
    with_divisors(|| {
        // SAFETY: a store to a device.
        unsafe { asm!("stlr {0:w}, [{1}]", in(reg) 0x7777, in(reg) IBRD) };
        check_eq!(load!(IBRD, "ldar w1, [x3]").0, 0x7777);
        check_eq!(load!(IBRD, "ldarh w1, [x3]").0, 0x7777);
        check_eq!(load!(IBRD, "ldarb w1, [x3]").0, 0x77);
        Ok(())
    })
}

fn pair_of_words() -> Outcome {
    skip_if!(Gic::detect() == Gic::V2, "no 64-bit register of the board to make a pair of");
    let router = GICD + 0x6000 + 8 * 44;
    mmio::write64(router, 0);
    mmio::write64(router + 8, 1 << 31);
    let (mut first, mut second, mut base) = (5_u64, 5_u64, router);
    // SAFETY: loads from a device.
    unsafe { asm!("ldp x1, x2, [x3], #16", inout("x1") first, inout("x2") second, inout("x3") base) };
    check_eq!((first, second, base), (0, 1 << 31, router + 16));
    // SAFETY: stores to a device.
    unsafe { asm!("stp x1, x2, [x3, #-16]!", in("x1") 1_u64 << 31, in("x2") 0_u64, inout("x3") base) };
    check_eq!((mmio::read64(router), mmio::read64(router + 8), base), (1 << 31, 0, router));
    Ok(())
}

fn unscaled_and_unprivileged() -> Outcome {
    with_divisors(|| {
        mmio::write32(IBRD, 0x2468);
        check_eq!(load!(IBRD + 1, "ldur w1, [x3, #-1]").0, 0x2468);
        check_eq!(load!(IBRD - 3, "ldurh w1, [x3, #3]").0, 0x2468);
        let map = mmu::enable(Granule::K4);
        map.add(USER + UART, UART, 0x1000, Attributes(Attributes::DEVICE.0 | 1 << 6));
        check_eq!(load!(USER + IBRD, "ldtr w1, [x3]").0, 0x2468);
        // SAFETY: a store to a device.
        unsafe { asm!("sttr {0:w}, [{1}]", in(reg) 0x1357, in(reg) USER + IBRD) };
        check_eq!(mmio::read32(IBRD), 0x1357);
        Ok(())
    })
}

fn simd_and_fp() -> Outcome {
    with_divisors(|| {
        mmio::write32(IBRD, 0x9abc);
        let value: u64;
        // SAFETY: V5 and V6 are nobody's: the kernel is built without them.
        unsafe {
            asm!(".arch_extension fp", "ldr s5, [{a}]", "fmov {v:w}, s5", "add {v}, {v}, #1", "fmov s6, {v:w}",
                 "str s6, [{a}]", ".arch_extension nofp", a = in(reg) IBRD, v = out(reg) value);
        }
        check_eq!(value, 0x9abd);
        check_eq!(mmio::read32(IBRD), 0x9abd);
        Ok(())
    })
}

fn literal_is_memory() -> Outcome {
    // A literal is near the code, so it is memory: what matters is that it is not taken for a device.
    let value: u64;
    // SAFETY: a load of what stands behind the branch.
    unsafe {
        asm!("ldr {0}, 20f", "b 30f", ".balign 8", "20: .quad 0x1122334455667788", "30:", out(reg) value)
    };
    check_eq!(value, 0x1122_3344_5566_7788);
    Ok(())
}

fn el0_reaches_what_it_is_given() -> Outcome {
    let map = mmu::enable(Granule::K4);
    map.add(USER + GICD, GICD, 0x1000, Attributes(Attributes::DEVICE.0 | 1 << 6));
    let code = fragment!("ldr w1, [x0, #4]", "ldrsb x2, [x0, #4]", "svc #0") + USER;
    let (seen, frame) = el0::call(code, USER + GICD, 0);
    check_eq!(seen.class(), 0x15, "{seen:x?}");
    check_eq!(frame.x[1], u64::from(mmio::read32(GICD + 4)));
    check_eq!(frame.x[2], i64::from(mmio::read8(GICD + 4).cast_signed()).cast_unsigned());
    let (seen, _) = el0::call(code, USER + GICD + 0x1000, 0);
    check_eq!(seen.class(), 0x24, "behind its page there is nothing");
    Ok(())
}

fn big_endian_at_el0() -> Outcome {
    let features = mrs!("ID_AA64MMFR0_EL1");
    skip_if!(features >> 8 & 0xf == 0 && features >> 16 & 0xf == 0, "ID_AA64MMFR0_EL1: little-endian only");
    let map = mmu::enable(Granule::K4);
    map.add(USER + GICD, GICD, 0x1000, Attributes(Attributes::DEVICE.0 | 1 << 6));
    mmio::write32(PRIORITIES, 0x8070_6050);
    let sctlr = mrs!("SCTLR_EL1");
    msr!("SCTLR_EL1", sctlr | 1 << 24);
    let code = fragment!("ldr w1, [x0]", "ldrsh x2, [x3]", "ldrb w4, [x0]", "str w5, [x0]", "svc #0") + USER;
    let mut frame = exception_frame(code, USER + PRIORITIES);
    frame.x[3] = USER + GICD + 4;
    frame.x[5] = 0x1020_3040;
    let seen = el0::run(&mut frame);
    msr!("SCTLR_EL1", sctlr);
    if seen.class() != 0x15 {
        // A half-word of the distributor is not every GIC's to give.
        check_eq!(seen.class(), 0x24, "{seen:x?}");
        return Ok(());
    }
    check_eq!(frame.x[1], 0x5060_7080);
    check_eq!(frame.x[4], 0x50);
    check_eq!(mmio::read32(PRIORITIES), 0x4030_2010);
    Ok(())
}

/// Builds what EL0 begins with: the code, X0, all masked.
fn exception_frame(code: u64, x0: u64) -> trapeze_kit::exception::Frame {
    let mut frame = trapeze_kit::exception::Frame { elr: code, spsr: el0::MASKED, ..Default::default() };
    frame.x[0] = x0;
    frame
}

fn device_with_the_mmu_off() -> Outcome {
    let wanted = mmio::read32(GICD + 4);
    mmio::write32(PRIORITIES, 0x1020_3040);
    mmu::disable();
    let seen = (mmio::read32(GICD + 4), mmio::read32(PRIORITIES));
    mmio::write8(PRIORITIES + 1, 0x90);
    mmu::enable(Granule::K4);
    check_eq!(seen, (wanted, 0x1020_3040));
    check_eq!(mmio::read32(PRIORITIES), 0x1020_9040);
    Ok(())
}

fn device_across_granules() -> Outcome {
    for granule in [Granule::K4, Granule::K16, Granule::K64] {
        if !granule.is_implemented() {
            continue;
        }
        mmu::disable();
        let map = mmu::enable(granule);
        // Somewhere else, in a page of its own.
        let alias = 0x10_0000_0000;
        map.add(alias, GICD, 1 << granule.shift(), Attributes::DEVICE);
        check_eq!(mmio::read32(alias + 4), mmio::read32(GICD + 4), "{granule:?}");
        check_eq!(
            load!(alias + 4, "ldr w1, [x3], #4"),
            (u64::from(mmio::read32(GICD + 4)), alias + 8),
            "{granule:?}"
        );
    }
    Ok(())
}

fn every_word_of_the_distributor_reads() -> Outcome {
    let bytes = if Gic::detect() == Gic::V2 { 0x1000 } else { 0x1_0000 };
    for offset in (0..bytes).step_by(4) {
        let seen = catch(|| mmio::read32(GICD + offset));
        check!(seen.is_ok(), "{offset:#x}: {seen:x?}");
    }
    Ok(())
}

fn cache_maintenance_of_a_device_does_nothing() -> Outcome {
    for address in [GICD, UART, IBRD] {
        // SAFETY: there is no line of a cache for a device.
        let seen = catch(|| unsafe { asm!("dc civac, {0}", "dc cvac, {0}", "dsb sy", in(reg) address) });
        check_eq!(seen, Ok(()), "{address:#x}");
    }
    Ok(())
}

fn atomics_on_a_device_do_not_hang() -> Outcome {
    with_divisors(|| {
        mmio::write32(IBRD, 0x100);
        let mut value = 0_u64;
        // A bus may refuse exclusives to a device, or let them through.
        // SAFETY: an access to a device; an exception is caught.
        let seen = catch(|| unsafe { asm!("ldxr {0:w}, [{1}]", "clrex", inout(reg) value, in(reg) IBRD) });
        match seen {
            Ok(()) => check_eq!(value, 0x100),
            Err(exception) => check_eq!(exception.class(), 0x25),
        }
        Ok(())
    })
}

//! Accesses to devices that a hypervisor emulates: every kind of load and store that a bare device answers as well.
//!
//! Registers to play with are the baud rate divisors of the PL011, IBRD and FBRD, four bytes apart, and four priorities
//! of the GIC that are accessible by bytes.
//! Follows Arm ARM DDI 0487K.a, C3.2 (loads and stores) and B2.7 (Device memory).

use crate::harness::{End, Outcome, Test, check, check_eq, fragment, skip_if, tests};
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
    memory_copy_from_a_device,
    memory_copy_and_set_within_a_device,
    memory_copy_and_set_end_where_a_page_faults,
    memory_copy_has_permissions_of_either_side,
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

/// Returns whether the CPU has FEAT_MOPS (ID_AA64ISAR2_EL1.MOPS).
fn has_memory_copy_and_set() -> bool {
    mrs!("S3_0_C0_C6_2") >> 16 & 0xf != 0
}

/// Executes a whole memory copy, or a set, and returns where X1, X3 and X2 end: where to, where from, how many bytes.
macro_rules! bulk {
    ($prologue:literal, $main:literal, $end:literal, [$to:expr, $from:expr, $bytes:expr]) => {{
        let (mut to, mut from, mut bytes): (u64, u64, u64) = ($to, $from, $bytes);
        // SAFETY: the callers name devices, and memory that is theirs.
        unsafe {
            asm!(".arch_extension mops", $prologue, $main, $end, ".arch_extension nomops",
                 inout("x1") to, inout("x3") from, inout("x2") bytes, options(nostack));
        }
        [to, from, bytes]
    }};
}

fn address(memory: &mut [u8]) -> u64 {
    memory.as_mut_ptr().expose_provenance() as u64
}

fn memory_copy_from_a_device() -> Outcome {
    skip_if!(!has_memory_copy_and_set(), "ID_AA64ISAR2_EL1: no FEAT_MOPS");
    mmio::write32(PRIORITIES, 0x80f0_10a0);
    // Priorities, and what a PL011 is called by.
    for (from, bytes) in [(GICD + 0x400, 250), (UART + 0xfe0, 32), (GICD + 0x400, 0)] {
        let mut copied = [0xee; 256];
        let to = address(&mut copied) + 1;
        let ends = bulk!(
            "cpyfp [x1]!, [x3]!, x2!",
            "cpyfm [x1]!, [x3]!, x2!",
            "cpyfe [x1]!, [x3]!, x2!",
            [to, from, bytes]
        );
        check_eq!(ends, [to + bytes, from + bytes, 0]);
        for (at, seen) in (0..).zip(&copied[1..]) {
            let wanted = if at < bytes { mmio::read8(from + at) } else { 0xee };
            check_eq!(*seen, wanted, "byte {at} of {from:#x}");
        }
        check_eq!(copied[0], 0xee);
    }
    Ok(())
}

fn memory_copy_and_set_within_a_device() -> Outcome {
    skip_if!(!has_memory_copy_and_set(), "ID_AA64ISAR2_EL1: no FEAT_MOPS");
    let copy = |to, from, bytes| {
        bulk!("cpyp [x1]!, [x3]!, x2!", "cpym [x1]!, [x3]!, x2!", "cpye [x1]!, [x3]!, x2!", [to, from, bytes])
    };
    let mut priorities = [0xa0, 0x10, 0xf0, 0x80];
    let ram = address(&mut priorities);
    check_eq!(copy(PRIORITIES, ram, 4), [PRIORITIES + 4, ram + 4, 0]);
    check_eq!(mmio::read32(PRIORITIES), 0x80f0_10a0);
    // The last byte first, since there is an overlap: then the addresses end where they began.
    check_eq!(copy(PRIORITIES + 1, PRIORITIES, 3), [PRIORITIES + 1, PRIORITIES, 0]);
    check_eq!(mmio::read32(PRIORITIES), 0xf010_a0a0);
    check_eq!(copy(PRIORITIES, PRIORITIES + 1, 3), [PRIORITIES + 3, PRIORITIES + 4, 0]);
    check_eq!(mmio::read32(PRIORITIES), 0xf0f0_10a0);
    let ends = bulk!(
        "setp [x1]!, x2!, x3",
        "setm [x1]!, x2!, x3",
        "sete [x1]!, x2!, x3",
        [PRIORITIES + 1, 0x1250, 3]
    );
    check_eq!(ends, [PRIORITIES + 4, 0x1250, 0]);
    check_eq!(mmio::read32(PRIORITIES), 0x5050_50a0);
    Ok(())
}

fn memory_copy_and_set_end_where_a_page_faults() -> Outcome {
    skip_if!(!has_memory_copy_and_set(), "ID_AA64ISAR2_EL1: no FEAT_MOPS");
    let map = mmu::enable(Granule::K4);
    // Somewhere else, with nothing behind it.
    let alias = 0x10_0000_0000;
    map.add(alias, GICD, 0x1000, Attributes::DEVICE);
    let mut copied = [0xee; 32];
    let to = address(&mut copied);
    // The instruction at fault is skipped, and those behind it try in vain what it has left.
    let read = catch(|| {
        bulk!(
            "cpyfp [x1]!, [x3]!, x2!",
            "cpyfm [x1]!, [x3]!, x2!",
            "cpyfe [x1]!, [x3]!, x2!",
            [to, alias + 0xff0, 32]
        )
    });
    let write = catch(|| {
        bulk!("setp [x1]!, x2!, x3", "setm [x1]!, x2!, x3", "sete [x1]!, x2!, x3", [alias + 0xffc, 0, 8])
    });
    for (seen, wnr) in [(read, 0), (write, 1)] {
        let Err(exception) = seen else { return Err(End::Failed) };
        check_eq!(exception.class(), 0x25, "{exception:x?}");
        check_eq!(exception.far, alias + 0x1000);
        check_eq!((exception.iss() & 0x3c, exception.iss() >> 6 & 1), (0x04, wnr), "a translation fault");
    }
    for (at, seen) in (0..).zip(&copied) {
        let wanted = if at < 0x10 { mmio::read8(GICD + 0xff0 + at) } else { 0xee };
        check_eq!(*seen, wanted, "byte {at}");
    }
    Ok(())
}

fn memory_copy_has_permissions_of_either_side() -> Outcome {
    skip_if!(!has_memory_copy_and_set(), "ID_AA64ISAR2_EL1: no FEAT_MOPS");
    let map = mmu::enable(Granule::K4);
    map.add(USER + GICD, GICD, 0x1000, Attributes(Attributes::DEVICE.0 | 1 << 6));
    mmio::write32(PRIORITIES, 0x80f0_10a0);
    let mut copied = [0xee; 4];
    let (to, from) = (address(&mut copied), USER + PRIORITIES);
    // EL0 may read the device and not write the memory.
    let ends = bulk!(
        "cpyfprt [x1]!, [x3]!, x2!",
        "cpyfmrt [x1]!, [x3]!, x2!",
        "cpyfert [x1]!, [x3]!, x2!",
        [to, from, 4]
    );
    check_eq!((ends, copied), ([to + 4, from + 4, 0], [0xa0, 0x10, 0xf0, 0x80]));
    let seen = catch(|| {
        bulk!(
            "cpyfpt [x1]!, [x3]!, x2!",
            "cpyfmt [x1]!, [x3]!, x2!",
            "cpyfet [x1]!, [x3]!, x2!",
            [to, from, 4]
        )
    });
    let Err(exception) = seen else { return Err(End::Failed) };
    check_eq!((exception.class(), exception.far), (0x25, to), "{exception:x?}");
    check_eq!((exception.iss() & 0x3c, exception.iss() >> 6 & 1), (0x0c, 1), "a permission fault of a write");
    Ok(())
}

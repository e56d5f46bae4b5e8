//! Alignment: what normal memory allows, what SCTLR_EL1.A, Device memory, exclusives and a disabled MMU forbid.
//!
//! Follows Arm ARM DDI 0487K.a, B2.8 (alignment support).

use crate::harness::{Outcome, Test, check, check_eq, skip_if, tests};
use core::arch::asm;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::SeqCst;
use trapeze_kit::exception::{Exception, catch};
use trapeze_kit::mmu::{self, Attributes, Granule};
use trapeze_kit::{mmio, mrs, msr, smp};

pub const TESTS: &[Test] = tests![
    unaligned_accesses_of_normal_memory,
    unaligned_across_a_page_boundary,
    sctlr_a_forbids_them,
    unaligned_exclusive_faults,
    unaligned_acquire_faults_or_works,
    unaligned_device_access_faults,
    mmu_off_is_device_memory,
];

#[repr(C, align(8192))]
struct Memory([AtomicU64; 1024]);

static MEMORY: Memory = Memory([const { AtomicU64::new(0) }; 1024]);

/// Fills the memory with bytes that say where they are, and returns its address.
fn fill() -> u64 {
    for (index, word) in (0..).zip(&MEMORY.0) {
        word.store(0x0706_0504_0302_0100 + index * 0x0808_0808_0808_0808, SeqCst);
    }
    core::ptr::from_ref(&MEMORY).addr() as u64
}

/// Says whether the exception is an alignment fault at `address`.
fn is_alignment_fault<T>(result: &Result<T, Exception>, address: u64) -> bool {
    result.as_ref().is_err_and(|e| e.class() == 0x25 && e.iss() & 0x3f == 0x21 && e.far == address)
}

fn unaligned_accesses_of_normal_memory() -> Outcome {
    let at = fill();
    check_eq!(catch(|| mmio::read64(at + 3)), Ok(0x0a09_0807_0605_0403));
    check_eq!(catch(|| mmio::read32(at + 2)), Ok(0x0504_0302));
    check_eq!(catch(|| mmio::read16(at + 7)), Ok(0x0807));
    mmio::write32(at + 6, 0xaabb_ccdd);
    check_eq!(mmio::read64(at), 0xccdd_0504_0302_0100);
    check_eq!(mmio::read64(at + 8), 0x0f0e_0d0c_0b0a_aabb);
    Ok(())
}

fn unaligned_across_a_page_boundary() -> Outcome {
    let at = fill();
    let map = mmu::enable(Granule::K4);
    let alias = 0x10_0000_0000;
    // The two pages the other way round.
    map.add(alias, at + 0x1000, 0x1000, Attributes::KERNEL);
    map.add(alias + 0x1000, at, 0x1000, Attributes::KERNEL);
    mmio::write32(alias + 0xffe, 0x1122_3344);
    check_eq!(mmio::read32(alias + 0xffe), 0x1122_3344);
    check_eq!(mmio::read16(at + 0x1ffe), 0x3344);
    check_eq!(mmio::read16(at), 0x1122);
    Ok(())
}

fn sctlr_a_forbids_them() -> Outcome {
    let at = fill();
    let sctlr = mrs!("SCTLR_EL1");
    msr!("SCTLR_EL1", sctlr | 2);
    let results = [1, 2, 3].map(|offset| catch(|| mmio::read32(at + offset)));
    let aligned = catch(|| mmio::read32(at + 4));
    msr!("SCTLR_EL1", sctlr);
    for (offset, result) in (1..).zip(results) {
        check!(is_alignment_fault(&result, at + offset), "{offset}: {result:x?}");
    }
    check_eq!(aligned, Ok(0x0706_0504));
    Ok(())
}

fn unaligned_exclusive_faults() -> Outcome {
    // Across 16 bytes, which FEAT_LSE2 does not allow either.
    let at = fill() + 12;
    let mut value = 0_u64;
    // SAFETY: the fault is caught; otherwise a load.
    let result = catch(|| unsafe { asm!("ldxr {0}, [{1}]", inout(reg) value, in(reg) at) });
    check!(is_alignment_fault(&result, at), "{result:x?}");
    check_eq!(value, 0);
    Ok(())
}

fn unaligned_acquire_faults_or_works() -> Outcome {
    let at = fill() + 6;
    let mut value = 0_u64;
    // SAFETY: the fault is caught; otherwise a load.
    let result = catch(|| unsafe { asm!("ldar {0:w}, [{1}]", inout(reg) value, in(reg) at) });
    // FEAT_LSE2 allows it within 16 bytes.
    let has_lse2 = mrs!("ID_AA64MMFR2_EL1") >> 32 & 0xf != 0;
    if has_lse2 {
        check_eq!(result, Ok(()));
        check_eq!(value, 0x0908_0706);
    } else {
        check!(is_alignment_fault(&result, at), "{result:x?}");
    }
    Ok(())
}

fn unaligned_device_access_faults() -> Outcome {
    skip_if!(smp::present() == 1, "one CPU: QEMU then checks no alignment by memory type");
    let at = fill();
    let map = mmu::enable(Granule::K4);
    let alias = 0x10_0000_0000;
    map.add(alias, at, 0x1000, Attributes::DEVICE);
    check_eq!(catch(|| mmio::read32(alias + 8)), Ok(0x0b0a_0908));
    let result = catch(|| mmio::read32(alias + 9));
    check!(is_alignment_fault(&result, alias + 9), "{result:x?}");
    Ok(())
}

fn mmu_off_is_device_memory() -> Outcome {
    let at = fill();
    trapeze_kit::cache::clean_invalidate(at, 64);
    mmu::disable();
    let aligned = catch(|| mmio::read64(at + 8));
    let result = catch(|| mmio::read64(at + 9));
    mmu::enable(Granule::K4);
    check_eq!(aligned, Ok(0x0f0e_0d0c_0b0a_0908));
    check!(is_alignment_fault(&result, at + 9), "{result:x?}");
    Ok(())
}

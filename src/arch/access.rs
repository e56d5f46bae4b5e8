//! What a guest's instruction accesses, reached from EL2: its virtual addresses, its RAM, its SIMD&FP registers.
//!
//! Not here: which of them, and what for (the package `instructions`).
//! Follows Arm ARM DDI 0487K.a, C5.4 (AT instructions) and PAR_EL1.

use core::arch::asm;

use instructions::Vectors;
use spin::Mutex;
use trapeze::addr::{GuestVa, Pa, Region};
use trapeze::allocator::Owner;
use trapeze::allocator::frames::Frames;
use trapeze::ids::VmId;
use trapeze::interpreter::device::Width;
use trapeze::interpreter::translation::{Attempt, Stages};

use super::memory;
use super::sysreg::{isb, read_sysreg, write_sysreg};

/// Executes an AT instruction.
macro_rules! at {
    ($($operation:literal),*; $address:expr) => {
        // SAFETY: AT changes no register but PAR_EL1, which the caller keeps for the guest, and of memory at most access
        // flags in the guest's own tables, as the guest's access would. PSTATE.PAN does nothing at EL2 without VHE.
        unsafe { asm!($($operation,)* address = in(reg) $address, options(nostack, preserves_flags)) }
    };
}

/// Translates an address of the guest whose registers are in this CPU; returns PAR_EL1.
pub fn translate(address: GuestVa, stages: Stages, attempt: Attempt) -> u64 {
    let address = address.get();
    let guests_own = read_sysreg!("par_el1");
    match (stages, attempt) {
        // FEAT_PAN2 (ID_AA64MMFR1_EL1.PAN): the only AT that respect PAN, by number for the assembler's sake.
        (Stages::First, Attempt { pan: true, write, .. })
            if read_sysreg!("S3_0_C0_C7_1") >> 20 & 0xf >= 2 =>
        {
            if write {
                at!(".inst 0xd500419f /* msr pan, #1 */", "sys #0, c7, c9, #1, {address}"; address)
            } else {
                at!(".inst 0xd500419f /* msr pan, #1 */", "sys #0, c7, c9, #0, {address}"; address)
            }
        }
        (Stages::First, Attempt { el0: false, write: false, .. }) => at!("at s1e1r, {address}"; address),
        (Stages::First, Attempt { el0: false, write: true, .. }) => at!("at s1e1w, {address}"; address),
        (Stages::First, Attempt { el0: true, write: false, .. }) => at!("at s1e0r, {address}"; address),
        (Stages::First, Attempt { el0: true, write: true, .. }) => at!("at s1e0w, {address}"; address),
        (Stages::Both, Attempt { el0: false, write: false, .. }) => at!("at s12e1r, {address}"; address),
        (Stages::Both, Attempt { el0: false, write: true, .. }) => at!("at s12e1w, {address}"; address),
        (Stages::Both, Attempt { el0: true, write: false, .. }) => at!("at s12e0r, {address}"; address),
        (Stages::Both, Attempt { el0: true, write: true, .. }) => at!("at s12e0w, {address}"; address),
    }
    isb(); // PAR_EL1 holds the result
    let result = read_sysreg!("par_el1");
    write_sysreg!("par_el1", guests_own);
    result
}

/// Accesses `width` bytes of RAM at an aligned address, if the VM owns it.
pub fn ram(frames: &Mutex<Frames>, owner: VmId, at: Pa, width: Width, write: Option<u64>) -> Option<u64> {
    if frames.lock().owner(at) != Some(Owner::Vm(owner)) {
        return None;
    }
    // With its caches off a guest reads and writes memory behind the cache that EL2 uses.
    let touched = Region { start: at, size_bytes: width.bytes() };
    memory::clean_invalidate(touched);
    // SAFETY: the frame belongs to a VM, whose vCPU runs on this CPU: so it is RAM that EL2 maps, that no Rust reference
    // points into, and that is not given away before this vCPU stops. It has the whole of the aligned double word.
    let double = unsafe { memory::read_descriptor(at.align_down(8)) };
    let value = double >> (8 * (at.get() & 7)) & width.mask();
    macro_rules! store {
        ($store:literal, $value:expr) => {
            // SAFETY: as for the load; and the address is aligned.
            unsafe { asm!($store, value = in(reg) $value, at = in(reg) at.get(), options(nostack)) }
        };
    }
    match (write, width) {
        (None, _) => return Some(value),
        (Some(value), Width::Byte) => store!("strb {value:w}, [{at}]", value),
        (Some(value), Width::Half) => store!("strh {value:w}, [{at}]", value),
        (Some(value), Width::Word) => store!("str {value:w}, [{at}]", value),
        (Some(value), Width::Double) => store!("str {value}, [{at}]", value),
    }
    memory::clean_invalidate(touched);
    Some(value)
}

/// Reads the SIMD&FP registers of the guest, which has used them: they are in the CPU, and CPTR_EL2 does not trap them.
pub fn vectors() -> Vectors {
    let mut vectors = Vectors([0; 512]);
    save_vectors(&mut vectors);
    vectors
}

/// Reads the SIMD&FP registers, which CPTR_EL2 does not trap.
pub fn save_vectors(to: &mut Vectors) {
    // SAFETY: stores 512 bytes, the size of `Vectors`, into it.
    unsafe {
        asm!(
            ".arch_extension fp", ".arch_extension simd",
            "stp q0, q1, [{at}]", "stp q2, q3, [{at}, #32]", "stp q4, q5, [{at}, #64]", "stp q6, q7, [{at}, #96]",
            "stp q8, q9, [{at}, #128]", "stp q10, q11, [{at}, #160]", "stp q12, q13, [{at}, #192]",
            "stp q14, q15, [{at}, #224]", "stp q16, q17, [{at}, #256]", "stp q18, q19, [{at}, #288]",
            "stp q20, q21, [{at}, #320]", "stp q22, q23, [{at}, #352]", "stp q24, q25, [{at}, #384]",
            "stp q26, q27, [{at}, #416]", "stp q28, q29, [{at}, #448]", "stp q30, q31, [{at}, #480]",
            at = in(reg) &raw mut *to, options(nostack),
        );
    }
}

/// Writes the guest's SIMD&FP registers. No VM is shown SVE, whose registers would lose their upper parts.
pub fn set_vectors(vectors: &Vectors) {
    // SAFETY: loads 512 bytes, the size of `Vectors`, from it. EL2's own code is built without these registers.
    unsafe {
        asm!(
            ".arch_extension fp", ".arch_extension simd",
            "ldp q0, q1, [{at}]", "ldp q2, q3, [{at}, #32]", "ldp q4, q5, [{at}, #64]", "ldp q6, q7, [{at}, #96]",
            "ldp q8, q9, [{at}, #128]", "ldp q10, q11, [{at}, #160]", "ldp q12, q13, [{at}, #192]",
            "ldp q14, q15, [{at}, #224]", "ldp q16, q17, [{at}, #256]", "ldp q18, q19, [{at}, #288]",
            "ldp q20, q21, [{at}, #320]", "ldp q22, q23, [{at}, #352]", "ldp q24, q25, [{at}, #384]",
            "ldp q26, q27, [{at}, #416]", "ldp q28, q29, [{at}, #448]", "ldp q30, q31, [{at}, #480]",
            at = in(reg) vectors, options(nostack, readonly),
        );
    }
}

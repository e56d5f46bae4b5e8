//! The EL2 vector table, the way out of a guest and the way back in.
//!
//! Not here: any decision. While a guest runs SP_EL2 points at its vCPU's [`Frame`], so that the
//! first instruction of a vector can already store into it.
//! Follows Arm ARM DDI 0487K.a, D1.3.1.5 (vector offsets) and D1.3.6 (ERET).

use core::arch::global_asm;
use core::mem::offset_of;

use trapeze::vcpu::Frame;

use super::percpu::Pcpu;

/// General-purpose registers of the hypervisor at a fatal exception, as the vectors lay them out.
#[repr(C)]
pub struct FatalFrame {
    /// X0-X30 at the exception.
    pub x: [u64; 31],
    /// SP_EL2 at the exception.
    pub sp: u64,
}

const _: () =
    assert!(offset_of!(Frame, x) == 0 && offset_of!(Frame, pc) == 248 && offset_of!(Frame, pstate) == 256);

global_asm!(
    r#"
    .macro guest_exit name, handler     // 25 instructions of the 32 that a vector has room for
    .balign 128
    .global \name
\name:
    stp     x0, x1, [sp]                // sp: the vCPU's Frame; all else is still the guest's
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    mrs     x2, elr_el2
    mrs     x3, spsr_el2
    stp     x30, x2, [sp, #240]
    str     x3, [sp, #256]
    mrs     x0, tpidr_el2
    ldr     x1, [x0, #{stack_top}]
    mov     sp, x1
    mov     x29, xzr                    // a backtrace ends here
    adr     x30, enter_guest
    b       \handler                    // x0: &mut Pcpu; returns the Frame to run
    .if     . - \name > 128
    .error  "a vector is longer than 128 bytes"
    .endif
    .endm

    .macro fatal kind
    .balign 128
    msr     sp_el0, x0                  // the guest's SP_EL0 is lost: so is the machine
    mrs     x0, tpidr_el2
    cbz     x0, 1f
    ldr     x0, [x0, #{emergency_top}]
    b       2f
1:  adrp    x0, cpu_areas
    add     x0, x0, :lo12:cpu_areas
    add     x0, x0, #{first_emergency}
2:  sub     x0, x0, #272
    stp     x1, x2, [x0, #8]
    mov     x1, #\kind
    b       fatal_exception
    .endm

    .section .text.vectors, "ax"
    .balign 2048
    .global vectors
vectors:
    fatal   0                           // EL2 with SP_EL0: never selected
    fatal   1
    fatal   2
    fatal   3
    fatal   4                           // EL2 itself: a bug of ours
    fatal   5
    fatal   6
    fatal   7
    guest_exit vector_lower_sync, exit_sync // a guest in AArch64
    guest_exit vector_lower_irq, exit_irq
    guest_exit vector_lower_fiq, exit_irq
    guest_exit vector_lower_serror, exit_serror
    guest_exit vector_lower32_sync, exit_sync // a guest's EL0 in AArch32
    guest_exit vector_lower32_irq, exit_irq
    guest_exit vector_lower32_fiq, exit_irq
    guest_exit vector_lower32_serror, exit_serror

    // x0: the Frame to run. Nothing of EL2's survives.
    .global enter_guest
enter_guest:
    mov     sp, x0
    ldp     x30, x2, [sp, #240]
    ldr     x3, [sp, #256]
    msr     elr_el2, x2
    msr     spsr_el2, x3
    ldp     x28, x29, [sp, #224]
    ldp     x26, x27, [sp, #208]
    ldp     x24, x25, [sp, #192]
    ldp     x22, x23, [sp, #176]
    ldp     x20, x21, [sp, #160]
    ldp     x18, x19, [sp, #144]
    ldp     x16, x17, [sp, #128]
    ldp     x14, x15, [sp, #112]
    ldp     x12, x13, [sp, #96]
    ldp     x10, x11, [sp, #80]
    ldp     x8, x9, [sp, #64]
    ldp     x6, x7, [sp, #48]
    ldp     x4, x5, [sp, #32]
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp]
    eret
    dsb     nsh                         // no speculation past ERET (CVE-2020-13844 class)
    isb

fatal_exception:                        // x0: FatalFrame, x1 and x2 already in it; x1: kind
    stp     x3, x4, [x0, #24]
    stp     x5, x6, [x0, #40]
    stp     x7, x8, [x0, #56]
    stp     x9, x10, [x0, #72]
    stp     x11, x12, [x0, #88]
    stp     x13, x14, [x0, #104]
    stp     x15, x16, [x0, #120]
    stp     x17, x18, [x0, #136]
    stp     x19, x20, [x0, #152]
    stp     x21, x22, [x0, #168]
    stp     x23, x24, [x0, #184]
    stp     x25, x26, [x0, #200]
    stp     x27, x28, [x0, #216]
    stp     x29, x30, [x0, #232]
    mov     x2, sp
    str     x2, [x0, #248]
    mrs     x2, sp_el0
    str     x2, [x0]
    mov     sp, x0
    bl      exit_fatal                  // x0: &FatalFrame, x1: vector; never returns
    "#,
    stack_top = const offset_of!(Pcpu, stack_top),
    emergency_top = const offset_of!(Pcpu, emergency_top),
    first_emergency = const super::percpu::EMERGENCY_TOP,
);

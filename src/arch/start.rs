//! The first instructions: the Image header, relocation, and the way of each CPU to its Rust entry.
//!
//! Not here: anything that can be said in Rust. Until `mmu::enable` memory is Device-nGnRnE: no exclusives and
//! no unaligned accesses (the target is built with strict alignment).
//! Follows Linux Documentation/arch/arm64/booting.rst (header, state at entry) and Arm ARM DDI 0487K.a, D7.5
//! (cache maintenance around memory that is written with the caches off).

use core::arch::global_asm;

use super::percpu::AREA_BYTES;

global_asm!(
    r#"
    .section .text.head, "ax"
    .global image_head
image_head:
    b       start                       // code0
    // code1, which nothing executes but a CPU in AArch32 state, to which `b start` is a store where R0 points
    // (nowhere, as Linux' boot protocol for it says): B aarch32.
    .long   0xea000000 | ((aarch32 - image_head - 12) >> 2)
    .quad   0                           // text_offset: any 2 MiB boundary will do
    .quad   image_size                  // with what is not in the file
    .quad   0b1010                      // little endian, 4 KiB pages, anywhere in RAM
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

start:                                  // x0: device tree, or 0
    msr     daifset, #0xf
    msr     spsel, #1                   // SP_EL0 is the guest's
    mov     x20, x0
    mrs     x21, CurrentEL
    lsr     x21, x21, #2
    cmp     x21, #2
    b.eq    13f
    mrs     x1, mpidr_el1               // firmware that enters at EL3 may send all CPUs here: one is enough to say so
    tst     x1, #0xffff
    b.ne    6f
    b       1f
13:
    ldr     w1, ={hcr}                  // no E2H, no TGE, no traps yet
    msr     hcr_el2, x1
    isb
    ldr     w1, ={sctlr_off}
    msr     sctlr_el2, x1
    adr     x1, vectors
    msr     vbar_el2, x1
    msr     tpidr_el2, xzr              // no Pcpu yet: the vectors use the boot CPU's emergency stack
    isb
1:
    // Stale lines over memory that we write with the caches off would hide or overwrite it.
    adrp    x1, text_end                // relocation writes to read-only pages, too
    adrp    x2, image_end
    bl      invalidate_to_poc

    // Relocate. RELR: an even word is the address of a word to move, an odd one says which of the
    // next 63 words move, bit by bit.
    adrp    x1, relr_start
    add     x1, x1, :lo12:relr_start
    adrp    x2, relr_end
    add     x2, x2, :lo12:relr_end
    adr     x3, image_head
    ldr     x4, ={link_base}
    sub     x3, x3, x4                  // where we are less where we were linked
2:  cmp     x1, x2
    b.hs    9f
    ldr     x4, [x1], #8
    tbnz    x4, #0, 3f
    add     x5, x4, x3
    ldr     x6, [x5]
    add     x6, x6, x3
    str     x6, [x5], #8                // x5: the word behind it
    b       2b
3:  mov     x7, x5
10: lsr     x4, x4, #1
    cbz     x4, 11f
    tbz     x4, #0, 12f
    ldr     x6, [x7]
    add     x6, x6, x3
    str     x6, [x7]
12: add     x7, x7, #8
    b       10b
11: add     x5, x5, #(63 * 8)
    b       2b
9:
    adrp    x1, bss_start               // 16-byte aligned; the rest of its first page is .data
    add     x1, x1, :lo12:bss_start
    adrp    x2, bss_end
4:  cmp     x1, x2
    b.hs    5f
    stp     xzr, xzr, [x1], #16
    b       4b
5:
    adrp    x1, cpu_areas
    add     x1, x1, :lo12:cpu_areas
    ldr     x2, ={area_bytes}
    add     sp, x1, x2                  // area 0 begins with its guard page and ends with its stack
    mov     x29, xzr
    mov     x30, xzr
    dsb     sy
    isb
    mov     x0, x20
    mov     x1, x21
    bl      boot_cpu_entry
6:  wfe
    b       6b

    // x1..x2, page aligned: drop every line down to the point of coherency. Clobbers x1, x3, x4.
invalidate_to_poc:
    mrs     x3, ctr_el0
    ubfx    x3, x3, #16, #4             // DminLine: log2 of words
    mov     x4, #4
    lsl     x3, x4, x3
7:  cmp     x1, x2
    b.hs    8f
    dc      ivac, x1
    add     x1, x1, x3
    b       7b
8:  dsb     sy
    ret

    // A further CPU, MMU off. It takes the one block that the boot CPU published in `secondary_block`
    // and cleaned to the point of coherency, if the block is meant for it. Device memory is read in program order.
    .global secondary_start
secondary_start:
    msr     daifset, #0xf
    msr     spsel, #1
    mrs     x21, CurrentEL
    cmp     x21, #(2 << 2)
    b.ne    6b
    ldr     w1, ={hcr}
    msr     hcr_el2, x1
    isb
    ldr     w1, ={sctlr_off}
    msr     sctlr_el2, x1
    msr     tpidr_el2, xzr              // its Pcpu comes later
    adr     x1, vectors
    msr     vbar_el2, x1
    isb
    adrp    x19, secondary_block
    add     x19, x19, :lo12:secondary_block
    ldr     x1, [x19, #{mair}]
    ldr     x2, [x19, #{tcr}]
    ldr     x3, [x19, #{ttbr0}]
    ldr     x4, [x19, #{sctlr}]
    ldr     x5, [x19, #{stack}]
    ldr     x6, [x19, #{number}]
    ldr     x7, [x19, #{monitor}]
    mrs     x8, mpidr_el1
    ldr     x9, =0xff00ffffff
    and     x8, x8, x9
    ldr     x9, [x19, #{affinity}]      // last: if it is still ours, so is what was read before
    cmp     x8, x9
    b.ne    6b
    msr     mair_el2, x1
    msr     tcr_el2, x2
    msr     ttbr0_el2, x3
    tlbi    alle2
    ic      iallu
    dsb     nsh
    isb
    msr     sctlr_el2, x4
    isb
    mov     sp, x5
    mov     x0, x6
    mov     x1, x7
    mov     x29, xzr
    mov     x30, xzr
    bl      secondary_cpu_entry
    b       6b

    // A Raspberry Pi with a configuration for 32 bits executes the image in AArch32 state. This is A32 code that says
    // so on both UARTs (BCM2711 ARM Peripherals, 2.2 and 11.5), and stays: there is no way to AArch64 from here.
aarch32:
    .long   0xee101f10              // r1 = MIDR
    .long   0xe7eb1251              // its part number
    .long   0xe3002d08              // of a Cortex-A72,
    .long   0xe1510002              // and so of a Raspberry Pi 4:
    .long   0xe3a0443f              // r4 = 0x3f00_0000, peripherals
    .long   0x03a044fe              // or 0xfe00_0000
    .long   0xe2844602              // GPIO and PL011: 0x20_0000
    .long   0xe2845a15              // r5 = 0x1_5000 behind: auxiliaries
    .long   0xe2855040              // 0x40 behind: mini UART
    .long   0xe2844a01              // r4 = 0x1000 behind: PL011
    .long   0xe28f6040              // r6 = the message
    .long   0xe4d60001              // 1: r0 = the next byte
    .long   0xe3500000
    .long   0x0afffffe              // 2: its end: stay here
    .long   0xe3a03701              // r3 = how often to ask
    .long   0xe5942018              // 3: UARTFR
    .long   0xe2122020              // TXFF?
    .long   0x12533001              // then once more
    .long   0x1afffffb              // b.ne 3b
    .long   0xe5840000              // UARTDR = r0
    .long   0xe3a03701
    .long   0xe5952014              // 4: AUX_MU_LSR_REG
    .long   0xe3120020              // room?
    .long   0x1a000001              // b.ne 5f
    .long   0xe2533001              // else once more
    .long   0x1afffffa              // b.ne 4b
    .long   0xe5850000              // 5: AUX_MU_IO_REG = r0
    .long   0xeaffffee              // b 1b
    .asciz  "\r\ntrapeze: error: started in 32-bit state: in config.txt say arm_64bit=1\r\n"
    .balign 4
    .ltorg
    "#,
    // HCR_EL2: RW, and AMO, IMO and FMO: `find_work` waits by WFI for what comes to EL2, before the first guest as well
    // (Arm ARM DDI 0487K.a, HCR_EL2.IMO: without it a physical IRQ is EL1's, and pends while the CPU is at EL2).
    hcr = const 0x8000_0038_u32,
    // SCTLR_EL2 with its RES1 bits and nothing else: MMU and caches off (Arm ARM DDI 0487K.a, D24.2.131).
    sctlr_off = const 0x30c5_0830_u32,
    link_base = const 0x4020_0000_u32,
    area_bytes = const AREA_BYTES,
    affinity = const core::mem::offset_of!(SecondaryBlock, affinity),
    mair = const core::mem::offset_of!(SecondaryBlock, mair_el2),
    tcr = const core::mem::offset_of!(SecondaryBlock, tcr_el2),
    ttbr0 = const core::mem::offset_of!(SecondaryBlock, ttbr0_el2),
    sctlr = const core::mem::offset_of!(SecondaryBlock, sctlr_el2),
    stack = const core::mem::offset_of!(SecondaryBlock, stack_top),
    number = const core::mem::offset_of!(SecondaryBlock, number),
    monitor = const core::mem::offset_of!(SecondaryBlock, monitor),
);

/// What a starting CPU reads with its MMU off.
#[repr(C, align(64))]
pub struct SecondaryBlock {
    /// Whom the block is for: the affinity fields of MPIDR_EL1. A CPU that finds another number stays out.
    pub affinity: u64,
    /// MAIR_EL2 of the boot CPU.
    pub mair_el2: u64,
    /// TCR_EL2 of the boot CPU.
    pub tcr_el2: u64,
    /// TTBR0_EL2 of the boot CPU: EL2 has one map.
    pub ttbr0_el2: u64,
    /// SCTLR_EL2 with MMU and caches on.
    pub sctlr_el2: u64,
    /// First address above the CPU's stack.
    pub stack_top: u64,
    /// The CPU's number.
    pub number: u64,
    /// Address of what all CPUs share.
    pub monitor: u64,
}

// Reset of the boot CPU and of each further one, at EL1 with the MMU off.

.section .text.head, "ax"
.global _start
_start:                             // arm64 Linux Image header (Documentation/arch/arm64/booting.rst)
    b       reset
    .word   0
    .quad   0x80000                 // text_offset from the base of RAM
    .quad   image_size              // tables and stacks included
    .quad   0b1010                  // little-endian, 4 KiB pages, anywhere in RAM
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .word   0

reset:                              // x0 = device tree
    mov     x19, #0
    mov     x20, x0
    mrs     x21, SCTLR_EL1          // as the machine gave them
    mrs     x22, DAIF
    mrs     x23, CurrentEL

    // RELR: an even word is the address of a word to move, an odd one says bit by bit which of the next 63 move.
    adrp    x1, relr_start
    add     x1, x1, :lo12:relr_start
    adrp    x2, relr_end
    add     x2, x2, :lo12:relr_end
    adr     x3, _start              // linked at 0
1:  cmp     x1, x2
    b.hs    6f
    ldr     x4, [x1], #8
    tbnz    x4, #0, 2f
    add     x5, x4, x3
    ldr     x6, [x5]
    add     x6, x6, x3
    str     x6, [x5], #8            // x5: the word behind it
    b       1b
2:  mov     x7, x5
3:  lsr     x4, x4, #1
    cbz     x4, 5f
    tbz     x4, #0, 4f
    ldr     x6, [x7]
    add     x6, x6, x3
    str     x6, [x7]
4:  add     x7, x7, #8
    b       3b
5:  add     x5, x5, #(63 * 8)
    b       1b
6:
    adrp    x1, bss_start
    add     x1, x1, :lo12:bss_start
    adrp    x2, bss_end
    add     x2, x2, :lo12:bss_end
7:  cmp     x1, x2
    b.hs    enter
    stp     xzr, xzr, [x1], #16
    b       7b

.global kit_secondary_start
kit_secondary_start:                // x0 = context ID of CPU_ON, whose low 3 bits are the CPU's slot, 1 to 7
    and     x19, x0, #7
    mov     x20, x0
    mrs     x21, SCTLR_EL1
    mrs     x22, DAIF
    mrs     x23, CurrentEL

enter:                              // x19 = slot, x20 = x0, x21 to x23 = SCTLR_EL1, DAIF, CurrentEL
    msr     DAIFSet, #0xf
    msr     SPSel, #1
    adrp    x1, kit_vectors
    add     x1, x1, :lo12:kit_vectors
    msr     VBAR_EL1, x1
    mov     x1, #(3 << 20)          // FP and SIMD without a trap
    msr     CPACR_EL1, x1
    adrp    x1, stacks_start
    add     x1, x1, :lo12:stacks_start
    add     x2, x19, #1
    add     x1, x1, x2, lsl #15
    mov     sp, x1
    adrp    x24, kit_cpus
    add     x24, x24, :lo12:kit_cpus
    add     x24, x24, x19, lsl #{CPU_LOG2}
    stp     x20, x21, [x24, #0]     // Cpu::entry_x0, entry_sctlr
    stp     x22, x23, [x24, #16]    // entry_daif, entry_el
    ldr     x1, ={SCTLR_OFF}
    cbz     x19, 1f
    ldp     x2, x3, [x24, #32]      // regime: MAIR, TCR, TTBR0, SCTLR
    ldp     x4, x1, [x24, #48]
    msr     MAIR_EL1, x2
    msr     TCR_EL1, x3
    msr     TTBR0_EL1, x4
    isb
    tlbi    vmalle1
    ic      iallu
    dsb     nsh
1:  isb
    msr     SCTLR_EL1, x1
    isb
    mov     x29, #0
    mov     x30, #0
    mov     x0, x20
    cbz     x19, 2f
    mov     x0, x19
    bl      kit_secondary
2:  bl      kit_primary
    .ltorg

"""Arm's numbers in words: syndromes, saved program states and stage-2 tables. Knows nothing of gdb; plain functions.

Follows the Arm ARM, DDI 0487K.a: D24.2 (ESR_ELx, HPFAR_EL2, FAR_EL2, SPSR_ELx, VTCR_EL2), D8.3 (descriptors).
"""

import struct

# --- exception classes ----------------------------------------------------------------------------------------------

# EC, name for `trap-break`, words. In the manual's order.
CLASSES = (
    (0x00, "unknown", "unknown reason"),
    (0x01, "wfx", "trapped WFI or WFE"),
    (0x03, "cp15", "trapped AArch32 MCR or MRC (coproc 15)"),
    (0x04, "cp15-64", "trapped AArch32 MCRR or MRRC (coproc 15)"),
    (0x05, "cp14", "trapped AArch32 MCR or MRC (coproc 14)"),
    (0x06, "ldc", "trapped AArch32 LDC or STC"),
    (0x07, "fp", "access to SIMD or floating point"),
    (0x08, "vmrs", "trapped AArch32 VMRS"),
    (0x09, "pauth", "pointer authentication instruction or key"),
    (0x0A, "ls64", "trapped LD64B or ST64B"),
    (0x0C, "cp14-64", "trapped AArch32 MRRC (coproc 14)"),
    (0x0D, "bti", "branch target exception"),
    (0x0E, "illegal-state", "illegal execution state"),
    (0x11, "svc32", "SVC from AArch32"),
    (0x12, "hvc32", "HVC from AArch32"),
    (0x13, "smc32", "SMC from AArch32"),
    (0x14, "sysreg128", "trapped MSRR, MRRS or 128-bit SYS"),
    (0x15, "svc", "SVC"),
    (0x16, "hvc", "HVC"),
    (0x17, "smc", "SMC"),
    (0x18, "sysreg", "trapped MSR, MRS or SYS"),
    (0x19, "sve", "access to SVE"),
    (0x1A, "eret", "trapped ERET"),
    (0x1C, "pauth-fail", "pointer authentication failure"),
    (0x1D, "sme", "access to SME"),
    (0x20, "instruction-abort", "instruction abort from a lower EL"),
    (0x21, "instruction-abort-el2", "instruction abort at EL2"),
    (0x22, "pc-alignment", "PC alignment fault"),
    (0x24, "data-abort", "data abort from a lower EL"),
    (0x25, "data-abort-el2", "data abort at EL2"),
    (0x26, "sp-alignment", "SP alignment fault"),
    (0x27, "mops", "memory copy or set exception"),
    (0x28, "fp32", "floating-point exception from AArch32"),
    (0x2C, "fp-exception", "floating-point exception"),
    (0x2D, "gcs", "guarded control stack exception"),
    (0x2F, "serror-syndrome", "SError"),
    (0x30, "breakpoint", "hardware breakpoint in a lower EL"),
    (0x31, "breakpoint-el2", "hardware breakpoint at EL2"),
    (0x32, "step", "software step in a lower EL"),
    (0x33, "step-el2", "software step at EL2"),
    (0x34, "watchpoint", "watchpoint in a lower EL"),
    (0x35, "watchpoint-el2", "watchpoint at EL2"),
    (0x38, "bkpt32", "BKPT from AArch32"),
    (0x3A, "vector-catch", "vector catch from AArch32"),
    (0x3C, "brk", "BRK"),
)
WORDS = {ec: words for ec, _, words in CLASSES}
BY_NAME = {name: ec for ec, name, _ in CLASSES}
# Classes that are vectors of their own, not values of EC.
VECTORS = {"irq": "vector_lower_irq", "fiq": "vector_lower_fiq", "serror": "vector_lower_serror"}
SYNCHRONOUS = "vector_lower_sync"
INSTRUCTION_ABORT, DATA_ABORT = (0x20, 0x21), (0x24, 0x25)

FAULTS = {
    0b0000: "address size fault", 0b0001: "translation fault", 0b0010: "access flag fault", 0b0011: "permission fault",
}
OTHER_FAULTS = {
    0b010000: "synchronous external abort", 0b010001: "synchronous tag check fault",
    0b010010: "external abort on a table walk, level -2", 0b010011: "external abort on a table walk, level -1",
    0b101001: "address size fault, level -1", 0b101011: "translation fault, level -1",
    0b100001: "alignment fault", 0b110000: "TLB conflict abort", 0b110001: "unsupported atomic hardware update",
    0b110100: "lockdown fault", 0b110101: "unsupported exclusive or atomic access",
}

# (op0, op1, CRn, CRm, op2): the system registers that a hypervisor meets most.
SYSTEM_REGISTERS = {
    (3, 0, 0, 0, 0): "MIDR_EL1", (3, 0, 0, 0, 5): "MPIDR_EL1", (3, 0, 0, 0, 6): "REVIDR_EL1",
    (3, 0, 0, 4, 0): "ID_AA64PFR0_EL1", (3, 0, 0, 4, 1): "ID_AA64PFR1_EL1", (3, 0, 0, 4, 4): "ID_AA64ZFR0_EL1",
    (3, 0, 0, 4, 5): "ID_AA64SMFR0_EL1", (3, 0, 0, 5, 0): "ID_AA64DFR0_EL1", (3, 0, 0, 5, 1): "ID_AA64DFR1_EL1",
    (3, 0, 0, 6, 0): "ID_AA64ISAR0_EL1", (3, 0, 0, 6, 1): "ID_AA64ISAR1_EL1", (3, 0, 0, 6, 2): "ID_AA64ISAR2_EL1",
    (3, 0, 0, 7, 0): "ID_AA64MMFR0_EL1", (3, 0, 0, 7, 1): "ID_AA64MMFR1_EL1", (3, 0, 0, 7, 2): "ID_AA64MMFR2_EL1",
    (3, 0, 0, 7, 3): "ID_AA64MMFR3_EL1", (3, 0, 0, 7, 4): "ID_AA64MMFR4_EL1",
    (3, 0, 1, 0, 0): "SCTLR_EL1", (3, 0, 1, 0, 1): "ACTLR_EL1", (3, 0, 1, 0, 2): "CPACR_EL1",
    (3, 0, 2, 0, 0): "TTBR0_EL1", (3, 0, 2, 0, 1): "TTBR1_EL1", (3, 0, 2, 0, 2): "TCR_EL1",
    (3, 0, 4, 6, 0): "ICC_PMR_EL1", (3, 0, 12, 8, 0): "ICC_IAR0_EL1", (3, 0, 12, 8, 1): "ICC_EOIR0_EL1",
    (3, 0, 12, 11, 1): "ICC_DIR_EL1", (3, 0, 12, 11, 5): "ICC_SGI1R_EL1", (3, 0, 12, 11, 6): "ICC_ASGI1R_EL1",
    (3, 0, 12, 11, 7): "ICC_SGI0R_EL1", (3, 0, 12, 12, 0): "ICC_IAR1_EL1", (3, 0, 12, 12, 1): "ICC_EOIR1_EL1",
    (3, 0, 12, 12, 4): "ICC_CTLR_EL1", (3, 0, 12, 12, 5): "ICC_SRE_EL1", (3, 0, 12, 12, 7): "ICC_IGRPEN1_EL1",
    (3, 0, 9, 14, 1): "PMINTENSET_EL1", (3, 0, 9, 14, 2): "PMINTENCLR_EL1", (3, 3, 9, 12, 0): "PMCR_EL0",
    (3, 3, 9, 13, 0): "PMCCNTR_EL0", (3, 3, 9, 14, 0): "PMUSERENR_EL0", (3, 3, 14, 15, 7): "PMCCFILTR_EL0",
    (3, 3, 0, 0, 1): "CTR_EL0", (3, 3, 14, 0, 0): "CNTFRQ_EL0", (3, 3, 14, 0, 1): "CNTPCT_EL0",
    (3, 3, 14, 0, 2): "CNTVCT_EL0", (3, 3, 14, 2, 0): "CNTP_TVAL_EL0", (3, 3, 14, 2, 1): "CNTP_CTL_EL0",
    (3, 3, 14, 2, 2): "CNTP_CVAL_EL0", (3, 3, 14, 3, 1): "CNTV_CTL_EL0", (3, 3, 14, 3, 2): "CNTV_CVAL_EL0",
    (2, 0, 0, 2, 2): "MDSCR_EL1", (2, 0, 1, 0, 4): "OSLAR_EL1", (2, 0, 1, 1, 4): "OSLSR_EL1",
    (2, 0, 1, 3, 4): "OSDLR_EL1", (2, 3, 0, 1, 0): "MDCCSR_EL0",
    (1, 0, 7, 6, 2): "DC ISW", (1, 0, 7, 10, 2): "DC CSW", (1, 0, 7, 14, 2): "DC CISW",
}


def bits(value: int, high: int, low: int) -> int:
    """Returns bits [high:low] of `value`."""
    return value >> low & ((1 << (high - low + 1)) - 1)


def register(number: int) -> str:
    """Names general-purpose register `number`; 31 is XZR."""
    return "XZR" if number == 31 else f"X{number}"


def fault_status(code: int) -> str:
    """Says what a DFSC or IFSC means."""
    if code in OTHER_FAULTS:
        return OTHER_FAULTS[code]
    if code >> 2 in FAULTS:
        return f"{FAULTS[code >> 2]}, level {code & 3}"
    if code >> 2 == 0b0101:
        return f"external abort on a table walk, level {code & 3}"
    return f"fault status {code:#08b}"


def data_abort(iss: int) -> list[str]:
    """Says what access a data abort was, as far as the syndrome knows."""
    words = [fault_status(bits(iss, 5, 0)), "write" if bits(iss, 6, 6) else "read"]
    if bits(iss, 7, 7):
        words.append("by the stage 1 table walk")
    if bits(iss, 8, 8):
        words.append("cache maintenance or address translation")
    if bits(iss, 10, 10):
        words.append("FAR not valid")
    if bits(iss, 24, 24):
        size = 8 << bits(iss, 23, 22)
        extended = "sign-extended, " if bits(iss, 21, 21) else ""
        words.append(f"{size}-bit, {extended}{'X' if bits(iss, 15, 15) else 'W'} register {register(bits(iss, 20, 16))}")
    else:
        words.append("no instruction syndrome (ISV 0)")
    return words


def instruction_abort(iss: int) -> list[str]:
    """Says what an instruction abort was."""
    return [fault_status(bits(iss, 5, 0))] + (["by the stage 1 table walk"] if bits(iss, 7, 7) else [])


def system_register(iss: int) -> list[str]:
    """Names the register (or instruction) and the direction of a trapped access."""
    key = (bits(iss, 21, 20), bits(iss, 16, 14), bits(iss, 13, 10), bits(iss, 4, 1), bits(iss, 19, 17))
    name = SYSTEM_REGISTERS.get(key, "S{}_{}_C{}_C{}_{}".format(*key))
    target = register(bits(iss, 9, 5))
    return [f"{target} <- {name}" if bits(iss, 0, 0) else f"{name} <- {target}"]


ISS = {
    0x01: lambda iss: [("WFI", "WFE", "WFIT", "WFET")[bits(iss, 1, 0)]],
    0x16: lambda iss: [f"immediate {bits(iss, 15, 0):#x}"],
    0x17: lambda iss: [f"immediate {bits(iss, 15, 0):#x}"],
    0x18: system_register,
    0x20: instruction_abort,
    0x21: instruction_abort,
    0x24: data_abort,
    0x25: data_abort,
    0x3C: lambda iss: [f"immediate {bits(iss, 15, 0):#x}"],
}


def exception_class(esr: int) -> int:
    """Returns ESR_ELx.EC."""
    return bits(esr, 31, 26)


def syndrome(esr: int) -> str:
    """Says an ESR_ELx in words."""
    ec, iss = exception_class(esr), bits(esr, 24, 0)
    words = [WORDS.get(ec, f"reserved exception class {ec:#x}")]
    words += ISS[ec](iss) if ec in ISS else [f"ISS {iss:#x}"]
    return ", ".join(words)


def faulting_ipa(hpfar: int, far: int) -> int:
    """Returns the IPA of a stage 2 fault: the page of HPFAR_EL2 and the offset in it of FAR_EL2."""
    return bits(hpfar, 43, 4) << 12 | far & 0xFFF


def reports_ipa(esr: int) -> bool:
    """Says whether HPFAR_EL2 holds for this syndrome: an abort from a lower EL that is not a stage 1 permission's."""
    if exception_class(esr) not in (INSTRUCTION_ABORT[0], DATA_ABORT[0]):
        return False
    status = bits(esr, 5, 0)
    return status >> 2 in (0b0000, 0b0001, 0b0010) or (status >> 2 == 0b0011 and bool(bits(esr, 7, 7)))


MODES = {0b0000: "EL0t", 0b0100: "EL1t", 0b0101: "EL1h", 0b1000: "EL2t", 0b1001: "EL2h"}


def program_state(spsr: int) -> str:
    """Says an SPSR_ELx (or PSTATE) in words."""
    if bits(spsr, 4, 4):
        mode = f"AArch32 mode {bits(spsr, 4, 0):#x}"
    else:
        mode = MODES.get(bits(spsr, 3, 0), f"illegal mode {bits(spsr, 3, 0):#x}")
    flags = "".join(name if spsr >> bit & 1 else name.lower() for name, bit in zip("NZCV", (31, 30, 29, 28)))
    masked = "".join(name for name, bit in zip("DAIF", (9, 8, 7, 6)) if spsr >> bit & 1) or "none"
    more = "".join(f", {name}" for name, bit in (("PAN", 22), ("UAO", 23), ("SS", 21), ("IL", 20)) if spsr >> bit & 1)
    return f"{mode}, {flags}, masked: {masked}{more}"


# --- stage 2 --------------------------------------------------------------------------------------------------------

GRANULES = {0b00: 12, 0b01: 16, 0b10: 14}
# VTCR_EL2.SL0 -> level of the first look-up, by granule (LPA2 and SL2 not covered).
FIRST_LEVEL = {12: {0: 2, 1: 1, 2: 0, 3: 3}, 14: {0: 3, 1: 2, 2: 1, 3: 0}, 16: {0: 3, 1: 2, 2: 1}}
ACCESS = ("no access", "read-only", "write-only", "read-write")
EXECUTE = ("executable", "executable at EL0 only", "not executable", "executable at EL1 only")
SHARE = ("non-shareable", "reserved shareability", "outer shareable", "inner shareable")
DEVICE = ("Device-nGnRnE", "Device-nGnRE", "Device-nGRE", "Device-GRE")
CACHE = (None, "non-cacheable", "write-through", "write-back")


def memory_type(attributes: int) -> str:
    """Says stage 2 MemAttr[3:0] in words, HCR_EL2.FWB being 0."""
    outer, inner = bits(attributes, 3, 2), bits(attributes, 1, 0)
    if outer == 0:
        return DEVICE[inner]
    if CACHE[inner] is None:
        return f"reserved memory type {attributes:#06b}"
    return f"Normal {CACHE[inner]}" if outer == inner else f"Normal {CACHE[outer]} outer, {CACHE[inner]} inner"


def leaf(descriptor: int) -> str:
    """Says the attributes of a block or page in words."""
    flags = "" if bits(descriptor, 10, 10) else ", access flag clear"
    flags += ", contiguous" if bits(descriptor, 52, 52) else ""
    return ", ".join((ACCESS[bits(descriptor, 7, 6)], EXECUTE[bits(descriptor, 54, 53)],
                      memory_type(bits(descriptor, 5, 2)), SHARE[bits(descriptor, 9, 8)])) + flags


def size_words(size_log2: int) -> str:
    """Writes a power of two bytes as 4 KiB, 2 MiB, 1 GiB."""
    unit = min(size_log2 // 10, 4)
    return f"{1 << size_log2 - 10 * unit} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[unit]}"


def walk(ipa: int, vttbr: int, vtcr: int, read64) -> list[str]:
    """Walks the stage 2 table for `ipa` and says each step; `read64(pa)` reads 8 bytes of physical memory."""
    granule, size = GRANULES.get(bits(vtcr, 15, 14)), 64 - bits(vtcr, 5, 0)
    level = FIRST_LEVEL.get(granule, {}).get(bits(vtcr, 7, 6))
    if granule is None or level is None:
        return [f"VTCR_EL2 {vtcr:#x}: reserved granule or first level"]
    lines = [f"VMID {bits(vttbr, 63, 48)}, {size}-bit IPA, {size_words(granule)} granule, from level {level}"]
    if ipa >> size:
        return lines + [f"IPA {ipa:#x} is outside the IPA space: translation fault, level 0"]
    table, stride = bits(vttbr, 47, 1) << 1, granule - 3
    top = size  # the first look-up also resolves what concatenated tables add
    while True:
        shift = granule + stride * (3 - level)
        index = bits(ipa, top - 1, shift)
        place = table + 8 * index
        descriptor = read64(place)
        prefix = f"level {level} [{index}] at {place:#x} = {descriptor:#018x}: "
        if not descriptor & 1 or (level == 3 and not descriptor & 2):
            return lines + [prefix + "invalid", f"IPA {ipa:#x} is not mapped: translation fault, level {level}"]
        output = descriptor & ((1 << 48) - (1 << granule))
        if level == 3 or not descriptor & 2:
            output &= -1 << shift
            kind = "page" if level == 3 else "block"
            return lines + [f"{prefix}{size_words(shift)} {kind} at {output:#x}, {leaf(descriptor)}",
                            f"IPA {ipa:#x} is PA {output | ipa & ((1 << shift) - 1):#x}"]
        lines.append(f"{prefix}table at {output:#x}")
        table, top, level = output, shift, level + 1


# --- where the image is ---------------------------------------------------------------------------------------------

PT_LOAD = 1


def load_address(header: bytes, ram_base: int = 0x4000_0000) -> int:
    """Returns where QEMU's virt board loads a raw image with this arm64 Image header (its first 64 bytes)."""
    if header[56:60] != b"ARM\x64":
        return ram_base + 0x8_0000
    text_offset, image_size = struct.unpack_from("<QQ", header, 8)
    if image_size == 0:
        return ram_base + 0x8_0000
    # Below 4 KiB QEMU's own boot code would be in the way: it moves such an image up by 2 MiB.
    return ram_base + text_offset + (0x20_0000 if text_offset < 0x1000 else 0)


def link_address(elf: bytes) -> int:
    """Returns the lowest address that an ELF file is linked for."""
    offset, size, count = struct.unpack_from("<Q", elf, 32) + struct.unpack_from("<HH", elf, 54)
    headers = (struct.unpack_from("<IIQQ", elf, offset + number * size) for number in range(count))
    return min(address for kind, _, _, address in headers if kind == PT_LOAD)

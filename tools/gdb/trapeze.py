"""gdb commands for Trapeze; docs/gdb.md is their page, decode.py says what the numbers mean.

The hypervisor maps itself where it was loaded, so its symbols are moved there; a guest's addresses are its own.
"""

import struct
import sys
from pathlib import Path

import gdb

ROOT = Path(__file__).resolve().parent.parent.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "tools" / "gdb"))
import decode  # noqa: E402 # pylint: disable=wrong-import-position

TARGET = "aarch64-unknown-none-softfloat"
IMAGE = ROOT / "target" / "trapeze.img"
ELF = ROOT / "target" / TARGET / "release" / "trapeze"
# Left by `make debug` when the guest is one of ours; linked at 0, loaded at the text_offset of its header.
GUEST_IMAGE = ROOT / "target" / "hello.img"
GUEST_ELF = ROOT / "target" / "run" / "guest.elf"

# The type that TPIDR_EL2 points to, and that of its `guest`, where there is one.
PER_CPU_TYPE = "trapeze::arch::percpu::Pcpu"
GUEST_TYPE = "trapeze::arch::percpu::Guest"

EL1_REGISTERS = ("ELR_EL1", "SPSR_EL1", "ESR_EL1", "FAR_EL1", "SP_EL0", "SP_EL1", "SCTLR", "TCR_EL1", "TTBR0_EL1",
                 "TTBR1_EL1", "MAIR_EL1", "VBAR", "TPIDR_EL0", "TPIDR_EL1", "CNTV_CTL_EL0", "CNTV_CVAL_EL0",
                 "CNTVOFF_EL2")


def read_register(name: str) -> int:
    """Returns a register's value without sign."""
    return int(gdb.parse_and_eval(f"${name}")) & (1 << 64) - 1


def exception_level() -> int:
    """Returns the exception level that the selected CPU is at."""
    return decode.bits(read_register("cpsr"), 3, 2)


def address_of(symbol: str) -> int:
    """Returns the address of a label in the image."""
    try:
        return int(gdb.parse_and_eval(f"(unsigned long)&{symbol}"))
    except gdb.error as error:
        raise gdb.GdbError(f"no symbol {symbol} in the image: {error}") from None


def is_at_vector() -> bool:
    """Says whether the CPU stands at an entry from the guest: its general-purpose registers are still the guest's."""
    pc = read_register("pc")
    for symbol in (decode.SYNCHRONOUS, *decode.VECTORS.values()):
        try:
            if address_of(symbol) == pc:
                return True
        except gdb.GdbError:
            continue
    return False


def read_physical(address: int) -> int:
    """Returns the 64-bit little-endian word at a physical address; QEMU's stub does the reading."""
    gdb.execute("maintenance packet Qqemu.PhyMemMode:1", to_string=True)
    gdb.execute("maintenance flush dcache", to_string=True)
    try:
        return struct.unpack("<Q", bytes(gdb.selected_inferior().read_memory(address, 8)))[0]
    finally:
        gdb.execute("maintenance packet Qqemu.PhyMemMode:0", to_string=True)
        gdb.execute("maintenance flush dcache", to_string=True)


class Attach(gdb.Command):
    """trapeze-attach [PORT]: connect to `make debug` (1234) with the symbols of the hypervisor and of a guest of ours."""

    def __init__(self):
        super().__init__("trapeze-attach", gdb.COMMAND_RUNNING)

    def invoke(self, argument, from_tty):
        for setting in ("architecture aarch64", "confirm off", "pagination off", "print pretty on"):
            gdb.execute(f"set {setting}", to_string=True)
        base = decode.load_address(IMAGE.read_bytes()[:64])
        gdb.execute(f"exec-file {ELF}", to_string=True)
        gdb.execute(f"symbol-file -o {base - decode.link_address(ELF.read_bytes()):#x} {ELF}", to_string=True)
        if GUEST_ELF.exists():
            guest = decode.load_address(GUEST_IMAGE.read_bytes()[:64])
            gdb.execute(f"add-symbol-file {GUEST_ELF} -o {guest:#x}", to_string=True)
        gdb.execute(f"target remote 127.0.0.1:{argument or '1234'}")
        print(f"Trapeze at {base:#x}. Commands: trap-break CLASS, trap-decode, vcpu, stage2 IPA.")


class TrapDecode(gdb.Command):
    """trap-decode: say in words why this CPU came to EL2, from ESR_EL2, HPFAR_EL2, FAR_EL2, ELR_EL2 and SPSR_EL2."""

    def __init__(self):
        super().__init__("trap-decode", gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        esr, hpfar, far = (read_register(name) for name in ("ESR_EL2", "HPFAR_EL2", "FAR_EL2"))
        print(f"ESR_EL2   {esr:#018x}  {decode.syndrome(esr)}")
        if decode.reports_ipa(esr):
            print(f"HPFAR_EL2 {hpfar:#018x}  IPA {decode.faulting_ipa(hpfar, far):#x}")
        elif decode.exception_class(esr) in decode.DATA_ABORT + decode.INSTRUCTION_ABORT:
            print(f"HPFAR_EL2 {hpfar:#018x}  not valid for this fault")
        if decode.exception_class(esr) in decode.DATA_ABORT + decode.INSTRUCTION_ABORT:
            print(f"FAR_EL2   {far:#018x}  the address it used")
        spsr = read_register("SPSR_EL2")
        print(f"ELR_EL2   {read_register('ELR_EL2'):#018x}  where it was")
        print(f"SPSR_EL2  {spsr:#018x}  {decode.program_state(spsr)}")


class ClassBreakpoint(gdb.Breakpoint):
    """A hardware breakpoint on a vector that stops for one exception class only."""

    def __init__(self, vector: str, exception_class: int | None):
        super().__init__(f"*{address_of(vector):#x}", gdb.BP_HARDWARE_BREAKPOINT)
        self.exception_class = exception_class

    def stop(self):
        if self.exception_class is None:
            return True
        return decode.exception_class(read_register("ESR_EL2")) == self.exception_class


class TrapBreak(gdb.Command):
    """trap-break CLASS: stop at EL2 when a guest's exception of this class arrives; without CLASS, list the classes."""

    def __init__(self):
        super().__init__("trap-break", gdb.COMMAND_BREAKPOINTS)

    def invoke(self, argument, from_tty):
        name = argument.strip()
        if name in decode.VECTORS:
            ClassBreakpoint(decode.VECTORS[name], None)
        elif name == "any":
            ClassBreakpoint(decode.SYNCHRONOUS, None)
        elif name in decode.BY_NAME:
            ClassBreakpoint(decode.SYNCHRONOUS, decode.BY_NAME[name])
        else:
            known = " ".join(["any", *decode.BY_NAME, *decode.VECTORS])
            raise gdb.GdbError((f"no class {name}; " if name else "") + f"the classes are: {known}")

    def complete(self, text, word):
        return [name for name in ("any", *decode.BY_NAME, *decode.VECTORS) if name.startswith(text)]


class Vcpu(gdb.Command):
    """vcpu: print the registers of the vCPU that this CPU runs."""

    def __init__(self):
        super().__init__("vcpu", gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        if exception_level() < 2:
            print(f"At EL{exception_level()}: the registers are the guest's.")
            self.live("pc", "cpsr")
        elif is_at_vector():
            print("At the vector: the registers are still the guest's.")
            self.live("ELR_EL2", "SPSR_EL2")
        else:
            self.saved()

    def live(self, pc: str, state: str):
        """Prints what the CPU holds; `pc` and `state` name where the guest's own PC and PSTATE are."""
        print(f"PC {read_register(pc):#018x}  PSTATE {decode.program_state(read_register(state))}")
        names = [f"x{n}" for n in range(31)]
        self.columns([(name.upper(), read_register(name)) for name in names], 4)
        self.columns([(name, read_register(name)) for name in EL1_REGISTERS], 2)

    @staticmethod
    def columns(pairs, count: int):
        """Prints name and value pairs, `count` to a line."""
        width = max(len(name) for name, _ in pairs)
        cells = [f"{name:<{width}} {value:#018x}" for name, value in pairs]
        for start in range(0, len(cells), count):
            print("  ".join(cells[start:start + count]))

    def saved(self):
        """Prints the vCPU's registers as the hypervisor keeps them, reached through TPIDR_EL2; EL1's are in the CPU."""
        try:
            cpu = gdb.Value(read_register("TPIDR_EL2")).cast(gdb.lookup_type(PER_CPU_TYPE).pointer())
            guest = cpu.dereference()["guest"]
            if str(guest).endswith("None"):
                print("No vCPU: this CPU waits for one.")
                return
            vcpu = guest.address.cast(gdb.lookup_type(GUEST_TYPE).pointer())["vcpu"].dereference()
            frame = vcpu["frame"]
            number = int(vcpu["id"]["__0"])
            print(f"vCPU {number}, saved at its exit. PC {int(frame['pc']):#018x}  "
                  f"PSTATE {decode.program_state(int(frame['pstate']))}")
            self.columns([(f"X{n}", int(frame["x"][n])) for n in range(31)], 4)
            self.columns([(name, read_register(name)) for name in EL1_REGISTERS], 2)
        except gdb.error as error:
            raise gdb.GdbError(f"cannot read the saved vCPU ({error}); it is in the registers after trap-break") from None


class Stage2(gdb.Command):
    """stage2 IPA: walk the stage 2 table that this CPU has set up, and say each step in words."""

    def __init__(self):
        super().__init__("stage2", gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        if not argument.strip():
            raise gdb.GdbError("stage2 IPA: give an intermediate physical address, such as 0x40000000")
        ipa = int(gdb.parse_and_eval(argument)) & (1 << 64) - 1
        for line in decode.walk(ipa, read_register("VTTBR_EL2"), read_register("VTCR_EL2"), read_physical):
            print(line)


for command in (Attach, TrapDecode, TrapBreak, Vcpu, Stage2):
    command()

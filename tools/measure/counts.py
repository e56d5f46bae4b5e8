"""What tools/plugin counted in a run, read back and named.

Not measuring: arithmetic on lines of JSON. docs/bench.md has the format.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from gdb import decode

PAGE_BYTES = 4096
WRITE = 1 << 63
SYSTEM_REGISTER, DATA_ABORT, INSTRUCTION_ABORT, CALLS = 0x18, 0x24, 0x20, (0x16, 0x17)

# Vectors of "lower EL": four for AArch64, then four for AArch32; the first of each is synchronous.
ASYNCHRONOUS = {1: "interrupt", 2: "FIQ", 3: "SError"}

# (first, last, name) of what the VM's devices occupy, and the arrays of the distributor.
DEVICES = ((0x0800_0000, 0x0800_FFFF, "GICD"), (0x0801_0000, 0x0801_FFFF, "GICC"), (0x080A_0000, 0x08FF_FFFF, "GICR"),
           (0x0900_0000, 0x0900_0FFF, "PL011"))
GICD_ARRAYS = ((0x080, 0x0FF, "IGROUPR"), (0x100, 0x17F, "ISENABLER"), (0x180, 0x1FF, "ICENABLER"),
               (0x200, 0x27F, "ISPENDR"), (0x280, 0x2FF, "ICPENDR"), (0x300, 0x37F, "ISACTIVER"),
               (0x380, 0x3FF, "ICACTIVER"), (0x400, 0x7FF, "IPRIORITYR"), (0x800, 0xBFF, "ITARGETSR"),
               (0xC00, 0xCFF, "ICFGR"), (0x6000, 0x7FFF, "IROUTER"))


@dataclass(frozen=True)
class Start:
    """How the guest was started: its first instruction, and the device tree that X0 pointed to."""

    pc: int
    x0: int
    tree: bytes


@dataclass(frozen=True)
class Counts:
    """The lines of one run, by kind."""

    lines: list[dict]

    @classmethod
    def read(cls, path: Path) -> "Counts":
        """Reads what the plugin wrote; a file that was cut off is an error."""
        lines = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
        if not lines or lines[-1]["kind"] != "end":
            raise ValueError(f"{path}: does not end in the plugin's last line")
        return cls(lines)

    def of(self, kind: str, **wanted: int) -> list[dict]:
        """Returns the lines of a kind that have the wanted values."""
        return [line for line in self.lines
                if line["kind"] == kind and all(line[key] == value for key, value in wanted.items())]

    def instructions(self, **wanted: int) -> int:
        """Returns how many instructions were executed: of `el`, `section` or `cpu`."""
        return sum(line["count"] for line in self.of("instructions", **wanted))

    @property
    def before_entry(self) -> int:
        """Instructions from reset to the guest's first."""
        return sum(line["count"] for line in self.of("entry"))

    @property
    def after_entry(self) -> int:
        """Instructions from the guest's first, those of EL2 included."""
        return self.instructions() - self.before_entry

    @property
    def start(self) -> Start:
        """How the guest was started."""
        line, = self.of("entry")
        return Start(line["pc"], line["x0"], bytes.fromhex(line["tree"]))

    def exits(self) -> dict[str, Counter]:
        """Returns how often the guest was left, by group and reason."""
        groups: dict[str, Counter] = {}
        for line in self.of("exit"):
            group, reason = named(line)
            groups.setdefault(group, Counter())[reason] += line["count"]
        return dict(sorted(groups.items(), key=lambda item: -item[1].total()))

    @property
    def stored_bytes(self) -> int:
        """Memory in pages that EL2 wrote to and that stage 2 gives to no VM."""
        return sum(line["pages"] for line in self.of("stored", vm=0)) * PAGE_BYTES

    def places(self, section: int | None = None) -> Counter:
        """Returns how often each instruction of EL2 was executed."""
        places: Counter = Counter()
        for line in self.of("place", **({} if section is None else {"section": section})):
            places[line["pc"]] += line["count"]
        return places


def named(exit_line: dict) -> tuple[str, str]:
    """Returns the group and the reason of an exit."""
    if exit_line["vector"] % 4:
        return ASYNCHRONOUS[exit_line["vector"] % 4], ""
    kind, detail = exit_line["class"], exit_line["detail"]
    if kind == SYSTEM_REGISTER:
        return "system register", system_register(detail)
    if kind in (DATA_ABORT, INSTRUCTION_ABORT):
        return access(detail)
    return decode.WORDS.get(kind, f"class {kind:#x}"), f"{detail:#010x}" if kind in CALLS else ""


def system_register(iss: int) -> str:
    """Names a trapped MRS, MSR or SYS (Arm ARM DDI 0487K.a, ISS encoding for EC 0x18)."""
    encoding = (iss >> 20 & 3, iss >> 14 & 7, iss >> 10 & 15, iss >> 1 & 15, iss >> 17 & 7)
    name = decode.SYSTEM_REGISTERS.get(encoding, "S{}_{}_C{}_C{}_{}".format(*encoding))
    return f"{'read' if iss & 1 else 'write'} {name}"


def access(detail: int) -> tuple[str, str]:
    """Names the device and the register of a data abort's IPA; bit 63 of `detail` says that it is a store."""
    verb, address = "write" if detail & WRITE else "read", detail & ~WRITE
    for first, last, name in DEVICES:
        if first <= address <= last:
            offset = address - first
            arrays = GICD_ARRAYS if name == "GICD" else ()
            register = next((array for low, high, array in arrays if low <= offset <= high), f"{offset:#x}")
            return name, f"{verb} {register}"
    return "other memory", f"{verb} {address:#x}"

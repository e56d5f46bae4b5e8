"""Reads what guests/audit prints, and refuses what is incomplete, damaged or of another guest.

Not here: comparing two logs. Format 1: lines that start with `@`, ended by CR LF; other lines on the console are not
ours.
"""

import re
from dataclasses import dataclass, field

from tools.theorem.space import Encoding

FORMAT = 1
FNV_OFFSET, FNV_PRIME = 0xcbf2_9ce4_8422_2325, 0x100_0000_01b3
# Encodings times directions, at each level; writes take several probes.
LEAST_PROBES = 2 << 16

HEADER = re.compile(r"@audit format=(\d+) guest=([0-9a-f]+) midr=([0-9a-f]+) gic=([23])")
PROBES = re.compile(r"@probes el1=(\d+) el0=(\d+)")
END = re.compile(r"@end lines=(\d+) sum=([0-9a-f]+)")
VALUE = r"(?:!?[0-9a-f]+)"
OUTCOME = re.compile(rf"@([01])([RW]) (\d+\.\d+\.\d+\.\d+\.\d+) "
                     rf"(={VALUE}|ok(?: (?:par|pstate)=[0-9a-f]+)?|fill {VALUE} {VALUE} {VALUE} {VALUE}|![0-9a-f]+)")

# (level, direction, encoding)
Access = tuple[int, str, Encoding]


class Refused(Exception):
    """One line: which log, and what is wrong with it."""


@dataclass
class Log:
    """A complete log."""

    guest: str
    midr: int
    gic: int
    probes: tuple[int, int] = (0, 0)
    # What is not here was UNDEFINED. A register that cannot be read is written twice, all zeros and all ones.
    outcomes: dict[Access, tuple[str, ...]] = field(default_factory=dict)


def fnv(data: bytes) -> int:
    """Returns the FNV-1a sum of 64 bits."""
    total = FNV_OFFSET
    for byte in data:
        total = (total ^ byte) * FNV_PRIME & 0xffff_ffff_ffff_ffff
    return total


def read(console: str, whose: str) -> Log:
    """Returns the log in the text of a console; `whose` names it in errors."""
    lines = [line.strip("\r") for line in console.split("\n") if line.startswith("@")]
    if not lines or not (header := HEADER.fullmatch(lines[0])):
        raise Refused(f"{whose}: no header of the audit guest: nothing it printed, or the log of something else")
    if int(header[1]) != FORMAT:
        raise Refused(f"{whose}: format {header[1]}, this is for format {FORMAT}")
    if not (end := END.fullmatch(lines[-1])):
        raise Refused(f"{whose}: incomplete: no line that ends it after {len(lines)} lines, last {lines[-1]!r}")
    if int(end[1]) != len(lines) - 1:
        raise Refused(f"{whose}: incomplete: {len(lines) - 1} lines, {end[1]} were printed")
    if fnv("".join(lines[:-1]).encode()) != int(end[2], 16):
        raise Refused(f"{whose}: damaged: its checksum is another")
    probes = PROBES.fullmatch(lines[-2])
    if not probes or min(int(probes[1]), int(probes[2])) < LEAST_PROBES:
        raise Refused(f"{whose}: not all of the space was probed")
    log = Log(header[2], int(header[3], 16), int(header[4]), (int(probes[1]), int(probes[2])))
    for line in lines[1:-2]:
        match = OUTCOME.fullmatch(line)
        if not match:
            raise Refused(f"{whose}: not an outcome: {line!r}")
        access = (int(match[1]), match[2], Encoding.parse(match[3]))
        log.outcomes[access] = (*log.outcomes.get(access, ()), match[4])
    return log


def comparable(bare: Log, vm: Log, whose: str) -> None:
    """Refuses two logs that are not of the same guest on the same CPU with the same GIC."""
    for what in ("guest", "midr", "gic"):
        ours, theirs = getattr(bare, what), getattr(vm, what)
        if ours != theirs:
            raise Refused(f"{whose}: foreign: {what} is {ours:x} on the bare machine and {theirs:x} in the VM"
                          if what != "guest" else f"{whose}: foreign: built from another guest")

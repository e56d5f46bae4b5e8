"""The system instruction space: encodings, their names, and what kind of register or instruction each is.

Not here: what a machine does with them. Tables: tests/audit/registers.txt and tests/audit/groups.toml; which trap bits
are set: docs/traps.md. Encodings as in Arm ARM DDI 0487K.a, C5.1.2.
"""

import fnmatch
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

DATA = Path("tests/audit")
# Registers of trap bits that docs/traps.md leaves to the vGIC.
GIC_TRAPS = ("ICH_HCR_EL2", "ICC_SRE_EL2")
CLASSES = ("innocuous", "control", "behaviour")


class BadTable(Exception):
    """One line: the table and the entry at fault."""


@dataclass(frozen=True, order=True)
class Encoding:
    """One encoding."""

    op0: int
    op1: int
    crn: int
    crm: int
    op2: int

    @classmethod
    def parse(cls, text: str) -> "Encoding":
        """Reads `3.0.0.0.0`."""
        parts = [int(part) for part in text.split(".")]
        if len(parts) != 5 or any(part >= limit for part, limit in zip(parts, (4, 8, 16, 16, 8))):
            raise BadTable(f"{text}: not op0.op1.CRn.CRm.op2")
        return cls(*parts)

    def __str__(self) -> str:
        return f"{self.op0}.{self.op1}.{self.crn}.{self.crm}.{self.op2}"


@dataclass(frozen=True)
class Group:
    """What registers of one kind are."""

    title: str
    names: list[str]
    read: str
    write: str
    section: str
    banked: str = ""
    # REGISTER.FIELD: the names that it traps.
    traps: dict[str, list[str]] = field(default_factory=dict)
    volatile: bool = False


class Space:
    """The tables."""

    def __init__(self, names: dict[Encoding, str], groups: list[Group]) -> None:
        self.names = names
        self.groups = groups
        self._found: dict[str, Group] = {}

    @classmethod
    def load(cls, data: Path = DATA, traps: Path = Path("docs/traps.md")) -> "Space":
        """Reads and checks the tables."""
        names = {}
        for line in (data / "registers.txt").read_text().splitlines():
            if not line.startswith("#"):
                encoding, _, name = line.partition(" ")
                names[Encoding.parse(encoding)] = name
        rows = tomllib.loads((data / "groups.toml").read_text())["group"]
        groups = [Group(**row) for row in rows]
        known = trap_bits(traps.read_text())
        for group in groups:
            if group.read not in CLASSES or group.write not in CLASSES:
                raise BadTable(f"groups.toml: {group.title}: classes are {', '.join(CLASSES)}")
            for trap in group.traps:
                if trap not in known and trap.split(".")[0] not in GIC_TRAPS:
                    raise BadTable(f"groups.toml: {group.title}: docs/traps.md has no {trap}")
        return cls(names, groups)

    def name(self, encoding: Encoding) -> str:
        """Returns the name; of one that has none, what part of the space it is in; empty for a gap in the table."""
        if encoding in self.names:
            return self.names[encoding]
        if encoding.op0 & 1 and encoding.crn in (11, 15):
            return "implementation defined"
        if encoding.op0 == 3 and encoding.crn == 0 and encoding.op1 in (0, 1, 3):
            return "reserved ID space"
        return ""

    def group(self, encoding: Encoding) -> Group:
        """Returns the group of the encoding."""
        name = self.name(encoding)
        if name not in self._found:
            upper = name.upper()
            self._found[name] = next(group for group in self.groups if fits(group.names, upper))
        return self._found[name]

    def traps(self, encoding: Encoding) -> list[str]:
        """Lists the trap bits that bring an access to EL2."""
        name = self.name(encoding).upper()
        return [trap for trap, names in self.group(encoding).traps.items() if fits(names, name)]


def fits(patterns: list[str], name: str) -> bool:
    """Says whether one of the patterns fits a name in upper case."""
    return any(fnmatch.fnmatchcase(name, pattern.upper()) for pattern in patterns)


def trap_bits(page: str) -> set[str]:
    """Lists REGISTER.FIELD of each field in docs/traps.md that keeps something from the guest: set or closed."""
    found, register = set(), ""
    for line in page.splitlines():
        if line.startswith("## "):
            register = line[3:].strip()
        elif match := re.match(r"\| \d+(?::\d+)? \| ([^|]+) \|", line):
            found |= {f"{register}.{field.strip()}" for field in match[1].split(",")}
    return found

"""Compares what each encoding did on the bare machine and in the VM, and gives a verdict.

Not here: running anything, or drawing. Explanations: tests/audit/explained.toml.
"""

import fnmatch
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from tools.theorem.log import Access, Log
from tools.theorem.space import DATA, BadTable, Encoding, Space

SAME, VOLATILE, EXPLAINED, UNEXPLAINED = "same", "volatile", "explained", "UNEXPLAINED"
# What an access comes to, as explanations name it.
KINDS = ("undefined", "value", "executes", "fill", "exception")
UNDEFINED = ()


def kind(outcome: tuple[str, ...]) -> str:
    """Names what an access came to, without its values."""
    if outcome == UNDEFINED:
        return "undefined"
    first = outcome[0]
    return {"=": "value", "o": "executes", "f": "fill", "!": "exception"}[first[0]]


@dataclass(frozen=True)
class Machine:
    """What a pair of logs was made on."""

    cpu: str
    gic: int
    # Of the VM; the bare machine is always QEMU's virt, as which a VM is laid out.
    board: str = "virt"

    def __str__(self) -> str:
        return f"{self.cpu}, GICv{self.gic}" + ("" if self.board == "virt" else f", {self.board}")


@dataclass
class Explanation:
    """Why some accesses may differ, and how."""

    registers: list[str]
    reason: str
    section: str
    bare: str
    vm: str
    cpus: list[str]
    gics: list[int] = field(default_factory=lambda: [2, 3])
    levels: list[int] = field(default_factory=lambda: [0, 1])
    access: str = "RW"
    # Of values: which bits may differ. All, where it is not given.
    bits: int = (1 << 64) - 1
    # (pattern, CPU) that an access matched.
    used: set[tuple[str, str]] = field(default_factory=set)

    def explains(self, space: Space, machine: Machine, difference: "Verdict") -> bool:
        """Says whether this is the explanation, and notes that it was needed."""
        level, direction, encoding = difference.access
        if not (machine.cpu in self.cpus and machine.gic in self.gics and level in self.levels
                and direction in self.access and (kind(difference.bare), kind(difference.vm)) == (self.bare, self.vm)
                and differing_bits(difference.bare, difference.vm) & ~self.bits == 0):
            return False
        fits = [pattern for pattern in self.registers if matches(pattern, encoding, space.name(encoding))]
        self.used |= {(pattern, machine.cpu) for pattern in fits}
        return bool(fits)


@dataclass
class Verdict:
    """One access in both worlds."""

    access: Access
    bare: tuple[str, ...]
    vm: tuple[str, ...]
    verdict: str
    explanation: Explanation | None = None


def matches(pattern: str, encoding: Encoding, name: str) -> bool:
    """Says whether a pattern of explained.toml, an encoding with ranges or a name, fits."""
    if not pattern[0].isdigit():
        return fnmatch.fnmatchcase(name, pattern)
    parts = pattern.split(".")
    fields = (encoding.op0, encoding.op1, encoding.crn, encoding.crm, encoding.op2)
    if len(parts) != len(fields):
        raise BadTable(f"explained.toml: {pattern}: not op0.op1.CRn.CRm.op2")
    for part, value in zip(parts, fields):
        low, _, high = part.partition("-")
        if part != "*" and not int(low) <= value <= int(high or low):
            return False
    return True


def values(outcome: tuple[str, ...]) -> list[int] | None:
    """Returns the values of reads and fills; None where something else came of one."""
    words = [word.lstrip("=") for text in outcome for word in text.split() if word != "fill"]
    if not all(re.fullmatch("[0-9a-f]+", word) for word in words):
        return None
    return [int(word, 16) for word in words]


def differing_bits(bare: tuple[str, ...], vm: tuple[str, ...]) -> int:
    """Returns which bits of values differ; 0 where there are no values to compare."""
    ours, theirs = values(bare), values(vm)
    if not ours or not theirs or len(ours) != len(theirs):
        return 0
    total = 0
    for one, other in zip(ours, theirs):
        total |= one ^ other
    return total


def explanations(path: Path = DATA / "explained.toml") -> list[Explanation]:
    """Reads the list of explained differences."""
    found = []
    for row in tomllib.loads(path.read_text()).get("explained", []):
        try:
            entry = Explanation(**row)
        except TypeError as error:
            raise BadTable(f"explained.toml: {row.get('registers')}: {error}") from None
        if not (entry.reason and entry.section and entry.registers and entry.cpus):
            raise BadTable(f"explained.toml: {entry.registers}: reason, section, registers and cpus must be given")
        if not {entry.bare, entry.vm} <= set(KINDS):
            raise BadTable(f"explained.toml: {entry.registers}: bare and vm are of {', '.join(KINDS)}")
        found.append(entry)
    return found


def compare(space: Space, machine: Machine, logs: tuple[Log, Log], known: list[Explanation]) -> list[Verdict]:
    """Gives a verdict on every access that was not UNDEFINED in both worlds."""
    bare, vm = (log.outcomes for log in logs)
    verdicts = []
    for access in sorted(bare.keys() | vm.keys()):
        verdict = Verdict(access, bare.get(access, UNDEFINED), vm.get(access, UNDEFINED), SAME)
        if verdict.bare != verdict.vm:
            verdict.verdict = UNEXPLAINED
            if space.group(access[2]).volatile and kind(verdict.bare) == kind(verdict.vm):
                verdict.verdict = VOLATILE
            else:
                fits = [entry for entry in known if entry.explains(space, machine, verdict)]
                if fits:
                    verdict.verdict, verdict.explanation = EXPLAINED, fits[0]
        verdicts.append(verdict)
    return verdicts


def stale(known: list[Explanation], ran: set[Machine]) -> list[str]:
    """Lists what explains nothing: a pattern of an entry for a CPU that was run with all the GICs it is about."""
    lines = []
    for entry in known:
        for cpu in entry.cpus:
            if not all(Machine(cpu, gic) in ran for gic in entry.gics):
                continue
            lines += [f"{pattern} on {cpu}: explains nothing; take it out of explained.toml"
                      for pattern in entry.registers if (pattern, cpu) not in entry.used]
    return lines


def unnamed(space: Space, verdicts: list[Verdict]) -> list[Encoding]:
    """Lists encodings that do something and are not in registers.txt."""
    return sorted({verdict.access[2] for verdict in verdicts if not space.name(verdict.access[2])})

"""The paper's classes and its theorem, from what was observed.

Popek and Goldberg: an instruction is *privileged* if it traps in user mode and not in supervisor mode;
*control-sensitive* if it changes who has which resource; *behaviour-sensitive* if its result depends on that;
*innocuous* otherwise. Theorem 1: a monitor can be built where every sensitive instruction is privileged. With EL2 the
question is asked one level deeper: each sensitive instruction of EL1 traps to EL2, or acts on state that is the VM's
alone.

Not here: what the instructions are; tests/audit/groups.toml says it.
"""

from collections import Counter
from dataclasses import dataclass

from tools.theorem.compare import UNDEFINED, Machine, Verdict, kind
from tools.theorem.space import Encoding, Space

PRIVILEGED, CONTROL, BEHAVIOUR, INNOCUOUS = "privileged", "control-sensitive", "behaviour-sensitive", "innocuous"
SENSITIVE = {"control": CONTROL, "behaviour": BEHAVIOUR}


@dataclass
class Instruction:
    """An encoding in one direction, in both worlds and at both levels."""

    encoding: Encoding
    direction: str
    name: str
    # Verdicts at EL0 and EL1; None: UNDEFINED in both worlds.
    at: dict[int, Verdict]
    trapped: int

    @property
    def verdict(self) -> str:
        """Returns the worst verdict of both levels."""
        return max((verdict.verdict for verdict in self.at.values()),
                   key=("same", "volatile", "explained", "UNEXPLAINED").index)

    def outcome(self, world: str, level: int) -> tuple[str, ...]:
        """Returns what came of it in `world`, bare or vm."""
        return getattr(self.at[level], world) if level in self.at else UNDEFINED

    def executes(self, world: str, level: int) -> bool:
        """Says whether it did something else than to cause an exception."""
        return kind(self.outcome(world, level)) not in ("undefined", "exception")

    @property
    def is_privileged(self) -> bool:
        """Says whether the bare machine executes it at EL1 and traps it at EL0."""
        return self.executes("bare", 1) and not self.executes("bare", 0)


@dataclass
class Report:
    """All that one machine showed."""

    machine: Machine
    instructions: list[Instruction]
    probes: int
    exits: int
    seconds: tuple[float, float]

    def count(self, verdict: str) -> int:
        """Counts accesses (encoding, direction and level) with a verdict."""
        return sum(at.verdict == verdict for it in self.instructions for at in it.at.values())


def instructions(space: Space, verdicts: list[Verdict], trapped: Counter) -> list[Instruction]:
    """Brings the verdicts at both levels together."""
    found: dict[tuple[Encoding, str], Instruction] = {}
    for verdict in verdicts:
        level, direction, encoding = verdict.access
        it = found.setdefault((encoding, direction), Instruction(
            encoding, direction, space.name(encoding), {}, trapped[(encoding, direction)]))
        it.at[level] = verdict
    return sorted(found.values(), key=lambda it: (it.encoding, it.direction))


def present(report: Report) -> list[Instruction]:
    """Lists the instructions that one of the worlds executes: those that it does not only have an exception for."""
    return [it for it in report.instructions
            if any(it.executes(world, level) for world in ("bare", "vm") for level in it.at)]


def sensitivity(space: Space, it: Instruction) -> str:
    """Returns control-sensitive, behaviour-sensitive or innocuous."""
    group = space.group(it.encoding)
    return SENSITIVE.get(group.read if it.direction == "R" else group.write, INNOCUOUS)


def paper_class(space: Space, it: Instruction) -> str:
    """Returns the paper's class: observed privilege, and sensitivity."""
    what = sensitivity(space, it)
    if not it.is_privileged:
        return what
    return PRIVILEGED if what == INNOCUOUS else f"{PRIVILEGED}, {what}"


def mechanism(space: Space, it: Instruction) -> str:
    """Says what keeps the instruction inside the VM, as observed: a trap, a bank, or that the VM has no such thing."""
    group = space.group(it.encoding)
    if it.trapped:
        traps = space.traps(it.encoding)
        return f"trapped: {', '.join(traps)}" if traps else ""
    if not it.executes("vm", 1) and not it.executes("vm", 0):
        return "not there: UNDEFINED at EL1"
    if sensitivity(space, it) == INNOCUOUS:
        return group.banked or "innocuous"
    return f"banked: {group.banked}" if group.banked else ""


def violations(space: Space, report: Report) -> list[str]:
    """Lists sensitive instructions that neither trap nor are banked, and traps that no row of the tables has."""
    def what(it: Instruction) -> str:
        return f"trapped {it.trapped} times, by no bit that is known" if it.trapped else "neither trapped nor banked"
    return [f"{report.machine}: {it.name} ({it.encoding} {it.direction}), {paper_class(space, it)}: {what(it)}"
            for it in report.instructions if not mechanism(space, it)]

"""The same random words on the bare machine and in a VM: what each did must be the same.

Not here: the hypervisor's survival, which is `words`. This needs no model of an instruction, so it covers all of them
that a CPU has: loads and stores on emulated devices, calls, system instructions, exceptions. guests/audit says what
a word is.
"""

import re
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tools.theorem import machine
from tools.theorem.compare import Machine
from tools.theorem.log import Refused
from tools.theorem.space import DATA, BadTable, Encoding, Space

LINE = re.compile(r"@word (\d+) ([0-9a-f]+) (vector=\d+ esr=[0-9a-f]+) sum=([0-9a-f]+)")
UNDEFINED_ESR = "esr=2000000"
MRS_MASK, MRS = 0xfff0_0000, 0xd530_0000


@dataclass(frozen=True)
class WordExplanation:
    """Why words of one encoding may differ; `bare` is "undefined" if only where the bare machine lacks it."""

    mask: int
    value: int
    bare: str
    reason: str
    section: str


@dataclass(frozen=True)
class Word:
    """What one word did."""

    word: int
    exception: str
    # Of X0 to X30, PC and PSTATE.
    sum: str


def explanations(path: Path = DATA / "explained.toml") -> list[WordExplanation]:
    """Reads the entries for words."""
    try:
        return [WordExplanation(**row) for row in tomllib.loads(path.read_text()).get("word", [])]
    except TypeError as error:
        raise BadTable(f"explained.toml: word: {error}") from None


def read(console: str, whose: str, count: int) -> list[Word]:
    """Returns the words in order; refuses a log that has not all of them."""
    found = {int(match[1]): Word(int(match[2], 16), match[3], match[4]) for match in LINE.finditer(console)}
    if sorted(found) != list(range(count)):
        raise Refused(f"{whose}: {len(found)} of {count} words")
    return [found[number] for number in range(count)]


def differences(space: Space, logs: tuple[list[Word], list[Word]],
                known: list[WordExplanation]) -> tuple[list[str], int]:
    """Returns a line for each word that differs and may not, and how many differ and may."""
    lines, explained = [], 0
    for number, (bare, vm) in enumerate(zip(*logs)):
        if bare == vm:
            continue
        if may_differ(space, bare, vm, known):
            explained += 1
        else:
            lines.append(f"word {number}, {bare.word:#010x}: bare {bare.exception} sum={bare.sum}, "
                         f"VM {vm.exception} sum={vm.sum}")
    return lines, explained


def may_differ(space: Space, bare: Word, vm: Word, known: list[WordExplanation]) -> bool:
    """Says whether a difference is explained, or the value of a register that changes by itself."""
    if bare.word != vm.word:
        return False
    if bare.exception == vm.exception and bare.word & MRS_MASK == MRS:
        key = bare.word >> 5 & 0xffff
        return space.group(Encoding(key >> 14, key >> 11 & 7, key >> 7 & 15, key >> 3 & 15, key & 7)).volatile
    is_undefined = bare.exception.endswith(UNDEFINED_ESR)
    return any(bare.word & entry.mask == entry.value and (is_undefined or entry.bare == "any") for entry in known)


def run(space: Space, it: Machine, seed: int, count: int) -> tuple[list[str], int]:
    """Runs both worlds at the same time and compares."""
    arguments = f"audit.trace={seed},0,{count}"
    # QEMU checks the alignment of accesses to devices only where there are several CPUs, as a Raspberry Pi 4 has.
    cpus = "4" if it.board == "rpi4" else "1"
    with ThreadPoolExecutor(2) as both:
        bare = both.submit(machine.run_bare, it, arguments, cpus)
        vm = both.submit(machine.run_vm, it, arguments, False)
        logs = read(bare.result().console, f"bare {it}", count), read(vm.result().console, f"VM on {it}", count)
    return differences(space, logs, explanations())

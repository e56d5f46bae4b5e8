"""Random words in one VM, a second VM beside it, and a verdict.

The VM with the words may crash itself: then the run goes on behind the words that were being executed. The hypervisor
may not: no dump, no hang, and the neighbour's memory is as it was, to the end and after it. guests/audit says what a
word is.
"""

import os
import re
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tools.theorem.compare import Machine
from tools.theorem.machine import GUEST, environment

MEMORY = "16M"
# After how many words the guest says where it is: `REPORT` in guests/audit/src/random.rs.
REPORT = 8192
# The neighbour speaks several times a second, the words' VM every 8,192 words; a busy host is slow.
SILENCE_S = 120
# Lines of the neighbour after the end: it has checked all of its memory as often.
ROUNDS_AFTER = 3
AT = re.compile(r"@at (\d+)")
DONE = re.compile(r"@random seed=(\d+) first=(\d+) count=(\d+) (.*)")
BESIDE = re.compile(r"@beside round=(\d+) changed=(\d+)")
ENDED = re.compile(r"trapeze: vm words: (is off|crashed)")
NEIGHBOUR_ENDED = re.compile(r"trapeze: vm beside: (is off|crashed)")
ABOUT = "trapeze: vm words: "
BUG = "trapeze: bug:"


@dataclass
class Verdict:
    """What became of a run of words."""

    machine: Machine
    seed: int
    executed: int = 0
    crashes: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    rounds: int = 0
    seconds: float = 0

    def add(self, counts: str) -> None:
        """Adds what the guest counted."""
        for name, count in re.findall(r"(\w+)=(\d+)", counts):
            self.counts[name] = self.counts.get(name, 0) + int(count)

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        crashed = f"; crashed itself {len(self.crashes)} times" if self.crashes else ""
        return (f"{self.machine}: {self.executed:,} words of seed {self.seed}: {ends}{crashed}; neighbour intact in "
                f"{self.rounds} rounds; {self.seconds:.0f} s")

    @property
    def short(self) -> str:
        """Says it without what no two runs have the same."""
        verdict = "hypervisor or neighbour touched" if self.complaints else "neighbour untouched"
        return (f"{self.machine}: {self.executed:,} words of seed {self.seed}, {verdict}, "
                f"{len(self.crashes)} crashes of the VM itself")


def run(machine: Machine, seed: int, count: int) -> Verdict:
    """Executes `count` words of `seed`, in as many machines as that takes."""
    verdict = Verdict(machine, seed)
    start, first = time.monotonic(), 0
    while first < count and not verdict.complaints:
        first = run_from(verdict, first, count)
    verdict.seconds = time.monotonic() - start
    return verdict


def run_from(verdict: Verdict, first: int, count: int) -> int:
    """Runs one machine from word `first` on; returns the word to go on with."""
    with tempfile.TemporaryDirectory() as scratch:
        bundle = f"{scratch}/words.itb"
        common = [f"KERNEL={GUEST}", "INITRD=", "CPUS=1", f"MEM={MEMORY}", f"GIC={verdict.machine.gic}",
                  f"CPU={verdict.machine.cpu}", *(["PMU=0"] if verdict.machine.board == "rpi4" else [])]
        arguments = f"{verdict.seed},{first},{count - first}"
        subprocess.run(["tools/bundle", bundle, "NAME=words", f"APPEND=audit.random={arguments}", *common,
                        "--", "NAME=beside", "APPEND=audit.beside", *common], check=True, env=environment())
        settings = environment(BUNDLE=bundle, BOARD=verdict.machine.board, CPU=verdict.machine.cpu, GIC=str(verdict.machine.gic), CPUS="2",
                               MEM="64M", LOG="info")
        with subprocess.Popen(["tools/qemu"], env=settings, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT) as process:
            try:
                following = watch(verdict, lines(process.stdout.fileno()), first, count)
                if process.poll():
                    verdict.complaints.append(f"QEMU ended with {process.returncode}")
                return following
            finally:
                process.kill()


def lines(console: int) -> Iterator[str | None]:
    """Yields what is printed, line by line; None for each second without a line, and ends with the machine."""
    rest = b""
    while True:
        if not select.select([console], [], [], 1)[0]:
            yield None
            continue
        read = os.read(console, 1 << 16)
        if not read:
            return
        *whole, rest = (rest + read).split(b"\n")
        yield from (line.decode(errors="replace").strip("\r") for line in whole)


def watch(verdict: Verdict, console: Iterator[str | None], first: int, count: int) -> int:
    """Follows one machine to the end of its words and a little further; returns the word to go on with."""
    at, done, ended, rounds, said, last = first, None, "", 0, [], ""
    heard = {"words": time.monotonic(), "beside": time.monotonic()}
    for line in console:
        now = time.monotonic()
        last, line = line or last, line or ""
        # Random words may print on the console, too: a line of ours begins somewhere in it.
        if match := BESIDE.search(line):
            heard["beside"] = now
            verdict.rounds += 1
            rounds += bool(ended)
            if int(match[2]):
                verdict.complaints.append(f"the neighbour's memory changed: {line}")
        elif match := AT.search(line):
            heard["words"], at = now, int(match[1])
        elif match := DONE.search(line):
            heard["words"], done = now, match
        elif match := ENDED.search(line):
            heard["words"], ended, said = now, match[1], [*said, line]
        elif ABOUT in line:
            said = [*said, line]
        elif BUG in line or NEIGHBOUR_ENDED.search(line):
            verdict.complaints.append(line)
        if verdict.complaints:
            return count
        if ended and rounds >= ROUNDS_AFTER:
            return settle(verdict, done or said or [ended], (at, first, count))
        if now - heard["beside"] > SILENCE_S:
            verdict.complaints.append(f"nothing of the neighbour for {SILENCE_S} s, after word {at}: a hang")
            return count
        if not ended and now - heard["words"] > SILENCE_S:
            ended = "silent"
    verdict.complaints.append(f"the machine ended after word {at}, having said {last!r}")
    return count


def settle(verdict: Verdict, end: re.Match | list[str], place: tuple[int, int, int]) -> int:
    """Books a machine whose words came to an end, theirs or a crash that `end` tells of; returns where to go on."""
    at, first, count = place
    if isinstance(end, re.Match):
        verdict.executed += count - first
        verdict.add(end[4])
        return count
    verdict.executed += at - first
    verdict.crashes.append(f"between words {at} and {at + REPORT}: {'; '.join(end[-3:])}")
    return at + REPORT

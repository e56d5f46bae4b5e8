"""The figures: what each is, its bar, and how it is got from a run. A row of a table here is a row of the README's.

A bar is a promise: missing it fails. An aim is what the design is to reach.
"""

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

from measure import machine
from measure.counts import Counts
from measure.machine import BENCH, DEBIAN, HELLO, Failed, Machine

MACHINES = (Machine("cortex-a72", 3), Machine("cortex-a72", 2), Machine("max", 3))
# Sections of guests/bench: HINT #112 + n.
COMPUTE = 8

# Name in the guest's output, words, aim, section.
OPERATIONS = (
    ("hvc", "HVC, PSCI_VERSION", 100, 1),
    ("smc", "SMC, PSCI_VERSION", 100, 2),
    ("id-register", "read of a trapped ID register", 110, 3),
    ("distributor", "read of the emulated GICD", 160, 4),
    ("write-back", "the same by a load without syndrome (write-back)", None, 9),
    ("sgi", "SGI to self, with ack, EOI and return", 260, 5),
    ("timer", "timer interrupt, deadline to handler", 150, 6),
    ("character", "emulated PL011, a character out", 250, 7),
)
NOTHING = "nothing"
# Pairs of boots, bare and under the hypervisor.
BOOTS = 7
MOST_CPUS = 8


@dataclass
class Figure:
    """One measured value, beside the bare machine's."""

    key: str
    words: str
    unit: str
    trapeze: float | None
    bare: float | None = None
    bar: float | None = None
    aim: float | None = None

    @property
    def is_missed(self) -> bool:
        """Says whether the bar is missed; what was not measured misses it."""
        return self.bar is not None and (self.trapeze is None or self.trapeze > self.bar)


@dataclass
class Results:
    """Everything measured: figures by machine, and why the guest was left in Debian's boot."""

    qemu: str
    operations: dict[str, list[Figure]] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    exits: dict[str, dict[str, int]] = field(default_factory=dict)

    def plain(self) -> dict:
        """Returns it as JSON takes it."""
        return {"qemu": self.qemu, "operations": {name: [asdict(figure) for figure in figures]
                                                  for name, figures in self.operations.items()},
                "figures": [asdict(figure) for figure in self.figures], "exits": self.exits}

    @property
    def missed(self) -> list[Figure]:
        """Returns the figures that miss their bar."""
        return [figure for figure in self.figures if figure.is_missed]


# --- operations -----------------------------------------------------------------------------------------------------

def samples(console: str) -> dict[str, list[int]]:
    """Reads the lines `bench: NAME TICKS...` of the guest; an operation that it could not do has none."""
    found = {}
    for line in console.splitlines():
        words = line.split()
        if words[:1] == ["bench:"] and len(words) > 2:
            found[words[1]] = [int(word) for word in words[2:] if word != "-"]
    if "bench: end" not in console or NOTHING not in found:
        raise Failed("guests/bench: its output has no end")
    return found


def cost(found: dict[str, list[int]], name: str) -> float | None:
    """Returns the median of an operation without what measuring it takes. The timer's has no second read in it."""
    if not found.get(name):
        return None
    overhead = 0 if name == "timer" else statistics.median(found[NOTHING])
    return statistics.median(found[name]) - overhead


def operations(on: Machine) -> tuple[list[Figure], Figure]:
    """Measures the operations on a machine; returns them, and EL2's share of the compute loop."""
    counts, console = machine.run_trapeze(on, BENCH, machine.bundle(on, BENCH))
    trapeze = samples(console)
    bare = samples(machine.run_bare(on, BENCH, counts.start)[1])
    figures = [Figure(name, words, "instructions", cost(trapeze, name), cost(bare, name), aim=aim)
               for name, words, aim, _ in OPERATIONS]
    return figures, Figure("compute-share", "compute loop, timer at 250 Hz: share of EL2", "%", share(counts, COMPUTE))


def share(counts: Counts, section: int) -> float:
    """Returns the share of a section's instructions that EL2 executed, in percent."""
    return 100 * counts.instructions(el=2, section=section) / counts.instructions(section=section)


# --- Debian ---------------------------------------------------------------------------------------------------------

def boots(on: Machine) -> list[tuple[Counts, Counts]]:
    """Boots Debian to its init several times, under the hypervisor and bare. The command lines differ by a number.
    That shifts all later instructions against the timer, and alone makes 0.01 % more or less."""
    pairs = []
    for number in range(BOOTS):
        guest = replace(DEBIAN, append=f"{DEBIAN.append} boot={number}" if number else DEBIAN.append)
        trapeze = machine.run_trapeze(on, guest, machine.bundle(on, guest))[0]
        pairs.append((trapeze, machine.run_bare(on, guest, trapeze.start)[0]))
    return pairs


def debian(on: Machine) -> tuple[list[Figure], dict[str, dict[str, int]]]:
    """Boots Debian; returns the figures, medians where boots differ, and the exits of the first boot by reason."""
    pairs = boots(on)
    counts, bare = pairs[0]
    exits = {group: dict(reasons.most_common()) for group, reasons in counts.exits().items()}

    def median(of: Callable[[Counts, Counts], float]) -> float:
        return statistics.median(of(*pair) for pair in pairs)

    return [
        Figure("boot-instructions", "Debian's boot to init, from the guest's first instruction", "instructions",
               median(lambda vm, _: vm.after_entry), median(lambda _, bare: bare.after_entry)),
        Figure("boot-more", "the same, more than bare", "%",
               median(lambda vm, bare: more(vm.after_entry, bare.after_entry)), bar=0.05),
        Figure("boot-share", "the same, share of EL2", "%", median(lambda vm, _: share_of_guest_time(vm))),
        Figure("boot-whole", "Debian's boot to init from reset, more than bare", "%",
               median(lambda vm, bare: more(vm.instructions(), bare.instructions()))),
        Figure("boot-exits", "exits in Debian's boot to init", "exits",
               median(lambda vm, _: sum(reasons.total() for reasons in vm.exits().values())), 0, bar=700, aim=400),
        Figure("start-debian", "reset to the first instruction of Debian's kernel (33 MB)", "instructions",
               counts.before_entry, bare.before_entry, aim=1_000_000),
    ], exits


def more(here: int, there: int) -> float:
    """Returns how much more than `there` `here` is, in percent."""
    return 100 * (here / there - 1)


def share_of_guest_time(counts: Counts) -> float:
    """Returns the share of EL2 in all instructions from the guest's first, in percent."""
    of_guest = counts.instructions(el=0) + counts.instructions(el=1)
    return 100 * (1 - of_guest / counts.after_entry)


def memory(on: Machine) -> Figure:
    """Boots Debian on as many CPUs as a VM can have: most of what the hypervisor writes is for each CPU."""
    guest = replace(DEBIAN, cpus=MOST_CPUS)
    counts = machine.run_trapeze(on, guest, machine.bundle(on, guest), pages="on")[0]
    return Figure("memory", f"memory that the hypervisor writes for itself, {MOST_CPUS} CPUs", "bytes",
                  counts.stored_bytes, bar=1 << 20, aim=(1 << 20) // 5)


def hello(on: Machine) -> Figure:
    """Starts the guest that is built into the image."""
    counts = machine.run_trapeze(on, HELLO, None)[0]
    bare = machine.run_bare(on, HELLO, counts.start)[0]
    return Figure("start-hello", "reset to the first instruction of hello (7 KB)", "instructions",
                  counts.before_entry, bare.before_entry, aim=200_000)


def hello_on_rpi4() -> Figure:
    """Starts the same guest on a Raspberry Pi 4, whose tree is larger, and which has 4 CPUs to start."""
    return Figure("start-rpi4", "the same on a Raspberry Pi 4, with its 4 CPUs", "instructions",
                  machine.run_on_rpi4(HELLO).before_entry)


def image() -> Figure:
    """Weighs the hypervisor."""
    size = (machine.ROOT / "target/trapeze.img").stat().st_size
    return Figure("image", "hypervisor image", "bytes", size, bar=344_064)

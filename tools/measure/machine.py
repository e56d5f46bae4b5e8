"""Runs guests on QEMU, bare at EL1 or under the hypervisor, so that a run costs the same each time.

With `-icount shift=0` an instruction takes a virtual nanosecond, and with a counter of 1 GHz a tick is an instruction.
tools/qemu says how the board is started.
"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from measure import bare
from measure.counts import Counts, Start

ROOT = Path(__file__).resolve().parent.parent.parent
WORK = ROOT / "target/bench"
PLUGIN = ROOT / "target/count.so"
PATIENCE_SECONDS = 900
ICOUNT = ["-icount", "shift=0,sleep=off"]


class Failed(Exception):
    """A run that did not end as it should: what was run, and what was to happen."""


@dataclass(frozen=True)
class Machine:
    """A CPU model and a version of the GIC."""

    cpu: str
    gic: int

    def __str__(self) -> str:
        return f"{self.cpu}, GICv{self.gic}"

    @property
    def model(self) -> str:
        """QEMU's -cpu, with a counter of 1 GHz."""
        return f"{self.cpu},cntfrq=1000000000"


@dataclass(frozen=True)
class Guest:
    """What a VM runs; `until` is the text on its console that ends the run, if it does not power off."""

    name: str
    kernel: str
    memory: str
    initrd: str = ""
    append: str = ""
    until: str = ""
    cpus: int = 1


HELLO = Guest("hello", "target/hello.img", "16M", until="Goodbye")
BENCH = Guest("bench", "target/bench.img", "64M")
DEBIAN = Guest("linux", "target/debian/Image", "512M", "target/initramfs.cpio", "quiet", "TRAPEZE-GUEST: init reached")

def version() -> str:
    """Returns QEMU's version."""
    return command(["qemu-system-aarch64", "--version"]).split()[3]


def stem(machine: Machine, guest: Guest) -> Path:
    """Returns the path that the files of a run begin with."""
    WORK.mkdir(parents=True, exist_ok=True)
    return WORK / f"{guest.name}-{machine.cpu}-gic{machine.gic}"


def bundle(machine: Machine, guest: Guest) -> Path:
    """Writes the bundle of one VM."""
    out = stem(machine, guest).with_suffix(".itb")
    settings = {"NAME": guest.name, "KERNEL": guest.kernel, "INITRD": guest.initrd, "APPEND": guest.append,
                "CPUS": str(guest.cpus), "MEM": guest.memory, "GIC": str(machine.gic), "CPU": machine.cpu, "PACK": ""}
    command(["tools/bundle", str(out), *(f"{key}={value}" for key, value in settings.items())])
    return out


def run_trapeze(machine: Machine, guest: Guest, itb: Path | None, **options: str) -> tuple[Counts, str]:
    """Runs the guest under the hypervisor, from the bundle or from the one in the image."""
    environment = {**board(machine, guest), "BUNDLE": str(itb or "")}
    return run(["tools/qemu", *ICOUNT], environment, f"{stem(machine, guest).name}-trapeze", guest, options)


def run_on_rpi4(guest: Guest) -> Counts:
    """Runs the guest that is built into the image on a Raspberry Pi 4, whose counter is as it is."""
    machine = Machine("cortex-a72", 2)
    environment = {**board(machine, guest), "BOARD": "rpi4", "CPU": machine.cpu}
    return run(["tools/qemu", *ICOUNT], environment, f"{stem(machine, guest).name}-rpi4", guest, {})[0]


def run_bare(machine: Machine, guest: Guest, start: Start) -> tuple[Counts, str]:
    """Runs the guest at EL1 of a machine without EL2, its memory at the first instruction being that of the VM."""
    elf = stem(machine, guest).with_suffix(".bare.elf")
    elf.write_bytes(bare.elf(start, guest.kernel, guest.initrd))
    environment = {**board(machine, guest), "BARE": "1", "IMAGE": str(elf)}
    return run(["tools/qemu", *ICOUNT], environment, f"{stem(machine, guest).name}-bare", guest,
               {"entry": hex(start.pc)})


def board(machine: Machine, guest: Guest) -> dict[str, str]:
    """Returns what tools/qemu reads of the board, and nothing of the caller's own."""
    return {"BOARD": "virt", "GIC": str(machine.gic), "CPU": machine.model, "CPUS": str(guest.cpus), "MEM": guest.memory,
            "QUIET": "1", "BARE": "0", "BUNDLE": "", "IMAGE": "", "PORT": "", "LOG": "", "QEMU_ARGS": ""}


def run(line: list[str], environment: dict[str, str], name: str, guest: Guest, options: dict[str, str]) \
        -> tuple[Counts, str]:
    """Runs QEMU with the plugin and returns what it counted and what the console said."""
    out = WORK / f"{name}.counts"
    out.unlink(missing_ok=True)
    if guest.until:
        options = {**options, "until": guest.until}
    plugin = ",".join([str(PLUGIN), f"out={out}", *(f"{key}={value}" for key, value in options.items())])
    console = command([*line, "-plugin", plugin], environment)
    (WORK / f"{name}.console").write_text(console, encoding="utf-8")
    if guest.until not in console or not out.exists():
        raise Failed(f"{name}: the guest did not get to {guest.until or 'its end'!r}; "
                     f"its console is in {WORK}/{name}.console")
    return Counts.read(out), console


def command(line: list[str], environment: dict[str, str] | None = None) -> str:
    """Runs a command and returns its standard output."""
    try:
        done = subprocess.run(line, cwd=ROOT, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL,
                              capture_output=True, check=False, timeout=PATIENCE_SECONDS)
    except FileNotFoundError:
        raise Failed(f"{line[0]}: not installed; run: make setup") from None
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(line)}: did not end within {PATIENCE_SECONDS} s") from None
    if done.returncode:
        raise Failed(f"{' '.join(line)}: exit status {done.returncode}\n{done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="replace")

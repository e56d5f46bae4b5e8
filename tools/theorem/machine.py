"""Runs guests/audit on the bare machine and in a VM, and counts what the VM's instructions trapped.

Not here: QEMU's options; tools/qemu knows those. The bare machine is the same board without EL2.
"""

import os
import re
import subprocess
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tools.theorem.compare import Machine
from tools.theorem.log import Refused
from tools.theorem.space import Encoding

GUEST = "target/audit.img"
SETTINGS = ("APPEND", "BARE", "BOARD", "BUNDLE", "CPU", "CPUS", "GIC", "GUEST", "IMAGE", "INITRD", "KERNEL", "LOG",
            "MEM", "PCPUS", "PMU", "PORT", "QEMU_ARGS", "QUIET")
MEMORY = "64M"
# A run takes some seconds; a busy host is slow.
LIMIT_S = 300
IS_OFF = re.compile(r"trapeze: vm \S+ is off after (\d+) exits")
# ESR_EL2 of a trapped MSR, MRS or SYS: EC 0x18.
TRAP = re.compile(r"\.\.\.with ESR 0x18/0x([0-9a-f]+)")


@dataclass
class Run:
    """What a machine said."""

    console: str
    exits: int
    seconds: float
    trapped: Counter


def environment(**settings: str) -> dict[str, str]:
    """Returns the caller's environment without settings of tools/run, and with these."""
    kept = {key: value for key, value in os.environ.items() if key not in SETTINGS}
    return {**kept, **settings}


def output(command: list[str], whose: str, settings: dict[str, str]) -> tuple[str, float]:
    """Runs a machine to its end and returns what it printed, and how long it took in seconds."""
    start = time.monotonic()
    try:
        done = subprocess.run(command, env=environment(**settings), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired as late:
        last = (late.stdout or b"").decode(errors="replace").splitlines()[-3:]
        raise Refused(f"{whose}: not done after {LIMIT_S} s; last lines: {last}") from None
    text = done.stdout.decode(errors="replace")
    if done.returncode:
        raise Refused(f"{whose}: QEMU ended with {done.returncode}; last lines: {text.splitlines()[-3:]}")
    return text, time.monotonic() - start


def run_bare(machine: Machine, arguments: str = "", cpus: str = "1") -> Run:
    """Runs the guest on the bare machine, at EL1."""
    settings = {"BARE": "1", "IMAGE": GUEST, "CPU": machine.cpu, "GIC": str(machine.gic), "CPUS": cpus, "MEM": MEMORY}
    console, seconds = output(["tools/qemu", "-append", arguments], f"bare {machine}", settings)
    return Run(console, 0, seconds, Counter())


def run_vm(machine: Machine, arguments: str = "", counts: bool = True) -> Run:
    """Runs the guest in a VM; counts its trapped system instructions, if asked to, from QEMU's log of exceptions."""
    with tempfile.TemporaryDirectory() as scratch:
        settings = {"KERNEL": GUEST, "GUEST": "audit", "BOARD": machine.board, "CPU": machine.cpu,
                    "GIC": str(machine.gic), "CPUS": "1", "MEM": MEMORY, "APPEND": arguments, "BUNDLE": f"{scratch}/audit.itb"}
        exceptions, trapped = Path(scratch, "exceptions"), Counter()
        if counts:
            os.mkfifo(exceptions)
            reader = threading.Thread(target=count_traps, args=(exceptions, trapped))
            reader.start()
            settings["QEMU_ARGS"] = f"-d int -D {exceptions}"
        try:
            console, seconds = output(["tools/run"], f"VM on {machine}", settings)
        finally:
            if counts:
                release(exceptions)
                reader.join()
    ended = IS_OFF.search(console)
    if not ended:
        raise Refused(f"VM on {machine}: Trapeze did not say that the VM is off")
    return Run(console, int(ended[1]), seconds, trapped)


def release(fifo: Path) -> None:
    """Ends a reader that nobody writes to: QEMU did not get as far as to open the log."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        pass


def count_traps(log: Path, trapped: Counter) -> None:
    """Counts (encoding, direction) of system instructions that QEMU's log says went to EL2."""
    # grep: most of the log are exceptions that never leave EL1.
    command = ["grep", "-aE", "^\\.\\.\\.(from EL|with ESR 0x18/)", str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as lines:
        to_el2 = False
        for line in lines.stdout:
            if line.startswith("...from"):
                to_el2 = line.rstrip().endswith("to EL2")
            elif to_el2 and (match := TRAP.match(line)):
                trapped[accessed(int(match[1], 16))] += 1


def accessed(esr: int) -> tuple[Encoding, str]:
    """Decodes ISS of EC 0x18: op0 21:20, op2 19:17, op1 16:14, CRn 13:10, CRm 4:1, read 0 (DDI 0487K.a, ESR_EL2)."""
    encoding = Encoding(esr >> 20 & 3, esr >> 14 & 7, esr >> 10 & 15, esr >> 1 & 15, esr >> 17 & 7)
    return encoding, "R" if esr & 1 else "W"

"""A board at the end of a pseudo-terminal, for tests of what talks to one: QEMU's raspi4b, or a script.

What goes over the line can be changed on its way, and the line can be cut.
"""

import contextlib
import os
import pty
import select
import signal
import subprocess
import threading
import tty
from collections.abc import Callable
from pathlib import Path

from .loading import ROOT, TOOLS

Change = Callable[[bytes], bytes]


def as_it_is(chunk: bytes) -> bytes:
    """Changes nothing."""
    return chunk


class Board:
    """A command behind a pseudo-terminal: it starts, again and again, when somebody writes to the board's power pipe."""

    def __init__(self, directory: Path, command: list, environment: dict[str, str] | None = None):
        self.command, self.environment = [str(word) for word in command], environment
        self.to_host: Change = as_it_is
        self.to_board: Change = as_it_is
        self.process: subprocess.Popen | None = None
        self.starts = 0
        self.master, slave = pty.openpty()
        tty.setraw(slave)
        self.serial = os.ttyname(slave)
        self.slave = slave  # held, so that the line is there before and between the runs
        power = directory / "power"
        os.mkfifo(power)
        self.switch = os.open(power, os.O_RDWR)
        self.power = f"echo > {power}"
        self.wake, self.waker = os.pipe()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        """Carries bytes until `close`."""
        while True:
            output = self.process.stdout.fileno() if self.process else None
            readable, _, _ = select.select([fd for fd in (self.master, self.switch, self.wake, output) if fd is not None],
                                           [], [])
            if self.wake in readable:
                self.stop()
                return
            if self.switch in readable:
                os.read(self.switch, 4096)
                self.stop()
                self.start()
            elif self.master in readable:
                with contextlib.suppress(BrokenPipeError):
                    chunk = self.to_board(os.read(self.master, 4096))
                    if self.process:
                        self.process.stdin.write(chunk)
            elif output in readable:
                chunk = os.read(output, 4096)
                if chunk:
                    os.write(self.master, self.to_host(chunk))
                else:
                    self.stop()

    def start(self) -> None:
        """Starts the command."""
        self.starts += 1
        self.process = subprocess.Popen(self.command, cwd=ROOT, env=self.environment, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
                                        start_new_session=True)

    def stop(self) -> None:
        """Ends the command with all it started."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.stdin.close()
            self.process.stdout.close()
            self.process.wait()
            self.process = None

    def close(self) -> None:
        """Ends the board and its line."""
        os.write(self.waker, b"x")
        self.thread.join()
        for fd in (self.master, self.slave, self.switch, self.wake, self.waker):
            os.close(fd)


def raspberry(directory: Path) -> Board:
    """Returns QEMU's Raspberry Pi 4 with a loader; a reset is a new start there, too."""
    environment = {**os.environ, "BOARD": "rpi4"}
    for setting in ("CPU", "CPUS", "GIC", "MEM", "BUNDLE", "IMAGE", "LOG", "QUIET", "PORT", "QEMU_ARGS", "BARE"):
        environment.pop(setting, None)
    return Board(directory, [TOOLS / "qemu", "-append", "trapeze.loader", "-action", "reboot=reset"], environment)

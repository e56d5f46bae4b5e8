"""A machine at the end of a serial line: waits for Trapeze, sends it a bundle by YMODEM (`sb` of lrzsz), and keeps what
it prints until its VMs have ended. What goes wrong ends in a verdict that says what to check.

Not here: what the machine's log says about its tests (tools/suite).
"""

import errno
import os
import re
import select
import subprocess
import termios
import time
import tty
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

# What Trapeze prints. Noise may stand in front.
BANNER = re.compile(r"trapeze: Trapeze \S+ on ")
OFFER = re.compile(r"trapeze: loader: send a bundle by YMODEM")
RECEIVED = re.compile(r"trapeze: loader: \d+ bytes received")
STARTS = re.compile(r"trapeze: vm (\S+): starts")
ENDED = re.compile(r"trapeze: vm \S+: (is off|crashed) after")
ERROR = re.compile(r"trapeze: error: (.*)")
# From one of these to the next a machine has LIMIT seconds.
RESULT = re.compile(r"(?:^|[\s\]])(?:ok|not ok) \d")
KTAP = re.compile(r"K?TAP version \d")

ACK, CAN = b"\x06", b"\x18"
ATTEMPTS = 3
# A loader that hears block 0 answers at once.
FIRST_ANSWER_S = 15.0
# A loader that waits says C once a second.
LISTEN_S = 2.5
# What still comes after the end: why, or that the machine starts anew.
LINGER_S = 1.0


class Trouble(Exception):
    """A verdict: what was seen, and what to check."""


@dataclass(frozen=True)
class Settings:
    """What `make suite` takes for a board."""

    path: str
    baud: str = "115200"
    power: str = ""
    limit_s: float = 60.0


# --- verdicts -------------------------------------------------------------------------------------------------------

def checks(what: str, *to_check: str) -> Trouble:
    """Returns a verdict."""
    return Trouble("".join([what, *(f"\n  - {check}" for check in to_check)]))


def nothing_came(settings: Settings) -> Trouble:
    """Returns the verdict on a line without a single byte."""
    return checks(
        f"nothing came from {settings.path} in {settings.limit_s:.0f} s: no banner",
        "TX and RX: the adapter's RX goes to GPIO14 (TXD, pin 8), its TX to GPIO15 (RXD, pin 10), its GND to pin 6; 3.3 V "
        "levels only",
        "config.txt on the card: `enable_uart=1`; `uart_2ndstage=1` has the firmware talk, too",
        "the board has power, and boots the card: its green LED blinks",
        "no other program has the line: screen, minicom")


def garbage_came(settings: Settings, share: float) -> Trouble:
    """Returns the verdict on a line that carries no text."""
    return checks(
        f"{share:.0%} of what came from {settings.path} is no text, and no banner is in it",
        f"the speed: {settings.baud} here (BAUD), 115200 on the board unless config.txt has another `init_uart_baud`",
        "config.txt: `enable_uart=1`, `core_freq=500`, `core_freq_min=500`: the mini UART's speed comes from that clock",
        "GND: the adapter's goes to pin 6",
        "the adapter has 3.3 V levels; RS-232 does not, and harms the board")


def no_banner(settings: Settings, last: str) -> Trouble:
    """Returns the verdict on a line with the text of somebody else."""
    return checks(
        f"text came from {settings.path}, but not Trapeze's banner; the last line was {last!r}",
        "config.txt starts Trapeze: `kernel=` names its image, `arm_64bit=1`",
        "cmdline.txt: no `trapeze.log=warn`, `error` or `off`, which leave the banner out")


def banner_only(session: "Session") -> Trouble:
    """Returns the verdict on a machine that starts and does not ask for a bundle."""
    seen = f"Trapeze started what it has: VM {session.started[0]!r}" if session.started else "Trapeze started, and no more"
    return checks(
        f"{seen}; no offer to send it a bundle, and no test, in {session.settings.limit_s:.0f} s",
        "cmdline.txt: `trapeze.loader`",
        "without it: config.txt brings a bundle that prints KTAP: `initramfs bundle.itb followkernel`")


def no_input() -> Trouble:
    """Returns the verdict on a machine that is heard but does not hear."""
    return checks(
        "Trapeze waits for a bundle, and answers nothing that is sent: no input",
        "the adapter's TX goes to GPIO15 (RXD, pin 10)",
        "the adapter's TX has 3.3 V levels",
        "no other program has the line: screen, minicom")


def line_lost(settings: Settings, count: int) -> Trouble:
    """Returns the verdict on a line that ended."""
    return checks(
        f"{settings.path} is gone after {count} bytes: the line is lost",
        "the adapter is still plugged in: `dmesg` says when it went",
        "its cable and hub; the board does not take its power from the adapter")


# --- the line -------------------------------------------------------------------------------------------------------

class Line:
    """A serial device in raw mode."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.count = 0
        try:
            self.fd = os.open(settings.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as error:
            raise checks(f"SERIAL={settings.path}: {error.strerror}",
                         "the adapter is plugged in: `ls /dev/ttyUSB* /dev/ttyACM*`",
                         "you may use it: `sudo adduser $USER dialout`, then log in again") from None
        try:
            self.set_up()
        except termios.error:
            os.close(self.fd)
            raise checks(f"SERIAL={settings.path}: not a serial device, or not one with BAUD={settings.baud}") from None

    def set_up(self) -> None:
        """Makes it raw, without flow control, at its speed; drops what came before."""
        tty.setraw(self.fd)
        attributes = termios.tcgetattr(self.fd)
        attributes[2] = attributes[2] & ~termios.CRTSCTS & ~termios.HUPCL | termios.CLOCAL | termios.CREAD
        attributes[4] = attributes[5] = getattr(termios, f"B{self.settings.baud}", -1)
        if attributes[4] < 0:
            raise termios.error
        termios.tcsetattr(self.fd, termios.TCSANOW, attributes)
        termios.tcflush(self.fd, termios.TCIFLUSH)

    def close(self) -> None:
        """Gives the device back."""
        os.close(self.fd)

    def lost(self) -> Trouble:
        """Returns the verdict on its end."""
        return line_lost(self.settings, self.count)

    def receive(self) -> bytes:
        """Returns what is there: after `select` said so, nothing is the end of the line."""
        try:
            chunk = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise self.lost() from error
        if not chunk:
            raise self.lost()
        self.count += len(chunk)
        return chunk

    def send(self, content: bytes) -> bytes:
        """Sends what fits and returns the rest."""
        try:
            return content[os.write(self.fd, content):]
        except BlockingIOError:
            return content
        except OSError as error:
            if error.errno in (errno.EIO, errno.ENXIO, errno.ENODEV):
                raise self.lost() from error
            raise


# --- a run ----------------------------------------------------------------------------------------------------------

@dataclass
class Session:
    """What came over the line, and what it says so far."""

    settings: Settings
    line: Line
    log: BinaryIO
    everything: bytearray = field(default_factory=bytearray)
    # Where the log of the VMs begins in it.
    begin: int = 0
    unfinished: bytes = b""
    last_line: str = ""
    banners: int = 0
    # How many of them came before the VMs.
    banners_before: int = 1
    offers: int = 0
    has_received: bool = False
    has_ktap: bool = False
    started: list[str] = field(default_factory=list)
    ended: int = 0
    errors: list[str] = field(default_factory=list)
    # When the last step of the VMs came.
    stepped: float = 0.0

    def pump(self, seconds: float) -> bytes:
        """Takes what comes within so many seconds: at most one chunk."""
        if not select.select([self.line.fd], [], [], max(seconds, 0.0))[0]:
            return b""
        return self.take(self.line.receive())

    def take(self, chunk: bytes) -> bytes:
        """Keeps a chunk and reads its lines."""
        self.log.write(chunk)
        self.log.flush()
        self.everything += chunk
        *lines, self.unfinished = (self.unfinished + chunk).split(b"\n")
        for line in lines:
            self.understand(line.decode(errors="replace").rstrip("\r"))
        return chunk

    def understand(self, line: str) -> None:
        """Notes what a line says."""
        self.last_line = line if line.strip() else self.last_line
        if BANNER.search(line):
            self.banners += 1
        elif OFFER.search(line):
            self.offers += 1
        elif RECEIVED.search(line):
            self.has_received = True
        elif match := STARTS.search(line):
            self.started.append(match[1])
        elif match := ENDED.search(line):
            self.ended += 1
            if match[1] == "crashed":
                self.errors.append(line[match.start():])
        elif match := ERROR.search(line):
            self.errors.append(match[1])
        if KTAP.search(line):
            self.has_ktap = True
        if STARTS.search(line) or KTAP.search(line) or RESULT.search(line):
            self.stepped = time.monotonic()

    def wait(self, is_done: Callable[[], bool], limit_s: float | None = None) -> bool:
        """Listens until something is so; says whether it got so in time."""
        deadline = time.monotonic() + (self.settings.limit_s if limit_s is None else limit_s)
        while not is_done():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.pump(left)
        return True

    def is_waiting(self) -> bool:
        """Says whether a loader waits at the other end already: nothing comes but its Cs, or its offer."""
        self.wait(lambda: bool(self.offers), LISTEN_S)
        return bool(self.offers) or (len(self.everything) >= 2 and not self.everything.strip(b"C"))

    def switch_on(self) -> None:
        """Has the machine start."""
        if not self.settings.power:
            if self.is_waiting():
                self.banners = self.offers = 1
            else:
                print("suite: switch the board off and on again now (POWER=\"command\" would do it)", flush=True)
            return
        try:
            done = subprocess.run(self.settings.power, shell=True, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  errors="replace", check=False, timeout=self.settings.limit_s)
        except subprocess.TimeoutExpired:
            raise Trouble(f"POWER={self.settings.power}: not done after {self.settings.limit_s:.0f} s") from None
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise Trouble(f"POWER={self.settings.power}: status {done.returncode}: {said}".rstrip(": "))

    def find_trapeze(self) -> None:
        """Waits for the banner, or for what comes after it."""
        if self.wait(lambda: bool(self.banners or self.offers or self.has_ktap or self.errors)):
            return
        if not self.everything:
            raise nothing_came(self.settings)
        odd = sum(byte > 126 or byte < 32 and byte not in b"\t\n\r\x1b" for byte in self.everything)
        if 10 * odd >= len(self.everything):
            raise garbage_came(self.settings, odd / len(self.everything))
        raise no_banner(self.settings, self.last_line or self.unfinished.decode(errors="replace"))

    def deliver(self, bundle: Path) -> None:
        """Sends the bundle to the loader; where there is none, what the board brought may print KTAP."""
        if not self.wait(lambda: bool(self.offers or self.has_ktap or self.ended or self.errors)):
            raise banner_only(self)
        if self.has_ktap:
            print("suite: the board runs the bundle that it brought: no `trapeze.loader` in cmdline.txt", flush=True)
            return
        if not self.offers:
            raise banner_only(self) if not self.errors else Trouble("Trapeze does not start: " + "; ".join(self.errors))
        for attempt in range(1, ATTEMPTS + 1):
            self.errors, offers = [], self.offers
            why = self.transfer(bundle)
            if not why:
                return
            print(f"suite: transfer {attempt} of {ATTEMPTS} failed: {why}", flush=True)
            if attempt == ATTEMPTS or not self.wait(lambda before=offers: self.offers > before):
                raise Trouble(f"the bundle does not get through: {why}")

    def transfer(self, bundle: Path) -> str:
        """Sends the bundle once, by `sb`; returns why it failed, or nothing."""
        size = bundle.stat().st_size
        print(f"suite: sending {size} bytes, some {size * 11 // int(self.settings.baud) + 1} s", flush=True)
        self.begin = len(self.everything)
        try:
            sender = subprocess.Popen(["sb", "-k", "-q", str(bundle)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.DEVNULL, bufsize=0)
        except FileNotFoundError:
            raise Trouble("sb: not installed (lrzsz); run: make setup") from None
        with sender:
            try:
                answers = self.relay(sender)
            finally:
                sender.kill()
        if not answers:
            raise no_input()
        self.wait(lambda: self.has_received or bool(self.errors))
        if self.has_received:
            return ""
        return "; ".join(self.errors) or f"no answer for {self.settings.limit_s:.0f} s after {answers} blocks"

    def relay(self, sender: subprocess.Popen) -> int:
        """Carries bytes between `sb` and the line, until one of them is done; returns how many blocks were answered."""
        answers, to_line, answered = 0, b"", time.monotonic()
        limit_s = min(self.settings.limit_s, FIRST_ANSWER_S)
        while not (self.has_received or self.errors) and time.monotonic() - answered < limit_s:
            readable, _, _ = select.select([self.line.fd] + ([] if to_line else [sender.stdout]),
                                           [self.line.fd] if to_line else [], [], 0.1)
            if self.line.fd in readable:
                chunk = self.take(self.line.receive())
                if ACK in chunk:
                    answers, answered, limit_s = answers + chunk.count(ACK), time.monotonic(), self.settings.limit_s
                try:
                    sender.stdin.write(chunk)
                except BrokenPipeError:
                    pass  # it is done, or has given up: its output ends, too
            if sender.stdout in readable:
                to_line = os.read(sender.stdout.fileno(), 1 << 12)
                if not to_line and sender.wait() == 0:
                    return answers
                if not to_line:
                    break
            if to_line:
                to_line = self.line.send(to_line)
        if not self.has_received:
            self.line.send(CAN * 8)  # nothing more comes, whoever stopped
        return answers

    def follow(self) -> None:
        """Listens until the VMs have ended; the machine may go before it says so."""
        self.stepped = time.monotonic()

        def has_begun_anew() -> bool:
            return self.banners > self.banners_before

        def is_over() -> bool:
            return self.ended >= max(len(self.started), 1) or has_begun_anew() or bool(self.errors)

        while not is_over():
            left = self.stepped + self.settings.limit_s - time.monotonic()
            if left <= 0:
                raise Trouble(f"nothing new for {self.settings.limit_s:.0f} s; the last line was {self.last_line!r}")
            self.pump(left)
        self.wait(has_begun_anew, LINGER_S)


def run(settings: Settings, bundle: Path, log: Path) -> tuple[str, list[str]]:
    """Runs a bundle on the machine; returns what its VMs printed, and what is wrong with how it ended."""
    try:
        line = Line(settings)
    except Trouble as trouble:
        log.write_bytes(b"")
        return "", [str(trouble)]
    with open(log, "wb") as raw:
        session = Session(settings, line, raw)
        try:
            session.switch_on()
            session.find_trapeze()
            session.deliver(bundle)
            session.follow()
        except Trouble as trouble:
            session.errors.insert(0, str(trouble))
        finally:
            line.close()
    return session.everything[session.begin:].decode(errors="replace"), session.errors

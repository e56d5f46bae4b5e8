"""What Trapeze says on a line, without a machine: fake_trapeze.py WORD..., each of them a thing to do, in order.

It believes whatever it receives: no CRC is looked at.
"""

import os
import select
import sys
import time

BANNER = "trapeze: Trapeze 0.1.0 on a fake, EL2, 4 CPUs\r\n"
OFFER = "trapeze: loader: send a bundle by YMODEM (sb bundle.itb), or press Enter for the one that is there\r\n"
START = "trapeze: vm vm: starts, 1 vCPUs\r\n"
END = "trapeze: vm vm: is off after 7 exits\r\n"
HALF = "KTAP version 1\r\n1..2\r\nok 1 one\r\n"
LENGTHS = {1: 133, 2: 1029}


def say(text: str | bytes) -> None:
    """Prints at once."""
    os.write(1, text.encode() if isinstance(text, str) else text)


def read(count: int, limit_s: float | None = None) -> bytes:
    """Reads so many bytes, or fewer if no more come."""
    got = b""
    while len(got) < count and select.select([0], [], [], limit_s)[0]:
        chunk = os.read(0, count - len(got))
        if not chunk:
            sys.exit(1)
        got += chunk
    return got


def receive(most: int = 1 << 30) -> bool:
    """Receives a file, of which it takes so many blocks at most; says whether all came."""
    blocks, is_asking = 0, True
    while blocks < most:
        if is_asking:
            say("C")
        start = read(1, 0.2 if is_asking else None)
        if start == b"\x04":
            say(b"\x06")
            is_asking = True
        elif start and start[0] in LENGTHS:
            packet = read(LENGTHS[start[0]] - 1)
            say(b"\x06")
            is_asking = blocks == 0
            if not packet[0] and not packet[2]:
                return True
            blocks += 1
    return False


def transfer() -> None:
    """Offers, receives, and says so."""
    say(OFFER)
    receive()
    say("\r\ntrapeze: loader: 1234 bytes received\r\n")


def broken_transfer() -> None:
    """Offers, and gives up in the middle."""
    say(OFFER)
    receive(3)
    say(b"\x18" * 5)
    read(5000, 0.2)
    say("\r\ntrapeze: error: loader: blocks are missing, or too many\r\n")


WORDS = {
    "banner": lambda: say(BANNER),
    "transfer": transfer,
    "broken-transfer": broken_transfer,
    "offer": lambda: (say(OFFER), receive()),
    "start": lambda: say(START),
    "half": lambda: say(HALF),
    "tests": lambda: say(HALF + "ok 2 two\r\n"),
    "damaged-tests": lambda: say("KTAP version 1\r\n1..2\r\no\xff 1 one\r\nok 2 two\r\n"),
    "end": lambda: say(END),
    "crash": lambda: say("trapeze: vm vm: crashed after 7 exits\r\ntrapeze: error: the machine stops after a failure\r\n"),
    "no-start": lambda: say("trapeze: error: vm vm does not start: /cpus: 4 vCPUs, but 1 physical CPUs are free\r\n"),
    "noise": lambda: say(bytes(range(128, 256)) + b"\r\n"),
    "garbage": lambda: [say(bytes((7 * n) % 256 for n in range(50))) or time.sleep(0.05) for _ in range(200)],
    "text": lambda: say("MESS:00:00:04.291:0: Net boot\r\nno bootable device\r\n"),
    "wait": lambda: time.sleep(60),
}

if __name__ == "__main__":
    for word in sys.argv[1:]:
        WORDS[word]()

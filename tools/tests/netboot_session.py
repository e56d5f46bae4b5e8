"""Serves a Raspberry Pi 4 from the network with the command of docs/rpi4.md, and asks what the board would ask.

Runs in a network namespace of its own, where it may have any address: unshare -rn python3 -m unittest
tools.tests.netboot_session. Needs `make build guests`, dnsmasq and curl.
"""

import os
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from .card_session import make_card
from .loading import ROOT
from .test_card import content_of_folder

SERVER = "192.168.1.1"
BOARD_MAC = bytes.fromhex("dca632010203")
DISCOVER, COOKIE = 1, bytes.fromhex("63825363")
LIMIT_S = 20


def command_of_the_documentation() -> str:
    """Returns what docs/rpi4.md says, for one who is root already."""
    text = (ROOT / "docs/rpi4.md").read_text(encoding="utf-8")
    return text.partition("<!-- dnsmasq:begin -->\n```sh\n")[2].partition("```")[0].removeprefix("sudo ")


def discover() -> bytes:
    """Returns the frame with which the boot loader begins: DHCPDISCOVER (RFC 2131) of a PXE client, RFC 4578."""
    options = b"".join(bytes([code, len(value)]) + value for code, value in (
        (53, bytes([DISCOVER])), (55, bytes([1, 3, 43, 60, 66, 67])), (60, b"PXEClient:Arch:00000:UNDI:002001"),
        (93, bytes(2)), (94, b"\x01\x02\x01"), (97, bytes(1) + b"RPI4" + bytes(12))))
    message = struct.pack(">BBBBIHH16s16s192s", 1, 1, 6, 0, 0x5250_4934, 0, 0x8000, bytes(16), BOARD_MAC, bytes(192))
    message += COOKIE + options + b"\xff"
    datagram = struct.pack(">HHHH", 68, 67, 8 + len(message), 0) + message
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(datagram), 0, 0, 64, 17, 0, bytes(4), b"\xff" * 4)
    words = sum(struct.unpack(">10H", header))
    checksum = 0xFFFF ^ (words & 0xFFFF) + (words >> 16)
    return b"\xff" * 6 + BOARD_MAC + b"\x08\x00" + header[:10] + struct.pack(">H", checksum) + header[12:] + datagram


def options_of(message: bytes) -> dict[int, bytes]:
    """Returns the options of a DHCP message."""
    found, at = {}, message.index(COOKIE) + 4
    while message[at] != 0xFF:
        found[message[at]] = message[at + 2:at + 2 + message[at + 1]]
        at += 2 + message[at + 1]
    return found


class Netboot(unittest.TestCase):
    """A server and a board at the two ends of a cable."""

    @classmethod
    def setUpClass(cls):
        if [name for _, name in socket.if_nameindex()] != ["lo"]:
            raise RuntimeError("needs a network of its own: run it under unshare -rn")
        for command in ("link set lo up", "link add lan type veth peer name board", f"address add {SERVER}/24 dev lan",
                        "link set lan up", "link set board up"):
            subprocess.run(["ip", *command.split()], check=True)
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        root = Path(directory.name)
        root.chmod(0o755)
        cls.files = content_of_folder(make_card(root))
        path = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        cls.log = root / "log"
        with open(cls.log, "wb") as log:
            server = subprocess.Popen(["sh", "-c", command_of_the_documentation()], cwd=root, env=path,
                                      stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        cls.addClassCleanup(server.wait)
        cls.addClassCleanup(os.killpg, server.pid, signal.SIGTERM)
        deadline = time.monotonic() + LIMIT_S
        while "TFTP root is" not in cls.log.read_text():
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dnsmasq does not serve: {cls.log.read_text()}")
            time.sleep(0.05)

    def fetch(self, name: str) -> subprocess.CompletedProcess:
        return subprocess.run(["curl", "-sS", "--max-time", str(LIMIT_S), f"tftp://{SERVER}/{name}"], check=False,
                              capture_output=True)

    def test_the_board_is_told_where_its_files_are(self):
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as board:
            board.bind(("board", 0))
            board.settimeout(LIMIT_S)
            board.send(discover())
            frame = b""
            while b"Raspberry Pi Boot" not in frame:
                frame = board.recv(2048)
        self.assertEqual(frame[26:30], socket.inet_aton(SERVER))
        options = options_of(frame)
        self.assertTrue(options[60].startswith(b"PXEClient"))
        self.assertIn(b"Raspberry Pi Boot", options[43])

    def test_every_file_comes_as_it_is(self):
        for name, content in self.files.items():
            done = self.fetch(name)
            self.assertEqual((done.returncode, done.stdout == content), (0, True), name)

    def test_a_board_without_a_folder_of_its_own_is_told_so(self):
        self.assertNotEqual(self.fetch("0123abcd/start4.elf").returncode, 0)

    def test_the_same_lines_are_a_configuration_file(self):
        options = command_of_the_documentation().replace("\\\n", "").split(" --")[1:]
        lines = [option.strip().replace("$PWD", "") for option in options if "conf-file" not in option]
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as configuration:
            configuration.write("\n".join(lines) + "\n")
            configuration.flush()
            done = subprocess.run(["dnsmasq", "--test", f"--conf-file={configuration.name}"], capture_output=True,
                                  text=True, env={"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    unittest.main()

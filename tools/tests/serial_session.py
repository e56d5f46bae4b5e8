"""`make suite SERIAL=...` against QEMU's Raspberry Pi 4 at a pseudo-terminal: what a real board gets, from power to report.

Needs `make build guests target/suite.img`.
"""

import os
import re
import subprocess
import tempfile
import unittest
import xml.etree.ElementTree as xml
from pathlib import Path

from .board import raspberry
from .loading import ROOT, TOOLS

# Enough of them to meet the timer, the vGIC and the four vCPUs.
ONLY = "gic"
OUT = ROOT / "target/suite"
OUR_VM, THEIR_VM = OUT / "vm-rpi4-cortex-a72-gic2-cpus4.xml", OUT / "kernel-rpi4-cortex-a72-gic2-cpus4.xml"
COUNTS = ("tests", "failures", "skipped", "errors")
# Two blocks' worth into the transfer.
IN_THE_MIDDLE = 3000


class SerialSession(unittest.TestCase):
    """One board for all tests, which are in order: each leaves it at its loader."""

    @classmethod
    def setUpClass(cls):
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.board = raspberry(Path(scratch.name))
        cls.addClassCleanup(cls.board.close)

    def suite(self, junit: Path, **variables: str) -> tuple[str, list[str | None]]:
        """Runs tools/suite, which has to succeed; returns what it printed and what the XML counts."""
        environment = {**os.environ, "BOARD": "rpi4", **variables}
        for name in ("CPU", "CPUS", "GIC", "MEM", "INITRD", "QEMU_ARGS", "LIMIT", "LOG", "QUIET", "BUNDLE", "IMAGE"):
            environment.pop(name, None)
        junit.unlink(missing_ok=True)
        done = subprocess.run([TOOLS / "suite"], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=300)
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout, [xml.parse(junit).getroot().get(count) for count in COUNTS]

    def test_1_a_board_and_qemu_come_to_the_same(self):
        _, in_qemu = self.suite(OUR_VM, ONLY=ONLY)
        said, on_board = self.suite(OUR_VM, ONLY=ONLY, SERIAL=self.board.serial, POWER=self.board.power)
        self.assertEqual(on_board, in_qemu)
        self.assertGreater(int(on_board[0]), 20)
        self.assertEqual(self.board.starts, 1)
        raw = OUR_VM.with_suffix(".ktap").read_text(errors="replace")
        self.assertRegex(raw, r"^trapeze: Trapeze [\d.]+ on Raspberry Pi 4 Model B, EL2, 4 CPUs")
        self.assertRegex(raw, r"trapeze: loader: \d+ bytes received")
        self.assertIn("sending", said)

    def test_2_a_kernel_of_ones_own_without_power_over_a_bad_line(self):
        # The board is at its loader again. Bytes get lost and change; the sender and the loader sort it out.
        sent = [0]

        def spoil(chunk: bytes) -> bytes:
            sent[0] += len(chunk)
            if sent[0] > IN_THE_MIDDLE and len(chunk) > 100 and spoils:
                return spoils.pop()(chunk)
            return chunk

        spoils = [lambda chunk: chunk[:50] + chunk[51:], lambda chunk: chunk[:70] + bytes([chunk[70] ^ 1]) + chunk[71:]]
        self.board.to_board = spoil
        said, counts = self.suite(THEIR_VM, KERNEL="target/suite.img", APPEND="suite.only=exceptions",
                                  SERIAL=self.board.serial)
        self.assertEqual((counts[1:], spoils), (["0", "0", "0"], []))
        self.assertNotIn("switch the board off", said)
        self.assertEqual(self.board.starts, 1)

    def test_3_a_transfer_that_is_aborted_is_tried_again(self):
        sent = [0]

        def abort(chunk: bytes) -> bytes:
            sent[0] += len(chunk)
            if sent[0] - len(chunk) <= IN_THE_MIDDLE < sent[0]:
                return b"\x18" * 2000  # whatever block this is in ends, and the next thing is an abort
            return chunk

        self.board.to_board = abort
        said, counts = self.suite(THEIR_VM, KERNEL="target/suite.img", APPEND="suite.only=exceptions",
                                  SERIAL=self.board.serial, POWER=self.board.power)
        self.assertEqual(counts[1:], ["0", "0", "0"])
        self.assertTrue(re.search("transfer 1 of 3 failed: .*the sender cancelled", said), said)
        self.assertEqual(self.board.starts, 2)


if __name__ == "__main__":
    unittest.main()

"""Facts about tools/serial_line.py: what it says of each way in which a line or a board can be wrong."""

import os
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

from tools import serial_line

from .board import Board
from .loading import TOOLS, tool

suite = tool("suite")

FAKE = [sys.executable, "-B", TOOLS / "tests/fake_trapeze.py"]
# A verdict that something does not come, and what has to come: a busy host is slow.
SOON_S, IN_TIME_S = 1.0, 30.0


class OnALine(unittest.TestCase):
    """A board at a pseudo-terminal."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.directory = Path(scratch.name)
        self.bundle = self.directory / "bundle.itb"
        self.bundle.write_bytes(os.urandom(5000))
        for name, value in (("LISTEN_S", 0.5), ("LINGER_S", 0.3)):
            patch = mock.patch.object(serial_line, name, value)
            patch.start()
            self.addCleanup(patch.stop)
        patch = mock.patch("builtins.print")
        self.printed = patch.start()
        self.addCleanup(patch.stop)

    def board(self, words: str) -> Board:
        """Returns a board that does this when it is switched on."""
        board = Board(self.directory, [*FAKE, *words.split()])
        self.addCleanup(lambda: board.close() if board.thread.is_alive() else None)
        return board

    def run_on(self, board: Board, limit_s: float = IN_TIME_S, power: str | None = None):
        """Runs the bundle there, and returns the log and what is wrong."""
        power = board.power if power is None else power
        settings = serial_line.Settings(board.serial, power=power, limit_s=limit_s)
        text, errors = serial_line.run(settings, self.bundle, self.directory / "log")
        return (suite.parse(text) if text else suite.Log()), errors

    def assert_verdict(self, words: str, *parts: str, limit_s: float = SOON_S) -> None:
        """Asserts that the verdict on such a board has these parts."""
        _, errors = self.run_on(self.board(words), limit_s)
        self.assertTrue(errors)
        for part in parts:
            self.assertIn(part, errors[0])

    def assert_good(self, words: str) -> None:
        """Asserts that nothing is wrong with such a board."""
        log, errors = self.run_on(self.board(words))
        self.assertEqual(errors, [])
        self.assertEqual(([case.name for case in log.cases], log.errors), (["one", "two"], []))

    def said(self) -> str:
        """Returns what was printed."""
        return " ".join(str(call.args[0]) for call in self.printed.call_args_list)


class Wiring(OnALine):
    """The usual mistakes, each with its verdict."""

    def test_no_banner(self):
        self.assert_verdict("wait", "nothing came", "GPIO14 (TXD, pin 8)", "GPIO15 (RXD, pin 10)", "pin 6", "3.3 V",
                            "enable_uart=1", "power")

    def test_garbage(self):
        self.assert_verdict("garbage", "is no text", "BAUD", "enable_uart=1", "core_freq", "GND")

    def test_banner_only(self):
        self.assert_verdict("banner wait", "Trapeze started, and no more", "trapeze.loader", "initramfs")
        self.assertEqual((self.directory / "log").read_bytes()[:17], b"trapeze: Trapeze ")

    def test_another_vm_than_the_tests(self):
        self.assert_verdict("banner start end wait", "Trapeze started what it has: VM 'vm'", "trapeze.loader")

    def test_no_input(self):
        board = self.board("banner offer")
        board.to_board = lambda chunk: b""
        _, errors = self.run_on(board, SOON_S)
        for part in ("no input", "GPIO15 (RXD, pin 10)"):
            self.assertIn(part, errors[0])

    def test_somebody_elses_text(self):
        self.assert_verdict("text wait", "not Trapeze's banner", "'no bootable device'", "kernel=", "trapeze.log")

    def test_a_line_that_is_lost(self):
        for words, seen in (("banner wait", b"Trapeze"), ("banner offer", b"send a bundle"),
                            ("banner transfer start half wait", b"ok 1 one")):
            board = self.board(words)
            killer = threading.Thread(target=self.cut, args=(board, seen))
            killer.start()
            log, errors = self.run_on(board)
            killer.join()
            self.assertIn("the line is lost", errors[0], words)
            self.assertFalse(log.cases and log.is_good())
            (self.directory / "power").unlink()

    def cut(self, board: Board, seen: bytes) -> None:
        """Cuts the line once this came over it."""
        path = self.directory / "log"
        deadline = time.monotonic() + IN_TIME_S
        while not (path.exists() and seen in path.read_bytes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        path.unlink()
        board.close()


class Runs(OnALine):
    """Boards that do what they should, or nearly."""

    def test_a_good_one(self):
        self.assert_good("banner transfer start tests end banner")

    def test_garbage_in_front_is_no_harm(self):
        self.assert_good("noise text noise banner transfer start tests end banner")

    def test_a_transfer_that_is_aborted_is_tried_again(self):
        self.assert_good("banner broken-transfer transfer start tests end banner")
        self.assertIn("transfer 1 of 3 failed: loader: blocks are missing, or too many", self.said())

    def test_a_transfer_that_never_works_is_given_up(self):
        self.assert_verdict("banner broken-transfer broken-transfer broken-transfer wait",
                            "the bundle does not get through: loader: blocks are missing", limit_s=IN_TIME_S)

    def test_a_board_without_a_loader_that_brings_the_tests(self):
        self.assert_good("banner start tests end wait")
        self.assertIn("the bundle that it brought", self.said())

    def test_a_damaged_line_does_not_pass(self):
        log, errors = self.run_on(self.board("banner transfer start damaged-tests end banner"))
        self.assertEqual(errors, [])
        self.assertIn("result 'two' is number 2, not 1", log.errors)

    def test_a_lost_end_is_made_up_for_by_the_next_banner(self):
        self.assert_good("banner transfer start tests banner wait")

    def test_tests_that_hang(self):
        self.assert_verdict("banner transfer start half wait", "nothing new for 3 s; the last line was 'ok 1 one'",
                            limit_s=3)

    def test_tests_that_crash(self):
        log, errors = self.run_on(self.board("banner transfer start half crash wait"))
        self.assertEqual(errors, ["trapeze: vm vm: crashed after 7 exits", "the machine stops after a failure"])
        self.assertFalse(log.is_good())

    def test_a_vm_that_does_not_start(self):
        self.assert_verdict("banner transfer no-start wait", "vm vm does not start: /cpus", limit_s=IN_TIME_S)

    def test_the_raw_log_has_all_that_came(self):
        self.run_on(self.board("noise banner transfer start tests end banner"))
        raw = (self.directory / "log").read_bytes()
        self.assertTrue(raw.startswith(bytes(range(128, 256))))
        self.assertIn(b"bytes received", raw)
        self.assertIn(b"ok 2 two\r\n", raw)


class Switched(OnALine):
    """Power, and devices that are none."""

    def test_without_power_a_loader_that_waits_is_used(self):
        board = self.board("transfer start tests end banner")
        os.write(board.switch, b"x")
        time.sleep(0.5)
        log, errors = self.run_on(board, power="")
        self.assertEqual((errors, len(log.cases)), ([], 2))
        self.assertNotIn("switch the board off", self.said())

    def test_without_power_the_user_is_asked(self):
        board = self.board("banner transfer start tests end banner")
        threading.Timer(1.5, os.write, (board.switch, b"x")).start()
        log, errors = self.run_on(board, power="")
        self.assertEqual((errors, len(log.cases)), ([], 2))
        self.assertIn("switch the board off", self.said())

    def test_power_that_fails(self):
        _, errors = self.run_on(self.board("wait"), power="echo no such plug >&2; exit 3")
        self.assertEqual(errors, ["POWER=echo no such plug >&2; exit 3: status 3: no such plug"])
        _, errors = self.run_on(self.board_again("wait"), limit_s=0.5, power="sleep 5")
        self.assertEqual(errors, ["POWER=sleep 5: not done after 0 s"])

    def board_again(self, words: str) -> Board:
        """Returns a second board."""
        (self.directory / "power").unlink()
        return self.board(words)

    def test_devices_that_are_none(self):
        for path, baud, why in (("/dev/no-such-line", "115200", "No such file"), ("/dev/null", "115200", "not a serial"),
                                (self.board("wait").serial, "115201", "BAUD=115201"),
                                (self.board_again("wait").serial, "fast", "BAUD=fast")):
            text, errors = serial_line.run(serial_line.Settings(path, baud), self.bundle, self.directory / "log")
            self.assertEqual(text, "")
            self.assertIn(why, errors[0])
            self.assertEqual((self.directory / "log").read_bytes(), b"")


if __name__ == "__main__":
    unittest.main()

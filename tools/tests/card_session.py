"""Starts QEMU's Raspberry Pi 4 from the files that are on a card made by tools/image.

Needs `make build guests`. The board's own firmware does not run in QEMU: files that only bear its names stand for it.
"""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from .loading import ROOT, TOOLS, tool
from .test_card import content_of_card, content_of_folder

image = tool("image")
LIMIT_S = 60


def make_card(root: Path) -> Path:
    """Lays out in a folder what `make image BOARD=rpi4 GUEST=hello NET=1` would in target/rpi4, and returns where."""
    out, firmware = root / "target/rpi4", root / "firmware"
    firmware.mkdir()
    for name in image.FIRMWARE_FILES:
        (firmware / name).write_bytes(b"not in QEMU")
    settings = {"PATH": os.environ["PATH"], "BOARD": "rpi4", "GUEST": "hello", "CPUS": "4", "NET": "1",
                "FIRMWARE": str(firmware)}
    with mock.patch.dict("os.environ", settings, clear=True), mock.patch("sys.argv", ["image"]), \
            mock.patch.multiple(image, OUT=out, OUR_BUNDLE=root / "run/bundle.itb"), mock.patch("builtins.print"):
        image.main()
    return out


class Session(unittest.TestCase):
    """Takes the files out of the card."""

    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        root = Path(directory.name)
        cls.out, cls.taken = make_card(root), root / "taken"
        cls.taken.mkdir()
        content_of_card(cls.out / image.CARD, cls.taken)

    def test_the_kernel_is_the_one_image_that_there_is(self):
        self.assertEqual((self.taken / "kernel8.img").read_bytes(), (ROOT / "target/trapeze.img").read_bytes())

    def test_the_card_has_what_the_folder_has(self):
        self.assertEqual(content_of_folder(self.taken), content_of_folder(self.out))

    def test_the_files_of_the_card_boot(self):
        settings = {"PATH": os.environ["PATH"], "BOARD": "rpi4", "IMAGE": str(self.taken / "kernel8.img"),
                    "BUNDLE": str(self.taken / "bundle.itb"), "DTB": str(self.taken / image.TREE)}
        command = [TOOLS / "qemu", "-append", (self.taken / "cmdline.txt").read_text().strip()]
        done = subprocess.run(command, env=settings, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=LIMIT_S, check=False)
        for line in ("trapeze: vm hello: starts, 4 vCPUs", "hello: CPUs: 4 online", "hello: Goodbye",
                     "trapeze: vm hello: is off after "):
            self.assertIn(line, done.stdout)
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    unittest.main()

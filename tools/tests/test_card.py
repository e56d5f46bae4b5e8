"""Facts about tools/image: what is on a card for a Raspberry Pi 4. Small files stand for the real ones."""

import contextlib
import io
import os
import shutil
import struct
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from .loading import TOOLS, tool

image = tool("image")
MIB = 1 << 20


def content_of_card(card: Path, folder: Path) -> dict[str, bytes]:
    """Takes the files out of a card's partition."""
    subprocess.run(["mcopy", "-n", "-i", f"{card}@@1M", "::*", folder], check=True, stdin=subprocess.DEVNULL)
    return content_of_folder(folder)


def content_of_folder(folder: Path) -> dict[str, bytes]:
    """Returns what the files of a folder hold, but for a card."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != image.CARD}


class Card(unittest.TestCase):
    """Lays files out in a folder of its own."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.out = self.root / "target/rpi4"
        (self.root / "firmware").mkdir()
        for name in ("kernel", "bundle", "tree", *(f"firmware/{name}" for name in image.FIRMWARE_FILES)):
            (self.root / name).write_bytes(f"this is {name}".encode())
        for name, value in {"ROOT": self.root, "OUT": self.out, "KERNEL": self.root / "kernel"}.items():
            patch = mock.patch.object(image, name, value)
            patch.start()
            self.addCleanup(patch.stop)

    def make(self, **settings: str) -> dict[str, bytes]:
        """Runs the tool with these settings beside the usual ones; returns what it laid out."""
        usual = {"PATH": os.environ["PATH"], "BOARD": "rpi4", "FIRMWARE": str(self.root / "firmware"),
                 "BUNDLE": str(self.root / "bundle"), "DTB": str(self.root / "tree")}
        with mock.patch.dict("os.environ", usual | settings, clear=True), mock.patch("sys.argv", ["image"]), \
                contextlib.redirect_stdout(io.StringIO()):
            image.main()
        return content_of_folder(self.out)


@unittest.skipUnless(shutil.which("mcopy"), "mtools are not installed (tools/setup --card)")
class Files(Card):
    """What is laid out."""

    def test_the_kernel_is_trapeze_and_the_rest_what_was_given(self):
        files = self.make()
        self.assertEqual(files["kernel8.img"], b"this is kernel")
        self.assertEqual(files["bundle.itb"], b"this is bundle")
        self.assertEqual(files[image.TREE], b"this is tree")
        for name in image.FIRMWARE_FILES:
            self.assertEqual(files[name], f"this is firmware/{name}".encode())

    def test_the_configuration_names_only_files_that_are_there(self):
        files = self.make()
        lines = files["config.txt"].decode().splitlines()
        told = [line for line in lines if line and not line.startswith("#")]
        named = [line.split("=")[1] for line in told if line.split("=")[0] in ("kernel", "device_tree")]
        named += [line.split()[1] for line in told if line.startswith("initramfs ")]
        self.assertEqual(named, ["kernel8.img", image.TREE, "bundle.itb"])
        self.assertLessEqual(set(named), set(files))
        self.assertIn("arm_64bit=1", told)
        # The firmware cuts longer lines off.
        self.assertLessEqual(max(map(len, lines)), 80)

    def test_the_boot_arguments_are_what_make_run_would_say(self):
        for settings, words in (({}, "trapeze.log=info"), ({"LOG": "debug"}, "trapeze.log=debug"),
                                ({"LOG": "debug", "QUIET": "1"}, "trapeze.log=off"),
                                ({"LOADER": "1"}, "trapeze.log=info trapeze.loader")):
            self.assertEqual(self.make(**settings)["cmdline.txt"].decode(), words + "\n")

    def test_what_was_there_before_is_gone(self):
        self.make()
        (self.out / "armstub8.bin").write_bytes(b"from another time")
        self.assertNotIn("armstub8.bin", self.make())

    def test_for_netboot_the_same_files_are_laid_out_for_each_board(self):
        files = self.make(NET="1")
        self.assertEqual(content_of_folder(self.out / "net"), files)
        self.make(NET="1", SERIAL="0123abcd", LOG="debug")
        self.make(NET="1", SERIAL="4567abcd")
        self.assertEqual(content_of_folder(self.out / "net"), files)
        self.assertEqual(content_of_folder(self.out / "net/4567abcd"), files)
        self.assertEqual(content_of_folder(self.out / "net/0123abcd")["cmdline.txt"], b"trapeze.log=debug\n")

    def test_a_card_has_the_same_files(self):
        files = self.make()
        (self.root / "taken").mkdir()
        self.assertEqual(content_of_card(self.out / image.CARD, self.root / "taken"), files)

    def test_the_same_input_is_the_same_card(self):
        self.make()
        first = (self.out / image.CARD).read_bytes()
        os.utime(self.root / "bundle", (2_000_000_000, 2_000_000_000))
        self.make()
        self.assertEqual((self.out / image.CARD).read_bytes(), first)

    def test_a_card_is_one_fat32_partition_as_large_as_it_says_and_needs(self):
        for size in (1, 300 * MIB):
            with open(self.root / "bundle", "wb") as bundle:
                bundle.truncate(size)
            self.make()
            with self.subTest(size), open(self.out / image.CARD, "rb") as card:
                record = card.read(512)
                self.assertEqual(record[510:], b"\x55\xaa")
                self.assertEqual(record[462:510], bytes(48))
                kind, start, sectors = struct.unpack_from("<4xB3xII", record, 446)
                self.assertEqual((kind, start * 512), (0x0C, MIB))
                self.assertEqual((self.out / image.CARD).stat().st_size, (start + sectors) * 512)
                self.assertLessEqual(sectors * 512, max(64 * MIB, size * 1.05 + 8 * MIB))
                card.seek(MIB)
                volume = card.read(512)
                per_cluster, reserved, tables = struct.unpack_from("<BHB", volume, 13)
                hidden, total, table = struct.unpack_from("<III", volume, 28)
                self.assertEqual((volume[82:90], hidden, total), (b"FAT32   ", start, sectors))
                self.assertGreaterEqual((total - reserved - tables * table) // per_cluster, 65525)


class Refused(Card):
    """What nothing can be made of is one line that names it."""

    def test_settings_that_are_wrong(self):
        for settings, words in (({"BOARD": "virt"}, "BOARD=virt: no card for this board; give BOARD=rpi4"),
                                ({"BOARD": ""}, "BOARD=: no card for this board"), ({"GIC": "3"}, "GIC=3: "),
                                ({"CPU": "max"}, "CPU=max: "), ({"CPUS": "5"}, "CPUS=5: not a number from 1 to 4"),
                                ({"SERIAL": "01234567"}, "SERIAL: is for NET=1"),
                                ({"NET": "1", "SERIAL": "../../etc"}, "SERIAL=../../etc: not the last 8 digits"),
                                ({"FIRMWARE": str(self.root)}, f"FIRMWARE: no start4.elf in {self.root}; give"),
                                ({"DTB": "/nowhere/tree"}, "DTB: no tree in /nowhere"),
                                ({"BUNDLE": "/nowhere/bundle"}, "BUNDLE: no bundle in /nowhere")):
            with self.subTest(settings), self.assertRaises(image.BadInput) as caught:
                self.make(**settings)
            self.assertIn(words, str(caught.exception))
            self.assertFalse(self.out.exists())

    def test_firmware_that_lacks_a_file(self):
        (self.root / "firmware/LICENCE.broadcom").unlink()
        with self.assertRaises(image.BadInput) as caught:
            self.make()
        self.assertIn("no LICENCE.broadcom in", str(caught.exception))

    def test_the_tool_itself_ends_with_2_and_a_line(self):
        done = subprocess.run([TOOLS / "image"], env={"PATH": os.environ["PATH"], "BOARD": "virt"}, capture_output=True,
                              text=True, check=False)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertEqual(done.stderr, "image: BOARD=virt: no card for this board; give BOARD=rpi4\n")


if __name__ == "__main__":
    unittest.main()

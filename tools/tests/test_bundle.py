"""Facts about tools/bundle: what it takes, and the one line it says of what it does not."""

import gzip
import os
import struct
import subprocess
import tempfile
import unittest
from pathlib import Path

from .loading import TOOLS


def image(size: int = 4096, image_size: int = 8192) -> bytes:
    """Returns something with an arm64 Image header."""
    return struct.pack("<IIQQQQQQ4sI", 0, 0, 0x80000, image_size, 0, 0, 0, 0, b"ARM\x64", 0) + bytes(size - 64)


def elf(machine: int) -> bytes:
    """Returns the start of a 64-bit little-endian ELF."""
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, machine) + bytes(64)


class Bundle(unittest.TestCase):
    """Runs the tool in a directory of its own."""

    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.path = Path(self.directory.name)
        self.write("Image", image())
        self.write("initrd", b"070701")

    def write(self, name: str, content: bytes) -> None:
        (self.path / name).write_bytes(content)

    def bundle(self, *settings: str, **environment: str) -> subprocess.CompletedProcess:
        inherited = {"PATH": os.environ["PATH"]} | environment
        return subprocess.run([TOOLS / "bundle", "out.itb", *settings], cwd=self.path, env=inherited,
                              capture_output=True, text=True, check=False)

    def refuses(self, *settings: str, says: tuple[str, ...]) -> None:
        done = self.bundle(*settings)
        self.assertEqual(done.returncode, 2, done)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        for words in says:
            self.assertIn(words, done.stderr)
        self.assertFalse((self.path / "out.itb").exists())

    def accepts(self, *settings: str, **environment: str) -> None:
        done = self.bundle(*settings, **environment)
        self.assertEqual((done.returncode, done.stderr, done.stdout), (0, "", ""))

    def property(self, node: str, name: str, vm: str = "vm0", kind: str = "s") -> str:
        command = ["fdtget", "-t", kind, str(self.path / f"out.{vm}.fdt"), node, name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def test_each_form_of_kernel_is_taken(self):
        self.write("Image.gz", gzip.compress(image()))
        self.write("kernel.elf", elf(183))
        self.write("kernel.bin", bytes(range(256)))
        for kernel in ("Image", "Image.gz", "kernel.elf", "kernel.bin"):
            with self.subTest(kernel):
                self.accepts(f"KERNEL={kernel}")

    def test_a_gzipped_kernel_is_unpacked(self):
        self.write("Image.gz", gzip.compress(image()))
        self.accepts("KERNEL=Image.gz")
        self.assertEqual((self.path / "out.vm0.kernel").read_bytes(), image())

    def test_a_kernel_that_is_none_of_the_forms_is_refused(self):
        bad = {
            "x86.elf": (elf(62), "built for arm64"), "short.elf": (b"\x7fELF\x02\x01", "built for arm64"),
            "cut.gz": (gzip.compress(image())[:-20], "truncated or corrupted gzip"),
            "flipped.gz": (gzip.compress(bytes(range(99)))[:20] + bytes(90), "truncated or corrupted gzip"),
            "kernel.xz": (b"\xfd7zXZ\0", "unxz"), "empty": (b"", "empty"), "kernel.cpio": (b"070701", "INITRD"),
            "vmlinuz.efi": (b"MZ\0\0zimg", "arch/arm64/boot/Image"), "tree.dtb": (b"\xd0\x0d\xfe\xed", "kernel itself"),
        }
        for name, (content, words) in bad.items():
            with self.subTest(name):
                self.write(name, content)
                self.refuses(f"KERNEL={name}", says=(f"KERNEL={name}: ", words))

    def test_a_missing_file_is_named(self):
        self.refuses("KERNEL=nowhere", says=("KERNEL=nowhere: No such file",))
        self.refuses("KERNEL=Image", "INITRD=nowhere", says=("INITRD=nowhere: No such file",))
        self.refuses("KERNEL=.", says=("KERNEL=.: Is a directory",))
        self.refuses(says=("KERNEL: not given",))

    def test_numbers_out_of_range_are_refused(self):
        for setting in ("CPUS=0", "CPUS=9", "CPUS=-1", "CPUS=two", "CPUS=1.5", "GIC=1", "GIC=4", "GIC=v3", "MEM=0",
                        "MEM=1M", "MEM=513K", "MEM=-2M", "MEM=lots", "MEM=256G", "MEM=99999999999999G", "NAME=a b"):
            with self.subTest(setting):
                self.refuses("KERNEL=Image", setting, says=(f"{setting}: ",))

    def test_memory_is_bytes_or_has_a_suffix(self):
        for text, words in {"67108864": "0 40000000 0 4000000", "64M": "0 40000000 0 4000000",
                            "64m": "0 40000000 0 4000000", "5G": "0 40000000 1 40000000"}.items():
            with self.subTest(text):
                self.accepts("KERNEL=Image", f"MEM={text}")
                self.assertEqual(self.property("/memory@40000000", "reg", kind="x"), words)

    def test_memory_too_small_for_what_is_to_be_in_it_is_refused(self):
        self.write("Image", image(image_size=40 << 20))
        self.refuses("KERNEL=Image", "MEM=32M", says=("MEM=32M: too small", "42M"))

    def test_an_unknown_setting_is_refused(self):
        self.refuses("KERNEL=Image", "CPU5=3", says=("CPU5: no such setting",))

    def test_settings_come_from_the_environment_unless_given(self):
        self.accepts("APPEND=given", KERNEL="Image", APPEND="inherited", CPUS="2", MEM="")
        self.assertEqual(self.property("/chosen", "bootargs"), "given")
        self.assertEqual(self.property("/cpus/cpu@1", "enable-method"), "psci")
        self.assertEqual(self.property("/memory@40000000", "reg", kind="x"), "0 40000000 0 20000000")

    def test_a_command_line_reaches_the_guest_as_it_was_given(self):
        for append in ('a="b c" d', "back\\slash", "/* no comment */ // nor this", "umläut"):
            with self.subTest(append):
                self.accepts("KERNEL=Image", f"APPEND={append}")
                self.assertEqual(self.property("/chosen", "bootargs"), append)

    def test_the_interrupt_controller_is_the_one_asked_for(self):
        gic = "/interrupt-controller@8000000"
        for version, compatible, reg in (("2", "arm,cortex-a15-gic", "0 8000000 0 10000 0 8010000 0 10000"),
                                         ("3", "arm,gic-v3", "0 8000000 0 10000 0 80a0000 0 100000")):
            self.accepts("KERNEL=Image", f"GIC={version}", "CPUS=8")
            self.assertEqual(self.property(gic, "compatible"), compatible)
            self.assertEqual(self.property(gic, "reg", kind="x"), reg)

    def test_two_groups_are_two_vms(self):
        self.accepts("KERNEL=Image", "NAME=one", "--", "KERNEL=Image", "INITRD=initrd", "NAME=two")
        listed = subprocess.run(["mkimage", "-l", self.path / "out.itb"], capture_output=True, text=True, check=True)
        self.assertIn("Configuration 0 (one)", listed.stdout)
        self.assertIn("Configuration 1 (two)", listed.stdout)
        self.assertIn("Init Ramdisk: ramdisk-two", listed.stdout)
        self.refuses_same_names()

    def refuses_same_names(self):
        (self.path / "out.itb").unlink()
        self.refuses("KERNEL=Image", "NAME=one", "--", "KERNEL=Image", "NAME=one", says=("NAME=one: two VMs ",))

    def test_a_vm_has_the_share_that_is_given_it(self):
        self.accepts("KERNEL=Image", "WEIGHT=10000", "CAP=1", "ON=63+0", "CRASH=stop",
                     "--", "KERNEL=Image", "PRIORITY=0", WEIGHT="7", ON="1")
        for name, wanted in (("weight", "10000"), ("cap-percent", "1"), ("cpus", "63 0")):
            self.assertEqual(self.property("/", f"trapeze,{name}", kind="u"), wanted)
        self.assertEqual(self.property("/", "trapeze,on-crash"), "stop")
        self.assertEqual(self.property("/", "trapeze,priority", "vm1", "u"), "0")
        # Of the environment nothing is taken: a variable of that name may be anybody's.
        source = (self.path / "out.vm1.dts").read_text(encoding="utf-8")
        self.assertNotIn("trapeze,weight", source)
        self.assertNotIn("trapeze,cpus", source)

    def test_a_share_that_no_vm_can_have_is_refused(self):
        for setting in ("WEIGHT=0", "WEIGHT=10001", "PRIORITY=32", "PRIORITY=high", "CAP=0", "CAP=101", "CAP=50%",
                        "ON=+", "ON=0-3", "ON=64", "ON=1+1", "ON=0,1", "CRASH=restart"):
            with self.subTest(setting):
                self.refuses("KERNEL=Image", setting, says=(f"bundle: {setting}: ",))
        self.refuses("KERNEL=Image", "WEIGHT=1", "PRIORITY=1", says=("WEIGHT=1: says nothing beside PRIORITY; ",))
        self.refuses("KERNEL=Image", "--", "KERNEL=Image", "CAP=0", says=("bundle: vm1: CAP=0: ",))

    def test_the_same_settings_give_the_same_bytes(self):
        self.accepts("KERNEL=Image", "INITRD=initrd")
        first = (self.path / "out.itb").read_bytes()
        self.accepts("KERNEL=Image", "INITRD=initrd")
        self.assertEqual(first, (self.path / "out.itb").read_bytes())


if __name__ == "__main__":
    unittest.main()

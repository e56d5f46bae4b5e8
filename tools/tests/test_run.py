"""Facts about tools/run and tools/qemu, with a QEMU that only says how it was called."""

import os
import stat
import subprocess
import tempfile
import unittest
from pathlib import Path

from .loading import ROOT, TOOLS


class Run(unittest.TestCase):
    """Runs the scripts with an environment of their own."""

    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        qemu = Path(self.directory.name) / "qemu-system-aarch64"
        qemu.write_text('#!/bin/sh\nfor argument; do echo "$argument"; done\nexit ${STATUS:-0}\n', encoding="utf-8")
        qemu.chmod(qemu.stat().st_mode | stat.S_IXUSR)

    def script(self, name: str, **environment: str) -> subprocess.CompletedProcess:
        path = {"PATH": f"{self.directory.name}:{os.environ['PATH']}"}
        return subprocess.run([TOOLS / name], env=path | environment, stdin=subprocess.DEVNULL, cwd=ROOT,
                              capture_output=True, text=True, check=False)

    def qemu(self, **environment: str) -> list[str]:
        done = self.script("qemu", **environment)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.splitlines()

    def assert_pair(self, arguments: list[str], option: str, value: str) -> None:
        self.assertIn((option, value), list(zip(arguments, arguments[1:])))

    def test_the_board_is_virt_at_el2(self):
        arguments = self.qemu(GIC="2", CPU="max", CPUS="8")
        self.assert_pair(arguments, "-machine", "virt,virtualization=on,gic-version=2")
        self.assert_pair(arguments, "-cpu", "max")
        self.assert_pair(arguments, "-smp", "8")
        self.assertNotIn("-semihosting", arguments)
        self.assertNotIn("-append", arguments)
        self.assertNotIn("-initrd", arguments)

    def test_the_board_has_memory_for_vm_bundle_and_hypervisor(self):
        self.assert_pair(self.qemu(MEM="1G"), "-m", "1152M")
        self.assert_pair(self.qemu(MEM="67108864"), "-m", "192M")
        bundle = Path(self.directory.name) / "bundle"
        bundle.write_bytes(bytes(3 << 20))
        self.assert_pair(self.qemu(MEM="64M", BUNDLE=str(bundle)), "-m", "196M")

    def test_quiet_is_stronger_than_a_log_level(self):
        self.assert_pair(self.qemu(LOG="debug"), "-append", "trapeze.log=debug")
        self.assert_pair(self.qemu(LOG="debug", QUIET="1"), "-append", "trapeze.log=off")

    def test_a_port_makes_qemu_wait_for_gdb_on_this_machine_only(self):
        arguments = self.qemu(PORT="4321")
        self.assertIn("-S", arguments)
        self.assert_pair(arguments, "-gdb", "tcp:127.0.0.1:4321")

    def test_further_options_are_split_at_spaces(self):
        self.assertEqual(self.qemu(QEMU_ARGS="-d int  -D log")[-4:], ["-d", "int", "-D", "log"])

    def test_the_exit_status_is_qemus(self):
        self.assertEqual(self.script("qemu", STATUS="3").returncode, 3)

    def test_what_make_is_given_wrong_is_one_line_that_names_it(self):
        for settings, words in (({"KERNEL": "nowhere"}, "KERNEL=nowhere: No such file"),
                                ({"GUEST": "windows"}, "GUEST=windows: no such guest"),
                                ({"GUEST": "hello", "GIC": "4"}, "GIC=4: neither 2 nor 3"),
                                ({"GUEST": "hello", "CPUS": "9"}, "CPUS=9: not a number from 1 to 8")):
            with self.subTest(settings):
                done = self.script("run", **settings)
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn(words, done.stderr)
                self.assertEqual(done.stderr.count("\n"), 1, done.stderr)


if __name__ == "__main__":
    unittest.main()

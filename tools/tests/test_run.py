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

    def started(self, guest: str, **settings: str) -> list[str]:
        """Returns what QEMU is called with for these guests; their trees stay in the directory."""
        bundle = f"{self.directory.name}/guest.itb"
        done = self.script("run", GUEST=guest, BUNDLE=bundle, **settings)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.splitlines()

    def assert_tree(self, vm: str, node: str, name: str, wanted: str, kind: str = "u") -> None:
        command = ["fdtget", "-t", kind, "-d", "none", f"{self.directory.name}/guest.{vm}.fdt", node, name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout.strip(), wanted)

    def assert_vcpus(self, vm: str, wanted: int) -> None:
        for cpu in range(8):
            self.assert_tree(vm, f"/cpus/cpu@{cpu}", "reg", str(cpu) if cpu < wanted else "none")

    def test_a_guest_of_the_list_says_for_itself_what_it_is_to_have(self):
        arguments = self.started("hello:cpus=2:mem=64M:weight=200:cap=50:on=0+2,hello:priority=31:crash=reset,"
                                 "hello:name=web:crash=hold", CPUS="3", MEM="32M")
        for property_, wanted in (("weight", "200"), ("cap-percent", "50"), ("cpus", "0 2"), ("priority", "none")):
            self.assert_tree("hello", "/", f"trapeze,{property_}", wanted)
        self.assert_tree("hello", "/memory@40000000", "reg", f"0 {0x4000_0000} 0 {64 << 20}")
        self.assert_vcpus("hello", 2)
        self.assert_tree("hello-2", "/", "trapeze,priority", "31")
        self.assert_tree("hello-2", "/", "trapeze,on-crash", "reset", "s")
        self.assert_tree("hello-2", "/memory@40000000", "reg", f"0 {0x4000_0000} 0 {32 << 20}")
        self.assert_vcpus("hello-2", 3)
        self.assert_tree("web", "/", "trapeze,on-crash", "hold", "s")
        self.assert_tree("web", "/", "trapeze,weight", "none")
        self.assert_pair(arguments, "-smp", "4")
        # The hypervisor's own memory and the bundle come on top of the VMs'.
        self.assert_pair(arguments, "-m", f"{64 + 32 + 32 + 128 + 1}M")

    def test_a_guest_of_several_has_one_vcpu_and_128_mib_and_a_name_of_its_own(self):
        arguments = self.started("hello:name=one,hello,hello")
        for vm in ("one", "hello", "hello-2"):
            self.assert_vcpus(vm, 1)
        self.assert_pair(arguments, "-smp", "3")
        self.assert_pair(arguments, "-m", f"{3 * 128 + 128 + 1}M")

    def test_a_guest_alone_has_a_cpu_for_each_vcpu(self):
        for guest, settings, vcpus, memory in (("hello:weight=9", {}, 4, 512), ("hello:cpus=6:mem=1G", {}, 6, 1024),
                                               ("hello", {"CPUS": "8", "MEM": "64MiB"}, 8, 64)):
            with self.subTest(guest):
                arguments = self.started(guest, **settings)
                self.assert_vcpus("hello", vcpus)
                self.assert_pair(arguments, "-smp", str(vcpus))
                self.assert_pair(arguments, "-m", f"{memory + 128 + 1}M")

    def test_the_board_has_as_many_cpus_as_it_is_to_have(self):
        for guest, pcpus in (("hello", "1"), ("hello:cpus=8,hello", "2"), ("hello,hello", "16")):
            with self.subTest(guest):
                self.assert_pair(self.started(guest, PCPUS=pcpus), "-smp", pcpus)
        self.assert_pair(self.started("hello:cpus=8,hello:cpus=8"), "-smp", "4")

    def test_the_built_in_guest_is_no_bundle(self):
        done = self.script("run", GUEST="hello", PCPUS="2")
        self.assertNotIn("-initrd", done.stdout.splitlines())
        self.assert_pair(done.stdout.splitlines(), "-smp", "2")

    def test_what_make_is_given_wrong_is_one_line_that_names_it(self):
        for settings, words in (({"KERNEL": "nowhere"}, "KERNEL=nowhere: No such file"),
                                ({"GUEST": "windows"}, "GUEST=windows: no such guest"),
                                ({"GUEST": "hello", "GIC": "4"}, "GIC=4: neither 2 nor 3"),
                                ({"GUEST": "hello", "CPUS": "9"}, "CPUS=9: not a number from 1 to 8"),
                                ({"GUEST": "hello", "PCPUS": "0"}, "PCPUS=0: not a number from 1 to 16"),
                                ({"GUEST": "hello", "PCPUS": "17"}, "PCPUS=17: not a number from 1 to 16"),
                                ({"GUEST": "hello", "PCPUS": "9", "GIC": "2"}, "PCPUS=9: not a number from 1 to 8"),
                                ({"GUEST": "hello", "PCPUS": "1", "BOARD": "rpi4"}, "PCPUS=1: a Raspberry Pi 4 has 4"),
                                ({"GUEST": "hello,windows:cpus=1"}, "no such guest; there are linux and hello"),
                                ({"GUEST": "hello:wieght=1"}, "wieght=1: not a setting with a value; there are "),
                                ({"GUEST": "hello:weight="}, "weight=: not a setting with a value; "),
                                ({"GUEST": "hello,hello:weight=0"}, "hello-2: WEIGHT=0: not a number from 1 to 10000"),
                                ({"GUEST": "hello,hello:cpus=two"}, "hello-2: CPUS=two: not a number from 1 to 8"),
                                ({"GUEST": "hello,hello:name=hello"}, "NAME=hello: two VMs have this one")):
            with self.subTest(settings):
                done = self.script("run", **settings)
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn(words, done.stderr)
                self.assertEqual(done.stderr.count("\n"), 1, done.stderr)


if __name__ == "__main__":
    unittest.main()

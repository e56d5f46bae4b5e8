"""A gdb session on the real image: stops at a guest's data abort and checks what the project's commands print.

Needs `make build guests`. The guest is hello: its first access to the PL011 is the data abort.
"""

import os
import re
import socket
import subprocess
import unittest

from .loading import ROOT, TOOLS

# At the first look-up of the PL011's flag register, IPA 0x9000018.
COMMANDS = (
    "trap-break data-abort", "continue", "trap-decode", "vcpu", "stage2 0x9000018", "stage2 0x40080000",
    "info symbol $pc", "info symbol $ELR_EL2", "delete", "hbreak exit_sync", "continue", "echo In the handler:\\n", "vcpu",
)


def free_port() -> int:
    """Returns a TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class GdbSession(unittest.TestCase):
    """One session; each test looks at another part of what it printed."""

    output = ""

    @classmethod
    def setUpClass(cls):
        port = str(free_port())
        machine = {**os.environ, "PORT": port, "GUEST": "hello", "QUIET": "1"}
        for setting in ("KERNEL", "INITRD", "APPEND", "CPUS", "MEM", "GIC", "CPU", "QEMU_ARGS", "BUNDLE", "IMAGE"):
            machine.pop(setting, None)
        with subprocess.Popen([TOOLS / "run"], cwd=ROOT, env=machine, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL) as qemu:
            try:
                wait = ["-ex", "python import time; time.sleep(1)"]
                commands = [word for command in (f"trapeze-attach {port}", *COMMANDS) for word in ("-ex", command)]
                session = subprocess.run(
                    ["gdb-multiarch", "-nx", "-q", "-batch", *wait, "-x", "tools/gdb/trapeze.py", *commands],
                    cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                    timeout=60, check=False)
                cls.output = session.stdout
            finally:
                qemu.kill()

    def assert_printed(self, pattern: str) -> None:
        self.assertRegex(self.output, re.compile(pattern, re.MULTILINE))

    def test_it_stops_at_the_vector(self):
        self.assert_printed(r"^Thread \d+ hit Breakpoint 1, .*")
        self.assert_printed(r"^vector_lower_sync in section \.text")

    def test_the_abort_is_decoded(self):
        self.assert_printed(r"^ESR_EL2 .*  data abort from a lower EL, translation fault, level \d, read, 32-bit, W register")
        self.assert_printed(r"^HPFAR_EL2 .*  IPA 0x9000018$")
        self.assert_printed(r"^SPSR_EL2 .*  EL1h, ")

    def test_the_vcpus_registers_are_printed(self):
        self.assert_printed(r"^At the vector: the registers are still the guest's\.$")
        self.assert_printed(r"^X0 +0x[0-9a-f]{16} .*X3 ")
        self.assert_printed(r"VBAR +0x")

    def test_in_the_hypervisor_the_vcpus_saved_registers_are_printed(self):
        _, _, in_the_handler = self.output.partition("In the handler:")
        self.assertRegex(in_the_handler, r"vCPU 0, saved at its exit\. PC 0x00000000400[0-9a-f]{5}  PSTATE EL1h, ")
        self.assertRegex(in_the_handler, r"X0 +0x[0-9a-f]{16} .*X3 ")

    def test_the_device_is_not_mapped_at_stage_2_but_ram_is(self):
        self.assert_printed(r"^IPA 0x9000018 is not mapped: translation fault, level \d$")
        self.assert_printed(r"(page|block) at 0x[0-9a-f]+, read-write, executable, Normal write-back, inner shareable")
        self.assert_printed(r"^IPA 0x40080000 is PA 0x[0-9a-f]+$")

    def test_the_guests_symbols_are_known(self):
        self.assert_printed(r"^hello::.* in section \.text of .*/hello$")


if __name__ == "__main__":
    unittest.main()

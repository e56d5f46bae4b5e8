"""Facts about tools/plugin, from runs of hello; skipped until `make` has built the plugin and the image."""

import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from tools.tests.loading import ROOT, TOOLS

sys.path.insert(0, str(TOOLS))
from measure.counts import Counts  # noqa: E402 # pylint: disable=wrong-import-position

BUILT = [ROOT / "target/count.so", ROOT / "target/trapeze.img", ROOT / "target/hello.img"]


def run(directory: str, cpus: int, cpu: str, *options: str) -> tuple[Counts, str]:
    """Runs hello under the hypervisor; returns what the plugin counted, and the console."""
    out, itb = Path(directory) / "counts", Path(directory) / "hello.itb"
    environment = {**os.environ, "CPUS": str(cpus), "CPU": cpu, "GIC": "3", "MEM": "16M", "KERNEL": "target/hello.img",
                   "INITRD": "", "APPEND": "", "LOG": "info", "QUIET": "", "BUNDLE": str(itb), "PORT": ""}
    subprocess.run(["tools/bundle", str(itb)], cwd=ROOT, env=environment, check=True)
    plugin = ",".join([str(BUILT[0]), f"out={out}", *options])
    line = ["tools/qemu", "-icount", "shift=0,sleep=off", "-plugin", plugin]
    done = subprocess.run(line, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True,
                          timeout=300)
    return Counts.read(out), done.stdout.decode()


@unittest.skipUnless(all(path.exists() for path in BUILT), "not built: make bench")
class Plugin(unittest.TestCase):
    """The plugin against what the hypervisor says of itself."""

    def setUp(self):
        self.directory = self.enterContext(tempfile.TemporaryDirectory())

    def test_it_counts_the_exits_that_the_hypervisor_counts(self):
        counted, console = run(self.directory, 1, "cortex-a72")
        told = int(re.search(r"is off after (\d+) exits", console)[1])
        self.assertEqual(sum(reasons.total() for reasons in counted.exits().values()), told)

    def test_it_counts_with_several_cpus(self):
        counted, console = run(self.directory, 4, "max", "pages=on")
        self.assertIn("CPUs: 4 online", console)
        self.assertGreater(counted.instructions(el=1), 0)
        # Each CPU stores to a stack and more of its own; a VM of 16 MiB would not fit in a MiB.
        self.assertTrue(4 * 4096 < counted.stored_bytes < 1 << 20, counted.stored_bytes)

    def test_text_on_the_console_ends_the_run(self):
        counted, console = run(self.directory, 1, "cortex-a72", "until=Clock")
        self.assertTrue(console.endswith("hello: Clock"), console)
        self.assertEqual(counted.start.tree[:4], b"\xd0\x0d\xfe\xed")

    def test_a_wrong_option_stops_qemu(self):
        with self.assertRaises(subprocess.CalledProcessError):
            run(self.directory, 1, "cortex-a72", "intil=Clock")

"""Facts about tools/bench and tools/measure: how counts are read, named, compared with bars and written down."""

import json
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from tools.tests.loading import ROOT, TOOLS

sys.path.insert(0, str(TOOLS))
from measure import bare, counts, figures, profile, table  # noqa: E402 # pylint: disable=wrong-import-position

TREE = """/dts-v1/;
/ { #address-cells = <2>; #size-cells = <2>;
    cpus { };
    memory@40000000 { device_type = "memory"; reg = <0 0x40000000 0 0x10000000>; };
    chosen { bootargs = "odd"; linux,initrd-start = <0 0x48000000>; };
};
"""


def of(lines: list[dict]) -> counts.Counts:
    """Returns what is read of these lines of the plugin."""
    with tempfile.NamedTemporaryFile("w", suffix=".counts") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
        file.flush()
        return counts.Counts.read(Path(file.name))


def data_abort(address: int, write: bool = False) -> dict:
    """Returns the line of an exit by a data abort."""
    return {"kind": "exit", "section": 0, "cpu": 0, "vector": 8, "class": 0x24,
            "detail": address | (counts.WRITE if write else 0), "count": 1}


class Counted(unittest.TestCase):
    """What the plugin wrote, read back."""

    def test_instructions_add_up_by_what_is_asked_for(self):
        run = of([{"kind": "instructions", "section": section, "cpu": 0, "el": el, "count": count}
                  for section, el, count in ((0, 1, 5), (0, 2, 7), (8, 1, 96), (8, 2, 4))]
                 + [{"kind": "entry", "pc": 1, "x0": 2, "count": 6, "tree": ""}, {"kind": "end"}])
        self.assertEqual(run.instructions(), 112)
        self.assertEqual(run.instructions(el=2), 11)
        self.assertEqual((run.before_entry, run.after_entry), (6, 106))
        self.assertEqual(figures.share(run, figures.COMPUTE), 4)

    def test_a_report_that_was_cut_off_is_refused(self):
        with self.assertRaises(ValueError):
            of([{"kind": "instructions", "section": 0, "cpu": 0, "el": 1, "count": 5}])

    def test_an_access_is_named_by_device_and_register(self):
        self.assertEqual(counts.named(data_abort(0x0800_6108, True)), ("GICD", "write IROUTER"))
        self.assertEqual(counts.named(data_abort(0x080A_0014)), ("GICR", "read 0x14"))
        self.assertEqual(counts.named(data_abort(0x0900_0018)), ("PL011", "read 0x18"))
        self.assertEqual(counts.named(data_abort(0x0B00_0000)), ("other memory", "read 0xb000000"))

    def test_a_system_register_is_named_with_its_direction(self):
        iss = 3 << 20 | 4 << 1  # ID_AA64PFR0_EL1: 3, 0, C0, C4, 0
        line = {"vector": 8, "class": 0x18, "detail": iss | 1}
        self.assertEqual(counts.named(line), ("system register", "read ID_AA64PFR0_EL1"))
        self.assertEqual(counts.named({**line, "detail": 3 << 20 | 15 << 10}),
                         ("system register", "write S3_0_C15_C0_0"))

    def test_interrupts_and_calls_are_groups_of_their_own(self):
        self.assertEqual(counts.named({"vector": 9, "class": 0, "detail": 0}), ("interrupt", ""))
        self.assertEqual(counts.named({"vector": 8, "class": 0x16, "detail": 0x8400_0000}), ("HVC", "0x84000000"))

    def test_memory_of_a_vm_is_not_the_hypervisors(self):
        run = of([{"kind": "stored", "first": 0, "pages": 3, "vm": 0},
                  {"kind": "stored", "first": 9, "pages": 9, "vm": 1}, {"kind": "end"}])
        self.assertEqual(run.stored_bytes, 3 * 4096)


class Measured(unittest.TestCase):
    """The guest's lines as costs, and bars."""

    CONSOLE = "\r\nbench: nothing 1 1 1\r\n\r\nbench: hvc 9 5 6\r\n....\r\nbench: smc - - -\r\n" \
              "bench: timer 4 4 4\r\nbench: end\r\n"

    def test_a_cost_is_the_median_without_the_measuring(self):
        found = figures.samples(self.CONSOLE)
        self.assertEqual(figures.cost(found, "hvc"), 5)
        self.assertEqual(figures.cost(found, "timer"), 4)

    def test_what_the_machine_does_not_have_costs_nothing_known(self):
        self.assertIsNone(figures.cost(figures.samples(self.CONSOLE), "smc"))

    def test_output_without_its_end_is_refused(self):
        with self.assertRaises(figures.Failed):
            figures.samples(self.CONSOLE.replace("bench: end", ""))

    def test_a_bar_is_missed_above_it_and_without_a_value(self):
        def missed(value):
            return figures.Figure("k", "words", "bytes", value, bar=10).is_missed
        self.assertEqual([missed(value) for value in (9, 10, 10.1, None)], [False, False, True, True])
        self.assertFalse(figures.Figure("k", "words", "bytes", 99, aim=10).is_missed)


class Written(unittest.TestCase):
    """Tables, and the README."""

    def results(self) -> figures.Results:
        """Returns a small set of results."""
        return figures.Results("10.0", {"cortex-a72, GICv3": [figures.Figure("hvc", "HVC", "instructions", 1234, 1)]},
                               [figures.Figure("boot", "boot", "%", 0.02, bar=0.05)], {"GICD": {"read 0x4": 2}})

    def rewritten(self, text: str) -> str:
        """Returns a README after its table was filled in."""
        with tempfile.NamedTemporaryFile("w+", suffix=".md") as file:
            file.write(text)
            file.flush()
            table.rewrite(Path(file.name), self.results())
            return Path(file.name).read_text(encoding="utf-8")

    def test_only_what_is_between_the_marks_changes(self):
        once = self.rewritten(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
        self.assertTrue(once.startswith(f"before\n{table.BEGIN}\n") and once.endswith(f"\n{table.END}\nafter\n"))
        self.assertIn("| HVC | 1 | 1,234 | – |", once)
        self.assertIn("| boot | – | 0.0200 % | 0.0500 % | – |", once)
        self.assertNotIn("old", once)
        self.assertEqual(self.rewritten(once), once)

    def test_a_readme_without_marks_is_an_error(self):
        with self.assertRaises(SystemExit):
            self.rewritten("no marks\n")

    def test_the_projects_readme_has_the_marks(self):
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        self.assertEqual((text.count(table.BEGIN), text.count(table.END)), (1, 1))


class Bare(unittest.TestCase):
    """The bare machine's memory as an ELF."""

    def test_everything_is_where_the_vm_had_it(self):
        tree = subprocess.run(["dtc", "-q", "-O", "dtb"], input=TREE.encode(), capture_output=True, check=True).stdout
        with tempfile.TemporaryDirectory() as directory:
            kernel, initrd = Path(directory) / "kernel", Path(directory) / "initrd"
            kernel.write_bytes(b"kernel!!")
            initrd.write_bytes(b"initrd")
            elf = bare.elf(counts.Start(0x4008_0000, 0x4880_0000, tree), str(kernel), str(initrd))
        entry, = struct.unpack_from("<Q", elf, 24)
        segments = {}
        for n in range(struct.unpack_from("<H", elf, 56)[0]):
            _, _, offset, _, address, size, _, _ = struct.unpack_from("<IIQQQQQQ", elf, 64 + 56 * n)
            segments[address] = elf[offset:offset + size]
        self.assertEqual(segments[0x4008_0000], b"kernel!!")
        self.assertEqual(segments[0x4800_0000], b"initrd")
        self.assertEqual(segments[0x4880_0000], tree)
        self.assertEqual(entry, 0x5000_0000 - 4096)
        self.assertEqual(struct.unpack("<QQ", segments[entry][16:]), (0x4880_0000, 0x4008_0000))


class Profiled(unittest.TestCase):
    """Addresses as functions."""

    def test_a_rust_path_is_shown_without_its_hash(self):
        self.assertEqual(profile.demangled("_ZN7trapeze10dispatcher4call17h0deed8c84a390691E"),
                         "trapeze::dispatcher::call")
        self.assertEqual(profile.demangled("_ZN32_$LT$a..b..C$u20$as$u20$d..E$GT$4load17h0deed8c84a390691E"),
                         "<a::b::C as d::E>::load")
        self.assertEqual(profile.demangled("exit_sync"), "exit_sync")


class CommandLine(unittest.TestCase):
    """What tools/bench is asked for."""

    def test_an_unknown_option_is_answered_with_the_usage(self):
        said = subprocess.run([str(TOOLS / "bench"), "--fast"], capture_output=True, text=True, check=False)
        self.assertNotEqual(said.returncode, 0)
        self.assertIn("--quick", said.stderr)



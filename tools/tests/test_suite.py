"""Facts about tools/suite: which KTAP logs it believes, what it says of the others, how a VM is held against bare."""

import tempfile
import textwrap
import unittest
import xml.etree.ElementTree as xml
from pathlib import Path
from unittest import mock

from .loading import tool

suite = tool("suite")


def parse(text: str):
    """Reads an indented log."""
    return suite.parse(textwrap.dedent(text).lstrip("\n"))


class Good(unittest.TestCase):
    """Logs that say what they have to."""

    def test_results_are_counted_by_outcome(self):
        log = parse("""
            KTAP version 1
            1..6
            ok 1 first
            ok 2 second # SKIP no such thing
            ok 3 - third
            ok 4
            not ok 5 fifth # TODO some day
            not ok 6 sixth # XFAIL known
        """)
        self.assertEqual(log.errors, [])
        self.assertEqual([case.name for case in log.cases], ["first", "second", "third", "test 4", "fifth", "sixth"])
        self.assertEqual([case.outcome for case in log.cases],
                         ["passed", "skipped", "passed", "passed", "skipped", "skipped"])
        self.assertEqual(log.cases[1].reason, "no such thing")
        self.assertTrue(log.is_good())

    def test_a_failure_carries_the_diagnostics_before_it(self):
        log = parse("""
            KTAP version 1
            1..2
            # of the first
            ok 1 first
            # seen 1
            # not 2
            not ok 2 second
        """)
        self.assertEqual(log.cases[1].diagnostics, ["seen 1", "not 2"])
        self.assertEqual(log.errors, [])
        self.assertFalse(log.is_good())

    def test_a_kernels_log_around_and_within_is_allowed(self):
        log = parse("""
            [    0.000000] Booting Linux on physical CPU 0x0
            ok, this is not KTAP yet
            [    0.100000] KTAP version 1
            [    0.100001] 1..2
            [    0.200000] random: crng init done
            [    0.300000][    T1] ok 1 first
            [    0.400000] ok 2 second\r
            reboot: Power down
        """)
        self.assertEqual(log.errors, [])
        self.assertEqual([case.name for case in log.cases], ["first", "second"])

    def test_subtests_are_named_after_their_parents(self):
        log = parse("""
            KTAP version 1
            1..2
                KTAP version 1
                # Subtest: outer
                1..2
                    KTAP version 1
                    1..1
                    ok 1 innermost
                ok 1 inner
                not ok 2 other
            not ok 1 outer
            ok 2 plain
        """)
        self.assertEqual(log.errors, [])
        self.assertEqual([(case.name, case.outcome) for case in log.cases],
                         [("outer.inner.innermost", "passed"), ("outer.other", "failed"), ("plain", "passed")])

    def test_a_parent_that_fails_by_itself_is_a_failure(self):
        log = parse("""
            KTAP version 1
            1..1
              KTAP version 1
              1..1
              ok 1 inner
            not ok 1 outer
        """)
        self.assertEqual([(case.name, case.outcome) for case in log.cases],
                         [("outer.inner", "passed"), ("outer", "failed")])

    def test_a_time_out_and_an_error_are_failures_whatever_the_word(self):
        log = parse("""
            KTAP version 1
            1..2
            ok 1 first # TIMEOUT 30 s
            ok 2 second # ERROR
        """)
        self.assertEqual([case.outcome for case in log.cases], ["failed", "failed"])


class Bad(unittest.TestCase):
    """Logs that must not pass, though no test in them has failed."""

    def assert_error(self, text: str, error: str) -> None:
        log = parse(text)
        self.assertTrue(any(error in seen for seen in log.errors), log.errors)
        self.assertFalse(log.is_good())

    def test_no_ktap_at_all(self):
        self.assert_error("Hello from EL1!\n", "no line says")
        self.assert_error("", "no line says")

    def test_missing_results(self):
        self.assert_error("KTAP version 1\n1..3\nok 1 first\nok 2 second\n",
                          "1 of 3 tests have no result; the last was 'second'")

    def test_missing_results_of_subtests(self):
        self.assert_error("KTAP version 1\n1..1\n  KTAP version 1\n  1..2\n  ok 1 inner\nok 1 outer\n", "1 of 2 tests")

    def test_a_log_that_ends_within_subtests(self):
        self.assert_error("KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  ok 1 inner\n",
                          "1 of 1 tests have no result")

    def test_no_plan(self):
        self.assert_error("KTAP version 1\nok 1 first\n", "without a plan")
        self.assert_error("KTAP version 1\n", "without a plan")

    def test_an_empty_plan(self):
        self.assert_error("KTAP version 1\n1..0\n", "no tests")

    def test_a_plan_behind_results(self):
        self.assert_error("KTAP version 1\nok 1 first\n1..1\n", "behind results")

    def test_two_plans(self):
        self.assert_error("KTAP version 1\n1..2\n1..2\nok 1 a\nok 2 b\n", "second plan")

    def test_one_result_too_many(self):
        self.assert_error("KTAP version 1\n1..1\nok 1 first\nok 2 second\n", "one more than the plan's 1")

    def test_numbers_out_of_order(self):
        self.assert_error("KTAP version 1\n1..2\nok 1 first\nok 1 second\n", "is number 1, not 2")
        self.assert_error("KTAP version 1\n1..3\nok 1 first\nok 3 third\n", "is number 3, not 2")

    def test_a_result_without_a_number(self):
        self.assert_error("KTAP version 1\n1..1\nok\n", "malformed")
        self.assert_error("KTAP version 1\n1..1\nnot ok 1first\n", "malformed")

    def test_bail_out(self):
        self.assert_error("KTAP version 1\n1..1\nok 1 first\nBail out! exception\n", "bailed out: exception")

    def test_a_kernel_that_starts_twice(self):
        self.assert_error("KTAP version 1\n1..2\nok 1 a\nKTAP version 1\n1..2\nok 1 a\nok 2 b\n", "started twice")
        self.assert_error("KTAP version 1\n1..1\nok 1 a\nKTAP version 1\n1..1\nok 1 a\n", "started twice")

    def test_a_parent_that_hides_a_failure(self):
        self.assert_error("KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  not ok 1 inner\nok 1 outer\n",
                          "'outer' is ok, but not its subtests")

    def test_a_version_that_nobody_knows(self):
        self.assert_error("KTAP version 2\n1..1\nok 1 first\n", "version 2")

    def test_indented_results_that_belong_to_no_list(self):
        self.assert_error("KTAP version 1\n1..1\n    ok 1 inner\nok 1 outer\n", "out of place")

    def test_every_prefix_of_a_good_log_is_bad(self):
        text = "KTAP version 1\n1..2\n  KTAP version 1\n  1..1\n  ok 1 inner\nok 1 outer\nok 2 plain\n"
        lines = text.splitlines(keepends=True)
        self.assertTrue(suite.parse(text).is_good())
        for count in range(len(lines)):
            self.assertFalse(suite.parse("".join(lines[:count])).is_good(), count)


class Compared(unittest.TestCase):
    """A VM's log against the bare machine's."""

    bare = "KTAP version 1\n1..3\nok 1 a\nok 2 b\nok 3 c # SKIP not there\n"

    def compared(self, vm: str, explained: str = ""):
        log = suite.parse(vm)
        suite.compare(suite.parse(self.bare), log, suite.read_explained(explained))
        return log

    def test_the_same_is_good(self):
        self.assertTrue(self.compared(self.bare).is_good())

    def test_what_is_skipped_in_the_vm_only_is_a_failure(self):
        log = self.compared("KTAP version 1\n1..3\nok 1 a\nok 2 b # SKIP no PMU\nok 3 c # SKIP not there\n")
        self.assertEqual([case.name for case in log.of("failed")], ["b"])

    def test_what_is_explained_is_skipped_and_nothing_else(self):
        vm = "KTAP version 1\n1..3\nnot ok 1 a\nnot ok 2 b\nok 3 c\n"
        log = self.compared(vm, "# why\nb: the emulator has none\n")
        self.assertEqual([case.name for case in log.of("failed")], ["a"])
        self.assertEqual(log.cases[1].reason, "explained: the emulator has none")

    def test_what_is_explained_on_a_board_is_explained_there_only(self):
        explained = {"a": "always", "b on rpi4": "no such wire"}
        self.assertEqual(suite.on_board(explained, "rpi4"), {"a": "always", "b": "no such wire"})
        self.assertEqual(suite.on_board(explained, "virt"), {"a": "always"})

    def test_another_list_of_tests_is_an_error(self):
        log = self.compared("KTAP version 1\n1..2\nok 1 a\nok 2 d\n")
        self.assertIn("2 tests ran on the bare machine only, from 'b' on", log.errors)
        self.assertIn("1 tests ran in the VM only, from 'd' on", log.errors)

    def test_what_is_explained_exists(self):
        sources = "".join(path.read_text() for path in (suite.ROOT / "guests/suite/src").glob("*.rs"))
        for name, reason in suite.read_explained(suite.EXPLAINED.read_text()).items():
            self.assertIn(f"fn {name.partition(' on ')[0].rpartition('.')[2]}(", sources)
            self.assertTrue(reason, name)


class Machines(unittest.TestCase):
    """How a machine's end is judged, and what is written about it."""

    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        patch = mock.patch.object(suite, "OUT", Path(self.directory.name))
        patch.start()
        self.addCleanup(patch.stop)

    def judge(self, script: str, limit: str = "20"):
        with mock.patch.dict("os.environ", {"LIMIT": limit}):
            return suite.judge("machine", ["sh", "-c", script], None)

    def test_a_good_machine(self):
        log, _ = self.judge("printf 'KTAP version 1\\n1..1\\nok 1 a\\n'")
        self.assertTrue(log.is_good())

    def test_a_machine_that_hangs_is_ended_with_all_it_started(self):
        log, seconds = self.judge("printf 'KTAP version 1\\n1..2\\nok 1 a\\n'; sleep 60 & sleep 60", limit="1")
        self.assertEqual(log.errors[0], "not done after 1 s")
        self.assertIn("the last was 'a'", log.errors[1])
        self.assertLess(seconds, 30)

    def test_a_machine_that_crashes_is_bad_whatever_its_log_says(self):
        log, _ = self.judge("printf 'KTAP version 1\\n1..1\\nok 1 a\\n'; echo oh >&2; exit 3")
        self.assertEqual(log.errors, ["the machine ended with status 3: oh"])

    def test_bytes_that_are_no_text_are_judged_too(self):
        log, _ = self.judge("printf 'KTAP version 1\\n1..1\\n\\377\\000\\n# \\001\\nnot ok 1 a\\n'")
        self.assertEqual(log.errors, [])
        self.assertEqual(log.cases[0].diagnostics, ["\x01"])
        xml.fromstring(xml.tostring(suite.junit("x", log, 1.0)))

    def test_the_xml_counts_what_the_log_has(self):
        log = parse("""
            KTAP version 1
            1..4
            ok 1 gic.one
            # 1 & 2 < 3
            not ok 2 gic.two
            ok 3 three # SKIP none
        """)
        element = suite.junit("vm", log, 2.0)
        self.assertEqual((element.get("tests"), element.get("failures"), element.get("skipped"), element.get("errors")),
                         ("4", "1", "1", "1"))
        failure = element.find("testcase/failure")
        self.assertEqual(failure.text, "1 & 2 < 3")
        self.assertEqual(element.find("testcase").get("classname"), "vm.gic")
        self.assertIn("1 of 4 tests", element.find("testcase/error").text)


if __name__ == "__main__":
    unittest.main()

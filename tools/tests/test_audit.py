"""Facts about tools/audit: what it refuses, what it explains, and what it complains of."""

import unittest
from collections import Counter

from tools.theorem import compare, log, machine, page, theorem, trace, words
from tools.theorem.compare import EXPLAINED, SAME, UNEXPLAINED, VOLATILE, Explanation, Machine
from tools.theorem.space import BadTable, Encoding, Group, Space, trap_bits

A72 = Machine("cortex-a72", 3)
MIDR, TCR, RNDR = Encoding(3, 0, 0, 0, 0), Encoding(3, 0, 2, 0, 2), Encoding(3, 3, 2, 4, 0)


def space() -> Space:
    """Returns a small space: one register of each kind."""
    return Space({MIDR: "MIDR_EL1", TCR: "TCR_EL1", RNDR: "RNDR"}, [
        Group("volatile", ["RNDR"], "innocuous", "innocuous", "C6", volatile=True),
        Group("identity", ["MIDR_EL1"], "behaviour", "innocuous", "D24", banked="VPIDR_EL2"),
        Group("control", ["*"], "behaviour", "control", "D24", traps={"HCR_EL2.TVM": ["TCR_EL1"]}),
    ])


def console(*outcomes: str, guest: str = "abc", midr: str = "410fd083", probes: int = 200_000,
            form: int = log.FORMAT) -> str:
    """Returns what the guest would print."""
    lines = [f"@audit format={form} guest={guest} midr={midr} gic=3", *outcomes, f"@probes el1={probes} el0={probes}"]
    end = f"@end lines={len(lines)} sum={log.fnv(''.join(lines).encode()):x}"
    return "trapeze: vm audit: starts, 1 vCPUs\n" + "".join(f"{line}\r\n" for line in [*lines, end])


def verdicts(bare: str, vm: str, known: list[Explanation], of: Encoding = TCR, access: str = "W") -> list[str]:
    """Returns the verdicts on one access that did `bare` and `vm`; empty: UNDEFINED."""
    logs = tuple(log.read(console(*([f"@1{access} {of} {what}"] if what else [])), "test") for what in (bare, vm))
    return [it.verdict for it in compare.compare(space(), A72, logs, known)]


def explanation(**fields) -> Explanation:
    """Returns an entry of explained.toml with what a test does not care for filled in."""
    return Explanation(**{"registers": ["TCR_EL1"], "reason": "because", "section": "D24", "bare": "fill", "vm": "fill",
                          "cpus": ["cortex-a72"], **fields})


class Logs(unittest.TestCase):
    """What is a log, and what is refused."""

    def refused(self, text: str) -> str:
        with self.assertRaises(log.Refused) as caught:
            log.read(text, "test")
        return str(caught.exception)

    def test_a_complete_log_is_read(self):
        read = log.read(console(f"@1R {MIDR} =410fd083", f"@1W {TCR} fill 1 0 !2000000 2"), "test")
        self.assertEqual(read.outcomes[(1, "R", MIDR)], ("=410fd083",))
        self.assertEqual((read.guest, read.midr, read.gic), ("abc", 0x410f_d083, 3))

    def test_a_register_that_is_only_written_has_two_outcomes(self):
        read = log.read(console(f"@1W {TCR} ok", f"@1W {TCR} !62300000"), "test")
        self.assertEqual(read.outcomes[(1, "W", TCR)], ("ok", "!62300000"))

    def test_a_log_that_stops_is_refused(self):
        whole = console(f"@1R {MIDR} =1", f"@1R {TCR} =2").splitlines(keepends=True)
        for length in range(1, len(whole)):
            with self.subTest(length):
                self.assertRegex(self.refused("".join(whole[:length])), "incomplete|no header")

    def test_a_log_that_lost_a_line_is_refused(self):
        whole = console(f"@1R {MIDR} =1", f"@1R {TCR} =2").splitlines(keepends=True)
        self.assertIn("incomplete", self.refused("".join(whole[:2] + whole[3:])))

    def test_a_log_with_a_changed_byte_is_refused(self):
        self.assertIn("damaged", self.refused(console(f"@1R {MIDR} =1").replace(" =1", " =2")))

    def test_what_is_no_log_is_refused(self):
        for text in ("", "hello: Hello from EL1!\n", "@end lines=0 sum=0\n"):
            self.assertIn("no header", self.refused(text))
        self.assertIn("format", self.refused(console(form=log.FORMAT + 1)))
        self.assertIn("not all", self.refused(console(probes=5)))
        self.assertIn("not an outcome", self.refused(console("@1R 3.0.0.0.0 maybe")))

    def test_logs_of_other_guests_and_machines_are_foreign(self):
        ours = log.read(console(), "test")
        for other in (console(guest="def"), console(midr="413fd0c1")):
            with self.assertRaisesRegex(log.Refused, "foreign"):
                log.comparable(ours, log.read(other, "test"), "test")
        log.comparable(ours, log.read(console(f"@1R {MIDR} =1"), "test"), "test")


class Verdicts(unittest.TestCase):
    """What a difference comes to."""

    def test_what_is_alike_is_the_same(self):
        self.assertEqual(verdicts("fill 1 0 1 0", "fill 1 0 1 0", []), [SAME])

    def test_a_difference_without_an_entry_is_unexplained(self):
        for bare, vm in (("fill 1 0 1 0", "fill 1 0 1 1"), ("ok", ""), ("", "ok"), ("=1", "!62300000")):
            self.assertEqual(verdicts(bare, vm, []), [UNEXPLAINED])

    def test_an_entry_explains_what_it_names_and_nothing_else(self):
        differs = ("fill 1 0 1 0", "fill 1 0 1 1")
        self.assertEqual(verdicts(*differs, [explanation()]), [EXPLAINED])
        for other in ({"registers": ["MIDR_EL1"]}, {"cpus": ["max"]}, {"gics": [2]}, {"levels": [0]}, {"access": "R"},
                      {"vm": "undefined"}, {"bits": 0x2}):
            with self.subTest(other):
                self.assertEqual(verdicts(*differs, [explanation(**other)]), [UNEXPLAINED])

    def test_patterns_are_names_or_encodings(self):
        for pattern, fits in {"TCR*": True, "3.0.2.0.2": True, "3.0.0-3.*.*": True, "3.0.3-4.0.2": False,
                              "tcr": False}.items():
            self.assertEqual(compare.matches(pattern, TCR, "TCR_EL1"), fits, pattern)
        with self.assertRaises(BadTable):
            compare.matches("3.0.2", TCR, "TCR_EL1")

    def test_what_changes_by_itself_may_have_other_values_but_no_other_outcome(self):
        self.assertEqual(verdicts("=1", "=2", [], RNDR, "R"), [VOLATILE])
        self.assertEqual(verdicts("=1", "", [], RNDR, "R"), [UNEXPLAINED])

    def test_an_entry_that_explains_nothing_is_stale(self):
        entry = explanation(registers=["TCR_EL1", "MIDR_EL1"], gics=[3])
        verdicts("fill 1 0 1 0", "fill 1 0 1 1", [entry])
        self.assertEqual(len(compare.stale([entry], {A72})), 1)
        self.assertIn("MIDR_EL1", compare.stale([entry], {A72})[0])
        self.assertEqual(compare.stale([entry], {Machine("max", 3)}), [], "a CPU that was not run says nothing")


class Theorem(unittest.TestCase):
    """Classes and violations."""

    def report(self, bare: str, vm: str, trapped: int, of: Encoding = TCR, access: str = "W") -> theorem.Report:
        logs = tuple(log.read(console(*([f"@1{access} {of} {what}"] if what else [])), "test") for what in (bare, vm))
        found = compare.compare(space(), A72, logs, [])
        counts = Counter({(of, access): trapped})
        return theorem.Report(A72, theorem.instructions(space(), found, counts), 1, 1, (1.0, 1.0))

    def test_a_sensitive_instruction_that_neither_traps_nor_is_banked_is_a_violation(self):
        self.assertIn("neither trapped nor banked", theorem.violations(space(), self.report("ok", "ok", 0))[0])
        self.assertEqual(theorem.violations(space(), self.report("ok", "ok", 3)), [])
        self.assertEqual(theorem.violations(space(), self.report("ok", "", 0)), [], "not there")
        self.assertEqual(theorem.violations(space(), self.report("=1", "=1", 0, MIDR, "R")), [], "banked")

    def test_a_trap_that_no_row_accounts_for_is_a_violation(self):
        self.assertIn("no bit", theorem.violations(space(), self.report("=1", "=1", 3, MIDR, "R"))[0])

    def test_classes_are_the_papers(self):
        [it] = self.report("=1", "=1", 0, MIDR, "R").instructions
        self.assertEqual(theorem.paper_class(space(), it), "privileged, behaviour-sensitive")
        [it] = self.report("=1", "=1", 0, RNDR, "R").instructions
        self.assertEqual(theorem.paper_class(space(), it), "privileged")

    def test_traps_are_counted_from_the_syndrome(self):
        self.assertEqual(machine.accessed(0x30_E419), (Encoding(3, 3, 9, 12, 0), "R"))
        self.assertEqual(machine.accessed(0x3A_3016), (Encoding(3, 0, 12, 11, 5), "W"))


class Tables(unittest.TestCase):
    """The checked-in tables."""

    def test_tables_are_sound(self):
        tables = Space.load()
        for encoding in tables.names:
            tables.group(encoding)
        self.assertEqual(list(tables.names), sorted(tables.names), "registers.txt is in the order of the encoding")

    def test_each_pattern_of_an_explanation_names_a_register(self):
        tables = Space.load()
        for entry in compare.explanations():
            for pattern in entry.registers:
                self.assertTrue(any(compare.matches(pattern, *named) for named in tables.names.items()), pattern)

    def test_trap_bits_are_read_from_the_page(self):
        self.assertEqual(trap_bits("## HCR_EL2\n\n| 7:6 | VF, VI | 0x0 | always |\n"), {"HCR_EL2.VF", "HCR_EL2.VI"})


class Pages(unittest.TestCase):
    """What is written."""

    def test_a_page_has_each_instruction_and_is_self_contained(self):
        logs = tuple(log.read(console(f"@1R {MIDR} ={value}"), "test") for value in "12")
        found = compare.compare(space(), A72, logs, [])
        report = theorem.Report(A72, theorem.instructions(space(), found, Counter()), 1, 1, (1.0, 1.0))
        html = page.html(space(), [report], ["a <complaint>"])
        self.assertIn('<rect class="UNEXPLAINED"', html)
        self.assertIn("a &lt;complaint&gt;", html)
        self.assertNotRegex(html, r"https?://|src=|<link")
        self.assertIn("| 3.0.0.0.0 | R | MIDR_EL1 |", page.markdown(space(), [report], []))


class Words(unittest.TestCase):
    """The verdict on random words."""

    def watch(self, *lines: str) -> tuple[words.Verdict, int]:
        verdict = words.Verdict(A72, 1)
        after = [f"@beside round={number} changed=0" for number in range(9)]
        return verdict, words.watch(verdict, iter([*lines, *after]), 0, 20_000)

    def test_words_that_end_are_done(self):
        verdict, following = self.watch("@at 8192", "@random seed=1 first=0 count=20000 undefined=5 calls=2",
                                        "trapeze: vm words: is off after 7 exits")
        self.assertEqual((verdict.complaints, verdict.crashes, following), ([], [], 20_000))
        self.assertEqual((verdict.executed, verdict.counts), (20_000, {"undefined": 5, "calls": 2}))

    def test_a_vm_that_crashes_itself_is_gone_on_with(self):
        verdict, following = self.watch("@at 8192", "trapeze: vm words: crashed after 7 exits")
        self.assertEqual((verdict.complaints, len(verdict.crashes), following), ([], 1, 8192 + words.REPORT))

    def test_a_bug_of_the_hypervisor_is_a_complaint(self):
        self.assertTrue(self.watch("@at 8192", "trapeze: bug: panicked")[0].complaints)

    def test_a_neighbour_that_changed_or_ended_is_a_complaint(self):
        self.assertTrue(self.watch("@beside round=4 changed=1")[0].complaints)
        self.assertTrue(self.watch("trapeze: vm beside: crashed after 3 exits")[0].complaints)

    def test_a_machine_that_ends_early_is_a_complaint(self):
        verdict = words.Verdict(A72, 1)
        words.watch(verdict, iter(["@at 8192"]), 0, 20_000)
        self.assertTrue(verdict.complaints)


class Traces(unittest.TestCase):
    """The same words in both worlds."""

    KNOWN = [trace.WordExplanation(0xffe0_001f, 0xd400_0003, "undefined", "because", "C6")]
    ENDS, UNDEFINED, ABORT = (f"vector=4 esr={esr}" for esr in ("5600a0d1", "2000000", "96000010"))

    def differences(self, bare: trace.Word, vm: trace.Word) -> tuple[int, int]:
        lines, explained = trace.differences(space(), ([bare], [vm]), self.KNOWN)
        return len(lines), explained

    def test_a_word_that_did_the_same_is_no_difference(self):
        word = trace.Word(0x1234, self.ENDS, "1")
        self.assertEqual(self.differences(word, word), (0, 0))

    def test_another_exception_or_another_value_is_a_difference(self):
        for vm in (trace.Word(0x1234, self.ABORT, "1"), trace.Word(0x1234, self.ENDS, "2"),
                   trace.Word(0x1235, self.ENDS, "1")):
            self.assertEqual(self.differences(trace.Word(0x1234, self.ENDS, "1"), vm), (1, 0))

    def test_what_is_undefined_on_the_bare_machine_alone_is_explained(self):
        smc, ends = trace.Word(0xd400_0003, self.UNDEFINED, "1"), trace.Word(0xd400_0003, self.ENDS, "2")
        self.assertEqual(self.differences(smc, ends), (0, 1))
        self.assertEqual(self.differences(ends, smc), (1, 0))

    def test_a_register_that_changes_by_itself_may_have_another_value(self):
        mrs = 0xd53b_2400  # MRS X0, RNDR
        self.assertEqual(self.differences(trace.Word(mrs, self.ENDS, "1"), trace.Word(mrs, self.ENDS, "2")), (0, 1))

    def test_a_trace_without_all_its_words_is_refused(self):
        line = "@word 0 1234 vector=4 esr=5600a0d1 sum=1\r\n"
        self.assertEqual(trace.read(line, "test", 1), [trace.Word(0x1234, self.ENDS, "1")])
        with self.assertRaises(log.Refused):
            trace.read(line, "test", 2)


if __name__ == "__main__":
    unittest.main()

"""The suite of docs/suite.md on boards: its KTAP, read from the console, judged as tools/suite does."""

import re
import time

import pexpect
import pytest
from tools.tests.loading import tool

suite = tool("suite")
LIMIT_S = 180
END = re.compile(rb"trapeze: (?:vm \S+: (?:is off|crashed) after|error: the machine stops)[^\n]*\n")


def read_console(console) -> bytes:
    """Returns all that the board says until its VM has ended or the time is up."""
    said, deadline = b"", time.monotonic() + LIMIT_S
    while not END.search(said) and time.monotonic() < deadline:
        try:
            chunk = console.read(timeout=1.0)
        except pexpect.TIMEOUT:
            continue
        if not chunk:
            break  # the other end has hung up
        said += chunk
    return said


def test_suite(board, bare, record_property):
    """Runs the suite on a board. Its console stays in target/suite."""
    board.transition("running")
    said = read_console(board.console)
    (suite.OUT / f"lab-{board.target.name}.ktap").write_bytes(said)
    log = suite.parse(said.decode(errors="replace"))
    reasons = suite.read_explained(suite.EXPLAINED.read_text(encoding="utf-8"))
    suite.compare(bare, log, suite.on_board(reasons, board.board))
    for outcome in (suite.PASSED, suite.FAILED, suite.SKIPPED):
        record_property(outcome, len(log.of(outcome)))
    if not END.search(said):
        log.errors.insert(0, f"the VM has not ended after {LIMIT_S} s")
    if not log.is_good():
        failed = [" ".join(["not ok", case.name, case.reason, *case.diagnostics]) for case in log.of(suite.FAILED)]
        pytest.fail("\n".join(log.errors + failed), pytrace=False)

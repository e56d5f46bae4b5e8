"""The boards to test: one for each target of labgrid's environment (--lg-env)."""

import places
import pytest
from labgrid.pytestplugin.hooks import LABGRID_ENV_KEY
from tools.tests.loading import tool

suite = tool("suite")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Makes a test for each board."""
    if "board" in metafunc.fixturenames:
        env = metafunc.config.stash[LABGRID_ENV_KEY]
        if env is None:
            raise pytest.UsageError("no boards: give --lg-env=tests/labgrid/qemu.yaml, or another one there")
        boards = places.expand(env)
        if not boards:
            raise pytest.UsageError(f"no boards: no place at {places.coordinator(env)} has the tag that is asked for")
        metafunc.parametrize("board", boards, indirect=True, scope="session")


@pytest.fixture(scope="session")
def board(request: pytest.FixtureRequest):
    """Returns the strategy of a board, which is off again at the end. One at a place is taken as long as that."""
    env = request.config.stash[LABGRID_ENV_KEY]
    place = places.place_of(env.config.get_targets()[request.param])
    if place and (reason := places.acquire(env, place)):
        pytest.skip(reason)
    try:
        strategy = env.get_target(request.param).get_driver("TrapezeStrategy", activate=False)
        yield strategy
        strategy.transition("off")
    finally:
        if place:
            places.release(env, place)


@pytest.fixture(scope="session")
def bare():
    """Returns what the suite says without a hypervisor, on QEMU's board that a VM is laid out as."""
    suite.OUT.mkdir(parents=True, exist_ok=True)
    command = ["tools/qemu", "-no-reboot", "-append", ""]
    log, _ = suite.judge("bare-lab", command, suite.bare_environment(suite.RPI4))
    assert log.is_good(), log.errors or [case.name for case in log.of(suite.FAILED)]
    return log

"""How labgrid brings a board from off to running Trapeze: power, with the console open before it.

The board finds Trapeze by itself: on its card, on the network, or as QEMU's command line says.
"""

import enum

import attr
from labgrid.factory import target_factory
from labgrid.strategy import Strategy, StrategyError, never_retry


class Status(enum.Enum):
    """What a board can be."""

    UNKNOWN = "unknown"
    OFF = "off"
    RUNNING = "running"


@target_factory.reg_driver
@attr.s(eq=False)
class TrapezeStrategy(Strategy):
    """Switches a board, which `board` names as tools/suite does."""

    bindings = {"power": "PowerProtocol", "console": "ConsoleProtocol"}
    board = attr.ib(validator=attr.validators.instance_of(str))
    status = attr.ib(default=Status.UNKNOWN)

    @never_retry
    def transition(self, status: str) -> None:
        """Brings the board to `off`, or to `running` from a cold start."""
        wanted = Status(status)
        if wanted is Status.UNKNOWN:
            raise StrategyError(f"no way to {status}")
        self.target.activate(self.power)
        self.power.off()
        if wanted is Status.RUNNING:
            # Before the power, so that not a character is lost.
            self.target.activate(self.console)
            self.power.on()
        self.status = wanted

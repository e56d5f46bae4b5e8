"""Runs a command in a lab with one board, which is QEMU's: rack.py COMMAND...

The lab is real: labgrid's coordinator, and its exporter with a serial server and a power switch in the network. Behind
those two this program has QEMU's Raspberry Pi 4, started with target/lab/bundle.itb, where a lab has the board.
"""

import contextlib
import http.server
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = Path(sys.executable).parent
LIMIT_S = 30


class Board:
    """A board with a power switch and a serial line, to which one program at a time listens."""

    def __init__(self):
        self.machine = None
        self.line = socket.create_server(("127.0.0.1", 0))
        self.listener = None
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        """Lets the next program listen."""
        while True:
            self.listener, _ = self.line.accept()

    def switch(self, is_on: bool) -> None:
        """Turns the power on or off."""
        if self.machine:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.machine.pid, signal.SIGKILL)
            self.machine.wait()
            self.machine = None
        if is_on:
            environment = {"PATH": os.environ["PATH"], "BOARD": "rpi4", "BUNDLE": str(ROOT / "target/lab/bundle.itb")}
            self.machine = subprocess.Popen([ROOT / "tools/qemu"], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
                                            stdout=subprocess.PIPE, start_new_session=True)
            threading.Thread(target=self.speak, args=(self.machine.stdout,), daemon=True).start()

    def speak(self, output) -> None:
        """Passes on what the board says; what nobody listens to is lost, as on any line."""
        while said := os.read(output.fileno(), 4096):
            with contextlib.suppress(OSError, AttributeError):
                self.listener.sendall(said)


class PowerSwitch(http.server.BaseHTTPRequestHandler):
    """The network's side of the switch: labgrid's power port of the model `rest`."""

    board: Board

    def do_PUT(self) -> None:  # pylint: disable=invalid-name
        """Switches."""
        self.board.switch(self.rfile.read(int(self.headers["Content-Length"])) == b"1")
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_) -> None:
        """Says nothing."""


def exported(console: int, power: int) -> str:
    """Returns what the exporter offers, as its configuration."""
    return f"""
shelf:
  NetworkSerialPort: {{host: 127.0.0.1, port: {console}, speed: 115200, protocol: raw}}
  NetworkPowerPort: {{model: rest, host: "http://127.0.0.1:{power}/{{index}}", index: "1"}}
"""


@contextlib.contextmanager
def daemon(log: Path, *command: str):
    """Has a program run in the background."""
    with open(log, "ab") as output, subprocess.Popen(command, stdout=output, stderr=output,
                                                     stdin=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def until_it_works(*command: str) -> None:
    """Repeats a command until what it talks to is up."""
    deadline = time.monotonic() + LIMIT_S
    while (done := subprocess.run(command, capture_output=True, text=True, check=False)).returncode:
        if time.monotonic() > deadline:
            sys.exit(f"rack: {' '.join(command)}: {done.stdout}{done.stderr}")
        time.sleep(0.3)


def main() -> int:
    """Builds the lab, runs the command in it and returns its status."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    board = PowerSwitch.board = Board()
    switch = http.server.ThreadingHTTPServer(("127.0.0.1", 0), PowerSwitch)
    threading.Thread(target=switch.serve_forever, daemon=True).start()
    client = (str(TOOLS / "labgrid-client"), "-x", coordinator, "-p", "shelf-1")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as lab:
        offer, log = Path(folder) / "exporter.yaml", ROOT / "target/lab/rack.log"
        offer.write_text(exported(board.line.getsockname()[1], switch.server_port), encoding="utf-8")
        # The coordinator keeps its places in the folder that it is started in.
        lab.enter_context(contextlib.chdir(folder))
        lab.enter_context(daemon(log, str(TOOLS / "labgrid-coordinator"), "-l", coordinator))
        until_it_works(*client, "create")
        lab.enter_context(daemon(log, str(TOOLS / "labgrid-exporter"), "-c", coordinator, "-n", "rack", str(offer)))
        until_it_works(*client, "add-match", "rack/shelf/*")
        until_it_works(*client, "set-tags", "board=rpi4")
        until_it_works(*client, "acquire")
        until_it_works(*client, "release")
        try:
            return subprocess.run(sys.argv[1:], cwd=ROOT, env=os.environ | {"LG_COORDINATOR": coordinator},
                                  check=False).returncode
        finally:
            board.switch(False)


if __name__ == "__main__":
    sys.exit(main())

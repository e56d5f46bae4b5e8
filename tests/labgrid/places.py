"""The places of a lab: which there are with a tag, and taking one as long as it is needed.

A target whose RemotePlace is called as a tag, `board=rpi4`, stands for every place that has it.
"""

import copy
import os
import subprocess
import sys
from pathlib import Path

from labgrid import Environment
from labgrid.remote.client import start_session

CLIENT = Path(sys.executable).parent / "labgrid-client"


def coordinator(env: Environment) -> str:
    """Returns where labgrid finds the coordinator, too."""
    return env.config.get_option("coordinator_address", os.environ.get("LG_COORDINATOR", "127.0.0.1:20408"))


def place_of(target: dict) -> str:
    """Returns the name of the place that a target of the environment is at, or nothing."""
    return target.get("resources", {}).get("RemotePlace", {}).get("name", "")


def tagged(env: Environment, key: str, value: str) -> list[str]:
    """Returns the names of the places that have a tag."""
    session = start_session(coordinator(env), extra={"env": env})
    names = sorted(name for name, place in session.places.items() if place.tags.get(key) == value)
    session.loop.run_until_complete(session.stop())
    session.loop.run_until_complete(session.close())
    return names


def expand(env: Environment) -> list[str]:
    """Makes a target for each place where one stands for all with a tag; returns the names of all targets."""
    targets = env.config.data["targets"]
    for name, target in list(targets.items()):
        key, is_tag, value = place_of(target).partition("=")
        if is_tag:
            del targets[name]
            for place in tagged(env, key, value):
                targets[place] = copy.deepcopy(target)
                targets[place]["resources"]["RemotePlace"]["name"] = place
    return list(targets)


def client(env: Environment, place: str, command: str) -> subprocess.CompletedProcess:
    """Has labgrid's own client do something with a place."""
    return subprocess.run([CLIENT, "-x", coordinator(env), "-p", place, command], capture_output=True, text=True,
                          check=False)


def acquire(env: Environment, place: str) -> str:
    """Takes a place; returns why it cannot be had, or nothing."""
    done = client(env, place, "acquire")
    return (done.stderr or done.stdout).strip() if done.returncode else ""


def release(env: Environment, place: str) -> None:
    """Gives a place back."""
    client(env, place, "release")

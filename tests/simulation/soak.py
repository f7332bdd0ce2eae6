"""Plays one world after another: `python -m tests.simulation.soak`, for a time or a number of seeds.

A seed that breaks a promise is printed with the command that plays it again. `make soak` runs this on all cores with
seeds that nobody has seen before, and the state machine beside it.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import subprocess
import sys
import time
import traceback

from tests.simulation.play import play
from tests.simulation.world import world

MOST_FAILURES = 5
APART = 10**6
"""Between the first seeds of two workers."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=secrets.randbelow(10**9), help="the first seed; by default drawn")
    parser.add_argument("--count", type=int, default=0, help="how many seeds; by default as many as the time allows")
    parser.add_argument("--minutes", type=float, default=0.0, help="how long; by default until all seeds are played")
    parser.add_argument("--workers", type=int, default=1, help="processes, each with seeds of its own")
    parser.add_argument("--examples", type=int, default=0, help="runs of the state machine beside them")
    given = parser.parse_args()
    if given.workers == 1 and not given.examples:
        logging.disable(logging.WARNING)  # what fails here fails on purpose
        return work(given.first, given.count or (10**9 if given.minutes else 1), given.minutes)
    return oversee(given)


def oversee(given: argparse.Namespace) -> int:
    """Starts the workers and the state machine, and waits for all of them."""
    amount = ["--minutes", str(given.minutes), "--count", str(given.count)]
    commands = [
        [sys.executable, "-m", "tests.simulation.soak", "--first", str(given.first + APART * worker), *amount]
        for worker in range(given.workers)
    ]
    if given.examples:
        seed = f"--hypothesis-seed={given.first}"
        say(f"state machine: {given.examples} examples with {seed}")
        commands.append([sys.executable, "-m", "pytest", "-q", seed, "tests/simulation/test_machine.py"])
    environment = {**os.environ, "SOAK_EXAMPLES": str(given.examples)}
    environment.pop("CI", None)  # in CI hypothesis says the same each time; here it must not
    started = [subprocess.Popen(command, env=environment) for command in commands]
    try:
        return max(process.wait() for process in started)
    finally:
        for process in started:
            process.terminate()


def work(first: int, count: int, minutes: float) -> int:
    """Plays seeds until there are enough, or enough are broken; returns the exit code."""
    end, played, calls, broken = time.monotonic() + 60 * minutes, 0, 0, []
    say(f"seeds from {first} on")
    while played < count and len(broken) < MOST_FAILURES and (not minutes or time.monotonic() < end):
        seed = first + played
        played += 1
        try:
            with world(seed) as made:
                play(made)
                calls += made.shared.calls
        except Exception:  # noqa: BLE001  # whatever it is, it is what is looked for
            broken.append(seed)
            again = f"python -m tests.simulation.soak --first {seed} --count 1"
            say(f"seed {seed} is broken; again: {again}\n{traceback.format_exc()}")
    say(f"{played} seeds from {first} on, {calls} calls to the store, broken: {broken or 'none'}")
    return 1 if broken else 0


def say(text: str) -> None:
    """At once, also where the output is a file."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

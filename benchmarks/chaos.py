"""Kills a study with SIGKILL at random moments until it is done, and counts what was lost and what was run twice.

Run it with the study's own runner (an embedded Ray): `python benchmarks/chaos.py --kills 20`. It prints, after each
kill, how many segments were committed by then, and at the end: facts lost (segments that changed or vanished), trials
sampled twice, steps run again beyond each running trial's newest checkpoint, and how often a step key has two results.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tune_tasks.events import Event, Planned, Reports
from tune_tasks.store import open_objects
from tune_tasks.store.log import StudyLog

ROOT = Path(__file__).parent.parent
SPEC = ROOT / "examples" / "digits" / "study.yaml"


def main() -> None:
    """Runs the experiment and prints its table; the exit code is 1 where anything was lost or done twice."""
    options = _options()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as store:
        url, killed, lost = Path(store) / "digits-mlp", 0, 0
        committed: dict[str, bytes] = {}
        began = time.monotonic()
        while True:
            process = _start(store, options.trials)
            wanted = len(committed) + chance.randint(1, options.segments) if killed < options.kills else None
            if not _survives(process, url, wanted, chance.uniform(0, 1)):
                break
            process.kill()
            process.wait()
            killed += 1
            now = _segments(url)
            lost += sum(now.get(name) != data for name, data in committed.items())
            committed = now
            print(f"kill {killed:3d}: {len(committed):4d} segments committed", flush=True)
        ok = _conclude(url, killed, lost, options.trials, time.monotonic() - began)
    sys.exit(0 if ok else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--segments", type=int, default=8, help="most commits between two kills")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _start(store: str, trials: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tune_tasks", "run", str(SPEC), "--no-promote"]
    changes = ["--set", f"store={store}", "--set", f"budget.trials={trials}"]
    return subprocess.Popen([*command, *changes], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _survives(process: subprocess.Popen[bytes], url: Path, wanted: int | None, patience: float) -> bool:
    """Waits for `wanted` segments, then `patience` seconds; False where the run came to its end before."""
    while process.poll() is None and (wanted is None or len(_segments(url)) < wanted):
        time.sleep(0.01)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    if process.poll() not in (None, 0):
        raise RuntimeError(f"the run failed by itself with exit code {process.returncode}")
    return process.poll() is None


def _segments(url: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (url / "log").glob("*.jsonl")}


def _conclude(url: Path, killed: int, lost: int, trials: int, seconds: float) -> bool:
    log = StudyLog(open_objects(str(url)))
    events = [event for segment in log.segments() for event in segment.events]
    state = log.load()
    sampled = Counter(p.number for event in events if isinstance(event, Planned) for p in event.proposals)
    keys = Counter(event.key for event in events if hasattr(event, "key") and event.type != "promoting")
    figures = {
        "kills": killed,
        "seconds in all": round(seconds),
        "trials asked for": trials,
        "trials in the study": len(state.trials),
        "trials over": state.count("completed", "pruned", "failed"),
        "committed segments lost or changed": lost,
        "trials sampled twice": sum(count > 1 for count in sampled.values()),
        "step keys with two results": sum(count > 1 for count in keys.values()),
        "steps reported": sum(len(event.trial) for event in events if isinstance(event, Reports)),
        "steps run again": _repeated(events),
    }
    for name, figure in figures.items():
        print(f"{name:38} {figure}")
    return lost == 0 and len(state.trials) == trials and max(sampled.values()) == 1 and max(keys.values()) == 1


def _repeated(events: list[Event]) -> int:
    """Steps that the log holds more than once."""
    steps = Counter(
        pair for event in events if isinstance(event, Reports) for pair in zip(event.trial, event.step, strict=True)
    )
    return sum(count - 1 for count in steps.values())


if __name__ == "__main__":
    main()

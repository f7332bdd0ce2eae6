"""Kills the driver of the digits study with SIGKILL, resumes it, and counts what was lost and what was run twice.

    python benchmarks/chaos.py                          # a few kills of each kind, and Ray Tune beside it
    python benchmarks/chaos.py --kills 200 --calls 0 --beside 0
    python benchmarks/chaos.py --kills 20 --runner ray --calls 0 --beside 0

Three experiments, one column each of the table at the end. *Random moments*: after some seconds, or some segments.
*Each store call*: the n-th call to the store ends the process, before it or after it has its effect, for every n.
*Beside Ray Tune*: both run their own driver on an embedded Ray and are killed when the same shares of the work are
done; Ray Tune goes on with `Tuner.restore`, once as it comes and once with a snapshot after each event. What was really
trained is in a side file that the objective syncs before it reports. Where the trials run one at a time (inline), a
killed study must end exactly as one that was never killed; with two at a time their order is that of the machine.
The exit code is 1 where tune_tasks lost or repeated anything that it must not.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from audit import LOSSES, Audit, outcome, segments
from epochs import noted
from killed import PATHS, ROOT, WRITES, Forked, die, environment, killed, left_behind, start, watch_calls

SPEC = ROOT / "examples" / "digits" / "study.yaml"
MEMORY = Path("/dev/shm")  # noqa: S108  # a study there need not wait for a disk, which a killed process does not need
PATIENCE = 25.0
"""Seconds in which what a killed driver leaves behind may end by itself."""
FIGURES = ("kills", "trials", "epochs trained", "reports unknown after a kill", "epochs re-run", *LOSSES)


class Place:
    """A study of its own below a folder: its spec, its store, its side file."""

    def __init__(self, folder: Path, options: argparse.Namespace, *, runner: str, trials: int, seed: int = 7) -> None:
        folder.mkdir(parents=True)
        self.folder, self.notes, self.url = folder, folder / "notes", folder / "digits-mlp"
        self.ray, self.output = folder / "r", folder / "output"
        self.variables = environment(self.notes, self.ray)
        self.ray.mkdir()
        changes = {"store": folder, "objective": f"epochs:{options.objective}", "sampler.seed": seed}
        changes |= {"budget.trials": trials, "budget.wall_time": "null", "execution.runner": runner}
        if options.objective == "count":
            changes |= {"sampler.name": "random"}
        self.arguments = ["run", str(SPEC), "--no-promote"]
        self.arguments += [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
        self.audit, self.inline = Audit(self.url), runner == "inline"

    def run(self, reached: Callable[[], bool] = lambda: False) -> bool:
        """Runs, or goes on, until the moment comes; False where the study came to its end before."""
        if self.inline:
            process = Forked(partial(_command, self), self.output)
        else:
            process = start(["-m", "tune_tasks", *self.arguments], self.variables, self.output)
        if not killed(process, reached):
            return False
        self.audit.look(noted(self.notes))
        return True

    def end(self) -> Counter[str]:
        """Counts, and removes what is no longer needed."""
        figures = self.audit.conclude(noted(self.notes))
        figures["processes left behind"] = left_behind(self.ray, PATIENCE)
        return figures


def main() -> None:
    """Runs the experiments and prints one table."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a polite kill must not leave folders and processes
    columns: dict[str, Counter[str]] = {}
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    memory = Path(tempfile.mkdtemp(prefix="chaos-", dir=MEMORY)) if os.access(MEMORY, os.W_OK) else folder
    began = time.monotonic()
    try:
        if options.kills:
            columns[f"random moments, {options.runner}"] = at_moments(folder / "m", options)
        if options.calls:
            columns["each store call, inline"] = at_calls(memory / "c", options)
        ours = list(columns)
        if options.beside:
            columns["beside, ray"] = beside(folder / "b", options)
            ours.append("beside, ray")
            for name, snapshot in (("Ray Tune", None), ("Ray Tune, all snapshots", "0")):
                columns[name] = ray_tune(folder / f"t{snapshot}", options, snapshot)
    finally:
        for place in (folder, memory):
            left_behind(place, 0.0)
            shutil.rmtree(place, ignore_errors=True)
    _show(columns, options, time.monotonic() - began)
    sys.exit(any(columns[name][figure] for name in ours for figure in LOSSES))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="at random moments")
    parser.add_argument("--runner", choices=("inline", "ray"), default="inline", help="for the random moments")
    parser.add_argument("--trials", type=int, default=64, help="of a study that is killed at random moments")
    parser.add_argument("--each", type=int, default=25, help="most kills of one study; then another one begins")
    parser.add_argument("--calls", type=int, default=3, metavar="TRIALS", help="of the study killed at each call")
    parser.add_argument("--epochs", type=int, default=9, help="most epochs of a trial in that study")
    parser.add_argument("--beside", type=int, default=4, metavar="KILLS", help="beside Ray Tune, which takes minutes")
    parser.add_argument("--objective", choices=("train", "count"), default="train", help="count: nothing to train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of a table")
    return parser.parse_args()


def at_moments(folder: Path, options: argparse.Namespace) -> Counter[str]:
    """Kills studies, one after another, until there were enough kills."""
    chance, total, study = random.Random(options.seed), Counter[str](), 0
    while total["kills"] < options.kills:
        study += 1
        quiet, place = (
            Place(folder / f"{kind}{study}", options, runner=options.runner, trials=options.trials, seed=study)
            for kind in ("quiet", "killed")
        )
        began = time.monotonic()
        if quiet.inline:
            _first(quiet)
        longest = min(4.0, time.monotonic() - began) if quiet.inline else 15.0
        kills = 0
        while kills < min(options.each, options.kills - total["kills"]) and place.run(_moment(place, chance, longest)):
            kills += 1
        while place.run():
            pass
        total.update(place.end())
        total.update(kills=kills, studies=1)
        if quiet.inline:
            total[LOSSES[-1]] += outcome(place.url) != outcome(quiet.url)
        _say(f"{total['kills']} kills, {study} studies: {_bad(total)}")
        if study > 2 * options.kills:
            raise RuntimeError("most studies end before a kill meets them; choose more trials")
    return total


def _moment(place: Place, chance: random.Random, longest: float) -> Callable[[], bool]:
    """Some seconds after the start, or some segments later and a moment more; as often the one as the other."""
    began, known, pause = time.monotonic(), place.audit.known, chance.uniform(0, 0.2)
    if chance.random() < 0.5:
        limit = began + chance.uniform(0, longest)
        return lambda: time.monotonic() >= limit
    wanted = known + chance.randint(1, 6)

    def reached() -> bool:
        if len(segments(place.url)) < wanted:
            return False
        time.sleep(pause)
        return True

    return reached


def at_calls(folder: Path, options: argparse.Namespace) -> Counter[str]:
    """Kills a small study at its first call to the store, another one at its second, and so on; each is resumed."""
    # Each fact becomes a commit of its own, so that a kill can leave any of them last.
    short = ("execution.group_time=0.000001", f"scheduler.max_budget={options.epochs}")
    quiet = Place(folder / "quiet", options, runner="inline", trials=options.calls)
    names = _first(quiet, short)
    total = Counter({"store calls": len(names)})
    for number, name in enumerate(names, 1):
        for moment in ("before", "after") if name in WRITES else ():  # what reads changes nothing
            place = Place(folder / f"{number}{moment}", options, runner="inline", trials=options.calls)
            heard = _deadly(number, moment)
            total["kills"] += killed(Forked(partial(_command, place, heard, short), place.output), _never)
            place.audit.look(noted(place.notes))
            if killed(Forked(partial(_command, place, changes=short), place.output), _never):
                raise RuntimeError("a resumed study was killed")
            total.update(place.audit.conclude(noted(place.notes)))
            total[LOSSES[-1]] += outcome(place.url) != outcome(quiet.url)
            shutil.rmtree(place.folder)
        if number % 20 == 0:
            _say(f"{number} of {len(names)} calls: {_bad(total)}")
    return total


def _never() -> bool:
    return False


def _deadly(number: int, moment: str) -> Callable[[int, str, str], None]:
    return lambda n, _, m: die() if (n, m) == (number, moment) else None


def _first(place: Place, changes: Sequence[str] = ()) -> list[str]:
    """Runs a study to its end, tells which calls to the store it made, and loads what it has loaded.

    So hundreds of forked runs start at once.
    """
    record, loaded = place.folder / "calls", place.folder / "loaded"

    def heard(_: int, name: str, moment: str) -> None:
        if moment == "before":
            with record.open("a") as file:
                file.write(f"{name}\n")

    def work() -> int:
        code = _command(place, heard, changes)
        loaded.write_text(" ".join(sys.modules))
        return code

    sys.path[:0] = [path for path in PATHS if path not in sys.path]
    importlib.import_module("tune_tasks.store.local")
    killed(Forked(work, place.output), _never)
    for name in loaded.read_text().split():
        with contextlib.suppress(ImportError):  # some are made by hand and cannot be imported
            importlib.import_module(name)
    if "objective" in sys.modules:
        sys.modules["objective"].data()
    return record.read_text().split()


def _command(
    place: Place, heard: Callable[[int, str, str], None] = lambda *_: None, changes: Sequence[str] = ()
) -> int:
    """The command line, in this process."""
    from tune_tasks import cli

    os.environ.update(place.variables)
    watch_calls(heard)
    return cli.main([*place.arguments, *(word for change in changes for word in ("--set", change))])


def beside(folder: Path, options: argparse.Namespace) -> Counter[str]:
    """Kills a study on an embedded Ray when shares of the work are done."""
    quiet = Place(folder / "quiet", options, runner="ray", trials=options.trials)
    began = time.monotonic()
    quiet.run()
    total = Counter({"seconds, never killed": round(time.monotonic() - began)})
    work, place = len(noted(quiet.notes)), Place(folder / "killed", options, runner="ray", trials=options.trials)
    quiet.end()
    began = time.monotonic()
    for share in _shares(options):
        total["kills"] += place.run(_done(place.notes, share * work))
        total["processes left behind"] += left_behind(place.ray, PATIENCE)
        _say(f"tune_tasks killed after {share:.0%} of the work: {_bad(total)}")
    place.run()
    total["seconds"] = round(time.monotonic() - began)
    total.update(place.end())
    return total


def ray_tune(folder: Path, options: argparse.Namespace, snapshot: str | None) -> Counter[str]:
    """The same for Ray Tune; with `snapshot` as the period, in seconds, of its snapshots."""
    from beside import Experiment

    quiet = Experiment(folder / "quiet", options.trials, snapshot)
    began = time.monotonic()
    quiet.run()
    total = Counter({"seconds, never killed": round(time.monotonic() - began)})
    work, place = len(noted(quiet.notes)), Experiment(folder / "killed", options.trials, snapshot)
    began = time.monotonic()
    for share in _shares(options):
        total["kills"] += place.run(_done(place.notes, share * work))
        _say(f"Ray Tune killed after {share:.0%} of the work")
    place.run()
    total["seconds"] = round(time.monotonic() - began)
    total.update(place.end())
    return total


def _done(notes: Path, work: float) -> Callable[[], bool]:
    return lambda: len(noted(notes)) >= work


def _shares(options: argparse.Namespace) -> list[float]:
    chance = random.Random(options.seed)
    return [0.95 * (number + chance.random()) / options.beside for number in range(options.beside)]


def _bad(figures: Counter[str]) -> str:
    return ", ".join(f"{figures[name]} {name}" for name in LOSSES if figures[name]) or "nothing lost"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _show(columns: dict[str, Counter[str]], options: argparse.Namespace, seconds: float) -> None:
    if options.json:
        print(json.dumps(columns))
        return
    names = list(dict.fromkeys([*FIGURES, *(name for column in columns.values() for name in column)]))
    width = max(map(len, names))
    print(" " * width, *(f"{name:>{len(name) + 2}}" for name in columns))
    for name in names:
        cells = (_cell(column, name).rjust(len(title) + 2) for title, column in columns.items())
        print(name.ljust(width), *cells)
    print(f"{seconds:.0f} s in all")


def _cell(column: Counter[str], name: str) -> str:
    return str(column[name]) if name in column else "-"


if __name__ == "__main__":
    main()

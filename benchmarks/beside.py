"""An experiment of Ray Tune for `chaos.py`: run, killed, restored, and asked what it still knows."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from epochs import noted
from killed import ROOT, environment, killed, left_behind, start

TRIES = 3


class Experiment:
    """One folder with an experiment, and the processes that work on it."""

    def __init__(self, folder: Path, trials: int, snapshot: str | None) -> None:
        folder.mkdir(parents=True)
        self.folder, self.notes, self.ray = folder, folder / "notes", folder / "r"
        self.ray.mkdir()
        self._command = [str(ROOT / "benchmarks" / "ray_tune.py"), str(folder), str(trials), "7"]
        self._variables = environment(self.notes, self.ray)
        if snapshot is not None:
            self._variables["TUNE_GLOBAL_CHECKPOINT_S"] = snapshot
        self._figures = Counter[str]()

    def run(self, reached: Callable[[], bool] = lambda: False) -> bool:
        """Begins, or restores, and goes on until the moment comes; False where it came to its end before."""
        restored, before = self.folder / "restored.json", noted(self.notes)
        restored.unlink(missing_ok=True)
        ended = not self._tried(reached)
        if before and restored.exists():
            self._figures["reports unknown after a kill"] += len(set(before) - _epochs(restored))
        return not ended

    def _tried(self, reached: Callable[[], bool]) -> bool:
        """Runs until it is killed, or has ended; what fails by itself is counted, and tried again a few times."""
        for _ in range(TRIES):
            was_killed, failure = False, None
            try:
                was_killed = killed(start(self._command, self._variables, self.folder / "output"), reached)
            except RuntimeError as error:
                failure = error
                self._figures["restores that failed"] += 1
                print((self.folder / "output").read_text()[-2_000:], file=sys.stderr)
            self._figures["processes left behind"] += left_behind(self.ray, 3.0 if was_killed else 0.0)
            if failure is None:
                return was_killed
        raise RuntimeError(f"Ray Tune failed {TRIES} times in a row, last by: {failure}")

    def end(self) -> Counter[str]:
        """The figures of an experiment that came to its end."""
        trained, final = noted(self.notes), _epochs(self.folder / "final.json")
        trials = json.loads((self.folder / "final.json").read_text())
        self._figures.update(
            {
                "trials": len(trials),
                "epochs trained": len(trained),
                "reports never recorded": len(set(trained) - final),
                "trials forgotten": len({trial for trial, _ in trained} - set(trials)),
                "epochs re-run": len(trained) - len(set(trained)),
            }
        )
        return self._figures


def _epochs(path: Path) -> set[tuple[str, int]]:
    return {(trial, epoch) for trial, epochs in json.loads(path.read_text()).items() for epoch in epochs}

"""What a trial costs beyond its own work: plain Ray actors by hand, tune_tasks with its durable log, and Ray Tune.

    python benchmarks/overhead.py                      # everything, a few minutes
    python benchmarks/overhead.py --trials 5000 --only plain,streaming,rounds
    python benchmarks/overhead.py --trials 480 --seconds 1 --workers 16 --only plain,streaming,ray_tune_reuse

The objective reports ten times and does nothing else, or sleeps so that a trial lasts `--seconds`. Each contender runs
in a process of its own, one after another on the same machine, on two workers with one core each, or `--workers` that
share what there is, with random search. "MiB" is what the driver's memory grew by after the start, "reports/s" counts
those that are in the log. The clock starts when the workers are warm,
for Ray Tune, which shows nothing earlier, with its first result; what came before is the start, stated apart.
tune_tasks runs its steps on a log on the local disk, every commit fsynced. Ray Tune, in the environment of
`ray[tune]`, keeps its default loggers and files.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WORKERS = int(os.environ.get("OVERHEAD_WORKERS", "2"))
SECONDS = float(os.environ.get("OVERHEAD_SECONDS", "0"))
REPORTS = int(os.environ.get("OVERHEAD_REPORTS", "10"))
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "0"}


@contextmanager
def embedded_ray() -> Iterator[None]:
    """A Ray of two cores that prints nothing."""
    import ray

    ray.init(address="local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def loss_of(config: dict[str, float], step: int) -> float:
    """What every contender's trial computes for a report, and how long that takes."""
    if SECONDS:
        time.sleep(SECONDS / REPORTS)
    return config["x"] / (step + 1)


def memory() -> float:
    """MiB of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def plain(trials: int, _: Path) -> dict[str, float]:
    """Two warm actors, one call a trial that returns its reports; nothing is sampled, recorded or decided."""
    import ray

    begun = time.perf_counter()
    with embedded_ray():

        @ray.remote(num_cpus=1)
        class Worker:
            def run(self, config: dict[str, float]) -> list[dict[str, float]]:
                return [{"loss": loss_of(config, step)} for step in range(REPORTS)]

        idle = [Worker.remote() for _ in range(WORKERS)]
        ray.get([worker.run.remote({"x": 1.0}) for worker in idle])
        start = time.perf_counter()
        running: dict[Any, Any] = {}
        reports = next_trial = 0
        while next_trial < trials or running:
            while idle and next_trial < trials:
                worker = idle.pop()
                running[worker.run.remote({"x": float(next_trial)})] = worker
                next_trial += 1
            ready, _ = ray.wait(list(running))
            for call in ready:
                idle.append(running.pop(call))
                reports += len(ray.get(call))
        end = time.perf_counter()
    assert reports == trials * REPORTS
    return {"start": start - begun, "run": end - start}


def train(config: dict[str, float]) -> None:
    """The objective for tune_tasks."""
    import tune_tasks as tt

    for step in range(REPORTS):
        tt.report({"loss": loss_of(config, step)})


def streaming(trials: int, folder: Path) -> dict[str, float]:
    """tune_tasks, one launch step that samples and evaluates on its own."""
    return _tune_tasks(trials, folder, flow="streaming")


def rounds(trials: int, folder: Path) -> dict[str, float]:
    """tune_tasks, sample, launch and evaluate in turn, in batches of the default size."""
    return _tune_tasks(trials, folder, flow="rounds")


def large_rounds(trials: int, folder: Path) -> dict[str, float]:
    """The same in ten batches."""
    return _tune_tasks(trials, folder, flow="rounds", batch=max(1, trials // 10))


def runner_alone(trials: int, folder: Path) -> dict[str, float]:
    """The runner with nothing behind it: no sampler, no log, no decisions."""
    from tune_tasks.execution import TrialTask

    begun = time.perf_counter()
    with warm_runner(spec_of(trials, folder)) as runner:
        start = time.perf_counter()
        _drive(runner, [TrialTask(number, 1, {"x": float(number)}, None, None) for number in range(trials)])
        end = time.perf_counter()
    return {"start": start - begun, "run": end - start}


def _drive(runner: Any, tasks: list[Any]) -> None:
    from tune_tasks.execution import Over, Row

    count = {"over": 0, "rows": 0}

    def deliver(message: Any) -> None:
        count["over"] += isinstance(message, Over)
        count["rows"] += isinstance(message, Row)

    runner.open(deliver)
    waiting = iter(tasks)
    while count["over"] < len(tasks):
        runner.submit(list(itertools.islice(waiting, runner.room(len(tasks)))))
        runner.wait(0.1)
    assert count["rows"] == REPORTS * len(tasks)


def _warm(runner: Any) -> None:
    """Runs trials until each worker has had one; those that are up first take more."""
    from tune_tasks.execution import Began, Over, TrialTask

    workers, running = set[str](), set[int]()

    def deliver(message: Any) -> None:
        if isinstance(message, Began):
            workers.add(message.worker)
        elif isinstance(message, Over):
            running.discard(message.trial)

    runner.open(deliver)
    for number in itertools.count(1):
        if len(workers) == WORKERS and not running:
            return
        if runner.room(WORKERS) and len(workers) < WORKERS:
            running.add(-number)
            runner.submit([TrialTask(-number, 1, {"x": 1.0}, None, None)])
        runner.wait(0.01)


def spec_of(trials: int, folder: Path, **execution: Any) -> Any:
    """The study of this benchmark."""
    from tune_tasks import StudySpec

    return StudySpec(
        name="overhead",
        store=str(folder),
        objective=train,
        metric="loss",
        mode="min",
        space={"x": {"type": "float", "low": 0.0, "high": 1.0}},
        sampler={"name": "random", "seed": 1},
        scheduler="none",
        budget={"trials": trials, "concurrency": WORKERS},
        execution=execution,
    )


@contextmanager
def warm_runner(spec: Any) -> Iterator[Any]:
    """A runner that has run a trial, which no log knows, on each of its workers."""
    from tune_tasks import open_study
    from tune_tasks.steps import make_runner

    with embedded_ray():
        runner = make_runner(open_study(spec))
        _warm(runner)
        yield runner
        runner.close()


def _tune_tasks(trials: int, folder: Path, **execution: Any) -> dict[str, float]:
    from tune_tasks import evaluate_and_prune, launch_trials, open_study, sample

    spec = spec_of(trials, folder, **execution)
    begun = time.perf_counter()
    with warm_runner(spec) as runner:
        study = open_study(spec)
        before, start = memory(), time.perf_counter()
        done = False
        while not done:  # the loop of tune_tasks.tune, on a runner that is warm
            batch = sample(study)
            launch_trials(study, batch, runner=runner)
            done = evaluate_and_prune(study, batch).done
        end, grown = time.perf_counter(), memory() - before
    state = open_study(str(folder / "overhead")).state
    assert state.count("completed") == trials
    assert sum(len(trial.reports) for trial in state.trials) == trials * REPORTS
    return {"start": start - begun, "run": end - start, "MiB": grown}


def ray_tune(trials: int, folder: Path, *, reuse: bool) -> dict[str, float]:
    """Ray Tune, random search, on the same two cores."""
    from ray import tune

    marks: list[float] = []

    class Clock(tune.Callback):
        def on_trial_result(self, **_: Any) -> None:
            if not marks:
                marks.extend([time.perf_counter(), memory()])

    def trainable(config: dict[str, float]) -> None:
        for step in range(REPORTS):
            tune.report({"loss": loss_of(config, step)})

    begun = time.perf_counter()
    with embedded_ray():
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            param_space={"x": tune.uniform(0.0, 1.0)},
            tune_config=tune.TuneConfig(num_samples=trials, metric="loss", mode="min", reuse_actors=reuse),
            run_config=tune.RunConfig(storage_path=str(folder), verbose=0, callbacks=[Clock()]),
        )
        results = tuner.fit()
        end, grown = time.perf_counter(), memory() - marks[1]
    assert len(results) == trials
    assert not results.num_errors
    return {"start": marks[0] - begun, "run": end - marks[0], "MiB": grown}


def ray_tune_default(trials: int, folder: Path) -> dict[str, float]:
    """A new actor for each trial."""
    return ray_tune(trials, folder, reuse=False)


def ray_tune_reuse(trials: int, folder: Path) -> dict[str, float]:
    """Actors are reused."""
    return ray_tune(trials, folder, reuse=True)


CONTENDERS: dict[str, tuple[Callable[[int, Path], dict[str, float]], str]] = {
    "plain": (plain, "plain Ray actors"),
    "runner": (runner_alone, "the runner alone, no log"),
    "streaming": (streaming, "tune_tasks, streaming"),
    "rounds": (rounds, "tune_tasks, rounds of 8"),
    "large_rounds": (large_rounds, "tune_tasks, 10 rounds"),
    "ray_tune_reuse": (ray_tune_reuse, "Ray Tune, reuse_actors"),
    "ray_tune_default": (ray_tune_default, "Ray Tune, default"),
}


def measure(name: str, trials: int) -> dict[str, float]:
    """Runs a contender in a process of its own; milliseconds for each trial, seconds to start."""
    folder = Path(tempfile.mkdtemp(prefix="overhead-"))
    try:
        command = [sys.executable, __file__, "--child", name, "--trials", str(trials), "--folder", str(folder)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, **QUIET}, cwd=Path.cwd()
        )
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stdout}\n{done.stderr}")
        took = json.loads(done.stdout.splitlines()[-1])
        return {"ms": took["run"] / trials * 1000, "start": took["start"], "MiB": took.get("MiB", float("nan"))}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Compares, or, as a child, runs one contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="for plain Ray and tune_tasks")
    parser.add_argument("--repeats", type=int, default=3, help="of plain Ray and tune_tasks; the median is shown")
    parser.add_argument("--reuse-trials", type=int, default=100, help="for Ray Tune with reuse_actors")
    parser.add_argument("--default-trials", type=int, default=20, help="for Ray Tune as it comes")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long a trial lasts")
    parser.add_argument("--workers", type=int, default=WORKERS, help="how many trials run at once")
    parser.add_argument("--reports", type=int, default=REPORTS, help="of each trial")
    parser.add_argument("--only", default=",".join(CONTENDERS), help="contenders, with commas between them")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(CONTENDERS[options.child][0](options.trials, options.folder)))
        return
    for name in ("workers", "seconds", "reports"):
        os.environ[f"OVERHEAD_{name.upper()}"] = str(getattr(options, name))
    compare(options)


def compare(options: argparse.Namespace) -> None:
    """Takes turns, so that whatever else the machine does meets all contenders alike."""
    names = options.only.split(",")
    counts = dict.fromkeys(names, options.trials)
    counts |= {"ray_tune_reuse": options.reuse_trials, "ray_tune_default": options.default_trials}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(options.repeats):
        for name in names:
            if turn == 0 or not name.startswith("ray_tune"):
                results[name].append(measure(name, counts[name]))
                print(f"  {name}: {results[name][-1]['ms']:.2f} ms a trial", file=sys.stderr)
    middle = {name: statistics.median(run["ms"] for run in runs) for name, runs in results.items()}
    ideal = options.seconds / options.workers * 1000
    print(
        f"{'':26}{'trials':>8}{'ms a trial':>12}{'x ideal':>9}{'reports/s':>11}{'MiB':>6}{'start s':>9}"
        f"{'x plain Ray':>13}"
    )
    for name in names:
        start = statistics.median(run["start"] for run in results[name])
        ratio = f"{middle[name] / middle['plain']:13.2f}" if "plain" in middle else ""
        over = f"{middle[name] / ideal:9.3f}" if ideal else f"{'':9}"
        rate, grown = options.reports / middle[name] * 1000, statistics.median(run["MiB"] for run in results[name])
        print(
            f"{CONTENDERS[name][1]:26}{counts[name]:8}{middle[name]:12.2f}{over}{rate:11.0f}{grown:6.0f}{start:9.1f}{ratio}"
        )
    if "streaming" in middle:
        for name in [name for name in names if name.startswith("ray_tune")]:
            print(f"{CONTENDERS[name][1]} / tune_tasks streaming: {middle[name] / middle['streaming']:.0f}")


if __name__ == "__main__":
    main()

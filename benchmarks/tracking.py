"""What it costs to show a study in MLflow: by tune_tasks, Ray Tune's MLflowLoggerCallback, MLflow's Optuna storage.

    python benchmarks/tracking.py                                   # 1,000 trials of 0.25 s; about 20 minutes
    python benchmarks/tracking.py --trials 60 --peer-trials 20 --optuna-trials 6 --repeats 1     # a look

Each contender runs its study with nothing shown, then shown by one `mlflow server` on SQLite on the same machine, in
processes of their own, one after another. A trial sleeps, and reports ten times; two run at once; with `--busy` it
computes instead, so that every core is wanted by a trial. "adds" is what the study took longer, by the medians. "lag"
is of the projection: how many trials it did not have yet when the study was over, and the seconds until it had them
all. The clock starts when the workers are warm; for Ray Tune, which shows nothing earlier, with its first result.
The peers get fewer trials, since they take longer: compare the shares.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the server of the tests

from overhead import QUIET, REPORTS, SECONDS, WORKERS, embedded_ray, spec_of, warm_runner

BUSY = bool(os.environ.get("TRACKING_BUSY"))


def work(config: dict[str, float], step: int) -> float:
    """One report's worth of a trial."""
    end = time.perf_counter() + SECONDS / REPORTS
    if not BUSY:
        time.sleep(SECONDS / REPORTS)
    while time.perf_counter() < end:
        pass
    return config["x"] / (step + 1)


def train(config: dict[str, float]) -> None:
    """The objective for tune_tasks."""
    import tune_tasks as tt

    for step in range(REPORTS):
        tt.report({"loss": work(config, step)})


def tune_tasks(trials: int, folder: Path, uri: str | None) -> dict[str, float]:
    """The steps of tune_tasks on warm workers, with the process that shows the study beside them."""
    from tune_tasks import StudySpec, evaluate_and_prune, launch_trials, open_study, sample, track
    from tune_tasks.tracking.beside import tracked

    shown = [{"name": "mlflow", "uri": uri}] if uri else []
    spec = StudySpec(**{**_plain(spec_of(trials, folder, flow="streaming")), "objective": train, "tracking": shown})
    with warm_runner(spec) as runner:
        study = open_study(spec)
        start, done = time.perf_counter(), False
        with tracked(study):
            while not done:
                batch = sample(study)
                launch_trials(study, batch, runner=runner)
                done = evaluate_and_prune(study, batch).done
            end = time.perf_counter()
            behind = trials - _finished(uri, "overhead") if uri else 0
    if uri:
        track(study.url)
        assert _finished(uri, "overhead") == trials
    return {"run": end - start, "behind": behind, "lag": time.perf_counter() - end if uri else 0.0}


def _plain(spec: Any) -> dict[str, Any]:
    return {**spec.record(), "store": spec.store}


def _finished(uri: str, experiment: str) -> int:
    """How many trials' runs MLflow has that are finished."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return 0
    count, token = 0, None
    while True:
        wanted = "attributes.status = 'FINISHED' and params.x != ''"
        page = client.search_runs([found.experiment_id], wanted, page_token=token)
        count, token = count + len(page), page.token
        if not token:
            return count


def ray_tune(trials: int, folder: Path, uri: str | None) -> dict[str, float]:
    """Ray Tune with reused actors, and its callback for MLflow."""
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    marks: list[float] = []

    class Clock(tune.Callback):
        def on_trial_result(self, **_: Any) -> None:
            marks.append(time.perf_counter())

    def trainable(config: dict[str, float]) -> None:
        for step in range(REPORTS):
            tune.report({"loss": work(config, step)})

    logger = [MLflowLoggerCallback(tracking_uri=uri, experiment_name="ray_tune")] if uri else []
    with embedded_ray():
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            param_space={"x": tune.uniform(0.0, 1.0)},
            tune_config=tune.TuneConfig(num_samples=trials, metric="loss", mode="min", reuse_actors=True),
            run_config=tune.RunConfig(storage_path=str(folder), verbose=0, callbacks=[Clock(), *logger]),
        )
        results = tuner.fit()
        end = time.perf_counter()
    assert len(results) == trials
    assert not results.num_errors
    return {"run": end - marks[0], "behind": 0, "lag": 0.0}


def optuna_storage(trials: int, _: Path, uri: str | None) -> dict[str, float]:
    """Optuna in two threads; in memory, or with MLflow as its storage."""
    import mlflow
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = None
    if uri:
        from mlflow.optuna.storage import MlflowStorage

        mlflow.set_tracking_uri(uri)
        storage = MlflowStorage(experiment_id=mlflow.create_experiment("optuna"))

    def objective(trial: optuna.Trial) -> float:
        config, value = {"x": trial.suggest_float("x", 0.0, 1.0)}, 0.0
        for step in range(REPORTS):
            value = work(config, step)
            trial.report(value, step)
        return value

    sampler = optuna.samplers.RandomSampler(seed=1)
    study = optuna.create_study(storage=storage, study_name="optuna", sampler=sampler)
    start = time.perf_counter()
    study.optimize(objective, n_trials=trials, n_jobs=WORKERS)
    return {"run": time.perf_counter() - start, "behind": 0, "lag": 0.0}


CONTENDERS: dict[str, tuple[Callable[[int, Path, str | None], dict[str, float]], str]] = {
    "tune_tasks": (tune_tasks, "tune_tasks"),
    "ray_tune": (ray_tune, "Ray Tune, MLflowLoggerCallback"),
    "optuna": (optuna_storage, "Optuna, MLflow's storage"),
}


def measured(name: str, trials: int, options: argparse.Namespace, uri: str | None) -> dict[str, float]:
    """Runs a contender once, in a process of its own."""
    folder = Path(tempfile.mkdtemp(prefix="tracking-"))
    command = [sys.executable, __file__, "--child", name, "--trials", str(trials), "--folder", str(folder)]
    environment = {**os.environ, **QUIET, "OVERHEAD_SECONDS": str(options.seconds), "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment |= {"TRACKING_BUSY": "1"} if options.busy else {}
    try:
        done = subprocess.run(
            [*command, *(["--uri", uri] if uri else [])], capture_output=True, text=True, check=False, env=environment
        )
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return result
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def compared(name: str, trials: int, options: argparse.Namespace) -> dict[str, Any]:
    """The medians of runs without and with MLflow, in turn; each shown study has a new server."""
    from tests.servers.mlflow import serve

    without, shown = [], []
    for _ in range(options.repeats):
        without.append(measured(name, trials, options, None)["run"])
        with tempfile.TemporaryDirectory(prefix="tracking-") as home, serve(Path(home)) as server:
            shown.append(measured(name, trials, options, server.url))
    before, after = statistics.median(without), statistics.median(run["run"] for run in shown)
    return {
        "contender": CONTENDERS[name][1],
        "trials": trials,
        "nothing shown, s": round(before, 2),
        "spread": round(max(without) / min(without) - 1, 3),
        "shown, s": round(after, 2),
        "adds": round(after / before - 1, 4),
        "adds a trial, ms": round((after - before) / trials * 1000, 1),
        "behind at the end, trials": statistics.median(run["behind"] for run in shown),
        "lag, s": round(statistics.median(run["lag"] for run in shown), 1),
    }


def main() -> None:
    """Compares, or, as a child, runs one contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="of tune_tasks")
    parser.add_argument("--peer-trials", type=int, default=200, help="of Ray Tune")
    parser.add_argument("--optuna-trials", type=int, default=20, help="of Optuna")
    parser.add_argument("--seconds", type=float, default=0.25, help="how long a trial lasts")
    parser.add_argument("--busy", action="store_true", help="a trial computes instead of sleeping")
    parser.add_argument("--repeats", type=int, default=3, help="the medians are shown")
    parser.add_argument("--only", default=",".join(CONTENDERS), help="contenders, with commas between them")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--uri", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(CONTENDERS[options.child][0](options.trials, options.folder, options.uri)))
        return
    trials = {"tune_tasks": options.trials, "ray_tune": options.peer_trials, "optuna": options.optuna_trials}
    for name in options.only.split(","):
        print(json.dumps(compared(name, trials[name], options)), flush=True)


if __name__ == "__main__":
    main()

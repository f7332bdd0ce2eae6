"""The four tasks, and the table over which the command line and the orchestrators loop.

The only place where deciding meets doing. Each step is idempotent under its key: the first commit of a key fixes its
result, and a retry returns it. Nothing here may depend on who calls, or keep anything outside the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from tune_tasks import decide, retention
from tune_tasks.attend import attend
from tune_tasks.decide import Place, Policy
from tune_tasks.deployment.step import deploy, undeploy
from tune_tasks.errors import ConfigError, invalid
from tune_tasks.events import Discarded, Event, Prune, Value
from tune_tasks.execution import Runner
from tune_tasks.execution.batch import BatchDriver
from tune_tasks.execution.driver import Decider
from tune_tasks.execution.jobs import Jobs
from tune_tasks.extension import extend
from tune_tasks.promotion.promote import promote
from tune_tasks.registry import ModelArtifact
from tune_tasks.spec import check_name
from tune_tasks.studies import Study, open_study, owner, record, tidy
from tune_tasks.study import Batch, StudyState, Trial
from tune_tasks.tracking.beside import is_tracked, tracked
from tune_tasks.tracking.following import TURN, catch_up

MAIN = "main"
"""The pipeline run of whoever does not name one."""


class BatchOutcome(Value):
    """What a launch step gave: how the trials of the batch stand, and the study's best trial by then.

    `avoided` names the nodes, by Ray's ids, that lost one trial after another and got no more.
    """

    batch: str
    states: dict[str, int]
    best: int | None
    value: float | None
    reason: str
    avoided: tuple[str, ...] = ()


class Verdict(Value):
    """What an evaluate step decided: who advances, who is pruned, and whether the study is done, and why."""

    batch: str
    done: bool
    reason: str
    advances: tuple[int, ...]
    prunes: tuple[int, ...]
    best: int | None
    value: float | None


def sample(study: Study, *, run: str = MAIN, round: int | None = None, count: int | None = None) -> Batch:  # noqa: A002  # the field's word
    """Proposes the next batch: trials left from an earlier one, those that advance, then new configurations.

    The key is (study, `run`, `round`): `run` names the pipeline run, and `round` is by default the first one of that
    run that has no verdict yet, so a retry gets the batch that is there. `count` is the size of the batch.
    A study that is done gets an empty batch, and nothing is recorded.
    """
    place = _place(study.refresh(), run, round)
    if study.state.done and place.key not in study.state.steps:
        return Batch(id=place.batch, run=run, round=place.round, trials=(), exhausted=True)
    policy = study.policy()

    def plan(state: StudyState) -> Event:
        wanted = count or decide.batch_size(state.spec)
        return decide.plan(state, policy, place, count=wanted, carry=True, time=study.now())

    return _batch(record(study, place.key, plan))


def launch_trials(
    study: Study,
    batch: Batch | str,
    *,
    runner: Runner | None = None,
    jobs: Jobs | None = None,
    on_change: Callable[[StudyState], None] = lambda _: None,
) -> BatchOutcome:
    """Runs a batch to its end on the spec's runner, recording reports and checkpoints as they come.

    A retry goes on where the last attempt was killed, from the newest recorded checkpoints. With `flow: streaming` it
    samples and evaluates on its own until the budget is spent. `on_change` is called with the state a few times a
    second; a `runner` that is handed in stays open. `jobs`: of the cluster, in place of the address in the spec.
    Raises `Fenced` when someone else takes the study over, `ConfigError` when no trial can report the metric.
    """
    name = _name(batch)
    key = f"{name}/launch"
    state = study.refresh()
    if _is_empty(state, name):
        return BatchOutcome(batch=name, states={}, reason="the study is done", **_best(state))
    if key not in state.steps:
        own = runner or runner_here(study)
        if own is None:
            with tracked(study):
                attend(study, name, jobs=jobs, on_change=on_change)
        else:
            try:
                _drive(study, name, own, on_change)
            finally:
                if runner is None:
                    own.close()
    return BatchOutcome(**study.state.steps[key])


def _drive(study: Study, batch: str, runner: Runner, on_change: Callable[[StudyState], None]) -> None:
    """Runs a batch from this process."""
    try:
        decider = make_decider(study, batch)
        driver = BatchDriver(
            study.log, study.state, runner, decider, owner=owner(), on_change=on_change, clock=study.clock
        )
        with tracked(study):
            study.keep(driver.run(batch))
    except BaseException:
        study.distrust()
        raise


def evaluate_and_prune(study: Study, batch: Batch | str) -> Verdict:
    """Decides who advances to a larger budget, who is pruned, and whether the study is done, each with its reason."""
    name = _name(batch)
    state = study.refresh()
    if _is_empty(state, name):
        return Verdict(batch=name, done=True, reason=state.reason, advances=(), prunes=(), **_best(state))
    policy, place = study.policy(), _place_of(state, name)
    key = f"{name}/evaluate"
    place = Place(key, place.run, place.round, name)
    verdict = Verdict(**record(study, key, lambda state: decide.judge(state, policy, place, time=study.now())))
    tidy(study)
    if verdict.done and not is_tracked(study):
        catch_up(study, default=False)
    return verdict


def promote_best(study: Study, *, run: str = MAIN) -> ModelArtifact:
    """Publishes the best trial's model, if it beats the champion, and moves the registry's alias to it.

    With `promotion.evaluate` the best trials and the champion are measured again first, and every gate of the spec is
    asked. With `approval: required` the model that passed is `pending` until someone agrees; then call this again.
    The key is (study, `run`, the rounds of that run): a second call returns the first one's result, until the study
    went on. Raises `NothingToPromote` where no trial has a value.
    """
    before = study.log.head
    model = promote(study, run=run)
    if study.log.head != before:
        catch_up(study, patience=TURN)
    return model


def runner_here(study: Study) -> Runner | None:
    """The runner of launch steps in this process; None where the study's job has it."""
    return None if study.spec.execution.runner == "job" else make_runner(study)


def make_runner(study: Study, *, address: str | None = None) -> Runner:
    """Builds the runner that the spec asks for; it holds nothing until it is opened.

    `address`: of the Ray cluster, in place of the one in the spec. Raises `ConfigError` where its workers could not
    reach the store.
    """
    spec, budget = study.spec, study.policy().scheduler.max_budget
    if spec.execution.runner == "inline":
        from tune_tasks.execution.inline import InlineRunner  # one runner is loaded, not all

        return InlineRunner(
            study.url,
            spec,
            study.objective(),
            study.folder,
            max_budget=budget,
            objects=study.objects,
            loaders=study.loaders(),
        )
    if study.private:
        raise ConfigError(
            f"store: the credentials in the URL of {study.url} do not reach Ray's workers; "
            "put them into the environment, of this process and of the cluster"
        )
    if find_spec("ray") is None:
        raise ConfigError("execution.runner: ray is not installed here: pip install 'tune-tasks[ray]'; or say inline")
    from tune_tasks.execution.ray import RayRunner  # Ray is heavy, and only this needs it

    return RayRunner(
        study.url,
        spec,
        study.objective(),
        study.folder,
        max_budget=budget,
        address=address,
        loaders=study.loaders(),
    )


def make_decider(study: Study, batch: str | None = None) -> Decider:
    """Answers what a driver asks; a streaming study's decisions belong to `batch`, or to the one last asked for."""
    return _Decider(study.policy(), batch, streams=study.spec.execution.flow == "streaming")


@dataclass(frozen=True, slots=True)
class _Decider:
    """What the driver asks, answered by `decide`."""

    policy: Policy
    batch: str | None
    streams: bool

    def watch(self, state: StudyState, trial: Trial) -> Prune | None:
        return decide.watch(state, self.policy, trial)

    def overdue(self, state: StudyState, trial: Trial, time: float) -> Prune | None:
        return decide.overdue(state, trial, time=time)

    def retries(self, state: StudyState, trial: Trial, outcome: str) -> bool:
        return decide.retries(state, trial, outcome)

    def spent(self, state: StudyState, time: float) -> str | None:
        return decide.spent(state, time=time)

    def could_go_on(self, state: StudyState) -> bool:
        return decide.could_go_on(state, self.policy)

    def discard(self, state: StudyState, time: float) -> Discarded | None:
        return retention.discard(state, time=time)

    def more(self, state: StudyState, waiting: int, wanted: int, time: float) -> Event | None:
        if self.batch is None and not state.requested:
            return None
        verdict = decide.judge(state, self.policy, self._next(state, "evaluate"), time=time)
        if verdict.done:
            return None
        if verdict.advances or verdict.prunes:
            return verdict
        planned = decide.plan(
            state, self.policy, self._next(state, "sample"), count=max(wanted - waiting, 0), carry=False, time=time
        )
        return planned if planned.assignments or planned.exhausted else None

    def _next(self, state: StudyState, step: str) -> Place:
        """A key for a decision inside the launch step: unique, and the same when decided again from the same log."""
        place = _place_of(state, self.batch or state.requested[-1])
        return Place(f"{place.batch}/{step}/{len(state.steps)}", place.run, place.round, place.batch)


def _place(state: StudyState, run: str, number: int | None) -> Place:
    try:
        check_name(run)
    except ValueError as error:
        raise ConfigError(f"run: {error}") from None
    if number is not None and number < 0:
        raise ConfigError(f"round: {number} is not allowed; rounds count from 0")
    number = state.rounds.get(run, 0) if number is None else number
    batch = f"{run}-{number:04d}"
    return Place(f"{batch}/sample", run, number, batch)


def _place_of(state: StudyState, batch: str) -> Place:
    planned = state.steps[f"{batch}/sample"]
    return Place(f"{batch}/sample", planned["run"], planned["round"], batch)


def _is_empty(state: StudyState, batch: str) -> bool:
    """Tells the unrecorded batch of a study that is done. Raises `ConfigError` for what is no batch at all."""
    if batch in state.batches or state.done:
        return batch not in state.batches
    raise invalid("batch", batch, "the study has no such batch; give one that a sample step returned", state.batches)


def _best(state: StudyState) -> dict[str, Any]:
    best = state.best
    return {"best": best.number if best else None, "value": best.value if best else None}


def _batch(result: dict[str, Any]) -> Batch:
    return Batch(**{**result, "trials": tuple((number, budget) for number, budget in result["trials"])})


def _name(batch: Batch | str) -> str:
    return batch.id if isinstance(batch, Batch) else batch


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the step table: a task as a function from JSON to JSON."""

    name: str
    run: Callable[..., Any]
    options: tuple[str, ...]
    help: str
    command: bool = True
    """Whether the command line takes it as it is; else it has a command of its own."""
    beside: bool = False
    """Whether any pipeline may run it, also on a study that another one carries on."""


def _sample(study: Study, **options: Any) -> dict[str, Any]:
    batch = sample(study, **options)
    return {
        "study": study.url,
        "batch": batch.id,
        "run": batch.run,
        "round": batch.round,
        "trials": [{"trial": number, "budget": budget} for number, budget in batch.trials],
        "exhausted": batch.exhausted,
    }


def _with_study(task: Callable[..., Value]) -> Callable[..., dict[str, Any]]:
    def run(study: Study, **options: Any) -> dict[str, Any]:
        return {"study": study.url, **task(study, **options).model_dump(mode="json")}

    return run


def _train_final(study: Study, **options: Any) -> dict[str, Any]:
    from tune_tasks.final import train_final  # it runs the steps itself

    final = train_final(study, **options)
    return {"study": study.url, "final": final.url, "trials": len(final.trials), **_best(final.state)}


def _extend(study: Study, *, changes: Mapping[str, Any]) -> dict[str, Any]:
    state = extend(study, changes=changes).state
    return {"study": study.url, "done": state.done, "trials": len(state.trials), "wanted": state.spec.budget.trials}


STEPS = {
    step.name: step
    for step in (
        Step("sample", _sample, ("run", "round", "count"), "propose the next batch of trials"),
        Step("launch_trials", _with_study(launch_trials), ("batch",), "run a batch of trials"),
        Step("evaluate_and_prune", _with_study(evaluate_and_prune), ("batch",), "decide who advances and who stops"),
        Step("promote_best", _with_study(promote_best), ("run",), "publish the best model if it beats the champion"),
        Step("train_final", _train_final, ("run",), "train the winner once more, on all the data", beside=True),
        Step("extend", _extend, ("changes",), "open a study again, to go on with more", command=False),
        Step("deploy", _with_study(deploy), ("run",), "bring the champion to where it is served", beside=True),
        Step("undeploy", _with_study(undeploy), ("run",), "take away what is served", beside=True),
    )
}
"""The four tasks by name: each takes a study and small JSON values, and gives small JSON values."""


def open_for(step: str, source: Any, *, pipeline: str | None, amend: bool = False) -> Study:
    """Opens a study as `open_study` does, for one step of a pipeline; those after the search are for any pipeline."""
    beside = step in STEPS and STEPS[step].beside
    return open_study(source, amend=amend, pipeline=None if beside else pipeline)


def perform(step: str, study: Any, **options: Any) -> dict[str, Any]:
    """Runs a step of the table: `study` is anything that `open_study` takes, options that are None are left out."""
    given = {name: value for name, value in options.items() if value is not None}
    return dict(STEPS[step].run(open_study(study), **given))

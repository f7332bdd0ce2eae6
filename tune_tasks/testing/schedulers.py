"""What every scheduler must pass. Inherit `SchedulerContract` and give the fixture `scheduler`.

class TestMine(SchedulerContract):
    @pytest.fixture
    def scheduler(self):
        return MyScheduler(max_budget=27)
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias

import pytest
from pydantic import BaseModel, ValidationError

from tune_tasks.decide import Policy
from tune_tasks.events import Advance, Prune
from tune_tasks.samplers.random import RandomSampler
from tune_tasks.schedulers import Scheduler
from tune_tasks.study import OVER, StudyState, Trial
from tune_tasks.testing.fresh import ask_in_a_fresh_process
from tune_tasks.testing.histories import History, study_spec
from tune_tasks.testing.simulation import Simulation

SPACE: dict[str, Any] = {"x": {"type": "float", "low": 0.0, "high": 1.0}}
Decisions: TypeAlias = Sequence[Advance | Prune]
Look: TypeAlias = Callable[[StudyState, Decisions], None]
SIZES = pytest.mark.parametrize("trials", [1, 2, 5, 40, 100])


class Watched:
    """A scheduler that shows each review, with the history that it was given, before the engine acts on it."""

    def __init__(self, scheduler: Scheduler, look: Look) -> None:
        self._scheduler, self._look = scheduler, look

    @property
    def max_budget(self) -> int | None:
        """As the scheduler has it."""
        return self._scheduler.max_budget

    def first_budget(self, number: int) -> int | None:
        """As the scheduler has it."""
        return self._scheduler.first_budget(number)

    def review(self, history: StudyState, *, closing: bool) -> list[Advance | Prune]:
        """Shows what the scheduler decided."""
        decisions = self._scheduler.review(history, closing=closing)
        self._look(history, decisions)
        return decisions

    def watch(self, history: StudyState, trial: Trial) -> Prune | None:
        """Shows what the scheduler decided, if anything."""
        prune = self._scheduler.watch(history, trial)
        self._look(history, [prune] if prune else [])
        return prune


class SchedulerContract:
    """Every study ends, every decision is made once, has a reason, and prefers the better trial."""

    order_free = False
    """Set where the verdict of a whole study must not depend on which worker was faster."""

    @pytest.fixture
    def scheduler(self) -> Scheduler:
        """The scheduler under test; a `max_budget` of 27 suits the suite."""
        raise NotImplementedError("give your scheduler in the fixture `scheduler`")

    def group(self, scheduler: Scheduler, number: int) -> Hashable:
        """Trials are compared only within their group; override it where a scheduler has brackets."""
        return 0

    def test_its_options_are_frozen_and_an_unknown_one_is_refused(self, scheduler: Scheduler) -> None:
        assert isinstance(scheduler, BaseModel)
        assert scheduler.model_config.get("frozen")
        with pytest.raises(ValidationError):
            type(scheduler)(**scheduler.model_dump(), no_such_option=1)
        assert all(field.description for field in type(scheduler).model_fields.values())

    @SIZES
    @pytest.mark.parametrize("workers", [1, 4, 32])
    def test_every_study_ends_with_every_trial_decided(self, scheduler: Scheduler, trials: int, workers: int) -> None:
        state = _simulate(scheduler, trials, workers=workers).run()
        assert len(state.trials) == trials
        assert {trial.state for trial in state.trials} <= OVER

    @SIZES
    def test_without_failures_a_study_ends_with_a_complete_trial(self, scheduler: Scheduler, trials: int) -> None:
        assert _simulate(scheduler, trials).run().count("completed") >= 1

    @pytest.mark.parametrize("share", [0.3, 1.0])
    def test_a_study_whose_trials_fail_ends_too(self, scheduler: Scheduler, share: float) -> None:
        simulation = _simulate(scheduler, 50)
        simulation.fails = lambda trial, step: random.Random(f"{trial}/{step // 3}").random() < share  # noqa: S311
        state = simulation.run()
        assert {trial.state for trial in state.trials} <= OVER
        assert state.count("failed") > 0

    def test_every_decision_has_a_reason(self, scheduler: Scheduler) -> None:
        reasons: list[str] = []
        _simulate(scheduler, 60, look=lambda _, made: reasons.extend(decision.reason for decision in made)).run()
        assert all(reason.strip() for reason in reasons)

    @SIZES
    def test_only_a_trial_that_waits_for_a_decision_gets_one(self, scheduler: Scheduler, trials: int) -> None:
        def look(history: StudyState, made: Decisions) -> None:
            named = [decision.trial for decision in made]
            assert len(set(named)) == len(named), "a trial is decided twice in one review"
            for decision in made:
                trial = history.trials[decision.trial]
                assert trial.advance is None, "a trial is decided again before it went on"
                assert trial.state == "paused" or (trial.state == "running" and isinstance(decision, Prune))

        _simulate(scheduler, trials, look=look).run()

    @SIZES
    def test_a_worse_trial_never_advances_over_a_better_one(self, scheduler: Scheduler, trials: int) -> None:
        def look(history: StudyState, made: Decisions) -> None:
            advanced = {decision.trial for decision in made if isinstance(decision, Advance)}
            waiting = [t for t in history.trials if t.state == "paused" and t.advance is None]
            for trial in (history.trials[number] for number in advanced):
                better = [
                    other.number
                    for other in waiting
                    if other.budget == trial.budget
                    and self.group(scheduler, other.number) == self.group(scheduler, trial.number)
                    and history.sign * (other.value or 0) < history.sign * (trial.value or 0)
                ]
                assert set(better) <= advanced, f"trial {trial.number} advances over {better}"

        for mode in ("min", "max"):
            _simulate(scheduler, trials, look=look, mode=mode).run()

    @SIZES
    def test_budgets_grow_to_the_largest_and_no_further(self, scheduler: Scheduler, trials: int) -> None:
        def look(history: StudyState, made: Decisions) -> None:
            for decision in made:
                if isinstance(decision, Advance):
                    assert decision.budget > history.trials[decision.trial].budget
                    assert decision.last == (decision.budget == scheduler.max_budget)
                    assert scheduler.max_budget is None or decision.budget <= scheduler.max_budget

        _simulate(scheduler, trials, look=look).run()
        for first in (scheduler.first_budget(number) for number in range(trials)):
            assert first is None or (first >= 1 and (scheduler.max_budget is None or first <= scheduler.max_budget))

    @pytest.mark.parametrize("closing", [False, True])
    def test_the_order_in_which_results_arrived_makes_no_difference(
        self,
        scheduler: Scheduler,
        closing: bool,  # noqa: FBT001  # a parameter of the test
    ) -> None:
        made = [
            sorted(scheduler.review(_paused(scheduler, 40, order).state, closing=closing), key=lambda d: d.trial)
            for order in range(4)
        ]
        assert made[0] == made[1] == made[2] == made[3]

    def test_the_speed_of_the_workers_makes_no_difference(self, scheduler: Scheduler) -> None:
        if not self.order_free:
            pytest.skip("this scheduler decides on what it has so far")
        verdicts = []
        for seed in range(5):
            state = _simulate(scheduler, 70, workers=1 + seed * 3, seed=seed).run()
            verdicts.append([(trial.number, trial.state, trial.budget) for trial in state.trials])
        assert all(verdict == verdicts[0] for verdict in verdicts)

    @pytest.mark.parametrize("closing", [False, True])
    def test_the_same_history_gives_the_same_decisions_in_a_fresh_process(
        self,
        scheduler: Scheduler,
        closing: bool,  # noqa: FBT001  # a parameter of the test
    ) -> None:
        history = _paused(scheduler, 40)
        here = [decision.model_dump(mode="json") for decision in scheduler.review(history.state, closing=closing)]
        assert isinstance(scheduler, BaseModel)
        assert ask_in_a_fresh_process(scheduler, history.events, "review", closing=closing) == here

    def test_a_decision_does_not_change_the_history(self, scheduler: Scheduler) -> None:
        history = _paused(scheduler, 40)
        before = _picture(history.state)
        scheduler.review(history.state, closing=False)
        scheduler.review(history.state, closing=True)
        assert _picture(history.state) == before

    def test_looking_is_not_deciding(self, scheduler: Scheduler) -> None:
        history = _paused(scheduler, 40)
        assert scheduler.review(history.state, closing=False) == scheduler.review(history.state, closing=False)

    def test_at_the_end_nobody_is_left_behind(self, scheduler: Scheduler) -> None:
        history = _paused(scheduler, 40)
        for _ in range(100):
            waiting = [t.number for t in history.state.trials if t.state == "paused"]
            if not waiting:
                return
            made = scheduler.review(history.state, closing=True)
            assert made, f"trials {waiting} wait for ever"
            history.decide(made)
            for number in list(history.state.queue):
                _go_on(history, number)
        raise AssertionError("closing reviews go on without end")

    @SIZES
    @pytest.mark.parametrize("longer", [81, 40])
    def test_extended_to_a_larger_budget_complete_trials_go_on_and_no_other(
        self, scheduler: Scheduler, trials: int, longer: int
    ) -> None:
        assert isinstance(scheduler, BaseModel)
        if scheduler.max_budget is None:
            pytest.skip("its trials have no largest budget")
        simulation = _simulate(scheduler, trials)
        before = [(trial.state, trial.budget) for trial in simulation.run().trials]
        further = type(scheduler)(**{**scheduler.model_dump(), "max_budget": longer})
        simulation.extend(Policy(simulation.policy.sampler, further), budget={"trials": trials + 5})
        state = simulation.run()
        assert len(state.trials) == trials + 5
        assert {trial.state for trial in state.trials} <= OVER
        assert any(trial.budget == longer for trial in state.trials)
        for trial, (known, budget) in zip(state.trials, before, strict=False):
            assert known == "completed" or trial.budget == budget, "a trial that was over for good went on"

    def test_thousands_of_trials_are_reviewed(self, scheduler: Scheduler) -> None:
        history = _paused(scheduler, 3000)
        made = scheduler.review(history.state, closing=True)
        assert {decision.trial for decision in made} <= {t.number for t in history.state.trials if t.state == "paused"}


def curve(params: dict[str, Any], step: int) -> float:
    """Falls with the steps; which trial is best changes on the way."""
    x = float(params["x"])
    return x + (1.5 - x) / step + 0.05 * math.sin(1e4 * x + step)


def _simulate(
    scheduler: Scheduler,
    trials: int,
    *,
    look: Look = lambda history, made: None,
    mode: str = "min",
    workers: int = 4,
    seed: int = 0,
) -> Simulation:
    spec = study_spec(SPACE, mode=mode, budget={"trials": trials})
    return Simulation(spec, Policy(RandomSampler(), Watched(scheduler, look)), curve, workers=workers, seed=seed)


def _paused(scheduler: Scheduler, trials: int, order: int = 0) -> History:
    """A study whose trials have all run their first budget, in an order of arrival drawn by `order`."""
    history = History(study_spec(SPACE, budget={"trials": trials}))
    proposals = RandomSampler().propose(history.state, trials)
    for proposal in proposals:
        budget = scheduler.first_budget(proposal.number)
        history.plan([proposal.params], budget, last=budget == scheduler.max_budget)
    arriving = list(range(trials))
    random.Random(order).shuffle(arriving)  # noqa: S311  # a test
    for number in arriving:
        _go_on(history, number)
    return history


def _go_on(history: History, number: int) -> None:
    trial = history.state.trials[number]
    steps = range(trial.budget + 1, (trial.target or 27) + 1)
    history.run(number, [curve(trial.params, step) for step in steps], "reached" if trial.target else "returned")


def _picture(history: StudyState) -> str:
    curves = [list(history.curve(trial.number)) for trial in history.trials]
    return repr((history.trials, curves, list(history.queue), list(history.running), history.steps))

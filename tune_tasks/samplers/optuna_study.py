"""Shows a history to one of Optuna's samplers, and asks it for configurations of our space.

Optuna's own study copies every trial that it is given, which costs more than the proposal; here it reads the trials
from a list. This module must not load Optuna before it is used, write to Optuna's logs, or keep anything between calls.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tune_tasks.samplers.cells import Parameter, nth, position
from tune_tasks.space import Categorical, Float, Int, Params, Space
from tune_tasks.study import Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState

_CONTINUUM = 1000
"""So many values are a continuum to Optuna: its kernels are no narrower than ten of them, and masses cost much more."""


class OptunaStudy:
    """A study as Optuna sees it: values to minimise, and parameters as numbers or indexes of choices.

    Parameters that exist under the same condition are asked for together, so that a multivariate sampler models them
    jointly over just the trials in which they exist.
    """

    def __init__(self, sampler: BaseSampler, space: Space, sign: float, count: int) -> None:
        """Shows no trial yet; the first one that is asked for gets number `count`."""
        self._sampler, self._space, self._sign, self._count = sampler, space, sign, count
        self._trials: list[FrozenTrial] = []
        self._study = _study(self._trials)
        self._open = {name: _distribution(space[name]) for name in space if space[name].size() != 1}

    def show(self, trials: Iterable[Trial]) -> None:
        """Shows trials that have a value, with how far they came."""
        from optuna.trial import TrialState

        for trial in trials:
            value = self._sign * (trial.value or 0.0)
            if trial.state == "completed":
                self._add(trial.number, trial.params, TrialState.COMPLETE, value)
            else:
                self._add(trial.number, trial.params, TrialState.PRUNED, None, {trial.budget: value})

    def wait(self, trials: Iterable[Trial]) -> None:
        """Shows trials that are being tried."""
        from optuna.trial import TrialState

        for trial in trials:
            self._add(trial.number, trial.params, TrialState.RUNNING)

    def ask(self) -> Params:
        """Proposes one configuration. Ask again for another; `take` the one that is used."""
        from optuna.trial import TrialState

        asking = self._frozen(self._count, {}, TrialState.RUNNING)
        found: dict[str, Any] = {}

        def pick(name: str, parameter: Parameter) -> Any:
            if name not in self._open:
                return nth(parameter, 0)
            if name not in found:
                group = {n: d for n, d in self._open.items() if self._space[n].when == parameter.when}
                found.update(self._sampler.sample_relative(self._study, asking, group))
            return _decoded(parameter, found[name])

        return self._space.choose(pick)

    def take(self, params: Params) -> None:
        """Shows that a configuration is now waiting to be tried."""
        from optuna.trial import TrialState

        self._add(self._count, params, TrialState.RUNNING)
        self._count += 1

    def _add(
        self,
        number: int,
        params: Params,
        state: TrialState,
        value: float | None = None,
        seen: dict[int, float] | None = None,
    ) -> None:
        known = {name: _encoded(self._space[name], params[name]) for name in self._open if name in params}
        self._trials.append(self._frozen(number, known, state, value, seen))

    @staticmethod
    def _frozen(
        number: int,
        params: dict[str, Any],
        state: TrialState,
        value: float | None = None,
        seen: dict[int, float] | None = None,
    ) -> FrozenTrial:
        from optuna.trial import FrozenTrial

        return FrozenTrial(number, state, value, None, None, params, {}, {}, {}, seen or {}, number)


def _study(trials: list[FrozenTrial]) -> Study:
    from optuna.storages import InMemoryStorage
    from optuna.study import Study, StudyDirection

    class Shown(InMemoryStorage):
        """Reads the list of trials; what a sampler notes about a proposal for other processes is not needed here."""

        def get_study_id_from_name(self, study_name: str) -> int:  # noqa: ARG002  # there is one study
            return 0

        def get_study_directions(self, study_id: int) -> list[StudyDirection]:  # noqa: ARG002  # as above
            return [StudyDirection.MINIMIZE]

        def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:  # noqa: ARG002, FBT001, FBT002  # Optuna's signature
            return [trial for trial in trials if states is None or trial.state in states]

        def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
            pass

    return Study(study_name="history", storage=Shown())


def _distribution(parameter: Parameter) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match parameter:
        case Categorical():
            return CategoricalDistribution(range(parameter.size()))
        case Float(step=None):
            return FloatDistribution(parameter.low, parameter.high, log=parameter.log)
        case Int(log=True):
            return IntDistribution(parameter.low, parameter.high, log=True)
        case _ if parameter.size() >= _CONTINUUM:
            return FloatDistribution(-0.5, parameter.size() - 0.5)
        case _:
            return IntDistribution(0, parameter.size() - 1)


def _encoded(parameter: Parameter, value: Any) -> Any:
    match parameter:
        case Float(step=None) | Int(log=True):
            return value
        case _:
            return position(parameter, value)


def _decoded(parameter: Parameter, value: Any) -> Any:
    match parameter:
        case Float(step=None):
            return min(max(float(value), parameter.low), parameter.high)
        case Int(log=True):
            return int(value)
        case _:
            return nth(parameter, min(max(round(value), 0), parameter.size() - 1))

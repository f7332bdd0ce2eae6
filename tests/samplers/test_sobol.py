"""Sobol search: each trial has its own point, whatever the batches, and conditions do not move it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import qmc

from tune_tasks.samplers import sobol
from tune_tasks.samplers.sobol import SobolSampler
from tune_tasks.testing.histories import History, study_spec
from tune_tasks.testing.samplers import CONDITIONAL, SamplerContract

SQUARE = {"x": {"type": "float", "low": 0, "high": 1}, "y": {"type": "float", "low": 0, "high": 1}}


class TestSobolSampler(SamplerContract):
    @pytest.fixture
    def sampler(self):
        return SobolSampler(seed=3)


def points(space, batches, **options):
    history = History(study_spec(space))
    for batch in batches:
        history.plan([proposal.params for proposal in SobolSampler(**options).propose(history.state, batch)])
    return [trial.params for trial in history.state.trials]


def test_the_points_are_those_of_scipy_in_whatever_batches():
    expected = qmc.Sobol(2, scramble=True, rng=np.random.default_rng(5)).random_base2(5).tolist()
    for batches in ([32], [1] * 32, [3, 4, 16, 9]):
        assert [list(point.values()) for point in points(SQUARE, batches, seed=5)] == expected


def test_they_cover_the_square_more_evenly_than_chance():
    made = [list(point.values()) for point in points(SQUARE, [64])]
    assert qmc.discrepancy(made) < 0.3 * qmc.discrepancy(np.random.default_rng(0).random((64, 2)))


def test_a_condition_does_not_move_the_other_dimensions():
    conditional = study_spec(CONDITIONAL)
    free = study_spec({name: {**CONDITIONAL[name], "when": {}} for name in conditional.space})
    made = SobolSampler().propose(History(conditional).state, 40)
    expected = SobolSampler().propose(History(free).state, 40)
    on_the_sequence = [proposal for proposal in made if proposal.reason.startswith("Sobol point")]
    assert len(on_the_sequence) > 30
    assert all(proposal.params.items() <= expected[proposal.number].params.items() for proposal in on_the_sequence)


@pytest.mark.filterwarnings("error")
def test_scipy_has_nothing_to_warn_about():
    points(SQUARE, [3, 5])


def test_it_says_which_point_it_is():
    history = History(study_spec(SQUARE))
    history.plan([{"x": 0.0, "y": 0.0}] * 12)
    assert SobolSampler().propose(history.state, 1)[0].reason == "Sobol point 12"


def test_a_missing_scipy_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(sobol, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"needs the package scipy: pip install 'tune-tasks\[sobol\]'"):
        SobolSampler()

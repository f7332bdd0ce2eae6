"""From a spec to a forecast: machines, models, and what is refused."""

from __future__ import annotations

import pytest

from tests.studies import write_study
from tune_tasks import tune
from tune_tasks.errors import ConfigError
from tune_tasks.execution import TrialTask
from tune_tasks.simulate import Scenario, simulate
from tune_tasks.simulate.landscape import Landscape
from tune_tasks.simulate.model import Assumed
from tune_tasks.simulate.pool import monthly, read_trace
from tune_tasks.spec import load_spec
from tune_tasks.store import open_objects
from tune_tasks.study import StudyState


def test_nodes_are_as_many_as_the_trials_at_once_need(spec):
    played = simulate(spec(workers=10), Scenario(cpus=4)).plays[0]
    assert (played.pool.nodes, played.pool.slots) == (3, 4)
    shared = spec(workers=10, resources={"cpu": 1, "gpu": 0.25})
    played = simulate(shared, Scenario(cpus=8, gpus=1)).plays[0]
    assert (played.pool.nodes, played.pool.slots, played.gpu_hours) == (3, 4, played.node_hours)


def test_no_node_has_more_trials_than_the_spec_allows_at_once(spec):
    played = simulate(spec(trials=9, workers=3), Scenario(nodes=2, cpus=4)).plays[0]
    assert max(busy for _, _, busy in played.usage) == 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cpus": 0.5}, "--cpus: 0.5 is not allowed; a trial needs 1 by the section resources"),
        ({"workers": 0}, "--workers: 0 is not allowed; must be at least 1"),
        ({"start_up": -1.0}, "--start-up: -1.0 is not allowed; must be at least 0"),
        ({"price": float("nan")}, "--price: nan is not allowed; must be at least 0"),
        ({"failures": 1.5}, "--failures: 1.5 is not allowed; it is a share of the attempts, from 0 to 1"),
        ({"step_time": 0.0}, "--step-time: 0.0 is not allowed; must be above 0 s"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(spec, given, said):
    with pytest.raises(ConfigError, match=f"^{said}"):
        simulate(spec(), Scenario(**given))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time,down\n10,soon\n", ":2: '10,soon' is not allowed; write time,down in seconds"),
        ("10,-5\n", ":1: '10,-5' is not allowed"),
        ("10,5,3\n", ":1: '10,5,3' is not allowed"),
        ("\n", "must have rows of time,down in seconds"),
    ],
)
def test_a_wrong_row_of_a_trace_is_named(tmp_path, text, said):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_trace(str(path))
    assert said in str(caught.value)


def test_a_trace_may_have_a_header_and_no_order(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("time,down\n300,60\n\n100\n")
    assert [(loss.time, loss.down) for loss in read_trace(str(path))] == [(100.0, 0.0), (300.0, 60.0)]
    with pytest.raises(ConfigError, match=r"--trace: .* cannot be read"):
        read_trace(str(tmp_path / "other.csv"))


def test_a_share_of_nodes_interrupted_in_a_month_is_a_rate_by_the_hour():
    assert monthly(0.2) == pytest.approx(0.000306, rel=0.01)


def test_step_times_have_the_mean_that_was_asked_for(spec):
    study = spec()
    model = Assumed(Landscape(study.space, "min", 0), 30.0, 1.0)
    seconds = [model.course(TrialTask(n, 1, {"x": 0.5, "kind": "a"}, 2, None)).seconds for n in range(4000)]
    assert sum(seconds) / len(seconds) == pytest.approx(30.0, rel=0.1)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_curves_get_better_with_each_step_and_depend_on_the_configuration(spec, mode):
    landscape = Landscape(spec().space, mode, 0)
    curves = [[landscape.curve({"x": x, "kind": "a"})(step) for step in range(1, 20)] for x in (0.1, 0.9)]
    for curve in curves:
        assert curve == sorted(curve, reverse=mode == "min")
        assert all(0 < value < 1 for value in curve)
    assert curves[0] != curves[1]


def test_time_may_be_a_function_of_the_configuration(spec):
    slow = Scenario(step_time=lambda config: 10.0 if config["kind"] == "a" else 20.0, spread=0.0, preemptions=0.0)
    played = simulate(spec(trials=20), slow).plays[0]
    assert 20 * 2 * 10.0 < played.busy_time < 20 * 2 * 20.0
    assert played.busy_time % 20 == 0


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A study that was run, here and now: its log tells how long it took."""
    monkeypatch.setenv("STEP_SECONDS", "0.02")
    path = write_study(tmp_path)
    return path, tune(path).state


def test_a_study_that_was_run_takes_as_long_when_it_is_simulated_like_itself(recorded):
    """Not less than its trials ran, and not more than its driver worked, each within a twentieth."""
    path, state = recorded
    scenario = Scenario(workers=1, start_up=0.0, between=0.0, preemptions=0.0)
    played = simulate(load_spec(path), scenario, like=state).plays[0]
    ran = sum(trial.seconds for trial in state.trials)
    assert played.busy_time == pytest.approx(ran, rel=0.05)
    assert ran * 0.95 <= played.wall_time <= state.elapsed * 1.05
    assert played.steps == sum(trial.budget for trial in state.trials)
    assert played.best == pytest.approx(state.best.value)
    assert played.trials["completed"] == state.count("completed")


def test_a_longer_study_goes_on_like_the_trials_that_went_further(recorded):
    path, state = recorded
    longer = load_spec(path, {"budget.trials": 30})
    played = simulate(longer, Scenario(workers=3, preemptions=0.0), like=state).plays[0]
    assert sum(played.trials.values()) == 30
    assert played.trials["completed"] > 0


def test_a_study_with_another_space_or_without_trials_is_no_model(recorded, spec):
    path, state = recorded
    with pytest.raises(ConfigError, match="--like: study 'small' has another space than 'imagined'"):
        simulate(spec(), like=state)
    empty = StudyState(spec=state.spec)
    with pytest.raises(ConfigError, match="--like: study 'small' has no trial that reported and ended"):
        simulate(load_spec(path), like=empty)


def test_nothing_is_created_where_the_study_would_live(tmp_path, spec):
    simulate(spec(store=str(tmp_path / "studies")))
    assert not (tmp_path / "studies").exists()
    assert open_objects("memory://simulated-0").list("") == []

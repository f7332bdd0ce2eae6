"""A study played on imagined machines: by hand, by what must add up, and twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tune_tasks.simulate import Scenario, simulate
from tune_tasks.simulate.pool import Loss, Pool
from tune_tasks.simulate.run import play

ASHA = {"name": "asha", "max_budget": 9}
FLOWS = {
    "rounds": {"flow": "rounds"},
    "carried": {"flow": "rounds", "runner": "job"},
    "streaming": {"flow": "streaming"},
}
ONE = Pool(nodes=1, slots=1, cpus=1, start_up=10, price=3.6, notice=0)


def test_a_study_of_two_trials_is_what_one_works_out_by_hand(spec, steady):
    """The node is up at 10 s; each trial runs two steps of 10 s; a second costs 0.001."""
    played = play(spec(), ONE, steady())
    assert (played.wall_time, played.steps, played.repeated) == (50.0, 4, 0)
    assert (played.paid_time, played.start_up_time, played.busy_time, played.idle_time) == (50.0, 10.0, 40.0, 0.0)
    assert played.cost == pytest.approx(0.05)
    assert played.utilisation == 1.0
    assert played.trials["completed"] == 2
    assert [(time, value) for time, _, value in played.progress] == [(20.0, 1.0), (30.0, 0.5)]
    assert [cost for _, cost, _ in played.progress] == pytest.approx([0.02, 0.03])


def test_an_unequal_pair_of_trials_leaves_a_slot_idle(spec, steady):
    played = play(spec(trials=3, workers=2), Pool(nodes=1, slots=2, cpus=2, start_up=10), steady())
    assert (played.wall_time, played.busy_time, played.idle_time) == (50.0, 60.0, 20.0)


def lost_at(time, spec, steady, *, notice=0.0, every=2, down=0.0):
    pool = Pool(nodes=1, slots=1, cpus=1, start_up=10, notice=notice, trace=(Loss(time, down),))
    study = spec(trials=1, scheduler={"name": "none", "max_budget": 4})
    return play(study, pool, steady(), checkpoint_every=every)


def test_a_lost_node_costs_the_steps_since_the_last_checkpoint_and_no_more(spec, steady):
    """Steps end at 20, 30 (saved), 40; the node goes at 45, which is noticed at 60; steps 3 and 4 follow."""
    played = lost_at(45, spec, steady)
    assert (played.steps, played.repeated, played.wasted_time, played.wall_time) == (5, 1, 15.0, 80.0)
    assert (played.preemptions, played.lost, played.moved) == (1, 1, 0)


def test_a_node_lost_just_after_a_checkpoint_costs_no_step(spec, steady):
    played = lost_at(35, spec, steady)
    assert (played.steps, played.repeated, played.wasted_time, played.wall_time) == (4, 0, 5.0, 70.0)


def test_without_checkpoints_everything_is_run_again(spec, steady):
    played = lost_at(45, spec, steady, every=0)
    assert (played.steps, played.repeated, played.wasted_time) == (7, 3, 35.0)


def test_a_notice_in_time_costs_no_step(spec, steady):
    """Warned at 25 it saves its step at 30, where the next checkpoint was due at 50, and goes on at 55."""
    played = lost_at(45, spec, steady, notice=20.0, every=4)
    assert (played.steps, played.repeated, played.wasted_time, played.wall_time) == (4, 0, 0.0, 75.0)
    assert (played.preemptions, played.lost, played.moved) == (1, 0, 1)


def test_while_a_trace_says_that_there_is_no_node_nobody_pays(spec, steady):
    there, away = lost_at(45, spec, steady), lost_at(45, spec, steady, down=100.0)
    assert away.wall_time == there.wall_time + 95.0  # up at 155 instead of 60, when the loss was noticed
    assert away.paid_time == there.paid_time - 5.0  # between 55 and 60 the replacement had waited


PAIR = Pool(nodes=2, slots=1, cpus=1, start_up=10, idle=300, notice=0)


def test_a_node_that_nothing_waits_for_is_given_back_and_paid_no_longer(spec, steady):
    """Trial 0 ends at 30, so its node goes at 330; trial 1 takes 1,000 s a step."""
    played = play(spec(workers=2), PAIR, steady(slow=1))
    assert (played.wall_time, played.paid_time) == (2010.0, 330.0 + 2010.0)
    assert (played.start_up_time, played.busy_time, played.idle_time) == (20.0, 2020.0, 300.0)
    kept = play(spec(workers=2), replace(PAIR, idle=1e6), steady(slow=1))
    assert (kept.wall_time, kept.paid_time) == (2010.0, 2 * 2010.0)


def test_of_the_nodes_that_were_given_back_as_many_are_asked_for_again_as_trials_wait(spec, steady):
    """The first round ends with a step of trial 1 at 1,010; trial 3 waits from 1,015 on for a node, up at 1,025."""
    study = spec(trials=4, workers=3, execution={"flow": "rounds", "batch": 3})
    played = play(study, replace(PAIR, nodes=3), steady(slow=1), between=5)
    assert played.steps == 8
    assert (played.wall_time, played.start_up_time) == (2015.0, 40.0)
    assert played.paid_time == 2 * 330.0 + (1045.0 + 300.0 - 1015.0) + 2015.0


def test_a_node_that_is_taken_while_nothing_runs_on_it_is_not_replaced(spec, steady):
    taken = play(spec(workers=2), replace(PAIR, trace=(Loss(100),)), steady(slow=1))
    assert (taken.preemptions, taken.lost) == (1, 0)
    assert (taken.wall_time, taken.paid_time) == (2010.0, 100.0 + 2010.0)


def test_a_trial_that_fails_counts_as_failed(spec, steady):
    played = play(spec(), ONE, steady(fails=2))
    assert played.trials["failed"] == 2
    assert played.steps == 2


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("rate", [0.0, 20.0])
@pytest.mark.parametrize("seed", range(3))
def test_paid_time_and_steps_add_up(spec, flow, rate, seed):
    study = spec(trials=40, workers=7, scheduler=ASHA, execution=FLOWS[flow])
    scenario = Scenario(nodes=4, cpus=2, spread=1.0, failures=0.05, preemptions=rate, seed=seed, checkpoint_every=2)
    for played in simulate(study, scenario).plays:
        spent = played.start_up_time + played.busy_time + played.idle_time
        assert played.paid_time == pytest.approx(spent, rel=1e-9)
        assert played.paid_time == pytest.approx(played.node_hours * 3600 * 2)
        assert sum(played.trials.values()) == 40
        assert played.wasted_time <= played.busy_time
        assert 0 < played.utilisation <= 1
    on_demand, preemptible = simulate(study, scenario).plays
    assert on_demand.steps - on_demand.repeated > 0
    assert (on_demand.preemptions, on_demand.lost) == (0, 0)
    assert (preemptible.preemptions > 0) == (rate > 0)


@pytest.mark.parametrize("flow", FLOWS)
def test_without_losses_and_failures_no_step_is_run_twice(spec, flow):
    study = spec(trials=30, workers=4, scheduler=ASHA, execution=FLOWS[flow])
    played, _ = simulate(study, Scenario(preemptions=0.0)).plays
    assert played.repeated == 0
    assert played.trials["completed"] + played.trials["pruned"] == 30
    assert played.reason == "all 30 trials are over"


@pytest.mark.parametrize("flow", FLOWS)
def test_the_same_seed_gives_the_same_forecast_and_another_seed_another(spec, flow):
    study = spec(trials=20, workers=4, scheduler=ASHA, execution=FLOWS[flow])
    first, second, other = (simulate(study, Scenario(preemptions=10.0, seed=seed)).to_dict() for seed in (0, 0, 1))
    assert first == second
    assert first["plays"] != other["plays"]


def test_stragglers_that_go_on_between_rounds_leave_fewer_slots_idle(spec):
    used = {}
    for flow, execution in FLOWS.items():
        budget = {"trials": 10_000, "concurrency": 16, "wall_time": 1800}
        study = spec(budget=budget, scheduler=ASHA, execution=execution)
        used[flow] = simulate(study, Scenario(spread=1.0, preemptions=0.0)).plays[0].utilisation
    assert used["rounds"] < 0.8
    assert 0.9 < used["carried"] < used["streaming"]


def test_a_limit_of_time_ends_the_imagined_study_too(spec, steady):
    budget = {"trials": 1000, "concurrency": 1, "wall_time": 100}
    played = play(spec(budget=budget), ONE, steady())
    assert played.reason == "the wall time of 100 s is used up"
    assert 100 <= played.wall_time <= 100 + 10 + 1


def test_a_limit_of_time_is_noticed_within_a_hundredth_though_nothing_is_reported(spec, steady):
    """The trial begins at 10 and reports at 210 and 410; it is pruned in between, and its worker waits for 30 s."""
    budget = {"trials": 1, "concurrency": 1, "trial_time": 300}
    played = play(spec(budget=budget), ONE, steady(seconds=200.0))
    assert 310 + 30 <= played.wall_time <= 313 + 30 + 0.5
    assert played.trials["pruned"] == 1


def test_steps_that_are_shorter_than_the_way_to_a_checkpoint_bring_every_trial_further(spec, steady):
    played = play(spec(execution={"flow": "rounds", "step_time": 300}), ONE, steady(seconds=5000.0))
    assert played.repeated == 0
    assert played.trials == {**dict.fromkeys(played.trials, 0), "completed": sum(played.trials.values())}

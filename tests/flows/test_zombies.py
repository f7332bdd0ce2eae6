"""A flow run that was taken for dead and is executed anew, and the process that lives on: nothing is run twice.

Also a promotion in the middle of which the flow is killed, the server, or both, as that needs no Ray either.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.studies import steps
from tests.flows.held import Held, held
from tests.flows.mortal import Mortal, kill_all
from tests.flows.running import Deployed, complete, until
from tests.prefect_server import shared
from tests.studies import write_study
from tune_tasks.studies import open_study

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Held]:
    with held(tmp_path) as made:
        yield made


def test_a_zombie_that_comes_back_writes_nothing_and_says_nothing_of_the_run(study: Held) -> None:
    run = Deployed.on(shared(), "zombie").run(study=str(study.spec))
    gate = {"GATE": str(study.gate)}
    zombie = run.execute(**gate)
    until(study.is_held)
    zombie.send_signal(signal.SIGSTOP)
    run.set("CRASHED")
    run.again()
    second = run.execute(**gate)
    until(lambda: len(study.drivers()) == 2)
    zombie.send_signal(signal.SIGCONT)
    study.go_on()
    output, _ = zombie.communicate(timeout=60)
    assert "another process executes the flow run" in output
    assert zombie.returncode == 0, output
    complete(run, second)
    assert study.states() == ["completed", "completed"]
    assert set(steps(study.url).values()) == {1}
    assert len(open_study(study.url).state.promotions) == 1
    assert run.history().count("RUNNING") == 2
    assert "FAILED" not in run.history()


@pytest.mark.parametrize("executed", ["tune", "atune"])
def test_a_sigterm_ends_a_launch_in_the_flow_s_process_and_the_next_run_goes_on(study: Held, executed: str) -> None:
    run = Deployed.on(shared(), f"term-{executed}", executed).run(study=str(study.spec))
    gate = {"GATE": str(study.gate)}
    process = run.execute(**gate)
    until(study.is_held)
    process.send_signal(signal.SIGTERM)
    if executed == "atune":  # its trial is on a thread, which no signal reaches: it ends with the trial
        until(lambda: run.state == "CRASHED")
        study.go_on()
    output, _ = process.communicate(timeout=60)
    assert run.state == "CRASHED", output
    study.go_on()
    run.again()
    complete(run, run.execute(**gate))
    assert len(study.drivers()) == 2
    assert study.states() == ["completed", "completed"]
    if executed == "tune":
        first, second = study.starts()[:2]
        assert first == (0, 0)
        assert second in {(0, 1), (0, 2)}, "from the newest checkpoint that was recorded"


PAUSE = """
def evaluate(folder):
    while not Path(os.environ["GATE"]).exists():
        Path(os.environ["GATE"]).with_name("reached").touch()
        time.sleep(0.05)
    return {"loss": (load(folder).weight - 0.7) ** 2}
"""


@pytest.mark.parametrize("killed", ["flow", "server", "both"])
def test_whoever_is_killed_in_the_middle_of_a_promotion_it_promotes_once(tmp_path: Path, killed: str) -> None:
    promotion = {"registry": "none", "loader": "objective:load", "evaluate": "objective:evaluate", "candidates": 1}
    spec = write_study(tmp_path, budget={"trials": 2, "concurrency": 1}, promotion=promotion)
    (spec.parent / "objective.py").write_text((spec.parent / "objective.py").read_text() + PAUSE)
    gate, url = tmp_path / "gate", str(tmp_path / "studies" / "small")
    with ExitStack() as stack:
        mortal = None if killed == "flow" else Mortal(tmp_path / "home", stack)
        run = Deployed.on(mortal.server if mortal else shared(), "promoting").run(study=str(spec))
        first = run.execute(GATE=str(gate))
        until((tmp_path / "reached").exists)
        counted = steps(url)
        if killed != "server":
            kill_all(first.pid)
            first.communicate()
        if mortal is not None:
            mortal.kill()
            mortal.start()
        assert open_study(url).state.promotions == []
        gate.touch()
        if killed == "server":
            complete(run, first)
        else:
            run.set("CRASHED")
            run.again()
            complete(run, run.execute(GATE=str(gate)))
    [model] = open_study(url).state.promotions
    assert model["promoted"]
    assert steps(url) == counted
    assert len(list((tmp_path / "studies" / "small" / "models").glob("*/model.json"))) == 1

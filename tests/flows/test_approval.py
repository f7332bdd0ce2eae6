"""A flow of Prefect pauses for a person's answer, which decides the promotion and stands in the log of the study."""

from __future__ import annotations

from pathlib import Path

import pytest

import tune_tasks as tt
from tests.flows.running import finish, start
from tests.prefect_server import shared
from tests.studies import SPEC, write_study

PROGRAM = """
import sys
from prefect import flow
from tune_tasks_prefect import promote_best
from tune_tasks_prefect.approvals import approved

@flow
def promote(study: str) -> None:
    model = approved(promote_best(study), poll=1)
    print("promoted:", model["promoted"])

promote(sys.argv[1])
"""

RESUME = """
import sys
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    client.resume_flow_run(sys.argv[1], run_input={"agreed": "yes", "by": "Ada", "why": "looks right"})
"""


@pytest.mark.prefect
@pytest.mark.slow
def test_a_paused_flow_goes_on_with_the_answer_of_a_person(tmp_path: Path) -> None:
    promotion = {**SPEC["promotion"], "approval": "required"}
    study = tt.tune(write_study(tmp_path, budget={"trials": 2}, promotion=promotion))
    running = start("-c", PROGRAM, study.url)

    def paused() -> list[str]:
        rows = shared().rows("flow_runs", flow_runs={"state": {"type": {"any_": ["PAUSED"]}}})
        return [row["id"] for row in rows if row["parameters"].get("study") == study.url]

    try:
        shared().wait_for(paused, seconds=60)
        assert study.refresh().promotions == []
        finish(start("-c", RESUME, paused()[0]))
        assert "promoted: True" in finish(running)
    finally:
        running.kill()
    [model] = study.refresh().promotions
    assert model["approval"]["by"] == "Ada"

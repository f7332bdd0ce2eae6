"""Trials in a container, on a real Ray with a real podman, where there is one and an image of infra/image."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.execution.test_ray import make
from tune_tasks.execution import Row, Saved, TrialTask
from tune_tasks.testing.driving import Story

pytestmark = pytest.mark.ray

BASE = os.environ.get("TUNE_TASKS_IMAGE", "localhost/tune-tasks")
IMAGE = "localhost/tune-tasks-boxed"
FLAGS = ["--cgroup-manager=cgroupfs", "--network=host", "--pid=host", "--ipc=host", "--userns=keep-id"]
"""Ray's own."""
OBJECTIVE = """
from pathlib import Path
import tune_tasks as tt

def train(config):
    context, checkpoint = tt.get_context(), tt.get_checkpoint()
    start = int((checkpoint / "step").read_text()) if checkpoint else 0
    for step in range(start + 1, context.max_budget + 1):
        (context.folder / "step").write_text(str(step))
        tt.report({"loss": float(Path("/boxed/only-there").read_text()), "start": start}, checkpoint=context.folder)
"""


def podman(*arguments: str) -> str:
    """Runs podman; why it failed, in its own last line, else nothing."""
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it failed"])[-1]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with an objective that is nowhere else, built without a registry."""
    if shutil.which("podman") is None:
        pytest.skip("there is no podman")
    if podman("image", "exists", BASE):
        pytest.skip(f"podman has no image {BASE}, to be built from infra/image; TUNE_TASKS_IMAGE names another")
    folder = tmp_path_factory.mktemp("image")
    (folder / "boxed.py").write_text(OBJECTIVE)
    (folder / "only-there").write_text("0.25")
    (folder / "Dockerfile").write_text(f"FROM {BASE}\nCOPY . /boxed/\nENV PYTHONPATH=/boxed\n")
    assert podman("build", "--network=none", "-t", IMAGE, str(folder)) == ""
    if said := podman("run", "--rm", *FLAGS, IMAGE, "python", "-V"):  # the first time may take a minute
        pytest.skip(f"podman cannot run an image as Ray does: {said}")
    return IMAGE


def test_a_trial_runs_in_the_image_and_goes_on_there_from_its_checkpoint(image: str, local_ray: None) -> None:
    import ray

    session = ray.get_runtime_context().worker.node.get_session_dir_path()  # all that the container has of this machine
    runner = make("boxed:train", str(Path(session) / "study"), environment={"image": image})
    story = Story(runner)
    try:
        story.run(TrialTask(0, 1, {}, 2, None))
        saved = story.of(Saved)[-1]
        story.run(TrialTask(0, 2, {}, 3, (saved.step, saved.checkpoint)))
    finally:
        runner.close()
    assert [(row.step, row.metrics) for row in story.of(Row)] == [(s, {"loss": 0.25, "start": 0}) for s in (1, 2)]
    assert [(row.step, row.metrics) for row in story.of(Row, 0, 2)] == [(3, {"loss": 0.25, "start": 2})]

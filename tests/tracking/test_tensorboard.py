"""TensorBoard's own reader finds in the event files what the log says: all of it, once, and again after a deletion."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.histories import Story
from tests.tracking.story import bring, lose, spec, story
from tune_tasks.study import StudyState

accumulators = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed: make env"
)

from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2  # noqa: E402  # only where there is one

from tune_tasks.tracking.tensorboard import TensorBoardTracker  # noqa: E402  # as above


def shown(folder: Path) -> dict[str, Any]:
    """Everything that TensorBoard reads below a folder: scalars and HParams, by run."""
    runs = sorted({path.parent for path in folder.rglob("*tfevents*")})
    return {str(run.relative_to(folder)): read(run) for run in runs}


def read(run: Path) -> dict[str, Any]:
    accumulator = accumulators.EventAccumulator(str(run))
    accumulator.Reload()
    scalars = {
        tag: [(event.step, round(event.value, 6), event.wall_time) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }
    hparams = {
        tag: plugin_data_pb2.HParamsPluginData.FromString(accumulator.SummaryMetadata(tag).plugin_data.content)
        for tag in accumulator.summary_metadata
        if tag.startswith("_hparams_/")
    }
    return {"scalars": scalars, "hparams": hparams}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*tfevents*"))}


def test_each_trial_that_reported_is_a_run_with_its_scalars_by_step(tmp_path: Path) -> None:
    state = story().state
    bring(TensorBoardTracker(to=str(tmp_path)), state)
    runs = shown(tmp_path / "tracked")
    assert set(runs) == {".", *(f"trial-{number:06d}" for number in range(5))}
    times = [report.time for report in state.trials[0].reports]
    assert runs["trial-000000"]["scalars"] == {
        "loss": [(1, 0.5, times[0]), (2, 0.25, times[1])],
        "extra": [(1, 1.0, times[0])],
        "best_loss": [(1, 0.5, times[0]), (2, 0.25, times[1])],
    }
    assert [value for _, value, _ in runs["trial-000003"]["scalars"]["best_loss"]] == [0.6, 0.6]


def test_the_hparams_table_has_the_parameters_the_metrics_and_how_each_trial_ended(tmp_path: Path) -> None:
    bring(TensorBoardTracker(to=str(tmp_path)), story().state)
    runs = shown(tmp_path / "tracked")
    experiment = runs["."]["hparams"]["_hparams_/experiment"].experiment
    kinds = {info.name: api_pb2.DataType.Name(info.type) for info in experiment.hparam_infos}
    assert kinds == {"x": "DATA_TYPE_FLOAT64", "kind": "DATA_TYPE_STRING"}
    assert [info.name.tag for info in experiment.metric_infos] == ["best_loss", "loss"]
    session = runs["trial-000002"]["hparams"]["_hparams_/session_start_info"].session_start_info
    assert session.hparams["x"].number_value == 0.3
    assert session.hparams["kind"].string_value == "a"
    ends = {name: run["hparams"].get("_hparams_/session_end_info") for name, run in runs.items()}
    status = {name: api_pb2.Status.Name(end.session_end_info.status) for name, end in ends.items() if end}
    assert status == {
        "trial-000000": "STATUS_SUCCESS",
        "trial-000001": "STATUS_SUCCESS",
        "trial-000002": "STATUS_FAILURE",
    }


def test_updating_twice_writes_nothing_and_what_is_new_goes_to_the_end_of_the_same_file(tmp_path: Path) -> None:
    history = story()
    bring(TensorBoardTracker(to=str(tmp_path)), history.state)
    before, stamps = files(tmp_path), stamped(tmp_path)
    bring(TensorBoardTracker(to=str(tmp_path)), history.state)
    assert stamped(tmp_path) == stamps
    history.tell(4, [2], [{"loss": 0.3}])
    bring(TensorBoardTracker(to=str(tmp_path)), history.state)
    after = files(tmp_path)
    changed = {name for name in after if after[name] != before.get(name)}
    assert {name.split("/")[1] for name in changed} == {"trial-000004"}
    assert all(after[name].startswith(before[name]) for name in changed)
    assert [(name, ino) for name, (ino, _) in stamped(tmp_path).items()] == [(n, ino) for n, (ino, _) in stamps.items()]


def stamped(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*tfevents*"))}


@pytest.mark.parametrize("cut", [1, 40, 10_000])
def test_a_file_that_a_kill_left_half_written_is_completed(tmp_path: Path, cut: int) -> None:
    state = story().state
    bring(TensorBoardTracker(to=str(tmp_path)), state)
    whole = files(tmp_path)
    path = next((tmp_path / "tracked" / "trial-000000").iterdir())
    os.truncate(path, max(0, path.stat().st_size - cut))
    bring(TensorBoardTracker(to=str(tmp_path)), state)
    assert files(tmp_path) == whole


def test_deleting_everything_loses_nothing(tmp_path: Path) -> None:
    state = story().state
    bring(TensorBoardTracker(to=str(tmp_path)), state)
    before = files(tmp_path)
    for path in tmp_path.rglob("*tfevents*"):
        path.unlink()
    bring(TensorBoardTracker(to=str(tmp_path)), state)
    assert files(tmp_path) == before


@pytest.mark.parametrize("again", [1, 2, 3])
def test_reports_that_were_made_again_after_a_lost_worker_replace_the_old_ones(tmp_path: Path, again: int) -> None:
    history = story()
    history.tell(4, [2, 3], [{"loss": 0.35}, {"loss": 0.33}])
    bring(TensorBoardTracker(to=str(tmp_path)), history.state)
    live = accumulators.EventAccumulator(str(tmp_path / "tracked" / "trial-000004"))
    live.Reload()
    lose(history, 4)
    history.start(4)
    history.tell(4, list(range(2, 2 + again)), [{"loss": 0.36}] * again)
    bring(TensorBoardTracker(to=str(tmp_path)), history.state)
    expected = [0.4, *[0.36] * again]
    points = shown(tmp_path / "tracked")["trial-000004"]["scalars"]["loss"]
    assert [value for _, value, _ in points] == expected
    live.Reload()  # a TensorBoard that was open all the time
    assert [round(event.value, 6) for event in live.Scalars("loss")] == expected


def test_two_trackers_at_once_write_the_same_bytes_once(tmp_path: Path) -> None:
    history = story()
    behind = history.state.copy()
    history.tell(4, [2], [{"loss": 0.3}])
    one, two = (TensorBoardTracker(to=str(tmp_path / "both")) for _ in range(2))
    for _ in zip(one.update(history.state, "/a/b"), two.update(behind, "/a/b"), strict=False):
        pass
    bring(two, behind)
    bring(one, history.state)
    bring(TensorBoardTracker(to=str(tmp_path / "alone")), history.state)
    assert files(tmp_path / "both") == files(tmp_path / "alone")


def test_another_tracker_that_writes_at_the_same_moment_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = story().state
    bring(TensorBoardTracker(to=str(tmp_path / "alone")), state)
    real = os.pwrite

    def late(*arguments: Any) -> int:
        monkeypatch.setattr(os, "pwrite", real)
        bring(TensorBoardTracker(to=str(tmp_path / "both")), state)
        return real(*arguments)

    monkeypatch.setattr(os, "pwrite", late)
    bring(TensorBoardTracker(to=str(tmp_path / "both")), state)
    assert files(tmp_path / "both") == files(tmp_path / "alone")


def test_a_bucket_gets_the_same_files(tmp_path: Path, s3: str) -> None:
    from tune_tasks.store import open_objects

    history = story()
    tracker = TensorBoardTracker(to=s3)
    bring(tracker, history.state)
    history.tell(4, [2], [{"loss": 0.3}])
    bring(tracker, history.state)
    bring(TensorBoardTracker(to=str(tmp_path)), history.state)
    objects = open_objects(s3)
    assert {key: objects.read(key) for key in objects.list("")} == files(tmp_path)


def test_truth_values_numbers_to_choose_from_and_lists_are_shown(tmp_path: Path) -> None:
    space = {
        "flag": {"type": "categorical", "choices": [True, False]},
        "size": {"type": "categorical", "choices": [16, 32]},
        "mixed": {"type": "categorical", "choices": ["a", 1]},
        "layers": {"type": "constant", "value": [1, 2]},
        "x": {"type": "float", "low": 0.0, "high": 1.0},
    }
    history = Story(spec(space=space))
    history.open()
    history.propose({"flag": True, "size": 16, "mixed": 1, "layers": [1, 2], "x": 0.5})
    history.train(0, [{"loss": 1.0}])
    bring(TensorBoardTracker(to=str(tmp_path)), history.state)
    info = shown(tmp_path / "tracked")["trial-000000"]["hparams"]["_hparams_/session_start_info"]
    hparams = info.session_start_info.hparams
    assert hparams["flag"].bool_value
    assert hparams["size"].number_value == 16
    assert (hparams["mixed"].string_value, hparams["layers"].string_value) == ("1", "[1,2]")


def test_a_study_lies_beside_its_own_log_unless_told_otherwise(tmp_path: Path) -> None:
    state: StudyState = story().state
    tracker = TensorBoardTracker()
    assert tracker.place(state, f"{tmp_path}/studies/tracked") == f"{tmp_path}/studies/_tensorboard/tracked"
    assert tracker.place(state, "s3://bucket/studies/tracked") == "s3://bucket/studies/_tensorboard/tracked"
    assert tracker.place(state, "memory://studies/tracked") is None
    assert TensorBoardTracker(to="s3://key:secret@bucket/x").place(state, "/a/b") == "s3://bucket/x/tracked"

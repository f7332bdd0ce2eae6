"""Tables hold what the study holds, in types that an analyst can use, and appear whole or not at all."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.histories import Story
from tests.operate.conftest import Write
from tests.views.conftest import spec
from tune_tasks import open_study
from tune_tasks.errors import ConfigError, CorruptLog, StudyNotFound
from tune_tasks.events import Event
from tune_tasks.operate import export_study
from tune_tasks.operate.tables import Attempts, Table, events_table, reports_table, trials_table
from tune_tasks.store import Objects, StudyLog, open_objects
from tune_tasks.store.segment import segment_key
from tune_tasks.study import StudyState

NAMES = ("trials", "reports", "events")


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(folder / f"{name}.parquet").to_pylist()
    return rows


def read_csv(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def column(table: Table, name: str) -> list[Any]:
    return [value for batch in table.batches for value in batch[name]]


def stored(*events: Event) -> Objects:
    objects = open_objects(f"memory://{uuid4().hex}")
    log = StudyLog(objects)
    assert log.create(events[0])
    for event in events[1:]:
        assert log.commit([event], role="step", epoch=0)
    return objects


def test_the_tables_hold_every_trial_report_and_event(study: Path, tmp_path: Path) -> None:
    exported = export_study(study, tmp_path / "tables")
    state = open_study(study).state
    assert [file.url for file in exported.files] == [str(tmp_path / "tables" / f"{name}.parquet") for name in NAMES]
    trials, reports, events = (read(tmp_path / "tables", name) for name in NAMES)
    assert [file.rows for file in exported.files] == [len(trials), len(reports), len(events)]
    assert [file.size for file in exported.files] == [Path(file.url).stat().st_size for file in exported.files]
    for row, trial in zip(trials, state.trials, strict=True):
        told = {name: row[name] for name in ("trial", "state", "value", "budget", "attempts", "why", "params.x")}
        assert told == {
            "trial": trial.number,
            "state": trial.state,
            "value": trial.value,
            "budget": trial.budget,
            "attempts": trial.attempts,
            "why": trial.why,
            "params.x": trial.params["x"],
        }
    whole = [(t.number, r.step, r.time, r.metrics["loss"]) for t in state.trials for r in t.reports]
    assert [(r["trial"], r["step"], r["time"], r["metrics.loss"]) for r in reports] == whole
    segments = list(StudyLog(open_objects(str(study))).segments())
    assert [orjson.loads(row["event"]) for row in events] == [
        event.model_dump(mode="json") for segment in segments for event in segment.events
    ]
    assert exported.segments == len(segments)


def test_csv_holds_the_same_and_is_quoted(study: Path, tmp_path: Path) -> None:
    export_study(study, tmp_path, form="csv")
    export_study(study, tmp_path)
    for name in NAMES:
        rows, same = read_csv(tmp_path, name), read(tmp_path, name)
        assert len(rows) == len(same)
        for row, other in zip(rows, same, strict=True):
            assert row == {key: "" if value is None else str(value) for key, value in other.items()}


def test_texts_with_everything_in_them_survive_csv(tmp_path: Path) -> None:
    error = 'Traceback\n  File "x", line 1\r\nValueError: a,b;"c"\tü\n'
    story = Story(spec())
    story.open()
    story.train(story.propose({"x": 0.5, "kind": 'a,"b"\n'}), [{"loss": 1.0}], "failed", error=error)
    export_study(stored(*story.events), tmp_path, form="csv")
    (row,) = read_csv(tmp_path, "trials")
    assert (row["error"], row["params.kind"]) == (error, 'a,"b"\n')


def test_the_attempt_of_each_report_is_the_one_that_made_it() -> None:
    story = Story(spec())
    story.open()
    number = story.propose({"x": 0.5, "kind": "a"}, budget=9)
    story.train(number, [{"loss": 0.5}] * 4, None)
    story.open()  # the driver went away
    story.start(number)
    story.tell(number, [3, 4, 5], [{"loss": 0.1}] * 3)  # from the checkpoint of step 2
    attempts = _replayed(story.events)
    table = reports_table(story.state, attempts)
    assert column(table, "step") == [1, 2, 3, 4, 5]
    assert column(table, "attempt") == [1, 1, 2, 2, 2]
    assert column(table, "metrics.loss") == [0.5, 0.5, 0.1, 0.1, 0.1]


def _replayed(events: list[Event]) -> Attempts:
    attempts, state = Attempts(), StudyState()
    for event in events:
        attempts.note(event, state)
        state.apply(event)
    return attempts


def test_every_report_of_any_study_has_its_attempt(write: Write, tmp_path: Path) -> None:
    for seed in range(5):
        objects = write(150, seed=seed)
        export_study(objects, tmp_path)
        state = StudyLog(objects).load()
        rows = read(tmp_path, "reports")
        assert len(rows) == sum(trial.budget for trial in state.trials)
        for row in rows:
            assert 1 <= row["attempt"] <= state.trials[row["trial"]].attempts


@pytest.mark.parametrize(
    ("values", "kind", "told"),
    [
        ([1, 2, None], pa.int64(), [1, 2, None]),
        ([1, 2.5, None], pa.float64(), [1.0, 2.5, None]),
        ([True, False, None], pa.bool_(), [True, False, None]),
        (["a", None, "1"], pa.string(), ["a", None, "1"]),
        ([1, "auto", None], pa.string(), ["1", "auto", None]),
        ([True, 1], pa.string(), ["true", "1"]),
        ([2**63, 1], pa.string(), [str(2**63), "1"]),
        ([None, None], pa.string(), [None, None]),
    ],
)
def test_a_parameter_gets_the_narrowest_type_that_holds_its_values(
    tmp_path: Path, values: list[Any], kind: pa.DataType, told: list[Any]
) -> None:
    story = Story(spec())
    story.open()
    for value in values:
        story.propose({"x": 0.5} if value is None else {"x": 0.5, "kind": value})
    export_study(stored(*story.events), tmp_path)
    table = parquet.read_table(tmp_path / "trials.parquet")
    assert table.schema.field("params.kind").type == kind
    assert table.column("params.kind").to_pylist() == told


def test_a_metric_that_was_not_reported_is_null(tmp_path: Path) -> None:
    story = Story(spec())
    story.open()
    story.train(story.propose({"x": 0.5, "kind": "a"}), [{"loss": 1.0}, {"loss": 0.5, "extra": 2.0}, {"loss": 0.25}])
    objects = stored(*story.events)
    export_study(objects, tmp_path)
    export_study(objects, tmp_path, form="csv")
    assert [row["metrics.extra"] for row in read(tmp_path, "reports")] == [None, 2.0, None]
    assert [row["metrics.extra"] for row in read_csv(tmp_path, "reports")] == ["", "2.0", ""]


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_study_without_trials_gives_tables_without_rows(tmp_path: Path, form: str) -> None:
    exported = export_study(stored(*Story(spec()).events), tmp_path, form=form)
    assert [file.rows for file in exported.files] == [0, 0, 1]
    assert all(Path(file.url).exists() for file in exported.files)


def test_tables_can_go_to_any_store(study: Path, s3: str) -> None:
    exported = export_study(study, s3)
    objects = open_objects(s3)
    assert objects.list("") == sorted(f"{name}.parquet" for name in NAMES)
    assert [file.size for file in exported.files] == [len(objects.read(f"{name}.parquet") or b"") for name in NAMES]


def test_a_second_export_replaces_the_first(study: Path, tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / f"{name}.csv").write_text("old")
    export_study(study, tmp_path, form="csv")
    assert all((tmp_path / f"{name}.csv").read_text() != "old" for name in NAMES)
    assert [path.name for path in sorted(tmp_path.iterdir()) if path.is_file()] == sorted(f"{n}.csv" for n in NAMES)


def test_where_the_log_is_broken_no_part_of_a_file_appears(study: Path, tmp_path: Path) -> None:
    objects = open_objects(str(study))
    objects.replace(segment_key(6), b"x")
    target = tmp_path / "tables"
    with pytest.raises(CorruptLog, match="000000000006"):
        export_study(study, target)
    assert list(target.iterdir()) == []


def test_tables_do_not_go_into_a_study(study: Path) -> None:
    for target in (study, study / "tables", f"file://{study}/tables"):
        with pytest.raises(ConfigError, match="inside the study"):
            export_study(study, target)


def test_bad_input_is_refused_before_anything_is_written(study: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'parquet'"):
        export_study(study, tmp_path / "a", form="parkuet")
    with pytest.raises(StudyNotFound):
        export_study(tmp_path / "nothing", tmp_path / "a")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="--to"):
        export_study(study, tmp_path / "file" / "below")
    assert not (tmp_path / "a").exists()


def test_without_its_package_parquet_is_refused_and_csv_works(study: Path, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from tune_tasks.operate import export_study\n"
        f"export_study({str(study)!r}, {str(tmp_path / 'a')!r}, form='csv')\n"
        f"export_study({str(study)!r}, {str(tmp_path / 'a')!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "tune-tasks[parquet]" in done.stderr
    assert sorted(path.suffix for path in (tmp_path / "a").iterdir()) == [".csv"] * 3


def test_tables_are_described_without_a_file_format(write: Write) -> None:
    objects = write(60)
    state = StudyLog(objects).load()
    assert column(trials_table(state), "trial") == list(range(len(state.trials)))
    assert len(column(events_table(StudyLog(objects).segments()), "type")) == 60

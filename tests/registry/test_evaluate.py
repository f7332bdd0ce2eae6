"""One model is measured as the spec says, on a copy, and only finite numbers of one unit come out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tune_tasks.delivery import Promotion
from tune_tasks.errors import ConfigError
from tune_tasks.registry.evaluate import evaluate, latency, size_of
from tune_tasks.registry.evaluation import Measured, Repeat

CODE = """
import numpy as np

import tune_tasks as tt

rows = [0.0, 1.0, 1.0, 0.0]


def plain(folder):
    print("measuring")
    (folder / "scratch.txt").write_text("left by the measurement")
    return {"loss": np.float32(0.5), "weight": len((folder / "weight.txt").read_text())}


def told(folder, *, seed, data):
    return {"loss": seed, "data": len(data or "")}


def every(folder, **given):
    return {"loss": len(given)}


def examples(folder):
    slices = {"odd": [False, True, False, True]}
    return tt.Evaluation({"size": 7}, examples={"loss": np.array(rows)}, slices=slices)


def other_unit(folder):
    return tt.Evaluation({"loss": 50.0}, examples={"loss": rows})


def uneven(folder):
    return tt.Evaluation({}, examples={"loss": rows}, slices={"odd": [True]})


def other_examples(folder):
    return tt.Evaluation({"loss": 1.0}, examples={"weight": rows})


def raises(folder):
    raise KeyError("no data")


def nothing(folder):
    return None


def misnamed(folder):
    return {"los": 1.0, "accuracy": 0.9}


def percent(folder):
    return {"loss": "97%"}


def nan(folder):
    return {"loss": float("nan")}


def text_example(folder):
    return tt.Evaluation({}, examples={"loss": [0.5, "0.5"]})


class Model:
    def predict(self, rows):
        return [2 * row for row in rows]


def load(folder):
    return Model()


def rows_to_predict():
    return [1, 2]


def wrong_rows():
    return 7
"""


@pytest.fixture
def near(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "measuring_it.py").write_text(CODE)
    before = list(sys.path)
    yield str(folder)
    sys.path[:] = before
    sys.modules.pop("measuring_it", None)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weight.txt").write_text("12345")
    return folder


def measure(near: str, model: Path, name: str, **options: object) -> Repeat:
    return evaluate(f"measuring_it:{name}", near, model, metric="loss", **options)  # type: ignore[arg-type]


def test_numbers_come_back_as_numbers_and_the_folder_as_it_was(
    near: str, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert measure(near, model, "plain").metrics == {"loss": 0.5, "weight": 5.0}
    assert [path.name for path in model.iterdir()] == ["weight.txt"]
    assert capfd.readouterr().out == ""
    assert size_of(model) == 5


def test_seed_and_data_are_given_to_whoever_takes_them(near: str, model: Path) -> None:
    assert measure(near, model, "told", seed=3, data="may").metrics == {"loss": 3.0, "data": 3.0}
    assert measure(near, model, "every").metrics == {"loss": 2.0}


def test_a_metric_of_examples_is_their_mean_and_slices_are_labels(near: str, model: Path) -> None:
    found = measure(near, model, "examples")
    assert (found.metrics, found.examples) == ({"size": 7.0, "loss": 0.5}, {"loss": [0.0, 1.0, 1.0, 0.0]})
    assert (found.slices, found.size) == ({"odd": ["False", "True", "False", "True"]}, 4)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raises", "KeyError.*no data"),
        ("nothing", "returned None, must be numbers by name"),
        ("misnamed", "'loss' is not allowed; .* returned los, accuracy; name one of them. Did you mean 'los'"),
        ("percent", "'97%' for 'loss', must be a finite number, without a unit"),
        ("nan", "nan for 'loss', must be a finite number"),
        ("text_example", "'0.5' for 'loss of example 1'"),
        ("other_unit", "50 for 'loss', but the mean of its examples is 0.5; both must be in one unit"),
        ("uneven", "as many examples as 4 for loss, 1 for the slices odd"),
        ("other_examples", "examples of weight only"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_plain_words(near: str, model: Path, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        measure(near, model, name)


def test_latency_is_of_predict_on_the_example(near: str, model: Path) -> None:
    promotion = Promotion(loader="measuring_it:load", example="measuring_it:rows_to_predict")
    assert 0 < latency(promotion, near, model) < 1
    with pytest.raises(ConfigError, match=r"does not predict on what .*wrong_rows.* TypeError"):
        latency(promotion.model_copy(update={"example": "measuring_it:wrong_rows"}), near, model)
    with pytest.raises(ConfigError, match=r"give promotion\.example too"):
        latency(promotion.model_copy(update={"example": None}), near, model)


def test_repeats_are_averaged_example_by_example_and_else_stand_alone() -> None:
    rows = Measured("m", (Repeat({"loss": 1.5}, {"loss": [1.0, 2.0]}), Repeat({"loss": 2.5}, {"loss": [2.0, 3.0]})))
    assert (rows.values("loss"), rows.unit("loss"), rows.metrics) == ([1.5, 2.5], "examples", {"loss": 2.0})
    plain = Measured("m", (Repeat({"loss": 1.0}), Repeat({"loss": 3.0})))
    assert (plain.values("loss"), plain.unit("loss"), plain.metrics) == ([1.0, 3.0], "repeats", {"loss": 2.0})

"""The command line of the simulator: one forecast, as text, JSON and drawings."""

from __future__ import annotations

import json
import subprocess
import xml.etree.ElementTree as ET

import pytest

from tests.studies import COMMAND, write_study
from tune_tasks.cli import main


def simulated(capsys, *arguments):
    code = main(["simulate", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_same_command_prints_the_same_bytes_in_two_processes(tmp_path):
    path = write_study(tmp_path, objective="nowhere:train")
    command = [*COMMAND, "simulate", str(path), "--preemptions", "5"]
    first, second = (subprocess.run(command, capture_output=True, check=True).stdout for _ in range(2))
    assert first == second
    assert b"This assumes that" in first
    assert not (tmp_path / "studies").exists()


def test_the_figures_are_there_for_machines_too(tmp_path, capsys):
    path = write_study(tmp_path)
    code, out, _ = simulated(capsys, path, "--workers", 3, "--price", 2, "--gpus", 1, "--idle", "10m", "--json")
    forecast = json.loads(out)
    assert code == 0
    on_demand, preemptible = forecast["plays"]
    assert on_demand["cost"] == pytest.approx(2 * on_demand["node_hours"])
    assert preemptible["pool"]["price"] == pytest.approx(0.6)
    assert preemptible["pool"]["idle"] == 600.0
    assert on_demand["gpu_hours"] == on_demand["node_hours"]
    assert sum(on_demand["trials"].values()) == 9


def test_a_drawing_is_one_file_that_stands_alone(tmp_path, capsys):
    path = write_study(tmp_path)
    for name in ("plot.svg", "plot.html"):
        assert simulated(capsys, path, "--plot", tmp_path / name)[0] == 0
        text = (tmp_path / name).read_text()
        assert "busy slots over time" in text
        assert "best value over cost" in text
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    root = ET.fromstring((tmp_path / "plot.svg").read_text())
    assert len(root.findall("{http://www.w3.org/2000/svg}svg")) == 2


def test_a_study_that_was_run_may_be_named_by_its_spec(tmp_path, capsys):
    path = write_study(tmp_path)
    assert main(["run", str(path), "--no-promote"]) == 0
    before = sorted((tmp_path / "studies").rglob("*"))
    code, out, _ = simulated(capsys, path, "--like", path, "--set", "budget.trials=12")
    assert code == 0
    assert "trials of study 'small'" in out
    assert sorted((tmp_path / "studies").rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--step-time", "soon"], 2, "--step-time: 'soon' is not allowed; write seconds, or for example 90s"),
        (["--step-time", "objective:nothing"], 2, "--step-time: "),
        (["--plot", "plot.png"], 2, "--plot: 'plot.png' is not allowed; the file must end in .svg or .html"),
        (["--trace", "nowhere.csv"], 2, "--trace: 'nowhere.csv' cannot be read"),
        (["--cpus", "0.1"], 2, "--cpus: 0.1 is not allowed; a trial needs 1"),
        (["--like", "memory://nowhere"], 3, "there is no study here"),
        (["--set", "budget.trials=x"], 2, "budget.trials"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, capsys, arguments, code, said):
    found, out, err = simulated(capsys, write_study(tmp_path), *arguments)
    assert (found, out) == (code, "")
    assert said in err

"""What a user installs: the wheel alone, the entry points, and the pins of the two environments."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
DISTRIBUTIONS = (".", "providers/airflow", "providers/prefect")
OF_THE_EXTRAS = ("adlfs", "airflow", "gcsfs", "mlflow", "pandas", "prefect", "ray", "s3fs", "scipy")
PIN = re.compile(r"[a-z0-9._-]+==[A-Za-z0-9.+!]+( ; [^:@]+)?")
ADDRESS = re.compile(r"://|file:| @ |(^|\s)(\.|\.\.)?/")


def project(folder: str) -> dict:
    return tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]


def entry_points(folder: str) -> list[EntryPoint]:
    groups = {"console_scripts": project(folder).get("scripts", {}), **project(folder).get("entry-points", {})}
    return [EntryPoint(name, value, group) for group, names in groups.items() for name, value in names.items()]


def addresses(text: str) -> list[str]:
    return [line for line in text.splitlines() if ADDRESS.search(line)]


def not_a_pin(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.lstrip().startswith("#") and not PIN.fullmatch(line)]


def uv(*arguments: str | Path) -> None:
    from uv import find_uv_bin

    subprocess.run([find_uv_bin(), *arguments], check=True, capture_output=True, text=True, timeout=240)


def install(python: Path, wheel: Path) -> None:
    command = ("pip", "install", "--python", python, "--constraint", ROOT / "requirements/engine.txt", wheel)
    try:
        uv(*command, "--offline")
    except subprocess.CalledProcessError:  # a machine whose cache was emptied after the environments were made
        uv(*command)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_its_type_marker_and_its_licence_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "tune_tasks/py.typed" in names
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {"tune_tasks", f"{wheel.name.split('-py3')[0]}.dist-info"}


@pytest.mark.slow
def test_the_wheel_installs_alone_without_extras_and_imports(wheel, tmp_path):
    uv("venv", "--python", sys.executable, tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    install(python, wheel)
    probe = f"""
import importlib.util, tune_tasks
print(tune_tasks.__file__)
for name in tune_tasks.__all__:
    getattr(tune_tasks, name)
print([name for name in {OF_THE_EXTRAS} if importlib.util.find_spec(name)])
"""
    result = subprocess.run([python, "-I", "-c", probe], check=True, capture_output=True, text=True, cwd=tmp_path)
    where, extras = result.stdout.splitlines()
    assert Path(where).is_relative_to(tmp_path)
    assert extras == "[]"
    subprocess.run([tmp_path / "venv/bin/tune-tasks", "--help"], check=True, capture_output=True, cwd=tmp_path)


@pytest.mark.parametrize(
    "entry_point",
    [
        pytest.param(each, id=each.value)
        for folder in DISTRIBUTIONS
        for each in entry_points(folder)
        if each.group != "airflow.plugins"  # it loads Airflow, and is loaded where that is
    ],
)
def test_every_entry_point_names_an_object_that_exists(entry_point, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "providers/airflow/src")  # not installed where Prefect is
    assert entry_point.load() is not None


@pytest.mark.parametrize("orchestrator", ["airflow", "prefect"])
def test_a_provider_needs_what_the_extra_of_its_name_offers(orchestrator):
    extra = set(project(".")["optional-dependencies"][orchestrator])
    core = Requirement("tune-tasks>=0.1,<0.2")
    assert {Requirement(each) for each in project(f"providers/{orchestrator}")["dependencies"]} == {
        core,
        *map(Requirement, extra),
    }


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").iterdir()), ids=lambda path: path.name)
def test_no_requirement_file_holds_an_address(path):
    assert addresses(path.read_text()) == []


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.name)
def test_the_environments_are_pinned_to_the_last_package(path):
    assert not_a_pin(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "ray @ ray.whl",
        "--index-url https://example.org/simple",
        "../ray",
        "    # via file:ray",
        "    # via -r /tmp/x.in",
    ],
)
def test_an_address_among_the_pins_is_seen(line):
    assert addresses(f"numpy==2.4.6\n{line}\n") == [line]


@pytest.mark.parametrize("line", ["ray>=2.44", "ray", "-e .", "--find-links wheels", "ray==2.60.0 --hash=sha256:0"])
def test_a_line_that_is_no_pin_is_seen(line):
    assert not_a_pin(f"# a heading\nnumpy==2.4.6\n{line}\n") == [line]

"""What travels with a model: the loader's own code, and the names of what must be installed."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from tune_tasks.errors import ConfigError
from tune_tasks.registry.package import local_code, requirements, save, try_loader


def test_the_loader_takes_along_what_it_imports_from_beside_it_and_nothing_else(code: Path) -> None:
    assert [path.name for path in local_code("serving:load", str(code))] == ["arithmetic.py", "serving.py"]


def test_a_package_travels_whole(code: Path) -> None:
    folder = code / "bundle"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "inner.py").write_text("from . import helper\n\ndef load(folder):\n    return helper\n")
    (folder / "helper.py").write_text("import arithmetic\n")
    assert [path.name for path in local_code("bundle.inner:load", str(code))] == ["arithmetic.py", "bundle"]


def test_an_installed_loader_does_not_travel(code: Path) -> None:
    assert local_code("numpy:load", str(code)) == []
    assert local_code("json:load", str(code)) == []


def test_what_the_code_imports_is_named_with_its_version(code: Path) -> None:
    (code / "arithmetic.py").write_text("import os, numpy.linalg\nfrom sklearn import svm\nimport not_installed\n")
    found = requirements([code / "arithmetic.py"])
    assert found == [f"numpy=={version('numpy')}", f"scikit-learn=={version('scikit-learn')}"]


def test_a_loader_that_needs_more_than_travels_is_refused_by_name(code: Path, tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "elsewhere.py").write_text("predict = print\n")
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "file").write_text("x")
    save(checkpoint, "serving:unloadable", str(code), tmp_path / "model")
    with pytest.raises(ConfigError, match="No module named 'elsewhere'"):
        try_loader("serving:unloadable", tmp_path / "model")

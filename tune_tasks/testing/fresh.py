"""Asks a plug-in for its decision in a fresh process, where nothing is cached and strings hash in another order.

Run as a program it is that process: JSON in on standard input, JSON out. This module must not be imported by the
engine.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from tune_tasks.events import Event, decode, encode
from tune_tasks.study import StudyState


def ask_in_a_fresh_process(plugin: BaseModel, events: Iterable[Event], method: str, **arguments: Any) -> list[Any]:
    """Calls `plugin.method(history, **arguments)` in another process and returns its values as JSON."""
    asked = {
        "module": type(plugin).__module__,
        "file": inspect.getfile(type(plugin)),
        "name": type(plugin).__qualname__,
        "options": plugin.model_dump(mode="json"),
        "events": [encode(event).decode() for event in events],
        "method": method,
        "arguments": arguments,
    }
    environment = {**os.environ, "PYTHONHASHSEED": "4242", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tune_tasks.testing.fresh"],
        input=json.dumps(asked),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"{asked['name']}.{method} failed in a fresh process:\n{done.stderr}")
    answer: list[Any] = json.loads(done.stdout)
    return answer


def _answer(asked: dict[str, Any]) -> list[Any]:
    history = StudyState()
    for line in asked["events"]:
        history.apply(decode(line.encode()))
    made = getattr(_module(asked["module"], asked["file"]), asked["name"])(**asked["options"])
    return [value.model_dump(mode="json") for value in getattr(made, asked["method"])(history, **asked["arguments"])]


def _module(name: str, file: str) -> Any:
    """Imports a module by name; by its file where the name means nothing here, as for a module of tests."""
    try:
        return importlib.import_module(name)
    except ImportError:
        found = importlib.util.spec_from_file_location(name, file)
        if found is None or found.loader is None:
            raise
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        return module


if __name__ == "__main__":
    json.dump(_answer(json.load(sys.stdin)), sys.stdout)

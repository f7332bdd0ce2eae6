"""Brings a version to life in this process, and speaks with it in JSON, as clients of an endpoint do.

It runs on any machine of a cluster. This module must not know a target, and must not unpickle anything itself: what
the loader does is the user's.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import orjson

from tune_tasks.deployment import Model, Predict
from tune_tasks.errors import ConfigError


def load(model: Model, scratch: Path) -> Any:
    """Fetches the files of a version into `scratch` and loads them with the code that came with it."""
    if model.loader is None:
        raise ConfigError("promotion.loader: missing; without one nothing turns the model's files into predictions")
    folder = model.fetch(scratch / "model")
    code = scratch / "code"
    for name, data in model.code.items():
        path = code / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    module, _, attribute = model.loader.partition(":")
    if model.code:
        sys.path.insert(0, str(code))
        for top in {name.partition("/")[0].removesuffix(".py") for name in model.code}:
            for known in [known for known in sys.modules if known == top or known.startswith(f"{top}.")]:
                del sys.modules[known]  # of another version, which this process has loaded before
        importlib.invalidate_caches()
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found(folder)


def dump(value: Any) -> bytes:
    """A value as JSON: arrays, data frames and numbers of numpy as lists and numbers."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def answer(model: Any, body: bytes) -> bytes:
    """What a model predicts for an input in JSON, as JSON."""
    return dump(model.predict(orjson.loads(body)))


def through_json(model: Any) -> Predict:
    """The predict of a loaded model as clients see it: its input and its output are values of JSON."""
    return lambda rows: orjson.loads(answer(model, dump(rows)))


def _plain(value: Any) -> Any:
    for method, options in (("to_dict", {"orient": "records"}), ("tolist", {})):
        convert = getattr(value, method, None)
        if convert is not None:
            try:
                return convert(**options)
            except TypeError:  # a series has a to_dict without orient
                continue
    raise TypeError(f"a {type(value).__name__} has no form in JSON; return lists or arrays from predict")

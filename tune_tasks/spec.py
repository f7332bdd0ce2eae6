"""What a user writes: the spec of a study, its defaults, and the one clear message for each mistake.

Parsing and validation only. This module must not look plug-ins up, import an objective, or touch a store; the file
that `load_spec` reads is its only I/O.
"""

from __future__ import annotations

import importlib
import re
import sys
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
)
from pydantic_core import ErrorDetails

from tune_tasks.command import Command
from tune_tasks.delivery import Deploy, Final, Promotion, Retrain, Start
from tune_tasks.errors import ConfigError, invalid
from tune_tasks.points import check_start
from tune_tasks.sections import (
    IMPORT_STRING,
    Budget,
    Checkpoints,
    Environment,
    Execution,
    ImportString,
    Plugin,
    Resources,
    Retry,
    Section,
)
from tune_tasks.space import Space

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


class StudySpec(Section):
    """Everything that defines a study. `name`, `objective`, `metric`, `mode` and `space` are all that it must have."""

    name: str = Field(description="the study lives at <store>/<name>")
    store: str = Field(
        default="./studies", description="a local path, or a URL of s3, gs, abfs, postgresql, file or memory"
    )
    objective: ImportString | None = Field(
        description="import string module:name; a function or class in Python; or else a command"
    )
    command: Command | None = Field(
        default=None, description="runs in place of an objective: python train.py --lr {learning_rate}"
    )
    metric: str = Field(min_length=1, description="the reported metric to optimise")
    mode: Literal["min", "max"] = Field(description="whether a smaller or a larger metric is better")
    space: Space = Field(description="parameters by name; a mapping without type is a group, a plain value a constant")
    sampler: Plugin = Field(default=Plugin(name="tpe"), description="who is tried next, with its options")
    scheduler: Plugin = Field(default=Plugin(name="none"), description="how far each trial may go, with its options")
    resources: Resources = Field(default=Resources(), description="what each trial occupies")
    budget: Budget = Field(default=Budget(), description="when the study has spent enough")
    retry: Retry = Field(default=Retry(), description="how often a trial is tried again")
    checkpoints: Checkpoints = Field(default=Checkpoints(), description="which checkpoints are kept")
    execution: Execution = Field(default=Execution(), description="how trials are run")
    environment: Environment = Field(default=Environment(), description="what the cluster needs to run the study")
    promotion: Promotion = Field(default=Promotion(), description="what becomes of the best trial")
    final: Final | None = Field(default=None, description="train the winner once more, on all the data")
    deploy: Deploy | None = Field(default=None, description="where the champion goes")
    retrain: Retrain = Field(default=Retrain(), description="how the next run of a schedule begins")
    tracking: tuple[Plugin, ...] = Field(
        default=(Plugin(name="mlflow"),),
        description="where the study is shown: mlflow, tensorboard, files, plug-ins",
    )
    start: tuple[Start, ...] = Field(default=(), description="configurations to try first, each as params by name")
    data: str | None = Field(
        default=None, description="what is trained on, for the record: a URL, a version or a digest"
    )
    series: str | None = Field(default=None, description="the schedule that this study is one run of")
    inputs: dict[str, ImportString] = Field(
        default_factory=dict,
        description="loaded once where the driver runs, by these functions, and handed to the objective by keyword",
    )
    unsafe_single_writer: bool = Field(
        default=False, description="accept a store that cannot create an object only if it is absent"
    )

    _target: Any = PrivateAttr(default=None)
    _loaders: dict[str, Any] = PrivateAttr(default_factory=dict)
    _folder: Path | None = PrivateAttr(default=None)

    def __init__(self, **data: Any) -> None:
        target = data.get("objective")
        if callable(target):
            data["objective"] = _name_of(target)
        elif data.get("command") is not None:
            data.setdefault("objective", None)
        loaders = data.get("inputs")
        if isinstance(loaders, Mapping):
            data["inputs"] = {name: _name_of(load) if callable(load) else load for name, load in loaders.items()}
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise explain(error, type(self)) from None
        self._target = target if callable(target) else None
        self._loaders = dict(loaders or {})
        self._check_command()
        check_start(self.space, [start.params for start in self.start])

    @field_validator("name")
    @classmethod
    def _safe_name(cls, name: str) -> str:
        if name.startswith("_"):
            raise ValueError(f"{name!r} begins with '_', as what tune_tasks itself keeps beside the studies does")
        return check_name(name)

    @field_validator("inputs")
    @classmethod
    def _keywords(cls, inputs: dict[str, str]) -> dict[str, str]:
        for name in inputs:
            if not name.isidentifier() or name == "config":
                raise ValueError(f"{name!r} cannot be the name of an argument beside config; use letters, digits and _")
        return inputs

    @property
    def folder(self) -> Path | None:
        """The folder of the file that this spec was read from."""
        return self._folder

    @property
    def model(self) -> str:
        """The name in the registry that the study promotes to."""
        return self.promotion.model or self.series or self.name

    @property
    def owner(self) -> str:
        """Whose models the study's are: no study of another owner may promote to the same name."""
        return self.promotion.owner or self.series or self.name

    def changed(self, changes: Mapping[str, Any], folder: str | Path | None = None) -> StudySpec:
        """This spec with other sections; Python objects stay what they are where their names stay.

        `folder` is that of its modules, by default the same.
        """
        given = {**self.record(), "store": self.store, **changes}
        if given["objective"] == self.objective:
            given["objective"] = self._target or self.objective
        if given["inputs"] == self.inputs:
            given["inputs"] = self.loaders
        made = StudySpec(**given)
        made._folder = Path(folder) if folder else self._folder
        return made

    @property
    def target(self) -> Any:
        """The objective as the Python object that was given; None where it was an import string."""
        return self._target

    @property
    def loaders(self) -> dict[str, Any]:
        """What loads each input, by name: the Python object that was given, or an import string."""
        return dict(self._loaders)

    def resolve_objective(self, folder: str | Path | None = None) -> Callable[..., Any]:
        """Imports and returns the objective; `folder` is searched first. Raises `ConfigError` where that fails."""
        if self.objective is None:
            raise ConfigError("objective: the study runs a command in its place; there is nothing to import")
        return self._target or resolve(self.objective, "objective", folder or self._folder)

    def _check_command(self) -> None:
        if self.command is None:
            if self.objective is None:
                raise ConfigError("objective: missing; it must be given, or a command in its place")
        elif self.objective is not None:
            raise invalid("command", " ".join(self.command.run), "an objective is given too; give one of the two")
        elif self.inputs:
            raise invalid("inputs", ", ".join(self.inputs), "a command has no keyword arguments; let it read files")
        else:
            self.command.check(self.space.root, self.metric)

    def record(self) -> dict[str, Any]:
        """The spec as JSON values for the log: everything but the store, which is where the log is."""
        return self.model_dump(mode="json", exclude={"store"})


def load_spec(source: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> StudySpec:
    """Reads a spec from a YAML or JSON file, or from a mapping.

    `overrides` maps dotted paths (`budget.trials`) to values that replace what the file says.
    Raises `ConfigError` with the path, the value, what is allowed and the nearest right name.
    """
    folder = None
    if isinstance(source, Mapping):
        data = dict(source)
    else:
        path = Path(source)
        data, folder = _read(path), path.resolve().parent
    for dotted, value in (overrides or {}).items():
        _override(data, dotted, value)
    spec = StudySpec(**data)
    spec._folder = folder  # noqa: SLF001  # the loader is the one place that knows the folder
    return spec


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lists where two recorded specs differ, one line for each dotted path."""
    found: list[str] = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key} is {after!r} here and {before!r} in the study")
    return found


def section_of(difference: str) -> str:
    """The section of the spec that a line of `differences` is about."""
    return re.split(r"[. ]", difference, maxsplit=1)[0]


def check_name(name: str) -> str:
    """Returns `name` where it is safe as a part of a path and of a URL; raises `ValueError` otherwise."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a name; use 1 to 128 letters, digits, '.', '_' and '-', no leading '.' or '-'"
        )
    return name


def resolve(target: str, path: str, folder: str | Path | None = None) -> Callable[..., Any]:
    """Imports `module:name`; `folder` is searched first. `path` is where the spec says it, for the message."""
    module_name, _, attribute = target.partition(":")
    try:
        found: Any = _module(module_name, folder)
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        names = [name for name in vars(sys.modules[module_name]) if not name.startswith("_")]
        raise invalid(
            path, target, f"module {module_name!r} has no such name ({error})", _prefixed(module_name, names)
        ) from None
    except Exception as error:
        raise ConfigError(f"{path}: {target!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise ConfigError(f"{path}: {target!r} is a {type(found).__name__}; it must be a function or a class")
    return typing.cast("Callable[..., Any]", found)


def _module(name: str, folder: str | Path | None) -> Any:
    """Imports a module, the one in `folder` also where another study's module of that name is loaded already."""
    if folder is not None:
        while str(folder) in sys.path:
            sys.path.remove(str(folder))
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
        own = Path(folder, *name.split(".")).with_suffix(".py")
        loaded = getattr(sys.modules.get(name), "__file__", None)
        if own.exists() and loaded is not None and Path(loaded).resolve() != own.resolve():
            del sys.modules[name]
    return importlib.import_module(name)


def explain(error: ValidationError, model: type[BaseModel], root: str = "") -> ConfigError:
    """Turns pydantic's errors into one `ConfigError`, a line for each mistake; `root` is where the spec has `model`."""
    return ConfigError("\n".join(_explain_one(details, model, root) for details in error.errors()))


def _explain_one(details: ErrorDetails, model: type[BaseModel], root: str) -> str:
    where = [str(part) for part in details["loc"]]
    kinds = ["float", "int", "categorical", "grid", "constant"]
    path = ".".join(part for part in (root, *where) if part and part not in kinds) or "spec"
    match details["type"]:
        case "extra_forbidden":
            allowed = _fields_at(model, details["loc"][:-1])
            return str(invalid(path, where[-1], f"unknown key; allowed are {', '.join(allowed)}", allowed))
        case "missing":
            return f"{path}: missing; it must be given{', or a command in its place' if path == 'objective' else ''}"
        case "union_tag_invalid" | "union_tag_not_found":
            value = details["input"].get("type") if isinstance(details["input"], Mapping) else details["input"]
            return str(invalid(f"{path}.type", value, f"allowed are {', '.join(kinds)}", kinds))
        case "value_error":
            return f"{path}: {details['msg'].removeprefix('Value error, ')}"
        case "literal_error":
            expected = details["ctx"]["expected"]
            return str(invalid(path, details["input"], f"allowed are {expected}", re.findall(r"'([^']*)'", expected)))
        case _:
            return str(invalid(path, details["input"], details["msg"][:1].lower() + details["msg"][1:]))


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Names the keys that are allowed at a place in the spec."""
    current: Any = model
    for part in location:
        if current is Space:
            break
        if isinstance(part, int):  # the place in a list, whose members are what `current` is already
            continue
        annotation = current.model_fields[str(part)].annotation
        options = [annotation, *typing.get_args(annotation)]
        current = next(option for option in options if isinstance(option, type) and issubclass(option, BaseModel))
    if current is Space:
        from tune_tasks import space  # only an error needs the classes by name

        return list(getattr(space, str(location[-1]).capitalize()).model_fields)
    return list(current.model_fields)


def _read(path: Path) -> dict[str, Any]:
    import yaml  # a spec built in Python needs no YAML

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not a YAML or JSON file: it is not UTF-8 text") from None
    try:
        data = yaml.load(text, Loader=_loader())  # noqa: S506  # a SafeLoader with one more number format
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds {type(data).__name__}, must be a mapping with the keys of a spec")
    return data


def read_value(text: str) -> Any:
    """Reads one value of a spec as it is written in YAML. Raises `ConfigError`."""
    import yaml  # as in _read

    try:
        return yaml.load(text, Loader=_loader())  # noqa: S506  # as in _read
    except yaml.YAMLError as error:
        raise ConfigError(f"{text!r} is not YAML: {' '.join(str(error).split())}") from None


def _loader() -> Any:
    """A safe YAML loader that reads 1e-5 as a number, which YAML 1.1 takes for text, and refuses a key given twice."""
    import yaml  # as in _read

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002  # PyYAML's signature
            keys = [key.value for key, _ in node.value]
            twice = next((key for key in keys if isinstance(key, str) and keys.count(key) > 1), None)
            if twice is not None:
                raise yaml.YAMLError(f"the key {twice!r} is there twice {node.start_mark}")
            return super().construct_mapping(node, deep)

    number = re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789."))
    return Loader


def _override(data: dict[str, Any], dotted: str, value: Any) -> None:
    *groups, leaf = dotted.split(".")
    inner = data
    for group in groups:
        nested = inner.get(group, {})
        if not isinstance(nested, str | Mapping):
            raise invalid(dotted, value, f"{group} is {nested!r} and has nothing below it to replace")
        alone = "run" if group == "command" else "name"
        inner[group] = {alone: nested} if isinstance(nested, str) else dict(nested)
        inner = inner[group]
    inner[leaf] = value


def _name_of(target: Any) -> str:
    name = f"{getattr(target, '__module__', '')}:{getattr(target, '__qualname__', '')}"
    return (
        re.sub(r"[^\w.:]", "_", name) if IMPORT_STRING.fullmatch(re.sub(r"[^\w.:]", "_", name)) else "objective:unnamed"
    )


def _prefixed(module: str, names: list[str]) -> list[str]:
    return [f"{module}:{name}" for name in names]

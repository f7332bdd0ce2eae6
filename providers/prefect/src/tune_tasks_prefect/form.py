"""The overrides of a spec as a form: fields in Prefect's UI, with the limits that its server holds them to.

`form.json` is written from the spec's schema by `python -m tune_tasks_prefect form`, so that a flow with the form is
loaded without the engine. This module must not know a key of a spec, and must not check what the engine checks.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_args

from pydantic import WithJsonSchema

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

SECTIONS = ("budget", "resources", "retry", "execution", "promotion", "retrain")
"""The sections whose keys are fields of the form; the keys of others are taken too, as the engine takes them."""

FILE = "form.json"

_KEYWORDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
"""What pydantic calls a limit of a value that it changes first, and JSON schema otherwise."""
_SIMPLE = {"integer", "number", "string", "boolean"}
_DURATION, _SIZE = r"^(\d+(\.\d+)?[smhd])+$", r"^\d+(\.\d+)?\s*([kmgtKMGT][iI]?)?[bB]?$"

Overrides: TypeAlias = Annotated[
    dict[str, Any], WithJsonSchema(json.loads(files(__package__).joinpath(FILE).read_text(encoding="utf-8")))
]
"""A mapping of dotted paths to values, `{"budget.trials": 8}`, of which Prefect's server knows what is allowed."""


def generate() -> dict[str, Any]:
    """The JSON schema of the form, from the spec's. Nothing is required, and what is left out stays as in the spec."""
    from tune_tasks.schema import schema
    from tune_tasks.spec import StudySpec

    whole = schema()
    fields: dict[str, Any] = {}
    free = [name for name in StudySpec.model_fields if name not in SECTIONS]
    for section in SECTIONS:
        model = _model(StudySpec.model_fields[section])
        properties = whole["$defs"][model.__name__]["properties"]
        for name, field in model.model_fields.items():
            shown = _shown(properties[name], field)
            if shown is None:
                free.append(f"{section}.{name}")
            else:
                fields[f"{section}.{name}"] = {"title": f"{section}.{name}", **shown}
    allowed = "|".join(name.replace(".", r"\.") for name in sorted(free))
    return {
        "title": "overrides",
        "description": "Keys of the spec with other values; what is left out stays as it is.",
        "type": "object",
        "properties": fields,
        "patternProperties": {f"^({allowed})(\\..+)?$": {}},
        "additionalProperties": False,
    }


def write() -> Path:
    """Writes the form anew, for who changes a spec's schema; gives the file."""
    file = Path(__file__).with_name(FILE)
    file.write_text(json.dumps(generate(), indent=1) + "\n", encoding="utf-8")
    return file


def _model(field: FieldInfo) -> type[BaseModel]:
    annotation: Any = field.annotation
    found: type[BaseModel] = next(iter(get_args(annotation)), annotation)  # what may be left out is a union with None
    return found


def _shown(schema: dict[str, Any], field: FieldInfo) -> dict[str, Any] | None:
    """The schema of a field as a form needs it, with a text where the engine reads one; None for no plain value.

    Without null and without the default: the UI would fill that in, and it would override the spec's own.
    """
    options = [option for option in schema.get("anyOf", [schema]) if option.get("type") != "null"]
    told = ((_KEYWORDS.get(name, name), value) for name, value in options[0].items())
    plain = {name: value for name, value in told if name not in {"default", "description", "title"}}
    if len(options) > 1 or plain.get("type") not in _SIMPLE:
        return None
    words = _words(field)
    form: dict[str, Any] = {"anyOf": [plain, {"type": "string", "pattern": words}]} if words else plain
    return {**form, **({"description": field.description} if field.description else {})}


def _words(field: FieldInfo) -> str | None:
    """The pattern of a text by which the engine reads a number: 10m, 4GiB."""
    from tune_tasks.sections import Duration, Size

    told = [*field.metadata, *(part for one in get_args(field.annotation) for part in get_args(one)[1:])]
    for kind, pattern in ((Duration, _DURATION), (Size, _SIZE)):
        if get_args(kind)[1] in told:
            return pattern
    return None

"""Opens the study that a task or a hook names: a spec's path, a spec as a mapping, or a URL, with or without a block.

This module must not let a secret into Prefect: parameters are kept on its server and shown to everyone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tune_tasks.errors import ConfigError
from tune_tasks_prefect.pipelines import pipeline_name

if TYPE_CHECKING:
    from tune_tasks.spec import StudySpec
    from tune_tasks.studies import Study

Source: TypeAlias = str | Path | dict[str, Any]
"""A study: the path of its spec, the spec as a mapping, or the URL of a study that exists.

Prefect keeps parameters on its server, so none of them may hold a key or a token; those come from a block, or from the
environment of the worker.
"""

_CREDENTIALS = re.compile(r"://[^/:@'\"\s]+:[^'\"\s]*@")


@contextmanager
def opened_study(
    step: str,
    study: Source,
    *,
    overrides: Mapping[str, Any] | None = None,
    amend: bool = False,
    pipeline: str | None = None,
    store: str | None = None,
) -> Iterator[Study]:
    """Opens a study for a step, creating it where there is none; inside, its store has the credentials of the block.

    It is opened for `pipeline`, by default this deployment's. Raises `ConfigError` for a URL with credentials, for
    overrides of a URL, and as `open_study` does.
    """
    from tune_tasks.steps import open_for
    from tune_tasks_prefect.blocks import opened

    _refuse_credentials(study, overrides)
    with opened(store) as place:
        source = source_of(study, overrides, place)
        yield open_for(step, source, pipeline=pipeline or pipeline_name(), amend=amend)


def source_of(study: Source, overrides: Mapping[str, Any] | None, place: str | None) -> StudySpec | str:
    """The spec that is meant, or the URL; `place` stands for the store of a spec."""
    from tune_tasks.spec import load_spec
    from tune_tasks.studies import is_spec_file

    if isinstance(study, Mapping) or is_spec_file(study):
        return load_spec(study, {**({"store": place} if place else {}), **(overrides or {})})
    if overrides:
        raise ConfigError(f"overrides: {overrides} are not allowed with a URL; they change a spec")
    return str(study)


def _refuse_credentials(*given: Any) -> None:
    if any(_CREDENTIALS.search(str(value)) for value in given):
        raise ConfigError(
            "study: it names a URL with credentials, and Prefect has now stored them among the parameters; "
            "replace them, and give the new ones to a StudyStore block, or to the worker's environment"
        )

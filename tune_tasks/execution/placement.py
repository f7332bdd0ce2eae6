"""What a worker occupies, and how Ray is told: its shape, which may follow from the configuration, and its gang.

Workers of one shape can stand in for one another. This module must not decide how many workers there are.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from tune_tasks.errors import ConfigError
from tune_tasks.execution.capacity import Amounts
from tune_tasks.sections import Bundle, Resources
from tune_tasks.spec import explain, resolve

_TRACE = 0.001
"""How much of an accelerator type Ray has a trial take: the resource only names the type."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What each worker of a pool occupies. Equal where Ray would be asked for the same."""

    key: str
    resources: Resources = field(compare=False, repr=False)

    @classmethod
    def of(cls, resources: Resources) -> Shape:
        """The shape of these resources."""
        resources = resources.model_copy(update={"function": None})
        return cls(resources.model_dump_json(), resources)

    @property
    def needs(self) -> list[Amounts]:
        """What the process of a trial takes, and then each bundle of its gang; empty where that is nothing."""
        own = _amounts(self.resources)
        if self.resources.accelerator:
            own[f"accelerator_type:{self.resources.accelerator}"] = _TRACE
        if self.resources.bundles and not own:
            own = {"CPU": _TRACE}  # Ray has no empty bundles
        return [need for need in (own, *map(_amounts, self.resources.bundles)) if need]


class Shapes:
    """The shape of each trial."""

    def __init__(self, resources: Resources, folder: str | None) -> None:
        """Raises `ConfigError` where the function of the resources cannot be imported, or a bundle holds nothing."""
        self.default = _checked(Shape.of(resources))
        named = resources.function
        self._function = resolve(named, "resources.function", folder) if named else None
        self._given = resources.model_dump(exclude={"function"})

    @property
    def vary(self) -> bool:
        """Whether they differ from trial to trial."""
        return self._function is not None

    def of(self, config: dict[str, Any]) -> Shape:
        """The shape of a trial with this configuration. Raises what the function raises, and `ConfigError`."""
        if self._function is None:
            return self.default
        keys = self._function(copy.deepcopy(config))
        if not isinstance(keys, Mapping):
            raise ConfigError(f"resources.function: returned {keys!r}, must be a mapping with keys of resources")
        try:
            return _checked(Shape.of(Resources(**{**self._given, **keys})))
        except ValidationError as error:
            raise explain(error, Resources, "resources.function") from None


def gang(shape: Shape, avoided: Collection[str]) -> Any:
    """Asks Ray for the placement group of a worker and its gang, off some nodes; None where it has no gang."""
    if not shape.resources.bundles:
        return None
    from ray.util.placement_group import placement_group

    bundles = [dict(need) for need in shape.needs]
    selector = {"bundle_label_selector": [_off(avoided)] * len(bundles)} if avoided else {}
    return placement_group(bundles, strategy=shape.resources.strategy, **selector)


def release(group: Any) -> None:
    """Gives the resources of a gang back, and ends what still runs on them."""
    from ray.util.placement_group import remove_placement_group

    remove_placement_group(group)


def options(shape: Shape, group: Any, avoided: Collection[str]) -> dict[str, Any]:
    """The options of a worker's actor. Never restarted by Ray: what to run again is for the log to decide."""
    resources = shape.resources
    given: dict[str, Any] = {"num_cpus": resources.cpu, "num_gpus": resources.gpu, "resources": resources.custom}
    if resources.memory is not None:
        given["memory"] = resources.memory
    if resources.accelerator is not None:
        given["accelerator_type"] = resources.accelerator
    if group is not None:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        given["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
            group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
        )
    elif avoided:
        given["label_selector"] = _off(avoided)
    return {**given, "max_restarts": 0, "max_task_retries": 0}


def _checked(shape: Shape) -> Shape:
    if not all(map(_amounts, shape.resources.bundles)):
        raise ConfigError("resources.bundles: a bundle holds nothing; it must have cpu, gpu, memory or custom")
    return shape


def _amounts(bundle: Bundle) -> dict[str, float]:
    all_of_them = {"CPU": bundle.cpu, "GPU": bundle.gpu, "memory": float(bundle.memory or 0), **bundle.custom}
    return {name: amount for name, amount in all_of_them.items() if amount > 0}


def _off(avoided: Collection[str]) -> dict[str, str]:
    return {"ray.io/node-id": f"!in({','.join(sorted(avoided))})"}

"""The sections of a spec for what follows the search: promotion, final training, deployment, the next run, tracking.

Values alone, as in `sections.py`. This module must not import what they name, or do I/O.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from tune_tasks.sections import Duration, ImportString, Plugin, Section


class Limit(Section):
    """What a number of a model may be."""

    min: float | None = Field(default=None, allow_inf_nan=False)
    max: float | None = Field(default=None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _limits_something(self) -> Limit:
        if self.min is None and self.max is None:
            raise ValueError("neither min nor max is given; a limit has one of them, or both")
        return self


class Promotion(Section):
    """Who becomes the champion: how models are measured, what they must pass, and who has to agree."""

    model: str | None = Field(default=None, description="name in the model registry; by default the study's")
    alias: str = Field(default="champion", description="the registry alias that downstream tasks load")
    owner: str | None = Field(
        default=None,
        description="who may promote to this model: studies of one owner share it; by default the series, or the study",
    )
    registry: str | None = Field(
        default=None,
        description="MLflow URI or 'none'; by default MLFLOW_TRACKING_URI, else a SQLite file in a local store",
    )
    loader: ImportString | None = Field(default=None, description="turns a checkpoint folder into a model")
    example: ImportString | None = Field(
        default=None, description="returns an input for the model's predict: times it, and checks an endpoint"
    )
    evaluate: ImportString | None = Field(
        default=None,
        description="gets a model's folder, and seed and data by keyword if it takes them; returns held-out metrics, "
        "or an Evaluation with each example's value",
    )
    metric: str | None = Field(default=None, description="the metric of `evaluate` that decides; by default metric")
    mode: Literal["min", "max"] | None = Field(default=None, description="of that metric; by default mode")
    candidates: int = Field(default=3, ge=1, description="best trials that are evaluated again")
    repeats: int = Field(default=1, ge=1, description="evaluations of each model, with the seeds 0, 1, 2, ...")
    min_improvement: float = Field(
        default=0.0, allow_inf_nan=False, description="by how much, in the metric, to beat the champion"
    )
    confidence: float = Field(
        default=0.95, ge=0.5, lt=1, description="how sure that must be, where each example or repeat has a value"
    )
    slices: float | None = Field(
        default=None, ge=0, description="by how much, in the metric, a slice may be worse than the champion's"
    )
    limits: dict[str, Limit] = Field(
        default_factory=dict,
        description="of any metric of `evaluate`, and of size (bytes), latency (s of one predict), train_seconds",
    )
    gates: tuple[ImportString, ...] = Field(
        default=(), description="your own: each gets challenger and champion, returns whether it passes, and why"
    )
    broken_champion: Literal["keep", "replace"] = Field(
        default="keep", description="what becomes of a champion that no longer loads"
    )
    approval: Literal["none", "required"] = Field(default="none", description="required: a person has to agree")
    approval_time: Duration = Field(default=7 * 86400.0, description="time to agree; then it is refused")
    pickle: bool = Field(
        default=False, description="accept pickled files in a model; whoever loads them runs what code they hold"
    )


class Final(Section):
    """The winner, trained once more on all the data."""

    objective: ImportString | None = Field(
        default=None, description="by default the study's, which sees tt.get_context().final"
    )
    seeds: int = Field(default=1, ge=1, description="trainings, with the seeds 0, 1, 2, ... in the configuration")
    ensemble: bool = Field(
        default=False, description="one model of all seeds: its folder has member-0, member-1, ...; else the best one"
    )
    budget: int | None = Field(default=None, ge=1, description="steps; by default as many as the winner's")
    of: str | None = Field(default=None, description="set by train_final: the study whose winner this one trains")


class Canary(Section):
    """How a new version shows itself before it gets all requests."""

    share: float = Field(default=0.1, gt=0, lt=1, description="share of the requests that it gets")
    time: Duration = Field(default=60.0, description="for how long")
    max_errors: float = Field(default=0.0, ge=0, lt=1, description="share of its requests that may fail")
    max_latency: Duration | None = Field(default=None, description="its 95th percentile, in seconds")
    check: ImportString | None = Field(
        default=None, description="gets the canary's predict, asked every second; raises where it is not as it should"
    )


class Deploy(Section):
    """Where the champion goes."""

    target: Plugin = Field(default=Plugin(name="serve"), description="serve, folder, or a plug-in, with its options")
    canary: Canary | None = Field(default=None, description="by default a new version is checked, then takes over")
    rollback: bool = Field(default=True, description="the alias goes back too where a new version fails its check")


class Retrain(Section):
    """How the next run of a schedule begins."""

    warm_start: int = Field(default=5, ge=0, description="best configurations of the last run that are tried first")
    cooldown: Duration | None = Field(default=None, description="time without a new run after a refused promotion")
    skip_unchanged: bool = Field(default=True, description="no new run where the data is that of the last one")


class Start(Section):
    """A configuration to try first."""

    params: dict[str, Any] = Field(description="a value for each parameter of the space")
    origin: str = Field(default="given in the spec", description="where it comes from")

    @model_validator(mode="before")
    @classmethod
    def _params_alone(cls, data: Any) -> Any:
        return data if isinstance(data, dict) and "params" in data else {"params": data}

    @field_validator("origin")
    @classmethod
    def _one_line(cls, origin: str) -> str:
        return " ".join(origin.split())

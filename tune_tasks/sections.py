"""The sections of a spec: their keys, defaults and limits, and the types that a person writes in words.

Values alone: what is between the sections is for `spec.py`. This module must not read a file or import an objective.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

IMPORT_STRING = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def _seconds(value: Any) -> Any:
    """Reads `90`, `"90s"`, `"10m"`, `"1h30m"` or `"2d"` as seconds."""
    if not isinstance(value, str):
        return value
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", value):
        raise ValueError(f"{value!r} is not a duration; write seconds, or for example 90s, 10m, 1h30m, 2d")
    return sum(float(number) * _UNITS[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)([smhd])", value))


def _bytes(value: Any) -> Any:
    """Reads `1000`, `"512MiB"`, `"4GiB"` or `"2GB"` as bytes."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]i?|)b?", value.strip().lower())
    if match is None:
        raise ValueError(f"{value!r} is not a size; write bytes, or for example 512MiB, 4GiB, 2GB")
    return int(float(match[1]) * _SIZES[match[2]])


def _import_string(value: Any) -> Any:
    if isinstance(value, str) and not IMPORT_STRING.fullmatch(value):
        raise ValueError(f"{value!r} is not an import string; write module:name, for example objective:train")
    return value


def _notice(value: Any) -> Any:
    if isinstance(value, str) and value not in NOTICES and not IMPORT_STRING.fullmatch(value):
        raise ValueError(f"{value!r} is not allowed; allowed are {', '.join(NOTICES)}, or an import string module:name")
    return value


NOTICES = ("auto", "aws", "aws-rebalance", "google", "none")
"""Who may be asked by name whether a node goes away."""
Duration = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]
Size = Annotated[int, BeforeValidator(_bytes), Field(gt=0)]
ImportString = Annotated[str, BeforeValidator(_import_string)]


class Section(BaseModel):
    """A part of a spec: frozen, and without keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Plugin(Section):
    """A sampler or scheduler by name, with its options beside the name; a plain string is the name alone."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


class Bundle(Section):
    """Resources on one node; fractions share a device."""

    cpu: float = Field(default=1, ge=0, description="CPU cores")
    gpu: float = Field(default=0, ge=0, description="GPUs; a fraction shares one GPU between trials")
    memory: Size | None = Field(default=None, description="memory that Ray reserves, in bytes or as 4GiB")
    custom: dict[str, float] = Field(default_factory=dict, description="Ray's custom resources, by name")

    @field_validator("gpu")
    @classmethod
    def _whole_or_shared(cls, gpu: float) -> float:
        if gpu > 1 and gpu != int(gpu):
            raise ValueError(f"gpu is {gpu:g}, must be at most 1 or a whole number: only one GPU can be shared")
        return gpu


class Resources(Bundle):
    """What each trial occupies while it runs: its own process, and the bundles of its gang.

    What an objective starts with Ray lands in the gang, and ends with its worker; `get_current_placement_group()` of
    `ray.util` shows the bundles. Ray Train reserves a placement group of its own beside it: a trial that uses it needs
    no bundles, but a `budget.concurrency` at which the workers of all trials find room.
    """

    accelerator: str | None = Field(default=None, description="accelerator type as Ray names it, for example L4, A100")
    bundles: tuple[Bundle, ...] = Field(
        default=(), description="what a trial may start beside its own process, such as workers of distributed training"
    )
    strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = Field(
        default="PACK", description="how Ray places the process and its bundles: on few nodes, or on many"
    )
    function: ImportString | None = Field(
        default=None, description="gets a configuration, returns keys of this section that replace the others"
    )


class Budget(Section):
    """When the study has spent enough."""

    trials: int = Field(default=64, ge=1, description="configurations to try in all")
    concurrency: int | None = Field(default=None, ge=1, description="trials at once; by default what the cluster fits")
    share: float = Field(default=1.0, gt=0, le=1, description="most of the cluster that this study takes")
    wall_time: Duration | None = Field(default=None, description="driver time in all, as seconds or 90s, 10m, 1h30m")
    trial_time: Duration | None = Field(default=None, description="longest time that one trial runs, all attempts")


class Retry(Section):
    """How often a trial is tried again; what its own code does and what the cluster does are counted apart."""

    failures: int = Field(default=0, ge=0, description="retries after an exception of the objective")
    infrastructure: int = Field(default=20, ge=0, description="retries after a lost worker or node")
    node: int = Field(default=3, ge=1, description="trials that a node loses in a row before it is avoided")


class Checkpoints(Section):
    """Which checkpoints are kept. Those that a promotion named always are; a model is a copy of its checkpoint."""

    keep_last: int | None = Field(default=2, ge=1, description="newest of each trial that may go on; null: all of them")
    keep_best: int | None = Field(default=5, ge=1, description="best of the study, by the metric; null: all of them")


class Execution(Section):
    """How trials are run; it decides nothing about the search."""

    runner: Literal["ray", "job", "inline"] = Field(
        default="ray",
        description="ray: the step drives the workers; job: a Ray job does, so that the step may die; "
        "inline: runs in this process, for a debugger",
    )
    flow: Literal["rounds", "streaming"] = Field(
        default="rounds",
        description="rounds: a launch step runs one batch; streaming: it goes on until the budget is spent",
    )
    batch: int | None = Field(
        default=None, ge=1, description="trials in a batch; by default four times the concurrency"
    )
    min_results: int | None = Field(
        default=None, ge=1, description="a round may end once so many of its trials have; the others are carried over"
    )
    step_time: Duration | None = Field(
        default=None, description="time after which a launch step ends, as soon as what runs has a checkpoint"
    )
    address: str | None = Field(
        default=None,
        description="a running Ray cluster, by default one on this machine; for a job its dashboard, http://head:8265",
    )
    autoscaler: bool = Field(
        default=False, description="whether one may add nodes to the cluster: then it is asked ahead for what waits"
    )
    isolation: Literal["worker", "process"] = Field(
        default="worker", description="process: a fresh process for each trial instead of a warm worker"
    )
    stop_grace: Duration = Field(
        default=30.0, description="time to the next report of a trial that shall stop; then its worker is replaced"
    )
    report_time: Duration | None = Field(
        default=None, description="longest time from one report to the next; a trial that is silent for longer fails"
    )
    heartbeat: Duration = Field(
        default=15.0, ge=5, description="a worker that gives no sign of life for so long is lost: its node froze"
    )
    max_leak: Size | None = Field(
        default=1 << 30, description="memory that a worker may gain after its first trial; then a new one replaces it"
    )
    notice: Annotated[str, BeforeValidator(_notice)] = Field(
        default="auto",
        description="who is asked whether the node goes away: auto, aws, aws-rebalance, google, none, or an "
        "import string module:name",
    )
    linger: Duration = Field(default=60.0, description="time that a job waits for the next round before it ends")
    group_time: Duration = Field(default=0.1, description="longest time that a report waits for its commit")
    group_rows: int = Field(default=500, ge=1, description="most reports in one commit")

    @model_validator(mode="after")
    def _address_of_runner(self) -> Execution:
        http = self.address is not None and self.address.startswith(("http://", "https://"))
        if http and self.runner == "ray":
            raise ValueError(f"address {self.address!r} is that of a dashboard, which takes jobs; add runner: job")
        return self


class Environment(Section):
    """What the cluster needs to run the study, through Ray's runtime environments."""

    working_dir: str | None = Field(
        default=None, description="folder that is sent to the cluster, from the folder of the spec file on; or a URL"
    )
    pip: tuple[str, ...] | str | None = Field(default=None, description="packages, or the path of a requirements file")
    uv: tuple[str, ...] | str | None = Field(default=None, description="the same, installed by uv")
    variables: dict[str, str] = Field(default_factory=dict, description="environment variables; they are in the log")
    secrets: tuple[str, ...] = Field(
        default=(), description="names of variables that are taken from the environment of who launches"
    )
    image: str | None = Field(
        default=None, description="container image of the workers, with all they need; Ray runs it with podman"
    )

    @model_validator(mode="after")
    def _one_installer(self) -> Environment:
        if self.pip is not None and self.uv is not None:
            raise ValueError("pip and uv are both given; Ray takes one of them")
        beside = [name for name in ("pip", "uv", "working_dir") if getattr(self, name) is not None]
        if self.image is not None and beside:
            raise ValueError(f"image and {beside[0]} are both given; Ray runs an image as it is, with what is in it")
        return self

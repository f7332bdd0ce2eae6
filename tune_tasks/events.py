"""What can happen to a study: the events of its log, frozen, with their time inside.

One event is one fact or one recorded intention. This module must not do I/O, read a clock, or know what an event
means for the state of a study: that is `study.py`. Changing a field is a change of the log's format.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

FORMAT = 1
"""The version of everything that is written to a study's URL; a reader refuses a higher one."""


class Value(BaseModel):
    """A frozen value that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Proposal(Value):
    """A new configuration to try."""

    number: int
    params: dict[str, Any]
    reason: str


class Assignment(Value):
    """A trial and the budget, in steps, up to which it shall run next; None means until its objective returns."""

    trial: int
    budget: int | None
    last: bool = Field(description="Nothing is decided about the trial after this budget: it is complete.")
    reason: str


class Advance(Value):
    """A decision: this paused trial goes on to a larger budget (in steps)."""

    trial: int
    budget: int
    last: bool
    reason: str
    donor: int | None = Field(default=None, description="It goes on from the newest checkpoint of this trial.")
    params: dict[str, Any] | None = Field(default=None, description="Its parameters from then on, where they change.")


class Prune(Value):
    """A decision: this trial stops for good."""

    trial: int
    reason: str


class CheckpointRef(Value):
    """Where a checkpoint lies below the study's URL, and the SHA-256 of its manifest."""

    key: str
    digest: str
    size: int = Field(description="bytes")


class Created(Value):
    """The study began with this spec. Always the first event."""

    type: Literal["created"] = "created"
    study: str
    spec: dict[str, Any]
    folder: str | None = Field(description="The folder of the spec file, a hint for importing its objective.")
    code: str | None = Field(default=None, description="The version of the code in that folder, as git tells it.")
    parent: str | None = Field(default=None, description="URL of the study that this one goes on from.")
    time: float


class Amended(Value):
    """A person changed a part of the spec that may change while a study lives, or made a finished study go on."""

    type: Literal["amended"] = "amended"
    spec: dict[str, Any]
    changes: tuple[str, ...]
    reopened: tuple[int, ...] = Field(default=(), description="Completed trials that may now get a larger budget.")
    time: float


class Claimed(Value):
    """A pipeline carries the study on from here; another one is refused unless it goes by this name too."""

    type: Literal["claimed"] = "claimed"
    pipeline: str
    time: float


class Planned(Value):
    """A sample step fixed a batch, or made one longer: new trials, and what each of its trials shall run."""

    type: Literal["planned"] = "planned"
    key: str
    run: str
    round: int
    batch: str
    proposals: tuple[Proposal, ...]
    assignments: tuple[Assignment, ...]
    exhausted: bool = Field(description="The sampler has nothing more to propose.")
    time: float


class Requested(Value):
    """A launch step asks the study's Ray job of this attempt to run a batch; recorded before the job is looked for.

    `by` names who waits for it from here on, where that may change: only the last one stops the job with the step.
    """

    type: Literal["requested"] = "requested"
    batch: str
    job: int
    time: float
    by: str | None = None


class Opened(Value):
    """A driver took the study over; every driver of a lower epoch is fenced from here on."""

    type: Literal["opened"] = "opened"
    epoch: int
    owner: str
    time: float


class Started(Value):
    """An attempt at a trial began, from the beginning (step 0) or from the checkpoint of that step."""

    type: Literal["started"] = "started"
    trial: int
    attempt: int
    step: int
    worker: str
    node: str = Field(default="", description="Ray's id of the node; empty where there is none.")
    time: float


class Reports(Value):
    """Reports of several trials, one row each, in columns; None stands for a metric that a report does not have."""

    type: Literal["reports"] = "reports"
    trial: list[int]
    attempt: list[int]
    step: list[int]
    time: list[float]
    metrics: dict[str, list[float | None]]


class Checkpointed(Value):
    """A checkpoint of a trial lies complete in the store."""

    type: Literal["checkpointed"] = "checkpointed"
    trial: int
    attempt: int
    step: int
    checkpoint: CheckpointRef
    time: float


class Discarded(Value):
    """Checkpoints, one row each, that nothing needs any more; recorded before their files are deleted."""

    type: Literal["discarded"] = "discarded"
    trial: list[int]
    step: list[int]
    keys: tuple[str, ...] = Field(description="What is deleted: the places that no trial names from here on.")
    time: float


class Ended(Value):
    """An attempt at a trial is over.

    `reached`: it ran its assigned budget. `returned`: the objective returned before that, so the trial is complete.
    `carried`: it was paused at the end of a step and goes on in the next. `failed`: its objective raised or reported
    nonsense. `lost`: its worker, its node or the store went away. `stopped`: it obeyed a decision to prune it.
    `moved`: its node is about to go away, so it saved a checkpoint and goes on elsewhere.
    """

    type: Literal["ended"] = "ended"
    trial: int
    attempt: int
    outcome: Literal["reached", "returned", "carried", "failed", "lost", "stopped", "moved"]
    retry: bool = Field(default=False, description="A failed or lost trial is tried again.")
    error: str | None = None
    node: str | None = Field(default=None, description="The lost node, where the attempt did not begin on it.")
    time: float


class Pruned(Value):
    """A running trial is told to stop for good; recorded before it is told."""

    type: Literal["pruned"] = "pruned"
    trial: int
    step: int
    reason: str
    time: float


class Launched(Value):
    """A launch step is over; `states` counts the trials of its batch, `best` is the study's best trial by then."""

    type: Literal["launched"] = "launched"
    key: str
    batch: str
    states: dict[str, int]
    best: int | None
    value: float | None
    reason: str
    avoided: tuple[str, ...] = Field(default=(), description="Nodes that lost one trial after another.")
    time: float


class Judged(Value):
    """An evaluate step decided who advances, who is pruned, and whether the study is done."""

    type: Literal["judged"] = "judged"
    key: str
    batch: str
    advances: tuple[Advance, ...]
    prunes: tuple[Prune, ...]
    done: bool
    best: int | None
    value: float | None
    reason: str
    time: float


class Gate(Value):
    """One condition of a promotion: what was measured, what was asked, and whether that is enough."""

    name: str
    passed: bool
    reason: str = Field(description="in figures")
    value: float | None = Field(default=None, description="what was measured")
    low: float | None = Field(default=None, description="what it is at least, at the confidence that was asked")
    high: float | None = Field(default=None, description="what it is at most, at the same confidence")
    limit: float | None = Field(default=None, description="what was asked")


class Evaluated(Value):
    """A promote step measured a model with the spec's `evaluate`, once with one seed."""

    type: Literal["evaluated"] = "evaluated"
    key: str = Field(description="the step key of the promotion")
    model: str = Field(description="trial-<number>-<step>, or version-<number> of the champion")
    seed: int
    metrics: dict[str, float]
    examples: int = Field(default=0, description="how many examples have a value of their own")
    place: str | None = Field(default=None, description="key, below the study, of the object with these values")
    digest: str | None = Field(default=None, description="its SHA-256")
    error: str | None = Field(default=None, description="why it could not be measured: a champion that does not load")
    time: float


class Promoting(Value):
    """A promote step decided; what follows only carries it out. `trial` is None where the champion stays."""

    type: Literal["promoting"] = "promoting"
    key: str
    trial: int | None
    step: int | None
    value: float | None
    champion: dict[str, Any] | None
    position: int = Field(description="the log's last segment when this was decided")
    ledger: int = Field(default=0, description="the last entry of the champions' ledger when this was decided")
    gates: tuple[Gate, ...] = ()
    evaluation: dict[str, float] = Field(default_factory=dict, description="the challenger's mean of each metric")
    bounds: dict[str, tuple[float, float]] = Field(
        default_factory=dict, description="between what each metric lies, at the confidence that was asked"
    )
    expires: float | None = Field(default=None, description="until when a person may agree; None: nobody has to")
    reason: str
    time: float


class Approved(Value):
    """A person agreed to a promotion that waits, or refused it."""

    type: Literal["approved"] = "approved"
    key: str = Field(description="the step key of the promotion")
    approved: bool
    by: str
    why: str
    time: float


class Promoted(Value):
    """A promote step is over; `model` is what it returned, as JSON."""

    type: Literal["promoted"] = "promoted"
    key: str
    model: dict[str, Any]
    time: float


class Deploying(Value):
    """A deploy step begins to bring a version to a target; recorded before anything is touched."""

    type: Literal["deploying"] = "deploying"
    key: str
    target: str
    name: str = Field(description="of the endpoint or the folder at the target")
    version: str | None = Field(description="None: what is there is taken away")
    previous: str | None = Field(description="the version that was deployed before")
    time: float


class Deployed(Value):
    """A deploy step is over; `result` is what it returned, as JSON."""

    type: Literal["deployed"] = "deployed"
    key: str
    result: dict[str, Any]
    time: float


Event: TypeAlias = (
    Created
    | Amended
    | Claimed
    | Planned
    | Requested
    | Opened
    | Started
    | Reports
    | Checkpointed
    | Discarded
    | Ended
    | Pruned
    | Launched
    | Judged
    | Evaluated
    | Promoting
    | Approved
    | Promoted
    | Deploying
    | Deployed
)

_ANY: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])


def encode(event: Event) -> bytes:
    """Writes an event as one line of JSON, without the line break."""
    return event.__pydantic_serializer__.to_json(event)


def decode(line: bytes) -> Event:
    """Reads an event back; raises `pydantic.ValidationError` where the line is not one."""
    return _ANY.validate_json(line)

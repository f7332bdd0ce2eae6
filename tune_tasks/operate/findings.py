"""What a verification found, as values for people and for machines. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

Severity: TypeAlias = Literal["error", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""An error: something recorded is lost or contradicts itself. A warning: nothing is lost, but it is not as it should
be. A note: nothing is wrong."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found at a key below the study's URL: what is wrong, and what to do."""

    severity: Severity
    key: str
    problem: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check_study` looked at, and everything that it found, the worst first. `size` is in bytes.

    `study` is the study's id, "" where no segment could be read. `segments`, `snapshots`, `checkpoints` and `models`
    count what was verified, whole or not; `files` and `size` the data of checkpoints and models that was read through.
    """

    url: str
    study: str
    done: bool | None
    trials: int | None
    segments: int
    events: int
    snapshots: int
    checkpoints: int
    models: int
    files: int
    size: int
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing recorded is lost or contradicts itself."""
        return not self.count("error")

    def count(self, severity: Severity) -> int:
        """How many findings are of this severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {"sound": self.sound, **asdict(self)}


def ordered(findings: list[Finding]) -> tuple[Finding, ...]:
    """The worst first, the log before all else, then by key; one that was made twice is kept once."""

    def place(finding: Finding) -> tuple[int, bool, str]:
        return SEVERITIES.index(finding.severity), not finding.key.startswith("log/"), finding.key

    return tuple(sorted(dict.fromkeys(findings), key=place))

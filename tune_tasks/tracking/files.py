"""A study as tables that anything reads: its trials and its reports, as CSV or Parquet, each file whole at any moment.

The same tables as `tune-tasks export` writes, kept up to date. This module must not lay a table out itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tune_tasks.operate.export import write_table_to
from tune_tasks.operate.tables import reports_table, trials_table
from tune_tasks.store.names import shown_url
from tune_tasks.study import StudyState
from tune_tasks.tracking.places import beside


class FilesTracker(BaseModel):
    """Two tables, `trials` and `reports`, in a folder or below any store's URL."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    to: str | None = Field(
        default=None, description="folder or URL below which each study has its own; by default <store>/_tables"
    )
    format: Literal["csv", "parquet"] = Field(default="csv", description="csv, or parquet (the extra parquet)")

    def place(self, state: StudyState, url: str) -> str | None:
        """The folder of the study's tables."""
        folder = self._folder(state, url)
        return shown_url(folder) if folder else None

    def update(self, state: StudyState, url: str) -> Iterator[None]:
        """See `Tracker.update`: one table at a time, in place of what is there."""
        folder = self._folder(state, url)
        if folder is None:
            return
        write_table_to(folder, trials_table(state), self.format, study=url)
        yield
        write_table_to(folder, reports_table(state), self.format, study=url)

    def _folder(self, state: StudyState, url: str) -> str | None:
        return beside(self.to, "_tables", state, url, "tracking.files.to")

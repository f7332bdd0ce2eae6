"""What an operator does with a study beside running it: verify, read, export, copy, sweep. One command a file.

    check_study    verifies every object and says what is wrong       tune-tasks fsck
    read_events    the log, event by event; `follow_events` goes on   tune-tasks log
    export_study   trials, reports and events as tables               tune-tasks export
    copy_study     a study to another store                           tune-tasks copy
    sweep_study    removes what nothing names                         tune-tasks gc

All of them take a URL, work without a driver or beside one, and write no event. This package must not import a
sampler, a scheduler or a runner: a study can be looked after where it cannot be run.
"""

from __future__ import annotations

from tune_tasks.operate.copy import Copied, copy_study
from tune_tasks.operate.export import Exported, ExportedFile, export_study
from tune_tasks.operate.findings import Checked, Finding
from tune_tasks.operate.fsck import check_study
from tune_tasks.operate.gc import Removal, Swept, sweep_study
from tune_tasks.operate.history import Record, follow_events, read_events

__all__ = [
    "Checked",
    "Copied",
    "Exported",
    "ExportedFile",
    "Finding",
    "Record",
    "Removal",
    "Swept",
    "check_study",
    "copy_study",
    "export_study",
    "follow_events",
    "read_events",
    "sweep_study",
]

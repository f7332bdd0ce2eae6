"""Lets `python -m tune_tasks` be the command line. Nothing else belongs here."""

from __future__ import annotations

from tune_tasks.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

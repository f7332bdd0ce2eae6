"""What holds for all tests, in both environments."""

from __future__ import annotations

import importlib.util
import os

if importlib.util.find_spec("hypothesis"):  # the environment with Airflow has none
    from hypothesis import settings

    # A slow moment of the machine is no failure; and CI says the same of the same code, while others look on.
    settings.register_profile("here", deadline=None)
    settings.register_profile("ci", deadline=None, derandomize=True)
    settings.load_profile("ci" if os.environ.get("CI") else "here")

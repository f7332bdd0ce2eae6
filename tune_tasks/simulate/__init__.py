"""What a study would cost, told before it is run: the real engine against imagined machines, on a virtual clock.

This package must not create anything where a study lives, and must not sleep.
"""

from tune_tasks.simulate.forecast import Scenario, simulate
from tune_tasks.simulate.result import Forecast, Play

__all__ = ["Forecast", "Play", "Scenario", "simulate"]

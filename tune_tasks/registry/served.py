"""The model as MLflow serves it: what the study's loader returns for the checkpoint's folder, asked to predict.

MLflow copies this file into the model and runs it where tune_tasks is not installed; so nothing is pickled, and it
imports MLflow alone. It must not be imported by the engine.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np  # noqa: TID253  # as below
from mlflow.models import set_model  # noqa: TID253  # MLflow itself runs this file
from mlflow.pyfunc.model import PythonModel, PythonModelContext  # noqa: TID253  # as above


class Served(PythonModel):
    """Loads with `loader`, a string module:name in the model's configuration, and predicts."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the model, where the study says how."""
        self.folder = Path(context.artifacts["checkpoint"])
        loader = (context.model_config or {}).get("loader")
        self.model = None
        if loader:
            module, _, name = loader.partition(":")
            load: Any = importlib.import_module(module)
            for part in name.split("."):
                load = getattr(load, part)
            self.model = load(self.folder)

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002  # MLflow's signature
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,  # noqa: ARG002  # as above
    ) -> Any:
        """Predicts with what the loader returned, from whatever that takes: a frame of pandas, for example.

        An array is named because MLflow prints a warning at every load where it finds no type, or one that it does not
        know; an array is what it neither checks nor converts.
        """
        if self.model is None:
            raise RuntimeError(
                f"this model cannot predict: its study names no promotion.loader; its files are in {self.folder}"
            )
        return self.model.predict(model_input)


set_model(Served())

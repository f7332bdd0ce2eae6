"""The model as MLflow serves it: hands the checkpoint's folder to the study's loader, and predicts with what it returns.

MLflow copies this file into the model and runs it where tune_tasks is not installed; so nothing is pickled, and it
imports MLflow alone. It must not be imported by the engine.
"""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

from mlflow.models import set_model  # noqa: TID253  # MLflow itself runs this file
from mlflow.pyfunc import PythonModel, PythonModelContext  # noqa: TID253  # as above

# MLflow asks for a type hint on the input; what the input is, only the loader of the user knows.
warnings.filterwarnings("ignore", message="(?s).*type hints to the `predict` method")


class Served(PythonModel):  # type: ignore[misc]  # MLflow's base class has no types
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

    def predict(self, context: PythonModelContext, model_input: Any, params: dict[str, Any] | None = None) -> Any:  # noqa: ARG002  # MLflow's signature
        """Predicts with what the loader returned."""
        if self.model is None:
            raise RuntimeError(
                f"this model cannot predict: its study names no promotion.loader; its files are in {self.folder}"
            )
        return self.model.predict(model_input)


set_model(Served())

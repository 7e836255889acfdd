"""A trained policy as MLflow serves it: what loads the models that runs are logged with.

mlflow models serve -m models:/<model id> --env-manager local --host 127.0.0.1
"""

from pathlib import Path

import numpy as np

from genpolicy.api import TrainedPolicy, restored
from genpolicy.runs.run import POLICY, Run


class Served:
    """Answers observations with actions."""

    def __init__(self, policy: TrainedPolicy):
        self._policy = policy

    def predict(self, observation: np.ndarray) -> np.ndarray:
        """Actions [B, A] in the action space at observations [B, O], float32, as in the run's evaluations."""
        return self._policy.act(observation)


def _load_pyfunc(path: str) -> Served:
    """Called by MLflow with the folder that `genpolicy.tracking.entities.save_policy` filled. Needs no data set."""
    return Served(restored(Run(Path(path)).config, Path(path) / POLICY))

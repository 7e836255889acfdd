"""What a training command imports before its first update: nothing that is slow and not needed."""

import subprocess
import sys

from tiny import words

STOPPED = """
import sys
from genpolicy import app
from genpolicy.training.trainer import Trainer

def stop(*given):
    sys.exit(" ".join(sorted(sys.modules)))

Trainer.record = stop
app.main()
"""


def test_nothing_slow_is_imported_before_the_first_update(tmp_path):
    """torch.optim would import torch's compiler and sympy, the toy's simulator needs no MuJoCo."""
    command = [sys.executable, "-c", STOPPED, *words(tmp_path, "device=cpu")]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    imported = set(told.stderr.splitlines()[-1].split())
    assert {"torch", "genpolicy.training.trainer"} <= imported, told.stderr
    slow = {"torch._dynamo", "torch._inductor", "sympy", "mlflow", "matplotlib", "scipy", "pandas", "mujoco", "optuna"}
    assert not slow & imported

"""One thread for torch (the machines are shared), and property tests without deadlines."""

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("genpolicy", deadline=None, derandomize=True)
settings.load_profile("genpolicy")

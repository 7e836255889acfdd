"""Whole runs on a device that is none, as a GPU would take them: every tensor that stays on the CPU is refused.

    python tests/acceptance/pretended_device.py [word of the names]

Each algorithm is trained, evaluated and saved at small sizes, and its policy loaded; some also with several seeds at
once, online, with chunks, figures and the modes that take a policy. The device's tensors lie in the host's memory
(`pretended_device.cpp`, which is compiled first), so that nothing is told of kernels, streams or CUDA graphs. Prints
what fails; exit code 1 if anything does.
"""

import ctypes
import math
import os
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils import cpp_extension

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from command_line import genpolicy, jobs
from small import ALGORITHMS, sizes

from genpolicy.dataset import transitions
from genpolicy.runs.run import find_runs
from genpolicy.training import setup

NAME = "pretended"
TASK = ("env=multi-goal", "dataset.episodes=10")
RUN = ("tuned=none", "tracking.uri=none", "checkpoint_seconds=0", "eval.per_phase=1", "eval.episodes=2")
RUN += ("eval.final_episodes=3", "eval.log_prob_actions=10")
ONLINE = ("online.steps=60", "online.start=23")
MODES = ("mode=eval eval.final_episodes=4", "mode=inspect", "mode=export")


def make_device() -> torch.device:
    """The device, which torch knows from then on."""
    source = Path(__file__).with_suffix(".cpp")
    compiled = cpp_extension.load("pretended_device", [str(source)], extra_cflags=["-O0", "-w"])
    torch.utils.rename_privateuse1_backend(NAME)
    known = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "_is_in_bad_fork": lambda: False,
        "manual_seed_all": lambda seed: None,
        "get_rng_state": lambda device=None: torch.empty(0),
        "set_rng_state": lambda state, device=None: None,
        "get_amp_supported_dtype": lambda: [torch.bfloat16],
    }
    torch._register_device_module(NAME, types.SimpleNamespace(**known))
    torch.utils.generate_methods_for_privateuse1_backend()
    compiled.register()
    torch.__future__.set_swap_module_params_on_conversion(True)  # as `.to` would make other parameters, unlike a GPU's
    to_host = torch.UntypedStorage.cpu

    def copied(storage: torch.UntypedStorage) -> torch.UntypedStorage:
        if storage.device.type != NAME:
            return to_host(storage)
        copy = torch.UntypedStorage(storage.size())
        ctypes.memmove(copy.data_ptr(), storage.data_ptr(), storage.size())
        return copy

    torch.UntypedStorage.cpu = copied
    return torch.device(NAME)


def runs() -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """What is run: a name, the words, and those of what is then done with the policy."""
    yield from ((name, (f"algo={name}", "network=mlp", *TASK), ()) for name in ALGORITHMS)
    for name in ("bdpo", "dac", "diffusion_ql", "fac", "fql", "gmpg", "gmpo", "gtp", "iql", "qam"):
        yield f"seeds {name}", (f"algo={name}", "network=mlp", *TASK, "seeds=[0,1]"), ()
    for name in ("diffusion_ql", "fql", "iql", "rlpd", "td3_bc"):
        yield f"online {name}", (f"algo={name}", "network=mlp", *TASK, *ONLINE), ()
    nothing = ("env=multi-goal", "dataset=none", *ONLINE, "online.random=10", "online.noise=0.1")
    yield "online nothing", ("algo=td3_bc", "network=mlp", *nothing), ()
    yield "online chunks", ("algo=qc", "network=mlp", *TASK, *ONLINE, "chunk.length=3"), ()
    yield "chunks", ("algo=bc", "network=unet1d", *TASK, "chunk.length=4"), MODES
    chosen = ("select=softmax", "dataset.held_out=0.3", "eval.steps=[1,2]", "observation_parts=[1,1]")
    yield "chosen", ("algo=gmpo", "network=mlp", *TASK, *chosen), (*MODES, "mode=eval solver=dpm")
    yield "drawn", ("algo=gmpo", "network=mlp", "env=swiss-roll"), MODES
    for name in ("consistency", "edm_clipped", "meanflow", "otcfm", "tanh_gaussian", "trajectory"):
        yield f"model {name}", ("algo=bc", f"model={name}", *TASK), ()
    yield "host chunks", ("algo=qc", "network=mlp", *TASK, *ONLINE, "chunk.length=3"), ()
    yield from ((f"host {name}", (f"algo={name}", "network=mlp", *TASK), ()) for name in ("awr", "iql", "rebrac"))
    yield "adaptive", ("algo=bc", "network=mlp", "solver=dopri5", "likelihood=dopri5", *TASK), ()
    yield "half", ("algo=iql", "network=mlp", *TASK, "precision=bf16", "scaling.action=data"), ()


def failures(words: tuple[str, ...], then: tuple[str, ...], outputs: Path) -> Iterator[str]:
    """What goes wrong with a run, and with what is then done."""
    [(job, _)] = jobs(*words, *RUN)
    given = {word.partition("=")[0] for word in words}
    small = [f"{name}={size}".replace(" ", "") for name, size in sizes(job.config).items() if name not in given]
    said = genpolicy(*words, *RUN, *small, f"paths.outputs={outputs}")
    if said.code:
        yield said.err
        return
    run = next(iter(find_runs(outputs)))
    for more in then:
        said = genpolicy(*more.split(), f"checkpoint={run}")
        if said.code:
            yield f"{more}: {said.err}"
    from genpolicy import load_policy  # which imports what `main` changes before

    policy = load_policy(run)
    if policy.module.action_low.device.type != NAME:
        yield "load_policy: on another device"
    policy.act(np.zeros((2, 2), dtype=np.float32)[:, : policy.module.scaling.mean.numel()])


def main(word: str = "") -> int:
    device, failed, begun = make_device(), 0, time.monotonic()
    setup.choose_device = lambda name, compile="none": device
    for name, words, then in runs():
        if word not in name:
            continue
        limit = 0 if name.startswith("host") else math.inf  # bytes that the device holds
        transitions.too_large = lambda size, device, limit=limit: device.type == NAME and size > limit
        with tempfile.TemporaryDirectory() as folder:
            for reason in failures(words, then, Path(folder)):
                failed += 1
                print(f"{name}: {reason.strip().splitlines()[-1]}", flush=True)
    print(f"{failed} failures, {time.monotonic() - begun:.0f} s")
    return bool(failed)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(*sys.argv[1:]))

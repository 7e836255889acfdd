"""Updates a second on a device, of random data of Hopper's sizes: alone and of five seeds at once, in compile modes.

    python tests/acceptance/rates_on_device.py cuda none,cudagraphs "algo=iql" "algo=gmpo network=mlp"

The settings are those of the option, the phase the last one. A rate is that of the fastest of three stretches of so
many updates as take a second or more, batches and metrics included, as in training.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from command_line import jobs
from small import begun

from genpolicy.algo.algorithm import assemble
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.training.precision import arithmetic
from genpolicy.training.state import State
from genpolicy.training.vectorised import VectorisedPhase

OBSERVATION, ACTION, ROWS, SEEDS = 11, 3, 100_000, 5  # the sizes are Hopper's
STRETCHES, SECONDS = 3, 1.0


def data(device: torch.device) -> Transitions:
    generator, normal = torch.Generator().manual_seed(0), torch.randn
    columns = {
        "observation": normal(ROWS, OBSERVATION, generator=generator),
        "action": normal(ROWS, ACTION, generator=generator).clamp(-1, 1),
        "reward": normal(ROWS, generator=generator),
        "next_observation": normal(ROWS, OBSERVATION, generator=generator),
        "terminated": torch.zeros(ROWS),
    }
    return Transitions.of({name: column.numpy() for name, column in columns.items()}).to(device)


def updates(words: str, mode: str, count: int, device: torch.device) -> Callable[[], None]:
    """The next update of so many seeds."""
    [(job, _)] = jobs("env=hopper-medium-v2", "tuned=none", *words.split())
    ends = torch.ones(ACTION)
    group = [assemble(job.config, OBSERVATION, -ends, ends, seed).to(device) for seed in range(count)]
    generators = [torch.Generator(device).manual_seed(seed) for seed in range(count)]
    states, transitions, sources = [State() for _ in group], data(device), []
    for algorithm in group:
        phase = algorithm.phases[-1]
        phase.compile(mode)
        sources.append(begun(phase, transitions))
    common = VectorisedPhase(group, len(group[0].phases) - 1) if count > 1 else None

    def update() -> None:
        step = states[0].step
        with arithmetic(phase.precision(job.config.precision), device):
            each = [own.sample(phase.batch_size, generator) for own, generator in zip(sources, generators, strict=True)]
            found = [phase.update(*each, *generators, step)] if common is None else common(each, generators, step)
        for state, metrics in zip(states, found, strict=True):
            state.accumulate(metrics)
            state.step += 1

    return update


def rate(update: Callable[[], None], device: torch.device) -> float:
    """Updates a second."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def seconds(count: int) -> float:
        begun = time.perf_counter()
        for _ in range(count):
            update()
        wait()
        return time.perf_counter() - begun

    seconds(10)  # compiles, records graphs
    count = max(1, round(10 * SECONDS / seconds(10)))
    return count / min(seconds(count) for _ in range(STRETCHES))


def main(device: str, modes: str, *rows: str) -> None:
    for words in rows:
        for mode in modes.split(","):
            for count in (1, SEEDS):
                try:
                    said = f"{rate(updates(words, mode, count, torch.device(device)), torch.device(device)):.0f}"
                except (RuntimeError, UserError) as error:
                    said = str(error).partition("\n")[0]
                print(f"{words} compile={mode}, {count} at once: {said}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

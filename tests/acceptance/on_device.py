"""Every option of each group on a device, as a GPU: updates, alone and of two seeds at once, actions and densities.

    python tests/acceptance/on_device.py cuda [compile mode]

Each phase makes an update in tf32 (on a GPU), one in bf16, and one of two seeds at once, at small sizes, on invented
data; as CUDA graphs (`cudagraphs`) as many of each that the last ones are replayed. What the policy then does, and its
log-densities, are held against the same policy's in float64 on the CPU; in a compile mode, all parameters against those
of the same updates without. Prints what fails, and the largest differences; exit code 1 if anything does.
"""

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from command_line import tried
from small import random_transitions, sizes

from genpolicy.algo.algorithm import Algorithm, assemble
from genpolicy.algo.compilation import CUDA_GRAPHS, WARM_UP
from genpolicy.config.arguments import options
from genpolicy.dataset.sequences import Sequences
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError, one_line
from genpolicy.training.precision import arithmetic
from genpolicy.training.vectorised import VectorisedPhase

TASK = ("env=multi-goal", "tuned=none")
COMPARED = "actions", "log-densities", "parameters"
TOLERANCE = 1e-2  # of float32 beside float64, of solvers of few steps and untrained networks


def configurations() -> Iterator[tuple[str, ...]]:
    """The words that choose each option of each group, beside one of the others that it goes with."""
    yield from ((f"algo={name}", "network=mlp") for name in sorted(options("algo")))
    yield from (("algo=bc", f"model={name}") for name in options("model"))
    yield from (("algo=bc", "model=vpsde", f"solver={name}") for name in options("solver"))
    yield from (("algo=bc", "model=trajectory", f"objective={name}") for name in options("objective"))
    yield from (("algo=bc", "model=vpsde", f"objective={name}") for name in options("objective"))
    yield from (("algo=bc", "chunk.length=3", f"network={name}") for name in options("network"))
    yield from (("algo=iql", f"select={name}") for name in options("select"))
    yield from (("algo=diffusion_ql", f"critic={name}") for name in options("critic"))


def trained(config, mode: str, device: torch.device, count: int) -> Algorithm:
    """The algorithm after so many updates of each kind, or more where some are made at every so manieth step only."""
    length, data = config.chunk.length, random_transitions()
    if length > 1:
        data = replace(data, ends=torch.arange(data.size) % 8 == 7)
        data = Sequences.of_transitions(data, length, length, 0.99, False)
    data = data.to(device)
    seeds = [0, 1]
    ends = torch.ones(2)
    pair = [assemble(config, 2, -ends, ends, seed).to(device) for seed in seeds]
    generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
    for number, phase in enumerate(pair[0].phases):
        sources = []
        for algorithm in pair:
            own = algorithm.phases[number]
            if own.start is not None:
                own.start()
            sources.append(data if own.prepare is None else own.prepare(data))
        steps = count * max(update.every for update in phase.updates.values())
        for precision in ["tf32", "bf16"] if device.type == "cuda" else ["float32", "bf16"]:
            phase.compile(mode)  # anew: a run has one precision
            with arithmetic(phase.precision(precision), device):
                for step in range(steps):
                    phase.update(sources[0].sample(16, generators[0]), generators[0], step)
        for algorithm in pair:
            algorithm.phases[number].compile(mode)
        with contextlib.suppress(UserError):
            common = VectorisedPhase(pair, number)
            for step in range(steps):
                batches = [source.sample(16, generator) for source, generator in zip(sources, generators, strict=True)]
                at_once(common, batches, generators, step)
    return pair[0]


def at_once(phase: VectorisedPhase, batches: list[Transitions], generators: list[torch.Generator], step: int) -> None:
    """An update of several seeds. Raises `UserError` for what cannot be vectorised, as a run then says."""
    try:
        phase(batches, generators, step)
    except RuntimeError as error:
        if any(word in str(error) for word in ("vmap", "TensorWrapper", "functorch")):
            raise UserError(str(error)) from error
        raise


def differences(config, algorithm: Algorithm, device: torch.device) -> tuple[float, float]:
    """The largest errors of actions, and of log-densities relative to 1 or their size."""
    exact, data = assemble(config, 2, -torch.ones(2), torch.ones(2)), random_transitions()
    exact.load_state_dict(algorithm.state_dict())
    exact.to(torch.float64)
    noise, choice = algorithm.draw_noise(data.size), algorithm.draw_choice(data.size)
    found = []
    for each, like in ((algorithm, torch.empty(0, device=device)), (exact, torch.empty(0, dtype=torch.float64))):
        observation, action, own = (part.to(like) for part in (data.observation, data.action, noise))
        chosen = None if choice is None else choice.to(like)
        acted = each.actor().act(observation, noise=own, choice=chosen)  # as it is evaluated
        if each.policy.action_size > action.shape[1]:
            action = action.repeat(1, each.policy.action_size // action.shape[1])
        density = each.log_prob(observation, action) if each.has_density else torch.zeros(1, dtype=acted.dtype)
        found.append([part.double().cpu() for part in (acted, density)])
    (acted, density), (expected, log_prob) = found
    if not (acted.isfinite().all() and density.isfinite().all()):
        raise AssertionError("not finite")
    relative = (density - log_prob) / log_prob.abs().clamp(min=1)
    return (acted - expected).abs().max().item(), relative.abs().max().item()


def parameters_differ(algorithm: Algorithm, plain: Algorithm) -> float:
    """The largest difference of two algorithms' parameters."""
    pairs = zip(algorithm.parameters(), plain.parameters(), strict=True)
    return max((own - other).abs().max().item() for own, other in pairs)


def main(device: str, mode: str = "none") -> int:
    device, begun, made, failed, largest = torch.device(device), time.monotonic(), 0, 0, [(0.0, "")] * 3
    count = WARM_UP + 2 if mode == CUDA_GRAPHS else 1
    for words in configurations():
        result, found = tried(*TASK, *words)
        if result.code:
            continue  # refused: they do not go together
        small = [f"{name}={size}".replace(" ", "") for name, size in sizes(found[0][0].config).items()]
        smaller = tried(*TASK, *words, *small)[1]  # refused, for networks of a fixed shape
        [(job, _)], made = smaller or found, made + 1
        try:
            algorithm = trained(job.config, mode, device, count)
            errors = differences(job.config, algorithm, device)
            plain = algorithm if mode == "none" else trained(job.config, "none", device, count)
            errors = *errors, parameters_differ(algorithm, plain)
        except Exception as error:
            failed += 1
            print(f"{' '.join(words)}: {one_line(error)}", flush=True)
            continue
        largest = [max(*pair) for pair in zip(largest, ((error, " ".join(words)) for error in errors), strict=True)]
        if max(errors) > TOLERANCE:
            failed += 1
            said = (f"{what} by {error:.1e}" for what, error in zip(COMPARED, errors, strict=True))
            print(f"{' '.join(words)}: differ: {', '.join(said)}", flush=True)
    print(f"{made} configurations in {time.monotonic() - begun:.0f} s, {failed} failed")
    for what, (error, words) in zip(COMPARED, largest, strict=True):
        print(f"{what} differ by at most {error:.1e} ({words})")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

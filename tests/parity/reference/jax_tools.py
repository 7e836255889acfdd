"""What the scripts share that run a JAX reference: float64, draws of our own, parameters as arrays of a fixture.

A script is run as `python tests/parity/reference/<name>.py <checkout>` with a Python that has jax, flax, optax and
distrax; it calls the reference's own functions and writes tests/parity/fixtures/<name>.npz.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
OBSERVATION, ACTION, BATCH, UPDATES = 5, 3, 16, 10

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_jit", True)  # or the draws would be constants of the compiled function


def checkout() -> Path:
    """The reference's folder, the script's one argument, made importable."""
    path = Path(sys.argv[1]).resolve()
    sys.path.insert(0, str(path))
    return path


def commit(path: Path) -> str:
    return subprocess.run(
        ["git", "-C", path, "rev-parse", "HEAD"], check=True, text=True, capture_output=True
    ).stdout.strip()


@contextlib.contextmanager
def drawing(*draws: np.ndarray, names: tuple[str, ...] = ("normal", "uniform", "randint")) -> Iterator[None]:
    """Inside, these functions of jax.random return the arrays, one a call, and all of them are taken."""
    left = list(draws)

    def taken(*arguments, **options):
        return jnp.asarray(left.pop(0))

    real = {name: getattr(jax.random, name) for name in names}
    for name in names:
        setattr(jax.random, name, taken)
    try:
        yield
    finally:
        for name, function in real.items():
            setattr(jax.random, name, function)
    assert not left, f"{len(left)} draws were not taken"


def perturbed(parameters, draw: np.random.Generator, size: float = 0.3):
    """The parameters in float64 with noise on each, so that no bias is 0 and no layer norm is the identity."""
    return jax.tree_util.tree_map(
        lambda leaf: jnp.asarray(np.asarray(leaf, np.float64) + size * draw.standard_normal(np.shape(leaf))), parameters
    )


def flat(prefix: str, tree) -> dict[str, np.ndarray]:
    """The leaves of a tree of parameters by the path to them."""
    plain = flax.traverse_util.flatten_dict(flax.core.unfreeze(tree), sep="/")
    return {f"{prefix}/{name}": np.asarray(leaf) for name, leaf in plain.items()}


def recording(transformation: optax.GradientTransformation, gradients: list) -> optax.GradientTransformation:
    """The same optimiser, which appends the gradients that it is given to a list."""

    def update(grads, state, parameters=None):
        gradients.append(grads)
        return transformation.update(grads, state, parameters)

    return optax.GradientTransformation(transformation.init, update)


def batches(draw: np.random.Generator, next_actions: bool = False) -> dict[str, np.ndarray]:
    """Ten batches of transitions [10, B, ...]; some end an episode, and some actions are at the ends of their range."""
    shape = UPDATES, BATCH
    made = {
        "observations": draw.standard_normal((*shape, OBSERVATION)),
        "actions": np.clip(1.2 * draw.uniform(-1, 1, (*shape, ACTION)), -1, 1),
        "rewards": draw.standard_normal(shape),
        "next_observations": draw.standard_normal((*shape, OBSERVATION)),
        "masks": (draw.uniform(size=shape) > 0.25).astype(np.float64),
    }
    if next_actions:
        made["next_actions"] = np.clip(1.2 * draw.uniform(-1, 1, (*shape, ACTION)), -1, 1)
    return made


def save(name: str, repository: str, path: Path, licence: str, settings: dict, **arrays: np.ndarray) -> None:
    about = {"repository": repository, "commit": commit(path), "licence": licence, "settings": settings}
    np.savez_compressed(FIXTURES / f"{name}.npz", about=json.dumps(about), **arrays)
    print(f"{name}.npz: {(FIXTURES / f'{name}.npz').stat().st_size} bytes")

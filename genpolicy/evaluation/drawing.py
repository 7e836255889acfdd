"""How figures are drawn, wherever the command is given and whatever names are in them."""

import io
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from genpolicy.system.files import make_folder, write_atomically

# Names are no formulas, `$` or not. Nor does a matplotlibrc in the working folder change a figure, or have LaTeX run.
plain = matplotlib.rc_context(
    {name: value for name, value in dict.items(matplotlib.rcParamsDefault) if "backend" not in name}
    | {"text.parse_math": False}
)


def write_png(figure: Figure, path: Path) -> None:
    """Write a PNG file, its folder made if it is not there."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    make_folder(path.parent)
    write_atomically(path, content.getvalue())


def with_floor(log_density: np.ndarray, floor: float) -> np.ndarray:
    """Log-densities [...], those of what has no density, -inf, at a floor: matplotlib would leave holes there."""
    return np.where(np.isneginf(log_density), floor, log_density)


def draw_paths(axis: Axes, times: np.ndarray, paths: np.ndarray) -> LineCollection:
    """Draw paths [points, paths, 2] from noise to actions, coloured by times [points] from 1 to 0."""
    segments = np.stack([paths[:-1], paths[1:]], 2).reshape(-1, 2, 2)
    colours = np.repeat(times[:-1], paths.shape[1])
    lines = LineCollection(segments, array=colours, cmap="plasma", linewidths=0.5, alpha=0.6)
    lines.set_clim(0, 1)
    axis.add_collection(lines)
    return lines

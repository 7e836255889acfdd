"""How figures are drawn, wherever the command is given and whatever names are in them."""

import io
from pathlib import Path

import matplotlib
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

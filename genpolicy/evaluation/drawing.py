"""How figures are drawn, wherever the command is given and whatever names are in them."""

import matplotlib

# Names are no formulas, `$` or not. Nor does a matplotlibrc in the working folder change a figure, or have LaTeX run.
plain = matplotlib.rc_context(
    {name: value for name, value in dict.items(matplotlib.rcParamsDefault) if "backend" not in name}
    | {"text.parse_math": False}
)

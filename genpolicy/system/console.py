"""Where tables go, and remarks."""

import functools

from rich.console import Console
from rich.text import Text

from genpolicy.errors import printable


def console(width: int = 120) -> Console:
    """The terminal, as wide as it is; or a file or a pipe, with lines of `width`."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=width)


@functools.cache  # data are looked at before they are loaded, and the same may be true of each run of a sweep
def remark(text: str) -> None:
    """Says in a line on stderr, once, what could have been meant otherwise than it is taken."""
    Console(stderr=True).print(text, soft_wrap=True, markup=False, highlight=False)


def plain(text: str, style: str = "") -> Text:
    """A cell or a title, as it is: nothing in it is markup, or steers the terminal."""
    return Text(printable(text), style)

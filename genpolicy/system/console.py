"""Where tables go."""

from rich.console import Console
from rich.text import Text

from genpolicy.errors import printable


def console(width: int = 120) -> Console:
    """The terminal, as wide as it is; or a file or a pipe, with lines of `width`."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=width)


def plain(text: str, style: str = "") -> Text:
    """A cell or a title, as it is: nothing in it is markup, or steers the terminal."""
    return Text(printable(text), style)

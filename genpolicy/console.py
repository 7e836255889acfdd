"""Where tables go."""

from rich.console import Console


def console(width: int = 120) -> Console:
    """The terminal, as wide as it is; or a file or a pipe, with lines of `width`."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=width)

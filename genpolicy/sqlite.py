"""SQLite files as SQLAlchemy's URIs, which percent-encode what has a meaning there (from SQLAlchemy 2.1 on)."""

import re
from pathlib import Path
from urllib.parse import quote, unquote

from genpolicy.errors import UserError

PREFIX = "sqlite:///"
_ENCODED = re.compile(r"[%?\x00-\x1f\x7f]")


def uri_of(file: Path) -> str:
    """The URI of a file."""
    return PREFIX + _ENCODED.sub(lambda sign: quote(sign[0]), str(file))


def file_of(uri: str) -> Path | None:
    """The file of a URI; None if it is of another kind. Raises `UserError` for one with options, or of no file."""
    if not uri.startswith("sqlite:"):
        return None
    place, question, _ = uri.removeprefix(PREFIX).partition("?")
    if not uri.startswith(PREFIX) or question or not place or place == ":memory:":
        raise UserError(f"{uri}: not a SQLite file; write sqlite:///FILE, without options ('?' in its name: %3F)")
    return Path(unquote(place))

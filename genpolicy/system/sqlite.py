"""SQLite files as SQLAlchemy's URIs, which percent-encode what has a meaning there (from SQLAlchemy 2.1 on)."""

import re
from pathlib import Path
from urllib.parse import quote, unquote

from genpolicy.errors import UserError

# The second form names the driver that the first one means. MLflow makes the folder of a URI of the first form without
# decoding it, so what is encoded has the second.
_PREFIXES = ("sqlite:///", "sqlite+pysqlite:///")
_ENCODED = re.compile(r"[%?\x00-\x1f\x7f]")


def uri_of(file: Path) -> str:
    """The URI of a file."""
    encoded = _ENCODED.sub(lambda sign: quote(sign[0]), str(file))
    return _PREFIXES[encoded != str(file)] + encoded


def file_of(uri: str) -> Path | None:
    """The file of a URI; None if it is of another kind. Raises `UserError` for one with options, or of no file."""
    if not uri.startswith(("sqlite:", "sqlite+")):
        return None
    prefix = next((prefix for prefix in _PREFIXES if uri.startswith(prefix)), uri)
    place, question, _ = uri.removeprefix(prefix).partition("?")
    if question or not place or place == ":memory:":
        raise UserError(f"{uri}: not a SQLite file; write sqlite:///FILE, without options ('?' in its name: %3F)")
    return Path(unquote(place))

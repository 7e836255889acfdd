"""The one exception that a user's mistake raises, and text that may be shown."""

import difflib
import unicodedata
from collections.abc import Iterable

FEW = 10  # names that a message lists at the most


class UserError(Exception):
    """Bad input: its message is one line that says what is wrong, what is legal and how to mend it.

    The command line prints the message and exits with code 1; nothing below it prints or exits.
    """


class UnknownSetting(UserError):
    """A setting that a component does not have.

    name: its full name. owner: the group of options that it belongs to, or the component's place. option: what was
    chosen of the group. hint: what may have been meant.
    """

    def __init__(self, name: str, owner: str, option: str | None, hint: str):
        self.name, self.owner, self.option, self.hint = name, owner, option, hint
        has = f"{owner}={option} has" if option else f"{owner} has" if owner else "there is"
        super().__init__(f"{name}: {has} no such setting; {hint}")


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 run, 2 runs."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def written(value: object) -> str:
    """A setting's value as a command line has it: true, null."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def suggest(word: str, legal: Iterable[str], listed: str = "") -> str:
    """'did you mean ...? legal: ...', for the end of a message about a wrong word.

    Of many legal words the nearest are named, and the command that shows all, `genpolicy --help <listed>`.
    """
    legal = sorted(map(str, legal))
    if not legal:
        return "it has none"
    near = difflib.get_close_matches(word, legal, n=1)
    start = f"did you mean {near[0]}? " if near else ""
    if len(legal) <= FEW:
        return f"{start}legal: {', '.join(legal)}"
    nearest = difflib.get_close_matches(word, legal, n=FEW, cutoff=0.0)
    shown = "; genpolicy --help" + (f" {listed}" if listed else "") + " shows all"
    return f"{start}legal: {', '.join(nearest)} and {len(legal) - FEW} more{shown}"


def one_line(error: BaseException) -> str:
    """What an exception says: a user's mistake as it is, any other with its kind, all in one line."""
    said, kind = message(error), type(error).__name__
    return said if isinstance(error, UserError) or said == kind else f"{kind}: {said}"


def message(error: BaseException, longest: int | None = None) -> str:
    """The text of an exception alone, in one line of so many characters at the most; its kind if it says nothing."""
    sentences = error.args if len(error.args) != 1 or isinstance(error, KeyError) else ()
    if not sentences or not all(isinstance(sentence, str) for sentence in sentences):
        sentences = (str(error),)
    whole = [" ".join(sentence.split()) for sentence in sentences if sentence.strip()]
    text = ". ".join(sentence.rstrip(".") for sentence in whole) if len(whole) > 1 else "".join(whole)
    return text[:longest] or type(error).__name__


def printable(text: str) -> str:
    """Text that comes from files and stores, fit for a terminal: what would steer it is written out, as in \\x1b."""
    if text.isprintable():
        return text
    return "".join(
        sign.encode("unicode_escape").decode() if unicodedata.category(sign) in _STEERING else sign for sign in text
    )


_STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control and format characters, halves of pairs, separators of lines

"""Which options and settings go together with the others: for the messages that refuse one that does not.

Of those that go with the others and mean nothing there, a line is said if the command gives them: files of options, and
sweeps over several algorithms, may have them for others.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import fields

from genpolicy.config.arguments import PLACED, options
from genpolicy.config.option_content import all_settings
from genpolicy.config.schema import TARGET, default_of, locate
from genpolicy.config.validation import Node
from genpolicy.errors import UserError, written


def legal_options(
    group: str, fits: Callable[[type], bool] = lambda cls: True, having: Callable[[Node], bool] = lambda node: True
) -> str:
    """`group=first|second`: the options of a group that satisfy a condition, the user's own among them.

    fits: whether the class does that an option's `_target_` names; having: whether the settings do that the option has
    by itself. The classes of all options are imported, so that this is for a command that is refused.
    """
    found = []
    for name, path in options(PLACED.get(group, group)).items():
        try:
            node = Node(all_settings(path, group))
            if fits(locate(node.get(TARGET))) and having(node):
                found.append(name)
        except UserError:  # an option that cannot be used at all
            continue
    return f"{group}={'|'.join(found)}"


def refuse_unused(config: Node, group: str, names: Collection[str], why: str) -> None:
    """Refuse values of a component's settings of these names, other than the defaults of its class.

    why: nothing depends on them.
    """
    for field in fields(locate(config[group][TARGET])):
        value, default = config[group].get(field.name), default_of(field)
        if field.name in names and value != default:
            raise UserError(f"{group}.{field.name}={written(value)}: {why}; legal: {written(default)}")


def unused(settings: dict, root: type) -> dict[str, str]:
    """The settings, or groups of them, by dotted name, that mean nothing in a whole checked configuration; where not.

    Each class of it may have a classmethod `without_effect(config)` that says so. root: the dataclass of the settings
    outside all components.
    """
    found: dict[str, str] = {}
    nodes = (node for node in settings.values() if isinstance(node, dict) and TARGET in node)
    for cls in (root, *(locate(node[TARGET]) for node in nodes)):
        if (says := getattr(cls, "without_effect", None)) is not None:
            found |= says(Node(settings))
    return found


def remark_unused(settings: dict, root: type, words: Sequence[str]) -> None:
    """Says of words of a command that they mean nothing, and where that is so (`unused`)."""
    known = unused(settings, root)
    for word in words:
        key = word.lstrip("+~").partition("=")[0].rpartition("@")[2]
        where = next((why for name, why in known.items() if f"{key}.".startswith(f"{name}.")), None)
        if where is not None:
            from genpolicy.system.console import remark  # whose package is slow to import

            remark(f"{key}: means nothing {where}")

"""Checking a composed configuration against the classes that its nodes name: names, types, ranges, combinations."""

import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genpolicy.config.nodes import created
from genpolicy.config.schema import MISSING, TARGET, default_of, field_types, is_nested, locate, name_of
from genpolicy.errors import UnknownSetting, UserError, suggest, written

LONGEST = 1000  # items of a list
EXACT = 2**53  # below which every whole number is a float
_LIMITS = {
    "ge": (">=", lambda value, limit: value >= limit),
    "gt": (">", lambda value, limit: value > limit),
    "le": ("<=", lambda value, limit: value <= limit),
    "lt": ("<", lambda value, limit: value < limit),
}


def check(config: DictConfig, choices: Mapping[str, str] | None = None, root: type | None = None) -> DictConfig:
    """The whole composed configuration with every value resolved and of its declared type.

    `choices` (group -> option) is used in messages; `root` is the dataclass of the settings outside all
    components (without it they are taken as they are). Raises `UserError` for an unknown or missing setting,
    a wrong type, a number outside its range, and for components that do not go together: each class with a
    classmethod `check_compatibility(config)` is asked, once everything is typed. One with a classmethod `canonical`
    says how its settings [plain values] are written where several ways mean the same.
    """
    return created(checked(plain_values(config), choices, root))


def checked(plain: dict, choices: Mapping[str, str] | None = None, root: type | None = None) -> dict:
    """The same for what `plain_values` returns, as plain values."""
    checker = _Checker(dict(choices or {}))
    if root is not None:
        typed = checker.node(plain, root, "")
    else:
        typed = {
            name: checker.component(value, name) if isinstance(value, dict) and TARGET in value else value
            for name, value in plain.items()
        }
    for cls in checker.classes:
        if (compatible := getattr(cls, "check_compatibility", None)) is not None:
            compatible(Node(typed))
    return typed


class Node(dict):
    """Plain values of a configuration, which are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            value = self[name]
        except KeyError as error:
            raise AttributeError(name) from error
        return Node(value) if isinstance(value, dict) else value


def plain_values(config: DictConfig, names: Collection[str] | None = None, path: str = "") -> dict:
    """A configuration, or the nodes of it in `names`, as plain values, resolved; a missing value stays `???`.

    `path`, with a dot at its end, is where it lies. Raises `UserError` for what cannot be resolved.
    """
    plain = {}
    for name in config:
        if names is not None and name not in names:
            continue
        full = f"{path}{name}"
        try:
            value = MISSING if OmegaConf.is_missing(config, name) else config[name]
            if isinstance(value, DictConfig):
                value = _plain(value, full)
            elif isinstance(value, ListConfig):
                value = OmegaConf.to_container(value, resolve=True)
        except OmegaConfBaseException as error:
            raise UserError(f"{full}: {str(error).splitlines()[0]}") from error
        refuse_interpolation(value, full)
        plain[str(name)] = value
    return plain


def _plain(node: DictConfig, path: str) -> dict:
    try:
        plain = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException:
        return plain_values(node, path=f"{path}.")  # which says where the fault is
    return _named(plain)


def _named(plain: dict) -> dict:
    """The same with names that are strings."""
    return {str(name): _named(value) if isinstance(value, dict) else value for name, value in plain.items()}


def refuse_interpolation(value: Any, path: str) -> None:
    """Raises `UserError` if plain values hold what OmegaConf would resolve, which may name secrets of the reader."""
    if isinstance(value, dict):
        for name, part in value.items():
            refuse_interpolation(str(name), path)
            refuse_interpolation(part, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for part in value:
            refuse_interpolation(part, path)
    elif isinstance(value, str) and "${" in value:
        raise UserError(f"{path}: {_shown(value)}: no value may hold '${{'")


class _Checker:
    """Types plain nodes against their classes, and remembers the classes met on the way."""

    def __init__(self, choices: dict[str, str]):
        self.choices = choices
        self.classes: list[type] = []

    def component(self, node: Any, path: str) -> dict:
        if node == MISSING:
            raise UserError(f"{path} must be given")
        if not isinstance(node, dict) or TARGET not in node:
            raise UserError(f"{path}: must be a component with its own {TARGET}, not {_shown(node)}")
        settings = {name: value for name, value in node.items() if name != TARGET}
        cls = locate(node[TARGET], f"{path}.{TARGET}")
        return {TARGET: node[TARGET]} | self.node(settings, cls, path)

    def node(self, given: dict, cls: type, path: str) -> dict:
        """Unknown names, then missing values, types, ranges: in the order of what one mends first."""
        self.classes.append(cls)
        fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
        prefix = f"{path}." if path else ""
        for name in given:
            if name not in fields:
                group = path.partition(".")[0]
                owner = group if group in self.choices else path
                option = self.choices.get(group)
                hint = suggest(str(name), fields, f"{owner}={option}" if option else "settings")
                raise UnknownSetting(f"{prefix}{name}", owner, option, hint)
        hints = field_types(cls)
        typed = {}
        for name, field in fields.items():
            value = given[name] if name in given else default_of(field)
            if is_nested(field):
                typed[name] = self.component(value, prefix + name)
            elif dataclasses.is_dataclass(hints[name]):
                typed[name] = self.node(_mapping(value, prefix + name), hints[name], prefix + name)
            elif value == MISSING:
                raise UserError(f"{prefix}{name} must be given{_described(field)}")
            else:
                if "seconds" in field.metadata:
                    value = _duration(value, field.metadata["seconds"])
                if "choices" not in field.metadata:
                    _refuse_number(value, hints[name], prefix + name)
                typed[name] = _convert(value, hints[name], prefix + name)
                _check_range(typed[name], field, prefix + name)
        return cls.canonical(typed) if hasattr(cls, "canonical") else typed


def _mapping(value: Any, path: str) -> dict:
    if dataclasses.is_dataclass(value):
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{path}: must be a group of settings, not {_shown(value)}")
    return value


def _described(field: dataclasses.Field) -> str:
    return f" ({field.metadata['doc']})" if field.metadata.get("doc") else ""


def _duration(value: Any, unit: float) -> Any:
    """A time such as "2h", "1d12h" or "1:30:00" as a number of units of so many seconds; anything else as it is."""
    text = str(value)
    if clock := re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", text):
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        return (((24 * days + hours) * 60 + minutes) * 60 + seconds) / unit
    if re.fullmatch(r"(\d+(\.\d+)?[dhms])+", text):
        parts = re.findall(r"([\d.]+)([dhms])", text)
        return sum(float(count) * {"d": 86_400, "h": 3600, "m": 60, "s": 1}[letter] for count, letter in parts) / unit
    return value


def _refuse_number(value: Any, hint: Any, path: str) -> None:
    """Raises `UserError` for a text that was read as something else, so that 1.10 and yes are 1.1 and true by now."""
    texts = typing.get_args(hint)[0] if typing.get_origin(hint) is list else hint
    if texts in (str, str | None):
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, bool | float):
                quote = f"quote one that looks like it: '1.10' in a file, {path}=\"'1.10'\" on the command line"
                raise UserError(f"{path}: {written(item)} is no text; {quote}")


def _whole(value: Any, hint: Any) -> Any:
    """A float without a fraction as the int that the annotated type wants: 1e4 is 10000."""
    if typing.get_origin(hint) is list:
        (item,) = typing.get_args(hint)
        return [_whole(each, item) for each in value] if isinstance(value, list) else value
    wants = {hint, *typing.get_args(hint)}
    return (
        int(value) if isinstance(value, float) and value.is_integer() and int in wants and float not in wants else value
    )


def _convert(value: Any, hint: Any, path: str) -> Any:
    """`value` as the annotated type, by OmegaConf's rules: "10" and 10 are one int, 1.5 and true are none.

    But 1e4 is an int as well.
    """
    value = _whole(value, hint)
    if _fits(value, hint):
        return value  # what OmegaConf would return, a hundred times faster
    if type(value) is int and hint is float and abs(value) < EXACT:
        return float(value)
    if hint is bool and isinstance(value, int | float) and value not in (0, 1):  # which OmegaConf takes for true
        raise UserError(f"{path}: {_shown(value)} is not of type bool")
    schema = OmegaConf.structured(_schema(hint))
    try:
        schema.value = value
        return OmegaConf.to_container(schema)["value"]
    except (OmegaConfBaseException, OverflowError) as error:
        listed = typing.get_origin(hint) is list and type(value) in _scalars(*typing.get_args(hint))
        how = f"; write it as in {path}=[{value}]" if listed else ""
        raise UserError(f"{path}: {_shown(value)} is not of type {name_of(hint)}{how}") from error


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the annotated type as it is: a number, a text, none of these, a list of them, or {}."""
    if type(value) is list:
        return typing.get_origin(hint) is list and all(type(item) in _scalars(*typing.get_args(hint)) for item in value)
    if value == {}:
        return typing.get_origin(hint) is dict
    return type(value) in _scalars(hint)


@functools.cache
def _scalars(hint: Any) -> frozenset[type]:
    """The types that an annotation allows; none if it allows anything that is no number or text."""
    allowed = {*typing.get_args(hint)} if isinstance(hint, types.UnionType) else {hint}
    return frozenset(allowed if allowed <= {bool, int, float, str, types.NoneType} else ())


def _shown(value: Any) -> str:
    shown = "null" if value is None else repr(value)
    return shown if len(shown) < 80 else shown[:77] + "..."


@functools.cache
def _schema(hint: Any) -> type:
    return dataclasses.make_dataclass("Schema", [("value", hint)])


def _check_range(value: Any, field: dataclasses.Field, path: str) -> None:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list) and len(value) > LONGEST:
        raise UserError(f"{path}: {len(value)} items; at most {LONGEST}")
    for item in value if isinstance(value, list) else [value]:
        if item is None:
            continue
        if item == MISSING:
            raise UserError(f"{path} must be given{_described(field)}")
        if isinstance(item, float) and not math.isfinite(item):
            raise UserError(f"{path}: {item} is not a finite number")
        for name, (sign, inside) in _LIMITS.items():
            if name in field.metadata and not inside(item, field.metadata[name]):
                raise UserError(f"{path}: {item} must be {sign} {field.metadata[name]}")
        legal = field.metadata.get("choices")
        if legal is not None and item not in legal:
            raise UserError(f"{path}: {written(item)} is none of {', '.join(map(written, legal))}")

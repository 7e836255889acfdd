"""The settings of a component, declared once: as the fields of the class that takes them.

A component is a keyword-only dataclass. Its fields are its settings (`setting`) and the components it is made
of (`component`); what only a run knows, such as the size of an action, is an `InitVar` and no setting. A
configuration node names its class with `_target_`; `check` compares every node with its class, and `build`
makes the object.
"""

import copy
import dataclasses
import difflib
import functools
import hashlib
import importlib
import json
import math
import re
import sys
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from typing import Any, get_type_hints

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genpolicy.config.nodes import created
from genpolicy.errors import UnknownSetting, UserError

TARGET = "_target_"
MISSING = "???"
FEW = 10  # names that a message lists at the most
LONGEST = 1000  # items of a list
EXACT = 2**53  # below which every whole number is a float
TRAINING, EVALUATION = "training", "evaluation"  # what a setting may affect, the stronger first
_LIMITS = {
    "ge": (">=", lambda value, limit: value >= limit),
    "gt": (">", lambda value, limit: value > limit),
    "le": ("<=", lambda value, limit: value <= limit),
    "lt": ("<", lambda value, limit: value < limit),
}


def setting(
    default=dataclasses.MISSING,
    *,
    ge=None,
    gt=None,
    le=None,
    lt=None,
    choices=None,
    seconds=None,
    doc="",
    affects=TRAINING,
):
    """A field of a component that its YAML may set. Without `default` it must be given.

    `ge`, `gt`, `le`, `lt` bound a number, or each item of a list; `choices` lists the legal values. `None` is
    always inside the limits (whether it is legal at all, the annotation says). `seconds` makes the number a
    time in units of so many seconds, for which "2h", "1d12h" and "1:30:00" will do as well. `doc` is shown by
    `genpolicy --help`.

    affects: TRAINING if the trained weights may depend on it; EVALUATION if only what is measured of a trained policy
    does; None if neither does, beyond roundings; or a function of the whole configuration that gives one of these.
    """
    limits = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    limits |= {"seconds": seconds}
    metadata = {name: limit for name, limit in limits.items() if limit is not None} | {"doc": doc, "affects": affects}
    if choices is not None:
        metadata["choices"] = tuple(choices)
    if isinstance(default, list | dict | set):
        return dataclasses.field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def component(doc="", affects=TRAINING):
    """A field of a component that is itself a component: a nested node with its own `_target_`.

    affects: as for `setting`; nothing below it affects more.
    """
    return dataclasses.field(metadata={"component": True, "doc": doc, "affects": affects})


def group(cls: type, affects=TRAINING):
    """A field that is a group of settings, the fields of the dataclass `cls`. affects: as for `component`."""
    return dataclasses.field(default_factory=cls, metadata={"affects": affects})


def is_component(field: dataclasses.Field) -> bool:
    """Whether a field was declared with `component`."""
    return field.metadata.get("component", False)


def locate(target: Any, path: str = TARGET) -> type:
    """The component class that `target` names by its full dotted path, which must lie below `genpolicy.`.

    Raises `UserError` for anything else, so that no configuration can call arbitrary code.
    """
    module, _, name = str(target).rpartition(".")
    if not module.startswith("genpolicy."):
        raise UserError(f"{path}: {target} is not a class of genpolicy")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("genpolicy"):
            raise UserError(f"{path}: {target} needs the package {error.name}, which is not installed") from error
        found = None
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise UserError(f"{path}: genpolicy has no component {target}")
    return found


def build(node: Mapping, **runtime):
    """The object that a checked node describes: its class, called with settings and run-time arguments.

    Nested components are built first, without run-time arguments.
    """
    if isinstance(node, DictConfig):
        node = OmegaConf.to_container(node, resolve=True)
    cls = locate(node[TARGET])
    parts = {field.name for field in dataclasses.fields(cls) if is_component(field)}
    given = {str(name): value for name, value in node.items() if name != TARGET}
    return cls(**{name: build(value) if name in parts else value for name, value in given.items()}, **runtime)


def check(config: DictConfig, choices: Mapping[str, str] | None = None, root: type | None = None) -> DictConfig:
    """The whole composed configuration with every value resolved and of its declared type.

    `choices` (group -> option) is used in messages; `root` is the dataclass of the settings outside all
    components (without it they are taken as they are). Raises `UserError` for an unknown or missing setting,
    a wrong type, a number outside its range, and for components that do not go together: each class with a
    classmethod `check_compatibility(config)` is asked, once everything is typed.
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


def digest(content: Any) -> str:
    """Eight hexadecimal digits of the SHA-256 of plain values, in which the order of keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def completed(node: Mapping, cls: type) -> dict:
    """What plain values say of the settings of a class, and the defaults of the others; `???` for one without.

    So, too, in the components and groups below that say their class. Nothing is checked.
    """
    found = {TARGET: node[TARGET]} if TARGET in node else {}
    hints = field_types(cls)
    for field in dataclasses.fields(cls):
        if field.init:
            value = node[field.name] if field.name in node else _default(field)
            if is_component(field):
                known = isinstance(value, dict) and TARGET in value
                value = completed(value, locate(value[TARGET])) if known else value
            elif dataclasses.is_dataclass(hints[field.name]) and (
                dataclasses.is_dataclass(value) or isinstance(value, dict)
            ):
                value = completed(_mapping(value, field.name), hints[field.name])
            found[field.name] = value
    return found | {name: value for name, value in node.items() if name not in found}


def part(config: Mapping, root: type, what: str) -> dict:
    """The settings of a whole checked configuration that affect TRAINING, or those that affect EVALUATION alone.

    Plain values, nested as they are; `root` is the dataclass of the settings outside all components. A component whose
    class itself belongs to the part has its `_target_`, too.
    """
    plain = OmegaConf.to_container(config, enum_to_str=True) if OmegaConf.is_config(config) else config
    return _part(plain, root, what, TRAINING, plain)


def _part(node: dict, cls: type, what: str, affects: str | None, config: dict) -> dict:
    strength = (None, EVALUATION, TRAINING)
    kept = {TARGET: node[TARGET]} if TARGET in node and affects == what else {}
    hints = field_types(cls)
    for field in dataclasses.fields(cls):
        if not field.init or field.name not in node:
            continue
        own, value = field.metadata.get("affects", TRAINING), node[field.name]
        own = min(own(config) if callable(own) else own, affects, key=strength.index)
        if is_component(field) or dataclasses.is_dataclass(hints[field.name]):
            inner = locate(value[TARGET]) if is_component(field) else hints[field.name]
            if below := _part(value, inner, what, own, config):
                kept[field.name] = below
        elif own == what:
            kept[field.name] = value
    return kept


@functools.cache
def field_types(cls: type) -> dict[str, Any]:
    """The types of a component's fields; those of what only a run knows (`InitVar`) are not looked up."""
    names, found = {field.name for field in dataclasses.fields(cls)}, {}
    for base in cls.__mro__:
        own = {
            name: hint for name, hint in vars(base).get("__annotations__", {}).items() if name in names - found.keys()
        }
        found |= get_type_hints(types.SimpleNamespace(__annotations__=own), vars(sys.modules[base.__module__]))
    return found


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


def suggest(word: str, legal: Iterable[str], listed: str = "") -> str:
    """'did you mean ...? legal: ...', for the end of a message about a wrong word.

    Of many legal words the nearest are named, and the command that shows all, `genpolicy --help <listed>`.
    """
    legal = sorted(map(str, legal))
    near = difflib.get_close_matches(word, legal, n=1)
    start = f"did you mean {near[0]}? " if near else ""
    if len(legal) <= FEW:
        return f"{start}legal: {', '.join(legal)}"
    nearest = difflib.get_close_matches(word, legal, n=FEW, cutoff=0.0)
    shown = "; genpolicy --help" + (f" {listed}" if listed else "") + " shows all"
    return f"{start}legal: {', '.join(nearest)} and {len(legal) - FEW} more{shown}"


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
            value = given[name] if name in given else _default(field)
            if is_component(field):
                typed[name] = self.component(value, prefix + name)
            elif dataclasses.is_dataclass(hints[name]):
                typed[name] = self.node(_mapping(value, prefix + name), hints[name], prefix + name)
            elif value == MISSING:
                raise UserError(f"{prefix}{name} must be given{_described(field)}")
            else:
                if "seconds" in field.metadata:
                    value = _duration(value, field.metadata["seconds"])
                typed[name] = _convert(value, hints[name], prefix + name)
                _check_range(typed[name], field, prefix + name)
        return typed


def _default(field: dataclasses.Field) -> Any:
    """The value of a setting that no file and no word gives, `???` if there is none."""
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else MISSING


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
        raise UserError(f"{path}: {_shown(value)} is not of type {name_of(hint)}") from error


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


def name_of(hint: Any) -> str:
    """An annotated type as a user reads it."""
    return hint.__name__ if type(hint) is type else str(hint).replace("typing.", "")


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
            raise UserError(f"{path}: {item} is none of {', '.join(map(str, legal))}")

"""The settings of a component, declared once: as the fields of the class that takes them.

A `component` is a keyword-only dataclass. Its fields are its settings (`setting`) and the components it is made
of (`nested`); what only a run knows, such as the size of an action, is an `InitVar` and no setting. A
configuration node names its class with `_target_`, and `build` makes the object.
"""

import copy
import dataclasses
import functools
import hashlib
import importlib
import json
import sys
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, get_type_hints

from omegaconf import DictConfig, OmegaConf

from genpolicy.config import plugins
from genpolicy.errors import UserError, one_line

TARGET = "_target_"
MISSING = "???"
TRAINING, EVALUATION = "training", "evaluation"  # what a setting may affect, the stronger first
Affects = str | None | Callable[[Mapping], str | None]
Component = TypeVar("Component")


def setting(
    default: Any = dataclasses.MISSING,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: Iterable[Any] | None = None,
    seconds: float | None = None,
    doc: str = "",
    affects: Affects = TRAINING,
    modes: tuple[str, ...] = (),
) -> Any:
    """A field of a component that its YAML may set. Without `default` it must be given.

    `ge`, `gt`, `le`, `lt` bound a number, or each item of a list; `choices` lists the legal values. `None` is
    always inside the limits (whether it is legal at all, the annotation says). `seconds` makes the number a
    time in units of so many seconds, for which "2h", "1d12h" and "1:30:00" will do as well. `doc` is shown by
    `genpolicy --help`.

    affects: TRAINING if the trained weights may depend on it; EVALUATION if only what is measured of a trained policy
    does; None if neither does, beyond roundings; or a function of the whole configuration that gives one of these.
    modes: the values of `mode` that it goes with; () for all.
    """
    limits = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    limits |= {"seconds": seconds}
    metadata = {name: limit for name, limit in limits.items() if limit is not None} | {"doc": doc, "affects": affects}
    metadata["modes"] = modes
    if choices is not None:
        metadata["choices"] = tuple(choices)
    if isinstance(default, list | dict | set):
        return dataclasses.field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def nested(doc: str = "", affects: Affects = TRAINING) -> Any:
    """A field of a component that is itself a component: a node with its own `_target_`.

    affects: as for `setting`; nothing below it affects more.
    """
    return dataclasses.field(metadata={"nested": True, "doc": doc, "affects": affects})


def group(cls: type, affects: Affects = TRAINING, modes: tuple[str, ...] = ()) -> Any:
    """A field that is a group of settings, the fields of the dataclass `cls`. affects, modes: as for `setting`."""
    return dataclasses.field(default_factory=cls, metadata={"affects": affects, "modes": modes})


def is_nested(field: dataclasses.Field) -> bool:
    """Whether a field was declared with `nested`."""
    return field.metadata.get("nested", False)


@typing.dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(setting, nested, group))
def component(cls: type[Component]) -> type[Component]:
    """Makes a class a component: a dataclass made by keywords, each object equal to itself alone.

    A module of torch keeps the representation that all of them have.
    """
    module = next((base for base in cls.__mro__ if "extra_repr" in vars(base)), None)
    made = dataclasses.dataclass(kw_only=True, eq=False, repr=module is None)(cls)
    if module is not None:  # and not that of a component which is no module and comes before it
        made.__repr__ = module.__repr__
    return made


def locate(target: Any, path: str = TARGET) -> type:
    """The component class that `target` names by its full dotted path, which must lie below `genpolicy.` or a plugin.

    Raises `UserError` for anything else, so that no configuration can call arbitrary code.
    """
    module, _, name = str(target).rpartition(".")
    package = module.partition(".")[0]
    if package != "genpolicy":
        plugins.require_class(str(target), path)
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith(package):
            raise UserError(f"{path}: {target} needs the package {error.name}, which is not installed") from error
        found = None
    except Exception as error:  # whatever a plugin's code raises
        if package == "genpolicy":
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.filename}:{last.lineno}"
        raise UserError(f"{path}: {target} cannot be imported ({one_line(error)}, at {where})") from error
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise UserError(f"{path}: genpolicy has no component {target}")
    return found


def modules(node: Any) -> Iterator[str]:
    """The modules of all components in plain values."""
    if isinstance(node, dict):
        if TARGET in node:
            yield node[TARGET].rpartition(".")[0]
        for value in node.values():
            yield from modules(value)


def build(node: Mapping, **runtime: Any) -> Any:
    """The object that a checked node describes: its class, called with settings and run-time arguments.

    Nested components are built first, without run-time arguments.
    """
    if isinstance(node, DictConfig):
        node = OmegaConf.to_container(node, resolve=True)
    cls = locate(node[TARGET])
    parts = {field.name for field in dataclasses.fields(cls) if is_nested(field)}
    given = {str(name): value for name, value in node.items() if name != TARGET}
    return cls(**{name: build(value) if name in parts else value for name, value in given.items()}, **runtime)


def digest(content: Any, digits: int = 8) -> str:
    """Hexadecimal digits of the SHA-256 of plain values, in which the order of keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:digits]


def completed(node: Mapping, cls: type) -> dict:
    """What plain values say of the settings of a class, and the defaults of the others; `???` for one without.

    So, too, in the components and groups below that say their class. Nothing is checked.
    """
    found = {TARGET: node[TARGET]} if TARGET in node else {}
    hints = field_types(cls)
    for field in dataclasses.fields(cls):
        if field.init:
            value = node[field.name] if field.name in node else default_of(field)
            if is_nested(field):
                known = isinstance(value, dict) and TARGET in value
                value = completed(value, locate(value[TARGET])) if known else value
            elif dataclasses.is_dataclass(hints[field.name]) and (
                dataclasses.is_dataclass(value) or isinstance(value, dict)
            ):
                value = completed(value if isinstance(value, dict) else {}, hints[field.name])
            found[field.name] = value
    return found | {name: value for name, value in node.items() if name not in found}


def part(config: Mapping, root: type, what: str) -> dict:
    """The settings of a whole checked configuration that affect TRAINING, or those that affect EVALUATION alone.

    Plain values, nested as they are; `root` is the dataclass of the settings outside all components. A component whose
    class itself belongs to the part has its `_target_`, too.
    """
    plain = OmegaConf.to_container(config, enum_to_str=True) if OmegaConf.is_config(config) else config
    return _part(plain, root, what, TRAINING, plain)


def always_training(node: Mapping) -> dict:
    """The settings of a component, as plain values, that affect TRAINING whatever the rest of the configuration is."""
    plain = OmegaConf.to_container(node, enum_to_str=True) if OmegaConf.is_config(node) else node
    return _part(plain, locate(plain[TARGET]), TRAINING, TRAINING, None)


def _part(node: dict, cls: type, what: str, affects: str | None, config: dict | None) -> dict:
    strength = (None, EVALUATION, TRAINING)
    kept = {TARGET: node[TARGET]} if TARGET in node and affects == what else {}
    hints = field_types(cls)
    for field in dataclasses.fields(cls):
        if not field.init or field.name not in node:
            continue
        own, value = field.metadata.get("affects", TRAINING), node[field.name]
        if callable(own):
            own = EVALUATION if config is None else own(config)
        own = min(own, affects, key=strength.index)
        if is_nested(field) or dataclasses.is_dataclass(hints[field.name]):
            inner = locate(value[TARGET]) if is_nested(field) else hints[field.name]
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


def default_of(field: dataclasses.Field) -> Any:
    """The value of a setting that no file and no word gives, `???` if there is none."""
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else MISSING


def name_of(hint: Any) -> str:
    """An annotated type as a user reads it."""
    return hint.__name__ if type(hint) is type else str(hint).replace("typing.", "")

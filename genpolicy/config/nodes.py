"""OmegaConf's nodes, made and copied in a fraction of the time that OmegaConf takes."""

import copy
import pickle
from collections.abc import Iterator
from typing import Any

from omegaconf import Container, DictConfig, Node, OmegaConf

MOST = 200  # structures that are kept

_made: dict[tuple, tuple[dict, bytes]] = {}  # of each structure, values and the node that OmegaConf made of them


def packed(node: Container) -> bytes:
    """A node as bytes, of which `unpacked` makes any number of copies; they stay in this process."""
    return pickle.dumps(node)


def unpacked(content: bytes) -> Any:
    """What `copy.deepcopy` makes of the node."""
    return pickle.loads(content)


def texts(node: Node) -> Iterator[str]:
    """All values of a configuration that are text, unresolved."""
    content = node._value()
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict | list):
        for below in content.values() if isinstance(content, dict) else content:
            yield from texts(below)


def created(plain: dict) -> DictConfig:
    """What `OmegaConf.create` makes of plain values: a copy of what it made of others with the same names."""
    structure = _structure(plain)
    if structure not in _made:
        if len(_made) >= MOST:
            _made.clear()
        _made[structure] = copy.deepcopy(plain), packed(OmegaConf.create(plain))
    known, made = _made[structure]
    node = unpacked(made)
    _set(node, plain, known)
    return node


def _structure(plain: dict) -> tuple:
    """The names in their order, those of lists and of what is nested marked."""
    return tuple(
        (name, _structure(value)) if type(value) is dict else (name, list) if type(value) is list else name
        for name, value in plain.items()
    )


def _set(node: DictConfig, plain: dict, known: dict) -> None:
    for name, value in plain.items():
        if type(value) is dict:
            _set(node[name], value, known[name])
        elif repr(value) != repr(known[name]):  # == takes 1, 1.0 and True for one
            node[name] = value

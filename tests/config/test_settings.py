"""Settings: declared once, typed and checked as declared, and built into the objects they describe."""

import math
import sys
import types
from dataclasses import InitVar, dataclass

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError
from torch import nn

from genpolicy.config.schema import build, component, nested, setting
from genpolicy.config.validation import check
from genpolicy.errors import UserError


@dataclass(kw_only=True)
class Wheel:
    radius: float = setting(0.3, gt=0, lt=2, doc="metres")
    kind: str = setting("road", choices=("road", "snow"))


@component
class Car(nn.Module):
    wheel: Wheel = nested("its wheels")
    doors: list[int] = setting([2, 2], ge=1, doc="doors of each side")
    name: str = setting(doc="what it is called")
    speed: float | None = setting(None, le=300)
    wheels: int = setting(4, ge=3, le=8)
    electric: bool = setting(False)
    passengers: InitVar[int]

    def __post_init__(self, passengers):
        super().__init__()
        self.seats = nn.Linear(passengers, 1)

    @classmethod
    def check_compatibility(cls, config):
        if config.car.electric and config.car.wheel.kind == "snow":
            raise UserError("electric does not go with wheel=snow")


@dataclass(kw_only=True)
class Root:
    seed: int = setting(0, ge=0)
    car: Car = nested("the car")


@pytest.fixture(autouse=True, scope="module")
def garage():
    """The classes above where configurations may look for them: below genpolicy."""
    module = types.ModuleType("genpolicy.garage")
    module.Wheel, module.Car, module.function = Wheel, Car, print
    sys.modules["genpolicy.garage"] = module
    yield
    del sys.modules["genpolicy.garage"]


def config(**car):
    wheel = {"_target_": "genpolicy.garage.Wheel", "radius": 1} | car.pop("wheel", {})
    return OmegaConf.create({"car": {"_target_": "genpolicy.garage.Car", "name": "a", "wheel": wheel} | car})


def refusal(node, **options) -> str:
    with pytest.raises(UserError) as caught:
        check(node, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@component
class Towed:
    """A part of components, itself no module."""

    load: float = setting(0.0)


@component
class Caravan(Towed, Car):
    beds: int = setting(2)


def test_a_component_is_equal_to_itself_alone_and_a_module_looks_like_one():
    wheel = {"_target_": "genpolicy.garage.Wheel"}
    first, second = (Caravan(wheel=wheel, name="a", passengers=3) for _ in range(2))
    assert first == first != second
    assert len({first, second}) == 2
    assert str(first) == "Caravan(\n  (seats): Linear(in_features=3, out_features=1, bias=True)\n)"
    assert str(Towed(load=1.5)) == "Towed(load=1.5)"
    with pytest.raises(TypeError, match="positional"):
        Towed(1.5)


def test_values_get_the_declared_types_and_defaults():
    checked = check(config(doors=["3", 1], speed=7, wheels="4"))
    plain = OmegaConf.to_container(checked.car)
    assert plain == {
        "_target_": "genpolicy.garage.Car",
        "wheel": {"_target_": "genpolicy.garage.Wheel", "radius": 1.0, "kind": "road"},
        "doors": [3, 1],
        "name": "a",
        "speed": 7.0,
        "wheels": 4,
        "electric": False,
    }
    assert type(plain["speed"]) is float
    assert type(plain["wheel"]["radius"]) is float


@pytest.mark.parametrize(
    ("car", "message"),
    [
        ({"door": [2]}, "car.door: car has no such setting; did you mean doors? legal: "),
        ({"_args_": [1]}, "car._args_: car has no such setting"),
        ({"wheel": {"radios": 1}}, "car.wheel.radios: car.wheel has no such setting; did you mean radius?"),
        ({"wheel": {"radius": 0}}, "car.wheel.radius: 0.0 must be > 0"),
        ({"wheel": {"radius": 2}}, "car.wheel.radius: 2.0 must be < 2"),
        ({"wheel": {"kind": "mud"}}, "car.wheel.kind: mud is none of road, snow"),
        ({"wheels": 2}, "car.wheels: 2 must be >= 3"),
        ({"wheels": 9}, "car.wheels: 9 must be <= 8"),
        ({"wheels": 4.5}, "car.wheels: 4.5 is not of type int"),
        ({"wheels": True}, "car.wheels: True is not of type int"),
        ({"wheels": None}, "car.wheels: null is not of type int"),
        ({"name": "???"}, "car.name must be given (what it is called)"),
        ({"name": None}, "car.name: null is not of type str"),
        ({"doors": 3}, "car.doors: 3 is not of type list[int]"),
        ({"doors": [1, 0]}, "car.doors: 0 must be >= 1"),
        ({"doors": [1, "???"]}, "car.doors must be given (doors of each side)"),
        ({"speed": math.nan}, "car.speed: nan is not a finite number"),
        ({"speed": "1e400"}, "car.speed: inf is not a finite number"),
        ({"speed": 10**400}, "car.speed: 1000"),
        ({"electric": "maybe"}, "car.electric: 'maybe' is not of type bool"),
        ({"electric": 2}, "car.electric: 2 is not of type bool"),
        ({"speed": "${nothing}"}, "car.speed: Interpolation key 'nothing' not found"),
        ({"speed": "${car.speed}"}, "car.speed: Recursive interpolation detected"),
        ({"doors": ["${nothing}"]}, "car.doors: Interpolation key 'nothing' not found"),
        ({"_target_": "os.system"}, "car._target_: os.system is not a class of genpolicy"),
        (
            {"_target_": "genpolicy.garage.Van"},
            "car._target_: genpolicy has no component genpolicy.garage.Van",
        ),
        ({"_target_": "genpolicy.garage.function"}, "car._target_: genpolicy has no component"),
        ({"_target_": "genpolicy.nothing.Van"}, "car._target_: genpolicy has no component"),
        ({"electric": True, "wheel": {"kind": "snow"}}, "electric does not go with wheel=snow"),
    ],
)
def test_what_is_not_declared_is_refused(car, message):
    assert refusal(config(**car)).startswith(message)


def test_a_component_needs_its_target():
    node = config()
    node.car.wheel = 3
    assert refusal(node) == "car.wheel: must be a component with its own _target_, not 3"
    del node.car["wheel"]
    assert refusal(node) == "car.wheel must be given"


def test_messages_name_the_chosen_option():
    assert refusal(config(door=1), choices={"car": "sports"}).startswith("car.door: car=sports has no such setting")


def test_root_settings_are_checked_before_any_component_is_imported():
    node = OmegaConf.merge(config(_target_="genpolicy.nothing.Van"), {"seed": -1})
    assert refusal(node, root=Root) == "seed: -1 must be >= 0"
    node.sead = 1
    assert refusal(node, root=Root).startswith("sead: there is no such setting; did you mean seed?")


def test_build_makes_nested_components_and_hands_over_what_a_run_knows():
    car = build(check(config(doors=[5])).car, passengers=3)
    assert isinstance(car, Car)
    assert isinstance(car.wheel, Wheel)
    assert car.wheel.radius == 1.0
    assert type(car.doors) is list
    assert car.seats.in_features == 3


def test_build_calls_no_other_code():
    with pytest.raises(UserError, match="not a class of genpolicy"):
        build({"_target_": "builtins.print"})
    with pytest.raises(UserError, match="no component"):
        build({"_target_": "genpolicy.garage.function"})


def test_defaults_are_not_shared():
    first, second = Car(name="a", wheel=None, passengers=1), Car(name="b", wheel=None, passengers=1)
    first.doors.append(9)
    assert second.doors == [2, 2]


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab_", min_size=1), inner)
)


@pytest.mark.slow
@given(name=st.sampled_from(["wheel", "doors", "name", "speed", "wheels", "electric", "_target_"]), value=values)
def test_any_value_is_typed_or_refused_in_one_line(name, value):
    node = OmegaConf.to_container(config())
    node["car"][name] = value
    try:
        composed = OmegaConf.create({"car": OmegaConf.create(node["car"], flags={"allow_objects": True})})
    except GrammarParseError:  # half a reference, which OmegaConf takes for no value of a configuration
        reject()
    try:
        checked = check(composed)
    except UserError as error:
        refused = str(error)
    else:
        refused = None
    assert refused is None or (refused.startswith("car") and "\n" not in refused)
    if refused is not None:
        return
    assert 3 <= checked.car.wheels <= 8
    assert all(door >= 1 for door in checked.car.doors)
    assert checked.car.speed is None or checked.car.speed <= 300
    assert type(checked.car.electric) is bool


@given(st.integers(3, 8), st.floats(0.01, 1.99), st.lists(st.integers(1, 9)))
def test_checking_twice_changes_nothing(wheels, radius, doors):
    once = check(config(wheels=wheels, doors=doors, wheel={"radius": radius}))
    assert check(once) == once

"""What an installed genpolicy needs of its environment, and what it must not load."""

import itertools
import os
import resource
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "mlflow", "gymnasium", "mujoco", "scipy", "matplotlib", "hydra", "h5py")


def run(*command, **options) -> subprocess.CompletedProcess:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)


def loaded(*words: str, cwd: Path) -> set[str]:
    """The top-level packages that a command imports."""
    done = run(sys.executable, "-X", "importtime", "-m", "genpolicy.app", *words, cwd=cwd)
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}


def test_help_is_light_and_quick(tmp_path):
    packages = loaded("--help", cwd=tmp_path)
    assert "yaml" in packages
    assert packages.isdisjoint(HEAVY)
    seconds = []
    for _ in range(3):
        begun = processor_seconds()
        assert run(sys.executable, "-m", "genpolicy.app", "--help", cwd=tmp_path).returncode == 0
        seconds.append(processor_seconds() - begun)
    assert min(seconds) < 2


def processor_seconds() -> float:
    """That all processes have used that this one has started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [("algo=nothing",), ("seed=x",), ("--cfg", "job", "mode=status"), ("mode=eval",), ("mode=status",), ("mode=sync",)],
)
def test_what_needs_no_component_loads_no_torch(words, tmp_path):
    packages = loaded(*words, cwd=tmp_path)
    assert "hydra" in packages
    assert packages.isdisjoint(set(HEAVY) - {"hydra"})


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder of the programs of an environment that holds the wheel of this tree, and what it depends on."""
    folder = tmp_path_factory.mktemp("wheel")
    built = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    assert run(sys.executable, "-m", "venv", "--without-pip", folder / "venv").returncode == 0
    python = folder / "venv/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--no-cache-dir"]
    done = run(*pip, wheel)
    assert done.returncode == 0, done.stderr
    # The dependencies come from this environment; its own genpolicy is an editable one, which such a line leaves out.
    site = next((folder / "venv/lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv/bin"


@pytest.fixture
def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


@pytest.mark.slow
def test_the_wheel_finds_its_configuration_from_an_empty_folder(installed, tmp_path, clean):
    where = run(
        installed / "python", "-c", "import genpolicy.config.arguments as c; print(c.CONF)", cwd=tmp_path, env=clean
    )
    assert Path(where.stdout.strip()).is_relative_to(installed.parent), where.stderr
    shown = run(installed / "genpolicy", "--help", cwd=tmp_path, env=clean)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "hopper-medium-v2" in shown.stdout
    composed = run(installed / "genpolicy", "--cfg", "job", "algo=bc", "-p", "algo", cwd=tmp_path, env=clean)
    assert (composed.returncode, composed.stderr) == (0, "")
    assert "genpolicy.algo.bc.BC" in composed.stdout
    refused = run(installed / "genpolicy", "-m", "algo=bc,gmpg", "algo.behaviour_lr=-1", cwd=tmp_path, env=clean)
    assert refused.returncode == 1
    assert refused.stderr.startswith("genpolicy: algo.behaviour_lr: -1.0 must be > 0")
    assert os.listdir(tmp_path) == []


def test_the_wheel_holds_every_file_and_no_other(installed):
    site = next((installed.parent / "lib").glob("python*/site-packages"))
    for source, target in (
        ("genpolicy", "genpolicy"),
        ("conf", "genpolicy/conf"),
        ("launch/hydra_plugins", "hydra_plugins"),
    ):
        files = {
            path.relative_to(ROOT / source)
            for path in (ROOT / source).rglob("*")
            if path.suffix in (".py", ".yaml", ".csv")
        }
        missing = [path for path in files if not (site / target / path).is_file()]
        assert files
        assert not missing
    assert not (site / "tests").exists()


def test_the_pinned_versions_are_those_that_pyproject_allows():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    optional = itertools.chain.from_iterable(project["optional-dependencies"].values())
    for needed in map(Requirement, [*project["dependencies"], *optional]):
        if needed.name == "genpolicy":  # its own extras
            assert needed.extras <= project["optional-dependencies"].keys()
            continue
        line = str(needed)
        assert needed.specifier.contains(pins[canonicalize_name(needed.name)]), line
    assert pins["torch"] == "2.13.0"

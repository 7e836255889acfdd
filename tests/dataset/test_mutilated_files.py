"""Files that were cut off or altered are read as data, or refused in a line; nothing else happens."""

import resource
import zipfile

import h5py
import numpy as np
import pytest
from composed import task

from genpolicy.dataset.dataset import Dataset
from genpolicy.dataset.hdf5 import HDF5
from genpolicy.dataset.npz import NPZ
from genpolicy.dataset.rl_unplugged import RLUnplugged
from genpolicy.errors import UserError

ROWS, FILES = 40, 200


def hdf5(path, random):
    with h5py.File(path, "w") as file:
        file["observations"], file["actions"] = random.normal(size=(ROWS, 17)), random.uniform(-1, 1, (ROWS, 6))
        file["rewards"], file["terminals"] = random.normal(size=ROWS), random.random(ROWS) < 0.1
        file.create_dataset("timeouts", data=np.arange(ROWS) % 10 == 9, compression="gzip")


def npz(path, random):
    columns = {name: random.normal(size=(ROWS, 17)) for name in ("obs", "next_obs")}
    columns |= {"action": random.uniform(-1, 1, (ROWS, 6)), "reward": np.ones(ROWS), "done": np.zeros(ROWS)}
    np.savez_compressed(path, **columns)


def npy(path, random):
    def parts():
        return {"position": random.normal(size=8), "velocity": random.normal(size=9)}

    rows = [{"s": parts(), "a": random.uniform(-1, 1, 6), "r": np.float64(1), "s_": parts()} for _ in range(ROWS)]
    np.save(path, rows, allow_pickle=True)


KINDS = {
    "hdf5": (HDF5, hdf5, "halfcheetah-medium-v2"),
    "npz": (NPZ, npz, "halfcheetah-medium-v2"),
    "npy": (RLUnplugged, npy, "dmc-cheetah-run"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_hundred_files(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(Dataset, "_check_robot", lambda *_: None)  # the rows are drawn, no robot's
    dataset, write, name = KINDS[kind]
    path, found, random = tmp_path / f"data.{kind}", task(name), np.random.default_rng(0)
    write(path, random)
    whole, refused = path.read_bytes(), 0
    dataset(path=str(path), directory=tmp_path).load(found)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(FILES):
        content = bytearray(whole[: random.integers(len(whole))] if number % 4 == 0 else whole)
        for _ in range(number % 9 * (len(content) > 0)):
            content[random.integers(len(content))] = random.integers(256)
        path.write_bytes(content)
        try:
            dataset(path=str(path), directory=tmp_path).load(found)
        except UserError as error:
            assert str(path) in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
            refused += 1
    assert refused > FILES // 4
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300_000  # KiB
    assert [left.name for left in tmp_path.iterdir()] == [path.name]


def test_a_zip_that_claims_more_than_can_be_loaded(tmp_path, monkeypatch):
    npz(tmp_path / "data.npz", np.random.default_rng(0))
    content = bytearray((tmp_path / "data.npz").read_bytes())
    with zipfile.ZipFile(tmp_path / "data.npz") as archive:
        member = archive.getinfo("obs.npy")
        start = archive.start_dir
    place = content.index(member.filename.encode(), start) - 46 + 24  # the size in the central directory
    content[place : place + 4] = b"\xfe\xff\xff\xff"
    (tmp_path / "data.npz").write_bytes(content)
    monkeypatch.setattr("genpolicy.dataset.user_file.LARGEST_FILE", 2**30)
    with pytest.raises(UserError, match=r"its columns claim 4.0 GiB, more than can be loaded"):
        NPZ(path=str(tmp_path / "data.npz"), directory=tmp_path).load(task("halfcheetah-medium-v2"))

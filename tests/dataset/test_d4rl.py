"""Downloads of D4RL's files: whole or not at all, resumed after a break, clear when impossible."""

import functools
from multiprocessing.pool import ThreadPool

import gymnasium
import h5py
import numpy as np
import pytest
from composed import task
from d4rl_package import offline_env
from file_server import Server, running

from genpolicy.config import plugins
from genpolicy.config.schema import build
from genpolicy.dataset import download as downloads
from genpolicy.dataset.d4rl import D4RL, check
from genpolicy.env.locomotion import Locomotion
from genpolicy.errors import UserError


def download(url, path):
    downloads.download(url, path, check)


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("content") / "file.hdf5"
    env = gymnasium.make("Hopper-v4", terminate_when_unhealthy=False)
    actions = np.random.default_rng(0).uniform(-1, 1, size=(2000, 3)).astype(np.float32)
    observations, rewards = np.empty((2000, 11), np.float32), np.empty(2000, np.float32)
    for row, action in enumerate(actions):
        if row % 1000 == 0:
            observation, _ = env.reset(seed=row)
        observations[row] = observation
        observation, rewards[row], *_ = env.step(action)
    env.close()
    with h5py.File(path, "w") as file:
        file["observations"], file["actions"], file["rewards"] = observations, actions, rewards
        file["terminals"] = np.zeros(2000, bool)
        file["timeouts"] = np.arange(1, 2001) % 1000 == 0
    return path.read_bytes()


@pytest.fixture
def server(content):
    server = Server(content, "data/hopper-v2.hdf5")
    with running(server):
        yield server


def test_whole_file(server, tmp_path):
    download(server.url, tmp_path / "file.hdf5")
    assert (tmp_path / "file.hdf5").read_bytes() == server.content
    assert server.asked == [None]
    assert [path.name for path in tmp_path.iterdir()] == ["file.hdf5"]


def test_a_break_is_mended_at_once_by_asking_for_the_rest(server, tmp_path):
    server.breaks = [10_000, 5_000]
    download(server.url, tmp_path / "file.hdf5")
    assert (tmp_path / "file.hdf5").read_bytes() == server.content
    assert server.asked == [None, "bytes=10000-", "bytes=15000-"]


def test_what_one_run_fetched_the_next_goes_on_with(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "ATTEMPTS", 1)
    server.breaks = [10_000]
    with pytest.raises(UserError, match=r"the connection broke off.*run again to resume"):
        download(server.url, tmp_path / "file.hdf5")
    assert not (tmp_path / "file.hdf5").exists()
    download(server.url, tmp_path / "file.hdf5")
    assert (tmp_path / "file.hdf5").read_bytes() == server.content
    assert server.asked == [None, "bytes=10000-"]


def test_a_server_without_ranges_sends_the_whole_again(server, tmp_path):
    server.breaks, server.ranges = [10_000], False
    download(server.url, tmp_path / "file.hdf5")
    assert (tmp_path / "file.hdf5").read_bytes() == server.content


@pytest.mark.parametrize("surplus", [0, 5])
def test_a_part_as_long_as_the_file_or_longer(server, tmp_path, surplus):
    (tmp_path / "file.hdf5.part").write_bytes(server.content + b"x" * surplus)
    download(server.url, tmp_path / "file.hdf5")
    assert (tmp_path / "file.hdf5").read_bytes() == server.content


def test_wrong_size(server, tmp_path):
    server.length += 100  # the server always promises more than it sends
    with pytest.raises(UserError, match=r"file.hdf5 cannot be downloaded from .*the connection broke off") as error:
        download(server.url, tmp_path / "file.hdf5")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "file.hdf5").exists()


def test_without_a_length_the_content_decides(server, tmp_path):
    server.length = None
    download(server.url, tmp_path / "file.hdf5")
    assert (tmp_path / "file.hdf5").read_bytes() == server.content
    server.content = server.content[:5000]
    with pytest.raises(UserError, match="not a readable HDF5 file"):
        download(server.url, tmp_path / "other.hdf5")
    assert not list(tmp_path.glob("other*"))


def test_an_html_page_is_not_taken_for_data(server, tmp_path):
    server.content = b"<html>The server is down for maintenance</html>"
    server.length = len(server.content)
    with pytest.raises(UserError, match="what came is not a readable HDF5 file"):
        download(server.url, tmp_path / "file.hdf5")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (503, 3)])
def test_refusals_say_what_to_do_by_hand(server, tmp_path, status, requests):
    server.status = status
    with pytest.raises(UserError, match=f"the server says {status}") as error:
        download(server.url, tmp_path / "file.hdf5")
    assert len(server.asked) == requests
    for part in ("file.hdf5", server.url, f"place it at {tmp_path / 'file.hdf5'}"):
        assert part in str(error.value)


def test_unreachable(tmp_path):
    with pytest.raises(UserError, match=r"refused.*place it at") as error:
        download("http://127.0.0.1:9/file.hdf5", tmp_path / "file.hdf5")
    assert "\n" not in str(error.value)


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"paths.data: .*hopper-v2.hdf5 cannot be written"):
        _load(server.url, str(tmp_path / "file"))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x.hdf5", "x.hdf5"])
def test_only_http(tmp_path, url):
    with pytest.raises(UserError, match="not an http or https address"):
        download(url, tmp_path / "x.hdf5")


def _load(url: str, directory: str) -> int:
    plugins.permit([f"env.url={url}"])
    hopper = Locomotion(
        name="hopper-medium-v2",
        simulator="Hopper-v4",
        max_episode_steps=1000,
        reference_min=-20.0,
        reference_max=3234.3,
        url=url,
    )
    return D4RL(reward="none", directory=directory).load(hopper).size


def test_two_that_need_the_same_file_download_it_once(server, tmp_path):
    with ThreadPool(4) as pool:
        sizes = pool.map(functools.partial(_load, server.url), [str(tmp_path)] * 4)
    assert sizes == [1998] * 4
    assert server.asked == [None]


def test_the_cache_is_d4rls_own(tmp_path, monkeypatch):
    monkeypatch.setattr(offline_env, "DATASET_PATH", str(tmp_path))
    hopper = task("hopper-medium-v2")
    theirs = offline_env.filepath_from_url(hopper.url)
    with open(theirs, "wb") as file:
        file.write(b"whatever is there already")
    dataset = build({"_target_": "genpolicy.dataset.d4rl.D4RL", "reward": "none"}, directory=tmp_path)
    assert str(dataset.file(hopper)) == theirs
    with pytest.raises(UserError, match=r"not a readable HDF5 file.*delete it and get it again"):
        dataset.load(hopper)

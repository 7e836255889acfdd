"""Phases that runs share are the same to the bit as if each run had trained them."""

import copy
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from command_line import genpolicy, jobs
from omegaconf import OmegaConf
from small import begun, random_transitions, shrink
from tiny import events, only_run, opened, plain_words, records, same

from genpolicy.algo.algorithm import assemble
from genpolicy.algo.phase import Phase, stream
from genpolicy.algo.update import Update
from genpolicy.config.schema import TARGET, digest, field_types, is_nested, locate
from genpolicy.dataset.sequences import Sequences
from genpolicy.errors import UserError
from genpolicy.evaluation import evaluator
from genpolicy.runs import checkpoint, phases
from genpolicy.runs.run import find_runs, load_run
from genpolicy.training.sharing import Sharing

pytestmark = pytest.mark.usefixtures("no_figures")

SHARED = ("env=swiss-roll", "tuned=none", "network=mlp", "network.hidden=[8]", "critic=iql", "critic.hidden=[8]")
SHARED += (
    "model=vpsde",
    "objective=noise_prediction",
    "solver=midpoint",
    "solver.steps=2",
    "likelihood.steps=2",
    "eval.per_phase=2",
)
SHARED += ("eval.episodes=2", "eval.final_episodes=3", "eval.log_prob_actions=10", "log_every=5", "tracking.uri=none")
SHARED += ("budget=0.002", "algo.behaviour_weight_decay=0", "algo.behaviour_schedule=constant")


def train(outputs, name: str, *more: str, code: int = 0):
    """The run of an algorithm, as far as the others like, trained in a folder; and what the command said."""
    common = [word for word in SHARED if name != "gmpo" or not word.startswith("algo.")]
    said = genpolicy(f"algo={name}", *common, f"paths.outputs={outputs}", f"paths.data={outputs}", *more)
    assert said.code == code, said.err
    return said


def weights(outputs) -> dict[str, dict]:
    """What each phase in a folder has trained, by key."""
    found = {path.parent.name: checkpoint.load(path) for path in outputs.glob("phases/*/weights.pt")}
    assert found
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run of GMPG that has trained all its phases."""
    outputs = tmp_path_factory.mktemp("trained")
    train(outputs, "gmpg")
    return outputs


IDQL = ("algo.average=false", "algo.behaviour_lr=1e-4")  # so that its behaviour model is GMPG's


@pytest.mark.parametrize(("name", "more"), [("gmpg", ("algo.beta=2",)), ("gmpo", ()), ("idql", IDQL)])
def test_a_run_that_takes_phases_is_the_run_that_has_trained_them(trained, tmp_path, name, more):
    shutil.copytree(trained, tmp_path / "shared")
    said = train(tmp_path / "shared", name, "study=other", *more)
    train(tmp_path / "alone", name, "study=other", "phases.reuse=false", *more)
    assert not (tmp_path / "alone/phases").exists()
    (left,), (right,) = (list(find_runs(tmp_path / each, "other")) for each in ("shared", "alone"))
    assert same(checkpoint.load(left / "policy.pt"), checkpoint.load(right / "policy.pt"))
    if name != "idql":  # whose policy was evaluated while its critic learned
        assert same(checkpoint.load(left / "last.pt"), checkpoint.load(right / "last.pt"))
        assert records(left) == records(right)
    final = [{record for record in records(run) if record[0].startswith("final")} for run in (left, right)]
    assert final[0] == final[1]
    taken = {told for told, fact in json.loads((left / "status.json").read_text())["phases"].items() if fact["reused"]}
    assert taken == {"gmpg": {"behaviour", "critic"}, "gmpo": {"critic"}, "idql": {"behaviour", "critic"}}[name]
    for phase in taken:
        assert f"{phase}: trained in gmpg-vpsde-" in said.out
    shown = genpolicy("mode=status", "study=other", f"paths.outputs={tmp_path / 'shared'}")
    assert "critic from gmpg-vpsde-" in shown.out


def test_a_run_stopped_while_it_evaluates_a_phase_that_it_takes_is_as_if_it_were_not(trained, tmp_path, monkeypatch):
    """Behaviour cloning, whose only phase is GMPG's behaviour model, and its policy the one that is evaluated there."""
    bc, real, calls = ("bc", "study=other", "algo.behaviour_lr=1e-4"), evaluator.rollout, []

    def stopping(*arguments, **more):
        calls.append(1)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **more)

    for name in ("whole", "stopped"):
        shutil.copytree(trained, tmp_path / name)
    said = train(tmp_path / "whole", *bc).err
    with monkeypatch.context() as patch:
        patch.setattr(evaluator, "rollout", stopping)
        train(tmp_path / "stopped", *bc, code=143)
    train(tmp_path / "stopped", *bc)
    left, right = (next(find_runs(tmp_path / name, "other")) for name in ("whole", "stopped"))
    assert same(checkpoint.load(left / "last.pt"), checkpoint.load(right / "last.pt"))
    assert records(left) == records(right)
    assert "evaluated at its end alone: without evaluations on the way there is no best checkpoint of it" in said
    assert not left.joinpath("best.pt").exists()
    assert not [name for name, *_ in records(left) if name.startswith(("best/", "late/"))]


def test_a_damaged_phase_is_trained_again(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    before = weights(tmp_path)
    for number, path in enumerate(sorted(tmp_path.glob("phases/*/weights.pt"))):
        if number:
            path.write_bytes(path.read_bytes()[:-200])
        else:
            (path.parent / "phase.json").write_text("{}")
    said = train(tmp_path, "gmpg", "study=other")
    assert said.err.count("phase is trained anew, as what is there is damaged") == 2
    assert same(weights(tmp_path), before)
    for path in tmp_path.glob("phases/*/journal.jsonl"):
        path.unlink()
    said = train(tmp_path, "gmpg", "study=third")
    assert said.err.count("phase is trained anew, as what is there is damaged") == 2
    assert same(weights(tmp_path), before)


def test_what_was_trained_otherwise_is_taken_only_if_that_was_said(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("phases/*/phase.json"):
        record = json.loads(path.read_text())
        record["circumstances"]["torch"] = "1.0"
        path.write_text(json.dumps(record))
    said = train(tmp_path, "gmpo", "study=any", "phases.reuse=any")
    assert "critic phase is there from gmpg" in said.err
    assert "(with torch 1.0)" in said.err
    said = train(tmp_path, "gmpo", "study=same")
    assert "with torch 1.0: trained anew; phases.reuse=any takes it" in said.err
    said = train(tmp_path, "gmpo", "study=after")
    assert "critic: trained in gmpo" in said.out  # with this torch, by the last one


def test_a_phase_that_is_written_anew_while_it_is_read_is_judged_again(trained, tmp_path, monkeypatch):
    """As by a run on a GPU, while one without reads what one without had written."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    real = phases.SharedPhase.load

    def load(place):
        record = json.loads((place.directory / "phase.json").read_text())
        record["circumstances"]["device"] = "H200"
        (place.directory / "phase.json").write_text(json.dumps(record))
        return real(place)

    monkeypatch.setattr(phases.SharedPhase, "load", load)
    said = train(tmp_path, "gmpo", "study=other")
    assert "critic phase is there from gmpg" in said.err
    assert "with device H200: trained anew" in said.err


def test_a_phase_that_was_begun_otherwise_is_not_left_to_others(tmp_path, monkeypatch):
    """Stopped in the middle, and gone on with by another number of threads."""
    calls, real = [], Update.__call__

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 10:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    words = ["algo=gmpo", *SHARED[:-2], f"paths.outputs={tmp_path}", f"paths.data={tmp_path}"]
    with monkeypatch.context() as patch:
        patch.setattr(Update, "__call__", stopping)
        assert genpolicy(*words).code == 143
    assert genpolicy(*words, "threads=2").code == 0
    assert not list(tmp_path.glob("phases/*/phase.json"))


def test_what_is_learned_from_a_phase_of_other_circumstances_is_not_left_to_others(tmp_path):
    """QGPO's critic reads its behaviour model; `phases.reuse=any` is of one run alone."""
    qgpo = ("qgpo", "algo.joint=false", "critic=in_support")
    shared = [word for word in SHARED if not word.startswith("critic")]
    common = [*shared, "critic.hidden=[8]", f"paths.outputs={tmp_path}", f"paths.data={tmp_path}"]
    given = [f"algo={qgpo[0]}", *qgpo[1:], *common]

    def made(*more: str):
        said = genpolicy(*given, *more)
        assert said.code == 0, said.err
        return said

    assert genpolicy("algo=bc", *(word for word in common if "critic" not in word), "threads=2", "study=a").code == 0
    second = made("phases.reuse=any", "study=b")
    assert "the behaviour phase is there from bc-vpsde" in second.err
    (run,) = find_runs(tmp_path, "b")
    assert json.loads((run / "status.json").read_text())["made"] == {"phases": "of other circumstances"}
    third = made("study=c")
    assert "the behaviour phase is there from bc-vpsde-" in third.err
    assert "trained anew" in third.err
    assert "critic phase is there" not in third.err


def test_code_counts_and_comments_do_not(tmp_path, monkeypatch):
    """The code of what the phase uses, and not that of other algorithms."""
    used, real = ["genpolicy.critic.iql"], phases.Path.read_text
    known = phases.code(used)

    def changed(name: str, text: str) -> str:
        def read(path, *more):
            return real(path, *more) + (text if path.name == name else "")

        with monkeypatch.context() as patch:
            patch.setattr(phases.Path, "read_text", read)
            patch.setattr(phases, "_module", phases._module.__wrapped__)
            return phases.code(used)

    assert changed("iql.py", "\n# a comment\n") == known
    assert changed("gmpg.py", "\nX = 1\n") == known
    assert changed("iql.py", "\nX = 1\n") != known
    assert changed("ensemble.py", "\nX = 1\n") != known


@pytest.mark.parametrize("words", [("algo=idql", "chunk.length=3"), ("algo=gmpg",), ("algo=qgpo",), ("algo=sfbc",)])
def test_the_code_of_a_phase_is_all_that_its_updates_run(words):
    config = composed(*words, "network=mlp")
    algorithm = assemble(config, 2, -torch.ones(2), torch.ones(2), config.seed)
    data, length = replace(random_transitions(), ends=torch.arange(32) % 8 == 7), config.chunk.length
    data = data if length == 1 else Sequences.of_transitions(data, length, length, 0.9, False)
    for phase in algorithm.phases:
        ran = set()
        sys.setprofile(lambda frame, event, given, ran=ran: ran.add(frame.f_globals.get("__name__", "")))
        try:
            source = begun(phase, data)
            phase.update(source.sample(phase.batch_size, torch.Generator()), torch.Generator(), 0)
        finally:
            sys.setprofile(None)
        ours = {name for name in ran if name.startswith(tuple(f"genpolicy.{room}." for room in phases.ROOMS))}
        if made := phases.recipe(config, algorithm.phases, phase.name):
            assert ours <= phases.sources(phases.used(made)).keys(), phase.name


@functools.cache
def composed(*words: str):
    ((job, _),) = jobs("tuned=none", "env=multi-goal", *words)
    config = job.config
    shrink(config)
    return config


def phases_of(config, wanted=lambda name, key: True) -> dict[str, tuple[str, dict]]:
    """Of each shared phase, until the last that is wanted: its key but for the data, and the weights after updates."""
    algorithm, data = assemble(config, 2, -torch.ones(2), torch.ones(2), config.seed), random_transitions()
    generator, found = torch.Generator(), {}
    shared = {phase.name: phases.recipe(config, algorithm.phases, phase.name) for phase in algorithm.phases}
    # Of a phase without a recipe, there is none, and nothing follows from what it trains.
    keys = {name: made and digest([made, config.seed]) for name, made in shared.items()}
    while algorithm.phases and not ((key := keys[name := algorithm.phases[-1].name]) and wanted(name, key)):
        algorithm.phases.pop()
    for phase in algorithm.phases:
        generator.manual_seed(stream(config.seed, phase.name))
        source = begun(phase, data)
        for step in range(3):
            phase.update(source.sample(phase.batch_size, generator), generator, phase.steps // 2 + step)
        if key := keys[phase.name]:
            trained = {name: copy.deepcopy(module.state_dict()) for name, module in phase.trains.items()}
            found[phase.name] = key, trained
    return found


ALIKE = ("gmpo", "gmpo_softmax_static", "gmpg", "idql", "srpo", "qgpo", "sfbc", "bc")


def test_phases_that_algorithms_have_in_common_give_equal_weights():
    found = {}
    for name in ALIKE:
        words = [f"algo={name}", "network=mlp", "model=vpsde", "objective=noise_prediction", "solver=midpoint"]
        config = composed(*words, *([] if name == "sfbc" else ["critic=iql"])).copy()
        same_for_all = {"behaviour_lr": 1e-4, "behaviour_weight_decay": 0.0, "behaviour_schedule": "constant"}
        for setting, value in (same_for_all | {"average": False, "joint": False}).items():
            if setting in config.algo:
                config.algo[setting] = value
        for key, weights in phases_of(config).values():
            found.setdefault(key, {})[name] = weights
    together = {frozenset(each) for each in found.values()}
    assert {"gmpg", "gmpo_softmax_static", "idql", "srpo", "qgpo", "sfbc", "bc"} in together  # the behaviour model
    assert {"gmpo", "gmpg", "gmpo_softmax_static", "idql", "srpo", "qgpo"} in together  # the critic
    for each in found.values():
        first, *others = each.values()
        assert all(same(other, first) for other in others)


def perturbed(node: dict, cls: type, path: str = ""):
    """Every setting of a component and those in it, by its dotted name, with another legal value."""
    hints = field_types(cls)
    for field in hints:
        if field not in node:
            continue
        known, value, name = cls.__dataclass_fields__[field], node[field], f"{path}.{field}"
        limits = known.metadata
        if is_nested(known):
            yield from perturbed(value, locate(value[TARGET]), name)
        elif "choices" in limits:
            yield from ((name, choice) for choice in limits["choices"] if choice != value)
        elif isinstance(value, bool):
            yield name, not value
        elif isinstance(value, int):
            yield name, value + 1
        elif isinstance(value, float):
            yield name, value * 0.75 if value else 0.25
        elif isinstance(value, list):
            yield name, [*value, 16]


CASES = {
    "gmpg": ("algo=gmpg", "model=vpsde", "network=mlp"),
    "in_support": (
        "algo=qgpo",
        "critic=in_support",
        "network=mlp",
        "model=icfm",
        "algo.energy=denoised",
        "algo.joint=false",
    ),
    "sfbc": ("algo=sfbc", "network=mlp"),
    "idql": ("algo=idql", "network=mlp"),
    "dtql": ("algo=dtql", "network=mlp"),
    "double_q": ("algo=srpo", "critic=iql_orthogonal", "network=mlp"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_setting_that_makes_other_weights_makes_another_key(case):
    config = composed(*CASES[case]).copy()
    before = phases_of(config)
    changed = {name: set() for name in before}

    def wanted(name, key):  # of another key it is known how it ends, but for some that show that weights do change
        return name not in before or key == before[name][0] or len(changed[name]) <= 5

    assert all(same(made, before[name]) for name, made in phases_of(config).items())
    tried = [("seed", 7)]
    for group in ("algo", "model", "objective", "solver", "network", "critic"):
        tried += perturbed(OmegaConf.to_container(config[group]), locate(config[group]._target_), group)
    for name, value in tried:
        own = OmegaConf.select(config, name)
        OmegaConf.update(config, name, value)
        try:
            after = phases_of(config, wanted)
        except (RuntimeError, ValueError, IndexError, UserError):  # values that do not go together
            continue
        finally:
            OmegaConf.update(config, name, own)
        for phase in before.keys() & after.keys():
            if not same(after[phase][1], before[phase][1]):
                assert after[phase][0] != before[phase][0], (name, value, phase)
                changed[phase].add(name)
    assert all(len(names) > 5 for names in changed.values()), changed


def test_seeds_together_share_their_phases(tmp_path):
    first = train(tmp_path, "gmpo", "seeds=[0,1]")
    second = train(tmp_path, "gmpo", "seeds=[1,0,2]", "algo.beta=2")
    assert (first.out.count("trained in"), second.out.count("critic: trained in gmpo")) == (0, 2)
    train(tmp_path / "alone", "gmpo", "seeds=[1,0,2]", "algo.beta=2", "phases.reuse=false")
    for right in find_runs(tmp_path / "alone"):
        left = tmp_path / right.relative_to(tmp_path / "alone")
        assert same(checkpoint.load(left / "policy.pt"), checkpoint.load(right / "policy.pt"))


def test_who_trains_a_phase_waits_for_those_with_larger_keys_only(tmp_path, monkeypatch):
    """So two processes that train several seeds each never wait for each other; and what is wrong is said once."""
    contents = sorted(({"recipe": {}, "number": number} for number in range(3)), key=lambda each: digest(each, 16))
    low, middle, high = (functools.partial(phases.SharedPhase, tmp_path, content) for content in contents)
    others = [low(), high()]  # are another process's
    assert all(other.claim(0.0) for other in others)
    phase, said, run = Phase(name="critic", steps=1, batch_size=1, updates={}), [], opened(tmp_path / "run")

    class StillWaiting(Exception):
        pass

    def check():
        if len(waited) == 3:
            raise StillWaiting
        waited.append(1)

    def member(place) -> Sharing:
        monkeypatch.setattr(Sharing, "_place", lambda sharing, phase: place())
        return Sharing(run, None, "", torch.device("cpu"), True, said.append, check)

    waited = []
    first = member(middle)
    assert first.take(phase) is None
    assert member(low).take(phase) is None
    assert waited == []  # it trains that phase, too
    (high().directory / "phase.json").write_text("{}")
    with pytest.raises(StillWaiting):
        member(high).take(phase)
    assert [line.partition(" phase")[0] for line in said] == ["the critic", "waiting for the critic"]
    first.close()
    with pytest.raises(StillWaiting):
        member(low).take(phase)
    for other in others:
        other.lock.release()


KILLS = 3  # with 20 it passed, too


@pytest.mark.slow
def test_processes_that_are_killed_train_nothing_twice_at_the_end(tmp_path):
    """Two at once, of which one is killed at several moments: the other waits for no dead one."""
    common = ["algo=gmpg", "algo.behaviour_steps=100", "algo.critic_steps=100", "algo.policy_steps=3"]
    common += ["checkpoint_seconds=0.1", "eval.per_phase=1"]
    small = [word for word in plain_words(tmp_path, *common) if not word.startswith("algo.policy_batch")]

    def command(beta: int, outputs) -> list[str]:
        return [*dict.fromkeys(small), f"algo.beta={beta}", f"paths.outputs={outputs}"]

    def start(beta: int, outputs):
        whole = [sys.executable, "-m", "genpolicy.app", *command(beta, outputs)]
        return subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    small = [word for word in small if not word.startswith("paths.outputs")]
    alone = {}
    for beta in (1, 2):
        done = genpolicy(*command(beta, tmp_path / f"alone{beta}"))
        assert done.code == 0, done.err
        alone[beta] = checkpoint.load(only_run(tmp_path / f"alone{beta}") / "policy.pt")
    outputs = tmp_path / "shared"
    other, killed = start(2, outputs), 0
    while killed < KILLS:
        process = start(1, outputs)
        began = time.monotonic()
        while process.poll() is None and time.monotonic() - began < 1.0 + 0.35 * killed:
            time.sleep(0.02)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += 1
    assert process.wait() == 0 or killed == KILLS
    done = genpolicy(*command(1, outputs))
    assert done.code == 0, done.err
    assert other.wait() == 0, other.communicate()
    assert killed > 1
    for run in find_runs(outputs):
        beta = load_run(run).config.algo.beta
        assert same(checkpoint.load(run / "policy.pt"), alone[beta])
        logged = [(name, event["step"]) for event in events(run) for name in event["metrics"]]
        assert len(logged) == len(set(logged))
    assert len(list(outputs.glob("phases/*/phase.json"))) == 2


def test_the_trials_of_a_search_share_their_phases(tmp_path):
    train(tmp_path, "gmpo", "-m", "hydra/sweeper=optuna", "algo.beta=interval(1,3)", "search.trials=2")
    told = [json.loads((run / "status.json").read_text())["phases"] for run in find_runs(tmp_path)]
    assert sorted(phases["critic"]["reused"] for phases in told) == [False, True]

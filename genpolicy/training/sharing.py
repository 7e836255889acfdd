"""How a run takes phases from others that have trained them, and leaves its own to those that follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import torch
from omegaconf import DictConfig, OmegaConf

from genpolicy.algo.algorithm import Algorithm
from genpolicy.algo.phase import Phase
from genpolicy.config.run_settings import TrainSettings
from genpolicy.config.schema import EVALUATION, digest, part
from genpolicy.errors import UserError, message
from genpolicy.runs import phases
from genpolicy.runs.identity import label
from genpolicy.runs.run import Run
from genpolicy.runs.state import known_status
from genpolicy.system.forecast import duration

POLL_SECONDS = 0.5
TOGETHER = {"together True": "several seeds at once", "together False": "one seed alone"}
EVALUATED = ("chunk", "env", "likelihood", "model", "select", "solver")  # what evaluations on the way depend on
EVALUATED += ("eval.episodes", "eval.log_prob_actions", "eval.per_phase")


class Sharing:
    """The shared phases of one run. `told` is what its status says of them, by their names.

    held: the keys of all phases that this process trains just now, for one run or for several seeds at once.
    data: the digest of its data. together: whether it is trained with other seeds at once. check: raises to end a wait.
    """

    held: ClassVar[set[str]] = set()

    def __init__(
        self,
        run: Run,
        algorithm: Algorithm,
        data: str,
        device: torch.device,
        together: bool,
        say: Callable[[str], None],
        check: Callable[[], None],
    ):
        self.run, self.algorithm, self.data, self.device, self.together = run, algorithm, data, device, together
        self.say, self.check = say, check
        self.told: dict[str, dict] = run.noted("phases", {})
        self._claimed: phases.SharedPhase | None = None  # the phase that is trained just now
        self.evaluations = evaluations(run.config)

    def circumstances(self) -> dict[str, str]:
        """What may change the last bits of all that this process trains of the run, as of a phase."""
        config = OmegaConf.to_container(self.run.config)
        return phases.circumstances(self.run, config, self.device, self.together)

    def take(self, phase: Phase) -> tuple[list[dict], bool] | None:
        """Gives the phase's parts the weights that another run has trained.

        Returns the phase's events, and whether its evaluations are as this run's. None if there is nothing to take:
        then the phase is this run's to train, and others wait for it.
        """
        place = self._place(phase)
        if place is None:
            return None
        found, waiting = self._load(place, phase), False
        # A process that holds phases waits only for phases with larger keys: so no two wait for each other.
        patient = all(key < place.key for key in self.held)
        while found is None:
            if place.claim(POLL_SECONDS if patient else 0.0):
                self._claimed = place
                self.held.add(place.key)
                if (found := self._load(place, phase, quiet=True)) is not None:
                    self.close()
                return found
            if not patient:
                return None
            if not waiting:
                waiting = True
                self.say(f"waiting for the {phase.name} phase, which {place.lock.holder()} trains")
            self.check()
            found = self._load(place, phase, quiet=True)
        return found

    def begin(self) -> None:
        """Notes how the phase that `take` did not find begins to be trained."""
        if self._claimed is not None:
            self.run.note(begun=self._circumstances(self._claimed))

    def give(self, phase: Phase, events: Iterable[dict], seconds: float) -> None:
        """Leaves a phase that was trained, with its events, steps from its begin on, to other runs.

        Not one that was begun and ended in different circumstances, or that reads one of other circumstances.
        """
        if (place := self._claimed) is None:
            return
        circumstances = self._circumstances(place)
        differs = any(self.told.get(name, {}).get("differs") for name in phase.reads)
        if differs:  # it was learned from weights that others in these circumstances would not take
            self._tell(phase, place, label(self.run.directory), False, seconds, differs)
        elif self.run.noted("begun", None) == circumstances:
            weights = {name: module.state_dict() for name, module in phase.trains.items()}
            place.save(
                {"parts": weights, "updates": phase.state_dict()},
                events,
                name=phase.name,
                run=label(self.run.directory),
                commit=self.run.noted("commit", None),
                steps=phase.steps,
                seconds=round(seconds, 3),
                circumstances=circumstances,
                evaluations=self.evaluations,
            )
            self._tell(phase, place, label(self.run.directory), False, seconds)
        self.close()

    def inherit(self, directory: Path) -> None:
        """Tell of the phases of a run that this one goes on from, but for the last, which goes on."""
        known, last = known_status(directory).get("phases", {}), self.algorithm.phases[-1].name
        self.told = {name: told | {"reused": True} for name, told in known.items() if name != last}
        self.run.note(phases=self.told)

    def close(self) -> None:
        """Let others train, or take, the phase that was trained."""
        if self._claimed is not None:
            self._claimed.lock.release()
            self.held.discard(self._claimed.key)
            self._claimed = None

    def _place(self, phase: Phase) -> phases.SharedPhase | None:
        if self.run.config.phases.reuse is False:
            return None
        content = phases.content(self.run, self.algorithm, self.data, phase)
        return content and phases.SharedPhase(self.run.outputs, content)

    def _circumstances(self, place: phases.SharedPhase) -> dict[str, str]:
        return phases.circumstances(self.run, place.content["recipe"], self.device, self.together)

    def _load(self, place: phases.SharedPhase, phase: Phase, quiet: bool = False) -> tuple[list[dict], bool] | None:
        try:
            record = phases.read_record(place.directory)
            if record is None:
                return None
            now = self._circumstances(place)
            differs = differences(record["circumstances"], now)
            if differs and self.run.config.phases.reuse != "any":
                if not quiet:
                    self.say(
                        f"the {phase.name} phase is there from {record['run']}, but with {', '.join(differs)}: trained "
                        "anew; phases.reuse=any takes it"
                    )
                return None
            weights, events = place.load()
            if phases.read_record(place.directory) != record:  # another process has just written others
                return self._load(place, phase, quiet)
            put(phase, weights)
        except (UserError, KeyError, TypeError, ValueError) as error:
            if not quiet:
                self.say(f"the {phase.name} phase is trained anew, as what is there is damaged: {message(error, 200)}")
            return None
        also = f" (with {', '.join(differs)})" if differs else ""
        self.say(f"the {phase.name} phase is there from {record['run']}{also}: {duration(record['seconds'])} saved")
        self._tell(phase, place, record["run"], True, record["seconds"], bool(differs))
        if differs:
            self.run.note(made={"phases": "of other circumstances"})
        return events, record["evaluations"] == self.evaluations

    def _tell(
        self, phase: Phase, place: phases.SharedPhase, run: str, reused: bool, seconds: float, differs: bool = False
    ) -> None:
        told = {"key": place.key, "run": run, "reused": reused, "seconds": round(seconds, 3)}
        self.told[phase.name] = told | ({"differs": True} if differs else {})
        self.run.note(phases=self.told)


def evaluations(config: DictConfig) -> str:
    """The same for runs whose evaluations during training are made alike."""
    plain = OmegaConf.create({name: OmegaConf.select(config, name) for name in EVALUATED})
    more = part(config, TrainSettings, EVALUATION)
    del more["eval"]  # beside those of it that are in `EVALUATED`
    return digest([OmegaConf.to_container(plain), more])


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The circumstances in which something was trained, as far as they are others than now."""
    found = {f"{name} {value}": now.get(name) != value for name, value in then.items()}
    return [TOGETHER.get(told, told) for told, differs in found.items() if differs]


def put(phase: Phase, weights: dict) -> None:
    """Gives the parts of a phase, and its optimisers, what `Sharing.give` has kept; changes nothing if that misfits."""
    for name, module in phase.trains.items():
        if layout(weights["parts"][name]) != layout(module.state_dict()):
            raise ValueError(f"{name} has other weights")
    for name, module in phase.trains.items():
        module.load_state_dict(weights["parts"][name])
    phase.load_state_dict(weights["updates"])


def layout(state: dict) -> dict[str, torch.Size]:
    """The shapes of the tensors of a state, by name."""
    return {name: value.shape for name, value in state.items()}

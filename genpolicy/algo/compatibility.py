"""What algorithms ask of the models and objectives that they are combined with."""

from __future__ import annotations

from genpolicy.config.legal import legal_options
from genpolicy.config.schema import locate
from genpolicy.config.validation import Node
from genpolicy.errors import UserError
from genpolicy.model.generative import GenerativePolicy, field_follows
from genpolicy.objective.regression import Regression


def require_flow(config: Node) -> None:
    """Refuse a model that has no flow."""

    def fits(model: type) -> bool:
        return issubclass(model, GenerativePolicy)

    if not fits(locate(config.model._target_)):
        raise UserError(f"model: this algorithm needs a generative model; legal: {legal_options('model', fits)}")


def require_velocity(config: Node, *times: float) -> None:
    """Refuse a flow whose velocity does not follow from its network's prediction at some times."""
    require_flow(config)
    if not field_follows(config, *times):
        raise UserError(
            f"objective.prediction={config.objective.prediction}: this algorithm takes the flow's velocity where there "
            "is no noise or no signal, which does not follow from it; legal: auto, velocity, preconditioned"
        )


def require_independent_noise(config: Node, what: str) -> None:
    """Refuse a model that pairs actions with noise. what: is done with actions and noise."""

    def fits(model: Node) -> bool:
        return "path" not in model or not locate(model["path"]["_target_"]).couples

    if not fits(config.model):
        legal = legal_options("model", having=fits)
        raise UserError(f"model: {what}, which must be independent; legal: {legal}")


def require_denoiser(config: Node) -> None:
    """Refuse an objective that does not regress a prediction at a noisy action."""
    require_flow(config)

    def fits(objective: type) -> bool:
        return issubclass(objective, Regression)

    if not fits(locate(config.objective._target_)):
        raise UserError(f"objective: this algorithm needs a denoiser; legal: {legal_options('objective', fits)}")

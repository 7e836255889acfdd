"""SRPO, thu-ml/SRPO: ten updates of each of its three stages, with weights, batches and draws of our own."""

import functools
from unittest import mock

import numpy as np
from thu_tools import gradients, prefixed, rows, without
from torch import nn
from torch_tools import (
    ACTION,
    BATCH,
    OBSERVATION,
    UPDATES,
    Parameters,
    batches,
    checkout,
    drawing,
    narrow,
    normal,
    save,
    uniform,
)

path = checkout()
without("d4rl", "gym", "wandb")
import model  # noqa: E402
import SRPO as reference  # noqa: E402
import torch  # noqa: E402
import utils  # noqa: E402

WIDTH, BLOCKS, TIME, CONDITION = 8, 2, 8, 6


def shrink(net: model.ScoreNet_IDQL) -> None:
    """The same network with layers of other widths."""
    net.embed = nn.Sequential(model.GaussianFourierProjection(TIME))
    net.cond_model = model.mlp([TIME, CONDITION, CONDITION], activation=nn.Mish)
    main = net.main
    main.fc = nn.Linear(OBSERVATION + ACTION + CONDITION, WIDTH)
    main.blocks = nn.ModuleList(model.MLPResNetBlock(WIDTH, main.activations, 0.1, True) for _ in range(BLOCKS))
    main.out_fc = nn.Linear(WIDTH, ACTION)


draw = np.random.default_rng(0)
torch.manual_seed(0)
schedule = functools.partial(utils.marginal_prob_std, device="cpu", beta_1=20.0)
sizes = OBSERVATION + ACTION, ACTION
for name, env in (("srpo", "hopper-medium-v2"), ("srpo_antmaze", "antmaze-umaze-v2")):
    with mock.patch("sys.argv", ["train_policy.py", "--env", env, "--device", "cpu", "--n_policy_epochs", "1"]):
        args = utils.get_args()
    with narrow(12):
        behaviour = reference.SRPO_Behavior(*sizes, schedule, args)
        iql = reference.SRPO_IQL(*sizes, args)
        whole = reference.SRPO(*sizes, schedule, args)
    data, shape = batches(draw), (UPDATES, BATCH)
    draws = {"behaviour_t": uniform(draw, *shape), "behaviour_noise": normal(draw, *shape, ACTION)}
    draws |= {"kept": uniform(draw, UPDATES, BATCH, BLOCKS, WIDTH) > 0.1}
    draws |= {"t": uniform(draw, *shape), "noise": normal(draw, *shape, ACTION)}
    arrays = prefixed("batch", data) | prefixed("draw", draws)

    shrink(behaviour.diffusion_behavior)
    score, optimizer = behaviour.diffusion_behavior, behaviour.diffusion_optimizer
    optimizer.param_groups[0]["params"] = list(score.parameters())
    parameters = Parameters(draw, {"behaviour": score}, 0.1)
    arrays |= parameters.begin()
    for update in range(UPDATES):
        kept = iter(draws["kept"][update].swapaxes(0, 1))  # of each block in turn

        def dropout(x, rate, training, inplace, kept=kept):
            return x * torch.as_tensor(next(kept)) / (1 - rate) if training else x

        drawn = drawing(draws["behaviour_t"][update], draws["behaviour_noise"][update])
        with drawn, mock.patch.object(nn.functional, "dropout", dropout):
            behaviour.update_behavior(rows(data, update))
        if update == 0:
            arrays |= gradients(behaviour=score) | {"info/loss": behaviour.loss.detach().numpy()}
        if update in (0, UPDATES - 1):
            arrays |= parameters.moved(update + 1)

    critic = iql.q[0]
    modules = {"q": critic.q0, "q_target": critic.q0_target, "v": critic.vf}
    parameters = Parameters(draw, modules)
    arrays |= parameters.begin()
    for update in range(UPDATES):
        critic.update_q0(rows(data, update))
        if update == 0:
            arrays |= gradients(q=critic.q0, v=critic.vf)
            arrays |= {"info/v_loss": critic.v_loss.detach().numpy(), "info/q_loss": critic.q_loss.detach().numpy()}
        if update in (0, UPDATES - 1):
            arrays |= parameters.moved(update + 1)

    # The policy's stage starts from the behaviour model and the critic as they are in the beginning.
    shrink(whole.diffusion_behavior)
    for module, part in ((whole.diffusion_behavior, "behaviour"), (whole.q[0].q0_target, "q_target")):
        state = {key: torch.as_tensor(arrays[f"0/{part}/{key}"]) for key in module.state_dict()}
        module.load_state_dict(state)
    policy = whole.SRPO_policy
    parameters = Parameters(draw, {"policy": policy})
    arrays |= parameters.begin()
    whole.SRPO_policy_lr_scheduler.T_max = UPDATES  # not whole epochs of 10,000
    for update in range(UPDATES):
        with drawing(draws["t"][update], draws["noise"][update]):
            whole.update_SRPO_policy(rows(data, update))
        if update == 0:
            arrays |= gradients(policy=policy)
        if update in (0, UPDATES - 1):
            arrays |= parameters.moved(update + 1)
    if name != "srpo":  # the tasks differ in the policy and in the expectile
        later = tuple(f"{start}/behaviour/" for start in ("1", "10", "gradient"))
        arrays = {key: array for key, array in arrays.items() if not key.startswith((*later, "draw/behaviour"))}
    settings = {"beta": args.beta, "regq": args.regq, "policy_layer": args.policy_layer, "env": env, "WT": args.WT}
    save(name, "github.com/thu-ml/SRPO", path, "MIT", settings, **arrays)

"""Why a member failed: the first number of its last update that is not finite. Computed only after a failure."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError
from pgkit.nn.policy import Policy
from pgkit.optim.diagnostics import step_errors
from pgkit.training.extra_args import Batches
from pgkit.training.population import Population, UpdateTrace
from pgkit.tree import select_members
from pgkit.types import Batch, Params, Rollout


class BadNumber(PgkitError):
    """Training was asked to stop at the first number that is not finite, and there was one."""

    exit_code = 1


Gradient = Callable[[Population, Batches], tuple[Tensor, Params, dict[str, Tensor]]]
"""Loss ``(P,)``, its gradient and metrics ``(P,)`` of batches: :func:`pgkit.training.loop.gradient`."""


def explain(population: Population, rows: Sequence[int], gradient: Gradient) -> dict[int, str]:
    """Find the first number that was not finite in the last update of each of these members.

    Observation statistics that an infinite observation has spoilt become again what they were before the update.

    Args:
        population: after the update.
        rows: places of the members.
        gradient: computes the update's gradient once more.

    Returns:
        The cause by member; members whose numbers were all finite have none.
    """
    trace = population.trace
    if not rows or trace is None:
        return {}
    loss, grads, metrics = gradient(replace(population, params=trace.params), trace.batches)
    population.collector.repair(trace.obs_stats)
    scalars = {"loss": loss, **metrics}
    errors = step_errors(population.opt_state)
    causes = {row: first_bad(population.policy, trace, scalars, grads, row, errors.get(row, "")) for row in rows}
    return {int(population.members[row]): cause for row, cause in causes.items() if cause}


def stop_at_bad_number(population: Population, configs: Sequence[TrainConfig], gradient: Gradient) -> None:
    """Check every number of the last update.

    Raises:
        BadNumber: one is not finite; the message says which, where and when.
    """
    for member, cause in explain(population, range(population.size), gradient).items():
        row = population.members.tolist().index(member)
        what = "" if cause in step_errors(population.opt_state).values() else "first non-finite number: "
        source = _backward_source(population, gradient) if cause.startswith("gradient of") else ""
        steps = population.env_steps[row].item()
        raise BadNumber(f"seed {configs[member].seed}, before step {steps:,.0f}: {what}{cause}{source}")


def _backward_source(population: Population, gradient: Gradient) -> str:
    """The operation whose derivative was NaN in the last update, as autograd's anomaly mode names it."""
    trace = population.trace
    assert trace is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anomaly mode warns of its cost, and prints what the error says, too
        with torch.autograd.detect_anomaly():
            try:
                gradient(replace(population, params=trace.params), trace.batches)
            except RuntimeError as error:
                return f" ({str(error).rstrip('.')})"
    return ""


@torch.no_grad()
def first_bad(
    policy: Policy, trace: UpdateTrace, scalars: Mapping[str, Tensor], grads: Params, row: int, step_error: str = ""
) -> str:
    """Describe a member's first number that is not finite, in the order in which an update computes.

    Args:
        policy: what the parameters mean.
        trace: of the update.
        scalars: loss and metrics of the agent, ``(P,)`` by name, the loss first.
        grads: of the loss, leaves ``(P, ...)``.
        row: place of the member.
        step_error: what the member's optimizer raised.

    Returns:
        What it is, where, and the number; empty if all are finite.
    """
    return next(_all_bad(policy, trace, scalars, grads, row, step_error), "")


def _all_bad(
    policy: Policy, trace: UpdateTrace, scalars: Mapping[str, Tensor], grads: Params, row: int, step_error: str
) -> Iterator[str]:
    params = select_members(trace.params, torch.tensor([row]))
    for rollout, (rows, batch) in zip(trace.rollouts, trace.batches, strict=True):
        places = [row] if rows is None else (rows == row).nonzero().flatten().tolist()
        for p in places:
            yield from _bad_while_acting(rollout.unnormalized, p)
            yield from _bad_scaling(rollout.rollout, p)
            yield from _bad_learning(policy, params, batch, p)
    loss, *parts = scalars
    for name in (*parts, loss):
        yield from _bad(name, scalars[name][row])
    for name, leaf in grads.items():
        yield from _bad(f"gradient of {name}", leaf[row])
    norm = sum(leaf[row].square().sum() for leaf in grads.values())
    yield from _bad("gradient, whose norm overflows float32", torch.as_tensor(norm))
    if step_error:
        yield step_error
    for name, largest in zip(trace.params, trace.largest[:, row], strict=True):
        yield from _bad(f"update of {name}", largest)


def _bad_while_acting(rollout: Rollout, p: int) -> Iterator[str]:
    """The first in time; the order within a step is observation, action, reward."""
    valid = rollout.valid[:, p]
    always = torch.ones_like(valid)
    columns = (
        ("observation", rollout.obs, torch.cat([always, always[:1]])),
        ("action", rollout.action, valid),
        ("reward", rollout.reward, valid),
        ("final observation", rollout.final_obs, always),
    )
    first = []
    for rank, (name, tensor, mask) in enumerate(columns):
        if tensor is None:
            continue
        numbers = tensor[:, p].flatten(2) if tensor.dim() > 3 else tensor[:, p].unsqueeze(2)
        places = (~numbers.isfinite() & mask.unsqueeze(2)).nonzero()
        if len(places):
            t, n, feature = places[0].tolist()
            text = f"{name} = {numbers[t, n, feature].item()}, environment {n}, step {t} of its rollout"
            first.append((t, rank, text))
    if first:
        yield min(first)[2]


def _bad_scaling(rollout: Rollout, p: int) -> Iterator[str]:
    """What is not finite although the environment's numbers are."""
    yield from _bad("normalised observation", rollout.obs[:, p])
    yield from _bad("scaled reward", rollout.reward[:, p][rollout.valid[:, p]])


def _bad_learning(policy: Policy, params: Params, batch: Batch, p: int) -> Iterator[str]:
    """Targets and outputs of the actor; ``params`` are those of the member, ``p`` is its place in the batch."""
    valid = batch.valid[p]
    yield from _bad("advantage (an overflow, or the critic's values)", batch.advantage[p][valid])
    yield from _bad("return", batch.target[p][valid])
    obs = batch.obs[p : p + 1]
    outputs = policy.outputs(params, obs)
    yield from _bad("output of the actor", policy.outputs(params, obs[..., : policy.obs_dim])[0][valid])
    yield from _bad("log-probability", policy.head.log_prob(outputs, batch.action[p : p + 1])[0][valid])


def _bad(name: str, tensor: Tensor) -> Iterator[str]:
    bad = tensor[~tensor.isfinite()]
    if len(bad):
        yield f"{name} = {bad[0].item()}"

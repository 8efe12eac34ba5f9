"""Why a member failed: the first number of its last update that is not finite. Computed only when somebody asks."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError
from pgkit.nn.policy import Policy
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
    """By member, the first number in the last update of the members at these rows that was not finite.

    A sound member has none. Observation statistics that an infinite observation has spoilt become what they were.
    """
    if not rows or population.evidence is None:
        return {}
    evidence = population.evidence
    loss, grads, metrics = gradient(replace(population, params=evidence.params), evidence.batches)
    population.collector.repair(evidence.obs_stats)
    shown = {"loss": loss, **metrics}
    found = {row: first_bad(population.policy, evidence, shown, grads, row) for row in rows}
    return {int(population.members[row]): cause for row, cause in found.items() if cause}


def stop_at_bad_number(population: Population, configs: Sequence[TrainConfig], gradient: Gradient) -> None:
    """Look at every number of the last update.

    Raises:
        BadNumber: one is not finite; its text says which, where and when.
    """
    for member, cause in explain(population, range(population.size), gradient).items():
        row = population.members.tolist().index(member)
        source = _backward_source(population, gradient) if cause.startswith("gradient of") else ""
        steps = population.env_steps[row].item()
        raise BadNumber(f"seed {configs[member].seed}, before step {steps:,.0f}: first bad number: {cause}{source}")


def _backward_source(population: Population, gradient: Gradient) -> str:
    """The operation whose derivative is NaN in the last update, as autograd's anomaly mode names it."""
    assert population.evidence is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mode warns of its cost, and tells the same twice
        with torch.autograd.detect_anomaly():
            try:
                gradient(replace(population, params=population.evidence.params), population.evidence.batches)
            except RuntimeError as error:
                return f" ({str(error).rstrip('.')})"
    return ""


@torch.no_grad()
def first_bad(policy: Policy, evidence: UpdateTrace, shown: Mapping[str, Tensor], grads: Params, row: int) -> str:
    """What it is, where and which number, in the order in which an update computes; empty if all are finite.

    Args:
        policy: what the parameters mean.
        evidence: of the update.
        shown: loss and metrics of the agent, ``(P,)`` by name, the loss first.
        grads: of the loss, leaves ``(P, ...)``.
        row: of the member.
    """
    return next(_all_bad(policy, evidence, shown, grads, row), "")


def _all_bad(
    policy: Policy, evidence: UpdateTrace, shown: Mapping[str, Tensor], grads: Params, row: int
) -> Iterator[str]:
    for piece, (rows, batch) in zip(evidence.pieces, evidence.batches, strict=True):
        here = [row] if rows is None else (rows == row).nonzero().flatten().tolist()
        for p in here:
            yield from _acting(piece.raw, p)
            yield from _scaled(piece.rollout, p)
            yield from _learning(policy, select_members(evidence.params, torch.tensor([row])), batch, p)
    loss, *parts = shown
    for name in (*parts, loss):
        yield from _bad(name, shown[name][row])
    for name, leaf in grads.items():
        yield from _bad(f"gradient of {name}", leaf[row])
    norm = sum(leaf[row].square().sum() for leaf in grads.values())
    yield from _bad("gradient, whose norm overflows float32", torch.as_tensor(norm))
    for name, largest in zip(evidence.params, evidence.largest[:, row], strict=True):
        yield from _bad(f"update of {name}", largest)


def _acting(raw: Rollout, p: int) -> Iterator[str]:
    """The first in time; a step goes observation, action, reward."""
    always = torch.ones_like(raw.valid[:, p])
    masks = {"observation": torch.cat([always, always[:1]])}
    masks |= {"action": raw.valid[:, p], "reward": raw.valid[:, p], "final observation": always}
    given = {"observation": raw.obs, "action": raw.action, "reward": raw.reward, "final observation": raw.final_obs}
    found = []
    for rank, (name, tensor) in enumerate(given.items()):
        if tensor is None:
            continue
        own = tensor[:, p].flatten(2) if tensor.dim() > 3 else tensor[:, p].unsqueeze(2)
        places = (~own.isfinite() & masks[name].unsqueeze(2)).nonzero()
        if len(places):
            t, n, feature = places[0].tolist()
            found.append((t, rank, f"{name} = {own[t, n, feature].item()}, environment {n}, step {t} of its rollout"))
    if found:
        yield min(found)[2]


def _scaled(rollout: Rollout, p: int) -> Iterator[str]:
    """What is not finite though the environment's own numbers are."""
    yield from _bad("normalised observation", rollout.obs[:, p])
    yield from _bad("scaled reward", rollout.reward[:, p][rollout.valid[:, p]])


def _learning(policy: Policy, params: Params, batch: Batch, p: int) -> Iterator[str]:
    """Targets, and what the networks make of the observations; ``params`` are the member's, ``p`` its place here."""
    valid = batch.valid[p]
    yield from _bad("advantage (an overflow, or the critic's values)", batch.advantage[p][valid])
    yield from _bad("return", batch.target[p][valid])
    outputs = policy.outputs(params, batch.obs[p : p + 1])
    yield from _bad("output of the actor", outputs[0][valid])
    yield from _bad("log-probability", policy.head.log_prob(outputs, batch.action[p : p + 1])[0][valid])


def _bad(name: str, tensor: Tensor) -> Iterator[str]:
    bad = tensor[~tensor.isfinite()]
    if len(bad):
        yield f"{name} = {bad[0].item()}"

"""The matrix part of SOAP: Adam in the eigenbasis of Shampoo's preconditioner.

Of a leaf (in, out), L is the average of G G^T and R that of G^T G; QL and QR are orthogonal matrices whose columns
approach their eigenvectors, those of the largest eigenvalues first.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from pgkit.kernels.matmul import multiply
from pgkit.kernels.pointwise import deterministic_map
from pgkit.optim import transforms
from pgkit.optim.base import ExtraArgs, Hyperparameter, Leaf, MemberValues, Scalars, Transform
from pgkit.optim.scaling import decay
from pgkit.optim.validation import check

SIDES = (("L", "QL", 1), ("R", "QR", 2))
"""Names of a side's average and basis, and the axis of the leaf ``(P, in, out)`` that it is for."""


def adam_in_eigenbasis(
    beta1: Hyperparameter,
    beta2: Hyperparameter,
    shampoo_beta: Hyperparameter | None,
    eps: Hyperparameter,
    every: Hyperparameter,
    max_dim: int,
) -> Transform:
    """G' = QL^T G QR; m = beta1 m + (1 - beta1) G; v = beta2 v + (1 - beta2) G'^2;
    u = QL (QL^T m QR / (sqrt(v) + eps)) QR^T; then L, R and, every so many updates, QL, QR are brought up to date.

    The first update only sets L, R and their eigenvectors; m and v stay 0, and so does u. Sides of one row, or of more
    than ``max_dim``, are not rotated.
    """
    hyperparameters: dict[str, Hyperparameter] = {
        "beta1": decay("beta1", beta1),
        "beta2": decay("beta2", beta2),
        "eps": check("eps", eps, above=0.0),
        "precondition_frequency": check("precondition_frequency", every, least=1.0),
    }
    if shampoo_beta is not None:
        hyperparameters["shampoo_beta"] = decay("shampoo_beta", shampoo_beta)
    sides = {name: _square(axis, max_dim) for *names, axis in SIDES for name in names}
    return Transform(
        _step,
        _precompute,
        hyperparameters=hyperparameters,
        leaf_state={"m": 0.0, "v": 0.0, **sides},
        member_state={"updates": 0.0, "beta1_power": 1.0, "beta2_power": 1.0},
        step_counters=frozenset({"beta1_power", "beta2_power"}),
        elementwise=False,
    )


def soap_rate(lr: Hyperparameter) -> Transform:
    """u = -lr sqrt(1 - beta2^s) / (1 - beta1^s) g, behind :func:`adam_in_eigenbasis`, whose number of updates is s + 1.
    The first update is 0."""

    def precompute(hyper: MemberValues, member: MemberValues, extra_args: ExtraArgs) -> MemberValues:
        moves = member["updates"] > 1
        root = deterministic_map(torch.sqrt, 1 - member["beta2_power"])
        correction = root / torch.where(moves, 1 - member["beta1_power"], 1.0)
        return {"rate": torch.where(moves, -hyper["lr"] * correction, 0.0)}

    return Transform(
        lambda grad, leaf, scalars: scalars["rate"] * grad,
        precompute,
        hyperparameters={"lr": check("lr", lr, above=0.0)},
    )


def soap_decay(weight_decay: Hyperparameter) -> Transform:
    """p + u shrinks by lr weight_decay, behind :func:`soap_rate`; not in the first update."""

    def precompute(hyper: MemberValues, member: MemberValues, extra_args: ExtraArgs) -> MemberValues:
        return {"shrink": torch.where(member["updates"] > 1, -hyper["lr"] * hyper["weight_decay"], 0.0)}

    return Transform(
        transforms.shrink_moved,
        precompute,
        hyperparameters={"weight_decay": check("weight_decay", weight_decay, least=0.0)},
    )


def _square(axis: int, max_dim: int) -> Callable[[Tensor], Tensor | None]:
    """The initial value of a side: zeros ``(P, n, n)`` for the matrices that have one."""

    def initial(param: Tensor) -> Tensor | None:
        is_matrix = param.dim() == 3 and param.shape[1] > 1  # a bias is (P, 1, out)
        if not is_matrix or not 1 < param.shape[axis] <= max_dim:
            return None
        return param.new_zeros(len(param), param.shape[axis], param.shape[axis])

    return initial


def _precompute(hyper: MemberValues, member: MemberValues, extra_args: ExtraArgs) -> MemberValues:
    is_first = member["updates"] == 0
    is_due = ~is_first & (member["updates"] % hyper["precondition_frequency"] == 0)
    member["updates"] = member["updates"] + 1
    for name in ("beta1", "beta2"):
        power = member[f"{name}_power"]
        member[f"{name}_power"] = torch.where(is_first, power, power * hyper[name])
    return {
        "is_first": is_first.double(),
        "is_due": is_due.double(),
        "gain1": torch.where(is_first, 0.0, 1 - hyper["beta1"]),
        "gain2": torch.where(is_first, 0.0, 1 - hyper["beta2"]),
        "shampoo_gain": 1 - hyper.get("shampoo_beta", hyper["beta2"]),
        "eps": hyper["eps"],
    }


def _step(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
    """See :func:`adam_in_eigenbasis`."""
    state = leaf.state
    rotated = _rotate(grad, state)
    state["m"] = _average(state["m"], grad, scalars["gain1"])
    state["v"] = _average(state["v"], rotated * rotated, scalars["gain2"])
    direction = _rotate(state["m"], state) / (state["v"].sqrt() + scalars["eps"])
    direction = _rotate(direction, state, back=True)
    for average, basis, axis in SIDES:
        if average in state:
            outer = multiply(grad, grad.mT) if axis == 1 else multiply(grad.mT, grad)
            state[average] = _average(state[average], outer, scalars["shampoo_gain"])
            matrices = state[average]
            (state[basis],) = _where(scalars["is_first"], _eigenvectors, [matrices], [state[basis]])
            turn = partial(_turned, axis)
            state[basis], state["v"] = _where(scalars["is_due"], turn, [matrices], [state[basis], state["v"]])
    return direction


def _average(old: Tensor, new: Tensor, gain: Tensor) -> Tensor:
    """old + gain (new - old), each operation rounded once."""
    return (new - old).mul_(gain).add_(old)


def _rotate(matrix: Tensor, state: dict[str, Tensor], back: bool = False) -> Tensor:
    """QL^T X QR, or QL X QR^T ``back``; a side without a basis stays as it is."""
    if "QL" in state:
        matrix = multiply(state["QL"] if back else state["QL"].mT, matrix)
    if "QR" in state:
        matrix = multiply(matrix, state["QR"].mT if back else state["QR"])
    return matrix


def _where(
    flag: Tensor, function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], old: Sequence[Tensor]
) -> list[Tensor]:
    """``function(*inputs, *old)``, which replaces ``old``, for the members whose flag is set.

    On CPU it is computed for these alone, elsewhere for all: to look at the flags would wait for the GPU.
    """
    if not flag.is_cpu:
        return [torch.where(flag != 0, new, before) for new, before in zip(function(*inputs, *old), old, strict=True)]
    rows = flag.flatten().nonzero()[:, 0]
    if not len(rows):
        return list(old)
    results = function(*(tensor[rows] for tensor in (*inputs, *old)))
    return [before.index_copy(0, rows, new) for new, before in zip(results, old, strict=True)]


def _eigenvectors(matrices: Tensor, basis: Tensor) -> list[Tensor]:
    """The eigenvectors of symmetric matrices ``(P, n, n)``, those of the largest eigenvalues first."""
    # LAPACK raises an error at numbers that are not finite, which would be everybody's. Such a member fails anyway.
    finite = matrices.isfinite().flatten(1).all(1)[:, None, None]
    return [torch.linalg.eigh(torch.where(finite, matrices, 0.0)).eigenvectors.flip(2)]


def _turned(axis: int, matrices: Tensor, basis: Tensor, v: Tensor) -> list[Tensor]:
    """One step of orthogonal iteration: e = diag(Q^T L Q); the columns of Q, and v, sorted by e; Q = qr(L Q)."""
    product = multiply(matrices, basis)
    order = (basis * product).sum(1).argsort(dim=1, descending=True, stable=True)
    turned = torch.linalg.qr(product.gather(2, order[:, None, :].expand_as(product))).Q
    along = order[:, :, None] if axis == 1 else order[:, None, :]
    return [turned, v.gather(axis, along.expand_as(v))]

"""The matrix part of Muon: replace an update matrix by one whose singular values are all close to 1."""

import torch
from torch import Tensor

from pgkit.kernels.matmul import multiply
from pgkit.kernels.pointwise import deterministic_map
from pgkit.optim.base import ExtraArgs, Hyperparameter, Leaf, MemberValues, Scalars, Transform, per_leaf
from pgkit.optim.reductions import inner
from pgkit.optim.scaling import decay
from pgkit.optim.validation import check

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""(a, b, c) of the quintic iteration, chosen by Jordan for the steepest slope at 0."""


def average(momentum: Hyperparameter, nesterov: bool) -> Transform:
    """b = b + (1 - momentum)(g - b); u = g + momentum (b - g) with nesterov, else u = b."""

    def precompute(hyper: MemberValues, member: MemberValues, extra_args: ExtraArgs) -> MemberValues:
        return {"momentum": hyper["momentum"], "gain": 1 - hyper["momentum"]}

    def step(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
        b = leaf.state["b"] = torch.lerp(leaf.state["b"], grad, scalars["gain"])
        return torch.lerp(grad, b, scalars["momentum"]) if nesterov else b

    return Transform(step, precompute, hyperparameters={"momentum": decay("momentum", momentum)}, leaf_state={"b": 0.0})


def orthogonalize(eps: Hyperparameter, iterations: int, match_rms: bool) -> Transform:
    """u = scale NS(g / max(|g|, eps)) for matrices (in, out), with :func:`newton_schulz` NS and Frobenius norm |g|.

    scale = sqrt(max(1, out / in)), or 0.2 sqrt(max(in, out)) with match_rms.
    """

    def step(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
        rows, columns = grad.shape[1:]
        scale = 0.2 * max(rows, columns) ** 0.5 if match_rms else max(1.0, columns / rows) ** 0.5
        matrix = {"": grad}
        norm = per_leaf(deterministic_map(torch.sqrt, inner(matrix, matrix)), grad)
        return newton_schulz(grad / torch.maximum(norm, scalars["eps"]), iterations) * scale

    return Transform(
        step,
        lambda hyper, member, extra_args: {"eps": hyper["eps"]},
        hyperparameters={"eps": check("eps", eps, above=0.0)},
        elementwise=False,
    )


def newton_schulz(matrices: Tensor, iterations: int) -> Tensor:
    """Bring the singular values of matrices ``(P, M, N)`` of spectral norm at most 1 to between 0.7 and 1.2 or so.

    X = a X + (b S + c S S) X with S = X X^T, turned so that M <= N. Members do not mix: on CPU each has the bits that
    it has alone, on every processor.

    Source: Jordan et al. 2024 (kellerjordan.github.io/posts/muon); torch.optim.Muon, in the dtype of the matrices
    instead of bfloat16.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return newton_schulz(matrices.mT, iterations).mT.contiguous()
    a, b, c = COEFFICIENTS
    x = matrices.contiguous()
    for _ in range(iterations):
        gram = multiply(x, x.mT)
        polynomial = multiply(gram, gram).mul_(c).add_(gram.mul_(b))
        x = multiply(polynomial, x).add_(x * a)
    return x

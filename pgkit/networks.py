"""Stacked multi-layer perceptrons: all layers of the whole population in one pass.

A network is one node of autograd's graph, its backward pass written out below. On CPU both passes are compiled
(:mod:`pgkit.network_kernel`); elsewhere they are batched matrix products.
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pgkit.machine import compiles
from pgkit.products import FEW, PAD, multiply, multiply_and_sum
from pgkit.seeding import uniform
from pgkit.types import Params


class Activation(NamedTuple):
    """An element-wise function, of tensors or of what is written down for one element (:mod:`pgkit.elements`).

    Attributes:
        plain: the function.
        backward: ``backward(grad, kept)``, the gradient of the argument from that of the result and from what the
            function gave, or was given if ``keeps_argument``.
        keeps_argument: the backward pass wants the argument.
    """

    plain: Callable[[Any], Any]
    backward: Callable[[Any, Any], Any]
    keeps_argument: bool = False


def _silu_backward(grad: Any, x: Any) -> Any:
    gate = torch.sigmoid(x)
    return grad * (gate * (x * (1.0 - gate) + 1.0))


ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation(torch.tanh, lambda grad, y: grad * (1.0 - y * y)),
    "relu": Activation(torch.relu, lambda grad, y: torch.where(y > 0.0, grad, 0.0)),
    "elu": Activation(functional.elu, lambda grad, y: torch.where(y > 0.0, grad, grad * (y + 1.0))),
    "silu": Activation(functional.silu, _silu_backward, keeps_argument=True),
}

_LAYER_STRIDE = 1 << 32  # counters of one layer's weights never reach the next layer's


def mlp(
    params: Params, name: str, x: Tensor, activation: str, activate_last: bool = False, tapes: "Tapes | None" = None
) -> Tensor:
    """Apply the layers ``name.0``, ``name.1``, ... to ``x`` of shape ``(P, B, D)``; members do not mix.

    A layer is ``x @ weight + bias``: ``(P, B, in)``, ``(P, in, out)``, ``(P, 1, out)`` -> ``(P, B, out)``. The
    activation stands between layers, and after the last one if ``activate_last``.

    Args:
        params: weights and biases by name.
        name: of the network.
        x: the input.
        activation: one of ``ACTIVATIONS``.
        activate_last: see above.
        tapes: where a pass without gradient leaves its tape, by name; what is found there is not computed again.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
    """
    leaves = layer_leaves(params, name)
    if not leaves:
        return x
    form = ACTIVATIONS[activation], len(leaves) // 2 - (not activate_last)
    kept = tapes.get(name) if tapes else None
    tape = kept.rows(x.shape[1]) if kept and kept.fits(form, x, *leaves) else None
    if torch.is_grad_enabled():
        return _Layers.apply(form, tape, x, *leaves)  # type: ignore[no-untyped-call]
    if tape is None:
        tape = _forward(form, x, leaves)
        if tapes is not None:
            tapes[name] = Kept.of(form, tape, x, *leaves)
    return tape.after[-1]


def kept_pass(params: Params, name: str, x: Tensor, activation: str, tapes: "Tapes") -> "Kept":
    """What the pass of :func:`mlp` leaves: taken from ``tapes`` if it is there; autograd sees nothing of it."""
    leaves = layer_leaves(params, name)
    form, kept = (ACTIVATIONS[activation], len(leaves) // 2 - 1), tapes.get(name)
    return kept if kept and kept.fits(form, x, *leaves) else Kept.of(form, _forward(form, x, leaves), x, *leaves)


class _Product(torch.autograd.Function):
    """``a @ b`` of each member, differentiable any number of times."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return multiply(a, b)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        product = _Product.apply
        return product(grads[0], b.mT), product(a.mT, grads[0])  # type: ignore[no-untyped-call]


Form = tuple[Activation, int]
"""The activation, and how many layers it follows."""


class Tape(NamedTuple):
    """What a forward pass leaves behind.

    Attributes:
        after: the result of each layer, ``(P, B, out)``.
        before: of layers with an activation that keeps its argument, that; of others the same as ``after``.
        layers: of a compiled pass, the arguments :class:`pgkit.network_kernel.Layers`.
        leaves: weights and biases that these lead to.
    """

    after: Sequence[Tensor]
    before: Sequence[Tensor]
    layers: tuple[Any, ...] = ()
    leaves: Sequence[Tensor] = ()


class Kept(NamedTuple):
    """A tape, and of what it is.

    Attributes:
        form: of the network.
        tape: of at least the rows that are asked for.
        tensors: the input and the leaves; held, so that nothing else is where they are.
        versions: how often they had been written to.
    """

    form: Form
    tape: Tape
    tensors: Sequence[Tensor]
    versions: Sequence[int]

    @staticmethod
    def of(form: Form, tape: Tape, *tensors: Tensor) -> "Kept":
        """The tape of a pass, with its input and its leaves."""
        return Kept(form, tape, tensors, [tensor._version for tensor in tensors])

    def fits(self, form: Form, *tensors: Tensor) -> bool:
        """Whether the tape is of these leaves, and its first rows of this input."""
        same = form == self.form and len(tensors) == len(self.tensors)
        return same and all(
            own.data_ptr() == other.data_ptr() and other._version == version
            for own, other, version in zip(self.tensors, tensors, self.versions, strict=True)
        )

    def rows(self, count: int) -> Tape:
        """The first so many rows of each member."""
        return Tape(*([tensor[:, :count] for tensor in part] for part in self.tape[:2]))


Tapes = dict[str, Kept]
"""Tapes by name of the network."""


def _forward(form: Form, x: Tensor, leaves: Sequence[Tensor]) -> Tape:
    activation, activated = form
    if compiles(x.dtype, x.device):
        return _compiled_forward(form, x.contiguous(), [leaf.contiguous() for leaf in leaves])
    kept: list[Tensor] = []
    results: list[Tensor] = []
    for layer, (weight, bias) in enumerate(zip(leaves[::2], leaves[1::2], strict=True)):
        x = before = torch.baddbmm(bias, x, weight)
        if layer < activated:
            x = activation.plain(before)
        results.append(x)
        kept.append(before if activation.keeps_argument else x)
    return Tape(results, kept)


def _backward(
    form: Form, x: Tensor, leaves: Sequence[Tensor], tape: Tape, grad: Tensor, wants_input: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """The gradients of the input, if wanted, and of the leaves."""
    activation, activated = form
    if compiles(x.dtype, x.device):
        return _compiled_backward(form, x, leaves, tape, grad.contiguous(), wants_input)
    gradients: list[Tensor] = []
    for layer in range(len(leaves) // 2 - 1, -1, -1):
        if layer < activated:
            grad = activation.backward(grad, tape.before[layer])
        source = tape.after[layer - 1] if layer else x
        of_weight, of_bias = multiply_and_sum(source.mT, grad)
        gradients += [of_bias, of_weight]
        if layer or wants_input:
            grad = multiply(grad, leaves[2 * layer].mT)
    return grad if wants_input else None, gradients[::-1]


class _Layers(torch.autograd.Function):
    """The layers of a network as one function of its input and its leaves (weight, bias, weight, bias, ...)."""

    @staticmethod
    def forward(ctx: Any, form: Form, tape: Tape | None, x: Tensor, *leaves: Tensor) -> Tensor:
        tape = _forward(form, x, leaves) if tape is None else tape
        ctx.form = form
        ctx.save_for_backward(x, *leaves, *tape.after, *(tape.before if form[0].keeps_argument else ()))
        return tape.after[-1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *others = ctx.saved_tensors
        layers = (len(ctx.needs_input_grad) - 3) // 2
        leaves, after = others[: 2 * layers], others[2 * layers : 3 * layers]
        if torch.is_grad_enabled():  # somebody asks for second derivatives
            return None, None, *_differentiable_backward(ctx.form, x, leaves, grads[0])
        tape = Tape(after, others[3 * layers :] or after)
        of_x, of_leaves = _backward(ctx.form, x, leaves, tape, grads[0], ctx.needs_input_grad[2])
        return None, None, of_x, *of_leaves


def _differentiable_backward(form: Form, x: Tensor, leaves: Sequence[Tensor], grad: Tensor) -> list[Tensor | None]:
    """The gradients of input and leaves by autograd, so that they can be differentiated."""
    y = one_by_one(form, x, leaves)
    wanted = [leaf for leaf in (x, *leaves) if leaf.requires_grad]
    found = iter(torch.autograd.grad(y, wanted, grad, create_graph=True))
    return [next(found) if leaf.requires_grad else None for leaf in (x, *leaves)]


def one_by_one(form: Form, x: Tensor, leaves: Sequence[Tensor]) -> Tensor:
    """The layers operation by operation, differentiable any number of times."""
    activation, activated = form
    for layer, (weight, bias) in enumerate(zip(leaves[::2], leaves[1::2], strict=True)):
        x = _Product.apply(x, weight) + bias  # type: ignore[no-untyped-call]
        x = activation.plain(x) if layer < activated else x
    return x


class _Plan(NamedTuple):
    """What the compiled passes through networks of one shape need beside tensors.

    Attributes:
        widths: of the input and of all layers, and the largest of them.
        array: the same as int64.
        room: numbers that the products of one member need beside their results.
        scratch: numbers that its backward pass needs.
    """

    widths: list[int]
    array: Any
    room: int
    scratch: int


@lru_cache(maxsize=256)
def _plan(x: torch.Size, *leaves: torch.Size) -> _Plan:
    members, rows, *widths = x
    for weight, bias in zip(leaves[::2], leaves[1::2], strict=True):
        if len(x) != 3 or weight[:2] != (members, widths[-1]) or bias != (members, 1, weight[-1]):
            given = ", ".join(str(tuple(shape)) for shape in (x, *leaves))
            raise ValueError(
                f"these are no layers of a network: expected (P, B, in), (P, in, out), (P, 1, out), got {given}"
            )
        widths.append(weight[-1])
    room = max(
        max((inner + 1) * (width + PAD), (rows + 1) * (max(inner, width) + PAD), (width + 1) * (inner + PAD))
        for inner, width in pairwise(widths)
    )
    array = (ctypes.c_int64 * (len(widths) + 1))(*widths, max(widths))
    return _Plan(widths, array, room, (2 * rows + FEW) * max(widths))


def _layers(
    form: Form, plan: _Plan, leaves: Sequence[Tensor], before: Sequence[Tensor], after: Sequence[Tensor]
) -> tuple[Any, ...]:
    """The arguments :class:`pgkit.network_kernel.Layers`."""
    return len(after), form[1], plan.array, *(_addresses(tensors) for tensors in (leaves, before, after))


def _addresses(tensors: Sequence[Tensor]) -> Any:
    """A table of where tensors are."""
    return (ctypes.c_void_p * len(tensors))(*[tensor.data_ptr() for tensor in tensors])


class Blank(NamedTuple):
    """A tape to be written by a compiled forward pass.

    Attributes:
        tape: its tensors.
        room: what the pass needs beside it.
    """

    tape: Tape
    room: Tensor


def blank_tape(form: Form, shape: torch.Size, leaves: Sequence[Tensor]) -> Blank:
    """For an input of that shape ``(P, B, D)``; the leaves are contiguous.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
    """
    plan, like = _plan(shape, *[leaf.shape for leaf in leaves]), leaves[0]
    if any(leaf.dtype != like.dtype or not leaf.is_cpu for leaf in leaves):
        raise ValueError(f"expected layers of {like.dtype} on cpu, got {[leaf.dtype for leaf in leaves]}")
    after = [like.new_empty(*shape[:2], width) for width in plan.widths[1:]]
    kept = form[1] if form[0].keeps_argument else 0
    before = [torch.empty_like(tensor) for tensor in after[:kept]] + after[kept:]
    tape = Tape(after, before, _layers(form, plan, leaves, before, after), leaves)
    return Blank(tape, like.new_empty(plan.room))


def _compiled_forward(form: Form, x: Tensor, leaves: Sequence[Tensor]) -> Tape:
    blank = blank_tape(form, x.shape, leaves)
    if x.dtype != leaves[0].dtype:
        raise ValueError(f"expected an input {leaves[0].dtype}, as the layers are, got {x.dtype}")
    forward, _ = _kernels(form[0], x.dtype)
    forward(*x.shape[:2], *blank.tape.layers, x.data_ptr(), blank.room.data_ptr())
    return blank.tape


class Gradients(NamedTuple):
    """Where a compiled backward pass is to write.

    Attributes:
        of_x: the gradient of the input, if it is wanted.
        of_leaves: those of the leaves.
        arguments: those of :class:`pgkit.network_kernel.Layers`, and addresses of these.
        scratch: numbers that the pass needs beside them.
        room: numbers that its products need.
    """

    of_x: Tensor | None
    of_leaves: list[Tensor]
    arguments: tuple[Any, ...]
    scratch: int
    room: int


def blank_gradients(x: Tensor, tape: Tape, wants_input: bool) -> Gradients:
    """For a compiled pass that has left this tape of ``x``."""
    plan = _plan(x.shape, *[leaf.shape for leaf in tape.leaves])
    of_leaves, of_x = [torch.empty_like(leaf) for leaf in tape.leaves], x.new_empty(x.shape) if wants_input else None
    places = _addresses(of_leaves), None if of_x is None else of_x.data_ptr()
    return Gradients(of_x, of_leaves, (*tape.layers, *places), plan.scratch, plan.room)


def rows_contiguous(x: Tensor) -> Tensor:
    """An input ``(P, B, D)`` whose rows are one behind the other in each member; itself if they are."""
    return x if x.stride()[1:] == (x.shape[2], 1) else x.contiguous()


def _compiled_backward(
    form: Form, x: Tensor, leaves: Sequence[Tensor], tape: Tape, grad: Tensor, wants_input: bool
) -> tuple[Tensor | None, list[Tensor]]:
    (members, rows, width), x = x.shape, rows_contiguous(x)
    leaves = [leaf.contiguous() for leaf in leaves]
    layers = _layers(form, _plan(x.shape, *[leaf.shape for leaf in leaves]), leaves, tape.before, tape.after)
    blank = blank_gradients(x, tape._replace(layers=layers, leaves=leaves), wants_input)
    scratch, room = x.new_empty(blank.scratch), x.new_empty(blank.room)
    _, backward = _kernels(form[0], x.dtype)
    tape_rows = tape.after[0].stride(0) // tape.after[0].shape[2]
    backward(
        *(members, rows, tape_rows, x.stride(0) // width, x.data_ptr(), grad.data_ptr()),
        *(*blank.arguments, scratch.data_ptr(), room.data_ptr()),
    )
    return blank.of_x, blank.of_leaves


@lru_cache
def _kernels(activation: Activation, dtype: torch.dtype) -> tuple[Callable[..., None], Callable[..., None]]:
    from pgkit import network_kernel  # LLVM is loaded where something is compiled

    return network_kernel.compile_forward(activation, dtype), network_kernel.compile_backward(activation, dtype)


def layer_leaves(params: Params, name: str) -> list[Tensor]:
    """Weight, bias, weight, bias, ... of the layers stored under ``name``."""
    return [
        params[f"{name}.{layer}.{kind}"] for layer in range(layer_count(params, name)) for kind in ("weight", "bias")
    ]


def layer_count(params: Params, name: str) -> int:
    """The number of layers stored under ``name``."""
    count = 0
    while f"{name}.{count}.weight" in params:
        count += 1
    return count


def init_mlp(name: str, keys: Tensor, sizes: Sequence[int], gains: Sequence[float], orthogonal: bool = True) -> Params:
    """Weights ``(P, in, out)`` and zero biases ``(P, 1, out)`` of the layers ``sizes[0] -> sizes[1] -> ...``.

    Args:
        name: prefix of the parameter names; distinct prefixes need distinct keys.
        keys: int64 ``(P,)``, one random stream per member.
        sizes: widths, input first.
        gains: factor of each layer's weights, ``len(sizes) - 1`` of them.
        orthogonal: semi-orthogonal weights (Saxe et al. 2014, arXiv 1312.6120), the custom of policy-gradient
            code; otherwise normal with standard deviation ``gain / sqrt(in)`` (LeCun).
    """
    params = {}
    for layer, (fan_in, fan_out, gain) in enumerate(zip(sizes[:-1], sizes[1:], gains, strict=True)):
        normal = _normal(keys, layer, (fan_in, fan_out))
        weight = _orthogonal(normal) if orthogonal else normal / fan_in**0.5
        params[f"{name}.{layer}.weight"] = gain * weight
        params[f"{name}.{layer}.bias"] = torch.zeros(len(keys), 1, fan_out)
    return params


def _normal(keys: Tensor, layer: int, shape: tuple[int, int]) -> Tensor:
    """Standard normal numbers ``(P, *shape)``, a function of each member's key and the layer alone."""
    counter = torch.arange(shape[0] * shape[1]).reshape(1, *shape) + layer * _LAYER_STRIDE
    return torch.special.ndtri(uniform(keys[:, None, None], counter))


def _orthogonal(normal: Tensor) -> Tensor:
    """Uniformly random semi-orthogonal matrices by QR, signs fixed so that the distribution is uniform."""
    tall = normal if normal.shape[1] >= normal.shape[2] else normal.mT
    q, r = torch.linalg.qr(tall)
    q = q * r.diagonal(dim1=1, dim2=2).sign()[:, None, :]
    return (q if tall is normal else q.mT).contiguous()

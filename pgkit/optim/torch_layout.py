"""Parameters of a ``torch.nn.Module`` in the shapes of pgkit, and back.

``nn.Linear`` holds its weight as (out, in), pgkit as ``(P, in, out)``. That makes no difference to element-wise
optimizers, but it does to what looks at whole matrices, such as ``centralize``. So every matrix is transposed on its
way in and out.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pgkit.errors import PgkitError
from pgkit.types import Params


def stack_modules(modules: Sequence[nn.Module]) -> Params:
    """Stack the parameters of modules of one architecture, one module for each member.

    It is ``torch.func.stack_module_state`` in pgkit's shapes: weights of ``nn.Linear`` are ``(P, in, out)``, vectors
    ``(P, 1, out)``; parameters of more than two dimensions, such as those of convolutions, keep theirs.

    >>> import torch
    >>> from torch import nn
    >>> from torch.func import functional_call, vmap
    >>> from pgkit.optim import apply_updates, make, module_state, stack_modules
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(64, 3)
    >>> y = x.sum(1, keepdim=True)
    >>> modules = [nn.Linear(3, 1) for _ in range(2)]
    >>> def loss(member):  # parameters of one member, shaped as in its module
    ...     return nn.functional.mse_loss(functional_call(modules[0], member, (x,)), y)
    >>> params = stack_modules(modules)
    >>> optimizer = make("adam", lr=[0.001, 0.1])
    >>> state = optimizer.init(params)
    >>> for _ in range(100):
    ...     losses = vmap(loss)(module_state(params, modules[0]))
    ...     grads = torch.autograd.grad(losses.sum(), list(params.values()))
    ...     updates, state = optimizer.update(dict(zip(params, grads)), state, params)
    ...     params = apply_updates(params, updates)
    >>> losses > 0.01
    tensor([ True, False])

    Args:
        modules: one or more, with the same names and shapes of parameters; they are not written into.

    Returns:
        Copies of the parameters by name, which require gradients.

    Raises:
        PgkitError: there is no module, or parameters differ in name or shape.
    """
    by_module = [dict(module.named_parameters()) for module in modules]
    shapes = [{name: param.shape for name, param in named.items()} for named in by_module]
    if not shapes or any(each != shapes[0] for each in shapes):
        raise PgkitError("stack_modules needs one or more modules whose parameters have the same names and shapes")
    stacked = {name: torch.stack([named[name].detach() for named in by_module]) for name in shapes[0]}
    return {name: to_leaf(tensor).contiguous().requires_grad_() for name, tensor in stacked.items()}


def module_state(params: Params, module: nn.Module) -> dict[str, Tensor]:
    """View parameters ``(P, ...)`` in the shapes that they have in ``module``, to undo :func:`stack_modules`.

    Member k's are ``{name: tensor[k] for name, tensor in module_state(params, module).items()}``, which
    ``torch.func.functional_call`` and ``module.load_state_dict(..., strict=False)`` take.

    >>> from torch import nn
    >>> from pgkit.optim import module_state, stack_modules
    >>> params = stack_modules([nn.Linear(3, 1), nn.Linear(3, 1)])
    >>> params["weight"].shape, module_state(params, nn.Linear(3, 1))["weight"].shape
    (torch.Size([2, 3, 1]), torch.Size([2, 1, 3]))

    Args:
        params: as of :func:`stack_modules`.
        module: of the same architecture; only its names and shapes count.

    Returns:
        ``(P, ...)`` by name, through which gradients flow to ``params``.
    """
    return {name: from_leaf(params[name], param.shape) for name, param in module.named_parameters()}


def to_leaf(tensor: Tensor) -> Tensor:
    """Bring ``(P, *shape)``, where a module's parameter has ``shape``, into pgkit's shape: a view where possible."""
    if tensor.dim() <= 2:
        return tensor.reshape(len(tensor), 1, -1)
    return tensor.mT if tensor.dim() == 3 else tensor


def from_leaf(leaf: Tensor, shape: Sequence[int]) -> Tensor:
    """Bring pgkit's leaf back to ``(P, *shape)``: a view where possible."""
    return leaf.mT if len(shape) == 2 else leaf.reshape(len(leaf), *shape)

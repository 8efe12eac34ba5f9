"""Generate the code of :func:`pgkit.kernels.gaussian.append_log_std`."""

from collections.abc import Callable

import torch
from llvmlite import ir

from pgkit.compiler.ir import FLOAT_TYPES, define_function, for_range, load, store
from pgkit.compiler.jit import compile_function
from pgkit.kernels.signatures import AppendLogStd


def compile_append(dtype: torch.dtype) -> Callable[..., None]:
    """A kernel of :class:`AppendLogStd`."""
    real = FLOAT_TYPES[dtype]
    builder, args = define_function(ir.Module(), "append_log_std", AppendLogStd)
    with (
        for_range(builder, args.members) as member,
        for_range(builder, args.rows) as row,
        for_range(builder, args.components) as component,
    ):
        index = member * args.rows + row
        mean = load(builder, real, args.mean, index * args.components + component)
        log_std = load(builder, real, args.log_std, member * args.components + component)
        store(builder, mean, args.outputs, index * args.components * 2 + component)
        store(builder, log_std, args.outputs, index * args.components * 2 + args.components + component)
    builder.ret_void()
    return compile_function(builder.function)

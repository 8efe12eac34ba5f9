"""Numerical kernels that know no reinforcement learning algorithm: on CPU compiled loops, elsewhere tensor operations.

Tensors come in with a member axis P first, and tensors go out. Each kernel has a twin in tensor operations, which runs
on GPUs, with ``PGKIT_COMPILE=off``, and where autograd has to see it. Both agree up to rounding; the compiled one has
the same bits for a member alone and in any population, on any processor.

    matmul        products of small matrices, one for each member
    mlp           forward and backward passes through all layers of a network
    activations   tanh, relu, elu, silu, with their derivatives
    scan          recursions over time, as ``jax.lax.scan``; sums in order
    shuffle       a random order of each member's samples, and the rows of a minibatch
    packing       drop padding from rollouts, so that networks skip padded rows
    categorical   distributions over choices: sampling, log-probabilities, entropies, KL, and their gradients
    gaussian      the same of normal distributions with independent components, and the normal quantile
    distribution  which of them, and its size: what code generators have to know
    pointwise     exp, log, sqrt and cos with the same bits at any position
    layout        sizes that kernels and code generators share
    signatures    the arguments of every compiled kernel, for its caller and its code generator; row_signatures those
                  of packing and shuffle
    codegen       the code generators, which import LLVM; imported when a kernel is compiled

Start with ``scan``: a function of one element becomes a loop. Then ``matmul`` and ``codegen.matmul``, the kernel that
takes most of the time.

Touch: a new activation is an entry of ``activations.ACTIVATIONS``. A new distribution is a module with the functions
that ``distribution.Distribution.functions`` names, each of one sample. A new kernel is a signature, a caller that
allocates what the kernel writes, and a code generator, loaded by :func:`pgkit.compiler.lazy.lazy_kernel`. Kernels check
nothing: callers check shapes, dtypes and devices, and hold the tensors whose addresses they pass until the call is
over. The order of floating-point operations is part of a kernel's contract: a change alters the bits of every stored
run.
"""

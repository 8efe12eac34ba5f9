"""Code generators of the kernels: functions ``compile_*`` that write LLVM code and return a compiled function.

Only :func:`pgkit.compiler.lazy.lazy_kernel` imports these modules, when a kernel is first called, because importing
LLVM takes a tenth of a second. Each generator corresponds to the module of the same name in :mod:`pgkit.kernels`
(``policy_loss`` to :mod:`pgkit.nn.policy_loss`); the arguments of what it compiles are in
:mod:`pgkit.kernels.signatures`.

Functions named ``_write_*`` append code at the builder's position; ``compile_*`` write a whole function and compile it;
``define_*`` and ``declare_*`` add functions to a module that others call. Arithmetic on an ``Index`` looks like
arithmetic, but writes instructions: it happens when the kernel runs, not when it is generated.

Start with ``packing``, whose loops are plain; then ``matmul``.
"""

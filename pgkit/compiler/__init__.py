"""A small compiler on LLVM, which knows no reinforcement learning.

Two things come in, and machine code goes out:

- A function of tensors. It is called once with a traced value in place of each tensor (``tracer``, ``functions``),
  which writes down what happens to one element; ``elementwise`` makes a loop over all elements of it.
- The tensor operations of one update, executed once. ``graph`` captures them as instructions, and repeats them for one
  member after the other without Python.

Modules, lowest first:

    signature       parameters of compiled functions: one NamedTuple for caller and code generator
    lazy            code generators, imported when something is compiled
    recorder        who hears of calls of compiled functions
    ir              functions, loops, integers with operators and memory, in terms of LLVM
    jit             machine code from LLVM modules, and its cache on disk
    tracer          TracedScalar, one element of a tensor while a function is compiled
    functions       exp, log, tanh and so on of traced scalars
    elementwise     columns, loops over rows, compile_elementwise
    graph_ops       instructions, and the operations of PyTorch that can be captured
    graph           Capture and Graph
    graph_codegen   the code of graphs

Start with ``functions.log``, then ``elementwise.compile_elementwise``; then ``graph.Capture``. ``README.md`` says what
can be traced and captured, why bits do not depend on the processor, and what the environment variable
``PGKIT_COMPILE`` switches.

Touch: a new function of torch is an ``@implements`` in ``functions``; a new captured operation is an entry of
``graph_ops.OPERATIONS``. Both have to be correctly rounded, or built from operations that are. Importing this package
must not import LLVM: modules that are loaded at start-up import only ``signature``, ``lazy`` and ``graph``.
"""

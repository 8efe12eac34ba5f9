"""What pgkit asks of the operating system. Nothing in here knows reinforcement learning.

- ``files``: files that are replaced in one step (:func:`~pgkit.system.files.replace_file`), a lock that one process
  can hold, JSON. A refusal of the system is a :class:`~pgkit.system.files.WriteError`, one line.
- ``processes``: start a process that computes with one thread and is shielded from Ctrl-C.
- ``signals``: Ctrl-C and SIGTERM ask a run to stop, once its state is saved.
- ``cpu``: threads and memory of this process, usable cores, and whether compiled kernels are used.
- ``process_state``: what a process has set (default dtype, grad mode, threads) is put aside and restored.
- ``garbage``: Python looks for garbage less often while it starts and generates code.
- ``output``: streams that lose a message rather than a run.
- ``progress``: the progress bar of a run.

Each module stands alone: start with the one you need. Messages for users are one line, and errors are
:class:`~pgkit.errors.PgkitError`.
"""

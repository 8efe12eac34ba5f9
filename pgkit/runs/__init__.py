"""Run directories: what a run leaves behind, how it is written, and how it is read again.

- ``directory``: create a run directory, lock it, find it by path or name.
- ``writer``: writes configuration, provenance, log, checkpoints and result while a run trains. Start reading there.
- ``reader``: configurations, parameters and log rows of a recorded run.
- ``checkpoint``: one tree of tensors and plain data in one file, checked when it is read.
- ``provenance``: versions, commit, hardware and times of a run.
- ``own_code``: digests of own agents, optimizers and environments, and of the modules that they import.
- ``env_errors``: says which member an environment that failed belongs to.

In come configurations and the states of workers, out go files. Nothing in here trains: :mod:`pgkit.training` decides
when something is written. Every file is replaced in one step, so a crash leaves the old one. If keys of a checkpoint
change, raise ``checkpoint.FORMAT``. The README of this package describes the files, and stopping and resuming.
"""

"""Running a plan.

In comes a plan; out go stored results, one file per batch of runs. ``scheduler.py`` runs stage by stage, ``batches.py``
decides how many runs train together, ``executors.py`` trains batches on local processes or on Ray, where each calls
``worker.run_batch``; ``store.py`` is the directory of a comparison, ``display.py`` its progress in the terminal. Start
in ``scheduler.execute``. A new executor implements :class:`~pgkit.compare.execution.executors.Executor`.
"""

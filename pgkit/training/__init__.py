"""Training: from configurations to a :class:`~pgkit.training.result.TrainResult`, and resuming what was stopped.

Start with ``loop.py``, which reads from top to bottom: collect, targets, gradient, optimizer, log. It trains one
``population`` (members stacked along P), and ``captured`` runs the same function without Python where that is possible.
``minibatches`` makes several optimizer steps from one rollout: epochs, shuffled minibatches, the stop by ``target_kl``.

- ``train``, ``resume``, ``evaluate_run``: the public functions. Members are ``split`` among ``workers``: one in this
  process, or several in a process each (``worker_process``).
- ``monitor``: watches the loop of one worker; it logs rows, evaluates members (``evaluator``) and saves states, when
  they are due (``schedule``), and changes nothing that is learnt.
- ``coordinator``: receives what monitors send (``messages``), and alone writes the run directory.
- ``diagnostics``, ``failures``, ``extra_args``, ``optimizer_groups``: parts of the loop.

The way of a log row: ``Monitor`` makes it, ``Coordinator`` receives it, ``pgkit.logging.Logger`` writes it.

One may change what is logged, when, and how workers communicate, without changing what is learnt. A change of the loop
changes numbers: ``scripts/same_bits.py`` shows whether it did. What ends a run, and how, is in this package's README.
"""

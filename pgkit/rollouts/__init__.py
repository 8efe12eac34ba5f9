"""Rollouts: a population's policies act in environments, to learn from it or to be evaluated.

In: a ``Policy`` and its parameters ``(P, ...)``, ``Environments`` with P * N sub-environments, seeds.
Out: ``pgkit.types.Rollout`` tensors ``(T, P, N, ...)``, and statistics of episodes.

Where to start: ``collector.StepByStep.collect``. A training loop picks an acting strategy for each update
(``episodes.fastest_strategy``); all strategies have one method, ``collect(collector, params)``.

=============  ========================================================================================
collector      the environments of a population and where they stand; rollouts of T steps
episodes       rollouts of whole episodes
normalization  scaling of observations and rewards by running statistics
trajectory     joining steps and chunks into rollouts
compiled       rollouts in one compiled loop, for environments with an ``Elementwise`` step
codegen        the LLVM code of that loop
statistics     returns and lengths of episodes, before any normalization
evaluate       ``evaluate_policy``: whole episodes on random streams of their own, without learning
=============  ========================================================================================

Two rules hold everywhere. A member's rollout depends on its seed and parameters alone, never on its neighbours. And
compiled rollouts give the numbers of the stepwise ones; ``tests/rollouts`` compares both.
"""

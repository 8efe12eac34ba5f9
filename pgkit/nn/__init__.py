"""Networks and action distributions of a population.

``policy.py``, where to start reading: :class:`Policy`, an actor and a critic. It holds no parameters: ``init`` draws
them, ``outputs``, ``value``, ``values`` and ``losses`` take them. In come parameters ``(P, ...)`` and observations
``(P, B, D)``; out go outputs ``(P, B, L)``, values ``(P, B)`` and losses ``(P,)``.

``distributions.py``: :class:`Head`, what outputs mean. Sampling, log-probability, entropy and KL divergence of
categorical, multi-categorical, Bernoulli, Gaussian and tanh-squashed Gaussian actions, and :func:`head_for` an action
space. A new distribution goes here, and needs tests against ``torch.distributions`` such as the others have in
``tests/nn/test_policy.py``. A squashed action is stored as the number before tanh, so that log-probabilities are exact;
environments squash it (``pgkit/envs/squash.py``). How its entropy is estimated: ``pgkit/kernels/tanh_gaussian.py``.

``action_masks.py``: which choices a policy may make, as columns of the observations behind what networks see. Who has
observations and masks apart: ``policy.outputs(params, append_mask(obs, action_mask))``.

``mlp.py``: the layers of all members in one pass, and their initial weights. ``network.py``, ``gru.py``, ``cnn.py``,
``module_network.py``: what else may stand before them, see ``README.md``; ``layers.py`` has their operations.

``policy_loss.py``: the losses of a categorical or Gaussian MLP policy and its critic as one compiled node of autograd,
on CPU. It is optional: ``PGKIT_COMPILE=off`` computes the same losses, up to rounding, by ``pgkit.losses`` and
``distributions.py``.

Keep members apart: no function here may let a number of one member depend on another member, or on P.
"""

from pgkit.nn.distributions import Head, bernoulli, categorical, gaussian, head_for, multi_categorical
from pgkit.nn.policy import Policy

__all__ = ["Head", "Policy", "bernoulli", "categorical", "gaussian", "head_for", "multi_categorical"]

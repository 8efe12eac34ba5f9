"""The algorithms, one file each. Every module here is an agent that a configuration can name.

An agent estimates a gradient. It has no loop, environment, optimizer or logger, and consists of

- ``Config``, its settings: a frozen pydantic model. Floats may be ``(P,)`` tensors, one number per member;
- ``collects``, ``"steps"`` (rollouts of T steps) or ``"episodes"`` (whole episodes);
- ``targets(policy, params, rollout, config) -> Batch``, without gradient: returns, advantages, masks;
- ``loss(policy, params, batch, config) -> (Tensor (P,), metrics)``, whose gradient the optimizer receives.

Start with ``actor_critic.py``. ``agent.name = "my_package.my_agent"`` in a configuration trains a module of yours.
"""

"""Environments: K sub-environments that step together, each with a random stream of its own.

>>> import torch
>>> from pgkit.envs import make_envs
>>> envs = make_envs("CartPole-v1", 2)
>>> obs = envs.reset(seeds=[0, 1])
>>> envs.step(torch.tensor([0, 1])).reward
tensor([1., 1.])

In: the id of an environment and options (``make_envs``), or a vector environment of Gymnasium's (``wrap_vector_env``).
Out: an object with the interface ``Environments``, whose steps return ``Transition``.

Where to start: ``base`` (the interface), then ``sync_envs`` (Gymnasium environments in a loop).

=============  ========================================================================================
base           the interface: ``Environments``, ``EnvInfo``, ``Transition``, ``Elementwise``
make           from an id to environments
speed          what can be created here, and how fast it is
sync_envs      backend "gymnasium": a loop in this process
async_envs     the same in worker processes (``env_worker`` is what runs in them)
vector_env     any ``gymnasium.vector.VectorEnv``
elementwise    backend "pgkit": environments whose step is written for one, compiled on CPU
definition     how such an environment is written, and the check of one
check          such an environment beside one of Gymnasium's, step by step
registry       such environments by name, and how to register others
cartpole       CartPole's equations; so ``acrobot``, ``mountain_car``, ``mountain_car_continuous``, ``pendulum``
pcg64          NumPy's random numbers, on tensors and compiled
action_inputs  the learner's actions to those that such a step takes
envpool        backend "envpool": C++ environments
replay         exact resumption of Gymnasium environments
hints          what helps where an environment cannot be created
normalize      running statistics of observations and returns
seeding        seeds that old generators take, too
observations   observations of Gymnasium's spaces to arrays, and whether they are of the space
actions        the learner's actions to those of Gymnasium's spaces
generators     global generators, of which each environment has states of its own
rescale        actions whose bounds are far from the unit Gaussian
squash         actions before tanh
action_masks   which choices an environment allows
guard          full checks of what an environment returns at first
errors         one line for environments that fail
signature      what compiled steps of blocks of environments and their callers share
=============  ========================================================================================

An environment of one's own needs no class: see "Writing an environment" in README.md. To add a backend: write a class
with the methods of ``Environments`` and return it from ``make.make_envs``; then add it to
``tests/helpers/env_streams.py``, whose tests show that environment k of many is the same environment alone.
"""

from pgkit.envs.base import Elementwise, EnvInfo, Environments, Transition
from pgkit.envs.check import check_against_gymnasium
from pgkit.envs.definition import EnvDefinition, Random
from pgkit.envs.errors import EnvError
from pgkit.envs.make import list_envs, make_envs, resolve_backend
from pgkit.envs.registry import register
from pgkit.envs.vector_env import wrap_vector_env

__all__ = [
    "Elementwise",
    "EnvDefinition",
    "EnvError",
    "EnvInfo",
    "Environments",
    "Random",
    "Transition",
    "check_against_gymnasium",
    "list_envs",
    "make_envs",
    "register",
    "resolve_backend",
    "wrap_vector_env",
]

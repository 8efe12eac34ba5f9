"""A population in training: everything that an update reads and writes, and how it is built from configurations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel
from torch import Tensor

from pgkit import optim
from pgkit.config.device import resolve_device
from pgkit.config.members import stack_agent_config
from pgkit.config.registry import Agent
from pgkit.config.schema import TrainConfig
from pgkit.envs import make_envs, resolve_backend
from pgkit.envs.base import Environments
from pgkit.envs.errors import TooManyEnvs
from pgkit.errors import PgkitError
from pgkit.nn.policy import Policy
from pgkit.optim.base import Optimizer
from pgkit.optim.from_config import check_groups
from pgkit.optim.update import freeze
from pgkit.rollouts.collector import ActingStrategy, Collector
from pgkit.rollouts.episodes import fastest_strategy
from pgkit.rollouts.normalization import Normalization
from pgkit.rollouts.trajectory import MemberRollout
from pgkit.seeding import stream_keys, stream_seeds
from pgkit.system.cpu import configure_cpu
from pgkit.system.process_state import restored_settings
from pgkit.training.build_policy import build_policy
from pgkit.training.initial_state import InitialState, initial_obs_stats, initial_opt_state, initial_params
from pgkit.tree import MemberRows, select_members, take_tree
from pgkit.types import Batch, Params


class UpdateTrace(NamedTuple):
    """What the last update computed from: enough to say why a member failed in it.

    Attributes:
        rollouts: what the members did.
        batches: what the agent computed from each rollout.
        params: before the update, leaves ``(P, ...)``.
        obs_stats: observation statistics before the rollout.
        largest: ``(L, P)`` largest magnitude in each leaf of the parameters after the update, in their order.
    """

    rollouts: Sequence[MemberRollout]
    batches: Sequence[tuple[MemberRows, Batch]]
    params: Params
    obs_stats: dict[str, Tensor]
    largest: Tensor


class UpdateResult(NamedTuple):
    """What an update computes, or one optimizer step of it.

    Attributes:
        batches: what the agent computed from each rollout; of several minibatches, of each member the one in which its
            numbers were first not finite, else the last one.
        before: parameters that the losses of these batches were computed with.
        params: parameters after the optimizer steps, leaves ``(P, ...)``.
        opt_state: the optimizer's state after them.
        largest: ``(L, P)``, the largest magnitude in each leaf of the parameters after these batches.
        finite: bool ``(P,)``, whether losses and parameters are finite.
        kl: ``(P,)``, as in :class:`Population`.
        metrics: ``(P,)`` by tag.
    """

    batches: Sequence[tuple[MemberRows, Batch]]
    before: Params
    params: Params
    opt_state: Any
    largest: Tensor
    finite: Tensor
    kl: Tensor
    metrics: dict[str, Tensor]


class Passes(NamedTuple):
    """How an update goes over its rollout.

    Attributes:
        epochs: how often.
        minibatches: optimizer steps of an epoch, each on other samples.
        target_kl: a member makes no more steps once its policy is 1.5 times as far from the one that acted.
    """

    epochs: int
    minibatches: int
    target_kl: float | None

    @property
    def steps(self) -> int:
        """Optimizer steps of an update."""
        return self.epochs * self.minibatches


@dataclass
class Population:
    """Members in training, P of them; those that are done have left.

    Attributes:
        policy: what the parameters mean.
        agent: the gradient estimator.
        agent_config: its settings; real numbers are ``(P,)``.
        optimizer: turns gradients into updates.
        collector: the environments, and where the members stand in them.
        rollout_steps: T, or None for whole episodes.
        passes: how an update goes over its rollout.
        shuffle_keys: int64 ``(P,)``, each member's stream for the order of its samples.
        budget: environment steps of each member.
        members: int64 ``(P,)``, positions in the list of configurations.
        params: leaves ``(P, ...)``.
        opt_state: the optimizer's state.
        alive: bool ``(P,)``, False from the first update on whose loss, parameters or observation statistics are not
            finite; such a member keeps the parameters that it had before.
        kl: ``(P,)`` divergence of each policy over its last optimizer step, if the optimizer requires it; NaN until
            known.
        updates: how many there were; with whole episodes, of the member that made most.
        trace: what the last update computed from; None before the first, and after updates without Python.
    """

    policy: Policy
    agent: Agent
    agent_config: Any
    optimizer: Optimizer
    collector: Collector
    rollout_steps: int | None
    passes: Passes
    shuffle_keys: Tensor
    budget: int
    members: Tensor
    params: Params
    opt_state: Any
    alive: Tensor
    kl: Tensor
    updates: int = 0
    trace: UpdateTrace | None = None

    @property
    def size(self) -> int:
        """P."""
        return len(self.members)

    @property
    def env_steps(self) -> Tensor:
        """Environment steps of each member so far, float64 ``(P,)``."""
        return self.collector.env_steps

    @property
    def unfinished(self) -> Tensor:
        """Bool ``(P,)``: the members that have neither used their budget nor failed."""
        return _unfinished(self.env_steps, self.alive, self.budget)

    @property
    def eval_params(self) -> Params:
        """What is evaluated, saved as the policy and reported: ``params``, unless the optimizer has another point.

        A member that has failed keeps ``params``, since its optimizer's state may not be finite.
        """
        if self.optimizer.eval_params is None:
            return self.params
        return freeze(self.optimizer.eval_params(self.params, self.opt_state), self.params, self.alive)

    @torch.no_grad()
    def collect(self, strategy: ActingStrategy | None = None) -> list[MemberRollout]:
        """Let all members act for one update, by default in the fastest way that gives these rollouts."""
        strategy = strategy or fastest_strategy(self.collector, self.params, self.rollout_steps)
        return strategy.collect(self.collector, self.params)

    def take(self, rows: Tensor) -> "Population":
        """The members at these rows, int64 ``(M,)``, on the same environments."""
        return replace(
            self,
            agent_config=take_config(self.agent_config, rows),
            collector=self.collector.take(rows),
            members=self.members[rows],
            shuffle_keys=self.shuffle_keys[rows],
            params=take_tree(self.params, rows),
            opt_state=self.optimizer.take(self.opt_state, rows),
            alive=self.alive[rows],
            kl=self.kl[rows],
            trace=None,
        )

    def state(self, envs: bool = True) -> dict[str, Any]:
        """Everything between two updates, as plain data and tensors.

        ``"eval_params"`` are for readers, and only there if the optimizer has such: resuming computes them again.

        Args:
            envs: include the state of the environments; it is None if they cannot be saved.
        """
        shown = {} if self.optimizer.eval_params is None else {"eval_params": self.eval_params}
        return shown | {
            "members": self.members,
            "params": self.params,
            "alive": self.alive,
            "kl": self.kl,
            "opt_state": self.optimizer.dump(self.opt_state),
            "updates": self.updates,
            **self.collector.dump(envs),
        }

    def resumed(self, saved: Mapping[str, Any], restart: bool = False) -> "Population":
        """The members of a saved state, taken from this new population.

        Args:
            saved: what :meth:`state` returned.
            restart: let all episodes begin anew, because the environments' state was not saved.

        Raises:
            PgkitError: the state is that of other networks, or the environments do not come back as they were.
        """
        fresh = self.take(torch.isin(self.members, saved["members"]).nonzero().squeeze(1))
        for name, leaf in fresh.params.items():
            shape = tuple(saved["params"][name].shape) if name in saved["params"] else None
            if shape != tuple(leaf.shape):
                raise PgkitError(f"the checkpoint's parameter {name} has shape {shape}, expected {tuple(leaf.shape)}")
        return replace(
            fresh,
            collector=fresh.collector.resumed(saved, restart),
            params=saved["params"],
            opt_state=self.optimizer.load(saved["opt_state"], saved["params"]),
            alive=saved["alive"],
            kl=saved["kl"],
            updates=saved["updates"],
        )


def build(
    configs: Sequence[TrainConfig],
    restart_count: int = 0,
    resumes: bool = False,
    initial: InitialState | None = None,
) -> Population:
    """A population before its first update: environments reset, parameters drawn, optimizers initialised.

    Args:
        configs: one for each member.
        restart_count: how often the environments have begun anew; each time they get other random streams.
        resumes: whether a saved population takes its place, which may have groups of the optimizer without parameters.
        initial: what the members begin with in place of parameters that are drawn.

    Raises:
        PgkitError: the configurations do not fit together, or cannot run on this machine.
    """
    agent_config = stack_agent_config(configs)
    optimizer = optim.from_config([config.optimizer for config in configs])
    first = configs[0]
    seeds = [config.seed for config in configs]
    count = first.envs_per_member
    device = resolve_device(first.device)
    if device.type == "cpu":
        configure_cpu()
    envs = _build_training_envs(first, len(seeds), device)
    streams = range(restart_count * count, (restart_count + 1) * count)
    env_seeds = stream_seeds([seed for seed in seeds for _ in streams], "env", [*streams] * len(seeds))
    policy = build_policy(first, envs.info)
    obs = envs.reset(env_seeds).view(len(seeds), count, -1)
    agent_config = agent_config.model_copy(update={n: v.to(device) for n, v in tensors_of(agent_config).items()})
    normalization = Normalization(
        reward_scale=first.env.reward_scale,
        observations=first.env.normalize_observations,
        rewards=first.env.normalize_rewards,
        gamma=agent_config.gamma,
    )
    params = {name: leaf.to(device) for name, leaf in policy.init(seeds).items()}
    for config in () if resumes else configs:
        check_groups(config.optimizer, params)
    collector = Collector.initial(policy, envs, obs, seeds, normalization)
    if initial is not None:
        params = initial_params(initial, params)
        collector.state = replace(collector.state, obs_stats=initial_obs_stats(initial, device))
    return Population(
        policy=policy,
        agent=first.agent_module,
        agent_config=agent_config,
        optimizer=optimizer,
        collector=collector,
        rollout_steps=first.rollout_steps,
        passes=Passes(first.epochs, first.minibatches, first.target_kl),
        shuffle_keys=stream_keys(seeds, "shuffle").to(device),
        budget=first.steps,
        members=torch.arange(len(seeds), device=device),
        params=params,
        opt_state=initial_opt_state(initial, optimizer, params),
        alive=torch.ones(len(seeds), dtype=torch.bool, device=device),
        kl=torch.full((len(seeds),), torch.nan, device=device),
    )


def rebuild(
    configs: Sequence[TrainConfig], states: Sequence[Mapping[str, Any]], restart_count: int
) -> list[Population]:
    """The parts of a population as they were saved; environments that were not saved begin anew.

    Args:
        configs: one for each member.
        states: what :meth:`Population.state` returned for each part; together they hold all members. The last part is
            the one in training.
        restart_count: as for :func:`build`.

    Raises:
        PgkitError: as :func:`build` and :meth:`Population.resumed`; the environments are closed then.
    """
    fresh = build(configs, restart_count, resumes=True)
    try:
        return [_rebuild_part(fresh, state) for state in states]
    except BaseException:
        fresh.collector.envs.close()
        raise


def _rebuild_part(fresh: Population, state: Mapping[str, Any]) -> Population:
    """One part; episodes begin anew if the environments of members that train on were not saved."""
    return fresh.resumed(state, restart=state["envs"] is None and has_steps_left(state, fresh.budget))


def has_steps_left(state: Mapping[str, Any], budget: int) -> bool:
    """Whether any member of a saved population would train if each had so many environment steps."""
    return bool(_unfinished(state["statistics"]["env_steps"], state["alive"], budget).any())


def _unfinished(env_steps: Tensor, alive: Tensor, budget: int) -> Tensor:
    return (env_steps < budget) & alive


def build_envs(config: TrainConfig, count: int, device: torch.device) -> Environments:
    """``count`` environments as a configuration describes them.

    Raises:
        PgkitError: they cannot be created.
        TooManyEnvs: only some of them can be.
    """
    env = config.env
    with restored_settings():
        return make_envs(
            env.id,
            count,
            kwargs=env.kwargs,
            max_episode_steps=env.max_episode_steps,
            backend=env.backend,
            vectorization=env.vectorization,
            timeout=env.timeout,
            rescale_actions=env.rescale_actions,
            wrappers=env.wrappers,
            squash_actions=config.policy.squash_output,
            action_mask=env.action_mask,
            device=device,
        )


def _build_training_envs(config: TrainConfig, members: int, device: torch.device) -> Environments:
    """The environments that so many members train in."""
    try:
        return build_envs(config, members * config.envs_per_member, device)
    except TooManyEnvs as error:
        raise PgkitError(f"{error}: envs_per_member and seeds say how many there are") from error


def build_evaluation_envs(config: TrainConfig, wanted: int, device: torch.device) -> Environments:
    """Environments for evaluations: ``wanted`` of pgkit's own, or at most ``evaluation.envs`` of others.

    Without evaluations while training there are no more than a member trains in: there may be no more.
    """
    env = config.env
    if resolve_backend(env.id, env.kwargs, env.backend, env.vectorization, env.wrappers) == "pgkit":
        return build_envs(config, wanted, device)
    limit = config.evaluation.envs if config.evaluation.points else config.envs_per_member
    return build_envs(config, min(wanted, limit, config.evaluation.envs), device)


def take_config(config: Any, rows: MemberRows) -> Any:
    """The agent's settings of the members at these rows."""
    return config if rows is None else config.model_copy(update=select_members(tensors_of(config), rows))


def tensors_of(config: BaseModel) -> dict[str, Tensor]:
    """The settings of an agent that are one number per member, ``(P,)`` by name."""
    fields = ((name, getattr(config, name)) for name in type(config).model_fields)
    return {name: value for name, value in fields if isinstance(value, Tensor)}

"""A program that takes turns (bench_turns.py): rejax's PPO, vmapped over agents.

    python scripts/bench_rejax.py AGENTS [ppo]    # in an environment that has rejax; bench_throughput.py makes one

One update of it is what one update of pgkit's actor-critic is: 8 environments x 5 steps, two MLPs 64x64, one step; with
"ppo" what one of pgkit's PPO is: 8 environments x 128 steps, 4 epochs of 4 minibatches.
"""

import sys

import jax
from bench_turns import serve
from rejax import PPO

ENVS = 8


def main() -> None:
    agents = int(sys.argv[1])
    steps, passes = (128, 4) if "ppo" in sys.argv else (5, 1)
    updates = max(2, 25_000 // (agents * steps))  # of one call: enough that calling costs nothing
    algorithm = PPO.create(
        env="CartPole-v1",
        agent_kwargs={"activation": "tanh"},
        num_envs=ENVS,
        num_steps=steps,
        num_epochs=passes,
        num_minibatches=passes,
        learning_rate=1e-3,
        max_grad_norm=0.5,
        total_timesteps=10**9,
        eval_freq=10**9,
        skip_initial_evaluation=True,
    )
    state = jax.vmap(algorithm.init_state)(jax.random.split(jax.random.PRNGKey(0), agents))

    def train(one):  # type: ignore[no-untyped-def]  # of a train state
        return jax.lax.fori_loop(0, updates, lambda _, each: algorithm.train_iteration(each), one)

    compiled = jax.jit(jax.vmap(train))

    def advance() -> int:
        nonlocal state
        state = jax.block_until_ready(compiled(state))
        return agents * updates * ENVS * steps

    serve(advance)


if __name__ == "__main__":
    main()

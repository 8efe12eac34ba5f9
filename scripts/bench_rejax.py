"""A program that takes turns (bench_turns.py): rejax's PPO, one epoch of one batch, vmapped over agents.

    python scripts/bench_rejax.py AGENTS          # in an environment that has rejax; bench_throughput.py makes one

One update of it is what one update of pgkit's actor-critic is: 8 environments x 5 steps, two MLPs 64x64, one step.
"""

import sys

import jax
from bench_turns import serve
from rejax import PPO

ENVS, STEPS = 8, 5


def main() -> None:
    agents = int(sys.argv[1])
    updates = max(10, 5000 // agents)  # of one call: enough that calling costs nothing
    algorithm = PPO.create(
        env="CartPole-v1",
        agent_kwargs={"activation": "tanh"},
        num_envs=ENVS,
        num_steps=STEPS,
        num_epochs=1,
        num_minibatches=1,
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
        return agents * updates * ENVS * STEPS

    serve(advance)


if __name__ == "__main__":
    main()

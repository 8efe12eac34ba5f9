"""Train a network of one's own in an environment of one's own; load, predict, record: python scripts/tutorial.py"""

import gymnasium
import torch
from gymnasium.envs.classic_control import CartPoleEnv

import pgkit
from pgkit.deploy.show import record_video


class LongPole(CartPoleEnv):  # any gymnasium.Env
    def __init__(self, length=1.0, **kwargs):
        super().__init__(**kwargs)
        self.length = length
        self.polemass_length = self.masspole * length


class Net(torch.nn.Module):  # observations (B, 4) -> features (B, 32)
    def __init__(self, observation_space):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(observation_space.shape[0], 32), torch.nn.Tanh())

    def forward(self, obs):
        return self.layers(obs)


if __name__ == "tutorial":  # imported by the names below
    gymnasium.register("LongPole-v0", LongPole, max_episode_steps=500)

if __name__ == "__main__":
    changes = {"env.id": "tutorial:LongPole-v0", "policy.network": "tutorial:Net", "name": "long-pole", "seeds": 2}
    config = pgkit.load_config("cartpole-ppo", {**changes, "steps": 80_000, "env.reward_scale": 0.05})
    result = pgkit.train(config, "runs/long-pole", overwrite=True, progress=True)
    print("mean return of each seed:", [row["return_mean"] for row in result.table])
    policy = pgkit.load("runs/long-pole", member=0)
    env = gymnasium.make("LongPole-v0")
    print("action:", policy.predict(env.reset(seed=0)[0], deterministic=True)[0])
    print(record_video(policy, "long-pole.mp4", deterministic=True))

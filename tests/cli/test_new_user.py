"""What a stranger types first: mistakes that one line corrects, words of other libraries, and the tab key."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import pgkit
from typer.testing import CliRunner

from pgkit.cli import app
from pgkit.config.load import load_config
from pgkit.config.names import shipped_configs

TEN_MISTAKES = {
    "an agent for a configuration": ("train ppo", "'ppo' is an agent", "pgkit train acrobot-ppo or cartpole-ppo or "),
    "an agent in SB3's words": ("train a2c", "pgkit train cartpole-actor-critic or ", "agent=actor-critic"),
    "an environment for a configuration": (
        "train CartPole-v1",
        "is an environment",
        "cartpole-ppo or cartpole-reinforce",
    ),
    "options before the configuration": (
        "train --env CartPole-v1 --algo ppo",
        "the name of a configuration comes before --env",
        "pgkit train cartpole-ppo env=",
    ),
    "another program's command": ("run cartpole-ppo", "unknown command 'run', did you mean 'train'?"),
    "a key and its value as two words": (
        "train cartpole-ppo learning_rate 1e-3",
        "did you mean learning_rate=1e-3?",
    ),
    "a list that the shell cuts": ("train cartpole-ppo policy.hidden=[64, 64]", "quotes: 'policy.hidden=[64, 64]'"),
    "a key that means something else": (
        "train cartpole-ppo batch_size=64",
        "unknown key 'batch_size'; use minibatches",
    ),
    "a number in words": ("train cartpole-ppo steps=100k", 'whole number such as 100_000 or 1e5, got "100k"'),
    "a run that is not there yet": ("evaluate cartpole-ppo", "no run runs/cartpole-ppo: pgkit train cartpole-ppo"),
}
"""A new user's ten mistakes, and what the answer names."""

MORE_MISTAKES = {
    "no command": ("cartpole-ppo", "did you mean pgkit train cartpole-ppo?"),
    "misspelt command": ("trian cartpole-ppo", "did you mean 'train'?"),
    "no configuration": ("train", "missing argument 'NAME' (pgkit train --help)"),
    "option before the command": ("--seed 3 train", "no such option: --seed (pgkit --help)"),
    "misspelt option": ("evaluate old --episode 3", "--episodes"),
    "agent of an environment": ("train cartpole-a2c", "did you mean 'cartpole-actor-critic'?"),
    "other spelling": ("train CartPole_PPO", "did you mean 'cartpole-ppo'?"),
    "file of a shipped configuration": ("train cartpole-ppo.toml", "the shipped configuration is called cartpole-ppo"),
    "environment without a configuration": ("train Ant-v5", "pgkit train NAME env=Ant-v5"),
    "off-policy configuration": ("train sac", "it is off-policy, and pgkit's agents are on-policy: reinforce, "),
    "off-policy agent": ("train cartpole-ppo agent=DQN", "it is off-policy", "actor-critic, ppo"),
    "agent that is an optimizer": ("train cartpole-ppo agent=trpo", "agent=actor-critic optimizer=trpo"),
    "key of off-policy agents": ("train cartpole-ppo buffer_size=1e6", "on-policy, without a replay buffer"),
    "policy in SB3's words": ("train cartpole-ppo policy=MlpPolicy", "use policy.network=mlp, policy.hidden=[64,64]"),
    "GPU": ("train cartpole-ppo --gpu", "use device=cuda"),
    "video while training": ("train cartpole-ppo capture_video=True", "pgkit evaluate RUN --video FILE.mp4"),
    "blanks around the equals sign": ("train cartpole-ppo steps = 100", "did you mean steps=100?"),
    "list without brackets": ("train cartpole-ppo policy.hidden=64,64", 'a list such as [64,64], got "64,64"'),
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_ten_mistakes() -> None:
    assert len(TEN_MISTAKES) == 10


@pytest.mark.parametrize("mistake", TEN_MISTAKES | MORE_MISTAKES)
def test_one_line_names_the_right_key_or_command(mistake: str, place: Path) -> None:
    words, *fragments = (TEN_MISTAKES | MORE_MISTAKES)[mistake]
    exit_code, stdout, stderr = pgkit(words)
    assert (exit_code, stdout) == (2, "")
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    assert [fragment for fragment in fragments if fragment not in stderr] == [], stderr
    assert list(place.iterdir()) == []


def test_commands_that_mistakes_name_exist() -> None:
    texts = [text for _, *texts in (TEN_MISTAKES | MORE_MISTAKES).values() for text in texts]
    named = {name for text in texts for name in re.findall(r"\b((?:cartpole|acrobot)-[\w-]+)", text)}
    assert "cartpole-ppo" in named
    assert named <= set(shipped_configs())


WORDS = {
    "learning_rate=0.1": ("optimizer.lr", 0.1),
    "--learning-rate 1e-2": ("optimizer.lr", 0.01),
    "total_timesteps=1e5": ("steps", 100_000),
    "n_steps=64": ("rollout_steps", 64),
    "n_steps=6.4e1": ("rollout_steps", 64),
    "agent=a2c": ("agent.name", "actor-critic"),
    "algo=PPO": ("agent.name", "ppo"),
    "--seed 3": ("seed", 3),
    "seeds=1e1": ("seeds", 10),
    "env=Acrobot-v1": ("env.id", "Acrobot-v1"),
    "gym_id=Acrobot-v1": ("env.id", "Acrobot-v1"),
    "optimizer=sgd": ("optimizer.name", "sgd"),
    "optimizer=Adam": ("optimizer.name", "adam"),
    "exp_name=mine": ("name", "mine"),
    "policy.layer_norm=True": ("policy.layer_norm", True),
    "norm_adv=False": ("agent.normalize_advantage", False),
    "policy.hidden=[3.2e1,32]": ("policy.hidden", (32, 32)),
}
"""Words that are taken as they are, and the key and value that they mean."""


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.filterwarnings("ignore:.*dropped:pgkit.errors.PgkitWarning")
def test_words_of_other_libraries_are_taken(words: str) -> None:
    key, expected = WORDS[words]
    value: Any = load_config("cartpole-ppo", words.split())
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    assert (type(value), value) == (type(expected), expected)


# --- the tab key ---

COMPLETIONS = {
    "pgkit tr": ["train"],
    "pgkit train cartpole-": ["cartpole-actor-critic", "cartpole-ppo", "cartpole-reinforce"],
    "pgkit train cartpole-ppo optimizer.l": ["optimizer.lr=0.003"],
    "pgkit train cartpole-ppo --over": ["--overwrite"],
    "pgkit compare compare-c": ["compare-cartpole", "compare-classic"],
    "pgkit evaluate fir": ["first"],
    "pgkit play cart": ["cartpole-ppo"],
    "pgkit list en": ["envs"],
}


@pytest.mark.parametrize("words", COMPLETIONS)
def test_the_tab_key_completes(words: str, place: Path) -> None:
    (place / "runs" / "first").mkdir(parents=True)
    (place / "runs" / "first" / "config.toml").touch()
    variables = {"_PGKIT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    result = CliRunner().invoke(app, [], prog_name="pgkit", env=variables)
    assert result.stdout.split() == COMPLETIONS[words]


def test_completion_loads_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "gymnasium", "pydantic"}
    code = f"""if True:
        import sys
        from pgkit.cli import completion
        assert completion.config_names("")
        print(sorted({heavy} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_completion_can_be_installed() -> None:
    assert "--install-completion" in pgkit("--help").stdout

"""Every mistake of a user is one line on stderr, exit code 2, and nothing written."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from pgkit.cli import app

MISTAKES = {
    # what is there
    "config": ("train cartpole-reinforc", "unknown config 'cartpole-reinforc', did you mean 'cartpole-reinforce'?"),
    "config unlike any": ("train zzz", "unknown config 'zzz' (allowed: acrobot-ppo, ", ".toml file"),
    "config file": ("train my/missing.toml", "no configuration file my/missing.toml"),
    "config directory": ("train runs", "runs is a directory"),
    "broken TOML": ("train broken.toml", "broken.toml is not valid TOML", "line 2"),
    "not text": ("train binary.toml", "binary.toml is not valid TOML", "can't decode"),
    "empty config": ("train empty.toml", "empty.toml: steps is missing"),
    "key in a file": ("train typo.toml", "typo.toml: unknown key 'step', did you mean 'steps'?"),
    # names
    "key": ("train C optimiser.lr=0.1", "unknown key 'optimiser', did you mean 'optimizer'?"),
    "key of env": ("train C env.idd=X", "unknown key 'env.idd', did you mean 'env.id'?"),
    "key of policy": ("train C policy.hiden=[8]", "unknown key 'policy.hiden', did you mean 'policy.hidden'?"),
    "key of evaluation": ("train C evaluation.x=1", "unknown key 'evaluation.x'", "evaluation.points"),
    "key of agent": ("train C agent.gama=0.9", "unknown key 'agent.gama', did you mean 'agent.gamma'?"),
    "key of optimizer": ("train C optimizer.lrr=1", "'lrr'", "did you mean 'lr'?"),
    "key of another optimizer": ("train C optimizer.name=sgd optimizer.beta1=0.9", "'beta1'", "sgd", "lr"),
    "key of critic": ("train C optimizer.critic.lrr=1", "'lrr'", "critic"),
    "key of schedule": ("train C optimizer.schedule.lrr=linear", "'lrr'", "did you mean 'lr'?"),
    "optimizer": ("train C optimizer.name=adm", "unknown optimizer 'adm'", "did you mean 'adam'?"),
    "schedule": ("train C optimizer.schedule.lr=zigzag", "'zigzag'", "linear"),
    "agent": ("train C agent.name=actor-critc", "unknown agent 'actor-critc', did you mean 'actor-critic'?"),
    "environment": ("train C env.id=CartPol-v1", "unknown environment 'CartPol-v1'", "did you mean 'CartPole-v1'"),
    "environment's module": ("train C env.id=no_such:Env-v0", "cannot import module 'no_such'"),
    "kwargs of pgkit's": ("train C env.backend=pgkit env.kwargs.wings=2", "wings: pgkit's 'CartPole-v1' takes sutton"),
    "environment's kwargs": ("train C env.kwargs.wings=2", "CartPole-v1", "wings"),
    "backend": ("train C env.backend=brax", "env.backend must be 'auto', 'gymnasium', 'pgkit' or 'envpool'"),
    "backend without this task": ("train C env.backend=pgkit env.id=Taxi-v4", "env.backend 'pgkit' has no 'Taxi-v4'"),
    "activation": ("train C policy.activation=tan", "policy.activation must be 'tanh', 'relu', 'elu', 'gelu'"),
    "device": ("train C device=gpu", 'device must be cpu, cuda, cuda:N or auto, got "gpu"'),
    "cuda": ("train C device=cuda", "device 'cuda' is not available", "no CUDA device found"),
    "run name": ("train C name=../x", "name must be letters", '"../x"'),
    "agent without a module": ("train C agent.name=__main__", "'__main__'"),
    "agent that is no name": ("train C agent.name=json.nothing", "unknown agent 'json.nothing'"),
    "agent that raises": ("train C agent.name=broken_module", "agent 'broken_module' cannot be imported", "division"),
    "environment's module that raises": ("train C env.id=broken_module:X-v0", "cannot import module 'broken_module'"),
    "environment's module that is none": ("train C env.id=..:X-v0", "cannot import module '..'"),
    "optimizer's module": ("train C optimizer.name=no_such:Adam", "cannot import 'no_such'"),
    "optimizer's module that raises": ("train C optimizer.name=broken_module:X", "cannot import 'broken_module'"),
    "optimizer's module that is none": ("train C optimizer.name=..:x", "expected 'package.module:Class'"),
    "optimizer of one's own that is none": (
        "train C optimizer.name=mylab:odd",
        "must return a pgkit.optim.Optimizer, got int",
    ),
    "optimizer of one's own that raises": ("train C optimizer.name=mylab:raises", "mylab:raises", "ZeroDivisionError"),
    "optimizer of one's own with a mandatory argument": (
        "train C optimizer.name=mylab:mandatory",
        "every argument needs a default, 'lr' has none",
    ),
    "optimizer that one's own module lacks": ("train C optimizer.name=mylab:sgd", "mylab has no 'sgd'"),
    "optimizer's class": ("train C optimizer.name=torch.optim:Adm", "torch.optim has no 'Adm'", "'Adam'"),
    "key of an environment of a comparison": (
        "compare K environments.CartPole-v1.a=1",
        "unknown key 'environments.CartPole-v1.a'",
        "environments.CartPole-v1.threshold",
    ),
    "run name with control characters": ("train C name=\x1b[31m", r'"\u001b[31m"'),
    "config with control characters": ("train \x1b[31m", r"unknown config '\x1b[31m'"),
    # types
    "text for number": ("train C optimizer.lr=fast", "lr", "'fast'", "number"),
    "true for number": ("train C agent.gamma=true", "agent.gamma must be a number, got true"),
    "number for text": ("train C env.id=3", "env.id must be a text, got 3"),
    "fraction": ("train C steps=1.5", "steps must be a whole number, got 1.5"),
    "number for flag": ("train C evaluation.deterministic=1", "evaluation.deterministic must be true or false, got 1"),
    "number for list": ("train C policy.hidden=64", "policy.hidden must be a list, got 64"),
    "number for table": ("train C optimizer.critic=3", "optimizer.critic must be a table, got 3"),
    "text for table": ("train C optimizer.schedule=linear", 'optimizer.schedule must be a table, got "linear"'),
    "list for name": ("train C optimizer.name=[1]", "optimizer.name must be a text, got [1]"),
    "number for agent": ("train C agent=3", "agent must be a table, got 3"),
    "number for group": ("train C optimizer.groups.a=0", "optimizer.groups.a must be a table, got 0"),
    "list for schedule": ("train C optimizer.schedule=[1]", "optimizer.schedule must be a table, got [1]"),
    "text for critic of a comparison": ("compare K optimizer.critic=x", 'optimizer.critic must be a table, got "x"'),
    "number for groups of a comparison": ("compare K optimizer.groups=1", "optimizer.groups must be a table, got 1"),
    "list for name in a comparison": ("compare K optimizer.critic.name=[]", "optimizer.critic.name must be a text"),
    "schedule of a comparison": ("compare K optimizer.schedule=1", "optimizer.schedule must be a table, got 1"),
    "label in a comparison": ("compare K optimizers=[{name='sgd',label=[1]}]", "optimizers[0].label must be a text"),
    "text for arm": ("compare K optimizers=[1]", "optimizers[0]", "got 1"),
    # ranges
    "lr 0": ("train C optimizer.lr=0", "optimizer (main): lr is 0; it must be above 0"),
    "lr negative": ("train C optimizer.lr=-1e-3", "lr", "-0.001", "above 0"),
    "lr list": ("train C optimizer.lr=[1e-3,1e-2]", "optimizer (main): lr must be one number, got [0.001, 0.01]"),
    "lr of critic": ("train C optimizer.critic.lr=-1", "critic", "lr", "-1", "above 0"),
    "lr infinite": ("train C optimizer.lr=inf", "optimizer.lr must be a finite number, got inf"),
    "schedule infinite": ("train C optimizer.schedule.lr={kind='linear',end=-inf}", "schedule.lr.end must be a finite"),
    "lr nan": ("train C optimizer.lr=nan", "optimizer.lr must be a finite number, got nan"),
    "clip norm": ("train C optimizer.max_grad_norm=-1", "max_grad_norm", "-1"),
    "steps": ("train C steps=-5", "steps must be greater than or equal to 1, got -5"),
    "seeds 0": ("train C seeds=0", "seeds must be a count from 1 to 1,000,000 or a list", "got 0"),
    "seeds without end": ("train C seeds=10000000000", "seeds must be a count from 1 to 1,000,000", "got 10000000000"),
    "seeds beyond 64 bits": ("train C seeds=[9223372036854775808]", "seeds must be", "got [9223372036854775808]"),
    "tuning seeds without end": ("compare K tuning_seeds=10000000000", "tuning_seeds must be a count from 1 to"),
    "steps without end": ("train C steps=1e30", "steps must be a whole number, got 1e+30"),
    "steps beyond 64 bits": ("train C steps=1" + "0" * 30, "steps must be less than or equal to 1000000000000000"),
    "number of 5000 digits": ("train C steps=" + "1" * 5000, "steps must be a whole number"),
    "envs without end": (
        "train C envs_per_member=10000000000",
        "envs_per_member must be less than or equal to 1000000",
    ),
    "log_std": ("train C policy.log_std=1e308", "policy.log_std must be less than or equal to 20"),
    "timeout": ("train C env.timeout=0", "env.timeout must be greater than 0, got 0"),
    "seeds twice": ("train C seeds=[1,1]", "seeds must be", "different", "got [1, 1]"),
    "seed": ("train C seed=-1", "seed must be greater than or equal to 0, got -1"),
    "envs": ("train C envs_per_member=0", "envs_per_member must be greater than or equal to 1"),
    "layer": ("train C policy.hidden=[64,0]", "policy.hidden[1] must be greater than or equal to 1, got 0"),
    "gamma": ("train C agent.gamma=1.5", "agent.gamma must be less than or equal to 1, got 1.5"),
    "rollout of episodes": ("train cartpole-reinforce rollout_steps=5", "rollout_steps = 5 has no effect"),
    # several at once
    "three mistakes": (
        "train C stepz=1 agent.gama=0.9 env.idd=X optimizer.lrr=1",
        "unknown key 'stepz', did you mean 'steps'? (",
        "'agent.gama'",
        "'env.idd'",
        "'lrr'",
    ),
    # words of other libraries
    "key of PPO": ("train C batch_size=64", "unknown key 'batch_size'", "use minibatches"),
    "annealing": ("train C anneal_lr=True", "unknown key 'anneal_lr'; use optimizer.schedule.lr=linear"),
    "learning rate of an optimizer": ("train C optimizer.learning_rate=1", "'learning_rate'", "did you mean 'lr'?"),
    "lambda of an agent": ("train C agent.gae_lambda=1", "'agent.gae_lambda', did you mean 'agent.lam'?"),
    "key in a file of SB3": ("train sb3.toml", "unknown key 'learning_rate', did you mean 'optimizer.lr'?"),
    "misspelt option": ("train C --overwite", "unknown option '--overwite', did you mean '--overwrite'?"),
    "option without its value": (
        "train C --seed",
        "--seed has no value: --seed VALUE or seed=VALUE (options without a value: --overwrite",
    ),
    "option before the next one": ("train C --learning-rate --quiet", "--learning-rate has no value"),
    "option before an override": ("compare K --steps tier=quick", "--steps has no value: --steps VALUE or steps=VALUE"),
    "none where a number belongs": ("train C optimizer.lr=none", "'none'"),
    "none where there is no default": ("train C steps=None", 'steps must be a whole number, got "None"'),
    "unknown short option": ("train C -x", "unknown option '-x'"),
    "option of a comparison": ("compare K --seed 3", "unknown key 'seed'"),
    "learning rate of a comparison": ("compare K learning_rate=0.1", "use optimizers and learning_rates"),
    # what would have no effect
    "seed beside a list of seeds": ("train C seed=5 seeds=[1,2]", "seed = 5 has no effect: seeds is a list"),
    "episodes of no evaluation": (
        "train C evaluation.points=0 evaluation.episodes=50",
        "evaluation.episodes = 50 has no effect: evaluation.points = 0",
    ),
    "greedy evaluations beside deterministic ones": (
        "train C evaluation.deterministic=true evaluation.greedy=true",
        "evaluation.greedy = true has no effect: evaluation.deterministic takes the most likely actions in every",
    ),
    "greedy evaluations that are off": ("train C evaluation={points=0,greedy=true}", "evaluation.greedy = true has no"),
    "timeout of no process": ("train C env.timeout=5", "env.timeout = 5 has no effect", "async"),
    "layers of a critic that shares them": (
        "train C policy.shared=true policy.critic_hidden=[8]",
        "policy.critic_hidden = [8] has no effect: policy.shared",
    ),
    "value loss without a critic": (
        "train cartpole-reinforce agent.baseline=mean agent.value_coef=1",
        'agent.value_coef = 1 has no effect: agent.baseline = "mean" has no critic',
    ),
    "optimizer of no critic": (
        "train cartpole-reinforce agent.baseline=none optimizer.critic.lr=0.1",
        "optimizer.critic = ",
        "has no effect",
    ),
    "standard deviation of discrete actions": (
        "train C policy.log_std=-1.0",
        "policy.log_std = -1.0 has no effect",
        "CartPole",
    ),
    "standard deviation of discrete actions in a comparison": (
        "compare K policy.log_std=-1.0",
        "policy.log_std = -1.0 has no effect: the actions of CartPole-v1 are not continuous",
    ),
    "activation of no hidden layer": (
        "train C policy.hidden=[] policy.activation=relu",
        'policy.activation = "relu" has no effect: networks without hidden layers have no activation',
    ),
    "rescaling of discrete actions": (
        "train C env.rescale_actions=false",
        "env.rescale_actions = false has no effect: the actions of CartPole-v1 are not continuous",
    ),
    "pattern of no parameter": (
        'train C -q optimizer.groups."bias".lr=0.1',
        'optimizer.groups."bias" matches no parameter, did you mean "*.bias"? (actor.0.weight, ',
    ),
    "pattern behind one that takes all": (
        'train C -q optimizer.groups."*.bias".lr=0.1 optimizer.groups."actor.*.bias".lr=0.2',
        'optimizer.groups."actor.*.bias" has no effect: patterns before it match all of its parameters',
    ),
    "pattern of the critic for the actor": (
        'train C -q optimizer.critic.groups."actor.*".lr=0.1',
        'optimizer.critic.groups."actor.*" matches no parameter (critic.0.weight, ',
    ),
    "pattern of a comparison": (
        'compare K optimizer.groups."Critic".lr=0.1',
        'optimizer.groups."Critic" matches no parameter',
    ),
    "key that a file itself switches off": (
        "train parked.toml",
        "policy.critic_hidden = [8] has no effect: policy.shared",
    ),
    # command line and directories
    "no value": ("train C seed", "override 'seed' is not of the form key=value"),
    "no key": ("train C =3", "override '=3' is not of the form key=value"),
    "key within a value": ("train C seed=1 seed.x=1", "unknown key 'seed.x': seed is not a table"),
    "key of 3000 parts": ("train C " + ".".join("a" * 3000) + "=1", "is not of the form key=value"),
    "list of 3000 levels": ("train C steps=" + "[" * 3000, "steps must be a whole number"),
    "list of 30 levels": (
        "train C steps=" + "[" * 30 + "]" * 30,
        "tables and lists are nested more than 20 levels deep",
    ),
    "tables of 3000 levels": ("train deep.toml", "tables and lists are nested more than 20 levels deep"),
    "path of 5000 characters": ("train " + "a" * 5000, "cannot be read: File name too long"),
    "name of 300 characters": ("train C name=" + "a" * 300, "cannot read ", "/runs/aaa", "File name too long"),
    "comparison for train": (
        "train compare-cartpole",
        "compare-cartpole is a comparison: pgkit compare compare-cartpole",
    ),
    "training for compare": (
        "compare C",
        "cartpole-actor-critic is not a comparison",
        "pgkit train cartpole-actor-critic",
    ),
    "existing run": ("train C name=old", "runs/old already exists", "--overwrite"),
    "existing directory": ("train C --out other", "other already exists"),
    "existing directory, overwrite": ("train C --out other --overwrite", "other holds no run"),
    "file in the way": ("train C --out empty.toml/run", "cannot create ", "/empty.toml/run: ", "/empty.toml is a file"),
    "unwritable": ("train C --out readonly/run", "cannot create ", "/readonly/run: ", "/readonly is not writable"),
    "run": ("evaluate odl", "unknown run 'odl', did you mean 'old'?"),
    "no run": ("evaluate other", "other is not the directory of a run"),
    "topic": ("list agent", "unknown topic 'agent', did you mean 'agents'?"),
    "one agent": ("list agents x", "unknown agent 'x'"),
    "one optimizer": ("list optimizers adm", "unknown optimizer 'adm', did you mean 'adam'?"),
    "one config": ("list configs x", "unknown config 'x'"),
    "one environment": ("list envs CartPol-v1", "unknown environment 'CartPol-v1'"),
}

MYLAB = """
def odd(lr=0.1):
    return 3
def raises(lr=0.1):
    return 1 / 0
def mandatory(lr):
    pass
"""
"""Functions of a user's own that are no optimizers."""

PARKED = """
steps = 1000
env = { id = "CartPole-v1" }
agent = { name = "actor-critic" }
optimizer = { name = "adam" }
policy = { shared = true, critic_hidden = [8] }
"""
"""A configuration that switches off one of its own keys."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an older run, a read-only directory and some unfortunate files; no GPU anywhere."""
    (tmp_path / "runs" / "old").mkdir(parents=True)
    (tmp_path / "runs" / "old" / "config.toml").write_text("steps = 1\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("two years of work")
    (tmp_path / "readonly").mkdir()
    (tmp_path / "broken.toml").write_text("steps = 1\n[env\n")
    (tmp_path / "binary.toml").write_bytes(b"name = '\xff\xfe'\n")
    (tmp_path / "empty.toml").write_text("")
    (tmp_path / "sb3.toml").write_text("learning_rate = 1e-3\n" + PARKED)
    (tmp_path / "mylab.py").write_text(MYLAB)
    (tmp_path / "parked.toml").write_text(PARKED)
    (tmp_path / "deep.toml").write_text(".".join("a" * 3000) + " = 1\n")
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "typo.toml").write_text("step = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return tmp_path


def with_configs(words: str) -> str:
    """C and K stand for a configuration of training and one of a comparison."""
    return f"{words} ".replace(" C ", " cartpole-actor-critic ").replace(" K ", " compare-cartpole ")[:-1]


def contents(directory: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(directory.rglob("*"))}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_one_line_and_writes_nothing(mistake: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words, *fragments = MISTAKES[mistake]
    if mistake == "unwritable":  # the superuser may write anywhere, so the question is answered here
        import os

        monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "readonly")
    before = contents(place)
    result = CliRunner().invoke(app, with_configs(words).split(" "))
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith("\n")
    assert [fragment for fragment in fragments if fragment not in result.stderr] == [], result.stderr
    assert result.stdout == ""
    assert contents(place) == before


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ("train cartpole-reinforce stepz=1", "unknown key 'stepz', did you mean 'steps'?"),
        ("train cartpole-actor-critic env.id=CartPol-v1", "unknown environment 'CartPol-v1'"),
    ],
)
def test_mistake_in_a_real_process(words: str, fragment: str, place: Path) -> None:
    before = contents(place)
    done = subprocess.run([sys.executable, "-m", "pgkit", *words.split()], capture_output=True, text=True, cwd=place)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert fragment in done.stderr
    assert contents(place) == before

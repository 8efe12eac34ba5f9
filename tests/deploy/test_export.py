"""Folders that others load: they act as the member that was exported, and say what it is."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import pgkit as pgkit_command
from helpers.hub_server import serve_hub

import pgkit
from pgkit.deploy import hub
from pgkit.deploy.export import export
from pgkit.errors import PgkitError

FILES = {"README.md", "config.toml", "curve.png", "policy.safetensors", "provenance.json"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two members that differ."""
    place = tmp_path_factory.mktemp("runs") / "cart"
    settings = {"steps": 600, "seeds": 2, "envs_per_member": 2, "optimizer.lr": 0.03, "evaluation.points": 3}
    sizes = {"rollout_steps": 16, "minibatches": 2, "evaluation.episodes": 2, "evaluation.final_episodes": 2}
    pgkit.train(pgkit.load_config("cartpole-ppo", {**settings, **sizes, "name": "cart"}), place)
    return place


@pytest.fixture(scope="module")
def folder(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported second member."""
    return export(run, tmp_path_factory.mktemp("shared") / "cart", member=1)


def test_an_exported_policy_acts_as_the_member(run: Path, folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == FILES
    observations = np.random.default_rng(0).normal(size=(64, 4))
    logits = {}
    for name, policy in {
        "folder": pgkit.load(folder),
        "member": pgkit.load(run, member=1),
        "other": pgkit.load(run, member=0),
    }.items():
        module = policy.to_module()
        logits[name] = module(policy.flatten(observations))[0].detach().numpy()
    np.testing.assert_array_equal(logits["folder"], logits["member"])
    assert not np.array_equal(logits["folder"], logits["other"])


def test_the_configuration_trains_and_has_the_members_seed(folder: Path) -> None:
    assert pgkit.load_config(folder / "config.toml").seed_list == [1]


def test_provenance_keeps_paths_at_home(folder: Path) -> None:
    record = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert "torch" in record["versions"]
    assert "command_line" not in record


def test_the_card_is_one_of_the_hub(run: Path, folder: Path) -> None:
    card = pytest.importorskip("huggingface_hub").ModelCard.load(folder / "README.md")
    (result,) = card.data.eval_results
    measured = pgkit.evaluate_run(run, 100, seed=1, member=1).table[0]
    assert card.data.library_name == "pgkit"
    assert {"reinforcement-learning", "CartPole-v1", "ppo"} <= set(card.data.tags)
    assert (result.metric_type, result.dataset_name) == ("mean_reward", "CartPole-v1")
    assert result.metric_value == f"{measured['return_mean']:.2f} +/- {measured['return_std']:.2f}"
    assert "one of 2 of its run" in card.text
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_code_on_the_card_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    code = text.partition("```python\n")[2].partition("```")[0].replace("FOLDER", str(folder))
    names: dict[str, object] = {}
    exec(compile(code, "card", "exec"), names)
    assert names["action"] in (0, 1)


def test_nothing_is_replaced_unasked(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(PgkitError, match="is not empty, and holds no exported policy"):
        export(run, other, member=0, overwrite=True)
    assert [path.name for path in other.iterdir()] == ["mine.txt"]
    place = export(run, tmp_path / "shared", member=0)
    with pytest.raises(PgkitError, match="--overwrite replaces it"):
        export(run, place, member=1)
    assert pgkit.load(export(run, place, member=1, best=True, overwrite=True)).config.seed == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{run} {out}", "has 2 members, and member names none of them: seed-0, seed-1"),
        ("{run} {out} --member 7", "seed-0, seed-1"),
        ("nowhere {out}", "unknown run 'nowhere'"),
        ("{run} {out} --member 1 --push cart", "--push must be ORG/NAME"),
        ("{run} {out} --member 1 --push org/a..b", "--push must be ORG/NAME"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(words: str, message: str, run: Path, tmp_path: Path) -> None:
    if "--push" in words:
        pytest.importorskip("huggingface_hub")
    out = tmp_path / "out"
    outcome = pgkit_command(f"export {words.format(run=run, out=out)}")
    assert outcome.exit_code == 2
    assert message in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert not out.exists()


def test_without_the_package_one_line_says_how_to_install_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    outcome = pgkit_command(f"export {run} {tmp_path / 'out'} --member 1 --push org/cart")
    assert outcome.stderr == f"error: {hub.MISSING}\n"
    assert not (tmp_path / "out").exists()


def test_a_folder_is_uploaded_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("huggingface_hub")
    with serve_hub() as server:
        api = library.HfApi(endpoint=server.url, token="a token")
        monkeypatch.setattr(library, "HfApi", lambda **_: api)
        address = hub.push(folder, "org/name")
        assert address == f"{server.url}/org/name"
        assert server.files == {path.name: path.read_bytes() for path in folder.iterdir()}
        server.refuses = True
        with pytest.raises(PgkitError, match="cannot push to org/name") as caught:
            hub.push(folder, "org/name")
    assert "hf upload org/name" in str(caught.value)
    with pytest.raises(PgkitError, match="cannot push to org/name"):  # the server is gone
        hub.push(folder, "org/name")

"""Where a run came from."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pgkit.runs import provenance


def test_record_is_complete_plain_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pgkit", "train", "cartpole-reinforce"])
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    path = tmp_path / "provenance.json"
    stopwatch = provenance.write(path, [3, 4])
    record = json.loads(path.read_text())
    assert record["command_line"] == ["pgkit", "train", "cartpole-reinforce"]
    assert record["seeds"] == [3, 4]
    assert record["versions"]["torch"] == torch.__version__
    assert record["versions"]["pgkit-rl"]
    assert record["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert record["threads"]["torch"] == torch.get_num_threads()
    assert record["threads"]["OMP_NUM_THREADS"] == "3"
    assert record["hardware"]["cores"] >= record["hardware"]["usable_cores"] >= 1
    assert record["hardware"]["memory_bytes"] > 2**28
    assert record["wall_seconds"] is None
    assert record["cpu_seconds"] is None

    time.sleep(0.05)
    provenance.finish(stopwatch)
    finished = json.loads(path.read_text())
    assert 0.05 <= finished["wall_seconds"] < 60
    assert 0 <= finished["cpu_seconds"] < 60
    assert {k: v for k, v in finished.items() if not k.endswith("_seconds")} == {
        k: v for k, v in record.items() if not k.endswith("_seconds")
    }


def test_cpu_time_counts_children(tmp_path: Path) -> None:
    before = provenance.cpu_seconds()
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert provenance.cpu_seconds() - before >= 0.2


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with one commit."""
    root = tmp_path / "source"
    root.mkdir()
    (root / "a.py").write_text("x = 1\n")
    git(root, "init", "-q")
    git(root, "add", "a.py")
    git(root, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "first")
    return root


def git(root: Path, *words: str) -> str:
    """What git answers."""
    return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout.strip()


def test_commit_of_a_source_tree(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert len(commit) == 40
    assert provenance.git_state(repository) == {"commit": commit, "changed": False}
    (repository / "untracked").write_text("")
    assert provenance.git_state(repository) == {"commit": commit, "changed": False}
    (repository / "a.py").write_text("x = 2\n")
    assert provenance.git_state(repository) == {"commit": commit, "changed": True}


def test_no_commit_elsewhere(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = repository / "site-packages"
    below.mkdir()
    assert provenance.git_state(tmp_path) is None
    assert provenance.git_state(below) is None, "an installed package inside somebody's repository"
    (tmp_path / ".git").mkdir()
    assert provenance.git_state(tmp_path) is None, "no commit yet, or not git's"
    monkeypatch.setenv("PATH", os.devnull)
    assert provenance.git_state(repository) is None, "no git on this machine"

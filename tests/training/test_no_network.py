"""Nothing that pgkit does at run time talks to a network."""

import subprocess
import sys
from pathlib import Path

WATCHED = """
import sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.bind"):
        address = arguments[1] if event in ("socket.connect", "socket.bind", "socket.sendto") else arguments[0]
        if not isinstance(address, (str, bytes)) or event.startswith("socket.get"):  # a text is a local socket's path
            sys.stderr.write(f"NETWORK {event} {address!r}\\n")

sys.addaudithook(watch)
"""

TINY = ["steps=400", "seeds=2", "policy.hidden=[8]", "evaluation.points=1", "evaluation.episodes=2"]
TINY += ["evaluation.final_episodes=3", "env.vectorization=async", "env.backend=gymnasium"]


def watched(code: str, place: Path) -> str:
    """What the code, run in a process whose sockets are watched, says on standard error."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED + code], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_the_watch_sees_connections(tmp_path: Path) -> None:
    code = (
        "import socket, contextlib\nwith contextlib.suppress(OSError): socket.create_connection(('127.0.0.1', 9), 0.1)"
    )
    assert "NETWORK socket.connect ('127.0.0.1', 9)" in watched(code, tmp_path)
    assert "NETWORK socket.getaddrinfo" in watched("import socket; socket.getaddrinfo('localhost', 80)", tmp_path)


def test_training_and_evaluation_stay_at_home(tmp_path: Path) -> None:
    """With TensorBoard, workers of their own and Gymnasium's registry; environments may of course do what they like."""
    code = f"""
from pgkit.cli import app
app(["train", "cartpole-actor-critic", *{TINY}, "--out", "run", "--quiet"], standalone_mode=False)
app(["evaluate", "run", "--episodes", "2"], standalone_mode=False)
app(["list", "envs"], standalone_mode=False)
"""
    assert "NETWORK" not in watched(code, tmp_path)
    assert (tmp_path / "run" / "result.json").is_file()

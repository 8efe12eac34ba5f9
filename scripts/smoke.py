"""What an installed pgkit must do on any system: python smoke.py VERSION, away from the source tree."""

import subprocess
import sys

import pgkit

if __name__ == "__main__":
    (expected,) = sys.argv[1:]
    printed = subprocess.run(
        [sys.executable, "-m", "pgkit", "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert printed == f"pgkit {expected}", printed
    result = pgkit.train(pgkit.load_config("cartpole-actor-critic", {"steps": 5_000, "seeds": 2}), "runs/smoke")
    resumed = pgkit.resume("runs/smoke", steps=6_000)
    assert resumed is not None
    assert [row["failed"] for row in (*result.table, *resumed.table)] == [False] * 4
    action, _ = pgkit.load("runs/smoke", member=0).predict([0.0, 0.0, 0.0, 0.0], deterministic=True)
    print(f"{printed} trains, resumes and acts: action {action}")

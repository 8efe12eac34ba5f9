"""Train a recorded population for some minutes, and check that memory, speed and file sizes do not drift.

``python scripts/soak.py --minutes 60`` prints a verdict and writes ``soak.json``; it exits with 1 if something drifts.
The name of a configuration may be followed by overrides, as for ``pgkit train``.

Speed is measured per CPU second, so that other work on the machine does not count; wall time is recorded, too. Memory
and speed are sampled; their slopes are least-squares fits over the samples after the first tenth, when caches and
buffers are full. A slope fails if the change over the whole time is larger than allowed *and* its 95 % interval leaves
out 0. Files grow with log rows, of which a run has a fixed number (``steps_per_log``), so their sizes must lie on a
straight line in the steps.
"""

import argparse
import json
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import linregress

import pgkit

Sample = dict[str, float]


class TimeOver(Exception):
    """The time is up."""


@dataclass
class Probe:
    """Takes a sample every few seconds, called after each update; raises :class:`TimeOver` at the end."""

    directory: Path
    seconds: float
    interval: float
    samples: list[Sample] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=time.process_time)

    def __call__(self, steps: float) -> None:
        now = time.perf_counter() - self.started
        last = self.samples[-1] if self.samples else {"seconds": 0.0, "steps": 0.0}
        if now - last["seconds"] >= self.interval:
            cpu, done = time.process_time(), steps - last["steps"]
            sample = {"seconds": now, "steps": steps, "rss_mib": resident() / 2**20}
            sample |= {
                "steps_per_second": done / (now - last["seconds"]),
                "steps_per_cpu_second": done / (cpu - self.cpu),
            }
            self.samples.append(sample | sizes(self.directory))
            Path("soak.json").write_text(json.dumps({"samples": self.samples}, indent=2))  # whatever ends the run
            self.cpu = cpu
        if now > self.seconds:
            raise TimeOver


def main() -> None:
    """Train, then print the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", default="cartpole-actor-critic")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--interval", type=float, default=0.0, help="seconds between samples; 0: 120 samples")
    parser.add_argument("--steps", type=int, default=120_000_000, help="of each member; sets how often rows are logged")
    parser.add_argument("--out", type=Path, default=Path("runs/soak"))
    arguments = parser.parse_args()
    seconds = 60 * arguments.minutes
    overrides = ["seeds=8", "checkpoint_points=100", f"steps={arguments.steps}", *arguments.overrides]
    config = pgkit.load_config(arguments.config, overrides)
    shutil.rmtree(arguments.out, ignore_errors=True)
    probe = Probe(arguments.out, seconds, arguments.interval or seconds / 120)
    with suppress(TimeOver):  # raised by the probe when the time is up
        pgkit.train(config, arguments.out, on_steps=probe)
        print("the steps ended before the time did: use more --steps", file=sys.stderr)
    verdict = judge(probe.samples)
    record = {"config": arguments.config, "overrides": overrides, "verdict": verdict, "samples": probe.samples}
    Path("soak.json").write_text(json.dumps(record, indent=2))
    for name, result in verdict.items():
        print(f"{name:<18} {'ok  ' if result['ok'] else 'FAIL'}  {result['text']}")
    sys.exit(not all(result["ok"] for result in verdict.values()))


def judge(samples: list[Sample]) -> dict[str, dict[str, Any]]:
    """A verdict on memory, speed, and the sizes of files."""
    kept = samples[len(samples) // 10 :]
    columns = {key: np.array([sample[key] for sample in kept]) for key in kept[0]}
    hours = columns["seconds"] / 3600
    verdict = {
        "memory": growth(hours, columns["rss_mib"], "MiB", allowed=0.05),
        "speed": growth(hours, columns["steps_per_cpu_second"], "steps per CPU second", allowed=-0.10),
    }
    rows = columns["steps"] / max(columns["steps"][-1], 1)
    for name in ("events_mib", "metrics_mib"):
        fit = linregress(rows, columns[name])
        grew = columns[name][-1] - columns[name][0]
        rest = float(np.abs(columns[name] - fit.intercept - fit.slope * rows).max())
        text = f"{columns[name][-1]:.2f} MiB at the end; off a straight line in steps by at most {rest:.3f} MiB"
        verdict[name.removesuffix("_mib")] = {"ok": bool(rest <= max(0.25 * grew, 0.5)), "text": text}
    largest, last = columns["checkpoints_mib"].max(), columns["checkpoints_mib"][-1]
    text = f"{last:.2f} MiB at the end, at most {largest:.2f} MiB"
    verdict["checkpoints"] = {
        "ok": bool(largest <= 2.0 * max(np.median(columns["checkpoints_mib"]), 0.01)),
        "text": text,
    }
    return verdict


def growth(hours: np.ndarray, values: np.ndarray, unit: str, allowed: float) -> dict[str, Any]:
    """Check that values grow by at most this share over the whole time; a negative share limits how they shrink."""
    fit = linregress(hours, values)
    change = fit.slope * (hours[-1] - hours[0]) / values.mean()
    clear = abs(fit.slope) > 1.96 * fit.stderr
    bad = clear and (change > allowed if allowed > 0 else change < allowed)
    slope = f"slope {fit.slope:+,.1f} +- {1.96 * fit.stderr:,.1f} {unit} per hour ({change:+.1%} over the time)"
    text = f"{values[0]:,.0f} -> {values[-1]:,.0f} {unit}, {slope}"
    return {"ok": not bad, "text": text, "slope_per_hour": float(fit.slope)}


def resident() -> int:
    """Resident memory of this process, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def sizes(directory: Path) -> Sample:
    """MiB of the run's event files, metrics and checkpoints."""

    def total(pattern: str) -> float:
        size = 0
        for path in directory.rglob(pattern):
            try:
                size += path.stat().st_size
            except FileNotFoundError:  # a checkpoint that was just replaced
                continue
        return size / 2**20

    return {
        "events_mib": total("events.out.tfevents.*"),
        "metrics_mib": total("metrics.parquet"),
        "checkpoints_mib": total("checkpoints/*"),
    }


if __name__ == "__main__":
    main()

"""Reading back what loggers wrote, each with its own library, or from its own format."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pgkit.logging import read_metrics


class Logged(NamedTuple):
    """What an outlet holds of one member: points (tag, steps, value) without times, results, and what it is called."""

    points: list[tuple[str, int, float]]
    final: dict[str, float]
    group: str
    lr: float


def token(directory: Path) -> str:
    """What the run is called in outlets."""
    return str(json.loads((directory / "loggers.json").read_text())["id"])


def logged(outlet: str, directory: Path, labels: list[str]) -> dict[str, Logged]:
    """What an outlet holds of each member of a run, by label."""
    read = {"wandb": from_wandb, "mlflow": from_mlflow, "trackio": from_trackio, "csv": from_csv}[outlet]
    return {label: read(directory, label) for label in labels}


def in_parquet(directory: Path) -> dict[str, list[tuple[str, int, float]]]:
    """The points of each member in ``metrics.parquet``, by label, but for the final ones, which are logged at once."""
    rows = read_metrics(directory / "metrics.parquet")
    rows = rows[rows["wall_time"] < rows["wall_time"].max()]
    names = ("label", "tag", "step", "value")
    points: dict[str, list[tuple[str, int, float]]] = {}
    for label, tag, step, value in zip(*(rows[name].tolist() for name in names), strict=True):
        points.setdefault(label, []).append((tag, step, value))
    return {label: without_times(of_label) for label, of_label in points.items()}


def without_times(points: list[tuple[str, int, float]]) -> list[tuple[str, int, float]]:
    return sorted(point for point in points if not point[0].startswith("time/"))


def from_wandb(directory: Path, label: str) -> Logged:
    (place,) = (directory / "wandb").glob(f"offline-run-*-{token(directory)}-{label}")  # one run, also if resumed
    (path,) = place.glob("*.wandb")
    points, summary, runs = [], {}, []
    for record in wandb_records(path.read_bytes()):
        if record.HasField("run"):
            runs.append(record.run)
        items = record.history.item if record.HasField("history") else ()
        row = {item.nested_key[0] if item.nested_key else item.key: json.loads(item.value_json) for item in items}
        points += [(tag, row["env_steps"], float(value)) for tag, value in row.items() if "/" in tag]
        for item in record.summary.update if record.HasField("summary") else ():
            summary[item.nested_key[0] if item.nested_key else item.key] = json.loads(item.value_json)
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    final = {tag: value for tag, value in summary.items() if tag.startswith("final/")}
    return Logged(without_times(points), final, runs[0].run_group, config["optimizer"]["lr"])


def wandb_records(data: bytes) -> Iterator[Any]:
    """The records of a ``.wandb`` file: blocks of 32 KiB as in LevelDB's log, behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    position, begun = 7, b""
    while position + 7 <= len(data):
        if (left := -position % 32768) < 7 and left:  # too little for the header of a part
            position += left
            continue
        length, form = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        begun += data[position + 7 : position + 7 + length]
        position += 7 + length
        if form in (1, 4):  # whole, or the last part
            yield Record.FromString(begun)
            begun = b""


def from_mlflow(directory: Path, label: str) -> Logged:
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("pgkit")
    assert experiment is not None
    name = f"{token(directory)}-{label}"
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`pgkit.id` = '{name}'")
    assert run.info.status == "FINISHED"
    history = [each for tag in run.data.metrics for each in client.get_metric_history(run.info.run_id, tag)]
    points = [(each.key, each.step, each.value) for each in history if not each.key.startswith("final/")]
    final = {each.key: each.value for each in history if each.key.startswith("final/")}
    return Logged(without_times(points), final, run.data.tags["group"], float(run.data.params["optimizer.lr"]))


def from_trackio(directory: Path, label: str) -> Logged:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = (run for run in trackio.Api().runs("pgkit") if run.name.endswith(f"-{token(directory)}-{label}"))
    assert run.config is not None
    points, final = [], {}
    for row in SQLiteStorage.get_logs("pgkit", run_id=run.id):
        points += [(tag, row["step"], value) for tag, value in row.items() if "/" in tag and "final/" not in tag]
        final |= {tag: value for tag, value in row.items() if tag.startswith("final/")}
    return Logged(without_times(points), final, run.config["_Group"], run.config["optimizer"]["lr"])


def from_csv(directory: Path, label: str) -> Logged:
    with open(directory / label / "metrics.csv", newline="", encoding="utf-8") as file:
        rows = [{tag: float(text) for tag, text in row.items() if text} for row in csv.DictReader(file)]
    points = [(tag, int(row["env_steps"]), value) for row in rows[:-1] for tag, value in row.items() if "/" in tag]
    final = {tag: value for tag, value in rows[-1].items() if tag.startswith("final/")}
    return Logged(without_times(points), final, "short", 0.01)  # a table of numbers has neither group nor settings

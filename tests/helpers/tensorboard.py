"""Reading TensorBoard event files back."""

from pathlib import Path


def events(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """The scalars of one TensorBoard run: (step, number) by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags}

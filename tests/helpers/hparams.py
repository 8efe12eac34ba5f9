"""Reading TensorBoard's HParams tab back."""

from pathlib import Path
from typing import Any

from tensorboard import context
from tensorboard.backend.event_processing import data_provider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every curve of a TensorBoard run."""
    events = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def hparams_tab(logdir: Path) -> tuple[Any, dict[str, Any]]:
    """What TensorBoard's HParams tab shows: the columns, and the sessions by name."""
    runs = EventMultiplexer()
    runs.AddRunsFromDirectory(str(logdir))
    runs.Reload()
    provider = data_provider.MultiplexerDataProvider(runs, str(logdir))
    backend = backend_context.Context(base_plugin.TBContext(data_provider=provider, logdir=str(logdir)))
    request_context = context.RequestContext()
    experiment = backend.experiment_from_metadata(
        request_context,
        "",
        include_metrics=True,
        hparams_run_to_tag_to_content=backend.hparams_metadata(request_context, ""),
        data_provider_hparams=backend.hparams_from_data_provider(request_context, "", limit=0),
    )
    statuses = [api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_UNKNOWN]
    request = api_pb2.ListSessionGroupsRequest(allowed_statuses=statuses, start_index=0, slice_size=100)
    response = list_session_groups.Handler(request_context, backend, "", request).run()
    return experiment, {group.sessions[0].name: group for group in response.session_groups}

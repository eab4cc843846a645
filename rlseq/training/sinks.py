"""Services that receive the metrics of a run: TensorBoard, Weights & Biases and trackio."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from rlseq.training.run_folder import Row, Sink

EXTRAS = {"wandb": "log", "trackio": "track"}  # the extra of `pip install rlseq[…]` by tracker


@cache
def _say_once(message: str) -> None:
    sys.stderr.write(f"rlseq: {message}\n")


def tensorboard(folder: Path, update: int) -> tuple[Sink, Callable[[], None]] | None:
    """Return a sink that writes TensorBoard files from an update on; None with a message if it is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        _say_once(
            "no TensorBoard files: pip install 'rlseq[log]' adds them; metrics.jsonl has the same numbers"
        )
        return None
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    place = folder / "tensorboard"
    place.mkdir(exist_ok=True)
    # Not torch's SummaryWriter, which puts the name of the machine into the name of the file.
    paths = (place / f"events.out.tfevents.{number:06d}.rlseq" for number in itertools.count())
    writer = RecordWriter(next(path for path in paths if not path.exists()).open("xb"))

    def write(**event: Any) -> None:
        writer.write(event_pb2.Event(wall_time=time.time(), **event).SerializeToString())

    def tell(row: Row) -> None:
        scalars = {name: value for name, value in row.items() if name != "update"}
        values = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        write(step=int(row["update"]), summary=summary_pb2.Summary(value=values))
        writer.flush()

    write(step=update + 1, file_version="brain.Event:2")
    # What an earlier file says of later steps is dropped by its readers.
    write(step=update + 1, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))
    return tell, writer.close


def service(name: str, extra: str) -> Any:
    """Import the module of a tracker of experiments, or refuse with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ValueError(f"{name} is not installed: pip install 'rlseq[{extra}]', or leave it out") from None


def tracked(service: Any, config: Mapping[str, Any], project: str) -> tuple[Sink, Callable[[], None]]:
    """Begin a run of Weights & Biases or of trackio, which has the same interface.

    Args:
        service: the module.
        config: the configuration of the run.
        project: the project that receives the metrics.
    """
    run = service.init(project=project, config=dict(config))
    return lambda row: run.log(row, step=int(row["update"])), run.finish

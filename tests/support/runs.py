"""What run folders hold, and whether a file is a picture."""

from __future__ import annotations

import struct
from pathlib import Path

from hpcfed.runs.read import REQUIRED_KEYS


def made_up_summary(**changes: object) -> dict:
    """A summary of a finished run, with changes."""
    fields: dict = dict.fromkeys(REQUIRED_KEYS, 1)
    fields |= {"algorithm": "feedsign", "model": "opt", "task": "sst2", "metric_name": "accuracy", "status": "finished"}
    fields |= {"fingerprint_base": "0" * 32, "fingerprint": "f" * 32, "metric_before": 0.5, "metric_after": 0.75}
    fields |= {"rounds": 100, "wire_payload_bytes": 400, "seconds": 12.5, "peak_memory_bytes": 10**9}
    return {**fields, **changes}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value), as TensorBoard reads them from its files in a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def is_picture(file: Path) -> bool:
    """A PNG of a decent size."""
    raw = file.read_bytes()
    width, height = struct.unpack(">II", raw[16:24])
    return raw.startswith(b"\x89PNG\r\n\x1a\n") and width > 800 and height > 800

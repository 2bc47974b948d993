"""The trackers of a run: TensorBoard, trackio and wandb, through accelerate."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from unstill.errors import UnstillError, first_line


PROJECT = "unstill"
log = logging.getLogger(__name__)
HINTS = {
    "wandb": "log in with 'wandb login', or set WANDB_MODE=offline",
    "trackio": "see that TRACKIO_DIR is a folder that can be written",
    "tensorboard": "see that the folder of the run can be written",
}


def check_installed(names: Sequence[str]) -> None:
    """Raises `UnstillError` for a tracker that is not installed."""
    installed = {str(tracker.value) for tracker in get_available_trackers()}
    for name in names:
        if name not in installed:
            raise UnstillError(
                f"The tracker {name} is not installed: pip install {name}, or leave it out of trackers."
            )


def start_trackers(
    accelerator: Accelerator, names: Sequence[str], out: Path, run_id: str, first: int, config: Mapping[str, Any]
) -> None:
    """
    Starts the trackers, whose `log` and `finish` accelerate then calls. Called by the main process alone.

    Args:
        accelerator: of the run.
        names: of the trackers.
        out: folder of the run; TensorBoard and wandb write below it, trackio into its own folder (TRACKIO_DIR).
        run_id: stays the same when the run is resumed, so that its curves continue.
        first: steps done. TensorBoard drops what an interrupted run logged after them.
        config: settings of the run by name, recorded when it begins.

    Raises:
        UnstillError: a tracker does not start, such as wandb without a login.
    """
    where: dict[str, dict[str, Any]] = {
        "tensorboard": {"logging_dir": out, "purge_step": first + 1},
        "trackio": {"name": f"{out.absolute().name}-{run_id}", "resume": "allow"},
        "wandb": {"dir": str(out), "name": out.absolute().name, "id": run_id, "resume": "allow"},
    }
    values = {k: v if isinstance(v, bool | int | float | str) else json.dumps(v) for k, v in config.items()}
    for name in names:
        try:
            tracker = LOGGER_TYPE_TO_CLASS[name](PROJECT, **where[name])
            tracker.start()
            accelerator.trackers.append(tracker)
            if first == 0:
                tracker.store_init_configuration(values)
        except Exception as error:  # each library has its own
            raise UnstillError(
                f"The tracker {name} does not start ({first_line(error)}); {HINTS[name]}, or leave it out of trackers."
            ) from error


def end_trackers(accelerator: Accelerator) -> None:
    """Writes what the trackers still hold. One that fails now must not take the result of a training with it."""
    for tracker in accelerator.trackers:
        try:
            tracker.finish()
        except Exception as error:
            log.warning("The tracker %s did not end well: %s", tracker.name, first_line(error))
    accelerator.trackers = []

"""Trackers: what they are given, at the beginning, after a stop and after a kill, and those that do not start."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate import tracking
from accelerate.utils import LoggerType

from tests.training.conftest import silent
from unstill.errors import UnstillError
from unstill.training import trackers
from unstill.training.recipe import Recipe
from unstill.training.trainer import train


Make = Callable[..., Recipe]


class Tracker:
    """In place of wandb's: writes down what it is told."""

    name = "wandb"
    started: list["Tracker"] = []
    fault: Exception | None = None
    fault_at_end: Exception | None = None

    def __init__(self, project: str, **settings: Any) -> None:
        self.project, self.settings = project, settings
        self.config: dict[str, Any] = {}
        self.steps: list[int] = []
        self.values: dict[str, float] = {}
        self.ended = 0

    def start(self) -> None:
        if self.fault is not None:
            raise self.fault
        self.started.append(self)

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.config = values

    def log(self, values: dict[str, float], step: int | None = None, **_: Any) -> None:
        assert step is not None and not self.ended
        self.steps.append(step)
        self.values |= values

    def finish(self) -> None:
        self.ended += 1
        if self.fault_at_end is not None:
            raise self.fault_at_end


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> type[Tracker]:
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Tracker)
    monkeypatch.setattr(trackers, "get_available_trackers", lambda: [LoggerType.WANDB, LoggerType.TENSORBOARD])
    monkeypatch.setattr(Tracker, "started", [])
    return Tracker


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_ends_its_tracker_and_goes_on_with_the_same_one(
    make: Make, tmp_path: Path, wandb: type[Tracker], number: signal.Signals
) -> None:
    recipe = make(trackers=["wandb"], train__steps=4, validate={"every": 4, "videos": 0, "clips": 0})

    def stop(stage: str, done: int, total: int, figures: str) -> None:
        if (stage, done) == ("training", 3):
            signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path, stop)
    train(recipe, tmp_path, silent, lambda pipe, step, folder: {"motion": 0.5})
    stopped, resumed = wandb.started
    assert stopped.project == "unstill" and stopped.settings["dir"] == str(tmp_path)
    assert resumed.settings == stopped.settings and len(stopped.settings["id"]) == 8
    assert (stopped.steps, resumed.steps) == ([1, 2, 3], [4, 4])
    assert set(resumed.values) == {"loss", "learning_rate", "gradient_norm", "motion"}
    assert (stopped.ended, resumed.ended) == (1, 1)
    assert stopped.config["train.steps"] == 4 and stopped.config["data.size"] == "null" and not resumed.config


def test_another_run_in_the_same_folder_has_another_id(make: Make, tmp_path: Path, wandb: type[Tracker]) -> None:
    for _ in range(2):
        with pytest.raises(UnstillError, match="no gradient checkpointing"):
            train(make(trackers=["wandb"], train__gradient_checkpointing=True), tmp_path, silent)
    first, second = wandb.started
    assert first.settings["id"] != second.settings["id"] and (first.ended, second.ended) == (1, 1)


def test_a_tracker_that_does_not_start_is_said_in_a_sentence_before_anything_is_encoded(
    make: Make, tmp_path: Path, wandb: type[Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb, "fault", RuntimeError("No API key configured.\nUse wandb login."))
    recipe = make(trackers=["tensorboard", "wandb"], data__cache_folder=str(tmp_path / "cache"))
    with pytest.raises(UnstillError) as error:
        train(recipe, tmp_path / "run", silent)
    assert str(error.value) == (
        "The tracker wandb does not start (No API key configured); log in with 'wandb login', or set "
        "WANDB_MODE=offline, or leave it out of trackers."
    )
    assert not (tmp_path / "cache").exists() and not (tmp_path / "run" / "pipeline").exists()


def test_a_tracker_that_fails_at_the_end_takes_nothing_with_it(
    make: Make, tmp_path: Path, wandb: type[Tracker], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wandb, "fault_at_end", ConnectionError("no route to host"))
    result = train(make(trackers=["wandb"], train__steps=1), tmp_path, silent)
    assert result is not None and result.pipeline.is_dir()
    assert "wandb did not end well: no route to host" in caplog.text


def test_tensorboard_has_every_step_once_after_a_kill(make: Make, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def killed(stage: str, done: int, total: int, figures: str) -> None:
        if (stage, done) == ("training", 4):
            raise KeyboardInterrupt  # before the checkpoint of step 4

    recipe = make(trackers=["tensorboard"], train__steps=5)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path, killed)
    result = train(recipe, tmp_path, silent)
    assert result is not None and len(result.losses) == 3
    events = EventAccumulator(str(tmp_path / "unstill"))
    events.Reload()
    seen = [(one.step, one.value) for one in events.Scalars("loss")]
    assert [step for step, _ in seen] == [1, 2, 3, 4, 5]
    assert [value for _, value in seen][2:] == pytest.approx(result.losses, rel=1e-6)

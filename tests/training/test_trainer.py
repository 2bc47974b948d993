"""The trainer: resumed runs, several processes, what comes out, and what goes wrong."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import unstill
from tests.processes import finish, kill, launch_two
from tests.training.conftest import silent, start
from unstill.data.loading import index_and_epoch
from unstill.data.sources import Sample, SourceSettings, VideoSource
from unstill.data.video_index import Listing, Texts
from unstill.errors import Terminated, UnstillError
from unstill.training.checkpoints import same_run
from unstill.training.encoded_dataset import Encoder
from unstill.training.recipe import Recipe
from unstill.training.setup import check_inputs, warn_of_repetition
from unstill.training.trainer import learning_rate, train


Make = Callable[..., Recipe]
WEIGHTS = "pipeline/transformer/diffusion_pytorch_model.safetensors"


def losses(out: Path) -> list[float]:
    with (out / "loss.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def undisturbed(make: Make, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The same run in one process and in two."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for processes in (1, 2):
        finish(start(make(), folder / str(processes), processes))
    return {processes: folder / str(processes) for processes in (1, 2)}


def test_two_processes_train_as_one_does(undisturbed: dict[int, Path]) -> None:
    one, two = losses(undisturbed[1]), losses(undisturbed[2])
    assert len(one) == 8
    torch.testing.assert_close(torch.tensor(one), torch.tensor(two), rtol=1e-5, atol=0)


def test_so_do_two_under_accelerate_launch(make: Make, undisturbed: dict[int, Path], tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(yaml.safe_dump(make().model_dump(mode="json", by_alias=True)))
    launch_two(tmp_path / "logs", "train", recipe, "--out", tmp_path / "run")
    made, known = (torch.tensor(losses(out)) for out in (tmp_path / "run", undisturbed[2]))
    torch.testing.assert_close(made, known, rtol=1e-5, atol=0)


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_at_random_steps_and_resumed_it_ends_bit_for_bit_as_undisturbed(
    make: Make, undisturbed: dict[int, Path], tmp_path: Path, processes: int
) -> None:
    draw, out = random.Random(processes), tmp_path / "run"
    for low, high in ((1, 3), (4, 7)):
        steps = draw.randint(low, high)
        victims = start(make(), out, processes)
        until = time.monotonic() + 120
        while not (out / "loss.csv").exists() or len((out / "loss.csv").read_text().splitlines()) <= steps:
            assert time.monotonic() < until and all(v.is_alive() for v in victims)
            time.sleep(0.002)
        kill(victims)
    assert not (out / "pipeline").exists()
    finish(start(make(), out, processes))
    whole = undisturbed[processes]
    assert (out / "loss.csv").read_bytes() == (whole / "loss.csv").read_bytes()
    assert (out / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert [p.name for p in sorted((out / "checkpoints").iterdir())] == ["0000006", "0000008"]


def test_a_run_of_two_processes_goes_on_in_one(make: Make, undisturbed: dict[int, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    finish(start(make(train__steps=4), out, 2))
    train(make(), out, silent)
    torch.testing.assert_close(torch.tensor(losses(out)), torch.tensor(losses(undisturbed[1])), rtol=1e-5, atol=0)


def test_accumulated_batches_are_whole_ones(make: Make, undisturbed: dict[int, Path], tmp_path: Path) -> None:
    train(make(train__batch_per_device=1, train__steps=4), tmp_path, silent)
    whole = losses(undisturbed[1])[:4]
    torch.testing.assert_close(torch.tensor(losses(tmp_path)), torch.tensor(whole), rtol=1e-5, atol=0)


def test_the_result_is_a_model_that_load_opens(make: Make, pico: Path, undisturbed: dict[int, Path]) -> None:
    before, after = unstill.load(str(pico)).transformer, unstill.load(str(undisturbed[1] / "pipeline")).transformer
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 2
    # The average, not the last weights.
    from safetensors.torch import load_file

    newest = undisturbed[1] / "checkpoints" / "0000008"
    average = load_file(newest / "average.safetensors")
    last = load_file(newest / "weights.safetensors")
    state = after.state_dict()
    assert all(torch.equal(state[k], v) for k, v in average.items())
    assert any(not torch.equal(state[k], v) for k, v in last.items())


def test_training_lowers_the_loss(make: Make, tmp_path: Path) -> None:
    """Against the same clips at the same noise without learning."""
    found = {}
    for rate in (1e-12, 1e-2):
        recipe = make(train__steps=16, train__learning_rate=rate, save__every=100, train__ema=None)
        result = train(recipe, tmp_path / str(rate), silent)
        assert result is not None and len(result.losses) == 16
        assert 0 <= result.waiting < 1 and result.clips_per_second > 0
        found[rate] = result.losses
    assert found[1e-2][0] == found[1e-12][0]
    assert sum(found[1e-2][8:]) < 0.8 * sum(found[1e-12][8:])


def test_a_lora_is_saved_alone_and_merged(make: Make, pico: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    recipe = make(lora={"rank": 2}, train__steps=2, train__learning_rate=0.1, train__ema=None)
    train(recipe, tmp_path, silent)
    added = load_file(tmp_path / "lora.safetensors")
    assert all("lora_" in key for key in added) and any(key.startswith("transformer.blocks.0.qkv") for key in added)
    before, after = (unstill.load(str(f)).transformer.state_dict() for f in (pico, tmp_path / "pipeline"))
    assert before.keys() == after.keys()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved == {
        key.removeprefix("transformer.").rpartition(".lora_A")[0] + ".weight" for key in added if "lora_A" in key
    }
    down, up = added["transformer.blocks.0.qkv.lora_A.weight"], added["transformer.blocks.0.qkv.lora_B.weight"]
    torch.testing.assert_close(after["blocks.0.qkv.weight"], before["blocks.0.qkv.weight"] + up @ down)  # alpha = rank


def test_without_a_cache_every_epoch_has_other_clips(make: Make, tmp_path: Path) -> None:
    result = train(make(data__cache=False, data__clips=4, train__steps=2), tmp_path, silent)
    assert result is not None and not (tmp_path / "latents").exists()


def test_clips_encoded_ahead_are_those_encoded_by_the_training_process(make: Make, tmp_path: Path) -> None:
    recipe = make(data__cache=False, data__workers=1, train__steps=6)
    encoders: list[int] = []

    def stop(stage: str, done: int, total: int, figures: str) -> None:
        if (stage, done) == ("training", 3):
            signal.raise_signal(signal.SIGINT)

    whole = Encoder.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Encoder, "__call__", lambda *given: (encoders.append(os.getpid()), whole(*given))[1])
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "ahead", stop)
    assert len(encoders) == 1  # the first clip, whose shapes are needed; the others are encoded by the other process
    train(recipe, tmp_path / "ahead", silent)
    train(make(data__cache=False, train__steps=6), tmp_path / "itself", silent)
    for name in ("loss.csv", WEIGHTS):
        assert (tmp_path / "ahead" / name).read_bytes() == (tmp_path / "itself" / name).read_bytes()
    assert losses(tmp_path / "ahead")[:3] != losses(tmp_path / "ahead")[3:]  # the second epoch has other clips


def test_the_learning_rate_warms_up_and_falls(make: Make) -> None:
    recipe = make(train__steps=10, train__warmup=2, train__decay=0.5, train__learning_rate=1.0)
    rates = [round(learning_rate(recipe, step), 6) for step in range(10)]
    assert rates == [0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]


def test_validation_sees_the_average_and_changes_nothing(
    make: Make, undisturbed: dict[int, Path], tmp_path: Path
) -> None:
    seen = []

    def look(pipe: object, step: int, folder: Path) -> dict[str, float]:
        torch.rand(3)  # whatever it draws
        if step == 4:
            raise UnstillError("this model needs a prompt")
        seen.append((step, next(iter(pipe.transformer.parameters())).clone()))  # type: ignore[attr-defined]
        return {"motion": 0.5}

    train(make(validate={"every": 4}), tmp_path, silent, look)
    assert [step for step, _ in seen] == [8]
    assert (tmp_path / "loss.csv").read_bytes() == (undisturbed[1] / "loss.csv").read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "validation" / "figures.jsonl").read_text().splitlines()]
    assert rows == [{"step": 4}, {"step": 8, "motion": 0.5}]
    finished = unstill.load(str(tmp_path / "pipeline")).transformer
    assert torch.equal(seen[0][1], next(iter(finished.parameters())))


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_a_number_stops_and_keeps_the_last_good_state(make: Make, tmp_path: Path) -> None:
    recipe = make(save__every=1)
    far = recipe.train.model_copy(update={"learning_rate": 1e30})  # beyond what a recipe may say
    recipe = recipe.model_copy(update={"train": far})
    with pytest.raises(UnstillError, match=r"at step 2 is not a number \(world clip \d+, .*0000001. Lower"):
        train(recipe, tmp_path, silent)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["0000001"]
    assert len(losses(tmp_path)) == 1 and not (tmp_path / "pipeline").exists()


def test_at_the_first_step_the_learning_rate_is_not_blamed(make: Make, pico: Path, tmp_path: Path) -> None:
    pipe = unstill.load(str(pico))
    with torch.no_grad():
        pipe.transformer.blocks[0].qkv.weight[0, 0] = torch.nan
    pipe.save_pretrained(tmp_path / "broken")
    with pytest.raises(UnstillError, match="step 1 is not a number") as caught:
        train(make(model=str(tmp_path / "broken")), tmp_path / "weights", silent)
    assert "weights of the model" in str(caught.value) and "blocks.0.qkv.weight" in str(caught.value)
    assert "learning_rate" not in str(caught.value)


def test_clips_are_named_where_the_weights_are_fine(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unstill.families.pico import PicoTraining

    encode = PicoTraining.encode
    monkeypatch.setattr(
        PicoTraining,
        "encode",
        lambda *given: {k: v * torch.nan if k == "image" else v for k, v in encode(*given).items()},
    )
    with pytest.raises(UnstillError, match=r"step 1 is not a number \(world clip .* look at those clips") as caught:
        train(make(data__cache=False), tmp_path, silent)
    assert "learning_rate" not in str(caught.value)


def test_the_clip_is_named_whose_error_is_not_a_number(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    third, _ = index_and_epoch(4 + 2, 12, 0)  # of the second step
    whole = Encoder.__call__

    def spoilt(self: Encoder, sample: Sample, generator: torch.Generator) -> dict[str, torch.Tensor]:
        factor = torch.nan if sample.name == f"world clip {third}" else 1.0
        return {name: value * factor for name, value in whole(self, sample, generator).items()}

    monkeypatch.setattr(Encoder, "__call__", spoilt)
    with pytest.raises(UnstillError, match=rf"step 2 is not a number \(world clip {third}\)"):
        train(make(data__cache=False, train__batch_per_device=1), tmp_path, silent)
    assert len(losses(tmp_path)) == 1


def test_a_gradient_that_is_not_a_number_changes_nothing(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unstill.training import loss

    whole = loss.denoising

    def rooted(*given: torch.Tensor) -> torch.Tensor:
        error = whole(*given)
        return error + (error - error.detach()).abs().sqrt()  # 0, with an infinite slope

    monkeypatch.setattr(loss, "denoising", rooted)
    with pytest.raises(UnstillError, match="The gradient at step 1 is not a number .* no checkpoint had been written"):
        train(make(), tmp_path, silent)


def test_a_full_disk_loses_nothing_and_leaves_nothing_half_written(
    make: Make, undisturbed: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unstill.training import checkpoints

    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 749376 vs 749264")

    whole = checkpoints.save_file
    monkeypatch.setattr(
        checkpoints, "save_file", lambda state, file: (full if "0000004" in str(file) else whole)(state, file)
    )
    with pytest.raises(
        UnstillError, match="0000004 cannot be written .*free some space.*; the last complete checkpoint is .*0000002"
    ):
        train(make(), tmp_path, silent)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["0000002"]
    monkeypatch.undo()
    (tmp_path / "checkpoints" / ".unstill-0123456789abcdef").mkdir()  # what a kill leaves
    (tmp_path / "checkpoints" / ".unstill-0123456789abcdef.lock").touch()
    train(make(), tmp_path, silent)
    assert (tmp_path / WEIGHTS).read_bytes() == (undisturbed[1] / WEIGHTS).read_bytes()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["0000006", "0000008"]


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_ctrl_c_keeps_what_was_done(
    make: Make, undisturbed: dict[int, Path], tmp_path: Path, number: signal.Signals, kind: type[KeyboardInterrupt]
) -> None:
    def report(stage: str, done: int, total: int, figures: str) -> None:
        if (stage, done) == ("training", 3):
            signal.raise_signal(number)

    validated: list[int] = []

    def look(pipe: object, step: int, folder: Path) -> dict[str, float]:
        validated.append(step)
        return {"motion": 0.5}

    recipe = make(validate={"every": 3})
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt, match="Stopped after 3 steps, which are saved") as stop:
        train(recipe, tmp_path, report, look)
    assert validated == []  # the stop does not wait for the validation, which is made when the run is resumed
    assert stop.type is kind  # the command's exit code goes by it
    assert signal.getsignal(number) is before
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == ["0000002", "0000003"]
    train(recipe, tmp_path, silent, look)
    assert validated == [3, 6, 8]
    assert (tmp_path / "loss.csv").read_bytes() == (undisturbed[1] / "loss.csv").read_bytes()
    assert (tmp_path / WEIGHTS).read_bytes() == (undisturbed[1] / WEIGHTS).read_bytes()


def test_sigterm_to_all_processes_of_a_run_with_data_workers(
    make: Make, undisturbed: dict[int, Path], tmp_path: Path
) -> None:
    recipe, out = make(data__workers=1), tmp_path / "run"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json", by_alias=True)))
    words = [sys.executable, "-m", "unstill", "train", str(tmp_path / "mine.yaml"), "--out", str(out)]
    with subprocess.Popen(words, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 120
        while not (out / "loss.csv").exists() or len((out / "loss.csv").read_text().splitlines()) < 2:
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(timeout=120) == 143
    assert not (out / "pipeline").exists()
    train(recipe, out, silent)
    assert (out / "loss.csv").read_bytes() == (undisturbed[1] / "loss.csv").read_bytes()
    assert (out / WEIGHTS).read_bytes() == (undisturbed[1] / WEIGHTS).read_bytes()


def test_a_second_ctrl_c_stops_at_once(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unstill.training.interrupts.SECONDS_APART", -1.0)

    def report(stage: str, done: int, total: int, figures: str) -> None:
        if (stage, done) == ("training", 3):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="resumes from the last checkpoint"):
        train(make(), tmp_path, report)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["0000002"]


def test_a_folder_in_which_nothing_was_kept_is_free(make: Make, tmp_path: Path) -> None:
    with pytest.raises(UnstillError, match="no linear layers"):
        train(make(lora={"targets": ["to_q"]}), tmp_path, silent)
    train(make(train__steps=2), tmp_path, silent)
    with pytest.raises(UnstillError, match="holds 2 steps of training already, more than train.steps, which is 1"):
        train(make(train__steps=1), tmp_path, silent)


@pytest.mark.parametrize("name", ["pipeline", "run.json", "checkpoints", "loss.csv"])
def test_what_a_run_did_not_write_stops_it_before_anything_is_written(make: Make, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.tex").write_text("mine")
    (tmp_path / "mine.yaml").touch()
    with pytest.raises(UnstillError, match=f"{name} exists already.*never overwritten"):
        train(make(), tmp_path, silent)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == sorted(
        ["mine.yaml", name, f"{name}/thesis.tex"]
    )


def test_a_second_process_in_the_same_folder_is_refused(
    make: Make, undisturbed: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unstill.training.setup.PATIENCE", 0.1)
    refused = []

    def report(stage: str, done: int, total: int, figures: str) -> None:
        if (stage, done) == ("training", 3):
            with pytest.raises(UnstillError, match="Another process is training in") as found:
                train(make(), tmp_path, silent)
            refused.append(found)

    train(make(), tmp_path, report)
    assert len(refused) == 1
    assert (tmp_path / "loss.csv").read_bytes() == (undisturbed[1] / "loss.csv").read_bytes()
    assert not list(tmp_path.rglob(".unstill*"))


@pytest.mark.parametrize("after", [4, 8])
def test_killed_between_checkpoint_and_validation_that_is_made_up_for_once(
    make: Make, tmp_path: Path, after: int
) -> None:
    recipe = make(validate={"every": 4, "videos": 0, "clips": 0})
    looked = []

    def killed(pipe: object, step: int, folder: Path) -> dict[str, float]:
        if step == after:
            raise KeyboardInterrupt
        return {"motion": float(step)}

    def look(pipe: object, step: int, folder: Path) -> dict[str, float]:
        looked.append(step)
        return {"motion": float(step)}

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path, silent, killed)
    train(recipe, tmp_path, silent, look)
    train(recipe, tmp_path, silent, look)
    rows = [json.loads(line) for line in (tmp_path / "validation" / "figures.jsonl").read_text().splitlines()]
    assert rows == [{"step": 4, "motion": 4.0}, {"step": 8, "motion": 8.0}]
    assert looked == [step for step in (4, 8) if step >= after]


def test_other_videos_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    same_run(tmp_path, {"seed": 0}, "model", "a")
    (tmp_path / "checkpoints" / "0000001").mkdir(parents=True)
    for clips, warned in (("a", 0), ("a", 0), ("b", 1), ("b", 1)):
        same_run(tmp_path, {"seed": 0}, "model", clips)
        assert len(caplog.records) == warned


def test_many_passes_over_few_clips_are_warned_of(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    settings = SourceSettings(kind="folder", path="clips", clips_per_video=2)
    source = VideoSource(settings, Listing(Path("clips"), Texts(["a.mp4", "b.mp4", "c.mp4"]), Texts([""] * 3)))
    for changes, warned in (
        ({"train__steps": 151}, True),
        ({"train__steps": 150}, False),  # 100 passes
        ({"train__steps": 151, "data__cache": False}, False),  # other clips in every pass
    ):
        caplog.clear()
        warn_of_repetition(make(**changes), source)
        said = "repeats the same 6 clips 101 times; take more clips of each video (data.clips_per_video, here 2)"
        assert (said in caplog.text) == warned and len(caplog.records) == warned


@pytest.mark.parametrize("key", ["motion_bucket", "fps_condition"])
def test_a_setting_of_an_input_that_the_network_lacks(make: Make, key: str) -> None:
    with pytest.raises(UnstillError, match=f"{key} is 20, but this model has no such input; leave {key} out"):
        check_inputs(make(**{key: 20}), {"latents": torch.zeros(1)})
    check_inputs(make(**{key: 20}), {"motion": torch.zeros(()), "fps": torch.zeros(())})


def test_a_batch_that_cannot_be_shared(make: Make, tmp_path: Path) -> None:
    with pytest.raises(
        UnstillError, match=r"train.batch is 4 clips, .* \(processes: 1, clips in each: 3\); make it a multiple of 3,"
    ):
        train(make(train__batch_per_device=3), tmp_path, silent)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["accelerator", "cpu"])
def test_a_batch_that_does_not_fit_into_memory(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("unstill.training.loss.denoising", full)
    for at_once, says in (
        (4, "4 clips at a time do not fit .* lower train.batch_per_device"),
        (1, "One clip at a time does not fit .* lower data.size or data.frames"),
    ):
        with pytest.raises(UnstillError, match=says):
            train(make(train__batch_per_device=at_once), tmp_path, silent)
    monkeypatch.setattr("unstill.training.encoded_dataset.Encoder.__call__", full)
    with pytest.raises(UnstillError, match="A clip does not fit .* when it is encoded"):
        train(make(data__cache=False), tmp_path, silent)


def test_the_folder_of_another_run_or_model(
    make: Make, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    train(make(train__steps=1), tmp_path, silent)
    with pytest.raises(UnstillError, match="a run with another condition.maximum and seed; choose another --out"):
        train(make(condition__maximum=2.0, seed=1), tmp_path, silent)
    from tests import pipelines as tiny

    other = tiny.pico(attention_head_dim=32)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(UnstillError, match="holds a run of another model"):
        train(make(model=str(tmp_path / "other")), tmp_path, silent)


def test_weights_of_another_model_to_begin_with(make: Make, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"down_blocks.0.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(UnstillError, match="other.safetensors"):
        train(make(checkpoint=str(tmp_path / "other.safetensors")), tmp_path / "run", silent)


def test_a_damaged_checkpoint(make: Make, tmp_path: Path) -> None:
    train(make(train__steps=2), tmp_path, silent)
    file = tmp_path / "checkpoints" / "0000002" / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UnstillError, match="0000002 cannot be resumed .* delete it"):
        train(make(), tmp_path, silent)


class Code:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("/tmp/unstill-was-run",)


def spoil(folder: Path, name: str) -> None:
    """Damages one file of a checkpoint of 2 steps, or of the run around it."""
    checkpoint = folder / "checkpoints" / "0000002"
    if name == "code":
        torch.save({"state": Code(), "param_groups": []}, checkpoint / "optimizer.bin")
    elif name == "shape":
        state = torch.load(checkpoint / "optimizer.bin", weights_only=True)
        state["state"][0]["exp_avg"] = torch.zeros(7)
        torch.save(state, checkpoint / "optimizer.bin")
    elif name == "nan":
        state = torch.load(checkpoint / "optimizer.bin", weights_only=True)
        state["state"][0]["exp_avg"].fill_(float("nan"))
        torch.save(state, checkpoint / "optimizer.bin")
    elif name == "average":
        values = load_file(checkpoint / "average.safetensors")
        save_file({k: v * float("inf") for k, v in values.items()}, checkpoint / "average.safetensors")
    elif name == "other average":
        save_file({"x": torch.zeros(2)}, checkpoint / "average.safetensors")
    else:
        file, content = name.split("=")
        (folder / file).write_text(content)


STEP = "checkpoints/0000002/step.json"
SPOILT = ["code", "shape", "nan", "average", "other average", "run.json=null", "run.json={", 'run.json={"model": 1}']
SPOILT += [f"{STEP}={text}" for text in ("null", '{"step": -1}', '{"step": "2"}', '{"step": 1e308}', '{"step": 3}')]
SPOILT += ["loss.csv=step,loss", "loss.csv=\xff", "loss.csv=step,loss,learning_rate,gradient_norm\n1,nan,1,1\n"]


@pytest.mark.parametrize("name", SPOILT)
def test_what_a_run_reads_back_is_checked(make: Make, two_steps: Path, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(two_steps, run)
    spoil(run, name)
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    with pytest.raises(
        UnstillError,
        match="run.json is damaged|cannot be resumed|loss.csv is|unstill wrote it: it is never overwritten",
    ) as error:
        train(make(), run, silent)
    assert "\n" not in str(error.value) and not Path("/tmp/unstill-was-run").exists()
    changed = [file.name for file, content in before.items() if not file.exists() or file.read_bytes() != content]
    assert changed in ([], ["run.json"])


@pytest.fixture(scope="module")
def two_steps(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("two") / "run"
    train(make(train__steps=2), folder, silent)
    return folder


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data__videos": "/nowhere/clips"}, "/nowhere/clips does not exist; pass a folder of videos"),
        ({"data__videos": None}, "names no clips: give data.videos"),
        ({"data__frames": 100}, "at most 8 frames of 64x64, not 100 of 64x64; change data.frames"),
        ({"data__size": "32x32"}, "at most 8 frames of 64x64, not 2 of 32x32"),
        ({"model": "svdd"}, "did you mean 'svd'"),
        ({"train__gradient_checkpointing": True}, "PicoTransformer has no gradient checkpointing"),
        ({"lora": {"targets": ["qkv", "to_q"]}}, "no linear layers called 'to_q'; name some .* such as .*qkv"),
        ({"lora": {"targets": ["to_q"]}}, "no linear layers called 'to_q'; name some in lora.targets"),
        ({"trackers": ["wandb"]}, "wandb is not installed"),
        (
            {"condition__preset": "paper", "condition__maximum": None},
            "no preset 'paper' for pico models; give maximum",
        ),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(
    make: Make, tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UnstillError, match=sentence):
        train(make(**changes), tmp_path, silent)


def test_what_a_user_puts_into_a_run_folder_stays(make: Make, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(make(train__steps=4, save__every=1, save__keep=1), run, silent)
    checkpoints = run / "checkpoints"
    shutil.copytree(checkpoints / "0000004", checkpoints / "0000004-good")
    (checkpoints / "2024 notes").mkdir()
    train(make(train__steps=6, save__every=1, save__keep=1), run, silent)  # the earlier pipeline makes way
    assert sorted(p.name for p in checkpoints.iterdir()) == ["0000004-good", "0000006", "2024 notes"]
    (checkpoints / "0000006" / "notes.txt").write_text("mine")  # no longer what this program wrote there
    train(make(train__steps=8, save__every=1, save__keep=1), run, silent)
    assert sorted(p.name for p in checkpoints.glob("0*")) == ["0000004-good", "0000006", "0000008"]


def put(path: Path, content: str = "mine") -> None:
    """A user's own file, or a folder with one, in place of what is there."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if path.suffix:
        path.write_text(content)
    else:
        path.mkdir()
        (path / "model_index.json").write_text(content)


@pytest.mark.parametrize("name", ["pipeline", "lora.safetensors", "made.json", "loss.csv", "pipeline/mine.txt"])
def test_a_users_own_files_of_our_names_in_a_run_folder_are_kept(
    make: Make, two_steps: Path, tmp_path: Path, name: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(two_steps, run)
    put(run / name)
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    with pytest.raises(UnstillError, match="never overwritten|no loss curve"):
        train(make(train__steps=3), run, silent)
    (run / "run.json").write_bytes(before[run / "run.json"])
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def test_notes_below_a_loss_curve_are_not_cut_off(make: Make, two_steps: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(two_steps, run)
    with (run / "loss.csv").open("a") as file:
        file.write("my notes\n")
    with pytest.raises(UnstillError, match="is damaged in row 3; move it away"):
        train(make(train__steps=3), run, silent)
    assert (run / "loss.csv").read_text().endswith("my notes\n")


def test_a_users_own_file_in_place_of_a_checkpoint_or_a_validation(
    make: Make, two_steps: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(two_steps, run)
    put(run / "checkpoints" / "0000004.x")
    (run / "checkpoints" / "0000004.x").rename(run / "checkpoints" / "0000004")  # a file
    with pytest.raises(UnstillError, match="0000004 exists already: it is never overwritten"):
        train(make(train__steps=4), run, silent)
    assert (run / "checkpoints" / "0000004").read_text() == "mine"
    (run / "validation").mkdir()
    (run / "validation" / "figures.jsonl").write_text("my notes")
    with pytest.raises(UnstillError, match="figures.jsonl is damaged"):
        train(make(train__steps=4, validate={"every": 4}), run, silent)
    assert (run / "validation" / "figures.jsonl").read_text() == "my notes"

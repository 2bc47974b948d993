"""Methods act in their own pipeline only: not in one that shares its scheduler or networks, nor in a copy of it."""

import copy
import pickle
import threading
from typing import Any

import diffusers
import pytest
import torch

import unstill
from tests.hooks.test_apply import Add, Condition, Constant, Fill, Spy, plain_sample
from tests.pipelines import CASES, pipeline, sample
from unstill.errors import UnstillError
from unstill.hooks.caller import hooks_of
from unstill.hooks.scheduler_hooks import is_hooked
from unstill.methods.base import Method


SHARING = "WanPipeline", "CogVideoXPipeline", "AnimateDiffPipeline", "StableVideoDiffusionPipeline"
sharing = pytest.mark.parametrize("name", SHARING)
CONDITIONED = "WanImageToVideoPipeline", "StableVideoDiffusionPipeline"


def methods(name: str) -> tuple[Method, ...]:
    return unstill.EarlyStart(**CASES[name].level), Fill(value=0.2), Add(value=0.1)


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe(name: str) -> Any:
    return copy.copy(pipeline(name))


WAYS = {
    "from_pipe": lambda pipe: type(pipeline_of(pipe)).from_pipe(pipe),
    "components": lambda pipe: type(pipe)(**pipe.components),
    "scheduler": lambda pipe: type(pipe)(**{**pipe.components, "scheduler": pipe.scheduler}),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda pipe: pickle.loads(pickle.dumps(pipe)),
}


def pipeline_of(pipe: Any) -> Any:
    return pipeline(type(pipe).__name__)


@sharing
@pytest.mark.parametrize("way", WAYS)
def test_a_pipeline_made_from_one_with_methods_has_none(name: str, way: str, pipe: Any) -> None:
    with unstill.apply(pipe, *methods(name)):
        improved = sample(CASES[name], pipe)
        other = quiet(WAYS[way](pipe))
        assert type(other) is type(pipeline(name)) and hooks_of(other) is None
        assert is_hooked(other.scheduler) == (way == "scheduler")  # which was passed on by hand
        assert torch.equal(sample(CASES[name], other), plain_sample(name))
        assert torch.equal(sample(CASES[name], pipe), improved)
        with unstill.apply(other, *methods(name)):  # it can have methods of its own
            assert torch.equal(sample(CASES[name], other), improved)
    assert type(other) is type(pipe) is type(pipeline(name))
    assert not is_hooked(other.scheduler)
    for plain in (other, pipe):
        assert torch.equal(sample(CASES[name], plain), plain_sample(name))


@sharing
def test_an_interrupted_first_call_leaves_no_state(name: str, pipe: Any) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with unstill.apply(pipe, *methods(name)) as handle:
        other = quiet(type(pipe)(**{**pipe.components, "scheduler": pipe.scheduler}))
        with pytest.raises(KeyboardInterrupt):
            sample(CASES[name], pipe, callback_on_step_end=interrupt)
        assert handle._prepared is None and handle._captured is None and not handle._acting
        assert torch.equal(sample(CASES[name], other), plain_sample(name))
        improved = sample(CASES[name], pipe)
    with unstill.apply(pipe, *methods(name)):
        assert torch.equal(sample(CASES[name], pipe), improved)
    assert torch.equal(sample(CASES[name], other), plain_sample(name))


@pytest.mark.parametrize("name", CONDITIONED)
def test_a_condition_of_one_pipeline_does_not_change_another_on_the_same_network(name: str, pipe: Any) -> None:
    with unstill.apply(pipe, Condition(seen=[], add=1.0)):
        improved = sample(CASES[name], pipe)
        other = quiet(type(pipe)(**pipe.components))
        assert not torch.equal(improved, plain_sample(name))
        assert torch.equal(sample(CASES[name], other), plain_sample(name))
        with unstill.apply(other, Condition(seen=[], add=1.0)):
            assert torch.equal(sample(CASES[name], other), improved)  # not added twice
        assert torch.equal(sample(CASES[name], copy.deepcopy(pipe)), plain_sample(name))
        assert torch.equal(sample(CASES[name], pipe), improved)


def test_remove_leaves_what_someone_else_has_put_there_since() -> None:
    name = "AnimateDiffPipeline"
    pipe, calls = copy.copy(pipeline(name)), []
    handle = unstill.apply(pipe, *methods(name))
    ours = pipe.prepare_latents

    def theirs(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return ours(*args, **kwargs)

    class Mine(type(pipe)):  # type: ignore[misc]
        pass

    pipe.prepare_latents, pipe.__class__ = theirs, Mine
    improved = sample(CASES[name], pipe)
    assert not torch.equal(improved, plain_sample(name))
    handle.remove()
    assert pipe.prepare_latents is theirs and type(pipe) is Mine
    assert torch.equal(sample(CASES[name], pipe), plain_sample(name)) and len(calls) == 2
    with unstill.apply(pipe, *methods(name)):
        assert torch.equal(sample(CASES[name], pipe), improved)


@pytest.mark.parametrize("name", ["AnimateDiffPipeline", "WanPipeline"])
def test_a_second_thread_on_a_pipeline_with_methods_gets_a_sentence(name: str, pipe: Any) -> None:
    entered, released, results = threading.Event(), threading.Event(), []

    def wait(pipe: Any, step: int, *_: Any) -> dict[str, Any]:
        entered.set()
        assert released.wait(60)
        return {}

    with unstill.apply(pipe, *methods(name)):
        improved = sample(CASES[name], pipe)
        mine = copy.copy(pipe)
        thread = threading.Thread(target=lambda: results.append(sample(CASES[name], pipe, callback_on_step_end=wait)))
        thread.start()
        try:
            assert entered.wait(60)
            with pytest.raises(UnstillError, match=r"being called already.*copy\.copy\(pipe\)"):
                sample(CASES[name], pipe)
            assert torch.equal(sample(CASES[name], mine), plain_sample(name))
            with unstill.apply(mine, *methods(name)):
                assert torch.equal(sample(CASES[name], mine), improved)
        finally:
            released.set()
            thread.join()
        assert torch.equal(results[0], improved)
        assert torch.equal(sample(CASES[name], pipe), improved)


def test_a_scheduler_that_is_used_by_hand_is_the_scheduler() -> None:
    pipe = copy.copy(pipeline("AnimateDiffPipeline"))
    with unstill.apply(pipe, *methods("AnimateDiffPipeline")):
        for scheduler in (pipe.scheduler, plain := diffusers.DDIMScheduler.from_config(pipe.scheduler.config)):
            scheduler.set_timesteps(4)
        assert torch.equal(pipe.scheduler.timesteps, plain.timesteps)
        x = torch.ones(1, 4, 3, 2, 2)
        stepped = [s.step(x, s.timesteps[1], x).prev_sample for s in (pipe.scheduler, plain)]
        assert torch.equal(*stepped)
        assert type(copy.deepcopy(pipe.scheduler)) is diffusers.DDIMScheduler


# --- without methods -------------------------------------------------------------------------------------------------


def world_from_text(pipe: Any) -> torch.Tensor:
    return sample(CASES["Cosmos2_5_PredictBasePipeline"], pipe, video=None)


def test_apply_without_methods_changes_no_call_that_methods_refuse() -> None:
    """diffusers' own FreeInit, a start in the middle, a text without an image, one frame."""
    pipe = copy.copy(pipeline("AnimateDiffPipeline"))
    pipe.enable_free_init(num_iters=2)
    plain = sample(CASES["AnimateDiffPipeline"], pipe)
    with unstill.apply(pipe):
        assert torch.equal(sample(CASES["AnimateDiffPipeline"], pipe), plain)
    pipe = pipeline("PIAPipeline")
    plain = sample(CASES["PIAPipeline"], pipe, strength=0.5)
    with unstill.apply(pipe):
        assert torch.equal(sample(CASES["PIAPipeline"], pipe, strength=0.5), plain)
    pipe = pipeline("Cosmos2_5_PredictBasePipeline")
    plain = world_from_text(pipe)
    with unstill.apply(pipe):
        assert torch.equal(world_from_text(pipe), plain)


@pytest.mark.parametrize("frames", [0, 1])
def test_cosmos_predict_25_says_what_methods_do_not_work_on(frames: int) -> None:
    pipe = pipeline("Cosmos2_5_PredictBasePipeline")
    with unstill.apply(pipe, Spy(seen={}), Constant(value=0.1, until=0)):
        if frames == 0:
            with pytest.raises(UnstillError, match="hold one latent frame"):
                world_from_text(pipe)
        else:
            with pytest.raises(UnstillError, match="ask for more frames"):
                sample(CASES["Cosmos2_5_PredictBasePipeline"], pipe, num_frames=1)

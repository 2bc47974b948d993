"""One-step predictions through every supported pipeline."""

import pytest
import torch

from tests.pipelines import CASES, pipeline
from unstill.errors import UnstillError
from unstill.forward_process import ForwardProcess
from unstill.hooks import adapter_for
from unstill.lab.one_step import one_step, unit_of, usual_levels
from unstill.lab.probe_conditions import WEAKENED
from unstill.noise_schedule import level_of


def prepared(name):
    """The pipeline, its case, and a clip and noise for three levels, as latents."""
    pipe, case = pipeline(name), CASES[name]
    adapter = adapter_for(pipe)
    side = case.latents[2] * adapter.compression(pipe)[0]
    g = torch.Generator().manual_seed(1)
    latents = adapter.encode_video(pipe, torch.rand(case.encoded, 3, side, side, generator=g))
    noise = torch.randn(3, *latents.shape[1:], generator=g)
    return pipe, case, latents, noise


@pytest.mark.parametrize("name", CASES)
def test_each_level_is_what_a_probe_of_that_level_alone_says(name):
    """The noisy clip is alpha x0 + sigma eps at exactly the asked level, and no level leaves a trace in the next."""
    pipe, case, latents, noise = prepared(name)
    process = adapter_for(pipe).process(pipe.scheduler)
    unit = unit_of(process)
    levels = {"start": (0.9, 0.6, 0.3), "sigma": (100.0, 10.0, 1.0)}[unit]
    own = pipe.scheduler
    torch.manual_seed(0)
    made = one_step(pipe, case.call, latents, noise, levels)
    assert pipe.scheduler is own
    assert [one.value for one in made.levels] == list(levels)
    for i, value in enumerate(levels):
        _, alpha, sigma = level_of(process, **{unit: value})
        clean, eps = latents[0, :, case.held :], noise[i, :, case.held :]
        torch.testing.assert_close(made.noisy[i], alpha * clean + sigma * eps, rtol=2e-3, atol=2e-3)
    torch.manual_seed(0)
    # The sound of LTX2 is sampled along from one level to the next; Cosmos 1 noises its image anew at each.
    i = 0 if name.startswith("LTX2") or name == "CosmosVideoToWorldPipeline" else 1
    alone = one_step(pipe, case.call, latents, noise[i : i + 1], levels[i : i + 1])
    torch.testing.assert_close(alone.x0[0], made.x0[i], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["StableVideoDiffusionPipeline", "WanImageToVideoPipeline", "PIAPipeline"])
def test_what_the_denoiser_sees_of_its_image(name):
    pipe, case, latents, noise = prepared(name)
    adapter, seen = adapter_for(pipe), {}

    def look(module, args, kwargs, result):
        x = kwargs[adapter.condition_input] if adapter.condition_input in kwargs else args[0]
        seen[condition] = adapter.condition_view(x, latents.shape[1])[-1:].clone()

    denoiser = getattr(pipe, adapter.denoisers[0])
    level = 0.9 if name != "StableVideoDiffusionPipeline" else 100.0
    for condition in ("image", "weakened", "removed"):
        hook = denoiser.register_forward_hook(look, with_kwargs=True)
        one_step(pipe, case.call, latents, noise[:1], (level,), condition=condition)
        hook.remove()
    assert seen["image"].abs().max() > 0 and not seen["removed"].any()
    added = (seen["weakened"] - seen["image"]).std() / seen["image"].std()
    assert added == pytest.approx(WEAKENED, rel=0.35)


def test_a_clip_of_another_shape_and_a_missing_image_are_refused():
    pipe, case, latents, noise = prepared("PicoPipeline")
    with pytest.raises(UnstillError, match="ask it for the clip's size"):
        one_step(pipe, case.call, latents[:, :, :2], noise[:, :, :2], (100.0, 10.0, 1.0))
    pipe, case, latents, noise = prepared("AnimateDiffPipeline")
    with pytest.raises(UnstillError, match="has no image that could be removed"):
        one_step(pipe, case.call, latents, noise, (0.9, 0.6, 0.3), condition="removed")


@pytest.mark.parametrize("name", CASES)
def test_usual_levels_fall_and_begin_where_the_pipeline_does(name):
    pipe = pipeline(name)
    levels = usual_levels(pipe)
    process = ForwardProcess.of(pipe.scheduler, kind=adapter_for(pipe).kind)
    assert all(b < a for a, b in zip(levels, levels[1:], strict=False))
    assert levels[0] == (1.0 if unit_of(process) == "start" else pipe.scheduler.config.sigma_max)

"""Every method on every supported pipeline: what it starts from, that it acts, that it repeats, what it refuses."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch

import unstill
from tests.pipelines import CASES, picture, pipeline, sample
from unstill.errors import UnstillError
from unstill.hooks import adapter_for
from unstill.methods.base import Method, Run
from unstill.methods.frequency import low_pass, mix
from unstill.methods.noise_levels import SMALLEST_SIGNAL, diffuse
from unstill.methods.progressive_noise import progressive


METHODS: dict[str, Method] = {
    "NoiseRectification": unstill.NoiseRectification(period=(0, 1), posterior="mode"),
    "NIVSDS": unstill.NIVSDS(tau=0.1),
    "FrameInit": unstill.FrameInit(),
    "ProgressiveNoise": unstill.ProgressiveNoise(),
    "ImageStart": unstill.ImageStart(),
    "ConditioningAugmentation": unstill.ConditioningAugmentation(level=0.3),
}
every_pipeline = pytest.mark.parametrize("name", CASES)
COSMOS = ("Cosmos2VideoToWorldPipeline",)  # a flow scheduler in the coordinates of EDM
LINEAR_QUADRATIC = "MochiPipeline", "LTXConditionPipeline"
UNTIMED = "has no training time, which this method counts in"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Start(Method):
    """Keeps the run and the first latents that the methods before have made."""

    seen: dict[str, Any]

    def on_start(self, run: Run, latents: torch.Tensor) -> torch.Tensor:
        self.seen.update(run=run, latents=latents)
        return latents


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Steps(Method):
    """Keeps what the methods before have made of the outputs."""

    seen: list[tuple[Any, ...]]

    def on_step(self, run: Run, output: torch.Tensor, sample: torch.Tensor, t: Any) -> torch.Tensor:
        self.seen.append((run, run.step, output, sample, t))
        return output


def image_of(name: str) -> dict[str, Any]:
    return {} if CASES[name].image else {"image": picture()}


@cache
def plain(name: str) -> torch.Tensor:
    return sample(CASES[name], pipeline(name))


@every_pipeline
@pytest.mark.parametrize("method", METHODS)
def test_acts_repeats_and_starts_as_it_says(name: str, method: str) -> None:
    pipe, case, seen = pipeline(name), CASES[name], {}
    refused = ""
    if method == "ConditioningAugmentation" and not case.condition:
        refused = f"{type(pipe).__name__} shows it none"
    if method == "NIVSDS" and name.startswith("LTX2"):
        refused = f"which the sound of {name} cannot follow"
    if method in ("NIVSDS", "FrameInit") and name in COSMOS:
        refused = UNTIMED
    if refused:
        with pytest.raises(UnstillError, match=refused):
            unstill.apply(pipe, METHODS[method], **image_of(name))
        return
    chosen = unstill.ImageStart(**case.level) if method == "ImageStart" else METHODS[method]
    # Both of two linear-quadratic levels are too high to regenerate from.
    steps = {"num_inference_steps": 4} if method == "NIVSDS" and name in LINEAR_QUADRATIC else {}
    with unstill.apply(pipe, chosen, Start(seen=seen), **image_of(name)):
        video = sample(case, pipe, **steps)
        if method in ("NoiseRectification", "NIVSDS", "ConditioningAugmentation"):  # those with a memory
            assert torch.equal(sample(case, pipe, **steps), video)
    assert torch.isfinite(video).all()
    assert not torch.equal(video, plain(name))

    run, latents = seen["run"], seen["latents"]
    assert latents.shape[1:] == (case.latents[0], case.latents[1] - case.held, *case.latents[2:])
    t = run.grid.timesteps[0]
    if method in ("NoiseRectification", "NIVSDS", "ImageStart"):
        expected = run.process.add_noise(run.image_latents.expand_as(run.noise), run.noise, t, 0)
        torch.testing.assert_close(latents, expected)
    elif method == "ConditioningAugmentation":
        torch.testing.assert_close(latents, scaled(pipe, run))
    else:
        own = unit_noise(name)
        if method == "FrameInit":
            image = run.image_latents.expand_as(own)
            expected = mix(
                diffuse(run.process, image, own, 0.85), own, low_pass(own.shape[2:], "gaussian", 0.25, 0.25)
            )
        else:
            expected = progressive(own[:, :, :1], own, 2.0)
        torch.testing.assert_close(run.noise, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(latents, scaled(pipe, run))


@cache
def unit_noise(name: str) -> torch.Tensor:
    seen: dict[str, Any] = {}
    with unstill.apply(pipeline(name), Start(seen=seen)):
        sample(CASES[name], pipeline(name))
    return seen["run"].noise


def scaled(pipe: Any, run: Run) -> torch.Tensor:
    """What the pipeline makes of unit noise."""
    scale, offset = adapter_for(pipe).first_scale(pipe, run.image_latents)
    offset = (
        offset[:, :, run.conditioning_frames :] if isinstance(offset, torch.Tensor) and offset.shape[2] > 1 else offset
    )
    return scale * run.noise + offset


@every_pipeline
def test_frame_0_of_what_is_rectified_is_the_noise(name: str) -> None:
    seen: list[tuple[Any, ...]] = []
    with unstill.apply(pipeline(name), METHODS["NoiseRectification"], Steps(seen=seen), **image_of(name)):
        sample(CASES[name], pipeline(name))
    run, step, output, x, t = seen[-1]
    alpha, sigma = run.process.alpha_sigma(t, step)
    assert step == 1 and alpha > SMALLEST_SIGNAL * (alpha**2 + sigma**2) ** 0.5
    eps = run.process.to_eps(output, x, t, step)
    torch.testing.assert_close(eps[:, :, 0], run.noise[:, :, 0], rtol=1e-3, atol=2e-4)


@every_pipeline
def test_without_strength_nothing_changes_and_nothing_stays(name: str) -> None:
    pipe, case = pipeline(name), CASES[name]
    methods: list[Method] = [unstill.ProgressiveNoise(alpha=0.0)]
    if name not in COSMOS:
        methods.append(unstill.FrameInit(spatial=0.0))
    if case.condition:
        methods.append(unstill.ConditioningAugmentation(level=0.0))
    with unstill.apply(pipe, *methods, **image_of(name)):
        assert torch.equal(sample(case, pipe), plain(name))
    assert torch.equal(sample(case, pipe), plain(name))


@every_pipeline
def test_free_init(name: str) -> None:
    pipe, case = pipeline(name), CASES[name]

    def call(iterations: int) -> torch.Tensor:
        torch.manual_seed(0)  # I2VGenXL encodes its image with the global generator
        method = unstill.FreeInit(iterations=iterations, level=0.95)
        generator = torch.Generator().manual_seed(0)
        arguments = {**case.call, "output_type": "latent", "num_inference_steps": 2, "generator": generator}
        return unstill.free_init(pipe, method, **arguments).frames

    refused = UNTIMED if name in COSMOS else "samples it in sections" if adapter_for(pipe).in_sections else ""
    if refused:
        with pytest.raises(UnstillError, match=refused):
            call(2)
        return
    video = call(2)
    assert torch.isfinite(video).all() and not torch.equal(video, plain(name))
    assert torch.equal(call(1), plain(name))


@pytest.mark.parametrize("name", ["WanPipeline", "CogVideoXPipeline", "LTXImageToVideoPipeline"])
def test_free_init_takes_a_lower_level_by_itself_where_the_highest_keeps_nothing(name: str, caplog: Any) -> None:
    pipe, case = pipeline(name), CASES[name]
    arguments = {**case.call, "output_type": "latent", "num_inference_steps": 2}

    def call(**level: float) -> torch.Tensor:
        method, generator = unstill.FreeInit(iterations=2, **level), torch.Generator().manual_seed(0)
        return unstill.free_init(pipe, method, **arguments, generator=generator).frames

    assert torch.equal(call(), call(level=0.95))
    assert "FreeInit adds noise up to level=0.95" in caplog.text and caplog.text.count("FreeInit") == 1
    with pytest.raises(UnstillError, match="keeps nothing of a video that is noised to level=1"):
        call(level=1.0)


@pytest.mark.parametrize("name", ["WanPipeline", "CogVideoXImageToVideoPipeline"])
def test_ni_vsds_with_defaults_makes_other_videos_of_other_images(name: str, caplog: Any) -> None:
    pipe, case = pipeline(name), CASES[name]
    images = picture(), picture().rotate(90)
    videos = []
    for image in images:
        with unstill.apply(pipe, unstill.NIVSDS(), **({} if case.image else {"image": image})):
            videos.append(sample(case, pipe, num_inference_steps=4, **({"image": image} if case.image else {})))
    assert not torch.equal(*videos)
    assert "NIVSDS regenerates from step 2 of 4" in caplog.text


def test_a_start_below_the_handover_of_wan_22_is_warned_of(caplog: Any) -> None:
    pipe = pipeline("Wan 2.2 A14B")  # boundary_ratio 0.875
    for method, warns in (
        (unstill.EarlyStart(start=0.9), False),
        (unstill.EarlyStart(start=0.85), True),
        (unstill.EarlyStart(sigma=0.85), True),
        (unstill.ImageStart(start=0.85), True),
        (unstill.FrameInit(), False),
    ):
        caplog.clear()
        unstill.apply(pipe, method).remove()
        assert ("boundary_ratio" in caplog.text) == warns
    unstill.apply(pipeline("WanImageToVideoPipeline"), unstill.EarlyStart(start=0.5)).remove()
    assert "boundary_ratio" not in caplog.text


@pytest.mark.parametrize("coarse_to_fine", [False, True])
def test_free_init_is_that_of_diffusers(coarse_to_fine: bool) -> None:
    pipe, case = pipeline("AnimateDiffPipeline"), CASES["AnimateDiffPipeline"]
    pipe.enable_free_init(num_iters=3, use_fast_sampling=coarse_to_fine)
    try:
        expected = sample(case, pipe, num_inference_steps=4)
    finally:
        pipe.disable_free_init()
    method = unstill.FreeInit.preset("diffusers", coarse_to_fine=coarse_to_fine)
    with unstill.hooks.sampling(pipe, method) as sampler:
        torch.testing.assert_close(sample(case, sampler, num_inference_steps=4), expected, rtol=1e-4, atol=1e-4)


@every_pipeline
def test_with_rectification_in_either_order(name: str) -> None:
    pipe, case = pipeline(name), CASES[name]
    data = torch.randn(4, *case.latents, generator=torch.Generator().manual_seed(0))
    method = unstill.AnalyticInit(statistics=unstill.LatentStatistics().update(data), **case.level)
    videos = []
    for methods in [(method, METHODS["NoiseRectification"]), (METHODS["NoiseRectification"], method)]:
        with unstill.apply(pipe, *methods, **image_of(name)):
            videos.append(sample(case, pipe))
    assert torch.isfinite(videos[0]).all()
    assert torch.equal(*videos)


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ((unstill.FrameInit(), unstill.ImageStart()), "FrameInit and ImageStart both decide the first latents"),
        ((unstill.NIVSDS(), unstill.FrameInit()), "NIVSDS and FrameInit both decide the first latents"),
        ((unstill.EarlyStart(start=0.9), unstill.NIVSDS()), "both decide the noise level"),
        ((unstill.ImageStart(start=0.9), unstill.EarlyStart(start=0.9)), "both decide the noise level"),
        ((unstill.NIVSDS(), unstill.NoiseRectification()), "both act on every step"),
        ((unstill.NoiseRectification(), unstill.NoiseRectification()), "given twice"),
        ((unstill.TimeNoise(),), "TimeNoise is for training"),
        ((unstill.FreeInit(),), "call unstill.free_init"),
        ((unstill.ConditioningAugmentation(),), "AnimateDiffPipeline shows it none"),
    ],
    ids=lambda value: "+".join(type(m).__name__ for m in value) if isinstance(value, tuple) else "",
)
def test_nonsense_is_refused_at_apply(methods: tuple[Method, ...], message: str) -> None:
    pipe = pipeline("AnimateDiffPipeline")
    own = pipe.scheduler
    with pytest.raises(UnstillError, match=message):
        unstill.apply(pipe, *methods, image=picture())
    assert pipe.scheduler is own and "prepare_latents" not in vars(pipe)


@pytest.mark.parametrize("method", ["NoiseRectification", "NIVSDS", "FrameInit", "ImageStart"])
def test_an_image_is_asked_for(method: str) -> None:
    with pytest.raises(
        UnstillError, match=r"AnimateDiffPipeline has none; give it with apply\(pipe, ..., image=image\)"
    ):
        unstill.apply(pipeline("AnimateDiffPipeline"), METHODS[method])


def test_image_latents_in_place_of_the_image() -> None:
    pipe, case = pipeline("AnimateDiffPipeline"), CASES["AnimateDiffPipeline"]
    seen: dict[str, Any] = {}
    with unstill.apply(pipe, METHODS["NIVSDS"], Start(seen=seen), image=picture()):
        video = sample(case, pipe)
    with unstill.apply(pipe, METHODS["NIVSDS"], image=seen["run"].image_latents):
        assert torch.equal(sample(case, pipe), video)
    with unstill.apply(pipe, METHODS["NIVSDS"], image=torch.zeros(1, 4, 1, 5, 5)):
        with pytest.raises(UnstillError, match=r"are \(1, 4, 1, 5, 5\), and this call needs \(1, 4, 1, 8, 8\)"):
            sample(case, pipe)


@pytest.mark.parametrize(
    "method",
    [
        unstill.NoiseRectification(),
        unstill.NIVSDS(tau=0.1),
        unstill.FrameInit(),
        unstill.ProgressiveNoise.preset("mixed"),
    ],
    ids=lambda method: type(method).__name__,
)
def test_every_video_of_a_batch_has_its_own_generator(method: Method) -> None:
    pipe, case = pipeline("AnimateDiffPipeline"), CASES["AnimateDiffPipeline"]
    prompts = {name: value.repeat(2, 1, 1) for name, value in case.call.items() if isinstance(value, torch.Tensor)}
    with unstill.apply(pipe, method, image=picture()):
        both = sample(case, pipe, generator=[torch.Generator().manual_seed(i) for i in range(2)], **prompts)
        for i in range(2):
            alone = sample(case, pipe, generator=[torch.Generator().manual_seed(i)])
            torch.testing.assert_close(alone[0], both[i], rtol=1e-4, atol=1e-4)


def test_the_posterior_is_sampled_or_its_mode_taken() -> None:
    pipe, case = pipeline("AnimateDiffPipeline"), CASES["AnimateDiffPipeline"]
    starts = {}
    for posterior in ("mode", "sample"):
        seen: dict[str, Any] = {}
        method = unstill.NoiseRectification(posterior=posterior)
        with unstill.apply(pipe, method, Start(seen=seen), image=picture()):
            sample(case, pipe)
        starts[posterior] = seen["run"].image_latents
    pixels = torch.tensor(list(picture().get_flattened_data())).view(16, 16, 3).permute(2, 0, 1)[None] / 255
    posterior = pipe.vae.encode(2 * pixels - 1).latent_dist
    torch.testing.assert_close(starts["mode"][:, :, 0], posterior.mode() * pipe.vae.config.scaling_factor)
    # Drawn after the noise, as the released code does.
    generator = torch.Generator().manual_seed(0)
    torch.randn(1, *case.latents, generator=generator)
    torch.testing.assert_close(starts["sample"][:, :, 0], posterior.sample(generator) * pipe.vae.config.scaling_factor)

"""Every family: what the network is given in training is what its pipeline gives it, and gradients reach it."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import diffusers
import pytest
import torch
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from torch import Tensor

from tests import pipelines as tiny
from unstill.data import synthetic_world
from unstill.data.sources import Sample, generator_for
from unstill.errors import UnstillError
from unstill.families.registry import training_for
from unstill.families.training import TrainingRole
from unstill.forward_process import ForwardProcess
from unstill.training.condition_noise import Clean, ConstantNoise, Plan
from unstill.training.encoded_dataset import Encoder
from unstill.training.loss import ConditionDropout, Objective, batch_of
from unstill.training.noise_sampling import schedule_of
from unstill.training.parameters import select
from unstill.training.setup import schedule_for


FRAMES = 3


def _with_text(pipe: Any) -> Any:
    """The embedding of a prompt that the tiny text encoder, which is left out, would make."""

    def encode_prompt(prompt: str | list[str], **_: Any) -> Any:
        prompts = [prompt] if isinstance(prompt, str) else prompt
        made = torch.stack([torch.full((4, 8), float(len(p))) for p in prompts])
        mask = torch.tensor([[1, 1, len(p) > 0, 0] for p in prompts])
        name = type(pipe).__name__
        if name in ("DynamiCrafterPipeline", "VideoCrafterPipeline"):
            return made
        if name.startswith("Hunyuan"):
            return made, mask, -made, 1 - mask
        return (made, mask, None, None) if name.startswith("LTX") else (made, None)

    pipe.encode_prompt = encode_prompt
    return pipe


def _wan(*settings: Any, **more: Any) -> Any:
    return _with_text(tiny.wan(*settings, **more))


def _cogvideox(**network: Any) -> Any:
    pipe = _with_text(tiny.cogvideox(**network))
    pipe.register_to_config(text_encoder=(None, None))
    return pipe


PROMPTED = ("wan", "wan-5b", "cogvideox", "ltx", "hunyuanvideo-1.5")


# Factory, size, frames, by the name of the role and what else there is of it.
PIPELINES: dict[str, tuple[Callable[[], Any], int, int]] = {
    "svd": (tiny.stable_video_diffusion, 16, FRAMES),
    "pico": (tiny.pico, 64, FRAMES),
    "dynamicrafter": (lambda: _with_text(tiny.dynamicrafter()), 16, FRAMES),
    "videocrafter": (lambda: _with_text(tiny.dynamicrafter(4)), 16, FRAMES),
    "wan": (_wan, 16, 5),
    "wan a14b": (partial(_wan, experts=2, boundary_ratio=0.875), 16, 5),
    "wan-5b": (partial(_wan, 16, expand_timesteps=True), 16, 9),
    "cogvideox": (_cogvideox, 16, 9),
    "cogvideox 1.5": (
        partial(_cogvideox, patch_size_t=2, ofs_embed_dim=2, use_learned_positional_embeddings=False),
        16,
        9,
    ),
    "ltx": (lambda: _with_text(tiny.ltx(**tiny.LTX_LEVELS)), 32, 9),
    "ltx condition": (lambda: _with_text(tiny.ltx(diffusers.LTXConditionPipeline)), 32, 9),
    "hunyuanvideo-1.5": (lambda: _with_text(tiny.hunyuan_video_15()), 16, 5),
}


def sample(size: int, frames: int) -> Sample:
    g = torch.Generator().manual_seed(0)
    scene = synthetic_world.sample_scene(1, g, size=size)
    clips = synthetic_world.render(scene, synthetic_world.sample_motion(scene, g), frames, size)
    return Sample((clips.video[0] * 255).round() / 255, "", 8.0, "a clip", 0.5)


@pytest.fixture(scope="module", params=PIPELINES)
def opened(request: pytest.FixtureRequest) -> tuple[Any, TrainingRole, Sample]:
    torch.manual_seed(0)
    factory, size, frames = PIPELINES[request.param]
    pipe = factory()
    pipe.set_progress_bar_config(disable=True)
    family = training_for(pipe)
    assert family.name == request.param.partition(" ")[0]
    network = getattr(pipe, family.denoiser).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # some layers begin at zero, and hide what lies before them
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return pipe, family, sample(size, frames)


class Recorder:
    """Stands before a network: keeps the arguments of its calls, by name."""

    def __init__(self, network: Any) -> None:
        self.network, self.config, self.dtype = network, network.config, torch.float32
        self.signature = inspect.signature(network.forward)
        self.calls: list[dict[str, Any]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = self.signature.bind(*args, **kwargs)
        self.calls.append({k: v for k, v in bound.arguments.items() if v is not None})
        return self.network(*args, **kwargs)


def _of_the_pipeline(pipe: Any, family: TrainingRole, clip: Sample) -> dict[str, Any]:
    """What the pipeline calls its network with at its first step, without guidance, for the clip's first frame."""
    network = getattr(pipe, family.denoiser)
    recorder = Recorder(network)
    height, width = clip.video.shape[-2:]
    call: dict[str, Any] = {"num_frames": len(clip.video), "num_inference_steps": 4, "output_type": "latent"}
    picture = clip.video[:1] if family.name in ("pico", "dynamicrafter", "videocrafter") else _pil(clip)
    if family.name == "svd":
        call |= {"height": height, "width": width, "fps": 8, "noise_aug_strength": 0.0, "max_guidance_scale": 1.0}
    elif family.name == "pico":
        call |= {"motion": clip.motion, "guidance_scale": 1.0}
    elif family.name == "hunyuanvideo-1.5":  # its size is that of its checkpoint
        call |= {"prompt": "x"}
    else:
        call |= {"height": height, "width": width, "guidance_scale": 1.0}
        call |= {"prompt": "x"} if family.name in PROMPTED else {"fps": 8}
        call |= {"frame_rate": 8} if family.name == "ltx" else {}
        if type(pipe).__name__ == "LTXConditionPipeline":
            picture = LTXVideoCondition(picture)
            call |= {"image_cond_noise_scale": 0.0}
    original = network.forward
    network.forward = recorder_forward(recorder, original)
    try:
        pipe(picture, generator=torch.Generator().manual_seed(0), **call)
    finally:
        network.forward = original
    return recorder.calls[0]


def recorder_forward(recorder: Recorder, original: Any) -> Any:
    def forward(*args: Any, **kwargs: Any) -> Any:
        bound = recorder.signature.bind(*args, **kwargs)
        recorder.calls.append({k: v for k, v in bound.arguments.items() if v is not None})
        return original(*args, **kwargs)

    return forward


def _pil(clip: Sample) -> Any:
    from PIL import Image

    return Image.fromarray((clip.video[0] * 255).round().byte().permute(1, 2, 0).numpy())


def test_the_network_is_called_as_its_pipeline_calls_it(
    opened: tuple[Any, TrainingRole, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same arguments, and of equal value where nothing is drawn: tokens, rates, levels, the image's own latents."""
    pipe, family, clip = opened
    # Some pipelines take the mode of the posterior; here all do, and so does the training.
    gaussian = "diffusers.models.autoencoders.vae.DiagonalGaussianDistribution"
    monkeypatch.setattr(f"{gaussian}.sample", lambda self, generator=None: self.mode())
    theirs = _of_the_pipeline(pipe, family, clip)
    caption = "x" if family.name in PROMPTED else ""
    given = batch_of(
        [Encoder(pipe, family)(Sample(clip.video, caption, 8.0, "", clip.motion), generator_for(0))], "cpu"
    )
    levels = schedule_for(pipe, family, given["latents"].shape[1:]).at(torch.tensor([0.5]))
    recorder = Recorder(getattr(pipe, family.denoiser))
    with torch.no_grad():
        output = family.predict(
            recorder, levels.noised(given["latents"], given["latents"]), levels.timestep, given, torch.zeros(1)
        )
    ours = recorder.calls[0]
    assert output.shape == given["latents"].shape
    assert ours.keys() == theirs.keys() - {"attention_kwargs"}
    sample_name, time_name = next(iter(ours)), "timestep"
    assert ours[sample_name].shape == theirs[sample_name].shape
    for name in ours.keys() - {sample_name, time_name}:
        mine, its = (x[name] for x in (ours, theirs))
        if isinstance(mine, tuple):
            mine, its = (
                torch.stack([torch.as_tensor(y, dtype=torch.float32).flatten() for y in x]) for x in (mine, its)
            )
        if isinstance(mine, Tensor):
            its = torch.as_tensor(its).to(mine).expand(mine.shape)
            torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-4)
        else:
            assert mine == its
    if family.image_is_frame:
        assert ours[time_name].shape == theirs[time_name].shape
        frame = theirs[time_name] == 0
        assert torch.equal(ours[time_name] == 0, frame) and 0 < frame.sum() < frame.numel() / 2
        mine, its = (_tokens(x[sample_name])[frame] for x in (ours, theirs))
        torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-4)
    elif "image" in given:  # the condition, among the channels of the input
        c, dim = given["image"].shape[1], 2 if family.name in ("svd", "pico", "cogvideox") else 1
        end = 1 if family.name == "hunyuanvideo-1.5" else 0  # a mask
        mine, its = (x[sample_name].narrow(dim, x[sample_name].shape[dim] - c - end, c + end) for x in (ours, theirs))
        torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-4)
    # A level that its scheduler visits is told by the same number.
    told = ours[time_name].flatten()[-1].item()
    process = ForwardProcess.of(pipe.scheduler)
    if not family.name.startswith("wan"):
        alpha, sigma = process.alpha_sigma(told)
        assert sigma / max(alpha, 1e-6) == pytest.approx((levels.sigma / levels.alpha).item(), rel=1e-2)


def _tokens(x: Tensor) -> Tensor:
    """`(B, S, C)` of packed latents, or of those of Wan, whose patches are of 2 by 2 latent pixels."""
    if x.ndim == 3:
        return x
    return x.unflatten(3, (-1, 2)).unflatten(5, (-1, 2)).permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)


def test_pico_is_told_of_noise_in_its_own_unit() -> None:
    """100 times the deviation, as its pipeline tells `noise_aug_strength`; nothing where the image is withheld."""
    pipe, clip = tiny.random_pico(), sample(64, FRAMES)
    family = training_for(pipe)
    given = batch_of([Encoder(pipe, family)(clip, generator_for(i)) for i in range(2)], "cpu")
    nothing = family.dropped(pipe, {k: v[0] for k, v in given.items()})
    plan = Plan(latents=ConstantNoise(maximum=0.5, exponent=0.0), condition_on_level=True)
    schedule = schedule_of(ForwardProcess.of(pipe.scheduler))
    told = {}
    for withheld in (0.0, 1.0):
        objective = Objective(family, schedule, plan, ConditionDropout(image=withheld), nothing, None)
        recorder = Recorder(pipe.transformer)
        objective.errors(recorder, given, [generator_for("clip", i) for i in range(2)])
        told[withheld] = recorder.calls[0]["added_time_ids"][:, 2].tolist()
    assert told == {0.0: [50.0, 50.0], 1.0: [0.0, 0.0]}


def test_gradients_reach_the_network_through_noised_conditions(opened: tuple[Any, TrainingRole, Sample]) -> None:
    pipe, family, clip = opened
    clip = replace(clip, caption="a red ring")
    given = batch_of([Encoder(pipe, family)(clip, generator_for(i)) for i in range(2)], "cpu")
    nothing = family.dropped(pipe, {k: v[0] for k, v in given.items()})
    network = getattr(pipe, family.denoiser)
    network.zero_grad()
    trained = select(network, None, family.unread(network))
    found = {}
    for plan in (Plan(), Plan(latents=Clean()), _noisy()):
        schedule = schedule_for(pipe, family, given["latents"].shape[1:])
        objective = Objective(family, schedule, plan, ConditionDropout(), nothing, None)
        errors, _ = objective.errors(network, given, [generator_for("clip", i) for i in range(2)])
        found[plan] = errors
    assert torch.equal(found[Plan()], found[Plan(latents=Clean())])
    assert not torch.equal(found[Plan()], found[_noisy()])
    errors.mean().backward()
    # None is left without a gradient, for which training in several processes would wait.
    assert all((p.grad is None) == (name not in trained) for name, p in network.named_parameters())
    reached = [bool((p.grad.abs() > 0).any()) for p in trained.values() if p.grad is not None]
    assert sum(reached) > 0.9 * len(reached)


def _noisy() -> Plan:
    image, tokens = (ConstantNoise(maximum=5.0, exponent=0.0, noise_shape=shape) for shape in ("frame", "element"))
    return Plan(latents=image, tokens=tokens, condition_on_level=True)


def test_what_is_withheld(opened: tuple[Any, TrainingRole, Sample]) -> None:
    """Always: what the network sees does not depend on caption and image any more."""
    pipe, family, clip = opened
    other = Sample(clip.video.flip(-1), "", 8.0, "another clip", 0.5)
    nothing: dict[str, Tensor] = {}
    seen = []
    for one in (clip, other):
        encoded = Encoder(pipe, family)(one, generator_for(0))
        nothing = nothing or family.dropped(pipe, encoded)
        batch = batch_of([encoded], "cpu")
        recorder = Recorder(getattr(pipe, family.denoiser))
        schedule = schedule_for(pipe, family, batch["latents"].shape[1:])
        objective = Objective(family, schedule, Plan(), ConditionDropout(both=1.0, motion=1.0), nothing, 255.0)
        with torch.no_grad():
            objective.errors(recorder, batch, [generator_for(1)])
        seen.append((encoded, recorder.calls[0]))
    (encoded, first), (_, second) = seen
    names = list(first)
    kept = () if "tokens" in nothing else ("image_embeds",)  # HunyuanVideo, whose image is never dropped
    for name in names[1:]:
        if isinstance(first[name], Tensor) and name not in kept:
            torch.testing.assert_close(first[name], second[name])
    if "image" in encoded and family.blank_latents:
        dim = 2
        c = encoded["image"].shape[0]
        size = first[names[0]].shape[dim]
        assert first[names[0]].narrow(dim, size - c, c).abs().max() == 0


def test_clips_that_a_network_cannot_take(opened: tuple[Any, TrainingRole, Sample]) -> None:
    pipe, family, clip = opened
    frames, _, height, width = clip.video.shape
    family.check_clip(pipe, frames, (height, width))
    with pytest.raises(UnstillError, match=r"data.* takes (multiples of \d+ both ways|clips of at most)"):
        family.check_clip(pipe, frames, (height, width + 1))
    if family.name in PROMPTED:
        with pytest.raises(UnstillError, match=r"takes a multiple of \d and one more, such as \d"):
            family.check_clip(pipe, 6, (height, width))

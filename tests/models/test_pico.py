"""The embedded model with random weights: layouts, parametrisations, manners."""

import math
from pathlib import Path

import PIL.Image
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from safetensors.torch import load_file

import unstill
from tests.pipelines import pico, random_pico
from unstill.data import captions, synthetic_world
from unstill.errors import UnstillError
from unstill.lab.fingerprint import model_fingerprint
from unstill.models.pico import PicoAutoencoder, PicoPipeline, euler_scheduler, text, vp_scheduler
from unstill.models.pico.pipeline import LORAS, WEIGHTS
from unstill.training.lora import load_lora


@pytest.fixture(scope="module")
def pipe():
    return random_pico(num_layers=2)


@pytest.fixture
def image():
    g = torch.Generator().manual_seed(1)
    return torch.rand(1, 3, 64, 64, generator=g)


def run(pipe, image, seed=0, **kwargs):  # image may be None
    kwargs = {"num_frames": 4, "num_inference_steps": 3, "output_type": "pt"} | kwargs
    return pipe(image, generator=torch.Generator().manual_seed(seed), **kwargs).frames


def test_same_seed_same_video_other_seed_other_video(pipe, image):
    assert torch.equal(run(pipe, image), run(pipe, image))
    assert not torch.equal(run(pipe, image), run(pipe, image, seed=1))


@pytest.mark.parametrize("solver", ["2M", "Euler"])
def test_sampling_is_the_solver_on_the_preconditioned_network(pipe, image, solver):
    """D(x; s) = x / (s^2 + 1) - s / sqrt(s^2 + 1) F(x / sqrt(s^2 + 1); ln(s) / 4), stepped along Karras' levels.

    2M (Lu et al. 2022, Algorithm 2, with h = ln(s / after)): the same step from D + h / (2 h_before) (D - D_before).
    """
    x = torch.randn(1, 4, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    own = pipe.scheduler
    pipe.scheduler = euler_scheduler() if solver == "Euler" else own
    try:
        result = run(pipe, image, output_type="latent", motion=0.36, guidance_scale=1.0, motion_guidance_scale=1.0)
    finally:
        pipe.scheduler = own
    ramp = torch.linspace(0, 1, 3, dtype=torch.float64)
    sigmas = [*((200 ** (1 / 7) + ramp * (0.02 ** (1 / 7) - 200 ** (1 / 7))) ** 7).tolist(), 0.0]
    cond = pipe.vae.encoder(image * 2 - 1)[:, None].expand(-1, 4, -1, -1, -1)
    ids = torch.tensor([[7.0, 60.0, 0.0]])
    x = x * math.sqrt(200**2 + 1)
    before = None  # D and h of the step before
    with torch.no_grad():
        for s, after in zip(sigmas, sigmas[1:], strict=False):
            v = pipe.transformer(torch.cat([x / math.sqrt(s * s + 1), cond], 2), 0.25 * math.log(s), None, ids)[0]
            denoised = target = x / (s * s + 1) - s / math.sqrt(s * s + 1) * v
            if solver == "2M" and after > 0:
                h = math.log(s / after)
                if before is not None:
                    target = denoised + h / (2 * before[1]) * (denoised - before[0])
                before = denoised, h
            x = target + after / s * (x - target)
    torch.testing.assert_close(result, x, rtol=1e-4, atol=1e-3)


def test_one_set_of_weights_serves_both_frameworks(pipe, image):
    """A VP step's prediction equals the EDM prediction at sigma / alpha: same network input, same label, same x0."""
    seen = []
    hook = pipe.transformer.register_forward_pre_hook(lambda _, args: seen.append((args[0].clone(), args[1])))
    plain = pipe.scheduler
    try:
        run(pipe, image, num_inference_steps=1, guidance_scale=1.0)
        pipe.scheduler = vp_scheduler()
        run(pipe, image, num_inference_steps=1, guidance_scale=1.0)
    finally:
        hook.remove()
        pipe.scheduler = plain
    (edm_input, edm_label), (vp_input, vp_label) = seen
    abar = vp_scheduler().alphas_cumprod[-1].item()
    assert edm_label == pytest.approx(0.25 * math.log(200))
    assert vp_label == pytest.approx(0.125 * math.log((1 - abar) / abar))
    torch.testing.assert_close(edm_input, vp_input)  # both are unit noise and the image latents


def test_other_schedulers_run(pipe, image):
    plain = pipe.scheduler
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(vp_scheduler().config)
    try:
        assert run(pipe, image).isfinite().all()
    finally:
        pipe.scheduler = plain


def test_the_callers_latents_are_the_start(pipe, image):
    unit = torch.randn(1, 4, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(run(pipe, image, seed=9, latents=unit), run(pipe, image, seed=0))


def test_guidance_one_and_batch_agree_with_single_calls(pipe, image):
    other = image.flip(-1)
    noise = torch.randn(2, 4, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    both = run(pipe, torch.cat([image, other]), latents=noise, guidance_scale=2.0)
    one = run(pipe, image, latents=noise[:1], guidance_scale=2.0)
    torch.testing.assert_close(both[:1], one, rtol=1e-4, atol=1e-4)
    assert both.shape == (2, 4, 3, 64, 64)
    assert not torch.equal(one, run(pipe, image, latents=noise[:1], guidance_scale=1.0))


def test_image_and_prompt_are_guided_in_a_limited_interval(pipe, image):
    """v(neither) + scale * (v(both) - v(neither)) at sigma 1 to 60; rows of the network there twice as many."""
    network, seen = pipe.transformer, []
    forward = network.forward

    def watched(sample, label, *args, **kwargs):
        seen.append((math.exp(float(label) / 0.25), len(sample)))
        return forward(sample, label, *args, **kwargs)

    network.forward = watched
    try:
        for source, prompt in ((image, ""), (image, "a red ring over blue"), (None, "a red ring over blue")):
            seen.clear()
            default = run(pipe, source, prompt=prompt)
            assert {rows for level, rows in seen if 1 <= level <= 60} == {2}
            assert {rows for level, rows in seen if not 1 <= level <= 60} == {1}
            assert torch.equal(default, run(pipe, source, prompt=prompt, guidance_scale=2.0))
            assert not torch.equal(default, run(pipe, source, prompt=prompt, guidance_scale=1.0))
    finally:
        del network.forward


def test_the_motion_level_is_guided_where_motion_is_decided(pipe, image):
    """v(unspecified) + scale * (v(level) - v(unspecified)), at sigma 4 to 60; two calls of the network there."""
    network, seen = pipe.transformer, []

    def forward(sample, label, words, ids, return_dict):
        seen.append((math.exp(4 * label), ids[0, 1].item()))
        return (ids[0, 1].expand(sample[:, :, :12].shape) / 255,)

    outputs = []
    step, network.forward = pipe.scheduler.step, forward
    pipe.scheduler.step = lambda output, *args: (outputs.append(output.flatten()[0].item()), step(output, *args))[1]
    try:
        run(pipe, image, num_inference_steps=6, motion=0.64, motion_guidance_scale=3.0)
        levels = dict.fromkeys(sigma for sigma, _ in seen)
        inside = [4 <= sigma <= 60 for sigma in levels]
        assert inside == [False, False, True, False, False, False]
        assert [told for _, told in seen] == [one for guided in inside for one in ([80, 255] if guided else [80])]
        expected = [1 + 3 * (80 / 255 - 1) if guided else 80 / 255 for guided in inside]
        assert outputs == pytest.approx(expected)
        for off in ({"motion": None}, {"motion_guidance_scale": 1.0}, {"num_frames": 1, "prompt": "a red ring"}):
            seen.clear()
            run(pipe, image, num_inference_steps=6, **off)
            assert len(seen) == 6
    finally:
        del network.forward, pipe.scheduler.step


def test_noise_on_the_image_is_told_and_only_where_there_is_an_image(pipe, image):
    """y0 + strength * eps, and 100 * strength as the third id; under guidance not for the half without an image."""

    def guided_step(image, **call):
        seen = []
        hook = pipe.transformer.register_forward_pre_hook(
            lambda _, args: seen.append((args[0].clone(), args[3].clone()))
        )
        try:
            run(pipe, image, num_inference_steps=6, **call)
        finally:
            hook.remove()
        return next(step for step in seen if len(step[0]) == 2)

    clean, ids = guided_step(image)
    noised, told = guided_step(image, noise_aug_strength=0.5)
    _, without = guided_step(None, prompt="a red ring", noise_aug_strength=0.5)
    assert ids[:, 2].tolist() == [0, 0] and told[:, 2].tolist() == [0, 50] and without[:, 2].tolist() == [0, 0]
    assert torch.equal(told[:, :2], ids[:, :2])
    noise = torch.randn(1, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = clean[:, :, 12:] + 0.5 * noise[:, None] * torch.tensor([0.0, 1.0])[:, None, None, None, None]
    torch.testing.assert_close(noised[:, :, 12:], expected)


@pytest.fixture(scope="module")
def golden():
    return load_file(Path(__file__).parents[1] / "golden" / "pico" / "second_generation.safetensors")


@pytest.fixture(scope="module")
def embedded():
    return PicoPipeline.embedded()


def test_the_embedded_networks_are_those_that_were_trained(embedded, golden):
    """Outputs of the code that the weights were trained with, tests/golden/pico/README.md."""
    g = torch.Generator().manual_seed(0)
    sample = torch.randn(2, 16, 24, 12, 12, generator=g)
    words = torch.zeros(2, 12, 32)
    words[1, range(4), [0, 13, 18, 20]] = 1
    ids, timestep = torch.tensor([[7.0, 55.0, 0.0], [7.0, 255.0, 30.0]]), torch.tensor([0.25, 1.2])
    with torch.no_grad():
        v = embedded.transformer(sample, timestep, words, ids).sample[:, [0, 7, 15]]
        one = embedded.transformer(sample[:, :1], timestep, words, ids).sample
        latents = embedded.vae.encode(torch.rand(1, 3, 96, 96, generator=g) * 2 - 1).latent_dist.mode()
        decoded = embedded.vae.decode(latents).sample[..., :24, :24]
    for name, value in {"v": v, "v_one_frame": one, "latents": latents, "decoded": decoded}.items():
        torch.testing.assert_close(value, golden[name], rtol=0, atol=1e-5)


def test_the_embedded_model_keeps_its_first_frame_and_moves(embedded):
    scene = synthetic_world.sample_scene(1, torch.Generator().manual_seed(3))
    image = synthetic_world.render(scene, synthetic_world.sample_motion(scene, torch.Generator(), level=0.5), 1).video[
        :, 0
    ]
    embedded.set_progress_bar_config(disable=True)
    video = run(embedded, image, num_frames=16, num_inference_steps=8, motion=0.6)[0]
    assert (video[0] - image[0]).abs().mean() < 0.02
    assert (video[15] - image[0]).abs().mean() > 0.02


def test_the_embedded_weights_are_small():
    files = [file for file in WEIGHTS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 40e6
    for part in ("transformer", "vae"):
        tensors = load_file(WEIGHTS / part / "diffusion_pytorch_model.safetensors")
        assert all(tensor.dtype == torch.float16 for tensor in tensors.values())


def test_pictures_of_any_size_and_the_callback(pipe):
    steps = []

    def note(_, i, t, tensors):
        steps.append((i, tuple(tensors["latents"].shape)))
        return tensors

    wide = PIL.Image.new("L", (90, 31), 128)
    frames = run(pipe, wide, output_type="pil", callback_on_step_end=note)
    assert [f.size for f in frames[0]] == [(64, 64)] * 4
    assert steps == [(i, (1, 4, 12, 8, 8)) for i in range(3)]


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [
        ({"num_frames": 9}, "to 8 frames"),
        ({"motion": -1}, "0 (still)"),
        ({"noise_aug_strength": -0.1}, "0 (the image as it is) to 3"),
        ({"num_inference_steps": 0}, "at least 1"),
        ({"prompt": "a red dragon"}, "'dragon'; its words are red, orange"),
        ({"prompt": "red " * 13}, "at most 12 words"),
        ({"image": None}, "an image to animate, a prompt, or both"),
        ({"image": torch.zeros(3, 3, 64, 64), "prompt": ["red", "blue"]}, "3 images and 2 prompts"),
    ],
)
def test_what_cannot_be_is_refused(pipe, image, kwargs, word):
    with pytest.raises(UnstillError, match=word.replace("(", r"\(").replace(")", r"\)")):
        run(pipe, **{"image": image, **kwargs})


def test_a_caption_counts_and_no_caption_is_an_empty_one(pipe, image):
    assert torch.equal(run(pipe, image), run(pipe, image, prompt=""))
    red, blue = (run(pipe, image, prompt=f"a {colour} ring drifting left over green") for colour in ("red", "blue"))
    assert not torch.equal(red, blue)


def test_words_keep_their_order_and_articles_are_not_read():
    there, back = text.embed(["a red ring and a blue star", "the blue star and red ring"])
    assert there.sum() == back.sum() == 6 and not torch.equal(there, back)


@pytest.mark.parametrize(
    ("caption", "read"),
    [
        ("A red, ring.", "red ring drifting"),
        ("a red ring over green", "red ring drifting over green"),
        ("a red ring resting over green", "red ring resting over green"),
        ("green drifting left", "green drifting left"),
        ("", ""),
    ],
)
def test_a_caption_without_a_verb_is_read_as_those_of_the_training(caption, read):
    assert [captions.WORDS[i] for i in text.spell(caption)] == read.split()


def test_every_caption_of_the_world_can_be_read():
    g = torch.Generator().manual_seed(0)
    scene = synthetic_world.sample_scene(200, g, size=16)
    motion = synthetic_world.sample_motion(scene, g)
    assert (text.embed(captions.captions(scene, motion)).sum((1, 2)) >= 2).all()


def test_pictures_from_captions_alone(pipe):
    """One frame each; batches, copies and guidance agree with single calls."""
    captions = ["a red ring over blue", "a green star over pink"]
    noise = torch.randn(4, 1, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    how = {"num_frames": 1, "guidance_scale": 3.0}
    all_four = run(pipe, None, prompt=captions, num_videos_per_prompt=2, latents=noise, **how)
    assert all_four.shape == (4, 1, 3, 64, 64)
    last = run(pipe, None, prompt=captions[1], latents=noise[3:], **how)
    torch.testing.assert_close(all_four[3:], last, rtol=1e-4, atol=1e-4)


def test_save_and_load(pipe, image, tmp_path):
    pipe.save_pretrained(tmp_path)
    again = PicoPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    for name, parameter in pipe.transformer.state_dict().items():
        assert torch.equal(again.transformer.state_dict()[name], parameter)
    # Loaded tensors are aligned differently in memory, which changes the last bit of some matrix products.
    torch.testing.assert_close(run(pipe, image), run(again, image))


def test_fresh_network_copies_nothing_and_predicts_zero():
    out = pico().transformer(torch.randn(1, 2, 24, 8, 8), 0.3).sample
    assert out.shape == (1, 2, 12, 8, 8)
    assert out.abs().max() == 0


def test_standardised_latents_keep_the_picture():
    torch.manual_seed(0)
    vae = PicoAutoencoder(block_out_channels=(8, 8, 8))
    x = torch.rand(4, 3, 96, 96) * 2 - 1
    z = vae.encoder(x)
    before = vae.decoder(z)
    vae.standardise(z.mean((0, 2, 3)), z.std((0, 2, 3)))
    z = vae.encoder(x)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(12), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(12))
    torch.testing.assert_close(vae.decoder(z)[..., 40:-40, 40:-40], before[..., 40:-40, 40:-40], atol=1e-3, rtol=1e-3)


def test_embedded_models_with_an_addition_are_what_load_lora_makes_of_pico():
    merged, beside = unstill.load("pico-still", device="cpu"), unstill.load("pico", device="cpu")
    load_lora(beside, LORAS / "still.safetensors")
    sample = torch.randn(1, 2, 24, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = unstill.load("pico", device="cpu").transformer(sample, 0.5)[0]
        expected, found = beside.transformer(sample, 0.5)[0], merged.transformer(sample, 0.5)[0]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(found, plain, atol=1e-2)
    assert model_fingerprint("pico-still") != model_fingerprint("pico")

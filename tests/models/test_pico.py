"""The embedded model with random weights: layouts, parametrisations, manners; and its training."""

import math

import PIL.Image
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from unstill.data import world
from unstill.errors import UnstillError
from unstill.models.pico import PicoAutoencoder, PicoPipeline, PicoUNet, edm_scheduler, text, vp_scheduler
from unstill.training import pico as training
from unstill.training import pico_autoencoder as autoencoder_training
from unstill.training.pico_recipe import PicoRecipe


@pytest.fixture(scope="module")
def pipe():
    torch.manual_seed(0)
    unet = PicoUNet(block_out_channels=(8, 16, 16), embedding=32)
    for parameter in unet.parameters():  # the zero-initialised layers would hide mistakes
        torch.nn.init.normal_(parameter, std=0.05)
    made = PicoPipeline(PicoAutoencoder(block_out_channels=(8, 8)), unet, edm_scheduler())
    made.set_progress_bar_config(disable=True)
    return made


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


def test_sampling_is_the_euler_method_on_the_preconditioned_network(pipe, image):
    """D(x; s) = x / (s^2 + 1) - s / sqrt(s^2 + 1) F(x / sqrt(s^2 + 1); ln(s) / 4), stepped along Karras' levels."""
    x = torch.randn(1, 4, 6, 16, 16, generator=torch.Generator().manual_seed(0))
    result = run(pipe, image, output_type="latent", motion=0.36)
    ramp = torch.linspace(0, 1, 3, dtype=torch.float64)
    sigmas = [*((200 ** (1 / 7) + ramp * (0.02 ** (1 / 7) - 200 ** (1 / 7))) ** 7).tolist(), 0.0]
    cond = pipe.vae.encoder(image * 2 - 1)[:, None].expand(-1, 4, -1, -1, -1)
    ids = torch.tensor([[7.0, 60.0, 0.0]])
    x = x * math.sqrt(200**2 + 1)
    with torch.no_grad():
        for s, after in zip(sigmas, sigmas[1:], strict=False):
            v = pipe.unet(torch.cat([x / math.sqrt(s * s + 1), cond], 2), 0.25 * math.log(s), None, ids)[0]
            denoised = x / (s * s + 1) - s / math.sqrt(s * s + 1) * v
            x = denoised + after / s * (x - denoised)
    torch.testing.assert_close(result, x, rtol=1e-4, atol=1e-3)


def test_one_set_of_weights_serves_both_frameworks(pipe, image):
    """A VP step's prediction equals the EDM prediction at sigma / alpha: same network input, same label, same x0."""
    seen = []
    hook = pipe.unet.register_forward_pre_hook(lambda _, args: seen.append((args[0].clone(), args[1])))
    plain = pipe.scheduler
    try:
        run(pipe, image, num_inference_steps=1)
        pipe.scheduler = vp_scheduler()
        run(pipe, image, num_inference_steps=1)
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
    unit = torch.randn(1, 4, 6, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(run(pipe, image, seed=9, latents=unit), run(pipe, image, seed=0))


def test_guidance_one_and_batch_agree_with_single_calls(pipe, image):
    other = image.flip(-1)
    noise = torch.randn(2, 4, 6, 16, 16, generator=torch.Generator().manual_seed(0))
    both = run(pipe, torch.cat([image, other]), latents=noise, guidance_scale=2.0)
    one = run(pipe, image, latents=noise[:1], guidance_scale=2.0)
    torch.testing.assert_close(both[:1], one, rtol=1e-4, atol=1e-4)
    assert both.shape == (2, 4, 3, 64, 64)
    assert not torch.equal(one, run(pipe, image, latents=noise[:1]))


def test_a_prompt_is_guided_unless_it_is_said_otherwise(pipe, image):
    told = {"prompt": "a red ring over blue"}
    for source in (image, None):
        default = run(pipe, source, **told)
        assert pipe.guidance_scale == 2 and torch.equal(default, run(pipe, source, guidance_scale=2.0, **told))
        assert not torch.equal(default, run(pipe, source, guidance_scale=1.0, **told))
    assert torch.equal(run(pipe, image), run(pipe, image, guidance_scale=1.0)) and pipe.guidance_scale == 1


def test_pictures_of_any_size_and_the_callback(pipe):
    steps = []

    def note(_, i, t, tensors):
        steps.append((i, tuple(tensors["latents"].shape)))
        return tensors

    wide = PIL.Image.new("L", (90, 31), 128)
    frames = run(pipe, wide, output_type="pil", callback_on_step_end=note)
    assert [f.size for f in frames[0]] == [(64, 64)] * 4
    assert steps == [(i, (1, 4, 6, 16, 16)) for i in range(3)]


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [
        ({"num_frames": 9}, "to 8 frames"),
        ({"motion": -1}, "0 (still)"),
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
    assert there.sum() == back.sum() == 5 and not torch.equal(there, back)
    assert [text.WORDS[i] for i in text.spell("A red, ring.")] == ["red", "ring"]


def test_every_caption_of_the_world_can_be_read():
    g = torch.Generator().manual_seed(0)
    scene = world.sample_scene(200, g)
    motion = world.sample_motion(scene, g)
    assert (text.embed(world.captions(scene, motion)).sum((1, 2)) >= 2).all()


def test_pictures_from_captions_alone(pipe):
    """One frame each; batches, copies and guidance agree with single calls."""
    captions = ["a red ring over blue", "a green star over pink"]
    noise = torch.randn(4, 1, 6, 16, 16, generator=torch.Generator().manual_seed(0))
    how = {"num_frames": 1, "guidance_scale": 3.0}
    all_four = run(pipe, None, prompt=captions, num_videos_per_prompt=2, latents=noise, **how)
    assert all_four.shape == (4, 1, 3, 64, 64)
    last = run(pipe, None, prompt=captions[1], latents=noise[3:], **how)
    torch.testing.assert_close(all_four[3:], last, rtol=1e-4, atol=1e-4)


def test_save_and_load(pipe, image, tmp_path):
    pipe.save_pretrained(tmp_path)
    again = PicoPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    for name, parameter in pipe.unet.state_dict().items():
        assert torch.equal(again.unet.state_dict()[name], parameter)
    # Loaded tensors are aligned differently in memory, which changes the last bit of some matrix products.
    torch.testing.assert_close(run(pipe, image), run(again, image))


def test_fresh_network_copies_nothing_and_predicts_zero():
    out = PicoUNet()(torch.randn(1, 2, 12, 16, 16), 0.3).sample
    assert out.shape == (1, 2, 6, 16, 16)
    assert out.abs().max() == 0


def test_layers_carry_the_image_with_their_velocity():
    """A velocity field of one latent cell per frame to the right moves frame f by f cells."""
    unet = PicoUNet(block_out_channels=(8, 16, 16), embedding=32, layers=2)
    image = torch.rand(3, 6, 16, 16)
    field = torch.zeros(3, 6, 16, 16)
    field[:, 2::2] = 10 * 2 / 16  # x components, in half sides times 10
    moved = unet._carried(image, *unet._layers(field, torch.arange(3)))
    torch.testing.assert_close(moved[0], image[0])
    torch.testing.assert_close(moved[2, :, :, 2:], image[2, :, :, :-2])


def test_shift_is_how_far_the_centroid_of_a_thing_has_come():
    """Two things with distinct embeddings: one moves two cells to the right per frame, the ground stays."""
    unet = PicoUNet(block_out_channels=(8, 16, 16), embedding=32)
    torch.nn.init.eye_(unet.identity.weight.data[:, :, 0, 0])
    torch.nn.init.zeros_(unet.identity.bias)
    torch.nn.init.constant_(unet.sharpness, 100.0)
    x = torch.zeros(3, 8, 16, 16)
    x[:, 0] = 1
    for f in range(3):
        x[f, :2, 4:8, 2 + 2 * f : 6 + 2 * f] = torch.tensor([0.0, 1.0])[:, None, None]
    shift = unet._shift(x, frames=3)
    assert shift.shape == (3, 2, 16, 16)
    for f in range(3):
        inside = shift[f, :, 5, 3 + 2 * f]
        torch.testing.assert_close(inside, torch.tensor([2 * f / 16, 0.0]), atol=1e-4, rtol=0)


def test_standardised_latents_keep_the_picture():
    torch.manual_seed(0)
    vae = PicoAutoencoder(block_out_channels=(8, 8))
    x = torch.rand(4, 3, 32, 32) * 2 - 1
    z = vae.encoder(x)
    before = vae.decoder(z)
    vae.standardise(z.mean((0, 2, 3)), z.std((0, 2, 3)))
    z = vae.encoder(x)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(6))
    torch.testing.assert_close(vae.decoder(z)[..., 8:-8, 8:-8], before[..., 8:-8, 8:-8], atol=1e-3, rtol=1e-3)


def test_loss_is_the_edm_loss_of_the_denoised_clip():
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 3, 6, 16, 16), torch.randn(2, 3, 6, 16, 16)
    sigma = torch.tensor([0.3, 20.0])
    unet = PicoUNet(block_out_channels=(8, 16, 16), embedding=32)
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    ids = torch.tensor([[7.0, 50.0, 0.0]] * 2)
    image = clean[:, 0]
    s = sigma[:, None, None, None, None]
    noisy = clean + s * noise
    v = unet(
        torch.cat([noisy / (1 + s**2).sqrt(), image[:, None].expand(-1, 3, -1, -1, -1)], 2),
        sigma.log() / 4,
        text.embed(["a red ring", ""]),
        ids,
    )
    denoised = noisy / (s**2 + 1) - s / (s**2 + 1).sqrt() * v.sample
    expected = ((denoised - clean) ** 2).mean((1, 2, 3, 4)) * (1 + sigma**2) / sigma**2
    truth = torch.rand(2, 3, 2, 16, 16)
    words = text.embed(["a red ring", ""])
    errors, lost = training.denoising_loss(unet, training.Batch(clean, image, words, sigma, noise, ids, truth))
    torch.testing.assert_close(errors, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(lost, (v.displacement - truth).abs().mean((1, 2, 3, 4)))


class TestTraining:
    recipe = PicoRecipe(autoencoder_steps=3, clips=8, steps=4, batch=4, pictures=2, frames=3, size=32)

    @pytest.fixture(autouse=True)
    def small_networks(self, monkeypatch):
        def unet(**kwargs):
            return PicoUNet(block_out_channels=(8, 16, 16), embedding=32, **kwargs)

        unet.unspecified_motion = PicoUNet.unspecified_motion
        monkeypatch.setattr(training, "PicoUNet", unet)

    def train(self, out, checkpoint_every=1):
        return training.train(out, self.recipe, lambda *_: None, checkpoint_every=checkpoint_every)

    def test_interrupted_and_resumed_equals_uninterrupted(self, tmp_path, monkeypatch):
        whole = self.train(tmp_path / "whole").unet.state_dict()
        update, calls = training.update, []

        def stopped(*args):
            calls.append(0)
            if len(calls) in (3, 7):  # once in the autoencoder, once in the denoiser
                raise KeyboardInterrupt
            update(*args)

        monkeypatch.setattr(training, "update", stopped)
        monkeypatch.setattr(autoencoder_training, "update", stopped)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                self.train(tmp_path / "parts")
        parts = self.train(tmp_path / "parts").unet.state_dict()
        assert all(torch.equal(whole[k], parts[k]) for k in whole)

    def test_a_clip_run_backwards_is_told_backwards(self, tmp_path):
        self.train(tmp_path)
        data = training._load_latents(tmp_path)
        assert data["captions"].shape == (8, 2, text.LENGTH, text.WIDTH)
        opposite = {"left": "right", "right": "left", "up": "down", "down": "up"}
        for forwards, backwards in data["captions"]:
            words, other = ([text.WORDS[i] for i in codes.nonzero()[:, 1]] for codes in (forwards, backwards))
            assert other == [opposite.get(word, word) for word in words]

    def test_result_is_a_pipeline_with_statistics(self, tmp_path):
        from unstill.statistics import LatentStatistics

        self.train(tmp_path)
        loaded = PicoPipeline.from_pretrained(tmp_path / "pipeline")
        assert loaded.unet.config.num_frames == 3
        statistics = LatentStatistics.load(tmp_path / "pipeline" / "statistics.safetensors")
        assert statistics.count == 8
        assert tuple(statistics.mean.shape) == (6, 3, 8, 8)

    def test_another_recipe_in_the_same_folder_is_refused(self, tmp_path):
        training._same_recipe(tmp_path / "recipe.json", self.recipe)
        training._same_recipe(tmp_path / "recipe.json", PicoRecipe(**{**self.as_dict(), "steps": 9}))
        with pytest.raises(UnstillError, match="seed"):
            training._same_recipe(tmp_path / "recipe.json", PicoRecipe(**{**self.as_dict(), "seed": 1}))

    def as_dict(self):
        from dataclasses import asdict

        return asdict(self.recipe)

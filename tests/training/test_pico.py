"""The embedded model's training: its optimizer, its batches, and short runs of it."""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.pipelines import random_pico
from tests.processes import finish, free_port
from tests.processes import start as start_process
from tests.training.conftest import silent
from unstill.data import captions
from unstill.data.files import alone
from unstill.errors import UnstillError
from unstill.latent_statistics import LatentStatistics
from unstill.models.pico import PicoPipeline, PicoTransformer, text
from unstill.training import pico
from unstill.training.muon import StackedMuon
from unstill.training.pico import train_pico
from unstill.training.pico_denoiser import Batch, denoising_loss, draw_clips, draw_pictures, optimizers
from unstill.training.pico_recipe import PicoRecipe, computes_in_bf16


RECIPE = PicoRecipe(
    autoencoder_steps=3,
    autoencoder_batch=4,
    autoencoder_frames=16,
    clips=12,
    steps=4,
    batch=4,
    pictures=2,
    warmup=1,
    frames=3,
    size=32,
    layers=1,
    heads=1,
    precision="no",
)


def weights(pipe: Any) -> dict[str, torch.Tensor]:
    return pipe.transformer.state_dict()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("pico") / "whole"
    train_pico(out, RECIPE, silent, checkpoint_every=1)
    return out


def test_stacked_muon_is_torchs_muon() -> None:
    """Bit for bit over five steps, for tall, wide and square matrices; and from a state of torch's."""
    torch.manual_seed(0)
    shapes = [(96, 32), (32, 32), (96, 32), (32, 128), (32, 32), (128, 32)]
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    stacked = StackedMuon(ours, 3e-3, weight_decay=0.01, momentum=0.95)
    reference = torch.optim.Muon(theirs, 3e-3, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for step in range(5):
        for mine, its in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            its.grad = mine.grad.clone()
        stacked.step()
        reference.step()
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), step
    state, its = stacked.state_dict()["state"], reference.state_dict()["state"]
    assert all(torch.equal(state[i]["momentum_buffer"], its[i]["momentum_buffer"]) for i in its)


def test_muon_has_the_matrices_of_the_blocks() -> None:
    network = PicoTransformer(num_layers=2, num_attention_heads=1)
    muon, adam = optimizers(network, RECIPE)
    matrices = muon.param_groups[0]["params"]
    assert [tuple(p.shape) for p in matrices] == [(192, 64), (64, 64), (256, 64), (64, 256)] * 2
    together = [*matrices, *adam.param_groups[0]["params"]]
    assert {id(p) for p in together} == {id(p) for p in network.parameters()}
    assert len(together) == len(list(network.parameters()))


def test_loss_is_the_edm_loss_of_the_denoised_clip() -> None:
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 3, 12, 8, 8), torch.randn(2, 3, 12, 8, 8)
    sigma = torch.tensor([0.3, 20.0])
    network = random_pico().transformer
    ids = torch.tensor([[7.0, 50.0, 0.0]] * 2)
    image = clean[:, 0]
    s = sigma[:, None, None, None, None]
    noisy = clean + s * noise
    v = network(
        torch.cat([noisy / (1 + s**2).sqrt(), image[:, None].expand(-1, 3, -1, -1, -1)], 2),
        sigma.log() / 4,
        text.embed(["a red ring", ""]),
        ids,
    )
    denoised = noisy / (s**2 + 1) - s / (s**2 + 1).sqrt() * v.sample
    expected = ((denoised - clean) ** 2).mean((1, 2, 3, 4)) * (1 + sigma**2) / sigma**2
    words = text.embed(["a red ring", ""])
    errors = denoising_loss(network, Batch(clean, image, words, sigma, noise, ids))
    torch.testing.assert_close(errors, expected, rtol=1e-4, atol=1e-5)


def made_up_latents(n: int) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        "latents": torch.randn(n, 3, 12, 4, 4, generator=g).half(),
        "motion": torch.rand(n, generator=g),
        "captions": torch.arange(1, 3, dtype=torch.uint8)[None, :, None].expand(n, 2, captions.LENGTH),
        "plain": torch.arange(n) % 2 == 0,
    }


def test_a_batch_is_drawn_as_the_recipe_says() -> None:
    """Shares of what is withheld, noised and reversed; the network is told what was done."""
    data, n = made_up_latents(50), 4000
    batch = draw_clips(RECIPE, data, n, torch.Generator().manual_seed(1))
    shown = batch.image.flatten(1).any(1)
    noise = batch.ids[:, 2] / 100
    told = batch.caption.flatten(1).any(1)
    assert (~shown).float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert (noise > 0).float().mean().item() == pytest.approx(0.25 * 0.9, abs=0.02)
    assert noise[noise > 0].log().mean().item() == pytest.approx(-2.5, abs=0.15) and noise.max() <= 3
    assert (~told)[shown].float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert (~told)[~shown].float().mean().item() == pytest.approx(0.1, abs=0.05)
    assert (batch.ids[:, 1] == 255).float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert (batch.ids[:, 0] == 7).all()
    difference = (batch.image - batch.clean[:, 0])[shown].std((1, 2, 3))
    torch.testing.assert_close(difference, noise[shown], rtol=0.3, atol=1e-6)
    first_caption = batch.caption[told][:, 0].argmax(-1)  # 1 of a clip that runs backwards
    assert first_caption.float().mean().item() == pytest.approx(0.5, abs=0.05)
    log_sigma = batch.sigma.log()
    assert (log_sigma.mean().item(), log_sigma.std().item()) == pytest.approx((0.9, 1.6), abs=0.1)
    pictures = draw_pictures(RECIPE, data, n, torch.Generator().manual_seed(1))
    assert (
        pictures.clean.shape[1] == 1
        and not pictures.image.any()
        and (pictures.ids[:, 1:] == torch.tensor([255.0, 0])).all()
    )
    frames = data["latents"][data["plain"]].float().flatten(0, 1).flatten(1)
    assert {tuple(row) for row in pictures.clean[:200].flatten(1).tolist()} <= {tuple(row) for row in frames.tolist()}


def test_a_clip_run_backwards_is_told_backwards(whole: Path) -> None:
    codes = load_file(whole / "latents" / "00000.safetensors")["captions"]
    assert codes.shape == (12, 2, captions.LENGTH)
    opposite = {"left": "right", "right": "left", "up": "down", "down": "up"}
    for forwards, backwards in codes:
        words, other = ([captions.WORDS[i - 1] for i in row if i] for row in (forwards, backwards))
        assert other == [opposite.get(word, word) for word in words]


def test_result_is_a_pipeline_with_statistics(whole: Path) -> None:
    loaded = PicoPipeline.from_pretrained(whole / "pipeline")
    assert loaded.transformer.config.num_frames == 3
    statistics = LatentStatistics.load(whole / "pipeline" / "statistics.safetensors")
    assert statistics.count == 12 and tuple(statistics.mean.shape) == (12, 3, 4, 4)
    rows = (whole / "denoiser" / "loss.csv").read_text().splitlines()
    assert rows[0].startswith("step,loss,") and len(rows) == 5


def test_interrupted_and_resumed_equals_uninterrupted(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed once in the autoencoder and once in the denoiser, between checkpoints."""
    steps: list[int] = []
    step = torch.optim.AdamW.step

    def killed(self: Any, closure: Any = None) -> Any:
        steps.append(0)
        if len(steps) in (2, 8):
            raise RuntimeError("killed")
        return step(self, closure)

    monkeypatch.setattr(torch.optim.AdamW, "step", killed)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="killed"):
            train_pico(tmp_path, RECIPE, silent, checkpoint_every=2)
    parts = train_pico(tmp_path, RECIPE, silent, checkpoint_every=2)
    expected = weights(PicoPipeline.from_pretrained(whole / "pipeline"))
    assert all(torch.equal(expected[k], v) for k, v in weights(parts).items())
    for network in ("autoencoder", "denoiser"):
        assert (tmp_path / network / "loss.csv").read_text() == (whole / network / "loss.csv").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_after_a_checkpoint(tmp_path: Path, number: int) -> None:
    def report(phase: str, done: int, total: int, line: str) -> None:
        if (phase, done) == ("denoiser", 2):
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt, match="Stopped after 3 steps of the denoiser, which are saved"):
        train_pico(tmp_path, RECIPE, report, checkpoint_every=100)
    assert [path.name for path in (tmp_path / "denoiser" / "checkpoints").iterdir()] == ["0000003"]


def _work(recipe: PicoRecipe, out: Path, rank: int, port: int) -> None:
    from unstill.cli.distributed import rank_and_count

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    rank_and_count()
    pico.PART = 8  # so that there are two parts of latents, one for each process
    train_pico(out, recipe, silent)


def test_two_processes_share_a_run(whole: Path, tmp_path: Path) -> None:
    port = free_port()
    finish([start_process(_work, RECIPE, tmp_path, rank, port) for rank in range(2)])
    trained = weights(PicoPipeline.from_pretrained(tmp_path / "pipeline"))
    assert len(list((tmp_path / "latents").iterdir())) == 2
    assert all(bool(value.isfinite().all()) for value in trained.values())
    assert len((tmp_path / "denoiser" / "loss.csv").read_text().splitlines()) == 5


def test_training_goes_on_from_given_weights(whole: Path, tmp_path: Path) -> None:
    """Its autoencoder is kept, and no step of the rates' warm-up moves the denoiser far."""
    recipe = replace(RECIPE, start=str(whole / "pipeline"), steps=1, muon_rate=1e-9, adam_rate=1e-9, ema=0.0)
    train_pico(tmp_path / "more", recipe, silent)
    before, after = (PicoPipeline.from_pretrained(path / "pipeline") for path in (whole, tmp_path / "more"))
    for name, value in weights(before).items():
        torch.testing.assert_close(weights(after)[name], value, rtol=0, atol=1e-6)
    for name, value in before.vae.state_dict().items():
        assert torch.equal(after.vae.state_dict()[name], value)
    assert not (tmp_path / "more" / "autoencoder").exists()


def test_what_cannot_be_is_said(whole: Path, tmp_path: Path) -> None:
    for wrong, says in (
        (
            replace(RECIPE, start=str(whole / "pipeline"), frames=4),
            "makes 3 frames of 32 pixels, but the recipe has 4",
        ),
        (replace(RECIPE, start=str(tmp_path / "nothing")), "nothing"),
        (replace(RECIPE, autoencoder_batch=3), "choose a multiple of 2"),
    ):
        with pytest.raises(UnstillError, match=says):
            train_pico(tmp_path / "out", wrong, silent)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UnstillError, match="a run with another seed and clips; choose another --out"):
        train_pico(whole, replace(RECIPE, seed=1, clips=9), silent)
    with pytest.raises(UnstillError, match="holds 4 steps already, more than the 2 of the recipe"):
        train_pico(whole, replace(RECIPE, steps=2), silent)
    with alone(whole, "", 1.0), pytest.MonkeyPatch.context() as patch:
        patch.setattr("unstill.training.setup.PATIENCE", 0.1)
        with pytest.raises(UnstillError, match="Another process is training"):
            train_pico(whole, RECIPE, silent)


def test_damaged_files_are_named(whole: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("autoencoder.safetensors", "latents/00000.safetensors")):
        out = tmp_path / str(number)
        shutil.copytree(whole, out)
        file = out / name
        good = load_file(file)
        first = next(key for key, value in good.items() if value.is_floating_point())
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(UnstillError, match=f"{file.name} is damaged .*; delete it, and the same command"):
            train_pico(out, RECIPE, silent)
        save_file({**good, first: good[first] * float("nan")}, file)
        with pytest.raises(UnstillError, match=f"{first} holds NaN or infinity"):
            train_pico(out, RECIPE, silent)
        save_file({key: value for key, value in good.items() if key != first}, file)
        with pytest.raises(UnstillError, match="not those of this recipe"):
            train_pico(out, RECIPE, silent)
    (out / "recipe.json").write_text("[]")
    with pytest.raises(UnstillError, match="recipe.json"):
        train_pico(out, RECIPE, silent)


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_number(network: Any, batch: Batch) -> torch.Tensor:
        return denoising_loss(network, batch) * float("nan")

    monkeypatch.setattr("unstill.training.pico_denoiser.denoising_loss", no_number)
    with pytest.raises(UnstillError, match="gradient of the denoiser at step 1 is not a number; lower the learning"):
        train_pico(tmp_path, RECIPE, silent)
    assert not (tmp_path / "denoiser" / "checkpoints").exists()


def test_blocks_are_compiled_one_by_one(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **options: compiled.append((type(self).__name__, options))
    )
    train_pico(tmp_path, replace(RECIPE, start=str(whole / "pipeline"), steps=1), silent, compile=True)
    assert compiled == [("Block", {"dynamic": False})]


def test_bf16_only_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for avx, amx in ((False, False), (True, False), (False, True)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda answer=avx: answer)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda answer=amx: answer)
        assert computes_in_bf16(torch.device("cpu")) == (avx or amx)
    assert not computes_in_bf16(torch.device("mps"))


def test_the_defaults_are_those_of_the_embedded_weights() -> None:
    r = PicoRecipe()
    assert (r.autoencoder_steps, r.autoencoder_batch, r.clips, r.steps, r.batch, r.pictures) == (
        4039,
        128,
        115_712,
        3687,
        128,
        64,
    )
    assert (r.log_sigma_mean, r.log_sigma_std, r.ema, r.noisy_image, r.warmup, r.decay) == (
        0.9,
        1.6,
        0.999,
        0.25,
        300,
        0.4,
    )
    config = PicoPipeline.embedded().transformer.config
    assert (config.num_layers, config.num_attention_heads) == (r.layers, r.heads)
    assert (config.num_frames, config.sample_size * 8) == (r.frames, r.size)

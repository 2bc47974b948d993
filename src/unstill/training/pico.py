"""Training of the embedded model: `unstill train pico`, or `accelerate launch -m unstill train pico`.

Three phases, each resumable: the autoencoder, the latents of clips of the synthetic world, the denoiser. Clips are
rendered and encoded on the device, and their latents stay there. Whatever is random at a step is drawn from a
generator seeded by (seed, phase, step, process), so that the weights do not depend on when a run was interrupted.

    out/recipe.json              the recipe
    out/autoencoder/             checkpoints and loss.csv
    out/autoencoder.safetensors  the trained autoencoder
    out/latents/                 the encoded clips, in parts
    out/denoiser/                checkpoints and loss.csv
    out/pipeline/                the finished model with its statistics
"""

from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from safetensors.torch import save_file
from torch import Tensor

from unstill.data import synthetic_world
from unstill.data.captions import LENGTH, codes
from unstill.data.files import replacing, sweep_all
from unstill.data.ownership import check_folder, check_free, read_record, together, write_record
from unstill.documents import JSONObject, read_json
from unstill.errors import UnstillError
from unstill.latent_statistics import LatentStatistics
from unstill.models.pico import PicoAutoencoder, PicoPipeline, PicoTransformer, edm_scheduler
from unstill.models.saving import write_pipeline
from unstill.progress import FigureProgress
from unstill.training.pico_autoencoder import train_autoencoder
from unstill.training.pico_denoiser import Latents, train_denoiser
from unstill.training.pico_recipe import PicoRecipe, computes_in_bf16, generator, read_tensors
from unstill.training.setup import alone_in


RUN_FILES = ("recipe.json", "autoencoder", "autoencoder.safetensors", "latents", "denoiser", "pipeline", "made.json")
"""What a run writes into its folder."""
PART, CHUNK = 512, 128  # clips per file of latents, and rendered at once


def train_pico(
    out: Path, recipe: PicoRecipe, report: FigureProgress, compile: bool = False, checkpoint_every: int = 200
) -> PicoPipeline | None:
    """
    Trains, or resumes, in the folder `out`. The main process writes `out/pipeline` and returns it.

    Args:
        compile: compile the blocks of the denoiser one by one, which are all alike.
        checkpoint_every: steps.

    Raises:
        UnstillError: a recipe that the processes cannot share, another run in the folder, a damaged file of this run.
        KeyboardInterrupt: stopped by Ctrl-C or SIGTERM, after saving a checkpoint.
    """
    state = PartialState()
    _check_shares(recipe, state.num_processes)
    if state.device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    precision = recipe.precision
    if precision == "auto":
        precision = "bf16" if computes_in_bf16(state.device) else "no"
    start = None if recipe.start is None else _started_from(recipe)
    out.mkdir(parents=True, exist_ok=True)
    with alone_in(out, state.is_main_process):
        if state.is_main_process:
            _same_recipe(out / "recipe.json", recipe)
            sweep_all(out)
        state.wait_for_everyone()
        if start is not None:
            vae = start.vae
        else:
            vae = _autoencoder(out, recipe, Accelerator(mixed_precision=precision), report, checkpoint_every)
        vae.requires_grad_(False).eval().to(state.device)
        data = _latents(out, recipe, vae, state, report)
        torch.manual_seed(recipe.seed)
        network = start.transformer if start is not None else _fresh_network(recipe)
        accelerator = Accelerator(mixed_precision=precision)
        train_denoiser(out, recipe, network, data, accelerator, report, compile, checkpoint_every)
        if not state.is_main_process:
            return None
        return _finish(out, vae, network, data)


def _check_shares(recipe: PicoRecipe, processes: int) -> None:
    """Raises `UnstillError` for batches that the processes cannot share evenly."""
    for name, size, multiple in (
        ("batch", recipe.batch, processes),
        ("pictures", recipe.pictures, processes),
        ("autoencoder_batch", recipe.autoencoder_batch, 2 * processes),  # half of a share is moved
    ):
        if size % multiple:
            raise UnstillError(
                f"{name} {size} cannot be shared by {processes} processes; choose a multiple of {multiple}."
            )


def _started_from(recipe: PicoRecipe) -> PicoPipeline:
    """The model of `start`; raises `UnstillError` for another class, or other frames or size than the recipe's."""
    from unstill.models.registry import load

    assert recipe.start is not None
    pipe = load(recipe.start, dtype=torch.float32, device="cpu")
    if not isinstance(pipe, PicoPipeline):
        raise UnstillError(f"start={recipe.start} is a {type(pipe).__name__}; name pico, or a folder of one.")
    frames = pipe.transformer.config.num_frames
    if (frames, pipe.size) != (recipe.frames, recipe.size):
        raise UnstillError(
            f"start={recipe.start} makes {frames} frames of {pipe.size} pixels, but the recipe has {recipe.frames} of "
            f"{recipe.size}; set frames={frames},size={pipe.size}."
        )
    return pipe


def _fresh_network(recipe: PicoRecipe) -> PicoTransformer:
    return PicoTransformer(
        num_frames=recipe.frames,
        sample_size=recipe.size // 8,
        num_layers=recipe.layers,
        num_attention_heads=recipe.heads,
    )


def _same_recipe(path: Path, recipe: PicoRecipe) -> None:
    """
    Records the recipe of a run, or compares it with the recorded one. Only `steps` may differ.

    Raises:
        UnstillError: the folder holds a run with another recipe, or something else.
    """
    new = asdict(recipe)
    check_folder(path.parent, path.name, RUN_FILES)
    if path.exists():
        old = read_json(path, JSONObject, "choose another --out").root
        changed = [k for k, v in new.items() if k != "steps" and old.get(k) != v]
        if changed:
            raise UnstillError(
                f"{path.parent} holds a run with another {' and '.join(changed)}; choose another --out, or the same "
                "recipe."
            )
    check_free(path, [path.with_name("pipeline")])
    check_free(path.with_name("made.json"), [])
    with replacing(path) as part:
        write_record(part, new, before=path)


def _autoencoder(
    out: Path, recipe: PicoRecipe, accelerator: Accelerator, report: FigureProgress, checkpoint_every: int
) -> PicoAutoencoder:
    """The trained autoencoder; trains it if its file does not exist."""
    path = out / "autoencoder.safetensors"
    if not path.exists():
        train_autoencoder(out, recipe, accelerator, report, checkpoint_every)
    accelerator.wait_for_everyone()
    vae = PicoAutoencoder()
    vae.load_state_dict(read_tensors(path, vae.state_dict()))
    return vae


@torch.no_grad()
def _latents(
    out: Path, recipe: PicoRecipe, vae: PicoAutoencoder, state: PartialState, report: FigureProgress
) -> Latents:
    """All encoded clips, on the device. Every process renders and encodes a share, in parts kept on disk."""
    folder = out / "latents"
    folder.mkdir(exist_ok=True)
    counts = {index: min(PART, recipe.clips - first) for index, first in enumerate(range(0, recipe.clips, PART))}
    for index, count in counts.items():
        path = folder / f"{index:05d}.safetensors"
        if index % state.num_processes != state.process_index or path.exists():
            continue
        g = generator(recipe.seed, 3, index, device=state.device)
        chunks = [_encoded(recipe, vae, min(CHUNK, left), g) for left in range(count, 0, -CHUNK)]
        latents = {name: torch.cat([chunk[name] for chunk in chunks]).cpu() for name in chunks[0]}
        with replacing(path) as part:
            save_file(latents, part)
        report("latents", index * PART + count, recipe.clips, "")
    state.wait_for_everyone()
    like = _layout(recipe, vae, recipe.clips)
    data = {name: torch.empty_like(tensor, device=state.device) for name, tensor in like.items()}
    for index, count in counts.items():
        latents = read_tensors(folder / f"{index:05d}.safetensors", _layout(recipe, vae, count))
        for name, tensor in latents.items():
            data[name][index * PART : index * PART + count] = tensor.to(state.device)
    return data


def _encoded(recipe: PicoRecipe, vae: PicoAutoencoder, n: int, g: torch.Generator) -> Latents:
    """`n` clips of the synthetic world."""
    scene = synthetic_world.sample_scene(n, g, size=recipe.size)
    motion = synthetic_world.sample_motion(scene, g)
    clips = synthetic_world.render(scene, motion, recipe.frames, recipe.size)
    pixels = clips.video.flatten(0, 1) * 2 - 1
    at_once = 2048 if pixels.is_cuda else 128
    latents = torch.cat([vae.encoder(part) for part in pixels.split(at_once)])
    captions = [codes(scene, motion, recipe.frames, backwards) for backwards in (False, True)]
    return {
        "latents": latents.unflatten(0, clips.video.shape[:2]).half(),
        "motion": clips.motion,
        "captions": torch.stack(captions, 1),
        "plain": scene.background == synthetic_world.BACKGROUNDS.index("waves"),
    }


def _layout(recipe: PicoRecipe, vae: PicoAutoencoder, n: int) -> Latents:
    """Shapes and types of the tensors of `n` encoded clips."""

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(n, *shape, dtype=dtype, device="meta")

    side, channels = recipe.size // 8, vae.config.latent_channels
    return {
        "latents": empty(recipe.frames, channels, side, side, dtype=torch.float16),
        "motion": empty(),
        "captions": empty(2, LENGTH, dtype=torch.uint8),
        "plain": empty(dtype=torch.bool),
    }


def _finish(out: Path, vae: PicoAutoencoder, network: PicoTransformer, data: Latents) -> PicoPipeline:
    """Writes the finished pipeline, with the statistics of the latents."""
    statistics = LatentStatistics()
    for part in data["latents"].split(256):
        statistics.update(part.float().transpose(1, 2))
    finished = PicoTransformer.from_config(network.config)  # not compiled
    finished.load_state_dict(network.state_dict())
    pipe = PicoPipeline(vae=vae.cpu(), transformer=finished.eval(), scheduler=edm_scheduler())

    with together(out / "recipe.json", ["pipeline"]) as results:
        results.record = read_record(out / "recipe.json") or {}
        statistics.save(write_pipeline(pipe, results.folder / "pipeline") / "statistics.safetensors")
    return pipe

"""Checkpoints of a run: written atomically, the newest few kept, resumed only by the same run."""

import logging
import os
import re
import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from pydantic import Field, JsonValue, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unstill.data.files import beside, move, replacing, write_errors
from unstill.data.ownership import check_folder, check_free, read_record, write_record
from unstill.documents import Stored, first_fault, read_json
from unstill.errors import UnstillError, first_line, lacks_memory
from unstill.training.parameters import Average, Named, put


NAME = re.compile(r"\d{7,}")  # of a checkpoint: the steps done
log = logging.getLogger(__name__)

FREE = frozenset({"save", "validate", "trackers", "data.workers", "data.cache_folder", "train.batch_per_device"})
"""Keys of a recipe that may change when a run is resumed: they do not affect the training done so far."""

RESULTS = ("pipeline", "lora.safetensors")
"""What a finished run writes; `run.json` vouches for it."""
RUN_FILES = ("loss.csv", "checkpoints", "validation", "latents", *RESULTS, "made.json")
"""What a run writes into its folder besides `run.json`."""


class Checkpoints:
    """
    The folder `out/checkpoints` of a run. A checkpoint holds the trained weights, their average, the optimizer, the
    loss scale, the random states of every process, and the step, which determines all further data and noise.

    accelerate writes the optimizer, the loss scale and the random states; weights and average are written here.
    """

    def __init__(
        self, out: Path, accelerator: Accelerator, trained: Named, average: Average | None, keep: int
    ) -> None:
        self._folder = out / "checkpoints"
        self._accelerator, self._trained, self._average, self._keep = accelerator, trained, average, keep
        # Only the trained weights, under names that do not depend on the number of processes.
        accelerator.register_save_state_pre_hook(self._save_weights)
        accelerator.register_load_state_pre_hook(self._load_weights)

    def newest(self) -> Path | None:
        """The last complete checkpoint, or `None`."""
        return newest_checkpoint(self._folder.parent)

    def save(self, step: int) -> Path:
        """Writes a checkpoint after `step` steps; called by every process. Returns its folder."""
        final, newest = self._folder / f"{step:07d}", self.newest()
        if os.path.lexists(final):
            raise UnstillError(f"{final} exists already: it is never overwritten; move it away.")
        remaining = f"the last complete checkpoint is {newest}" if newest else "there is no checkpoint yet"
        with write_errors(final, remaining), ExitStack() as stack:
            temporary = [""]
            if self._accelerator.is_main_process:
                temporary = [str(stack.enter_context(beside(self._folder)))]
            broadcast_object_list(temporary)
            parent = Path(temporary[0])
            part = parent / final.name
            self._accelerator.save_state(str(part))
            self._accelerator.wait_for_everyone()
            if self._accelerator.is_main_process:
                if self._average is not None:
                    save_file({k: v.cpu() for k, v in self._average.values.items()}, part / "average.safetensors")
                write_record(part / "step.json", {"step": step, "files": _sizes(part)})
                move(part, final)
                for old in _checkpoints(self._folder)[: -self._keep]:
                    if _is_own(old):
                        os.replace(old, parent / f"{old.name}.old")  # removed with `parent`
        self._accelerator.wait_for_everyone()
        return final

    def load(self, path: Path) -> int:
        """
        Restores a checkpoint.

        Returns:
            The number of steps done.

        Raises:
            UnstillError: a checkpoint that is damaged or of other weights.
        """
        try:
            step = _StepText.model_validate_json((path / "step.json").read_bytes(), strict=True).step
            if step != int(path.name):
                raise ValueError(f"step.json says {step} steps")
            self._accelerator.load_state(str(path))
            for optimizer in self._accelerator._optimizers:
                _check_optimizer(optimizer)
            if self._average is not None:
                values = load_file(path / "average.safetensors")
                _check_weights(values, self._trained, "average.safetensors")
                self._average.load(values)
            return step
        except UnstillError:
            raise
        except Exception as error:  # torch.load raises almost anything
            if lacks_memory(error):
                raise
            reason = first_fault(error) if isinstance(error, ValidationError) else first_line(error)
            raise UnstillError(
                f"The checkpoint {path} cannot be resumed ({reason}); delete it to continue from the previous one."
            ) from error

    def _save_weights(self, models: list[Any], weights: list[Any], folder: str) -> None:
        weights.clear()
        if self._accelerator.is_main_process:
            state = {k: p.detach().cpu().contiguous() for k, p in self._trained.items()}
            save_file(state, Path(folder) / "weights.safetensors")

    def _load_weights(self, models: list[Any], folder: str) -> None:
        models.clear()
        saved: dict[str, Tensor] = load_file(Path(folder) / "weights.safetensors")
        if {k: v.shape for k, v in saved.items()} != {k: p.shape for k, p in self._trained.items()}:
            raise UnstillError(f"The checkpoint {folder} is of another model; give this run another folder.")
        _check_weights(saved, self._trained, "weights.safetensors")
        put(self._trained, saved)


def newest_checkpoint(out: Path) -> Path | None:
    """The last complete checkpoint of the run in a folder, named by the steps done; `None` without one."""
    return max(_checkpoints(out / "checkpoints"), default=None)


def _checkpoints(folder: Path) -> list[Path]:
    """All checkpoints in order; a user's own folder beside them, such as `0000100-good`, is none."""
    return sorted(path for path in folder.glob("[0-9]*") if NAME.fullmatch(path.name) and path.is_dir())


def _sizes(checkpoint: Path) -> dict[str, int]:
    """Bytes by name of all that is in a checkpoint but its record."""
    files = (path for path in checkpoint.rglob("*") if not path.is_dir() or path.is_symlink())
    return {str(path.relative_to(checkpoint)): path.lstat().st_size for path in files if path.name != "step.json"}


def _is_own(checkpoint: Path) -> bool:
    """
    Whether a checkpoint holds what this program wrote there and nothing else, and so may be removed. Files are told by
    name and size: to hash tens of gigabytes would hold up the training.
    """
    record = read_record(checkpoint / "step.json")
    return record is not None and record.get("files") == _sizes(checkpoint)


class _Record(Stored):
    """What `write_record` adds."""

    written: dict[str, str] = {}
    earlier: dict[str, str] = {}
    seal: str | None = None


class _StepText(_Record):
    step: int = Field(ge=0)
    files: dict[str, int] = {}


class _RunText(_Record):
    """What `same_run` writes."""

    model: str
    clips: str | None = None
    id: str | None = None
    recipe: dict[str, JsonValue]


def _check_weights(values: dict[str, Tensor], like: Named, file: str) -> None:
    """Raises `ValueError` for names or shapes other than those of `like`, NaN or infinity."""
    if {k: v.shape for k, v in values.items()} != {k: p.shape for k, p in like.items()}:
        raise ValueError(f"{file} is of other weights")
    if wrong := [name for name, value in values.items() if not bool(value.isfinite().all())]:
        raise ValueError(f"{file} holds NaN or infinity in {wrong[0]}")


def _check_optimizer(optimizer: Any) -> None:
    """Raises `ValueError` for a state that does not match its parameters, which would fail during a step."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if not isinstance(value, Tensor) or (value.ndim and value.shape != parameter.shape):
                raise ValueError(f"the optimizer's {name} does not fit its weights")
            if not bool(value.isfinite().all()):
                raise ValueError(f"the optimizer's {name} holds NaN or infinity")


def same_run(out: Path, recipe: dict[str, Any], model: str, clips: str) -> str:
    """
    Makes sure that a folder holds one run only: records the run in `run.json`, or compares with what is recorded.

    A folder without checkpoints and without a finished pipeline is free for another run.

    Args:
        out: the folder of the run.
        recipe: as nested plain values.
        model: fingerprint of the network.
        clips: fingerprint of the data set. A difference is only a warning, so that a run can continue after a broken
            video was removed.

    Returns:
        The id of the run, drawn when it begins: trackers continue the curves of the same id.

    Raises:
        UnstillError: the folder holds a run of another model or recipe.
    """
    path = out / "run.json"
    check_folder(out, path.name, ("run.json", *RUN_FILES))
    new = {"model": model, "clips": clips, "id": secrets.token_hex(4), "recipe": recipe}
    if path.exists() and ((out / "pipeline").exists() or _checkpoints(out / "checkpoints")):
        old = read_json(path, _RunText, "give this run another folder, or delete that one")
        if old.model != model:
            raise UnstillError(f"{out} holds a run of another model; choose another --out, or delete that folder.")
        before, now = dotted(old.recipe), dotted(recipe)
        # The number of steps has no effect before the end, unless the learning rate decays towards it.
        free = FREE | ({"train.steps"} if not now.get("train.decay") else set())
        changed = [
            key
            for key in sorted({*before, *now})
            if before.get(key) != now.get(key) and not {key, key.partition(".")[0]} & free
        ]
        if changed:
            raise UnstillError(
                f"{out} holds a run with another {' and '.join(changed)}; choose another --out, or the same recipe."
            )
        new["id"] = old.id or new["id"]
        if old.clips not in (None, clips):
            log.warning("The videos have changed since the run in %s began; continuing with the current videos.", out)
    check_free(path, [out / name for name in RESULTS])
    check_free(out / "made.json", [])
    with replacing(path) as part:
        write_record(part, new, before=path)
    return str(new["id"])


def dotted(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names, such as `train.steps`."""
    values: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            values |= dotted(value, f"{prefix}{key}.")
        else:
            values[prefix + key] = value
    return values

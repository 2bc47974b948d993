"""What every method declares, and what `check_method` and `Run` do for all of them."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

import unstill
from tests.pipelines import CASES, pipeline, sample
from unstill.errors import UnstillError
from unstill.methods.base import Method, Target
from unstill.methods.checks import check_method
from unstill.methods.registry import method_classes, places_of, summary_of


TARGET = Target("SomePipeline", None, 1, image_latents=True, condition=True, conditioning_frames=0)
WITHOUT_IMAGE = Target("SomePipeline", None, 1, image_latents=False, condition=False, conditioning_frames=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked(Method):
    """Overrides `check` and does not call the base class's."""

    owns = frozenset({"latents"})
    needs = frozenset({"image"})

    def check(self, others, target):
        """Nothing else is wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Counter(Method):
    """Counts its steps; a list cannot be hashed."""

    counts: list[int] = field(default_factory=list)

    def on_step(self, run, output, sample, t):
        run.set_state(self, (run.state_of(self) or 0) + 1)
        self.counts.append(run.state_of(self))
        return output


class Other(Counter):
    """Equal fields, another state."""


@pytest.mark.parametrize("name", method_classes())
def test_every_method_says_what_lists_show(name):
    cls = method_classes()[name]
    assert 20 < len(summary_of(cls)) < 76 and cls.summary.endswith(".")
    assert cls.use_when and not cls.use_when.endswith(".") and cls.cost
    assert places_of(cls)
    assert cls.not_in_forms <= {one.name for one in cls.__dataclass_fields__.values()}
    assert getattr(unstill, cls.__name__) is cls


@pytest.mark.parametrize("name", method_classes())
def test_type_checkers_see_every_method(name):
    """Without the line in `unstill/__init__.py`, the type of `unstill.METHOD` is `Any`."""
    cls = method_classes()[name]
    source = Path(unstill.__file__).read_text("utf-8")
    line = f"from {cls.__module__} import {cls.__name__} as {cls.__name__}"
    assert f"    {line}\n" in source, f"src/unstill/__init__.py needs, below TYPE_CHECKING: {line}"


def test_lists_begin_with_what_to_try_first():
    assert list(method_classes())[:3] == ["early_start", "analytic_init", "noise_rectification"]


def test_places_are_read_off_the_hooks_or_declared():
    places = {name: places_of(cls) for name, cls in method_classes().items()}
    assert places["early_start"] == places["progressive_noise"] == places["free_init"] == ["start"]
    assert places["noise_rectification"] == places["ni_vsds"] == ["start", "step"]
    assert places["conditioning_augmentation"] == places["time_noise"] == ["condition"]


def test_an_override_of_check_cannot_lose_the_common_checks():
    check_method(Checked(), (Counter(),), TARGET)
    with pytest.raises(UnstillError, match="Checked was given twice"):
        check_method(Checked(), (Checked(),), TARGET)
    with pytest.raises(UnstillError, match="Checked and FrameInit both decide the first latents"):
        check_method(Checked(), (unstill.FrameInit(),), TARGET)
    with pytest.raises(UnstillError, match="Checked works from an image, and SomePipeline has none; give it with"):
        check_method(Checked(), (), WITHOUT_IMAGE)
    with pytest.raises(UnstillError, match="SomePipeline shows it none that can be changed; use a method"):
        check_method(unstill.ConditioningAugmentation(), (), WITHOUT_IMAGE)


def test_a_call_without_its_image_says_where_the_image_goes():
    """The pipeline encodes its image itself, so that `apply` would refuse one."""
    pipe = pipeline("PicoPipeline")
    with (
        unstill.apply(pipe, unstill.NoiseRectification()),
        pytest.raises(UnstillError, match="to the pipeline's call"),
    ):
        pipe(prompt="a red ring", num_inference_steps=1, generator=torch.Generator().manual_seed(0))


def test_states_belong_to_one_method_in_one_call():
    pipe, case = pipeline("PicoPipeline"), CASES["PicoPipeline"]
    first, second = Counter(), Other()
    with unstill.apply(pipe, first, second) as applied:
        sample(case, pipe)
        steps = len(applied.run.grid.timesteps)
        sample(case, pipe)
    assert first.counts == second.counts == [*range(1, steps + 1), *range(1, steps + 1)]

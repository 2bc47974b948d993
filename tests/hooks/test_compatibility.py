"""The table of what works where: against `apply` itself."""

import diffusers
import pytest

import unstill
from tests.pipelines import CASES, picture, pipeline
from unstill.errors import UnstillError
from unstill.families.registry import UNSUPPORTED
from unstill.hooks import adapter_for
from unstill.hooks.compatibility import examples, markdown, refusals
from unstill.hooks.free_init import FreeInitNoise
from unstill.methods.registry import method_classes


def test_the_table_has_every_pipeline_and_method_with_the_reasons_below() -> None:
    table, lines = refusals(), markdown().splitlines()
    assert lines[0] == f"| `...Pipeline` | {' | '.join(cls.__name__ for cls in method_classes().values())} |"
    rows = lines[2 : 2 + len(table)]
    for row, (name, cells) in zip(rows, table.items(), strict=True):
        assert row.startswith(f"| `{name.removesuffix('Pipeline')}` | ")
        assert [cell.startswith(" no (") for cell in row.split("|")[2:-1]] == [
            bool(reason) for reason in cells.values()
        ]
    assert sum(line.startswith(("1. ", "2. ")) for line in lines) == 2


@pytest.mark.parametrize("name", [name for name in CASES if name != "VideoCrafterPipeline"])  # has other betas here
def test_apply_says_what_the_table_says(name: str) -> None:
    pipe, image = pipeline(name), {} if CASES[name].image else {"image": picture()}
    told, usual = refusals()[type(pipe).__name__], adapter_for(pipe).usual_scheduler[0]
    process = adapter_for(pipe).process(pipe.scheduler)
    for method, instance in examples(process).items():
        reason = ""
        try:
            if instance.stage == "loop":
                with unstill.apply(pipe, **image) as handle, handle.also(FreeInitNoise(instance)):
                    pass
            else:
                unstill.apply(pipe, instance, **image).remove()
        except UnstillError as error:
            reason = str(error)
        assert reason == told[method].replace(usual, type(pipe.scheduler).__name__), method


@pytest.mark.parametrize(
    ("cls", "base"),
    [
        (diffusers.SkyReelsV2DiffusionForcingImageToVideoPipeline, "SkyReelsV2DiffusionForcingImageToVideoPipeline"),
        (diffusers.modular_pipelines.LTXModularPipeline, "ModularPipeline"),
        (diffusers.modular_pipelines.Wan22VaceModularPipeline, "Wan22VaceModularPipeline"),
    ],
)
def test_pipelines_that_cannot_work_say_why(cls: type, base: str) -> None:
    with pytest.raises(UnstillError, match=f"{cls.__name__} .*; use ") as caught:
        unstill.apply(object.__new__(cls))
    assert str(caught.value).endswith(UNSUPPORTED[base])
    assert set(refusals()[base].values()) == {f"{base} {UNSUPPORTED[base]}"}

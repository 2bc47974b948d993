"""The table of what works where: against `apply` itself."""

import re
from pathlib import Path

import diffusers
import pytest

import unstill
from tests.pipelines import CASES, picture, pipeline
from unstill.errors import UnstillError
from unstill.families.registry import ADAPTERS, IMAGE_INPUTS, UNSUPPORTED
from unstill.hooks import adapter_for
from unstill.hooks.compatibility import examples, image_inputs, refusals, support_tables
from unstill.hooks.free_init import FreeInitNoise
from unstill.methods.registry import method_classes


def test_the_table_has_every_pipeline_and_method_with_the_reasons_below() -> None:
    table, lines = refusals(), support_tables().splitlines()
    assert lines[0] == f"| `...Pipeline` | {' | '.join(cls.__name__ for cls in method_classes().values())} |"
    supported = {name: cells for name, cells in table.items() if name not in UNSUPPORTED}
    rows = lines[2 : 2 + len(supported)]
    for row, (name, cells) in zip(rows, supported.items(), strict=True):
        assert row.startswith(f"| `{name.removesuffix('Pipeline')}` | ")
        assert [cell.startswith(" no (") for cell in row.split("|")[2:-1]] == [
            bool(reason) for reason in cells.values()
        ]
    assert sum(line.startswith(("1. ", "2. ")) for line in lines) == 2
    assert "WanThis" not in support_tables()  # a name is replaced as a whole only
    assert lines[-len(UNSUPPORTED) :] == [f"- `{name}` {reason}" for name, reason in sorted(UNSUPPORTED.items())]


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
        if (name, method) == ("Wan 2.2 5B", "ConditionAmplitude"):  # of the others of its class, as the table says
            assert "(Wan 2.2 5B)" in reason and not told[method]
            continue
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


def test_the_pipelines_that_take_an_image_say_how() -> None:
    assert IMAGE_INPUTS.keys() <= ADAPTERS.keys()
    assert {name for name, adapter in ADAPTERS.items() if adapter.image_latents_from} <= IMAGE_INPUTS.keys()
    table = image_inputs()
    assert all(table.count(f"`{name}`") == 1 for name in ADAPTERS)
    wan = next(line for line in table.splitlines() if "`WanImageToVideoPipeline`" in line)
    assert wan.endswith("| channels, frame 0, or in 2.2 5B frame 0; CLIP (2.1) | yes | from the call | 0 or 1 |")


def video_pipelines() -> set[str]:
    """The classes of diffusers, by the words of their source: importing all of them takes long."""
    found = set()
    for file in Path(diffusers.__file__).parent.glob("pipelines/**/pipeline_*.py"):
        parts = re.split(r"^class (\w+Pipeline)\(", file.read_text("utf-8"), flags=re.MULTILINE)[1:]
        for name, source in zip(parts[::2], parts[1::2], strict=True):
            if re.search("num_frames|video_processor|num_videos", source):
                found.add(name)
    # these make pictures, with the processor of videos
    return (found & set(dir(diffusers))) - {"CogView3PlusPipeline", "Cosmos2TextToImagePipeline"}


def test_pipelines_that_guide_in_terms_of_x0_say_so() -> None:
    """LTX 2 converts the outputs of its network to x0 and combines, and rescales, these."""
    converting = {name for name in ADAPTERS if hasattr(getattr(diffusers, name, None), "convert_velocity_to_x0")}
    assert converting == {"LTX2Pipeline", "LTX2ImageToVideoPipeline", "LTX2ConditionPipeline"}
    assert not any(ADAPTERS[name].guides_output for name in converting)


def test_every_video_pipeline_of_diffusers_is_supported_or_refused_with_its_reason() -> None:
    assert len(video_pipelines()) > 70
    assert not video_pipelines() - ADAPTERS.keys() - UNSUPPORTED.keys()


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_a_refusal_advises_supported_pipelines_only(name: str) -> None:
    advised = set(re.findall(r"\w+Pipeline\b", UNSUPPORTED[name]))
    assert advised and advised <= ADAPTERS.keys()

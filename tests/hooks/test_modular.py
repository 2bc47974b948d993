"""Methods in a pipeline made of blocks: Wan's, from its encoded prompt to its latents."""

import copy
from functools import cache
from typing import Any

import diffusers
import pytest
import torch
from diffusers.modular_pipelines import WanImage2VideoAutoBlocks

import unstill
from tests.hooks.test_apply import Add, Condition, Fill, Spy
from tests.pipelines import _flow_unipc, _wan_transformer, _wan_vae, embeddings, picture
from unstill.errors import UnstillError
from unstill.hooks.scheduler_hooks import is_hooked


@cache
def pipeline() -> Any:
    torch.manual_seed(0)
    blocks = WanImage2VideoAutoBlocks()
    for name in ("text_encoder", "image_encoder", "decode"):
        blocks.sub_blocks.pop(name)
    pipe = blocks.init_pipeline()
    transformer = _wan_transformer(diffusers.WanTransformer3DModel, 36, image_dim=8, added_kv_proj_dim=24)
    pipe.update_components(
        vae=_wan_vae().eval(),
        transformer=transformer.eval(),
        scheduler=_flow_unipc(),
        guider=diffusers.ClassifierFreeGuidance(guidance_scale=2.0),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sample(pipe: Any, seed: int = 0, **changes: Any) -> torch.Tensor:
    call = {
        **embeddings(4, 8),
        "image": picture(),
        "image_embeds": torch.ones(1, 5, 8),
        "height": 16,
        "width": 16,
        "num_frames": 9,
        "num_inference_steps": 2,
        "generator": torch.Generator().manual_seed(seed),
    }
    return pipe(**{**call, **changes}, output="latents")


@cache
def plain() -> torch.Tensor:
    return sample(pipeline())


def test_what_changes_nothing_leaves_no_trace() -> None:
    pipe, spy, expected = pipeline(), Spy(seen={}), plain()
    scheduler, blocks = pipe.scheduler, str(pipe.blocks)
    with unstill.apply(pipe, spy, Condition(seen=[])) as handle:
        assert is_hooked(pipe.scheduler) and str(pipe.blocks) == blocks
        assert torch.equal(sample(pipe), expected)
    assert pipe.scheduler is scheduler and str(pipe.blocks) == blocks
    assert torch.equal(sample(pipe), expected)
    assert spy.seen["start"].shape == (1, 16, 3, 2, 2) and len(spy.seen["steps"]) == 2
    assert torch.equal(spy.seen["steps"][0][2], spy.seen["start"])
    pixels = torch.tensor(list(picture().get_flattened_data())).view(16, 16, 3).permute(2, 0, 1)[None] / 255
    encoded = handle._adapter.encode_video(pipe, pixels)
    torch.testing.assert_close(handle.run.image_latents, encoded, atol=1e-5, rtol=1e-4)


def test_the_first_latents_are_exactly_those_of_the_method() -> None:
    pipe, spy = pipeline(), Spy(seen={})
    with unstill.apply(pipe, unstill.EarlyStart(start=0.9), Fill(value=0.123), spy) as handle:
        sample(pipe)
    first = spy.seen["steps"][0][2]
    assert torch.equal(first, torch.full_like(first, 0.123)) and handle.run.grid.sigmas[0] == pytest.approx(0.9)


def test_a_corrected_output_is_what_the_solver_uses() -> None:
    pipe = pipeline()
    with unstill.apply(pipe, Add(value=0.1)):
        corrected = sample(pipe)

    def add(module: torch.nn.Module, args: Any, output: Any) -> Any:
        return (output[0] + 0.1, *output[1:])

    handle = pipe.transformer.register_forward_hook(add)
    torch.testing.assert_close(corrected, sample(pipe))
    handle.remove()


def test_the_denoiser_sees_the_condition_of_the_method() -> None:
    pipe, method, inputs = pipeline(), Condition(seen=[], add=0.5), []
    with unstill.apply(pipe, method) as handle:
        look = pipe.transformer.register_forward_pre_hook(
            lambda module, args, kwargs: inputs.append(kwargs["hidden_states"].clone()), with_kwargs=True
        )
        sample(pipe)
        look.remove()
    assert len(inputs) == len(method.seen) == 4  # with and without the prompt
    for seen, x in zip(method.seen, inputs, strict=True):
        torch.testing.assert_close(seen, handle.run.image_latents)
        torch.testing.assert_close(x[:, -16:, :1], handle.run.image_latents + 0.5)


@pytest.mark.parametrize(
    "method",
    [
        unstill.NoiseRectification(period=(0, 1)),
        unstill.NIVSDS(tau=0.1),
        unstill.FrameInit(),
        unstill.ImageStart(start=0.9),
        unstill.ConditioningAugmentation(level=0.3),
    ],
    ids=lambda method: method.name,
)
def test_methods_act_and_repeat(method: Any) -> None:
    pipe = pipeline()
    expected = plain()
    with unstill.apply(pipe, method):
        video = sample(pipe)
        assert torch.equal(sample(pipe), video)
        # Its blocks repeat neither embeddings of the image nor, for a list of generators, the image.
        several = sample(pipe, num_videos_per_prompt=2, image_embeds=torch.ones(2, 5, 8))
    assert video.isfinite().all() and not torch.equal(video, expected)
    assert len(several) == 2 and not torch.equal(*several)


def test_what_does_not_work_says_so() -> None:
    with pytest.raises(UnstillError, match=r"the blocks of WanImage2VideoModularPipeline decide .*; use"):
        unstill.free_init(pipeline(), unstill.FreeInit(level=0.9))
    bare = copy.copy(pipeline())
    bare._blocks = copy.deepcopy(bare._blocks)
    bare._blocks.sub_blocks["denoise"].sub_blocks.pop("prepare_latents")
    with pytest.raises(UnstillError, match="has no block PrepareLatentsStep"):
        unstill.apply(bare)
    assert not is_hooked(bare.scheduler)

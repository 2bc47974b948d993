"""Reference bias: against an attention mask, on every network with a known place of its first frame."""

from functools import cache
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

import unstill
from tests.pipelines import CASES, _made, pipeline, sample
from unstill.errors import UnstillError
from unstill.families.reference_keys import ReferenceKeys
from unstill.hooks import adapter_for
from unstill.hooks.attention_hooks import ReferenceAttention, attention_mass, biased
from unstill.methods.reference_bias import ReferenceBias


NAMES = [name for name in CASES if adapter_for(pipeline(name)).attends]
METHOD = ReferenceBias(gamma=2.0, steps=0.5)  # of two steps, the first


@cache
def plain(name: str) -> torch.Tensor:
    return sample(CASES[name], pipeline(name))


@pytest.mark.parametrize("width", [12, 16, 64])
@pytest.mark.parametrize("scale", [None, 0.1])
def test_a_bias_as_a_feature_is_the_bias_as_a_mask(width: int, scale: float | None) -> None:
    q, k, v = torch.randn(3, 3, 2, 20, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bias = torch.tensor([0.0, -0.6, 1.5])
    mask = torch.zeros(3, 1, 1, 20, dtype=torch.float64)
    mask[..., 4:9] = bias.view(3, 1, 1, 1)
    expected = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    for dtype, atol in ((torch.float64, 1e-7), (torch.float32, 1e-6)):
        found = biased(q.to(dtype), k.to(dtype), v.to(dtype), slice(4, 9), bias, scale)
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=atol)


def test_a_mask_of_the_network_stays_with_grouped_keys() -> None:
    draw = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, 10, 8, generator=draw)
    k, v = torch.randn(2, 2, 2, 10, 8, generator=draw)
    keep = torch.rand(2, 1, 10, 10, generator=draw) > 0.3
    keep[..., 0] = True
    mask = torch.zeros(2, 1, 10, 10).masked_fill(~keep, float("-inf"))
    mask[..., :3] += -0.7
    expected = scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    found = biased(q, k, v, slice(0, 3), torch.full((2,), -0.7), attn_mask=keep, enable_gqa=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_attention_mass() -> None:
    q, k = torch.randn(2, 2, 3, 12, 8, generator=torch.Generator().manual_seed(0))
    weights = (q @ k.mT / 8**0.5).softmax(-1)
    expected = weights[:, :, 4:, :4].sum(-1).mean((1, 2))
    torch.testing.assert_close(attention_mass(q, k, slice(0, 4), slice(4, 12)), expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_frame_of_the_conditional_rows_is_biased(name: str) -> None:
    """The keys are found in every self-attention, and the same bias as a mask gives the same video."""
    case, pipe = CASES[name], pipeline(name)
    with unstill.apply(pipe, METHOD):
        video = sample(case, pipe)
        assert torch.equal(sample(case, pipe), video)
    assert video.isfinite().all() and not torch.equal(video, plain(name))
    assert torch.equal(sample(case, pipe), plain(name))

    seen = []
    original = ReferenceAttention.__torch_function__

    def masked(self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is not scaled_dot_product_attention or not self.inside:
            return func(*args, **kwargs)
        given = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | kwargs
        q, k = given["query"], given["key"]
        offset = self.keys.offset(k.shape[-2])
        if q.shape[-2] != k.shape[-2] or offset is None:
            return func(*args, **kwargs)
        self.count += 1
        rows = torch.tensor(self.bias).repeat_interleave(len(k) // len(self.bias))
        mask = torch.zeros(len(k), 1, 1, k.shape[-2])
        mask[..., offset : offset + self.keys.reference] = rows.view(-1, 1, 1, 1)
        own = given.get("attn_mask")
        if own is not None:
            mask = (
                mask + torch.zeros(own.shape).masked_fill(~own, float("-inf"))
                if own.dtype == torch.bool
                else mask + own
            )
        seen.append((self.keys, self.bias))
        return func(**(given | {"attn_mask": mask}))

    ReferenceAttention.__torch_function__ = masked  # type: ignore[method-assign]
    try:
        with unstill.apply(pipe, METHOD):
            expected = sample(case, pipe)
    finally:
        ReferenceAttention.__torch_function__ = original  # type: ignore[method-assign]
    atol = 1e-4 if name.startswith("StableVideo") else 1e-5  # whose first latents are of sigma 700
    torch.testing.assert_close(video, expected, rtol=1e-5, atol=atol)
    keys, bias = seen[0]
    frames = case.latents[1]
    assert keys.reference * frames == keys.tokens
    assert set(bias[len(bias) // 2 :]) == {-2.0}
    assert len(bias) == 1 or set(bias[: len(bias) // 2]) == {0.0}


@pytest.mark.parametrize("name", NAMES)
def test_without_strength_nothing_changes(name: str) -> None:
    case, pipe = CASES[name], pipeline(name)
    for method in (ReferenceBias(gamma=0.0), ReferenceBias(steps=0.0)):
        with unstill.apply(pipe, method):
            assert torch.equal(sample(case, pipe), plain(name))


@pytest.mark.parametrize("name", ["WanImageToVideoPipeline", "PicoPipeline", "StableVideoDiffusionPipeline"])
def test_in_four_steps_without_guidance_with_others_and_compiled(name: str) -> None:
    case, pipe = CASES[name], _made(CASES[name].build)
    others = unstill.EarlyStart(**case.level), unstill.NoiseRectification()
    call = {"num_inference_steps": 4, **case.unguided}
    with unstill.apply(pipe, *others):
        before = sample(case, pipe, **call)
    videos = []
    for gamma in (1.0, -1.0):
        with unstill.apply(pipe, *others, ReferenceBias(gamma=gamma)):
            videos.append(sample(case, pipe, **call))
    assert not torch.equal(*videos) and not torch.equal(videos[0], before)
    for network in adapter_for(pipe).attends:
        if getattr(pipe, network, None) is not None:
            getattr(pipe, network).compile(backend="eager")
    with unstill.apply(pipe, *others, ReferenceBias(gamma=-1.0)):
        torch.testing.assert_close(sample(case, pipe, **call), videos[1], rtol=1e-4, atol=1e-4)


def test_an_error_in_the_network_leaves_no_mode_behind() -> None:
    name = "WanImageToVideoPipeline"
    pipe = pipeline(name)
    with unstill.apply(pipe, METHOD):
        with pytest.raises(RuntimeError):
            sample(CASES[name], pipe, prompt_embeds=torch.zeros(1, 4, 9))
    assert torch.overrides._get_current_function_mode_stack() == []
    assert torch.equal(sample(CASES[name], pipe), plain(name))


def test_an_attention_backend_of_its_own_is_refused() -> None:
    name = "WanImageToVideoPipeline"
    pipe = _made(CASES[name].build)
    pipe.transformer.blocks[0].attn1.processor._attention_backend = "flash"
    with unstill.apply(pipe, METHOD), pytest.raises(UnstillError, match=r"call its reset_attention_backend\(\)"):
        sample(CASES[name], pipe)


def test_where_the_first_frame_is_not_known_it_is_refused() -> None:
    with pytest.raises(UnstillError, match="Kandinsky5I2VPipeline is not known; use EarlyStart"):
        unstill.apply(pipeline("Kandinsky5I2VPipeline"), METHOD)


def test_places_of_the_first_frame() -> None:
    assert ReferenceKeys(12, 4).offset(12) == 0 and ReferenceKeys(12, 4).offset(13) is None
    assert ReferenceKeys(12, 4, "before").offset(15) == 3 and ReferenceKeys(12, 4, "before").offset(11) is None
    assert ReferenceKeys(12, 4, "after").offset(15) == 0


@pytest.mark.parametrize("values", [{"gamma": 21.0}, {"gamma": float("nan")}, {"steps": 1.1}])
def test_wrong_parameters(values: dict[str, Any]) -> None:
    with pytest.raises(UnstillError, match="a gamma from -20 to 20 and steps as a share"):
        ReferenceBias(**values)

"""Reference Bias: how much the frames attend to the first one."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..model_access import step_of


class ReferenceBias(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnstillReferenceBias",
            display_name="Reference Bias",
            category="unstill/attention",
            description="For a video that stands still (above 0) or moves too wildly (below 0), from a model whose "
            "attention joins all frames, such as Wan: in the first steps all frames attend less, or more, to the "
            "first one (DyMoS). Costs no pass; the biased steps use PyTorch's attention.",
            inputs=[
                io.Model.Input("model"),
                io.Float.Input(
                    "gamma", default=0.6, min=-20.0, max=20.0, step=0.05,
                    tooltip="What is subtracted from the attention to the first frame; 0 changes nothing.",
                ),
                io.Float.Input("until", default=0.2, min=0.0, max=1.0, step=0.01, tooltip="Share of the steps."),
            ],
            outputs=[io.Model.Output(display_name="model")],
        )  # fmt: skip

    @classmethod
    def execute(cls, model: Any, gamma: float, until: float) -> io.NodeOutput:
        if gamma == 0 or until == 0:
            return io.NodeOutput(model)

        def wrapper(
            executor: Any, x: Tensor, t: Tensor, c_concat: Any = None, c_crossattn: Any = None, control: Any = None,
            transformer_options: Any = None, **more: Any,
        ) -> Tensor:  # fmt: skip
            options = transformer_options or {}
            sigmas = options["sample_sigmas"]
            if x.ndim == 5 and step_of(t, sigmas) < until * (len(sigmas) - 1):
                passes = options["cond_or_uncond"]
                conditional = torch.tensor([one == 0 for one in passes], device=x.device)
                rows = conditional.repeat_interleave(len(x) // len(passes))
                options = {**options, "optimized_attention_override": _biased(x.shape[2:], rows * -gamma, options)}
            return executor(x, t, c_concat, c_crossattn, control, options, **more)

        clone = model.clone()
        clone.add_wrapper_with_key("apply_model", "unstill_reference_bias", wrapper)
        return io.NodeOutput(clone)


def _biased(size: Any, bias: Tensor, options: dict[str, Any]) -> Any:
    """An attention function that adds `bias` `(B,)` to the logits of the first frame's tokens."""
    frames, height, width = size
    sides = {(height + p - 1) // p * ((width + p - 1) // p) for p in (1, 2)}  # tokens of a frame
    before = options.get("optimized_attention_override")

    def attention(function: Any, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        tokens = k.shape[-2]
        first = tokens // frames
        if q.shape[-2] == tokens and tokens == first * frames and first in sides and len(q) == len(bias):
            mask = k.new_zeros(len(bias), 1, 1, tokens)
            mask[..., :first] = bias.to(k).view(-1, 1, 1, 1)
            given = kwargs.get("mask")
            kwargs["mask"] = mask if given is None else mask + given
            from comfy.ldm.modules.attention import get_attention_function

            function = get_attention_function("pytorch", function)  # the one that takes such a mask everywhere
        return before(function, q, k, v, *args, **kwargs) if before else function(q, k, v, *args, **kwargs)

    return attention

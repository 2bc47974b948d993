"""Low-Pass Guidance and Noise Rectification: what is made of the model's predictions."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from unstill.methods.noise_rectification import frame_weights, rectify_x0

from ..model_access import alpha_sigma, as_latent, as_video, image_of, sampling_of, step_of, with_change


class LowPassGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnstillLowPassGuidance",
            display_name="Low-Pass Guidance",
            category="unstill/guidance",
            description="For a video that stands still: in the first steps guidance sees a blurred image, whose "
            "details cannot be copied (ALG). Costs one more pass in those steps; without guidance (cfg 1) nothing.",
            inputs=[
                io.Model.Input("model"),
                io.Float.Input(
                    "factor", default=0.4, min=0.05, max=1.0, step=0.005,
                    tooltip="Size the image latents are shrunk to; 1 changes nothing. Wan 0.4, CogVideoX 0.25, "
                    "HunyuanVideo 0.625.",
                ),
                io.Float.Input(
                    "until", default=0.2, min=0.0, max=1.0, step=0.01,
                    tooltip="Last share of the steps. Wan 0.2; CogVideoX and HunyuanVideo 0.04.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model")],
        )  # fmt: skip

    @classmethod
    def execute(cls, model: Any, factor: float, until: float) -> io.NodeOutput:
        if factor == 1:
            return io.NodeOutput(model)
        from unstill.methods.low_pass_guidance import low_pass_image

        def change(image: Tensor, level: Tensor, options: dict[str, Any]) -> Tensor:
            return low_pass_image(image, factor)

        def batch(executor: Any, inner: Any, conds: list[Any], x: Tensor, sigma: Tensor, options: Any) -> Any:
            sigmas = options["transformer_options"]["sample_sigmas"]
            steps = len(sigmas) - 1
            if step_of(sigma, sigmas) > until * (steps - 1) * (1 + 1e-9):
                return executor(inner, conds, x, sigma, options)
            filtered = with_change(options, "unstill_low_pass", change)
            if len(conds) < 2 or conds[1] is None:
                return executor(inner, conds, x, sigma, filtered)
            shown, guided = executor(inner, conds[:2], x, sigma, filtered)
            # The place of the conditional pass stays empty, so that others know which pass this is.
            unguided = executor(inner, [None, conds[1]], x, sigma, options)[1]
            return [unguided + shown - guided, unguided]

        clone = model.clone()
        clone.add_wrapper_with_key("calc_cond_batch", "unstill_low_pass", batch)
        return io.NodeOutput(clone)


class NoiseRectification(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnstillNoiseRectification",
            display_name="Noise Rectification",
            category="unstill/guidance",
            description="For a video that no longer looks like its image: corrects each prediction towards the image. "
            "Costs some motion; the longer it acts, the more.",
            inputs=[
                io.Model.Input("model"),
                io.Latent.Input("image", tooltip="The image, encoded by VAE Encode at the size of the video."),
                io.Float.Input("until", default=0.6, min=0.0, max=1.0, step=0.01, tooltip="Share of the steps."),
                io.Float.Input(
                    "freedom", default=0.5, min=0.0, max=1.0, step=0.01,
                    tooltip="How freely the later frames move: 0 is a still video.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model")],
        )  # fmt: skip

    @classmethod
    def execute(cls, model: Any, image: Any, until: float, freedom: float) -> io.NodeOutput:
        if until == 0:
            return io.NodeOutput(model)
        sampling, kept = sampling_of(model), {}

        def correct(args: dict[str, Any]) -> Tensor:
            predicted, sample = as_video(args["denoised"]), as_video(args["input"])
            sigmas = args["model_options"]["transformer_options"]["sample_sigmas"]
            step, (alpha, sigma) = step_of(args["sigma"], sigmas), alpha_sigma(sampling, args["sigma"].flatten()[0])
            still = image_of(model, image, sample)
            if step == 0:  # the noise that makes the first latents from the image
                kept["noise"] = (sample - alpha * still) / sigma
            if step >= (len(sigmas) - 1) * until or "noise" not in kept:
                return args["denoised"]
            weights = frame_weights(predicted.shape[2], 1.0, freedom)
            made = rectify_x0(predicted, sample, kept["noise"], still, weights, alpha, sigma)
            return as_latent(made, args["denoised"])

        clone = model.clone()
        clone.set_model_sampler_post_cfg_function(correct)
        return io.NodeOutput(clone)

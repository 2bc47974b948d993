"""Nodes that only the tests put into a ComfyUI: conditioning without a text encoder or VAE, and saved tensors."""

import torch
from comfy_api.latest import ComfyExtension, io
from safetensors.torch import load_file, save_file


class Given(io.ComfyNode):
    """Everything a tiny Wan needs, out of a safetensors file."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestGiven", category="test",
            inputs=[io.String.Input("file")],
            outputs=[
                io.Conditioning.Output(display_name="positive"), io.Conditioning.Output(display_name="negative"),
                io.Latent.Output(display_name="latent"), io.Latent.Output(display_name="image"),
                io.Latent.Output(display_name="clip"), io.Latent.Output(display_name="still"),
                io.Sigmas.Output(display_name="sigmas"), io.Noise.Output(display_name="noise"),
                io.Image.Output(display_name="frames"),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, file):
        given = load_file(file)
        shown = {"concat_latent_image": given["condition"], "concat_mask": given["mask"]}
        conditionings = [[[given[name], dict(shown)]] for name in ("positive", "negative")]
        latents = [{"samples": given[name]} for name in ("latent", "image", "clip", "still")]
        return io.NodeOutput(*conditionings, *latents, given["sigmas"], GivenNoise(given["noise"]), given["frames"])


class GivenNoise:
    def __init__(self, noise):
        self.seed, self.noise = 7, noise

    def generate_noise(self, latent):
        return self.noise.clone()


class Save(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestSave", category="test", is_output_node=True, not_idempotent=True,
            inputs=[
                io.String.Input("file"), io.Latent.Input("latent", optional=True),
                io.String.Input("text", optional=True, force_input=True), io.Image.Input("picture", optional=True),
                *[io.Float.Input(name, optional=True, force_input=True) for name in ("a", "b", "c", "d")],
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, file, latent=None, text="", picture=None, **numbers):
        tensors = {} if latent is None else {"latent": latent["samples"].contiguous()}
        tensors |= {} if picture is None else {"picture": picture.contiguous()}
        tensors |= {name: torch.tensor(value) for name, value in numbers.items() if value is not None}
        save_file(tensors or {"none": torch.zeros(1)}, file, {"text": text})
        return io.NodeOutput()


class TestExtension(ComfyExtension):
    async def get_node_list(self):
        return [Given, Save]


async def comfy_entrypoint():
    return TestExtension()

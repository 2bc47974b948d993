"""Sana Video (https://huggingface.co/papers/2509.24695)."""

from unstill.families.base import Family
from unstill.families.model_card import Model
from unstill.families.vae_adapters import FirstFrameAdapter, VideoAdapter


FAMILY = Family(
    adapters={
        "SanaVideoPipeline": VideoAdapter(),
        "SanaImageToVideoPipeline": FirstFrameAdapter(),
    },
    image_inputs={
        "SanaImageToVideoPipeline": "frame 0",
    },
    models=(
        Model(
            name="sana-video-2b",
            pipeline="SanaImageToVideoPipeline",
            weights="Efficient-Large-Model/SANA-Video_2B_480p_diffusers",
            licence="NVIDIA (their model card)",
            parameters="2 B",
            needs="a GPU of 16 GB with --offload",
            dtype="bfloat16",
            size=(480, 832),
            frames=81,
            fps=16,
            steps=50,
            input="image and prompt",
            start=("start", 0.96),
        ),
    ),
)

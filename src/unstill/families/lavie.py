"""LaVie (Wang et al., https://huggingface.co/papers/2309.15103)."""

from contextlib import nullcontext

from unstill.families.base import Family
from unstill.families.model_card import Model
from unstill.families.vae_adapters import FrameAdapter


FAMILY = Family(
    adapters={"LaViePipeline": FrameAdapter()},
    image_modes={"LaViePipeline": nullcontext},
    models=(
        Model(
            name="lavie",
            pipeline="LaViePipeline",
            weights="YaohuiW/LaVie",
            file="lavie_base.pt",
            licence="research and free commercial use (their repository)",
            parameters="0.9 B",
            needs="a GPU of 12 GB",
            dtype="float16",
            size=(320, 512),
            frames=16,
            fps=8,
            steps=50,
            input="prompt",
            start=("start", 0.96),
        ),
    ),
    module="unstill.models.lavie",
)

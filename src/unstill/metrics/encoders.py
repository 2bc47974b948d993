"""Image and text encoders that transformers can load: any CLIP, and DINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from unstill.errors import UnstillError
from unstill.metrics.video_checks import check_uint8
from unstill.metrics.weights import read_weights


CLIP_DEFAULT = "openai/clip-vit-base-patch32"  # papers rarely name theirs; VBench uses this one
DINO_DEFAULT = "facebook/dino-vitb16"
_CLIP_COLOURS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_IMAGENET_COLOURS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_BATCH = 16


class FrameEncoder:
    """Encodes frames, and for CLIP texts, as features of unit length. `name` identifies the network."""

    def __init__(self, model: Any, name: str, *, clip: bool, antialias: bool, tokenizer: Any = None) -> None:
        self.model, self.name, self.clip, self.antialias = model.eval(), name, clip, antialias
        self.tokenizer = tokenizer
        self.side: int = model.config.vision_config.image_size if clip else model.config.image_size

    @classmethod
    def load_clip(
        cls, name: str = CLIP_DEFAULT, device: str = "cpu", antialias: bool = True, tokenizer: str | None = None
    ) -> FrameEncoder:
        """
        Loads a CLIP of transformers.

        Args:
            name: on the hub, or a folder.
            device: where it runs.
            antialias: `False` resizes as VBench does.
            tokenizer: name or folder of its tokenizer, if it is another one.
        """
        from transformers import AutoTokenizer, CLIPModel

        model = _pretrained(CLIPModel, name).to(device)
        text_tokenizer = _pretrained(AutoTokenizer, tokenizer or name)
        return cls(model, name, clip=True, antialias=antialias, tokenizer=text_tokenizer)

    @classmethod
    def load_dino(cls, name: str = DINO_DEFAULT, device: str = "cpu", antialias: bool = False) -> FrameEncoder:
        """Loads a DINO or DINOv2 of transformers by name or folder; the feature is its class token, as in VBench."""
        from transformers import AutoModel

        return cls(_pretrained(AutoModel, name).to(device), name, clip=False, antialias=antialias)

    def preprocess(self, video: Tensor) -> Tensor:
        """
        (F, 3, H, W) to the network's input, rounded to uint8 after resizing as in torchvision (and VBench).

        CLIP: shorter side to the network's, bicubic, centre crop; DINO: shorter side, bilinear, no crop.
        """
        pixels = check_uint8(video).to(self.model.device).float()
        height, width = pixels.shape[2:]
        # (Multiplied before it is divided: 320 x 360 at 224 is 252 wide, which 360 * (224 / 320) falls short of.)
        shorter = min(height, width)
        size = (int(self.side * height / shorter), int(self.side * width / shorter))
        mode: Literal["bicubic", "bilinear"] = "bicubic" if self.clip else "bilinear"
        pixels = functional.interpolate(pixels, size, mode=mode, align_corners=False, antialias=self.antialias)
        pixels = pixels.round().clamp(0, 255) / 255
        if self.clip:
            top, left = round((size[0] - self.side) / 2), round((size[1] - self.side) / 2)
            pixels = pixels[:, :, top : top + self.side, left : left + self.side]
        mean, deviation = _CLIP_COLOURS if self.clip else _IMAGENET_COLOURS
        return (pixels - pixels.new_tensor(mean)[:, None, None]) / pixels.new_tensor(deviation)[:, None, None]

    @torch.no_grad()
    def images(self, video: Tensor) -> Tensor:
        """Features of a video (F, 3, H, W), uint8 or float in [0, 1]: (F, d), float32 on the CPU, of unit length."""
        rows = []
        for part in self.preprocess(video).to(self.model.dtype).split(_BATCH):
            if self.clip:
                rows.append(self.model.get_image_features(pixel_values=part).pooler_output)
            else:
                output = self.model(pixel_values=part, interpolate_pos_encoding=True)
                rows.append(output.last_hidden_state[:, 0])
        return functional.normalize(torch.cat(rows).float().cpu(), dim=1)

    @torch.no_grad()
    def text(self, prompt: str) -> Tensor:
        """Features of a prompt: (d,), of unit length."""
        if not self.clip:
            raise UnstillError(f"{self.name} has no text encoder; text alignment needs a CLIP.")
        tokens = self.tokenizer([prompt], padding=True, truncation=True, return_tensors="pt").to(self.model.device)
        return functional.normalize(self.model.get_text_features(**tokens).pooler_output[0].float().cpu(), dim=0)


def aesthetic_quality(frames: Tensor, head: str | Path) -> float:
    """
    VBench's aesthetic quality: LAION's linear head on CLIP features, divided by 10.

    Args:
        frames: features of CLIP ViT-L/14, (F, 768), of unit length.
        head: `sa_0_4_vit_l_14_linear.pth` of LAION-AI/aesthetic-predictor.
    """
    weights = read_weights(head)
    if set(weights) != {"weight", "bias"} or weights["weight"].shape != (1, frames.shape[1]):
        raise UnstillError(
            f"{head} is not a linear head for features of width {frames.shape[1]}; the LAION head of VBench is "
            "sa_0_4_vit_l_14_linear.pth and belongs to openai/clip-vit-large-patch14."
        )
    return float(functional.linear(frames.float(), weights["weight"].float(), weights["bias"].float()).mean() / 10)


def _pretrained(kind: Any, name: str) -> Any:
    try:
        return kind.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UnstillError(
            f"{name!r} could not be loaded by transformers; pass the folder of a downloaded model, or a name with a "
            "connection to the Hugging Face Hub."
        ) from error

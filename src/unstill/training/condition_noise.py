"""
What training does to the conditional image: TimeNoise, its baselines, and nothing at all.

All of them are one call, `corrupt(image, t, generator) -> (image, level)`, on image latents `(B, C, F or 1, h, w)` or,
with noise of shape `"element"`, on image tokens `(B, L, D)`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from unstill.errors import UnstillError
from unstill.forward_process import ForwardProcess
from unstill.methods.conditioning_augmentation import ConditioningAugmentation
from unstill.methods.time_noise import Level, NoiseShape, TimeNoise, corrupt, noise_like, per_clip, sample_level


class Condition(Protocol):
    """A condition augmentation."""

    def corrupt(
        self, image_latents: Tensor, t: Level, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """The image as the network is trained on it, and the level of each clip `(B,)`; `t` in [0, 1] as `(B,)` or a
        number."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Clean:
    """The image as it is: naive fine-tuning, the baseline that leaks."""

    def corrupt(
        self, image_latents: Tensor, t: Level, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return image_latents, torch.zeros(len(image_latents), device=image_latents.device)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConstantNoise:
    """y = y0 + beta eps with a beta that is not random: beta = maximum (mu(t) + 1) / 2 = maximum t^exponent.

    The leakage paper's baseline to the logit-normal level. `exponent=0` is the same level at every t.
    """

    maximum: float = 100.0
    exponent: float = 5.0
    noise_shape: NoiseShape = "frame"

    def corrupt(
        self, image_latents: Tensor, t: Level, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        time = torch.as_tensor(t, dtype=torch.float32, device=image_latents.device).expand(len(image_latents))
        level = self.maximum * time**self.exponent
        return corrupt(image_latents, level, noise_like(image_latents, self.noise_shape, generator)), level


@dataclass(frozen=True, kw_only=True, slots=True)
class MixedNoise:
    """y = (1 - beta) y0 + beta eps, TimeNoise's beta with maximum 1: Appendix D of the leakage paper, worse there."""

    exponent: float = 5.0
    scale: float = 1.0
    noise_shape: NoiseShape = "frame"

    def corrupt(
        self, image_latents: Tensor, t: Level, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        from diffusers.utils.torch_utils import randn_tensor

        normal = randn_tensor((len(image_latents),), generator=generator, device=image_latents.device)
        level = sample_level(t, 1.0, self.exponent, normal, self.scale)
        noise = noise_like(image_latents, self.noise_shape, generator)
        kept = (1 - per_clip(level, image_latents)) * image_latents
        return corrupt(kept, level, noise).to(image_latents.dtype), level


@dataclass(frozen=True, kw_only=True, slots=True)
class Replaced:
    """Image tokens become pure noise with this probability, else stay: what the released DynamiCrafter code does.

    There one draw decides for a whole batch, here one for each clip: the same for the single clips of one accelerator.
    """

    probability: float = 0.95

    def corrupt(
        self, image_latents: Tensor, t: Level, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        device = generator.device if generator is not None else image_latents.device
        drawn = torch.rand(len(image_latents), generator=generator, device=device).to(image_latents.device)
        noise = noise_like(image_latents, "element", generator).to(image_latents.dtype)
        replaced = drawn < self.probability
        return torch.where(per_clip(replaced, image_latents), noise, image_latents), replaced.float()


@dataclass(frozen=True, slots=True)
class OwnSchedule:
    """Conditioning augmentation by the forward process of the model that is trained.

    Its level is the standard deviation of the noise, sigma(s), as that of the other methods: what networks are told.
    """

    augmentation: ConditioningAugmentation
    process: ForwardProcess

    def corrupt(
        self, image_latents: Tensor, t: Level, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        noised, s = self.augmentation.corrupt(image_latents, t, generator, self.process)
        return noised, self.augmentation.alpha_sigma(s, self.process)[1]


Name = Literal["none", "time-noise", "conditioning-augmentation", "constant", "mix"]
KINDS: Mapping[str, Callable[..., Condition]] = {
    "none": Clean,
    "time-noise": TimeNoise,
    "conditioning-augmentation": ConditioningAugmentation,
    "constant": ConstantNoise,
    "mix": MixedNoise,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What happens to the two ways in which a model sees its image; `None` leaves one of them clean.

    tell: the level is given to the network where it has an input for it (`added_time_ids[2]`).
    """

    latents: Condition | None = None
    tokens: Condition | None = None
    tell: bool = False


# TimeNoise as in the paper and as released, by family. Levels count in the units in which the network sees the image:
# latents of Stable Video Diffusion are not multiplied by the scale of its VAE, those of the others are.
_PAPER = TimeNoise()
PLANS: Mapping[tuple[str, str], Plan] = {
    ("svd", "paper"): Plan(latents=_PAPER),
    ("svd", "released"): Plan(latents=TimeNoise.preset("released-svd"), tell=True),
    ("dynamicrafter", "paper"): Plan(latents=_PAPER, tokens=TimeNoise(noise_shape="element")),
    ("dynamicrafter", "released"): Plan(latents=TimeNoise.preset("released"), tokens=Replaced()),
    ("videocrafter", "paper"): Plan(tokens=TimeNoise.preset("paper-videocrafter", noise_shape="element")),
    ("videocrafter", "released"): Plan(tokens=TimeNoise.preset("released-videocrafter")),
}


def plan_of(
    family: str,
    method: Name = "time-noise",
    preset: str | None = None,
    *,
    on: Literal["latents", "tokens", "both"] | None = None,
    tell: bool | None = None,
    parameters: Mapping[str, Any] | None = None,
    process: ForwardProcess | None = None,
) -> Plan:
    """The plan that a recipe asks for: a preset of TimeNoise, or any method with parameters of its own.

    Args:
        tell: `None` tells the network the level of conditioning augmentation, which is made so, and no other.
        process: of the model, whose own schedule conditioning augmentation follows.

    Raises:
        UnstillError: an unknown preset, one together with parameters, or a parameter that the method does not have.
    """
    given = dict(parameters or {})
    if preset is not None:
        known = [name for of, name in PLANS if of == family]
        if method != "time-noise" or given or on is not None:
            raise UnstillError("condition: a preset stands alone; leave out the preset, or method and parameters.")
        if preset not in known:
            there = f"there are {', '.join(known)}" if known else "give maximum and exponent instead"
            raise UnstillError(f"condition: TimeNoise has no preset {preset!r} for {family} models; {there}.")
        plan = PLANS[family, preset]
        return Plan(latents=plan.latents, tokens=plan.tokens, tell=plan.tell if tell is None else tell)
    if family == "wan" and method != "none" and given.setdefault("noise_shape", "element") != "element":
        raise UnstillError(
            "condition.noise_shape: Wan sees its image in one frame among empty ones, which would show noise that is "
            "the same in every frame, and so the image; leave noise_shape out, or make it element."
        )
    try:
        chosen = KINDS[method](**given)
        flat = KINDS[method](**given | {"noise_shape": "element"}) if method != "none" else chosen
    except TypeError:
        kind: Any = KINDS[method]
        known = [name for name in kind.__dataclass_fields__ if name not in ("level", "betas")]
        wrong = [name for name in given if name not in known]
        raise UnstillError(
            f"condition: {method} has no parameter {' and '.join(wrong)}; it has {', '.join(known) or 'none'}."
        ) from None
    if process is not None:
        chosen, flat = (
            OwnSchedule(c, process) if isinstance(c, ConditioningAugmentation) else c for c in (chosen, flat)
        )
    on, tell = on or "latents", method == "conditioning-augmentation" if tell is None else tell
    return Plan(latents=chosen if on != "tokens" else None, tokens=flat if on != "latents" else None, tell=tell)

"""
Noise on the conditioning image during training: TimeNoise, its baselines, and none.

All of them have one method, `corrupt(image, t, generator) -> (image, level)`, on image latents `(B, C, F or 1, h, w)`
or, with noise of shape `"element"`, on image tokens `(B, L, D)`.
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


class ConditionNoise(Protocol):
    """An augmentation of the conditioning image."""

    def corrupt(
        self, image_latents: Tensor, t: Level, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """
        Noises conditioning images.

        Args:
            image_latents: image latents `(B, C, F or 1, h, w)`, or tokens `(B, L, D)`.
            t: training time in [0, 1], `(B,)` or a number.
            generator: draws level and noise.

        Returns:
            The images that the network is trained on, and the noise level of each clip `(B,)`.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Clean:
    """The unchanged image: naive fine-tuning, the baseline that shows conditional image leakage."""

    def corrupt(
        self, image_latents: Tensor, t: Level, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return image_latents, torch.zeros(len(image_latents), device=image_latents.device)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConstantNoise:
    """
    y = y0 + beta eps with a deterministic beta = maximum (mu(t) + 1) / 2 = maximum t^exponent.

    The leakage paper's baseline for the logit-normal level. `exponent=0` is the same level at every t.
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
    """
    Image tokens are replaced by pure noise with this probability, as in the released DynamiCrafter code.

    The released code draws once per batch, this class once per clip; the two agree at one clip per accelerator.
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
class FlowPath:
    """
    Noise y + beta eps as a level of flow matching: (1 - s) y + s eps = (y + beta eps) / (1 + beta), which is
    s = beta / (1 + beta), for networks that are given s as the timestep of the image.

    Attributes:
        noise: makes y + beta eps.
    """

    noise: TimeNoise | ConstantNoise

    def corrupt(
        self, image_latents: Tensor, t: Level, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        noised, beta = self.noise.corrupt(image_latents, t, generator)
        return (noised / per_clip(1 + beta, noised)).to(noised.dtype), beta / (1 + beta)


@dataclass(frozen=True, slots=True)
class OwnSchedule:
    """
    Conditioning augmentation with the forward process of the trained model.

    As in the other classes, the level is the standard deviation of the noise, sigma(s).
    """

    augmentation: ConditioningAugmentation
    process: ForwardProcess

    def corrupt(
        self, image_latents: Tensor, t: Level, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        noised, s = self.augmentation.corrupt(image_latents, t, generator, self.process)
        return noised, self.augmentation.alpha_sigma(s, self.process)[1]


Name = Literal["none", "time-noise", "conditioning-augmentation", "constant", "mix", "prediction-and-residual"]
KINDS: Mapping[str, Callable[..., ConditionNoise]] = {
    "none": Clean,
    "time-noise": TimeNoise,
    "conditioning-augmentation": ConditioningAugmentation,
    "constant": ConstantNoise,
    "mix": MixedNoise,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """
    Noise for the two inputs through which a model sees its image; `None` leaves an input clean.

    Attributes:
        latents: for image latents.
        tokens: for image tokens.
        condition_on_level: condition the network on the level, where it has an input for it (`added_time_ids[2]`).
        residual: train a prediction without the image and a residual (`training.prediction_and_residual`).
    """

    latents: ConditionNoise | None = None
    tokens: ConditionNoise | None = None
    condition_on_level: bool = False
    residual: bool = False


# TimeNoise as in the paper and as released, by family. Levels are in the units of the network's image input: image
# latents of Stable Video Diffusion are not multiplied by the scaling factor of its VAE, those of the others are.
_PAPER = TimeNoise()
PLANS: Mapping[tuple[str, str], Plan] = {
    ("svd", "paper"): Plan(latents=_PAPER),
    ("svd", "released"): Plan(latents=TimeNoise.preset("released-svd"), condition_on_level=True),
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
    condition_on_level: bool | None = None,
    parameters: Mapping[str, Any] | None = None,
    process: ForwardProcess | None = None,
    image_is_frame: bool = False,
    usual_input: Literal["latents", "tokens"] = "latents",
) -> Plan:
    """
    The plan of a recipe: a preset of TimeNoise, or any method with its own parameters.

    Args:
        family: name of the model's family.
        method: name of the method.
        preset: name of a TimeNoise preset of the family; excludes `on` and `parameters`.
        on: the inputs that get noise; default: `usual_input`.
        condition_on_level: condition the network on the level; `None`: only for conditioning augmentation, whose
            definition includes it.
        parameters: of the method.
        process: forward process of the model, whose schedule conditioning augmentation uses.
        image_is_frame: whether the level is given to the network as the timestep of the image
            (`TrainingRole.image_is_frame`).
        usual_input: the one that gets noise by default.

    Raises:
        UnstillError: an unknown preset, a preset together with parameters, or an unknown parameter.
    """
    given = dict(parameters or {})
    if preset is not None:
        known = [name for of, name in PLANS if of == family]
        others = [*(["method"] if method != "time-noise" else []), *(["on"] if on is not None else []), *given]
        if others:
            raise UnstillError(
                f"condition: the preset {preset!r} stands alone, but there is {' and '.join(others)} too; leave out "
                "(or set to null) the one or the other."
            )
        if preset not in known:
            advice = f"there are {', '.join(known)}" if known else "give maximum and exponent instead"
            raise UnstillError(f"condition: TimeNoise has no preset {preset!r} for {family} models; {advice}.")
        plan = PLANS[family, preset]
        return Plan(
            latents=plan.latents,
            tokens=plan.tokens,
            condition_on_level=plan.condition_on_level if condition_on_level is None else condition_on_level,
        )
    if method == "prediction-and-residual":
        others = [
            name for name, value in {"on": on, "condition_on_level": condition_on_level}.items() if value is not None
        ]
        if given or others:
            raise UnstillError(
                "condition: prediction-and-residual adds no noise and has no parameters; leave them out (or set "
                f"them to null): {', '.join([*given, *others])}."
            )
        return Plan(residual=True)
    if family == "wan" and method != "none" and given.setdefault("noise_shape", "element") != "element":
        raise UnstillError(
            "condition.noise_shape: Wan sees its image in one frame among empty ones, which would show noise that is "
            "the same in every frame, and so the image; leave noise_shape out, or make it element."
        )
    try:
        for_latents = KINDS[method](**given)
        for_tokens = KINDS[method](**given | {"noise_shape": "element"}) if method != "none" else for_latents
    except TypeError:
        kind: Any = KINDS[method]
        known = [name for name in kind.__dataclass_fields__ if name not in ("level", "betas")]
        wrong = [name for name in given if name not in known]
        raise UnstillError(
            f"condition: {method} has no parameter {' and '.join(wrong)}; it has {', '.join(known) or 'none'}."
        ) from None
    if process is not None:
        for_latents, for_tokens = (
            OwnSchedule(noise, process) if isinstance(noise, ConditioningAugmentation) else noise
            for noise in (for_latents, for_tokens)
        )
    on, condition_on_level = (
        on or usual_input,
        method == "conditioning-augmentation" if condition_on_level is None else condition_on_level,
    )
    if image_is_frame and condition_on_level and isinstance(for_latents, (TimeNoise, ConstantNoise)):
        for_latents = FlowPath(for_latents)
    return Plan(
        latents=for_latents if on != "tokens" else None,
        tokens=for_tokens if on != "latents" else None,
        condition_on_level=condition_on_level,
    )

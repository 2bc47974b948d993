"""The embedded model's autoencoder: 96 px pictures to a 12 x 12 x 12 latent whose geometry follows the picture's."""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, IdentityDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn.functional import silu


class Residual(nn.Module):
    """Two 3 x 3 convolutions. No normalisation: on a CPU it costs as much as a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(silu(self.conv1(silu(x))))


class PicoAutoencoder(ModelMixin, ConfigMixin):
    """
    Pictures (B, 3, H, W) in [-1, 1] to latents (B, C, H/8, W/8) of mean 0 and standard deviation 1, and back.

    Deterministic: `encode(x).latent_dist` is a point, so `mode()` and `sample()` agree. It is trained so that
    shifting, rotating and scaling a latent does the same to the decoded picture.

    Args:
        latent_channels: C.
        block_out_channels: widths at 1/2, 1/4 and 1/8 of the picture's size.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 12,
        block_out_channels: tuple[int, int, int] = (48, 96, 160),
        scaling_factor: float = 1.0,
    ) -> None:
        super().__init__()
        fine, middle, coarse = block_out_channels
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, fine, 3, padding=1),
            Residual(fine),
            nn.Conv2d(fine, middle, 3, stride=2, padding=1),
            Residual(middle),
            nn.Conv2d(middle, coarse, 3, stride=2, padding=1),
            Residual(coarse),
            Residual(coarse),
            nn.Conv2d(coarse, latent_channels, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, coarse, 3, padding=1),
            Residual(coarse),
            Residual(coarse),
            Residual(coarse),
            nn.Conv2d(coarse, 4 * middle, 1),
            nn.PixelShuffle(2),
            Residual(middle),
            Residual(middle),
            nn.Conv2d(middle, 4 * fine, 1),
            nn.PixelShuffle(2),
            Residual(fine),
            Residual(fine),
            nn.Conv2d(fine, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def encode(self, x: Tensor) -> AutoencoderKLOutput:
        """Pictures `(B, 3, H, W)` in [-1, 1] to latents `(B, C, H/8, W/8)`."""
        return AutoencoderKLOutput(latent_dist=IdentityDistribution(self.encoder(x)))

    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """The inverse of `encode`."""
        sample = self.decoder(z)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))

    @torch.no_grad()
    def standardise(self, mean: Tensor, deviation: Tensor) -> None:
        """Folds per-channel (C,) statistics of the latents into the layers beside them: mean 0, deviation 1."""
        last, first = self.encoder[-1], self.decoder[0]
        assert isinstance(last, nn.Conv2d) and isinstance(first, nn.Conv2d)
        assert last.bias is not None and first.bias is not None
        last.weight /= deviation[:, None, None, None]
        last.bias.copy_((last.bias - mean) / deviation)
        # Exact inside the picture; the zeros that pad its border now stand for the mean.
        first.bias += (first.weight * mean[None, :, None, None]).sum((1, 2, 3))
        first.weight *= deviation[None, :, None, None]

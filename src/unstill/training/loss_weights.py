"""The denoising error per clip: one formula for all parametrisations, since `Levels` computes the target."""

from torch import Tensor

from unstill.training.noise_sampling import Levels


def denoising(output: Tensor, x0: Tensor, eps: Tensor, levels: Levels) -> Tensor:
    """
    Mean squared errors of the network's predictions.

    For eps, v, x0 and flow predictions this is the plain loss of their papers. For EDM's v-prediction it equals
    w(sigma) |D - x0|^2 with D = x_t / (sigma^2 + 1) - sigma / sqrt(sigma^2 + 1) F and w = (sigma^2 + 1) / sigma^2,
    because D - x0 = -sigma / sqrt(sigma^2 + 1) (F - v): the weight cancels the factor without dividing by a small
    sigma.

    Args:
        output: of the network, `(B, C, F, h, w)`.
        x0: clean latents.
        eps: noise.
        levels: noise levels of the batch.

    Returns:
        Errors `(B,)`, float32.
    """
    error = output.float() - levels.target(x0.float(), eps.float())
    return error.square().flatten(1).mean(1)

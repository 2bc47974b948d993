"""The error of a network's answers, per clip. All parametrisations are one formula once `Levels` knows the target."""

from torch import Tensor

from unstill.training.noise_sampling import Levels


def denoising(output: Tensor, x0: Tensor, eps: Tensor, levels: Levels) -> Tensor:
    """Mean square errors `(B,)`, float32, of the network's output `(B, C, F, h, w)`.

    For eps, v, x0 and flow predictions this is the plain loss of their papers. For EDM's v-prediction it equals
    w(sigma) |D - x0|^2 with D = x_t / (sigma^2 + 1) - sigma / sqrt(sigma^2 + 1) F and w = (sigma^2 + 1) / sigma^2,
    because D - x0 = -sigma / sqrt(sigma^2 + 1) (F - v): the weight undoes the factor, without dividing by small sigma.
    """
    error = output.float() - levels.target(x0.float(), eps.float())
    return error.square().flatten(1).mean(1)

"""What a network predicts (eps, x0, v, flow, EDM): its conversion into x0 and eps, and its training target."""

import math
from typing import Literal, NamedTuple

import torch


Prediction = Literal["epsilon", "sample", "v_prediction", "flow_prediction", "reversed_flow", "edm", "edm_v"]


class Affine(NamedTuple):
    """x0 = x0_sample * sample + x0_output * output, and the same for eps."""

    x0_sample: float
    x0_output: float
    eps_sample: float
    eps_output: float


def affine(prediction: Prediction, alpha: float, sigma: float, sigma_data: float = 1.0) -> Affine:
    """
    The coefficients that convert a network output into x0 and eps.

    With n = sqrt(alpha^2 + sigma^2) one v formula covers VP (n = 1) and the k-diffusion form of VE (alpha = 1). The
    EDM rows are c_skip and c_out of Karras et al. 2022, Table 1.

    Args:
        prediction: what the network predicts.
        alpha: of the noise level.
        sigma: of the noise level.
        sigma_data: of the EDM preconditioning.

    Returns:
        The coefficients; infinite where the output does not determine that quantity: x0 from an eps prediction at
        alpha = 0, eps from an x0 prediction at sigma = 0.
    """
    match prediction:
        case "epsilon":
            return Affine(ratio(1, alpha), -ratio(sigma, alpha), 0.0, 1.0)
        case "sample":
            return Affine(0.0, 1.0, ratio(1, sigma), -ratio(alpha, sigma))
        case "flow_prediction":  # v = eps - x0, alpha + sigma = 1
            return Affine(1.0, -sigma, 1.0, alpha)
        case "reversed_flow":  # v = x0 - eps, as Mochi predicts
            return Affine(1.0, sigma, 1.0, -alpha)
        case "v_prediction":  # v = (alpha eps - sigma x0) / n
            n = math.hypot(alpha, sigma)
            return Affine(alpha / n**2, -sigma / n, sigma / n**2, alpha / n)
        case "edm" | "edm_v":
            n = math.hypot(sigma, sigma_data)
            sign = 1 if prediction == "edm" else -1
            skip = (sigma_data / n) ** 2
            return Affine(skip, sign * sigma * sigma_data / n, sigma / n**2, -sign * sigma_data / n)


def training_target(
    prediction: Prediction,
    alpha: torch.Tensor,
    sigma: torch.Tensor,
    x0: torch.Tensor,
    eps: torch.Tensor,
    sigma_data: float = 1.0,
) -> torch.Tensor:
    """
    The training target of a network at alpha x0 + sigma eps: the output that `affine` converts into x0 and eps.

    Args:
        prediction: what the network predicts.
        alpha: of the noise levels, broadcast over `x0`.
        sigma: of the noise levels, broadcast over `x0`.
        x0: clean latents.
        eps: noise of the same shape.
        sigma_data: of the EDM preconditioning.

    Returns:
        The target, of the shape of `x0`; finite at every sigma > 0.
    """
    match prediction:
        case "epsilon":
            return eps
        case "sample":
            return x0
        case "flow_prediction":
            return eps - x0
        case "reversed_flow":
            return x0 - eps
        case "v_prediction":
            return (alpha * eps - sigma * x0) / (alpha**2 + sigma**2).sqrt()
        case "edm" | "edm_v":  # (x0 - c_skip x) / c_out, with alpha = 1
            sign = 1 if prediction == "edm" else -1
            return sign * (sigma * x0 / sigma_data - sigma_data * eps) / (sigma**2 + sigma_data**2).sqrt()


def ratio(numerator: float, denominator: float) -> float:
    """The quotient; infinite for a denominator of 0."""
    return numerator / denominator if denominator else math.inf

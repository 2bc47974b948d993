"""The learning rate of all training: linear warm-up, constant, linear decay."""


def warmup_and_decay(step: int, steps: int, warmup: int, decay: float, floor: float = 0.0) -> float:
    """
    The factor of the learning rate at a step.

    Args:
        step: number of the step, from 0.
        steps: of the whole training.
        warmup: steps over which the factor rises to 1.
        decay: share of the steps, at the end, over which the factor falls to `floor`; 0: it does not fall.
        floor: smallest factor of the decay.
    """
    left = (steps - step) / (decay * steps) if decay else 1.0
    return min(1.0, (step + 1) / max(1, warmup)) * min(1.0, max(floor, left))

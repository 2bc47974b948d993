"""The memory of a step that `benchmarks/training_memory.py` calculates, against what torch's allocator gives out."""

import pytest

from benchmarks.training_memory import calculated, measured, tiny


@pytest.mark.parametrize(
    ("name", "clips"),
    [
        ("svd", 2),
        ("pico", 16),
        ("videocrafter", 2),
        ("wan", 16),
        ("wan-5b", 16),
        ("cogvideox", 16),
        ("ltx", 16),
        ("hunyuanvideo-1.5", 128),
    ],
)
def test_the_calculation_is_near_the_truth(name: str, clips: int) -> None:
    """From 0.85 to 1.3 of it, as docs/training.md says, with activations that count."""
    network, given, call = tiny(name, clips)
    (calculation, weights), truth = calculated(network, given, call), measured(network, given, call)
    assert calculation > 1.3 * weights
    assert 0.85 < truth / calculation < 1.3

"""
Settings of the whole suite: one thread, so that tests are as fast on a busy machine and give the same bits; no hub.
"""

import os
import sys

import pytest
import torch


torch.set_num_threads(1)
os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's library is imported


@pytest.fixture(autouse=True)
def own_accelerator():
    """accelerate keeps the settings of the first training of a process for all others."""
    yield
    if "accelerate" in sys.modules:
        from accelerate.state import AcceleratorState, GradientState

        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()

"""Several processes of one command: `accelerate launch -m unstill ...` or `torchrun -m unstill ...`."""

import os
from datetime import timedelta


def rank_and_count(patience: timedelta | None = None) -> tuple[int, int]:
    """
    This process and how many there are; called before anything else of accelerate is made.

    Args:
        patience: how long one waits for another before it gives up. By default 10 to 30 minutes, which tells a hang in
            training early, but is too short for shares of long work that end at different times.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1
    import torch
    from accelerate import PartialState

    on_cpu = not torch.accelerator.is_available()
    if on_cpu:
        # On a CPU accelerate must be told twice, else every process believes that it is alone.
        os.environ["ACCELERATE_USE_CPU"] = "true"
    state = PartialState(cpu=on_cpu, **({} if patience is None else {"timeout": patience}))
    return state.process_index, state.num_processes

"""Several processes of one command: `accelerate launch -m unstill ...` or `torchrun -m unstill ...`."""

import os
from datetime import timedelta


def rank_and_count(patience: timedelta | None = None) -> tuple[int, int]:
    """
    The rank of this process and the number of processes; called before any other use of accelerate.

    Args:
        patience: timeout of a process that waits for another. The default of 10 to 30 minutes is too short for shares
            of long work that end at different times.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1
    import torch
    from accelerate import PartialState

    on_cpu = not torch.accelerator.is_available()
    if on_cpu:
        # accelerate needs both on a CPU; otherwise every process counts as the only one.
        os.environ["ACCELERATE_USE_CPU"] = "true"
    state = PartialState(cpu=on_cpu, **({} if patience is None else {"timeout": patience}))
    return state.process_index, state.num_processes

"""Several processes of one command: `accelerate launch -m unstill ...` or `torchrun -m unstill ...`."""

import os


def rank_and_count() -> tuple[int, int]:
    """This process and how many there are; called before anything else of accelerate is made."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1
    import torch
    from accelerate import PartialState

    on_cpu = not torch.accelerator.is_available()
    if on_cpu:
        # On a CPU accelerate must be told twice, else every process believes that it is alone.
        os.environ["ACCELERATE_USE_CPU"] = "true"
    state = PartialState(cpu=on_cpu)
    return state.process_index, state.num_processes

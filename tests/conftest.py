"""Settings of the whole suite: one thread, so that tests are as fast on a busy machine and give the same bits."""

import torch


torch.set_num_threads(1)

"""Muon (Keller Jordan, https://kellerjordan.github.io/posts/muon/) for many matrices of few shapes."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


A, B, C = 3.4445, -4.7750, 2.0315  # coefficients of the Newton-Schulz polynomial
ITERATIONS = 5


class StackedMuon(torch.optim.Optimizer):
    """
    `torch.optim.Muon(..., adjust_lr_fn="match_rms_adamw")` with all matrices of one shape orthogonalised in one batch.

    torch orthogonalises one matrix after the other. States and results are the same; the number of kernel launches of
    a step grows with the number of shapes, not of matrices.

    Args:
        params: matrices.
        lr: learning rate; updates are scaled to the root mean square of AdamW's.
        weight_decay: decoupled, times `lr`.
        momentum: of Nesterov's method.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-3, weight_decay: float = 0.01, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of all matrices that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append((p, p.grad))
            for (rows, columns), pairs in by_shape.items():
                params, grads = [p for p, _ in pairs], [grad for _, grad in pairs]
                buffers = [self._buffer(p) for p in params]
                torch._foreach_lerp_(buffers, grads, 1 - group["momentum"])
                ahead = torch.stack(torch._foreach_lerp(grads, buffers, group["momentum"]))
                updates = list(orthogonalised(ahead).float().unbind(0))
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(params, updates, alpha=-group["lr"] * 0.2 * max(rows, columns) ** 0.5)
        return loss

    def _buffer(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def orthogonalised(matrices: Tensor) -> Tensor:
    """(N, rows, columns) to bfloat16 matrices with the same singular vectors and singular values near 1."""
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return x.mT if tall else x

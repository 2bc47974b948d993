"""Early Start: where sampling begins."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from unstill.errors import UnstillError
from unstill.sigma_schedule import respace_sigmas


class EarlyStart(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnstillEarlyStart",
            display_name="Early Start",
            category="unstill",
            description="For a video that stands still, only zooms, or moves too slowly. Begins sampling below the "
            "highest noise level, with as many steps as before. Costs nothing. Lower starts move more, and break up "
            "when they are too low.",
            inputs=[
                io.Sigmas.Input("sigmas", tooltip="From a scheduler node."),
                io.Float.Input(
                    "start", default=0.9, min=0.01, max=1.0, step=0.01,
                    tooltip="Noise level to begin at, for models whose highest level is 1 (Wan, LTX, HunyuanVideo). "
                    "1 changes nothing; try 0.95 to 0.8.",
                ),
                io.Float.Input(
                    "sigma", default=0.0, min=0.0, max=1000.0, step=0.1,
                    tooltip="The same for models that count higher (Stable Video Diffusion: 700; try 100 to 20). "
                    "0 uses `start`.",
                ),
            ],
            outputs=[io.Sigmas.Output(display_name="sigmas")],
        )  # fmt: skip

    @classmethod
    def execute(cls, sigmas: Any, start: float, sigma: float = 0.0) -> io.NodeOutput:
        if len(sigmas) < 2:
            return io.NodeOutput(sigmas)
        highest = float(sigmas[0])
        if not sigma and highest > 1.5 and start < 1:
            raise UnstillError(
                f"These sigmas begin at {highest:g}, so this model counts its noise in sigma: set `sigma`, such as "
                f"{highest / 7:.3g}, in place of `start`."
            )
        level = sigma or start
        # A full start is where the schedule begins, whatever its first level is.
        return io.NodeOutput(sigmas if not sigma and start == 1 else respace_sigmas(sigmas, min(level, highest)))

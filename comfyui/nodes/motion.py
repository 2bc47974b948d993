"""Motion Score: how much a video moves, of the camera and of things, and when it begins to."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from unstill.metrics.camera import flow_scores
from unstill.metrics.flow import flow_engine


class MotionScore(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnstillMotionScore",
            display_name="Motion Score",
            category="unstill/measure",
            description="Measures a video by optical flow, to compare settings at one seed. The motion of a video "
            "that breaks up is high too: look at it.",
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="The frames, from VAE Decode."),
                io.Float.Input("fps", default=16.0, min=1.0, max=240.0, step=1.0),
            ],
            outputs=[
                io.Float.Output(display_name="motion", tooltip="Mean motion in pixels per frame."),
                io.Float.Output(display_name="camera", tooltip="The part that is one motion of the whole picture."),
                io.Float.Output(display_name="object", tooltip="The rest: what moves in the picture."),
                io.Float.Output(display_name="onset", tooltip="Seconds of standstill at the start; -1: never moves."),
            ],
        )

    @classmethod
    def execute(cls, images: Any, fps: float) -> io.NodeOutput:
        scores = flow_scores(images.movedim(-1, 1)[:, :3].clamp(0, 1), flow_engine("dis"), None, fps)
        motion, camera, objects = (
            float(scores[name] or 0) for name in ("motion_per_pair", "camera_motion", "object_motion")
        )
        onset = scores["motion_onset"]
        begins = "never moves visibly" if onset is None else f"moves from {onset:.2f} s on"
        text = f"{motion:.2f} px per frame (camera {camera:.2f}, objects {objects:.2f}); {begins}"
        values = (motion, camera, objects, -1.0 if onset is None else float(onset))
        return io.NodeOutput(*values, ui=ui.PreviewText(text))

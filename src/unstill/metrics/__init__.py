"""Metrics: how much a video moves, how close it stays to its image, how good it is. Imported on first use."""

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from unstill.metrics.affinity import affinity_coefficients as affinity_coefficients
    from unstill.metrics.affinity import affinity_motion_level as affinity_motion_level
    from unstill.metrics.affinity import motion_affinity as motion_affinity
    from unstill.metrics.c3d import C3D as C3D
    from unstill.metrics.camera import MotionParts as MotionParts
    from unstill.metrics.camera import fit_affine as fit_affine
    from unstill.metrics.camera import motion_parts as motion_parts
    from unstill.metrics.consistency import frame_consistency as frame_consistency
    from unstill.metrics.consistency import image_consistency as image_consistency
    from unstill.metrics.consistency import image_fidelity as image_fidelity
    from unstill.metrics.consistency import temporal_coherence as temporal_coherence
    from unstill.metrics.consistency import temporal_flickering as temporal_flickering
    from unstill.metrics.consistency import text_alignment as text_alignment
    from unstill.metrics.encoders import FrameEncoder as FrameEncoder
    from unstill.metrics.encoders import aesthetic_quality as aesthetic_quality
    from unstill.metrics.features import ProxyFeatures as ProxyFeatures
    from unstill.metrics.features import VideoFeatures as VideoFeatures
    from unstill.metrics.fidelity import first_frame_error as first_frame_error
    from unstill.metrics.fidelity import proxy_coherence as proxy_coherence
    from unstill.metrics.fidelity import proxy_colour_fidelity as proxy_colour_fidelity
    from unstill.metrics.fidelity import proxy_edge_fidelity as proxy_edge_fidelity
    from unstill.metrics.fidelity import proxy_structure_fidelity as proxy_structure_fidelity
    from unstill.metrics.fidelity import ssim as ssim
    from unstill.metrics.flow import flow_engine as flow_engine
    from unstill.metrics.flow import optical_flow as optical_flow
    from unstill.metrics.frechet import frechet_distance as frechet_distance
    from unstill.metrics.frechet import frechet_from_moments as frechet_from_moments
    from unstill.metrics.frechet import inception_score as inception_score
    from unstill.metrics.i3d import I3D as I3D
    from unstill.metrics.inputs import EvaluationSettings as EvaluationSettings
    from unstill.metrics.motion import MotionResponse as MotionResponse
    from unstill.metrics.motion import is_dynamic as is_dynamic
    from unstill.metrics.motion import motion_response as motion_response
    from unstill.metrics.motion import motion_score as motion_score
    from unstill.metrics.motion import pair_motion as pair_motion
    from unstill.metrics.motion import top_motion as top_motion
    from unstill.metrics.onset import motion_onset as motion_onset
    from unstill.metrics.onset import onset_time as onset_time
    from unstill.metrics.raft import RAFT as RAFT
    from unstill.metrics.raft import RaftFlow as RaftFlow
    from unstill.metrics.record_cache import cached_features as cached_features
    from unstill.metrics.registry import SetScore as SetScore
    from unstill.metrics.registry import Value as Value
    from unstill.metrics.registry import metric as metric
    from unstill.metrics.registry import metric_group as metric_group
    from unstill.metrics.registry import set_metric as set_metric
    from unstill.metrics.report import EvaluationReport as EvaluationReport
    from unstill.metrics.report import MetricScore as MetricScore
    from unstill.metrics.torchmetrics_wrappers import FrechetVideoDistance as FrechetVideoDistance
    from unstill.metrics.torchmetrics_wrappers import VideoInceptionScore as VideoInceptionScore
    from unstill.metrics.torchmetrics_wrappers import VideoMean as VideoMean
else:
    from unstill._lazy import lazy_exports

    __all__, __getattr__, __dir__ = lazy_exports(__name__)

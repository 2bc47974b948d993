"""Pictures, videos and data sets of clips, in and out."""

from unstill.data.clips import ClipFolder, iterate_clips, video_files
from unstill.data.contact_sheets import contact_sheet, side_by_side
from unstill.data.images import read_image, resize_and_crop
from unstill.data.picture_crop import FittedPicture, fit_picture, parse_crop
from unstill.data.sources import Sample, SourceSettings, open_source
from unstill.data.video import Clip, VideoInfo, as_frames, read_video, video_info, write_video


__all__ = [
    "Clip",
    "ClipFolder",
    "FittedPicture",
    "Sample",
    "SourceSettings",
    "VideoInfo",
    "as_frames",
    "contact_sheet",
    "fit_picture",
    "iterate_clips",
    "open_source",
    "parse_crop",
    "read_image",
    "read_video",
    "resize_and_crop",
    "side_by_side",
    "video_files",
    "video_info",
    "write_video",
]

"""
From text to video through a chosen image: candidates, rewards, selection, and the two stages of I4VGen. Names are
imported on first use.

The package is not called `i4vgen`, because `unstill.i4vgen` is the function: Python puts a subpackage in the place of
such a name as soon as anything imports it.
"""

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from unstill.text_to_video.candidates import Candidate as Candidate
    from unstill.text_to_video.candidates import Halving as Halving
    from unstill.text_to_video.image_reward import ImageReward as ImageReward
    from unstill.text_to_video.pipeline import default_reward as default_reward
    from unstill.text_to_video.pipeline import i4vgen as i4vgen
    from unstill.text_to_video.prompt_video import CandidateOptions as CandidateOptions
    from unstill.text_to_video.result import I4VGen as I4VGen
    from unstill.text_to_video.rewards import ClipReward as ClipReward
    from unstill.text_to_video.rewards import Reward as Reward
    from unstill.text_to_video.rewards import proxy as proxy
    from unstill.text_to_video.rewards import reward_named as reward_named
    from unstill.text_to_video.text_to_image import TextToImage as TextToImage
    from unstill.text_to_video.world_reward import world as world
else:
    from unstill._lazy import lazy_exports

    __all__, __getattr__, __dir__ = lazy_exports(__name__)

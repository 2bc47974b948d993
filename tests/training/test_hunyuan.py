"""HunyuanVideo 1.5: two captions with masks, an image that is never dropped, and the model that cannot be trained."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests import pipelines as tiny
from tests.training.test_families import PIPELINES, Recorder, sample
from unstill.data.sources import generator_for
from unstill.errors import UnstillError
from unstill.families.registry import training_for
from unstill.training.condition_noise import Plan
from unstill.training.encoded_dataset import Encoder
from unstill.training.loss import ConditionDropout, Objective, batch_of
from unstill.training.setup import schedule_for


def _seen(dropout: ConditionDropout) -> tuple[dict[str, Any], dict[str, Any]]:
    """The call of the network, and the batch."""
    pipe = PIPELINES["hunyuanvideo-1.5"][0]()
    family, clip = training_for(pipe), replace(sample(16, 5), caption="a caption")
    given = batch_of([Encoder(pipe, family)(clip, generator_for(0))], "cpu")
    nothing = family.dropped(pipe, given)
    recorder = Recorder(pipe.transformer)
    schedule = schedule_for(pipe, family, given["latents"].shape[1:])
    objective = Objective(family, schedule, Plan(), dropout, nothing, None)
    with torch.no_grad():
        objective.errors(recorder, given, [generator_for(1)])
    return recorder.calls[0], given


def test_a_dropped_caption_is_the_empty_one_with_its_masks() -> None:
    call, given = _seen(ConditionDropout(text=1.0))
    assert not torch.equal(call["encoder_attention_mask"], given["text_mask"])
    assert call["encoder_attention_mask"].tolist() == [[1, 1, 0, 0]]
    assert call["encoder_attention_mask_2"].tolist() == [[0, 0, 1, 1]]
    assert call["encoder_hidden_states"].abs().max() == call["encoder_hidden_states_2"].abs().max() == 0


def test_the_image_is_never_dropped() -> None:
    call, given = _seen(ConditionDropout(both=1.0))
    torch.testing.assert_close(call["image_embeds"], given["tokens"])
    torch.testing.assert_close(call["hidden_states"][:, 4:8, :1], given["image"])
    assert (call["hidden_states"][:, 8, 0] == 1).all() and (call["hidden_states"][:, 8, 1:] == 0).all()


def test_a_distilled_model_is_refused() -> None:
    pipe = tiny.hunyuan_video_15()
    pipe.transformer.register_to_config(use_meanflow=True)
    with pytest.raises(UnstillError, match=r"use_meanflow.*train the model that is not distilled"):
        training_for(pipe)

"""From the values of single videos to the scores of a folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unstill.metrics.registry import SetMetric, SetScore, reported_values, set_metrics
from unstill.metrics.report import MetricScore


Values = Mapping[str, Mapping[str, Tensor]]
"""Relative name of a video: its values by name, each (n,)."""


def summarize(
    generated: Values, reference: Values | None, inputs: Mapping[str, Any]
) -> tuple[dict[str, MetricScore], list[str]]:
    """
    Computes the scores, in the order of the registry, and notes for the reader.

    Args:
        generated, reference: values of the generated and of the real videos.
        inputs: for set metrics, by name.
    """
    scores, notes = {}, []
    lengths = sorted({int(values["frames"]) for side in (generated, reference or {}) for values in side.values()})
    if len(lengths) > 1:
        notes.append(
            f"Videos have {lengths[0]} to {lengths[-1]} frames; sums and distances compare only videos of one length."
        )
    of_sets = {entry.value.name: entry for entry in set_metrics()}
    for name in reported_values():
        if name in of_sets:
            score, note = _of_sets(of_sets[name], generated, reference, inputs)
            notes += [note] if note and note not in notes else []
        else:
            score = _mean(name, generated, reference)
        if score is not None:
            scores[name] = score
    return scores, notes


def _mean(name: str, generated: Values, reference: Values | None) -> MetricScore | None:
    values, real = _column(generated, name), _column(reference or {}, name)
    if not values:
        return None
    mean = SetScore.mean(values)
    assert mean.value is not None
    of_real = SetScore.mean(real).value if real else None
    return MetricScore(value=mean.value, error=mean.error, count=len(values), reference=of_real)


def _of_sets(
    entry: SetMetric, generated: Values, reference: Values | None, inputs: Mapping[str, Any]
) -> tuple[MetricScore | None, str | None]:
    between = "reference" in entry.needs
    if (between and reference is None) or not entry.needs <= inputs.keys() | {"reference"}:
        return None, None
    names = [
        sorted(key for key, values in side.items() if entry.of in values) for side in (generated, reference or {})
    ]
    if entry.paired:
        names = [sorted(set(names[0]) & set(names[1]))] * 2
    if not names[0]:
        return None, None
    x = torch.stack([generated[key][entry.of] for key in names[0]])
    y = torch.stack([reference[key][entry.of] for key in names[1]]) if reference and names[1] else None
    if between and y is None:
        return None, None
    result = entry(x, y, inputs)
    if result.value is None:
        return None, result.note
    of_real = None if between or y is None else entry(y, None, inputs).value
    return MetricScore(value=result.value, error=result.error, count=len(x), reference=of_real), result.note


def _column(side: Values, name: str) -> list[float]:
    return [number for stem in sorted(side) if name in side[stem] for number in side[stem][name].tolist()]

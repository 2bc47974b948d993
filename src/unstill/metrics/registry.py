"""
The registry of metrics: the name of each number, its meaning, and its inputs.

A metric is a plain function with a decorator; the decorator returns the function unchanged:

- `@metric(...)`: a function of one video that returns one number,
- `@metric_group(...)`: a function of one video that returns several numbers by name, which share their work,
- `@set_metric(...)`: a function of all videos of a folder, such as a distance between two sets of features.

`unstill.evaluate`, the keys of its cache, its table and JSON, and the table of the documentation are derived from the
registry. Reading it imports every module of this package: a new metric needs no more than a file with a decorated
function.
"""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor


F = TypeVar("F", bound=Callable[..., Any])
Topic = Literal["motion", "kind of motion", "image", "coherence", "text", "quality"]
TOPICS: dict[Topic, str] = {
    "motion": "does it move?",
    "kind of motion": "what moves, and when?",
    "image": "is it still my image?",
    "coherence": "does it flicker?",
    "text": "does it match the text?",
    "quality": "is it as good as real video?",
}
"""The question that the metrics of each topic answer, in the order of reports."""

INPUTS = {
    "fps": "",
    "image": "`--images` or `--reference`",
    "prompt": "`--prompts`",
    "reference": "`--reference`",
    "flow": "",
    "size": "",
    "raft": "`--flow raft --flow-weights`",
    "clip": "`--clip`",
    "dino": "`--dino`",
    "aesthetic": "`--aesthetic`",
    "i3d": "`--i3d`",
    "c3d": "`--c3d`",
    "proxy_features": "",
    "unbiased": "",
    "splits": "",
}
"""The inputs of metrics besides the video, and the options that provide them (empty: always available)."""

_WITHOUT_METRICS = {"unstill.metrics.torchmetrics_wrappers"}  # needs a package that is not always installed


@dataclass(frozen=True, slots=True)
class Value:
    """
    One named number of a metric.

    Attributes:
        name: in JSON and in tables of the documentation.
        label: its meaning, for tables; `None` for an intermediate result, such as a vector of features, which is
            cached for the set metrics and not reported.
        topic: the question it belongs to, a key of `TOPICS`.
        unit: empty for numbers without one.
        better: "higher" or "lower"; None if neither is better.
        proxy: a substitute for a network that needs a download; not comparable to published numbers.
        vbench: the two raw values that VBench maps to 0 and 1; `None` if it is no dimension of VBench.
        needs: names of `INPUTS` that this value needs in addition to those of its group.
    """

    name: str
    label: str | None = None
    topic: Topic = "quality"
    unit: str = ""
    better: Literal["higher", "lower"] | None = None
    proxy: bool = False
    vbench: tuple[float, float] | None = None
    needs: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class VideoMetric:
    """A registered function of one video; see `metric_group` for the fields."""

    values: tuple[Value, ...]
    function: Callable[..., Any]
    needs: frozenset[str]
    optional: frozenset[str]
    version: int

    @property
    def name(self) -> str:
        """Name in cache keys: that of its value, or of its function if there are several."""
        return self.values[0].name if len(self.values) == 1 else self.function.__name__

    def __call__(self, video: Tensor, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """The values of a video, each `(n,)`; the function receives the declared `inputs` by name."""
        declared = self.needs | self.optional
        result = self.function(video, **{name: value for name, value in inputs.items() if name in declared})
        named = result if isinstance(result, dict) else {self.values[0].name: result}
        unknown = named.keys() - {value.name for value in self.values}
        if unknown:
            raise ValueError(f"The metric {self.name} returns values that it did not declare: {sorted(unknown)}.")
        return {name: _row(value) for name, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True)
class SetScore:
    """
    The result of a set metric.

    Attributes:
        value: `None` if it cannot be computed.
        error: of the value; `None` if not known.
        note: for the reader of the report.
    """

    value: float | None
    error: float | None = None
    note: str | None = None

    @classmethod
    def mean(cls, values: Sequence[float]) -> SetScore:
        """The mean of at least one value, and its standard error if there are two or more."""
        error = None
        if len(values) > 1:
            error = float(torch.tensor(values, dtype=torch.float64).std()) / len(values) ** 0.5
        return cls(math.fsum(values) / len(values), error)


@dataclass(frozen=True, slots=True)
class SetMetric:
    """A registered function of a set of videos; see `set_metric` for the fields."""

    value: Value
    function: Callable[..., SetScore]
    of: str
    needs: frozenset[str]
    paired: bool

    def __call__(self, generated: Tensor, reference: Tensor | None, inputs: Mapping[str, Any]) -> SetScore:
        chosen = {name: inputs[name] for name in self.needs - {"reference"}}
        if "reference" in self.needs:
            chosen["reference"] = reference
        return self.function(generated, **chosen)


@dataclass(slots=True)
class _Registry:
    video: dict[str, VideoMetric] = field(default_factory=dict)
    set: dict[str, SetMetric] = field(default_factory=dict)


_REGISTRY = _Registry()


def metric(
    name: str,
    *,
    label: str | None,
    topic: Topic = "quality",
    unit: str = "",
    better: Literal["higher", "lower"] | None = None,
    proxy: bool = False,
    vbench: tuple[float, float] | None = None,
    needs: Collection[str] = (),
    optional: Collection[str] = (),
    version: int = 1,
) -> Callable[[F], F]:
    """
    Registers a function of one video that returns a number, or `None` for a video that it does not apply to.

    Args:
        name, label, topic, unit, better, proxy, vbench: see `Value`.
        needs, optional, version: see `metric_group`.
    """
    value = Value(name, label, topic, unit, better, proxy, vbench)
    return metric_group(value, needs=needs, optional=optional, version=version)


def metric_group(
    *values: Value, needs: Collection[str] = (), optional: Collection[str] = (), version: int = 1
) -> Callable[[F], F]:
    """
    Registers a function of one video that returns several values by name; it may leave some out.

    A value is a number, or a tensor (n,) of numbers that each count in the mean over all videos.

    Args:
        values: all that the function can return.
        needs: names of `INPUTS` that the function takes as arguments of the same name, after the video, which is
            uint8 (F, 3, H, W). It is called only where all of them exist.
        optional: the same for arguments with a default, passed where they exist. The needs of the values are added.
        version: increase it when the function returns other numbers than before: cached ones are computed again.
    """

    def register(function: F) -> F:
        everything = frozenset(optional).union(*(value.needs for value in values))
        entry = VideoMetric(values, function, frozenset(needs), everything, version)
        _check(entry.name, function, entry.needs | everything)
        _insert(_REGISTRY.video, entry.name, entry, values)
        return function

    return register


def set_metric(
    name: str,
    *,
    of: str,
    label: str,
    topic: Topic = "quality",
    unit: str = "",
    better: Literal["higher", "lower"] | None = None,
    proxy: bool = False,
    needs: Collection[str] = (),
    paired: bool = False,
) -> Callable[[F], F]:
    """
    Registers a function of the values of many videos that returns a `SetScore`. Its results are not cached.

    Args:
        name, label, topic, unit, better, proxy: see `Value`.
        of: the name of the `Value` it is computed from; the function gets its rows (n, d), sorted by video name.
        needs: names of `INPUTS` that the function takes as arguments of the same name. With "reference" it also gets
            the rows (m, d) of the real videos; without, it is computed for them as well where there are any.
        paired: row i of the generated and of the real videos are of videos of the same name.
    """

    def register(function: F) -> F:
        value = Value(name, label, topic, unit, better, proxy)
        entry = SetMetric(value, function, of, frozenset(needs), paired)
        _check(name, function, entry.needs)
        _insert(_REGISTRY.set, name, entry, (value,))
        return function

    return register


def video_metrics() -> list[VideoMetric]:
    """All metrics of single videos."""
    _import_all()
    return list(_REGISTRY.video.values())


def set_metrics() -> list[SetMetric]:
    """All metrics of sets of videos."""
    _import_all()
    return list(_REGISTRY.set.values())


def reported_values() -> dict[str, tuple[Value, frozenset[str]]]:
    """By name, every reported value with all its needs, sorted by topic, proxies last, then module."""
    rows: list[tuple[Value, frozenset[str], VideoMetric | SetMetric]]
    rows = [(value, entry.needs.union(value.needs), entry) for entry in video_metrics() for value in entry.values]
    of = {value.name: needs for value, needs, _ in rows}
    rows += [(entry.value, entry.needs | of.get(entry.of, frozenset()), entry) for entry in set_metrics()]
    topics = list(TOPICS)
    rows.sort(key=lambda row: (topics.index(row[0].topic), row[0].proxy, row[2].function.__module__))  # stable
    return {value.name: (value, needs) for value, needs, _ in rows if value.label is not None}


def _import_all() -> None:
    package = importlib.import_module("unstill.metrics")
    for module in pkgutil.iter_modules(package.__path__, "unstill.metrics."):
        if module.name not in _WITHOUT_METRICS:
            importlib.import_module(module.name)


def _check(name: str, function: Callable[..., Any], inputs: frozenset[str]) -> None:
    unknown = inputs - INPUTS.keys()
    if unknown:
        raise ValueError(f"The metric {name} needs {sorted(unknown)}; known inputs are {', '.join(INPUTS)}.")
    missing = inputs - inspect.signature(function).parameters.keys()
    if missing:
        raise ValueError(f"The function of the metric {name} has no arguments {sorted(missing)}, which it declares.")


def _insert(table: dict[str, Any], key: str, entry: VideoMetric | SetMetric, values: Sequence[Value]) -> None:
    registered: dict[str, VideoMetric | SetMetric] = {
        value.name: other for other in _REGISTRY.video.values() for value in other.values
    }
    registered |= _REGISTRY.set
    for value in values:
        other = registered.get(value.name)
        if other is not None and _qualified_name(other) != _qualified_name(entry):
            raise ValueError(
                f"Two metrics are called {value.name}: {_qualified_name(other)} and {_qualified_name(entry)}; "
                "rename one of them."
            )
    table[key] = entry


def _qualified_name(entry: VideoMetric | SetMetric) -> str:
    return f"{entry.function.__module__}.{entry.function.__qualname__}"


def _row(value: Any) -> Tensor:
    tensor = value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)
    return tensor.detach().cpu().reshape(-1)

"""Latent statistics against numpy, the authors' own estimator, and themselves in pieces."""

import gc
import json
import logging
import math
import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from unstill.data.video import Clip
from unstill.errors import UnstillError
from unstill.latent_statistics import LatentStatistics
from unstill.statistics_estimation import _Node, _State, combine, estimate


GOLDEN = Path(__file__).parent / "golden" / "statistics" / "analytic_init_moments.safetensors"


def latents(count: int, seed: int = 0, shape: tuple[int, ...] = (4, 3, 5, 6)) -> torch.Tensor:
    """Videos with a mean and a spread that differ from element to element."""
    generator = torch.Generator().manual_seed(seed)
    mean, spread = torch.randn(2, *shape, generator=torch.Generator().manual_seed(99))
    return 3 * mean + spread.exp() * torch.randn(count, *shape, generator=generator)


def sentence(action: Callable[[], object]) -> str:
    with pytest.raises(UnstillError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def same(a: LatentStatistics, b: LatentStatistics, tolerance: float = 0.0) -> None:
    assert a.count == b.count
    assert (a.mean - b.mean).abs().max() <= tolerance and (a.variance - b.variance).abs() <= tolerance


@pytest.mark.parametrize("batches", [[40], [1] * 40, [7, 1, 20, 12]])
def test_moments_are_those_of_numpy(batches: list[int]) -> None:
    data = latents(40)
    statistics = LatentStatistics()
    for batch in data.split(batches):
        statistics.update(batch)
    assert statistics.count == 40
    assert statistics.mean.dtype == torch.float64 and statistics.mean.shape == (4, 3, 5, 6)
    exact = data.numpy().astype(np.float64)
    assert np.abs(statistics.mean.numpy() - exact.mean(0)).max() < 1e-12
    assert abs(statistics.variance - exact.var(0).mean()) < 1e-12  # biased, averaged over elements


def test_the_authors_estimator() -> None:
    golden = load_file(GOLDEN)
    statistics = LatentStatistics()
    for video in golden["samples"]:
        statistics.update(video)
    assert torch.allclose(statistics.mean.float(), golden["Expectation_X0"][0], atol=1e-6)
    assert abs(statistics.variance - golden["Tr_Cov_d"]) < 1e-6


def test_a_large_offset_costs_no_digits() -> None:
    # Sums of squares in float32 would give a variance of 0 or below here.
    x = 1e4 + torch.randn(2000, 1, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    statistics = LatentStatistics()
    for batch in x.split(13):
        statistics.update(batch)
    assert statistics.variance == pytest.approx(x.numpy().astype(np.float64).var(0).mean(), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float64(dtype: torch.dtype) -> None:
    data = latents(300).to(dtype)
    statistics = LatentStatistics()
    for batch in data.split(16):
        statistics.update(batch)
    assert np.abs(statistics.mean.numpy() - data.double().numpy().mean(0)).max() < 1e-12


def test_merged_shards_are_the_whole() -> None:
    data = latents(60)
    whole = LatentStatistics().update(data)
    merged = LatentStatistics()
    for shard in (data[:1], data[1:25], data[25:]):
        merged.merge(LatentStatistics().update(shard))
    merged.merge(LatentStatistics())
    same(merged, whole, 1e-12)


def test_merging_leaves_the_other_alone() -> None:
    a, b = LatentStatistics().update(latents(3)), LatentStatistics().update(latents(4, seed=1))
    before = b.mean.clone(), b.variance
    new = LatentStatistics().merge(b)
    new.merge(a)
    assert torch.equal(b.mean, before[0]) and b.variance == before[1] and b.count == 4


def test_update_does_not_keep_the_callers_tensors() -> None:
    batch = latents(2)
    statistics = LatentStatistics().update(batch)
    before = statistics.mean.clone()
    batch.zero_()
    assert torch.equal(statistics.mean, before)


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (torch.zeros(4, 3, 5, 6), "(B, C, F, H, W)"),
        (torch.zeros(0, 4, 3, 5, 6), "(B, C, F, H, W)"),
        (torch.zeros(2, 4, 3, 5, 7), "(4, 3, 5, 7)"),
        (torch.full((1, 4, 3, 5, 6), math.nan), "NaN"),
        (torch.full((1, 4, 3, 5, 6), math.inf), "NaN or infinity"),
        (torch.zeros(1, 4, 3, 5, 6, dtype=torch.int64), "int64"),
    ],
)
def test_batches_that_cannot_be_counted(batch: torch.Tensor, says: str) -> None:
    statistics = LatentStatistics().update(latents(5))
    before = statistics.mean.clone()
    assert says in sentence(lambda: statistics.update(batch))
    assert statistics.count == 5 and torch.equal(statistics.mean, before)


def test_empty_statistics_say_so(tmp_path: Path) -> None:
    empty = LatentStatistics()
    assert empty.count == 0 and "count=0" in repr(empty)
    for action in (lambda: empty.mean, lambda: empty.variance, lambda: empty.save(tmp_path / "s.safetensors")):
        assert "empty" in sentence(action)
    assert not list(tmp_path.iterdir())


# Files


@pytest.mark.skipif(os.name == "nt", reason="no umask")
def test_the_umask_decides_who_may_read_a_file(tmp_path: Path) -> None:
    """safetensors on its own writes for the owner alone."""
    statistics = LatentStatistics().update(latents(2))
    before = os.umask(0o027)
    try:
        path = statistics.save(tmp_path / "s.safetensors")
        os.umask(0o002)
        other = statistics.save(tmp_path / "t.safetensors")
    finally:
        os.umask(before)
    assert (path.stat().st_mode & 0o777, other.stat().st_mode & 0o777) == (0o640, 0o664)


def test_file_keeps_every_bit_and_can_go_on(tmp_path: Path) -> None:
    data = latents(20)
    meta = {"model": "pico", "fps": 8.0, "size": [64, 64], "frames": 8}
    path = LatentStatistics(meta).update(data[:12]).save(tmp_path / "new" / "s.safetensors")
    loaded = LatentStatistics.load(path)
    assert loaded.meta == meta
    same(loaded, LatentStatistics().update(data[:12]))
    same(loaded.update(data[12:]), LatentStatistics().update(data[:12]).update(data[12:]))
    assert [entry.name for entry in path.parent.iterdir()] == ["s.safetensors"]


@pytest.mark.parametrize(
    ("keys", "first"), [(("Expectation_X0", "Tr_Cov_d"), "C"), (("Expectation_x_0", "trCov_d"), "F")]
)
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_files_that_the_authors_published(
    tmp_path: Path, keys: tuple[str, str], first: str, batched: bool, kind: str
) -> None:
    mean = latents(1)[0]  # (C, F, H, W)
    stored = mean if first == "C" else mean.transpose(0, 1).contiguous()
    content = {keys[0]: stored[None] if batched else stored, keys[1]: torch.tensor(0.808)}
    path = tmp_path / ("s.safetensors" if kind == "safetensors" else "initial_noise_512.pt")
    if kind == "safetensors":
        save_file(content, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    for read in (LatentStatistics.load, LatentStatistics.from_released):
        statistics = read(path)
        assert torch.equal(statistics.mean, mean.double())
        assert float(statistics.variance) == pytest.approx(0.808) and statistics.count is None
        assert "no count" in sentence(lambda statistics=statistics: statistics.update(latents(1)))
        other = LatentStatistics().update(latents(1))
        assert "no count" in sentence(lambda statistics=statistics, other=other: other.merge(statistics))
    again = LatentStatistics.load(statistics.save(tmp_path / "converted.safetensors"))
    assert again.count is None
    assert torch.equal(again.mean, statistics.mean) and again.variance == statistics.variance


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("this ran",))


def test_files_of_another_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = LatentStatistics().update(latents(2)).save(tmp_path / "good.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(good[: len(good) // 2])
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "text.safetensors").write_text("mean: 3\n" * 9)
    save_file({"mean": torch.zeros(2)}, tmp_path / "other.safetensors")
    save_file(
        {"mean": torch.zeros(2), "m2": torch.zeros(2)},
        tmp_path / "newer.safetensors",
        {"unstill.statistics": json.dumps({"version": 99, "count": 1, "meta": {}})},
    )
    torch.save({"Expectation_X0": Evil(), "Tr_Cov_d": 1.0}, tmp_path / "evil.pt")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "weights.pt")
    torch.save({"Expectation_X0": torch.zeros(2, 3), "Tr_Cov_d": torch.tensor(1.0)}, tmp_path / "flat.pt")
    for name, says in (
        ("missing.safetensors", "does not exist"),
        (".", "is a folder"),
        ("cut.safetensors", "damaged"),
        ("empty.safetensors", "damaged"),
        ("text.safetensors", "damaged"),
        ("other.safetensors", "not of latent statistics"),
        ("newer.safetensors", "newer unstill"),
        ("evil.pt", "cannot be read safely"),
        ("weights.pt", "holds no published statistics"),
        ("flat.pt", "(2, 3)"),
    ):
        assert says in sentence(lambda name=name: LatentStatistics.load(tmp_path / name)), name
    assert "this ran" not in capsys.readouterr().out


# Other sizes


def test_resized_to_itself_is_itself() -> None:
    statistics = LatentStatistics().update(latents(5))
    assert statistics.resized((3, 5, 6)) is statistics


def test_resizing_interpolates_the_mean_and_keeps_the_variance() -> None:
    frames, width = torch.arange(5.0), torch.arange(8.0)
    mean = (frames[:, None, None] + 10 * width).expand(2, 5, 4, 8)  # linear in time and space
    statistics = LatentStatistics().update(torch.stack([mean - 1, mean + 1]))
    other = statistics.resized((9, 4, 16))
    assert other.mean.shape == (2, 9, 4, 16)
    times = torch.linspace(0, 4, 9).double()  # the end frames keep their places
    places = (torch.arange(16) + 0.5) / 2 - 0.5  # pixel centres
    expected = times[:, None] + 10 * places.clamp(0, 7)
    assert torch.allclose(other.mean[0, :, 1], expected, atol=1e-12)
    assert other.variance == pytest.approx(float(statistics.variance)) and other.count == 2
    assert other.meta["resized_from"] == [2, 5, 4, 8]
    smaller = statistics.resized((5, 2, 4))
    assert smaller.mean[..., 1:3].mean() == pytest.approx(float(mean.mean()))  # antialiased: the average of its pixels
    assert "at least 1" in sentence(lambda: statistics.resized((0, 4, 4)))


def test_resizing_published_statistics(tmp_path: Path) -> None:
    torch.save({"Expectation_X0": torch.ones(1, 4, 16, 5, 8), "Tr_Cov_d": torch.tensor(0.5)}, tmp_path / "s.pt")
    other = LatentStatistics.load(tmp_path / "s.pt").resized((14, 9, 16))
    assert other.mean.shape == (4, 14, 9, 16) and torch.allclose(other.mean, torch.ones(()).double())
    assert other.variance == 0.5


# Estimation


class Clips(Sequence[Clip]):
    """Clips made on demand; those in `broken` cannot be read."""

    def __init__(self, count: int, broken: tuple[int, ...] = ()) -> None:
        self.count, self.broken, self.made = count, broken, list[int]()
        self.alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
        self.most_alive = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Clip:  # type: ignore[override]
        self.made.append(index)
        if index in self.broken:
            raise UnstillError(f"clip{index}.mp4 is damaged.")
        frames = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        self.alive.add(frames)
        self.most_alive = max(self.most_alive, len(self.alive))
        return Clip(frames, 8.0)


def encode(video: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A stand-in for a VAE: averages of 4x4 pixels, and a posterior sample around them."""
    assert video.dtype == torch.float32 and 0 <= video.min() and video.max() <= 1
    mean = torch.nn.functional.avg_pool2d(video, 4).transpose(0, 1)[None]  # (F, 3, h, w) -> (1, 3, F, h, w)
    return mean + 0.1 * torch.randn(mean.shape, generator=generator)


def test_estimate_is_the_statistics_of_the_encoded_clips() -> None:
    seen: list[tuple[int, int]] = []
    clips = Clips(6)
    statistics = estimate(lambda video, _: video.transpose(0, 1)[None], clips, progress=lambda *p: seen.append(p))
    exact = np.stack([clips[i].frames.numpy() / 255.0 for i in range(6)]).swapaxes(1, 2)
    assert np.abs(statistics.mean.numpy() - exact.mean(0)).max() < 1e-7
    assert statistics.variance == pytest.approx(exact.var(0).mean(), rel=1e-6)
    assert seen == [(done, 6) for done in range(1, 7)]


def test_broken_clips_are_named_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        statistics = estimate(encode, Clips(6, broken=(0, 4)))
    assert statistics.count == 4
    assert [record.message for record in caplog.records] == [
        "Leaving out clip 0: clip0.mp4 is damaged.",
        "Leaving out clip 4: clip4.mp4 is damaged.",
    ]
    assert "None of the 3 clips" in sentence(lambda: estimate(encode, Clips(3, broken=(0, 1, 2))))


@pytest.mark.parametrize("count", [2, 3, 5, 8, 11, 14])
def test_shards_share_out_the_clips(count: int, tmp_path: Path) -> None:
    clips = Clips(11, broken=(3,))
    meta = {"model": "pool"}
    estimate(encode, clips, seed=4, meta=meta, out=tmp_path / "whole.safetensors")
    whole, merged = LatentStatistics.load(tmp_path / "whole.safetensors"), LatentStatistics()
    paths = [tmp_path / f"{index}.safetensors" for index in range(count)]
    clips.made.clear()
    for index, path in enumerate(paths):
        share = estimate(encode, clips, seed=4, meta=meta, shard=(index, count), out=path)
        assert LatentStatistics.load(path).count == share.count  # it may be empty
        merged.merge(LatentStatistics.load(path))
    assert clips.made == list(range(11))
    same(merged, whole, 1e-12)
    combine(reversed(paths), meta).save(tmp_path / "combined.safetensors")
    assert (tmp_path / "combined.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    # a share that is there is not measured again
    estimate(encode, clips, seed=4, meta=meta, shard=(count - 1, count), out=paths[-1])
    assert len(clips.made) == 11
    assert "not all shards" in sentence(lambda: combine(paths[:-1]))
    assert "not all shards" in sentence(lambda: combine([]))
    assert "not all shards" in sentence(lambda: combine([*paths, paths[-1]]))
    estimate(encode, clips, seed=5, meta=meta, shard=(0, count), out=tmp_path / "other.safetensors")
    assert "not all shards" in sentence(lambda: combine([tmp_path / "other.safetensors", *paths[1:]]))
    assert "not the state of a run" in sentence(lambda: combine([tmp_path / "whole.safetensors"]))
    assert "0 <= index < count" in sentence(lambda: estimate(encode, clips, shard=(2, 2)))


def test_more_shares_than_clips(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.safetensors" for index in range(4)]
    counts = [estimate(encode, Clips(2), shard=(i, 4), out=path).count for i, path in enumerate(paths)]
    assert counts == [LatentStatistics.load(path).count for path in paths] and sorted(counts) == [0, 0, 1, 1]
    same(combine(paths), estimate(encode, Clips(2)))
    broken = [tmp_path / f"broken{index}.safetensors" for index in range(2)]
    for index, path in enumerate(broken):
        estimate(encode, Clips(3, broken=(0, 1, 2)), shard=(index, 2), out=path)
    assert "None of the 3 clips" in sentence(lambda: combine(broken))


def test_merging_along_the_tree_keeps_little() -> None:
    state, most = _State({}, 0, []), 0
    for number in range(1000):
        state.add(_Node(number, 1, LatentStatistics().update(torch.ones(1, 1, 1, 1, 1))))
        most = max(most, len(state.nodes))
    assert most <= 10 and state.total(None).count == 1000


@pytest.mark.parametrize("stop", [0, 1, 4, 5, 9])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path: Path, stop: int, error: type[BaseException]) -> None:
    out = tmp_path / "s.safetensors"

    def stopping(video: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if len(clips.made) > stop:
            raise error
        return encode(video, generator)

    clips = Clips(10, broken=(2,))
    with pytest.raises(error):
        estimate(stopping, clips, out=out, save_every=4)
    assert not out.exists()
    clips = Clips(10, broken=(2,))
    resumed = estimate(encode, clips, out=out, save_every=4)
    whole = estimate(encode, Clips(10, broken=(2,)))
    same(resumed, whole)
    same(LatentStatistics.load(out), whole)
    assert clips.made == list(range(stop, 10))  # nothing is computed twice
    assert [entry.name for entry in tmp_path.iterdir()] == [out.name]


def test_a_killed_run_goes_on_from_the_last_saved_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "s.safetensors"
    kept = {}

    def remember(done: int, total: int) -> None:
        partial = tmp_path / "s.safetensors.partial"
        if done == 7:  # what a power cut here would leave
            kept["content"] = partial.read_bytes()

    estimate(encode, Clips(10), out=out, save_every=3, progress=remember)
    out.unlink()
    (tmp_path / "s.safetensors.partial").write_bytes(kept["content"])
    clips = Clips(10)
    same(estimate(encode, clips, out=out, save_every=3), estimate(encode, Clips(10)))
    assert clips.made == [6, 7, 8, 9]


@pytest.mark.parametrize("change", ["clips", "seed", "shard", "meta"])
def test_the_state_of_another_run_is_not_continued(tmp_path: Path, change: str) -> None:
    out = tmp_path / "s.safetensors"

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        estimate(encode, Clips(8), out=out, progress=stop)
    other = {
        "clips": lambda: estimate(encode, Clips(9), out=out),
        "seed": lambda: estimate(encode, Clips(8), out=out, seed=1),
        "shard": lambda: estimate(encode, Clips(8), out=out, shard=(0, 2)),
        "meta": lambda: estimate(encode, Clips(8), out=out, meta={"fps": 3}),
    }[change]
    assert "another run" in sentence(other)


def test_posterior_samples_depend_on_the_seed_and_the_clip_only() -> None:
    drawn: dict[int, list[float]] = {}

    def record(video: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        drawn.setdefault(generator.initial_seed(), []).append(float(torch.randn((), generator=generator)))
        return video.transpose(0, 1)[None]

    estimate(record, Clips(4))
    estimate(record, Clips(4), shard=(1, 2))
    assert [len(values) for values in drawn.values()] == [1, 1, 2, 2]
    assert len({values[0] for values in drawn.values()}) == 4 and all(len(set(v)) == 1 for v in drawn.values())


def test_a_thousand_clips_need_the_memory_of_a_few() -> None:
    clips = Clips(1000)
    gc.collect()
    statistics = estimate(lambda video, _: video[:, :, :2, :2].transpose(0, 1)[None], clips)
    assert statistics.count == 1000 and len(clips.made) == 1000
    assert clips.most_alive <= 2

"""Videos of every odd kind, made on the fly: each frame is a flat grey that tells its number."""

import bisect
import math
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tests.videos import h264_avi, packed_avi
from unstill.data import contact_sheet, read_image, read_video, resize_and_crop, side_by_side, video_info, write_video
from unstill.data import decode as decode_module
from unstill.data import video as video_module
from unstill.errors import UnstillError


CLIPS = Path(__file__).parents[3] / "shared" / "clips"
SUFFIXES = [".mp4", ".gif", ".webp", ""]


def grey(index: int, height: int = 32, width: int = 48) -> np.ndarray:
    return np.full((height, width, 3), 20 + 4 * index, np.uint8)


def numbers(frames: torch.Tensor) -> list[int]:
    """The numbers of flat grey frames, whatever a codec adds."""
    return ((frames.float().mean((1, 2, 3)) - 20) / 4).round().int().tolist()


def store(
    path: Path,
    count: int,
    fps: Fraction | int = 8,
    times: list[float] | None = None,
    prepare: Callable[[av.VideoStream], None] = lambda stream: None,
    picture: Callable[[int], np.ndarray] = grey,
    codec: str = "libx264",
    **options: object,
) -> Path:
    """Encode `count` pictures, at `times` in seconds if given."""
    first = picture(0)
    with av.open(str(path), "w", **options) as container:
        stream = container.add_stream(codec, rate=fps, options={"crf": "10"} if codec == "libx264" else {})
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        prepare(stream)
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(1000 * times[index]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def sentence(action: Callable[[], object]) -> str:
    """The message of the UnstillError that an action raises: one sentence."""
    with pytest.raises(UnstillError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


# Reading: which frames


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("fps", [8, 6, Fraction(5, 2), 24, 17])
def test_resampling_takes_the_frame_on_the_screen(tmp_path: Path, suffix: str, fps: Fraction | int) -> None:
    path = store(tmp_path / f"v{suffix}", 24, fps=24)
    clip = read_video(path, fps=float(fps))
    assert clip.fps == float(fps)
    # Exact arithmetic: frame floor(24 k / fps) is shown at k / fps, until the end of the last frame, 1 s.
    assert numbers(clip.frames) == [math.floor(24 * Fraction(k) / fps) for k in range(math.ceil(fps))]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_rate_that_the_clock_rounds_repeats_and_drops_nothing(tmp_path: Path, suffix: str) -> None:
    rate = Fraction(30000, 1001)  # in .mkv the times are whole milliseconds
    path = store(tmp_path / f"v{suffix}", 50, fps=rate)
    assert numbers(read_video(path, fps=float(rate)).frames) == list(range(50))
    assert numbers(read_video(path, fps=float(rate) / 2, frames=20).frames) == list(range(0, 40, 2))


def test_without_fps_every_stored_frame_once(tmp_path: Path) -> None:
    clip = read_video(store(tmp_path / "v.mp4", 20, fps=25))
    assert numbers(clip.frames) == list(range(20))
    assert clip.fps == 25 and clip.frames.dtype == torch.uint8 and clip.frames.shape == (20, 3, 32, 48)
    assert len(clip) == 20 and clip.pixels.max() <= 1


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_variable_frame_rate(tmp_path: Path, suffix: str) -> None:
    times = [0.0, 0.1, 0.15, 0.9, 1.0, 1.01, 1.02, 1.5]
    path = store(tmp_path / f"v{suffix}", len(times), times=times)
    clip = read_video(path, fps=20, frames=30)
    assert numbers(clip.frames) == [bisect.bisect_right(times, k / 20 + 1e-9) - 1 for k in range(30)]
    assert numbers(read_video(path).frames) == list(range(len(times)))


def test_start(tmp_path: Path) -> None:
    path = store(tmp_path / "v.mp4", 50, fps=10)
    assert numbers(read_video(path, start=1.5, frames=3).frames) == [15, 16, 17]
    assert numbers(read_video(path, fps=5, start=3.3, frames=4).frames) == [33, 35, 37, 39]
    assert numbers(read_video(path, fps=10, start=4.8).frames) == [48, 49]
    assert "ends before 5 s" in sentence(lambda: read_video(path, start=5.0))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi", ".ts", ".mpg"])
def test_start_is_exact_in_every_container(tmp_path: Path, suffix: str) -> None:
    codec = {".webm": "libvpx-vp9", ".mpg": "mpeg2video"}.get(suffix, "libx264")

    def short_groups(stream: av.VideoStream) -> None:
        stream.codec_context.gop_size = 10

    path = store(tmp_path / f"v{suffix}", 50, fps=25, codec=codec, prepare=short_groups)
    every = numbers(read_video(path).frames)
    assert len(every) == 50
    for start in (0.4, 1.04, 1.2, 1.6, 1.92):
        first = round(start * 25)
        assert numbers(read_video(path, start=start, frames=2).frames) == every[first : first + 2]


def test_first_time_stamp_may_be_anything(tmp_path: Path) -> None:
    path = store(tmp_path / "v.mkv", 6, times=[7 + k / 4 for k in range(6)])
    assert numbers(read_video(path, fps=4).frames) == list(range(6))
    assert numbers(read_video(path, fps=4, start=1.0, frames=2).frames) == [4, 5]


def test_no_duration_and_no_clock(tmp_path: Path) -> None:
    path = store(tmp_path / "v.h264", 25, fps=25, format="h264")
    assert video_info(path).duration is None
    assert numbers(read_video(path, fps=5).frames) == [0, 5, 10, 15, 20]
    path = store(tmp_path / "live.mkv", 8, container_options={"live": "1"})
    assert numbers(read_video(path, fps=4).frames) == [0, 2, 4, 6]


@pytest.mark.parametrize("kind", ["h264", "h264, three in a row", "packed"])
def test_avi_with_b_frames_loses_no_frame(tmp_path: Path, kind: str) -> None:
    pictures = [grey(index) + noisy(index)[:32, :48] % 8 for index in range(55)]
    path = tmp_path / "v.avi"
    if kind == "packed":
        packed_avi(path, pictures, 10)
    else:
        h264_avi(path, pictures, 10, b_frames=3 if "three" in kind else 1)
    every = read_video(path)
    found = (every.frames.float().mean((1, 2, 3)) - 23.5) / 4
    assert found.round().int().tolist() == list(range(55)) and every.fps == 10
    taken = [5, 7, 9, 11, 13, 15, 17, 19]
    assert torch.equal(read_video(path, fps=5, start=0.5, frames=8).frames, every.frames[taken])
    assert torch.equal(read_video(path, start=3.0).frames, every.frames[30:])
    assert torch.equal(read_video(path, stride=7).frames, every.frames[::7])


@pytest.mark.parametrize(
    ("kind", "codec"), [("h264", "libx264"), ("hevc", "libx265"), ("m4v", "mpeg4"), ("mpeg2video", "mpeg2video")]
)
def test_a_raw_stream_has_the_rate_of_its_header(tmp_path: Path, kind: str, codec: str) -> None:
    path = tmp_path / f"v.{kind}"
    store(path, 24, fps=24, codec=codec, format=kind, picture=lambda index: grey(index, 64, 64))
    assert video_info(path).fps == 24
    assert numbers(read_video(path, fps=6).frames) == [0, 4, 8, 12, 16, 20]


@pytest.mark.parametrize("sound", [False, True])
@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".flv"])
def test_matroska_and_flv_that_are_cut_off(tmp_path: Path, suffix: str, sound: bool) -> None:
    path = tmp_path / f"v{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9" if suffix == ".webm" else "libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        if sound:  # twice as long as the pictures
            voice = container.add_stream("libopus", rate=48000, layout="mono")
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.int16), format="s16", layout="mono")
            silence.rate = 48000
            for second in range(6):
                silence.pts = 48000 * second
                container.mux(voice.encode(silence))
            container.mux(voice.encode())
        for index in range(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noisy(index), format="rgb24")))
        container.mux(stream.encode())
    assert len(read_video(path)) == 30
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    message = sentence(lambda: read_video(path))
    assert "is cut off" in message
    assert len(read_video(path, frames=10)) == 10
    if not sound:  # only a part of the index at the end is gone
        path.write_bytes(whole[:-20])
        assert len(read_video(path)) == 30


def test_no_more_is_decoded_and_converted_than_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store(tmp_path / "v.mp4", 200, fps=25, picture=lambda index: grey(index % 50))
    decoded: list[float] = []
    converted: list[float] = []
    original = decode_module._shown

    def counting(time: float, frame: av.VideoFrame, until: float, aspect: float) -> decode_module.Shown:
        shown = original(time, frame, until, aspect)
        decoded.append(time)

        def image() -> Image.Image:
            converted.append(time)
            return shown.image()

        return decode_module.Shown(time, until, image)

    monkeypatch.setattr(decode_module, "_shown", counting)
    clip = read_video(path, fps=5, frames=4)
    assert numbers(clip.frames) == [0, 5, 10, 15]
    assert len(decoded) == 16 and len(converted) == 4
    decoded.clear()
    read_video(path, start=7.0, frames=2)  # 250 frames in: starts at a key frame, x264 sets one every 250 at most
    assert len(decoded) <= 177


# Reading: how they look


# tkhd matrices (a, b, u, c, d, v, x, y, w) as phones write them, and what the viewer must see
@pytest.mark.parametrize(
    ("matrix", "seen"),
    [
        ((0, 1, -1, 0), lambda a: np.rot90(a, -1)),  # x' = -y, y' = x: a quarter turn clockwise
        ((-1, 0, 0, -1), lambda a: a[::-1, ::-1]),
        ((0, -1, 1, 0), lambda a: np.rot90(a, 1)),
    ],
)
def test_rotation(tmp_path: Path, matrix: tuple[int, ...], seen: Callable[[np.ndarray], np.ndarray]) -> None:
    corner = np.full((32, 48, 3), 40, np.uint8)
    corner[:16, :16] = 220
    path = store(tmp_path / "phone.mp4", 2, picture=lambda index: corner)
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 4 + 20 + 16  # version and flags, times and numbers, layer to volume
    a, b, c, d = (value << 16 for value in matrix)
    for index, value in enumerate((a, b, 0, c, d, 0)):
        content[place + 4 * index : place + 4 * index + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(content)
    found = read_video(path).frames[0].permute(1, 2, 0).numpy().astype(int)
    assert found.shape == seen(corner).shape and np.abs(found - seen(corner)).max() < 25


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    def wide(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)

    assert read_video(store(tmp_path / "v.mp4", 2, prepare=wide)).frames.shape == (2, 3, 32, 96)


def test_size_is_resize_and_crop_of_each_frame(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = store(tmp_path / "v.mp4", 3, picture=lambda index: rng.integers(0, 256, (32, 48, 3), np.uint8))
    whole = read_video(path).frames
    small = read_video(path, size=(10, 14)).frames
    expected = [np.asarray(resize_and_crop(Image.fromarray(f.permute(1, 2, 0).numpy()), (10, 14))) for f in whole]
    assert np.array_equal(small.permute(0, 2, 3, 1).numpy(), np.stack(expected))


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animations_with_delays(tmp_path: Path, suffix: str) -> None:
    delays = [100, 300, 50, 250]
    pictures = [Image.fromarray(grey(index)) for index in range(4)]
    path = tmp_path / f"v{suffix}"
    options = {"lossless": True} if suffix == ".webp" else {}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=delays, loop=0, **options)
    edges = np.cumsum([0, *delays])
    expected = [bisect.bisect_right(edges, 50 * k) - 1 for k in range(14)]
    assert numbers(read_video(path, fps=20).frames) == expected
    assert numbers(read_video(path).frames) == [0, 1, 2, 3]
    assert read_video(path).fps == pytest.approx(4 / 0.7)


def test_transparent_animation_is_over_white(tmp_path: Path) -> None:
    pictures = [Image.new("RGBA", (8, 8), (200, 0, 0, alpha)) for alpha in (255, 0)]
    pictures[0].save(tmp_path / "v.png", save_all=True, append_images=pictures[1:], duration=100, blend=0)
    assert read_video(tmp_path / "v.png").frames[:, :, 0, 0].tolist() == [[200, 0, 0], [255, 255, 255]]


def test_folder_of_pictures_in_natural_order(tmp_path: Path) -> None:
    for index in range(12):
        Image.fromarray(grey(index)).save(tmp_path / f"f{index}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / ".hidden.png").write_bytes(b"")
    clip = read_video(tmp_path)
    assert numbers(clip.frames) == list(range(12)) and clip.fps == 8
    clip = read_video(tmp_path, fps=30, frames=5)
    assert numbers(clip.frames) == [0, 1, 2, 3, 4] and clip.fps == 30
    Image.fromarray(grey(3, 16, 16)).save(tmp_path / "f3.png")
    assert "differ in size" in sentence(lambda: read_video(tmp_path))
    assert numbers(read_video(tmp_path, size=(8, 8)).frames) == list(range(12))


# Reading: what goes wrong


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("I am no video.\n" * 50)
    (tmp_path / "text.txt").write_text("I am no video.\n" * 50)
    (tmp_path / "folder").mkdir()
    Image.fromarray(grey(0)).save(tmp_path / "still.png")
    Image.fromarray(grey(0)).save(tmp_path / "still.mp4", "JPEG")
    for name, says in (
        ("missing.mp4", "There is no video at"),
        ("empty.mp4", "empty"),
        ("text.mp4", "not a video that can be read"),
        ("text.txt", "not a video that can be read"),
        ("folder", "holds no pictures"),
        ("still.png", "single picture"),
        ("still.mp4", "single picture"),
    ):
        message = sentence(lambda name=name: read_video(tmp_path / name))
        assert says in message and name in message


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert "only sound" in sentence(lambda: read_video(tmp_path / "sound.mp4"))


def noisy(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (48, 64, 3), np.uint8)


def noise_video(count: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([noisy(index) for index in range(count)])).permute(0, 3, 1, 2)


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_cut_off_in_the_middle(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"v{suffix}", noise_video(30), 10)
    whole = read_video(path, frames=6).frames
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = sentence(lambda: read_video(path))
    assert "cut off" in message or "damaged" in message
    if suffix != ".webp":  # its decoder wants the whole file
        assert torch.equal(read_video(path, frames=6).frames, whole)  # the part before is still good


def test_index_cut_off(tmp_path: Path) -> None:
    path = store(tmp_path / "v.mp4", 30, picture=noisy)  # the index at the end is gone
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "not a video that can be read" in sentence(lambda: read_video(path, frames=2))


def test_damaged_picture_in_a_folder(tmp_path: Path) -> None:
    write_video(tmp_path / "v", torch.zeros(3, 3, 64, 64), 8)
    broken = tmp_path / "v" / "frame_00001.png"
    broken.write_bytes(broken.read_bytes()[:60])
    assert "frame_00001.png is damaged" in sentence(lambda: read_video(tmp_path / "v"))


def test_too_short(tmp_path: Path) -> None:
    path = store(tmp_path / "v.mp4", 8, fps=8)
    message = sentence(lambda: read_video(path, fps=4, frames=16))
    assert "4 frames at 4 fps" in message and "16 were asked for" in message
    assert numbers(read_video(path, fps=4, frames=6, hold_last=True).frames) == [0, 2, 4, 6, 6, 6]


def test_memory_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store(tmp_path / "v.mp4", 30)
    monkeypatch.setattr(video_module, "MEMORY_LIMIT", 20 * 32 * 48 * 3)
    assert len(read_video(path, frames=20)) == 20
    assert "does not fit into memory" in sentence(lambda: read_video(path))


@pytest.mark.parametrize("bad", [{"fps": 0}, {"fps": math.nan}, {"frames": 0}, {"start": -1}, {"size": (0, 3)}])
def test_impossible_questions(tmp_path: Path, bad: dict[str, float]) -> None:
    path = store(tmp_path / "v.mp4", 2)
    sentence(lambda: read_video(path, **bad))  # type: ignore[arg-type]


# Writing


def colours(count: int = 6, height: int = 48, width: int = 64) -> torch.Tensor:
    """Slow gradients with a moving soft spot, (F, 3, H, W) uint8."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    frames = []
    for k in range(count):
        spot = torch.exp(-20 * ((x - 0.2 - 0.1 * k) ** 2 + (y - 0.5) ** 2))
        frames.append(torch.stack([spot.maximum(x * 0.8), y * (1 - spot), 0.3 + 0.5 * x * y]))
    return (torch.stack(frames) * 255).round().to(torch.uint8)


@pytest.mark.parametrize(("suffix", "error"), [(".mp4", 2.0), (".gif", 6.0), (".webp", 2.5), ("", 0.0)])
def test_round_trip(tmp_path: Path, suffix: str, error: float) -> None:
    frames = colours()
    path = write_video(tmp_path / "new" / f"v{suffix}", frames, 12.5)
    clip = read_video(path)
    assert clip.fps == pytest.approx(12.5)
    assert clip.frames.shape == frames.shape
    assert (clip.frames.float() - frames.float()).abs().mean() <= error
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("fps", [3, 8, 24000 / 1001, 30])
def test_rate_is_kept(tmp_path: Path, suffix: str, fps: float) -> None:
    path = write_video(tmp_path / f"v{suffix}", noise_video(31), fps)
    # GIF delays are hundredths of a second: exact over the whole, rounded for each frame
    assert read_video(path).fps == pytest.approx(fps, rel=0.01 if suffix == ".gif" else 1e-3)
    assert len(read_video(path, fps=fps)) == 31


def test_mp4_is_what_browsers_play(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", colours(), 8)
    with av.open(str(path)) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
        assert (codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range) == (1, 1, 1, 1)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_mp4_keeps_colours(tmp_path: Path) -> None:
    saturated = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [90, 160, 40]])
    frames = saturated[:, :, None, None].expand(-1, -1, 32, 32).to(torch.uint8)
    found = read_video(write_video(tmp_path / "v.mp4", frames, 8)).frames
    assert (found.float().mean((2, 3)) - saturated).abs().max() < 4  # BT.601 for BT.709 would be off by 20 and more


def test_odd_sizes_repeat_the_edge(tmp_path: Path) -> None:
    frames = colours(3, 47, 33)
    found = read_video(write_video(tmp_path / "v.mp4", frames, 8)).frames
    assert found.shape == (3, 3, 48, 34)
    assert (found[..., :47, :33].float() - frames.float()).abs().mean() < 3
    assert (found[..., 47, :].float() - found[..., 46, :].float()).abs().mean() < 6
    one = read_video(write_video(tmp_path / "one.mp4", torch.full((1, 3, 1, 1), 128, dtype=torch.uint8), 8)).frames
    assert one.shape == (1, 3, 2, 2) and (one.float() - 128).abs().max() < 4


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_animations_repeat_for_ever(tmp_path: Path, suffix: str) -> None:
    with Image.open(write_video(tmp_path / f"v{suffix}", colours(), 8)) as image:
        assert image.info["loop"] == 0 and image.n_frames == 6


def test_last_delay_of_a_gif(tmp_path: Path) -> None:
    with Image.open(write_video(tmp_path / "v.gif", colours(8), 8)) as image:
        delays = []
        for index in range(8):
            image.seek(index)
            delays.append(image.info["duration"])
    assert sum(delays) == 1000 and max(delays) - min(delays) <= 10


def test_folder_records_its_rate(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v", colours(), 12)
    assert sorted(entry.name for entry in path.iterdir()) == [f"frame_{k:05d}.png" for k in range(6)]
    assert read_video(path).fps == 12
    assert len(read_video(path, fps=6)) == 3


@pytest.mark.parametrize("kind", ["float", "half", "pil"])
def test_kinds_of_frames(tmp_path: Path, kind: str) -> None:
    frames = colours()
    given = {
        "float": frames / 255,
        "half": (frames / 255).half(),
        "pil": [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames],
    }[kind]
    found = read_video(write_video(tmp_path / "v", given, 8)).frames  # type: ignore[arg-type]
    assert torch.equal(found, frames)


def test_upscale(tmp_path: Path) -> None:
    frames = colours()
    found = read_video(write_video(tmp_path / "n", frames, 8, upscale=3, upscale_filter="nearest")).frames
    assert torch.equal(found, frames.repeat_interleave(3, 2).repeat_interleave(3, 3))
    found = read_video(write_video(tmp_path / "l", frames, 8, upscale=4)).frames
    assert found.shape == (6, 3, 192, 256)
    shrunk = torch.nn.functional.avg_pool2d(found.float(), 4)
    assert (shrunk - frames.float()).abs().mean() < 2
    assert not torch.equal(found, frames.repeat_interleave(4, 2).repeat_interleave(4, 3))


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        (torch.zeros(3, 4, 4), "(3, 4, 4)"),
        (torch.zeros(0, 3, 4, 4), "at least one frame"),
        (torch.zeros(2, 4, 4, 4), "(F, 3, H, W)"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.int64), "int64"),
        (torch.full((2, 3, 4, 4), math.nan), "[0, 1]"),
        (torch.linspace(-1, 1, 96).reshape(2, 3, 4, 4), "[-1, 1]"),
        ([], "at least one"),
        ([Image.new("RGB", (4, 4)), Image.new("RGB", (4, 6))], "of one size"),
    ],
)
def test_frames_that_are_no_video(tmp_path: Path, frames: object, says: str) -> None:
    assert says in sentence(lambda: write_video(tmp_path / "v.mp4", frames, 8))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_impossible_wishes(tmp_path: Path) -> None:
    frames = colours(2)
    assert ".mp4, .gif, .webp or into a folder" in sentence(lambda: write_video(tmp_path / "v.avi", frames, 8))
    for fps in (0, -1, math.nan, math.inf):
        assert "fps" in sentence(lambda fps=fps: write_video(tmp_path / "v.mp4", frames, fps))
    assert "50 fps" in sentence(lambda: write_video(tmp_path / "v.gif", frames, 60))
    assert "upscale" in sentence(lambda: write_video(tmp_path / "v.mp4", frames, 8, upscale=0))
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    frames = colours(2)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("mine")
    (tmp_path / "v.mp4").mkdir()
    for name in ("file/v.mp4", "file/sub/v.gif", "file/v", "file", "folder", "v.mp4"):
        assert name in sentence(lambda name=name: write_video(tmp_path / name, frames, 8))
    if Path("/proc/self").exists():
        assert "cannot be written" in sentence(lambda: write_video("/proc/v.mp4", frames, 8))
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["file", "folder", "thesis.tex", "v.mp4"]


@contextmanager
def little_space(size: int) -> Iterator[None]:
    """Files may grow to `size` bytes: the write that goes beyond fails for real, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("size", [0, 700, 4096])
def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, suffix: str, size: int) -> None:
    path = write_video(tmp_path / f"v{suffix}", colours(2, 8, 8), 8)
    before = read_video(path).frames
    with little_space(size):
        message = sentence(lambda: write_video(path, noise_video(4), 8))
    assert "cannot be written" in message and str(path) in message
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert torch.equal(read_video(path).frames, before)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_interruption_leaves_nothing(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = Image.fromarray

    def interrupted(*arguments: object, **options: object) -> Image.Image:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(video_module.Image, "fromarray", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / f"v{suffix}", colours(), 8)
    assert not os.listdir(tmp_path)


def test_a_shorter_folder_leaves_no_old_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "v", colours(6), 8)
    write_video(tmp_path / "v", colours(2), 8)
    assert len(read_video(tmp_path / "v")) == 2 and len(list(tmp_path.iterdir())) == 1


# Side by side


def test_side_by_side_shows_each_clip_where_it_belongs() -> None:
    clips = [colours(4), colours(4).flip(0), colours(1)]
    page = side_by_side(clips, ["plain", "backwards", "image"], gap=10, panel=48)
    assert page.dtype == torch.uint8 and len(page) == 4 and page.shape[2] % 2 == page.shape[3] % 2 == 0
    assert page.shape[3] == 10 + 3 * (64 + 10)
    for index, clip in enumerate(clips):
        left = 10 + index * 74
        shown = page[:, :, 10:58, left : left + 64]
        assert torch.equal(shown, clip.expand(4, -1, -1, -1) if len(clip) == 1 else clip)
        caption = page[0, :, 58:-4, left : left + 64].float()
        assert caption.min() < 100 and caption.max() > 240  # dark letters on light paper
    assert torch.equal(page[:, :, :10], page[:1, :, :10].expand(4, -1, -1, -1)) and page[:, :, :10].min() > 240


def test_small_clips_are_enlarged_and_wrapped() -> None:
    page = side_by_side([colours(2, 32, 32)] * 6, list("abcdef"), panel=100)
    assert page.shape[3] >= 3 * 128 and page.shape[3] < 4 * 128  # 6 clips: rows of 3, each enlarged 4 times


def test_captions_that_do_not_fit_are_cut() -> None:
    page = side_by_side([colours(1)] * 2, ["far too long a caption for this small panel", "b"], gap=10, panel=48)
    assert (page[0, :, 58:, :10] > 240).all() and (page[0, :, 58:, 74:84] > 240).all()  # margins stay clean


def test_side_by_side_mistakes() -> None:
    assert "2 clips and 1 labels" in sentence(lambda: side_by_side([colours()] * 2, ["a"]))
    assert "agree in size" in sentence(lambda: side_by_side([colours(3), colours(2)], ["a", "b"]))
    assert "agree in size" in sentence(lambda: side_by_side([colours(3), colours(3, 20, 20)], ["a", "b"]))


def test_contact_sheet_shows_first_and_last_frame() -> None:
    frames = torch.from_numpy(np.stack([grey(k, 40, 40) for k in range(9)])).permute(0, 3, 1, 2)
    sheet = np.asarray(contact_sheet([frames, frames.flip(0)], ["forward", "back"], frames=3, panel=40, gap=6)).astype(
        int
    )
    places = [sheet.shape[1] - 18 - 20 - 46 * k for k in (2, 1, 0)]
    rows = [sheet.shape[0] - 18 - 20 - 46, sheet.shape[0] - 18 - 20]
    assert [[int(sheet[y, x, 0] - 20) // 4 for x in places] for y in rows] == [[0, 4, 8], [8, 4, 0]]
    assert "1 rows and 2 labels" in sentence(lambda: contact_sheet([frames], ["a", "b"]))


if CLIPS.is_dir():

    @pytest.mark.parametrize("path", sorted(CLIPS.glob("*.mp4")), ids=lambda path: path.stem)
    def test_real_clip(path: Path, tmp_path: Path) -> None:
        clip = read_video(path, fps=8, frames=4, size=(64, 96))
        assert clip.frames.shape == (4, 3, 64, 96) and clip.frames.float().std() > 10
        later = read_video(path, fps=8, frames=3, size=(64, 96), start=1 / 8)
        assert torch.equal(later.frames, clip.frames[1:])
        sought = read_video(path, frames=1, start=1.2, size=(64, 96)).frames  # by a seek ...
        walked = read_video(path, fps=2.5, frames=4, size=(64, 96)).frames  # ... and by decoding everything before
        assert torch.equal(sought[0], walked[3])
        back = read_video(write_video(tmp_path / "v.mp4", clip.frames, 8))
        assert (back.frames.float() - clip.frames.float()).abs().mean() < 5  # at this size half of it is chroma
        assert read_image(write_video(tmp_path / "v", clip.frames, 8) / "frame_00000.png").size == (96, 64)


def test_the_same_frames_give_the_same_file(tmp_path):
    """At 480 pixels x264 with macroblock trees does not: about one file in ten differs."""
    frames = torch.rand(4, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    files = {write_video(tmp_path / f"{i}.mp4", frames, fps=8, upscale=5).read_bytes() for i in range(25)}
    assert len(files) == 1

"""Pictures of every odd kind, made on the fly, against independent formulas."""

import io
import struct
import time
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from unstill.data import read_image, read_video, resize_and_crop
from unstill.data.images import to_rgb
from unstill.errors import UnstillError


CLIPS = Path(__file__).parents[3] / "shared" / "clips"


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def pixels(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


# How a camera stores an upright picture, per EXIF orientation (TIFF 6.0 / EXIF 2.3: the place of row 0, column 0).
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[::-1],
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[:, ::-1],
}


@pytest.mark.parametrize("orientation", STORED)
def test_orientation_of_the_camera(tmp_path: Path, orientation: int) -> None:
    upright = noise(5, 9)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "turned.png", np.ascontiguousarray(STORED[orientation](upright)), exif=exif)
    assert np.array_equal(pixels(path), upright)


def test_transparency_is_put_over_white(tmp_path: Path) -> None:
    rgba = noise(8, 8, 4)
    colour, alpha = rgba[..., :3].astype(float), rgba[..., 3:] / 255
    assert np.abs(pixels(save(tmp_path / "rgba.png", rgba)) - (alpha * colour + (1 - alpha) * 255)).max() <= 1
    grey = rgba[..., :2]
    path = tmp_path / "la.png"
    Image.merge("LA", [Image.fromarray(np.ascontiguousarray(grey[..., i])) for i in range(2)]).save(path)
    alpha = grey[..., 1:] / 255
    assert np.abs(pixels(path) - (alpha * grey[..., :1] + (1 - alpha) * 255)).max() <= 1


def test_transparent_palette_entry_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "palette.png", transparency=0)
    assert pixels(tmp_path / "palette.png").tolist() == [[[255, 255, 255], [200, 100, 50]]]
    image.save(tmp_path / "opaque.png")
    assert pixels(tmp_path / "opaque.png").tolist() == [[[10, 20, 30], [200, 100, 50]]]


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    found = pixels(save(tmp_path / f"deep{suffix}", values))
    assert np.array_equal(found[..., 0], np.arange(256).reshape(16, 16))
    assert np.array_equal(found[..., 0], found[..., 2])


def test_grey_bilevel_and_float(tmp_path: Path) -> None:
    grey = noise(4, 6, 1)[..., 0]
    assert np.array_equal(pixels(save(tmp_path / "grey.png", grey)), np.repeat(grey[..., None], 3, 2))
    Image.fromarray(grey > 127).save(tmp_path / "bilevel.png")
    assert np.array_equal(pixels(tmp_path / "bilevel.png")[..., 1], 255 * (grey > 127))
    found = pixels(save(tmp_path / "float.tiff", np.float32([[0.0, 0.5, 1.0, np.nan, 7.0]])))
    assert found[0, :, 0].tolist() == [0, 128, 255, 0, 255]


def test_cmyk_without_profile(tmp_path: Path) -> None:
    cmyk = np.zeros((8, 32, 4), np.uint8)
    cmyk[:, :8, 0] = cmyk[:, 8:16, 1] = cmyk[:, 16:24, 2] = cmyk[:, 24:, 3] = 255
    Image.fromarray(cmyk, mode="CMYK").save(tmp_path / "ink.jpg", quality=100)
    found = pixels(tmp_path / "ink.jpg")[4, 4::8]
    assert np.abs(found - [[0, 255, 255], [255, 0, 255], [255, 255, 0], [0, 0, 0]]).max() <= 3


def icc(space: bytes, lab_of_corner: list[tuple[int, int, int]]) -> bytes:
    """A printer profile (ICC.1:2001-04, lut8Type) that gives an 8-bit Lab colour for each corner of the ink cube."""
    inks = {b"CMYK": 4, b"RGB ": 3}[space]
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    ramp = bytes(range(256))
    clut = b"".join(bytes(lab) for lab in lab_of_corner)
    lut = b"mft1" + bytes(4) + bytes([inks, 3, 2, 0]) + identity + ramp * inks + clut + ramp * 3
    text = b"test ink\0"
    desc = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(4 + 4 + 2 + 1 + 67)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    table, body, offset = b"", b"", 128 + 4 + 12 * 3
    for name, data in ((b"desc", desc), (b"wtpt", white), (b"A2B0", lut)):
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", offset + len(body), b"none", 0x02400000, b"prtr", space, b"Lab ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    return head + struct.pack(">I", 3) + table + body


def test_embedded_profile_decides_the_colour_of_cmyk(tmp_path: Path) -> None:
    # Full cyan is a mid grey on this strange press (L* = 53.6 is sRGB 128), everything else is white.
    corners = [(255, 128, 128)] * 16
    corners[0b1000] = (137, 128, 128)
    cmyk = np.zeros((8, 16, 4), np.uint8)
    cmyk[:, 8:, 0] = 255
    Image.fromarray(cmyk, mode="CMYK").save(tmp_path / "ink.jpg", quality=100, icc_profile=icc(b"CMYK", corners))
    found = pixels(tmp_path / "ink.jpg")
    assert np.abs(found[4, 4] - 255).max() <= 2
    assert np.abs(found[4, 12] - 128).max() <= 3


def test_embedded_profile_of_rgb_and_a_broken_one(tmp_path: Path) -> None:
    colours = noise(4, 4)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(pixels(save(tmp_path / "srgb.png", colours, icc_profile=srgb)), colours)
    assert np.array_equal(pixels(save(tmp_path / "broken.png", colours, icc_profile=b"no profile")), colours)
    corners = [(255, 128, 128)] * 8
    corners[0b100] = (0, 128, 128)  # red is black on this device
    path = save(tmp_path / "odd.png", np.uint8([[[0, 0, 0], [255, 0, 0]]]), icc_profile=icc(b"RGB ", corners))
    assert np.abs(pixels(path) - [[[255] * 3, [0] * 3]]).max() <= 2


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_first_frame_of_an_animation(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(tmp_path / f"moving{suffix}", save_all=True, append_images=frames[1:], duration=100, **options)
    assert (pixels(tmp_path / f"moving{suffix}") == [255, 0, 0]).all()


def test_large_jpeg_is_decoded_at_a_fraction(tmp_path: Path) -> None:
    down = Image.linear_gradient("L").resize((6000, 4000))
    path = tmp_path / "large.jpg"
    Image.merge("RGB", [down, down.transpose(Image.Transpose.ROTATE_180), down]).save(path, quality=90)
    started = time.perf_counter()
    whole = read_image(path)
    middle = time.perf_counter()
    small = read_image(path, size=(64, 64))
    fast, slow = time.perf_counter() - middle, middle - started
    assert whole.size == (6000, 4000) and small.size == (64, 64)
    assert fast < slow
    expected = np.asarray(resize_and_crop(whole, (64, 64))).astype(int)
    assert np.abs(np.asarray(small).astype(int) - expected).max() <= 4


def png_claiming(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")


def a_video(path: Path) -> bytes:
    with av.open(str(path.with_name("video.mp4")), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width = stream.height = 16
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise(16, 16), format="rgb24")))
        container.mux(stream.encode())
    return path.with_name("video.mp4").read_bytes()


def a_jpeg(path: Path) -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.png", None, "There is no picture"),
        ("empty.png", lambda path: b"", "empty"),
        ("text.jpg", lambda path: b"hello, I am no picture\n" * 9, "not a picture that can be read"),
        ("script.jpg", lambda path: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        ("cut.jpg", lambda path: a_jpeg(path)[:900], "is damaged"),
        ("cut.png", lambda path: png_claiming(100, 100), "is damaged"),
        ("bomb.png", lambda path: png_claiming(30000, 30000), "160 megapixels"),
        ("clip.png", a_video, "is a video"),
        ("phone.heic", lambda path: b"\0\0\0\x18ftypheic" + bytes(40), "convert it to PNG or JPEG"),
    ],
)
def test_one_sentence_for_each_mistake(tmp_path: Path, name: str, content: object, says: str) -> None:
    path = tmp_path / name
    if callable(content):
        path.write_bytes(content(path))
    with pytest.raises(UnstillError) as caught:
        read_image(path)
    message = str(caught.value)
    assert says in message and str(path) in message
    assert "\n" not in message and message.endswith(".") and len(message) < len(str(path)) + 160


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(UnstillError, match="is a folder, not a picture"):
        read_image(tmp_path)


def test_crop_is_central_and_the_aspect_ratio_stays() -> None:
    # A linear ramp survives a Lanczos resize (to 0.01), so each pixel tells which place of the source it shows.
    x = np.broadcast_to(np.arange(250, dtype=np.float32), (100, 250)).copy()
    found = resize_and_crop(torch.from_numpy(x), (40, 40))
    expected = (250 - 100) / 2 + (np.arange(40) + 0.5) * 2.5 - 0.5  # the central 100 x 100, scaled by 2.5
    assert np.allclose(found.numpy()[:, 4:-4], expected[None, 4:-4], atol=0.01)
    y = np.broadcast_to(np.arange(90, dtype=np.float32)[:, None], (90, 30)).copy()
    found = resize_and_crop(torch.from_numpy(y), (10, 20))
    expected = (90 - 15) / 2 + (np.arange(10) + 0.5) * 1.5 - 0.5  # the central 15 x 30, scaled by 1.5
    assert np.allclose(found.numpy()[3:-3], expected[3:-3, None], atol=0.01)


def test_resize_is_antialiased_and_never_pads() -> None:
    board = ((np.indices((256, 256)).sum(0) % 2) * 255).astype(np.uint8)
    found = np.asarray(resize_and_crop(Image.fromarray(board), (32, 32))).astype(int)
    assert np.abs(found - 127.5).max() < 8
    white = np.full((37, 91, 3), 255, np.uint8)
    for size in ((64, 64), (7, 200), (200, 7), (1, 1)):
        found = np.asarray(resize_and_crop(Image.fromarray(white), size))
        assert found.shape == (*size, 3) and (found == 255).all()


def test_tiny_picture(tmp_path: Path) -> None:
    path = save(tmp_path / "tiny.png", noise(5, 3))
    assert read_image(path).size == (3, 5)
    assert read_image(path, size=(64, 48)).size == (48, 64)


def test_tensors_and_pictures_agree() -> None:
    frames = np.stack([80 + noise(30, 50, seed=i) // 3 for i in range(2)])  # no overshoot: 8-bit passes would clip it
    tensor = torch.from_numpy(frames).permute(0, 3, 1, 2)
    found = resize_and_crop(tensor, (16, 24))
    assert found.dtype == torch.uint8 and found.shape == (2, 3, 16, 24)
    for index in range(2):
        picture = np.asarray(resize_and_crop(Image.fromarray(frames[index]), (16, 24)))
        assert np.array_equal(found[index].permute(1, 2, 0).numpy(), picture)
    floats = resize_and_crop(tensor.double() / 255, (16, 24))
    assert floats.dtype == torch.float64
    assert (floats.clamp(0, 1) * 255 - found).abs().max() <= 1  # the 8-bit kernel rounds after each of its two passes
    assert resize_and_crop(tensor, (30, 50)) is tensor


@pytest.mark.parametrize("size", [(0, 4), (4,), (4.5, 4), (-1, 2)])
def test_impossible_sizes(size: tuple[int, ...]) -> None:
    with pytest.raises(UnstillError, match="A size is"):
        resize_and_crop(Image.new("RGB", (8, 8)), size)  # type: ignore[arg-type]


def test_integer_frames_are_refused() -> None:
    with pytest.raises(UnstillError, match="int64"):
        resize_and_crop(torch.zeros(3, 8, 8, dtype=torch.int64), (4, 4))


if CLIPS.is_dir():

    @pytest.mark.parametrize("clip", sorted(CLIPS.glob("*.mp4"))[:2], ids=lambda clip: clip.stem)
    def test_real_clip_is_no_picture(clip: Path) -> None:
        with pytest.raises(UnstillError, match="is a video"):
            read_image(clip)


@pytest.mark.parametrize("mode", ["1", "L", "P", "PA", "LA", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_strips_give_the_same_picture(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (37, 23, 4), np.uint8)
    if mode in ("I;16", "I", "F"):
        grey = values[..., 0].astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]) * 200
        image = Image.fromarray(grey / np.float32(51000) if mode == "F" else grey)
    else:
        image = Image.fromarray(values).convert("RGB" if mode in ("P", "PA") else "RGBA")
        image = image.convert("P").convert("PA") if mode == "PA" else image.convert(mode)
    assert image.mode == mode
    image.getexif()[0x0112] = 6
    whole = to_rgb(image)
    monkeypatch.setattr("unstill.data.images.STRIP", 100)
    assert whole.size == (37, 23) and np.array_equal(to_rgb(image), whole)


def test_the_declared_size_is_checked_before_decoding(tmp_path: Path) -> None:
    """A picture of a few kB can ask for gigabytes."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue", "white")]
    for name, size, says in (("bomb.gif", (13000, 13000), "53 megapixels in every frame"),):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        data = bytearray((tmp_path / name).read_bytes())
        data[6:10] = struct.pack("<HH", *size)
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UnstillError, match=says):
            read_image(tmp_path / name)
        with pytest.raises(UnstillError, match=says):
            read_video(tmp_path / name)
    for side in (13300, 12700):
        (tmp_path / "deep.png").write_bytes(png_claiming(side, side))
        with pytest.raises(UnstillError, match="more than 160 megapixels"):
            read_image(tmp_path / "deep.png")


def test_a_lack_of_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    def none_left(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("unstill.data.images.to_rgb", none_left)
    with pytest.raises(UnstillError, match="not enough memory"):
        read_image(tmp_path / "a.png")

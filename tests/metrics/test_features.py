"""Networks and proxies that turn videos into features: structure, preprocessing, loading, cache."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from unstill.errors import UnstillError
from unstill.metrics import C3D, I3D, ProxyFeatures, cached_features, frechet_distance
from unstill.metrics.c3d import C3DNetwork, preprocess_for_c3d, torch_names
from unstill.metrics.i3d import I3DNetwork, _Mixed, _pad_as_tensorflow, preprocess_for_i3d


pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # the public files are TorchScript


def clip(frames: int = 16, height: int = 40, width: int = 60, seed: int = 0) -> Tensor:
    return torch.randint(256, (frames, 3, height, width), generator=torch.Generator().manual_seed(seed)).byte()


@pytest.mark.parametrize(("size", "kernel", "stride"), [(16, 7, 2), (15, 7, 2), (9, 3, 2), (8, 2, 2), (7, 3, 1)])
def test_padding_is_tensorflows(size: int, kernel: int, stride: int) -> None:
    """SAME padding: ceil(size / stride) outputs, the window of the first as far right as the last's allows."""
    x = torch.arange(1.0, size + 1).reshape(1, 1, size, 1, 1)
    padded = _pad_as_tensorflow(x, (kernel, 1, 1), (stride, 1, 1)).flatten()
    windows = padded.unfold(0, kernel, stride)
    assert len(windows) == math.ceil(size / stride)
    before = int((padded.cumsum(0) == 0).sum())
    after = len(padded) - size - before
    assert after - before in (0, 1) and torch.equal(padded[before : before + size], x.flatten())
    # nothing is padded in vain: the last window ends with the padding
    assert (len(windows) - 1) * stride + kernel == len(padded)


def test_i3d_has_the_released_names_and_size() -> None:
    with torch.device("meta"):
        state = I3DNetwork().state_dict()
    assert sum(v.numel() for k, v in state.items() if k.endswith(("weight", "bias"))) == 12_697_264
    assert state["Conv3d_1a_7x7.conv3d.weight"].shape == (64, 3, 7, 7, 7)
    assert state["Mixed_4d.b1b.conv3d.weight"].shape == (256, 128, 3, 3, 3)
    assert state["Mixed_5c.b3b.bn.running_var"].shape == (128,)
    assert state["logits.conv3d.bias"].shape == (400,)


def test_inception_block_is_four_branches_side_by_side() -> None:
    torch.manual_seed(0)
    block = _Mixed(4, (1, 2, 3, 2, 4, 5)).eval()
    x = torch.rand(1, 4, 3, 5, 5)
    pooled = nn.functional.max_pool3d(x, 3, 1, padding=1)

    def unit(layer: nn.Module, z: Tensor) -> Tensor:
        convolved = nn.functional.conv3d(z, layer.conv3d.weight, padding=layer.conv3d.kernel_size[0] // 2)
        return (convolved / (1 + 1e-3) ** 0.5).relu()  # fresh batch norm in eval mode

    expected = torch.cat(
        [
            unit(block.b0, x),
            unit(block.b1b, unit(block.b1a, x)),
            unit(block.b2b, unit(block.b2a, x)),
            unit(block.b3b, pooled),
        ],
        1,
    )
    torch.testing.assert_close(block(x), expected)


def waves() -> Tensor:
    """Ten frames of moving waves at the network's own size, (3, 10, 224, 224) in [-1, 1]."""
    t, x = torch.arange(10.0)[:, None, None], torch.arange(224.0)
    y = x[:, None]
    channels = [torch.sin(0.05 * x + 0.3 * t), torch.cos(0.04 * y - 0.2 * t), torch.sin(0.02 * (x + y) + 0.1 * t)]
    return torch.stack([channel.expand(10, 224, 224) for channel in channels])


def test_i3d_matches_the_released_network(tmp_path: Path) -> None:
    """Seeded weights, loaded from a file as the released ones would be."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in I3DNetwork().state_dict().items()}
    state: dict[str, Tensor] = {}
    for key, shape in sorted(shapes.items()):
        if "num_batches" in key:
            state[key] = torch.tensor(0)
        elif "running_var" in key:
            state[key] = 0.75 + 0.5 * torch.rand(shape, generator=generator)
        elif len(shape) == 5:
            state[key] = torch.randn(shape, generator=generator) * (2 / shape[1:].numel()) ** 0.5
        else:
            state[key] = float(key.endswith("bn.weight")) + 0.1 * torch.randn(shape, generator=generator)
    torch.save(state, tmp_path / "i3d.pt")
    extractor = I3D.load(tmp_path / "i3d.pt")
    expected = load_file(Path(__file__).parents[1] / "golden" / "metrics" / "i3d.safetensors")["logits"]
    torch.testing.assert_close(extractor.network(waves()[None])[0], expected, rtol=1e-4, atol=1e-4)


def test_preprocessing_by_name() -> None:
    video = clip(height=100, width=301)
    stretched = nn.functional.interpolate(video.float(), (224, 224), mode="bilinear", align_corners=False)
    expected = (2 * stretched / 255 - 1).transpose(0, 1)
    torch.testing.assert_close(preprocess_for_i3d(video, "tats"), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(preprocess_for_i3d(video, "stylegan-v"), expected, rtol=0, atol=1e-5)
    scaled = nn.functional.interpolate(video.float() / 255, (224, 675), mode="bilinear", align_corners=False)
    expected = (scaled[:, :, :, 225 : 225 + 224].transpose(0, 1) - 0.5) * 2  # ceil(301 * 2.24) = 675, (675 - 224) // 2
    torch.testing.assert_close(preprocess_for_i3d(video, "videogpt"), expected, rtol=0, atol=1e-5)
    with pytest.raises(UnstillError, match="tats, videogpt, stylegan-v"):
        preprocess_for_i3d(video, "other")


class ScriptedI3D(nn.Module):
    def forward(self, x: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:
        assert not rescale and not resize and return_features
        return x.mean(dim=(2, 3, 4))


class ScriptedC3D(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert x.size(1) == 3 and x.size(2) == 16
        return x.float().mean(dim=(2, 3, 4)) / 255


def test_scripted_modules_are_told_apart_and_run(tmp_path: Path) -> None:
    torch.jit.script(ScriptedI3D()).save(tmp_path / "i3d_torchscript.pt")
    torch.jit.script(ScriptedC3D()).save(tmp_path / "c3d_ucf101.pt")
    video = clip()
    expected = preprocess_for_i3d(video, "tats").mean((1, 2, 3))
    torch.testing.assert_close(I3D.load(tmp_path / "i3d_torchscript.pt")(video), expected)
    torch.testing.assert_close(C3D.load(tmp_path / "c3d_ucf101.pt")(video), video.float().mean((0, 2, 3)) / 255)


def test_c3d_reads_the_released_names() -> None:
    layers = "conv1a conv2a conv3a conv3b conv4a conv4b conv5a conv5b fc6 fc7 fc8".split()
    released = {f"{layer}/{kind}": torch.empty(0) for layer in layers for kind in "Wb"}
    with torch.device("meta"):
        state = C3DNetwork().state_dict()
    assert torch_names(released).keys() == state.keys()
    assert state["fc6.weight"].shape == (4096, 512 * 4 * 4) and state["fc8.weight"].shape == (101, 4096)
    assert sum(value.numel() for value in state.values()) == 78_409_573


def test_c3d_pools_seven_to_four() -> None:
    """112 pixels and 16 frames leave 4 x 4 positions and one frame for the first dense layer: pooling rounds up."""
    with torch.device("meta"):
        network = C3DNetwork()
        shapes = []
        network.flatten.register_forward_pre_hook(lambda _module, inputs: shapes.append(tuple(inputs[0].shape)))
        assert network(torch.empty(2, 3, 16, 112, 112)).shape == (2, 101)
    assert shapes == [(2, 512, 1, 4, 4)]


def test_c3d_preprocessing() -> None:
    red = torch.zeros(16, 3, 50, 70, dtype=torch.uint8)
    red[:, 0] = 255
    mean = torch.zeros(3, 16, 128, 171)
    mean[:, :, 8:120, 8:120] = 5
    found = preprocess_for_c3d(red, mean)
    assert found.shape == (3, 16, 112, 112)
    torch.testing.assert_close(found[:, 0, 0, 0], torch.tensor([0.0, 0.0, 256.0]) - 5)  # blue first
    ramp = torch.arange(0, 250, 2, dtype=torch.uint8).expand(16, 3, 125, 125)  # corners stay corners
    columns = preprocess_for_c3d(ramp, mean)[0, 0, 0]
    expected = torch.linspace(0, 248, 112) * 256 / 255 - 5
    torch.testing.assert_close(columns, expected, rtol=0, atol=1e-3)


def drift(speed: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    a, b, c = torch.rand(3, 3, generator=generator)
    x = torch.arange(64.0)[None, None, None] - speed * torch.arange(8.0)[:, None, None, None]
    y = torch.arange(64.0)[None, None, :, None]
    wave = torch.sin(x * (0.1 + 0.2 * a[None, :, None, None]) + y * (0.1 + 0.2 * b[None, :, None, None]) + 6 * c[0])
    return 0.5 + 0.4 * wave


def test_proxy_distance_follows_motion_and_noise() -> None:
    extract = ProxyFeatures()

    def distance(frames_a: list[Tensor], frames_b: list[Tensor]) -> float:
        return frechet_distance(*(torch.stack([extract(v) for v in part]) for part in (frames_a, frames_b)))

    real = [drift(2.0, seed) for seed in range(12)]
    alike = [drift(2.0, seed) for seed in range(100, 112)]
    floor = distance(real, alike)
    frozen = [video[:1].repeat(8, 1, 1, 1) for video in alike]
    noisy = [
        (video + 0.3 * torch.randn(video.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
        for video in alike
    ]
    assert distance(real, real) == pytest.approx(0, abs=1e-9)
    assert distance(real, frozen) > 2 * floor and distance(real, noisy) > 2 * floor
    assert extract.name.startswith("proxy")


def test_proxy_weights_are_fixed() -> None:
    video = clip(frames=4)
    assert torch.equal(ProxyFeatures()(video), ProxyFeatures()(video))


def test_cache_knows_content_and_extractor(tmp_path: Path) -> None:
    class Counting:
        def __init__(self, name: str) -> None:
            self.name, self.calls = name, 0

        def __call__(self, video: Tensor) -> Tensor:
            self.calls += 1
            return video.float().mean((0, 2, 3))

    first, second = Counting("a"), Counting("b")
    video = clip()
    results = [cached_features(video, first, tmp_path / "cache") for _ in range(3)]
    assert first.calls == 1 and all(torch.equal(result, results[0]) for result in results)
    cached_features(video.clone(), first, tmp_path / "cache")
    assert first.calls == 1
    cached_features(clip(seed=1), first, tmp_path / "cache")
    cached_features(video, second, tmp_path / "cache")
    assert (first.calls, second.calls) == (2, 1)
    cached_features(video, first, None)
    assert first.calls == 3
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_wrong_files_and_short_videos_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    np.savez(tmp_path / "mean2.npz", mean=np.zeros((2, 2)))
    np.savez(tmp_path / "c3d.npz", **{"conv1a/W": np.zeros(1)})
    with pytest.raises(UnstillError, match="i3d_pretrained_400.pt"):
        I3D.load(tmp_path / "other.pt")
    with pytest.raises(UnstillError, match="no weights file"):
        I3D.load(tmp_path / "absent.pt")
    with pytest.raises(UnstillError, match="mean2.npz"):
        C3D.load(tmp_path / "c3d.npz")
    with pytest.raises(UnstillError, match="mean clip"):
        C3D.load(tmp_path / "c3d.npz", tmp_path / "mean2.npz")
    torch.jit.script(ScriptedI3D()).save(tmp_path / "script.pt")
    with pytest.raises(UnstillError, match="at least 10 frames"):
        I3D.load(tmp_path / "script.pt")(clip(frames=8))
    with pytest.raises(UnstillError, match="16 frames"):
        C3D.load(tmp_path / "script.pt")(clip(frames=8))

"""RAFT against the released network with seeded weights, in both sizes."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from unstill.errors import UnstillError
from unstill.metrics import RAFT, RaftFlow, motion_score, optical_flow


GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "metrics" / "raft.safetensors")
SIZES = pytest.mark.parametrize("size", ["small", "basic"])


def released_state(size: str) -> dict[str, Tensor]:
    """Seeded weights under the names of princeton-vl/RAFT, shortcuts' norms under both of their names."""
    ours = RAFT(size == "small").state_dict()
    keys = {key.replace("downsample.1", "norm3"): value for key, value in ours.items()}
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}
    for key in sorted(keys):
        shape = keys[key].shape
        if "num_batches_tracked" in key:
            state[key] = keys[key]
        elif "running_var" in key:
            state[key] = 0.75 + 0.5 * torch.rand(shape, generator=generator)
        elif len(shape) == 4:
            state[key] = torch.randn(shape, generator=generator) / shape[1:].numel() ** 0.5
        else:
            state[key] = (1.0 if key.endswith("weight") else 0.0) + 0.1 * torch.randn(shape, generator=generator)
    aliases = {key.replace("norm3", "downsample.1"): value for key, value in state.items() if "norm3" in key}
    return state | aliases


def torchvision_name(key: str) -> str:
    """The name torchvision gives to a parameter of the released network."""
    key = re.sub(r"^fnet\.", "feature_encoder.", re.sub(r"^cnet\.", "context_encoder.", key))
    key = re.sub(r"_encoder\.conv1\.", "_encoder.convnormrelu.0.", key)
    key = re.sub(r"_encoder\.norm1\.", "_encoder.convnormrelu.1.", key)
    key = re.sub(r"_encoder\.conv2\.", "_encoder.conv.", key)
    key = re.sub(r"(layer\d\.\d)\.conv(\d)\.", r"\1.convnormrelu\2.0.", key)
    key = re.sub(r"(layer\d\.\d)\.norm3\.", r"\1.downsample.1.", key)
    key = re.sub(r"(layer\d\.\d)\.norm(\d)\.", r"\1.convnormrelu\2.1.", key)
    key = re.sub(r"block\.encoder\.convc(\d)", r"block.motion_encoder.convcorr\1.0", key)
    key = re.sub(r"block\.encoder\.convf(\d)", r"block.motion_encoder.convflow\1.0", key)
    key = re.sub(r"block\.encoder\.conv\.", "block.motion_encoder.conv.0.", key)
    key = re.sub(r"block\.gru\.conv([zrq])(\d)", r"block.recurrent_block.convgru\2.conv\1", key)
    key = re.sub(r"block\.gru\.conv([zrq])\.", r"block.recurrent_block.convgru1.conv\1.", key)
    key = re.sub(r"^update_block\.mask\.0", "mask_predictor.convrelu.0", key)
    return re.sub(r"^update_block\.mask\.2", "mask_predictor.conv", key)


def pair() -> tuple[Tensor, Tensor]:
    return GOLDEN["frames"][:1].float(), GOLDEN["frames"][1:].float()


@SIZES
@pytest.mark.parametrize("low_memory", [False, True])
def test_flow_matches_the_released_network(size: str, low_memory: bool) -> None:
    model = RAFT.of(released_state(size), low_memory)
    with torch.no_grad():
        features = model.encode(pair()[0])
        low, full = model(*pair(), iterations=4)
    torch.testing.assert_close(features[:, :2], GOLDEN[f"{size}.features"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(low, GOLDEN[f"{size}.flow_low"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(full[:, :, ::3, ::3], GOLDEN[f"{size}.flow"], rtol=1e-4, atol=1e-3)


@SIZES
def test_number_of_parameters(size: str) -> None:
    expected = {"small": 990_162, "basic": 5_257_536}[size]
    assert sum(parameter.numel() for parameter in RAFT(size == "small").parameters()) == expected


@SIZES
def test_checkpoints_of_all_origins_give_the_same_network(size: str, tmp_path: Path) -> None:
    state = released_state(size)
    expected = RAFT.of(state).state_dict()
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "parallel.pth")
    renamed = {torchvision_name(key): value for key, value in state.items() if "downsample.1" not in key}
    save_file(renamed, tmp_path / "torchvision.safetensors")
    for name in ("parallel.pth", "torchvision.safetensors"):
        found = RAFT.load(tmp_path / name).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_batch_is_its_pairs() -> None:
    model = RAFT.of(released_state("small"))
    first, second = pair()
    with torch.no_grad():
        together = model(torch.cat([first, second]), torch.cat([second, first]), iterations=2)[1]
        alone = torch.cat([model(first, second, iterations=2)[1], model(second, first, iterations=2)[1]])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("shape", "padding"), [((90, 100), (2, 2, 3, 3)), ((121, 128), (0, 0, 3, 4))])
def test_engine_pads_by_the_border_and_cuts_back(shape: tuple[int, int], padding: tuple[int, ...]) -> None:
    model = RAFT.of(released_state("small"))
    video = GOLDEN["frames"][:, :, : shape[0], : shape[1]]
    left, _, top, _ = padding
    with torch.no_grad():
        padded = functional.pad(video.float(), padding, mode="replicate")
        expected = model(padded[:1], padded[1:], iterations=3)[1][0]
    (found,) = RaftFlow(model, iterations=3)(video)
    assert found.isfinite().all()
    torch.testing.assert_close(found, expected[:, top : top + shape[0], left : left + shape[1]], rtol=1e-4, atol=1e-4)


def test_engine_encodes_every_frame_once_and_agrees_with_pairs() -> None:
    model = RAFT.of(released_state("small"))
    video = torch.cat([GOLDEN["frames"], GOLDEN["frames"].flip(0)])
    calls = []
    model.fnet.register_forward_hook(lambda *_: calls.append(1))
    flows = list(RaftFlow(model, iterations=2)(video))
    assert len(calls) == len(video)
    with torch.no_grad():
        for number, found in enumerate(flows):
            expected = model(video[number, None].float(), video[number + 1, None].float(), iterations=2)[1][0]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_motion_score_by_weights_file(tmp_path: Path) -> None:
    save_file(released_state("small"), tmp_path / "raft.safetensors")
    (flow,) = optical_flow(GOLDEN["frames"], "raft", (128, 128), tmp_path / "raft.safetensors")
    score = motion_score(GOLDEN["frames"], "raft", (128, 128), weights=tmp_path / "raft.safetensors")
    assert score == pytest.approx(flow.norm(dim=0).mean().item(), rel=1e-5)


def test_wrong_weights_are_one_clear_sentence(tmp_path: Path) -> None:
    video = GOLDEN["frames"]
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("hello")
    torch.save([1, 2], tmp_path / "list.pth")
    cases = {
        "other.pth": "not of RAFT",
        "text.pth": "cannot be read",
        "list.pth": "state dict",
        "absent.pth": "no weights file",
    }
    for name, words in cases.items():
        with pytest.raises(UnstillError, match=words):
            motion_score(video, "raft", weights=tmp_path / name)
    with pytest.raises(UnstillError, match="needs weights"):
        motion_score(video, "raft")
    with pytest.raises(UnstillError, match="has no weights"):
        motion_score(video, "dis", weights=tmp_path / "other.pth")
    with pytest.raises(UnstillError, match="64 x 64"):
        next(RaftFlow(RAFT(small=True))(video[:, :, :40]))

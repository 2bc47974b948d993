"""Statistics in a folder and on the hub: the same numbers, a card that says what they are, and a check of the VAE."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

import unstill
from tests.pipelines import CASES, _made, pipeline, sample
from unstill.errors import UnstillError
from unstill.latent_statistics import LatentStatistics
from unstill.methods.parsing import parse_method
from unstill.statistics_hub import describe_vae


SVD = "StableVideoDiffusionPipeline"


@pytest.fixture
def statistics() -> LatentStatistics:
    """Of 5 clips with the VAE of the tiny Stable Video Diffusion, at another size than its calls."""
    vae = describe_vae(pipeline(SVD).vae)
    meta = {"model": {"name": "svd"}, "frames": 4, "size": {"height": 24, "width": 32}, "fps": 7, "vae": vae}
    draw = torch.Generator().manual_seed(0)
    return LatentStatistics(meta).update(torch.randn(5, 4, 4, 12, 16, generator=draw))


def test_a_folder_gives_back_the_same_numbers_and_its_card_says_of_what(statistics, tmp_path: Path) -> None:
    folder = statistics.save_pretrained(tmp_path / "mine", data="five clips, CC0")
    again = LatentStatistics.from_pretrained(folder)
    assert torch.equal(again.mean, statistics.mean) and again.count == 5 and again.meta == statistics.meta
    card = (folder / "README.md").read_text()
    for row in ("data set | five clips, CC0", "clips | 5", "model | svd", "AutoencoderKLTemporalDecoder", "32 x 24"):
        assert row in card
    statistics.save_pretrained(folder)  # its own files are replaced
    assert "| data set | not stated |" in (folder / "README.md").read_text()
    other = tmp_path / "theirs"
    other.mkdir()
    (other / "README.md").write_text("mine")
    with pytest.raises(UnstillError, match="README.md"):
        statistics.save_pretrained(other)
    assert (other / "README.md").read_text() == "mine" and len(list(other.iterdir())) == 1
    with pytest.raises(UnstillError, match="holds no statistics.safetensors"):
        LatentStatistics.from_pretrained(other)


def test_the_hub_gets_the_file_and_the_card(statistics, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, Any] = {}

    class Api:
        def __init__(self, token: str | None = None) -> None:
            sent["token"] = token

        def create_repo(self, name: str, private: bool, exist_ok: bool) -> str:
            sent.update(name=name, private=private)
            return f"https://huggingface.co/{name}"

        def upload_folder(self, repo_id: str, folder_path: str, commit_message: str) -> None:
            sent.update(files=sorted(path.name for path in Path(folder_path).iterdir()), repository=repo_id)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert statistics.push_to_hub("user/svd", private=True, token="t") == "https://huggingface.co/user/svd"
    assert sent == {
        "token": "t",
        "name": "user/svd",
        "private": True,
        "repository": "user/svd",
        "files": ["README.md", "statistics.safetensors"],
    }
    with pytest.raises(UnstillError, match="is no name on the hub"):
        statistics.push_to_hub("../svd")


def test_a_method_takes_them_from_the_hub_at_any_size(statistics, tmp_path, monkeypatch) -> None:
    folder = statistics.save_pretrained(tmp_path / "mine")
    asked = []

    def download(repository: str, file: str) -> str:
        asked.append((repository, file))
        return str(folder / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    method = parse_method("analytic_init:statistics=user/svd,sigma=100")
    assert asked == [("user/svd", "statistics.safetensors")] and method.resize
    pipe, case = pipeline(SVD), CASES[SVD]
    plain = sample(case, pipe)
    with unstill.apply(pipe, method):
        assert not torch.equal(sample(case, pipe), plain)

    def offline(repository: str, file: str) -> str:
        raise OSError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(UnstillError, match="user/none is no file here, .* could not be fetched"):
        parse_method("analytic_init:statistics=user/none,sigma=100")


def test_another_vae_is_refused_and_half_precision_is_the_same_one(statistics) -> None:
    method = unstill.AnalyticInit(statistics=statistics, sigma=100.0, resize=True)
    half = _made(CASES[SVD].build).to(torch.bfloat16)
    unstill.apply(half, method).remove()
    other = _made(CASES[SVD].build)
    with torch.no_grad():
        for parameter in other.vae.encoder.parameters():
            parameter.mul_(1.2)
    with pytest.raises(UnstillError, match=r"of latents of another VAE \(of svd\) than this pipeline's Autoencoder"):
        unstill.apply(other, method)
    statistics.meta.pop("vae")  # of files that do not say
    unstill.apply(other, method).remove()

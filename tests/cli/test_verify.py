"""`unstill verify` on tiny pipelines of diffusers: an image-to-video model with and one without a prompt."""

import json

import pytest


@pytest.mark.parametrize(("name", "prompt"), [("svd", None), ("wan", "boat")])
def test_a_pipeline_of_diffusers_is_verified(unstill, diffusers_models, tmp_path, name, prompt):
    small = ("--quick", "--steps", 2, "--frames", 5, "--size", "32x16", "--out", tmp_path / "out", "--json")
    result = unstill("verify", diffusers_models[name], *small, *(["--prompt", prompt] if prompt else []))
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["prompt"] == prompt and found["size"] == {"height": 16, "width": 32} and found["frames"] == 5
    assert [row["cells"] for row in found["rows"]] == [2, 2] and found["costs"].keys() == {"plain", "early-start"}
    assert (tmp_path / "out" / "verification.html").read_text().count("<video ") == 4

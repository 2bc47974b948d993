"""Rewards: what they prefer, what they return, and the networks among them against formulas."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch.nn.functional import conv2d, gelu, layer_norm, linear
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from unstill.data import synthetic_world
from unstill.data.captions import captions
from unstill.data.synthetic_drawing import SHAPES
from unstill.errors import UnstillError
from unstill.text_to_video import image_reward
from unstill.text_to_video.image_reward import DEVIATION, MEAN, ImageReward
from unstill.text_to_video.rewards import ClipReward, best, proxy, reward_named, score
from unstill.text_to_video.world_reward import SIDE, evidence, parse, world


def words(*known: str) -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(("<pad>", "<s>", "</s>", "<unk>", *known))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def pictures(count: int, size: tuple[int, int] = (40, 32)) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)) for _ in range(count)]


def test_the_proxy_prefers_sharp_and_colourful_pictures_of_any_size() -> None:
    noisy = pictures(1, (64, 64))[0].resize((256, 256), Image.Resampling.BICUBIC)
    blurred, grey = noisy.filter(ImageFilter.GaussianBlur(4)), noisy.convert("L").convert("RGB")
    sharp, soft, dull, flat = proxy("anything", [noisy, blurred, grey, Image.new("RGB", (8, 8), "grey")])
    assert sharp > soft > flat and sharp > dull > flat == 0
    large = noisy.resize((1024, 1024), Image.Resampling.BICUBIC)
    assert proxy("anything", [large])[0] == pytest.approx(sharp, rel=0.02)


def test_scores_of_every_kind_and_the_first_of_equals() -> None:
    for values in ([1, 2], (1.0, 2.0), np.array([1, 2]), torch.tensor([1.0, 2.0], requires_grad=True)):
        assert score(lambda prompt, images, values=values: values, "a", pictures(2)) == [1.0, 2.0]
    assert score(lambda prompt, images: torch.tensor(3.0), "a", pictures(1)) == [3.0]
    assert best([0.5, 2.0, 2.0]) == 1
    for wrong, message in ((float("inf"), "returned inf"), ("good", "returned str"), ([[1, 2]], "returned list")):
        with pytest.raises(UnstillError, match=message):
            score(lambda prompt, images, wrong=wrong: wrong, "a", pictures(1))


def test_a_clip_of_transformers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**tower, "vocab_size": 8, "max_position_embeddings": 16, "eos_token_id": 2},
        vision_config={**tower, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    model = CLIPModel(config).eval()
    model.save_pretrained(tmp_path / "clip")
    words("a", "boat").save_pretrained(tmp_path / "words")
    reward = ClipReward.load(str(tmp_path / "clip"), tokenizer=str(tmp_path / "words"))
    images = pictures(3, (32, 32))
    pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 for image in images])
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    ids = torch.tensor([[4, 5]])
    with torch.no_grad():
        expected = model(input_ids=ids, pixel_values=(pixels - mean) / deviation).logits_per_image[:, 0]
    torch.testing.assert_close(reward("a boat", images), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(UnstillError, match="could not be loaded by transformers"):
        reward_named(f"clip:{tmp_path / 'nothing'}")("cpu")


WIDTH, SEEN, LAYERS = 128, 64, 2
SMALL = {"width": WIDTH, "seen": SEEN, "layers": (LAYERS, LAYERS), "inner": (96, 160)}
SMALL |= {"patches": 5, "words": (8, 40), "rank": (WIDTH, 32, 16, 8, 4, 1)}
# ViT-L/16 at 224 pixels, BERT-base with two more words.
RELEASED = {"width": 768, "seen": 1024, "layers": (24, 12), "inner": (4096, 3072)}
RELEASED |= {"patches": 197, "words": (30524, 512), "rank": (768, 1024, 128, 64, 16, 1)}


def blip_sizes(
    width: int,
    seen: int,
    layers: tuple[int, int],
    inner: tuple[int, int],
    patches: int,
    words: tuple[int, int],
    rank: tuple[int, ...],
) -> dict[str, tuple[int, ...]]:
    """Shapes of an ImageReward by the names of its released checkpoint."""
    sizes: dict[str, tuple[int, ...]] = {
        "blip.visual_encoder.cls_token": (1, 1, seen),
        "blip.visual_encoder.pos_embed": (1, patches, seen),
        "blip.visual_encoder.patch_embed.proj.weight": (seen, 3, 16, 16),
        "blip.visual_encoder.patch_embed.proj.bias": (seen,),
        "blip.text_encoder.embeddings.word_embeddings.weight": (words[0], width),
        "blip.text_encoder.embeddings.position_embeddings.weight": (words[1], width),
        "blip.text_proj.weight": (4, width),  # of BLIP's training, not used
    }

    def dense(name: str, *shape: int) -> None:
        sizes.update({f"{name}.weight": shape, f"{name}.bias": shape[:1]})

    dense("blip.visual_encoder.norm", seen)
    dense("blip.text_encoder.embeddings.LayerNorm", width)
    for i in range(layers[0]):
        block = f"blip.visual_encoder.blocks.{i}"
        dense(f"{block}.norm1", seen)
        dense(f"{block}.norm2", seen)
        dense(f"{block}.attn.qkv", 3 * seen, seen)
        dense(f"{block}.attn.proj", seen, seen)
        dense(f"{block}.mlp.fc1", inner[0], seen)
        dense(f"{block}.mlp.fc2", seen, inner[0])
    for i in range(layers[1]):
        layer = f"blip.text_encoder.encoder.layer.{i}"
        for part, source in (("attention", width), ("crossattention", seen)):
            dense(f"{layer}.{part}.self.query", width, width)
            dense(f"{layer}.{part}.self.key", width, source)
            dense(f"{layer}.{part}.self.value", width, source)
            dense(f"{layer}.{part}.output.dense", width, width)
            dense(f"{layer}.{part}.output.LayerNorm", width)
        dense(f"{layer}.intermediate.dense", inner[1], width)
        dense(f"{layer}.output.dense", width, inner[1])
        dense(f"{layer}.output.LayerNorm", width)
    for number, before, after in zip((0, 2, 4, 6, 7), rank[:-1], rank[1:], strict=True):
        dense(f"mlp.layers.{number}", after, before)
    return sizes


def blip_weights() -> dict[str, torch.Tensor]:
    """A small one."""
    draw = torch.Generator().manual_seed(0)
    weights = {name: 0.3 * torch.randn(shape, generator=draw) for name, shape in blip_sizes(**SMALL).items()}
    return {**weights, "blip.text_encoder.embeddings.position_ids": torch.arange(40)[None]}


def formula(w: dict[str, torch.Tensor], ids: torch.Tensor, mask: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """The network as its paper and BLIP's describe it, for one picture."""

    def affine(x: torch.Tensor, name: str) -> torch.Tensor:
        return linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(x: torch.Tensor, name: str, eps: float) -> torch.Tensor:
        return layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, allowed: torch.Tensor | None = None) -> torch.Tensor:
        q, k, v = (x.unflatten(-1, (-1, 64)).transpose(0, 1) for x in (q, k, v))  # (heads, L, 64)
        logits = q @ k.transpose(1, 2) / math.sqrt(64)
        if allowed is not None:
            logits = logits.masked_fill(~allowed, -math.inf)
        return (logits.softmax(-1) @ v).transpose(0, 1).flatten(1)

    name = "blip.visual_encoder"
    patches = conv2d(pixels, w[f"{name}.patch_embed.proj.weight"], w[f"{name}.patch_embed.proj.bias"], stride=16)
    x = torch.cat([w[f"{name}.cls_token"][0], patches.flatten(1).T]) + w[f"{name}.pos_embed"][0]
    for i in range(LAYERS):
        block = f"{name}.blocks.{i}"
        q, k, v = affine(norm(x, f"{block}.norm1", 1e-6), f"{block}.attn.qkv").chunk(3, -1)
        x = x + affine(attend(q, k, v), f"{block}.attn.proj")
        x = x + affine(gelu(affine(norm(x, f"{block}.norm2", 1e-6), f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
    seen = norm(x, f"{name}.norm", 1e-6)

    name = "blip.text_encoder"
    x = w[f"{name}.embeddings.word_embeddings.weight"][ids]
    x = x + w[f"{name}.embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x, f"{name}.embeddings.LayerNorm", 1e-12)
    for i in range(LAYERS):
        layer = f"{name}.encoder.layer.{i}"
        for part, source, allowed in (("attention", None, mask.bool()), ("crossattention", seen, None)):
            own = f"{layer}.{part}"
            keys = x if source is None else source
            q, k, v = (
                affine(x, f"{own}.self.query"),
                affine(keys, f"{own}.self.key"),
                affine(keys, f"{own}.self.value"),
            )
            x = norm(affine(attend(q, k, v, allowed), f"{own}.output.dense") + x, f"{own}.output.LayerNorm", 1e-12)
        inner = gelu(affine(x, f"{layer}.intermediate.dense"))
        x = norm(affine(inner, f"{layer}.output.dense") + x, f"{layer}.output.LayerNorm", 1e-12)
    value = x[0]
    for number in (0, 2, 4, 6, 7):
        value = affine(value, f"mlp.layers.{number}")
    return (value[0] - MEAN) / DEVIATION


def test_image_reward_is_its_formula_under_the_names_of_its_checkpoint(tmp_path: Path) -> None:
    weights = blip_weights()
    torch.save(weights, tmp_path / "ImageReward.pt")
    reward = ImageReward.load(tmp_path / "ImageReward.pt", tokenizer=words("a", "boat"))
    images = pictures(2, (48, 32))
    ids = torch.tensor([4, 5] + [0] * 33)
    expected = torch.stack([formula(weights, ids, ids > 0, reward.preprocess(image)) for image in images])
    torch.testing.assert_close(reward("a boat", images), expected, rtol=1e-4, atol=1e-4)
    assert not torch.equal(reward("boat", images), reward("a boat", images))
    # The shorter side is 32 already: the centre is cut out as it is.
    pixels = torch.from_numpy(np.array(images[0])[8:40]).permute(2, 0, 1) / 255
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    torch.testing.assert_close(reward.preprocess(images[0]) * 0.26862954, pixels - mean, rtol=0.05, atol=0.05)


def test_every_tensor_of_the_released_size_has_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        weights = {name: torch.empty(shape) for name, shape in blip_sizes(**RELEASED).items()}
        monkeypatch.setattr(image_reward, "read_weights", lambda path: weights)
        made = ImageReward.load("ImageReward.pt", tokenizer=words("a"), device="meta")
    parts = sum(p.numel() for part in (made.picture, made.text, made.rank) for p in part.parameters())
    assert parts == sum(one.numel() for one in weights.values()) - weights["blip.text_proj.weight"].numel()
    assert made.picture.config.image_size == 224
    assert (made.picture.config.num_attention_heads, made.text.config.num_attention_heads) == (16, 12)


def test_what_is_no_image_reward(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(UnstillError, match="is not a checkpoint of ImageReward"):
        ImageReward.load(tmp_path / "other.pt")
    weights = blip_weights()
    del weights["blip.visual_encoder.blocks.1.attn.qkv.weight"]
    torch.save(weights, tmp_path / "part.pt")
    with pytest.raises(UnstillError, match="is an incomplete checkpoint of ImageReward .*self_attn.qkv.weight"):
        ImageReward.load(tmp_path / "part.pt")
    torch.save(blip_weights(), tmp_path / "whole.pt")
    with pytest.raises(UnstillError, match="pass tokenizer="):
        ImageReward.load(tmp_path / "whole.pt", tokenizer=str(tmp_path))


def scenes(count: int, seed: int) -> tuple[list[Image.Image], list[str], synthetic_world.Scene]:
    generator = torch.Generator().manual_seed(seed)
    scene = synthetic_world.sample_scene(count, generator)
    motion = synthetic_world.sample_motion(scene, generator)
    frames = (synthetic_world.render(scene, motion, frames=1).video[:, 0] * 255).round().byte()
    sentences = captions(scene, motion)
    return [Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()) for frame in frames], sentences, scene


def test_captions_are_read() -> None:
    assert parse("a red ring and an orange star drifting left over green") == (
        [("red", "ring"), ("orange", "star")],
        "green",
    )
    assert parse("a blue disc resting over a picture") == ([("blue", "disc")], None)
    with pytest.raises(UnstillError, match="names none"):
        world("a boat on a lake", pictures(1))


def test_the_world_reward_prefers_the_picture_that_the_caption_is_of() -> None:
    images, told, _ = scenes(16, seed=3)
    named = [i for i in range(16) if parse(told[i])[0]]
    right = 0
    for i in named:
        others = [images[(i + step) % 16] for step in range(4)]
        right += best(world(told[i], others)) == 0
    assert right >= 0.85 * len(named) and len(named) > 8


def test_shapes_are_told_apart() -> None:
    images, _, scene = scenes(24, seed=4)
    seen, right = 0, 0
    for i, image in enumerate(images):
        if int(scene.present[i].sum()) == 1:
            pixels = torch.from_numpy(np.array(image.reduce(image.width // SIDE))).permute(2, 0, 1) / 255
            found = evidence(pixels, list(synthetic_world.COLOURS)[int(scene.colour[i, 0])])
            right += SHAPES[int(found.argmax())] == SHAPES[int(scene.shape[i, 0])]
            seen += 1
    assert seen >= 8 and right >= 0.8 * seen
    # Flat grey shows nothing, at any size.
    assert world("a red ring over green", [Image.new("RGB", (200, 100), "grey")]) == [pytest.approx(0, abs=1e-3)]

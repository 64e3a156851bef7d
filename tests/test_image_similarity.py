"""CLIP and LPIPS: on a tiny CLIP with random weights; without torchvision."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from swirl import image_similarity
from swirl.errors import InputError, MissingPartError

RNG = np.random.default_rng(5)
ONE, OTHER = (RNG.integers(0, 256, (24, 20, 3)).astype(np.uint8) for _ in range(2))


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory):
    """A folder with a whole CLIP, of both towers, that reads 16x16 pixels."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {**size, "image_size": 16, "patch_size": 8}
    config = CLIPConfig(text_config={**size, "vocab_size": 50}, vision_config=vision, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    edge = {"height": 16, "width": 16}
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=edge).save_pretrained(folder)
    return folder


def test_it_is_the_cosine_of_the_whole_models_embeddings(tiny_clip):
    model = CLIPModel.from_pretrained(tiny_clip).eval()
    pixels = CLIPImageProcessorPil.from_pretrained(tiny_clip)(
        [Image.fromarray(ONE), Image.fromarray(OTHER)], return_tensors="pt"
    ).pixel_values
    assert pixels.shape == (2, 3, 16, 16)
    with torch.no_grad():
        one, other = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
    expected = (one @ other / one.norm() / other.norm()).item()
    assert abs(expected) < 0.9999
    assert image_similarity.ClipSimilarity(tiny_clip, "cpu")(ONE, OTHER) == pytest.approx(expected, abs=1e-5)


def test_equal_frames_are_alike_and_noise_makes_them_less_so(tiny_clip):
    clip = image_similarity.ClipSimilarity(tiny_clip, "cpu")
    flat = np.full_like(ONE, 120)
    assert clip(ONE, ONE.copy()) == 1.0
    noisy = [np.clip(flat + RNG.integers(-n, n + 1, ONE.shape), 0, 255).astype(np.uint8) for n in (1, 120)]
    assert 1.0 > clip(noisy[0], flat) > clip(noisy[1], flat)


def test_rows_of_which_some_cannot_be_read(tiny_clip):
    clip, done = image_similarity.ClipSimilarity(tiny_clip, "cpu"), []
    predictions = [ONE, None, OTHER[:-1], OTHER]
    found = image_similarity.forward_values(clip, iter([ONE] * 4), iter(predictions), done.append)
    values, rows = found["image_clip_similarity"]
    assert values.tolist() == [1.0, 0.0, 0.0, clip(OTHER, ONE)] and rows.tolist() == [0, 1, 2, 3]
    assert sum(done) == 4
    assert image_similarity.forward_values(clip, [], []) == {}


def test_what_is_no_clip_is_refused(tiny_clip, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        image_similarity.ClipSimilarity(tmp_path / "nothing", "cpu")
    with pytest.raises(InputError, match="cannot load a CLIP model"):
        image_similarity.ClipSimilarity(tmp_path, "cpu")
    for file in ("config.json", "preprocessor_config.json"):
        (tmp_path / file).write_bytes((tiny_clip / file).read_bytes())
    weights = load_file(tiny_clip / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"no weights for visual_projection\.weight"):
        image_similarity.ClipSimilarity(tmp_path, "cpu")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InputError, match="cannot load a CLIP model"):
        image_similarity.ClipSimilarity(tmp_path, "cpu")


def test_lpips_says_what_it_needs(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(image_similarity, "find_spec", lambda name: None if name == "torchvision" else real(name))
    with pytest.raises(MissingPartError, match="pip install torchvision"):
        image_similarity.Lpips("cpu")


def test_lpips_refuses_what_its_network_cannot_read():
    with pytest.raises(InputError, match="a frame of 20x24 pixels; LPIPS needs 31 a side"):
        object.__new__(image_similarity.Lpips)(ONE, OTHER)  # before it looks at any weights


def test_an_unreadable_frame_is_as_far_as_can_be():
    class Distance:
        metric, worst = "image_lpips", image_similarity.Lpips.worst

        def __call__(self, frame, truth):
            return 0.25

    found = image_similarity.forward_values(Distance(), [ONE] * 3, [ONE, None, ONE[:-1]])
    assert found["image_lpips"][0].tolist() == [0.25, 1.0, 1.0]

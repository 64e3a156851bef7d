"""Image tokenizers of pretrained models, on small random instances saved here."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import AddedToken
from torch.nn import functional
from transformers import Emu3VQVAE, Emu3VQVAEConfig, JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

from swirl import images, imagetokens, models, prompts
from swirl.errors import InputError
from swirl.imagetokens import pretrained, vocabulary, vqgan

LEVELS, WIDTH, CODES = (1, 2, 2), 32, 50
"""Shape of the small VQGAN: three stages, so that a patch has 4 pixels."""


def convolution(tensors, name, inside, outside, side):
    tensors[f"{name}.weight"] = torch.randn(outside, inside, side, side) * (inside * side**2) ** -0.5
    tensors[f"{name}.bias"] = torch.randn(outside) * 0.1


def norm(tensors, name, width):
    tensors[f"{name}.weight"], tensors[f"{name}.bias"] = 1 + 0.1 * torch.randn(width), 0.1 * torch.randn(width)


def block(tensors, name, inside, outside):
    norm(tensors, f"{name}.norm1", inside)
    convolution(tensors, f"{name}.conv1", inside, outside, 3)
    norm(tensors, f"{name}.norm2", outside)
    convolution(tensors, f"{name}.conv2", outside, outside, 3)
    if inside != outside:
        convolution(tensors, f"{name}.nin_shortcut", inside, outside, 1)


def half(tensors, part, widths, ends):
    """The stages of the encoder (`down`) or of the decoder (`up`), and what is around them."""
    wide = widths[-1] if part == "encoder" else widths[0]
    convolution(tensors, f"{part}.conv_in", ends[0], widths[0], 3)
    for number, (inside, outside) in enumerate(zip([widths[0], *widths[:-1]], widths, strict=True)):
        last = number == len(widths) - 1
        level = f"down.{number}" if part == "encoder" else f"up.{len(widths) - 1 - number}"
        for count in range(1 if part == "encoder" else 2):
            block(tensors, f"{part}.{level}.block.{count}", outside if count else inside, outside)
        if not last:
            convolution(
                tensors, f"{part}.{level}.{'down' if part == 'encoder' else 'up'}sample.conv", *[outside] * 2, 3
            )
    for name in ("block_1", "block_2"):
        block(tensors, f"{part}.mid.{name}", wide, wide)
    norm(tensors, f"{part}.mid.attn_1.norm", wide)
    for name in ("q", "k", "v", "proj_out"):
        convolution(tensors, f"{part}.mid.attn_1.{name}", wide, wide, 1)
    norm(tensors, f"{part}.norm_out", widths[-1])
    convolution(tensors, f"{part}.conv_out", widths[-1], ends[1], 3)


@pytest.fixture(scope="module")
def tensors(one_thread):
    """A VQGAN's, by the names and in the order of stages of Chameleon's original file."""
    found, widths = {}, [WIDTH * level for level in LEVELS]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        half(found, "encoder", widths, (3, 32))
        half(found, "decoder", widths[::-1], (32, 3))
        convolution(found, "quant_conv", 32, 16, 1)
        convolution(found, "post_quant_conv", 16, 32, 1)
        found["quantize.embedding.weight"] = torch.randn(CODES, 16)
        found["loss.perceptual.weight"] = torch.ones(3)  # the original file has the loss as well
    return found


def reference(tensors, part, x):
    """The encoder or the decoder, written out from its definition."""

    def conv(name, x, **how):
        return functional.conv2d(x, tensors[f"{part}.{name}.weight"], tensors[f"{part}.{name}.bias"], **how)

    def normed(name, x):
        return functional.group_norm(x, 32, tensors[f"{part}.{name}.weight"], tensors[f"{part}.{name}.bias"], 1e-6)

    def residual(name, x):
        y = conv(f"{name}.conv1", functional.silu(normed(f"{name}.norm1", x)), padding=1)
        y = conv(f"{name}.conv2", functional.silu(normed(f"{name}.norm2", y)), padding=1)
        return y + (conv(f"{name}.nin_shortcut", x) if f"{part}.{name}.nin_shortcut.weight" in tensors else x)

    def middle(x):
        x = residual("mid.block_1", x)
        q, k, v = (conv(f"mid.attn_1.{name}", normed("mid.attn_1.norm", x)).flatten(2) for name in "qkv")
        weights = (q.transpose(1, 2) @ k * q.shape[1] ** -0.5).softmax(-1)
        x = x + conv("mid.attn_1.proj_out", (v @ weights.transpose(1, 2)).view(x.shape))
        return residual("mid.block_2", x)

    x = conv("conv_in", x, padding=1)
    if part == "encoder":
        for level in range(len(LEVELS)):
            x = residual(f"down.{level}.block.0", x)
            if level < len(LEVELS) - 1:
                x = conv(f"down.{level}.downsample.conv", functional.pad(x, (0, 1, 0, 1)), stride=2)
        x = middle(x)
    else:
        x = middle(x)
        for level in reversed(range(len(LEVELS))):
            x = residual(f"up.{level}.block.1", residual(f"up.{level}.block.0", x))
            if level:
                x = conv(f"up.{level}.upsample.conv", functional.interpolate(x, scale_factor=2.0), padding=1)
    return conv("conv_out", functional.silu(normed("norm_out", x)), padding=1)


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


@pytest.fixture(scope="module")
def vqgan_file(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("vqgan") / "vqgan.ckpt"
    torch.save({"state_dict": tensors, "epoch": 3}, path)
    return path


@pytest.fixture
def small(monkeypatch):
    """Images of 16 x 16 pixels in place of Chameleon's 512 x 512."""
    monkeypatch.setattr(vqgan, "CHAMELEON_SIZE", 16)


@pytest.fixture(scope="module")
def emu3(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emu3")
    shape = {"codebook_size": 64, "base_channels": 32, "channel_multiplier": [1, 2], "attn_resolutions": [1]}
    torch.manual_seed(0)
    Emu3VQVAE(Emu3VQVAEConfig(**shape, hidden_size=64, num_res_blocks=1)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def janus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("janus")
    shape = {"num_embeddings": 64, "base_channels": 32, "channel_multiplier": [1, 2], "latent_channels": 32}
    torch.manual_seed(0)
    JanusVQVAE(JanusVQVAEConfig(**shape, num_res_blocks=1, num_patches=4)).save_pretrained(folder)
    return folder


def test_chameleon_is_what_its_definition_says(tensors, vqgan_file, small):
    tokenizer, frame = pretrained.adapt("chameleon", vqgan_file, "cpu"), noise(16, 16)
    pixels = torch.from_numpy(np.array(frame)).permute(2, 0, 1)[None] / 127.5 - 1
    latents = functional.conv2d(
        reference(tensors, "encoder", pixels), tensors["quant_conv.weight"], tensors["quant_conv.bias"]
    )
    book = tensors["quantize.embedding.weight"]
    distances = (latents.movedim(1, -1)[..., None, :] - book).square().sum(-1)
    [codes] = tokenizer.encode([frame])
    assert codes.tolist() == distances.argmin(-1)[0].tolist()
    assert codes.dtype == np.int64
    assert len(np.unique(codes)) > 4
    latents = functional.conv2d(
        book[torch.from_numpy(codes)].permute(2, 0, 1)[None],
        tensors["post_quant_conv.weight"],
        tensors["post_quant_conv.bias"],
    )
    drawn = ((reference(tensors, "decoder", latents)[0] + 1) / 2).clamp(0, 1).permute(1, 2, 0) * 255
    assert np.abs(np.asarray(tokenizer.decode(codes), float) - drawn.numpy()).max() <= 0.51


def test_janus_reads_the_codebook_by_angle(janus):
    tokenizer, frame = pretrained.adapt("janus", janus, "cpu"), noise(8, 8)
    module = tokenizer.model.module
    with torch.inference_mode():
        latents = module.quant_conv(module.encoder(tokenizer._read(frame)))[0].flatten(1).T
        cosines = functional.cosine_similarity(latents[:, None], module.quantize.embedding.weight[None], dim=-1)
    [codes] = tokenizer.encode([frame])
    assert codes.flatten().tolist() == cosines.argmax(1).tolist()
    assert tokenizer.decode(codes).size == (8, 8)


def test_emu3_reads_frames_of_any_size(emu3):
    tokenizer = pretrained.adapt("emu3", emu3, "cpu")
    codes = tokenizer.encode([noise(8, 16), noise(20, 6)])
    assert [grid.shape for grid in codes] == [(8, 4), (3, 10)]
    assert [tokenizer.decode(grid).size for grid in codes] == [(8, 16), (20, 6)]
    white = tokenizer._read(Image.new("RGB", (2, 2), (255, 255, 255)))[0, :, 0, 0]
    assert white.tolist() == pytest.approx([1.9303, 2.0749, 2.1459], abs=1e-4)  # CLIP's normalisation


def test_how_each_model_reads_a_grid(vqgan_file, emu3, janus, small):
    codes = np.array([[0, 12], [3, 41]])
    emu = pretrained.adapt("emu3", emu3, "cpu")
    assert emu.write(codes) == (
        "<|image start|>2*2<|image token|><|visual token 000000|><|visual token 000012|><|extra_200|>"
        "<|visual token 000003|><|visual token 000041|><|extra_200|><|extra_201|><|image end|>"
    )
    wide = np.arange(16).reshape(4, 4)
    chameleon, liquid = (pretrained.adapt(kind, vqgan_file, "cpu") for kind in ("chameleon", "liquid"))
    assert chameleon.write(wide).startswith("<racm3:break>IMGIMGAZIMGIMGBZ")
    assert chameleon.write(wide).endswith("IMGIMGBEZIMGIMGBFZ<eoss>")
    assert liquid.write(wide) == "<boi>" + "".join(f"<|i{code}|>" for code in range(16)) + "<eoi>"
    assert (liquid.first, chameleon.first) == (256_000, None)
    assert pretrained.adapt("janus", janus, "cpu").write(wide).split("\n")[1] == "<|i4|><|i5|><|i6|><|i7|>"
    assert pretrained.FORMS["chameleon"].token(8191) == "IMGIMGIBJBZ"


@pytest.mark.parametrize("kind", ["liquid", "chameleon", "emu3", "janus"])
def test_texts(kind, vqgan_file, emu3, janus, small, tmp_path):
    source = {"emu3": emu3, "janus": janus}.get(kind, vqgan_file)
    tokenizer = pretrained.adapt(kind, source, "cpu")
    side = 4
    codes = np.random.default_rng(0).integers(0, 50, (side, side))
    text = tokenizer.write(codes)
    assert tokenizer.parse(text).tolist() == codes.tolist()
    token = tokenizer.tokens[codes[1, 2]]
    number = re.escape(tokenizer.tokens[7])
    assert tokenizer.pattern.fullmatch(token)
    assert re.fullmatch(number, tokenizer.tokens[7])
    for broken in (
        text[:-1],
        text + token,
        "x" + text,
        text.replace(token, "", 1),
        text + "\n" + text,
        text.replace(token, pretrained.FORMS[kind].token(999_999), 1),
        token,
        "",
    ):
        assert tokenizer.parse(broken) is None
    frame = tokenizer.decode(codes)
    state = ["you see", frame, "and"]
    parts = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": images.data_uri(part)}
        for part in state
    ]
    [written] = imagetokens.written(tokenizer, [parts])
    found = imagetokens.drawn(tokenizer, written)
    assert [part["type"] for part in found] == ["text", "image", "text"]
    assert images.open_image(found[1]["image"]).size == frame.size


@pytest.mark.parametrize("kind", ["liquid", "chameleon", "emu3", "janus"])
def test_saved_and_loaded(kind, vqgan_file, emu3, janus, small, tmp_path):
    source = {"emu3": emu3, "janus": janus}.get(kind, vqgan_file)
    tokenizer = pretrained.adapt(kind, source, "cpu")
    tokenizer.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["image_tokenizer.json"]
    loaded = imagetokens.load(tmp_path)
    frame = noise(*[tokenizer.model.size or 8] * 2)
    assert loaded.tokens == tokenizer.tokens
    assert np.array_equal(loaded.encode([frame]), tokenizer.encode([frame]))
    card = json.loads((tmp_path / "image_tokenizer.json").read_text())
    (tmp_path / "image_tokenizer.json").write_text(json.dumps(card | {"weights": "0"}))
    with pytest.raises(InputError, match="has other weights than those that"):
        imagetokens.load(tmp_path)
    (tmp_path / "image_tokenizer.json").write_text(json.dumps(card | {"source": str(tmp_path / "gone")}))
    with pytest.raises(InputError, match=r"gone: no such"):
        imagetokens.load(tmp_path)


def test_frames_are_encoded_alike_alone_and_together(vqgan_file, small):
    tokenizer = pretrained.adapt("chameleon", vqgan_file, "cpu")
    some = [noise(16, 16, seed) for seed in range(5)]
    for frame, codes in zip(some, tokenizer.encode(some), strict=True):
        assert np.array_equal(tokenizer.encode([frame])[0], codes)


def test_a_network_inside_of_a_whole_model(emu3, janus, tmp_path):
    """Its tensors are found under the name that they have there."""
    from safetensors.torch import load_file

    for kind, folder in (("emu3", emu3), ("janus", janus)):
        whole = tmp_path / kind
        whole.mkdir()
        config = {"model_type": kind, "vq_config": json.loads((folder / "config.json").read_text())}
        if kind == "emu3":
            config["vocabulary_map"] = {"<image>": 1}
        (whole / "config.json").write_text(json.dumps(config))
        tensors = {f"model.vqmodel.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
        save_file(tensors | {"lm_head.weight": torch.ones(2, 2)}, whole / "model.safetensors", {"format": "pt"})
        alone, found = (pretrained.adapt(kind, path, "cpu") for path in (folder, whole))
        assert models.weights_hash(found.model.module) == models.weights_hash(alone.model.module)


def test_sizes_that_a_model_does_not_read(vqgan_file, emu3, small):
    for kind in ("liquid", "chameleon"):
        with pytest.raises(InputError, match=f"20x16 pixels, expected 16x16, which is what {kind} reads; resize"):
            pretrained.adapt(kind, vqgan_file, "cpu").encode([noise(16, 16), noise(20, 16)])
    with pytest.raises(InputError, match=r"9x8 pixels, expected multiples of 2 for emu3"):
        pretrained.adapt("emu3", emu3, "cpu").encode([noise(9, 8)])


def test_liquid_reads_512_pixels(vqgan_file):
    assert pretrained.adapt("liquid", vqgan_file, "cpu").model.size == 512


def test_sources_of_no_use(tensors, vqgan_file, emu3, janus, tmp_path):
    with pytest.raises(InputError, match="no pretrained image tokenizer 'jpeg', expected one of liquid, "):
        pretrained.adapt("jpeg", vqgan_file)
    with pytest.raises(InputError, match=r"no such file of a VQGAN's weights"):
        pretrained.adapt("liquid", tmp_path / "vqgan.ckpt")
    with pytest.raises(InputError, match="is a emu3_vqgan, expected a janus_vqgan"):
        pretrained.adapt("janus", emu3)
    with pytest.raises(InputError, match="cannot read the configuration"):
        pretrained.adapt("janus", tmp_path)
    (tmp_path / "short.ckpt").write_bytes(vqgan_file.read_bytes()[:999])
    (tmp_path / "short.safetensors").write_bytes(b"\0" * 9)
    for name in ("short.ckpt", "short.safetensors"):
        with pytest.raises(InputError, match="no file of tensors that can be read"):
            pretrained.adapt("liquid", tmp_path / name)
    some = {name: tensor for name, tensor in tensors.items() if not name.startswith("decoder.up.1.")}
    save_file(some, tmp_path / "part.safetensors")
    save_file({"weight": torch.ones(1)}, tmp_path / "other.safetensors")
    for name in ("part", "other"):
        with pytest.raises(InputError, match="has no VQGAN like Chameleon's"):
            pretrained.adapt("liquid", tmp_path / f"{name}.safetensors")


def test_safetensors_are_read_as_well(tensors, vqgan_file, tmp_path):
    save_file(tensors, tmp_path / "vqgan.safetensors")
    one, other = (pretrained.adapt("liquid", path, "cpu") for path in (vqgan_file, tmp_path / "vqgan.safetensors"))
    assert models.weights_hash(one.model.module) == models.weights_hash(other.model.module)


class Stranger:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return (print, ("unpickled",))


def test_nothing_in_a_file_is_run(tmp_path, capsys):
    torch.save({"state_dict": Stranger()}, tmp_path / "vqgan.ckpt")
    with pytest.raises(InputError, match=r"save those as safetensors"):
        pretrained.adapt("liquid", tmp_path / "vqgan.ckpt")
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["liquid", "chameleon", "emu3", "janus"])
@pytest.mark.parametrize("special", [False, True])
def test_a_language_model_reads_and_may_write_a_grid(kind, special, vqgan_file, emu3, janus, small, qwen3):
    """Whether its vocabulary has the codes and the marks as special tokens, as Emu3's has, or not yet."""
    tokenizer = pretrained.adapt(kind, {"emu3": emu3, "janus": janus}.get(kind, vqgan_file), "cpu")
    model, words = models.load(qwen3)
    marks = [mark for mark in tokenizer.marks if len(mark) > 1]
    if special:
        known = [AddedToken(token, special=True) for token in (*tokenizer.tokens, *marks)]
        words.add_tokens(known, special_tokens=True)
        model.resize_token_embeddings(len(words))
    words = vocabulary.ordinary(words, (*tokenizer.tokens, *tokenizer.marks))
    ids = vocabulary.extend(model, words, tokenizer.tokens)
    text = tokenizer.write(np.random.default_rng(0).integers(0, 50, (4, 4)))
    written = prompts.encode_completion(words, text)
    assert sum(number in ids for number in written) == 16
    if special:
        around = words.convert_tokens_to_ids(marks)
        assert set(around) <= set(written)
    assert words.decode(written, skip_special_tokens=True) == text
    left_out = imagetokens.suppressed(words, tokenizer, "", "forward", False, [words.eos_token_id])
    assert set(left_out).isdisjoint(written)
    assert set(words.encode("zq")) <= set(left_out)
    kept_out = imagetokens.suppressed(words, tokenizer, "", "inverse", False, [words.eos_token_id])
    assert set(kept_out) == {*ids, *(around if special else [])}

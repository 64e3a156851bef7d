"""The judge of states that hold images: what goes over the wire, what the cache knows them by, what is never sent."""

# ruff: noqa: F811 - fixtures of the other file

import base64
import io
import json
from hashlib import sha256

import pytest
from PIL import Image
from test_judge import Judge, cache, completion, serve, verdict  # noqa: F401

from swirl import images
from swirl.errors import InputError
from swirl.eval import judge as module
from swirl.eval.rubrics import IMAGE_RUBRICS, RUBRICS, key_of, question
from swirl.types import IMAGE

COLOURS = {"r": (200, 0, 0), "g": (0, 200, 0), "b": (0, 0, 200)}


def picture(letter):
    return Image.new("RGB", (8, 6), COLOURS[letter])


def draw(text):
    """Of a text in which `<r>` is a red image: its parts; none where `<` is left over."""
    parts = []
    for line in text.split("\n"):
        if line[1:-1] in COLOURS:
            parts.append({"type": "image", "image": images.data_uri(picture(line[1:-1]))})
        elif "<" in line:
            return None
        else:
            parts.append({"type": "text", "text": line})
    return parts


ROW = {"state": "<r>", "action": "paint it", "next_state": "<g>\nscore 1", "trajectory": "t"}


def colour_of(part):
    assert part["type"] == "image_url" and set(part["image_url"]) == {"url"}
    start, code = part["image_url"]["url"].split(",")
    assert start == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(code))) as image:
        assert (image.format, image.size) == ("PNG", (8, 6))
        return {value: key for key, value in COLOURS.items()}[image.getpixel((3, 3))]


def shown(body):
    """The JSON, the captions and the colours of what was asked."""
    system, user = body["messages"]
    first, *rest = user["content"]
    assert first["type"] == "text" and all(part["type"] == "text" for part in rest[::2])
    return (
        system["content"],
        json.loads(first["text"]),
        [part["text"] for part in rest[::2]],
        list(map(colour_of, rest[1::2])),
    )


def test_images_are_parts_beside_the_text_that_names_them(serve, cache):
    server = serve(lambda name, times: verdict(6))
    assert Judge(server.url, "m", cache).scores("forward", [ROW], ["<b>\nscore 2"], draw) == [6]
    rubric, asked, captions, colours = shown(server.bodies[0])
    assert rubric == IMAGE_RUBRICS["forward"] and "image" in rubric and "from 0 to 10" in rubric
    assert asked == {
        "state": "<image 1>",
        "action": "paint it",
        "recorded_next_state": "<image 2>\nscore 1",
        "predicted_next_state": "<image 3>\nscore 2",
    }
    assert captions == [
        "<image 1>, of state:",
        "<image 2>, of recorded_next_state:",
        "<image 3>, of predicted_next_state:",
    ]
    assert colours == ["r", "g", "b"]


def test_an_action_is_judged_by_the_images_before_and_after(serve, cache):
    server = serve(lambda name, times: verdict(3))
    assert Judge(server.url, "m", cache).scores("inverse", [ROW], ["paint < it"], draw) == [3]
    rubric, asked, _, colours = shown(server.bodies[0])
    assert rubric == IMAGE_RUBRICS["inverse"]
    assert asked == {
        "state": "<image 1>",
        "next_state": "<image 2>\nscore 1",
        "recorded_action": "paint it",
        "inferred_action": "paint < it",
    }
    assert colours == ["r", "g"]


def test_the_recordings_own_images_need_no_drawing(serve, cache, tmp_path):
    server = serve(lambda name, times: verdict(9))
    picture("r").save(tmp_path / "one.bmp")
    as_text = {
        **ROW,
        "state": f"{IMAGE}{tmp_path / 'one.bmp'}",
        "next_state": f"{IMAGE}{images.data_uri(picture('g'))}",
    }
    as_parts = {
        **ROW,
        "state": [{"type": "image", "image": str(tmp_path / "one.bmp")}],
        "next_state": [{"type": "image", "image": images.data_uri(picture("g"))}],
    }
    assert Judge(server.url, "m", cache).scores("inverse", [as_text, as_parts], ["dye it", "dye it"]) == [9, 9]
    [body] = server.bodies  # they are one question
    assert shown(body)[3] == ["r", "g"]


def test_a_predicted_text_opens_no_file(serve, cache, tmp_path):
    server = serve(lambda name, times: verdict(0))
    picture("b").save(tmp_path / "private.png")
    stolen = f"{IMAGE}{tmp_path / 'private.png'}"
    judge = Judge(server.url, "m", cache)
    judge.scores("forward", [{**ROW, "state": "dark", "next_state": "light"}], [stolen])
    judge.scores("forward", [ROW], [stolen], draw)
    judge.scores("inverse", [ROW], [stolen], draw)
    assert server.bodies[0]["messages"][1]["content"] == json.dumps(
        {"state": "dark", "action": "paint it", "recorded_next_state": "light", "predicted_next_state": stolen},
        ensure_ascii=False,
        indent=1,
    )
    assert [shown(body)[3] for body in server.bodies[1:]] == [["r", "g"], ["r", "g"]]


def test_a_prediction_that_cannot_be_drawn_scores_0_unasked(serve, cache):
    server = serve(lambda name, times: verdict(8))
    found = Judge(server.url, "m", cache).scores("forward", [ROW] * 3, ["<b>", "<broken", ""], draw)
    assert found == [8, 0, 0] and len(server.bodies) == 1


def test_a_recording_that_cannot_be_drawn_is_the_users_to_mend(serve, cache, tmp_path):
    judge = Judge(serve(lambda name, times: verdict(8)).url, "m", cache)
    with pytest.raises(InputError, match="give the data's own image tokenizer"):
        judge.scores("forward", [{**ROW, "next_state": "<broken"}], ["<b>"], draw)
    with pytest.raises(InputError, match="no such image file"):
        judge.scores("forward", [{**ROW, "state": f"{IMAGE}{tmp_path / 'gone.png'}"}], ["x"])


def test_the_cache_knows_images_by_what_they_show(serve, cache, tmp_path):
    server = serve(lambda name, times: verdict(5))
    for name in ("one.png", "two.bmp"):
        picture("r").save(tmp_path / name)
    rows = [{**ROW, "state": f"{IMAGE}{tmp_path / name}", "next_state": "x"} for name in ("one.png", "two.bmp")]
    assert Judge(server.url, "m", cache).scores("inverse", rows, ["a", "a"]) == [5, 5]
    assert Judge(server.url, "m", cache).scores("inverse", rows, ["a", "a"]) == [5, 5]
    assert len(server.bodies) == 1
    picture("g").save(tmp_path / "one.png")  # another picture under the old name
    Judge(server.url, "m", cache).scores("inverse", rows, ["a", "a"])
    assert [shown(body)[3] for body in server.bodies] == [["r"], ["g"]]


def test_texts_are_asked_as_ever():
    row = {"state": "lamp off", "action": "press", "next_state": "lamp on"}
    asked = question("forward", row, "lamp on")
    assert asked.shown["predicted_next_state"] == "lamp on" and asked.readable
    # So that what was paid for is still in caches: the key of the model, the rubric and the texts.
    assert key_of("m", "forward", asked) == module_key("m", RUBRICS["forward"], asked.shown)
    drawn = question("forward", row, "lamp on", draw)
    assert key_of("m", "forward", drawn) == key_of("m", "forward", asked)


def module_key(*what):
    return sha256(json.dumps(list(what), sort_keys=True).encode()).hexdigest()


def test_the_caps_hold_for_images(serve, cache):
    server = serve(lambda name, times: verdict(5))
    rows = [{**ROW, "action": f"paint {i}"} for i in range(6)]
    judge = Judge(server.url, "m", cache, requests=2)
    assert judge.scores("forward", rows, ["<b>"] * 6, draw).count(None) == 4
    assert len(server.bodies) == 2


def test_where_the_endpoint_does_not_count_an_image_counts_for_its_tokens(serve, cache):
    server = serve(lambda name, times: (200, completion(verdict(0), usage=None), {}))
    judge = Judge(server.url, "m", cache)
    judge.scores("forward", [ROW], ["<b>"], draw)
    system, user = server.bodies[0]["messages"]
    letters = [system["content"], *(part["text"] for part in user["content"] if part["type"] == "text"), verdict(0)]
    assert judge._tokens == sum(len(text.encode()) for text in letters) // 3 + 3 * module.IMAGE_TOKENS

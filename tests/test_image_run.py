"""A whole run on frames, and all that reads what it leaves: its results, its checkpoints, its files."""

import json
import logging
import os
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from whole_runs import differing, phases_of

import swirl
from swirl import data, image_metrics, images, imagetokens, models, prompts, train
from swirl.config import Images
from swirl.data.splitting import PARTS
from swirl.errors import InputError
from swirl.eval import frames, rollouts, standalone
from swirl.imagetokens import tile, vocabulary
from swirl.methods import annotate, plan, session
from swirl.methods.cost import Machine
from swirl.recipe import load_recipe
from swirl.scorer import Scorer
from swirl.types import IMAGE

RECIPE = """
methods = ["pretrain", "warmup", "verified", "swirl"]
threads = 1
device = "cpu"
[data]
world = "minigrid"
options = { environments = ["MiniGrid-Fetch-5x5-N2-v0"], view = "image" }
transitions = 240
max_steps = 8
labels = 70
validation_labels = 12
test = 0.2
history = 1
[images]
tokenizer = "tile"
[model]
vocabulary = 300
hidden = 16
layers = 1
heads = 2
max_length = 160
[pretrain]
steps = 2
batch = 4
[warmup]
steps = 30
batch = 8
learning_rate = 1e-2
[verified]
rounds = 1
pairs = 12
precision = 0.01
steps = 2
batch = 4
[swirl]
steps = 2
prompts = 2
generations = 2
select = "last"
[evaluation]
checkpoints = 1
max_rows = 10
"""
PHASES = [
    *("frames", "data", "start"),
    *(f"{stage}-{role}-sft" for stage in ("pretrain", "warmup") for role in ("forward", "inverse")),
    *("verified1-label", "verified1-forward-sft", "verified1-inverse-sft"),
    *("swirl1-label", "swirl1-forward-grpo", "swirl1-inverse-grpo", "test"),
]
SIDE = 40
"""Pixels: five cells of eight."""


@pytest.fixture(scope="module")
def place(tmp_path_factory, one_thread):
    """A folder with the recipe; the cache with its recording comes to lie there too."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def recipe(place):
    return load_recipe(place / "recipe.toml")


@pytest.fixture(scope="module")
def suppressed():
    """What was kept from being sampled while `run` ran, by who samples."""
    return {"generate": [], "grpo": []}


@pytest.fixture(scope="module")
def run(place, recipe, suppressed):
    """A run of all kinds of phases."""

    def spy(module, name):
        real = getattr(module, name)

        def noted(*args, **options):
            suppressed[name].append(tuple(options.get("suppress", ())))
            return real(*args, **options)

        patched.setattr(module, name, noted)

    with pytest.MonkeyPatch.context() as patched:
        spy(models, "generate")
        spy(train, "grpo")
        session.run_recipe(recipe, place / "run", place / "cache")
    return place / "run"


@pytest.fixture(scope="module")
def recording(place, recipe, run):
    return session.recording_path(recipe, place / "cache")


@pytest.fixture(scope="module")
def tokenizer(run):
    return imagetokens.load(run / "data/images")


@pytest.fixture(scope="module")
def forward(run):
    return swirl.load_forward(run, "cpu")


@pytest.fixture(scope="module")
def inverse(run):
    return swirl.load_inverse(run, "cpu")


def results(run, split="test"):
    rows = json.loads((run / "results.json").read_text())["rows"]
    return {(row["phase"], row["role"], row["metric"]): row for row in rows if row["split"] == split}


def test_frames_are_measured_beside_the_texts_that_stand_for_them(run):
    assert phases_of(run) == PHASES
    for split in ("validation", "test"):
        found = results(run, split)
        named = {phase for phase, _, metric in found if metric == "image_exact_match"}
        assert named > {"copy-input"}
        assert named == {phase for phase, _, metric in found if metric == "exact_match"}
        for phase in named:
            mine = {metric: row for (of, role, metric), row in found.items() if (of, role) == (phase, "forward")}
            # Different tiles are different codes, so both are right together.
            for metric in ("exact_match", "exact_match_changed"):
                assert mine[f"image_{metric}"]["value"] == mine[metric]["value"]
            assert 0 <= mine["image_psnr"]["value"] <= mine["image_psnr_ceiling"]["value"]
        copied = {metric: row["value"] for (of, _, metric), row in found.items() if of == "copy-input"}
        assert copied["image_exact_match_changed"] == copied["image_changed_f1"] == 0
        assert copied["image_copy_rate"] == 1
        assert copied["image_unreadable_rate"] == 0
        assert 0.5 < copied["image_pixel_match"] < 1
    assert {phase for phase, _, metric in results(run) if metric == "image_ssim"} == {
        *("copy-input", "pretrain", "warmup", "verified", "swirl")
    }


def test_every_checkpoint_carries_the_image_tokenizer_and_is_a_plain_one(run, tokenizer):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    mark = imagetokens.fingerprint(run / "data/images")
    folders = [path.parent for path in run.glob("phases/*/config.json")]
    assert len(folders) == 9
    for folder in folders:
        assert imagetokens.fingerprint(folder / "images") == mark
    model, words = (auto.from_pretrained(folders[0]) for auto in (AutoModelForCausalLM, AutoTokenizer))
    ids = vocabulary.ids(words, tokenizer.tokens)
    assert max(ids) < model.get_input_embeddings().num_embeddings == len(words)
    assert set(ids).isdisjoint(words.all_special_ids)


def test_whoever_samples_is_kept_to_what_a_role_may_write(run, suppressed, tokenizer):
    words, outside = models.load_tokenizer(run / "phases/01-start"), imagetokens.outside(run / "data/images")
    assert outside == "\n"
    forward, inverse = (
        tuple(imagetokens.suppressed(words, tokenizer, outside, role, False, [words.eos_token_id]))
        for role in ("forward", "inverse")
    )
    assert len(forward) > len(inverse) == len(tokenizer.tokens)
    assert suppressed["grpo"] == [forward, inverse]
    assert set(suppressed["generate"]) == {forward, inverse}


@pytest.mark.parametrize("role", ["forward", "inverse"])
def test_what_is_never_sampled_costs_what_is_recorded_its_probability(run, recipe, role):
    (folder,) = run.glob(f"phases/*-warmup-{role}-sft")
    scorer, style = Scorer(folder, images=folder / "images"), recipe.model.prompt
    wrote = pq.read_table(run / "test/predictions.parquet").to_pylist()
    scored = [one["row"] for one in wrote if (one["phase"], one["role"]) == ("warmup", role)]
    costs = []
    for row in pq.read_table(run / "data/test.parquet").take(scored).to_pylist():
        asked = prompts.encode_prompt(scorer.tokenizer, prompts.transition_prompt(role, row, style))
        wanted = prompts.encode_completion(scorer.tokenizer, prompts.target(role, row, style))
        with torch.inference_mode():
            logits = scorer.model(torch.tensor([asked + wanted])).logits[0, len(asked) - 1 : -1]
        mass = logits.softmax(-1)[:, scorer.suppressed(role, style)].sum(-1)
        costs.append(-(1 - mass).log().mean().item())
    found = results(run)["warmup", role, "image_suppressed_nll"]
    assert found["value"] == pytest.approx(sum(costs) / len(costs), rel=1e-3) and found["value"] > 0


def test_no_file_of_a_run_names_an_action_that_is_hidden(run):
    for folder in ("frames", "data"):
        assert "action" not in pq.read_schema(run / folder / "state_only.parquet").names
    extra = set(pq.read_schema(run / "data/state_only.parquet").names) - set(
        pq.read_schema(run / "frames/state_only.parquet").names
    )
    assert extra == {"frame", "next_frame"}
    found = json.loads((run / "data/counts.json").read_text())
    frames = json.loads((run / "frames/counts.json").read_text())
    assert set(found) - set(frames) == {"codes", "images"}


class Power(Exception):
    pass


@pytest.fixture(scope="module")
def short(place):
    """A recipe of a few seconds, next states written as changes."""
    words = {"methods": '["warmup"]', "warmup.steps": "2", "model.prompt": "terse-change"}
    return load_recipe(place / "recipe.toml", words)


@pytest.fixture(scope="module")
def alone(place, short, run):
    session.run_recipe(short, place / "alone", place / "cache")
    return place / "alone"


def test_a_run_that_stops_between_frames_and_data_ends_as_one_that_was_left_alone(
    monkeypatch, place, short, alone, tmp_path, recording
):
    def fail(frames, out, *_):
        (out / "images").mkdir()
        (out / "images/half").write_text("written")
        raise Power

    with monkeypatch.context() as patched:
        patched.setattr(session, "write_images", fail)
        with pytest.raises(Power):
            session.run_recipe(short, tmp_path / "run", place / "cache")
    assert phases_of(tmp_path / "run") == ["frames"]
    before = recording.stat().st_mtime_ns
    session.run_recipe(short, tmp_path / "run", place / "cache")
    assert differing(tmp_path / "run", alone) == []
    assert recording.stat().st_mtime_ns == before


def test_a_run_that_begins_from_another_takes_its_data_over(place, short, alone, tmp_path):
    session.run_recipe(short, tmp_path / "run", tmp_path / "empty", alone)
    assert phases_of(tmp_path / "run") == [phase for phase in phases_of(alone) if phase != "frames"]
    assert os.path.samefile(tmp_path / "run/data/images/tiles.png", alone / "data/images/tiles.png")
    assert (tmp_path / "run/results.json").read_bytes() == (alone / "results.json").read_bytes()
    session.run_recipe(short, tmp_path / "run", tmp_path / "empty", alone)  # it goes on, with nothing left to do
    assert not (tmp_path / "empty").exists()
    for other in (
        replace(short, images=replace(short.images, tile=4)),
        replace(short, data=replace(short.data, seed=1)),
    ):
        with pytest.raises(InputError, match=r"was made with another recipe: (images|data) was"):
            session.run_recipe(other, tmp_path / "no", tmp_path / "empty", alone)


def test_data_of_no_method_may_be_written_anew(place, recipe, tmp_path, run):
    """Nothing was trained yet, so another image tokenizer is no other run."""
    short = replace(recipe, images=replace(recipe.images, codes=3), methods=())
    with pytest.raises(InputError, match=r"expected at most images\.codes = 3 in all"):
        session.run_recipe(short, tmp_path / "run", place / "cache")
    session.run_recipe(replace(recipe, methods=()), tmp_path / "run", place / "cache")
    for part in PARTS:
        assert pq.read_table(tmp_path / f"run/data/{part}.parquet") == pq.read_table(run / f"data/{part}.parquet")


def test_a_pretrained_model_gets_the_image_tokens_at_the_start(monkeypatch, place, recipe, qwen3, tmp_path):
    monkeypatch.setattr(plan, "_benchmark", lambda recipe, shape: Machine(1e9, 1e9))
    model = replace(recipe.model, name=str(qwen3), prompt="instruct", max_length=512)
    evaluation = replace(recipe.evaluation, max_rows=3)
    recipe = replace(recipe, methods=(), model=model, evaluation=evaluation)
    session.run_recipe(recipe, tmp_path / "run", place / "cache")
    assert phases_of(tmp_path / "run") == ["frames", "data", "start", "test"]
    (before, words), (after, more) = (models.load(path) for path in (qwen3, tmp_path / "run/phases/01-start"))
    tokens = imagetokens.load(tmp_path / "run/data/images").tokens
    assert vocabulary.ids(more, tokens) == list(range(len(words), len(words) + len(tokens)))
    old = before.get_input_embeddings().weight
    assert after.get_input_embeddings().weight[: len(old)].equal(old)
    assert ("start", "forward", "image_psnr") in results(tmp_path / "run")
    forward = swirl.load_forward(tmp_path / "run", "cpu")
    assert forward.scorer.images.tokens == tokens
    rows = pq.read_table(tmp_path / "run/data/labelled.parquet").to_pylist()
    asked = [len(forward.encode(row)[0]) for row in rows]
    found = plan.plan(recipe, place / "cache")
    assert min(asked) <= found["lengths"]["prompt"]["forward"] <= max(asked)
    # The plan looks at rows of all parts, which may show some tiles more: an embedding each.
    more_tiles = (found["model"]["parameters"] - after.num_parameters()) / old.shape[1]
    assert 0 <= more_tiles < 8


# Measured again


def one_step(rows):
    """Values by role and metric of a model and its baseline, without their names."""
    return {
        (row["model"] == "copy-input", row["role"], row["metric"]): (row["value"], row["n"])
        for row in rows
        if row["model"] not in ("recording", "majority-action")  # which is that of the rows, here and there
    }


@pytest.fixture(scope="module")
def measured(run):
    return standalone.evaluate(run / "data/test.parquet", run, run, device="cpu")


def test_measured_on_its_own_test_a_run_gives_its_results_again(run, measured):
    found, wanted = one_step(measured), results(run)
    last = {
        (phase != "swirl", role, metric): (pytest.approx(row["value"], abs=1e-6), row["n"])
        for (phase, role, metric), row in wanted.items()
        if phase in ("swirl", "copy-input")
    }
    assert found == last
    assert (False, "forward", "image_psnr_changed") in found


def raw(recording, run, path):
    """The test part as it was recorded, images by their place."""
    table = pq.read_table(recording)
    kept = {(row["trajectory"], row["step"]) for row in pq.read_table(run / "data/test.parquet").to_pylist()}
    places = zip(table["trajectory"].to_pylist(), table["step"].to_pylist(), strict=True)
    pq.write_table(table.filter(pa.array([place in kept for place in places])), path)
    return path


def test_measured_on_the_recording_itself_it_gives_the_same(run, recording, measured):
    path = raw(recording, run, recording.with_name("test.parquet"))
    assert pq.read_table(path)["state"][0].as_py().startswith(f"{IMAGE}{recording.stem}.images/")
    assert standalone.evaluate(path, run, run, device="cpu") == measured


def test_the_suite_plays_a_recording_of_frames_again(run):
    rows = standalone.evaluate(run / "data/test.parquet", run, run, max_rows=4, device="cpu", parts="all")
    found = {row["metric"]: row for row in rows}
    assert found["real_replayed"]["value"] > 0.9
    assert found["rollout_image_changed_f1_t1"]["n"] > 0
    assert any(metric.startswith("ranking_") for metric in found)
    assert any(metric.startswith("trust_") for metric in found)


def test_rollouts_of_frames_are_measured_against_the_frame_they_began_with(run, tokenizer):
    rows = standalone.read_rows(run / "data/test.parquet", 0, tokenizer)
    starts = [one for one in rollouts.stretches(rows, 3) if len(one) == 3]
    found = {
        name: {row["metric"]: row for row in rollouts.by_turn(name, starts, predicted, tokenizer)}
        for name, predicted in {
            "truth": [[row["next_state"] for row in one] for one in starts],
            "copy": [[one[0]["state"]] * 3 for one in starts],
            "late": [[row["state"] for row in one] for one in starts],
        }.items()
    }
    for turn in (1, 2, 3):
        assert found["truth"][f"rollout_image_changed_f1_t{turn}"]["value"] == 1
        assert found["truth"][f"rollout_image_exact_match_changed_t{turn}"]["value"] == 1
        assert found["copy"][f"rollout_image_changed_f1_t{turn}"]["value"] == 0

    def drawn(texts):
        return [np.asarray(frames.frame(tokenizer, text)) for text in texts]

    first, second, third = (drawn(one[t]["state"] for one in starts) for t in (0, 1, 2))
    values, index = image_metrics.forward_values(first, third, second, tokenizer.side)["image_changed_f1"]
    late = found["late"]["rollout_image_changed_f1_t2"]
    assert (late["value"], late["n"]) == (pytest.approx(values.mean()), len(index))
    assert 0 < late["value"] < 1


def other_tokenizer(checkpoint, folder):
    """A copy of a checkpoint that carries an image tokenizer of other tiles."""
    shutil.copytree(checkpoint, folder)
    colours = np.random.default_rng(0).integers(255, size=(8, 8 * 40, 3)).astype(np.uint8)
    frame = Image.fromarray(colours)
    shutil.rmtree(folder / "images")
    (folder / "images").mkdir()
    tile.learn([images.data_uri(frame)], Images()).save(folder / "images")
    return folder


def test_models_of_different_image_tokenizers_are_not_measured_together(run, forward, inverse, recording, tmp_path):
    other = other_tokenizer(inverse.checkpoint, tmp_path / "other")
    with pytest.raises(InputError, match="were trained with different image tokenizers; measure them one by one"):
        standalone.evaluate(recording, forward.checkpoint, other, device="cpu")
    with pytest.raises(InputError, match="was written with another image tokenizer than the model's"):
        standalone.evaluate(run / "data/test.parquet", inverse=other, device="cpu")


def test_words_and_images_are_not_taken_for_each_other(run, run_folder, recording, tmp_path):
    words = tmp_path / "words.jsonl"
    words.write_text(json.dumps({"state": "a", "action": "b", "next_state": "c"}) + "\n")
    for path in (recording, run / "data/test.parquet"):
        with pytest.raises(InputError, match="its states hold images, and the model reads none; give another"):
            standalone.evaluate(path, run_folder, device="cpu")
    with pytest.raises(InputError, match="its states hold no images, and the model reads some; give another"):
        standalone.evaluate(words, run, device="cpu")
    with pytest.raises(InputError, match="its states hold no images, and the model reads some; give another"):
        annotate.label(words, tmp_path / "out.parquet", run, device="cpu")
    with pytest.raises(InputError, match="its states hold images, and the model reads none; give another"):
        annotate.label(recording, tmp_path / "out.parquet", run_folder, device="cpu")
    assert not (tmp_path / "out.parquet").exists()


# Asked one by one


@pytest.fixture(scope="module")
def row(recording):
    """A step that changes its frame, with absolute paths."""
    return next(row for row in data.read(recording).to_pylist() if row["state"] != row["next_state"])


def answering(monkeypatch, *texts):
    """A model that writes these, and what it is asked."""
    asked, left = [], list(texts)

    def generate(model, tokenizer, prompts, **options):
        asked.append(tokenizer.decode(prompts[0]))
        return [[models.Reply(left.pop(0), True)] for _ in prompts]

    monkeypatch.setattr(swirl.api.models, "generate", generate)
    return asked


def image(state):
    (part,) = state
    assert part["type"] == "image"
    return images.open_image(part["image"])


def test_predictions_are_images_of_the_right_size(monkeypatch, forward, tokenizer, row):
    (written,) = imagetokens.written(tokenizer, [row["next_state"]])
    answering(monkeypatch, written)
    (found,) = forward.predict(row["state"], row["action"])
    assert found[0]["image"].startswith("data:image/png;base64,")
    assert image(found).size == (SIDE, SIDE)
    np.testing.assert_array_equal(image(found), images.open_image(row["next_state"][1:]))


def test_what_the_model_writes_itself_is_drawn_or_said_to_be_unreadable(forward, row, caplog):
    with caplog.at_level(logging.WARNING, "swirl"):
        found = forward.predict(row["state"], row["action"], n=4, max_new_tokens=30)
    assert len(found) == 4
    for state in filter(None, found):
        assert image(state).width % 8 == 0
    unread = found.count("")
    assert (f"{unread} of 4 predicted states cannot be read and are empty" in caplog.text) == (unread > 0)


@pytest.mark.parametrize("reply", ["<|i0|><|i1|>\n<|i0|>", "<|i0|>x", "<|i9999|>", ""])
def test_a_grid_that_is_none_is_empty_with_a_warning(monkeypatch, forward, row, caplog, reply):
    answering(monkeypatch, reply, reply)
    with caplog.at_level(logging.WARNING, "swirl"):
        assert forward.predict(row["state"], row["action"]) == [""]
    assert "1 of 1 predicted states cannot be read and are empty" in caplog.text
    with pytest.raises(InputError, match="step 1, 'left': what the model wrote cannot be read as a next state"):
        forward.imagine(row["state"], ["left"])


def test_a_state_may_be_given_in_any_form(monkeypatch, forward, inverse, tokenizer, row):
    path = row["state"][1:]
    uri = images.data_uri(images.open_image(path))
    (written,) = imagetokens.written(tokenizer, [row["state"]])
    forms = [row["state"], [{"type": "image", "image": path}], [{"type": "image", "image": uri}], written]
    asked = answering(monkeypatch, *[written] * len(forms))
    for form in forms:
        forward.predict(form, "left")
    assert len(set(asked)) == 1 and written in asked[0]
    found = {forward.log_likelihood(form, "left", row["next_state"]) for form in forms}
    assert len(found) == 1
    assert len({inverse.log_likelihood(form, row["next_state"], "left", history=[form]) for form in forms}) == 1
    for broken in ([{"type": "image", "image": f"{path}.gif"}], [{"type": "image", "image": f"{uri[:60]}"}]):
        with pytest.raises(InputError):
            forward.predict(broken, "left")


def test_imagined_states_follow_from_one_another(monkeypatch, forward, tokenizer, row):
    first, second = imagetokens.written(tokenizer, [row["next_state"], row["state"]])
    asked = answering(monkeypatch, first, second)
    found = forward.imagine(row["state"], ["left", "forward"])
    np.testing.assert_array_equal(image(found[0]), images.open_image(row["next_state"][1:]))
    np.testing.assert_array_equal(image(found[1]), images.open_image(row["state"][1:]))
    # The state before is `second`, and history = 1 shows it again.
    assert [text.count(grid) for text in asked for grid in (first, second)] == [0, 1, 1, 1]


def test_actions_are_inferred_as_words(inverse, tokenizer, row):
    actions = ["left", "right", "forward"]
    listed = inverse.infer(row["state"], row["next_state"], actions=actions)
    assert {candidate.action for candidate in listed} == set(actions)
    for candidate in inverse.infer(row["state"], row["next_state"], n=8, seed=1):
        assert not tokenizer.pattern.search(candidate.action)


def test_labels_are_added_and_states_stay_as_they_were(run, recording):
    table = pq.read_table(recording).slice(0, 12)
    actions = [None if number % 2 else action for number, action in enumerate(table["action"].to_pylist())]
    table = table.set_column(table.column_names.index("action"), "action", pa.array(actions, pa.string()))
    path, out = recording.with_name("some.parquet"), recording.with_name("labelled.parquet")
    pq.write_table(table, path)
    counts = annotate.label(path, out, run, run, actions=["left", "right", "forward"], device="cpu")
    assert counts == {"rows": 12, "kept": 6, "inferred": 6, "unreadable": 0}
    before, after = data.read(path).to_pylist(), data.read(out).to_pylist()
    names = ("state", "next_state", "trajectory", "step")
    assert [[row[name] for name in names] for row in after] == [[row[name] for name in names] for row in before]
    written = pq.read_table(out)
    assert {"frame", "next_frame"}.isdisjoint(written.column_names)
    assert written["action"].null_count == 0
    assert written["action"].to_pylist()[::2] == actions[::2]


def test_the_plan_is_of_the_tokens_that_the_run_has(monkeypatch, place, recipe, run, tmp_path):
    monkeypatch.setattr(plan, "_benchmark", lambda recipe, shape: Machine(1e9, 1e9))
    words = models.load_tokenizer(run / "phases/01-start")
    rows = [row for part in ("labelled", "test") for row in pq.read_table(run / f"data/{part}.parquet").to_pylist()]
    # A recording that is there, and one that is yet to be made.
    for cache in (place / "cache", tmp_path / "empty"):
        found = plan.plan(recipe, cache)
        assert ["frames", "data", *(phase["phase"] for phase in found["phases"])] == PHASES
        lengths = [
            prompts.encode(words, "forward", row, "terse", 160)
            for row in rows
            if len(row["history"]) == recipe.data.history
        ]
        assert found["lengths"]["reply"]["forward"] == {len(reply) for _, reply in lengths}.pop()
        # Rows at the beginning of an episode have no history, and how many of those are drawn differs.
        most = max(len(prompt) for prompt, _ in lengths)
        assert most - 40 < found["lengths"]["prompt"]["forward"] <= most
    assert not (tmp_path / "empty").exists()

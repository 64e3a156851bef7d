"""Any checkpoint on any labelled recording: what `swirl eval` prints.

The same metrics as a run's own test, on data of the user's choice. A run folder evaluated on its own
`data/test.parquet` gives the numbers of its `results.json` again, of the models and of `copy-input`: its checkpoints
say which rows the run drew. (Replies are limited by the rows at hand: one that is longer than every recorded text may
be cut elsewhere.) `majority-action` is another there: the most frequent action of the run's training labels, and here
of the rows that are scored.

`swirl eval recording.parquet --forward runs/demo --inverse Qwen/Qwen3-0.6B`

What is measured beyond one step is in `suite`.
"""

import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from swirl import data as recordings
from swirl import imagetokens, labelling, metrics, progress, prompts, similarity
from swirl.api import ForwardModel, InverseModel, load_forward, load_inverse
from swirl.data.imaging import FRAMES
from swirl.data.splitting import layouts
from swirl.errors import InputError
from swirl.eval import held_out, rollouts, suite
from swirl.eval.judge import Judge
from swirl.eval.rows import interval, result
from swirl.imagetokens import ImageTokenizer
from swirl.types import Role

logger = logging.getLogger("swirl")

Rows = list[dict[str, Any]]
CUT_OFF = 0.2
"""Share of replies that may be cut off before that is said."""
CYCLE, RECORDING = "cycle", "recording"
"""What rows name as their model that are of both models together, or of none."""


def evaluate(
    data: str | Path,
    forward: str | Path | None = None,
    inverse: str | Path | None = None,
    max_rows: int | None = None,
    device: str = "auto",
    encoder: str = "",
    parts: str | None = None,
    judge: Judge | None = None,
    turns: int | None = None,
    max_new_tokens: int | None = None,
    template: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Measure checkpoints on a recording.

    Rows without an action cannot be scored: they are left out, and counted in the metric `rows_without_action`. Where
    no row has an action, the two models together still give the cycle.

    Args:
        data: A recording.
        forward: Run folder or checkpoint of the forward model.
        inverse: Run folder or checkpoint of the inverse model.
        max_rows: Most rows to score, drawn at random; 0: all of them. By default as many as the run of the first model
            drew of its test part.
        device: Where to compute.
        encoder: Also measure BERTScore of next states with this encoder (`swirl.similarity.Encoder`).
        parts: Names of parts of the suite to measure too, comma-separated, or "all".
        judge: Also have this one score the predictions.
        turns: Longest rollout of the suite; by default `rollouts.TURNS`.
        max_new_tokens: Token limit of a reply; by default a quarter more than the longest recorded one.
        template: Given to the chat templates of the checkpoints that no run made; see `checkpoints.resolve`.

    Returns:
        Rows {"model", "role", "metric", "value", "low", "high", "n"}; `model` is the checkpoint or the baseline.
        `majority-action` names the most frequent action of the rows that are scored.

    Raises:
        InputError: No model is given, a file cannot be used, a row or a limit exceeds what the model reads, the suite
            cannot be measured with what is given, or `template` is for no model.
        MissingPartError: The encoder is not installed.
    """
    if not (forward or inverse):
        raise InputError("no model to measure; give --forward, --inverse or both")
    if max_rows is not None and max_rows < 0:
        raise InputError(f"--max-rows {max_rows}, expected 0 (all) or more")
    for option, number in (("turns", turns), ("max-new-tokens", max_new_tokens)):
        if number is not None and number < 1:
            raise InputError(f"--{option} {number}, expected at least 1")
    if encoder and not forward:
        raise InputError("--encoder is for next states; give --forward")
    similar = similarity.Encoder(encoder, device) if encoder else None
    given: dict[Role, Any] = {"forward": forward, "inverse": inverse}
    chosen = suite.parse(parts, [role for role, path in given.items() if path])
    forward_model = load_forward(forward, device, template) if forward else None
    inverse_model = load_inverse(inverse, device, template) if inverse else None
    models = [model for model in (forward_model, inverse_model) if model]
    if template and not any(template.items() <= model.spec.chat_template_kwargs.items() for model in models):
        raise InputError("--template is for checkpoints that no run made; a run knows how its models are asked")
    reads, *others = (_images(model.checkpoint) for model in models)
    if others not in ([], [reads]):
        raise InputError("the two models were trained with different image tokenizers; measure them one by one")
    written = _images(Path(data).parent)
    if reads and written and reads != written:
        raise InputError(
            f"{data} was written with another image tokenizer than the model's; give the recording that it is of"
        )
    rows = read_rows(data, max(model.recipe.data.history for model in models), models[0].scorer.images)
    labelled = [row for row in rows if row["action"] is not None]
    if not labelled and len(models) < 2:
        raise InputError(f"{data}: none of its {len(rows)} rows has an action; the cycle needs none, but both models")
    if chosen and not labelled:
        raise InputError(f"{data}: none of its {len(rows)} rows has an action, which --suite needs; leave it out")
    if judge and not labelled:
        raise InputError(
            f"{data}: none of its {len(rows)} rows has an action, which a judge has to know; leave out --judge"
        )
    drawn = models[0].recipe
    most = drawn.evaluation.max_rows if max_rows is None else max_rows
    picked = _draw(labelled or rows, most, drawn.data.seed)
    found = [_count("rows_without_action", len(rows) - len(labelled), len(rows)), _count("rows_scored", len(picked))]
    with suite.replaying(data, chosen, optional=parts == "all", images=models[0].scorer.images) as replay:
        predictions: dict[Role, list[str]] = {}
        for model in models:
            metrics_found, predictions[model.role] = _measure(
                model, picked, bool(labelled), max_new_tokens, similar if model is forward_model else None, judge
            )
            found += metrics_found
        if forward_model and inverse_model:
            found += _cycle(forward_model, picked, predictions["inverse"], max_new_tokens)
        if chosen:
            by_role: dict[Role, ForwardModel | InverseModel] = {model.role: model for model in models}
            limits: dict[Role, int] = {model.role: _limit(model, labelled, max_new_tokens) for model in models}
            longest = turns or rollouts.TURNS
            subject = suite.Subject(rows, picked, most, drawn.data.seed, by_role, limits, predictions, longest, replay)
            found += suite.measure(chosen, subject)
    return found


def read_rows(path: str | Path, history: int, images: ImageTokenizer | None = None) -> Rows:
    """The rows of a recording, with `history` earlier states each; a file's own histories are taken as they are.

    Images are written by the tokenizer; where layouts have no names, they are named as in a run's split.

    Raises:
        InputError: The recording cannot be read, or a trajectory has two layouts.
    """
    table = recordings.read(path)
    table = table.set_column(table.schema.get_field_index("layout"), "layout", pa.array(layouts(table), pa.string()))
    own = pq.read_schema(path).names if Path(path).suffix == ".parquet" else []
    kept = [name for name in ("history" if history else "", *FRAMES.values()) if name in own]
    for name, column in zip(kept, pq.read_table(path, columns=kept).columns if kept else (), strict=True):
        table = table.append_column(name, column)
    if history and "history" not in kept:
        table = recordings.with_history(table, history)
    return recordings.as_read(table, images, path).to_pylist()


def _images(folder: Path) -> str | None:
    """Which image tokenizer a checkpoint or the data of a run carries."""
    carried = imagetokens.carried(folder)
    return imagetokens.fingerprint(carried) if carried else None


def _draw(rows: Rows, most: int, seed: int) -> Rows:
    """As a run draws its test rows, so that the same rows are met again."""
    if not most or len(rows) <= most:
        return rows
    picked = np.random.default_rng(seed).permutation(len(rows))[:most]
    return [rows[i] for i in sorted(picked)]


def _measure(
    model: ForwardModel | InverseModel,
    rows: Rows,
    labelled: bool,
    max_new_tokens: int | None,
    encoder: similarity.Encoder | None,
    judge: Judge | None,
) -> tuple[Rows, list[str]]:
    """The baseline's rows and the model's own, and the model's predictions."""
    recipe, title = model.recipe, f"eval {model.role}"
    if not labelled:  # the cycle wants the inferred actions and nothing else
        return [], _inferred(model, rows, max_new_tokens, title) if isinstance(model, InverseModel) else []
    majority = metrics.majority_action([row["action"] for row in rows])
    copied = held_out.baselines(rows, majority)[model.role]
    base = held_out.results(model.role, rows, copied, None, encoder, model.scorer.images, baseline=True)
    limit = _limit(model, rows, max_new_tokens)
    found, predictions = held_out.measure(model.role, model.scorer, rows, recipe, limit, title, encoder)
    _warn_of_cut_off(model, found, limit)
    images = model.scorer.images
    draw = partial(imagetokens.drawn, images) if images else None
    found += judge.results(model.role, rows, predictions, draw) if judge else []
    named = [{"model": held_out.BASELINES[model.role], **row} for row in base]
    return named + [{"model": str(model.checkpoint), **row} for row in found], predictions


def _warn_of_cut_off(model: ForwardModel | InverseModel, found: Rows, limit: int) -> None:
    cut = next(row for row in found if row["metric"] == held_out.CUT_OFF[model.role])
    if cut["value"] > CUT_OFF:
        logger.warning(
            "%s model: %.0f %% of %d replies were cut off at %d tokens; allow more with --max-new-tokens N, or, where "
            "it thinks aloud, switch that off with --template KEY=VALUE, as its chat template wants",
            *(model.role, 100 * cut["value"], cut["n"], limit),
        )


def _inferred(model: InverseModel, rows: Rows, max_new_tokens: int | None, title: str) -> list[str]:
    replies = labelling.infer(
        model.scorer,
        rows,
        max_new_tokens=_limit(model, rows, max_new_tokens) if max_new_tokens else model.action_limit,
        style=model.spec.prompt,
        template=model.spec.chat_template_kwargs,
        batch=model.recipe.evaluation.batch,
        title=title,
    )
    return [group[0] for group in replies]


def _cycle(model: ForwardModel, rows: Rows, inferred: list[str], max_new_tokens: int | None) -> Rows:
    found = held_out.cycle(model.scorer, rows, inferred, model.recipe, _limit(model, rows, max_new_tokens))
    return [{"model": CYCLE, **row} for row in found]


def _limit(model: ForwardModel | InverseModel, rows: Rows, asked: int | None) -> int:
    """Token limit of a reply: as asked, or the longest recorded one and a quarter more, for runaway replies cost time.

    Raises:
        InputError: A row exceeds what the model reads, or what is asked for exceeds it after the longest prompt.
    """
    spec, longest, room = model.spec, 0, model.max_length
    for row in rows:
        known = {**row, "action": row["action"] or ""}
        prompt, reply = prompts.encode(
            model.scorer.tokenizer, model.role, known, spec.prompt, model.max_length, **spec.chat_template_kwargs
        )
        longest, room = max(longest, len(reply)), min(room, model.max_length - len(prompt))
    if asked and asked > room:
        raise InputError(
            f"--max-new-tokens {asked}: the {model.role} model reads {model.max_length} tokens, and the longest prompt "
            f"leaves {room} of them; give at most that"
        )
    return asked or longest + longest // 4 + (1 if model.role == "forward" else 8)


def _count(metric: str, value: int, n: int | None = None) -> dict[str, Any]:
    return {"model": RECORDING, **result("both", metric, value, None, None, value if n is None else n)}


def show(rows: Rows, as_json: bool = False) -> None:
    """Print what `evaluate` gave: JSON, or a table per role with the baseline beside the model, and one of both."""
    if as_json:
        print(json.dumps(rows))
        return
    one_step = [row for row in rows if suite.part_of(row) is None]
    roles: tuple[Role, ...] = ("forward", "inverse")
    for role in roles:
        mine = [row for row in one_step if row["role"] == role]
        base = {row["metric"]: row["value"] for row in mine if row["model"] == held_out.BASELINES[role]}
        found = [row for row in mine if row["model"] != held_out.BASELINES[role]]
        if found:
            cells = [[r["metric"], base.get(r["metric"]), r["value"], interval(r), r["n"]] for r in found]
            columns = ["metric", held_out.BASELINES[role], "model", "95 %", "rows"]
            progress.table(f"{role.capitalize()} model: {found[0]['model']}", columns, cells)
    for title, model in (("Both models", CYCLE), ("Recording", RECORDING)):
        mine = [row for row in one_step if row["model"] == model]
        if mine:
            cells = [[row["metric"], row["value"], interval(row), row["n"]] for row in mine]
            progress.table(title, ["metric", "value", "95 %", "rows"], cells)
    suite.show(rows)

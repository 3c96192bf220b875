"""The chapters of a report for whoever uses the model: risks, limits, how to run it again."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from search.page.article import (
    SIGNIFICANT,
    UNKNOWN,
    Block,
    Bullets,
    Chapter,
    Definitions,
    ReportContent,
    Text,
    counted,
    listed,
    often,
    share,
    span,
)
from search.records import (
    State,
    Verdict,
)
from search.selection import points

FEW_TEST_IMAGES = 30
LOW_RECALL = 0.8
WIDE_INTERVAL = 0.02
POOR_CALIBRATION = 0.05
LARGE_GAP = 0.05


def model(content: ReportContent) -> Iterator[Chapter]:
    """The facts of a model card: what it is, takes and gives, what it learnt and was judged on."""
    recommendation, verdict = content.recommendation, content.verdict
    if recommendation is None or verdict is None:
        return
    winner, facts = recommendation.winner, content.facts
    details = [
        ("model", f"a Keras network, {winner.config.summary}; {winner.parameters:,} parameters"),
        ("developed by", f"study {content.study}{_made(content)}"),
    ]
    if content.model is not None:
        details.append(("in MLflow", content.model.uri))
    data = f"{facts.get('data', 'the data set')}, fingerprint {facts.get('fingerprint', UNKNOWN)}"
    details += [
        ("input", f"raw images, float32 (n, {_shape(facts)}), as they are in the data set"),
        ("output", f"a probability for each of {listed(content.classes)}; the largest decides"),
        ("training data", f"{_images(facts, 'train')} train images of {data}"),
        (
            "validation data",
            f"{_images(facts, 'validation')} validation images in each of "
            f"{counted(len(winner.accuracies), 'run')}, drawn anew for each",
        ),
        (
            "evaluation data",
            f"{verdict.images:,} locked test images, fingerprint "
            f"{facts.get('test_fingerprint', UNKNOWN)}, opened {often(verdict.openings)} so far",
        ),
        (
            "metrics",
            "accuracy and recall of each class with 95% Wilson intervals, exact McNemar tests "
            "against its rivals, F1, ROC AUC, expected calibration error",
        ),
        (
            "factors",
            "the classes; nothing else is recorded of the images that could be looked at apart",
        ),
    ]
    yield Chapter(
        "model",
        "The model",
        [
            Definitions(details),
            Text(
                "This chapter and the next hold what a model card does (Mitchell and others, "
                "Model Cards for Model Reporting, 2019).",
                tone="fine",
            ),
        ],
    )


def _made(content: ReportContent) -> str:
    """When, and with what."""
    trial = content.shipped_trial
    ended = trial.ended_ms if trial else None
    when = f", trained on {datetime.fromtimestamp(ended / 1000, UTC):%Y-%m-%d}" if ended else ""
    versions = content.facts.get("versions")
    podium = versions.get("podium-search") if isinstance(versions, Mapping) else None
    return f"{when}, with Podium {podium}" if podium else when


def _shape(facts: Mapping[str, Any]) -> str:
    return ", ".join(map(str, facts.get("image_shape", ()))) or "height, width, channels"


def _images(facts: Mapping[str, Any], part: str) -> str:
    count = facts.get(f"{part}_images")
    return f"{count:,}" if isinstance(count, int) else "the"


def risks(content: ReportContent) -> Iterator[Chapter]:
    """What the figures warn of, what the model is for, and what it is not for."""
    found = [*_test_risks(content), *_validation_risks(content), *_general_risks(content)]
    shape = " x ".join(map(str, content.facts.get("image_shape", ()))) or "the trained size"
    classes, data = content.classes, content.facts.get("data", "this data set")
    use = (
        f"It is meant for images like those of {data}, {shape}, that show one of "
        f"{listed(classes) if classes else 'its classes'}."
    )
    out = [
        f"Images of another size than {shape}, of another source, or prepared in another way: "
        "nothing here says how it does on them.",
        "Images that show none of its classes: it names one all the same, sometimes surely.",
        "Decisions about people: the data has no groups to compare, so that nothing is known of "
        "fairness between them.",
    ]
    blocks: list[Block] = [
        Text(f"Intended use. {use}"),
        Text("Risks that the figures of this study show:"),
        Bullets(found),
        Text("Not for:"),
        Bullets(out),
    ]
    yield Chapter("risks", "Intended use, risks, and what it is not for", blocks)


def _test_risks(content: ReportContent) -> Iterator[str]:
    verdict = content.verdict
    if verdict is None:
        yield "There is no unbiased figure: the test split was not used for a verdict."
        return
    accuracy = verdict.tested.accuracy
    if accuracy.high - accuracy.low > WIDE_INTERVAL:
        yield (
            f"The test split is small, {verdict.images:,} images: the accuracy is known to lie "
            f"between {span(accuracy).replace(' to ', ' and ')}."
        )
    if verdict.openings > 1:
        yield f"The test split was opened {verdict.openings} times, so its figures lean upward."
    for contest in verdict.contests:
        if not contest.adjusted_p < SIGNIFICANT and contest.difference.low < 0:
            low = points(-contest.difference.low)
            yield (
                f"It may be up to {low} less accurate than the {contest.rival} (lower end of the "
                "95% interval on the test images)."
            )
        elif contest.adjusted_p < SIGNIFICANT and contest.difference.value < 0:
            yield f"It is less accurate than the {contest.rival}, by more than chance explains."
    yield from _class_risks(verdict, content.classes)
    error = verdict.tested.measures.calibration_error
    if error > POOR_CALIBRATION:
        yield (
            f"Its probabilities are off by {share(error)} on average: calibrate them before a "
            "threshold or a cost is based on them."
        )
    recommendation = content.recommendation
    if recommendation is not None and recommendation.winner.mean > accuracy.high:
        yield (
            f"Validation ({share(recommendation.winner.mean)}) lies above the interval of the test "
            "split: the test images are harder, or different."
        )


def _class_risks(verdict: Verdict, classes: Sequence[str]) -> Iterator[str]:
    recalls, accuracy = verdict.tested.recalls, verdict.tested.accuracy.value
    known = [c for c in range(len(recalls)) if not math.isnan(recalls[c].value)]
    low = [c for c in known if recalls[c].value < LOW_RECALL or recalls[c].high < accuracy]
    low.sort(key=lambda c: (recalls[c].value, c))
    if low:
        named = listed([f"{classes[c]} ({share(recalls[c].value)})" for c in low])
        which = (
            "no class often" if len(low) == len(known) else "some classes less often than others"
        )
        yield f"It finds {which}: {named}."
    rare = [c for c in known if sum(verdict.tested.measures.confusion[c]) < FEW_TEST_IMAGES]
    if rare:
        named = listed([classes[c] for c in rare])
        yield f"Fewer than {FEW_TEST_IMAGES} test images each, so that recall is a guess: {named}."
    missing = [classes[c] for c in range(len(recalls)) if math.isnan(recalls[c].value)]
    if missing:
        yield f"The test split has no image of {listed(missing)}: nothing is known of them."


def _validation_risks(content: ReportContent) -> Iterator[str]:
    recommendation = content.recommendation
    if recommendation is None:
        return
    winner = recommendation.winner
    if winner.gap > LARGE_GAP:
        yield (
            f"It is {points(winner.gap)} more accurate on training than on validation images: it "
            "has learned some of them by heart."
        )
    if len(winner.accuracies) < 5:
        runs = counted(len(winner.accuracies), "run")
        yield f"Only {runs} of each candidate confirm the choice: its spread is barely known."


def _general_risks(content: ReportContent) -> Iterator[str]:
    failed = sum(t.state is State.FAILED for t in content.searched)
    if failed:
        total = counted(len(content.searched), "trial")
        yield f"{failed:,} of {total} of the search failed: part of the space is untried."
    commit = str(content.facts.get("git_commit", ""))
    if commit in ("", "unknown") or commit.endswith("+"):
        yield "The code is not a committed version: running it again may give something else."
    if content.champion_note:
        yield "It was not compared with the champion on the same images."
    yield (
        "All figures come from one data set, split at random: they say nothing of images that are "
        "taken later, elsewhere, or with another device, nor of noise and tampering."
    )


def reproduction(content: ReportContent) -> Iterator[Chapter]:
    """How to run it again, promote it, take it back, and load it."""
    blocks: list[Block] = [Text("The study, from the folder that holds its data:", content.command)]
    seed = content.settings.get("seed", content.facts.get("seed"))
    if seed is not None:
        blocks.append(
            Text(
                f"Seed {seed} decides the data split, the first proposals and the seeds of trials. "
                "With several trials at once, which of them ends first depends on the machine, and "
                "with it what is stopped and proposed next: the search may take another course."
            )
        )
    if content.recommendation is not None:
        config = content.recommendation.winner.config
        blocks.append(Text("The recommended configuration, exactly:", config.canonical_json))
    if content.verdict is not None:
        name = content.model.name if content.model else ""
        blocks += [
            Text(
                "Make the model the champion, if what must hold for that (the gates of "
                "mlflow.yaml) holds:",
                _command("promote", content.study),
            ),
            Text("Take that back:", _command("rollback", name) if name else "podium rollback"),
        ]
    blocks += _loading(content)
    facts = [(key.replace("_", " "), stated(value)) for key, value in content.facts.items()]
    if facts:
        blocks.append(Definitions(facts))
    yield Chapter("reproduce", "Reproduce, promote, roll back", blocks)


def _command(verb: str, name: str) -> str:
    return f"podium {verb} {shlex.quote(name)}"


def _loading(content: ReportContent) -> Iterator[Block]:
    shape = _shape(content.facts)
    if content.model is not None:
        yield Text("The model in MLflow:", f"mlflow.pyfunc.load_model({content.model.uri!r})")
    if content.model_file is not None:
        yield Text("Its file on the machine of the study:", str(content.model_file))
    if content.model is not None or content.model_file is not None:
        yield Text(
            f"It takes raw images, float32 (n, {shape}), as they are in the data set: scaling is "
            f"inside. It gives a probability for each of {len(content.classes)} classes."
        )


def stated(value: object) -> str:
    """A fact as text; lists of names shortened."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {stated(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        words = [str(item) for item in value]
        numeric = all(isinstance(item, int | float) for item in value)
        return " x ".join(words) if numeric else listed(words) if words else "none"
    return str(value)

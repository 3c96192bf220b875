"""The chapters of a report on what was measured: on the test split, on all splits, as costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from search.page.article import (
    UNKNOWN,
    Block,
    Cell,
    Chapter,
    ReportContent,
    Table,
    Text,
    chance,
    change,
    change_span,
    columns,
    latency,
    listed,
    name_of,
    often,
    row,
    share,
    size,
    span,
)
from search.records import (
    Recommendation,
    Verdict,
)


def test_split(content: ReportContent) -> Iterator[Chapter]:
    """The recommended model against baseline and champion on the same test images."""
    verdict = content.verdict
    if verdict is None:
        if content.champion_note or content.openings:
            blocks = [*_champion(content), *_openings(content, len(content.openings))]
            yield Chapter("test", "On the test images", blocks)
        return
    blocks = [*_shipped(content), _score_table(verdict)]
    if verdict.contests:
        blocks.append(_contest_table(verdict))
    blocks += _champion(content)
    blocks += _openings(content, verdict.openings)
    yield Chapter("test", "On the test images, against champion and baseline", blocks)


def _shipped(content: ReportContent) -> Iterator[Block]:
    """Of a configuration's runs, one is the model."""
    trial = content.shipped_trial
    if trial is None or trial.totals is None:
        return
    others = ""
    if content.recommendation is not None and not content.recommendation.winner.is_baseline:
        others = " The baseline's was chosen from its runs in the same way."
    yield Text(
        "What was tested here, and is registered, is one trained model of the recommended "
        f"configuration: that of trial {trial.number}, the run with the best validation accuracy "
        f"({share(trial.val_accuracy)}, epoch {trial.totals.best_epoch}, seed {trial.seed}, split "
        f"seed {trial.split_seed}).{others}"
    )


def _score_table(verdict: Verdict) -> Table:
    models = [("recommended", "", verdict.tested)]
    models += [(c.rival, c.name, c.tested) for c in verdict.contests]
    names = ("model", "accuracy", "95% interval", "F1, macro", "AUC, one-vs-rest", "log loss")
    return Table(
        f"Figures on {verdict.images:,} test images",
        columns(*names, "calibration error"),
        [
            row(
                Cell(name, note),
                share(tested.accuracy.value),
                span(tested.accuracy),
                f"{tested.measures.f1_macro:.4f}",
                UNKNOWN
                if tested.measures.roc_auc_ovr != tested.measures.roc_auc_ovr
                else f"{tested.measures.roc_auc_ovr:.4f}",
                f"{tested.measures.loss:.4f}",
                share(tested.measures.calibration_error),
                marked=not note,
            )
            for name, note, tested in models
        ],
    )


def _contest_table(verdict: Verdict) -> Table:
    names = ("against", "difference", "95% interval", "only recommended right", "only rival right")
    return Table(
        "The recommended model against each rival, image by image (exact McNemar test)",
        columns(*names, "p", "p, Holm-adjusted"),
        [
            row(
                Cell(c.rival, c.name),
                change(c.difference.value),
                change_span(c.difference),
                f"{c.only_recommended_right:,}",
                f"{c.only_rival_right:,}",
                chance(c.p_value),
                chance(c.adjusted_p),
            )
            for c in verdict.contests
        ],
    )


def _champion(content: ReportContent) -> Iterator[Block]:
    champion = content.champion
    if champion is not None:
        source = f", from study {champion.study}" if champion.study else ""
        yield Text(f"The champion at the time was {champion.uri}{source}.")
        if champion.config is None:
            yield Text(
                "Its configuration was not trained again: it is not known, or this space does not "
                "make its network."
            )
    elif content.verdict is not None and not content.champion_note:
        yield Text("There was no champion to compare with.")
    if content.champion_note:
        yield Text(
            f"The champion was not compared: {_sentence(content.champion_note)}", tone="note"
        )


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _openings(content: ReportContent, count: int) -> Iterator[Block]:
    if content.verdict is None:
        own = content.own_openings
        done = "left the test split locked"
        if own:
            done = f"opened the test split {often(own)}, for an earlier verdict, and not again"
        yield Text(f"This study {done}. Other studies opened it: {often(count - own)}.")
    elif count > 1:
        yield Text(
            f"This test split has been opened {count} times. Each further look makes its figures a "
            "little too good, because decisions may have followed the earlier ones: a model chosen "
            "after such a decision has in part been fitted to these images. New test images would "
            "end that.",
            tone="note",
        )
    elif count == 1:
        yield Text("This was the first opening of this test split: its figures are unbiased.")
    if content.openings:
        rows = [
            row(str(number), _time(o.opened_ms), o.study, o.reason)
            for number, o in enumerate(content.openings, 1)
        ]
        names = ("opening", "time (UTC)", "study", "reason")
        yield Table("Openings of this test split", columns(*names, text=(0, 1, 2), wide=(3,)), rows)


def _time(milliseconds_since_1970: int) -> str:
    moment = datetime.fromtimestamp(milliseconds_since_1970 / 1000, UTC)
    return moment.strftime("%Y-%m-%d %H:%M")


def gaps(content: ReportContent) -> Iterator[Chapter]:
    """Accuracy on train, validation and test, and how far they are apart."""
    blocks: list[Block] = [Text(_parts(content.facts))]
    recommendation = content.recommendation
    if recommendation is not None:
        blocks.append(_gap_table(recommendation, content.verdict))
        blocks.append(
            Text(
                "Train and validation are means over the confirmation runs; train is measured "
                "without dropout, on as many training images as there are validation images. A gap "
                "between train and validation is overfitting; one between validation and test is "
                "optimism, or a test split that differs.",
                tone="fine",
            )
        )
    elif content.ranked:
        rows = [
            row(
                f"trial {t.number}",
                share(t.totals.train_accuracy),
                share(t.val_accuracy),
                change(t.totals.gap),
            )
            for t in content.ranked[:5]
            if t.totals
        ]
        names = ("trial", "train", "validation", "gap")
        blocks.append(Table("The best trials, each a single run", columns(*names), rows))
    else:
        return
    yield Chapter("gaps", "Train, validation, test", blocks)


def _parts(facts: Mapping[str, Any]) -> str:
    keys = (("train", "train_images"), ("validation", "validation_images"), ("test", "test_images"))
    sizes = [f"{facts[key]:,} for {name}" for name, key in keys if isinstance(facts.get(key), int)]
    images = f", images: {listed(sizes)}" if sizes else ""
    return f"Data set {facts.get('data', 'unnamed')}{images}."


def _gap_table(recommendation: Recommendation, verdict: Verdict | None) -> Table:
    tests = {}
    if verdict is not None:
        tests = {c.rival: c.tested.accuracy for c in verdict.contests}
    rows = []
    for reasoned in recommendation.ranked:
        candidate = reasoned.candidate
        chosen = candidate is recommendation.winner
        if not (chosen or candidate.is_baseline or candidate.is_champion):
            continue
        test = tests.get("baseline" if candidate.is_baseline else "none")
        if chosen and verdict is not None:
            test = verdict.tested.accuracy
        rows.append(
            row(
                f"{name_of(candidate)}{' (chosen)' if chosen else ''}",
                share(candidate.mean + candidate.gap),
                share(candidate.mean),
                change(candidate.gap),
                share(test.value if test else None),
                change(candidate.mean - test.value if test else None),
                marked=chosen,
            )
        )
    names = ("model", "train", "validation", "train - validation", "test", "validation - test")
    return Table("Accuracy by split", columns(*names), rows)


def costs(content: ReportContent) -> Iterator[Chapter]:
    """Size and latency of the recommended model against the baseline."""
    recommendation = content.recommendation
    if recommendation is None:
        return
    rows = []
    for reasoned in recommendation.ranked:
        candidate, measured = reasoned.candidate, reasoned.candidate.costs
        chosen = candidate is recommendation.winner
        if not (chosen or candidate.is_baseline or candidate.is_champion):
            continue
        rows.append(
            row(
                Cell(f"{name_of(candidate)}{' (chosen)' if chosen else ''}"),
                f"{candidate.parameters:,}",
                size(measured.file_bytes) if measured else UNKNOWN,
                latency(measured.single) if measured else UNKNOWN,
                latency(measured.batch) if measured else UNKNOWN,
                marked=chosen,
            )
        )
    names = ("model", "parameters", "file", "1 image, median", "256 images, median")
    blocks: list[Block] = [Table("What using it costs", columns(*names), rows)]
    if any(r.candidate.costs for r in recommendation.ranked):
        text = "Measured one after the other in one process of the study, on its machine. Another "
        blocks.append(
            Text(f"{text}machine is faster or slower, for both models alike.", tone="fine")
        )
    else:
        blocks.append(Text("File size and latency were not measured.", tone="fine"))
    yield Chapter("costs", "What it costs", blocks)

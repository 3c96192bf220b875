"""The chapters of a report on where the model errs, and how far it knows that."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from search.page import charts
from search.page.article import (
    Block,
    Chapter,
    Charts,
    Pictures,
    ReportContent,
    Table,
    Text,
    columns,
    counted,
    listed,
    row,
    share,
    span,
)
from search.records import (
    Inspected,
    Verdict,
)

if TYPE_CHECKING:
    from search.data import TrainingData

MOST_CLASSES = 100
"""Beyond, only the worst classes are listed."""
WORST_CLASSES = 20
PICTURED_CLASSES = 4
PICTURES_PER_CLASS = 6
THUMBNAIL = 96
PICTURED = (
    "The pictures show mistakes on validation images only, those the model was surest of. Test "
    "images stay unseen: whoever looks at them begins to choose by them."
)


def mistakes(content: ReportContent) -> Iterator[Chapter]:
    """Which classes are mistaken for which, with pictures from the validation split."""
    blocks: list[Block] = []
    classes, verdict = content.classes, content.verdict
    if verdict is not None:
        matrix = verdict.tested.measures.confusion
        if len(matrix) <= MOST_CLASSES:
            blocks.append(Charts([charts.confusion(matrix, classes)]))
        else:
            blocks.append(
                Text(
                    f"{len(matrix)} classes are too many for a picture of the confusion matrix. It "
                    "is whole, with the recall of every class, in evaluation.json, an artifact of "
                    "the run in MLflow of the trial that was tested."
                )
            )
        blocks.append(_confused(matrix, classes))
        blocks.append(_recall_table(verdict, classes))
    if content.inspected is not None and content.training is not None:
        blocks += _pictured(content, content.inspected, content.training)
    if blocks:
        yield Chapter("mistakes", "Where it errs", blocks)


def _confused(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Text:
    cells = [
        (count, i, j)
        for i, line in enumerate(matrix)
        for j, count in enumerate(line)
        if i != j and count
    ]
    top = sorted(cells, key=lambda cell: (-cell[0], cell[1:]))[:3]
    if not top:
        return Text("It makes no mistake on the test split.")
    said = [f"{classes[i]} taken for {classes[j]} ({counted(n, 'image')})" for n, i, j in top]
    return Text(f"Its most frequent mistakes on the test split: {listed(said)}.")


def _recall_table(verdict: Verdict, classes: Sequence[str]) -> Table:
    """Each class, worst first; of very many only the worst."""
    measures, recalls = verdict.tested.measures, verdict.tested.recalls
    order = sorted(
        range(len(recalls)),
        key=lambda c: (math.isnan(recalls[c].value), recalls[c].value, c),
    )
    many = len(order) > MOST_CLASSES
    shown = order[:WORST_CLASSES] if many else order
    rows = [
        row(
            classes[c],
            f"{sum(measures.confusion[c]):,}",
            share(recalls[c].value),
            span(recalls[c]),
            share(measures.precision[c]),
        )
        for c in shown
    ]
    title = (
        f"The {len(shown)} classes of {len(order)} with the lowest recall"
        if many
        else ("Classes on the test split, lowest recall first")
    )
    names = ("class", "test images", "recall: found", "95% interval", "precision: right when said")
    return Table(title, columns(*names), rows)


@dataclass(frozen=True, slots=True)
class _Mistakes:
    """Of one class on validation: positions in the split, the surest first, and how many images."""

    label: int
    rows: NDArray[np.intp]
    images: int

    @property
    def rate(self) -> float:
        return len(self.rows) / self.images


def _pictured(
    content: ReportContent, inspected: Inspected, training: TrainingData
) -> Iterator[Block]:
    labels, probabilities = training.labels[inspected.validation], inspected.val_probabilities
    predicted, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    found = []
    for label in range(len(training.classes)):
        wrong = np.flatnonzero((labels == label) & (predicted != label))
        if len(wrong):
            surest = wrong[np.argsort(-sure[wrong], kind="stable")]
            found.append(_Mistakes(label, surest, int((labels == label).sum())))
    if not found:
        yield Text("On the validation split the model makes no mistake to show.")
        return
    worst = sorted(found, key=lambda m: (-m.rate, m.label))[:PICTURED_CLASSES]
    for mistake in worst:
        name = training.classes[mistake.label]
        pictures = []
        for position in mistake.rows[:PICTURES_PER_CLASS]:
            said = training.classes[int(predicted[position])]
            image = training.images[inspected.validation[position]]
            alt = (
                f"Validation image of {name}, taken for {said} with {sure[position]:.0%} confidence"
            )
            lines = (f"true: {name}", f"said: {said}", f"{sure[position]:.0%} sure")
            pictures.append((data_uri(image, training.images), alt, lines))
        title = (
            f"{name}: {counted(len(mistake.rows), 'mistake')} in "
            f"{counted(mistake.images, 'validation image')}"
        )
        yield Pictures(title, pictures, PICTURED if mistake is worst[0] else "")


def data_uri(image: NDArray[Any], pool: NDArray[Any]) -> str:
    """A PNG of an image (h, w, c), as bright as the pool's range of values makes it."""
    from PIL import Image

    sample = pool[:1000]
    low, high = min(0.0, float(sample.min())), float(sample.max())
    scaled = np.clip((image.astype(np.float32) - low) / max(high - low, 1e-12), 0.0, 1.0)
    pixels = (255 * scaled + 0.5).astype(np.uint8)
    pixels = pixels if pixels.shape[2] == 3 else pixels.mean(axis=2).astype(np.uint8)
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def calibration(content: ReportContent) -> Iterator[Chapter]:
    """How far the model's probabilities can be taken at their word."""
    blocks: list[Block] = []
    if content.verdict is not None:
        error = content.verdict.tested.measures.calibration_error
        blocks.append(
            Text(
                f"On the test split the expected calibration error is {share(error)}: by so much, "
                "on average over the images, the model is surer, or less sure, than it is right "
                "(15 bins, Guo et al. 2017)."
            )
        )
    if content.inspected is not None and content.training is not None:
        inspected = content.inspected
        if len(inspected.validation):
            labels = content.training.labels[inspected.validation]
            chart = charts.reliability_diagram(inspected.val_probabilities, labels)
            note = (
                f"{chart.description} It is drawn from the validation split, on which the best "
                "epoch was chosen; bars below the dashed line are classes of answers that the "
                "model is too sure of."
            )
            blocks.append(Charts([chart], note))
    if blocks:
        yield Chapter("calibration", "How far its confidence can be trusted", blocks)

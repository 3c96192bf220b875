from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections import Counter
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from search.data import TrainingData
from search.page.article import ReportContent
from search.page.mistakes import MOST_CLASSES, data_uri
from search.page.searched import BEST_TRIALS
from search.records import ConstraintsUnmet, Criteria, Interval, Opening, Phase, State, TrialRecord
from search.registry import RegisteredModel
from search.report import count_trials, write_report
from search.selection import recommend
from spaces.config import TrialConfig
from tests.builders import make_config, make_inspected, make_measures, make_totals, make_trial
from tests.pages import (
    make_candidates,
    make_confirmations,
    make_content,
    make_contest,
    make_decision,
    make_search,
    make_verdict,
)

SCRIPT = "<script>alert(1)</script>"
BOTH = pytest.mark.parametrize("kind", [0, 1], ids=["markdown", "html"])
SEARCH_ONLY: dict[str, Any] = {"recommendation": None, "verdict": None, "champion": None}
CHAPTERS = [
    "The decision",
    "On the test images, against champion and baseline",
    "Train, validation, test",
    "What was searched",
    "Which hyperparameters mattered",
    "Where it errs",
    "How far its confidence can be trusted",
    "What it costs",
    "The model",
    "Intended use, risks, and what it is not for",
    "What would change the decision",
    "Reproduce, promote, roll back",
]


class Page(HTMLParser):
    """A page's tags, text, headings, tables and charts; fails on a tag that is not closed."""

    VOID = ("meta", "br", "img", "link")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.cells: list[dict[str, str | None]] = []
        self.ids: list[str] = []
        self.policy = self.words = ""
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(html)
        self.close()
        assert not self.open
        self.text = " ".join(self.words.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags[tag] += 1
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag == "meta" and given.get("http-equiv") == "Content-Security-Policy":
            self.policy = str(given["content"])
        if tag == "script":
            self.scripts.append((given, ""))
        if tag in ("h1", "h2", "h3"):
            self.headings.append(tag)
        if tag == "img":
            self.images.append(given)
        if tag == "th":
            self.cells.append(given)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            given, text = self.scripts[-1]
            self.scripts[-1] = (given, text + data)
        elif self.open[-1:] != ["style"]:
            self.words += data

    @property
    def drawn(self) -> dict[str, Any]:
        """The figures by the id of their chart."""
        [found] = [text for given, text in self.scripts if given.get("id") == "drawn"]
        return {chart["id"]: chart["figure"] for chart in json.loads(found)}


def written(folder: Path, content: ReportContent | None = None, **values: Any) -> tuple[str, str]:
    """The page as Markdown and as HTML."""
    markdown, html = write_report(content or make_content(**values), folder)
    return markdown.read_text(encoding="utf-8"), html.read_text(encoding="utf-8")


def said(folder: Path, kind: int, **values: Any) -> str:
    """What people read of a page, in one line."""
    page = written(folder, **values)[kind]
    return Page(page).text if kind else " ".join(unescape(page).replace("**", "").split())


def table(markdown: str, title: str) -> list[list[str]]:
    """The rows of the table under that title, without its head."""
    _, found, after = markdown.partition(f"### {title}\n")
    assert found, title
    lines = after.split("\n### ")[0].split("\n## ")[0].splitlines()
    rows = [line.strip().strip("|").split("|") for line in lines if line.startswith("|")]
    assert len({len(cells) for cells in rows}) == 1
    return [[cell.strip() for cell in cells] for cells in rows][2:]


# The two files


def test_both_files_are_written_where_they_are_said_to_be(tmp_path: Path) -> None:
    markdown, html = write_report(make_content(), tmp_path)
    assert (markdown, html) == (tmp_path / "report.md", tmp_path / "report.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.md"]
    assert markdown.read_text().startswith("# digits-1\n")
    assert html.read_text().startswith("<!doctype html>")


def test_writing_again_replaces_the_old_page(tmp_path: Path) -> None:
    written(tmp_path, study="the-older-one")
    assert "the-older-one" not in "".join(written(tmp_path))


@BOTH
def test_the_chapters_come_in_their_order(tmp_path: Path, kind: int) -> None:
    page = written(tmp_path)[kind]
    found = re.findall(r"^## (.*)$|<h2>(.*)</h2>", page, re.MULTILINE)
    assert [a or b for a, b in found] == CHAPTERS


def test_both_files_have_the_same_tables(tmp_path: Path) -> None:
    markdown, html = written(tmp_path)
    rows = [line for line in markdown.splitlines() if line.startswith("| ")]
    page = Page(html)
    # A Markdown table has one row of dashes more.
    assert page.tags["table"] == markdown.count("\n### ") > 10
    assert page.tags["tr"] == len(rows) - page.tags["table"]


# The first screen


@BOTH
def test_the_page_begins_with_verdict_certainty_figures_and_next_step(
    tmp_path: Path, kind: int
) -> None:
    text = said(tmp_path, kind)
    front = text[text.index("Ship what") : text.index("Policy one-standard-error")]
    order = [
        make_verdict().headline,
        "The evidence does not separate the recommended one from 1 other candidate:",
        "The test images do not settle whether it is better than the baseline "
        "(+1.39 points, 95% interval -0.61 to +3.39).",
        "On the test images it is more accurate than the champion "
        "(+4.17 points, 95% interval +1.39 to +6.94), beyond chance.",
        "Right on test images",
        "on 360 images kept aside, looked at 2 times by now",
        "Against the baseline",
        "chance could explain it",
        "18,195",
        "1.9 times the baseline's 9,610",
        "1.6 ms",
        "podium promote digits-1",
    ]
    places = [front.index(words) for words in order]
    assert places == sorted(places)


@BOTH
def test_the_first_paragraph_names_what_the_evidence_does_not_separate(
    tmp_path: Path, kind: int
) -> None:
    made = make_decision(chosen=0)
    assert made.unseparated == (make_candidates()[1].config.config_id,)
    text = said(tmp_path, kind, recommendation=made)
    assert "The evidence does not separate the recommended one from 1 other candidate:" in text
    baseline, champion = (
        next(r.candidate.config.config_id for r in made.ranked if getattr(r.candidate, role))
        for role in ("is_baseline", "is_champion")
    )
    text = said(tmp_path, kind, recommendation=replace(made, unseparated=(baseline, champion)))
    assert "from the champion's configuration and the baseline: 5 repeated" in text
    clear = said(tmp_path, kind, recommendation=replace(made, unseparated=()))
    assert (
        "was more accurate than every other candidate, over each with a probability of at least "
        "95.00%" in clear
    )
    assert "does not separate" not in clear


def test_a_winner_that_is_surely_less_accurate_is_said_to_be(tmp_path: Path) -> None:
    made = make_decision(chosen=3)
    # The means are 98.26% and 96.26%.
    assert "the baseline was 2.000 points less accurate than configuration" in said(
        tmp_path, 0, recommendation=made
    )


def test_the_best_that_limits_allow_is_not_called_better_than_what_they_rule_out(
    tmp_path: Path,
) -> None:
    made = make_decision(chosen=1)
    ranked = (replace(made.ranked[0], allowed=False), *made.ranked[1:])
    text = said(tmp_path, 0, recommendation=replace(made, ranked=ranked, unseparated=()))
    assert "more accurate than every other candidate that the limits allow" in text


def test_a_choice_that_is_surely_not_the_best_that_limits_allow_is_not_called_that(
    tmp_path: Path,
) -> None:
    made = make_decision(chosen=3)
    ranked = (replace(made.ranked[0], allowed=False), *made.ranked[1:])
    text = said(tmp_path, 0, recommendation=replace(made, ranked=ranked, unseparated=()))
    # The means are 98.14% and 96.26%.
    assert "the baseline was 1.880 points less accurate than configuration" in text
    assert "every other candidate" not in text


def test_the_only_candidate_that_the_limits_allow_is_not_compared_with_nobody(
    tmp_path: Path,
) -> None:
    made = make_decision(chosen=1)
    ranked = tuple(replace(r, allowed=n == 1) for n, r in enumerate(made.ranked))
    text = said(tmp_path, 0, recommendation=replace(made, ranked=ranked, unseparated=()))
    assert "Nothing else that the limits allow was confirmed than configuration" in text
    assert "every other candidate" not in text


def test_the_first_screen_says_what_the_repeated_runs_say_of_the_baseline(tmp_path: Path) -> None:
    text = said(tmp_path, 0)
    assert (
        "By these runs, the probability that it is better than the baseline, the plain network "
        "that all is measured against, is 85.00% (+1.88 points, 95% interval +2.42 to +3.34)."
        in text
    )


@BOTH
def test_a_model_that_is_not_registered_is_delivered_before_it_is_promoted(
    tmp_path: Path, kind: int
) -> None:
    text = said(tmp_path, kind, model=None, trouble="MLflow does not have everything: refused")
    front = text[: text.index("The decision", text.index("Next: "))]
    # It stays true once `podium sync` has been run.
    assert "when this page was made, MLflow did not have the model" in front
    assert front.index("podium sync digits-1") < front.index("podium promote digits-1")
    assert "MLflow does not have everything: refused" in text


@BOTH
def test_a_promotion_that_would_be_refused_is_not_the_next_step(tmp_path: Path, kind: int) -> None:
    sentence = "The size of the model's file is 2.00 MB; at most 1.00 MB is asked."
    text = said(tmp_path, kind, refusing=[sentence])
    assert f"It would not be promoted as it is: {sentence} To promote it all the same" in text
    assert "Next: make it the champion" not in text


def test_the_model_that_was_tested_is_named_with_its_seeds(tmp_path: Path) -> None:
    text = said(tmp_path, 0)
    # Of the runs of the second candidate: the fourth.
    assert "that of trial 113, the run with the best validation accuracy (98.30%" in text
    assert "seed 9003, split seed 8003" in text
    assert make_candidates()[1].config.canonical_json in written(tmp_path)[1].replace("&#34;", '"')


# The decision


def test_every_candidate_has_its_row_with_its_reason(tmp_path: Path) -> None:
    made = make_decision()
    rows = table(written(tmp_path)[0], "Candidates, by mean validation accuracy")
    assert len(rows) == len(made.ranked) == 4
    for row, reasoned in zip(rows, made.ranked, strict=True):
        candidate = reasoned.candidate
        assert candidate.config.summary in row[0]
        assert row[1] == f"{candidate.mean:.2%}"
        assert row[2] == f"{100 * reasoned.standard_error:.3f} points"
        assert row[3] == f"{candidate.parameters:,}"
        assert row[5] == "+1.200 points"
        assert row[7] == reasoned.reason
    assert [row[4] for row in rows] == ["1.4 ms", "1.6 ms", "1.9 ms", "1.2 ms"]
    assert [row[6] for row in rows] == ["98.96%", "98.73%", "98.61%", "-"]
    assert [("(chosen)" in row[0]) for row in rows].index(True) == made.chosen
    assert rows[3][0].startswith("baseline (")
    assert "champion's configuration" in rows[2][0]


def test_only_the_chosen_row_is_marked(tmp_path: Path) -> None:
    _, html = written(tmp_path)
    before, _, after = html.partition("Candidates, by mean validation accuracy</span>")
    assert before
    assert after.split("</table>")[0].count('<tr class="marked">') == 1


def test_every_run_is_listed_with_its_seeds(tmp_path: Path) -> None:
    rows = table(written(tmp_path)[0], "Single runs and their seeds")
    assert len(rows) == 20
    winner = make_candidates()[0].config.config_id
    assert rows[0] == [winner, "100", "9000", "8000", "98.10%", "+1.200 points"]


def test_comparisons_and_what_other_policies_would_choose_are_told(tmp_path: Path) -> None:
    made = make_decision()
    markdown, _ = written(tmp_path)
    name = made.winner.config.config_id
    rows = table(markdown, f"Configuration {name} against others, on paired validation runs")
    for row, comparison in zip(rows, made.comparisons, strict=True):
        rival = "the champion's configuration, trained again"
        named = rival if comparison.rival == "champion" else comparison.rival
        assert row[0] == f"{named} ({comparison.config_id})"
        assert row[1] == f"{100 * comparison.difference.value:+.3f} points"
        low, high = 100 * comparison.difference.low, 100 * comparison.difference.high
        assert row[2] == f"{low:+.3f} to {high:+.3f} points"
        assert row[3] == f"{comparison.better:.2%}"
        assert row[4:] == [f"{comparison.p_value:.3g}", f"{comparison.adjusted_p:.3g}"]
    others = {row[0]: row[1] for row in table(markdown, "What each policy would choose")}
    assert others.pop("one-standard-error (used)") == name
    assert others.pop("pareto") == "baseline"
    assert others == {"best-mean": make_candidates()[0].config.config_id}


def test_optimism_is_what_the_confirmation_took_away(tmp_path: Path) -> None:
    # 98.73% in the search, 98.14% confirmed.
    text = said(tmp_path, 0)
    assert "scored 98.73% in the search, and 98.14% on average" in text
    assert "the confirmation took away 0.590 points." in text


@BOTH
@pytest.mark.parametrize(
    "policy",
    [
        ("best-mean", "whatever it costs"),
        ("lower-bound", "the highest lower bound of the mean validation accuracy (one-sided, 95%)"),
        ("smallest-gap", "at most 0.500 points below"),
        ("cheapest-within", "the fewest parameters among"),
        ("pareto", "the knee of the front"),
    ],
)
def test_each_policy_is_explained(tmp_path: Path, kind: int, policy: tuple[str, str]) -> None:
    name, words = policy
    text = said(tmp_path, kind, recommendation=make_decision(policy=name))
    assert f"Policy {name}: the" in text
    assert words in text


@BOTH
def test_hard_constraints_are_told(tmp_path: Path, kind: int) -> None:
    made = make_decision()
    ranked = tuple(replace(r, allowed=r.candidate.parameters < 30_000) for r in made.ranked)
    criteria = Criteria(max_params=30_000, max_latency_ms=1.5)
    made = replace(made, ranked=ranked, criteria=criteria)
    text = said(tmp_path, kind, recommendation=made)
    assert "at most 30,000 parameters and at most 1.5 ms for one image" in text
    assert "ruled out by a hard constraint" in text


# The test split


def test_each_model_has_its_figures_on_the_test_split(tmp_path: Path) -> None:
    verdict = make_verdict()
    rows = table(written(tmp_path)[0], "Figures on 360 test images")
    assert [row[0].split(" ")[0] for row in rows] == ["recommended", "baseline", "champion"]
    accuracy = verdict.tested.accuracy
    assert rows[0][1:3] == [
        f"{accuracy.value:.2%}",
        f"{accuracy.low:.2%} to {accuracy.high:.2%}",
    ]
    assert rows[0][3] == f"{verdict.tested.measures.f1_macro:.4f}"
    assert rows[0][6] == f"{verdict.tested.measures.calibration_error:.2%}"


def test_contests_have_counts_and_both_p_values(tmp_path: Path) -> None:
    title = "The recommended model against each rival, image by image (exact McNemar test)"
    rows = table(written(tmp_path)[0], title)
    assert rows[0][1:] == ["+1.390 points", "-0.610 to +3.390 points", "9", "4", "0.267", "0.534"]
    assert rows[1][0] == "champion (models:/podium-digits/3)"
    assert rows[1][5:] == ["0.00261", "0.00522"]


@BOTH
def test_an_opening_after_the_first_is_warned_of(tmp_path: Path, kind: int) -> None:
    warning = "Each further look makes its figures a little too good"
    first = said(tmp_path, kind, verdict=make_verdict(openings=1))
    assert warning not in first
    assert "the first opening of this test split" in first
    assert f"has been opened 2 times. {warning}" in said(tmp_path, kind)


def test_openings_are_listed_oldest_first(tmp_path: Path) -> None:
    rows = table(written(tmp_path)[0], "Openings of this test split")
    assert rows == [
        ["1", "2025-10-09 08:53", "digits-0", "verdict"],
        ["2", "2025-10-10 08:53", "digits-1", "verdict"],
    ]


@BOTH
def test_why_the_champion_was_not_compared_is_told(tmp_path: Path, kind: int) -> None:
    verdict = make_verdict(contests=make_verdict().contests[:1])
    note = "models:/podium-digits/3 was judged on another test split"
    text = said(tmp_path, kind, verdict=verdict, champion_note=note)
    assert f"The champion was not compared: {note}." in text
    assert "not compared with the champion on the same images" in text
    alone = said(tmp_path, kind, verdict=verdict, champion=None)
    assert "There was no champion to compare with." in alone


def test_accuracy_by_split_and_gaps_add_up(tmp_path: Path) -> None:
    rows = table(written(tmp_path)[0], "Accuracy by split")
    test = make_verdict().tested.accuracy.value
    [chosen] = [row for row in rows if "(chosen)" in row[0]]
    assert chosen[1:4] == ["99.34%", "98.14%", "+1.200 points"]
    assert chosen[4:] == [f"{test:.2%}", f"{100 * (0.9814 - test):+.3f} points"]


# The search


def test_rungs_compute_and_savings_are_counted(tmp_path: Path) -> None:
    markdown, _ = written(tmp_path)
    # 24 trials: 6 stopped at epoch 2, 6 at epoch 6, of which 24 and 18 came so far.
    assert table(markdown, "Where trials were stopped") == [
        ["epoch 2", "24", "6", "25.00%"],
        ["epoch 6", "18", "6", "33.33%"],
    ]
    # 6 x 16 + 6 x 12 epochs of 0.25 s were not trained; 6 x 2 + 6 x 6 + 11 x 18 were.
    assert "Stopping early saved 168 epochs, some 42.0 s (40.58% of" in markdown
    # 43 trials with totals took 3.5 s each, 246 epochs 0.25 s each.
    assert "Compute spent: 3 min of the training processes" in markdown
    assert ", 1 min of it in epochs" in markdown
    # The first trial began at 1,000 s, the last run of the confirmation ended at 1,060 s.
    assert "1 min by the clock" in markdown


def test_what_a_time_budget_cut_was_stopped_at_no_rung_and_saved_nothing(tmp_path: Path) -> None:
    content = make_content()
    trials = [replace(t, rung=None) if t.rung == 6 else t for t in content.trials]
    text = said(tmp_path, 0, trials=trials, rungs={2: 24, 6: 12})
    assert "6 stopped early (6 at epoch 2), 6 cut short by the time budget" in text
    assert "Stopping early saved 96 epochs" in text
    assert "epoch 0" not in text
    assert "None" not in text


@pytest.mark.parametrize(
    ("scheduler", "rule"),
    [
        ("asha", "from epoch 2 on, a trial goes on that is among the best 1 of 3 that came"),
        ("hyperband", "from epoch 2 on, in some brackets later, a trial goes on that is among"),
        ("median", "from epoch 2 on, a trial goes on that is not below the median of those"),
    ],
)
def test_each_scheduler_is_told_by_its_own_rule(tmp_path: Path, scheduler: str, rule: str) -> None:
    settings = {**make_content().settings, "scheduler": scheduler}
    assert rule in said(tmp_path, 0, settings=settings)


def test_the_space_is_told_by_its_own_names_and_ranges(tmp_path: Path) -> None:
    ranged = '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, '
    ranged += '"high": 0.3, "log": true}}'
    trials = [
        make_trial(n, val_accuracy=0.9, proposal=json.dumps({"sgd_learning_rate": [rate, ranged]}))
        for n, rate in enumerate((0.01, 0.02, 0.02))
    ]
    markdown, _ = written(tmp_path, trials=trials, epochs={}, **SEARCH_ONLY)
    rows = table(markdown, "The space, and what was tried of it")
    assert rows == [["sgd_learning_rate", "0.001 to 0.3, logarithmic", "0.01 and 0.02", "3"]]


def test_the_best_trials_are_listed_best_first_and_confirmations_are_not(tmp_path: Path) -> None:
    trials = [
        make_trial(0, config=make_config(10), val_accuracy=0.71),
        make_trial(1, config=make_config(11), val_accuracy=0.93),
        make_trial(2, config=make_config(12), val_accuracy=0.55, state=State.STOPPED, rung=2),
        make_trial(3, phase=Phase.CONFIRM, config=make_config(11), val_accuracy=0.999),
    ]
    markdown, _ = written(tmp_path, trials=trials, epochs={}, **SEARCH_ONLY)
    rows = table(markdown, "The best trials of the search")
    assert [row[0] for row in rows] == ["1", "0", "2"]
    assert rows[0][1:] == ["completed", "93.00%", "1,000", "6", make_config(11).summary]
    assert rows[2][1] == "stopped at 2"


def test_no_more_than_the_best_trials_are_listed(tmp_path: Path) -> None:
    many = [make_trial(n, val_accuracy=n / 100) for n in range(BEST_TRIALS + 5)]
    markdown, _ = written(tmp_path, trials=many, epochs={}, **SEARCH_ONLY)
    rows = table(markdown, "The best trials of the search")
    assert [int(row[0]) for row in rows] == list(range(BEST_TRIALS + 4, 4, -1))


def test_a_mean_over_folds_is_shown_with_its_standard_error(tmp_path: Path) -> None:
    totals = make_totals(val_accuracy=0.8, fold_accuracies=(0.7, 0.8, 0.9))
    folded = make_trial(0, totals=totals, folds=3)
    content = ReportContent("s", [folded], {}, None, None, "podium run --folds 3", {}, {})
    for page in written(tmp_path, content):
        # The deviation is 0.1, and 0.1 / sqrt(3) is 5.774 points.
        assert "80.00% (3 folds, standard error 5.774 points)" in page


@BOTH
def test_why_trials_failed_is_told(tmp_path: Path, kind: int) -> None:
    text = said(tmp_path, kind)
    assert "the loss is not finite" in text
    assert "1 of 24 trials of the search failed" in text


# Mistakes, calibration, costs, risks


def test_every_class_has_its_recall_lowest_first(tmp_path: Path) -> None:
    tested = make_verdict().tested
    rows = table(written(tmp_path)[0], "Classes on the test split, lowest recall first")
    assert sorted(row[0] for row in rows) == [str(n) for n in range(10)]
    values = [float(row[2].rstrip("%")) for row in rows]
    assert values == sorted(values)
    for row in rows:
        recall = tested.recalls[int(row[0])]
        assert row[1] == str(sum(tested.measures.confusion[int(row[0])]))
        assert row[3] == f"{recall.low:.2%} to {recall.high:.2%}"
        assert row[4] == f"{tested.measures.precision[int(row[0])]:.2%}"


def test_the_pictures_are_mistakes_of_the_validation_split_and_say_so(tmp_path: Path) -> None:
    content = make_content()
    assert content.training is not None
    assert content.inspected is not None
    page = Page(written(tmp_path, content)[1])
    assert "The pictures show mistakes on validation images only" in page.text
    assert "Test images stay unseen" in page.text
    training, validation = content.training, content.inspected.validation
    known = {data_uri(training.images[i], training.images): int(i) for i in validation}
    predicted = content.inspected.val_probabilities.argmax(axis=1)
    assert page.images
    for image in page.images:
        position = known[str(image["src"])]
        label, answer = training.labels[position], predicted[position - validation[0]]
        assert label != answer
        words = f"Validation image of {label}, taken for {answer} with "
        assert str(image["alt"]).startswith(words)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_picture_is_a_small_png_as_bright_as_its_image(channels: int, kind: Any) -> None:
    image = np.zeros((200, 100, channels), kind)
    image[:100] = 255 if kind is np.uint8 else 1
    uri = data_uri(image, image[None])
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert picture.size == (48, 96)
    assert picture.mode == ("L" if channels == 1 else "RGB")
    assert picture.convert("L").getpixel((24, 10)) == 255
    assert picture.convert("L").getpixel((24, 90)) == 0


def test_calibration_of_the_test_split_stands_beside_the_validation_diagram(tmp_path: Path) -> None:
    page = Page(written(tmp_path)[1])
    error = make_verdict().tested.measures.calibration_error
    assert f"On the test split the expected calibration error is {error:.2%}" in page.text
    assert len(page.drawn["calibration"]["data"]) == 3


def test_costs_are_told_beside_the_baselines(tmp_path: Path) -> None:
    rows = table(written(tmp_path)[0], "What using it costs")
    assert rows[0][1:] == ["18,195", "110.0 kB", "1.6 ms (p99 3.2 ms)", "16 ms (p99 19.2 ms)"]
    assert rows[-1][0] == "baseline"
    assert rows[-1][3] == "1.2 ms (p99 2.4 ms)"


def test_the_model_is_described_as_a_model_card_asks(tmp_path: Path) -> None:
    facts = {
        "data": "digits",
        "fingerprint": "d53f",
        "test_fingerprint": "af35",
        "train_images": 1149,
        "validation_images": 288,
        "versions": {"podium-search": "0.1.0"},
        "image_shape": [8, 8, 1],
    }
    text = said(tmp_path, 0, facts=facts).split("The model")[1].split("Intended use")[0]
    for part in (
        *("18,195 parameters", "with Podium 0.1.0", "float32 (n, 8, 8, 1)"),
        *("1,149 train images of digits, fingerprint d53f", "288 validation images"),
        *("360 locked test images, fingerprint af35, opened 2 times", "Mitchell and others"),
    ):
        assert part in text
    assert "Mitchell" not in said(tmp_path, 0, facts=facts, **SEARCH_ONLY)


def test_risks_follow_from_the_figures(tmp_path: Path) -> None:
    verdict = make_verdict()
    low = Interval(0.61, 0.45, 0.75)
    tested = replace(
        verdict.tested,
        recalls=(low, *verdict.tested.recalls[1:]),
        measures=replace(verdict.tested.measures, calibration_error=0.21),
    )
    text = said(tmp_path, 0, verdict=replace(verdict, tested=tested))
    for risk in (
        "The test split is small, 360 images",
        "The test split was opened 2 times",
        "It may be up to 0.610 points less accurate than the baseline (lower end of the 95% "
        "interval on the test images).",
        "It finds some classes less often than others: 0 (61.00%)",
        "Its probabilities are off by 21.00% on average",
    ):
        assert risk in text
    above = make_contest(
        "baseline", "b", verdict.tested, difference=Interval(0.02, 0.002, 0.04), adjusted_p=0.07
    )
    # Not beyond chance where two comparisons are made, and yet never below.
    assert "It may be up to" not in said(
        tmp_path, 0, verdict=replace(verdict, contests=(above, *verdict.contests[1:]))
    )
    fine = replace(
        tested,
        accuracy=Interval(0.985, 0.984, 0.986),
        recalls=tuple(Interval(0.985, 0.98, 0.99) for _ in range(10)),
        measures=replace(tested.measures, calibration_error=0.01),
    )
    calm = said(tmp_path, 0, verdict=make_verdict(tested=fine, contests=(), openings=1))
    for risk in ("is small", "was opened", "may be up to", "less often than", "are off by"):
        assert risk not in calm


@BOTH
def test_the_page_says_how_to_repeat_promote_take_back_and_load(tmp_path: Path, kind: int) -> None:
    text = said(tmp_path, kind)
    for words in (
        "podium run --data digits --seed 3",
        "Seed 3 decides",
        "podium promote digits-1",
        "podium rollback podium-digits",
        "mlflow.pyfunc.load_model('models:/podium-digits/4')",
        "runs/studies/digits-1/model/data/model.keras",
        "float32 (n, 8, 8, 1)",
        "each of 10 classes",
        "8 x 8 x 1",
        "f667e5a0c0ffee",
        "d53f9a23e51cf8de",
        "python 3.11.7, numpy 2.4",
        "Under best-mean it would be another one.",
    ):
        assert words in text


# What is missing leaves a true and tidy page


@BOTH
def test_a_study_that_only_searched_says_so_and_shows_no_verdict(tmp_path: Path, kind: int) -> None:
    text = said(tmp_path, kind, model=None, model_file=None, openings=(), **SEARCH_ONLY)
    assert "No verdict: this study searched only" in text
    assert "the test split stayed locked" in text
    for part in ("The decision", "McNemar", "Policy", "None", "podium promote", "nan"):
        assert part not in text
    assert "The best of 23 trials is trial" in text
    opened = (Opening("f", "another", "final verdict", 1_700_000_000_000),)
    text = said(tmp_path, kind, model=None, model_file=None, openings=opened, **SEARCH_ONLY)
    assert "This study left the test split locked. Other studies opened it: once." in text
    for untrue in ("its figures are unbiased", "no champion to compare with"):
        assert untrue not in text


@BOTH
def test_who_was_left_out_is_named_in_the_decision_and_counted_before_it(
    tmp_path: Path, kind: int
) -> None:
    sentence = "abc (dense 7): left out: trial 9, seed 3, failed: out of memory."
    text = said(tmp_path, kind, recommendation=replace(make_decision(), left_out=(sentence,)))
    front = text[: text.index("Policy one-standard-error")]
    assert "1 configuration could not be compared, for a training run failed" in front
    assert sentence in text


@BOTH
def test_a_refusal_after_an_earlier_verdict_does_not_deny_that_the_test_images_were_seen(
    tmp_path: Path, kind: int
) -> None:
    with pytest.raises(ConstraintsUnmet) as caught:
        recommend(make_candidates(), Criteria(max_params=10), 0.2)
    nothing: dict[str, Any] = {"model": None, "model_file": None, "refusal": caught.value}
    opened = tuple(
        Opening("f", study, "final verdict", 1_700_000_000_000) for study in ("digits-1", "other")
    )
    text = said(tmp_path, kind, openings=opened, **nothing, **SEARCH_ONLY)
    assert "The test images were not looked at again." in text
    assert "This study opened the test split once, for an earlier verdict, and not again." in text
    assert "Other studies opened it: once." in text
    text = said(tmp_path, kind, openings=opened[1:], **nothing, **SEARCH_ONLY)
    assert "The test images were not looked at." in text
    assert "left the test split locked" in text


@pytest.mark.parametrize(
    ("p_value", "said_of_it"),
    [(0.03, "where two comparisons are made"), (0.0636, "by the exact test")],
)
def test_why_an_interval_without_zero_is_not_beyond_chance(
    tmp_path: Path, p_value: float, said_of_it: str
) -> None:
    verdict = make_verdict()
    contest = make_contest(
        *("baseline", "b", verdict.tested),
        difference=Interval(0.025, 0.0002, 0.0495),
        p_value=p_value,
        adjusted_p=0.0636,
    )
    text = said(tmp_path, 0, verdict=replace(verdict, contests=(contest,)))
    assert f"chance could explain it {said_of_it}" in text
    assert ("of one comparison alone" in text) is (p_value < 0.05)
    assert ("the exact test is more cautious" in text) is (p_value >= 0.05)


@BOTH
def test_where_no_candidate_meets_the_limits_each_says_what_it_lacks(
    tmp_path: Path, kind: int
) -> None:
    criteria = Criteria(max_params=10)
    with pytest.raises(ConstraintsUnmet) as caught:
        recommend(make_candidates(), criteria, 0.2)
    nothing: dict[str, Any] = {"model": None, "model_file": None, "openings": ()}
    text = said(tmp_path, kind, refusal=caught.value, **nothing, **SEARCH_ONLY)
    assert "No recommendation: none of the confirmed candidates meets the limits" in text
    assert "at most 10 parameters" in text
    assert text.count("more than --max-params 10") == len(make_candidates())
    assert f"podium resume digits-1 --max-params {make_candidates()[0].parameters}" in text
    for untrue in ("searched only", "(chosen)", "podium promote", "None", "nan"):
        assert untrue not in text


@BOTH
def test_the_first_screen_says_that_the_champion_was_not_compared(
    tmp_path: Path, kind: int
) -> None:
    text = said(tmp_path, kind, champion_note="the model of models:/m/1 could not be read")
    front = text[: text.index("Policy one-standard-error")]
    note = "It was not compared with the champion: the model of models:/m/1 could not be read."
    assert note in front


@BOTH
def test_confirmed_but_not_judged_is_told_from_searched_only(tmp_path: Path, kind: int) -> None:
    text = said(tmp_path, kind, verdict=None)
    assert "candidates were confirmed, but the test split was not opened" in text
    assert "podium promote" not in text.split("Reproduce, promote")[0]


def nothing() -> ReportContent:
    return ReportContent("empty", [], {}, None, None, "podium run", {}, {})


def one_trial() -> ReportContent:
    return replace(nothing(), trials=[make_trial(0, val_accuracy=0.7)], epochs={0: []})


def all_failed() -> ReportContent:
    failed = [make_trial(n, state=State.FAILED, totals=None, reason="boom") for n in range(3)]
    return replace(nothing(), trials=failed, epochs={0: [], 1: [], 2: []})


def bare() -> ReportContent:
    """Confirmed and judged, and all else missing or not a number."""
    candidates = make_decision().ranked
    ranked = tuple(
        replace(r, candidate=replace(r.candidate, costs=None, gaps=())) for r in candidates
    )
    verdict = make_verdict()
    nan = Interval(float("nan"), float("nan"), float("nan"))
    measures = replace(verdict.tested.measures, roc_auc_ovr=float("nan"), roc_auc_ovo=float("nan"))
    tested = replace(verdict.tested, measures=measures, recalls=(nan, *verdict.tested.recalls[1:]))
    return make_content(
        recommendation=replace(
            make_decision(),
            ranked=ranked,
            comparisons=(),
            alternatives={},
            changes=(),
            optimism=None,
        ),
        verdict=replace(verdict, tested=tested, contests=()),
        epochs={},
        importances={},
        openings=(),
        training=None,
        inspected=None,
        champion=None,
        facts={},
        settings={},
        model=None,
        model_file=None,
    )


def many_classes() -> ReportContent:
    count = MOST_CLASSES + 20
    matrix = (np.eye(count, dtype=int) * 9).tolist()
    matrix[7][8] = 3
    measures = make_measures(
        confusion=tuple(map(tuple, matrix)), precision=(0.9,) * count, recall=(0.9,) * count
    )
    recalls = tuple(Interval(1 - n / 1000, 0.5, 1.0) for n in range(count))
    verdict = make_verdict()
    tested = replace(verdict.tested, measures=measures, recalls=recalls)
    names = [f"class {n}" for n in range(count)]
    return make_content(
        verdict=replace(verdict, tested=tested, contests=()),
        training=None,
        inspected=None,
        facts={"data": "many", "class_names": names, "classes": count},
    )


def no_mistakes() -> ReportContent:
    """Of two classes, of which the model names the first, and all images are of it."""
    images = np.zeros((10, 8, 8, 1), np.float32)
    training = TrainingData("d", images, np.zeros(10, np.int32), ("a", "b"))
    tested = replace(
        make_verdict().tested,
        measures=make_measures(confusion=((10, 0), (0, 10))),
        recalls=(Interval(1.0, 0.7, 1.0),) * 2,
    )
    return make_content(
        training=training, inspected=make_inspected(), verdict=make_verdict(tested=tested)
    )


@pytest.mark.parametrize(
    "make", [nothing, one_trial, all_failed, bare, many_classes, no_mistakes, make_content]
)
def test_whatever_is_missing_leaves_a_tidy_page(tmp_path: Path, make: Any) -> None:
    markdown, html = written(tmp_path, make())
    page = Page(html)
    assert page.headings[:1] == ["h1"]
    assert set(page.headings[1:]) == {"h2"}
    assert len(set(page.ids)) == len(page.ids)
    assert all(cell.get("scope") in ("col", "row") for cell in page.cells)
    for text in (markdown, page.text):
        assert not re.search(r"\b(nan|None|inf|Undefined)\b", text)
    assert "\n\n\n" not in markdown
    assert {f"chart-{name}" for name in page.drawn} == {
        name for name in page.ids if name.startswith("chart-")
    }


def test_a_study_of_which_every_trial_failed_says_why(tmp_path: Path) -> None:
    for page in written(tmp_path, all_failed()):
        assert "No trial reached a result. boom" in page


def test_very_many_classes_are_listed_by_the_worst(tmp_path: Path) -> None:
    markdown, html = written(tmp_path, many_classes())
    assert "120 classes are too many for a picture" in markdown
    assert "confusion" not in Page(html).drawn
    rows = table(markdown, "The 20 classes of 120 with the lowest recall")
    assert [row[0] for row in rows[:2]] == ["class 119", "class 118"]
    assert "class 7 taken for class 8 (3 images)" in markdown


# Charts and safety


def test_each_chart_is_in_the_page_with_what_it_shows(tmp_path: Path) -> None:
    _, html = written(tmp_path)
    page = Page(html)
    names = {name for name in page.drawn if not name.startswith("slice-")}
    assert names == {
        "candidates",
        "importances",
        "learning-curves",
        "parallel-coordinates",
        "confusion",
        "calibration",
    }
    assert sum(name.startswith("slice-") for name in page.drawn) == 8
    assert html.count('role="img" aria-label="') == len(page.drawn)
    # Every search trial with epochs has its line.
    numbers = {
        number
        for trace in page.drawn["learning-curves"]["data"]
        for number in trace.get("customdata", ())
    } - {None}
    assert numbers == set(range(23))
    assert page.drawn["confusion"]["data"][0]["z"] == [
        list(row) for row in make_verdict().tested.measures.confusion
    ]


def test_html_loads_nothing_and_runs_only_its_own_scripts(tmp_path: Path) -> None:
    page = Page(written(tmp_path)[1])
    policy = dict(part.strip().split(" ", 1) for part in page.policy.split(";"))
    running = [text for given, text in page.scripts if given.get("type") is None]
    digests = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in running]
    assert policy["default-src"] == "'none'"
    assert policy["img-src"] == "data:"
    assert policy["script-src"] == " ".join(f"'sha256-{digest}'" for digest in digests)
    assert len(running) == 2
    assert all("src" not in given for given, _ in page.scripts)
    assert sum("plotly.js v" in text[:200] for text in running) == 1
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in page.images)
    html = (tmp_path / "report.html").read_text()
    for _, text in page.scripts:
        html = html.replace(text, "")
    for part in ("http:", "https:", "url(", "@import", "@font-face", "onerror", "onclick"):
        assert part not in html


def test_a_page_without_charts_does_without_plotly(tmp_path: Path) -> None:
    _, html = written(tmp_path, nothing())
    assert len(html) < 50_000


def dangerous(text: str) -> ReportContent:
    """Content with `text` in every place that takes any."""
    content = make_content()
    made = make_decision()
    config = TrialConfig(hidden=(77,), extra={text: text})
    other = TrialConfig(hidden=(76,), extra={text: "a"})
    ranked = tuple(
        replace(
            r,
            reason=text,
            candidate=replace(r.candidate, config=config) if n == made.chosen else r.candidate,
        )
        for n, r in enumerate(made.ranked)
    )
    assert content.training is not None
    assert content.champion is not None
    classes = tuple(f"{text}{n}" for n in range(10))
    verdict = make_verdict(sentence=text, headline=text)
    return replace(
        content,
        study=text,
        trials=[
            make_trial(0, config=config, val_accuracy=0.999),
            make_trial(1, config=other, val_accuracy=0.9),
            make_trial(2, state=State.FAILED, totals=None, reason=text),
            *make_confirmations(make_candidates()),
        ],
        recommendation=replace(
            made, ranked=ranked, summary=text, changes=(text,), alternatives={text: text}
        ),
        verdict=replace(
            verdict, contests=(make_contest("champion", text, verdict.tested), *verdict.contests)
        ),
        command=f"podium run --space {text}",
        settings={"space": text, "sampler": text, "seed": text},
        facts={
            **content.facts,
            "data": text,
            text: "key",
            "versions": {text: text},
            "list": [text],
            "git_commit": text,
        },
        model=RegisteredModel(text, "1", "m-1"),
        model_file=Path(f"folder {text.replace('/', '')}") / "model.keras",
        champion=replace(content.champion, name=text, study=text),
        champion_note=text,
        importances={text: 0.9, "layers": 0.1},
        openings=(Opening("0123", text, text, 1),),
        training=replace(content.training, classes=classes),
        trouble=text,
    )


@pytest.mark.parametrize(
    "text",
    [
        SCRIPT,
        "</script><script>alert(1)</script>",
        "</td></tr></table><h1>",
        "\"><img src=x onerror='alert(1)'>",
        "&lt;b&gt; & <b>",
        "<!--",
    ],
)
def test_html_has_the_same_tags_whatever_names_and_reasons_contain(
    tmp_path: Path, text: str
) -> None:
    harmless = Page(written(tmp_path, dangerous("harmless"))[1])
    _, html = written(tmp_path, dangerous(text))
    page = Page(html)
    assert page.tags == harmless.tags
    assert page.tags["script"] == 3
    assert page.text.count(" ".join(text.split())) > 40
    outside = html
    for _, script in page.scripts:
        outside = outside.replace(script, "")
    assert text not in outside
    assert text not in page.scripts[0][1]
    shown = json.dumps(page.drawn)
    assert text not in shown
    if text == SCRIPT:
        assert "&lt;script&gt;" in shown


@pytest.mark.parametrize(
    "text",
    [
        SCRIPT,
        "a|b|c",
        "`|` | x",
        "two\nlines | and\n\n# heading",
        "[click](javascript:alert(1))",
        "![x](y)",
        "&#124; &lt;b>",
        "a** b \\",
    ],
)
def test_markdown_keeps_its_shape_whatever_names_and_reasons_contain(
    tmp_path: Path, text: str
) -> None:
    harmless, _ = written(tmp_path, dangerous("harmless"))
    markdown, _ = written(tmp_path, dangerous(text))

    def shape(page: str) -> list[str]:
        lines = [line for line in page.splitlines() if not line.startswith("    ")]
        return [f"{line[:2]}{line.count('|')}" if line[:1] in "#|>-" else "" for line in lines]

    assert shape(markdown) == shape(harmless)
    prose = "\n".join(line for line in markdown.splitlines() if not line.startswith("    "))
    assert not re.search(r"[<`\[\]\\]", prose)
    assert unescape(prose).count(" ".join(text.split())) > 40


# The count of trials


def some_trials() -> list[TrialRecord]:
    stopped: dict[str, Any] = {"state": State.STOPPED, "epochs_trained": 2}
    return [
        make_trial(0),
        make_trial(1),
        make_trial(2, rung=2, **stopped),
        make_trial(3, rung=6, **stopped),
        make_trial(4, rung=2, **stopped),
        make_trial(5, state=State.FAILED, totals=None, reason="boom", epochs_trained=0),
        make_trial(6, phase=Phase.CONFIRM),
    ]


def test_trials_are_counted_by_how_they_ended() -> None:
    assert count_trials(some_trials()) == (
        "6 trials: 2 completed, 3 stopped early (2 at epoch 2, 1 at epoch 6), 1 failed. "
        "1 more trained for confirmation. 24 epochs in all."
    )


def test_what_did_not_happen_is_not_counted() -> None:
    assert count_trials([make_trial(0)]) == "1 trial: 1 completed. 6 epochs in all."
    assert count_trials([]) == "0 trials: 0 completed. 0 epochs in all."


def test_a_search_that_is_told_again_is_the_same_to_the_byte(tmp_path: Path) -> None:
    trials, epochs = make_search()
    first = written(tmp_path, trials=trials, epochs=epochs)
    assert written(tmp_path, trials=trials[::-1], epochs=epochs) == first

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from search.records import Interval, Phase, Recommendation, State, TrialRecord, Verdict
from search.registry import RegisteredModel
from search.report import BEST_TRIALS, ReportContent, count_trials, write_report
from spaces.config import TrialConfig
from tests.builders import (
    make_candidate,
    make_config,
    make_measures,
    make_recommendation,
    make_totals,
    make_trial,
)

SCRIPT = "<script>alert(1)</script>"
BASELINE = make_candidate([0.80, 0.81, 0.82], 1_234, is_baseline=True, units=128)
WINNER = make_candidate([0.90, 0.91, 0.92], 56_789)
VERDICT = Verdict(
    accuracy=Interval(0.95, 0.93, 0.97),
    baseline_accuracy=Interval(0.85, 0.82, 0.88),
    measures=make_measures(f1_macro=0.9432),
    only_recommended_right=71,
    only_baseline_right=17,
    p_value=0.00012,
    images=1_360,
    openings=1,
    sentence="Ship the candidate that the verdict names, because it is better.",
)


def trials() -> list[TrialRecord]:
    stopped = {"state": State.STOPPED, "epochs_trained": 2}
    return [
        make_trial(0, config=make_config(10), val_accuracy=0.71),
        make_trial(1, config=make_config(11), val_accuracy=0.93),
        make_trial(2, config=make_config(12), val_accuracy=0.55, rung=2, **stopped),
        make_trial(3, config=make_config(13), val_accuracy=0.56, rung=6, **stopped),
        make_trial(4, config=make_config(14), val_accuracy=0.54, rung=2, **stopped),
        make_trial(5, state=State.FAILED, totals=None, reason="boom", epochs_trained=0),
        make_trial(6, phase=Phase.CONFIRM, config=make_config(11), val_accuracy=0.999),
    ]


def content(**values: Any) -> ReportContent:
    fields: dict[str, Any] = {
        "study": "my-study",
        "trials": trials(),
        "recommendation": make_recommendation(WINNER, BASELINE),
        "verdict": VERDICT,
        "command": "podium run --trials 6 --data digits",
        "facts": {
            "data": "digits",
            "image_shape": [8, 8, 1],
            "classes": 10,
            "versions": {"python": "3.11.7", "numpy": "2.4"},
        },
    }
    return ReportContent(**(fields | values))


def written(folder: Path, **values: Any) -> tuple[str, str]:
    """The page as Markdown and as HTML."""
    markdown, html = write_report(content(**values), folder)
    return markdown.read_text(encoding="utf-8"), html.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Counts the tags of a page and collects its text; fails on a tag that is not closed."""

    VOID = ("meta", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def table_rows(markdown: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in markdown.splitlines()
        if line.startswith("|")
    ]


def test_both_files_are_written_where_they_are_said_to_be(tmp_path: Path) -> None:
    markdown, html = write_report(content(), tmp_path)
    assert (markdown, html) == (tmp_path / "report.md", tmp_path / "report.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.md"]
    assert markdown.read_text().startswith("# my-study\n")
    assert html.read_text().startswith("<!doctype html>")


def test_writing_again_replaces_the_old_page(tmp_path: Path) -> None:
    written(tmp_path)
    markdown, html = written(tmp_path, study="other-study")
    assert "my-study" not in markdown + html


def test_both_pages_begin_with_the_sentence_of_the_verdict(tmp_path: Path) -> None:
    markdown, html = written(tmp_path)
    assert markdown.splitlines()[2] == f"**{VERDICT.sentence}**"
    assert f'<p class="verdict">{VERDICT.sentence}</p>' in html


@pytest.mark.parametrize("kind", [0, 1], ids=["markdown", "html"])
def test_the_page_gives_the_figures_behind_the_verdict(tmp_path: Path, kind: int) -> None:
    page = written(tmp_path)[kind]
    for figure in ("95.00%", "93.00% to 97.00%", "85.00%", "82.00% to 88.00%"):
        assert figure in page
    for sentence in (
        "1,360 images. Only the recommended model is right on 71 of them, only the baseline on 17 "
        "(exact McNemar test: p = 0.00012). F1, macro: 0.9432.",
        "The probability that the recommended configuration is better than the baseline, given "
        "the paired runs, is 100.00%.",
        "Policy: best-mean. This was opening number 1 of this test split.",
    ):
        assert sentence in page


@pytest.mark.parametrize("kind", [0, 1], ids=["markdown", "html"])
def test_an_opening_after_the_first_is_warned_of(tmp_path: Path, kind: int) -> None:
    warning = "each further look makes its figure a little more optimistic"
    assert warning not in written(tmp_path)[kind]
    page = written(tmp_path, verdict=replace(VERDICT, openings=3))[kind]
    assert f"opening number 3 of this test split: {warning}" in page


def test_every_candidate_has_its_row_with_its_reason(tmp_path: Path) -> None:
    recommendation = make_recommendation(WINNER, BASELINE)
    markdown, html = written(tmp_path, recommendation=recommendation)
    rows = {row[0]: row for row in table_rows(markdown)}
    assert rows[WINNER.config.config_id] == [
        WINNER.config.config_id,
        "56,789",
        "91.00%",
        "0.764 points",
        "90.00%, 91.00%, 92.00%",
        "92.00%",
        "Chosen: the best mean.",
    ]
    baseline = [row for row in table_rows(markdown) if row[0] == "baseline"]
    assert baseline[0][1:] == [
        "1,234",
        "81.00%",
        "0.764 points",
        "80.00%, 81.00%, 82.00%",
        "-",
        "Not chosen: 10.000 points below the best mean.",
    ]
    for row in recommendation.ranked:
        assert f"<td>{row.reason}</td>" in html
    assert html.count('<tr class="chosen">') == 1


def test_a_recommended_baseline_is_not_compared_with_itself(tmp_path: Path) -> None:
    recommendation = make_recommendation(make_candidate([0.7, 0.7, 0.8], 9), BASELINE)
    assert recommendation.winner.is_baseline
    for page in written(tmp_path, recommendation=recommendation):
        assert "The probability that" not in page


def test_the_best_trials_are_listed_best_first_and_confirmations_are_not(tmp_path: Path) -> None:
    markdown, _ = written(tmp_path, recommendation=None, verdict=None)
    rows = table_rows(markdown)[2:]
    assert [row[0] for row in rows] == ["1", "0", "3", "2", "4"]
    assert rows[0] == ["1", "completed", "93.00%", "1,000", "6", make_config(11).summary]
    assert rows[2][1] == "stopped at 6"


def test_no_more_than_the_best_trials_are_listed(tmp_path: Path) -> None:
    many = [make_trial(n, val_accuracy=n / 100) for n in range(BEST_TRIALS + 5)]
    markdown, html = written(tmp_path, trials=many, recommendation=None, verdict=None)
    rows = table_rows(markdown)[2:]
    assert [int(row[0]) for row in rows] == list(range(BEST_TRIALS + 4, 4, -1))
    assert Page(html).tags["tr"] == BEST_TRIALS + 1


@pytest.mark.parametrize("kind", [0, 1], ids=["markdown", "html"])
def test_a_study_that_only_searched_says_so_and_shows_no_verdict(tmp_path: Path, kind: int) -> None:
    page = written(tmp_path, recommendation=None, verdict=None)[kind]
    assert "No verdict: this study searched only" in page
    assert "the test split stayed locked" in page
    for part in ("Decision", "On the test split", "McNemar", "Policy", "None"):
        assert part not in page


def test_the_page_of_a_study_without_any_finished_trial_is_written(tmp_path: Path) -> None:
    markdown, html = written(tmp_path, trials=[], recommendation=None, verdict=None)
    assert "0 trials: 0 completed. 0 epochs in all." in markdown
    assert "0 trials: 0 completed. 0 epochs in all." in html


@pytest.mark.parametrize("kind", [0, 1], ids=["markdown", "html"])
def test_the_page_says_how_to_repeat_the_study(tmp_path: Path, kind: int) -> None:
    page = written(tmp_path)[kind]
    assert "podium run --trials 6 --data digits" in page
    assert "8 x 8 x 1" in page
    assert "python 3.11.7, numpy 2.4" in page


@pytest.mark.parametrize("kind", [0, 1], ids=["markdown", "html"])
def test_the_page_says_where_the_model_is_and_what_it_takes(tmp_path: Path, kind: int) -> None:
    assert "The model" not in written(tmp_path)[kind]
    page = written(
        tmp_path,
        model=RegisteredModel("podium", "3", "m-1"),
        model_file=Path("runs/studies/my-study/model.keras"),
    )[kind]
    assert "models:/podium/3" in page
    assert "runs/studies/my-study/model.keras" in page
    assert "float32 (n, 8, 8, 1)" in page
    assert "each of 10 classes" in page


# Nothing that a user wrote becomes markup


def dangerous(text: str) -> dict[str, Any]:
    """Content with `text` in every place that takes any."""
    config = TrialConfig(hidden=(77,), extra={"note": text})
    recommendation = make_recommendation(replace(WINNER, config=config), BASELINE)
    return {
        "study": text,
        "trials": [make_trial(0, config=config), *trials()],
        "recommendation": with_reason(recommendation, text),
        "verdict": replace(VERDICT, sentence=text),
        "command": f"podium run --space {text}",
        "facts": {
            "data": text,
            text: "key",
            "versions": {text: text},
            "list": [text],
            "image_shape": [8, 8, 1],
            "classes": 10,
        },
        "model": RegisteredModel(text, "1", "m-1"),
        "model_file": Path(f"folder {text.replace('/', '')}") / "model.keras",
    }


def with_reason(recommendation: Recommendation, text: str) -> Recommendation:
    ranked = tuple(replace(row, reason=text) for row in recommendation.ranked)
    return replace(recommendation, ranked=ranked, summary=text, policy=text)


@pytest.mark.parametrize(
    "text",
    [SCRIPT, "</td></tr></table><h1>", "\"><img src=x onerror='alert(1)'>", "&lt;b&gt; & <b>"],
)
def test_html_has_the_same_tags_whatever_names_and_reasons_contain(
    tmp_path: Path, text: str
) -> None:
    harmless = Page(written(tmp_path, **dangerous("harmless"))[1])
    _, html = written(tmp_path, **dangerous(text))
    page = Page(html)
    assert page.tags == harmless.tags
    assert page.tags["script"] == page.tags["img"] == 0
    assert page.text.count(text) > 10
    assert text not in html


@pytest.mark.parametrize(
    "text",
    ["a|b|c", "`|` | x", "line\nbreak | and\n\n# more", SCRIPT, "&#124; &lt;b>", "a &amp; b"],
)
def test_a_configuration_cannot_break_the_markdown_table_it_stands_in(
    tmp_path: Path, text: str
) -> None:
    config = TrialConfig(hidden=(77,), extra={text: text})
    recommendation = make_recommendation(replace(WINNER, config=config), BASELINE)
    markdown, _ = written(
        tmp_path,
        trials=[make_trial(9, config=config, val_accuracy=0.99), *trials()],
        recommendation=recommendation,
    )
    shown = " ".join(config.summary.split())
    [row] = [row for row in table_rows(markdown) if row[0] == "9" and len(row) == 6]
    name = f"- `{config.config_id}`: "
    [listed] = [line for line in markdown.splitlines() if line.startswith(name)]
    for place in (row[5], listed.removeprefix(name)):
        assert unescape(place) == shown
        assert not set("|<`") & set(place)
    assert {len(cells) for cells in table_rows(markdown)} == {3, 6, 7}
    assert sum(line.startswith("#") for line in markdown.splitlines()) == 5


@pytest.mark.parametrize(
    "text", [SCRIPT, "a|b", "two\nlines\n\n# heading", "[click](javascript:alert(1))"]
)
def test_names_sentences_and_reasons_cannot_break_the_markdown_they_stand_in(
    tmp_path: Path, text: str
) -> None:
    recommendation = with_reason(make_recommendation(WINNER, BASELINE), text)
    markdown, _ = written(
        tmp_path,
        study=text,
        recommendation=replace(recommendation, policy="best-mean"),
        verdict=replace(VERDICT, sentence=text),
    )
    shown = " ".join(text.split())
    title, sentence, summary = [unescape(line) for line in markdown.splitlines() if line][:3]
    assert (title, sentence) == (f"# {shown}", f"**{shown}**")
    assert summary.startswith(f"{shown} Policy: best-mean.")
    reasons = [unescape(row[6]) for row in table_rows(markdown) if len(row) == 7][2:]
    assert reasons == [shown, shown]
    assert {len(cells) for cells in table_rows(markdown)} == {3, 6, 7}
    assert sum(line.startswith("#") for line in markdown.splitlines()) == 5
    assert "<script" not in markdown
    assert "[click" not in markdown


@pytest.mark.parametrize("text", [SCRIPT, "a|b", "two\nlines\n\n# heading"])
def test_a_fact_stays_in_its_line_of_the_markdown_list(tmp_path: Path, text: str) -> None:
    markdown, _ = written(tmp_path, facts={"data": text, "versions": {"numpy": text}})
    shown = " ".join(text.split())
    listed = [unescape(line) for line in markdown.splitlines() if line.startswith("- ")]
    assert f"- data: {shown}" in listed
    assert f"- versions: numpy {shown}" in listed
    assert "<script" not in markdown


def test_html_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    _, html = written(tmp_path)
    for part in ("http:", "https:", "src=", "url(", "<link", "@import"):
        assert part not in html


# The count of trials


def test_trials_are_counted_by_how_they_ended() -> None:
    assert count_trials(trials()) == (
        "6 trials: 2 completed, 3 stopped early (2 at epoch 2, 1 at epoch 6), 1 failed. "
        "1 more trained for confirmation. 24 epochs in all."
    )


def test_what_did_not_happen_is_not_counted() -> None:
    assert count_trials([make_trial(0)]) == "1 trials: 1 completed. 6 epochs in all."


def test_a_mean_over_folds_is_shown_with_its_standard_error(tmp_path: Path) -> None:
    totals = make_totals(val_accuracy=0.8, fold_accuracies=(0.7, 0.8, 0.9))
    folded = make_trial(0, totals=totals, folds=3)
    content = ReportContent("study", [folded], None, None, "podium run --folds 3", {})
    for path in write_report(content, tmp_path):
        # The deviation is 0.1, and 0.1 / sqrt(3) is 5.774 points.
        assert "80.00% (3 folds, standard error 5.774 points)" in path.read_text()

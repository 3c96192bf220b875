"""Figures of a study long after it was run: of the right trial, from the right data and model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from matplotlib.figure import Figure

from search import canvas, figures, illustration
from search.comparison import Row, compare
from search.data import LoadedData, TrainingData, load
from search.folder import model_path
from search.gallery import KINDS, Subject, Wishes
from search.illustration import (
    Look,
    illustrate,
    illustrate_reproduction,
    look_into,
    settings_of,
)
from search.ledger import Ledger
from search.records import ConfigError, Inspected, Phase, State, StudyFailed
from search.settings import StudySettings
from search.space import find_space
from spaces.config import TrialConfig
from spaces.notebooks import Drawing
from tests.builders import (
    make_assignment,
    make_config,
    make_epoch,
    make_experiment,
    make_figure,
    make_inspected,
    make_notebook,
    make_repetition,
    make_report,
    make_totals,
)
from tests.running import Finished, podium

STUDY = "past"


@pytest.fixture(scope="module")
def data() -> LoadedData:
    return load("digits", None, 0)


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """That of an empty current folder."""
    monkeypatch.chdir(tmp_path)
    opened = Ledger(tmp_path / "runs" / "ledger.db")
    yield opened
    opened.close()


def _begin(ledger: Ledger, data: LoadedData, **settings: object) -> None:
    stored = {**StudySettings().model_dump(mode="json"), **settings}
    ledger.begin_study(STUDY, stored, {"fingerprint": data.fingerprint}, 1)


def _trial(ledger: Ledger, number: int, accuracy: float | None = 0.8, **fields: Any) -> None:
    """A trial that was trained for three epochs; without an accuracy it was not."""
    state = fields.pop("state", State.COMPLETED)
    ledger.begin_trial(STUDY, make_assignment(number, **fields), 1)
    if accuracy is not None:
        totals = make_totals(val_accuracy=accuracy) if state is State.COMPLETED else None
        epochs = [make_epoch(n) for n in range(1, 4)]
        ledger.append(STUDY, number, make_report(*epochs, totals=totals))
    ledger.end_trial(STUDY, number, state, 2)


@dataclass
class Artist:
    """Stands for the process that looks into models, and for the gallery."""

    looks: list[Look] = field(default_factory=list)
    subjects: list[Subject] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    kinds: list[Sequence[str]] = field(default_factory=list)
    varied: list[Path] = field(default_factory=list)

    def look_into(self, data: TrainingData, space: Any, looks: Sequence[Look]) -> list[Inspected]:
        self.looks += looks
        return [make_inspected(classes=10) for _ in looks]

    def draw(self, subject: Subject, folder: Path, kinds: Sequence[str] = ()) -> list[Path]:
        self.subjects.append(subject)
        self.folders.append(folder)
        self.kinds.append(kinds)
        return [folder / "drawn.png"]

    def draw_varied(self, trials: Any, folder: Path) -> list[Path]:
        self.varied.append(folder)
        return [folder / "bars.png"]


@pytest.fixture
def artist(monkeypatch: pytest.MonkeyPatch) -> Artist:
    found = Artist()
    for name in ("look_into", "draw", "draw_varied"):
        monkeypatch.setattr(illustration, name, getattr(found, name))
    return found


def _keep(path: Path, model: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model)


def _chosen(ledger: Ledger, artist: Artist, number: int | None = None) -> int:
    illustrate(ledger, STUDY, number, (), Wishes())
    return artist.looks[-1].trial.number


# What cannot be drawn


def test_an_unknown_kind_names_the_nearest_before_anything_is_looked_for(ledger: Ledger) -> None:
    with pytest.raises(ConfigError) as caught:
        illustrate(ledger, "absent", None, ["samples", "confusoin"], Wishes())
    assert "'confusoin'" in str(caught.value)
    assert "Did you mean 'confusion'?" in str(caught.value)
    assert all(kind in str(caught.value) for kind in KINDS)


def test_an_unknown_study_lists_those_that_there_are(ledger: Ledger, data: LoadedData) -> None:
    _begin(ledger, data)
    with pytest.raises(ConfigError, match=r"No study 'pats'\. Studies here: past"):
        illustrate(ledger, "pats", None, (), Wishes())


def test_a_trial_that_was_never_trained_is_refused_and_those_that_were_are_listed(
    ledger: Ledger, data: LoadedData, artist: Artist
) -> None:
    _begin(ledger, data)
    _trial(ledger, 0)
    _trial(ledger, 1, None, state=State.FAILED)
    _trial(ledger, 2)
    for number in (1, 7):
        with pytest.raises(ConfigError, match=rf"no trial {number} that was trained.*: 0, 2\."):
            illustrate(ledger, STUDY, number, (), Wishes())
    assert artist.looks == []


@pytest.mark.parametrize("state", [State.FAILED, State.STOPPED, None])
def test_a_study_without_a_completed_trial_has_none_to_choose(
    state: State | None, ledger: Ledger, data: LoadedData, artist: Artist
) -> None:
    _begin(ledger, data)
    if state is not None:
        _trial(ledger, 0, state=state)
    with pytest.raises(ConfigError, match="no completed trial to draw figures of"):
        illustrate(ledger, STUDY, None, (), Wishes())
    assert artist.looks == []


def test_data_that_is_not_what_it_was_is_refused_by_both_fingerprints(
    ledger: Ledger, data: LoadedData, artist: Artist, tmp_path: Path
) -> None:
    ledger.begin_study(STUDY, StudySettings().model_dump(mode="json"), {"fingerprint": "f00"}, 1)
    _trial(ledger, 0)
    with pytest.raises(ConfigError) as caught:
        illustrate(ledger, STUDY, None, (), Wishes())
    for part in (STUDY, "f00", data.fingerprint):
        assert part in str(caught.value)
    assert (artist.looks, artist.folders) == ([], [])


def test_another_seed_is_another_split_and_so_other_data(
    ledger: Ledger, data: LoadedData, artist: Artist
) -> None:
    _begin(ledger, data, seed=1)
    _trial(ledger, 0)
    with pytest.raises(ConfigError, match="is not what it was"):
        illustrate(ledger, STUDY, None, (), Wishes())


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        (Wishes(pair=(4, 10)), "--pair 10: there are 10 classes"),
        (Wishes(pair=(4, 4)), "--pair 4,4: expected two classes"),
        (Wishes(pixels=(0, 64)), "--pixels 64: there are 64 pixels"),
        (Wishes(images=(0, 1_437)), "--image 1437: there are 1,437 images"),
        (Wishes(images=(-1,)), "--image -1: there are"),
    ],
)
def test_what_the_data_does_not_have_is_refused_before_a_model_is_looked_into(
    wishes: Wishes, message: str, ledger: Ledger, data: LoadedData, artist: Artist
) -> None:
    _begin(ledger, data)
    _trial(ledger, 0)
    with pytest.raises(ConfigError, match=message):
        illustrate(ledger, STUDY, None, (), wishes)
    assert artist.looks == []


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        (Wishes(layer=3), "--layer 3: there are 2 dense hidden layers"),
        (Wishes(layer=2, unit=4), "--unit 4: hidden 2 has 4 units"),
    ],
)
def test_a_unit_that_the_model_does_not_have_is_refused_where_it_is_asked_for(
    wishes: Wishes,
    message: str,
    ledger: Ledger,
    data: LoadedData,
    artist: Artist,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _begin(ledger, data)
    _trial(ledger, 0)
    hidden = {"hidden 1": np.zeros((10, 9), np.float32), "hidden 2": np.zeros((10, 4), np.float32)}
    seen = replace(make_inspected(classes=10), activations=hidden)
    monkeypatch.setattr(illustration, "look_into", lambda *_: [seen])
    with pytest.raises(ConfigError, match=message):
        illustrate(ledger, STUDY, None, ["activation-boxes"], wishes)
    assert artist.subjects == []
    illustrate(ledger, STUDY, None, (), wishes)
    illustrate(ledger, STUDY, None, ["activation-boxes"], Wishes(layer=2, unit=3))
    assert len(artist.subjects) == 2


def test_the_last_class_pixel_and_image_may_be_wished_for(
    ledger: Ledger, data: LoadedData, artist: Artist
) -> None:
    _begin(ledger, data)
    _trial(ledger, 0)
    wishes = Wishes(pair=(9, 0), pixels=(63, 0), images=(1_436,))
    illustrate(ledger, STUDY, None, (), wishes)
    assert artist.subjects[0].wishes == wishes


# Which trial


def test_without_a_recommendation_the_best_completed_trial_is_drawn(
    ledger: Ledger, data: LoadedData, artist: Artist
) -> None:
    _begin(ledger, data)
    for number, accuracy in enumerate((0.7, 0.9, 0.9, 0.8)):
        _trial(ledger, number, accuracy)
    _trial(ledger, 4, 0.99, state=State.FAILED)
    assert _chosen(ledger, artist) == 1


def test_the_recommended_models_best_confirmation_comes_before_better_trials(
    ledger: Ledger, data: LoadedData, artist: Artist
) -> None:
    _begin(ledger, data)
    own = {"config": make_config(7)}
    _trial(ledger, 0, 0.95, **own)
    _trial(ledger, 1, 0.99)
    for number, accuracy in ((2, 0.80), (3, 0.82), (4, 0.81)):
        _trial(ledger, number, accuracy, phase=Phase.CONFIRM, **own)
    ledger.set_outcome(STUDY, {"recommended": make_config(7).config_id})
    assert _chosen(ledger, artist) == 3


def test_a_recommended_reproduction_is_drawn_and_not_its_folds(
    ledger: Ledger, data: LoadedData, artist: Artist
) -> None:
    _begin(ledger, data, notebook="fashion", epochs_scale=1.0)
    own = {"config": make_config(7), "phase": Phase.REPRODUCE}
    _trial(ledger, 0, 0.99, folds=5, **own)
    _trial(ledger, 1, 0.80, **own)
    _trial(ledger, 2, 0.95, phase=Phase.REPRODUCE)
    ledger.set_outcome(STUDY, {"recommended": make_config(7).config_id})
    assert _chosen(ledger, artist) == 1


def test_a_recommendation_that_was_only_searched_is_drawn_from_its_search(
    ledger: Ledger, data: LoadedData, artist: Artist
) -> None:
    _begin(ledger, data)
    _trial(ledger, 0, 0.7, config=make_config(7))
    _trial(ledger, 1, 0.9)
    ledger.set_outcome(STUDY, {"recommended": make_config(7).config_id})
    assert _chosen(ledger, artist) == 0


@pytest.mark.parametrize("state", [State.COMPLETED, State.STOPPED, State.FAILED])
def test_any_trial_that_was_trained_is_drawn_where_it_is_asked_for(
    state: State, ledger: Ledger, data: LoadedData, artist: Artist
) -> None:
    _begin(ledger, data)
    _trial(ledger, 0, 0.99)
    _trial(ledger, 1, 0.1, state=state)
    assert _chosen(ledger, artist, 1) == 1


# How it is drawn


def test_a_model_that_was_kept_is_looked_into_and_another_is_made_again(
    ledger: Ledger, data: LoadedData, artist: Artist
) -> None:
    _begin(ledger, data)
    _trial(ledger, 0)
    _trial(ledger, 1)
    _keep(model_path(STUDY, 0, 2), b"after two epochs")
    _keep(model_path(STUDY, 0, 3), b"after three epochs")
    illustrate(ledger, STUDY, 0, (), Wishes())
    illustrate(ledger, STUDY, 1, (), Wishes())
    assert [look.model for look in artist.looks] == [b"after three epochs", None]


def test_the_shipped_model_is_looked_into_where_its_trial_is_drawn(
    ledger: Ledger, data: LoadedData, artist: Artist
) -> None:
    _begin(ledger, data)
    _trial(ledger, 0)
    _trial(ledger, 1, 0.9)
    ledger.set_outcome(STUDY, {"trial": 1})
    _keep(Path("runs/studies/past/model/data/model.keras"), b"shipped")
    for number in (0, 1):
        illustrate(ledger, STUDY, number, (), Wishes())
    assert [look.model for look in artist.looks] == [None, b"shipped"]


@pytest.mark.parametrize(("wished", "looked_at"), [(10, 2_000), (1_000, 2_000), (9_000, 9_000)])
def test_activations_are_recorded_for_as_many_images_as_t_sne_wants(
    wished: int, looked_at: int, ledger: Ledger, data: LoadedData, artist: Artist
) -> None:
    _begin(ledger, data)
    _trial(ledger, 0)
    illustrate(ledger, STUDY, None, (), Wishes(tsne_images=wished))
    assert artist.looks[0].activation_images == looked_at


def test_a_trials_figures_have_a_folder_of_their_own_and_the_studys_stand_above(
    ledger: Ledger, data: LoadedData, artist: Artist
) -> None:
    _begin(ledger, data)
    _trial(ledger, 7)
    folder = Path("runs/studies/past/figures")
    assert illustrate(ledger, STUDY, None, (), Wishes()) == [
        folder / "trial-007" / "drawn.png",
        folder / "bars.png",
    ]


def test_where_kinds_are_named_nothing_else_is_drawn(
    ledger: Ledger, data: LoadedData, artist: Artist
) -> None:
    _begin(ledger, data)
    _trial(ledger, 7)
    kinds = ["samples", "tsne"]
    paths = illustrate(ledger, STUDY, None, kinds, Wishes())
    assert artist.kinds == [kinds]
    assert (len(paths), artist.varied) == (1, [])


def test_what_is_drawn_is_the_trial_with_its_epochs_its_data_and_no_test_image(
    ledger: Ledger, data: LoadedData, artist: Artist
) -> None:
    _begin(ledger, data)
    _trial(ledger, 0)
    illustrate(ledger, STUDY, None, (), Wishes())
    [subject] = artist.subjects
    assert subject.trial == ledger.trials(STUDY)[0]
    assert subject.epochs == ledger.epochs(STUDY, 0)
    np.testing.assert_array_equal(subject.data.images, data.training.images)
    assert subject.test_counts == data.test.class_counts(10)
    assert subject.opened is None
    assert ledger.openings(data.test.fingerprint) == []


def test_settings_of_a_reproduction_are_read_without_what_only_it_has(
    ledger: Ledger, data: LoadedData
) -> None:
    _begin(ledger, data, notebook="fashion", only=["a"], full=True, folds=3, data_dir="/x")
    record = ledger.study(STUDY)
    assert record is not None
    assert settings_of(record) == StudySettings(folds=3, data_dir=Path("/x"))


# A notebook's figures

A = make_experiment("a", 8, published=(make_figure("test_accuracy", 0.7, 0.75),))
B = make_experiment("b", 16)
DRAWINGS = (
    Drawing("confused-pair", "a", {"pair": (4, 9)}),
    Drawing("samples", "b"),
    Drawing("bars", "", {"metric": "test_accuracy"}),
    Drawing("bars", "", {"metric": "val_accuracy", "experiments": ("b",), "over": "dense layers"}),
    Drawing("distribution", "", {"metric": "test_accuracy", "experiments": ("a",)}),
)
NOTEBOOK = make_notebook(A, B, drawings=DRAWINGS)


@pytest.fixture
def charts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """The values of each chart, in place of the charts."""
    drawn: list[tuple[str, Any]] = []

    def keep(name: str) -> Callable[..., Figure]:
        return lambda values, title, *_, **more: (
            drawn.append((name, (values, more | {"title": title}))),
            Figure(),
        )[1]

    for name in ("bars", "distribution"):
        monkeypatch.setattr(figures, name, keep(name))
    monkeypatch.setattr(canvas, "save", lambda figure, path: path)
    return drawn


def _rows(*repetitions: Any) -> list[Row]:
    return compare(NOTEBOOK, repetitions)


def _subject(data: LoadedData, repetition: Any) -> Subject:
    inspected = make_inspected(classes=10)
    return Subject(repetition.trial, repetition.epochs, inspected, data.training)


def test_every_figure_of_a_notebook_is_drawn_from_the_experiment_that_it_names(
    data: LoadedData, artist: Artist, charts: list[tuple[str, Any]], tmp_path: Path
) -> None:
    first, second = make_repetition(A), make_repetition(B, 1)
    subjects = {"a": _subject(data, first), "b": _subject(data, second)}
    paths = illustrate_reproduction(NOTEBOOK, _rows(first, second), subjects, tmp_path)
    assert paths == [
        tmp_path / "experiment-a" / "drawn.png",
        tmp_path / "experiment-b" / "drawn.png",
        tmp_path / "bars-experiments-test_accuracy.png",
        tmp_path / "bars-dense-layers-val_accuracy.png",
        tmp_path / "distribution-experiments-test_accuracy.png",
    ]
    assert [subject.trial for subject in artist.subjects] == [first.trial, second.trial]
    assert artist.kinds == [["confused-pair"], ["samples"]]
    assert [s.wishes for s in artist.subjects] == [Wishes(pair=(4, 9)), Wishes()]


def test_charts_are_of_our_values_for_every_seed_beside_the_published_ones(
    data: LoadedData, artist: Artist, charts: list[tuple[str, Any]], tmp_path: Path
) -> None:
    trials = [make_repetition(A, i, test_accuracy=a) for i, a in enumerate((0.5, 0.6))]
    other = make_repetition(B, 2, val_accuracy=0.9, test_accuracy=0.4)
    illustrate_reproduction(NOTEBOOK, _rows(*trials, other), {}, tmp_path)
    assert [name for name, _ in charts] == ["bars", "bars", "distribution"]
    everything, layers, starts = (values for _, values in charts)
    assert everything[0] == {"test accuracy": {"a": (0.5, 0.6), "b": (0.4,)}}
    assert layers[0] == {"val accuracy": {"b": (0.9,)}}
    assert starts[0] == {"a": (0.5, 0.6)}
    assert starts[1]["published"] == {"a": [0.7, 0.75]}


def test_what_was_not_run_is_not_drawn(
    data: LoadedData, artist: Artist, charts: list[tuple[str, Any]], tmp_path: Path
) -> None:
    assert illustrate_reproduction(NOTEBOOK, _rows(), {}, tmp_path / "new") == []
    assert not (tmp_path / "new").exists()
    only = make_repetition(B)
    subjects = {"b": _subject(data, only)}
    paths = illustrate_reproduction(NOTEBOOK, _rows(only), subjects, tmp_path)
    assert [path.name for path in paths] == [
        "drawn.png",
        "bars-experiments-test_accuracy.png",
        "bars-dense-layers-val_accuracy.png",
    ]
    assert charts[0][1][0] == {"test accuracy": {"b": (0.8,)}}


def test_a_chart_says_what_was_not_run_and_what_was_cut_short(
    artist: Artist, charts: list[tuple[str, Any]], tmp_path: Path
) -> None:
    drawing = Drawing("bars", "", {"metric": "test_accuracy", "experiments": ("a", "b")})
    notebook = make_notebook(A, B, drawings=(drawing,))
    short = make_repetition(A, max_epochs=2, epochs=[make_epoch(1), make_epoch(2)])
    illustrate_reproduction(notebook, compare(notebook, [short]), {}, tmp_path)
    [(_, (values, more))] = charts
    assert values == {"test accuracy": {"a (2 of 6 epochs)": (0.8,)}}
    assert more["title"].endswith("(not run: b)")


def test_charts_are_files(tmp_path: Path) -> None:
    trials = [make_repetition(A, i, test_accuracy=a) for i, a in enumerate((0.5, 0.6))]
    for path in illustrate_reproduction(NOTEBOOK, _rows(*trials), {}, tmp_path):
        assert path.read_bytes().startswith(b"\x89PNG")


# For real


@dataclass(frozen=True)
class Past:
    """A small study whose search was by folds, run for real."""

    folder: Path
    ledger: Ledger
    figures: Finished


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    folder = tmp_path_factory.mktemp("past")
    finished = podium(
        *["run", "--study", "small", "--grid", "hidden=24-16,16", "--folds", "3"],
        *["--max-epochs", "2", "--scheduler", "none", "--finalists", "1", "--confirm-seeds", "2"],
        folder=folder,
        seconds=600,
    )
    assert finished.code == 0, finished.err
    drawn = podium("figures", "small", folder=folder, seconds=600)
    return Past(folder, Ledger(folder / "runs/ledger.db"), drawn)


@pytest.mark.slow
def test_a_trial_whose_model_was_not_kept_is_trained_again_to_the_same_accuracy(
    past: Past, data: LoadedData
) -> None:
    trials = past.ledger.trials("small")
    folded = next(t for t in trials if t.phase is Phase.SEARCH)
    confirmed = next(t for t in trials if t.phase is Phase.CONFIRM)
    looks = [Look(trial, None, 10) for trial in (folded, confirmed)]
    labels = data.training.labels
    accuracies = [
        float((seen.val_probabilities.argmax(axis=1) == labels[seen.validation]).mean())
        for seen in look_into(data.training, find_space("mlp"), looks)
    ]
    assert folded.totals is not None
    assert len(folded.totals.fold_accuracies) == 3
    # Of folds, the model that is kept is the first one's.
    assert accuracies == pytest.approx([folded.totals.fold_accuracies[0], confirmed.val_accuracy])


@pytest.mark.slow
def test_a_trial_that_cannot_be_trained_again_says_why(past: Past, data: LoadedData) -> None:
    trial = replace(past.ledger.trials("small")[0], config=TrialConfig(filters=(8,) * 9))
    with pytest.raises(StudyFailed, match=r"cannot be trained again: .*lower the conv depth"):
        look_into(data.training, find_space("mlp"), [Look(trial, None, 10)])


@pytest.mark.slow
def test_a_file_that_is_no_model_is_refused_with_the_reason(past: Past, data: LoadedData) -> None:
    look = Look(past.ledger.trials("small")[0], b"no model at all", 10)
    with pytest.raises(StudyFailed, match="cannot be looked into: "):
        look_into(data.training, find_space("mlp"), [look])


@pytest.mark.slow
def test_podium_figures_draws_the_recommended_trial_and_what_was_varied(past: Past) -> None:
    assert past.figures.code == 0, past.figures.err
    assert past.figures.err == ""
    assert "THE DRIVER IMPORTED TENSORFLOW" not in past.figures.out
    paths = [past.folder / line for line in past.figures.out.splitlines()]
    assert len(paths) > len(KINDS)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    record = past.ledger.study("small")
    assert record is not None
    [drawn] = {path.parent.name for path in paths if path.parent.name != "figures"}
    trial = past.ledger.trials("small")[int(drawn.removeprefix("trial-"))]
    assert trial.phase is Phase.CONFIRM
    assert trial.config.config_id == record.outcome["recommended"]  # type: ignore[index]
    assert past.folder / "runs/studies/small/figures/bars-hidden.png" in paths


@pytest.mark.slow
def test_podium_figures_opens_no_test_split(past: Past) -> None:
    record = past.ledger.study("small")
    assert record is not None
    openings = past.ledger.openings(record.facts["test_fingerprint"])
    assert [opening.reason for opening in openings] == ["final verdict"]


@pytest.mark.slow
def test_a_wish_is_drawn_of_the_trial_that_was_asked_for(past: Past) -> None:
    words = ["--trial", "0", "--kind", "confused-pair", "--pair", "4,9"]
    finished = podium("figures", "small", *words, folder=past.folder)
    assert finished.code == 0, finished.err
    folder = "runs/studies/small/figures/trial-000"
    assert finished.out.split() == [f"{folder}/confused-pair-4-9.png"]
    assert (past.folder / finished.out.strip()).is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("absent", "No study 'absent'"),
        ("small --kind smaples", "Did you mean 'samples'?"),
        ("small --trial 99", "no trial 99"),
        ("small --pair 4,10", "there are 10 classes"),
        ("small --pair 4", "--pair 4: expected two numbers"),
        ("small --pixels a,b", "--pixels a,b: expected two numbers"),
    ],
)
def test_what_cannot_be_drawn_ends_with_2_and_a_message(
    words: str, message: str, past: Past
) -> None:
    finished = podium("figures", *words.split(), folder=past.folder)
    assert finished.code == 2
    assert message in finished.err
    assert "Traceback" not in finished.err


@pytest.mark.slow
def test_figures_are_artifacts_of_the_study(past: Past) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{past.folder}/runs/mlflow.db")
    record = past.ledger.study("small")
    assert record is not None
    client = mlflow.MlflowClient()
    names = {a.path for a in client.list_artifacts(record.run_id, "figures")}
    assert {"figures/recommended", "figures/bars-hidden.png"} <= names
    drawn = {a.path for a in client.list_artifacts(record.run_id, "figures/recommended")}
    wanted = ("confusion-validation", "confusion-test", "tsne", "calibration", "architecture")
    assert {f"figures/recommended/{name}.png" for name in wanted} <= drawn

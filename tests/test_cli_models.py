"""promote, rollback, champion and predict as they are typed."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from search import cli_models
from search.ledger import Ledger
from search.loading import Predicted, Reload
from search.records import ConfigError, PodiumError, State
from search.registry import find_champion
from search.settings import TrackingSettings, load_tracking
from tests.builders import make_assignment, make_config
from tests.stores import add_reference, add_version, hand_made_model, new_store
from tests.test_gates import OUTCOME

COMMANDS = ("promote", "rollback", "champion", "predict")
NAME = "podium-pets"
SHAPE = [2, 3, 1]


CONFIG = make_config(16)


@dataclass(frozen=True)
class Done:
    """What a command ended in."""

    code: int
    out: str
    err: str
    error: str


@dataclass
class Desk:
    """A folder with a store, a ledger and the commands."""

    folder: Path
    client: mlflow.MlflowClient
    loads: dict[str, Reload]
    loaded: list[str]

    def __call__(self, *words: str) -> Done:
        result = CliRunner().invoke(application(), words)
        error = result.exception
        if isinstance(error, PodiumError):
            return Done(error.exit_code, result.stdout, result.stderr, str(error))
        if error is not None and not isinstance(error, SystemExit):
            raise error
        return Done(result.exit_code, result.stdout, result.stderr, "")

    def add_study(self, name: str, champion: str | None = None, **outcome: Any) -> str:
        """A study whose model was registered; gives the version."""
        folder = hand_made_model(
            self.folder / name, classes=["cat", "dog"], image_shape=SHAPE, data="pets"
        )
        add_reference(folder, np.full((2, *SHAPE), 0.25, np.float32))
        version = add_version(self.client, NAME, folder, {"podium.study": name})
        known = {"name": NAME, "version": champion, "study": "first"}
        rival = {**OUTCOME["champion"], **known} if champion else None
        told = {**OUTCOME, "champion": rival, "model": f"models:/{NAME}/{version}", **outcome}
        self.record(name, told)
        return version

    def record(
        self,
        name: str,
        outcome: Any,
        state: State = State.COMPLETED,
        run_id: str | None = None,
    ) -> None:
        """A study in the ledger, with one trial."""
        ledger = Ledger(self.folder / "runs" / "ledger.db")
        settings = {"tracking": {**load_tracking().model_dump(), "experiment": "elsewhere"}}
        facts = {"class_names": ["cat", "dog"], "data": "pets"}
        ledger.begin_study(name, settings, facts, 0)
        ledger.begin_trial(name, make_assignment(3, config=CONFIG), 0)
        if run_id is not None:
            ledger.set_study_run(name, run_id)
        if outcome is not None:
            ledger.set_outcome(name, outcome)
        if state is not State.RUNNING:
            ledger.end_study(name, state, "no luck" if state is State.FAILED else None, 1)
        ledger.close()

    @property
    def aliases(self) -> dict[str, str]:
        """Of the registered model."""
        return {k: str(v) for k, v in self.client.get_registered_model(NAME).aliases.items()}


def application() -> typer.Typer:
    app = typer.Typer(rich_markup_mode="markdown", pretty_exceptions_enable=False)
    for name in COMMANDS:
        app.command(epilog=cli_models.EPILOGS[name])(getattr(cli_models, name))
    return app


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A folder in which loading a version is answered at once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    client = new_store(tmp_path)
    Path("mlflow.yaml").write_text(f"tracking_uri: {client.tracking_uri}\n")
    desk = Desk(tmp_path, client, {}, [])

    def check_load(_: str, uri: str) -> Reload:
        desk.loaded.append(uri)
        return desk.loads.get(uri, Reload(True, 0.0))

    monkeypatch.setattr("search.loading.check_load", check_load)
    return desk


def test_promote_shows_the_gates_and_says_what_comes_next(desk: Desk) -> None:
    desk.add_study("first")
    done = desk("promote", "first", "--reason", "the first one", "--by", "alice")
    assert done.code == 0, done.error
    assert desk.aliases == {"champion": "1"}
    assert desk.loaded == [f"models:/{NAME}/1"]
    for gate in ("min_accuracy", "non_inferiority_margin", "reproducible_load"):
        assert gate in done.out
    assert f"{NAME} version 1 is the champion; before it was none." in done.out
    assert f"podium champion {NAME}" in done.out
    assert "podium rollback" not in done.out  # there is nothing to go back to
    tags = desk.client.get_model_version(NAME, "1").tags
    assert tags["podium.promoted_by"] == "alice"
    assert tags["podium.promoted_why"] == "the first one"
    assert tags["podium.promoted_at"].endswith("+00:00")
    assert tags["podium.report"] == "runs/studies/first/report.html"


def test_a_promotion_against_the_verdict_is_not_recorded_as_recommended(desk: Desk) -> None:
    desk.add_study("first", verdict={**OUTCOME["verdict"], "speaks_for_it": False})
    done = desk("promote", "first")
    assert done.code == 0, done.error
    assert "the verdict of study first does not speak for its model" in done.out
    why = desk.client.get_model_version(NAME, "1").tags["podium.promoted_why"]
    assert why == "by hand; the verdict of study first does not speak for it"


def test_promote_is_refused_with_code_4_and_every_gate_on_show(desk: Desk) -> None:
    desk.add_study("first")
    desk("promote", "first")
    desk.add_study("second", champion="1", costs=None)
    desk.loads[f"models:/{NAME}/2"] = Reload(True, 0.5)
    before = desk.client.get_registered_model(NAME).tags
    done = desk("promote", "second")
    assert done.code == 4
    assert "3 gates do not hold" in done.error
    assert done.out.count(" NO ") == 3
    assert done.out.count(" yes ") == 4
    assert 'podium promote second --override "reason"' in done.error
    assert desk.aliases == {"champion": "1"}
    assert desk.client.get_registered_model(NAME).tags == before
    forced = desk("promote", "second", "--override", "hotfix", "--by", "bob")
    assert forced.code == 0, forced.error
    assert f"podium rollback {NAME}" in forced.out
    assert "Gates that did not hold: max_size_mb, max_latency_ms, reproducible_load" in forced.out
    assert desk.aliases == {"champion": "2", "previous-champion": "1"}


def test_promote_takes_the_gates_of_mlflow_yaml_as_it_is_now(desk: Desk) -> None:
    desk.add_study("first")
    with Path("mlflow.yaml").open("a") as file:
        file.write("gates:\n  min_accuracy: 0.99\n  reproducible_load: false\n")
    done = desk("promote", "first")
    assert done.code == 4
    assert "min_accuracy" in done.error
    assert desk.loaded == []
    assert "Not asked for" in done.out


def test_promote_goes_to_the_store_of_the_study(desk: Desk, tmp_path: Path) -> None:
    desk.add_study("first")
    Path("mlflow.yaml").write_text(f"tracking_uri: sqlite:///{tmp_path}/other.db\n")
    assert desk("promote", "first").code == 0
    assert desk.aliases == {"champion": "1"}
    assert not (tmp_path / "other.db").exists()


UNTOLD = {**OUTCOME, "champion": None, "trial": 3, "recommended": CONFIG.config_id}


def model_of_study(desk: Desk, name: str) -> str | None:
    """What the ledger says that a study registered."""
    ledger = Ledger(desk.folder / "runs" / "ledger.db")
    record = ledger.study(name)
    ledger.close()
    assert record is not None
    return (record.outcome or {}).get("model")


def test_promote_finds_a_version_that_the_study_did_not_live_to_tell_of(desk: Desk) -> None:
    version = desk.add_study("first")
    run_id = desk.client.get_model_version(NAME, version).run_id
    other = hand_made_model(desk.folder / "other")
    add_version(desk.client, NAME, other, {"podium.study": "killed"})  # of another folder's study
    desk.client.set_model_version_tag(NAME, version, "podium.study", "killed")
    desk.client.set_model_version_tag(NAME, version, "podium.trial", "3")
    desk.record("killed", UNTOLD, run_id=run_id)
    done = desk("promote", "killed")
    assert done.code == 0, done.error
    assert desk.aliases == {"champion": "1"}
    assert model_of_study(desk, "killed") == f"models:/{NAME}/1"


def test_promote_registers_the_model_that_a_study_left_in_its_folder(desk: Desk) -> None:
    experiment = desk.client.create_experiment("e", (desk.folder / "artifacts").as_uri())
    tags = {"podium.space": "mlp", "podium.data": "pets", "podium.test_fingerprint": "0123"}
    run = desk.client.create_run(experiment, tags=tags)
    desk.record("unreached", UNTOLD, run_id=run.info.run_id)
    refused = desk("promote", "unreached")
    assert refused.code == 2
    assert "is not whole" in refused.error
    hand_made_model(desk.folder / "runs" / "studies" / "unreached" / "model", b"2.0")
    done = desk("promote", "unreached")
    assert done.code == 0, done.error
    assert desk.aliases == {"champion": "1"}
    assert model_of_study(desk, "unreached") == f"models:/{NAME}/1"
    version = desk.client.get_model_version(NAME, "1")
    assert version.run_id == run.info.run_id
    assert tags.items() <= version.tags.items()
    assert version.tags["podium.config"] == CONFIG.canonical_json
    champion = find_champion(desk.client, NAME)
    assert champion is not None
    assert (champion.study, champion.config, champion.model) == ("unreached", CONFIG, b"2.0")
    assert desk.client.get_run(run.info.run_id).data.metrics["test_accuracy"] == 0.95
    assert desk("promote", "unreached").code == 0
    assert len(desk.client.search_model_versions(f"name = '{NAME}'")) == 1


def test_the_password_of_a_store_comes_from_the_environment(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = {"tracking_uri": "postgresql://me:***@host/db"}
    desk.record("s", None)
    ledger = Ledger(Path("runs/ledger.db"))
    record = ledger.study("s")
    ledger.close()
    assert record is not None
    record.settings["tracking"].update(stored)
    with pytest.raises(ConfigError, match="set MLFLOW_TRACKING_URI"):
        cli_models.tracking_of(record)
    monkeypatch.setattr("search.settings.ENVIRONMENT_URI", "postgresql://me:secret@host/db")
    found = cli_models.tracking_of(record)
    assert isinstance(found, TrackingSettings)
    assert found.tracking_uri == "postgresql://me:secret@host/db"


@pytest.mark.parametrize(
    "words", [["promote", "s"], ["rollback"], ["champion"], ["predict", NAME, "a.npy"]]
)
def test_in_an_empty_folder_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: Sequence[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(application(), words)
    assert isinstance(result.exception, PodiumError)
    assert result.exception.exit_code == 2
    assert "podium run" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [["promote", "first"], ["rollback"], ["champion"], ["predict", NAME, "a.npy"]],
)
def test_a_damaged_store_is_one_paragraph_at_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, words: Sequence[str]
) -> None:
    desk.add_study("first")
    store = desk.folder / "damaged.db"
    store.write_bytes(b"SQLite format 3\0" + b"damaged" * 1_000)
    ledger = Ledger(Path("runs/ledger.db"))
    ledger.set_tracking("first", {"tracking_uri": f"sqlite:///{store}"})
    ledger.close()
    Path("mlflow.yaml").write_text(f"tracking_uri: sqlite:///{store}\n")
    began = time.monotonic()
    done = desk(*words)
    assert done.code == 2
    assert "The registry at sqlite:///" in done.error
    assert "\n" not in done.error
    assert time.monotonic() - began < 10


def test_rollback_and_champion_tell_the_history(desk: Desk) -> None:
    desk.add_study("first")
    desk.add_study("second", champion="1")
    desk("promote", "first", "--by", "alice")
    nothing = desk("rollback")
    assert nothing.code == 4
    assert "nothing to go back to" in nothing.error
    desk("promote", "second", "--by", "alice", "--reason", "[bold]faster")
    done = desk("rollback", "--reason", "slow in production", "--by", "bob")
    assert done.code == 0, done.error
    assert desk.loaded[-1] == f"models:/{NAME}/1"
    assert desk.aliases == {"champion": "1", "previous-champion": "2"}
    again = desk("rollback", NAME)
    assert again.code == 0
    assert "rolled back already" in again.out
    for words in (["champion"], ["champion", NAME], ["champion", f"models:/{NAME}"]):
        shown = desk(*words)
        assert shown.code == 0, shown.error
        assert f"{NAME}: the champion is version 1 of study first; before it version 2" in shown.out
        lines = shown.out.splitlines()[-3:]
        whats = [line.split()[1:4] for line in lines]
        assert whats == [["rollback", "1", "2"], ["promote", "2", "1"], ["promote", "1", "first"]]
        for word in ("bob", "slow in production", "[bold]faster", "recommended by study first"):
            assert word in shown.out


def test_rollback_is_refused_where_the_previous_champion_does_not_load(desk: Desk) -> None:
    desk.add_study("first")
    desk.add_study("second", champion="1")
    desk("promote", "first")
    desk("promote", "second")
    desk.loads[f"models:/{NAME}/1"] = Reload(False, None, "the file is gone")
    done = desk("rollback")
    assert done.code == 4
    assert "the file is gone" in done.error
    assert desk.aliases == {"champion": "2", "previous-champion": "1"}


def test_with_several_models_rollback_asks_which_and_champion_shows_all(desk: Desk) -> None:
    desk.add_study("first")
    desk.client.create_registered_model("podium-other")
    desk.client.create_registered_model("elsewhere")
    done = desk("rollback")
    assert done.code == 2
    assert "podium-other, podium-pets" in done.error
    shown = desk("champion").out
    assert "podium-other has no champion" in shown
    assert "elsewhere" not in shown


def test_champion_says_that_an_alias_was_moved_by_hand(desk: Desk) -> None:
    desk.add_study("first")
    desk.client.set_registered_model_alias(NAME, "champion", "1")
    assert "moved by hand" in desk("champion").out
    desk("promote", "first")
    assert "moved by hand" in desk("champion").out


def test_champion_says_that_a_promotion_was_interrupted(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.add_study("first")

    def broken(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "set_registered_model_alias", broken)
        CliRunner().invoke(application(), ["promote", "first", "--by", "alice"])
    shown = desk("champion").out
    assert "A promote to version 1" in shown
    assert "by alice" in shown
    assert "begun at" in desk("promote", "first", "--by", "bob").out
    assert "was interrupted" not in desk("champion").out
    assert desk.client.get_model_version(NAME, "1").tags["podium.promoted_by"] == "alice"


@pytest.fixture
def answers(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """What predict was called with; it answers with the mean pixel."""
    asked: list[Any] = []

    def predict(_: str, uri: str, images: Any) -> Predicted:
        asked.append((uri, images))
        second = images.mean(axis=(1, 2, 3)) / 255
        return Predicted(np.stack([1 - second, second], axis=1), (0.0, 255.0))

    monkeypatch.setattr("search.loading.predict", predict)
    desk.add_study("first")
    return lambda: asked[-1]


def test_predict_names_file_place_class_and_probability(
    desk: Desk, answers: Callable[[], Any]
) -> None:
    Image.fromarray(np.full((2, 3), 51, np.uint8)).save("dark.png")
    np.savez("batch.npz", x=np.full((2, 2, 3), 204, np.uint8), y=np.zeros(2))
    words = ["predict", NAME, "dark.png", "batch.npz", "--top", "2"]
    done = desk(*words, "--format", "json")
    assert done.code == 0, done.error
    rows = json.loads(done.out)
    assert [(r["file"], r["index"], r["class"], r["class_2"]) for r in rows] == [
        ("dark.png", 0, "cat", "dog"),
        ("batch.npz", 0, "dog", "cat"),
        ("batch.npz", 1, "dog", "cat"),
    ]
    assert [r["probability"] for r in rows] == pytest.approx([0.8, 0.8, 0.8])
    assert f"Model models:/{NAME}/1: its newest version: it has no champion." in done.err
    assert "array 'x' is used" in done.err
    uri, images = answers()
    assert (uri, images.shape) == (f"models:/{NAME}/1", (3, *SHAPE))
    table = desk(*words, "--format", "csv").out
    assert list(csv.DictReader(io.StringIO(table)))[1]["class"] == "dog"
    assert "| dark.png | 0 | cat | 0.8000 |" in desk(*words, "--format", "markdown").out
    assert "batch.npz" in desk(*words).out


def test_predict_uses_the_version_that_is_asked_for(desk: Desk, answers: Callable[[], Any]) -> None:
    desk.add_study("second")
    np.save("a.npy", np.full((2, 3), 9))
    for words, version in (
        (NAME, "2"),
        (f"{NAME}/1", "1"),
        (f"models:/{NAME}/2", "2"),
    ):
        desk("predict", words, "a.npy")
        assert answers()[0] == f"models:/{NAME}/{version}"
    desk("promote", "first")
    done = desk("predict", NAME, "a.npy")
    assert answers()[0] == f"models:/{NAME}/1"
    assert "its champion" in done.err


def test_predict_says_that_pixels_are_not_in_range(desk: Desk, answers: Callable[[], Any]) -> None:
    np.save("a.npy", np.full((2, 3), 0.5))
    done = desk("predict", NAME, "a.npy", "--format", "json")
    assert "a.npy: pixels go up to 0.5 here" in done.err
    assert json.loads(done.out)
    assert answers()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_there_at_once_and_shows_an_example(command: str) -> None:
    result = CliRunner().invoke(application(), [command, "--help"])
    assert result.exit_code == 0
    assert f"podium {command}" in result.output
    assert set(cli_models.EPILOGS) == set(COMMANDS)


def test_the_commands_do_not_wait_for_mlflow_or_pandas() -> None:
    code = (
        "import sys, search.cli_models\n"
        "slow = ('mlflow', 'pandas', 'tensorflow', 'scipy', 'sqlalchemy', 'PIL')\n"
        "print([m for m in slow if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

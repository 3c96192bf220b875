"""Models in the registry; and a study against a real MLflow server, whose artifacts come back."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from search.records import Champion, ConfigError, TrackingError
from search.registry import (
    choose,
    find_champion,
    model_names,
    read_card,
    read_champion,
    registry,
    unpack,
)
from search.settings import TrackingSettings
from spaces.config import TrialConfig
from tests.running import podium
from tests.stores import add_version, hand_made_model, new_store

START_SECONDS = 90


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path / "server"
    folder.mkdir()
    process = subprocess.Popen(
        [
            *[sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)],
            *["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", "1"],
            *["--artifacts-destination", str(folder / "artifacts")],
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    uri = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(uri):
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not start"
        yield uri
    finally:
        process.terminate()
        process.wait(30)


def _answers(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.slow
def test_a_study_on_a_server_leaves_runs_report_and_model_there(
    server: str, tmp_path: Path
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "mlflow.yaml").write_text(
        f"tracking_uri: {server}\nexperiment: remote\nregistered_model: digits\n"
    )
    finished = podium(
        *["run", "--study", "remote", "--trials", "3", "--max-epochs", "3", "--finalists", "1"],
        *["--confirm-seeds", "2", "--sampler", "qmc", "--scheduler", "none"],
        folder=folder,
    )
    assert finished.code == 0, finished.err
    assert "MLflow does not have everything" not in finished.err
    mlflow.set_tracking_uri(server)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("remote")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    parent = next(r for r in runs if "mlflow.parentRunId" not in r.data.tags)
    assert len(runs) == 1 + 3 + 2 * 2
    assert "report.html" in {a.path for a in client.list_artifacts(parent.info.run_id)}
    version = client.get_model_version("digits", "1")
    local = Path(mlflow.artifacts.download_artifacts(f"models:/{version.name}/1"))
    shipped = folder / "runs/studies/remote/model/data/model.keras"
    assert (local / "data" / "model.keras").read_bytes() == shipped.read_bytes()
    (logged,) = client.search_logged_models([experiment.experiment_id])
    assert logged.source_run_id == parent.info.run_id
    assert {m.key for m in logged.metrics} >= {"test_accuracy", "baseline_test_accuracy"}
    assert not (folder / "runs" / "mlflow.db").exists()


def test_a_package_without_a_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "package.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MLmodel", "")
    with pytest.raises(TrackingError, match="no model"):
        unpack(path.read_bytes(), tmp_path / "model", 3)


@pytest.fixture
def store(tmp_path: Path) -> mlflow.MlflowClient:
    return new_store(tmp_path)


CONFIG = TrialConfig(hidden=(64, 32), dropout=0.25)
TAGS = {
    "podium.study": "s",
    "podium.config": CONFIG.canonical_json,
    "podium.space": "mlp",
    "podium.test_fingerprint": "0123",
}


def test_a_champion_comes_with_its_model_and_what_it_was_trained_with(
    store: mlflow.MlflowClient, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name = "podium-full"
    add_version(store, name, hand_made_model(tmp_path / "a", b"first"), TAGS)
    add_version(store, name, hand_made_model(tmp_path / "b", b"second"))
    assert find_champion(store, name) is None
    store.set_registered_model_alias(name, "champion", "1")
    expected = Champion(name, "1", "s", CONFIG, "mlp", "0123", b"first")
    assert find_champion(store, name) == expected
    assert expected.uri == f"models:/{name}/1"
    assert capfd.readouterr().err == ""  # no progress bars
    store.set_registered_model_alias(name, "champion", "2")
    assert find_champion(store, name) == Champion(name, "2", "", None, "", "", b"second")


def test_a_champion_whose_files_or_configuration_are_gone_is_still_the_champion(
    store: mlflow.MlflowClient, tmp_path: Path
) -> None:
    name = "podium-damaged"
    tags = TAGS | {"podium.config": '{"hidden": "many"}'}
    add_version(store, name, hand_made_model(tmp_path / "a"), tags)
    store.set_registered_model_alias(name, "champion", "1")
    for file in (tmp_path / "artifacts").rglob("model.keras"):
        file.unlink()
    champion = find_champion(store, name)
    assert champion == Champion(name, "1", "s", None, "mlp", "0123", None)
    store.set_model_version_tag(name, "1", "podium.trial", "41")
    assert read_champion(store, name, "1").trial == 41


def test_there_is_no_champion_of_a_model_that_was_never_registered(
    store: mlflow.MlflowClient,
) -> None:
    assert find_champion(store, "podium-nothing") is None


def test_a_version_is_found_by_number_alias_champion_or_as_the_newest(
    store: mlflow.MlflowClient,
) -> None:
    name = "podium-choice"
    store.create_registered_model(name)
    with pytest.raises(ConfigError, match="has no version"):
        choose(store, name)
    for _ in range(11):
        store.create_model_version(name, "somewhere")
    newest = choose(store, name)
    assert newest.version == "11"  # and not 9, the last one as text
    assert "it has no champion" in newest.why
    store.set_registered_model_alias(name, "champion", "3")
    store.set_registered_model_alias(name, "previous-champion", "2")
    for words, version in (
        (name, "3"),
        (f"models:/{name}", "3"),
        (f"{name}/10", "10"),
        (f"models:/{name}/1", "1"),
        (f"models:/{name}@previous-champion", "2"),
        (f"{name}@champion", "3"),
    ):
        assert (choose(store, words).name, choose(store, words).version) == (name, version)
    assert choose(store, name).why == "its champion"
    assert choose(store, name).uri == f"models:/{name}/3"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("podium-wrong", "No registered model 'podium-wrong'"),
        ("podium-known/9", r"no version '9'. Its newest is 1; its aliases: champion \(1\)"),
        ("podium-known/one", "no version 'one'"),
        ("podium-known/1/data", "no version '1/data'"),
        ("podium-known@best", r"no alias 'best'. Its aliases: champion \(1\)"),
        ("models:/", "No registered model ''"),
    ],
)
def test_what_cannot_be_found_is_answered_with_what_there_is(
    store: mlflow.MlflowClient, words: str, said: str
) -> None:
    store.create_registered_model("podium-known")
    store.create_model_version("podium-known", "somewhere")
    store.set_registered_model_alias("podium-known", "champion", "1")
    with pytest.raises(ConfigError, match=said):
        choose(store, words)


def test_models_are_found_by_the_pattern_of_mlflow_yaml(store: mlflow.MlflowClient) -> None:
    every = [f"podium-{i:03d}" for i in range(120)]
    for name in (*every, "podium-", "other-digits", "xpodium-a"):
        store.create_registered_model(name)
    assert model_names(store, "podium-{data}") == every  # more than one page of them
    assert model_names(store, "other-digits") == ["other-digits"]
    assert model_names(store, "other.digits") == []
    with pytest.raises(ConfigError, match="Did you mean 'other-digits'"):
        choose(store, "other-digit")


def test_a_card_tells_the_images_and_classes_of_a_version(
    store: mlflow.MlflowClient, tmp_path: Path
) -> None:
    told = hand_made_model(
        tmp_path / "a", classes=["cat", "dog"], image_shape=[4, 5, 3], data="pets"
    )
    add_version(store, "podium-card", told)
    add_version(store, "podium-card", hand_made_model(tmp_path / "b"))
    card = read_card("models:/podium-card/1")
    assert (card.image_shape, card.classes, card.data) == ((4, 5, 3), ("cat", "dog"), "pets")
    with pytest.raises(TrackingError, match="not registered by Podium"):
        read_card("models:/podium-card/2")
    with pytest.raises(TrackingError, match="cannot be read"):
        read_card("models:/podium-card/3")


def test_a_registry_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "mlflow.db"
    settings = TrackingSettings(tracking_uri=f"sqlite:///{path}")
    with (
        pytest.raises(ConfigError, match=r"No models here: .*mlflow\.db does not exist"),
        registry(settings),
    ):
        pass
    assert not path.parent.exists()


class _StrangeError(Exception):
    """As one of a database's driver, which is none of MLflow's."""


@pytest.mark.parametrize("error", [_StrangeError, mlflow.MlflowException, ConnectionError])
def test_what_the_registry_refuses_is_one_paragraph_without_the_password(
    store: mlflow.MlflowClient, error: type[Exception]
) -> None:
    settings = TrackingSettings(tracking_uri=str(store.tracking_uri))
    text = "cannot reach\npostgresql://me:secret@host/db"
    with pytest.raises(TrackingError, match=r"refuses: .*cannot") as caught, registry(settings):
        raise error(text)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [ConfigError, BrokenPipeError])
def test_what_is_not_the_registrys_fault_is_not_told_as_such(
    store: mlflow.MlflowClient, error: type[Exception]
) -> None:
    settings = TrackingSettings(tracking_uri=str(store.tracking_uri))
    with pytest.raises(error, match="its own words"), registry(settings):
        raise error("its own words")

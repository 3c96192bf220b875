"""A registered version in a process of its own: the same predictions, no noise, no TensorFlow."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pytest
from numpy.typing import NDArray

from search import loading
from search.loading import LOADERS, REFERENCE_FILE, Reload, check_load, predict
from search.records import TrackingError
from tests.stores import HandMade, add_reference, add_version, hand_made_model, new_store

if TYPE_CHECKING:
    from search.data import TrainingData

SERVER_SECONDS = 120
IMAGES = np.random.default_rng(0).random((5, 2, 3, 1)).astype(np.float32)


@pytest.fixture(autouse=True)
def hand_made_models_may_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "LOADERS", (*LOADERS, "tests.stores"))


def test_loading_and_the_commands_bring_neither_tensorflow_nor_mlflow() -> None:
    code = (
        "import sys, search.loading, search.promotion, search.prediction, search.cli_models\n"
        "print([m for m in ('tensorflow', 'keras', 'mlflow', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("reload", "same"),
    [
        (Reload(True, 0.0), True),
        (Reload(True, 2e-5), False),
        (Reload(True, float("nan")), False),
        (Reload(True, None), False),
        (Reload(False, 0.0), False),
    ],
)
def test_the_same_is_what_was_loaded_and_compared(reload: Reload, same: bool) -> None:
    assert reload.is_same is same


def test_a_version_is_loaded_compared_and_used_elsewhere_and_in_silence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    client = new_store(tmp_path)
    uri, name = str(client.tracking_uri), "podium-x"
    good = hand_made_model(tmp_path / "good")
    add_reference(good, IMAGES)
    add_version(client, name, good)
    changed = hand_made_model(tmp_path / "changed")
    add_reference(changed, IMAGES)
    (changed / "data" / "model.keras").write_text("1.01")
    add_version(client, name, changed)
    add_version(client, name, hand_made_model(tmp_path / "plain"))
    capfd.readouterr()

    assert check_load(uri, f"models:/{name}/1") == Reload(True, 0.0)
    other = check_load(uri, f"models:/{name}/2")
    expected = 0.01 * IMAGES.reshape(5, -1).mean(axis=1).max()
    assert other.difference == pytest.approx(expected, rel=1e-3)
    assert not other.is_same
    plain = check_load(uri, f"models:/{name}/3")
    assert (plain.loaded, plain.difference, plain.is_same) == (True, None, False)
    assert REFERENCE_FILE in plain.trouble

    predicted = predict(uri, f"models:/{name}/1", IMAGES)
    np.testing.assert_allclose(
        predicted.probabilities, HandMade(good / "data").predict(IMAGES), atol=1e-6
    )
    assert predicted.pixel_range == (float(IMAGES.min()), float(IMAGES.max()))
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_a_version_that_brings_other_code_than_keras_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "LOADERS", LOADERS)
    client = new_store(tmp_path)
    add_version(client, "podium-x", hand_made_model(tmp_path / "a"))
    with pytest.raises(TrackingError, match=r"/1 cannot be used: .*loaded by 'tests\.stores'"):
        predict(str(client.tracking_uri), "models:/podium-x/1", IMAGES)
    assert not check_load(str(client.tracking_uri), "models:/podium-x/1").loaded


def test_a_version_that_fails_or_dies_is_a_reason_and_no_exception(tmp_path: Path) -> None:
    client = new_store(tmp_path)
    uri, name = str(client.tracking_uri), "podium-x"
    add_version(client, name, hand_made_model(tmp_path / "a", b"no number"))
    add_version(client, name, hand_made_model(tmp_path / "b", b"dies"))
    shaped = hand_made_model(tmp_path / "c")
    np.savez(shaped / REFERENCE_FILE, images=IMAGES, probabilities=np.zeros((5, 3)))
    add_version(client, name, shaped)

    with pytest.raises(TrackingError, match="/1 cannot be used: ValueError: could not convert"):
        predict(uri, f"models:/{name}/1", IMAGES)
    dead = check_load(uri, f"models:/{name}/2")
    assert not dead.loaded
    assert "BrokenProcessPool" in dead.trouble
    other = check_load(uri, f"models:/{name}/3")
    assert other.loaded
    assert not other.is_same
    assert "(5, 2) where it gave (5, 3)" in other.trouble


# With Keras


@dataclass(frozen=True)
class Real:
    """A small network for digits, registered as a study registers one."""

    uri: str
    name: str
    model: Any
    data: TrainingData
    folder: Path

    @property
    def images(self) -> NDArray[np.float32]:
        """Raw pixels, none of those that are kept with the model."""
        return self.data.images[100:117].astype(np.float32)

    @property
    def expected(self) -> NDArray[np.float32]:
        """What Keras says of the images."""
        return np.asarray(self.model.predict(self.images, verbose=0), np.float32)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Real:
    from search.backend import keras
    from search.data import load
    from search.worker import write_package

    folder = tmp_path_factory.mktemp("real")
    data = load("digits", None, seed=0).training
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input(data.image_shape),
            keras.layers.Rescaling(1 / 16),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(len(data.classes), activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(data.images.astype(np.float32), data.labels, epochs=2, verbose=0)
    package = folder / "package"
    requirements = tuple(f"{p}=={version(p)}" for p in ("tensorflow", "keras", "numpy", "mlflow"))
    write_package(model, data, requirements, package)
    client = new_store(folder)
    add_version(client, "podium-digits", package, {"podium.study": "s"})
    damaged = folder / "damaged"
    shutil.copytree(package, damaged)
    weights = model.get_weights()
    model.set_weights([w * 1.1 for w in weights])
    model.save(damaged / "data" / "model.keras")
    model.set_weights(weights)
    add_version(client, "podium-digits", damaged)
    return Real(str(client.tracking_uri), "podium-digits", model, data, folder)


@pytest.mark.slow
def test_keras_predicts_the_same_in_another_process(
    real: Real, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    same = check_load(real.uri, f"models:/{real.name}/1")
    assert same.trouble == ""
    assert same.is_same
    other = check_load(real.uri, f"models:/{real.name}/2")
    assert other.loaded
    assert other.difference is not None
    assert other.difference > 1e-3
    predicted = predict(real.uri, f"models:/{real.name}/1", real.images)
    np.testing.assert_allclose(predicted.probabilities, real.expected, atol=1e-5)
    assert predicted.pixel_range == (0.0, 16.0)
    with pytest.raises(TrackingError, match="cannot be used"):
        predict(real.uri, f"models:/{real.name}/1", IMAGES)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


LAUNCHER = """
import sys
import typer
from search import cli_models
app = typer.Typer(pretty_exceptions_enable=False)
for name in cli_models.EPILOGS:
    app.command()(getattr(cli_models, name))
try:
    app()
finally:
    print([m for m in ("tensorflow", "keras") if m in sys.modules], file=sys.stderr)
"""


@pytest.mark.slow
def test_typed_in_a_terminal_predict_leaves_tensorflow_to_another_process(
    real: Real, tmp_path: Path
) -> None:
    (tmp_path / "mlflow.yaml").write_text(f"tracking_uri: {real.uri}\n")
    np.save(tmp_path / "images.npy", real.data.images[100:117])
    done = subprocess.run(
        [
            *[sys.executable, "-c", LAUNCHER, "predict", f"{real.name}/1", "images.npy"],
            *["--top", "10", "--format", "json"],
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"Model models:/{real.name}/1: as asked.\n[]\n"
    rows = json.loads(done.stdout)
    for row, expected in zip(rows, real.expected, strict=True):
        assert row["class"] == real.data.classes[int(expected.argmax())]
        found = [row["probability"], *(row[f"probability_{i}"] for i in range(2, 11))]
        np.testing.assert_allclose(found, np.sort(expected)[::-1], atol=1e-5)


@pytest.fixture
def server(real: Real) -> Iterator[str]:
    """`mlflow models serve` on the champion's address, as a user would start it."""
    mlflow.set_tracking_uri(real.uri)
    mlflow.MlflowClient().set_registered_model_alias(real.name, "champion", "1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            *[sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"],
            *["--model-uri", f"models:/{real.name}@champion"],
            *["--host", "127.0.0.1", "--port", str(port)],
        ],
        cwd=real.folder,
        env={**os.environ, "MLFLOW_TRACKING_URI": real.uri, "PATH": _path()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + SERVER_SECONDS
        while not _answers(address):
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # and with it the workers that it started
        process.wait(30)


def _path() -> str:
    """With this Python's programs first: MLflow starts uvicorn by its name."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/ping", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _post(address: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{address}/invocations",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_served_as_it_is_it_answers_raw_images_as_keras_does(real: Real, server: str) -> None:
    for key in ("inputs", "instances"):
        answer = _post(server, {key: real.images.tolist()})
        found = np.array(answer["predictions"])
        np.testing.assert_allclose(found, real.expected, atol=1e-5)
    one = _post(server, {"inputs": real.images[:1].tolist()})
    np.testing.assert_allclose(one["predictions"], real.expected[:1], atol=1e-5)
    with pytest.raises(urllib.error.HTTPError) as refused:
        _post(server, {"inputs": real.images[:, :3].tolist()})
    assert refused.value.code == 400
    refused.value.close()

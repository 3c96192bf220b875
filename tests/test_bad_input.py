"""Bad input: each ends with its exit code and one paragraph that names the thing, the value and the
way out, without a traceback; and where the code is 2, nothing was written.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from search import cli
from search.data import load
from search.ledger import Ledger
from search.records import State
from search.tuning import Cluster
from spaces.config import TrialConfig
from tests.builders import make_assignment, make_epoch, make_report
from tests.test_cli_models import NAME, Desk, desk  # noqa: F401
from tests.test_readers import DAMAGED, write_npz

LONG = "n" * 300
"""Longer than a file's name may be."""
DIGITS = "9" * 5000
"""More than Python makes a number of."""

MANY = ",".join(map(str, range(1, 1002)))

SPACE = """
from spaces.config import TrialConfig

def suggest(trial):
    return TrialConfig({suggest})

def baseline():
    return TrialConfig({baseline})
"""


def space(suggest: str = "", baseline: str = "", more: str = "") -> str:
    return SPACE.format(suggest=suggest, baseline=baseline) + more


@dataclass(frozen=True)
class Bad:
    """What is typed, in a folder with these files, and what must be said of it.

    Attributes:
        words: separated by blanks.
        says: parts of the message: the thing, its value, the way out.
        files: text by name.
        make: what is there besides.
        code: the exit code.
    """

    words: str
    says: tuple[str, ...]
    files: dict[str, str]
    make: Callable[[Path], object] | None = None
    code: int = 2


def bad(
    words: str,
    *says: str,
    make: Callable[[Path], object] | None = None,
    code: int = 2,
    **files: str,
) -> Bad:
    """One row; `space_py` is the name of the file space.py."""
    named = {re.sub(r"_(py|yaml)$", r".\1", name): text for name, text in files.items()}
    return Bad(words, says, named, make, code)


def config(text: str, *says: str) -> Bad:
    return bad("run --config study.yaml", *says, study_yaml=text)


def mlflow_file(text: str, *says: str) -> Bad:
    return bad("run", "mlflow.yaml", *says, mlflow_yaml=text)


def own_space(text: str, *says: str) -> Bad:
    return bad("run --space own.py", "Space own", *says, own_py=text)


FLAGS = [
    bad("nonsense", "No such command", "nonsense", "--help"),
    bad("run --trails 3", "No such option", "--trails", "--trials"),
    bad("run --trials many", "--trials", "'many'", "should be a valid integer"),
    bad("run --trials 0", "trials", "is 0", "greater than or equal to 1"),
    bad("run --trials -3", "trials", "is -3", "greater than or equal to 1"),
    bad("run --trials 1000001", "trials", "1000001", "less than or equal to 1000000"),
    bad("run --max-epochs 0", "max-epochs", "is 0", "greater than or equal to 1"),
    bad("run --max-epochs 1", "max-epochs is 1", "first rung 2", "or use --scheduler none"),
    bad("run --max-epochs 5 --first-rung 6", "is 5", "first rung 6", "lower --first-rung"),
    bad("run --reduction 1", "reduction", "is 1", "greater than or equal to 2"),
    bad("run --concurrent 0", "concurrent", "is 0", "greater than or equal to 1"),
    bad("run --cpus-per-trial 0", "cpus-per-trial", "is 0", "greater than or equal to 1"),
    bad("run --gpus-per-trial -1", "gpus-per-trial", "is -1", "greater than or equal to 0"),
    bad("run --gpus-per-trial 1.5", "gpus-per-trial", "is 1.5", "whole number, or a fraction"),
    bad("run --gpus-per-trial nan", "gpus-per-trial", "is nan", "should be a finite number"),
    bad("run --seed -1", "seed", "is -1", "greater than or equal to 0"),
    bad("run --seed 2147483648", "seed", "is 2147483648", "less than 2147483648"),
    bad("run --finalists -1", "finalists", "is -1", "greater than or equal to 0"),
    bad("run --confirm-seeds 1", "confirm-seeds", "is 1", "greater than or equal to 2"),
    bad("run --folds 1", "folds", "is 1", "0 for one split, or at least 2"),
    bad("run --max-latency-ms inf", "max-latency-ms", "is inf", "should be a finite number"),
    bad("run --tolerance 1", "tolerance", "is 1", "less than 1"),
    bad("run --sampler tpee", "sampler", "'tpee'", "Did you mean 'tpe'?"),
    bad("run --scheduler ahsa", "scheduler", "'ahsa'", "Did you mean 'asha'?"),
    bad("run --policy best", "policy", "'best'", "Did you mean 'best-mean'?"),
    bad("run --image-shape 28", "image-shape", "is '28'", "should match pattern"),
    bad("run --image-shape ٢٨x٢٨", "image-shape", "is '٢٨x٢٨'", "should match pattern"),
    bad(f"run --image-shape {DIGITS}x1", "image-shape", "is '999", "should match pattern"),
    bad("run --grid batch_size", "--grid", "batch_size", "expected name=value"),
    bad("run --grid batch_sizes=1", "--grid", "'batch_sizes'", "Did you mean 'batch_size'?"),
    bad("run --grid batch_size=10,0", "--grid", "batch_size is '0'", "greater than or equal"),
    bad("run --grid hidden=64,", "--grid", "hidden=64,", "a value is missing"),
    bad(
        f"run --grid batch_size={MANY} --grid epochs={MANY}",
        *("--grid", "1,002,001 combinations", "at most 1,000,000 trials", "List fewer values"),
    ),
    bad(
        "run --grid pca_components=5 --grid filters=8",
        *("--grid", "pca_components=5, filters=8", "leave filters or the reduction out"),
    ),
    bad("run --data mnits", "data set", "'mnits'", "Did you mean 'mnist'?"),
    bad("run --data no/such/path", "data set", "'no/such/path'", "Or give the path"),
    bad("run --data mnist --data-dir missing", "--data-dir", "missing", "no such folder"),
    bad("run --data mnist --data-dir .", "mnist is not in .", "expected mnist.npz", "companions"),
    bad(f"run --data-dir {LONG}", "--data-dir", LONG, "no such folder"),
    bad("run --data digits --image-shape 8x8", "digits", "--image-shape", "for your own files"),
    bad("run --address nonsense", "address", "'nonsense'", "expected host:port"),
    bad("run --address ray://127.0.0.1:10001", "address", "ray://127", "expected host:port"),
    bad("run --address 127.0.0.1:99999999", "127.0.0.1:99999999", "No Ray", "ray start --head"),
    bad("run --address a..b:6379", "'a..b:6379'", "No Ray cluster", "ray start --head"),
    bad("run --address host:²", "address", "'host:²'", "expected host:port"),
    bad("run --config missing.yaml", "missing.yaml", "no such file"),
    bad(f"run --config {LONG}", LONG, "cannot be read", "name too long"),
    bad("reproduce", "Which notebook?", "podium reproduce --list"),
    bad("reproduce msds422", "notebook", "'msds422'", "Did you mean 'msds422-mlp'?"),
    bad("reproduce sgd-mlp --only a --only d31", "sgd-mlp", "'d31'", "Did you mean 'd32'?"),
    bad(
        "reproduce sgd-mlp --epochs-scale 0",
        "--epochs-scale",
        "0",
        "greater than or equal to 0.001",
    ),
    bad("reproduce sgd-mlp --epochs-scale 1.5", "--epochs-scale", "1.5", "less than or equal to 1"),
    bad("reproduce sgd-mlp --epochs-scale nan", "--epochs-scale", "nan", "less than or equal to 1"),
    bad("reproduce sgd-mlp --seeds 0", "--seeds", "0", "greater than or equal to 1"),
    bad("reproduce sgd-mlp --data-dir missing", "--data-dir", "missing", "no such folder"),
    bad("reproduce sgd-mlp --study a/b", "study", "'a/b'", "letters, digits"),
    bad("reproduce --write-docs", "No studies here", "ledger.db", "podium run"),
    bad("figures S", "No studies here", "ledger.db", "podium run"),
    bad("figures S --pair 4", "--pair", "4", "expected two numbers"),
    bad(f"figures S --pair 4,{DIGITS}", "--pair", "4,9", "expected two numbers"),
    bad("figures S --pixels 7,x", "--pixels", "7,x", "as in 4,9"),
    bad("figures S --layer 0", "--layer", "0", "greater than or equal to 1"),
    bad("figures S --unit -1", "--unit", "-1", "greater than or equal to 0"),
    bad("status", "No studies here", "ledger.db", "podium run"),
    bad("status S", "No studies here", "ledger.db", "podium run"),
    bad("resume S", "No studies here", "ledger.db", "podium run"),
    bad("compare S", "No studies here", "ledger.db", "podium run"),
    bad("compare --format xml", "--format", "'xml'", "'table', 'json'"),
    bad("recommend S", "No studies here", "ledger.db", "podium run"),
    bad("recommend S --policy best", "policy", "'best'", "Did you mean 'best-mean'?"),
    bad("promote S", "No studies here", "ledger.db", "podium run"),
    bad("rollback", "No models here", "mlflow.db", "podium run"),
    bad("champion", "No models here", "mlflow.db", "podium run"),
    bad("predict M a.png", "No models here", "mlflow.db", "podium run"),
    bad("ui --port 0", "--port", "0", "greater than or equal to 1"),
    bad("ui --host a..b", "a..b:5000", "Nothing can listen", "leave --host out"),
]

STUDY_NAMES = [
    *(
        bad(f"run --study {name}", "study", f"is {shown}", "1-64 letters, digits")
        for name, shown in {
            "../escape": "'../escape'",
            "..": "'..'",
            ".hidden": "'.hidden'",
            "a/b": "'a/b'",
            "/etc/passwd": "'/etc/passwd'",
            "a\\b": r"'a\\b'",
            "n" * 65: f"'{'n' * 65}'",
            "a\x1b[31m": r"'a\x1b[31m'",
            "a\x7f": r"'a\x7f'",
            "caf\u00e9": "'caf\u00e9'",
            "\u202egnp": r"'\u202egnp'",
            "\uff41bc": "'\uff41bc'",
            "<b>x</b>": "'<b>x</b>'",
            "a%2fb": "'a%2fb'",
        }.items()
    ),
    config('study: ""', "study is ''", "1-64 letters, digits", "study.yaml"),
    config("study: 'a b'", "study is 'a b'", "1-64 letters, digits", "study.yaml"),
    config("study: 2026-01-01", "study is datetime.date(2026, 1, 1)", "valid string", "study.yaml"),
]

YAML = [
    config("trails: 3", "study.yaml", "'trails'", "Did you mean 'trials'?"),
    config("- trials", "study.yaml", "found a list", "expected `name: value` lines"),
    config("trials: [", "study.yaml", "not valid YAML", "Expected `name: value`"),
    config("trials: many", "study.yaml", "trials is 'many'", "valid integer"),
    config("trials: yes", "study.yaml", "trials is True", "not yes or no"),
    config(f"trials: {DIGITS}", "study.yaml", "not valid YAML", "Expected `name: value`"),
    config("trials: 1\ntrials: 2", "study.yaml", "'trials'", "keep one of them"),
    *(
        config(f"trials: !!{tag} {value}", "study.yaml", f"{value} is no !!{tag}", "line 1")
        for tag, value in {
            "int": "''",
            "float": "''",
            "bool": "'maybe'",
            "timestamp": "'x'",
        }.items()
    ),
    config("trials: !!int {=: ''}", "study.yaml", "this is no !!int", "Expected `name: value`"),
    config(f"trials: {'1:' * 400_000}1", "study.yaml", "is no !!int", "Expected `name: value`"),
    config(f"max_gap: {'1:' * 400_000}1.5", "study.yaml", "is no !!float", "Expected `name: val"),
    config("max-epochs: 9\nmax_epochs: 8", "study.yaml", "'max_epochs'", "keep one of them"),
    config("a: &a [x]\nb: [*a, *a]", "study.yaml", "*a is an alias", "write out"),
    config(f"study: {'n' * 2_000_000}", "study.yaml", "1,000,000 characters", "right file?"),
    config(f"data: '{'[' * 2000}", "study.yaml", "not valid YAML", "Expected `name: value`"),
    config("!!python/object/apply:os.mkdir [x]", "study.yaml", "not valid YAML", "Expected `name"),
    config("grid: [batch_size]", "study.yaml", "grid is ['batch_size']", "name: [value, value]"),
    config("tracking: 3", "study.yaml", "`tracking`", "settings of mlflow.yaml"),
    config("tracking: {tracking_url: x}", "study.yaml", "'tracking_url'", "'tracking_uri'?"),
    config("tracking: {gates: {}}", "study.yaml", "`gates`", "Move them there"),
    config('data: "a\\0b"', r"'a\x00b'", "Unknown data set", "Or give the path"),
    bad(
        "run --config study.yaml",
        *("study.yaml", "cannot be read", "utf-8"),
        make=lambda folder: (folder / "study.yaml").write_bytes(b"\xff\xfe"),
    ),
    bad(
        "run --config folder",
        *("folder", "cannot be read", "Is a directory"),
        make=lambda folder: (folder / "folder").mkdir(),
    ),
    bad(
        "run --config pipe",
        *("pipe", "a pipe, a socket or a device", "right file?"),
        make=lambda folder: os.mkfifo(folder / "pipe"),
    ),
    bad(
        "run",
        *("mlflow.yaml", "a pipe, a socket or a device", "right file?"),
        make=lambda folder: os.mkfifo(folder / "mlflow.yaml"),
    ),
    bad("run --config /dev/zero", "/dev/zero", "1,000,000 characters", "right file?"),
    mlflow_file("tracking_url: x", "'tracking_url'", "Did you mean 'tracking_uri'?"),
    mlflow_file("tracking_uri: 3", "tracking-uri is 3", "valid string"),
    mlflow_file("registered_model: a/b", "registered-model is 'a/b'", "should match pattern"),
    mlflow_file("gates: {min_accuracy: 2}", "min-accuracy is 2", "less than or equal to 1"),
    mlflow_file("gates: {min_acuracy: 1}", "'min_acuracy'", "Did you mean 'min_accuracy'?"),
    bad(
        "run",
        *("http://127.0.0.1:1", "does not answer", "Start the server"),
        mlflow_yaml="tracking_uri: http://127.0.0.1:1",
    ),
    bad(
        "run",
        *("http://a..b", "does not answer", "Start the server"),
        mlflow_yaml="tracking_uri: http://a..b",
    ),
    bad(
        "run",
        *("a..b:5432", "does not answer", "correct tracking_uri"),
        mlflow_yaml="tracking_uri: postgresql://a..b/x",
    ),
    bad(
        "run",
        *("file:./mlruns", "expected sqlite:///path", "keeps no runs in plain folders"),
        mlflow_yaml="tracking_uri: file:./mlruns",
    ),
    bad(
        "run",
        *("mlflow.yaml", "cannot be read", "Is a directory"),
        make=lambda folder: (folder / "mlflow.yaml").mkdir(),
    ),
]

SPACES = [
    bad("run --space mpl", "space", "'mpl'", "Did you mean 'mlp'?"),
    bad("run --space no.such.module", "space", "'no.such.module'", "ends in .py"),
    bad("run --space missing.py", "missing.py", "cannot be read", "No such file"),
    bad(f"run --space {LONG}.py", f"{LONG}.py", "cannot be read", "name too long"),
    own_space("def (\n", "cannot be run", "SyntaxError", "line 1"),
    own_space("import nothing_of_that_name\n", "cannot be run", "'nothing_of_that_name'"),
    own_space("raise SystemExit(3)\n", "cannot be run", "SystemExit: 3"),
    own_space("def suggests(trial): pass\n", "no function suggest()", "a space has suggest(trial)"),
    own_space("def suggest(trial): pass\n", "no function baseline()", "and baseline()"),
    own_space(space(more="build = 3"), "build is not a function", "build(config, input_shape"),
    own_space(
        "def suggest(trial): return 3\ndef baseline(): return 3\n",
        *("baseline() returned a int", "expected a spaces.config.TrialConfig"),
    ),
    own_space(
        space().replace("return TrialConfig()", "return {}", 1),
        *("suggest() returned a dict", "expected a spaces.config.TrialConfig"),
    ),
    own_space(
        space().replace("return TrialConfig()", "raise ValueError('bad luck')", 1),
        *("suggest() failed", "ValueError: bad luck"),
    ),
    own_space(
        space().replace("return TrialConfig()", "raise SystemExit(0)", 1),
        *("suggest() failed", "SystemExit: 0"),
    ),
    own_space(
        space().replace("return TrialConfig()", "return suggest(trial)", 1),
        *("suggest() failed", "RecursionError"),
    ),
    own_space(space("batch_size=0"), "suggest()", "batch_size is 0", "greater than or equal to 1"),
    own_space(space(baseline="droput=0.5"), "baseline()", "'droput'", "Did you mean 'dropout'?"),
    own_space(space("hidden=(65_537,)"), "suggest()", "is 65537", "less than or equal to 65536"),
    own_space(space("hidden=(8,) * 65"), "suggest()", "hidden is", "at most 64 items"),
    own_space(space("dropout=float('nan')"), "suggest()", "dropout is nan", "a finite number"),
    own_space(
        space("filters=(8,), pca_components=3"),
        *("suggest()", "convolutions need whole images", "leave filters or the reduction out"),
    ),
    own_space(
        space("extra={'n': 10 ** 5000}"), "suggest()", "extra", "a whole number below 10**300"
    ),
]


def own_npz(**arrays: Any) -> Callable[[Path], object]:
    sound = {
        "x": np.arange(40 * 4, dtype=np.uint8).reshape(40, 2, 2),
        "y": np.arange(40) % 2,
    }
    return lambda folder: write_npz(folder, sound | arrays)


def rows_of(*rows: str, name: str = "own.csv") -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text("\n".join(rows))


WIDE = ",".join(f"p{n}" for n in range(60_000))
DATA = [
    bad(
        "run --data own.npz --folds 30",
        *("--folds 30", "only 16 images of class '0'", "at most as many folds"),
        make=own_npz(),
    ),
    bad(
        "run --data own.npz --image-shape 2x3",
        *("own.npz", "--image-shape is (2, 3)", "Leave it out"),
        make=own_npz(),
    ),
    bad(
        "run --data own.npz --image-shape 999999x999999",
        *("own.npz", "--image-shape 999999x999999", "Expected HxW"),
        make=own_npz(x=np.zeros((40, 4))),
    ),
    bad(
        "run --data own.npz --label-column y",
        *("own.npz", "only CSV has columns", "leave --label-column out"),
        make=own_npz(),
    ),
    bad(
        "run --data own.npz",
        *("PODIUM_MAX_DATA_GIB", "'lots'", "a number of GiB"),
        make=lambda folder: (own_npz()(folder), (folder / "limit").write_text("lots")),
    ),
    bad(
        "run --data own.npz",
        *("own.npz", "claims", "at most 107 are read", "PODIUM_MAX_DATA_GIB"),
        make=lambda folder: (own_npz()(folder), (folder / "limit").write_text("1e-7")),
    ),
    bad(
        "run --data own.csv",
        *("own.csv", "row 1", "column 'p0' holds ''", "a number in every row"),
        make=rows_of(f"label,{WIDE}", *["0"] * 60_000),
    ),
    bad(
        "run --data own.csv",
        *("own.csv", "300,001 columns", "at most 200,000", "another format"),
        make=rows_of("label" + "," * 300_000, "0"),
    ),
    bad(
        "run --data own.csv",
        *("own.csv", "row 2 has a label of 90,000 characters", "at most 1,000", "--label-column"),
        make=rows_of("label,p0", "a,1", "b" * 90_000 + ",2", *["a,1"] * 100_000),
    ),
    bad(
        "run --data own.csv --label-column colour",
        *("own.csv", "no column 'colour'", "names label, p0", "--label-column"),
        make=rows_of("label,p0", "0,1"),
    ),
    bad(
        "run --data own.csv",
        *("own.csv", f"holds '{'9' * 40}'", "a number in every row"),
        make=rows_of("label,p0", "0,1", f"1,{DIGITS}"),
    ),
    bad(
        "run --data own.npz",
        *("own.npz", "holds x.tar", "Expected an .npz"),
        make=lambda folder: (folder / "own.npz").mkdir() or (folder / "own.npz" / "x.tar").touch(),
    ),
    bad(
        "run --data loop.npz",
        *("'loop.npz'", "Unknown data set", "Or give the path"),
        make=lambda folder: (folder / "loop.npz").symlink_to("loop.npz"),
    ),
    bad(
        "run --data pets",
        *("ant/1.png", "4,097 by 4,097 pixels", "Resize it first"),
        make=lambda folder: (
            (folder / "pets/ant").mkdir(parents=True),
            Image.new("1", (4097, 4097)).save(folder / "pets/ant/1.png"),
        ),
    ),
    bad(
        "run --data pipes",
        *("pipes/x.npy", "a pipe, a socket or a device", "into a file"),
        make=lambda folder: (
            (folder / "pipes").mkdir(),
            os.mkfifo(folder / "pipes/x.npy"),
            np.save(folder / "pipes/y.npy", np.arange(40) % 2),
        ),
    ),
    bad("data describe own.npz", "data set", "'own.npz'", "Or give the path"),
]


# What was stored, and changed since


def settings_of(**changed: Any) -> dict[str, Any]:
    return {"space": "mlp", "data": "digits", "trials": 24, "tracking": {}, **changed}


def study(
    state: State = State.INTERRUPTED,
    settings: dict[str, Any] | None = None,
    facts: dict[str, Any] | None = None,
    statements: tuple[str, ...] = (),
) -> Callable[[Path], object]:
    """A ledger with the study "s", its trial 0 of one epoch, and what is done to it by hand."""

    def make(folder: Path) -> None:
        data = load("digits", None, 0)
        known = {
            "fingerprint": data.fingerprint,
            "test_fingerprint": data.test.fingerprint,
            "baseline": TrialConfig().config_id,
            "space": "mlp",
        }
        ledger = Ledger(folder / "runs" / "ledger.db")
        ledger.begin_study("s", settings_of(**(settings or {})), known | (facts or {}), 0)
        ledger.begin_trial("s", make_assignment(0, proposal="{}"), 0)
        ledger.append("s", 0, make_report(make_epoch(1)))
        ledger.end_study("s", state, None, 1)
        ledger.close()
        with closing(sqlite3.connect(folder / "runs" / "ledger.db")) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    return make


def damaged(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        study()(folder)
        path = folder / "runs" / "ledger.db"
        path.write_bytes(change(path.read_bytes()))

    return make


def stranger(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE colours (name TEXT)")


def locked(folder: Path) -> object:
    """A study that another process runs; gives its lock, which must live on."""
    study()(folder)
    (folder / "runs" / "studies" / "s").mkdir(parents=True)
    file = (folder / "runs" / "studies" / "s" / "lock").open("w")
    file.write(json.dumps({"pid": 4711, "host": "far", "since": "then"}))
    file.flush()
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def blocked(folder: Path) -> None:
    study()(folder)
    (folder / "runs" / "studies").write_text("mine")


STORED = [
    bad("run --study s", "'s'", "already", "podium resume s", make=study()),
    bad("status t", "No study", "'t'", "Studies here: s", make=study()),
    bad("status ../s", "No study", "'../s'", "Studies here: s", make=study()),
    bad("compare s t", "No study", "'t'", "Studies here: s", make=study()),
    bad("compare s --sort acuracy", "column", "'acuracy'", "Known: ", make=study()),
    bad("test-log t", "No study", "'t'", "Studies here: s", make=study()),
    bad("recommend s", "Study s", "no recommendation can be made", "confirmed", make=study()),
    bad("recommend s --tolerance nan", "tolerance", "is nan", "finite number", make=study()),
    bad("figures s", "Study s", "no completed trial", make=study()),
    bad("figures s --trial 9", "Study s", "no trial 9", "There are: 0", make=study()),
    bad("figures s --kind sampels", "figure", "'sampels'", "Did you mean 'samples'?", make=study()),
    bad("figures s --trial 0 --pair 4,10", "--pair", "10", "10 classes, from 0", make=study()),
    bad("figures s --trial 0 --pair 4,4", "--pair", "4,4", "expected two classes", make=study()),
    bad("figures s --trial 0 --pixels 1,64", "--pixels", "64", "64 pixels, from 0", make=study()),
    bad(
        "figures s --trial 0 --image 99999", "--image", "99999", "images in the pool", make=study()
    ),
    bad(
        "figures s --trial 0",
        *("study s", "fingerprint was 0123", "is "),
        make=study(facts={"fingerprint": "0123"}),
    ),
    bad("promote s", "Study s", "no verdict", "podium resume s` goes on", make=study()),
    bad("promote s", "Study s", "has not ended", "podium status s", make=study(State.RUNNING)),
    bad("promote s", "Study s failed", "Run it again", make=study(State.FAILED)),
    bad("promote t", "No study", "'t'", "Studies here: s", make=study()),
    # Resume
    bad("resume t", "No study", "'t'", "Studies here: s", make=study()),
    bad("resume s", "Study s", "has ended", "--trials +50", make=study(State.COMPLETED)),
    bad("resume s --trials +0", "has ended", "--trials +50", make=study(State.COMPLETED)),
    bad("resume s --finalists 1", "--finalists 1", "has 4 already", "+1 would be", make=study()),
    bad("resume s --finalists=-1", "--finalists -1", "expected a number", make=study()),
    bad("resume s --trials many", "--trials", "many", "+50 for fifty more", make=study()),
    bad("resume s --trials=-5", "--trials", "-5", "+50 for fifty more", make=study()),
    bad("resume s --trials 3", "--trials", "has 24 already", "+3", make=study()),
    bad("resume s --trials +9999999", "trials", "is 10000023", "less than or equal", make=study()),
    bad("resume s --concurrent 0", "concurrent", "is 0", "greater than or equal", make=study()),
    bad("resume s --data-dir missing", "--data-dir", "missing", "no such folder", make=study()),
    bad(
        "resume s",
        *("s cannot go on", "fingerprint was 0123", "start another study"),
        make=study(facts={"fingerprint": "0123"}),
    ),
    bad(
        "resume s",
        *("s cannot go on", "baseline was 0123", "start another study"),
        make=study(facts={"baseline": "0123"}),
    ),
    bad(
        "resume s",
        *("s cannot go on", "space was cnn", "is mlp now", "start another study"),
        make=study(facts={"space": "cnn"}),
    ),
    bad(
        "resume s",
        *("space", "'gone'", "ends in .py"),
        make=study(settings={"space": "gone"}),
    ),
    bad(
        "resume s",
        *("ledger's settings", "'tpee'", "start another study"),
        make=study(settings={"sampler": "tpee"}),
    ),
    bad(
        "resume s",
        *("ledger's settings", "trials is 'many'", "start another study"),
        make=study(settings={"trials": "many"}),
    ),
    bad(
        "figures s --trial 0",
        *("ledger's settings of study s", "trials is 0", "start another study"),
        make=study(settings={"trials": 0}),
    ),
    bad(
        "promote s",
        *("ledger's settings of study s", "tracking-uri is 3", "start another study"),
        make=study(settings={"tracking": {"tracking_uri": 3}}),
    ),
    bad(
        "resume s",
        *("Study s", "is a reproduction", "podium reproduce"),
        make=study(settings={"notebook": "sgd-mlp"}),
    ),
    bad("resume s", "Study s", "process 4711 on far, since then", "Wait until", make=locked),
    bad("resume s", "runs/studies/s", "cannot be made", "out of the way", make=blocked),
    # The ledger itself
    bad(
        "status",
        "ledger.db",
        "file is not a database",
        "Put back a copy",
        make=damaged(lambda _: b"x" * 9999),
    ),
    bad(
        "status",
        "ledger.db",
        "malformed",
        "Put back a copy",
        make=damaged(lambda b: b[: len(b) // 2]),
    ),
    bad(
        "run", "ledger.db", "malformed", "Put back a copy", make=damaged(lambda b: b[: len(b) // 2])
    ),
    bad(
        "status",
        *("ledger.db", "malformed", "Put back a copy"),
        make=damaged(lambda b: b[:4096] + b"\xff" * (len(b) - 4096)),
    ),
    bad(
        "status",
        *("ledger.db", "schema version 99", "Update Podium"),
        make=study(statements=("UPDATE meta SET schema_version = 99",)),
    ),
    bad(
        "status",
        *("ledger.db", "lacks its schema version", "Put back a copy"),
        make=study(statements=("DELETE FROM meta",)),
    ),
    bad(
        "status",
        *("ledger.db is damaged", "no such table: epochs", "Put back a copy"),
        make=study(statements=("DROP TABLE epochs",)),
        code=3,
    ),
    bad(
        "status s",
        *("ledger", "holds a record that cannot be read", "Put back a copy"),
        make=study(statements=("UPDATE trials SET config = '{'",)),
        code=3,
    ),
    bad(
        "compare s",
        *("ledger", "cannot be read", "'bogus'", "Put back a copy"),
        make=study(statements=("UPDATE trials SET state = 'bogus'",)),
        code=3,
    ),
    bad(
        "status",
        *("ledger", "holds a record that cannot be read", "Put back a copy"),
        make=study(statements=("UPDATE studies SET settings = '[1'",)),
        code=3,
    ),
    bad(
        "status",
        *("ledger.db", "not one of Podium's ledgers"),
        make=lambda folder: (
            (folder / "runs").mkdir(),
            stranger(folder / "runs" / "ledger.db"),
        ),
    ),
    bad(
        "status",
        *("ledger.db", "cannot be used as a ledger", "Put back a copy"),
        make=lambda folder: (folder / "runs" / "ledger.db").mkdir(parents=True),
    ),
    bad(
        "run",
        *("mlflow.db", "not an SQLite database"),
        make=lambda folder: (
            (folder / "runs").mkdir(),
            (folder / "runs" / "mlflow.db").write_text("mine" * 99),
        ),
    ),
    bad(
        "resume ..",
        *("'..'", "someone has changed the ledger", "Start another study"),
        make=study(
            statements=(
                "PRAGMA foreign_keys=OFF",
                "UPDATE studies SET name = '..'",
                "UPDATE trials SET study = '..'",
                "UPDATE epochs SET study = '..'",
            )
        ),
    ),
]

TABLES = {
    "flags": FLAGS,
    "names": STUDY_NAMES,
    "yaml": YAML,
    "spaces": SPACES,
    "data": DATA,
    "stored": STORED,
}
CELLS = {
    "facts": ("[]", '"x"', '{"fingerprint": 1}', '{"versions": []}', '{"class_names": {}}'),
    "settings": ("[]", "7", '{"notebook": 1}'),
    "outcome": (
        *("[1]", '{"verdict": 1}', '{"verdict": {"sentence": 1}}', '{"champion": [1]}'),
        *('{"verdict": {"tested": {"accuracy": 1}}}', '{"verdict": {"contests": 1}}'),
        *('{"verdict": {"contests": [1]}}', '{"verdict": {"tested": {"recalls": [1]}}}'),
        *('{"verdict": null}', '{"summary": {}}', '{"trial": "1"}'),
    ),
}
"""JSON of the wrong shape, by the column of the table of studies."""
COMMANDS = ("status", "status s", "recommend s", "resume s", "sync s", "test-log s", "promote s")


def set_to(table: str, column: str, text: str) -> Callable[[Path], object]:
    return study(State.COMPLETED, statements=(f"UPDATE {table} SET {column} = '{text}'",))


STORED += [
    bad(
        command,
        *("ledger", "cannot be read", f"{column} of study s:", "Put back a copy"),
        make=set_to("studies", column, text),
        code=3,
    )
    for column, texts in CELLS.items()
    for text in texts
    for command in COMMANDS
]
STORED += [
    bad(
        command,
        *("ledger", "facts of study s lacks 'test_fingerprint'", "Put back a copy"),
        make=set_to("studies", "facts", '{"fingerprint": "f", "baseline": "b"}'),
        code=3,
    )
    for command in ("status s", "resume s --trials +5", "sync s", "test-log s")
]
STORED += [
    bad(
        "recommend s",
        *("ledger", "facts of study s lacks 'baseline'", "Put back a copy"),
        make=set_to("studies", "facts", "{}"),
        code=3,
    ),
    bad(
        "status s",
        *("ledger", "outcome of study s lacks 'sentence'", "Put back a copy"),
        make=study(
            State.COMPLETED, statements=("UPDATE studies SET outcome = '{\"verdict\": {}}'",)
        ),
        code=3,
    ),
]
STORED += [
    bad(
        command,
        *("ledger", "cannot be read", f"{column} of trial 0 of study s", "Put back a copy"),
        make=set_to("trials", column, text),
        code=3,
    )
    for column, texts in {
        "config": ("[]", "7", '{"hidden": "x"}'),
        "totals": ("[]", "7", '{"measures": 1}', '{"measures": {}}', '{"best_epoch": 1}'),
        "compiled": ("[1]", '"x"'),
        "plan": ("[1]", "[]", '{"proposal": 5}', '{"folds": "x"}', '{"unknown": 1}'),
    }.items()
    for text in texts
    for command in ("status s", "compare s", "resume s --trials +5")
]

ROWS = [
    pytest.param(row, id=f"{table}-{number}-{row.words[:40]}")
    for table, rows in TABLES.items()
    for number, row in enumerate(rows)
]


def call(monkeypatch: pytest.MonkeyPatch, words: str) -> int:
    monkeypatch.setattr("sys.argv", ["podium", *words.split()])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def contents(folder: Path) -> dict[str, bytes | None]:
    """What is there, but for what SQLite keeps beside a file that is open."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if not path.name.endswith(("-wal", "-shm"))
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder; a cluster is joined at once, where an address is not what is wrong."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    join = cli_join()

    def joined(address: str | None) -> Cluster:
        return join(address) if address else Cluster(((2, 0),), "local")

    monkeypatch.setattr("search.launch.join_cluster", joined)
    return tmp_path


def cli_join() -> Callable[[str | None], Cluster]:
    from search.tuning import join_cluster

    return join_cluster


def check_paragraph(row: Bad, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    captured = capsys.readouterr()
    assert code == row.code, captured.err
    said = " ".join(captured.err.replace("\u2502", " ").split())
    for part in row.says:
        assert part in said
    assert "Traceback" not in captured.err
    assert len(captured.err) < 2_000
    assert "Next:" not in captured.out


@pytest.mark.parametrize("row", ROWS)
def test_bad_input_is_named_with_its_value_and_a_way_out_and_nothing_is_written(
    row: Bad, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in row.files.items():
        (folder / name).write_text(text)
    kept = row.make(folder) if row.make else None
    if (folder / "limit").exists():
        monkeypatch.setenv("PODIUM_MAX_DATA_GIB", (folder / "limit").read_text())
    before = contents(folder)
    check_paragraph(row, call(monkeypatch, row.words), capsys)
    assert contents(folder) == before
    if isinstance(kept, io.IOBase):
        kept.close()


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_data_is_named_with_its_fault_and_a_way_out_and_nothing_is_written(
    damage: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, file, fault = DAMAGED[damage]
    (folder / "data").mkdir()
    path = write(folder / "data").relative_to(folder)
    before = contents(folder)
    row = bad(f"run --data {path}", str(Path("data") / file), " ".join(fault.split()))
    capsys.readouterr()
    check_paragraph(row, call(monkeypatch, row.words), capsys)
    assert contents(folder) == before


def test_there_are_as_many_rows_as_were_asked_for() -> None:
    assert len(ROWS) + len(DAMAGED) >= 60
    assert all(len(row.says) >= 2 for rows in TABLES.values() for row in rows)


MODELS = [
    bad("promote nothing", "No study", "'nothing'", "Studies here"),
    bad("promote running", "running", "has not ended", "podium status running"),
    bad("promote failed", "failed", "(no luck)", "Run it again"),
    bad("promote searched", "searched", "no verdict", "podium resume searched` goes on"),
    bad("promote untracked", "untracked", "is not whole", "Run the study again"),
    bad("promote first --by=", "--by", "is empty", "say who or why"),
    bad("promote first --reason=", "--reason", "is empty", "say who or why"),
    bad("promote first --override=", "--override", "is empty", "say who or why"),
    bad(f"promote first --by {LONG}", "--by", "300 characters", "at most 100"),
    bad("promote first --reason a\x1bb", "--reason", "3 characters", "expected one line"),
    bad("rollback", NAME, "has no champion", "podium promote STUDY", code=4),
    bad("rollback podium-pet", "'podium-pet'", "No registered model", "'podium-pets'?"),
    bad("rollback --to 7", "no version", "'7'", f"podium champion {NAME}"),
    bad("rollback --to latest", "no version", "'latest'", f"podium champion {NAME}"),
    bad("rollback --to ²", "no version", "'²'", f"podium champion {NAME}"),
    bad(f"rollback --to {'9' * 30}", "no version", "'999", f"podium champion {NAME}"),
    bad("champion nothing", "No registered model", "'nothing'", "Known: podium-pets"),
    bad("predict nothing a.npy", "No registered model", "'nothing'", "Known: podium-pets"),
    bad(f"predict {NAME} a.npy", "a.npy", "No such file", "Check its name"),
    bad(f"predict {NAME} {LONG}.npy", LONG, "File name too long"),
    bad(f"predict {NAME} folder", "folder", "is a folder", "name the files in it"),
    bad(f"predict {NAME} notes.txt", "notes.txt", "no known kind", "Expected PNG, JPEG"),
    bad(f"predict {NAME} bomb.npz", "bomb.npz", "damaged", "Fetch or make it again"),
    bad(f"predict {NAME}/8 a.npy", "no version", "'8'", "Its newest is 1"),
    bad(f"predict {NAME}@best a.npy", "no alias", "'best'", "Its aliases: none"),
    bad(f"predict {NAME} a.npy --top 0", "--top", "0", "greater than or equal to 1"),
    bad("promote strict", "gate does not hold", "min_accuracy", "--override", code=4),
]


@pytest.mark.parametrize("row", MODELS, ids=lambda row: row.words[:40])
def test_what_cannot_be_done_with_models_is_one_paragraph_and_changes_nothing(
    row: Bad,
    desk: Desk,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    desk.add_study("first")
    desk.record("running", None, State.RUNNING)
    desk.record("failed", None, State.FAILED)
    desk.record("searched", {"recommended": "x"})
    desk.record("untracked", {"verdict": {}})
    Path("folder").mkdir()
    Path("bomb.npz").write_bytes(b"PK")
    if row.words == "promote strict":
        desk.add_study("strict")
        with Path("mlflow.yaml").open("a") as file:
            file.write("gates:\n  min_accuracy: 0.999\n")
    before = contents(Path())
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["podium", *row.words.split(" ")])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    captured = capsys.readouterr()
    said = " ".join(captured.err.replace("\u2502", " ").split())
    assert caught.value.code == row.code, said
    for part in row.says:
        assert part in said
    assert "Traceback" not in captured.err
    assert contents(Path()) == before
    assert desk.aliases == {}


def test_a_damaged_journal_of_champions_is_named_with_its_tag(
    desk: Desk,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    desk.add_study("first")
    desk.client.set_registered_model_tag(NAME, "podium.journal.0001", "{")
    assert call(monkeypatch, "champion") == 2
    said = capsys.readouterr().err
    for part in ("podium.journal.0001", NAME, "'{'", "delete the tag, in MLflow"):
        assert part in said


@pytest.mark.slow
def test_a_damaged_model_of_a_study_ends_its_figures_with_code_3(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study()(folder)
    models = folder / "runs" / "studies" / "s" / "models"
    models.mkdir(parents=True)
    (models / "000-1.keras").write_bytes(b"PK")
    assert call(monkeypatch, "figures s --trial 0") == 3
    said = capsys.readouterr().err
    assert "The model cannot be looked into" in said
    assert "model.keras" in said
    assert "Traceback" not in said

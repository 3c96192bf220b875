"""Credentials stay where they belong; names that others chose do no harm; files are private."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from search import cli, folder, launch
from search.canvas import new_figure
from search.credentials import hidden, holds_password, is_secret, masked
from search.data import load
from search.escaping import as_file_name, readable
from search.gallery import draw_varied
from search.records import ConfigError, DataError
from search.settings import load_settings, load_tracking
from search.tables import Format, errors, print_rows, say, tell
from search.tuning import join_cluster
from spaces.config import TrialConfig
from tests.builders import make_trial
from tests.running import Finished, podium, start

SECRETS = {
    "MLFLOW_TRACKING_PASSWORD": "x",
    "MLFLOW_TRACKING_USERNAME": "x",
    "MLFLOW_TRACKING_TOKEN": "x",
    "MLFLOW_TRACKING_URI": "sqlite:///x",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "x",
    "PODIUM_LEDGER": "postgresql:///x",
    "AWS_SECRET_ACCESS_KEY": "x",
    "AWS_ACCESS_KEY_ID": "x",
    "AWS_SESSION_TOKEN": "x",
    "AZURE_STORAGE_CONNECTION_STRING": "x",
    "GOOGLE_APPLICATION_CREDENTIALS": "x",
    "PGPASSWORD": "x",
    "OPENAI_API_KEY": "x",
    **dict.fromkeys(
        (
            *("MYSQL_PWD", "DB_PWD", "DB_PW", "KAGGLE_KEY", "AZURE_STORAGE_KEY", "ENCRYPTION_KEY"),
            *("GITHUB_PAT", "REDISCLI_AUTH", "DOCKER_AUTH_CONFIG", "AZURE_SAS", "GOOGLE_CREDS"),
            *("SENTRY_DSN", "PGDSN", "SLACK_WEBHOOK", "SLACK_WEBHOOK_URL", "CI_JOB_JWT", "my_key"),
        ),
        "x",
    ),
    "https_proxy": "http://me:x@proxy:3128",
    "SOME_STORE": "postgresql://host/db?password=x",
}
NEEDED = {
    "PATH": "/usr/bin",
    "PWD": "/home/me",
    "OLDPWD": "/home",
    "SSH_AUTH_SOCK": "/tmp/agent",
    "XAUTHORITY": "/home/me/.Xauthority",
    "PYTHONPATH": "/home/me",
    "CUDA_VISIBLE_DEVICES": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_enable_cluster_auth": "1",
    "RAY_TLS_SERVER_KEY": "/etc/ray/key.pem",
    "RAY_AUTH_TOKEN": "x",
    "RAY_AUTH_TOKEN_PATH": "x",
    "RAY_ADDRESS": "127.0.0.1:6379",
    "http_proxy": "http://proxy:3128",
    "KERAS_BACKEND": "tensorflow",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b1m\u202e\udcffcat"
MARKUP = "[red]<img src=x onerror=alert(1)>[click](javascript:x)`|"


# Credentials


@pytest.mark.parametrize("fails", [False, True])
def test_secrets_are_out_of_the_environment_while_they_are_hidden_and_back_afterwards(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    for name, value in (SECRETS | NEEDED).items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with contextlib.suppress(KeyError), hidden():
        assert SECRETS.keys().isdisjoint(os.environ)
        assert NEEDED.items() <= os.environ.items()
        if fails:
            raise KeyError
    assert dict(os.environ) == before


def test_a_download_has_no_secrets_but_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (SECRETS | NEEDED | {"KERAS_HOME": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", "/usr/bin")
    given: list[Mapping[str, str]] = []

    def download(*_: object, env: Mapping[str, str], **__: object) -> None:
        given.append(env)
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", download)
    with pytest.raises(DataError, match="Keras could not download it"):
        load("mnist", None, 0)
    assert SECRETS.keys() & given[0].keys() == {"https_proxy"}
    assert given[0].items() >= NEEDED.items()


def test_git_has_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a repository's own settings name, such as fsmonitor, it runs."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nenv > {tmp_path}/seen\necho 0123\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    assert launch._git(tmp_path, "rev-parse", "HEAD") == "0123"
    seen = {line.partition("=")[0] for line in (tmp_path / "seen").read_text().splitlines()}
    assert SECRETS.keys() & seen == set()
    assert "PATH" in seen


def test_tune_does_not_hand_on_what_is_secret() -> None:
    from ray.tune.execution import class_cache

    # Fails where Tune learns of a credential by a name that `is_secret` does not know.
    secret = {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
    assert all(is_secret(name, "") for name in secret)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://me:s3cret@host:5000", "http://me:***@host:5000"),
        ("postgresql://host/db?user=me&password=s3cret&x=1",
         "postgresql://host/db?user=me&password=***&x=1"),
        ("mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Ds3cret%3BX%3D1",
         "mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3D***%3BX%3D1"),
        ("sqlite:///runs/mlflow.db", "sqlite:///runs/mlflow.db"),
        ("http://me@host/x", "http://me@host/x"),
        ("postgresql://user:12/34@host/db", "postgresql://user:***@host/db"),
        ("redis://:12/34@host:6379", "redis://:***@host:6379"),
    ],
)  # fmt: skip
def test_a_password_is_masked_in_every_place_of_an_address(address: str, shown: str) -> None:
    assert masked(address) == shown
    assert masked(shown) == shown
    assert holds_password(address) == (address != shown)


@pytest.mark.parametrize(
    "address", ["redis://:s3cret@127.0.0.1:1", "u:s3cret@127.0.0.1:1", "u:s3cret@", "u:s3c@ret@h:1"]
)
def test_the_password_of_a_ray_address_is_not_told(address: str) -> None:
    with pytest.raises(ConfigError, match=r"'\*\*\*@") as caught:
        join_cluster(address)
    assert "s3c" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "tracking_uri: http://me:s3cret@host:5000",
        "tracking-uri: postgresql://host/db?password=s3cret",
        "tracking_uri: [http://me:s3cret@host]",
        "artifact_root: sftp://me:s3cret@host/path",
    ],
)
@pytest.mark.parametrize("where", ["mlflow.yaml", "study.yaml"])
def test_a_password_in_a_file_is_refused_without_telling_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    inner = where == "study.yaml"
    Path(where).write_text(f"tracking:\n  {line}\n" if inner else f"{line}\n")
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        load_settings(Path(where) if inner else None, {})
    assert "s3cret" not in str(caught.value)
    assert where in str(caught.value)


def test_yaml_that_cannot_be_read_is_quoted_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mlflow.yaml").write_text("tracking_uri: http://me:s3cret@host: x: y\n")
    with pytest.raises(ConfigError, match="not valid YAML") as caught:
        load_tracking()
    assert "s3cret" not in str(caught.value)


def test_a_password_from_the_environment_is_used_and_never_dumped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    address = "http://me:s3cret@host:5000"
    monkeypatch.setattr("search.settings.ENVIRONMENT_URI", address)
    Path("mlflow.yaml").write_text("tracking_uri: sqlite:///x.db\nexperiment: mine\n")
    Path("study.yaml").write_text("tracking: {experiment: other}\n")
    settings = load_settings(Path("study.yaml"), {})
    assert settings.tracking.tracking_uri == address
    assert settings.tracking.experiment == "other"
    for text in (str(settings), repr(settings), settings.model_dump_json()):
        assert "s3cret" not in text
        assert "other" in text


def test_what_podium_prints_has_no_passwords(capsys: pytest.CaptureFixture[str]) -> None:
    address = "postgresql://me:s3cret@host/db"
    say(address)
    tell(address)
    errors.print(address, markup=False)
    with pytest.raises(OSError, match="s3cret") as caught:
        raise OSError(address)
    cli._unexpected(OSError, caught.value, caught.tb)
    printed = capsys.readouterr()
    assert "s3cret" not in printed.out + printed.err
    assert (printed.out + printed.err).count("me:***@host") == 4
    assert "Traceback" in printed.err


def test_a_cluster_without_tokens_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ConfigError, match="RAY_AUTH_MODE=disabled"):
        join_cluster(None)


# Names that others chose


@pytest.mark.parametrize("output", ["say", "tell", "error", *Format])
def test_control_characters_never_reach_a_terminal(
    capsys: pytest.CaptureFixture[str], output: str
) -> None:
    match output:
        case "say":
            say(HOSTILE)
        case "tell":
            tell(HOSTILE)
        case "error":
            errors.print(HOSTILE, markup=False)
        case _:
            print_rows([{"class": HOSTILE, HOSTILE: 1}], Format(output))
    out, err = capsys.readouterr()
    assert "cat" in out + err
    shown = set(out + err)
    assert shown.isdisjoint({c for c in HOSTILE if not c.isascii() or not c.isprintable()})


def test_markup_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"{MARKUP} :skull:")
    print_rows([{"class": f"{MARKUP} :skull:"}], Format.TABLE)
    assert capsys.readouterr().out.count(f"{MARKUP} :skull:") == 2


def test_a_class_cannot_forge_a_line_of_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"class": "cat\nVerdict: ship it"}], Format.TABLE)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_markdown_cells_hold_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"class": MARKUP}], Format.MARKDOWN)
    [line] = capsys.readouterr().out.splitlines()[2:]
    assert set("<[]`").isdisjoint(line)
    assert line.count("|") == 2


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_csv_cells_are_no_formulas(capsys: pytest.CaptureFixture[str], first: str) -> None:
    import pandas as pd

    print_rows([{"class": f'{first}HYPERLINK("http://x")', "n": -1.5, "plain": "a-b"}], Format.CSV)
    read = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert read["class"][0].startswith("'")
    assert (read["n"][0], read["plain"][0]) == (-1.5, "a-b")


def test_a_parameter_of_a_space_cannot_lead_its_figure_out_of_the_folder(tmp_path: Path) -> None:
    name = "/../../../../out"
    trials = [make_trial(n, config=TrialConfig(extra={name: n})) for n in (1, 2)]
    paths = draw_varied(trials, tmp_path / "a" / "b" / "figures")
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert files == paths
    assert {p.parent.name for p in files} == {"figures"}


@pytest.mark.parametrize("name", ["", "../up", "/root", "a/b", "a\n", ".."])
def test_a_study_of_a_strange_name_has_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="a name that no folder gets"):
        folder.study_folder(name)
    assert list(tmp_path.iterdir()) == []


def test_file_names_stay_distinct_where_they_are_harmless() -> None:
    assert as_file_name("extra.width_2") == "extra.width_2"
    assert "/" not in as_file_name("a/b\\c\0d" * 100)
    assert len(as_file_name("a" * 1000)) <= 100
    assert readable("two\nlines\tand ünicode") == "two\nlines\tand ünicode"
    assert new_figure(2, 2, HOSTILE) is not None


# What others can read


def test_podium_makes_files_for_their_owner_only_whatever_the_umask(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["podium", "spaces"])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    before = os.umask(0)
    try:
        with pytest.raises(SystemExit):
            cli.main()
    finally:
        during = os.umask(before)
    assert during == 0o077
    assert "mlp" in capsys.readouterr().out


def test_a_folder_that_others_can_read_is_told_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert folder.exposed() == []
    Path("runs").mkdir(mode=0o700)
    assert folder.exposed() == []
    Path("runs").chmod(0o750)
    (tmp_path / "a token").touch()
    (tmp_path / "a token").chmod(0o644)
    told = folder.exposed(tmp_path / "a token")
    assert "chmod go= runs" in told[0]
    assert f"chmod go= '{tmp_path}/a token'" in told[1]
    assert stat.S_IMODE(Path("runs").stat().st_mode) == 0o750


# Everything together, on a real study


STUDY = ["--trials", "1", "--max-epochs", "1", "--scheduler", "none", "--confirm-seeds", "2"]
ADMIN = "adm1n-cAnary-in-the-tracking-uri"
CANARIES = {
    "AWS_ACCESS_KEY_ID": "canary-aws-key-id-1",
    "AWS_SECRET_ACCESS_KEY": "canary-aws-secret-2",
    "AWS_SESSION_TOKEN": "canary-aws-session-3",
    "PGPASSWORD": "canary-postgres-4",
    "GITHUB_TOKEN": "canary-github-5",
    "SOME_API_KEY": "canary-some-api-6",
    "HTTPS_PROXY": "http://me:canary-proxy-7@127.0.0.1:9",
}
WRONG = "canary-wrong-password-8"
NEEDLES = [ADMIN, WRONG, *(value.split("@")[0].split(":")[-1] for value in CANARIES.values())]


@dataclass(frozen=True)
class Server:
    """MLflow's, with basic-auth, in a folder of its own."""

    port: int
    process: subprocess.Popen[bytes]

    def address(self, password: str) -> str:
        return f"http://admin:{password}@127.0.0.1:{self.port}"


@pytest.fixture
def home() -> Iterator[Path]:
    """A home and a place for Ray's sessions; short, because sockets have short names."""
    path = Path(tempfile.mkdtemp(prefix="pod"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    place = tmp_path / "server"
    place.mkdir()
    ini = place / "auth.ini"
    ini.write_text(
        "[mlflow]\ndefault_permission = READ\nadmin_username = admin\n"
        f"database_uri = sqlite:///{place}/auth.db\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        "grant_default_workspace_access = false\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *[sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth"],
                *["--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
                *["--backend-store-uri", f"sqlite:///{place}/mlflow.db"],
                *["--artifacts-destination", str(place / "artifacts")],
            ],
            env={
                **{k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"},
                "MLFLOW_FLASK_SERVER_SECRET_KEY": "canary-of-the-server",
                "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN,
                "MLFLOW_AUTH_CONFIG_PATH": str(ini),
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=place,
        )
    try:
        _wait_for(port, process)
        yield Server(port, process)
    finally:
        _end(process)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, "MLflow's server ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError("MLflow's server did not start")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=True)
        for each in (*children, process):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()


def leaks(places: Mapping[str, bytes]) -> set[tuple[str, str]]:
    """Which needle is where, also in archives, encoded as for HTTP or an address."""
    found = set()
    for name, content in places.items():
        if content[:2] == b"\x1f\x8b":
            with contextlib.suppress(OSError, EOFError):
                found |= leaks({f"{name}!": gzip.decompress(content)})
        if content[:2] == b"PK":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                inner = {f"{name}!{m}": archive.read(m) for m in archive.namelist()}
            found |= leaks(inner)
        for needle in NEEDLES:
            basic = base64.b64encode(f"admin:{needle}".encode())
            forms = {needle.encode(), quote(needle).encode(), needle.encode("utf-16-le"), basic}
            if any(form in content for form in forms):
                found.add((name, needle))
    return found


def _files(*folders: Path) -> dict[str, bytes]:
    found = {}
    for top in folders:
        for path in top.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file() and not path.is_symlink():
                    found[str(path)] = path.read_bytes()
    return found


def test_the_search_for_leaks_finds_what_was_planted(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("inner.gz", gzip.compress(b"x" * 100 + NEEDLES[2].encode()))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "model.keras").write_bytes(archive.getvalue())
    (tmp_path / "log").write_bytes(b"Basic " + base64.b64encode(f"admin:{ADMIN}".encode()))
    (tmp_path / "clean").write_bytes(b"nothing")
    assert {needle for _, needle in leaks(_files(tmp_path))} == {NEEDLES[2], ADMIN}


@dataclass(frozen=True)
class Watched:
    """What was seen of a command while it ran: environments of its processes, by name."""

    finished: Finished
    environments: dict[str, bytes]
    listening: set[str]


COPIED_SECONDS = 10.0


def _watch(*words: str, folder: Path, **variables: str) -> Watched:
    """Runs `podium WORDS`, looking again and again at every process that it has started.

    One that has not begun its own program yet is still a copy of its parent, for a moment.
    """
    process = start(*words, folder=folder, **variables)
    own = psutil.Process(process.pid).cmdline()
    environments: dict[str, bytes] = {}
    listening: set[str] = set()
    seen: dict[int, float] = {}
    try:
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    with contextlib.suppress(psutil.Error, OSError):
                        age = time.monotonic() - seen.setdefault(child.pid, time.monotonic())
                        if child.cmdline() == own and age < COPIED_SECONDS:
                            continue
                        name = f"{child.pid} {' '.join(child.cmdline())[:80]}"
                        environments[name] = Path(f"/proc/{child.pid}/environ").read_bytes()
                        listening |= {
                            str(c.laddr.ip)
                            for c in child.net_connections("tcp")
                            if c.status == psutil.CONN_LISTEN
                        }
            time.sleep(1.0)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return Watched(Finished(process.returncode, out, err), environments, listening)


@pytest.mark.slow
def test_no_credential_leaves_the_driver_and_no_file_is_for_others(
    tmp_path: Path, home: Path, server: Server
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    variables = {**CANARIES, "HOME": str(home), "RAY_TMPDIR": str(home)}
    tracked = {"MLFLOW_TRACKING_URI": server.address(ADMIN)}
    words = ["run", "--study", "told", "--finalists", "1", *STUDY]
    before = os.umask(0)
    try:
        ran = _watch(*words, folder=place, **variables, **tracked)
        assert ran.finished.code == 0, ran.finished.err
        assert "models:/podium-digits/1" in ran.finished.out, ran.finished.err
        # The other way: user and password by themselves, the address in the file.
        (place / "mlflow.yaml").write_text(f"tracking_uri: http://127.0.0.1:{server.port}\n")
        by_name = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": ADMIN}
        words = ["promote", "told", "--override", "a test"]
        said = [ran.finished, podium(*words, folder=place, seconds=600, **variables, **by_name)]
        said += [
            podium(*words, folder=place, seconds=600, **variables, **by_name)
            for words in (["champion"], ["status", "told"], ["compare", "told", "--format", "csv"])
        ]
    finally:
        os.umask(before)
    assert [done.code for done in said] == [0] * 5, said
    _check_nothing_leaked(said, ran.environments, _files(tmp_path, home))
    assert any("ray::" in name for name in ran.environments), "no worker was seen"
    assert {address.removeprefix("::ffff:") for address in ran.listening} == {"127.0.0.1"}
    token = home / ".ray" / "auth_token"
    files = _files(tmp_path, home)
    assert any("session_" in name for name in files), "Ray's session was not seen"
    assert [n for n, c in files.items() if token.read_bytes() in c] == [str(token)]
    # Not the folders: Ray opens them to everyone whenever a worker starts.
    of_ray = [p for p in home.rglob("*") if p.is_file() and not p.is_symlink()]
    mine = [place / "runs", *(place / "runs").rglob("*"), token, *of_ray]
    assert [str(path) for path in mine if path.stat().st_mode & 0o077] == []


@pytest.mark.slow
def test_what_fails_tells_no_password(tmp_path: Path, home: Path, server: Server) -> None:
    place = tmp_path / "place"
    place.mkdir()
    variables = {**CANARIES, "HOME": str(home), "RAY_TMPDIR": str(home)}
    wrong = {"MLFLOW_TRACKING_URI": server.address(WRONG)}
    study = ["run", "--study", "untold", "--trials", "1", "--max-epochs", "1", "--finalists", "0"]
    study += ["--scheduler", "none"]
    said = [podium(*study, folder=place, seconds=600, **variables, **wrong)]
    assert said[-1].code == 2, said[-1]
    assert "MLFLOW_TRACKING_PASSWORD" in said[-1].err
    said.append(podium(*study, folder=place, seconds=600, **variables))
    assert said[-1].code == 0, said[-1]
    # A study that goes on does not wait for MLflow, whose password is wrong all the time.
    again = ["resume", "untold", "--trials", "+1"]
    ran = _watch(*again, folder=place, **variables, **wrong)
    said.append(ran.finished)
    assert ran.finished.code == 0, ran.finished.err
    assert "The study goes on without MLflow" in ran.finished.err
    assert "MLflow does not have everything" in ran.finished.err
    said.append(podium("champion", folder=place, seconds=600, **variables, **wrong))
    assert said[-1].code == 2, said[-1]
    _end(server.process)
    for words, code in ((["champion"], 2), (["run"], 2), (again, 0)):
        said.append(podium(*words, folder=place, seconds=600, **variables, **wrong))
        assert said[-1].code == code, said[-1]
        assert "admin:***@" in said[-1].err
    _check_nothing_leaked(said, ran.environments, _files(tmp_path, home))


def _check_nothing_leaked(
    said: list[Finished], environments: dict[str, bytes], files: dict[str, bytes]
) -> None:
    printed = {f"output {n}": (done.out + done.err).encode() for n, done in enumerate(said)}
    assert environments
    assert leaks(printed) == set()
    assert leaks(environments) == set()
    assert leaks(files) == set()

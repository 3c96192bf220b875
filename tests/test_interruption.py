"""Ctrl-C and SIGTERM, limits of time and memory, in real processes; and a name that is taken."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from search.folder import study_folder
from search.interruption import INTERRUPTIONS, Interruptions
from search.launch import known_study
from search.ledger import Ledger
from search.limits import PATIENCE_SECONDS
from search.lock import held
from search.records import ConfigError, Phase, State
from search.settings import load_settings
from search.store import FileStore
from tests.running import LAUNCHER, ROOT, podium, start

LONG = "--trials 4 --max-epochs 40 --scheduler none --finalists 1 --confirm-seeds 2 --concurrent 2"
SECONDS = 600.0
SMALL = "--trials 4 --max-epochs 3 --finalists 1 --confirm-seeds 2"
OWN = """
from spaces.config import TrialConfig
def suggest(trial):
    return TrialConfig(hidden=(trial.suggest_int("units", 8, 64),), batch_size=256)
def baseline():
    return TrialConfig(hidden=(8,), batch_size=256)
def build(config, input_shape, classes):
    import keras, os, time
    from pathlib import Path
    DO_FIRST
    inputs = keras.Input(input_shape)
    hidden = keras.layers.Dense(config.hidden[0], activation="relu")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(classes, activation="softmax")(hidden))
"""


# What needs no process


@pytest.fixture
def signals() -> Iterator[Interruptions]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield Interruptions()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_a_keyboard_interrupt_and_gives_the_exit_code(
    signals: Interruptions, number: int, code: int
) -> None:
    signals.listen()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert signals.exit_code == code


def test_two_signals_can_be_deferred_and_the_third_cannot(signals: Interruptions) -> None:
    with signals.deferred():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert signals.received == [signal.SIGINT, signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signals.exit_code == 130, "that of the first one"
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_this_process_was_not_interrupted() -> None:
    assert INTERRUPTIONS.received == []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _begin(folder: Path, state: State, **values: object) -> Ledger:
    """A study named "s" that has come to some state."""
    settings = load_settings(None, {"study": "s", "trials": 5, **values})
    ledger = Ledger(folder / "runs" / "ledger.db")
    ledger.begin_study("s", settings.model_dump(mode="json"), {}, 0)
    if state is not State.RUNNING:
        ledger.end_study("s", state, None, 1)
    return ledger


@pytest.mark.parametrize("state", [State.INTERRUPTED, State.RUNNING, State.FAILED])
def test_a_study_that_has_not_ended_can_go_on_under_its_name(folder: Path, state: State) -> None:
    assert known_study(load_settings(None, {"study": "s"})) is None
    _begin(folder, state)
    for flags in ({"study": "s"}, {"study": "s", "trials": 5}):
        record = known_study(load_settings(None, flags))
        assert record is not None
        assert record.name == "s"
    assert known_study(load_settings(None, {"study": "other"})) is None
    assert known_study(load_settings(None, {})) is None


def test_other_settings_than_the_studys_are_told(folder: Path) -> None:
    _begin(folder, State.INTERRUPTED)
    flags = {"study": "s", "trials": 7, "sampler": "gp"}
    with pytest.raises(ConfigError) as caught:
        known_study(load_settings(None, flags))
    assert "trials was 5, not 7" in str(caught.value)
    assert "sampler was tpe, not gp" in str(caught.value)
    assert "`podium resume s`" in str(caught.value)


def test_a_study_that_has_ended_is_offered_more_trials(folder: Path) -> None:
    _begin(folder, State.COMPLETED)
    with pytest.raises(ConfigError, match=r"has ended\. `podium resume s --trials \+50`"):
        known_study(load_settings(None, {"study": "s"}))


def test_a_study_that_its_budget_cut_is_offered_more_time(folder: Path) -> None:
    ledger = _begin(folder, State.COMPLETED, time_budget=60)
    ledger.set_outcome("s", {"cut": "The time budget ended it."})
    with pytest.raises(ConfigError, match="--time-budget 120` gives it more time"):
        known_study(load_settings(None, {"study": "s"}))


def test_a_study_that_runs_is_not_offered_and_its_holder_is_named(folder: Path) -> None:
    ledger = _begin(folder, State.RUNNING)
    settings = load_settings(None, {"study": "s"})
    with (
        held("s", study_folder("s"), ledger.database, 1_700_000_000_000),
        pytest.raises(ConfigError) as caught,
    ):
        known_study(settings)
    assert f"being run by process {os.getpid()} on " in str(caught.value)
    assert "since 2023-11-14T22:13:20+00:00" in str(caught.value)
    assert known_study(settings) is not None


def test_a_reproduction_is_not_offered(folder: Path) -> None:
    ledger = Ledger(folder / "runs" / "ledger.db")
    ledger.begin_study("s", {"notebook": "sgd-mlp"}, {}, 0)
    with pytest.raises(ConfigError, match=r"reproduction of sgd-mlp.*choose another --study"):
        known_study(load_settings(None, {"study": "s"}))


def test_a_name_that_is_taken_is_refused_where_nobody_can_be_asked(folder: Path) -> None:
    _begin(folder, State.INTERRUPTED)
    finished = podium("run", "--study", "s", folder=folder)
    assert finished.code == 2
    assert "podium resume s" in finished.err
    assert "[y/N]" not in finished.out


# Real studies


class Terminal:
    """A command in a terminal of its own, as a person has it."""

    def __init__(self, words: str, folder: Path) -> None:
        hidden = ("RAY_ADDRESS", "PYTHONPATH")
        variables = {k: v for k, v in os.environ.items() if k not in hidden}
        self.pid, self._terminal = pty.fork()
        if not self.pid:
            os.chdir(folder)
            variables |= {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "TERM": "xterm"}
            command = [sys.executable, "-u", "-c", LAUNCHER, *words.split()]
            os.execve(sys.executable, command, variables)
        self.text = ""
        self.code: int | None = None

    def until(self, pattern: str, seconds: float = 120.0) -> None:
        """Reads on until something is shown."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.text):
            assert time.monotonic() < deadline, self.text[-3000:]
            assert self.read(), self.text[-3000:]

    def press(self, keys: str) -> None:
        """As if somebody typed it; \\x03 is Ctrl-C."""
        os.write(self._terminal, keys.encode())

    def end(self, seconds: float = 120.0) -> int:
        """Waits for the end, gives the exit code."""
        deadline = time.monotonic() + seconds
        while self.read():
            assert time.monotonic() < deadline, self.text[-3000:]
        _, status = os.waitpid(self.pid, 0)
        self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def read(self) -> bool:
        """What is shown within half a second; False once the command has ended."""
        if select.select([self._terminal], [], [], 0.5)[0]:
            try:
                part = os.read(self._terminal, 65_536)
            except OSError:  # Linux's way to say that nobody has the other side open
                return False
            self.text += part.decode(errors="replace")
            return bool(part)
        return True

    def kill(self) -> None:
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._terminal)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[list[Terminal]]:
    made: list[Terminal] = []
    yield made
    for item in made:
        item.kill()


def _open(made: list[Terminal], words: str, folder: Path) -> Terminal:
    made.append(Terminal(words, folder))
    return made[-1]


def _wait_for(
    query: str, least: int, folder: Path, meanwhile: Callable[[], object] = lambda: time.sleep(0.1)
) -> None:
    """Until a query of the ledger gives so much; the study itself is to make the file."""
    path, deadline = folder / "runs" / "ledger.db", time.monotonic() + 400
    while True:
        with contextlib.suppress(sqlite3.OperationalError):
            connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            with contextlib.closing(connection):
                if connection.execute(query).fetchone()[0] >= least:
                    return
        assert time.monotonic() < deadline
        meanwhile()


def _wait_for_epochs(folder: Path, meanwhile: Callable[[], object] | None = None) -> None:
    """Until two trials have reported something."""
    query = "select count(distinct number) from epochs"
    _wait_for(query, 2, folder, meanwhile or (lambda: time.sleep(0.1)))


def _checked_checkpoints(folder: Path, study: str) -> dict[int, int]:
    """The epoch of each open trial's checkpoint; it is that of its last report."""
    ledger = Ledger(folder / "runs" / "ledger.db")
    record = ledger.study(study)
    assert record is not None
    assert record.state is State.INTERRUPTED
    store, found = FileStore(folder / "runs" / "studies" / study), {}
    for trial in ledger.trials(study):
        assert trial.state is not State.RUNNING
        if trial.state is State.INTERRUPTED:
            found[trial.number], content = store.load_checkpoint(trial.number)
            assert content
            assert found[trial.number] == trial.epochs_trained
    return found


def _ends_as_if_nothing_had_happened(folder: Path, study: str, trials: int) -> None:
    resumed = podium("resume", study, folder=folder, seconds=SECONDS)
    assert resumed.code == 0, resumed.err
    ledger = Ledger(folder / "runs" / "ledger.db")
    known = ledger.trials(study)
    assert len(known) == trials
    assert {t.state for t in known} <= {State.COMPLETED, State.STOPPED}
    for trial in known:
        epochs = [item.epoch for item in ledger.epochs(study, trial.number)]
        assert epochs == list(range(1, trial.epochs_trained + 1))


def test_who_does_not_want_to_go_on_with_a_study_is_told_of_other_ways(
    folder: Path, terminal: list[Terminal]
) -> None:
    _begin(folder, State.INTERRUPTED)
    shown = _open(terminal, "run --study s", folder)
    shown.until(re.escape("Go on with it? [y/N]"))
    shown.press("\n")
    assert shown.end() == 2
    assert "choose another --study" in " ".join(shown.text.split())
    assert "starting Ray" not in shown.text


@pytest.mark.slow
@pytest.mark.alone
def test_ctrl_c_in_a_terminal_saves_every_trial_and_says_how_to_go_on(
    tmp_path: Path, terminal: list[Terminal]
) -> None:
    """The terminal sends it to all processes of the group, Ray's among them."""
    shown = _open(terminal, f"run --study cut {LONG.replace('40', '40000')}", tmp_path)
    _wait_for_epochs(tmp_path, shown.read)
    shown.press("\x03")
    began = time.monotonic()
    shown.until("stopping: up to 20 s")
    assert shown.end() == 130
    assert 18 < time.monotonic() - began < 60, "trials without a rung went on for the 20 s"
    assert "`podium resume cut` goes on from there" in shown.text
    assert "Traceback" not in shown.text
    assert set(_checked_checkpoints(tmp_path, "cut")) == {0, 1}


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_study_that_was_asked_to_stop_ends_as_if_it_had_not_been(
    tmp_path: Path, number: int, code: int
) -> None:
    """The whole group is asked, as a terminal does it, and `timeout`."""
    process = start("run", "--study", "cut", *LONG.split(), folder=tmp_path, own_group=True)
    try:
        _wait_for_epochs(tmp_path)
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == code, err
    assert "podium resume cut" in err
    assert "Traceback" not in err
    _checked_checkpoints(tmp_path, "cut")
    _ends_as_if_nothing_had_happened(tmp_path, "cut", 4 + 2 * 2)


@pytest.mark.slow
@pytest.mark.alone
def test_ctrl_c_twice_stops_at_once(tmp_path: Path, terminal: list[Terminal]) -> None:
    shown = _open(terminal, f"run --study cut {LONG.replace('40', '40000')}", tmp_path)
    _wait_for_epochs(tmp_path, shown.read)
    shown.press("\x03")
    shown.until("stopping: up to 20 s")
    shown.press("\x03")
    began = time.monotonic()
    assert shown.end() == 130
    assert time.monotonic() - began < 12
    assert "podium resume cut" in shown.text
    assert "Traceback" not in shown.text
    ledger = Ledger(tmp_path / "runs" / "ledger.db")
    assert {t.state for t in ledger.trials("cut")} == {State.INTERRUPTED}


@pytest.mark.slow
def test_a_person_is_asked_whether_to_go_on_with_a_study(
    tmp_path: Path, terminal: list[Terminal]
) -> None:
    process = start("run", "--study", "cut", *LONG.split(), folder=tmp_path)
    try:
        _wait_for_epochs(tmp_path)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    finally:
        process.kill()
    shown = _open(terminal, f"run --study cut {LONG}", tmp_path)
    shown.until(re.escape("Go on with it? [y/N]"))
    shown.press("y\n")
    assert shown.end(SECONDS) == 0, shown.text[-3000:]
    assert "Verdict:" in shown.text
    other = _open(terminal, "run --study cut --trials 9", tmp_path)
    assert other.end() == 2
    assert "has ended" in " ".join(other.text.split())


def _run_own(folder: Path, do_first: str, words: str) -> tuple[int, str, list[dict[str, object]]]:
    (folder / "own.py").write_text(OWN.replace("DO_FIRST", do_first))
    finished = podium(
        *f"run --study own --space own.py --sampler random --finalists 0 {words}".split(),
        folder=folder,
        seconds=SECONDS,
    )
    rows = json.loads(podium("compare", "own", "--format", "json", folder=folder).out)
    return finished.code, finished.out + finished.err, rows


@pytest.mark.slow
@pytest.mark.alone
def test_a_trial_whose_process_hangs_fails_after_its_time_and_the_study_goes_on(
    tmp_path: Path,
) -> None:
    mark = tmp_path / "mark"
    mark.touch()
    hang = f"""
    if os.path.exists("{mark}"):
        os.remove("{mark}")
        while True:
            time.sleep(1)
"""
    code, text, rows = _run_own(
        tmp_path,
        hang,
        "--trials 3 --max-epochs 3 --trial-timeout 30 --concurrent 1",
    )
    assert code == 0, text
    assert not mark.exists()
    failed = [row for row in rows if row["state"] == "failed"]
    assert len(failed) == 1
    assert "--trial-timeout 30 s; its process sent no report" in str(failed[0]["reason"])
    assert len(rows) == 3


@pytest.mark.slow
@pytest.mark.alone
def test_a_study_with_a_time_budget_ends_in_time_with_a_recommendation(tmp_path: Path) -> None:
    words = f"{SMALL} --trials 500 --max-epochs 6 --finalists 2 --time-budget 60"
    finished = podium("run", "--study", "short", *words.split(), folder=tmp_path, seconds=SECONDS)
    assert finished.code == 0, finished.err
    told = " ".join(finished.out.split())
    assert re.search(r"The time budget of 60 s ended the search early: \d+ of 500 trials", told)
    assert "Verdict:" in told
    report = (tmp_path / "runs" / "studies" / "short" / "report.html").read_text()
    assert "ended the search early" in report
    ledger = Ledger(tmp_path / "runs" / "ledger.db")
    trials, study = ledger.trials("short"), ledger.study("short")
    assert {t.state for t in trials} <= {State.COMPLETED, State.STOPPED}
    assert study is not None
    searched = max(t.ended_ms or 0 for t in trials if t.phase is Phase.SEARCH)
    assert searched - study.started_ms < 1_000 * (60 + PATIENCE_SECONDS + 5)


@pytest.mark.slow
def test_a_network_that_needs_too_much_memory_fails_its_trial_and_says_what_it_needed(
    tmp_path: Path,
) -> None:
    mark = tmp_path / "mark"
    mark.touch()
    greedy = f"""
    if os.path.exists("{mark}"):
        os.remove("{mark}")
        import tensorflow as tf
        tf.zeros((2_000_000, 500_000)) + 1.0
"""
    code, text, rows = _run_own(tmp_path, greedy, "--trials 3 --max-epochs 3")
    assert code == 0, text
    [failed] = [row for row in rows if row["state"] == "failed"]
    reason = str(failed["reason"])
    assert re.fullmatch(
        r"out of memory: dense \d+, .* needed 4e\+03 GB for one tensor, 2000000x500000 float",
        reason,
    ), reason


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_examines_the_test_split_is_replaced(
    tmp_path: Path,
) -> None:
    process = start("run", "--study", "kill", *SMALL.split(), folder=tmp_path)
    try:
        _wait_for("select count(*) from openings", 1, tmp_path)
        ledger = Ledger(tmp_path / "runs" / "ledger.db")
        workers = {trial.pid for trial in ledger.trials("kill") if trial.pid}
        assert workers
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        out, err = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "Verdict:" in out
    assert len(ledger.openings()) == 1

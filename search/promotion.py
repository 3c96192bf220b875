"""Which version is the champion: promoted through gates, rolled back, and both on record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.gates import Gate, judge_gates
from search.journal import (
    PROMOTE,
    ROLLBACK,
    Entry,
    Registry,
    Standing,
    carry_out,
    next_entry,
    read_standing,
    recover,
)
from search.ledger import Ledger, StudyRecord, way_to_a_verdict
from search.loading import Reload
from search.records import ConfigError, ModelVersion, PromotionRefused, State, StudyVersion
from search.registry import (
    find_version,
    holds_recommended,
    register_recommended,
    version_of_trial,
)
from search.settings import RUNS_PATH, GateSettings

WORDS = 500
"""Characters of a reason; a whole entry of the journal must fit MLflow's tags of 5,000."""
NAME_LENGTH = 100

Check = Callable[[str], Reload]
"""Loads a version, given as models:/NAME/VERSION, in a new process."""


@dataclass(frozen=True, slots=True)
class Order:
    """Who wants a change, when (ISO 8601, in UTC) and why.

    Attributes:
        override: why to promote even if gates do not hold; None to refuse then.
    """

    who: str
    when: str
    why: str
    override: str | None = None

    def __post_init__(self) -> None:
        """Refuses what the registry could not keep."""
        for flag, text, limit in (
            ("--by", self.who, NAME_LENGTH),
            ("--reason", self.why, WORDS),
            ("--override", "a reason" if self.override is None else self.override, WORDS),
        ):
            if not text.strip():
                raise ConfigError(f"{flag} is empty; say who or why in a few words.")
            if len(text) > limit or not text.isprintable():
                raise ConfigError(
                    f"{flag} has {len(text):,} characters; expected one line of at most {limit}."
                )


@dataclass(frozen=True, slots=True)
class Proposal(ModelVersion):
    """A study's model as it may become the champion.

    Attributes:
        outcome: of the study, as JSON values.
        classes: their names.
        report: where the study's report is.
    """

    study: str
    name: str
    version: str
    outcome: Mapping[str, Any]
    classes: tuple[str, ...]
    report: str


@dataclass(frozen=True, slots=True)
class Change:
    """What came of a promotion or a rollback.

    Attributes:
        entry: of the journal; None where the champion was not changed by Podium at all.
        is_new: False where all was as wanted already, and nothing was changed.
        sentence: for people.
    """

    entry: Entry | None
    is_new: bool
    sentence: str


def find_unnamed(client: Any, ledger: Ledger, record: StudyRecord, registered_model: str) -> str:
    """The model of a study whose outcome names none, put on record there; "" where there is none.

    A study that is killed right after it registered its model leaves it so. Where it could not
    register it, or tell its verdict of now, that is done now, from the folder of the study. What it
    registered of another trial, before it went on, is not the model that its outcome tells of.

    Args:
        client: of the registry.
        ledger: of the study.
        record: of the study, with a verdict.
        registered_model: its name.

    Raises:
        PromotionRefused: the study went on meanwhile, to another trial.
    """
    outcome, folder = record.outcome or {}, _model_folder(record.name)
    trial = next((t for t in ledger.trials(record.name) if t.number == outcome.get("trial")), None)
    if not record.run_id or trial is None:
        return ""
    if holds_recommended(folder, record):
        judged_ms = ledger.last_opened_ms(record.name)
        version: str | None = register_recommended(
            client, registered_model, record, trial, folder, judged_ms
        ).version
    else:
        version = version_of_trial(
            client, registered_model, record.name, record.run_id, trial.number
        )
    if version is None:
        return ""
    uri = f"models:/{registered_model}/{version}"
    if not ledger.name_model(record.name, trial.number, uri):
        raise PromotionRefused(
            f"Meanwhile study {record.name} went on, and recommends another trial than "
            f"{trial.number} now. Nothing was promoted: `podium promote {record.name}` once it has "
            "ended judges that one."
        )
    return uri


def _model_folder(study: str) -> Path:
    return RUNS_PATH / "studies" / study / "model"


def _nothing() -> str:
    return ""


def propose(record: StudyRecord, find: Callable[[], str] = _nothing) -> Proposal:
    """The model that a study registered.

    Args:
        record: of the study.
        find: looks for it, as models:/NAME/VERSION or "", where its outcome does not name it.

    Raises:
        ConfigError: it has none to promote; the message says why and what to do.
    """
    name, outcome = record.name, record.outcome or {}
    if record.state is State.RUNNING:
        raise ConfigError(
            f"Study {name} has not ended; `podium status {name}` shows where it stands. "
            "Promote it once it has a verdict."
        )
    refused = outcome.get("refused") or {}
    if record.state is State.FAILED and refused:
        resume = f"podium resume {name} {refused.get('resume_with', '')}".rstrip()
        raise ConfigError(
            f"No confirmed candidate of study {name} meets its constraints: there is nothing to "
            f"promote. `{resume}` goes on to a verdict."
        )
    if record.state is State.FAILED and "verdict" not in outcome:
        raise ConfigError(
            f"Study {name} failed ({record.reason or 'for no known reason'}): it has no model to "
            f"promote. `podium resume {name}` goes on with it where that can be mended. Run it "
            "again where it cannot, under another name, with `podium run`."
        )
    if "verdict" not in outcome:
        raise ConfigError(
            f"Study {name} has no verdict: nothing was confirmed or judged on the test split. "
            f"{way_to_a_verdict(record)}"
        )
    prefix, _, rest = str(outcome.get("model") or find()).partition("models:/")
    model, _, version = rest.rpartition("/")
    if prefix or not model or not version:
        raise ConfigError(_without_model(record))
    classes = tuple(map(str, record.facts.get("class_names", ())))
    report = str(RUNS_PATH / "studies" / name / "report.html")
    if record.run_id:
        report = f"runs:/{record.run_id}/report.html"
    return Proposal(name, model, version, outcome, classes, report)


def _without_model(record: StudyRecord) -> str:
    folder = _model_folder(record.name)
    why = "MLflow has none of it" if record.run_id else "MLflow was never reached while it ran"
    if holds_recommended(folder, record):
        todo = (
            f"The model itself is in {folder}. Start MLflow, or correct tracking_uri in "
            f"mlflow.yaml; then `podium sync {record.name}` registers it."
        )
    elif record.state is State.INTERRUPTED:
        todo = (
            f"It was interrupted before its model was in {folder}: `podium resume {record.name}` "
            "goes on from there."
        )
    else:
        todo = (
            f"The model in {folder} is not whole, or of another trial. Run the study again, under "
            "another name, with `podium run`."
        )
    return f"Study {record.name} registered no model: {why}. {todo}"


def promote(
    client: Registry,
    proposal: Proposal,
    settings: GateSettings,
    check: Check,
    order: Order,
    show: Callable[[Sequence[Gate]], None],
) -> Change:
    """Makes a study's model the champion, if all gates hold or it is ordered all the same.

    What was interrupted before is gone on with; what is champion already stays as it is.

    Args:
        client: of the registry.
        proposal: from `propose`.
        settings: the limits of the gates.
        check: called only where the gates ask for it.
        order: who, when, why.
        show: is given all the gates, before anything is decided.

    Raises:
        ConfigError: the version is not in the registry.
        PromotionRefused: a gate does not hold, or the champion changed meanwhile; nothing was
            changed.
    """
    name, version = proposal.name, proposal.version
    standing = _standing(client, name)
    found = find_version(client, name, version)
    if found is None:
        raise ConfigError(f"{proposal.uri}, which study {proposal.study} registered, was deleted.")
    _check_is_its_own(found.tags, proposal)
    if entry := standing.may_resume(PROMOTE, version):
        return _resumed(client, name, entry)
    if standing.champion == version:
        last = recover(client, standing).last_done
        sentence = f"{name} version {version} is the champion already; nothing was changed."
        return Change(last if last and last.version == version else None, False, sentence)
    reload = check(proposal.uri) if settings.reproducible_load else None
    _check_unchanged(client, standing, version)
    champion = _reigning(client, standing)
    gates = judge_gates(proposal.outcome, settings, champion, reload, proposal.classes)
    show(gates)
    failed = tuple(gate.name for gate in gates if not gate.holds)
    if failed and order.override is None:
        raise PromotionRefused(_refusal(proposal, gates))
    entry = next_entry(
        recover(client, standing),
        PROMOTE,
        version,
        who=order.who,
        when=order.when,
        why=order.why,
        study=proposal.study,
        report=proposal.report,
        override=(order.override or "") if failed else "",
        failed_gates=failed,
    )
    carry_out(client, name, entry)
    return Change(entry, True, _changed(name, entry))


def _check_is_its_own(tags: Mapping[str, str], proposal: Proposal) -> None:
    """Refuses a version that is of another study or trial.

    Raises:
        ConfigError: a store that was made anew has given the number to another model.
    """
    study, trial = tags.get("podium.study"), tags.get("podium.trial")
    judged = proposal.outcome.get("trial")
    is_other = trial is not None and judged is not None and trial != str(judged)
    if study in (None, proposal.study) and not is_other:
        return
    raise ConfigError(
        f"{proposal.uri} is the model of study {study}, trial {trial}, not of study "
        f"{proposal.study}, trial {judged}: MLflow's store is not the one in which that was "
        f"registered. `podium sync {proposal.study}` registers it; then promote it."
    )


def _reigning(client: Registry, standing: Standing) -> StudyVersion | None:
    """The champion, and the study that it came from."""
    if standing.champion is None:
        return None
    version = find_version(client, standing.name, standing.champion)
    study = version.tags.get("podium.study", "") if version else ""
    return StudyVersion(standing.name, standing.champion, study)


def rollback(client: Registry, name: str, to: str | None, check: Check, order: Order) -> Change:
    """Takes the last promotion back: champion and previous champion change places.

    Right after a rollback it changes nothing, so that it can be repeated.

    Args:
        client: of the registry.
        name: of the registered model.
        to: an earlier champion to go back to; None for the previous one.
        check: loads the version that is gone back to, before anything is changed.
        order: who, when, why.

    Raises:
        ConfigError: no such model or version.
        PromotionRefused: there is nothing to go back to, it does not load any more, or the
            champion changed meanwhile.
    """
    standing = _standing(client, name)
    if to is not None and find_version(client, name, to) is None:
        raise ConfigError(f"{name} has no version {to!r}. `podium champion {name}` lists them.")
    entry = standing.may_resume(ROLLBACK, to)
    if entry is not None and find_version(client, name, entry.version) is not None:
        return _resumed(client, name, entry)
    standing = recover(client, standing)
    last = standing.last_done
    if last and last.version != standing.champion:
        last = None  # The alias was moved by hand since.
    if to is None and last and last.action == ROLLBACK:
        sentence = (
            f"{name} was rolled back already, at {last.when} by {last.who}, from version "
            f"{last.from_version} to {last.version}; nothing was changed. "
            f"To go further back: `podium rollback {name} --to VERSION`."
        )
        return Change(last, False, sentence)
    if to is not None and to == standing.champion:
        return Change(last, False, f"{name} version {to} is the champion; nothing was changed.")
    target = _target(standing, to)
    reload = check(f"models:/{name}/{target}")
    if not reload.loaded or not (reload.is_same or reload.difference is None):
        reason = reload.trouble or f"its probabilities differ by {reload.difference:.2g}"
        raise PromotionRefused(
            f"{name} version {target} does not load and predict as it did: {reason}. The champion "
            f"is still version {standing.champion}. Another one: "
            f"`podium rollback {name} --to VERSION`."
        )
    _check_unchanged(client, standing, target)
    entry = next_entry(standing, ROLLBACK, target, who=order.who, when=order.when, why=order.why)
    carry_out(client, name, entry)
    return Change(entry, True, _changed(name, entry))


def _standing(client: Registry, name: str) -> Standing:
    standing = read_standing(client, name)
    if standing is None:
        raise ConfigError(f"No registered model {name!r}. `podium run` registers one.")
    return standing


def _check_unchanged(client: Registry, before: Standing, version: str) -> None:
    """Refuses to go on from a standing that is not that of now: loading takes a while.

    Args:
        client: of the registry.
        before: what was read first.
        version: that is to become the champion.
    """
    name, now = before.name, _standing(client, before.name)
    if find_version(client, name, version) is None:
        raise ConfigError(f"{name} version {version} was deleted while it was loaded.")
    if now == before:
        return
    last = now.entries[-1] if now.entries else None
    if last is None or now.entries == before.entries:
        who = "the aliases of the champion were moved by hand"
    elif last.is_open:
        who = f"{last.who} began a {last.action} to version {last.version}"
    else:
        who = f"a {last.action} by {last.who} to version {last.version} was {last.state}"
    champion = f"is version {now.champion}" if now.champion else "is none"
    raise PromotionRefused(
        f"While {name} version {version} was loaded, {who}; the champion {champion} now. Nothing "
        f"was changed here. See `podium champion {name}`, then repeat the command: it will be "
        "judged anew."
    )


def _target(standing: Standing, to: str | None) -> str:
    """The version to go back to."""
    name, champion = standing.name, standing.champion
    if champion is None:
        raise PromotionRefused(
            f"{name} has no champion, and so nothing to go back from. `podium promote STUDY`."
        )
    if to is not None:
        if to in standing.been_champion:
            return to
        raise PromotionRefused(
            f"{name} version {to} was never the champion: there is no going back to it. "
            "`podium promote STUDY` with the study that it came from."
        )
    if standing.previous is None or standing.previous == champion:
        raise PromotionRefused(
            f"There is nothing to go back to: {name} has no champion before version {champion}."
        )
    return standing.previous


def _resumed(client: Registry, name: str, entry: Entry) -> Change:
    carry_out(client, name, entry)
    sentence = (
        f"This was begun at {entry.when} by {entry.who}, interrupted, and is finished now. "
        f"{_changed(name, entry)}"
    )
    return Change(entry, True, sentence)


def _changed(name: str, entry: Entry) -> str:
    again = " again" if entry.action == ROLLBACK else ""
    before = f"version {entry.from_version}" if entry.from_version else "none"
    return f"{name} version {entry.version} is{again} the champion; before it was {before}."


def _refusal(proposal: Proposal, gates: Sequence[Gate]) -> str:
    failed = [gate for gate in gates if not gate.holds]
    what = "1 gate does" if len(failed) == 1 else f"{len(failed)} gates do"
    sentences = " ".join(f"{gate.name}: {gate.sentence}" for gate in failed)
    return (
        f"Not promoted: {what} not hold for {proposal.uri} of study {proposal.study}; nothing was "
        f"changed. {sentences} To promote it all the same, on record: "
        f'`podium promote {proposal.study} --override "reason"`.'
    )

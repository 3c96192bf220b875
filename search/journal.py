"""Moves the alias `champion` so that it can be interrupted anywhere: a write-ahead journal.

MLflow changes one thing a call. What is to be done is therefore written first, as a tag of the
registered model, and marked as done at the end; every step gives the same when it is repeated.
Whoever comes next finds an entry that is not done, and goes on with it or takes it back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Protocol

from search.records import PromotionRefused, TrackingError
from search.registry import CHAMPION, DESCRIPTION_LENGTH, PREVIOUS, find_model, find_version

TAG = "podium.journal."
PROMOTE = "promote"
ROLLBACK = "rollback"
CUT = "\n\n(...)"
ROLLED_BACK = "podium.rolled_back_"
"""How the tags of a version that is the champion no more begin."""


class Registry(Protocol):
    """The calls of an MLflow client that change something; each is one transaction."""

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        """Of the registered model."""

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """Makes the alias stand for the version."""

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Takes the alias away, if there is one."""

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        """Of the version."""

    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        """Takes the tag away, if there is one."""

    def update_model_version(self, name: str, version: str, description: str) -> Any:
        """Gives the version another description."""

    def get_registered_model(self, name: str) -> Any:
        """With tags and aliases."""

    def get_model_version(self, name: str, version: str) -> Any:
        """With tags and description."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One change of the champion.

    Attributes:
        number: from 1.
        action: `PROMOTE` or `ROLLBACK`.
        version: that becomes the champion.
        from_version: the champion before; None where there was none.
        previous_before: what the alias `previous-champion` stood for before, likewise.
        who: changed it.
        when: as ISO 8601, in UTC.
        why: the reason that was given.
        study: that the version came from; "" for a rollback.
        report: where its report is; likewise.
        override: why it was promoted although gates did not hold; "" where all held.
        failed_gates: names of the gates that did not hold.
        done: every step was made.
        abandoned: it was taken back.
    """

    number: int
    action: str
    version: str
    from_version: str | None
    previous_before: str | None
    who: str
    when: str
    why: str
    study: str = ""
    report: str = ""
    override: str = ""
    failed_gates: tuple[str, ...] = ()
    done: bool = False
    abandoned: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it was interrupted, or is under way."""
        return not (self.done or self.abandoned)

    @property
    def state(self) -> str:
        """For people."""
        return "done" if self.done else "abandoned" if self.abandoned else "interrupted"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a registered model stands: its aliases, and its journal from the first entry on."""

    name: str
    champion: str | None
    previous: str | None
    entries: tuple[Entry, ...]

    @property
    def open_entry(self) -> Entry | None:
        """The change that was interrupted, if one was."""
        last = self.entries[-1] if self.entries else None
        return last if last and last.is_open else None

    @property
    def last_done(self) -> Entry | None:
        """The change that led to the champion of now, unless the alias was moved by hand."""
        return next((entry for entry in reversed(self.entries) if entry.done), None)

    @property
    def been_champion(self) -> set[str]:
        """Versions that are known to have been the champion."""
        done = [entry for entry in self.entries if entry.done]
        known = {self.champion, self.previous}
        known |= {entry.version for entry in done} | {entry.from_version for entry in done}
        return {version for version in known if version is not None}

    def may_resume(self, action: str, version: str | None) -> Entry | None:
        """The interrupted change, if it is this one and nobody moved the champion since.

        Args:
            action: `PROMOTE` or `ROLLBACK`.
            version: None for any.
        """
        entry = self.open_entry
        if entry is None or entry.action != action or version not in (None, entry.version):
            return None
        return entry if self.champion in (entry.version, entry.from_version) else None


def read_standing(client: Registry, name: str) -> Standing | None:
    """Where a registered model stands; None where there is none of that name.

    Raises:
        TrackingError: its journal was damaged.
    """
    model = find_model(client, name)
    if model is None:
        return None
    aliases: Mapping[str, Any] = model.aliases
    entries = [_entry(name, key, text) for key, text in model.tags.items() if key.startswith(TAG)]
    return Standing(
        name,
        str(aliases[CHAMPION]) if CHAMPION in aliases else None,
        str(aliases[PREVIOUS]) if PREVIOUS in aliases else None,
        tuple(sorted(entries, key=lambda entry: entry.number)),
    )


def next_entry(standing: Standing, action: str, version: str, **told: Any) -> Entry:
    """A change that is yet to be made.

    Args:
        standing: of the registered model, without an open entry.
        action: `PROMOTE` or `ROLLBACK`.
        version: that becomes the champion.
        told: the other fields of an `Entry`.
    """
    number = standing.entries[-1].number + 1 if standing.entries else 1
    return Entry(number, action, version, standing.champion, standing.previous, **told)


def carry_out(client: Registry, name: str, entry: Entry) -> None:
    """Makes a change, from its first step or from wherever it was interrupted.

    What concerns an earlier champion that was deleted since is left out.

    Raises:
        PromotionRefused: someone else's entry took the place of this one.
    """
    _write(client, name, entry)
    _check_place(client, name, entry)
    if entry.from_version and find_version(client, name, entry.from_version) is not None:
        client.set_registered_model_alias(name, PREVIOUS, entry.from_version)
    else:  # Whatever this alias stands for, it was not the champion right before.
        client.delete_registered_model_alias(name, PREVIOUS)
    client.set_registered_model_alias(name, CHAMPION, entry.version)
    for version, tags, line in _notes(entry):
        found = find_version(client, name, version)
        if found is not None:
            _note(client, name, found, tags, line)
    _check_place(client, name, entry)
    _write(client, name, replace(entry, done=True))


def _check_place(client: Registry, name: str, entry: Entry) -> None:
    """Refuses to go on where someone else has written an entry of the same number."""
    standing = read_standing(client, name)
    entries = standing.entries if standing else ()
    kept = next((e for e in entries if e.number == entry.number), None)
    if kept is None or replace(kept, done=entry.done) == entry:
        return
    raise PromotionRefused(
        f"At the same moment, {kept.when}, {kept.who} began a {kept.action} to version "
        f"{kept.version} of {name}, which took the place of this {entry.action} to version "
        f"{entry.version} in the journal. See `podium champion {name}`, then repeat the command."
    )


def recover(client: Registry, standing: Standing) -> Standing:
    """Ends a change that was interrupted, and gives the standing after that.

    It is finished where the champion has changed already. Else it is taken back: nobody but this
    journal has heard of it.
    """
    entry, name = standing.open_entry, standing.name
    if entry is None:
        return standing
    if standing.champion == entry.version and find_version(client, name, entry.version):
        carry_out(client, name, entry)
    else:
        _restore_previous(client, standing, entry)
        _write(client, name, replace(entry, abandoned=True))
    return read_standing(client, name) or standing


def _restore_previous(client: Registry, standing: Standing, entry: Entry) -> None:
    name, before = standing.name, entry.previous_before
    if standing.previous not in (entry.from_version, None):
        return  # Not as this entry left it: someone has moved it since.
    if before is not None and find_version(client, name, before) is not None:
        client.set_registered_model_alias(name, PREVIOUS, before)
    else:
        client.delete_registered_model_alias(name, PREVIOUS)


def _write(client: Registry, name: str, entry: Entry) -> None:
    values = asdict(entry)
    number = values.pop("number")
    text = json.dumps(values, ensure_ascii=False)
    client.set_registered_model_tag(name, f"{TAG}{number:04d}", text)


def _entry(name: str, key: str, text: str) -> Entry:
    known = {field.name for field in fields(Entry)}
    try:
        values = {k: v for k, v in json.loads(text).items() if k in known}
        values["failed_gates"] = tuple(values.get("failed_gates", ()))
        return Entry(number=int(key.removeprefix(TAG)), **values)
    except (ValueError, TypeError, AttributeError):
        raise TrackingError(
            f"Tag {key} of the registered model {name} is no entry of Podium's journal: "
            f"{text[:80]!r}. Correct it, or delete the tag, in MLflow."
        ) from None


def _notes(entry: Entry) -> Iterator[tuple[str, dict[str, str], str]]:
    """Version, tags and line of its description, for each version that a change concerns."""
    signed = f"by {entry.who}. Reason: {entry.why}"
    if entry.action == PROMOTE:
        line = f"Champion since {entry.when}: promoted from study {entry.study} {signed}"
        line += f" Report: {entry.report}"
        if entry.failed_gates:
            gates = ", ".join(entry.failed_gates)
            line += f" Promoted although gates did not hold ({gates}): {entry.override}"
        tags = {
            "podium.study": entry.study,
            "podium.report": entry.report,
            "podium.promoted_by": entry.who,
            "podium.promoted_at": entry.when,
            "podium.promoted_why": entry.why,
            "podium.override": entry.override or "none",
        }
        yield entry.version, tags, line
        return
    yield (
        entry.version,
        {
            "podium.restored_by": entry.who,
            "podium.restored_at": entry.when,
            "podium.restored_why": entry.why,
        },
        f"Champion again since {entry.when}: rolled back from version {entry.from_version} "
        f"{signed}",
    )
    if entry.from_version is not None:
        yield (
            entry.from_version,
            {
                f"{ROLLED_BACK}by": entry.who,
                f"{ROLLED_BACK}at": entry.when,
                f"{ROLLED_BACK}why": entry.why,
            },
            f"Champion no more since {entry.when}: rolled back to version {entry.version} {signed}",
        )


def _note(client: Registry, name: str, found: Any, tags: Mapping[str, str], line: str) -> None:
    """Tags a version, and no longer as rolled back if it is not; adds a line to its description."""
    version = str(found.version)
    for key in found.tags:
        if key.startswith(ROLLED_BACK) and key not in tags:
            client.delete_model_version_tag(name, version, key)
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value)
    text = found.description or ""
    if line in text:
        return
    room = DESCRIPTION_LENGTH - len(line) - len(CUT) - 2
    if len(text) > room:
        text = text[:room].removesuffix(CUT) + CUT
    client.update_model_version(name, version, f"{text}\n\n{line}" if text else line)

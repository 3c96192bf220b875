"""The commands on registered models: promote, rollback, champion and predict."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.records import ConfigError, PodiumError
from search.settings import (
    TrackingSettings,
    in_environment,
    load_tracking,
    same_place,
    stored_tracking,
    without_password,
)
from search.tables import Format, errors, print_rows, say, tell

if TYPE_CHECKING:
    from search.gates import Gate
    from search.journal import Entry, Standing
    from search.ledger import StudyRecord

EPILOGS = {
    "promote": "Examples: `podium promote STUDY`, "
    '`podium promote STUDY --reason "monthly release"`, '
    '`podium promote STUDY --override "hotfix, agreed with the owner"`',
    "rollback": "Examples: `podium rollback`, "
    '`podium rollback podium-digits --reason "slow in production"`, '
    "`podium rollback podium-digits --to 3`",
    "champion": "Examples: `podium champion`, `podium champion podium-digits`",
    "predict": "Examples: `podium predict podium-digits image.png`, "
    "`podium predict models:/podium-digits/3 images.npy --top 3 --format json`, "
    "`podium predict podium-digits@previous-champion images.npz --format csv`",
}
LOADING = "Loading {} in a process of its own ..."

Reason = Annotated[str | None, typer.Option(help="Why; kept in the registry.")]
By = Annotated[str | None, typer.Option(help="Who; kept in the registry. [the user's name]")]


def promote(
    study: Annotated[str, typer.Argument(help="A study with a verdict.")],
    reason: Reason = None,
    override: Annotated[
        str | None, typer.Option(help="Promote even if gates do not hold, for this reason.")
    ] = None,
    by: By = None,
) -> None:
    """Make a study's model the champion, if all gates of mlflow.yaml hold.

    The alias `champion` moves to it, `previous-champion` to the one before. Exit code 4: a gate
    does not hold, nothing was changed. An interrupted promotion is finished by the same command.
    """
    from search.folder import existing_ledger, find_study
    from search.loading import check_load
    from search.promotion import Order, find_unnamed, propose
    from search.promotion import promote as promoted
    from search.registry import registry

    gates = load_tracking().gates
    ledger = existing_ledger()
    record = find_study(ledger, study)
    favoured = ((record.outcome or {}).get("verdict") or {}).get("speaks_for_it", True)
    why = f"recommended by study {study}"
    if not favoured:
        tell(f"Note: the verdict of study {study} does not speak for its model.")
        why = f"by hand; the verdict of study {study} does not speak for it"
    if reason is not None:
        why = reason
    order = Order(_who(by), _now(), why, override)
    settings = tracking_of(record)

    def find() -> str:
        say(f"Study {study} names no model; looking for it ...")
        name = settings.model_name(record.facts.get("data", ""))
        with registry(settings) as client:
            return find_unnamed(client, ledger, record, name)

    with closing(ledger):
        proposal = propose(record, find)

    def check(uri: str) -> Any:
        say(LOADING.format(uri))
        return check_load(settings.tracking_uri, uri)

    with registry(settings) as client:
        change = promoted(client, proposal, gates, check, order, _print_gates)
    tell(change.sentence)
    if change.entry and change.entry.failed_gates:
        tell(
            f"Gates that did not hold: {', '.join(change.entry.failed_gates)}. "
            f"Promoted all the same: {change.entry.override}"
        )
    elif override is not None and change.is_new:
        tell("All gates hold: the override was not needed, and is not recorded.")
    say("\nNext:")
    say(f"  podium champion {proposal.name}")
    if change.entry and change.entry.from_version:
        say(f'  podium rollback {proposal.name} --reason "..."')


def rollback(
    model: Annotated[
        str | None, typer.Argument(help="A registered model. [the only one of this folder]")
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="An earlier champion's version. [the previous champion]")
    ] = None,
    reason: Reason = None,
    by: By = None,
) -> None:
    """Take the last promotion back: the previous champion is the champion again.

    It is loaded first, in a process of its own, and must predict as when it was made. Exit code 4:
    it does not, or there is none to go back to. Once more right after changes nothing.
    """
    from search.loading import check_load
    from search.promotion import Order
    from search.promotion import rollback as rolled_back
    from search.registry import registry

    settings = load_tracking()
    why = "no reason was given" if reason is None else reason
    order = Order(_who(by), _now(), why)

    def check(uri: str) -> Any:
        say(LOADING.format(uri))
        return check_load(settings.tracking_uri, uri)

    with registry(settings) as client:
        name = _only(_names(client, settings, model), settings)
        change = rolled_back(client, name, to, check, order)
    tell(change.sentence)
    say(f"\nNext:\n  podium champion {name}")


def champion(
    model: Annotated[
        str | None, typer.Argument(help="A registered model. [all of this folder]")
    ] = None,
) -> None:
    """Show which version is the champion, and how it came to be."""
    from search.journal import read_standing
    from search.registry import registry

    settings = load_tracking()
    with registry(settings) as client:
        names = _names(client, settings, model)
        if not names:
            raise ConfigError(_none_registered(settings))
        for name in names:
            standing = read_standing(client, name)
            if standing is not None:
                _print_standing(client, standing)


def predict(
    model: Annotated[
        str,
        typer.Argument(help="NAME (its champion, or else newest), NAME/VERSION or NAME@ALIAS."),
    ],
    images: Annotated[
        list[Path], typer.Argument(help="PNG, JPEG or BMP pictures, .npy or .npz files.")
    ],
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.TABLE,
    top: Annotated[int, typer.Option(help="Most probable classes to print.", min=1)] = 1,
) -> None:
    """Classify images with a registered model: raw pixels, of the size that it was trained on."""
    import numpy as np

    from search.loading import predict as classified
    from search.prediction import doubtful_pixels, read_batch, rows
    from search.registry import choose, read_card, registry

    settings = load_tracking()
    with registry(settings) as client:
        chosen = choose(client, model)
        card = read_card(chosen.uri)
    _aside(f"Model {chosen.uri}: {chosen.why}.")
    batches = [read_batch(path, card.image_shape) for path in images]
    for batch in batches:
        if batch.note:
            _aside(batch.note)
    pixels = np.concatenate([batch.images for batch in batches])
    predicted = classified(settings.tracking_uri, chosen.uri, pixels)
    if doubt := doubtful_pixels(batches, predicted):
        _aside(doubt)
    print_rows(rows(batches, predicted, card, top), format)


def _aside(text: str) -> None:
    """On stderr, so that what is printed can be piped on."""
    errors.print(text, markup=False)


def _who(by: str | None) -> str:
    if by is not None:
        return by
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        raise ConfigError("This user has no name; say who with --by.") from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def tracking_of(record: StudyRecord) -> TrackingSettings:
    """The store that a study was tracked in, with the password that only the environment has.

    Raises:
        ConfigError: it has a password, and the environment does not.
    """
    settings, here = stored_tracking(f"study {record.name}", record.settings), load_tracking()
    if same_place(here.tracking_uri, settings.tracking_uri):
        return settings.model_copy(update={"tracking_uri": here.tracking_uri})
    if ":***@" in settings.tracking_uri:
        raise ConfigError(
            f"Study {record.name} is tracked at {settings.tracking_uri}, and Podium keeps no "
            "passwords: set MLFLOW_TRACKING_URI to that address with its password."
        )
    return settings


def tracking_now(record: StudyRecord) -> TrackingSettings:
    """Where a study is tracked from now on: where it was, or at the address that was given here.

    The latter if the environment has it, or if MLflow does not answer any more where it was. In
    the experiment that the study was begun for, under the name that it was begun with. One that
    moves is told of on stderr.

    Raises:
        ConfigError: it has a password, and the environment does not.
    """
    before, here = stored_tracking(f"study {record.name}", record.settings), load_tracking()
    given = "tracking_uri" in here.model_fields_set
    if not given or same_place(here.tracking_uri, before.tracking_uri):
        return tracking_of(record)
    if not in_environment() and _answers(record):
        return tracking_of(record)
    old, new = without_password(before.tracking_uri), without_password(here.tracking_uri)
    _aside(
        f"Study {record.name} was tracked at {old}; as mlflow.yaml or MLFLOW_TRACKING_URI has it, "
        f"it is tracked at {new} from now on."
    )
    place = {"tracking_uri": here.tracking_uri, "artifact_root": here.artifact_root}
    return before.model_copy(update=place)


def _answers(record: StudyRecord) -> bool:
    """Whether a study can still be tracked where it was."""
    from search.tracking import check_tracking

    try:
        check_tracking(tracking_of(record))
    except PodiumError:
        return False
    return True


def _names(client: Any, settings: TrackingSettings, model: str | None) -> list[str]:
    """The registered model that was named, or all that mlflow.yaml's pattern fits."""
    from search.registry import model_names, need_model

    if model is None:
        return model_names(client, settings.registered_model)
    return [str(need_model(client, model.removeprefix("models:/")).name)]


def _only(names: Sequence[str], settings: TrackingSettings) -> str:
    if not names:
        raise ConfigError(_none_registered(settings))
    if len(names) > 1:
        raise ConfigError(
            f"Which one? Registered models here: {', '.join(names)}. As in `podium rollback "
            f"{names[0]}`."
        )
    return names[0]


def _none_registered(settings: TrackingSettings) -> str:
    return (
        f"No registered model here is called {settings.registered_model}, as mlflow.yaml has it. "
        "`podium run` registers one."
    )


def _print_gates(gates: Sequence[Gate]) -> None:
    table = [
        {
            "gate": gate.name,
            "value": _shown(gate.value),
            "limit": _shown(gate.limit),
            "holds": "yes" if gate.holds else "NO",
            "because": gate.sentence,
        }
        for gate in gates
    ]
    print_rows(table, Format.TABLE)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _print_standing(client: Any, standing: Standing) -> None:
    from search.registry import find_version

    name = standing.name
    if standing.champion is None:
        say(f"{name} has no champion; `podium promote STUDY` makes one.")
    else:
        version = find_version(client, name, standing.champion)
        study = version.tags.get("podium.study", "") if version else ""
        origin = f" of study {study}" if study else ""
        before = f"; before it version {standing.previous}" if standing.previous else ""
        say(f"{name}: the champion is version {standing.champion}{origin}{before}")
        last = standing.last_done
        if last is None or last.version != standing.champion:
            tell("The alias was moved by hand, not by Podium: the history does not tell why.")
    if entry := standing.open_entry:
        tell(
            f"A {entry.action} to version {entry.version}, begun at {entry.when} by {entry.who}, "
            "was interrupted or is under way; the same command again finishes it."
        )
    if standing.entries:
        print_rows([_line(entry) for entry in reversed(standing.entries)], Format.TABLE)


def _line(entry: Entry) -> dict[str, Any]:
    why = entry.why
    if entry.failed_gates:
        why += f"; although {', '.join(entry.failed_gates)} did not hold: {entry.override}"
    return {
        "when": entry.when,
        "what": entry.action,
        "version": entry.version,
        "from": entry.from_version,
        "study": entry.study,
        "who": entry.who,
        "why": why,
        "state": entry.state,
    }

"""Settings of a study: defaults, `mlflow.yaml`, a study file and flags, in that order."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from search.credentials import holds_password, masked
from search.records import ConfigError, Criteria
from search.unpacking import is_endless

SamplerName = Literal["tpe", "random", "gp", "cmaes", "qmc", "grid"]
SchedulerName = Literal["asha", "hyperband", "median", "none"]
PolicyName = Literal[
    "one-standard-error", "best-mean", "lower-bound", "smallest-gap", "cheapest-within", "pareto"
]
CostName = Literal["parameters", "latency"]
CorrectionName = Literal["paired", "nadeau-bengio"]

Model = TypeVar("Model", bound=BaseModel)

SAMPLERS: tuple[str, ...] = get_args(SamplerName)
SCHEDULERS: tuple[str, ...] = get_args(SchedulerName)
POLICIES: tuple[str, ...] = get_args(PolicyName)
WITH_TOLERANCE = ("smallest-gap", "cheapest-within")
COSTS: tuple[str, ...] = get_args(CostName)
CORRECTIONS: tuple[str, ...] = get_args(CorrectionName)
RUNS_PATH = Path("runs")
MLFLOW_FILE = Path("mlflow.yaml")
# As it was when the process began: MLflow's client sets the variable itself later on.
ENVIRONMENT_URI = os.environ.get("MLFLOW_TRACKING_URI")
STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_YAML = 1_000_000
"""Characters of a file of settings."""
MAX_NUMBER = 1_000
"""Characters of a number in it."""
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
MAX_TRIALS = 1_000_000
FINALISTS = 4
GROWING = frozenset({"trials", "finalists", "confirm_seeds"})
"""What a study may have more of when it is resumed."""
SHOWN = 100
"""Characters of a wrong value that a message repeats."""


class GateSettings(BaseModel):
    """What must hold of a model before it becomes the champion; None: not asked.

    All but size and latency are judged on the test split, which is not opened again for that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min_accuracy: float | None = Field(default=0.8, ge=0, le=1)
    """Of the lower end of the accuracy's 95% interval."""
    non_inferiority_margin: float | None = Field(default=0.02, ge=0, le=1)
    """How much less accurate than the champion it may be, with 95% confidence."""
    min_class_recall: float | None = Field(default=0.5, ge=0, le=1)
    max_calibration_error: float | None = Field(default=0.1, ge=0, le=1)
    max_size_mb: float | None = Field(default=100.0, gt=0)
    """Of the `.keras` file, in millions of bytes."""
    max_latency_ms: float | None = Field(default=100.0, gt=0)
    """Median for one image, as it was measured in the study."""
    reproducible_load: bool | None = True
    """Whether the registered version must give the same predictions in a new process."""

    @field_validator("*", mode="before")
    @classmethod
    def _yes_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, bool) and info.field_name != "reproducible_load":
            raise ValueError("expected a number, not yes or no")
        return value


class TrackingSettings(BaseModel):
    """Where MLflow keeps things and what a champion must be: the contents of `mlflow.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tracking_uri: str = Field(default="sqlite:///runs/mlflow.db", min_length=1, repr=False)
    artifact_root: str = Field(default="runs/artifacts", min_length=1)
    experiment: str = Field(default="podium", min_length=1)
    registered_model: str = Field(default="podium-{data}", min_length=1, pattern=r"^[^/:@]+$")
    """`{data}` stands for the name of the data set: models of different data are no rivals."""
    gates: GateSettings = GateSettings()

    @field_serializer("tracking_uri")
    def _stored_without_password(self, uri: str) -> str:
        return without_password(uri)

    def model_name(self, data: str) -> str:
        """The registered model for a data set."""
        return self.registered_model.replace("{data}", data)


class StudySettings(BaseModel):
    """One search from launch to recommendation: the contents of a study file, or the flags."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    study: str | None = None
    space: str = "mlp"
    data: str = "digits"
    data_dir: Path | None = None
    label_column: str | None = None
    image_shape: str | None = Field(default=None, pattern=r"^[0-9]{1,6}x[0-9]{1,6}(x[13])?$")
    trials: int = Field(default=24, ge=1, le=MAX_TRIALS)
    max_epochs: int = Field(default=18, ge=1, le=100_000)
    first_rung: int = Field(default=2, ge=1)
    reduction: int = Field(default=3, ge=2, le=64)
    sampler: SamplerName = "tpe"
    scheduler: SchedulerName = "asha"
    policy: PolicyName = "one-standard-error"
    tolerance: float = Field(default=0.005, ge=0.0, lt=1.0)
    cost: CostName = "parameters"
    correction: CorrectionName = "paired"
    max_params: int | None = Field(default=None, ge=1)
    max_latency_ms: float | None = Field(default=None, gt=0.0)
    max_gap: float | None = Field(default=None, ge=0.0, le=1.0)
    min_class_recall: float | None = Field(default=None, ge=0.0, le=1.0)
    concurrent: int | None = Field(default=None, ge=1)
    cpus_per_trial: int = Field(default=1, ge=1)
    gpus_per_trial: float = Field(default=0.0, ge=0.0)
    seed: int = Field(default=0, ge=0, lt=2**31)
    finalists: int = Field(default=FINALISTS, ge=0)
    confirm_seeds: int = Field(default=8, ge=2, le=1_000)
    folds: int = Field(default=0, ge=0, le=100)
    grid: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    retries: int = Field(default=2, ge=0, le=100)
    """How often a job is handed out again whose process died."""
    trial_timeout: float | None = Field(default=None, gt=0.0)
    """Seconds that a trial may be with a worker, all its attempts together."""
    time_budget: float | None = Field(default=None, gt=0.0)
    """Seconds for the study; the search ends when the rest is needed for the confirmation."""
    address: str | None = None
    tracking: TrackingSettings = TrackingSettings()

    @model_validator(mode="before")
    @classmethod
    def _policy_may_bring_its_tolerance(cls, values: Any) -> Any:
        return _with_tolerance(values) if isinstance(values, Mapping) else values

    @field_validator("*", mode="before")
    @classmethod
    def _yes_is_no_number(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("expected a number or a word, not yes or no")
        return value

    @property
    def criteria(self) -> Criteria:
        """How the study chooses among its confirmed candidates."""
        return Criteria(**{field.name: getattr(self, field.name) for field in fields(Criteria)})

    @field_validator("study")
    @classmethod
    def _name_is_safe(cls, value: str | None) -> str | None:
        if value is not None and not STUDY_NAME.fullmatch(value):
            raise ValueError(
                "expected 1-64 letters, digits, dots, dashes and underscores, "
                "the first a letter or digit"
            )
        return value

    @field_validator("grid", mode="before")
    @classmethod
    def _grid_is_text(cls, value: object) -> object:
        if not isinstance(value, dict):
            raise ValueError("expected `name: [value, value]` lines, or --grid name=value,value")
        grid = {_field_name(str(name)): _listed(values) for name, values in value.items()}
        for name, values in grid.items():
            if not all(values) or not values:
                raise ValueError(f"expected values for {name}, none of them empty")
        return grid

    @field_validator("folds")
    @classmethod
    def _one_fold_is_none(cls, value: int) -> int:
        if value == 1:
            raise ValueError("expected 0 for one split, or at least 2 folds")
        return value

    @field_validator("gpus_per_trial")
    @classmethod
    def _gpus_are_shared_or_whole(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError("expected a whole number, or a fraction below 1")
        return value

    @model_validator(mode="after")
    def _first_rung_within_epochs(self) -> StudySettings:
        if self.scheduler != "none" and self.max_epochs < self.first_rung:
            raise ValueError(
                f"max-epochs is {self.max_epochs}: below the first rung {self.first_rung}: "
                "raise --max-epochs, lower --first-rung, or use --scheduler none"
            )
        return self


def _with_tolerance(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of one source; "cheapest-within 0.01" taken apart, so that either part can yield."""
    name, _, tolerance = str(values.get("policy", "")).partition(" ")
    if tolerance and name in WITH_TOLERANCE:
        return {**values, "policy": name, "tolerance": tolerance.strip()}
    return dict(values)


def _field_name(name: str) -> str:
    """As fields are called; what comes after `extra.` is the space's own and stays."""
    field, dot, rest = name.partition(".")
    return field.replace("-", "_") + dot + rest


def _listed(values: object) -> tuple[str, ...]:
    """The values of one parameter of a grid as text; a list of layer sizes as `128-64`."""
    items = values if isinstance(values, list | tuple) else [values]
    texts = ("-".join(map(str, v)) if isinstance(v, list | tuple) else str(v) for v in items)
    return tuple(dict.fromkeys(text.strip() for text in texts))


def is_address(uri: str) -> bool:
    """Whether host and port are where they seem to be.

    They are not where a password has a character that ends them early, and which shows in what
    comes after them.
    """
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        return False
    return not parts.netloc or "@" not in parts.path + parts.query + parts.fragment


def without_password(uri: str) -> str:
    """The address as it may be shown and stored."""
    if not is_address(uri):
        return "(not an address)"
    password = urlsplit(uri).password
    return masked(uri.replace(f":{password}@", ":***@", 1) if password else uri)


def same_place(one: str, other: str) -> bool:
    """Whether two addresses differ in nothing but who is let in."""
    return without_user(one) == without_user(other)


def without_user(uri: str) -> str:
    """The address without the user and password before its host."""
    return re.sub(r"://\S*@", "://", without_password(uri))


def nearest(word: str, known: Iterable[str]) -> str:
    """Says which known word was probably meant and lists the others, for an error message."""
    words = sorted(known)
    close = difflib.get_close_matches(word.lower(), words, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{hint} Known: {', '.join(words)}."


class _Loader(yaml.SafeLoader):
    """Says where a value is that is not what its tag claims; PyYAML lets some raise anything."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            # Numbers of base 60, as in 1:30, take time that grows with the square of their length.
            if node.tag in _NUMBERS and len(node.value) > MAX_NUMBER:
                raise ValueError
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # what a wrong value raises depends on its tag
            value = shown(node.value) if isinstance(node, yaml.ScalarNode) else "this"
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            raise yaml.MarkedYAMLError(
                problem=f"{value} is no {tag}", problem_mark=node.start_mark
            ) from error


def read_mapping(path: Path) -> dict[str, Any]:
    """Reads a YAML file that holds a mapping.

    Raises:
        ConfigError: it is missing, is not YAML, or holds something else.
    """
    try:
        if is_endless(path):
            raise ConfigError(
                f"{path}: a pipe, a socket or a device; settings are a file of at most "
                f"{MAX_YAML:,} characters. Is this the right file?"
            )
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_YAML + 1)
        if len(text) > MAX_YAML:
            raise ConfigError(
                f"{path}: longer than {MAX_YAML:,} characters; settings are a few lines of "
                "`name: value`. Is this the right file?"
            )
        _check_plain(path, text)
        value = _Loader(text).get_single_data()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}).") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = masked(" ".join(str(error).split()))[:300]
        raise ConfigError(
            f"{path}: not valid YAML: {where}. Expected `name: value` lines."
        ) from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected `name: value` lines, found a {type(value).__name__}.")
    return _with_field_names(value)


def _check_plain(path: Path, text: str) -> None:
    """Refuses aliases, a few of which stand for more than memory holds, and a name given twice.

    Raises:
        ConfigError: there is one.
    """
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(
                f"{path}: *{event.anchor} is an alias, which settings cannot have; write out what "
                "it stands for."
            )
    nodes = [yaml.compose(text, Loader=yaml.SafeLoader)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            times = Counter(key.replace("-", "_") for key in keys)
            twice = next((name for name, count in times.items() if count > 1), None)
            if twice is not None:
                raise ConfigError(f"{path}: {twice[:SHOWN]!r} is given twice; keep one of them.")
            nodes += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value


def _with_field_names(values: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key).replace("-", "_"): item for key, item in values.items()}


def in_environment() -> bool:
    """Whether the environment names a tracking URI."""
    return bool(ENVIRONMENT_URI)


def load_tracking() -> TrackingSettings:
    """Reads `mlflow.yaml` of the current folder; defaults where there is none.

    MLFLOW_TRACKING_URI, where it was set, is the tracking URI.
    """
    values = read_mapping(MLFLOW_FILE) if MLFLOW_FILE.exists() else {}
    where = f"{MLFLOW_FILE}: "
    _refuse_passwords(values, where)
    if ENVIRONMENT_URI:
        values["tracking_uri"] = ENVIRONMENT_URI
    return _validated(TrackingSettings, _with_gates(values, where), lambda _: where)


def _refuse_passwords(values: Mapping[str, Any], where: str) -> None:
    """Files are copied, committed and shown: they hold no passwords.

    Raises:
        ConfigError: an address has one.
    """
    for name, value in values.items():
        if holds_password(str(value)):
            raise ConfigError(
                f"{where}{name} holds a password. Write the address without it; the password "
                "belongs into the environment: MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD for a server, the whole MLFLOW_TRACKING_URI for a "
                "database."
            )


def _with_gates(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Settings of tracking whose gates are spelt like fields."""
    gates = values.get("gates")
    if not isinstance(gates, dict):
        return dict(values)
    gates = _with_field_names(gates)
    _check_keys(GateSettings, gates, f"{where}gates: ")
    return {**values, "gates": gates}


def load_settings(study_file: Path | None, flags: Mapping[str, Any]) -> StudySettings:
    """Merges defaults < `mlflow.yaml` < study file < flags.

    Args:
        study_file: a YAML file with any of the fields of `StudySettings`.
        flags: what the user typed; None means not given.

    Raises:
        ConfigError: an unknown key (with the nearest known one) or an impossible value.
    """
    typed = _with_tolerance({name: value for name, value in flags.items() if value is not None})
    if "grid" in typed:
        typed["grid"] = _parsed_grid(typed["grid"])
    values = _with_tolerance(read_mapping(study_file)) if study_file is not None else {}
    where = f"{study_file}: " if study_file is not None else ""
    _check_keys(StudySettings, values, where)
    overrides = values.pop("tracking", None)
    if overrides is not None and not isinstance(overrides, dict):
        raise ConfigError(f"{where}`tracking` must hold the settings of mlflow.yaml.")
    tracking = load_tracking()
    if overrides:
        inner = f"{where}tracking: "
        given = _with_field_names(overrides)
        _refuse_passwords(given, inner)
        if "gates" in given:
            raise ConfigError(
                f"{inner}`gates` must be in mlflow.yaml, which `podium promote` reads: a study "
                "does not decide what becomes the champion. Move them there."
            )
        tracking = _validated(TrackingSettings, {**dict(tracking), **given}, lambda _: inner)
    values |= {**typed, "tracking": tracking}
    if isinstance(values.get("grid"), dict) and values["grid"]:
        values.setdefault("sampler", "grid")
        if "trials" not in values:
            values["trials"] = _combinations(values["grid"], "" if "grid" in typed else where)
    return _validated(StudySettings, values, lambda name: "" if name in typed else where)


def _combinations(grid: Mapping[str, object], where: str) -> int:
    """How many trials a grid takes.

    Raises:
        ConfigError: more than a study may have.
    """
    count = math.prod(len(_listed(values)) for values in grid.values())
    if count > MAX_TRIALS:
        number = f"{count:,}" if count < 10**12 else "more than 10**12"
        raise ConfigError(
            f"{where or '--'}grid has {number} combinations of its {len(grid)} lists of values; a "
            f"study has at most {MAX_TRIALS:,} trials. List fewer values, or say with --trials how "
            "many of the combinations to try."
        )
    return count


def criteria_from(stored: Mapping[str, Any], flags: Mapping[str, Any]) -> Criteria:
    """How to choose again: as a study was told to, but for what the user typed.

    Args:
        stored: the settings that the study ran with.
        flags: what the user typed; None means not given.

    Raises:
        ConfigError: an impossible value.
    """
    names = {field.name for field in fields(Criteria)}
    typed = _with_tolerance({name: value for name, value in flags.items() if value is not None})
    kept = {name: value for name, value in stored.items() if name in names}
    return _validated(StudySettings, kept | typed, lambda _: "").criteria


def settings_again(
    stored: Mapping[str, Any], tracking: TrackingSettings, flags: Mapping[str, Any]
) -> StudySettings:
    """The settings of a study that goes on: its own, but for what may change between two days.

    Args:
        stored: as the ledger has them.
        tracking: in place of the stored one, which lacks the password.
        flags: of `podium resume`; None: as before. `trials`, `finalists` and `confirm_seeds` may be
            "+50": so many more.

    Raises:
        ConfigError: an impossible value, fewer trials, finalists or seeds than there were, or a
            setting of another version of Podium, without which later trials would mean something
            else.
    """
    unknown = sorted(set(stored) - set(StudySettings.model_fields))
    if unknown:
        raise ConfigError(
            "The study was begun by another version of Podium, with settings that this one does "
            f"not know: {', '.join(unknown)}. Go on with that version, or start another study."
        )
    typed = {name: value for name, value in flags.items() if value is not None}
    begun_with = stored_settings("this study", stored)
    for name in GROWING & typed.keys():
        typed[name] = _grown(name, str(typed[name]), getattr(begun_with, name))
    return _validated(StudySettings, {**stored, **typed, "tracking": tracking}, lambda _: "")


def _grown(name: str, typed: str, before: int) -> int:
    """How many there are to be in all.

    Raises:
        ConfigError: it is no number, or fewer than there were.
    """
    flag = f"--{name.replace('_', '-')} {typed}"
    if not re.fullmatch(r"\+?\d{1,7}", typed):
        raise ConfigError(f"{flag}: expected a number, or +50 for fifty more.")
    total = int(typed) + (before if typed.startswith("+") else 0)
    if total < before:
        raise ConfigError(
            f"{flag}: the study has {before} already; +{typed} would be as many more."
        )
    return total


def stored_settings(study: str, stored: Mapping[str, Any]) -> StudySettings:
    """The settings that a study was run with, as far as this version knows them.

    Args:
        study: what to call it in messages.
        stored: as the ledger has them.

    Raises:
        ConfigError: they are not valid, or not any more.
    """
    return _still_valid(StudySettings, study, _known(stored))


def stored_tracking(study: str, stored: Mapping[str, Any]) -> TrackingSettings:
    """Where a study was tracked; the gates are at their defaults.

    Args:
        study: what to call it in messages.
        stored: its settings, as the ledger has them.

    Raises:
        ConfigError: they are not valid, or not any more.
    """
    values, known = stored.get("tracking"), set(TrackingSettings.model_fields) - {"gates"}
    fields = values if isinstance(values, Mapping) else {"tracking_uri": values} if values else {}
    kept = {name: value for name, value in fields.items() if name in known}
    return _still_valid(TrackingSettings, study, kept)


def _still_valid(model: type[Model], study: str, values: Mapping[str, Any]) -> Model:
    try:
        return _validated(model, values, lambda _: "")
    except ConfigError as error:
        raise ConfigError(
            f"The ledger's settings of {study} are not valid here: {error} Use the Podium that "
            "wrote them, or start another study with `podium run`."
        ) from None


def _known(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in stored.items() if name in StudySettings.model_fields}


def _parsed_grid(flags: Iterable[str]) -> dict[str, list[str]]:
    grid: dict[str, list[str]] = {}
    for flag in flags:
        name, equals, values = flag.partition("=")
        if not (equals and name.strip() and values.strip()):
            raise ConfigError(f"--grid {flag}: expected name=value,value, as in batch_size=10,32.")
        listed = [value.strip() for value in values.split(",")]
        if not all(listed):
            raise ConfigError(f"--grid {flag}: a value is missing.")
        grid.setdefault(_field_name(name.strip()), []).extend(listed)
    return grid


def _check_keys(model: type[BaseModel], values: Mapping[str, Any], where: str) -> None:
    for key in values:
        if key not in model.model_fields:
            raise ConfigError(f"{where}unknown setting {key!r}.{nearest(key, model.model_fields)}")


def _validated(model: type[Model], values: Mapping[str, Any], where: Callable[[str], str]) -> Model:
    """Validates; `where` tells which source to blame for a field (empty for the whole)."""
    _check_keys(model, values, where(""))
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(" ".join(_complaints(error, where))) from None


def _complaints(error: ValidationError, where: Callable[[str], str]) -> Iterable[str]:
    choices = {"sampler": SAMPLERS, "scheduler": SCHEDULERS, "policy": POLICIES}
    choices |= {"cost": COSTS, "correction": CORRECTIONS}
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"])
        name, value = field.replace("_", "-"), item.get("input")
        if name in choices:
            known = nearest(str(value)[:SHOWN], choices[name])
            yield f"{where(field)}Unknown {name} {shown(value)}.{known}"
            continue
        message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
        yield f"{where(field)}{name} is {shown(value)}: {message}." if name else f"{message}."


def shown(value: object) -> str:
    """A wrong value for a message; what is long is cut."""
    if isinstance(value, Mapping):
        value = dict(islice(value.items(), SHOWN))
    elif isinstance(value, list | tuple):
        value = value[: SHOWN + 1]
    elif isinstance(value, str):
        value = masked(value[: 100 * SHOWN])[: SHOWN + 1]
    try:
        text = repr(value)
    except ValueError:  # Python does not write a number of thousands of digits.
        return f"a {type(value).__name__} that is too long"
    text = masked(text)
    return text if len(text) <= SHOWN + 2 else f"{text[:SHOWN]}..."

"""Finds a space by name, module or file, and checks that it keeps its contract."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from search.records import ConfigError, one_line
from search.settings import nearest, shown
from spaces.config import TrialConfig

if TYPE_CHECKING:
    import optuna

BUILT_IN = ("mlp", "cnn")
CHECKED = 10_000
"""Combinations of a grid that are tried out before anything is written."""


@dataclass(frozen=True, slots=True)
class SpaceSource:
    """Where a space's code is; small enough to be sent to workers.

    Attributes:
        name: as shown to people and in tags.
        module: what to import, where `text` is None.
        text: the source of a space that is a file; workers need not have the file.
    """

    name: str
    module: str
    text: str | None = None

    @property
    def identity(self) -> str:
        """The name; of a space of one's own also a digest of its code: names may be alike."""
        return self.name if self.name in BUILT_IN and self.text is None else self._with_digest

    @property
    def _with_digest(self) -> str:
        text = self.text
        if text is None:
            spec = importlib.util.find_spec(self.module)
            origin = Path(spec.origin) if spec and spec.origin else None
            text = origin.read_text(encoding="utf-8") if origin and origin.is_file() else ""
        return f"{self.name}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class Space:
    """A space's functions, checked to be there."""

    source: SpaceSource
    suggest: Callable[[optuna.Trial], TrialConfig]
    baseline: Callable[[], TrialConfig]
    build: Callable[..., Any] | None

    def config_from(self, trial: optuna.Trial) -> TrialConfig:
        """Asks the space for a configuration.

        Raises:
            ConfigError: `suggest` raises, or returns something else than a `TrialConfig`.
        """
        return self._checked("suggest", lambda: self.suggest(trial))

    def baseline_config(self) -> TrialConfig:
        """The space's default configuration.

        Raises:
            ConfigError: as for `config_from`.
        """
        return self._checked("baseline", self.baseline)

    def _checked(self, function: str, call: Callable[[], object]) -> TrialConfig:
        try:
            config = call()
        except ValidationError as error:
            raise ConfigError(
                f"Space {self.source.name}: {function}() made no TrialConfig: {_faults(error)}"
            ) from error
        except (Exception, SystemExit) as error:
            what = one_line(error)
            raise ConfigError(f"Space {self.source.name}: {function}() failed: {what}") from error
        if not isinstance(config, TrialConfig):
            raise ConfigError(
                f"Space {self.source.name}: {function}() returned a {type(config).__name__}; "
                "expected a spaces.config.TrialConfig."
            )
        return config


def _faults(error: ValidationError) -> str:
    faults = []
    for item in error.errors():
        field = ".".join(map(str, item["loc"]))
        if item["type"] == "extra_forbidden":
            faults.append(f"unknown field {field!r}.{nearest(field, TrialConfig.model_fields)}")
        elif field:
            faults.append(f"{field} is {shown(item['input'])}: {_why(item['msg'])}.")
        else:
            faults.append(f"{_why(item['msg'])}.")
    return " ".join(faults)


def _why(message: str) -> str:
    return message.removeprefix("Value error, ").removeprefix("Input ")


def find_space(name: str) -> SpaceSource:
    """Finds a built-in space, a Python file, or a module on the path or in the current folder.

    Raises:
        ConfigError: there is none.
    """
    if name in BUILT_IN:
        return SpaceSource(name, f"spaces.{name}")
    if name.endswith(".py"):
        path = Path(name)
        try:
            return SpaceSource(path.stem, path.stem, path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(f"Space file {name}: cannot be read: {reason}.") from None
    return SpaceSource(name, name)


def open_space(source: SpaceSource) -> Space:
    """Runs the space's module and checks its contract.

    Raises:
        ConfigError: it cannot be imported, or lacks `suggest` or `baseline`.
    """
    module = _run_text(source) if source.text is not None else _import(source)
    for function in ("suggest", "baseline"):
        if not callable(getattr(module, function, None)):
            raise ConfigError(
                f"Space {source.name}: no function {function}(); a space has suggest(trial) and "
                "baseline(), and may have build(config, input_shape, classes)."
            )
    build = getattr(module, "build", None)
    if build is not None and not callable(build):
        raise ConfigError(
            f"Space {source.name}: build is not a function; expected "
            "build(config, input_shape, classes), or leave it out."
        )
    return Space(source, module.suggest, module.baseline, build)


def listed_space(space: Space, grid: Mapping[str, Sequence[str]]) -> Space:
    """The space's baseline with some fields varied over listed values, and nothing else.

    Args:
        space: gives baseline and network.
        grid: values as text by the name of a field of `TrialConfig`, or of `extra.`; layer sizes
            are joined by dashes: `128-64`.

    Raises:
        ConfigError: an unknown field, an impossible value, or values that exclude each other.
    """
    baseline = space.baseline_config()
    known = {
        name: {text: _field_value(baseline, name, text) for text in texts}
        for name, texts in grid.items()
    }

    _check_combinations(baseline, known)

    def suggest(trial: optuna.Trial) -> TrialConfig:
        values = {
            name: choices[trial.suggest_categorical(name, list(choices))]
            for name, choices in known.items()
        }
        return _varied(baseline, values)

    return Space(space.source, suggest, space.baseline, space.build)


def _check_combinations(baseline: TrialConfig, known: Mapping[str, Mapping[str, Any]]) -> None:
    choices = [[(name, *choice) for choice in values.items()] for name, values in known.items()]
    for combination in itertools.islice(itertools.product(*choices), CHECKED):
        try:
            _varied(baseline, {name: value for name, _, value in combination})
        except ValidationError as error:
            words = ", ".join(f"{name}={text}" for name, text, _ in combination)
            raise ConfigError(f"--grid: {words} cannot be combined: {_faults(error)}") from None


def _varied(baseline: TrialConfig, values: Mapping[str, Any]) -> TrialConfig:
    fields = baseline.model_dump()
    for name, value in values.items():
        field, dot, key = name.partition(".")
        if dot:
            fields[field] = {**fields[field], key: value}
        else:
            fields[field] = value
    return TrialConfig.model_validate(fields)


def _field_value(baseline: TrialConfig, name: str, text: str) -> Any:
    """What a text stands for in a field: the first reading of it that the field accepts."""
    field = name.partition(".")[0]
    if field not in TrialConfig.model_fields or ("." in name) != (field == "extra"):
        raise ConfigError(
            f"--grid: unknown field {name!r}.{nearest(name, TrialConfig.model_fields)}"
        )
    readings: list[Any] = [text]
    if field in ("filters", "hidden"):
        readings = [tuple(part for part in text.split("-") if part not in ("", "none"))]
    elif text.lower() == "none":
        readings = ["none", None]
    elif text.lower() in ("true", "false"):
        readings = [text.lower() == "true", text]
    else:
        for kind in (int, float):
            with suppress(ValueError):
                readings.append(kind(text))
        if field == "extra":
            readings.sort(key=lambda reading: isinstance(reading, str))
    fault = ""
    for reading in readings:
        try:
            TrialConfig.model_validate({name: reading} if "." not in name else {})
        except ValidationError as error:
            fault = fault or _faults(error)
        else:
            return reading
    raise ConfigError(f"--grid {name}: {fault}")


def _import(source: SpaceSource) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(source.module)
    except ModuleNotFoundError as error:
        if error.name and f"{source.module}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"Unknown space {source.name!r}.{nearest(source.name, BUILT_IN)} "
                "Or give a path that ends in .py, or package.module."
            ) from None
        raise ConfigError(f"Space {source.name}: {error}.") from None
    except (Exception, SystemExit) as error:
        raise _broken(source, error) from error


def _run_text(source: SpaceSource) -> ModuleType:
    module = ModuleType(f"podium_space_{source.module}")
    # Dataclasses, for one, look their module up.
    sys.modules[module.__name__] = module
    try:
        code = compile(source.text or "", f"{source.name}.py", "exec", dont_inherit=True)
        exec(code, module.__dict__)
    except (Exception, SystemExit) as error:
        raise _broken(source, error) from error
    return module


def _broken(source: SpaceSource, error: BaseException) -> ConfigError:
    return ConfigError(f"Space {source.name} cannot be run: {one_line(error)}")

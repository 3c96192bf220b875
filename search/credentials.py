"""Credentials: from the environment only, and no further than the process that was given them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

_NAMES = re.compile(
    r"PASS|SECRET|TOKEN|CREDENTIAL|CONNECTION_STRING|(ACCESS|ACCOUNT|API|AUTH|PRIVATE)_?KEY",
    re.IGNORECASE,
)
_ADDRESSES = ("MLFLOW_TRACKING_", "PODIUM_LEDGER")
_RAYS_OWN = "RAY_AUTH_"
"""Every process of a Ray cluster needs its token."""
# An address's user and password end at an @; what follows a colon may also be its port.
_PASSWORD = re.compile(r"(://[^\s/:@]*):(?!\d+/)(?:[^\s/]*|[^\s@]*)@")
# Where it is no server of HTTP, no @ comes after a port.
_OF_DATABASE = re.compile(r"(?<!http)(?<!https)(://[^\s/:@]*):(?:[^\s/]*|[^\s@]*)@")
_PARAMETER = re.compile(
    r"(\b\w*(?:password|passwd|pwd|secret|token)(?:=|%3D))(?:(?!%3B)[^\s&;'\"])+", re.IGNORECASE
)


def masked(text: str) -> str:
    """Text in which the passwords of addresses are replaced by ***."""
    for address in (_PASSWORD, _OF_DATABASE):
        text = address.sub(r"\1:***@", text)
    return _PARAMETER.sub(r"\1***", text)


def holds_password(address: str) -> bool:
    """Whether an address has a password, before its host or among its parameters."""
    return masked(address) != address


def is_secret(name: str, value: str) -> bool:
    """Whether a variable of the environment is nobody's but this process's.

    By its name (`PASSWORD`, `TOKEN`, `SECRET`, ...), or because its value is an address with a
    user. Ray's own token is none: its processes need it.
    """
    if name.startswith(_RAYS_OWN):
        return False
    named = name.startswith(_ADDRESSES) or _NAMES.search(name) is not None
    return named or re.search(r"://\S*@", value) is not None or holds_password(value)


@contextmanager
def hidden() -> Iterator[None]:
    """Takes the secrets out of the environment, so that processes started meanwhile lack them."""
    taken = {name: value for name, value in os.environ.items() if is_secret(name, value)}
    for name in taken:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(taken)

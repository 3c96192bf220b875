"""Credentials: from the environment only, and no further than the process that was given them."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterator
from contextlib import contextmanager

_NAMES = re.compile(
    r"PASS|SECRET|TOKEN|CREDENTIAL|CONNECTION_STRING|(ACCESS|ACCOUNT|API|AUTH|PRIVATE)_?KEY"
    r"|WEBHOOK",
    re.IGNORECASE,
)
# Ray's settings may end so, as RAY_TLS_SERVER_KEY and RAY_enable_cluster_auth do.
_ENDINGS = re.compile(
    r"(?!RAY_).*(DSN|_(AUTH|AUTH_CONFIG|CREDS|JWT|KEY|PAT|PW|PWD|SAS))", re.IGNORECASE
)
_ADDRESSES = ("MLFLOW_TRACKING_", "PODIUM_LEDGER")
_RAYS_OWN = "RAY_AUTH_"
"""Every process of a Ray cluster needs its token."""
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
"""Of a process that downloads: without their user and password there may be no way out."""
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

    By its name (`PASSWORD`, `TOKEN`, `SECRET`, `..._KEY`, ...), or because its value is an address
    with a user. Ray's own token is none: its processes need it.
    """
    if name.startswith(_RAYS_OWN):
        return False
    named = name.startswith(_ADDRESSES) or _NAMES.search(name) or _ENDINGS.fullmatch(name)
    return bool(named) or re.search(r"://\S*@", value) is not None or holds_password(value)


def without_secrets(but: Container[str] = ()) -> dict[str, str]:
    """The environment for a process that needs no credentials.

    Args:
        but: names, in lower case, of variables that it needs whatever they hold.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name.lower() in but or not is_secret(name, value)
    }


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

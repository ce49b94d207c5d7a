"""API keys: compared by their digests, in a time that does not depend on which of them is close."""

import hashlib
import hmac
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from configs.schema.base import ConfigError
from configs.schema.serve import Access

MARK = "sha256:"


def digests(access: Access) -> list[str]:
    """Digests of the keys that are allowed; ConfigError where there are none."""
    found: list[str] = []
    if access.keys_env is not None:
        if not os.environ.get(access.keys_env, "").strip():
            raise ConfigError(f"access.keys_env: the environment variable {access.keys_env} is empty")
        found += os.environ[access.keys_env].replace(",", " ").split()
    if access.keys_file is not None:
        try:
            found += Path(access.keys_file).read_text().split()
        except OSError as error:
            raise ConfigError(f"access.keys_file: {access.keys_file}: {error.strerror}") from None
        if not found:
            raise ConfigError(f"access.keys_file: {access.keys_file}: no key in it")
    return [key.removeprefix(MARK) if key.startswith(MARK) else digest(key) for key in found]


def digest(key: str) -> str:
    """The digest of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def allowed(header: str | None, known: Sequence[str]) -> bool:
    """Whether an `Authorization: Bearer KEY` header names one of the keys."""
    scheme, _, key = (header or "").partition(" ")
    mine = digest(key.strip())
    matches = [hmac.compare_digest(mine, one) for one in known]  # all of them, whatever the first says
    return scheme.lower() == "bearer" and any(matches)


def elsewhere(host: str) -> bool:
    """Whether an address is one of other machines, or one that they reach."""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def loopback(host: str) -> bool:
    """Whether what listens at a host is reached from this machine alone."""
    return host == "localhost" or (host[:1].isdigit() and not elsewhere(host)) or host == "::1"

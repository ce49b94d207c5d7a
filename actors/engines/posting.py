"""JSON posted to a server over connections that are kept, and again where that may help.

    body -> attempt -> reply
               | refused for now, late, broken off: again after a while

An attempt has its time, also where a server answers byte by byte. Proxies and certificates are those of the
environment, as of other programs; cookies are not kept.
"""

import asyncio
import json
import random
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import certifi

CONNECT_S = 10.0
"""Time at most in which a server must take a connection: much less than an answer may need."""
PASSING = {408, 409, 429}
"""Refusals that pass, besides the faults of a server (5xx)."""
FIRST_S, LONGEST_S = 0.5, 8.0
"""Pauses before a further attempt: the first one, twice as long each time, and the longest."""
PATIENCE_S = 120.0
"""What Retry-After may say at most for a further attempt."""
UNREACHABLE = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
DONE = b"[DONE]"


class PostError(Exception):
    """No reply. `kind`: the server refuses (`status`, what it says in `body`, and `after` what Retry-After
    says), cannot be reached, is late, the connection broke, or a stream was cut."""

    def __init__(
        self,
        kind: Literal["refused", "unreachable", "late", "broken", "cut"],
        why: str = "",
        *,
        status: int = 0,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(why)
        self.kind, self.status, self.body, self.headers = kind, status, body, headers or {}

    @property
    def after(self) -> str | None:
        """When the server wants to be asked again, in its words."""
        return self.headers.get("retry-after")

    def pause(self, attempt: int) -> float | None:
        """Seconds to wait after so many attempts; None where another would not help."""
        said = _seconds(self.headers)
        if said is not None and said > PATIENCE_S:
            return None
        if self.kind == "refused":
            again = self.headers.get("x-should-retry")
            if again == "false" or (again != "true" and self.status not in PASSING and self.status < 500):
                return None
        if said is not None and said > 0:
            return said
        return min(FIRST_S * 2.0 ** min(attempt - 1, 9), LONGEST_S) * random.uniform(0.75, 1)


class Poster:
    """The connections of one event loop to a server; to be made on that loop."""

    def __init__(
        self, url: str, *, key: str | None, timeout_s: float, retries: int, connections: int
    ) -> None:
        self._url, self._timeout_s, self._retries = url, timeout_s, retries
        self._proxy = _proxy_of(url)
        connect = min(CONNECT_S, timeout_s / 2)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, ssl=_certificates()),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=timeout_s),
            headers={"Authorization": f"Bearer {key}"} if key else None,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """End the connections."""
        await self._session.close()

    async def post(self, path: str, body: Mapping[str, Any]) -> bytes:
        """The body of the reply. PostError after the last attempt."""
        response = await self._reply(path, body, whole=True)
        return await response.read()  # it is there

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[bytes]:
        """Data of the events of the reply as they come, up to [DONE]. PostError after the last attempt, or
        when the reply breaks off."""
        async with await self._reply(path, body, whole=False) as response:
            try:
                async for data in _events(response.content):
                    yield data
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                raise PostError("cut", str(error) or type(error).__name__) from None

    async def _reply(self, path: str, body: Mapping[str, Any], *, whole: bool) -> aiohttp.ClientResponse:
        """The first good reply: all of it, or its beginning."""
        attempt = 1
        while True:
            try:
                return await self._attempt(path, body, whole=whole)
            except PostError as error:
                pause = error.pause(attempt) if attempt <= self._retries else None
                if pause is None:
                    raise
            await asyncio.sleep(pause)
            attempt += 1

    async def _attempt(self, path: str, body: Mapping[str, Any], *, whole: bool) -> aiohttp.ClientResponse:
        if self._proxy and not self._proxy.startswith(("http://", "https://")):
            raise PostError(
                "unreachable", f"its proxy is {self._proxy.partition(':')[0]}; allowed: http, https"
            )
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._session.post(self._url + path, json=body, proxy=self._proxy)
                try:
                    if whole or response.status >= 400:
                        await response.read()
                except BaseException:
                    response.close()
                    raise
        except UNREACHABLE as error:
            raise PostError("unreachable", str(error) or type(error).__name__) from None
        except TimeoutError:
            raise PostError("late") from None
        except aiohttp.ClientError as error:
            raise PostError("broken", str(error) or type(error).__name__) from None
        if response.status >= 400:
            said, headers = await response.read(), response.headers
            raise PostError("refused", status=response.status, body=said, headers=headers)
        return response


async def _events(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Data of server-sent events, up to [DONE]."""
    data: list[bytes] = []
    async for line in lines:
        bare = line.rstrip(b"\r\n")
        if bare.startswith(b"data:"):
            data.append(bare[5:].removeprefix(b" "))
        elif not bare and data:
            if (whole := b"\n".join(data)) == DONE:
                return
            yield whole
            data = []
    if data and data != [DONE]:
        yield b"\n".join(data)


def complaint(body: bytes) -> str:
    """What the body of a refusal says for people; nothing where it says that for machines."""
    text = body.decode(errors="replace").strip()
    try:
        said = json.loads(text)
    except ValueError:
        return "" if text.startswith("<") else text
    return spoken(said.get("error", said) if isinstance(said, dict) else said)


def spoken(error: Any) -> str:  # noqa: ANN401
    """The message in what a server says of an error."""
    said = (error.get("message") or error.get("detail")) if isinstance(error, dict) else error
    return str(said) if said else ""


def _seconds(headers: Mapping[str, str]) -> float | None:
    """What Retry-After says."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1)):
        try:
            return float(headers[name]) * unit
        except (KeyError, ValueError):
            pass
    try:
        return parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time()
    except (KeyError, ValueError):
        return None


def _proxy_of(url: str) -> str | None:
    """The proxy that the environment names for a server."""
    parts = urlsplit(url)
    if proxy_bypass(parts.netloc):
        return None
    known = getproxies()
    proxy = known.get(parts.scheme) or known.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def _certificates() -> ssl.SSLContext:
    """Those of the system, and those that come with Python's programs where it has none."""
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"]:
        context.load_verify_locations(certifi.where())
    return context

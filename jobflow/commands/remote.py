"""A running Jobflow, spoken to over HTTP, with a sentence for everything that may go wrong on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
import msgspec

from jobflow.commands.common import address, read_settings
from jobflow.errors import JobflowError

if TYPE_CHECKING:
    import httpx

TIMEOUT = 30.0  # seconds

url_option = click.option(
    "--url", help="The server to speak to.  [default: the one that JOBFLOW_HOST and PORT name, on this machine]"
)


class RemoteError(JobflowError):
    """The server is not there, or refuses."""


class Away(RemoteError):
    """It may answer later: nobody is there, it broke off, or its Postgres is away."""


class Remote:
    """``url``: None is the server of our own settings. The token is always that of our settings."""

    def __init__(self, url: str | None) -> None:
        import httpx

        settings = read_settings()
        self.url = (url or address(settings)).rstrip("/")
        if urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).hostname:
            raise RemoteError(f"--url is wrong: {self.url!r} does not begin with http:// or https:// and a name.")
        token = settings.admin_token
        self._client = httpx.Client(
            headers={"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {}),
            timeout=httpx.Timeout(TIMEOUT, connect=5.0),
            # A proxy of the environment is for other machines.
            trust_env=urlsplit(self.url).hostname not in ("localhost", "127.0.0.1", "::1"),
        )

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """The body of a GET. Raises RemoteError."""
        return self._body(self._send("GET", path, params=params))

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[Any, Mapping[str, str]]:
        """Body and headers of the answer to a POST. Raises RemoteError."""
        answer = self._send("POST", path, content=body, headers={"Content-Type": "application/json", **headers})
        return self._body(answer), answer.headers

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        import httpx

        try:
            answer = self._client.request(method, self.url + path, **request)
        except httpx.ConnectError as error:
            raise Away(
                f"No server answers at {self.url} ({error}): start one with `jobflow dev`, or name another with --url."
            ) from error
        except httpx.InvalidURL as error:
            raise RemoteError(f"{self.url} did not answer: {error}.") from error
        except httpx.HTTPError as error:
            raise Away(f"{self.url} did not answer: {error or type(error).__name__}.") from error
        if answer.status_code >= 300:
            raise (Away if answer.status_code == 503 else RemoteError)(self._refusal(answer))
        return answer

    def _body(self, answer: httpx.Response) -> Any:
        try:
            return msgspec.json.decode(answer.content)
        except msgspec.DecodeError:
            raise RemoteError(f"What answers at {self.url} is not Jobflow: it sends no JSON.") from None

    def _refusal(self, answer: httpx.Response) -> str:
        status = answer.status_code
        if status == 401:
            return (
                f"{self.url} wants a token, and not this one: set JOBFLOW_ADMIN_TOKEN to what the server was started with."
                if "Authorization" in answer.request.headers
                else f"{self.url} wants a token: set JOBFLOW_ADMIN_TOKEN to what the server was started with."
            )
        try:
            problem = answer.json()
            faults = [(f.get("pointer", f.get("parameter", "")), f["detail"]) for f in problem.get("errors", [])]
            detail = problem.get("detail") or problem["title"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"What answers at {self.url} is not Jobflow: it sends {status} and no reason."
        if status == 429:
            wait = answer.headers.get("Retry-After", "some")
            return f"The rate limit is reached: try again in {wait} s. RATE_LIMIT_MAX of the server sets it."
        if faults:
            lines = (f"\n  {where or 'the whole'}  {what}" for where, what in faults)
            return f"The server refuses that ({status}):{''.join(lines)}"
        return f"The server answers {status}: {detail}"

"""A Docker Engine's API, over a host's SSH connection or at a URL.

The Docker SDK is the transport (connection pool, streams, build contexts, credentials). Bodies are the
Engine API's own JSON: the SDK's typed helpers lack fields that Swarm has.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from swarmkit.errors import Exit, OperationFailed, Problems, SwarmkitError, Unreachable, UsageError
from swarmkit.remote.shell import RootShell

if TYPE_CHECKING:
    import docker
    import requests

    from swarmkit.remote.streams import Duplex

# The newest version whose bodies we know; the engine's own is used where that is older.
NEWEST_API = "1.51"
# A request waits for the engine, which may itself wait for a registry or for a quorum.
TIMEOUT_SECONDS = 120
# The SDK insists on a port; nothing listens there, and the name is never looked up.
_URL = "http://engine:2375"

Params = Mapping[str, str | int | bool]

_NO_LEADER_HINT = (
    "the managers have lost their majority, and nothing can be changed; what runs goes on running. Bring "
    "managers back; if they are gone for good, on one that is left: docker swarm init --force-new-cluster"
)


# What a manager answers that has no leader to pass a request on to (moby/swarmkit, manager/raftproxy), or is
# not up again yet (moby, daemon/cluster). What registries say is not meant.
_LEADERLESS = re.compile(
    r"does not have a leader|manager is being prepared|^context deadline exceeded"
    r"|code = (Unavailable|DeadlineExceeded|Canceled)",
    re.IGNORECASE,
)


class EngineError(OperationFailed):
    """The engine answered with an error; `status` is its HTTP status."""

    def __init__(self, message: str, status: int, *, where: str = "", hint: str = "") -> None:
        super().__init__(message, where=where, hint=hint)
        self.status = status

    @property
    def is_stale(self) -> bool:
        """Whether an update was based on a version that someone else has changed since."""
        return "out of sequence" in self.message

    @property
    def is_leaderless(self) -> bool:
        """Whether the managers had nobody to decide on the request, as for some seconds after a loss.

        It may have been carried out all the same.
        """
        return self.status >= 500 and _LEADERLESS.search(self.message) is not None


def is_cut_off(error: SwarmkitError) -> bool:
    """Whether no manager answers, or none decides: nothing can be undone or sent now, either."""
    errors = error.errors if isinstance(error, Problems) else [error]
    return any(
        one.exit is Exit.UNREACHABLE or (isinstance(one, EngineError) and one.is_leaderless) for one in errors
    )


# An update names the version that it is based on (Engine API); the swarm itself writes into services
# and nodes as well. For functions that read, change and write: all of it is done again.
while_stale = retry(
    retry=retry_if_exception(lambda error: isinstance(error, EngineError) and error.is_stale),
    stop=stop_after_attempt(8),
    wait=wait_random_exponential(multiplier=0.05, max=1),
    reraise=True,
)


class Engine:
    """Requests to one engine; `name` is what errors call it."""

    def __init__(self, api: docker.APIClient, name: str) -> None:
        self.api = api
        self.name = name

    @classmethod
    def over(cls, connection: RootShell) -> Engine:
        """The engine of the machine of a root shell."""
        import docker
        import requests

        from swarmkit.remote.channels import BROKEN, ChannelAdapter

        adapter = ChannelAdapter(lambda: connection.root_channel("docker system dial-stdio"), TIMEOUT_SECONDS)
        # Not closed: that would close the adapter too, which the SDK's session goes on with.
        session = requests.Session()
        session.mount(_URL, adapter)
        try:
            answer = session.get(f"{_URL}/version", timeout=TIMEOUT_SECONDS)
            answer.raise_for_status()
            version = _version(answer.json())
        except BROKEN as error:
            raise Unreachable(
                "the Docker Engine does not answer",
                where=connection.name,
                hint=f"look at it with: systemctl status docker ({_short(error)})",
            ) from None
        api = docker.APIClient(_URL, version=version, timeout=TIMEOUT_SECONDS)
        api.mount(_URL, adapter)
        return cls(api, connection.name)

    @classmethod
    def at(cls, url: str) -> Engine:
        """The engine at `unix://…` or `tcp://…`; raises Unreachable where none answers.

        TLS is that of the environment, as for docker itself: DOCKER_TLS_VERIFY and DOCKER_CERT_PATH.
        """
        import docker
        import docker.errors
        import docker.utils
        import requests

        try:
            settings = docker.utils.kwargs_from_env(environment={**os.environ, "DOCKER_HOST": url})
            found = docker.APIClient(**settings, version="auto", timeout=TIMEOUT_SECONDS)
        except ValueError as error:
            raise UsageError(f"expected unix://PATH or tcp://HOST:PORT: {error}", where=url) from None
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            raise Unreachable(f"no Docker Engine answers: {_short(error)}", where=url) from None
        return cls(found, url)

    def close(self) -> None:
        """Give back the sessions."""
        self.api.close()

    def get(
        self, path: str, params: Params | None = None, *, headers: Mapping[str, str] | None = None
    ) -> Any:
        """GET; the decoded JSON answer."""
        return self._request("GET", path, params, headers=headers).json()

    def post(
        self,
        path: str,
        body: object = None,
        params: Params | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """POST a JSON body; the decoded answer, None where it is empty."""
        answer = self._request("POST", path, params, body, headers=headers)
        return answer.json() if answer.content.strip() else None

    def delete(self, path: str, params: Params | None = None) -> None:
        """DELETE."""
        self._request("DELETE", path, params)

    def frames(
        self, path: str, params: Params | None = None, *, multiplexed: bool = True
    ) -> Iterator[tuple[int, bytes]]:
        """The payloads of a stream, such as logs, each with its kind (`streams.STDOUT` …).

        What has a terminal is not multiplexed: its payloads are cut anywhere. The SDK can read such
        streams from sockets only. Raises Unreachable where it breaks off or is silent for TIMEOUT_SECONDS.
        """
        from swarmkit.remote.channels import BROKEN
        from swarmkit.remote.streams import STDOUT, Demultiplexer

        answer = self._request("GET", path, params, stream=True)
        frames = Demultiplexer()
        with answer:
            try:
                for data in answer.iter_content(None):
                    if multiplexed:
                        yield from frames.feed(data)
                    else:
                        yield STDOUT, data
            except BROKEN as error:
                raise Unreachable(f"the Docker Engine broke off: {_short(error)}", where=self.name) from None

    def upgrade(self, path: str, body: object) -> Duplex:
        """POST a JSON body; the connection then is a stream both ways, to be closed by the caller."""
        from swarmkit.remote.channels import BROKEN
        from swarmkit.remote.streams import Duplex, Refused

        try:
            return Duplex.post(self.api, self._url_of(path), body)
        except Refused as error:
            raise EngineError(str(error), error.status, where=self.name) from None
        except BROKEN as error:
            raise Unreachable(
                f"the Docker Engine does not answer: {_short(error)}", where=self.name
            ) from None

    @property
    def can_end_input(self) -> bool:
        """Whether the input of such a stream can end before its output; Python's TLS ends both at once."""
        return not str(self.api.base_url).startswith("https://")

    @property
    def api_version(self) -> str:
        """The version of the Engine API that is spoken, such as `1.45`."""
        return str(self.api.api_version)

    def _url_of(self, path: str) -> str:
        return f"{self.api.base_url}/v{self.api_version}{quote(path, safe='/:@')}"

    def _request(
        self,
        method: str,
        path: str,
        params: Params | None,
        body: object = None,
        stream: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response:
        from swarmkit.remote.channels import BROKEN

        try:
            answer = self.api.request(
                method,
                self._url_of(path),
                params=params,
                json=body,
                timeout=TIMEOUT_SECONDS,
                stream=stream,
                headers=headers,
            )
        except BROKEN as error:
            raise Unreachable(
                f"the Docker Engine does not answer: {_short(error)}", where=self.name
            ) from None
        if answer.status_code >= 400:
            said = _said(answer)
            hint = _NO_LEADER_HINT if "does not have a leader" in said else ""
            raise EngineError(said, answer.status_code, where=self.name, hint=hint)
        return answer

    def stream(self, call: Callable[[docker.APIClient], Iterator[Any]]) -> Iterator[Any]:
        """Items of a streaming call of the SDK, such as a build's output, with our errors."""
        import docker.errors

        from swarmkit.remote.channels import BROKEN

        try:
            yield from call(self.api)
        except docker.errors.APIError as error:
            status = error.status_code or 500
            raise EngineError(str(error.explanation or error), status, where=self.name) from None
        except (docker.errors.DockerException, *BROKEN) as error:
            raise Unreachable(f"the Docker Engine broke off: {_short(error)}", where=self.name) from None


def _version(answer: Mapping[str, Any]) -> str:
    newest = str(answer["ApiVersion"])
    return min(newest, NEWEST_API, key=lambda version: tuple(int(part) for part in version.split(".")))


def _said(answer: requests.Response) -> str:
    try:
        return str(answer.json()["message"]).removeprefix("rpc error: ")
    except (ValueError, KeyError, TypeError):
        return answer.text.strip() or f"HTTP status {answer.status_code}"


def _short(error: BaseException) -> str:
    """The innermost reason: HTTP libraries wrap it in their own words."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror.lower()
        inner = [each for each in seen.args if isinstance(each, BaseException)]
        seen = inner[0] if inner else getattr(seen, "reason", None) or seen.__cause__ or seen.__context__
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__

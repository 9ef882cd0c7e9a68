"""HTTP over SSH channels, under the Docker SDK.

Apart from `engine`, so that requests and urllib3 need not be loaded before an engine is spoken to.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, cast

import paramiko
import requests
import requests.adapters
import urllib3
import urllib3.connection
import urllib3.exceptions

from swarmkit.remote.shell import Channel

# sshd allows 10 sessions a connection (MaxSessions); scripts need some too.
CHANNELS = 4

# How a connection can end that is a socket, or an SSH channel in its place.
BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError, paramiko.SSHException, OSError, EOFError)


class ChannelConnection(urllib3.connection.HTTPConnection):
    """An HTTP connection whose socket is an SSH channel."""

    def __init__(self, open_channel: Callable[[], Channel], seconds: float) -> None:
        super().__init__("engine", timeout=seconds)
        self._open_channel = open_channel
        self._seconds = seconds

    def connect(self) -> None:
        channel = self._open_channel()
        channel.settimeout(self._seconds)
        # A Channel has all of a socket that an HTTP client uses.
        self.sock = cast("socket.socket", channel)

    @property
    def is_connected(self) -> bool:
        channel: Any = self.sock
        return channel is not None and not channel.closed and not channel.eof_received


class ChannelPool(urllib3.HTTPConnectionPool):
    def __init__(self, open_channel: Callable[[], Channel], seconds: float) -> None:
        # More requests at once than channels wait for one instead of opening more sessions.
        super().__init__("engine", maxsize=CHANNELS, block=True)
        self._open_channel = open_channel
        self._seconds = seconds

    def _new_conn(self) -> urllib3.connection.HTTPConnection:
        return ChannelConnection(self._open_channel, self._seconds)


class ChannelAdapter(requests.adapters.HTTPAdapter):
    """Sends every request through a few pooled SSH channels, each silent for `seconds` at most."""

    def __init__(self, open_channel: Callable[[], Channel], seconds: float) -> None:
        self._pool = ChannelPool(open_channel, seconds)
        super().__init__()

    def get_connection_with_tls_context(self, *_args: Any, **_kwargs: Any) -> urllib3.HTTPConnectionPool:
        return self._pool

    def request_url(self, request: requests.PreparedRequest, _proxies: Any) -> str:
        # A proxy of the user's environment has no part in this.
        return request.path_url

    def close(self) -> None:
        self._pool.close()
        super().close()

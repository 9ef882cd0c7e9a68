"""The configuration of nginx: from services, tasks and nodes to the texts that proxies get. Pure.

Facts of nginx that the text rests on are in its documentation (nginx.org/en/docs) and are tried by
tests/integration/test_nginx.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd

from swarmkit.balancer.bundle import Bundle
from swarmkit.balancer.routes import BALANCER_PORT, TLS_PORT, Route, find_secret, routes
from swarmkit.balancer.secretfiles import wrong_with_certificate, wrong_with_passwords
from swarmkit.balancer.upstreams import Endpoint, Upstream, upstreams
from swarmkit.errors import OperationFailed, UsageError
from swarmkit.names import BALANCER_LABEL
from swarmkit.swarm import Node, Service, Task

# The secret with the certificate and key that serve where no other was given.
DEFAULT_CERTIFICATE = "swarmkit-lb-default.pem"

# Where a proxy keeps what it writes, and the configuration itself.
RUN = "/run/swarmkit"

# How long a WebSocket, or a connection of plain TCP, may be silent, in seconds.
_IDLE = 3600

_NO_TASKS = Upstream((), "no task runs")

_MAIN = f"""\
pid {RUN}/nginx.pid;
error_log /dev/stderr warn;
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
worker_rlimit_nofile 20000;
# Open WebSockets and downloads keep an old worker for so long after a change.
worker_shutdown_timeout 30m;

events {{
    worker_connections 8192;
}}
"""

_HTTP = f"""\
    client_body_temp_path {RUN}/client_body;
    proxy_temp_path {RUN}/proxy;
    fastcgi_temp_path {RUN}/fastcgi;
    uwsgi_temp_path {RUN}/uwsgi;
    scgi_temp_path {RUN}/scgi;

    log_format swarmkit '[$time_local] "$request" $status $body_bytes_sent ${{request_time}}s '
                        'from $remote_addr to $upstream_addr';
    log_format swarmkit_json escape=json
        '{{"time":"$time_iso8601","route":"$swarmkit_route","client":"$remote_addr","method":"$request_method",'
        '"host":"$host","uri":"$request_uri","protocol":"$server_protocol","status":"$status",'
        '"bytes":"$body_bytes_sent","seconds":"$request_time","upstream":"$upstream_addr",'
        '"upstream_status":"$upstream_status","upstream_seconds":"$upstream_response_time",'
        '"user":"$remote_user","referer":"$http_referer","agent":"$http_user_agent"}}';
    log_format swarmkit_metrics '$swarmkit_route\\t$upstream_addr\\t$status\\t$upstream_status\\t'
                                '$request_time\\t$upstream_response_time\\t$bytes_sent';
    # A write of at most 4096 bytes is whole: lines of several workers do not mix (pipe(7), PIPE_BUF).
    access_log /dev/stdout swarmkit buffer=4k flush=1s;
    access_log {RUN}/log/metrics.log swarmkit_metrics buffer=64k flush=1s;

    server_tokens off;
    default_type text/plain;
    absolute_redirect off;
    server_names_hash_max_size 8192;
    server_names_hash_bucket_size 512;
    variables_hash_max_size 4096;
    map_hash_bucket_size 512;
    large_client_header_buffers 4 16k;

    # At a reload a connection stays open until so long after its last request, for the next one that may be
    # on its way; one that has been idle for longer is closed at once, and a request that crosses that is
    # reset. It is shorter than the time between a change and a task's stop signal.
    keepalive_min_timeout 2s;
    keepalive_timeout 65s;
    keepalive_requests 10000;
    reset_timedout_connection on;
    client_header_timeout 30s;
    client_max_body_size 0;

    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:swarmkit/tls:4m;
    ssl_session_tickets off;

    limit_req_status 429;
    limit_conn_status 429;

    proxy_http_version 1.1;
    proxy_connect_timeout 2s;
    proxy_socket_keepalive on;
    # POST, PATCH and LOCK are tried again only where no byte of them was sent. A machine that lost its
    # power is noticed within 15 s, so that another task can answer before a client's 30 s are over.
    proxy_next_upstream error timeout;
    proxy_next_upstream_tries 4;
    proxy_next_upstream_timeout 20s;
    # Uploads and downloads pass through, and are not kept here, where there is only memory to keep them in.
    proxy_request_buffering off;
    proxy_max_temp_file_size 0;
    proxy_buffer_size 16k;
    proxy_buffers 8 16k;

    proxy_set_header Host $swarmkit_host;
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Host $swarmkit_host;
    proxy_set_header X-Forwarded-Port $server_port;
    proxy_set_header X-Forwarded-Prefix $swarmkit_prefix;
    proxy_set_header Authorization $swarmkit_authorization;
    proxy_set_header Upgrade $swarmkit_upgrade;
    proxy_set_header Connection $swarmkit_connection;
    # What is between the client and this proxy alone (RFC 9110, 7.6.1), and what CGI takes for a setting.
    proxy_set_header Keep-Alive "";
    proxy_set_header Proxy-Connection "";
    proxy_set_header Proxy-Authorization "";
    proxy_set_header TE "";
    proxy_set_header Trailer "";
    proxy_set_header Proxy "";

    # The host by which the route was found: a request line's comes before the header's (RFC 9112, 3.2.2). Who
    # says none, as HTTP/1.0 may, asks for the address; a server of HTTP/1.1 has to be told one.
    map $host $swarmkit_host {{
        default $host$is_request_port$request_port;
        '' $server_addr:$server_port;
    }}

    # No other upgrade than to WebSocket: h2c would get round all that is decided here.
    map $http_upgrade $swarmkit_upgrade {{
        default '';
        ~*^websocket$ websocket;
    }}
    map $swarmkit_upgrade $swarmkit_connection {{
        default upgrade;
        '' '';
    }}

    # What the service sends itself stands.
    map $upstream_http_x_content_type_options $swarmkit_nosniff {{ default ''; '' nosniff; }}
    map $upstream_http_x_frame_options $swarmkit_frame {{ default ''; '' SAMEORIGIN; }}
    map $upstream_http_referrer_policy $swarmkit_referrer {{
        default '';
        '' strict-origin-when-cross-origin;
    }}
    add_header X-Content-Type-Options $swarmkit_nosniff always;
    add_header X-Frame-Options $swarmkit_frame always;
    add_header Referrer-Policy $swarmkit_referrer always;

    server {{
        listen unix:{RUN}/stub.sock;
        access_log off;
        location / {{
            stub_status;
        }}
    }}
"""

_STREAM = f"""\
    log_format swarmkit '[$time_local] "TCP $server_port" $status $bytes_sent ${{session_time}}s '
                        'from $remote_addr to $upstream_addr';
    log_format swarmkit_json escape=json
        '{{"time":"$time_iso8601","route":"$swarmkit_route","client":"$remote_addr","port":"$server_port",'
        '"status":"$status","bytes":"$bytes_sent","bytes_received":"$bytes_received",'
        '"seconds":"$session_time","upstream":"$upstream_addr"}}';
    log_format swarmkit_metrics '$swarmkit_route\\t$upstream_addr\\t$status\\t-\\t$session_time\\t'
                                '$upstream_connect_time\\t$bytes_sent';
    access_log /dev/stdout swarmkit buffer=4k flush=1s;
    access_log {RUN}/log/metrics.log swarmkit_metrics buffer=64k flush=1s;
    proxy_connect_timeout 2s;
    proxy_socket_keepalive on;
    # Each side may say that it has no more to send, and still listen.
    proxy_half_close on;
    proxy_next_upstream on;
    proxy_next_upstream_tries 4;
    proxy_next_upstream_timeout 20s;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_tickets off;
"""

# Docker's DNS, where the fallback finds the tasks.
_RESOLVER = ["resolver 127.0.0.11 valid=1s ipv6=off;", "resolver_timeout 2s;"]


@dataclass(frozen=True)
class RouteState:
    """A route and where its requests go; `unreachable` says why they cannot, and is empty where they can."""

    route: Route
    endpoints: Sequence[Endpoint]
    unreachable: str


@dataclass(frozen=True)
class Configuration:
    """The routes that there are, the mistakes in what services ask for, and what the proxies get."""

    routes: Sequence[RouteState]
    errors: Sequence[UsageError]
    bundle: Bundle


@dataclass(frozen=True)
class _Peer:
    """One `server` of an upstream."""

    address: str
    weight: int
    who: str


@dataclass(frozen=True)
class _Served:
    """A route with what nginx needs to serve it: the files of its secrets, and the upstream's servers.

    `fallback` are its servers as DNS tells them. One that is `refused` is answered with 503, whatever runs.
    """

    route: Route
    peers: Sequence[_Peer]
    fallback: Sequence[_Peer]
    auth: str
    certificate: str
    unreachable: str
    refused: bool


def configure(
    services: Sequence[Service],
    tasks: Sequence[Task],
    nodes: Sequence[Node],
    edge_id: str,
    secrets: Mapping[str, str],
) -> Configuration:
    """The configuration that gives services the routes they ask for, the same for the same swarm.

    `edge_id` is the id of the edge network; `secrets` has the contents of secrets by their names in the
    swarm, oldest first, the default certificate (`DEFAULT_CERTIFICATE`) among them: without it there is no
    TLS. Mistakes in what services ask for are in the result's `errors`, and spare the other routes.

    Raises OperationFailed for a swarm that cannot be, such as one without nodes: a reading that went wrong
    must not become a configuration without routes.
    """
    wanted = routes(services)
    _check(wanted.routes, nodes, edge_id)
    routed = {route.service for route in wanted.routes}
    routed |= {route.canary.service for route in wanted.routes if route.canary}
    found = upstreams([one for one in services if one.name in routed], tasks, nodes, edge_id)
    errors = list(wanted.errors)
    files: dict[str, str] = {}
    default = _default_certificate(secrets, files, errors)
    served = [_served(route, found, secrets, default, files, errors) for route in wanted.routes]
    workers = _workers(nodes)
    return Configuration(
        routes=[_state(one, found) for one in served],
        errors=errors,
        bundle=Bundle(
            nginx=_text(served, workers, default, fallback=False),
            fallback=_text(served, workers, default, fallback=True),
            files=files,
            upstreams={one.route.name: {peer.address: peer.who for peer in one.peers} for one in served},
        ),
    )


def _check(wanted: Sequence[Route], nodes: Sequence[Node], edge_id: str) -> None:
    if not nodes:
        raise OperationFailed("the swarm told of no node, not even the one that was asked")
    if wanted and not edge_id:
        raise OperationFailed("there are routes, and no network swarmkit-edge", hint="swarmkit init makes it")


def _workers(nodes: Sequence[Node]) -> int:
    """Two, or as many as the smallest entry node has cores, up to four: all get the same text.

    Each reload leaves as many old ones as there are open connections on, and a proxy keeps no more than 48 of
    those: with four workers, those of the last twelve changes at least.
    """
    cores = [
        int(((node.raw["Description"].get("Resources") or {}).get("NanoCPUs") or 0) // 10**9)
        for node in nodes
        if node.labels.get(BALANCER_LABEL) == "true"
    ]
    return min(4, max(2, min(cores, default=2)))


def _default_certificate(secrets: Mapping[str, str], files: dict[str, str], errors: list[UsageError]) -> str:
    """The file with the default certificate; empty where there is none that nginx can use."""
    name = find_secret(DEFAULT_CERTIFICATE, "", secrets)
    wrong = "is not there" if name is None else wrong_with_certificate(secrets[name])
    if name is None or wrong:
        errors.append(UsageError(f"the secret {wrong}: there is no TLS", where=DEFAULT_CERTIFICATE))
        return ""
    files[path := f"certs/{name}"] = secrets[name]
    return path


def _served(
    route: Route,
    found: Mapping[str, Upstream],
    secrets: Mapping[str, str],
    default: str,
    files: dict[str, str],
    errors: list[UsageError],
) -> _Served:
    def file(label: str, name: str, folder: str, wrong_with: Callable[[str], str]) -> str:
        """The file with a secret; empty, and an error, where it cannot be used."""
        if not name:
            return ""
        full = find_secret(name, route.stack, secrets)
        wrong = "is not there" if full is None else wrong_with(secrets[full])
        if full is None or wrong:
            label = f"swarmkit.lb.{f'{route.label}.' if route.label else ''}{label}"
            # The name may be a secret that was put into the wrong place; one that is there is none.
            which = "the secret that it names" if full is None else f"the secret {full}"
            errors.append(UsageError(f"label {label}: {which} {wrong}", where=route.service))
            return ""
        files[path := f"{folder}/{full}"] = secrets[full]
        return path

    auth = file("auth", route.auth, "auth", wrong_with_passwords)
    certificate = file("certificate", route.certificate, "certs", wrong_with_certificate)
    upstream = found.get(route.service, _NO_TASKS)
    canary = found.get(route.canary.service, _NO_TASKS) if route.canary else _NO_TASKS
    stable_share, canary_share = _shares(route, upstream, canary)
    groups = [(route.service, route.port, upstream, stable_share)]
    if route.canary:
        groups.append((route.canary.service, route.canary.port, canary, canary_share))
    peers = [
        _Peer(_joined(one.address, port), weight, f"{one.slot} on {one.node}")
        for _, port, some, weight in groups
        if weight
        for one in some.endpoints
    ]
    by_name = [
        _Peer(f"tasks.{service}:{port}", weight, service) for service, port, _, weight in groups if weight
    ]
    unreachable = "" if peers else upstream.unreachable
    if route.auth and not auth:
        unreachable = "its file of passwords cannot be used"
    elif route.listen and route.has_tls and not (certificate or default):
        unreachable = "there is no certificate for its port"
    refused = bool(unreachable) and unreachable != upstream.unreachable
    return _Served(route, peers, by_name, auth, certificate, unreachable, refused)


def _shares(route: Route, stable: Upstream, canary: Upstream) -> tuple[int, int]:
    """The weight of each of the service's endpoints and of each of its canary's.

    They are such that the canary as a whole gets its percentage. Where one of the two has no endpoint, the
    other gets everything.
    """
    if route.canary is None or not canary.endpoints:
        return 1, 0
    if not stable.endpoints:
        return 0, 1
    percent = route.canary.weight
    one, other = (100 - percent) * len(canary.endpoints), percent * len(stable.endpoints)
    common = gcd(one, other)
    return one // common, other // common


def _joined(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _state(served: _Served, found: Mapping[str, Upstream]) -> RouteState:
    route = served.route
    endpoints = list(found.get(route.service, _NO_TASKS).endpoints)
    if route.canary:
        endpoints += found.get(route.canary.service, _NO_TASKS).endpoints
    return RouteState(route, [] if served.unreachable else endpoints, served.unreachable)


# ---- the text --------------------------------------------------------------------------------------------


def _text(served: Sequence[_Served], workers: int, default: str, *, fallback: bool) -> str:
    http = [one for one in served if not one.route.is_tcp]
    streams = [one for one in served if one.route.is_tcp and _is_served(one, fallback)]
    resolver = _RESOLVER if fallback else []
    lines = [f"worker_processes {workers};", *_MAIN.splitlines(), "", "http {", *_HTTP.splitlines()]
    lines += _indented(
        [*resolver, *_zones(http), *_upstreams(http, fallback), *_servers(http, default, fallback)]
    )
    lines += ["}", ""]
    if streams:
        lines += ["stream {", *_STREAM.splitlines()]
        lines += _indented([*resolver, *_zones(streams), *_upstreams(streams, fallback)])
        for one in streams:
            lines += _indented(_stream_server(one, default))
        lines += ["}", ""]
    return "\n".join(lines)


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" if line else "" for line in lines]


def _block(head: str, lines: Iterable[str]) -> list[str]:
    return [f"{head} {{", *_indented(lines), "}"]


def _is_served(one: _Served, fallback: bool) -> bool:
    """Whether requests of the route go to an upstream; DNS may know of tasks when the fallback is used."""
    return not one.refused and (fallback or bool(one.peers))


def _zones(served: Sequence[_Served]) -> list[str]:
    """Where nginx counts the requests and connections of each client."""
    lines = []
    for one in served:
        route = one.route
        if route.rate:
            lines.append(f"limit_req_zone $binary_remote_addr zone=rate/{route.name}:1m rate={route.rate};")
        if route.connections:
            lines.append(f"limit_conn_zone $binary_remote_addr zone=connections/{route.name}:1m;")
    return lines


def _upstreams(served: Sequence[_Served], fallback: bool) -> list[str]:
    lines: list[str] = []
    for one in served:
        if _is_served(one, fallback):
            lines += _block(f"upstream {one.route.name}", _upstream(one, fallback))
    return lines


def _upstream(one: _Served, fallback: bool) -> list[str]:
    """The servers of a route, and how one is chosen.

    Two failed tries within ten seconds, and a server is left alone for ten more: not one request after
    another tries a machine that has no power. So that it cannot happen that all are left alone, which would
    be an error without a try, each is there a second time, as a backup that is always tried. Hashes have
    no backups; there no server is ever left alone. The workers share what they know, in the zone.
    """
    route = one.route
    peers = one.fallback if fallback else one.peers
    hashed = route.sticky == "ip"
    # A server takes less than a kilobyte, twice; DNS may tell of any number. No service's name has a slash,
    # which keeps other zones' names apart from these.
    size = 512 if fallback else 128 + 64 * (len(peers) // 32)
    lines = [f"zone {route.name} {size}k;"]
    if hashed:
        lines.append(f"hash {'$remote_addr' if route.is_tcp else '$binary_remote_addr'} consistent;")
    elif route.balance == "least_conn":
        lines.append("least_conn;")
    for peer in peers:
        server = f"server {peer.address} weight={peer.weight}"
        if fallback:
            lines.append(f"{server} resolve max_fails=0;")
        elif hashed:
            lines.append(f"{server} max_fails=0;")
        else:
            lines.append(f"{server} max_fails=2 fail_timeout=10s;")
    if not (fallback or hashed):
        lines += [f"server {peer.address} weight={peer.weight} max_fails=0 backup;" for peer in peers]
    if route.sticky == "cookie":
        lines.append(f"sticky cookie swarmkit_{re.sub('[^A-Za-z0-9]', '_', route.name)} path=/ httponly;")
    if not route.is_tcp:
        # Less than the 2 s (gunicorn) or 5 s after which common servers close an idle connection: a POST that
        # meets that could not be tried again.
        lines += ["keepalive 64;", "keepalive_timeout 1s;", "keepalive_requests 10000;"]
    return lines


# What becomes of a route's requests at an entry port, as directives; None where the port does not have it.
_Handle = Callable[[_Served], "list[str] | None"]


def _servers(served: Sequence[_Served], default: str, fallback: bool) -> list[str]:
    """The servers of all entry ports."""

    def handled(one: _Served) -> list[str]:
        return _handling(one, fallback)

    def plain(one: _Served) -> list[str]:
        if one.route.tls == "redirect":
            return [f"return 308 https://$host:{TLS_PORT}$request_uri;"]
        return handled(one)

    def encrypted(one: _Served) -> list[str] | None:
        return None if one.route.tls == "off" else handled(one)

    own: dict[int, list[_Served]] = {0: []}
    for one in served:
        own.setdefault(one.route.listen, []).append(one)
    lines = _entry(f"{BALANCER_PORT}", own[0], "", plain)
    if default:
        lines += _entry(f"{TLS_PORT} ssl", own[0], default, encrypted)
    for port, some in sorted((port, some) for port, some in own.items() if port):
        if not some[0].route.has_tls:
            lines += _entry(f"{port}", some, "", handled)
        elif certificate := default or next((one.certificate for one in some if one.certificate), ""):
            lines += _entry(f"{port} ssl", some, certificate, handled)
    return lines


def _entry(listen: str, served: Sequence[_Served], default: str, handle: _Handle) -> list[str]:
    """The servers of one entry port: one for all hosts that share their routes, and one for the rest.

    A host that some route names has the routes that name it, and no others: what somebody else asks for at
    any host cannot take a path away from it. With a `default` certificate the port has TLS.
    """
    by_host: dict[str, list[_Served]] = {"": []}
    for one in sorted(served, key=lambda one: one.route.path):
        for host in one.route.hosts or ("",):
            by_host.setdefault(host, []).append(one)
    alike: dict[tuple[object, ...], tuple[list[str], str, list[_Served]]] = {}
    for host, some in sorted(by_host.items()):
        own = (one.certificate for one in some if one.certificate)
        certificate = next(own, default) if default else ""
        key = (bool(host), certificate, *(one.route.name for one in some))
        alike.setdefault(key, ([], certificate, some))[0].append(host)
    lines: list[str] = []
    for hosts, certificate, some in alike.values():
        names = [f"server_name {' '.join(hosts)};"] if hosts[0] else []
        head = [f"listen {listen}{'' if names else ' default_server'};", *names]
        lines += _block("server", [*head, *_server(certificate, some, handle)])
    return lines


def _server(certificate: str, some: Sequence[_Served], handle: _Handle) -> list[str]:
    lines: list[str] = []
    if certificate:
        lines += ["http2 on;", f"ssl_certificate {certificate};", f"ssl_certificate_key {certificate};"]
        if any(one.route.listen and one.route.tls == "redirect" for one in some):
            # Somebody spoke to it without TLS.
            lines.append("error_page 497 =308 https://$swarmkit_host$request_uri;")
    lines += [
        "set $swarmkit_route -;",
        'set $swarmkit_prefix "";',
        "set $swarmkit_authorization $http_authorization;",
    ]
    has_root = False
    for one in some:
        handling = handle(one)
        if handling is not None:
            lines += _locations(one.route, handling)
            has_root |= one.route.path == "/"
    if not has_root:
        lines += _block("location /", ['return 404 "no route here\\n";'])
    return lines


def _locations(route: Route, handling: list[str]) -> list[str]:
    """The locations of a route: its path, what is under it, and the same for WebSockets."""
    name = [f"set $swarmkit_route {route.name};"]
    final = handling[0].startswith("return")
    # An upgraded connection may be idle for longer than an answer may take, and nginx has no variable there.
    branch = [] if final else [f"error_page 418 = @{route.name};", "if ($swarmkit_upgrade) { return 418; }"]
    if route.path == "/":
        lines = _block("location /", [*name, *branch, *handling])
    else:
        exact = (
            [f"return 308 {route.path}/$is_args$args;"] if route.strip and not final else [*branch, *handling]
        )
        lines = _block(f"location = {route.path}", [*name, *exact])
        lines += _block(f"location {route.path}/", [*name, *branch, *handling])
    if not final:
        idle = [f"proxy_read_timeout {max(_IDLE, route.timeout)}s;", f"proxy_send_timeout {_IDLE}s;"]
        upgraded = [line for line in handling if not line.startswith(("proxy_read_", "proxy_send_"))]
        lines += _block(f"location @{route.name}", [*upgraded, *idle])
    return lines


def _handling(one: _Served, fallback: bool) -> list[str]:
    """What is done with a route's requests, as directives of a location."""
    route = one.route
    if not _is_served(one, fallback):
        return [f'return 503 "{route.name} cannot be reached: {_plain_text(one.unreachable)}\\n";']
    lines: list[str] = []
    if one.auth:
        lines += [f'auth_basic "service {route.name}";', f"auth_basic_user_file {one.auth};"]
        # The password was for the balancer, and goes no further.
        lines.append('set $swarmkit_authorization "";')
    if route.rate:
        burst = int(route.rate.split("r/")[0]) if route.burst < 0 else route.burst
        lines.append(f"limit_req zone=rate/{route.name}{f' burst={burst} nodelay' if burst else ''};")
    if route.connections:
        lines.append(f"limit_conn connections/{route.name} {route.connections};")
    if route.body != "0":
        lines.append(f"client_max_body_size {route.body};")
    if route.timeout:
        lines += [f"proxy_read_timeout {route.timeout}s;", f"proxy_send_timeout {route.timeout}s;"]
    if not route.buffering:
        lines.append("proxy_buffering off;")
    if not route.headers:
        lines.append("add_header_inherit off;")
    if route.log:
        lines += _json_log()
    if not route.strip:
        return [*lines, f"proxy_pass http://{route.name};"]
    # What the client sent, as it sent it: nginx's own ways decode it, or encode it once more.
    rest = f"^{re.escape(route.path)}(?<swarmkit_rest>/.*)$"
    return [
        *lines,
        f"set $swarmkit_prefix {route.path};",
        f'if ($request_uri !~ "{rest}") {{ return 404 "no route here\\n"; }}',
        f"proxy_pass http://{route.name}$swarmkit_rest;",
    ]


def _plain_text(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9 .,:()_-]", "", text)


def _json_log() -> list[str]:
    return [
        "access_log /dev/stdout swarmkit_json buffer=4k flush=1s;",
        f"access_log {RUN}/log/metrics.log swarmkit_metrics buffer=64k flush=1s;",
    ]


def _stream_server(one: _Served, default: str) -> list[str]:
    route = one.route
    certificate = (one.certificate or default) if route.has_tls else ""
    lines = [f"listen {route.listen}{' ssl' if certificate else ''};", f"set $swarmkit_route {route.name};"]
    if certificate:
        lines += [f"ssl_certificate {certificate};", f"ssl_certificate_key {certificate};"]
    if route.connections:
        lines.append(f"limit_conn connections/{route.name} {route.connections};")
    lines.append(f"proxy_timeout {route.timeout or _IDLE}s;")
    if route.log:
        lines += _json_log()
    return _block("server", [*lines, f"proxy_pass {route.name};"])

"""Twenty stacks that differ from one another in whatever a deployment may have to change.

Each is a Compose file and the contents of secrets that every service of it mounts. `x` and `y` stand for
images that sleep.
"""

from __future__ import annotations

_TAIL = """
networks: {n: {attachable: true}, m: {internal: true}}
volumes: {v: }
configs: {c: {content: one}, d: {content: one}}
"""
_OTHER = """
networks: {n: {driver_opts: {com.docker.network.driver.mtu: "1400"}}, m: }
volumes: {v: {labels: {a: b}}}
configs: {c: {content: two}, d: {content: one, labels: {a: b}}}
"""
FILES: list[tuple[str, dict[str, bytes]]] = [
    ("services: {web: {image: x}}", {}),
    ("services: {web: {image: y:2}}", {}),
    ("services: {db: {image: x}}", {}),
    ("services: {web: {image: x, deploy: {replicas: 3}}, db: {image: x}}", {}),
    ("services: {web: {image: x, deploy: {mode: global}}, db: {image: y}}", {}),
    ("services: {web: {image: x, ports: ['80:80']}, db: {image: x, ports: ['81:80/udp']}}", {}),
    ("services: {web: {image: x, ports: ['81:80/udp']}, api: {image: x, ports: ['80:80', '80']}}", {}),
    ("services: {web: {image: x, environment: {A: a, B: ''}, command: sleep '1000'}}", {}),
    (
        "services: {web: {image: x, environment: {A: b}, entrypoint: [sleep, '1001'], labels: {a: b},"
        " ports: [{target: 80, published: 80, mode: host}]}}",
        {},
    ),
    ("services: {web: {image: x, configs: [c]}}" + _TAIL, {}),
    ("services: {web: {image: x, configs: [c, d]}, db: {image: x, configs: [d]}}" + _OTHER, {}),
    ("services: {web: {image: x, networks: [n]}, db: {image: x, networks: [n, m]}}" + _TAIL, {}),
    ("services: {web: {image: x, networks: [n, m]}, db: {image: x, networks: [default]}}" + _OTHER, {}),
    ("services: {web: {image: x, volumes: ['v:/a', '/srv:/c:ro']}}" + _TAIL, {}),
    ("services: {web: {image: x, volumes: ['v:/a', /d], cap_add: [KILL]}}" + _OTHER, {}),
    ("services: {web: {image: x}}", {"key": b"one"}),
    ("services: {web: {image: x}, db: {image: y}}", {"key": b"two", "more": b"one"}),
    (
        "services: {web: {image: x, healthcheck: {test: [CMD, 'true'], interval: 1s},"
        " deploy: {labels: {a: b}}}}",
        {"more": b"two"},
    ),
    (
        "services: {web: {image: x, deploy: {update_config: {parallelism: 2}, endpoint_mode: dnsrr}}}",
        {},
    ),
    (
        "services: {web: {image: x, configs: [c], networks: [m], deploy: {labels: {swarmkit.lb.port: '1'}}},"
        " api: {image: x, read_only: true, stop_grace_period: 1s,"
        " deploy: {resources: {limits: {cpus: 1}}}}}" + _OTHER,
        {"key": b"one"},
    ),
]

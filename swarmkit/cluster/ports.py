"""The fixed ports of Swarm, and those that an engine may keep of a swarm that it has left.

It lets go of the overlay networks, and so of the port of their traffic, a moment after it has said that it
has left: a second, or several on machines under load.

The gossip port it may keep. Where the other nodes do not hear of the leaving within a second, the engine
gives up before it closes that port (moby, NetworkDB.Close: "timeout waiting for leave broadcast"), and has
it until it is restarted. In a swarm that it then joins its overlay networks reach nobody.
"""

from __future__ import annotations

from swarmkit.cluster.settings import engine_script

# TCP to managers, and TCP and UDP between all nodes (docs.docker.com, "Open protocols and ports between
# the hosts"); the third one, of overlay traffic, may be chosen.
MANAGER_PORT = 2377
GOSSIP_PORT = 7946

# In /proc/net: a socket that listens on a port.
_TCP = ":%04X 0+:0000 0A"
_UDP = ":%04X 0+:0000 07"


def release(data_path_port: int) -> str:
    """Shell (run as root, after leaving) that ends once both ports are free.

    An engine that keeps the gossip port and runs nothing is restarted. `data_path_port`, of overlay traffic,
    is waited for no longer than some seconds: something else may have it.
    """
    return f"""
held() {{ grep -qE '{_TCP % GOSSIP_PORT}' /proc/net/tcp /proc/net/tcp6 2>/dev/null; }}
carries() {{ grep -qE '{_UDP % data_path_port}' /proc/net/udp /proc/net/udp6 2>/dev/null; }}
for i in $(seq 100); do carries || break; sleep 0.2; done
for i in $(seq 10); do held || exit 0; sleep 0.2; done
if [ -n "$(docker ps -q)" ]; then
  echo 'the engine keeps port {GOSSIP_PORT} of the swarm that it has left, until it is restarted' >&2
  echo 'containers run there, so that is left to you: systemctl restart docker' >&2
  exit 1
fi
{engine_script("restart")}
"""

"""The gossip port that an engine may keep of a swarm that it has left.

Where the other nodes do not hear of the leaving within a second, as on machines under load, the engine
gives up before it closes the port (moby, NetworkDB.Close: "timeout waiting for leave broadcast"), and has
it until it is restarted. In a swarm that it then joins its overlay networks reach nobody.
"""

from __future__ import annotations

from swarmkit.cluster.settings import engine_script

PORT = 7946

_LISTENING = f":{PORT:04X} 0+:0000 0A"

RELEASE = f"""
held() {{ grep -qE '{_LISTENING}' /proc/net/tcp /proc/net/tcp6 2>/dev/null; }}
for i in $(seq 10); do held || exit 0; sleep 0.2; done
if [ -n "$(docker ps -q)" ]; then
  echo 'the engine keeps port {PORT} of the swarm that it has left, until it is restarted' >&2
  echo 'containers run there, so that is left to you: systemctl restart docker' >&2
  exit 1
fi
{engine_script("restart")}
"""
"""Shell (run as root, after leaving) that restarts an engine which keeps the port and runs nothing."""

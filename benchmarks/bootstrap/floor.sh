#!/bin/sh
# The floor: the least that makes a swarm of bare Debian machines, as one would type it. No state, no
# checks, no repair; what is there already is left alone.
#
#     floor.sh SSH_CONFIG MANAGER [WORKER…]
set -eu
config=$1 manager=$2
shift
names=$*
answers=$(mktemp -d)
trap 'rm -rf "$answers"' EXIT

on() { ssh -F "$config" "$1" sudo sh -s; }

# Says "active" where the machine is in a swarm; installs the engine where there is none.
for name in $names; do
  on "$name" >"$answers/$name" <<'END' &
if ! command -v dockerd >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update && apt-get install -y --no-install-recommends docker.io docker-cli iptables ca-certificates
  } >/dev/null 2>&1 || exit 1
fi
docker info --format '{{.Swarm.LocalNodeState}}'
END
done
wait

new=
for name in $names; do
  if ! grep -qx active "$answers/$name"; then new="$new $name"; fi
done
if [ -z "$new" ]; then exit 0; fi

# The command that makes a worker, token and all: from the manager's output into the workers' input.
on "$manager" >"$answers/join" <<'END'
docker info --format '{{.Swarm.LocalNodeState}}' | grep -qx active || docker swarm init >/dev/null || exit 1
docker swarm join-token worker | grep 'docker swarm join'
END
for name in $new; do
  if [ "$name" != "$manager" ]; then on "$name" <"$answers/join" >/dev/null & fi
done
wait

for name in $new; do
  echo "docker node update --label-add host=$name $name || exit 1"
done | on "$manager" >/dev/null

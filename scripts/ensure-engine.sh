#!/bin/sh
# Makes sure that a Docker Engine answers on this machine, as root on Debian or Ubuntu: installs what is
# missing and starts it. Says nothing where one answers. `--stop` ends the engine that it started itself.
set -eu
export LC_ALL=C

# The engine that was started by hand, where no init system does it.
pidfile=/var/run/swarmkit-dockerd.pid
log=/var/log/swarmkit-dockerd.log
seconds_to_start=60

say() { echo "engine: $*" >&2; }
fail() {
  echo "error: $1" >&2
  [ -z "${2-}" ] || echo "  $2" >&2
  exit 1
}
install_hint="install Docker: https://docs.docker.com/engine/install/"

answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# The process that the pid file tells of, if that is still a dockerd and not another one with its number.
ours() {
  pid=$(cat "$pidfile" 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ]
}

stop() {
  if ours; then
    kill "$pid"
    waited=0
    while ours; do
      [ "$waited" -lt "$seconds_to_start" ] || fail "dockerd ($pid) does not end" "see $log"
      sleep 1
      waited=$((waited + 1))
    done
    say "stopped"
  fi
  rm -f "$pidfile" "$log"
}

case ${1-} in
--stop)
  stop
  exit 0
  ;;
'') ;;
*) fail "unknown argument: $1" "usage: ensure-engine.sh [--stop]" ;;
esac

if answers; then
  exit 0
fi
. /etc/os-release 2>/dev/null || true
case " ${ID-} ${ID_LIKE-} " in
*" debian "* | *" ubuntu "*) ;;
*) fail "no Docker Engine answers, and this system is neither Debian nor Ubuntu" "$install_hint" ;;
esac
if [ "$(id -u)" != 0 ]; then
  if [ -S /var/run/docker.sock ] && [ ! -w /var/run/docker.sock ]; then
    fail "this user may not use the Docker Engine" "sudo usermod -aG docker $(id -un), then log in again"
  fi
  fail "no Docker Engine answers, and only root can install or start one" "run: sudo scripts/ensure-engine.sh, or $install_hint"
fi

install() {
  say "installing $*"
  export DEBIAN_FRONTEND=noninteractive
  if ! apt-get install -qq -y --no-install-recommends "$@" >/dev/null 2>&1 </dev/null; then
    # The package lists are missing or old.
    output=$(apt-get update -qq 2>&1 &&
      apt-get install -qq -y --no-install-recommends "$@" 2>&1 </dev/null) ||
      fail "installing $* failed" "$(echo "$output" | tail -n 5)"
  fi
}
set --
command -v dockerd >/dev/null || set -- "$@" docker.io
command -v iptables >/dev/null || set -- "$@" iptables
command -v debootstrap >/dev/null || set -- "$@" debootstrap
[ $# = 0 ] || install "$@"
# From Debian 13 on the command is a package of its own.
command -v docker >/dev/null || install docker-cli

if [ -d /run/systemd/system ]; then
  systemctl start docker || fail "the engine does not start" "see: journalctl -u docker"
elif ! ours; then
  say "starting dockerd (no init system runs here)"
  setsid dockerd >"$log" 2>&1 </dev/null &
  echo "$!" >"$pidfile"
fi
waited=0
until answers; do
  if [ -e "$pidfile" ] && ! kill -0 "$(cat "$pidfile")" 2>/dev/null; then
    fail "dockerd ended" "$(tail -n 5 "$log")"
  fi
  [ "$waited" -lt "$seconds_to_start" ] || fail "no engine answers after $seconds_to_start s" "see $log, or: journalctl -u docker"
  sleep 1
  waited=$((waited + 1))
done

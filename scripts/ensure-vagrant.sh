#!/bin/sh
# Makes sure that the vagrant command is on this machine, for the tests of the Vagrantfile: installs it as
# root on Debian or Ubuntu. Says nothing where it is there.
set -eu
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

command -v vagrant >/dev/null && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "vagrant: not installed, and only root on Debian or Ubuntu can do that here" >&2
  echo "  install it: https://developer.hashicorp.com/vagrant/install" >&2
  exit 1
fi
echo "vagrant: installing it" >&2
# Without what it recommends, libvirt: the tests use Docker.
install() { apt-get install -qq -y --no-install-recommends vagrant </dev/null 2>&1; }
if ! install >/dev/null; then
  # The package lists are missing or old.
  output=$(apt-get update -qq 2>&1 && install) || {
    echo "error: installing vagrant failed" >&2
    echo "$output" | tail -n 5 | sed 's/^/  /' >&2
    exit 1
  }
fi

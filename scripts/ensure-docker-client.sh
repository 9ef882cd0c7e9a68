#!/bin/sh
# Prints the path of the docker client that the conformance tests compare with, and fetches it first where
# it is missing: version 28 from Debian's testing or unstable, through the mirror that this machine's apt
# uses. Nothing is installed; it stays in .cache. On other systems set SWARMKIT_DOCKER_CLIENT to a client of
# version 28.
set -eu
export LC_ALL=C
cd "$(dirname "$0")/.."

# What the results in the documentation are of. Where Debian has moved on, another 28 will do.
pinned=28.5.2+dfsg4-5
pinned_sum_amd64=8ea2428acdda666f41263f5a0d3a85681a696491361574eb7bd721a1194939b9
major=28

fail() {
  echo "error: $1" >&2
  [ -z "${2-}" ] || echo "  $2" >&2
  exit 1
}
hint='set SWARMKIT_DOCKER_CLIENT to the path of a docker client of version 28'

if [ -n "${SWARMKIT_DOCKER_CLIENT-}" ]; then
  case $("$SWARMKIT_DOCKER_CLIENT" --version) in
  "Docker version $major."*) ;;
  *) fail "$SWARMKIT_DOCKER_CLIENT is not of version $major" ;;
  esac
  echo "$SWARMKIT_DOCKER_CLIENT"
  exit 0
fi
cache=$PWD/.cache/docker-client
client=$cache/docker
if [ -x "$client" ]; then
  echo "$client"
  exit 0
fi
command -v apt-get >/dev/null || fail "only Debian's packages of the docker client are known here" "$hint"
mirror=$(cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null |
  sed -nE 's/^URIs: *([^ ]+).*/\1/p; s/^deb +(\[[^]]*\] +)?([^ ]+) .*/\2/p' | head -n 1)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -n "$mirror" ] && [ -r "$keyring" ] || fail "this machine's apt has no mirror of Debian" "$hint"

# Everything of its own, so that nothing of the machine's apt changes.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/partial" "$cache"
for suite in testing sid; do
  # A mirror that has stood still for a week or two will do.
  echo "deb [signed-by=$keyring check-valid-until=no] $mirror $suite main"
done >"$work/sources.list"
apt() {
  command=$1
  shift
  "$command" -qq -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::Etc::PreferencesParts=/dev/null -o Dir::State="$work" -o Dir::State::Status=/dev/null \
    -o Dir::Cache="$work" -o Acquire::Languages=none -o APT::Sandbox::User=root "$@"
}
echo "docker client: fetching it" >&2
output=$(apt apt-get update 2>&1) || fail "the package lists cannot be read" "$(echo "$output" | tail -n 3)"
versions=$(apt apt-cache madison docker-cli | awk '{ print $3 }')
version=$(echo "$versions" | awk -v pinned="$pinned" -v major="$major." '
  $0 == pinned { found = $0; exit } index($0, major) == 1 && !found { found = $0 } END { print found }')
[ -n "$version" ] ||
  fail "Debian has no docker client of version $major any more (it has: $(echo $versions))" "$hint"
output=$(cd "$work" && apt apt-get download "docker-cli=$version" 2>&1) ||
  fail "the client cannot be fetched" "$(echo "$output" | tail -n 3)"
package=$(ls "$work"/docker-cli_*.deb)
# apt has checked the package against Debian's signed lists; the pinned one is known besides.
if [ "$version" = "$pinned" ] && [ "$(dpkg --print-architecture)" = amd64 ]; then
  echo "$pinned_sum_amd64  $package" | sha256sum -c --quiet - >&2 || fail "$pinned is not the package it was"
else
  echo "docker client: $version instead of $pinned" >&2
fi
dpkg-deb -x "$package" "$work/package"
mv "$work/package/usr/bin/docker" "$client"
echo "$client"

#!/bin/sh
# Makes sure that this machine's engine has the image swarmkit/base:13, a small Debian 13; with the
# argument 12, swarmkit/base:12.
#
# The former is the base of every image that swarmkit builds, the latter that of lab nodes. Does nothing
# where the image exists; else it is loaded from a file that came with the machine, or pulled, or made
# with debootstrap from the Debian mirror that the machine's own apt uses, so that a network without a
# registry works too. The CA certificates that were added to this machine are trusted inside.
#
# Runs on a machine with an engine, as root (debootstrap needs it), from a file or from standard input.
set -eu
export LC_ALL=C

release=${1:-13}
image=swarmkit/base:$release
case $release in
12) suite=bookworm ;;
13) suite=trixie ;;
*)
    echo "base image: no base is made of Debian $release" >&2
    exit 2
    ;;
esac
saved=/var/lib/swarmkit/images/base.tar
certificates=/usr/local/share/ca-certificates
seconds_for_registry=20

say() { echo "base image: $*" >&2; }
fail() {
    say "$1"
    [ -z "${2-}" ] || echo "  $2" >&2
    exit 1
}

docker image inspect "$image" >/dev/null 2>&1 && exit 0
docker version >/dev/null || fail "no Docker Engine answers here"

# Work where there is room (/tmp may be small), and leave nothing behind.
work=$(mktemp -d "${TMPDIR:-/var/tmp}/swarmkit-base.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# What stands for the added certificates, in a label: tells whether an image has this machine's.
mkdir "$work/certificates"
find "$certificates" -name '*.crt' -exec cp {} "$work/certificates" \; 2>/dev/null || true
trusted=$(cd "$work/certificates" && cat -- *.crt 2>/dev/null | cksum | tr ' ' -)

# Give the image $1 its name; on top go ca-certificates and the machine's own certificates if it lacks them.
finish() {
    if [ "$(docker image inspect --format '{{index .Config.Labels "swarmkit.ca"}}' "$1")" = "$trusted" ]; then
        [ "$1" = "$image" ] || docker tag "$1" "$image"
        return
    fi
    cat >"$work/Dockerfile" <<END
FROM $1
COPY certificates/ $certificates/
RUN command -v update-ca-certificates >/dev/null || { \\
        apt-get update -q && apt-get install -qy --no-install-recommends ca-certificates && \\
        rm -rf /var/lib/apt/lists/*; \\
    } && update-ca-certificates
LABEL swarmkit=base swarmkit.ca=$trusted
END
    # The machine's own network: its name servers may be on the loopback.
    docker build -q --network host -t "$image" "$work" >"$work/log" 2>&1 ||
        fail "adding CA certificates failed" "$(tail -n 5 "$work/log")"
}

load() {
    [ -f "$saved" ] || return 1
    docker load -qi "$saved" >"$work/log" 2>&1 || { say "$saved: $(tail -n 1 "$work/log")"; return 1; }
    docker image inspect "$image" >/dev/null 2>&1 || return 1
    say "loaded"
    finish "$image"
}

# A registry has so long to answer; once it does, the download may take what it takes.
pull() {
    from=debian:$release-slim
    docker pull "$from" >"$work/log" 2>&1 &
    pulling=$!
    waited=0
    while kill -0 "$pulling" 2>/dev/null && ! grep -q 'Pulling from' "$work/log"; do
        if [ "$waited" -ge "$seconds_for_registry" ]; then
            kill "$pulling" 2>/dev/null || true
            break
        fi
        sleep 1
        waited=$((waited + 1))
    done
    wait "$pulling" || return 1
    say "pulled $from"
    finish "$from"
}

# The addresses of all archives that apt uses here, a line each, in both of its formats.
archives() {
    find /etc/apt/sources.list /etc/apt/sources.list.d -name '*.list' 2>/dev/null | sort | while read -r file; do
        sed -n 's/^[[:space:]]*deb[[:space:]]\{1,\}\(\[[^]]*\][[:space:]]*\)\{0,1\}\([^[:space:]]*\).*/\2/p' "$file"
    done
    find /etc/apt/sources.list.d -name '*.sources' 2>/dev/null | sort | while read -r file; do
        sed -n 's/^[Uu][Rr][Ii][Ss]:[[:space:]]*//p' "$file" | tr -s '[:space:]' '\n'
    done
}

# The first of those archives that has the suite $1 of Debian.
archive_of() {
    archives | sed 's,/*$,,' | awk '/^https?:/ && !seen[$0]++' | while read -r archive; do
        if /usr/lib/apt/apt-helper download-file "$archive/dists/$1/InRelease" "$work/release" >/dev/null 2>&1 &&
            grep -qx 'Origin: Debian' "$work/release"; then
            echo "$archive"
            break
        fi
    done
}

bootstrap() {
    hint="let this machine reach a registry (docker pull debian:$release-slim), or bring the image from one that has it: docker save $image -o base.tar there, docker load -i base.tar here"
    [ -x /usr/lib/apt/apt-helper ] || fail "no registry answers, and this machine has no apt to make the image with" "$hint"
    [ "$(id -u)" = 0 ] || fail "no registry answers, and only root can make the image with debootstrap" "run this once as root, or $hint"
    mirror=$(archive_of "$suite")
    [ -n "$mirror" ] || fail "no registry answers, and no archive in this machine's apt sources has Debian $release ($suite)" "$hint"
    security=$(archive_of "$suite-security")
    if ! command -v debootstrap >/dev/null || [ ! -e /usr/share/keyrings/debian-archive-keyring.gpg ]; then
        say "installing debootstrap"
        { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends \
            debootstrap debian-archive-keyring; } >"$work/log" 2>&1 </dev/null ||
            fail "installing debootstrap failed" "$(tail -n 5 "$work/log")"
    fi
    say "no registry answers; making it with debootstrap from $mirror"
    root=$work/root
    debootstrap --force-check-gpg --variant=minbase --include=ca-certificates \
        "$suite" "$root" "$mirror" >"$work/log" 2>&1 </dev/null ||
        fail "debootstrap failed" "$(tail -n 5 "$work/log")"

    rm -f "$root/etc/apt/sources.list"
    {
        printf 'Types: deb\nURIs: %s\nSuites: %s %s-updates\n' "$mirror" "$suite" "$suite"
        printf 'Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n'
        [ -z "$security" ] || {
            printf '\nTypes: deb\nURIs: %s\nSuites: %s-security\n' "$security" "$suite"
            printf 'Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n'
        }
    } >"$root/etc/apt/sources.list.d/debian.sources"
    # What no container reads is neither kept nor installed later.
    cat >"$root/etc/dpkg/dpkg.cfg.d/container" <<'END'
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/man/*
force-unsafe-io
END
    cat >"$root/etc/apt/apt.conf.d/container" <<'END'
Acquire::Languages "none";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };
END
    cp "$work"/certificates/*.crt "$root$certificates/" 2>/dev/null || true
    chroot "$root" update-ca-certificates >"$work/log" 2>&1 || fail "update-ca-certificates failed" "$(tail -n 5 "$work/log")"
    find "$root/usr/share/doc" -depth -type f ! -name copyright -delete
    find "$root/usr/share/doc" -depth -type d -empty -delete
    rm -rf "$root"/usr/share/info/* "$root"/usr/share/locale/* "$root"/usr/share/man/* \
        "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/var/cache/debconf/*-old \
        "$root"/etc/hostname "$root"/etc/resolv.conf
    : >"$root/etc/machine-id"
    tar -C "$root" --numeric-owner -c . | docker import \
        --change 'CMD ["bash"]' --change "LABEL swarmkit=base swarmkit.ca=$trusted" - "$image" >/dev/null
    say "made with debootstrap"
}

load || pull || bootstrap

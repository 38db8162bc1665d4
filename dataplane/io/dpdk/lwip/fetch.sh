#!/bin/sh
# Fetches lwIP's source package from Debian into DIRECTORY, checked against its SHA-256:
# fetch.sh DIRECTORY. Does nothing when it is there. The system's own package lists stay as they
# are: the source list is a private copy.
set -eu

version=2.1.3+dfsg1-2
tarball=lwip_2.1.3+dfsg1.orig.tar.xz
digest=0a8276d09fc4e97bbba2f953d74af2388fc2195ea156be9d7589e297a68fde24

[ -e "$1/src/core/tcp.c" ] && exit 0
mkdir -p "$(dirname "$1")"
work=$(mktemp -d "$1.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial"

# What the system takes binaries from gives the sources too.
if [ -e /etc/apt/sources.list.d/debian.sources ]; then
	sed 's/^Types:.*/Types: deb-src/' /etc/apt/sources.list.d/debian.sources \
		>"$work/source.sources"
else
	sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >"$work/source.list"
fi
set -- "$1" -o Dir::Etc::sourcelist="$(echo "$work"/source.*)" -o Dir::Etc::sourceparts=- \
	-o Dir::State::lists="$work/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
to=$1
shift
(
	cd "$work"
	apt-get "$@" -qq update
	apt-get "$@" -qq source --download-only "lwip=$version"
) >&2
echo "$digest  $work/$tarball" | sha256sum -c --quiet >&2
tar -xf "$work/$tarball" -C "$work"
mkdir -p "$to"
# Two configurations at once: whoever comes second finds it done.
mv -T "$work/lwip-2.1.3/src" "$to/src" 2>/dev/null || [ -e "$to/src/core/tcp.c" ]

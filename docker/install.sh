#!/bin/sh
# Installs the Debian packages of packages.txt that are missing: install.sh KIND ... (build, run,
# test, bench). Does nothing, fast, when all are there.
set -eu

here=$(dirname "$0")
wanted=""
for kind in "$@"; do
	wanted="$wanted $(sed -n "s/^$kind //p" "$here/packages.txt")"
done

# One query for all: this stands in front of every build.
# shellcheck disable=SC2086 # a list of words
there=$(dpkg-query -W -f '${Package}=${db:Status-Status}\n' $wanted 2>/dev/null || true)
missing=""
for package in $wanted; do
	case "
$there
" in
	*"
$package=installed
"*) ;;
	*) missing="$missing $package" ;;
	esac
done
[ -z "$missing" ] && exit 0

if [ "$(id -u)" != 0 ]; then
	echo "These packages are missing; install them as root:$missing" >&2
	exit 1
fi
echo "Installing:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of words
apt-get install -y -qq --no-install-recommends $missing >/dev/null

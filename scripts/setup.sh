#!/bin/sh
# Installs the Debian packages of the lists named that are missing, and makes .venv with the command in it.
# Does nothing when all is there already.
set -eu
cd "$(dirname "$0")/.."

missing=
for package in $(cat "$@" | grep -v '^#'); do
    status=$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
# The image builder asks apt about the kernel, so the lists are needed even where nothing is missing.
if ! apt-cache show linux-image-cloud-amd64 busybox-static >/dev/null 2>&1; then
    apt-get --quiet=2 update </dev/null
fi
if [ -n "$missing" ]; then
    echo "installing Debian packages:$missing" >&2
    install="apt-get --quiet=2 --yes --no-install-recommends -o Dpkg::Use-Pty=0 install"
    # Old lists name files that no longer exist; an update corrects them.
    # shellcheck disable=SC2086
    $install $missing </dev/null >&2 || { apt-get --quiet=2 update </dev/null && $install $missing </dev/null >&2; }
fi

key=$(cat requirements.lock scripts/setup.sh | sha256sum | cut -c1-16)
stamp=.venv/.made-$key-$(pwd | sha256sum | cut -c1-16)
[ ! -e "$stamp" ] || exit 0

echo "making .venv" >&2
rm -rf .venv
"${PYTHON:-/usr/bin/python3}" -m venv .venv
.venv/bin/python3 -m pip --quiet --disable-pip-version-check install --require-hashes --no-deps -r requirements.lock
packages=$(.venv/bin/python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
printf '%s/src\n' "$(pwd)" >"$packages/kata-runtime.pth"
# Isolated, without the site module, and by the interpreter itself instead of its link in .venv, for which it would look
# around: a command is short, and start-up would be most of its time.
cat >.venv/bin/kata-runtime <<EOF
#!$(.venv/bin/python3 -c 'import os, sys; print(os.path.realpath(sys.executable))') -IS
import sys

sys.path.insert(0, "$(pwd)/src")
from kata_runtime.fast_start import start

start()
EOF
chmod 755 .venv/bin/kata-runtime
.venv/bin/python3 -m compileall -q src
: >"$stamp"

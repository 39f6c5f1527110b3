#!/bin/sh
# Makes build/neutron, a Python environment with Neutron's server for lab/; does nothing when it is there already.
set -eu
cd "$(dirname "$0")/.."

key=$(cat requirements-neutron.lock scripts/setup_neutron.sh | sha256sum | cut -c1-16)
stamp=build/neutron/.made-$key-$(pwd | sha256sum | cut -c1-16)
[ ! -e "$stamp" ] || exit 0

echo "making build/neutron" >&2
rm -rf build/neutron
"${PYTHON:-/usr/bin/python3}" -m venv build/neutron
build/neutron/bin/python3 -m pip --quiet --disable-pip-version-check install --require-hashes --no-deps -r requirements-neutron.lock
: >"$stamp"

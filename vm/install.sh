#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes a virtual environment with carom in it, of the wheel that was sent here beside this file.
#   install.sh PARTS MADE [COMPILER]   the folder it was sent to, which goes; the folder to make; `no`
#                                      where the wheel has object files (CAROM_COMPILER)
# What is cut short has no file `complete`, and is made again. BCC, where it is wanted, is the
# distribution's, for the distribution's own Python.
set -eu
parts=$1 made=$2 compiler=${3:-}

pip() {
    "$made/bin/python" -P -m pip install --quiet --disable-pip-version-check \
        --root-user-action ignore "$@"
}

mkdir -p "${made%/*}"
exec 9>"${made%/*}/lock"
flock 9 # two labs may come at once
if [ ! -e "$made/complete" ]; then
    echo "looking for what carom needs"
    CAROM_COMPILER=$compiler sh "$parts/provision.sh"
    echo "making $made"
    rm -rf "$made"
    /usr/bin/python3 -m venv --system-site-packages "$made"
    # This one, whatever the distribution's Python has; then what it requires.
    pip --no-deps --ignore-installed "$parts"/*.whl
    pip "carom[lab]"
    touch "$made/complete"
fi
rm -rf "$parts"
echo "carom is there"

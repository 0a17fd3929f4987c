#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Gives this host what carom needs: packages, kernel headers, and a BCC that works with them.
# Run it as root, from anywhere, as often as you like; it is quick when there is nothing to do.
#   CAROM_ANY_DISTRIBUTION=1   go ahead on a distribution that was not tried
#   CAROM_COMPILER=no          this host has object files: neither BCC, clang nor headers
#   CAROM_MACHINES=pair        install what brings up VMs as well (guest: one guest, without Vagrant)
set -eu

packages="python3 python3-venv python3-bpfcc iproute2 ethtool util-linux"
[ "${CAROM_COMPILER:-}" != no ] || packages="python3 python3-venv libbpf1 iproute2 ethtool util-linux"
# What tests run against each other, and beside; in CI alone, for elsewhere the servers would run too.
servers="memcached nsd bind9 knot unbound dnsmasq-base libcoap3-bin openssh-server docker-registry"
servers="$servers prometheus"
clients="bind9-dnsutils knot-dnsutils dnsperf libmemcached-tools tshark"
firewalls="nftables iptables"
compilers="clang musl-tools" # the second one, that the programs' tests run with, too; and another C library
browser=chromium # some 100 MB; on Ubuntu it is a snap, and the tests do without
# What builds a box and brings up VMs of it under emulation (./run test-vm).
machines="qemu-system-x86 qemu-utils mmdebstrap e2fsprogs debian-archive-keyring"
pair="vagrant vagrant-libvirt libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients"
pair="$pair dnsmasq-base iptables openssh-client"
lib=/usr/local/lib/carom
tree=$lib/kernel-headers # carom looks here when the running kernel has no headers of its own

say() { echo "provision: $*" >&2; }

fail() {
    say "$@"
    exit 1
}

missing() {
    for package; do
        state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || state=unknown
        [ "$state" = installed ] || printf '%s ' "$package"
    done
}

# apt's own words go to stderr, so that a caller's stdout stays clean.
apt() { apt-get -q -y -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "$@" >&2; }

updated='' # once a run
update() {
    [ -z "$updated" ] || return 0
    updated=yes
    apt -o APT::Update::Error-Mode=any update || updated=failed
}

apt_failed() {
    [ "$updated" != failed ] ||
        fail "apt-get update failed (see above): no network, or a broken source in /etc/apt; mend it and run this again"
    fail "apt-get could not get $* (see above); mend it and run this again"
}

install() {
    say "installing $*"
    update
    apt install --no-install-recommends "$@" || apt_failed "$@"
}

check_host() {
    system=$(uname -s)
    [ "$system" = Linux ] ||
        fail "this is $system, but XDP is a part of Linux: use a Linux machine or VM"

    [ "$(id -u)" -eq 0 ] ||
        fail "not root: run this with sudo"

    release=$(uname -r)
    major=${release%%.*}
    minor=${release#*.}
    minor=${minor%%[!0-9]*}
    [ "$major" -gt 5 ] || { [ "$major" -eq 5 ] && [ "$minor" -ge 18 ]; } ||
        fail "kernel $release is too old: carom needs Linux 5.18 or newer (for bpf_xdp_load_bytes)"

    ID=unknown VERSION_ID=
    # shellcheck source=/dev/null
    [ ! -r /etc/os-release ] || . /etc/os-release
    distribution=$ID${VERSION_ID:+ $VERSION_ID}
    case $distribution in
        "debian 12" | "debian 13" | "ubuntu 24.04") ;;
        *)
            [ -n "${CAROM_ANY_DISTRIBUTION:-}" ] ||
                fail "unsupported distribution $distribution: use Debian 12, Debian 13 or Ubuntu 24.04, or set CAROM_ANY_DISTRIBUTION=1 to try"
            command -v apt-get >/dev/null ||
                fail "no apt-get on $distribution: install by hand what Debian calls $packages"
            ;;
    esac
}

headers_needed_by() {
    apt-cache depends "$1" 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-\([^ ]*-\)\{0,1\}headers-[^ ]*\)$/\1/p'
}

# Servers are not started: a policy forbids it meanwhile (policy-rc.d(8)).
install_stopped() {
    lacking=$(missing "$@")
    [ -n "$lacking" ] || return 0
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT # which dash does not run for a signal that is not caught
        trap 'exit 129' HUP
        trap 'exit 130' INT
        trap 'exit 143' TERM
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    # shellcheck disable=SC2086
    install $lacking
}

# A kernel without headers gets the distribution's, unpacked into one tree: its own if there are
# any, else the newest, which serve as well, because carom's programs use only the stable (UAPI)
# structures. Unpacked and not installed, since they would bring a compiler and, on Debian 13, a
# kernel. Debian and Ubuntu split them into what all flavours share and what one flavour adds.
provide_headers() {
    [ ! -e "/lib/modules/$release/build" ] || return 0
    export BCC_KERNEL_SOURCE="$tree"
    [ ! -d "$tree" ] || return 0

    update
    case "$ID ${ID_LIKE:-}" in
        *ubuntu*) newest=linux-headers-generic ;;
        *) newest=linux-headers-$(dpkg --print-architecture) ;;
    esac
    flavour=linux-headers-$release
    apt-cache show "$flavour" >/dev/null 2>&1 || flavour=$(headers_needed_by "$newest")
    [ -n "$flavour" ] || apt_failed "$newest"
    shared=$(headers_needed_by "$flavour")
    [ -n "$shared" ] || fail "$flavour names no package of headers that all flavours share"

    say "unpacking $flavour into $tree"
    new=$tree.new
    rm -rf "$new"
    mkdir -p "$new/deb"
    (cd "$new/deb" && apt -o APT::Sandbox::User=root download "$shared" "$flavour") ||
        apt_failed "$shared" "$flavour"
    for package in "$shared" "$flavour"; do
        dpkg-deb -x "$new/deb/$package"_*.deb "$new/deb"
        cp -rL "$new/deb/usr/src/$package/arch" "$new/deb/usr/src/$package/include" "$new"
    done
    rm -r "$new/deb"
    mv -T "$new" "$tree"
}

# Compile and load one program, unless that was seen to work with just these versions.
check_bcc() {
    works="$release, bcc $(dpkg-query -W -f '${Version}' python3-bpfcc), headers ${BCC_KERNEL_SOURCE:-of the kernel}"
    [ "$(cat "$lib/works" 2>/dev/null)" != "$works" ] || return 0
    /usr/bin/python3 - <<'END' || exit 1
import os
import sys

try:
    from bcc import BPF
except Exception as error:
    sys.exit(f"provision: /usr/bin/python3 cannot import bcc ({error}): reinstall python3-bpfcc")

SOURCE = """
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/udp.h>
int probe(struct xdp_md *ctx)
{
    struct ethhdr *eth = (void *)(long)ctx->data;
    if ((void *)(eth + 1) + sizeof(struct iphdr) + sizeof(struct udphdr) > (void *)(long)ctx->data_end)
        return XDP_PASS;
    return eth->h_proto ? XDP_PASS : XDP_DROP;
}
"""
headers = os.environ.get("BCC_KERNEL_SOURCE", f"/lib/modules/{os.uname().release}/build")
try:
    module = BPF(text=SOURCE)
except Exception as error:
    sys.exit(f"provision: BCC cannot compile with the headers in {headers} (see above): {error}")
try:
    module.load_func("probe", BPF.XDP)
except Exception as error:
    sys.exit(f"provision: the kernel refuses an XDP program ({error}): is BPF allowed in here?")
END
    mkdir -p "$lib"
    echo "$works" >"$lib/works"
}

export DEBIAN_FRONTEND=noninteractive PATH="$PATH:/usr/sbin:/sbin"
check_host
# shellcheck disable=SC2086 # one word a package
lacking=$(missing $packages)
# shellcheck disable=SC2086
[ -z "$lacking" ] || install $lacking
case $distribution in debian*) ;; *) browser='' ;; esac
# shellcheck disable=SC2086
[ "${CI:-}" != true ] || install_stopped $servers $clients $firewalls $compilers $browser
if [ -n "${CAROM_MACHINES:-}" ]; then
    [ "$ID" != ubuntu ] || fail "Ubuntu packages no Vagrant: test-vm is for Debian (docs/vm.md)"
    [ "$CAROM_MACHINES" = guest ] || machines="$machines $pair"
    # shellcheck disable=SC2086
    install_stopped $machines
fi
[ "${CAROM_COMPILER:-}" != no ] || exit 0
provide_headers
check_bcc

#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds a box for Vagrant and libvirt from Debian packages alone, where no box can be downloaded.
# It holds all that vm/provision.sh asks for, and boots its own kernel without a boot loader.
#   usage: vm/box.sh [bookworm | trixie] [FOLDER]     makes FOLDER/carom-RELEASE.box, as root
#          vm/box.sh --guest [RELEASE] [FOLDER]       makes FOLDER/guest-RELEASE, a folder with kernel,
#                                                     initrd and disk: what tests/guest runs in
#          vm/box.sh --tree [RELEASE] [FOLDER]        makes FOLDER/tree-RELEASE, a root folder with what
#                                                     a host without a compiler has: for tests/packages
#   CAROM_MIRROR   a Debian mirror, where this machine's apt sources have no Debian
#   PYTHON         one with pip, for carom's requirements; else the repository's .venv, or python3
set -eu

kind=box
case ${1:-} in
    --guest | --tree)
        kind=${1#--}
        shift
        ;;
esac
release=${1:-bookworm}
folder=${2:-build/vm}
room=$(cd "$(dirname "$0")" && pwd -P)
gigabytes=8 # the guest's disk; what is empty takes no room
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { echo "box: $*" >&2; }

fail() {
    say "$@"
    exit 1
}

check_host() {
    [ "$(id -u)" -eq 0 ] ||
        fail "not root, which owns the files of a box: sudo $0 $release $folder"
    for tool in mmdebstrap:mmdebstrap mke2fs:e2fsprogs qemu-img:qemu-utils tar:tar; do
        command -v "${tool%:*}" >/dev/null || fail "${tool%:*} is missing: apt install ${tool#*:}"
    done
    [ "$(dpkg --print-architecture)" = amd64 ] || fail "boxes are built on amd64 only"
    [ -e "$keyring" ] || fail "$keyring is missing: apt install debian-archive-keyring"
}

# What is in it: what a host of carom's needs, and what Vagrant wants of a machine, or tests do.
contents() {
    needed=$(sed -n 's/^packages="\(.*\)"$/\1/p' "$room/provision.sh")
    case $kind in
        box) more="systemd-sysv dbus ifupdown isc-dhcp-client openssh-server sudo rsync" ;;
        guest) more="memcached nsd nftables libteam-utils wireguard-tools" ;;
        tree)
            echo "python3,libbpf1,iproute2,memcached,nsd"
            return
            ;;
    esac
    echo "$needed linux-image-amd64 linux-headers-amd64 udev kmod procps $more" | tr ' ' ','
}

debian_targets() {
    # shellcheck disable=SC2016 # apt fills these in
    apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' 2>/dev/null | sed -n 's/^Debian \(.*\) main$/\1/p' | sort -u
}

# This machine's own sources, for the release wanted.
sources() {
    if [ -n "${CAROM_MIRROR:-}" ]; then
        echo "deb [signed-by=$keyring] $CAROM_MIRROR $release main"
        return
    fi
    [ -n "$(debian_targets)" ] || apt-get -q update >&2 || fail "apt-get update failed (see above)"
    here=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    debian_targets | while read -r uri suite; do
        case $suite in
            "$here" | "$here"-updates | "$here"-security)
                echo "deb [signed-by=$keyring] $uri $release${suite#"$here"} main" ;;
        esac
    done
}

# This machine's ways of reaching its sources, a line each.
apt_options() {
    apt-config dump | grep -E '^Acquire::(Check-Valid-Until|Check-Date|https?::Proxy)[: ]' || true
}

# Files of the guest's, below $1.
furnish() {
    echo carom >"$1/etc/hostname"
    printf '127.0.0.1 localhost\n127.0.1.1 carom\n' >"$1/etc/hosts"
    rm -f "$1"/etc/apt/apt.conf.d/*mmdebstrap "$1"/etc/dpkg/dpkg.cfg.d/*mmdebstrap
    case $kind in
        box) furnish_box "$1" ;;
        guest) install -m 755 "$room/guest-init" "$1/sbin/guest-init" ;;
    esac
}

furnish_box() {
    printf '/dev/vda / ext4 noatime 0 1\n' >"$1/etc/fstab"
    printf 'auto lo\niface lo inet loopback\n\nallow-hotplug eth0\niface eth0 inet dhcp\n' \
        >"$1/etc/network/interfaces"
    echo 'vagrant ALL=(ALL) NOPASSWD: ALL' >"$1/etc/sudoers.d/vagrant"
    chmod 440 "$1/etc/sudoers.d/vagrant"
    chroot "$1" useradd --create-home --shell /bin/bash --password '*' vagrant
    install -d -m 700 "$1/home/vagrant/.ssh"
    install -m 600 "$room/vagrant.pub" "$1/home/vagrant/.ssh/authorized_keys"
    chroot "$1" chown -R vagrant:vagrant /home/vagrant
    furnish_sshd "$1"
    # Nothing runs by itself that would disturb a measurement, or asks on the console.
    for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
        fstrim.timer systemd-firstboot.service; do
        ln -sf /dev/null "$1/etc/systemd/system/$unit"
    done
    : >"$1/etc/machine-id" # each machine makes its own
}

# Each machine makes a host key of its own, of the kind that takes no time.
furnish_sshd() {
    rm -f "$1"/etc/ssh/ssh_host_*
    printf 'HostKey /etc/ssh/ssh_host_ed25519_key\nUseDNS no\n' >"$1/etc/ssh/sshd_config.d/box.conf"
    install -d "$1/etc/systemd/system/ssh.service.d"
    cat >"$1/etc/systemd/system/ssh.service.d/key.conf" <<'UNIT'
[Service]
ExecStartPre=
ExecStartPre=/bin/sh -c 'test -e /etc/ssh/ssh_host_ed25519_key || ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key'
ExecStartPre=/usr/sbin/sshd -t
UNIT
}

bootstrap() {
    sources >"$new/sources"
    [ -s "$new/sources" ] ||
        fail "no Debian among this machine's apt sources: set CAROM_MIRROR to a mirror of it"
    apt_options >"$new/options"
    set --
    while read -r option; do set -- "$@" "--aptopt=${option%;}"; done <"$new/options"
    # Nothing of it has to survive a power cut: force-unsafe-io saves minutes.
    mmdebstrap --quiet --mode=root --variant=minbase --include="$(contents)" \
        --dpkgopt=force-unsafe-io "$@" "$release" "$new/root" "$new/sources" >&2 ||
        fail "mmdebstrap could not install $release (see above)"
}

requirements() {
    case $kind in box) more='' ;; guest) more="pytest pytest-timeout hypothesis" ;; esac
    python3 - "$room/../setup.cfg" $more <<'PYTHON'
import configparser
import sys

wants = configparser.ConfigParser()
wants.read(sys.argv[1])
print(wants["options"]["install_requires"], wants["options.extras_require"]["lab"], *sys.argv[2:])
PYTHON
}

# carom itself comes later, as a wheel; what it requires is there for guests without a network.
add_python() {
    if [ ! -e "$room/../setup.cfg" ] || ! "$python" -m pip --version >/dev/null 2>&1; then
        say "no setup.cfg, or no pip for $python: the guest will have to fetch carom's requirements"
        return
    fi
    version=$(readlink "$1/usr/bin/python3")
    into=/usr/local/lib/$version/dist-packages
    say "adding Python packages"
    # They have to do with the setuptools that Debian gives each virtual environment, if it does.
    find "$1/usr/share/python-wheels" -name 'setuptools-*' |
        sed -n 's/.*setuptools-\([0-9.]*\)-.*/setuptools==\1/p' >"$new/constraints"
    # shellcheck disable=SC2046 # one word a requirement
    "$python" -m pip install --quiet --disable-pip-version-check --no-compile \
        --only-binary=:all: --python-version "${version#python}" --target "$1$into" \
        --constraint "$new/constraints" $(requirements) >&2 ||
        fail "pip could not fetch carom's requirements (see above)"
    # Some files are for other Pythons, and fail.
    chroot "$1" python3 -m compileall -q -x '/tests?/' "$into" >/dev/null || true
}

# The box tells Vagrant to boot the kernel beside it.
describe() {
    printf '{"provider": "libvirt", "format": "qcow2", "virtual_size": %s}\n' "$gigabytes" \
        >"$new/box/metadata.json"
    cat >"$new/box/Vagrantfile" <<'RUBY'
Vagrant.configure("2") do |config|
  config.vm.provider "libvirt" do |libvirt|
    libvirt.kernel = File.expand_path("vmlinuz", __dir__)
    libvirt.initrd = File.expand_path("initrd.img", __dir__)
    libvirt.cmd_line = "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet"
  end
end
RUBY
}

# A folder of kernel, initrd and disk; in a box, with what Vagrant asks for beside them.
pack() {
    mkdir "$new/box"
    cp -L "$new"/root/boot/vmlinuz-* "$new/box/vmlinuz"
    cp -L "$new"/root/boot/initrd.img-* "$new/box/initrd.img"
    chmod 644 "$new/box/vmlinuz" "$new/box/initrd.img"
    mke2fs -q -t ext4 -L carom -d "$new/root" "$new/disk" "${gigabytes}G" ||
        fail "mke2fs could not make the disk (see above): is there room in $folder?"
    qemu-img convert -O qcow2 "$new/disk" "$new/box/box.img"
    case $kind in
        box) describe && tar -C "$new/box" -cf "$new/made" . ;;
        guest) mv "$new/box" "$new/made" ;;
    esac
}

export DEBIAN_FRONTEND=noninteractive PATH="$PATH:/usr/sbin:/sbin"
case $release in
    bookworm | trixie) ;;
    *) fail "no such release: $release (there are bookworm and trixie)" ;;
esac
case $kind in
    box) box=$folder/carom-$release.box ;;
    guest | tree) box=$folder/$kind-$release ;;
esac
python=${PYTHON:-$room/../.venv/bin/python}
[ -x "$(command -v "$python")" ] || python=python3
made_of=$(cat "$0" "$room"/provision.sh "$room"/vagrant.pub "$room"/guest-init "$room/../setup.cfg" \
    2>/dev/null | cksum)
if [ -e "$box" ] && [ "$(cat "$box.of" 2>/dev/null)" = "$made_of" ]; then
    say "$box is up to date"
    exit
fi
check_host
say "building $box"
mkdir -p "$folder"
new=$(mktemp -d "$folder/box.XXXXXX")
chmod 755 "$new"
trap 'rm -rf --one-file-system "$new"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
bootstrap
if [ "$kind" = tree ]; then
    mv "$new/root" "$new/made"
else
    furnish "$new/root"
    add_python "$new/root"
    pack
fi
rm -rf "$box"
mv "$new/made" "$box"
echo "$made_of" >"$box.of"
say "made $box"

#!/bin/sh
# with-setup.sh PURPOSE COMMAND...  — makes a bare clone able to run COMMAND: npm packages (with the pinned Node), and the
# system packages that PURPOSE needs (demo, test, bench, build). As root they are installed with apt; else one line names them.
set -eu
purpose=$1; shift
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
stamp=node_modules/.understudy-lock
if [ ! -x node_modules/.bin/node ] || ! cmp -s package-lock.json "$stamp"; then
  echo "setup: installing npm packages" >&2
  npm install --no-save --no-audit --no-fund --loglevel=error >&2
  cp package-lock.json "$stamp"
fi
# `packages` must be there; without `wanted` the command runs too, but shows or tests less. As root both are installed.
wanted=''
guest='qemu-system-x86 busybox-static e2fsck-static cpio'
case $purpose in
  build) packages='' ;;
  demo) packages='qemu-utils fio e2fsprogs' wanted=$guest ;;
  test | bench) packages="qemu-utils nbdkit libnbd-bin fio e2fsprogs socat fuse3 iproute2 rsync p7zip-full libvhdi-utils openssl chromium fonts-dejavu-core $guest"
    wanted='prometheus libvirt-clients libvirt-daemon libvirt-daemon-driver-qemu libxml2-utils qemu-guest-agent' ;;
  *) echo "with-setup.sh: unknown purpose $purpose" >&2; exit 2 ;;
esac
absent() {
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || printf ' %s' "$package"
  done
}
install_packages() {
  log=$(mktemp)
  echo "setup: installing$*" >&2
  # The word lists are meant to be split.
  # shellcheck disable=SC2068
  if { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $@; } >"$log" 2>&1; then
    rm -f "$log"
  else
    tail -5 "$log" >&2
    rm -f "$log"
    return 1
  fi
}
if command -v dpkg-query >/dev/null; then
  missing=$(absent $packages)
  lacking=$(absent $wanted)
  if [ "$(id -u)" = 0 ]; then
    if [ -n "$missing" ]; then
      install_packages "$missing" || { echo "setup: apt failed; run: apt-get install --no-install-recommends$missing" >&2; exit 5; }
    fi
    if [ -n "$lacking" ]; then
      install_packages "$lacking" || echo "setup: going on without$lacking" >&2
    fi
  elif [ -n "$missing" ]; then
    echo "setup: please install first: sudo apt-get install --no-install-recommends$missing$lacking" >&2
    exit 5
  elif [ -n "$lacking" ]; then
    echo "setup: going on without$lacking; to have all of it: sudo apt-get install --no-install-recommends$lacking" >&2
  fi
elif [ -n "$packages" ]; then
  echo "setup: this system has no dpkg; the programs of these Debian packages are needed: $packages $wanted" >&2
fi
PATH="$root/node_modules/.bin:$PATH"
UV_THREADPOOL_SIZE=${UV_THREADPOOL_SIZE:-16}
NODE_COMPILE_CACHE=${NODE_COMPILE_CACHE:-$root/node_modules/.cache/compiled}
export PATH UV_THREADPOOL_SIZE NODE_COMPILE_CACHE
exec "$@"

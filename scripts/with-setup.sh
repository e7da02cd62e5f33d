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
case $purpose in
  build) packages='' ;;
  demo) packages='qemu-utils libnbd-bin fio e2fsprogs qemu-system-x86 busybox-static cpio' ;;
  test | bench) packages='qemu-utils qemu-system-x86 nbdkit libnbd-bin fio busybox-static cpio e2fsprogs socat fuse3 iproute2 rsync p7zip-full libvhdi-utils' ;;
  *) echo "with-setup.sh: unknown purpose $purpose" >&2; exit 2 ;;
esac
missing=''
for package in $packages; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "setup: installing$missing" >&2
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >.setup.log.tmp 2>&1 ||
      { tail -5 .setup.log.tmp >&2; echo "setup: apt failed; run: apt-get install$missing" >&2; exit 5; }
    rm -f .setup.log.tmp
  else
    echo "setup: please install first: sudo apt-get install --no-install-recommends$missing" >&2
    exit 5
  fi
fi
PATH="$root/node_modules/.bin:$PATH"
UV_THREADPOOL_SIZE=${UV_THREADPOOL_SIZE:-16}
export PATH UV_THREADPOOL_SIZE
exec "$@"

# Writes record after record until told to stop, each made durable before the next is begun. What record n is, and what
# must hold of any prefix of them, is told in records.ts. "ACK n" on the serial line: record n is durable.
. /jobs/disks.sh
mount_all || exit 11
zeros=$(printf '%0222d' 0)
line() {
  x=0000000000$(($1 % 10000000000)); a=${x#"${x%??????????}"}
  x=0000000000$((($1 * 7919 + 12345) % 1000003)); b=${x#"${x%??????????}"}
  LINE="$a $b $zeros$b"
}
slot() {
  dd of=/mnt/$((($1 % SLOTS + 1) % DISKS))/slots bs=4096 seek=$(($1 % SLOTS)) conv=notrunc,fsync status=none <<LAST ||
$LINE
LAST
    { echo "GUEST-ERROR rewriting slot of record $1 failed"; exit 12; }
}
d=0
while [ $d -lt "$DISKS" ]; do
  if [ ! -f /mnt/$d/manifest ]; then
    mkdir -p /mnt/$d/seed
    for f in a b c; do dd if=/dev/urandom of=/mnt/$d/seed/$f bs=1k count="$SEED_KIB" 2>/dev/null; done
    (cd /mnt/$d/seed && sha256sum a b c > ../manifest.new && mv ../manifest.new ../manifest)
  fi
  d=$((d + 1))
done
sync
# Goes on after what is there, as a virtual machine does after a failover: half a line is cut off, the slot of the newest
# record is written again (its first writing may be the one that was lost).
n=0
for f in /mnt/*/lane*; do
  [ -f "$f" ] || continue
  size=$(stat -c %s "$f")
  [ $((size % 255)) -eq 0 ] || truncate -s $((size - size % 255)) "$f"
  last=$(tail -n 1 "$f" | cut -d' ' -f1 | sed 's/^0*//')
  [ "${last:-0}" -gt $n ] && n=$last
done
[ $n -gt 0 ] && { line $n; slot $n; }
(while read -r word; do [ "$word" = stop ] && { : > /stop; break; }; done < /dev/ttyS0) &
echo "GUEST-START $n"
while [ ! -f /stop ]; do
  n=$((n + 1))
  line $n
  lane=$((n % LANES))
  dd of=/mnt/$((lane % DISKS))/lane$lane oflag=append conv=notrunc,fsync bs=4096 status=none <<LAST ||
$LINE
LAST
    { echo "GUEST-ERROR appending record $n failed"; exit 12; }
  slot $n
  if [ $((n % 16)) -eq 0 ]; then
    echo "$LINE" > /mnt/0/renamed.new && sync /mnt/0/renamed.new && mv /mnt/0/renamed.new /mnt/0/renamed && sync /mnt/0 ||
      { echo "GUEST-ERROR renaming at record $n failed"; exit 12; }
  fi
  echo "ACK $n"
done
umount_all

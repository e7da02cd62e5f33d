# Mounts the disks as after a power cut, hands the records out on one more disk (the host judges them), checks the seed
# files here, and at last the file systems.
. /jobs/disks.sh
mount_all || exit 21
rc=0
d=0
while [ $d -lt "$DISKS" ]; do
  (cd /mnt/$d/seed && sha256sum -c -s ../manifest) || { echo "GUEST-ERROR seed files of disk $d differ from their sums"; rc=22; }
  d=$((d + 1))
done
(cd /mnt && tar -cf "$(disk "$DISKS")" $(ls -d */lane* */slots */renamed 2>/dev/null)) || { echo "GUEST-ERROR no records to hand out"; rc=23; }
umount_all
d=0
while [ $d -lt "$DISKS" ]; do
  /bin/e2fsck -fn "$(disk $d)" > /fsck 2>&1 || { echo "GUEST-ERROR e2fsck of disk $d: $(tail -n 12 /fsck | tr '\n' ';')"; rc=24; }
  d=$((d + 1))
done
exit $rc

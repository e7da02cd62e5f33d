# The n-th disk of the machine, and all of them mounted at /mnt/0, /mnt/1, …
disk() { echo "/dev/vd$(echo abcdefgh | cut -c$(($1 + 1)))"; }
mount_all() {
  d=0
  while [ $d -lt "$DISKS" ]; do
    mkdir -p /mnt/$d
    mount -t ext4 "$(disk $d)" /mnt/$d || { echo "GUEST-ERROR disk $d does not mount"; return 1; }
    d=$((d + 1))
  done
}
umount_all() {
  d=0
  while [ $d -lt "$DISKS" ]; do umount /mnt/$d || return 1; d=$((d + 1)); done
}

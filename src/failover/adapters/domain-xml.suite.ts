/** A domain for tests, with everything in it that a replica must take over, change or leave out. */

export const UUID = '5f0b8a9e-2c1d-4e3f-8a7b-6c5d4e3f2a1b';

/** As `virsh dumpxml --inactive` writes it, with everything of interest in it. */
export const DOMAIN = `<domain type='qemu' id='4' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web-one</name>
  <uuid>${UUID}</uuid>
  <!-- a comment with 'quotes' and <angles> -->
  <memory unit='KiB'>131072</memory>
  <vcpu placement='static' cpuset='4-7'>1</vcpu>
  <cputune><vcpupin vcpu='0' cpuset='4'/></cputune>
  <sysinfo type='smbios'><system><entry name='uuid'>${UUID}</entry></system></sysinfo>
  <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/><kernel>/etc/shadow</kernel>
    <loader readonly='yes' type='pflash'>/home/me/evil.fd</loader><nvram template='/usr/share/OVMF/OVMF_VARS.fd'>/var/lib/nvram/web.fd</nvram></os>
  <features><acpi/></features>
  <clock offset='utc'/>
  <devices>
    <emulator>/home/me/evil</emulator>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='none'/>
      <source protocol='nbd' name='web1/0'><host transport='unix' socket='/berlin/nbd.sock'/></source>
      <target dev='vda' bus='virtio'/><alias name='virtio-disk0'/><serial>ABC</serial>
    </disk>
    <disk type='file' device='disk'><source file='/srv/scratch.raw'/><target dev='vdb' bus='virtio'/></disk>
    <disk type='network' device='disk'>
      <source protocol='nbd' name='web1/2'><host transport='unix' socket='/berlin/nbd.sock'/></source><target dev='vdc' bus='virtio'/>
    </disk>
    <disk type='file' device='cdrom'><source file='/etc/shadow'/><target dev='hda' bus='ide'/><readonly/></disk>
    <interface type='network'><mac address='52:54:00:AA:bb:cc'/><source network='default'/><target dev='vnet3'/><model type='virtio'/></interface>
    <interface type='bridge'><mac address='52:54:00:00:00:02'/><source bridge='br0'/><model type='virtio'/></interface>
    <serial type='file'><source path='/etc/cron.d/x'/><target port='0'/></serial>
    <channel type='unix'><source mode='bind' path='/etc/x'/><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <filesystem type='mount'><source dir='/'/><target dir='root'/></filesystem>
    <hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0' bus='6' slot='2' function='0'/></source></hostdev>
    <graphics type='vnc' port='-1' autoport='yes' listen='0.0.0.0' passwd='x'><listen type='address' address='0.0.0.0'/></graphics>
    <rng model='virtio'><backend model='random'>/etc/shadow</backend></rng>
    <memballoon model='virtio'/>
  </devices>
  <seclabel type='none'/>
  <qemu:commandline><qemu:arg value='-evil'/></qemu:commandline>
</domain>`;

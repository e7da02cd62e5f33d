/** Virtual machines and their disks: add, list, attach, stop, remove. */
import { keptOut } from '../../model/direction.ts';
import { UnderstudyError } from '../../model/errors.ts';
import type { DiskRecord, VmRecord } from '../../model/records.ts';
import type { HostOperations } from '../api/contract.ts';
import type { Host } from '../host.ts';
import { vmShape } from '../status.ts';

type Operations = Pick<HostOperations, 'vm.add' | 'vm.list' | 'vm.show' | 'vm.attach' | 'vm.stop' | 'vm.remove'>;

export function vmOperations(host: Host): Operations {
  return {
    'vm.add': async ({ name, disks, logDir }) => {
      if (host.catalog.vmByName(name) !== undefined) {
        throw new UnderstudyError('usage', 'VM_EXISTS', `there is a VM '${name}' on this host already`, 'Choose another name, or remove it first.');
      }
      const vm: VmRecord = {
        vmId: host.parts.random.uuid(), name, createdAt: host.parts.clock.now(), side: 'primary', disks: await probeDisks(host, disks),
        logFolder: logDir ?? null, attach: 'on-demand', trustDisk: false, tracking: null,
      };
      if (logDir !== undefined) await host.parts.files.makeFolder(logDir);
      host.catalog.transaction(() => host.catalog.vms.put(vm));
      host.adopt(vm);
      return vmShape(host, vm);
    },
    'vm.list': async () => host.catalog.vms.list().map((vm) => vmShape(host, vm)),
    'vm.show': async ({ name }) => vmShape(host, host.vm(name)),
    'vm.attach': async ({ name, trustDisk }) => {
      const vm = primaryOnly(host, name, 'vm attach');
      const refusal = keptOut(name, host.relationships.find(vm.vmId));
      if (refusal !== null) throw refusal;
      const changed: VmRecord = { ...vm, attach: 'attached', trustDisk: trustDisk ?? vm.trustDisk };
      host.catalog.transaction(() => host.catalog.vms.put(changed));
      try {
        await host.primary(vm.vmId).hold('guest');
      } catch (error) {
        host.catalog.transaction(() => host.catalog.vms.put({ ...host.vm(name), attach: vm.attach, trustDisk: vm.trustDisk }));
        throw error;
      }
      return vmShape(host, host.vm(name));
    },
    'vm.stop': async ({ name }) => {
      const vm = primaryOnly(host, name, 'vm stop');
      host.catalog.transaction(() => host.catalog.vms.put({ ...vm, attach: 'stopped' }));
      await host.closeExports(vm);
      await host.primary(vm.vmId).letGo('guest');
      return vmShape(host, host.vm(name));
    },
    'vm.remove': async ({ name }) => {
      const vm = host.vm(name);
      if (host.relationships.find(vm.vmId) !== undefined) {
        throw new UnderstudyError('state', 'VM_IS_REPLICATED', `VM '${name}' is replicated`,
          `End replication first: understudy remove '${name}'`);
      }
      if (host.guests(vm.vmId) > 0) {
        throw new UnderstudyError('state', 'VM_IN_USE', `${host.guests(vm.vmId)} guest connections of VM '${name}' are open`,
          'Shut the guest down first.');
      }
      const shape = vmShape(host, vm);
      await host.abandon(vm);
      host.catalog.transaction(() => host.catalog.vms.remove(vm.vmId));
      return shape;
    },
  };
}

export function primaryOnly(host: Host, name: string, operation: string): VmRecord {
  const vm = host.vm(name);
  if (vm.side === 'primary') return vm;
  const remote = host.relationships.find(vm.vmId)?.remote;
  const there = remote === undefined ? 'its primary' : `the primary, host ${remote.name || remote.host}`;
  throw new UnderstudyError('state', 'WRONG_SIDE', `VM '${name}' is on this host as replica: operation '${operation}' belongs on ${there}`,
    `Run it on ${there}.`);
}

/**
 * Opens every disk once, so that one that is missing, in use, read-only or of a strange format is refused before anything
 * changes.
 */
async function probeDisks(host: Host, locations: string[]): Promise<DiskRecord[]> {
  const records: DiskRecord[] = [];
  for (const [index, path] of locations.entries()) {
    const user = host.catalog.vms.list().find((vm) => vm.disks.some((disk) => disk.path === path));
    if (user !== undefined || records.some((disk) => disk.path === path)) {
      throw new UnderstudyError('state', 'DISK_IN_USE', `disk ${path} belongs to VM '${user?.name ?? 'to be added'}' already`,
        'Give each disk once, or remove the other VM first.');
    }
    const record = await host.parts.describeDisk(path);
    records.push({ ...record, diskId: `d${index}`, path });
  }
  return records;
}

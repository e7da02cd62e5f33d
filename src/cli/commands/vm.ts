/** Virtual machines and their disks. */

import type { Vm } from '../../server/api/contract.ts';
import { define, option, size } from '../command.ts';
import type { CommandDefinition } from '../command.ts';
import { bytes, yesNo } from '../format.ts';
import { libvirtLines, qemuLines, type PastedDisk } from '../../model/hypervisor-lines.ts';
import type { Output, Row } from '../output.ts';

const nameHelp = { name: 'name of the virtual machine' };

export const vmCommands: CommandDefinition[] = [
  define<{ disk: string[]; logDir?: string }>({
    path: 'vm add',
    arguments: '<name>',
    argumentHelp: nameHelp,
    summary: 'Make a virtual machine and its disks known to this host.',
    details:
      'A disk is an image file (raw, VHD, VHDX), a block device, or an NBD URI (so qcow2 through ' +
      'qemu-nbd). Nothing is changed on it.\n' +
      'All disks that the guest uses together belong to one VM: they are replicated as one instant.',
    options: [
      option('--disk <path...>', 'one or more disks; may be repeated').makeOptionMandatory(),
      option('--log-dir <dir>', 'folder for the tracking logs (default: in the data folder)'),
    ],
    examples: [
      'vm add web1 --disk /srv/vm/web1-root.raw /srv/vm/web1-data.vhdx',
      "vm add db --disk 'nbd+unix:///?socket=/run/db.sock'",
    ],
    async run({ call, output, path, diskLocation }, [name], { disk, logDir }) {
      const vm = await call('vm.add', {
        name: name!,
        disks: disk.map(diskLocation),
        ...(logDir === undefined ? {} : { logDir: path(logDir) }),
      });
      output.print(vm, (shown) => describe(shown, output));
    },
  }),
  define({
    path: 'vm list',
    summary: 'List the virtual machines of this host.',
    examples: ['vm list', "vm list --json | jq -r '.[].name'"],
    async run({ call, output }) {
      output.print(await call('vm.list', {}), (vms) =>
        output.table(vms.map(tableRow), 'This host knows no virtual machine.'),
      );
    },
  }),
  define({
    path: 'vm show',
    arguments: '<name>',
    argumentHelp: nameHelp,
    summary: 'Show one virtual machine and its disks.',
    examples: ['vm show web1'],
    async run({ call, output }, [name]) {
      output.print(await call('vm.show', { name: name! }), (vm) => describe(vm, output));
    },
  }),
  define<{ trustDisk?: true }>({
    path: 'vm attach',
    arguments: '<name>',
    argumentHelp: nameHelp,
    summary: 'Serve the disks over NBD, and print the lines that make a hypervisor open them.',
    details:
      'From now on every write goes through this server and is tracked. The NBD URI stays the same ' +
      'over restarts of the server; ' +
      "QEMU's reconnect-delay makes the guest wait for a restart instead of seeing an I/O error. " +
      'A disk with sectors of 4096 bytes needs the block sizes that the lines name: NBD does not tell a guest of them.',
    options: [option('--trust-disk', 'you vouch that nobody wrote to a device whose past no mark can prove')],
    examples: ['vm attach web1', "vm attach web1 --json | jq -r '.disks[].uri'"],
    async run({ call, output }, [name], { trustDisk }) {
      const vm = await call('vm.attach', { name: name!, ...(trustDisk === true ? { trustDisk } : {}) });
      output.print(vm, (shown) => `${describe(shown, output)}${pasteLines(shown)}`);
    },
  }),
  define({
    path: 'vm stop',
    arguments: '<name>',
    argumentHelp: nameHelp,
    summary: 'Stop serving the disks, and seal them.',
    details:
      'Shut the guest down first. What somebody else writes to the disks from now on is found at the next attach.',
    examples: ['vm stop web1'],
    async run({ call, output }, [name]) {
      output.print(await call('vm.stop', { name: name! }), (vm) => describe(vm, output));
    },
  }),
  define<{ disk: string; size: number }>({
    path: 'vm resize',
    arguments: '<name>',
    argumentHelp: nameHelp,
    summary: 'Grow a disk. The guest may go on running, and the replica follows without resynchronization.',
    details:
      'Raw image files only, and only larger. A guest sees the new size when its hypervisor opens the disk again. ' +
      'On the replica host it is needed only when a resynchronization names two sizes.',
    options: [
      option('--disk <path>', 'the disk, as `vm show` names it').makeOptionMandatory(),
      option('--size <size>', 'the new size in bytes, or with K, M, G, T (powers of 1024)').argParser(size).makeOptionMandatory(),
    ],
    examples: ['vm resize web1 --disk /srv/vm/web1-data.raw --size 200G'],
    async run({ call, output, diskLocation }, [name], { disk, size: larger }) {
      output.print(await call('vm.resize', { name: name!, path: diskLocation(disk), size: larger }), (vm) => describe(vm, output));
    },
  }),
  define({
    path: 'vm remove',
    arguments: '<name>',
    argumentHelp: nameHelp,
    summary: 'Forget a virtual machine. Its disks stay as they are.',
    details: 'Refused while it is attached or replicated: run `vm stop` and `remove` first.',
    examples: ['vm remove web1'],
    async run({ call, output }, [name]) {
      output.print(
        await call('vm.remove', { name: name! }),
        (vm) => `${vm.name} is forgotten; its disks were not touched.`,
      );
    },
  }),
];

function tableRow(vm: Vm): Row {
  const total = vm.disks.reduce((sum, disk) => sum + disk.virtualSize, 0);
  return [
    ['Name', vm.name],
    ['Attached', yesNo(vm.attached)],
    ['Disks', String(vm.disks.length)],
    ['Size', bytes(total)],
    ['VMId', vm.vmId],
  ];
}

function describe(vm: Vm, output: Output): string {
  const head = output.list([
    ['Name', vm.name],
    ['VMId', vm.vmId],
    ['Attached', yesNo(vm.attached)],
    ...guestRows(vm),
  ]);
  const disks = vm.disks.map((disk): Row => [
    ['Disk', disk.path],
    ['Format', disk.format],
    ['Size', bytes(disk.virtualSize)],
    ...(disk.uri === null ? [] : [['URI', disk.uri] as const]),
    ...(typeof disk.tcpUri === 'string' ? [['URI over TCP', disk.tcpUri] as const] : []),
  ]);
  return `${head}\n\n${output.table(disks, 'no disks')}`;
}

function pasteLines(vm: Vm): string {
  const uris = vm.disks.flatMap(({ uri, logicalSectorSize }) => (uri === null ? [] : [{ uri, logicalSectorSize }]));
  const tcp = vm.disks.flatMap(({ tcpUri, logicalSectorSize }) => (typeof tcpUri === 'string' ? [{ uri: tcpUri, logicalSectorSize }] : []));
  const lines = (where: string, of: PastedDisk[]) =>
    `\n\nQEMU${where}:\n${qemuLines(of)}\n\nlibvirt${where}, inside <devices>:\n${libvirtLines(of)}`;
  return `${lines('', uris)}${tcp.length === 0 ? '' : lines(' over TCP', tcp)}`;
}

/** How the guest is started here, and how that went last. */
function guestRows({ hypervisor }: Vm): Row {
  if (hypervisor === undefined || hypervisor.adapter === 'none') return [];
  const runs = [['Guest', hypervisor.guest], ['Test guest', hypervisor.testGuest]] as const;
  return [
    ['Adapter', hypervisor.adapter],
    ...runs.flatMap(([title, run]) => (run === null ? [] : [[title, run.failure === null ? run.action : `${run.action}: ${run.failure.message}`] as const,
      ...(run.output === '' ? [] : [[`${title} said`, run.output] as const])])),
  ];
}

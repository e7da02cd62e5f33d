/** The adapter `none`: a person starts the guest, with lines to paste. */
import { libvirtLines, qemuLines } from '../../model/hypervisor-lines.ts';
import type { HypervisorAdapter } from './adapter.ts';

export const noAdapter: HypervisorAdapter = {
  kind: 'none',
  start: async ({ disks }) => `QEMU:\n${qemuLines(disks)}\n\nlibvirt, inside <devices>:\n${libvirtLines(disks)}`,
  stop: async () => '',
  powerOff: async () => '',
};

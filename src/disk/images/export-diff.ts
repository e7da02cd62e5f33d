/** What a plain diff disk holds (of a resynchronization or a failover over a raw disk) as a qcow2 overlay, which QEMU can open. */
import { UnderstudyError } from '../../model/errors.ts';
import { openDiffDisk } from '../diff-disk.ts';
import { openFailure } from '../disk-errors.ts';
import { hostClock } from '../host-clock.ts';
import { hostFiles } from '../host-files.ts';
import { openDisk } from '../open-disk.ts';
import type { LongWork } from '../vhd/merge-runs.ts';
import { qemuCreate, qemuImage, writeQcow2 } from './qemu-tools.ts';

/**
 * Makes the overlay at `dest` over `base`. The diff disk stays as it is; nobody may be writing to it. After an interruption there is
 * nothing at `dest`.
 * @throws DIFF_DISK_NOT_FOUND, DIFF_DISK_DAMAGED, DISK_EXISTS, QEMU_IMG_FAILED
 */
export async function exportDiff(base: string, diff: string, dest: string, { progress, signal }: LongWork): Promise<void> {
  if ((await hostFiles.stat(dest)) !== null) throw openFailure(dest, Object.assign(new Error(dest), { code: 'EEXIST' }));
  if ((await hostFiles.stat(`${diff}.map`)) === null) {
    throw new UnderstudyError('usage', 'DIFF_DISK_NOT_FOUND', `${diff} is no diff disk: there is no ${diff}.map`,
      'Name the .diff file beside the replica disk; an .avhd or .avhdx is a differencing image already.');
  }
  const source = await openDiffDisk(hostFiles, diff, await openDisk(base, { readOnly: true, lock: false, format: 'raw' }));
  try {
    await qemuCreate(dest, { backing: await qemuImage(base, 'raw', hostFiles, { write: false }) });
    const overlay = await qemuImage(dest, 'qcow2', hostFiles, { write: true });
    await writeQcow2(overlay, `${dest}.socket`, { clock: hostClock, ...(signal && { signal }) }, (into) =>
      source.merge(into, { ...(signal && { signal }), onProgress: (merged) => progress?.(merged, source.heldBytes) }));
  } catch (error) {
    await hostFiles.remove(dest);
    throw error;
  } finally {
    await hostFiles.remove(`${dest}.socket`);
    await source.close();
  }
}

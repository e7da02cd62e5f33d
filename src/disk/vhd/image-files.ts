import { constants } from 'node:fs';
import type { Files } from '../../model/ports.ts';
import type { Descriptor } from '../descriptor.ts';
import { diskInUse, diskNotSupported, openFailure } from '../disk-errors.ts';
import { hostRandom } from '../host-clock.ts';
import { hostFiles } from '../host-files.ts';
import { lockImage } from '../image-lock.ts';
import { libc } from '../libc.ts';
import { openDescriptor } from '../open-descriptor.ts';
import type { OpenDiskOptions } from '../open-disk.ts';
import type { VirtualDisk } from '../virtual-disk.ts';
import { openVhdx } from '../vhdx/open.ts';
import { openVhd } from './open.ts';

/**
 * Image files of this host, opened under QEMU's image locks. What resizes, compacts or merges locks only what it writes
 * (`lock: 'writers'`); an open disk also keeps writers away from what it reads, its parents among it (`lock: 'all'`).
 */
export function imageFiles(lock: 'all' | 'writers' | 'none'): Files {
  return {
    open: async (path, mode) => {
      const flags = mode === 'create' ? constants.O_CREAT | constants.O_EXCL : 0;
      const file = await openDescriptor(path, { readOnly: mode === 'read', flags });
      try {
        await takeLock(file, mode === 'read' ? 'read' : 'write', lock);
        return file;
      } catch (error) {
        await file.close();
        throw openFailure(path, error);
      }
    },
    rename: hostFiles.rename,
    remove: hostFiles.remove,
    makeFolder: hostFiles.makeFolder,
    list: hostFiles.list,
    stat: hostFiles.stat,
    syncFolder: hostFiles.syncFolder,
    freeBytes: hostFiles.freeBytes,
  };
}

async function takeLock(file: Descriptor, mode: 'read' | 'write', lock: 'all' | 'writers' | 'none'): Promise<void> {
  const stat = await file.stat();
  if (!stat.isFile()) throw diskNotSupported(file.path, 'is not a regular file', 'Name the image file.');
  if (lock === 'none' || (lock === 'writers' && mode === 'read')) return;
  const result = lockImage(file.fd, mode, libc());
  if (result.kind === 'conflict') throw diskInUse(file.path, result.by);
}

/** For FORMAT_OPENERS. */
export const openVhdFile = (path: string, options: OpenDiskOptions): Promise<VirtualDisk> =>
  saying(path, openVhd(path, imageFiles(options.lock === false ? 'none' : 'all'), options));

export const openVhdxFile = (path: string, options: OpenDiskOptions): Promise<VirtualDisk> =>
  saying(path, openVhdx(path, imageFiles(options.lock === false ? 'none' : 'all'), { ...options, random: hostRandom }));

/** System errors in words. */
async function saying<T>(path: string, opening: Promise<T>): Promise<T> {
  try {
    return await opening;
  } catch (error) {
    throw openFailure(path, error);
  }
}

import { constants } from 'node:fs';
import { errnoOf } from '../model/errors.ts';
import { Descriptor, type OpenOptions } from './descriptor.ts';
import { diskReadOnly, openFailure } from './disk-errors.ts';

/**
 * Descriptor.open for a disk, with failures said in words (`openFailure`). `flags` are added to the access mode.
 * O_NONBLOCK, which means nothing to files and disks, so that a pipe at the path is refused by the caller instead of
 * waited for.
 */
export async function openDescriptor(
  path: string, options: Omit<OpenOptions, 'mode'> & { readOnly: boolean; flags?: number },
): Promise<Descriptor> {
  const open = (readOnly: boolean, flags: number): Promise<Descriptor> =>
    Descriptor.open(path, (readOnly ? constants.O_RDONLY : constants.O_RDWR) | constants.O_NONBLOCK | flags, options);
  try {
    return await open(options.readOnly, options.flags ?? 0);
  } catch (error) {
    if (options.readOnly || !['EACCES', 'EPERM'].includes(errnoOf(error) ?? '')) throw openFailure(path, error);
    // Refused for writing: whoever may at least read it needs another advice than who may not touch it.
    const readable = await open(true, 0).catch(() => null);
    await readable?.close();
    throw readable === null ? openFailure(path, error) : diskReadOnly(path, 'it may only be read', error);
  }
}

/** New disks for guests. */
import { truncate, writeFile } from 'node:fs/promises';
import { mustRun } from '../program.ts';

/** A sparse raw file with an empty ext4 file system over all of it. Needs no root. */
export async function makeExt4(path: string, bytes: number): Promise<void> {
  await writeFile(path, '');
  await truncate(path, bytes);
  await mustRun('mkfs.ext4', ['-q', '-F', '-E', 'lazy_itable_init=1,nodiscard', path],
    { env: { PATH: `${process.env.PATH}:/usr/sbin:/sbin` } });
}

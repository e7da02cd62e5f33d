/**
 * The real `Files` port: node:fs with positional I/O. Open files are `Descriptor`s, which can also punch and list
 * holes.
 */
import { constants, type BigIntStats } from 'node:fs';
import { mkdir, readdir, rename, rm, stat, statfs } from 'node:fs/promises';
import { errnoOf } from '../model/errors.ts';
import type { Files, FileStat } from '../model/ports.ts';
import { Descriptor } from './descriptor.ts';

const OPEN_FLAGS = {
  read: constants.O_RDONLY,
  write: constants.O_RDWR,
  create: constants.O_RDWR | constants.O_CREAT | constants.O_EXCL,
} as const;

export const hostFiles = {
  open: (path: string, mode: keyof typeof OPEN_FLAGS): Promise<Descriptor> => Descriptor.open(path, OPEN_FLAGS[mode]),
  rename: (from: string, to: string): Promise<void> => rename(from, to),
  remove: (path: string): Promise<void> => rm(path, { force: true }),

  async makeFolder(path: string): Promise<void> {
    await mkdir(path, { recursive: true, mode: 0o700 });
  },

  async list(path: string): Promise<string[]> {
    try {
      return (await readdir(path)).sort();
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return [];
      throw error;
    }
  },

  async stat(path: string): Promise<FileStat | null> {
    const found = await stat(path, { bigint: true }).catch((error: unknown) => {
      if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return null;
      throw error;
    });
    return found && fileStat(found);
  },

  /** A folder is synced through a read-only opening of it; rejects when `path` is no folder. */
  async syncFolder(path: string): Promise<void> {
    const folder = await Descriptor.open(path, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  },

  /** What an unprivileged process may still write: the reserve of root does not count. */
  async freeBytes(path: string): Promise<number> {
    const volume = await statfs(path);
    return volume.bavail * volume.bsize;
  },
} satisfies Files;

export function fileStat(stat: BigIntStats): FileStat {
  return {
    kind: stat.isFile() ? 'file' : stat.isDirectory() ? 'folder' : stat.isBlockDevice() ? 'block' : 'other',
    size: Number(stat.size),
    allocated: Number(stat.blocks) * 512,
    mtimeNs: stat.mtimeNs,
    ctimeNs: stat.ctimeNs,
    inode: stat.ino,
    device: stat.dev,
  };
}

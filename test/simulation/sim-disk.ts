/** Disks on a simulated volume: raw ones, and images through the product's own readers and writers. */
import { createVhd } from '../../src/disk/vhd/create.ts';
import { openVhd } from '../../src/disk/vhd/open.ts';
import { createVhdx } from '../../src/disk/vhdx/create.ts';
import { openVhdx } from '../../src/disk/vhdx/open.ts';
import { assertInside, type Seal, type VirtualDisk } from '../../src/disk/virtual-disk.ts';
import type { Clock, Files, OpenFile, Random } from '../../src/model/ports.ts';
import type { DiskRecord } from '../../src/model/records.ts';
import type { SimVolume } from './sim-files.ts';

export function simDisk(volume: SimVolume, file: OpenFile, size: number): VirtualDisk {
  const disk: VirtualDisk = {
    // No path of the real file system: nothing may go and look there.
    location: `simulated:${file.path}`, format: 'raw', variant: 'fixed', logicalSectorSize: 512, physicalSectorSize: 512,
    get virtualSize() {
      return size;
    },
    geometry: null, readOnly: false, discardReadsZero: true,
    async read(into, offset) {
      assertInside(disk, offset, into.length);
      into.fill(0);
      await file.read(into, offset);
    },
    async write(from, offset) {
      assertInside(disk, offset, from.length);
      await file.write([from], offset);
    },
    // As a file of this machine does, into the page cache at once; what it is asked later goes the long way.
    writeNow(from, offset) {
      assertInside(disk, offset, from.length);
      if (!volume.scheduler.dice.chance(0.7)) return false;
      volume.edit(file.path, from, offset);
      return true;
    },
    zero: (offset, length) => file.write([new Uint8Array(length)], offset),
    discard: (offset, length) => file.write([new Uint8Array(length)], offset),
    flush: () => file.datasync(),
    async *extents(offset, length) {
      yield { offset, length, kind: 'data' as const };
    },
    async seal(): Promise<Seal> {
      const stat = volume.statOf(file.path)!;
      return { kind: 'file', size: stat.size, mtimeNs: String(stat.mtimeNs), ctimeNs: String(stat.ctimeNs),
        inode: String(stat.inode), device: String(stat.device) };
    },
    async grow(larger) {
      await file.truncate(larger);
      await file.datasync();
      size = larger;
    },
    close: () => file.close(),
  };
  return disk;
}

type What = Pick<DiskRecord, 'path' | 'format'>;

export async function openSimDisk(volume: SimVolume, files: Files, { path, format }: What, mode: 'read' | 'write', random: Random): Promise<VirtualDisk> {
  const readOnly = mode === 'read';
  if (format === 'vhd') return apart(await openVhd(path, files, { readOnly }));
  if (format === 'vhdx') return apart(await openVhdx(path, files, { readOnly, random }));
  const file = await files.open(path, mode);
  return simDisk(volume, file, await file.size());
}

/** Nothing may look for its file on the real file system: that takes real time, and a seed would not be the same run twice. */
const apart = (disk: VirtualDisk): VirtualDisk => Object.defineProperty(disk, 'lentFiles', { value: [`simulated:${disk.location}`] });

/** Blocks as small as they may be, so that a small disk has several. */
export async function createSimDisk(files: Files, { path, format }: What, size: number, ports: { random: Random; clock: Clock }): Promise<void> {
  const shape = { size, variant: 'dynamic', blockSize: 1 << 20, random: ports.random } as const;
  if (format === 'vhd') return createVhd(path, files, { ...shape, blockSize: 64 << 10, clock: ports.clock });
  if (format === 'vhdx') return createVhdx(path, files, shape);
  const file = await files.open(path, 'create');
  await file.truncate(size);
  await file.datasync();
  await file.close();
}

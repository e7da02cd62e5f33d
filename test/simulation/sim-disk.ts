/** A raw disk on a simulated volume. */
import { assertInside, type Seal, type VirtualDisk } from '../../src/disk/virtual-disk.ts';
import type { OpenFile } from '../../src/model/ports.ts';
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

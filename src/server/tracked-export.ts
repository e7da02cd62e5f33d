/** A disk of a primary as the NBD server serves it: reads go to the disk, writes through tracking. */
import type { DiskRecord, VmRecord } from '../model/records.ts';
import type { ClientInfo, NbdExport } from '../nbd/export.ts';
import type { TrackedDisk } from '../tracking/tracked-disk.ts';

/** The name of the export of a disk: `VM/0`, counted as the disks were added. */
export const exportName = (vm: Pick<VmRecord, 'name'>, index: number): string => `${vm.name}/${index}`;

export interface GuestDoor {
  disk(): Promise<TrackedDisk>;
  connected(client: ClientInfo): void;
  gone(client: ClientInfo): void;
}

export function trackedExport(name: string, record: DiskRecord, door: GuestDoor): NbdExport & { size: number } {
  // Opened at the first request of a connection at the latest; then the same object serves without waiting.
  let tracked: TrackedDisk | null = null;
  const withDisk = async <T>(work: (disk: TrackedDisk) => Promise<T>): Promise<T> => work(tracked ??= await door.disk());
  return {
    name, description: record.path, size: record.virtualSize, readOnly: false, minimumBlockSize: 1, preferredBlockSize: 4096,
    // One tracked disk serves all connections, and its flush covers every write that was answered.
    multiConnection: true, canTrim: true,
    read: (into, offset) => (tracked === null ? withDisk((disk) => disk.read(into, offset)) : tracked.read(into, offset)),
    write: (from, offset, { fua }) => withDisk((disk) => thenFlush(disk, disk.write(from, offset), fua)),
    zero: (offset, length, { fua, mayDiscard }) => withDisk((disk) => thenFlush(disk,
      mayDiscard && disk.disk.discardReadsZero ? disk.discard(offset, length) : disk.zero(offset, length), fua)),
    trim: (offset, length, { fua }) => withDisk((disk) => thenFlush(disk, disk.discard(offset, length), fua)),
    flush: () => withDisk((disk) => disk.flush()),
    async *extents(offset, length) {
      tracked ??= await door.disk();
      yield* tracked.extents(offset, length);
    },
    clientConnected: (client) => {
      // The VM may have been stopped and attached again since the last one: then its disks are others.
      tracked = null;
      door.connected(client);
    },
    clientGone: (client) => door.gone(client),
  };
}

async function thenFlush(disk: TrackedDisk, done: Promise<void>, fua: boolean): Promise<void> {
  await done;
  if (fua) await disk.flush();
}

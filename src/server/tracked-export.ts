/** A disk of a primary as the NBD server serves it: reads go to the disk, writes through tracking. */
import type { DiskRecord, VmRecord } from '../model/records.ts';
import { readPromptly, type ClientInfo, type NbdExport } from '../nbd/export.ts';
import type { TrackedDisk } from '../tracking/tracked-disk.ts';

/** The name of the export of a disk: `VM/0`, counted as the disks were added. */
export const exportName = (vm: Pick<VmRecord, 'name'>, index: number): string => `${vm.name}/${index}`;

export interface GuestDoor {
  /** The disk as it is held for guests at this moment; null when it has to be opened, or is being closed. */
  now(): TrackedDisk | null;
  /** Opens it, and holds it for guests. */
  disk(): Promise<TrackedDisk>;
  connected(client: ClientInfo): void;
  gone(client: ClientInfo): void;
}

export function trackedExport(name: string, record: DiskRecord, door: GuestDoor): NbdExport & { size: number } {
  // Asked for at every operation: the VM may be stopped and attached again, and then its disks are others.
  const withDisk = async <T>(work: (disk: TrackedDisk) => Promise<T>): Promise<T> => work(door.now() ?? await door.disk());
  return {
    name, description: record.path, size: record.virtualSize, readOnly: false, minimumBlockSize: 1, preferredBlockSize: 4096,
    // One tracked disk serves all connections, and its flush covers every write that was answered.
    multiConnection: true, canTrim: true,
    // Open disks take the short way: these run for every request of a guest.
    read: (into, offset) => {
      const disk = door.now();
      return disk === null ? withDisk((opened) => opened.read(into, offset)) : readPromptly(disk, into, offset);
    },
    write: (from, offset, { fua }) => {
      const disk = door.now();
      if (disk !== null && !fua) return disk.write(from, offset);
      return withDisk((opened) => thenFlush(opened, opened.write(from, offset), fua));
    },
    writeThen: (from, offset, ended) => {
      const disk = door.now();
      if (disk !== null) disk.writeThen(from, offset, ended);
      else withDisk((opened) => opened.write(from, offset)).then(() => ended(null), (failure: unknown) => ended(failure));
    },
    zero: (offset, length, { fua, mayDiscard }) => withDisk((disk) => thenFlush(disk,
      mayDiscard && disk.disk.discardReadsZero ? disk.discard(offset, length) : disk.zero(offset, length), fua)),
    trim: (offset, length, { fua }) => withDisk((disk) => thenFlush(disk, disk.discard(offset, length), fua)),
    flush: () => withDisk((disk) => disk.flush()),
    async *extents(offset, length) {
      yield* (door.now() ?? await door.disk()).extents(offset, length);
    },
    clientConnected: (client) => door.connected(client),
    clientGone: (client) => door.gone(client),
  };
}

async function thenFlush(disk: TrackedDisk, done: Promise<void>, fua: boolean): Promise<void> {
  await done;
  if (fua) await disk.flush();
}

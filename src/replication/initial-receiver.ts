/**
 * The replica's end of initial replication: builds new disk files beside whatever is there (R20) and makes them the replica disks
 * when the copy is whole.
 *
 * Invariants
 * - Only messages of the current token write (R18). Every piece is written after its digest matched.
 * - A cursor in the catalog never lies ahead of what is durable.
 * - The files take their final names before the catalog calls them the baseline; a crash between the two repeats the renames.
 */
import { writeSparsely } from '../disk/images/copy-disk.ts';
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import { UnderstudyError } from '../model/errors.ts';
import type { DiskRecord, InitialReplication } from '../model/records.ts';
import { adoptExisting } from './existing-copy.ts';
import type { ReplicationPorts } from './replication-ports.ts';

export const incomingPath = (disk: Pick<DiskRecord, 'path'>, token: string): string => `${disk.path}.${token.slice(0, 8)}.incoming`;

export class InitialReceiver {
  #ports: ReplicationPorts;
  #vmId: string;
  #open = new Map<string, Promise<VirtualDisk>>();
  #token = '';

  constructor(ports: ReplicationPorts, vmId: string) {
    this.#ports = ports;
    this.#vmId = vmId;
  }

  /** Begins a run, or takes the same one up again: then the cursors say how far it was. */
  async begin(token: string, method: InitialReplication['method'], firstEpoch: number): Promise<Record<string, number>> {
    const { relationships, files } = this.#ports;
    const vm = relationships.vm(this.#vmId);
    const before = relationships.get(this.#vmId).initial;
    if (before?.token !== token) {
      await this.close();
      if (method === 'existing') await adoptExisting(this.#ports, vm);
      const cursors = Object.fromEntries(vm.disks.map(({ diskId }) => [diskId, 0]));
      relationships.update(this.#vmId, {
        initial: { method, startAt: null, token, folder: null, firstEpoch, cursors, copied: false },
        // Logs of this run arrive while the copy does; those of an earlier one mean nothing now.
        lastReceivedEpoch: firstEpoch - 1,
      });
      for (const disk of vm.disks) {
        if (before !== null) await files.remove(incomingPath(disk, before.token));
        if (method === 'network') await this.#create(disk, token);
      }
    }
    this.#token = token;
    return relationships.get(this.#vmId).initial!.cursors;
  }

  async write(token: string, diskId: string, offset: number, data: Uint8Array, digest: string): Promise<void> {
    const found = Buffer.from(this.#ports.compute.digest(data)).toString('hex');
    if (found !== digest) {
      throw new UnderstudyError('peer', 'PIECE_DIGEST_MISMATCH', `a piece of ${data.length} bytes at ${offset} arrived damaged`,
        'It is sent again by itself.');
    }
    const disk = await this.#disk(token, diskId);
    if (offset + data.length > disk.virtualSize) {
      throw new UnderstudyError('usage', 'PIECE_OUTSIDE_DISK',
        `a piece at ${offset}+${data.length} of a disk of ${disk.virtualSize} bytes`, 'Check the disk sizes on both sides.');
    }
    await writeSparsely(disk, data, offset);
  }

  /** Everything before `offset` has been sent: makes it durable and remembers it. */
  async checkpoint(token: string, diskId: string, offset: number): Promise<void> {
    const disk = await this.#disk(token, diskId);
    await disk.flush();
    const { relationships } = this.#ports;
    const { initial } = relationships.get(this.#vmId);
    if (initial === null || initial.token !== token) throw stale();
    relationships.update(this.#vmId, { initial: { ...initial, cursors: { ...initial.cursors, [diskId]: offset } } });
  }

  /** Flushes everything and gives the new files their names. Repeatable. */
  async finish(token: string): Promise<void> {
    const { relationships, files } = this.#ports;
    const vm = relationships.vm(this.#vmId);
    const { initial } = relationships.get(this.#vmId);
    if (initial === null || initial.token !== token) throw stale();
    if (initial.method === 'existing') return;
    for (const disk of vm.disks) {
      const incoming = incomingPath(disk, token);
      if ((await files.stat(incoming)) === null && (await files.stat(disk.path)) !== null) continue;
      await (await this.#disk(token, disk.diskId)).flush();
    }
    await this.close();
    for (const disk of vm.disks) {
      const incoming = incomingPath(disk, token);
      if ((await files.stat(incoming)) === null) continue;
      await files.rename(incoming, disk.path);
      await files.syncFolder(disk.path.slice(0, disk.path.lastIndexOf('/')));
    }
  }

  async close(): Promise<void> {
    const open = [...this.#open.values()];
    this.#open.clear();
    for (const disk of open) await (await disk).close();
  }

  async #create(disk: DiskRecord, token: string): Promise<void> {
    const folder = disk.path.slice(0, disk.path.lastIndexOf('/'));
    await this.#ports.files.makeFolder(folder);
    const record = { ...disk, path: incomingPath(disk, token) };
    await this.#ports.files.remove(record.path);
    await this.#ports.createDisk(record);
    await this.#ports.files.syncFolder(folder);
  }

  #disk(token: string, diskId: string): Promise<VirtualDisk> {
    const { initial } = this.#ports.relationships.get(this.#vmId);
    if (initial === null || initial.token !== token) throw stale();
    if (this.#token !== token) {
      this.#token = token;
      this.#open.clear();
    }
    let open = this.#open.get(diskId);
    if (open === undefined) {
      const record = this.#ports.relationships.vm(this.#vmId).disks.find((disk) => disk.diskId === diskId);
      if (record === undefined) {
        throw new UnderstudyError('usage', 'DISK_NOT_FOUND', `there is no disk ${diskId} in this VM`, 'Enable replication again.');
      }
      const path = initial.method === 'existing' ? record.path : incomingPath(record, token);
      open = this.#ports.openDisk({ ...record, path });
      open.catch(() => this.#open.delete(diskId));
      this.#open.set(diskId, open);
    }
    return open;
  }
}

const stale = (): UnderstudyError =>
  new UnderstudyError('state', 'STALE_TOKEN', 'this run of initial replication has been replaced by a newer one', 'Start it again.');

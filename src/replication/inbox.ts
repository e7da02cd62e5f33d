/**
 * The replica's inbox: sets of logs arrive in pieces, become durable and checked, and wait to be applied. Receiving never waits
 * for applying.
 *
 * Invariants
 * - A set is acknowledged when every file is on stable storage and has the digest that was announced (R12); the catalog record
 *   turns to `received` after that.
 * - Only the next epoch is taken; a repeat of a known one is success.
 * - Pieces may be repeated and come at any offset within the announced size; nothing outside of it is written.
 */
import { UnderstudyError } from '../model/errors.ts';
import type { OpenFile } from '../model/ports.ts';
import type { InboxRecord, RelationshipRecord } from '../model/records.ts';
import { vmFolder } from '../tracking/tracking-ports.ts';
import type { OfferedLog } from './messages.ts';
import { storageFull } from './replica-failures.ts';
import type { ReplicationPorts } from './replication-ports.ts';

/** Left free on the inbox volume, so that the catalog can still be written. */
const RESERVE_BYTES = 64 << 20;
const READ_BYTES = 1 << 20;

export type OfferAnswer =
  | { status: 'wanted'; received: Record<string, number> }
  | { status: 'known' }
  | { status: 'gap'; expected: number };

interface OpenSet {
  record: InboxRecord;
  files: Map<string, { file: OpenFile; end: number }>;
}

type InboxPorts = Pick<ReplicationPorts, 'files' | 'catalog' | 'compute' | 'dataFolder' | 'log'>;

export class Inbox {
  #ports: InboxPorts;
  #vmId: string;
  #open: OpenSet | null = null;
  /** One piece, offer or commit at a time: they are cheap, and a repeated commit must not see half of the first. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(ports: InboxPorts, vmId: string) {
    this.#ports = ports;
    this.#vmId = vmId;
  }

  /** Sets waiting to be applied, oldest first. */
  waiting(): InboxRecord[] {
    return this.#ports.catalog.inbox.list(this.#vmId).filter(({ status }) => status === 'received');
  }

  bytes(): number {
    return this.waiting().reduce((sum, { disks }) => sum + disks.reduce((bytes, { size }) => bytes + size, 0), 0);
  }

  offer(
    relationship: RelationshipRecord, epoch: number, closedAt: number, disks: OfferedLog[], applicationConsistent = false,
  ): Promise<OfferAnswer> {
    return this.#inTurn(async () => {
      if (epoch <= relationship.lastReceivedEpoch) return { status: 'known' };
      if (epoch !== relationship.lastReceivedEpoch + 1) return { status: 'gap', expected: relationship.lastReceivedEpoch + 1 };
      await this.#checkSpace(disks);
      const set = await this.#openSet(epoch, closedAt, disks, applicationConsistent);
      return { status: 'wanted', received: Object.fromEntries([...set.files].map(([diskId, { end }]) => [diskId, end])) };
    });
  }

  write(epoch: number, diskId: string, offset: number, data: Uint8Array): Promise<void> {
    return this.#inTurn(async () => {
      const target = this.#open?.record.epoch === epoch ? this.#open.files.get(diskId) : undefined;
      if (this.#open === null || target === undefined) throw notOffered(epoch);
      const { size } = this.#open.record.disks.find((disk) => disk.diskId === diskId)!;
      if (offset + data.length > size) {
        throw new UnderstudyError('usage', 'LOG_PIECE_OUTSIDE', `piece ${offset}+${data.length} of a log of ${size} bytes`, 'Offer the log anew.');
      }
      await target.file.write([data], offset);
      // Pieces come in order; after a repeat from further back the end stays.
      if (offset <= target.end) target.end = Math.max(target.end, offset + data.length);
    });
  }

  /** Makes the set durable and checks it. `received` runs in the transaction that acknowledges it. */
  commit(epoch: number, received: (record: InboxRecord) => void): Promise<void> {
    return this.#inTurn(async () => {
      const set = this.#open;
      if (set === null || set.record.epoch !== epoch) throw notOffered(epoch);
      for (const { diskId, size, digest, path } of set.record.disks) {
        const { file } = set.files.get(diskId)!;
        await file.datasync();
        const found = await this.#digestOf(file, size);
        if (found === digest) continue;
        await this.#discard(set);
        throw new UnderstudyError('io', 'LOG_DIGEST_MISMATCH',
          `log ${path} arrived with digest ${found}, announced was ${digest}`, 'It is sent again by itself.');
      }
      await this.#ports.files.syncFolder(this.#folder());
      for (const { file } of set.files.values()) await file.close();
      this.#open = null;
      const record: InboxRecord = { ...set.record, status: 'received' };
      this.#ports.catalog.transaction(() => {
        this.#ports.catalog.inbox.put(record);
        received(record);
      });
    });
  }

  /** Forgets a set and its files: applied, or not usable. The catalog part may run inside the caller's transaction. */
  forget(record: InboxRecord): () => Promise<void> {
    this.#ports.catalog.transaction(() => this.#ports.catalog.inbox.remove(record.vmId, record.epoch));
    return async () => {
      for (const { path } of record.disks) await this.#ports.files.remove(path);
    };
  }

  /** Drops everything that waits or is arriving: a new baseline makes it meaningless. */
  clear(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#open !== null) await this.#discard(this.#open);
      for (const record of this.#ports.catalog.inbox.list(this.#vmId)) await this.forget(record)();
    });
  }

  close(): Promise<void> {
    return this.#inTurn(async () => {
      for (const { file } of this.#open?.files.values() ?? []) await file.close();
      this.#open = null;
    });
  }

  #folder(): string {
    return `${vmFolder(this.#ports, this.#vmId)}/inbox`;
  }

  async #checkSpace(disks: OfferedLog[]): Promise<void> {
    const folder = this.#folder();
    await this.#ports.files.makeFolder(folder);
    const needed = disks.reduce((sum, { size }) => sum + size, 0) + RESERVE_BYTES;
    const free = await this.#ports.files.freeBytes(folder);
    if (free >= needed) return;
    throw storageFull(`the inbox ${folder} has ${free} bytes free, ${needed} are needed`, null);
  }

  async #openSet(epoch: number, closedAt: number, disks: OfferedLog[], applicationConsistent: boolean): Promise<OpenSet> {
    const before = this.#open;
    if (before !== null && before.record.epoch === epoch && sameLogs(before.record, disks)) return before;
    if (before !== null) await this.#discard(before);
    const kept = this.#ports.catalog.inbox.get(this.#vmId, epoch);
    const goOn = kept !== undefined && kept.status === 'receiving' && sameLogs(kept, disks);
    const record: InboxRecord = {
      vmId: this.#vmId, epoch, status: 'receiving', closedAt, ...(applicationConsistent ? { applicationConsistent: true as const } : {}),
      disks: disks.map((disk) => ({ ...disk, path: `${this.#folder()}/${disk.diskId}.${epoch}.hrl` })),
    };
    this.#ports.catalog.transaction(() => this.#ports.catalog.inbox.put(record));
    const files: OpenSet['files'] = new Map();
    for (const { diskId, path, size } of record.disks) {
      if (!goOn) await this.#ports.files.remove(path);
      const there = (await this.#ports.files.stat(path)) !== null;
      const file = await this.#ports.files.open(path, there ? 'write' : 'create');
      // What a crash left behind is checked by the digest at the end; too much of it counts as nothing.
      const end = await file.size();
      files.set(diskId, { file, end: end <= size ? end : 0 });
    }
    this.#open = { record, files };
    return this.#open;
  }

  async #discard(set: OpenSet): Promise<void> {
    for (const { file } of set.files.values()) await file.close();
    if (this.#open === set) this.#open = null;
    await this.forget(set.record)();
  }

  async #digestOf(file: OpenFile, size: number): Promise<string> {
    const digester = this.#ports.compute.digester();
    const buffer = new Uint8Array(READ_BYTES);
    for (let offset = 0; offset < size; ) {
      const count = await file.read(buffer.subarray(0, Math.min(READ_BYTES, size - offset)), offset);
      if (count === 0) break;
      digester.update(buffer.subarray(0, count));
      offset += count;
    }
    return Buffer.from(digester.digest()).toString('hex');
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined);
    return result;
  }
}

function sameLogs(record: InboxRecord, disks: OfferedLog[]): boolean {
  return record.disks.length === disks.length &&
    disks.every((disk) => record.disks.some(({ diskId, digest, size }) =>
      diskId === disk.diskId && digest === disk.digest && size === disk.size));
}

const notOffered = (epoch: number): UnderstudyError =>
  new UnderstudyError('state', 'LOG_NOT_OFFERED', `epoch ${epoch} was not offered, or another one since`, 'Offer it anew.');

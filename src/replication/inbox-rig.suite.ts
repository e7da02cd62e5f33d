/** An inbox over files in memory, and a link that leads straight into it: for the tests of shipping and receiving. */
import { createHash } from 'node:crypto';
import { MemoryFiles } from '../hrl/memory-files.ts';
import type { Compute } from '../model/ports.ts';
import type { Catalog, EpochRecord, InboxRecord, RelationshipRecord, VmRecord } from '../model/records.ts';
import type { PeerLink } from '../peer/link.ts';
import type { PeerMessage } from '../peer/message.ts';
import { Inbox } from './inbox.ts';

export const VM_ID = '11111111-2222-4333-8444-555555555555';
const TOKEN = '99999999-2222-4333-8444-555555555555';

const sha = (data: Uint8Array) => createHash('sha256').update(data).digest();
export const digestOf = (data: Uint8Array): string => sha(data).toString('hex');
export const compute: Compute = {
  compress: async () => null, decompress: async (data) => data, digest: sha,
  digester: () => {
    const hash = createHash('sha256');
    return { update: (data) => void hash.update(data), digest: () => hash.digest() };
  },
};

const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

export class InboxRig {
  readonly files = new MemoryFiles();
  readonly rows = new Map<number, InboxRecord>();
  /** Of the replica. */
  lastReceived = 0;
  inbox: Inbox;
  /** Pieces that went over the link. */
  pieces: { diskId: string; offset: number; length: number }[] = [];
  /** The link breaks when this many more pieces have arrived. */
  breaksAfter = Infinity;

  constructor() {
    this.inbox = this.restarted();
  }

  /** The replica's process has died and is back. */
  restarted(): Inbox {
    const rows = this.rows;
    const table: Catalog['inbox'] = {
      get: (_vmId, epoch) => rows.get(epoch),
      put: (row) => void rows.set(row.epoch, structuredClone(row)),
      remove: (_vmId, epoch) => void rows.delete(epoch),
      list: () => [...rows.values()].sort((a, b) => a.epoch - b.epoch),
    };
    const catalog = { inbox: table, transaction: (work: () => unknown) => work() } as Catalog;
    return (this.inbox = new Inbox({ files: this.files, catalog, compute, dataFolder: '/data', log: silent }, VM_ID));
  }

  get relationship(): RelationshipRecord {
    return { lastReceivedEpoch: this.lastReceived } as RelationshipRecord;
  }

  async commit(epoch: number): Promise<void> {
    await this.inbox.commit(epoch, () => (this.lastReceived = epoch));
  }

  path(diskId: string, epoch: number): string {
    return `/data/vms/${VM_ID}/inbox/${diskId}.${epoch}.hrl`;
  }

  /** A closed set of the primary, with its files. */
  set(epoch: number, contents: Record<string, Uint8Array>): EpochRecord {
    return {
      vmId: VM_ID, epoch, status: 'closed', openedAt: 0, closedAt: 7,
      disks: Object.entries(contents).map(([diskId, bytes]) => {
        const path = `/logs/${diskId}.${epoch}.hrl`;
        this.files.put(path, bytes);
        return { diskId, uniqueId: TOKEN, previousUniqueId: null, path, size: bytes.length, digest: digestOf(bytes), entries: 1 };
      }),
    };
  }

  readonly vm = { vmId: VM_ID, disks: ['d0', 'd1'].map((diskId) => ({ diskId, virtualSize: 64 << 20 })) } as VmRecord;
  readonly ports = { files: this.files, compute };
  readonly baselineId = TOKEN;

  link(): PeerLink {
    // Only what shipping says is understood; the types of the messages were checked where they were sent.
    const call = async (message: PeerMessage<never, never>, params: never, payload?: Uint8Array) => ({ result: await this.#answer(message.name, params, payload) });
    return { call, stream: () => Promise.reject(new Error('no streams')), close: async () => {} } as unknown as PeerLink;
  }

  async #answer(name: string, params: { epoch: number; closedAt: number; disks: []; diskId: string; offset: number; length: number }, payload?: Uint8Array) {
    if (name === 'log.offer') return await this.inbox.offer(this.relationship, params.epoch, params.closedAt, params.disks);
    if (name === 'log.commit') return void (await this.commit(params.epoch));
    if (this.breaksAfter-- <= 0) throw new Error('the link is cut');
    this.pieces.push({ diskId: params.diskId, offset: params.offset, length: params.length });
    return await this.inbox.write(params.epoch, params.diskId, params.offset, payload!);
  }
}

/**
 * Sends one closed set of logs to the replica: resumable in the middle of a file, compressed where that shrinks it, checked
 * end to end by the digest of each whole file. Repeating any part is harmless.
 */
import { BufferPool } from '../model/buffer-pool.ts';
import { UnderstudyError } from '../model/errors.ts';
import type { Compute } from '../model/ports.ts';
import type { EpochRecord, VmRecord } from '../model/records.ts';
import type { PeerLink } from '../peer/link.ts';
import { CHUNK_BYTES, logCommitMessage, logDataMessage, logOfferMessage } from './messages.ts';
import type { ReplicationPorts } from './replication-ports.ts';

/** Pieces under way at once: hides round trips of 80 ms at 1 Gbit/s with 1 MiB pieces. */
const IN_FLIGHT_MAX = 8;
/** A commit reads the whole set back and makes it durable: on a busy disk that may take a while for each MiB. */
const commitTimeoutMs = (bytes: number): number => 120_000 + Math.ceil(bytes / 4096);

/** For pieces on their way. */
export const buffers = new BufferPool(CHUNK_BYTES, 3 * IN_FLIGHT_MAX);

export interface Shipped {
  /** Bytes of the files. */
  bytes: number;
  /** Payload bytes that went over the link. */
  wireBytes: number;
}

export class ReplicaGap extends Error {
  readonly expected: number;
  constructor(expected: number) {
    super(`the replica expects epoch ${expected}`);
    this.expected = expected;
  }
}

/**
 * Resolves when the set is durable on the replica. Throws ReplicaGap when an earlier set must come first, or what the link
 * throws.
 */
export async function shipSet(
  ports: Pick<ReplicationPorts, 'files' | 'compute'>, link: PeerLink, vm: VmRecord,
  baselineId: string, set: EpochRecord, options: { compression: boolean; signal: AbortSignal; onWire?: (bytes: number) => void },
): Promise<Shipped> {
  const { signal } = options;
  const sizes = new Map(vm.disks.map(({ diskId, virtualSize }) => [diskId, virtualSize]));
  const disks = set.disks.map(({ diskId, uniqueId, previousUniqueId, size, digest, entries, diskSize }) => {
    if (size === null || digest === null || entries === null) throw new Error(`epoch ${set.epoch} is not closed`);
    return { diskId, uniqueId, previousUniqueId, size, digest, entries, diskSize: diskSize ?? sizes.get(diskId)! };
  });
  const offer = {
    vmId: vm.vmId, baselineId, epoch: set.epoch, closedAt: set.closedAt!, disks,
    ...(set.applicationConsistent === true ? { applicationConsistent: true } : {}),
  };
  const { result } = await link.call(logOfferMessage, offer, undefined, { signal });
  if (result.status === 'gap') throw new ReplicaGap(result.expected);
  const shipped: Shipped = { bytes: disks.reduce((sum, { size }) => sum + size, 0), wireBytes: 0 };
  if (result.status === 'known') return shipped;
  for (const { diskId, path, size } of set.disks) {
    shipped.wireBytes += await sendFile(ports, link, { vmId: vm.vmId, epoch: set.epoch, diskId }, path, {
      from: result.received[diskId] ?? 0, size: size!, ...options,
    });
  }
  await link.call(logCommitMessage, { vmId: vm.vmId, epoch: set.epoch }, undefined, { signal, timeoutMs: commitTimeoutMs(shipped.bytes) });
  return shipped;
}

async function sendFile(
  ports: Pick<ReplicationPorts, 'files' | 'compute'>, link: PeerLink, name: { vmId: string; epoch: number; diskId: string },
  path: string, options: { from: number; size: number; compression: boolean; signal: AbortSignal; onWire?: (bytes: number) => void },
): Promise<number> {
  const file = await ports.files.open(path, 'read');
  let wireBytes = 0;
  const send = async (offset: number, data: Uint8Array) => {
    // Not added to in one expression: others are on their way, and it would be read before the wait.
    const sent = await sendPiece(ports.compute, data, options.compression, (payload, encoding) =>
      link.call(logDataMessage, { ...name, offset, length: data.length, encoding }, payload, { signal: options.signal }));
    wireBytes += sent;
    options.onWire?.(sent);
  };
  try {
    await inParallel(IN_FLIGHT_MAX, pieces(file, options.from, options.size, path), ({ offset, data }) => send(offset, data));
  } finally {
    await file.close();
  }
  return wireBytes;
}

/**
 * Sends `data`, which is of `buffers`, compressed where that shrinks it; returns the bytes of the payload. What was sent well is used again;
 * after a failure the link may still read from it.
 */
export async function sendPiece(
  compute: Pick<Compute, 'compress'>, data: Uint8Array, compression: boolean,
  send: (payload: Uint8Array, encoding: 'raw' | 'zstd') => Promise<unknown>,
): Promise<number> {
  const room = compression ? buffers.take(data.length) : null;
  const packed = room === null ? null : await compute.compress(data, room);
  const payload = packed ?? data;
  await send(payload, packed === null ? 'raw' : 'zstd');
  buffers.give(data);
  if (room !== null) buffers.give(room);
  return payload.length;
}

async function* pieces(
  file: { read(into: Uint8Array, position: number): Promise<number> }, from: number, size: number, path: string,
): AsyncGenerator<{ offset: number; data: Uint8Array }> {
  for (let offset = from; offset < size; offset += CHUNK_BYTES) {
    const data = buffers.take(Math.min(CHUNK_BYTES, size - offset));
    if ((await file.read(data, offset)) !== data.length) {
      throw new UnderstudyError('io', 'LOG_CUT', `log ${path} is shorter than the ${size} bytes it was closed with`,
        'Resynchronize the VM: understudy resume NAME --resynchronize');
    }
    yield { offset, data };
  }
}

/** Runs `work` over the items with at most `limit` at once. Rejects with the first failure, after those under way have ended. */
export async function inParallel<T>(limit: number, items: AsyncIterable<T>, work: (item: T) => Promise<void>): Promise<void> {
  const running = new Set<Promise<void>>();
  let failed = false;
  let failure: unknown;
  try {
    for await (const item of items) {
      if (failed) break;
      const one: Promise<void> = work(item).catch((error: unknown) => {
        if (!failed) failure = error;
        failed = true;
      }).finally(() => running.delete(one));
      running.add(one);
      if (running.size >= limit) await Promise.race(running);
    }
  } finally {
    await Promise.all(running);
  }
  if (failed) throw failure;
}

/**
 * The primary's end of initial replication over the network: the allocated parts of every disk, while the guest goes on writing.
 *
 * Invariants
 * - Tracking began before the first byte was read, and every write accepted before is on disk (`TrackedVm.begin`): what changes
 *   under the copy is in the logs from `firstEpoch` on.
 * - A run goes on after an interruption only while that chain of logs is unbroken; else it starts over with a new token.
 * - Holes are not sent: the replica's new file has them already.
 */
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import type { DiskRecord, InitialReplication } from '../model/records.ts';
import type { PeerLink } from '../peer/link.ts';
import { CHUNK_BYTES, initialBeginMessage, initialCheckpointMessage, initialDataMessage } from './messages.ts';
import type { ReplicationPorts } from './replication-ports.ts';
import { buffers, inParallel, sendPiece } from './shipping.ts';

const IN_FLIGHT_MAX = 8;
/** After so much data the replica is asked to make it durable; at most this much is sent again after an interruption. */
const CHECKPOINT_BYTES = 256 << 20;

export interface CopyProgress {
  /** Bytes of the disks that are decided, holes included. */
  doneBytes: number;
  totalBytes: number;
  /** Bytes read and sent, before and after compression. */
  sentBytes: number;
  wireBytes: number;
}

export interface CopyOptions {
  compression: boolean;
  signal: AbortSignal;
  progress(progress: CopyProgress): void;
}

/** Copies all disks; resolves when everything is durable on the replica. */
export async function sendInitialCopy(
  ports: Pick<ReplicationPorts, 'compute'>, link: PeerLink, vmId: string, initial: InitialReplication,
  disks: { record: DiskRecord; disk: Pick<VirtualDisk, 'read' | 'extents' | 'virtualSize'> }[], options: CopyOptions,
): Promise<CopyProgress> {
  const { token, method, firstEpoch } = initial;
  const { result } = await link.call(initialBeginMessage, { vmId, token, method, firstEpoch }, undefined, { signal: options.signal });
  const totalBytes = disks.reduce((sum, { disk }) => sum + disk.virtualSize, 0);
  const progress: CopyProgress = { doneBytes: 0, totalBytes, sentBytes: 0, wireBytes: 0 };
  for (const { record, disk } of disks) {
    const from = result.cursors[record.diskId] ?? 0;
    progress.doneBytes += from;
    await sendDisk(ports, link, { vmId, token, diskId: record.diskId }, disk, from, progress, options);
  }
  return progress;
}

async function sendDisk(
  ports: Pick<ReplicationPorts, 'compute'>, link: PeerLink, name: { vmId: string; token: string; diskId: string },
  disk: Pick<VirtualDisk, 'read' | 'extents' | 'virtualSize'>, from: number, progress: CopyProgress, options: CopyOptions,
): Promise<void> {
  const { signal } = options;
  const send = async ({ offset, length }: { offset: number; length: number }) => {
    signal.throwIfAborted();
    const data = buffers.take(length);
    await disk.read(data, offset);
    const digest = Buffer.from(ports.compute.digest(data)).toString('hex');
    // Not added to in one expression: others are on their way, and it would be read before the wait.
    const sent = await sendPiece(ports.compute, data, options.compression,
      (payload, encoding) => link.call(initialDataMessage, { ...name, offset, length, encoding, digest }, payload, { signal }));
    progress.wireBytes += sent;
    progress.sentBytes += length;
    progress.doneBytes += length;
    options.progress(progress);
  };
  const checkpoint = (offset: number) => link.call(initialCheckpointMessage, { ...name, offset }, undefined, { signal, timeoutMs: 120_000 });
  let position = from;
  while (position < disk.virtualSize) {
    const stretch = await nextStretch(disk, position);
    await inParallel(IN_FLIGHT_MAX, each(stretch.pieces), send);
    progress.doneBytes += stretch.end - position - stretch.pieces.reduce((sum, { length }) => sum + length, 0);
    position = stretch.end;
    await checkpoint(position);
    options.progress(progress);
  }
}

/** The pieces of data from `position` on, up to one checkpoint's worth, and where that ends. */
async function nextStretch(
  disk: Pick<VirtualDisk, 'extents' | 'virtualSize'>, position: number,
): Promise<{ pieces: { offset: number; length: number }[]; end: number }> {
  const pieces: { offset: number; length: number }[] = [];
  let bytes = 0;
  for await (const { offset, length, kind } of disk.extents(position, disk.virtualSize - position)) {
    if (kind === 'zero') continue;
    for (let done = 0; done < length; done += CHUNK_BYTES) {
      const piece = { offset: offset + done, length: Math.min(CHUNK_BYTES, length - done) };
      pieces.push(piece);
      bytes += piece.length;
      if (bytes >= CHECKPOINT_BYTES) return { pieces, end: piece.offset + piece.length };
    }
  }
  return { pieces, end: disk.virtualSize };
}

async function* each<T>(items: T[]): AsyncGenerator<T> {
  yield* items;
}

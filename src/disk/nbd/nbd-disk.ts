/**
 * Whatever an NBD server serves, as a disk: qcow2 through qemu-nbd, Ceph RBD, another Understudy.
 *
 * The server's block sizes are respected here: requests are split at its maximum, and what does not fill its minimum
 * blocks is read, changed and written. Such partial blocks are taken one after another, or two writes to the halves of
 * one block could undo each other.
 */
import { errnoOf, messageOf, UnderstudyError } from '../../model/errors.ts';
import type { Clock } from '../../model/ports.ts';
import { settleAll } from '../../model/settle-all.ts';
import { assertWholeSectors, diskNotSupported, diskReadOnly, ioError } from '../disk-errors.ts';
import { hostClock } from '../host-clock.ts';
import { assertInside, type Extent, type Seal, type VirtualDisk } from '../virtual-disk.ts';
import { HandshakeError, type NegotiatedExport } from './client-handshake.ts';
import { NbdClient } from './client.ts';
import { NBD_FLAG, NBD_STATE } from './protocol.ts';
import { parseNbdUri } from './uri.ts';

export interface NbdDiskOptions {
  readOnly: boolean;
  clock?: Clock;
  /** Default 10 s. */
  connectTimeoutMs?: number;
  /** Default 60 s: a storage cluster may need half a minute to settle after the loss of a node. */
  requestTimeoutMs?: number;
}

/** Block status carries no payload, so it is not bound by the maximum block size; its length has 32 bits. */
const STATUS_BYTES_MAX = 1 << 30;
const ZEROES = Buffer.alloc(1 << 20);

export class NbdDisk implements VirtualDisk {
  readonly location: string;
  readonly format = 'nbd';
  readonly variant = 'fixed';
  readonly virtualSize: number;
  readonly logicalSectorSize = 512;
  readonly physicalSectorSize = 4096;
  readonly geometry = null;
  readonly readOnly: boolean;
  /** Zeroing may make holes on the server, so a discard is served by it; a trim would promise nothing. */
  readonly discardReadsZero: boolean;
  readonly #client: NbdClient;
  readonly #export: NegotiatedExport;
  /** The end of the line of partial-block writes. */
  #partial: Promise<void> = Promise.resolve();

  /** Takes the connection over and closes it with the disk. Use `openNbdDisk`. */
  constructor(location: string, client: NbdClient, readOnly: boolean) {
    this.location = location;
    this.#client = client;
    this.#export = client.export;
    this.virtualSize = client.export.size;
    this.readOnly = readOnly;
    this.discardReadsZero = this.#has(NBD_FLAG.SEND_WRITE_ZEROES);
  }

  async read(into: Uint8Array, offset: number): Promise<void> {
    assertInside(this, offset, into.length);
    const { start, end } = this.#wholeBlocks(offset, into.length);
    if (end - start === into.length) return this.#readBlocks(into, offset);
    const blocks = Buffer.allocUnsafe(end - start);
    await this.#readBlocks(blocks, start);
    into.set(blocks.subarray(offset - start, offset - start + into.length));
  }

  async write(from: Uint8Array, offset: number): Promise<void> {
    this.#assertWritable(offset, from.length);
    const { start, end } = this.#wholeBlocks(offset, from.length);
    if (end - start === from.length) await this.#writeBlocks(from, offset);
    else await this.#inLine(() => this.#writePartial(from, offset));
  }

  async zero(offset: number, length: number): Promise<void> {
    this.#assertWritable(offset, length);
    if (!this.#has(NBD_FLAG.SEND_WRITE_ZEROES)) {
      return eachPart(offset, length, ZEROES.length, (at, part) => this.write(ZEROES.subarray(0, part), at));
    }
    const unit = this.#export.minimumBlockSize;
    const start = Math.min(offset + length, Math.ceil(offset / unit) * unit);
    const end = Math.max(start, Math.floor((offset + length) / unit) * unit);
    // The ends are smaller than a block, which is 64 KiB at most.
    await this.write(ZEROES.subarray(0, start - offset), offset);
    await eachPart(start, end - start, this.#export.maximumBlockSize, (at, part) => this.#client.writeZeroes(at, part));
    await this.write(ZEROES.subarray(0, offset + length - end), end);
  }

  async discard(offset: number, length: number): Promise<void> {
    if (this.discardReadsZero) await this.zero(offset, length);
  }

  /** A server that offers no flush answers a write when it is as durable as it will ever be. */
  async flush(): Promise<void> {
    if (this.#has(NBD_FLAG.SEND_FLUSH)) await this.#client.flush();
  }

  async *extents(offset: number, length: number): AsyncGenerator<Extent> {
    assertInside(this, offset, length);
    const end = offset + length;
    if (this.#export.allocationContext === null) {
      if (length > 0) yield { offset, length, kind: 'data' };
      return;
    }
    for (let at = offset; at < end; ) {
      const blocks = this.#wholeBlocks(at, Math.min(end - at, STATUS_BYTES_MAX / 2));
      const found = await this.#client.blockStatus(blocks.start, blocks.end - blocks.start);
      const before = at;
      let extentEnd = blocks.start;
      for (const extent of found) {
        extentEnd = Math.min(end, extentEnd + extent.length);
        // The first may begin before what was asked for, and the last may end behind it.
        if (extentEnd <= at) continue;
        yield { offset: at, length: extentEnd - at, kind: (extent.flags & NBD_STATE.ZERO) === 0 ? 'data' : 'zero' };
        at = extentEnd;
      }
      if (at === before) throw ioError('EIO', `the server of ${this.location} tells nothing about what is at ${at}`);
    }
  }

  seal(): Promise<Seal> {
    return Promise.resolve({ kind: 'none', reason: 'an NBD server does not tell who wrote' });
  }

  close(): Promise<void> {
    return this.#client.close();
  }

  #has(flag: number): boolean {
    return (this.#export.flags & flag) !== 0;
  }

  #assertWritable(offset: number, length: number): void {
    assertInside(this, offset, length);
    if (this.readOnly) throw ioError('EPERM', `${this.location} is open read-only`);
  }

  /** The range widened to the server's minimum blocks; the disk ends on such a boundary. */
  #wholeBlocks(offset: number, length: number): { start: number; end: number } {
    const unit = this.#export.minimumBlockSize;
    return { start: Math.floor(offset / unit) * unit, end: Math.ceil((offset + length) / unit) * unit };
  }

  #readBlocks(into: Uint8Array, offset: number): Promise<void> {
    return eachPart(offset, into.length, this.#export.maximumBlockSize, (at, part) =>
      this.#client.read(into.subarray(at - offset, at - offset + part), at));
  }

  #writeBlocks(from: Uint8Array, offset: number): Promise<void> {
    return eachPart(offset, from.length, this.#export.maximumBlockSize, (at, part) =>
      this.#client.write(from.subarray(at - offset, at - offset + part), at));
  }

  async #writePartial(from: Uint8Array, offset: number): Promise<void> {
    const unit = this.#export.minimumBlockSize;
    const { start, end } = this.#wholeBlocks(offset, from.length);
    const blocks = Buffer.allocUnsafe(end - start);
    await this.#readBlocks(blocks.subarray(0, unit), start);
    if (end - start > unit) await this.#readBlocks(blocks.subarray(end - start - unit), end - unit);
    blocks.set(from, offset - start);
    await this.#writeBlocks(blocks, start);
  }

  #inLine(work: () => Promise<void>): Promise<void> {
    const mine = this.#partial.then(work);
    this.#partial = mine.catch(() => {}); // its caller hears of it; the next in line starts afresh
    return mine;
  }
}

/**
 * Connects. Fails with DISK_NOT_SUPPORTED, DISK_NOT_FOUND (no such export), DISK_READ_ONLY, DISK_SIZE_NOT_SECTORS,
 * NBD_UNREACHABLE or NBD_REFUSED.
 */
export async function openNbdDisk(uri: string, options: NbdDiskOptions): Promise<NbdDisk> {
  const address = parseNbdUri(uri);
  const client = await NbdClient.connect(address, {
    clock: options.clock ?? hostClock,
    connectTimeoutMs: options.connectTimeoutMs ?? 10_000,
    requestTimeoutMs: options.requestTimeoutMs ?? 60_000,
  }).catch((error: unknown) => {
    throw connectFailure(uri, error);
  });
  try {
    assertWholeSectors(uri, client.export.size);
    if (!options.readOnly && (client.export.flags & NBD_FLAG.READ_ONLY) !== 0) {
      throw diskReadOnly(uri, 'its server exports it read-only');
    }
    return new NbdDisk(uri, client, options.readOnly);
  } catch (error) {
    await client.close();
    throw error;
  }
}

function connectFailure(uri: string, cause: unknown): unknown {
  if (cause instanceof HandshakeError) {
    switch (cause.code) {
      case 'unknown-export':
        return new UnderstudyError('usage', 'DISK_NOT_FOUND', `there is no disk at ${uri}: ${cause.message}`,
          'List what the server exports with: nbdinfo --list.', { cause });
      case 'tls-required':
        return diskNotSupported(uri, `cannot be opened: ${cause.message}`,
          'Tunnel the connection and let the server accept plain NBD from the local end.');
      case 'malformed':
      case 'refused':
      case 'too-old':
        return new UnderstudyError('io', 'NBD_REFUSED', `cannot open ${uri}: ${cause.message}`,
          'Look at the log of the NBD server.', { cause });
    }
  }
  if (errnoOf(cause) === undefined) return cause;
  return new UnderstudyError('io', 'NBD_UNREACHABLE', `cannot reach ${uri}: ${messageOf(cause)}`,
    'Check that the NBD server runs and listens there.', { cause });
}

/** How many parts of one operation wait at a time: zeroing a whole disk is many thousands. */
const PARTS_AT_ONCE = 64;

/**
 * Does the range in parts of at most `partBytes`, side by side. Waits for those under way even when one fails: a buffer
 * must not be written to behind the back of a caller who was told that the operation is over.
 */
async function eachPart(
  offset: number, length: number, partBytes: number, work: (at: number, length: number) => Promise<void>,
): Promise<void> {
  for (let done = 0; done < length; ) {
    const parts: Promise<void>[] = [];
    for (; done < length && parts.length < PARTS_AT_ONCE; done += partBytes) {
      parts.push(work(offset + done, Math.min(partBytes, length - done)));
    }
    await settleAll(parts);
  }
}

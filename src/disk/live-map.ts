/**
 * The bits of a diff disk as this boot knows them. A guest that has been answered, and not asked for a flush, loses nothing when our
 * process dies: the page cache lives on, but the durable map (diff-disk.ts) has no bit yet for what was not synced. Here the bit is
 * written before the answer, and is believed in the same boot only: a power loss may keep a bit and lose its page.
 *
 * Byte table: docs/formats/diff-disk.md.
 */
import { crc32 } from 'node:zlib';
import type { Files, OpenFile } from '../model/ports.ts';
import { BLOCK_BYTES, type PageBits } from './page-bits.ts';

const MAGIC = 'UNDSTLIV';
const HEADER_BYTES = 4096;
const TEXT_BYTES_MAX = 256;
/** Of a map at once. */
const READ_BYTES = 256 * BLOCK_BYTES;
const NO_BITS = Buffer.alloc(BLOCK_BYTES);

export const liveMapPath = (path: string): string => `${path}.map.live`;

export class LiveMap {
  readonly #file: OpenFile;
  readonly #bits: PageBits;
  #written: Promise<void> = Promise.resolve();

  private constructor(file: OpenFile, bits: PageBits) {
    this.#file = file;
    this.#bits = bits;
  }

  /** Sets what an earlier process of this boot has left in `bits`, and goes on from there. `found`: every block that gained a bit. */
  static async open(files: Files, path: string, bootId: string, bits: PageBits): Promise<{ live: LiveMap; found: number[] }> {
    const found = await read(files, path, bootId, bits);
    await files.remove(path);
    const file = await files.open(path, 'create');
    // The header last: without it the file says nothing, and the durable map still says all there is.
    for (const [block, bytes] of bits.blocks()) await file.write([bytes], HEADER_BYTES + block * BLOCK_BYTES);
    await file.write([encodeHeader(bootId)], 0);
    return { live: new LiveMap(file, bits), found };
  }

  /** Resolves when these blocks of the bits are in the file, as they are by then. */
  note(blocks: Iterable<number>): Promise<void> {
    this.#written = this.#written.then(async () => {
      for (const block of blocks) await this.#file.write([this.#bits.copy(block)], HEADER_BYTES + block * BLOCK_BYTES);
    });
    return this.#written;
  }

  async close(): Promise<void> {
    await this.#written.catch(() => undefined);
    await this.#file.close();
  }
}

async function read(files: Files, path: string, bootId: string, bits: PageBits): Promise<number[]> {
  const found: number[] = [];
  if ((await files.stat(path)) === null) return found;
  const file = await files.open(path, 'read');
  const header = Buffer.alloc(HEADER_BYTES);
  const ours = (await file.read(header, 0)) === HEADER_BYTES && header.equals(encodeHeader(bootId));
  if (ours) {
    await readBits(file, (await file.size()) - HEADER_BYTES, (block, bytes) => {
      if (bits.join(block, bytes)) found.push(block);
    });
  }
  await file.close();
  return found;
}

/** Visits the blocks of bits behind the header, of which there are `length` bytes, that are not all zero. */
export async function readBits(file: OpenFile, length: number, visit: (block: number, bytes: Uint8Array) => void): Promise<void> {
  const memory = Buffer.alloc(Math.max(0, Math.min(length, READ_BYTES)));
  for (let at = 0; at < length; at += READ_BYTES) {
    const count = await file.read(memory.subarray(0, Math.min(READ_BYTES, length - at)), HEADER_BYTES + at);
    for (let from = 0; from < count; from += BLOCK_BYTES) {
      const bytes = memory.subarray(from, Math.min(count, from + BLOCK_BYTES));
      if (!bytes.equals(NO_BITS.subarray(0, bytes.length))) visit((at + from) / BLOCK_BYTES, bytes);
    }
  }
}

function encodeHeader(bootId: string): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  const text = Buffer.from(bootId).subarray(0, TEXT_BYTES_MAX);
  header.write(MAGIC, 0, 'latin1');
  header.writeUInt32LE(text.length, 8);
  header.set(text, 16);
  header.writeUInt32LE(crc32(header.subarray(16, 16 + text.length)), 12);
  return header;
}

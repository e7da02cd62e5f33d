/**
 * The bits of a diff disk as this boot knows them. A guest that has been answered, and not asked for a flush, loses nothing when our
 * process dies: the page cache lives on, but the durable map (diff-disk.ts) has no bit yet for what was not synced. Here the bit is
 * written before the answer, and is believed in the same boot only: a power loss may keep a bit and lose its page.
 *
 * Byte table: docs/formats/diff-disk.md.
 */
import { crc32 } from 'node:zlib';
import type { Files, OpenFile } from '../model/ports.ts';

const MAGIC = 'UNDSTLIV';
const HEADER_BYTES = 4096;
const TEXT_BYTES_MAX = 256;

export const liveMapPath = (path: string): string => `${path}.map.live`;

export class LiveMap {
  readonly #file: OpenFile;
  readonly #bits: Uint8Array;
  #written: Promise<void> = Promise.resolve();

  private constructor(file: OpenFile, bits: Uint8Array) {
    this.#file = file;
    this.#bits = bits;
  }

  /** Sets what an earlier process of this boot has left in `bits`, and goes on from there. `found`: index of every byte that gained a bit. */
  static async open(files: Files, path: string, bootId: string, bits: Uint8Array): Promise<{ live: LiveMap; found: number[] }> {
    const kept = await read(files, path, bootId, bits.length);
    const found: number[] = [];
    for (let index = 0; index < kept.length; index++) {
      if ((kept[index]! & ~bits[index]!) === 0) continue;
      bits[index]! |= kept[index]!;
      found.push(index);
    }
    await files.remove(path);
    const file = await files.open(path, 'create');
    // The header last: without it the file says nothing, and the durable map still says all there is.
    await file.write([bits], HEADER_BYTES);
    await file.write([encodeHeader(bootId)], 0);
    return { live: new LiveMap(file, bits), found };
  }

  /** Resolves when the bytes `from` to `to` (not included) of the bits are in the file, as they are by then. */
  note(from: number, to: number): Promise<void> {
    this.#written = this.#written.then(() => this.#file.write([this.#bits.slice(from, to)], HEADER_BYTES + from));
    return this.#written;
  }

  async close(): Promise<void> {
    await this.#written.catch(() => undefined);
    await this.#file.close();
  }
}

async function read(files: Files, path: string, bootId: string, length: number): Promise<Uint8Array> {
  const bits = new Uint8Array(length);
  if ((await files.stat(path)) === null) return bits;
  const file = await files.open(path, 'read');
  const header = Buffer.alloc(HEADER_BYTES);
  const ours = (await file.read(header, 0)) === HEADER_BYTES && header.equals(encodeHeader(bootId));
  if (ours) await file.read(bits, HEADER_BYTES);
  await file.close();
  return bits;
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

/** Mostly-forward reading of a file with few system calls and bounded memory. */
import { UnderstudyError } from '../model/errors.ts';
import type { OpenFile } from '../model/ports.ts';

const WINDOW_BYTES = 1 << 20;

export class WindowedFile {
  readonly size: number;
  readonly #file: OpenFile;
  readonly #reused: Buffer | null;
  /**
   * The bytes from `start`; replaced, never overwritten, so that views given out stay valid and calls may overlap in
   * time; but for `onePass`.
   */
  #window: { start: number; bytes: Buffer } = { start: 0, bytes: Buffer.alloc(0) };

  /**
   * Reads below `size` only, whatever the file has. `onePass`: one memory for all windows, so that a view is valid until the next call
   * and calls must not overlap; for whoever reads much.
   */
  constructor(file: OpenFile, size: number, onePass = false) {
    this.#file = file;
    this.size = size;
    this.#reused = onePass ? Buffer.allocUnsafeSlow(Math.min(size, WINDOW_BYTES)) : null;
  }

  /**
   * A view of the range, which must lie inside `size`; rejects when the file has become shorter. Long ranges are the
   * caller's choice.
   */
  async bytes(position: number, length: number): Promise<Buffer> {
    let window = this.#window;
    if (position < window.start || position + length > window.start + window.bytes.length) {
      const wanted = Math.min(Math.max(length, WINDOW_BYTES), this.size - position);
      const bytes = this.#reused !== null && wanted <= this.#reused.length ? this.#reused.subarray(0, wanted) : Buffer.allocUnsafeSlow(wanted);
      // Whatever happens, it does not hold what it held.
      if (this.#reused !== null) this.#window = { start: 0, bytes: Buffer.alloc(0) };
      await this.#fill(bytes, position);
      window = { start: position, bytes };
      this.#window = window;
    }
    return window.bytes.subarray(position - window.start, position - window.start + length);
  }

  /** As `bytes`, when the range is at hand; else null. */
  held(position: number, length: number): Buffer | null {
    const { start, bytes } = this.#window;
    if (position < start || position + length > start + bytes.length) return null;
    return bytes.subarray(position - start, position - start + length);
  }

  /** A copy of just this range, for something small that lies apart: the window stays where it is. */
  async apart(position: number, length: number): Promise<Buffer> {
    const held = this.held(position, length);
    if (held !== null) return Buffer.from(held);
    const bytes = Buffer.allocUnsafe(length);
    await this.#fill(bytes, position);
    return bytes;
  }

  /** As `bytes`, into memory of the caller. */
  async copy(into: Uint8Array, position: number): Promise<void> {
    if (into.length >= WINDOW_BYTES) await this.#fill(into, position);
    else into.set(await this.bytes(position, into.length));
  }

  async #fill(into: Uint8Array, position: number): Promise<void> {
    const count = await this.#file.read(into, position);
    if (count === into.length) return;
    const message = `${this.#file.path} ended at ${position + count}, expected bytes up to ${position + into.length}`;
    const remedy = 'Somebody shortened the file while it was read: have it sent again, or resynchronize.';
    throw new UnderstudyError('io', 'LOG_INVALID', message, remedy);
  }
}

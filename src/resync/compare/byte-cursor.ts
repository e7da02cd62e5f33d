/**
 * Writing and reading the bodies of frames. The reader trusts nothing: whatever runs past the end, exceeds its bound
 * or is left over is a refusal that says so.
 */
import { UnderstudyError } from '../../model/errors.ts';

export function malformed(what: string): UnderstudyError {
  return new UnderstudyError(
    'peer',
    'COMPARE_FRAME_MALFORMED',
    `the other side of the compare sent a message that cannot be: ${what}`,
    'Run the same version on both hosts; if they are the same, the connection damages data.',
  );
}

/** Small values gather in one buffer; a payload is passed on by reference. */
export class ByteWriter {
  #small = Buffer.alloc(256);
  #used = 0;
  #parts: Uint8Array[] = [];

  varint(value: number): this {
    let rest = value;
    for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) this.byte((rest % 0x80) | 0x80);
    return this.byte(rest);
  }

  byte(value: number): this {
    this.#grow(1);
    this.#small[this.#used++] = value;
    return this;
  }

  bytes(value: Uint8Array): this {
    this.#grow(value.length);
    this.#small.set(value, this.#used);
    this.#used += value.length;
    return this;
  }

  /** Kept by reference until the frame is sent. */
  payload(value: Uint8Array): this {
    this.#flush();
    this.#parts.push(value);
    return this;
  }

  take(): Uint8Array[] {
    this.#flush();
    return this.#parts;
  }

  #grow(count: number): void {
    if (this.#used + count <= this.#small.length) return;
    const larger = Buffer.alloc(2 * (this.#used + count));
    larger.set(this.#small.subarray(0, this.#used));
    this.#small = larger;
  }

  #flush(): void {
    if (this.#used > 0) this.#parts.push(this.#small.subarray(0, this.#used));
    this.#small = Buffer.alloc(0);
    this.#used = 0;
  }
}

export class ByteReader {
  readonly #from: Buffer;
  #at = 0;

  constructor(from: Buffer) {
    this.#from = from;
  }

  varint(what: string, max: number): number {
    let value = 0;
    for (let scale = 1; ; scale *= 0x80) {
      const byte = this.byte(what);
      value += (byte & 0x7f) * scale;
      if (value > max) throw malformed(`${what} ${value} is over ${max}`);
      if (byte < 0x80) return value;
      if (scale >= 2 ** 49) throw malformed(`${what} is a number without end`);
    }
  }

  byte(what: string): number {
    if (this.#at >= this.#from.length) throw malformed(`${what} is missing at byte ${this.#at}`);
    return this.#from[this.#at++]!;
  }

  bytes(what: string, count: number): Buffer {
    if (this.#at + count > this.#from.length) {
      throw malformed(`${what} needs ${count} bytes at ${this.#at}, the message has ${this.#from.length}`);
    }
    return this.#from.subarray(this.#at, (this.#at += count));
  }

  rest(): Buffer {
    return this.bytes('the rest', this.#from.length - this.#at);
  }

  end(): void {
    if (this.#at !== this.#from.length) throw malformed(`${this.#from.length - this.#at} bytes too many`);
  }
}

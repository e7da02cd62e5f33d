import { Duplex } from 'node:stream';

/**
 * Two ends of a stream within one process that behave as two sockets: a write waits for the reader, each direction ends
 * on its own, and destroying one end is a reset at the other. (Node's duplexPair shows a destroy as a clean end, or not
 * at all.)
 */
export function memoryStream(): [near: Duplex, far: Duplex] {
  const [near, far] = [new End(), new End()];
  near.other = far;
  far.other = near;
  return [near, far];
}

class End extends Duplex {
  other!: End;
  #taken: (() => void) | null = null;

  constructor() {
    super();
    // Its user learns of an error from its reads and writes; without a listener Node would end the process.
    this.on('error', () => {});
  }

  override _read(): void {
    const taken = this.#taken;
    this.#taken = null;
    taken?.();
  }

  override _write(part: Buffer, _encoding: string, done: () => void): void {
    if (part.length === 0) return process.nextTick(done);
    this.other.#taken = done;
    this.other.push(part);
  }

  override _final(done: () => void): void {
    this.other.push(null);
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    done(error);
    const ended = this.readableEnded && this.writableFinished;
    if (!ended) this.other.destroy(Object.assign(new Error('the other end cut the stream'), { code: 'ECONNRESET' }));
  }
}

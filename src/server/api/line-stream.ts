/** An answer that comes as lines of JSON while the operation still runs. */

import type { FastifyReply } from 'fastify';

/** A reader that is this far behind on items (which may not be dropped) is cut off. */
const BACKLOG_BYTES_MAX = 8 << 20;

export function wantsLines(accept: string | undefined): boolean {
  return accept?.split(',').some((part) => part.trim().toLowerCase().startsWith('application/x-ndjson')) === true;
}

export class LineStream {
  readonly #raw: FastifyReply['raw'];
  readonly #giveUp: () => void;

  constructor(reply: FastifyReply, giveUp: () => void) {
    reply.hijack();
    this.#raw = reply.raw;
    this.#giveUp = giveUp;
    this.#raw.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
    this.#raw.flushHeaders();
  }

  /** Dropped while the reader lags: newer progress replaces it. */
  offer(value: object): void {
    if (!this.#raw.writableNeedDrain) this.#write(value);
  }

  send(value: object): void {
    this.#write(value);
    if (this.#raw.writableLength > BACKLOG_BYTES_MAX) {
      this.#giveUp();
      this.#raw.destroy();
    }
  }

  end(value: object): void {
    this.#write(value);
    if (!this.#raw.destroyed) this.#raw.end();
  }

  #write(value: object): void {
    if (!this.#raw.destroyed && !this.#raw.writableEnded) this.#raw.write(`${JSON.stringify(value)}\n`);
  }
}

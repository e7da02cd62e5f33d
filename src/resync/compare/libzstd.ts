/**
 * zstd of the system (libzstd.so.1, which Debian's own package manager needs), called on the thread pool: from the caller's memory into the caller's
 * memory, with contexts that are used again. Node's zstd makes a context and a result for each call, and their page faults and their
 * collection cost more than the compressing (docs/decisions/0013-libzstd.md). Null where there is no such library: then threads of our own do it.
 *
 * Invariants
 * - A context is used by one call at a time, and no more calls are under way than there are contexts: zstd never takes the whole thread pool.
 * - Memory of a call is held by the call until it has ended, and written within its bounds only.
 */
import { createRequire } from 'node:module';

type Koffi = typeof import('koffi');
type Native = ReturnType<typeof bind>;

const CONTEXTS = 2;
/** Results for which the caller has no room go through one of these. */
const SCRATCH_BYTES = (1 << 20) + (64 << 10);
const TOO_LONG = 'Destination buffer is too small';

interface Context {
  compressing: unknown;
  decompressing: unknown;
  scratch: Buffer | null;
}

export interface LibZstd {
  /** Null when the result would have more than `most` bytes, which are at most 1 MiB and a little. The result lies in `into` where that can hold it. */
  compress(data: Uint8Array, most: number, level: number, into?: Uint8Array): Promise<Uint8Array | null>;
  /** Rejects when the data is malformed or would exceed `most` bytes, which are at most 1 MiB and a little. */
  decompress(data: Uint8Array, most: number, into?: Uint8Array): Promise<Uint8Array>;
}

let loaded: LibZstd | null | undefined;

/** One for the process. */
export function libzstd(): LibZstd | null {
  loaded ??= load();
  return loaded;
}

function load(): LibZstd | null {
  if (process.platform !== 'linux') return null;
  try {
    return new Pool(bind(createRequire(import.meta.url)('koffi') as Koffi));
  } catch {
    return null;
  }
}

function bind(koffi: Koffi) {
  const library = koffi.load('libzstd.so.1');
  return {
    createCCtx: library.func('void *ZSTD_createCCtx()'),
    createDCtx: library.func('void *ZSTD_createDCtx()'),
    compress: library.func('size_t ZSTD_compressCCtx(void *, void *, size_t, void *, size_t, int)'),
    decompress: library.func('size_t ZSTD_decompressDCtx(void *, void *, size_t, void *, size_t)'),
    isError: library.func('uint32_t ZSTD_isError(size_t)'),
    errorName: library.func('const char *ZSTD_getErrorName(size_t)'),
  };
}

class Pool implements LibZstd {
  readonly #native: Native;
  readonly #idle: Context[] = [];
  #made = 0;
  readonly #waiting: ((context: Context) => void)[] = [];

  constructor(native: Native) {
    this.#native = native;
  }

  compress(data: Uint8Array, most: number, level: number, into?: Uint8Array): Promise<Uint8Array | null> {
    return this.#with(async (context) => {
      context.compressing ??= this.#native.createCCtx();
      const room = roomFor(context, most, into);
      const done = await this.#call(this.#native.compress, context.compressing, room, most, data, level);
      if (typeof done === 'number') return result(room, done, into);
      if (done === TOO_LONG) return null;
      throw new Error(`zstd cannot compress ${data.length} bytes: ${done}`);
    });
  }

  decompress(data: Uint8Array, most: number, into?: Uint8Array): Promise<Uint8Array> {
    return this.#with(async (context) => {
      context.decompressing ??= this.#native.createDCtx();
      const room = roomFor(context, most, into);
      const done = await this.#call(this.#native.decompress, context.decompressing, room, most, data);
      if (typeof done === 'number') return result(room, done, into);
      throw new Error(done === TOO_LONG ? `more than ${most} bytes` : done);
    });
  }

  /** The number of bytes, or the name of the error. The closure holds on to all memory, so that it stays where it is. */
  #call(call: Native['compress'], context: unknown, room: Uint8Array, most: number, data: Uint8Array, ...more: number[]): Promise<number | string> {
    return new Promise((resolve, reject) => {
      call.async(context, room, most, data, data.length, ...more, (failure: Error | null, answer: number | bigint) => {
        if (failure !== null) reject(failure);
        else if (this.#native.isError(answer) === 0) resolve(Number(answer));
        else resolve(this.#native.errorName(answer) as string);
        void [room, data];
      });
    });
  }

  async #with<T>(work: (context: Context) => Promise<T>): Promise<T> {
    const context = this.#idle.pop() ?? (this.#made < CONTEXTS ? this.#make() : await new Promise<Context>((resolve) => this.#waiting.push(resolve)));
    try {
      return await work(context);
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#idle.push(context);
      else next(context);
    }
  }

  #make(): Context {
    this.#made++;
    return { compressing: null, decompressing: null, scratch: null };
  }
}

function roomFor(context: Context, most: number, into: Uint8Array | undefined): Uint8Array {
  if (into !== undefined && into.length >= most) return into;
  if (most > SCRATCH_BYTES) throw new RangeError(`${most} bytes of zstd, ${SCRATCH_BYTES} are possible`);
  return (context.scratch ??= Buffer.allocUnsafeSlow(SCRATCH_BYTES));
}

/** What lies in the scratch must go before the next call. */
function result(room: Uint8Array, length: number, into: Uint8Array | undefined): Uint8Array {
  return room === into ? into.subarray(0, length) : Buffer.from(room.subarray(0, length));
}

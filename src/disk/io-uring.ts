/**
 * The rings of io_uring(7), as numbers: what is asked for and what is answered, in memory that is shared with the kernel. Linux 5.19 and newer;
 * null on hosts without it, or where it is forbidden (`kernel.io_uring_disabled`, containers).
 *
 * Invariants
 * - The kernel looks at what was asked for in `submit` only, so until then it can be taken back.
 * - No answer is lost: the completion ring holds twice as many as can be asked for at once, and who asks must not have more under way.
 *
 * Struct layouts: linux/io_uring.h, the same on x64 and arm64.
 */
import { createRequire } from 'node:module';

/** Of one entry: opcode, flags, descriptor, offset and so on, in words of 4 bytes. */
const SQE_WORDS = 16;
const CQE_WORDS = 4;
const PARAMS_BYTES = 120;
const SYS = { setup: 425, enter: 426 };
/** Completions interrupt nobody who computes; they come when the thread enters the kernel, at the latest to wait. */
const IORING_SETUP_COOP_TASKRUN = 1 << 8;
const IORING_FEAT_SINGLE_MMAP = 1;
const IORING_OFF_SQES = 0x1000_0000;
const [PROT_READ_WRITE, MAP_SHARED_POPULATE] = [3, 0x8001];
/** As an unsigned number; a Number that stands for it is rounded up. */
const MAP_FAILED = 2n ** 64n - 1n;
const [O_CLOEXEC, O_NONBLOCK] = [0o2000000, 0o4000];

export const OPCODE = { read: 22, write: 23 } as const;
export const SQE_FLAG = { hardLink: 1 << 3, silentSuccess: 1 << 6 } as const;

export interface RingRequest {
  opcode: number;
  flags: number;
  fd: number;
  address: number;
  length: number;
  /** -1 for what has no positions. */
  offset: number;
  /** Comes back with the answer. */
  tag: number;
}

/** What is used of it; a seam for tests. */
export interface RequestRing {
  push(request: RingRequest): void;
  /** Hands over what was pushed: how many of them the kernel has taken. The others are taken back. */
  submit(): number;
  /** `result`: bytes, or the errno below zero. */
  answers(visit: (tag: number, result: number) => void): void;
}

interface Layout {
  submissions: { head: number; tail: number; array: number; entries: number };
  completions: { head: number; tail: number; first: number; entries: number };
}

type Native = NonNullable<ReturnType<typeof bind>>;

export class IoUring implements RequestRing {
  readonly #native: Native;
  readonly #fd: number;
  readonly #ring: Int32Array;
  readonly #requests: Int32Array;
  readonly #layout: Layout;
  #tail: number;
  #taken: number;
  #answered: number;

  /** A ring for `entries` requests at once, a power of two; null where the host has none. */
  static open(entries: number): IoUring | null {
    const native = bind();
    try {
      return native === null ? null : new IoUring(native, entries).#usable();
    } catch {
      // A Node that lends no memory of others.
      return null;
    }
  }

  private constructor(native: Native, entries: number) {
    this.#native = native;
    const params = new Uint8Array(PARAMS_BYTES);
    const words = new Uint32Array(params.buffer);
    words[2] = IORING_SETUP_COOP_TASKRUN;
    this.#fd = native.setup(SYS.setup, entries, params);
    // Offsets in bytes, from struct io_sqring_offsets at 40 and struct io_cqring_offsets at 80.
    this.#layout = {
      submissions: { head: words[10]! / 4, tail: words[11]! / 4, array: words[16]! / 4, entries: words[0]! },
      completions: { head: words[20]! / 4, tail: words[21]! / 4, first: words[25]! / 4, entries: words[1]! },
    };
    const [ringBytes, requestBytes] = [4 * this.#ringWords, 4 * SQE_WORDS * words[0]!];
    const works = this.#fd >= 0 && (words[5]! & IORING_FEAT_SINGLE_MMAP) !== 0;
    this.#ring = new Int32Array(works ? native.shared(this.#fd, 0, ringBytes) : new ArrayBuffer(0));
    this.#requests = new Int32Array(works ? native.shared(this.#fd, IORING_OFF_SQES, requestBytes) : new ArrayBuffer(0));
    const { submissions, completions } = this.#layout;
    // Entries are used in their own order.
    if (this.#usable() !== null) for (let index = 0; index < submissions.entries; index++) this.#ring[submissions.array + index] = index;
    this.#tail = this.#taken = this.#ring[submissions.tail] ?? 0;
    this.#answered = this.#ring[completions.head] ?? 0;
  }

  get #ringWords(): number {
    const { submissions, completions } = this.#layout;
    return Math.max(submissions.array + submissions.entries, completions.first + CQE_WORDS * completions.entries);
  }

  #usable(): this | null {
    return this.#ring.length > 0 && this.#requests.length > 0 ? this : null;
  }

  push({ opcode, flags, fd, address, length, offset, tag }: RingRequest): void {
    const { entries } = this.#layout.submissions;
    if (((this.#tail - this.#taken) | 0) >= entries) throw new RangeError('the ring is full');
    const requests = this.#requests;
    const at = (this.#tail & (entries - 1)) * SQE_WORDS;
    requests.fill(0, at, at + SQE_WORDS);
    requests[at] = opcode | (flags << 8);
    requests[at + 1] = fd;
    requests[at + 2] = offset % 2 ** 32;
    requests[at + 3] = Math.floor(offset / 2 ** 32);
    requests[at + 4] = address % 2 ** 32;
    requests[at + 5] = address / 2 ** 32;
    requests[at + 6] = length;
    requests[at + 8] = tag;
    this.#tail = (this.#tail + 1) | 0;
  }

  submit(): number {
    const { head, tail } = this.#layout.submissions;
    Atomics.store(this.#ring, tail, this.#tail);
    this.#native.enter(SYS.enter, this.#fd, (this.#tail - this.#taken) | 0, 0, 0, 0, 0);
    const now = Atomics.load(this.#ring, head);
    const taken = (now - this.#taken) | 0;
    this.#taken = this.#tail = now;
    Atomics.store(this.#ring, tail, now);
    return taken;
  }

  answers(visit: (tag: number, result: number) => void): void {
    const { head, tail, first, entries } = this.#layout.completions;
    const end = Atomics.load(this.#ring, tail);
    for (; this.#answered !== end; this.#answered = (this.#answered + 1) | 0) {
      const at = first + (this.#answered & (entries - 1)) * CQE_WORDS;
      visit(this.#ring[at]!, this.#ring[at + 2]!);
    }
    Atomics.store(this.#ring, head, end);
  }
}

/** Both ends of a pipe, closed in programs that are started; null where there is none. */
export function makePipe(): { readEnd: number; writeEnd: number } | null {
  const ends = new Int32Array(2);
  const native = bind();
  if (native === null || native.pipe2(ends, O_CLOEXEC | O_NONBLOCK) !== 0) return null;
  return { readEnd: ends[0]!, writeEnd: ends[1]! };
}

let bound: ReturnType<typeof load> | undefined;

function bind(): ReturnType<typeof load> {
  return (bound ??= load());
}

function load() {
  if (process.platform !== 'linux' || !['x64', 'arm64'].includes(process.arch)) return null;
  try {
    const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi');
    const library = koffi.load(null);
    const mmap = library.func('uintptr_t mmap(uintptr_t, size_t, int, int, int, int64_t)');
    return {
      setup: library.func('long syscall(long, unsigned int, void *)') as (call: number, entries: number, params: Uint8Array) => number,
      enter: library.func('long syscall(long, unsigned int, unsigned int, unsigned int, unsigned int, uintptr_t, size_t)'),
      pipe2: library.func('int pipe2(void *, int)') as (ends: Int32Array, flags: number) => number,
      /** Empty when it cannot be mapped. */
      shared: (fd: number, offset: number, length: number): ArrayBuffer => {
        const address = BigInt(mmap(0, length, PROT_READ_WRITE, MAP_SHARED_POPULATE, fd, offset) as number | bigint);
        return address >= MAP_FAILED ? new ArrayBuffer(0) : koffi.view(address, length);
      },
    };
  } catch {
    // As in libc.ts: without the library there is none.
    return null;
  }
}

/** How long guests wait for their I/O, counted in buckets: a few additions for each request, text only when somebody asks. */
import type { Clock } from '../model/ports.ts';
import type { Done, NbdExport } from '../nbd/export.ts';

/** Upper ends in seconds: from a page in the cache to the longest wait that replication may cause (2 s). */
const ENDS_SEC = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10];
const OPERATIONS = ['read', 'write', 'flush'] as const;
type GuestOperation = (typeof OPERATIONS)[number];
const NAME = 'understudy_guest_io_seconds';

/**
 * A read out of the page cache takes as long as looking at the clock ten times. So of those one in so many is timed, and stands for the ones
 * that follow it; whatever waits for a device or a thread is timed by itself.
 */
const READS_PER_SAMPLE = 8;

interface Counts {
  /** By bucket, not summed up; the last one is beyond all ends. */
  buckets: number[];
  seconds: number;
}

export class GuestLatency {
  readonly #clock: Pick<Clock, 'monotonic'>;
  readonly #counts = new Map<string, Record<GuestOperation, Counts>>();

  constructor(clock: Pick<Clock, 'monotonic'>) {
    this.#clock = clock;
  }

  /** The same export, its requests timed for this VM. */
  timed<Export extends NbdExport>(vmId: string, served: Export): Export {
    const counts = this.#of(vmId);
    const { read, write, writeThen, flush } = served;
    return Object.assign(served, {
      ...(writeThen !== undefined && {
        writeThen: (from: Uint8Array, offset: number, ended: (failure: unknown) => void) => {
          const began = this.#clock.monotonic();
          writeThen.call(served, from, offset, (failure) => {
            this.#count(counts.write, began);
            ended(failure);
          });
        },
      }),
      read: this.#timedRead(counts.read, (into, offset) => read.call(served, into, offset)),
      write: (...given: Parameters<NbdExport['write']>) => this.#time(counts.write, () => write.apply(served, given)),
      flush: (...given: Parameters<NbdExport['flush']>) => this.#time(counts.flush, () => flush.apply(served, given)),
    });
  }

  /** A read that is done at once says so without a promise, and must go on doing so. */
  #timedRead(counts: Counts, read: NbdExport['read']): NbdExport['read'] {
    let [untimed, bucket, seconds] = [0, 0, 0];
    return (into, offset) => {
      const isTimed = untimed === 0;
      const began = isTimed ? this.#clock.monotonic() : 0;
      const result = read(into, offset);
      if (result !== undefined) {
        // Its beginning, when it was not looked at, is not longer ago than a read that was done at once.
        this.#countLater(counts, isTimed ? began : this.#clock.monotonic(), result);
      } else {
        if (isTimed) {
          seconds = (this.#clock.monotonic() - began) / 1000;
          bucket = bucketOf(seconds);
        }
        counts.buckets[bucket]!++;
        counts.seconds += seconds;
        untimed = (untimed + 1) % READS_PER_SAMPLE;
      }
      return result;
    };
  }

  /** In the text format of Prometheus; `nameOf` gives null for a VM that is gone. */
  text(nameOf: (vmId: string) => string | null): string {
    const lines = [`# HELP ${NAME} Time that a guest waited for an I/O request`, `# TYPE ${NAME} histogram`];
    for (const [vmId, byOperation] of this.#counts) {
      const vm = nameOf(vmId);
      if (vm === null) this.#counts.delete(vmId);
      else for (const operation of OPERATIONS) lines.push(...linesOf(vm, operation, byOperation[operation]));
    }
    return `${lines.join('\n')}\n`;
  }

  #of(vmId: string): Record<GuestOperation, Counts> {
    const empty = (): Counts => ({ buckets: ENDS_SEC.map(() => 0).concat(0), seconds: 0 });
    let counts = this.#counts.get(vmId);
    if (counts === undefined) this.#counts.set(vmId, (counts = { read: empty(), write: empty(), flush: empty() }));
    return counts;
  }

  #time(counts: Counts, work: () => Done): Done {
    const began = this.#clock.monotonic();
    const result = work();
    if (result === undefined) this.#count(counts, began);
    else this.#countLater(counts, began, result);
    return result;
  }

  #countLater(counts: Counts, began: number, result: Promise<void>): void {
    const count = () => this.#count(counts, began);
    void result.then(count, count);
  }

  #count(counts: Counts, began: number): void {
    const seconds = (this.#clock.monotonic() - began) / 1000;
    counts.buckets[bucketOf(seconds)]!++;
    counts.seconds += seconds;
  }
}

function bucketOf(seconds: number): number {
  let bucket = 0;
  while (bucket < ENDS_SEC.length && seconds > ENDS_SEC[bucket]!) bucket++;
  return bucket;
}

function linesOf(vm: string, operation: GuestOperation, { buckets, seconds }: Counts): string[] {
  const labels = `vm="${escaped(vm)}",operation="${operation}"`;
  let sum = 0;
  const rows = buckets.map((count, at) => `${NAME}_bucket{${labels},le="${ENDS_SEC[at] ?? '+Inf'}"} ${(sum += count)}`);
  return [...rows, `${NAME}_sum{${labels}} ${seconds}`, `${NAME}_count{${labels}} ${sum}`];
}

const escaped = (label: string): string => label.replace(/[\\"\n]/g, (sign) => (sign === '\n' ? '\\n' : `\\${sign}`));

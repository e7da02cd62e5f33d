/** How long guests wait for their I/O, counted in buckets: a few additions for each request, text only when somebody asks. */
import type { Clock } from '../model/ports.ts';
import type { NbdExport } from '../nbd/export.ts';

/** Upper ends in seconds: from a page in the cache to the longest wait that replication may cause (2 s). */
const ENDS_SEC = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10];
const OPERATIONS = ['read', 'write', 'flush'] as const;
type GuestOperation = (typeof OPERATIONS)[number];
const NAME = 'understudy_guest_io_seconds';

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
      read: (...given: Parameters<NbdExport['read']>) => this.#time(counts.read, () => read.apply(served, given)),
      write: (...given: Parameters<NbdExport['write']>) => this.#time(counts.write, () => write.apply(served, given)),
      flush: (...given: Parameters<NbdExport['flush']>) => this.#time(counts.flush, () => flush.apply(served, given)),
    });
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

  /** A request that is done at once says so without a promise, and must go on doing so. */
  #time<Result extends Promise<void> | void>(counts: Counts, work: () => Result): Result {
    const began = this.#clock.monotonic();
    const result = work();
    if (result === undefined) this.#count(counts, began);
    else {
      const count = () => this.#count(counts, began);
      void result.then(count, count);
    }
    return result;
  }

  #count(counts: Counts, began: number): void {
    const seconds = (this.#clock.monotonic() - began) / 1000;
    let bucket = 0;
    while (bucket < ENDS_SEC.length && seconds > ENDS_SEC[bucket]!) bucket++;
    counts.buckets[bucket]!++;
    counts.seconds += seconds;
  }
}

function linesOf(vm: string, operation: GuestOperation, { buckets, seconds }: Counts): string[] {
  const labels = `vm="${escaped(vm)}",operation="${operation}"`;
  let sum = 0;
  const rows = buckets.map((count, at) => `${NAME}_bucket{${labels},le="${ENDS_SEC[at] ?? '+Inf'}"} ${(sum += count)}`);
  return [...rows, `${NAME}_sum{${labels}} ${seconds}`, `${NAME}_count{${labels}} ${sum}`];
}

const escaped = (label: string): string => label.replace(/[\\"\n]/g, (sign) => (sign === '\n' ? '\\n' : `\\${sign}`));

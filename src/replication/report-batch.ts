/**
 * The reports of many VMs to one peer, in one message: what is to be said within a few milliseconds goes together (design §8: one batched
 * heartbeat per peer). For five hundred quiet VMs most of what a cycle cost was its own request.
 *
 * Invariants
 * - Each line is answered by the reply to the message that it was in, or fails with it. A line is in one message at a time.
 * - Whoever gives up waits no longer; the others' message goes on. It is cut when all have given up.
 * - A refusal of a message of several lines may be the fault of one: then each is said alone.
 */
import { UnderstudyError } from '../model/errors.ts';
import type { Clock } from '../model/ports.ts';
import type { PeerLink } from '../peer/link.ts';
import { reportMessage, type AnsweredVm, type ReportedVm } from './messages.ts';

/** Long enough that all timers of one moment have fired. */
const GATHER_MS = 5;
/** Both ways at their longest, lines fit into the JSON of one message. */
const LINES_MAX = 50;

interface Waiting {
  line: ReportedVm;
  signal: AbortSignal;
  resolve: (answer: AnsweredVm | undefined) => void;
  reject: (error: unknown) => void;
}

/** By host and link: what a host that has crashed had gathered is not its successor's. */
const batches = new WeakMap<object, WeakMap<PeerLink, ReportBatch>>();

/** The answer to the line; undefined when the peer says nothing of the VM. Rejects with what the link throws, or the signal's reason. */
export function reportTogether(ports: { clock: Clock }, link: PeerLink, line: ReportedVm, signal: AbortSignal): Promise<AnsweredVm | undefined> {
  let ofHost = batches.get(ports);
  if (ofHost === undefined) batches.set(ports, (ofHost = new WeakMap()));
  let batch = ofHost.get(link);
  if (batch === undefined) ofHost.set(link, (batch = new ReportBatch(ports.clock, link)));
  return batch.add(line, signal);
}

class ReportBatch {
  readonly #clock: Clock;
  readonly #link: PeerLink;
  #waiting: Waiting[] = [];

  constructor(clock: Clock, link: PeerLink) {
    this.#clock = clock;
    this.#link = link;
  }

  add(line: ReportedVm, signal: AbortSignal): Promise<AnsweredVm | undefined> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason as Error);
      this.#waiting.push({ line, signal, resolve, reject });
      if (this.#waiting.length === LINES_MAX) void this.#send();
      else if (this.#waiting.length === 1) this.#clock.sleep(GATHER_MS).then(() => this.#send(), (error: unknown) => this.#fail(error));
    });
  }

  #fail(error: unknown): void {
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }

  async #send(): Promise<void> {
    const lines = this.#waiting;
    this.#waiting = [];
    if (lines.length > 0) await this.#ask(lines);
  }

  async #ask(lines: Waiting[]): Promise<void> {
    const all = new AbortController();
    let left = lines.length;
    const leaves = lines.map(({ signal, reject }) => {
      const leave = () => {
        reject(signal.reason);
        if (--left === 0) all.abort(signal.reason);
      };
      if (signal.aborted) leave();
      else signal.addEventListener('abort', leave, { once: true });
      return leave;
    });
    try {
      const vms = lines.map(({ line }) => line);
      const { result } = await this.#link.call(reportMessage, { vms }, undefined, { signal: all.signal });
      const answers = new Map(result.vms.map((answer) => [answer.vmId, answer]));
      for (const { line, resolve } of lines) resolve(answers.get(line.vmId));
    } catch (error) {
      const isRefused = error instanceof UnderstudyError && error.kind !== 'peer';
      if (isRefused && lines.length > 1) for (const line of lines) await this.#ask([line]);
      else for (const { reject } of lines) reject(error);
    } finally {
      for (const [index, { signal }] of lines.entries()) signal.removeEventListener('abort', leaves[index]!);
    }
  }
}

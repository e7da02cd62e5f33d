/**
 * Verify by itself: every so many days, at a time of the day, for each VM whose settings say so (`--verify-every`), and for each leg to an
 * extended replica whose own settings do.
 *
 * One at a time on a host, and only while the VM replicates; one that cannot run now is tried again later. It reads slowly (the
 * setting's own rate) and finds out only: what it finds is an event, and repairing stays a person's decision.
 */
import { messageOf, UnderstudyError } from '../model/errors.ts';
import { ACTIVITY_EVENTS, makeEvent } from '../model/events.ts';
import type { RelationshipRecord } from '../model/records.ts';
import { nextVerify } from '../model/schedule.ts';
import { verify, type VerifyProgress, type VerifyResult } from '../resync/verify.ts';
import type { Host } from './host.ts';
import { sendingEnd, vmOfEnd } from './sending-end.ts';

const LOOK_EVERY_MS = 60_000;
/** After one that could not run to its end: the link or the replica may be down. */
const RETRY_MS = 3_600_000;

/** Runs one verify of a VM and puts what it found on record. `repaired`: whether the caller will see to a difference. */
export async function verifyOnRecord(
  host: Host, name: string, options: { signal: AbortSignal; repair: boolean; extended?: boolean | undefined; progress: (done: number, total: number) => void },
): Promise<VerifyResult> {
  const { relationships, sender } = sendingEnd(host, options.extended);
  const { clock } = host.parts;
  const { vmId } = vmOfEnd(host, { name, extended: options.extended });
  relationships.check(vmId, 'verify');
  const startedAt = clock.monotonic();
  const live = (progress: VerifyProgress) => {
    host.verifies.set(vmId, progress);
    options.progress(progress.comparedBytes, progress.totalBytes);
  };
  if (host.verifies.has(vmId)) {
    throw new UnderstudyError('state', 'VERIFY_UNDER_WAY', `a verify of VM '${name}' is under way`, 'See: understudy resync status.');
  }
  live({ comparedBytes: 0, totalBytes: 0, differingBytes: 0, windows: 0, heldSince: null });
  const result = await verify(sender(vmId), { signal: options.signal, progress: live }).finally(() => host.verifies.delete(vmId));
  const seconds = Math.round((clock.monotonic() - startedAt) / 1000);
  const { comparedBytes, differingBytes, findings, equal } = result;
  relationships.update(vmId, { lastVerifiedAt: clock.now() });
  relationships.note(vmId, equal
    ? makeEvent(ACTIVITY_EVENTS.verifyPassed, name, { comparedBytes, seconds })
    : makeEvent(ACTIVITY_EVENTS.verifyFailed, name, { differingBytes, findings, repaired: options.repair }));
  return result;
}

interface Due {
  vmId: string;
  extended: boolean;
}

const keyOf = ({ vmId, extended }: Due): string => `${vmId} ${extended}`;

export class VerifySchedule {
  #host: Host;
  #stop = new AbortController();
  #loop: Promise<void> = Promise.resolve();
  /** By VM and leg: not again before, after one that failed to run. */
  #notBefore = new Map<string, number>();

  constructor(host: Host) {
    this.#host = host;
  }

  start(): void {
    this.#loop = this.#run();
  }

  async close(): Promise<void> {
    this.#stop.abort(new Error('the server stops'));
    await this.#loop;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    const { clock } = this.#host.parts;
    while (!signal.aborted) {
      for (const due of this.#due()) if (!signal.aborted) await this.#verify(due);
      await clock.sleep(LOOK_EVERY_MS, signal).catch(() => undefined);
    }
  }

  #due(): Due[] {
    const { catalog, extended, parts: { clock, zone } } = this.#host;
    const now = clock.now();
    const dueOf = (records: readonly RelationshipRecord[], isLeg: boolean): Due[] =>
      records.filter(({ vmId, side, state, settings, lastVerifiedAt, createdAt }) => {
        if (side !== 'primary' || state !== 'Replicating' || settings.verify.everyDays === 0) return false;
        if ((this.#notBefore.get(keyOf({ vmId, extended: isLeg })) ?? 0) > now) return false;
        return nextVerify(settings.verify, lastVerifiedAt ?? createdAt, zone) <= now;
      }).map(({ vmId }) => ({ vmId, extended: isLeg }));
    return [...dueOf(catalog.relationships.list(), false), ...dueOf(extended.ports.catalog.relationships.list(), true)];
  }

  async #verify(due: Due): Promise<void> {
    const { relationships, parts: { clock, log } } = this.#host;
    const { name } = relationships.vm(due.vmId);
    try {
      await verifyOnRecord(this.#host, name, { extended: due.extended, signal: this.#stop.signal, repair: false, progress: () => undefined });
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      this.#notBefore.set(keyOf(due), clock.now() + RETRY_MS);
      log.warn({ vm: name, error: messageOf(error) }, 'a scheduled verify could not run to its end and is tried again in an hour');
    }
  }
}

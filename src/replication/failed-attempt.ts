/** An attempt to copy, ship or report that has failed: when it is tried again, or why it is not. */
import { isRecoverable, retryDelayMs } from '../model/backoff.ts';
import { errnoOf, messageOf, UnderstudyError } from '../model/errors.ts';
import { ACTIVITY_EVENTS, makeEvent } from '../model/events.ts';
import { noteTookOver } from './peer-direction.ts';
import { reportOf } from './report.ts';
import type { AnySendingVm } from './sending-vm.ts';

/**
 * Retries by itself when the cause may pass, else stops with an error that says what to do (design §8, facts of back-off). One that was
 * `askedFor` beside the attempts that come by themselves does not put the next of those off.
 */
export async function noteFailedAttempt(sender: AnySendingVm, error: unknown, signal: AbortSignal, { askedFor = false } = {}): Promise<void> {
  const { relationships, clock } = sender.ports;
  const relationship = relationships.find(sender.vmId);
  if (relationship === undefined) return;
  const known = error instanceof UnderstudyError ? error
    : new UnderstudyError('io', errnoOf(error) ?? 'REPLICATION_FAILED', messageOf(error), 'See the log of the server.', { cause: error });
  if (await hasLostItsReplica(sender, known, signal)) return;
  const { error: before, settings } = relationship;
  const failures = askedFor && before !== null ? before.failures : (before?.failures ?? 0) + 1;
  const waiting = askedFor ? (before?.retryAt ?? 0) - clock.now() : 0;
  const delayMs = !isRecoverable(known) ? null : waiting > 0 ? waiting : retryDelayMs(failures, settings.frequencySec);
  const change = { error: { code: known.code, message: known.message, remedy: known.remedy,
    since: before?.since ?? clock.now(), retryAt: delayMs === null ? null : clock.now() + delayMs, failures } };
  relationships.count(sender.vmId, { outcome: 'failed-attempt' });
  const facts = { reason: known.message, code: known.code };
  if (delayMs === null) {
    relationships.happened(sender.vmId, { kind: 'failed', ...facts }, change);
    return;
  }
  relationships.update(sender.vmId, change);
  relationships.note(sender.vmId, makeEvent(ACTIVITY_EVENTS.willRetry, sender.vm.name,
    { ...facts, attempt: failures, delaySeconds: Math.round(delayMs / 1000) }));
}

/** Where even the failure cannot be put on record. */
export function logUnrecorded({ vmId, ports }: AnySendingVm, cause: unknown): void {
  ports.log.error({ vm: vmId, error: messageOf(cause) }, 'a failure of replication cannot be put on record');
}

/** The replica may have taken over, or be the primary by now; then that is on record, and the failure is none of its own. */
export async function hasLostItsReplica(sender: AnySendingVm, { code }: UnderstudyError, signal: AbortSignal): Promise<boolean> {
  if (code === 'REPLICA_FAILED_OVER') noteTookOver(sender.ports, sender.vmId, 'the replica took over');
  else if (code === 'PEER_VM_UNKNOWN') {
    const now = { epoch: sender.outbox.newestClosed(), unchangedUntil: null, pending: true };
    await reportOf(sender.ports, sender.vmId, now, signal).catch(() => undefined);
  } else return false;
  return (sender.ports.relationships.find(sender.vmId)?.tookOver ?? null) !== null;
}

/**
 * What a primary concludes when it hears that the other host has taken the VM over, or has given it back (R21, R22).
 *
 * Invariants
 * - From the moment `tookOver` is on record no guest is let in here, and nothing is sent, until a person has chosen a direction.
 * - It is taken back only by an answer to a question that was asked after it was put on record: an older answer may have overtaken
 *   the failover that it does not know of.
 */
import { generationOf, tookOverError } from '../model/direction.ts';
import type { RelationshipRecord } from '../model/records.ts';
import type { AnsweredVm } from './messages.ts';
import type { ReplicationPorts } from './replication-ports.ts';

type Ports = Pick<ReplicationPorts, 'relationships' | 'clock' | 'random'>;

/** The other host has taken over, or is about to: durable when it returns. May be repeated. */
export function noteTookOver(ports: Ports, vmId: string, reason: string): void {
  const { relationships, clock, random } = ports;
  const { tookOver = null, resync, remote } = relationships.get(vmId);
  if (tookOver !== null) return;
  const { code, message, remedy } = tookOverError(relationships.vm(vmId).name, remote.name || remote.host);
  const now = clock.now();
  const change = {
    tookOver: { id: random.uuid(), since: now }, error: { code, message, remedy, since: now, retryAt: null, failures: 1 },
    ...(resync === null ? {} : { resync: null, abandoned: resync.token }),
  };
  // In a state that has no such step the record alone keeps guests out.
  if (relationships.happened(vmId, { kind: 'peer-failed-over', reason }, change) === null) relationships.update(vmId, change);
}

/** `asked`: the record as it was when the question was sent. */
export function noticeDirection(ports: Ports, vmId: string, asked: RelationshipRecord, answer: AnsweredVm): void {
  const { relationships } = ports;
  const relationship = relationships.get(vmId);
  if (answer.state === 'FailedOverWaitingCompletion' || answer.state === 'FailedOver') {
    // A prepared primary has been waiting for just that.
    if (relationship.state !== 'PreparedForFailover') noteTookOver(ports, vmId, 'the replica took over');
    return;
  }
  if (answer.extendedTookOver === true) {
    if (relationship.state !== 'PreparedForFailover') noteTookOver(ports, vmId, 'the extended replica took over');
    return;
  }
  if (answer.side === 'primary') {
    // Out of date, and yet to be told by us.
    if (relationship.state === 'PreparedForFailover' || (answer.generation ?? 0) < generationOf(relationship)) return;
    const later = (answer.generation ?? 0) > generationOf(relationship);
    return noteTookOver(ports, vmId, later ? 'the direction was reversed on the other host' : 'the other host calls itself the primary too');
  }
  const { tookOver = null } = relationship;
  if (tookOver === null || asked.tookOver?.id !== tookOver.id || answer.takingOver === true || !answer.known) return;
  const change = { tookOver: null, error: null };
  const reason = 'the failover on the replica was cancelled';
  if (relationships.happened(vmId, { kind: 'peer-cancelled-failover', reason }, change) === null) relationships.update(vmId, change);
}

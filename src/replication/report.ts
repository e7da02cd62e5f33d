/**
 * What primary and replica tell each other once per cycle, and what follows for the primary. An empty epoch is one line in
 * it, not
 * a file. Pure but for the call itself.
 */
import { generationOf } from '../model/direction.ts';
import type { RelationshipRecord } from '../model/records.ts';
import type { TrackingLoss } from '../tracking/tracked-vm.ts';
import type { AnsweredVm, ReportedVm } from './messages.ts';
import { noticeDirection } from './peer-direction.ts';
import { reportTogether } from './report-batch.ts';
import type { ReplicationPorts } from './replication-ports.ts';

export interface ReplicaNews {
  /** False when the replica host knows no such VM of ours. */
  known: boolean;
  /** Of the replica; null before it has one. */
  baselineId: string | null;
  appliedEpoch: number;
  wantedAgain: number | null;
  /** The two sides can no longer be known equal. */
  loss: TrackingLoss | null;
}

export async function reportOf(
  ports: ReplicationPorts, vmId: string,
  now: { epoch: number; unchangedUntil: number | null; pending: boolean; mapTrusted?: boolean | undefined }, signal: AbortSignal,
): Promise<ReplicaNews> {
  const asked = ports.relationships.get(vmId);
  const { state, baselineId, lastAppliedEpoch, remote } = asked;
  // What tracking says now: the relationship's own record follows with the next loss only (R10).
  const mapTrusted = now.mapTrusted ?? ports.relationships.vm(vmId).tracking?.mapTrusted ?? asked.mapTrusted;
  const line: ReportedVm = {
    vmId, state, baselineId: baselineId === '' ? null : baselineId, epoch: now.epoch, unchangedUntil: now.unchangedUntil,
    applied: Math.max(0, lastAppliedEpoch), mapTrusted, pending: now.pending, generation: generationOf(asked),
    recoveryHistory: asked.settings.recoveryHistory,
  };
  const answer = await reportTogether(ports, ports.link(remote), line, signal);
  return answer === undefined
    ? { known: false, baselineId: null, appliedEpoch: lastAppliedEpoch, wantedAgain: null, loss: null }
    : takeAnswer(ports, vmId, asked, answer);
}

/** Puts the replica's answer on record and decides what it means. `asked`: the record as it was when the question was sent. */
export function takeAnswer(ports: ReplicationPorts, vmId: string, asked: RelationshipRecord, answer: AnsweredVm): ReplicaNews {
  noticeDirection(ports, vmId, asked, answer);
  const relationship = ports.relationships.get(vmId);
  const loss = lossIn(relationship, ports.relationships.vm(vmId).tracking?.epoch ?? 0, answer);
  if (loss === null && answer.known) {
    // Which epoch is applied tells a reverted replica later, so that is kept durably; the time of an idle one is not worth a sync.
    const news = answer.appliedEpoch > relationship.lastAppliedEpoch || answer.state !== relationship.remoteState;
    const change = {
      lastAppliedEpoch: Math.max(relationship.lastAppliedEpoch, answer.appliedEpoch), lastAppliedTime: answer.appliedTime,
      remoteState: answer.state,
    };
    if (news) ports.relationships.update(vmId, change);
    else if (answer.appliedTime !== relationship.lastAppliedTime) ports.relationships.updateLazily(vmId, change);
  }
  const { known, baselineId, appliedEpoch, wantedAgain } = answer;
  return { known, baselineId, appliedEpoch, wantedAgain, loss };
}

/** Compares generations: who is older than the other remembers (triggers 5 and 7), or has said that it is lost (6 and 7). */
function lossIn(relationship: RelationshipRecord, epoch: number, answer: AnsweredVm): TrackingLoss | null {
  if (relationship.initial !== null || relationship.state !== 'Replicating' || answer.side === 'primary') return null;
  if (!answer.known) return { trigger: 7, reason: 'the replica host no longer knows the VM' };
  if (answer.lost !== null) return answer.lost;
  if (answer.baselineId !== relationship.baselineId) {
    return { trigger: 7, reason: `the replica is of baseline ${answer.baselineId ?? 'none'}, the primary of ${relationship.baselineId}` };
  }
  if (answer.receivedEpoch > epoch) {
    return { trigger: 5, reason: `the replica has epoch ${answer.receivedEpoch}, the primary is at ${epoch}: the primary was reverted` };
  }
  if (answer.appliedEpoch < relationship.lastAppliedEpoch) {
    return { trigger: 7, reason: `the replica is at epoch ${answer.appliedEpoch}, it had applied ${relationship.lastAppliedEpoch} before` };
  }
  return null;
}

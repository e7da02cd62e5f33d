/**
 * Which of the two sides may write (R21, R22). Pure.
 *
 * The generation counts changes of direction. Only a replica that has failed over makes the next one, so two sides never make the
 * same one, and the smaller number is always the one that is out of date.
 */
import { UnderstudyError } from './errors.ts';
import type { RelationshipRecord } from './records.ts';
import { tookOverRemedy } from './refusals.ts';

export const generationOf = ({ generation }: Pick<RelationshipRecord, 'generation'>): number => generation ?? 0;

/** Why no guest may open the disks of a primary now; null when one may. */
export function keptOut(vmName: string, relationship: RelationshipRecord | undefined): UnderstudyError | null {
  if (relationship === undefined || relationship.side !== 'primary') return null;
  const other = relationship.remote.name || relationship.remote.host;
  if ((relationship.prepared ?? null) !== null) {
    return new UnderstudyError('state', 'VM_LOCKED', `VM '${vmName}' is prepared for a planned failover to host ${other}`,
      `Finish it there (understudy failover '${vmName}' --planned), or take it back here: understudy failover cancel '${vmName}'`);
  }
  if ((relationship.tookOver ?? null) !== null) return tookOverError(vmName, other);
  return null;
}

export function tookOverError(vmName: string, other: string): UnderstudyError {
  return new UnderstudyError('state', 'PEER_FAILED_OVER', `host ${other} has taken VM '${vmName}' over`, tookOverRemedy(vmName, other));
}

/**
 * Every so many hours a set of logs ends while the guest's file systems are at rest: its end becomes an application-consistent recovery
 * point. When that cannot be, the set ends as any other, and an event says why.
 */
import { ACTIVITY_EVENTS, makeEvent } from '../model/events.ts';
import type { RelationshipRecord } from '../model/records.ts';
import { POINT_INTERVAL_MS } from '../model/recovery-points.ts';
import type { ChangeSource } from './change-source.ts';
import type { AnySendingVm } from './sending-vm.ts';

/** Ends the open set, at rest when that is due. */
export async function endSet(sender: AnySendingVm, source: ChangeSource): Promise<void> {
  const { ports, vmId, vm, relationship } = sender;
  const { atRest, clock, relationships, catalog, pointIntervalMs = POINT_INTERVAL_MS } = ports;
  // A replica that feeds another one has no guest to bring to rest.
  const guestIsHere = atRest !== undefined && vm.side === 'primary';
  if (!guestIsHere || !isDue(relationship, clock.now(), pointIntervalMs)) return void (await source.switchLog());
  const triedAt = clock.now();
  const { boundedWaitMs } = relationship.settings;
  const { result: ended, failure } = await atRest(vm, boundedWaitMs, (atInstant) => source.switchLog(atInstant));
  // Marked only now that the agent has confirmed both ends of the rest; a crash before leaves an ordinary set.
  catalog.transaction(() => {
    const record = catalog.epochs.get(vmId, ended.epoch);
    if (failure === null && record !== undefined) catalog.epochs.put({ ...record, applicationConsistent: true });
    relationships.update(vmId, { atRest: { triedAt, failure } });
  });
  if (failure !== null) relationships.note(vmId, makeEvent(ACTIVITY_EVENTS.applicationConsistentFailed, vm.name, { reason: failure }));
}

/** After a failure it is tried again within the hour. */
function isDue({ settings, atRest }: RelationshipRecord, now: number, hourMs: number): boolean {
  const { applicationConsistentHours: hours, recoveryHistory } = settings;
  if (hours === 0 || recoveryHistory === 0) return false;
  if (!atRest) return true;
  return now - atRest.triedAt >= (atRest.failure === null ? hours : 1) * hourMs;
}

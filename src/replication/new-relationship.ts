/** A relationship as its sending side begins it. */
import type { RelationshipRecord, RemoteHost } from '../model/records.ts';
import type { HostSettings, RelationshipSettings } from '../model/settings.ts';
import { newStatistics } from '../model/statistics.ts';

export function newSendingRelationship(about: {
  vmId: string; remote: RemoteHost; settings: RelationshipSettings; trustGroup: string; now: number; hostSettings: HostSettings; zone: string;
}): RelationshipRecord {
  const { vmId, remote, settings, trustGroup, now, hostSettings, zone } = about;
  return {
    vmId, side: 'primary', pairedBy: 'enable', state: 'Disabled', createdAt: now, trustGroup, baselineId: '', remote, settings,
    initial: null, required: null, resync: null, error: null, lastReplicationTime: null, lastReceivedEpoch: -1, lastAppliedEpoch: -1,
    lastAppliedTime: null, lastAppliedLogs: {}, consistentFrom: 0, appliedSeals: {}, applying: null, wantedAgain: null, lost: null,
    remoteState: null, mapTrusted: true, transferred: { initialBytes: 0, logBytes: 0, wireBytes: 0, resyncBytes: 0 },
    statistics: newStatistics(now, hostSettings, zone),
  };
}

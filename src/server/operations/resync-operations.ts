/** Pausing and going on, and everything about resynchronization. */
import { UnderstudyError } from '../../model/errors.ts';
import { replicatedDisks, type RelationshipRecord, type VmRecord } from '../../model/records.ts';
import { nextAutomaticStart } from '../../model/schedule.ts';
import { readBytesOf } from '../../resync/ladder.ts';
import { keepsOlderPoints, mayOverwriteNewer } from '../../model/resync-trigger.ts';
import { resyncHistory, type PastResync } from '../../resync/resync-history.ts';
import type { HostOperations, Params, ResyncQueueEntry, ResyncStatus, Status } from '../api/contract.ts';
import type { Host } from '../host.ts';
import { sendingEnd, vmOfEnd } from '../sending-end.ts';
import { statusShape } from '../status.ts';
import { checkResume } from './start-check.ts';

type Operations = Pick<HostOperations, 'suspend' | 'resume' | 'cancel-resync' | 'resync.status' | 'resync.plan' | 'resync.queue' | 'resync.history'>;

/** For an estimate before anything is measured: what one core compares. */
const COMPARE_BYTES_PER_SEC = 1 << 30;
/** How far back past resynchronizations are looked for: some hundred of them. */
const HISTORY_EVENTS = 5000;
const START_AHEAD_MS_MAX = 7 * 86_400_000;
/** The trigger of a resynchronization that nothing but a person asks for. */
const ASKED_FOR = 8 as const;

export function resyncOperations(host: Host): Operations {
  const status = (name: string, extended = false): Status => statusShape(host, host.vm(name), extended);
  return {
    'suspend': async ({ name, extended }) => {
      const [{ vmId }, { relationships, sender }] = [vmOfEnd(host, { name, extended }), sendingEnd(host, extended)];
      if (extended !== true) host.primaries.get(vmId)?.tracked?.recordOwed();
      relationships.perform(vmId, 'suspend');
      sender(vmId).interrupt('replication was paused');
      return status(name, extended);
    },
    'resume': async (params, { signal }) => {
      const [{ vmId }, { relationships, sender }] = [vmOfEnd(host, params), sendingEnd(host, params.extended)];
      const { state, side } = relationships.get(vmId);
      const startsNow = state === 'WaitingForStartResynchronize' && params.at === undefined && params.offPeak !== true;
      if (side === 'primary' && startsNow) await checkResume(sender(vmId), signal);
      resume(host, params);
      return status(params.name, params.extended);
    },
    'cancel-resync': async ({ name, extended }) => {
      const [{ vmId }, { relationships, sender }] = [vmOfEnd(host, { name, extended }), sendingEnd(host, extended)];
      const { resync, required } = relationships.get(vmId);
      relationships.perform(vmId, 'cancel-resync', {
        error: null, required: required === null ? null : { ...required, held: true, startAt: null },
        ...(resync === null ? {} : { resync: null, abandoned: resync.token }),
      });
      // Required as before: from here on the map alone remembers, and the logs of the run go.
      sender(vmId).tracked?.goMapOnly();
      sender(vmId).interrupt('the resynchronization was cancelled');
      return status(name, extended);
    },
    'resync.status': async ({ name, extended }) => resyncStatusShape(host, vmOfEnd(host, { name, extended }), extended),
    'resync.plan': async ({ name, extended }, { signal }) => {
      const [vm, { relationships, sender }] = [vmOfEnd(host, { name, extended }), sendingEnd(host, extended)];
      relationships.get(vm.vmId);
      if (extended !== true) onPrimary(host, vm, 'resync plan');
      const plan = await host.resync.plan(sender(vm.vmId), signal);
      const readBytes = readBytesOf(plan);
      const relationship = relationships.get(vm.vmId);
      const overwrites = overwrittenBy(relationship);
      return {
        vmName: name, ...(overwrites !== null && { overwrites }), olderPointsLost: plan.rung === 'logs' ? 0 : olderPointsLost(relationship),
        rung: plan.rung, reason: plan.reason, readBytes, estimatedSeconds: readBytes / COMPARE_BYTES_PER_SEC,
        disks: replicatedDisks(vm).map(({ diskId, path, virtualSize }) => ({
          path, totalBytes: virtualSize, readBytes: (plan.ranges.get(diskId) ?? []).reduce((sum, { length }) => sum + length, 0),
          ranges: plan.ranges.get(diskId)?.length ?? 0 })),
      };
    },
    'resync.history': async ({ name }) => {
      host.vm(name);
      return resyncHistory(host.catalog.events({ vmName: name, limit: HISTORY_EVENTS })).map(pastResyncShape);
    },
    'resync.queue': async () => queueShape(host),
  };
}

function resume(host: Host, { name, extended, resynchronize, at: given, continue: goOn, offPeak, overwriteReplica }: Params<'resume'>): void {
  const { relationships, sender } = sendingEnd(host, extended);
  const { vmId } = vmOfEnd(host, { name, extended });
  if (extended !== true) host.primaries.get(vmId)?.tracked?.recordOwed();
  const { state, required, resync, settings, error } = relationships.get(vmId);
  const now = host.parts.clock.now();
  const bare = [resynchronize, given, goOn, offPeak].every((option) => option === undefined);
  if (bare && state === 'Resynchronizing' && error !== null && (error.retryAt ?? 0) > now) {
    // It is under way, and waits for its next attempt: that is made at once.
    relationships.update(vmId, { error: { ...error, retryAt: now } });
    return sender(vmId).interrupt('the next attempt was asked for');
  }
  // The hours count although they are not switched on: this once, somebody has asked for them.
  const window = offPeak === true ? nextAutomaticStart({ ...settings.autoResync, enabled: true }, now, host.parts.zone) : null;
  const at = window === null || window <= now ? given : new Date(window).toISOString();
  const startAt = at === undefined ? now : Date.parse(at);
  if (startAt < now - 1000 || startAt > now + START_AHEAD_MS_MAX) {
    throw new UnderstudyError('usage', startAt < now ? 'START_TIME_IN_PAST' : 'START_TIME_TOO_FAR',
      `the start ${at} is not between now (${new Date(now).toISOString()}) and 7 days ahead`, 'Give a time within the next 7 days.');
  }
  const starts = resynchronize === true || state === 'WaitingForStartResynchronize';
  const circumstances = at === undefined ? {} : { startAt: at };
  if (at !== undefined && !starts) {
    throw new UnderstudyError('usage', 'START_TIME_WITHOUT_RESYNC', `VM '${name}' is in state ${state}: only a resynchronization can start at a time`,
      `Add --resynchronize, or leave --at away.`);
  }
  if (goOn === true && state !== 'ResynchronizeSuspended') {
    throw new UnderstudyError('state', 'INVALID_STATE', `VM '${name}' is in state ${state}: there is no paused resynchronization to continue`,
      'See its status.');
  }
  const overwrites = starts ? overwrittenBy(relationships.get(vmId)) : null;
  if (overwrites !== null && overwriteReplica !== true) {
    throw new UnderstudyError('state', 'REPLICA_MAY_BE_NEWER', `a resynchronization of VM '${name}' would overwrite ${overwrites}`,
      `If the replica has what you want, run on its host: understudy failover ${name}. To give it up: understudy resume ${name} --overwrite-replica.`);
  }
  const asked = { trigger: ASKED_FOR, reason: 'the user asked for it', rung: 'full-compare' as const, since: now };
  const change = starts ? {
    error: null, required: { ...(resynchronize === true && required === null ? asked : (required ?? asked)), startAt, held: false },
    ...(resync === null ? {} : { resync: null, abandoned: resync.token }),
  } : { error: null };
  relationships.perform(vmId, resynchronize === true ? 'resynchronize' : 'resume', change, circumstances);
  if (resynchronize === true) sender(vmId).tracked?.goMapOnly();
  sender(vmId).interrupt('replication was resumed');
}

/** As many as the settings ask for: how many there are, the replica knows. */
function olderPointsLost({ settings, required }: RelationshipRecord): number {
  return keepsOlderPoints(settings, required?.trigger ?? ASKED_FOR) ? 0 : settings.recoveryHistory;
}

/** What only the replica may still have, and why that can be (R21); null when the replica knows nothing that the primary does not. */
function overwrittenBy({ required, lastAppliedTime, lastAppliedEpoch, remote }: RelationshipRecord): string | null {
  if (required === null || !mayOverwriteNewer(required)) return null;
  const of = lastAppliedTime === null ? '' : ` of ${new Date(lastAppliedTime).toISOString()} (log ${lastAppliedEpoch})`;
  return `the state${of} that the replica on ${remote.name || remote.host} has, which may be later than the primary's: ${required.reason}`;
}

function onPrimary(host: Host, vm: VmRecord, operation: string): void {
  if (vm.side === 'primary') return;
  const { remote } = host.relationships.get(vm.vmId);
  throw new UnderstudyError('state', 'WRONG_SIDE',
    `VM '${vm.name}' is on this host as replica: operation '${operation}' belongs on the primary, host ${remote.name || remote.host}`,
    `Run it on host ${remote.name || remote.host}.`);
}

const PHASE_TEXT = { characteristics: 'characteristics', tracking: 'tracking', comparing: 'comparing', completing: 'completing',
  merging: 'merging' } as const;

export function resyncStatusShape(host: Host, vm: VmRecord, extended = false): ResyncStatus {
  const relationship = sendingEnd(host, extended).relationships.get(vm.vmId);
  const { resync, required, state } = relationship;
  const live = host.resync.live.get(vm.vmId);
  const startAt = host.resync.startOf(relationship, host.parts.clock.now());
  const disks = replicatedDisks(vm).map(({ diskId, path, virtualSize }) => {
    const kept = resync?.disks[diskId];
    const now = live?.disks.get(diskId);
    const shown = kept !== undefined && !kept.compared ? now ?? kept : kept;
    const map = live?.maps.get(diskId)?.toString() ?? kept?.map;
    return {
      ...(map === undefined ? {} : { map }),
      path, totalBytes: kept?.totalBytes ?? (resync === null ? virtualSize : 0), cursor: kept?.cursor ?? 0,
      comparedBytes: shown?.comparedBytes ?? 0,
      differingBytes: shown?.differingBytes ?? 0,
      sentBytes: shown?.sentBytes ?? 0,
    };
  });
  const total = disks.reduce((sum, disk) => sum + disk.totalBytes, 0);
  const compared = disks.reduce((sum, disk) => sum + disk.comparedBytes, 0);
  const elapsed = live === undefined ? 0 : (host.parts.clock.now() - live.startedAt) / 1000;
  const rate = live === undefined || elapsed <= 0 ? null : Math.max(0, compared - live.baseBytes) / elapsed;
  return {
    vmName: vm.name, phase: phaseOf(relationship), rung: resync?.rung ?? required?.rung ?? null, state,
    reason: resync?.reason ?? required?.reason ?? null, trigger: required?.trigger ?? null,
    percent: resync === null ? null : resync.phase === 'merging' || total === 0 ? 100 : Math.floor((compared / total) * 100),
    disks, etaSeconds: rate === null || rate === 0 || resync?.phase !== 'comparing' ? null : (total - compared) / rate,
    bytesPerSecond: rate, startTime: startAt === null ? null : new Date(startAt).toISOString(),
    resyncStartTime: resync === null ? null : new Date(resync.startedAt).toISOString(),
    verify: verifyShape(host, vm, relationship),
    mergedBytes: live?.mergedBytes ?? 0, mergeTotalBytes: live?.mergeTotalBytes ?? 0,
  };
}

/** One that runs, or that was cut and will go on; null when there is none. */
function verifyShape(host: Host, { vmId }: VmRecord, { verifying = null }: RelationshipRecord) {
  const live = host.verifies.get(vmId);
  if (live === undefined && verifying === null) return null;
  const { clock } = host.parts;
  const left = (ranges: Record<string, { length: number }[]>) => Object.values(ranges).flat().reduce((sum, { length }) => sum + length, 0);
  const totalBytes = Object.values(verifying?.sizes ?? {}).reduce((sum, size) => sum + size, 0);
  return {
    running: live !== undefined, startTime: verifying === null ? null : new Date(verifying.startedAt).toISOString(),
    totalBytes: live?.totalBytes ?? totalBytes, windows: live?.windows ?? verifying!.windows,
    comparedBytes: live?.comparedBytes ?? totalBytes - left(verifying!.open) - left(verifying!.again),
    differingBytes: live?.differingBytes ?? verifying!.differingBytes,
    heldSeconds: live === undefined || live.heldSince === null ? null : (clock.monotonic() - live.heldSince) / 1000,
  };
}

function phaseOf({ resync, state }: RelationshipRecord): string {
  if (state === 'WaitingForStartResynchronize') return 'required';
  if (resync === null) return 'none';
  return state === 'ResynchronizeSuspended' ? 'paused' : PHASE_TEXT[resync.phase];
}

export function queueShape(host: Host): ResyncQueueEntry[] {
  const { running, waiting } = host.resync.queue;
  const now = host.parts.clock.now();
  const entries: ResyncQueueEntry[] = [];
  // A VM sends here as primary, or as the replica that feeds an extended one: never as both.
  for (const relationship of [...host.catalog.relationships.list(), ...host.catalog.extended.relationships.list()]) {
    const { vmId, side, state, settings, required } = relationship;
    if (side !== 'primary' || (required === null && state !== 'Resynchronizing')) continue;
    const startAt = host.resync.startOf(relationship, now);
    const position = running.includes(vmId) ? 0 : waiting.indexOf(vmId) + 1;
    const standing = running.includes(vmId) ? 'running' : waiting.includes(vmId) ? 'waiting'
      : state === 'ResynchronizeSuspended' ? 'paused' : 'scheduled';
    entries.push({ vmName: host.relationships.vm(vmId).name, standing, position, priority: settings.resyncPriority,
      startTime: startAt === null ? null : new Date(startAt).toISOString(), reason: required?.reason ?? null });
  }
  return entries.sort((a, b) => a.position - b.position);
}

function pastResyncShape({ startedAt, endedAt, rung, reason, sentBytes, result }: PastResync) {
  const iso = (time: number) => new Date(time).toISOString();
  return { startTime: iso(startedAt), endTime: endedAt === null ? null : iso(endedAt), rung, reason, sentBytes, result,
    seconds: endedAt === null ? null : (endedAt - startedAt) / 1000 };
}

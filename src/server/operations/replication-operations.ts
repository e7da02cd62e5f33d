/** Replication as the administrator steers it. */
import { UnderstudyError } from '../../model/errors.ts';
import { ACTIVITY_EVENTS, makeEvent } from '../../model/events.ts';
import type { VmRecord } from '../../model/records.ts';
import { changeSettings, relationshipSettingsSchema, type SettingsChange } from '../../model/settings.ts';
import { settingsError } from '../../model/settings.ts';
import { newStatistics } from '../../model/statistics.ts';
import { normaliseFingerprint, splitHostPort } from './pairing-operations.ts';
import { announcementOf } from '../../replication/announcement.ts';
import { exportFolderOf } from '../../replication/export-folder.ts';
import { prepareExportFolder } from '../../replication/export-writer.ts';
import { extend, LEG_FREQUENCY_SEC_MIN, refuseSettings } from '../../replication/extended/extend.ts';
import { enableMessage } from '../../replication/messages.ts';
import { newSendingRelationship } from '../../replication/new-relationship.ts';
import type { HostOperations, Params, Status } from '../api/contract.ts';
import type { Host } from '../host.ts';
import { sendingEnd, vmOfEnd, type SendingEnd } from '../sending-end.ts';
import { statusShape } from '../status.ts';
import { setHypervisor } from './guest-operations.ts';
import { checkExportSpace, checkLaterStart, checkStart } from './start-check.ts';
import { primaryOnly } from './vm-operations.ts';

type Operations = Pick<HostOperations,
  'enable' | 'extend' | 'start' | 'stop-initial' | 'sync-now' | 'set' | 'remove' | 'reset-statistics'>;

export function replicationOperations(host: Host): Operations {
  const { relationships } = host;
  const status = (name: string, extended = false): Status => statusShape(host, host.vm(name), extended);
  return {
    'enable': async (params) => {
      await enable(host, params);
      return status(params.name);
    },
    'extend': async (params) => {
      await extendVm(host, params);
      return status(params.name, true);
    },
    'start': async (params, { signal }) => {
      await start(host, params, signal);
      return status(params.name, params.extended);
    },
    'stop-initial': async ({ name, extended }) => {
      const [vm, end] = [vmOfEnd(host, { name, extended }), sendingEnd(host, extended)];
      refuseAfterExport(end, vm);
      end.relationships.perform(vm.vmId, 'stop-initial', { initial: null, error: null });
      end.sender(vm.vmId).interrupt('initial replication was stopped');
      return status(name, extended);
    },
    'sync-now': async ({ name, extended }, { signal }) => {
      const [vm, end] = [vmOfEnd(host, { name, extended }), sendingEnd(host, extended)];
      end.relationships.check(vm.vmId, 'sync-now');
      const startedAt = host.parts.clock.monotonic();
      const { epoch, bytes } = await end.sender(vm.vmId).syncNow(signal);
      return { vmName: name, logSequence: epoch, bytes, seconds: (host.parts.clock.monotonic() - startedAt) / 1000 };
    },
    'set': async ({ name, extended, settings, replica, fingerprint, hypervisor, initialReplicationStartTime }) => {
      const [vm, end] = [vmOfEnd(host, { name, extended }), sendingEnd(host, extended)];
      const ofRelationship = [settings, replica, fingerprint, initialReplicationStartTime].some((given) => given !== undefined);
      if (ofRelationship) end.relationships.check(vm.vmId, 'set');
      if (hypervisor !== undefined) setHypervisor(host, vm, hypervisor);
      if (ofRelationship) changeRelationship(host, end, host.vm(name), settings ?? {}, { replica, fingerprint });
      return status(name, extended);
    },
    'remove': async ({ name, extended }) => {
      const vm = vmOfEnd(host, { name, extended });
      if (extended === true) {
        const before = status(name, true);
        await host.extended.remove(vm.vmId);
        return { ...before, state: 'Disabled' };
      }
      relationships.check(vm.vmId, 'remove');
      if (vm.side === 'replica') {
        refuseExtended(host, vm);
        await host.failover.abandon(vm.vmId);
        await host.replicas.remove(vm.vmId);
        host.catalog.transaction(() => host.catalog.vms.remove(vm.vmId));
      } else await host.primary(vm.vmId).endReplication();
      host.definitions.forget(vm.vmId);
      return { ...statusShape(host, { ...vm, tracking: null }), state: 'Disabled' };
    },
    'reset-statistics': async ({ name, extended }) => {
      const [{ vmId }, end] = [vmOfEnd(host, { name, extended }), sendingEnd(host, extended)];
      end.relationships.update(vmId, { statistics: newStatistics(host.parts.clock.now(), host.settings(), host.parts.zone) });
      end.relationships.note(vmId, makeEvent(ACTIVITY_EVENTS.statisticsReset, name, {}));
      return status(name, extended);
    },
  };
}

async function extendVm(host: Host, { name, replica, fingerprint, settings }: Params<'extend'>): Promise<void> {
  const { vmId } = host.vm(name);
  const first = host.relationships.get(vmId);
  const [address, port] = splitHostPort(replica);
  const remote = { host: address, port, fingerprint: normaliseFingerprint(fingerprint), name: '' };
  // As often as the first leg, but never every 30 s.
  const frequencySec = Math.max(LEG_FREQUENCY_SEC_MIN, first.settings.frequencySec) as 300 | 900;
  const chosen = parsed(() => changeSettings(relationshipSettingsSchema.parse({ frequencySec }), (settings ?? {}) as SettingsChange));
  await extend(host.extended, first, remote, chosen, host.parts.zone);
}

/** The leg would lose what feeds it. */
function refuseExtended(host: Host, { vmId, name }: VmRecord): void {
  const leg = host.extended.relationships.find(vmId);
  if (leg === undefined) return;
  throw new UnderstudyError('state', 'VM_IS_EXTENDED', `VM '${name}' is extended from this host to host ${leg.remote.name || leg.remote.host}`,
    `End that first: understudy remove '${name}' --extended`);
}

async function enable(host: Host, { name, replica, fingerprint, settings }: Params<'enable'>): Promise<void> {
  const vm = primaryOnly(host, name, 'enable');
  host.relationships.check(vm.vmId, 'enable');
  const [address, port] = splitHostPort(replica);
  const remote = { host: address, port, fingerprint: normaliseFingerprint(fingerprint), name: '' };
  const chosen = parsed(() => changeSettings(relationshipSettingsSchema.parse({}), (settings ?? {}) as SettingsChange));
  const kept = withoutExcluded(vm, chosen.excludedDisks);
  const { result } = await host.ports.link(remote).call(enableMessage, announcementOf(host.ports, kept, chosen));
  const now = host.parts.clock.now();
  const relationship = newSendingRelationship({
    vmId: vm.vmId, remote: { ...remote, name: result.replicaName }, settings: chosen, trustGroup: result.trustGroup, now,
    hostSettings: host.settings(), zone: host.parts.zone,
  });
  host.catalog.transaction(() => {
    host.catalog.vms.put(kept);
    host.catalog.relationships.put(relationship);
    host.relationships.perform(vm.vmId, 'enable');
  });
  host.primary(vm.vmId).run();
}

function withoutExcluded(vm: VmRecord, excluded: string[]): VmRecord {
  const unknown = excluded.find((path) => !vm.disks.some((disk) => disk.path === path));
  if (unknown !== undefined) {
    throw new UnderstudyError('usage', 'DISK_NOT_FOUND', `VM '${vm.name}' has no disk ${unknown}`, `Its disks: ${vm.disks.map(({ path }) => path).join(', ')}`);
  }
  const disks = vm.disks.map(({ excluded: _, ...disk }) => (excluded.includes(disk.path) ? { ...disk, excluded: true as const } : disk));
  if (disks.length > excluded.length) return { ...vm, disks };
  throw new UnderstudyError('usage', 'NO_DISKS_LEFT', `all disks of VM '${vm.name}' are excluded`, 'Leave at least one disk.');
}

/** The copy may be on its way: only an error that has made it worthless ends the run. */
function refuseAfterExport(end: SendingEnd, { vmId, name }: VmRecord): void {
  const relationship = end.relationships.find(vmId);
  if (relationship?.initial?.method !== 'export' || !relationship.initial.copied || relationship.state === 'Error') return;
  throw new UnderstudyError('state', 'EXPORT_FINISHED',
    `VM '${name}' is exported to ${exportFolderOf({ vmId, name }, relationship.initial.folder!)} and waits for its import: the export cannot be stopped any more`,
    `Import it on the replica (understudy import '${name}' --from DIR), or end replication: understudy remove '${name}'`);
}

async function start(host: Host, { name, extended, at, exportTo, useExisting }: Params<'start'>, signal: AbortSignal): Promise<void> {
  const [vm, end] = [vmOfEnd(host, { name, extended }), sendingEnd(host, extended)];
  const startAt = at === undefined ? null : Date.parse(at);
  const method = exportTo !== undefined ? 'export' : useExisting === true ? 'existing' : 'network';
  end.relationships.check(vm.vmId, 'start-initial', at === undefined ? {} : { startAt: at });
  const sender = end.sender(vm.vmId);
  if (exportTo !== undefined) {
    await checkExportSpace(host, sender, exportTo);
    await prepareExportFolder(host.parts, vm, exportTo, null);
  }
  if (method !== 'export') await (at === undefined ? checkStart : checkLaterStart)(host, sender, method, signal);
  end.relationships.perform(vm.vmId, 'start-initial', {
    error: null,
    initial: { method, startAt, token: '', folder: exportTo ?? null, firstEpoch: 0, cursors: {}, copied: false },
  }, at === undefined ? {} : { startAt: at });
  sender.interrupt('initial replication was started');
}

function changeRelationship(
  host: Host, end: SendingEnd, vm: VmRecord, change: object, where: { replica: string | undefined; fingerprint: string | undefined },
): void {
  const { relationships } = end;
  const before = relationships.get(vm.vmId);
  const settings = parsed(() => changeSettings(before.settings, change as SettingsChange));
  if (end.extended) refuseSettings(vm.name, host.relationships.get(vm.vmId), settings);
  const [address, port] = where.replica === undefined ? [before.remote.host, before.remote.port] : splitHostPort(where.replica);
  const fingerprint = where.fingerprint === undefined ? before.remote.fingerprint : normaliseFingerprint(where.fingerprint);
  const remote = { ...before.remote, host: address, port, fingerprint };
  relationships.update(vm.vmId, { settings, remote });
  relationships.note(vm.vmId, makeEvent(ACTIVITY_EVENTS.settingsChanged, vm.name, { changes: { ...change, ...where } }));
  end.sender(vm.vmId).settingsChanged();
}

function parsed<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw settingsError(error);
  }
}

/** All replica VMs of this host, and the messages through which their primaries reach them. */
import type { z } from 'zod';
import { generationOf } from '../model/direction.ts';
import { UnderstudyError } from '../model/errors.ts';
import { makeEvent, ACTIVITY_EVENTS } from '../model/events.ts';
import type { DiskRecord, RelationshipRecord, VmRecord } from '../model/records.ts';
import { relationshipSettingsSchema } from '../model/settings.ts';
import { newStatistics } from '../model/statistics.ts';
import { decide, decideNewVm, isPartner, vmUnknownToPeer, type PeerEntry } from '../peer/authorisation.ts';
import type { PeerDispatcher } from '../peer/dispatcher.ts';
import type { PeerCaller } from '../peer/message.ts';
import { checkInitial } from './initial-check.ts';
import {
  CHUNK_BYTES, enableMessage, initialBeginMessage, initialCheckMessage, initialCheckpointMessage, initialCompleteMessage, initialDataMessage,
  logCommitMessage, logDataMessage, logOfferMessage, reportMessage, waitAppliedMessage, type AnsweredVm, type OfferedDisk, type ReportedVm,
} from './messages.ts';
import { toldToPrimary } from './replica-failures.ts';
import { hasBaseline } from './relationships.ts';
import { buffers } from './shipping.ts';
import { ReplicaVm } from './replica-vm.ts';
import type { ReplicationPorts } from './replication-ports.ts';

type Enable = z.output<typeof enableMessage.params>;

export class ReplicaHost {
  #ports: ReplicationPorts;
  #zone: string;
  #vms = new Map<string, ReplicaVm>();
  /** Gives every replica its watch, before anything is applied to it. */
  adopted: (vm: ReplicaVm) => Promise<void> = async () => {};

  constructor(ports: ReplicationPorts, zone: string) {
    this.#ports = ports;
    this.#zone = zone;
  }

  /** Takes up every replica VM of the catalog. */
  async start(): Promise<void> {
    for (const { vmId, side } of this.#ports.catalog.relationships.list()) {
      if (side === 'replica') await this.#adopt(vmId);
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.#vms.values()].map((vm) => vm.close()));
    this.#vms.clear();
  }

  get(vmId: string): ReplicaVm | undefined {
    return this.#vms.get(vmId);
  }

  /** Ends the replica's part: its relationship, inbox and recovery points go, its disks stay. */
  async remove(vmId: string): Promise<void> {
    const vm = this.#vms.get(vmId);
    this.#ports.relationships.check(vmId, 'remove');
    this.#vms.delete(vmId);
    await vm?.inbox.clear();
    await vm?.close();
    let removeFiles = async () => {};
    this.#ports.catalog.transaction(() => {
      if (vm !== undefined) ({ removeFiles } = vm.points.deleteAll());
      this.#ports.relationships.remove(vmId);
    });
    await removeFiles();
  }

  /** Answers the primaries of this host's replicas. */
  serve(dispatcher: PeerDispatcher): void {
    const handle: PeerDispatcher['handle'] = (message, handler) => dispatcher.handle(message, async (...call) => {
      try {
        return await handler(...call);
      } catch (error) {
        throw toldToPrimary(error, this.#ports.hostName);
      }
    });
    handle(enableMessage, async (caller, params) => ({ result: await this.#enable(caller, params) }));
    handle(initialCheckMessage, async (caller, { vmId, method }) =>
      ({ result: await checkInitial(this.#ports, this.of(caller, vmId), method) }));
    handle(initialBeginMessage, async (caller, { vmId, token, method, firstEpoch }) =>
      ({ result: { cursors: await this.of(caller, vmId).beginInitial(token, method, firstEpoch) } }));
    handle(initialDataMessage, async (caller, params, payload) => {
      const vm = this.of(caller, params.vmId);
      vm.arrived.add(payload.length);
      await this.#withPiece(params, payload, (data) => vm.initial.write(params.token, params.diskId, params.offset, data, params.digest));
      return { result: {} };
    });
    handle(initialCheckpointMessage, async (caller, { vmId, token, diskId, offset }) => {
      const vm = this.of(caller, vmId);
      await vm.initial.checkpoint(token, diskId, offset);
      vm.arrived.keep();
      return { result: {} };
    });
    handle(initialCompleteMessage, async (caller, { vmId, token, consistentFrom }) => {
      await this.of(caller, vmId).completeInitial(token, consistentFrom);
      return { result: {} };
    });
    handle(logOfferMessage, async (caller, { vmId, baselineId, epoch, closedAt, disks, applicationConsistent }) =>
      ({ result: await this.of(caller, vmId).offer(baselineId, epoch, closedAt, disks, applicationConsistent) }));
    handle(logDataMessage, async (caller, params, payload) => {
      const vm = this.of(caller, params.vmId);
      vm.arrived.add(payload.length);
      await this.#withPiece(params, payload, (data) => vm.inbox.write(params.epoch, params.diskId, params.offset, data));
      return { result: {} };
    });
    handle(logCommitMessage, async (caller, { vmId, epoch }) => {
      await this.of(caller, vmId).commit(epoch);
      return { result: {} };
    });
    handle(waitAppliedMessage, async (caller, { vmId, epoch, waitMs }) => {
      const vm = this.of(caller, vmId);
      await vm.waitApplied(epoch, waitMs);
      return { result: vm.answer() };
    });
    handle(reportMessage, async (caller, { vms }) => ({ result: { vms: vms.map((vm) => this.#report(caller, vm)) } }));
  }

  /** Takes a VM up whose record says replica: at the start, and after a change of direction. */
  async adopt(vmId: string): Promise<void> {
    await this.#adopt(vmId);
  }

  /** The VM is no replica of this host any more; its record stays. */
  async release(vmId: string): Promise<void> {
    const vm = this.#vms.get(vmId);
    this.#vms.delete(vmId);
    await vm?.close();
  }

  async #adopt(vmId: string): Promise<ReplicaVm> {
    const vm = new ReplicaVm(this.#ports, vmId);
    this.#vms.set(vmId, vm);
    await this.adopted(vm);
    await vm.start();
    return vm;
  }

  /** `use` has the piece until its promise settles. */
  async #withPiece(
    params: { encoding: 'raw' | 'zstd'; length: number }, payload: Uint8Array, use: (data: Uint8Array) => Promise<void>,
  ): Promise<void> {
    const room = params.encoding === 'zstd' ? buffers.take(params.length) : null;
    const data = room === null ? payload : await this.#ports.compute.decompress(payload, CHUNK_BYTES, room);
    if (data.length !== params.length) {
      throw new UnderstudyError('usage', 'PIECE_LENGTH_MISMATCH', `a piece of ${data.length} bytes, announced were ${params.length}`,
        'Bring both hosts to the same version of understudy.');
    }
    await use(data);
    if (room !== null) buffers.give(room);
  }

  #entries(): PeerEntry[] {
    return this.#ports.catalog.authorizations.list();
  }

  /** The VM, when the caller is its primary; else the answer that tells nothing (promise 7). */
  of(caller: PeerCaller, vmId: string): ReplicaVm {
    const relationship = this.#ports.relationships.find(vmId);
    const owned = relationship?.side === 'replica' ? relationship : undefined;
    if (owned !== undefined && isPartner(owned, caller)) return this.#vms.get(vmId) ?? raise(vmUnknownToPeer(vmId));
    const owner = owned === undefined ? null : { storageLocation: '', trustGroup: owned.trustGroup };
    const decision = decide(this.#entries(), caller, vmId, owner);
    if (!decision.allowed) {
      this.#ports.log.warn({ fingerprint: caller.fingerprint, address: caller.address, reason: decision.reason }, 'refused a peer');
      throw decision.refusal;
    }
    checkPrimary(owned!, caller, vmId);
    const vm = this.#vms.get(vmId);
    if (vm === undefined) throw vmUnknownToPeer(vmId);
    return vm;
  }

  async #enable(caller: PeerCaller, params: Enable): Promise<{ replicaName: string; trustGroup: string }> {
    const { relationships, catalog } = this.#ports;
    const known = relationships.find(params.vmId);
    if (known !== undefined) {
      this.of(caller, params.vmId);
      this.#bringUpToDate(params, caller);
      await this.get(params.vmId)?.historyChanged();
      return { replicaName: this.#ports.hostName, trustGroup: known.trustGroup };
    }
    const decision = decideNewVm(this.#entries(), caller, params.name);
    if (!decision.allowed) throw decision.refusal;
    const before = catalog.vms.get(params.vmId);
    if (before !== undefined && before.side === 'primary') {
      throw new UnderstudyError('usage', 'SAME_HOST', `VM '${params.name}' is a primary of this very host`,
        'Name another host as its replica.');
    }
    const namesake = catalog.vmByName(params.name);
    if (namesake !== undefined && namesake.vmId !== params.vmId) {
      throw new UnderstudyError('state', 'REPLICA_NAME_IN_USE',
        `the replica host has a VM '${params.name}' already (${namesake.vmId}), offered was ${params.vmId}`,
        'Rename one of the two, or remove the other one: two primaries cannot feed one replica.');
    }
    await this.#checkStorage(decision.storageLocation);
    this.#create(caller, params, decision);
    await this.#adopt(params.vmId);
    return { replicaName: this.#ports.hostName, trustGroup: decision.trustGroup };
  }

  #create(caller: PeerCaller, params: Enable, where: { storageLocation: string; trustGroup: string }): void {
    const { relationships, catalog, clock } = this.#ports;
    const folder = `${where.storageLocation}/${params.name}/${params.vmId}`;
    const now = clock.now();
    const vm: VmRecord = {
      vmId: params.vmId, name: params.name, createdAt: now, side: 'replica', disks: disksIn(folder, params.disks), logFolder: null,
      attach: 'stopped', trustDisk: false, tracking: null,
    };
    const relationship: RelationshipRecord = {
      vmId: params.vmId, side: 'replica', ...(params.extended === true ? { extended: true as const } : {}),
      state: 'Disabled', createdAt: now, trustGroup: where.trustGroup, baselineId: '',
      remote: { host: hostOf(caller.address), port: params.primaryPort, fingerprint: caller.fingerprint, name: params.primaryName },
      settings: relationshipSettingsSchema.parse({ frequencySec: params.frequencySec, recoveryHistory: params.recoveryHistory }),
      initial: null, required: null, resync: null, error: null, lastReplicationTime: null, lastReceivedEpoch: -1, lastAppliedEpoch: -1,
      lastAppliedTime: null, lastAppliedLogs: {}, consistentFrom: 0, appliedSeals: {}, applying: null, wantedAgain: null, lost: null,
      transferred: { initialBytes: 0, logBytes: 0, wireBytes: 0, resyncBytes: 0 },
      remoteState: null, mapTrusted: true, statistics: newStatistics(now, this.#ports.hostSettings(), this.#zone),
    };
    catalog.transaction(() => {
      catalog.vms.put(vm);
      catalog.relationships.put(relationship);
      relationships.happened(params.vmId, { kind: 'enabled-by-primary', reason: `enabled by ${params.primaryName}` });
    });
  }

  #bringUpToDate(params: Enable, caller: PeerCaller): void {
    const { relationships } = this.#ports;
    const { settings, remote } = relationships.get(params.vmId);
    const changed = { frequencySec: params.frequencySec, recoveryHistory: params.recoveryHistory };
    relationships.update(params.vmId, {
      settings: { ...settings, ...changed },
      remote: { ...remote, host: hostOf(caller.address), port: params.primaryPort, name: params.primaryName },
    });
    if (hasBaseline(relationships.get(params.vmId))) return;
    // The placeholder's disks are still to be made: they will be as large as the primary's are now (R26).
    const { catalog } = this.#ports;
    const sizes = new Map(params.disks.map(({ diskId, virtualSize }) => [diskId, virtualSize]));
    const vm = relationships.vm(params.vmId);
    const disks = vm.disks.map((disk) => ({ ...disk, virtualSize: sizes.get(disk.diskId) ?? disk.virtualSize }));
    catalog.transaction(() => catalog.vms.put({ ...vm, disks }));
  }

  async #checkStorage(folder: string): Promise<void> {
    try {
      await this.#ports.files.makeFolder(folder);
    } catch (cause) {
      throw new UnderstudyError('io', 'REPLICA_STORAGE_UNUSABLE', `the storage location ${folder} cannot be used`,
        'Authorise the primary with another folder: understudy authorize FINGERPRINT --storage DIR', { cause });
    }
  }

  /** Whoever asks about a VM that is not his hears the same as about one that does not exist. */
  #report(caller: PeerCaller, reported: ReportedVm): AnsweredVm {
    let vm: ReplicaVm;
    const relationship = this.#ports.relationships.find(reported.vmId);
    // The caller is out of date: it must hear that it is not the primary any more (R21).
    if (relationship?.side === 'primary' && relationship.remote.fingerprint === caller.fingerprint) return answerAsPrimary(relationship);
    try {
      vm = this.of(caller, reported.vmId);
    } catch {
      return {
        vmId: reported.vmId, known: false, baselineId: null, state: 'Disabled', receivedEpoch: 0, appliedEpoch: 0, appliedTime: null,
        inboxBytes: 0, wantedAgain: null, lost: null, failure: null,
      };
    }
    this.#follow(vm, reported);
    return vm.answer();
  }

  /** After a failover: the primary that is heard again may hold what never came here (R22); both hosts say so, none decides. */
  #meetOldPrimary(vm: ReplicaVm, { state, epoch, pending }: ReportedVm): void {
    const { failover = null } = vm.relationship;
    if (failover === null || state === 'PreparedForFailover') return;
    const primaryHolds = epoch > failover.throughEpoch || pending === true;
    if (failover.primaryHolds === primaryHolds) return;
    const { relationships } = this.#ports;
    relationships.update(vm.vmId, { failover: { ...failover, primaryHolds } });
    relationships.note(vm.vmId, makeEvent(ACTIVITY_EVENTS.oldPrimaryMet, vm.vm.name, {
      primaryServer: vm.relationship.remote.name || vm.relationship.remote.host, primaryHolds }));
  }

  /** What the primary says of itself: shown here, and its resync states are mirrored. */
  #follow(vm: ReplicaVm, reported: ReportedVm): void {
    const { relationships, clock } = this.#ports;
    const before = vm.relationship;
    this.#meetOldPrimary(vm, reported);
    if (reported.state !== before.remoteState || reported.mapTrusted !== before.mapTrusted) {
      relationships.update(vm.vmId, { remoteState: reported.state, mapTrusted: reported.mapTrusted });
      if (!reported.mapTrusted && before.mapTrusted) {
        const reason = 'the primary could not keep its bits durable';
        relationships.note(vm.vmId, makeEvent(ACTIVITY_EVENTS.changeMapDistrusted, vm.vm.name, { reason }));
      }
      const reason = `the primary is ${reported.state}`;
      relationships.happened(vm.vmId, { kind: 'primary-changed', state: reported.state, reason });
    }
    const { recoveryHistory = before.settings.recoveryHistory } = reported;
    if (recoveryHistory !== before.settings.recoveryHistory) {
      relationships.update(vm.vmId, { settings: { ...before.settings, recoveryHistory } });
      vm.historyChanged().catch((error: unknown) => this.#ports.log.warn({ vm: vm.vmId, error }, 'recovery points could not be deleted'));
    }
    if (reported.baselineId !== before.baselineId || reported.unchangedUntil === null) return;
    // Nothing was written: the replica shows that instant too, without a log.
    if (reported.epoch !== before.lastAppliedEpoch) return;
    relationships.count(vm.vmId, { outcome: 'success', bytes: 0, latencyMs: 0 }, {
      lastReplicationTime: clock.now(), lastAppliedTime: Math.max(before.lastAppliedTime ?? 0, reported.unchangedUntil),
    });
  }
}

function answerAsPrimary(relationship: RelationshipRecord): AnsweredVm {
  const { vmId, state, baselineId, lastReceivedEpoch, lastAppliedEpoch, lastAppliedTime } = relationship;
  return {
    vmId, known: true, side: 'primary', generation: generationOf(relationship), baselineId: baselineId === '' ? null : baselineId, state,
    receivedEpoch: lastReceivedEpoch, appliedEpoch: lastAppliedEpoch, appliedTime: lastAppliedTime, inboxBytes: 0, wantedAgain: null,
    lost: null, failure: null,
  };
}

function raise(error: Error): never {
  throw error;
}

function checkPrimary(relationship: RelationshipRecord, caller: PeerCaller, vmId: string): void {
  if (relationship.remote.fingerprint === caller.fingerprint) return;
  throw new UnderstudyError('state', 'REPLICA_HAS_OTHER_PRIMARY',
    `the replica of VM ${vmId} belongs to primary ${relationship.remote.name}, not to ${caller.name ?? caller.fingerprint}`,
    'Remove replication on the other primary and on the replica first: two primaries cannot feed one replica.');
}

/** Folders by VM name and id, as Hyper-V keeps them apart by GUID: two primaries may both have a `disk.raw`. */
function disksIn(folder: string, offered: OfferedDisk[]): DiskRecord[] {
  const taken = new Set<string>();
  return offered.map(({ fileName, ...disk }) => {
    const name = taken.has(fileName) ? `${disk.diskId}-${fileName}` : fileName;
    taken.add(name);
    return { ...disk, path: `${folder}/${name}` };
  });
}

const hostOf = (address: string): string => address.replace(/:\d+$/, '').replace(/^\[|\]$/g, '');

/**
 * The replica's part in a change of direction: take over, and become the primary.
 *
 * Invariants
 * - A planned failover is on record here only after the primary has put its yes on record, and only if it has not been taken back.
 * - Becoming the primary is one transaction here; the old primary is told afterwards, as often as it takes. Between the two it keeps
 *   guests out, because it yielded before.
 * - Nothing that the old primary alone holds is dropped without a command that names it (R21).
 */
import { generationOf } from '../model/direction.ts';
import { messageOf, UnderstudyError } from '../model/errors.ts';
import { replicatedDisks, type FailoverRecord, type RelationshipRecord, type SealRecord, type VmRecord } from '../model/records.ts';
import type { PeerDispatcher } from '../peer/dispatcher.ts';
import type { ReplicaVm } from '../replication/replica-vm.ts';
import { ChangeMap } from '../tracking/change-map.ts';
import { mapPath, vmFolder } from '../tracking/tracking-ports.ts';
import type { DirectionHost } from './direction-host.ts';
import { ExtendedDirection } from './extended-direction.ts';
import { handOverMessage, lookMessage, takeBackMessage, takeOverMessage, yieldMessage } from './direction-messages.ts';
import { Lanes } from './lanes.ts';
import type { ReplicaFailover } from './replica-failover.ts';
import { decodeRanges, type RangesByDisk } from './suspect-ranges.ts';

/** How long an unplanned failover waits for a primary that does not answer. */
const ASK_TIMEOUT_MS = 5000;

interface Yielded {
  /** The disks there are what they were at the epoch that was failed over to. */
  equal: boolean;
  /** Where the disks there may differ from that epoch; null when nobody knows. */
  differing: RangesByDisk | null;
  epoch: number;
  settings: RelationshipRecord['settings'];
}

export class ReplicaDirection {
  #host: DirectionHost;
  #failover: ReplicaFailover;
  #extended: ExtendedDirection;
  #lanes = new Lanes();
  /** Planned failovers that wait for the primary's yes or its effect, by VM. */
  #attempts = new Map<string, { takenBack: boolean }>();

  constructor(host: DirectionHost, failover: ReplicaFailover) {
    this.#host = host;
    this.#failover = failover;
    this.#extended = new ExtendedDirection(host);
  }

  serve(dispatcher: PeerDispatcher): void {
    dispatcher.handle(takeBackMessage, async (caller, { vmId }) => {
      const vm = this.#host.replicas.of(caller, vmId);
      const { state } = vm.relationship;
      if (state === 'FailedOverWaitingCompletion' || state === 'FailedOver') {
        throw new UnderstudyError('state', 'PEER_FAILED_OVER', `VM '${vm.vm.name}' has failed over to host ${this.#host.ports.hostName}`,
          `Cancel it there first: understudy failover cancel '${vm.vm.name}'`);
      }
      const attempt = this.#attempts.get(vmId);
      if (attempt !== undefined) attempt.takenBack = true;
      return { result: {} };
    });
  }

  /** `failover --planned`: everything is here and applied, the primary keeps its guests out. */
  planned(vmId: string, signal: AbortSignal): Promise<void> {
    const { ports } = this.#host;
    return this.#lanes.run(vmId, async () => {
      ports.relationships.check(vmId, 'planned-failover', { primaryPrepared: true });
      const vm = this.#replica(vmId);
      refuseOnExtended(vm, 'planned failover');
      this.#extended.refuseTakenOver(vmId);
      const attempt = { takenBack: false };
      this.#attempts.set(vmId, attempt);
      try {
        const { result } = await ports.link(vm.relationship.remote).call(handOverMessage, { vmId }, undefined, { signal });
        await this.#failover.planned(vmId, (throughEpoch) => {
          if (attempt.takenBack) throw takenBack(vm.vm.name);
          this.#extended.refuseTakenOver(vmId);
          if (throughEpoch === result.epoch) return;
          throw new UnderstudyError('state', 'NOT_APPLIED_YET', `epoch ${throughEpoch} is here, the primary handed over at ${result.epoch}`,
            'Wait until the replica has applied everything, then try again.');
        });
      } finally {
        this.#attempts.delete(vmId);
      }
      this.#tellToLook(vmId);
    });
  }

  /**
   * `failover`: the primary is asked first whether its guest runs (split brain), and keeps guests out when it can be reached. When it
   * cannot, the failover is forced: both sides will see that when they meet. `serve` does the failover itself.
   */
  unplanned(vmId: string, signal: AbortSignal, serve: () => Promise<void>): Promise<void> {
    const { ports } = this.#host;
    return this.#lanes.run(vmId, async () => {
      ports.relationships.check(vmId, 'failover');
      this.#extended.refuseTakenOver(vmId);
      const vm = this.#replica(vmId);
      vm.takingOver = true;
      try {
        await this.#askPrimary(vm, signal);
        await serve();
      } finally {
        vm.takingOver = false;
      }
      this.#tellToLook(vmId);
    });
  }

  /** Returns the bytes that were written since and are dropped. */
  cancel(vmId: string): Promise<number> {
    return this.#lanes.run(vmId, async () => {
      const dropped = await this.#failover.cancel(vmId);
      this.#tellToLook(vmId);
      return dropped;
    });
  }

  complete(vmId: string): Promise<void> {
    return this.#lanes.run(vmId, () => this.#failover.complete(vmId));
  }

  /** `reverse`: this host becomes the primary, the other one its replica. `discard`: the user has chosen this side (R21). */
  reverse(vmId: string, discard: boolean, signal: AbortSignal): Promise<void> {
    const { ports } = this.#host;
    return this.#lanes.run(vmId, async () => {
      ports.relationships.check(vmId, 'reverse');
      const vm = this.#replica(vmId);
      this.#refuseExtension(vm);
      this.#refuseGuests(vm.vm);
      if (vm.relationship.resync !== null) {
        throw new UnderstudyError('state', 'REPLICA_BUSY', `the merge of a resynchronization of VM '${vm.vm.name}' is still under way`,
          'Wait until it has ended, then try again.');
      }
      this.#refuseUnfinished(vm);
      const yielded = await this.#askToYield(vm, discard, signal);
      await this.#failover.suspend(vmId);
      try {
        this.#refuseGuests(vm.vm);
        await this.#becomePrimary(vm, yielded);
      } catch (error) {
        await this.#failover.resume(vmId);
        throw error;
      }
      await this.#host.becamePrimary(vmId);
      await this.#untilTold(vmId, signal);
    });
  }

  /** The command ends when the old primary knows, or cannot be told now: then it is told later. */
  async #untilTold(vmId: string, signal: AbortSignal): Promise<void> {
    const { relationships } = this.#host.ports;
    const isOver = () => {
      const { turning = null, error = null } = relationships.find(vmId) ?? {};
      return signal.aborted || turning === null || error !== null;
    };
    await new Promise<void>((resolve) => {
      const look = () => {
        if (!isOver()) return;
        forget();
        signal.removeEventListener('abort', look);
        resolve();
      };
      const forget = relationships.onChange(look);
      signal.addEventListener('abort', look);
      look();
    });
  }

  async #askPrimary(vm: ReplicaVm, signal: AbortSignal): Promise<void> {
    const { ports } = this.#host;
    const timer = new AbortController();
    const late = ports.clock.sleep(ASK_TIMEOUT_MS, timer.signal).then(() => 'late' as const, () => 'asked' as const);
    const asked = ports.link(vm.relationship.remote).call(takeOverMessage, { vmId: vm.vmId }, undefined, { signal, timeoutMs: ASK_TIMEOUT_MS });
    try {
      await Promise.race([asked, late]);
      signal.throwIfAborted();
    } catch (error) {
      if (!(error instanceof UnderstudyError) || error.kind !== 'peer') throw error;
      ports.log.warn({ vm: vm.vm.name, error: error.message }, 'the primary cannot be asked: the failover is forced');
    } finally {
      timer.abort();
      asked.catch(() => undefined);
    }
  }

  async #askToYield(vm: ReplicaVm, discard: boolean, signal: AbortSignal): Promise<Yielded> {
    const { vmId, relationship } = vm;
    const failover = failoverOf(vm.vm.name, relationship);
    const { result, payload } = await this.#host.ports.link(relationship.remote).call(yieldMessage, {
      vmId, generation: generationOf(relationship), baselineId: relationship.baselineId, epoch: failover.throughEpoch,
      failedOverAt: failover.startedAt, discard,
    }, undefined, { signal, timeoutMs: 120_000 });
    const theirs = result.mapKnown ? decodeRanges(result.disks, payload) : null;
    // Completed, the guest has written to plain files, and nobody knows where (R23).
    const untouched = failover.settling === null && relationship.lost === null && (relationship.applying !== null ||
      sameSeals(relationship.appliedSeals, await vm.seals()));
    const whole = theirs !== null && replicatedDisks(vm.vm).every(({ diskId }) => theirs.has(diskId));
    return {
      equal: untouched && failover.pointEpoch === null && result.preparedEpoch === failover.throughEpoch, differing: untouched && whole ? theirs : null,
      epoch: Math.max(result.epoch, failover.throughEpoch, relationship.lastAppliedEpoch, relationship.lastReceivedEpoch), settings: result.settings,
    };
  }

  /** Change maps first, then one transaction. What the guest wrote since the failover follows when the disks are opened. */
  async #becomePrimary(vm: ReplicaVm, { equal, differing, epoch, settings }: Yielded): Promise<void> {
    const { ports } = this.#host;
    const { vmId, relationship } = vm;
    const failover = failoverOf(vm.vm.name, relationship);
    const seals = await vm.seals();
    const known = equal || differing !== null;
    await makeMaps(ports, vm.vm, equal ? new Map() : differing, epoch);
    const now = ports.clock.now();
    const other = relationship.remote.name || relationship.remote.host;
    const reason = equal ? `this host is the primary now, host ${other} its replica; no compare is needed`
      : `this host is the primary now; ${dropped(differing)} on host ${other} that never came here is dropped`;
    const record: VmRecord = { ...vm.vm, logFolder: null, attach: 'on-demand', tracking: {
      epoch, mode: equal ? 'logging' : 'map-only', running: false, bootId: ports.bootId, hostId: ports.hostId, seals, chain: {}, mapTrusted: known } };
    ports.relationships.turn(vmId, { kind: 'reversed', becomes: 'primary', equal, reason }, {
      generation: generationOf(relationship) + 1, baselineId: ports.random.uuid(), settings: { ...settings, excludedDisks: [] },
      failover: null, turning: { epoch, equal }, unmerged: failover.settling === 'done' ? null : failover,
      lastReceivedEpoch: epoch, lastAppliedEpoch: epoch, lastAppliedLogs: {},
      consistentFrom: epoch, appliedSeals: {}, applying: null, wantedAgain: null, lost: null, error: null, resync: null, remoteState: null,
      prepared: null, tookOver: null, mapTrusted: known,
      required: equal ? null : { trigger: 8, reason: 'the direction was reversed', rung: known ? 'suspect-regions' : 'full-compare', since: now,
        startAt: now, held: false, ...(known ? { mapKnows: true as const } : {}) },
    }, record, () => {
      // What the failover shows through logs of the inbox is read from there until it is merged; the rest means nothing any more.
      for (const { epoch: waiting, status } of ports.catalog.inbox.list(vmId)) {
        if (status !== 'received' || waiting > failover.throughEpoch) ports.catalog.inbox.remove(vmId, waiting);
      }
    });
  }

  /** Disks that are being put together behind the guest, or have another size than their records say, cannot be taken over in between. */
  #refuseUnfinished({ vm, relationship }: ReplicaVm): void {
    const { settling } = failoverOf(vm.name, relationship);
    const sizes = this.#failover.sizesOf(vm.vmId);
    const resized = vm.disks.some(({ diskId, virtualSize }) => sizes !== null && sizes.get(diskId) !== virtualSize);
    if (settling === 'done' || (settling === null && !resized)) return;
    throw new UnderstudyError('state', 'FAILOVER_UNFINISHED', `the disks of the failover of VM '${vm.name}' are no plain files yet`,
      settling === null ? `Complete the failover first: understudy failover complete '${vm.name}'` : 'Wait until they are (event FailoverDisksReady).');
  }

  /** A primary has one replica: the direction of the first leg does not change while a second one hangs on it. */
  #refuseExtension(vm: ReplicaVm): void {
    refuseOnExtended(vm, 'reverse');
    const leg = this.#host.ports.catalog.extended.relationships.get(vm.vmId);
    if (leg === undefined) return;
    const { name } = vm.vm;
    throw new UnderstudyError('state', 'VM_IS_EXTENDED', `VM '${name}' is extended from this host to host ${leg.remote.name || leg.remote.host}`,
      `End that first (understudy remove '${name}' --extended); the copy there stays, and what becomes the replica can be extended to it again: ` +
      `understudy extend, then understudy start '${name}' --extended --use-existing`);
  }

  #refuseGuests(vm: VmRecord): void {
    const guests = this.#host.guests(vm.vmId);
    if (guests === 0) return;
    throw new UnderstudyError('state', 'VM_IN_USE', `${guests} guest connections of VM '${vm.name}' are open on this host`,
      'Shut the guest down for the moment of the reversal; it may start again at once afterwards.');
  }

  #replica(vmId: string): ReplicaVm {
    const vm = this.#host.replicas.get(vmId);
    if (vm === undefined) throw new Error(`replica ${vmId} is not adopted`);
    return vm;
  }

  /** So that the other side hears of it before its next report; when it cannot be reached it will hear then. */
  #tellToLook(vmId: string): void {
    const { ports } = this.#host;
    ports.link(ports.relationships.get(vmId).remote).call(lookMessage, { vmId }).catch((error: unknown) =>
      ports.log.debug({ error: messageOf(error) }, 'the other host could not be told yet'));
  }
}

/** The third host knows no primary, only the replica that feeds it. */
function refuseOnExtended({ vm: { name }, relationship: { extended, remote } }: ReplicaVm, what: string): void {
  if (extended !== true) return;
  throw new UnderstudyError('state', 'EXTENDED_REPLICA',
    `VM '${name}' is an extended replica here, fed by host ${remote.name || remote.host}: ${what} is not possible`,
    `Fail over to it where the other two hosts are gone: understudy failover '${name}', then understudy failover complete '${name}'`);
}

async function makeMaps(ports: DirectionHost['ports'], vm: VmRecord, differing: RangesByDisk | null, epoch: number): Promise<void> {
  await ports.files.makeFolder(vmFolder(ports, vm.vmId));
  for (const { diskId, virtualSize } of replicatedDisks(vm)) {
    const map = await ChangeMap.create(ports.files, mapPath(ports, vm.vmId, diskId), {
      ...ports.changeMap, diskSize: virtualSize, everything: differing === null });
    for (const { offset, length } of differing?.get(diskId) ?? []) {
      const inside = Math.min(length, virtualSize - offset);
      if (inside > 0) await map.mark(offset, inside, epoch);
    }
    const failure = map.distrusted;
    await map.close();
    if (failure !== null) throw failure;
  }
}

function failoverOf(name: string, { failover }: RelationshipRecord): FailoverRecord {
  if (failover) return failover;
  throw new Error(`VM ${name} has failed over, and what it serves is not on record`);
}

function sameSeals(before: Record<string, SealRecord>, now: Record<string, SealRecord>): boolean {
  return Object.entries(now).every(([diskId, seal]) => seal.kind === 'none' || JSON.stringify(before[diskId]) === JSON.stringify(seal));
}

function dropped(differing: RangesByDisk | null): string {
  if (differing === null) return 'everything';
  const ranges = [...differing.values()].flat();
  return `what lies in ${ranges.length} regions of together ${ranges.reduce((sum, { length }) => sum + length, 0)} bytes`;
}

const takenBack = (name: string): UnderstudyError =>
  new UnderstudyError('state', 'NOT_PREPARED', `the planned failover of VM '${name}' was taken back on the primary`,
    `Prepare it there again: understudy failover '${name}' --prepare`);

/**
 * The primary's part in a change of direction: prepare a planned failover, hand over, stop for another primary, become its replica.
 *
 * Invariants
 * - One side at most may write (R22): the yes to a hand-over, to a take-over or to a turn is given after it is on record here that
 *   guests are kept out, and while no guest is connected.
 * - What was given is taken back only after the replica has said that it did not take it.
 * - One step at a time per VM; every step is one catalog transaction, and every message may be repeated.
 */
import { generationOf } from '../model/direction.ts';
import { UnderstudyError } from '../model/errors.ts';
import { replicatedDisks, type RelationshipRecord, type SealRecord, type VmRecord } from '../model/records.ts';
import { vmUnknownToPeer } from '../peer/authorisation.ts';
import type { PeerDispatcher } from '../peer/dispatcher.ts';
import type { PeerCaller, PeerReply } from '../peer/message.ts';
import { noteTookOver } from '../replication/peer-direction.ts';
import { removeTrackingFiles } from '../tracking/epoch-logs.ts';
import type { DirectionHost } from './direction-host.ts';
import { ExtendedDirection } from './extended-direction.ts';
import { handOverMessage, lookMessage, takeBackMessage, takeOverMessage, turnMessage, yieldMessage } from './direction-messages.ts';
import { Lanes } from './lanes.ts';
import { encodeRanges, type RangesByDisk } from './suspect-ranges.ts';

type YieldParams = typeof yieldMessage.params._zod.output;
type Yielded = typeof yieldMessage.result._zod.output;
type TurnParams = typeof turnMessage.params._zod.output;

export class PrimaryDirection {
  #host: DirectionHost;
  #extended: ExtendedDirection;
  #lanes = new Lanes();

  constructor(host: DirectionHost) {
    this.#host = host;
    this.#extended = new ExtendedDirection(host);
  }

  serve(dispatcher: PeerDispatcher): void {
    this.#extended.tellPrimaries();
    const inLane = <P extends { vmId: string }, R>(work: (params: P) => Promise<PeerReply<R>>) =>
      (caller: PeerCaller, params: P): Promise<PeerReply<R>> => this.#lanes.run(params.vmId, () => {
        this.#checkPartner(caller, params.vmId);
        return work(params);
      });
    dispatcher.handle(handOverMessage, inLane(async ({ vmId }) => ({ result: this.#handOver(vmId) })));
    const takeOver = inLane(async ({ vmId }: { vmId: string }) => {
      this.#giveWay(vmId, 'the other host takes over');
      return { result: {} };
    });
    dispatcher.handle(takeOverMessage, async (caller, params) => {
      if (!this.#extended.isPartner(caller, params.vmId)) return takeOver(caller, params);
      await this.#lanes.run(params.vmId, () => this.#extended.takeOver(params.vmId));
      return { result: {} };
    });
    dispatcher.handle(yieldMessage, inLane((params) => this.#yield(params)));
    dispatcher.handle(turnMessage, inLane(async (params) => ({ result: { equal: await this.#turn(params) } })));
    dispatcher.handle(lookMessage, async (caller, { vmId }) => {
      if (this.#extended.isPartner(caller, vmId)) {
        this.#extended.look(vmId);
        return { result: {} };
      }
      this.#checkPartner(caller, vmId);
      if (this.#relationship(vmId).side === 'primary') this.#host.primary(vmId).interrupt('the other host has news');
      return { result: {} };
    });
  }

  /** `failover --prepare`: no guest, everything applied on the replica, locked. Until it is on record everything stays as it was. */
  prepare(vmId: string, signal: AbortSignal): Promise<void> {
    const { ports, keepOut } = this.#host;
    return this.#lanes.run(vmId, async () => {
      ports.relationships.check(vmId, 'prepare-failover');
      this.#refuseGuests(vmId, 'Shut the guest down first: the planned failover loses nothing because nobody writes any more.');
      const primary = this.#host.primary(vmId);
      const letIn = keepOut(vmId);
      try {
        const epoch = await primary.handOverLast(signal);
        if (!primary.disksClosed || primary.outbox.newestClosed() !== epoch) {
          throw new UnderstudyError('state', 'VM_IN_USE', `the disks of VM '${primary.vm.name}' were opened meanwhile`, 'Try again.');
        }
        ports.relationships.perform(vmId, 'prepare-failover', { prepared: { token: ports.random.uuid(), epoch, given: false }, error: null });
      } catch (error) {
        await this.#openAgain(vmId);
        throw error;
      } finally {
        letIn();
      }
      primary.interrupt('a planned failover is prepared');
    });
  }

  /** Takes a preparation back. What was given to the replica is asked back first. */
  cancel(vmId: string, signal: AbortSignal): Promise<void> {
    const { ports } = this.#host;
    return this.#lanes.run(vmId, async () => {
      ports.relationships.check(vmId, 'cancel-failover');
      const { prepared = null, remote } = this.#relationship(vmId);
      if (prepared?.given === true) {
        try {
          await ports.link(remote).call(takeBackMessage, { vmId, token: prepared.token }, undefined, { signal });
        } catch (error) {
          if (!(error instanceof UnderstudyError) || error.kind !== 'peer') throw error;
          throw new UnderstudyError('peer', error.code,
            `host ${remote.name || remote.host} was told that it may take VM '${ports.relationships.vm(vmId).name}' over and cannot be asked now: ${error.message}`,
            `Restore the link and cancel again. If that host is gone for good: understudy remove NAME`, { cause: error });
        }
      }
      ports.relationships.perform(vmId, 'cancel-failover', { prepared: null, error: null });
      await this.#openAgain(vmId);
      this.#host.primary(vmId).interrupt('the planned failover was cancelled');
    });
  }

  async #openAgain(vmId: string): Promise<void> {
    const primary = this.#host.primary(vmId);
    if (primary.vm.attach === 'attached') await primary.hold('guest');
  }

  #handOver(vmId: string): { token: string; epoch: number } {
    const { prepared = null, state } = this.#relationship(vmId);
    if (prepared === null) throw notPrepared(this.#host.ports.relationships.vm(vmId).name, state);
    this.#host.ports.relationships.update(vmId, { prepared: { ...prepared, given: true } });
    return { token: prepared.token, epoch: prepared.epoch };
  }

  /** Durable when it returns: no guest gets in. Throws while one is in. */
  #giveWay(vmId: string, reason: string): void {
    const { ports } = this.#host;
    const { prepared = null, side } = this.#relationship(vmId);
    if (side === 'replica') throw staleDirection(ports.relationships.vm(vmId).name, 'this host is its replica already');
    this.#refuseGuests(vmId, 'Shut the guest down there first, or do a planned failover, which loses nothing.');
    if (prepared !== null) return void ports.relationships.update(vmId, { prepared: { ...prepared, given: true } });
    noteTookOver(ports, vmId, reason);
    this.#host.primary(vmId).interrupt(reason);
  }

  async #yield(params: YieldParams): Promise<PeerReply<Yielded>> {
    const { vmId } = params;
    const { ports } = this.#host;
    const before = this.#relationship(vmId);
    if (before.side === 'primary' && generationOf(before) !== params.generation) {
      throw staleDirection(ports.relationships.vm(vmId).name, `this host knows of generation ${generationOf(before)}, not of ${params.generation}`);
    }
    this.#refuseDisksWithoutFolder(ports.relationships.vm(vmId));
    this.#giveWay(vmId, 'the other host wants to be the primary');
    const { prepared = null, settings } = this.#relationship(vmId);
    const sameBaseline = before.baselineId === params.baselineId || before.abandoned === params.baselineId || before.resync?.token === params.baselineId;
    const differing = prepared !== null ? nothingDiffers(ports.relationships.vm(vmId)) : await this.#suspects(vmId);
    if (prepared === null && !params.discard) this.#refuseDivergence(vmId, params.failedOverAt);
    const mapKnown = differing !== null && sameBaseline && this.#relationship(vmId).lastAppliedEpoch <= params.epoch;
    const { disks, payload } = encodeRanges(mapKnown ? differing : new Map());
    const preparedEpoch = sameBaseline ? (prepared?.epoch ?? null) : null;
    const epoch = ports.relationships.vm(vmId).tracking?.epoch ?? 0;
    return { result: { preparedEpoch, epoch, mapKnown, disks, settings }, payload };
  }

  /** What may differ from the replica's last applied epoch; null when nobody knows. Seals the disks, so that it stays true. */
  async #suspects(vmId: string): Promise<RangesByDisk | null> {
    const { ports } = this.#host;
    const primary = this.#host.primary(vmId);
    try {
      const tracked = await primary.hold('yield');
      const suspects = tracked.suspects();
      await primary.letGo('guest');
      await primary.letGo('yield');
      const { required } = this.#relationship(vmId);
      const seen = required === null || required.mapKnows === true || required.trigger === 2 || required.trigger === 3 || required.trigger === 4;
      if (!seen || suspects === null || !primary.disksClosed) return null;
      return new Map(replicatedDisks(primary.vm).map(({ diskId }) => [diskId, suspects.get(diskId) ?? []]));
    } catch (error) {
      ports.log.warn({ vm: primary.vm.name, error: String(error) }, 'what differs from the other host is not known');
      return null;
    }
  }

  /** A replica keeps diff disks beside its disks: a block device and an NBD export have no place for them. */
  #refuseDisksWithoutFolder(vm: VmRecord): void {
    const disk = replicatedDisks(vm).find(({ format, path }) => format === 'nbd' || path.startsWith('/dev/'));
    if (disk === undefined) return;
    throw new UnderstudyError('state', 'DISK_CANNOT_BE_REPLICA',
      `disk ${disk.path} on host ${this.#host.ports.hostName} is no file: it can be a primary's disk only`,
      `Run the VM where it is; to replicate it to host ${this.#host.ports.hostName}, complete the failover (understudy failover complete '${vm.name}'), `
      + 'end replication on both hosts, and enable it anew in the other direction.');
  }

  /** Both sides have written: a person must say which of the two is to go (R21). */
  #refuseDivergence(vmId: string, failedOverAt: number): void {
    const { ports } = this.#host;
    const vm = ports.relationships.vm(vmId);
    const wrote = lastWrite(ports.catalog.epochs.list(vmId), vm);
    if (wrote === null || wrote <= failedOverAt) return;
    throw new UnderstudyError('state', 'SPLIT_BRAIN',
      `VM '${vm.name}' has been written on host ${ports.hostName} too, until ${new Date(wrote).toISOString()}; the other host took over at ${
        new Date(failedOverAt).toISOString()}`,
      `Choose the side to keep. What runs on the replica: understudy reverse '${vm.name}' --discard-primary drops everything that host ${ports.hostName} `
      + `has written since. Host ${ports.hostName}: understudy failover cancel '${vm.name}' on the replica drops everything written there.`);
  }

  /** Becomes the replica of the other host. True when the disks are what they were at `epoch`. */
  async #turn(params: TurnParams): Promise<boolean> {
    const { vmId, generation, baselineId, epoch } = params;
    const { ports } = this.#host;
    const before = this.#relationship(vmId);
    if (before.side === 'replica') {
      if (generationOf(before) === generation && before.baselineId === baselineId) return before.state === 'Replicating';
      throw staleDirection(ports.relationships.vm(vmId).name, `this host is its replica since generation ${generationOf(before)}`);
    }
    if (generation !== generationOf(before) + 1) {
      throw staleDirection(ports.relationships.vm(vmId).name, `this host knows of generation ${generationOf(before)}, told is ${generation}`);
    }
    this.#giveWay(vmId, 'the direction was reversed on the other host');
    await this.#host.leavePrimary(vmId);
    try {
      return await this.#become(params, before, epoch);
    } catch (error) {
      await this.#host.becamePrimary(vmId);
      throw error;
    }
  }

  async #become({ vmId, generation, baselineId }: TurnParams, before: RelationshipRecord, epoch: number): Promise<boolean> {
    const { ports } = this.#host;
    const { relationships, catalog } = ports;
    const vm = relationships.vm(vmId);
    const seals = await sealsOf(ports, vm);
    const changed = replicatedDisks(vm).find(({ diskId }) => !sameSeal(vm.tracking?.seals[diskId], seals[diskId], vm.trustDisk));
    const { prepared = null, remote } = before;
    const equal = prepared !== null && prepared.epoch === epoch && changed === undefined;
    const reason = equal ? `host ${remote.name || remote.host} is the primary now` : `host ${remote.name || remote.host} is the primary now; its `
      + 'disks replace what only this host has';
    relationships.turn(vmId, { kind: 'reversed', becomes: 'replica', equal, reason }, {
      generation, baselineId, prepared: null, tookOver: null, error: null, required: null, resync: null, abandoned: null, initial: null,
      lastReceivedEpoch: epoch, lastAppliedEpoch: epoch, lastAppliedLogs: {}, consistentFrom: epoch, appliedSeals: seals, applying: null,
      wantedAgain: null, remoteState: null, mapTrusted: true, failover: null, turning: null, unmerged: null,
      lost: changed === undefined ? null : { trigger: 7, reason: `disk ${changed.path} was changed after it was sealed` },
    }, { ...vm, tracking: null, attach: 'stopped' }, () => {
      for (const set of catalog.inbox.list(vmId)) catalog.inbox.remove(vmId, set.epoch);
    });
    await removeTrackingFiles(ports, vm);
    await this.#host.becameReplica(vmId);
    return equal;
  }

  #refuseGuests(vmId: string, remedy: string): void {
    const guests = this.#host.guests(vmId);
    if (guests === 0) return;
    const { name } = this.#host.ports.relationships.vm(vmId);
    throw new UnderstudyError('state', 'PRIMARY_IS_RUNNING',
      `VM '${name}' runs on host ${this.#host.ports.hostName}: ${guests} guest connections are open`, remedy);
  }

  #relationship(vmId: string): RelationshipRecord {
    return this.#host.ports.relationships.get(vmId);
  }

  /** Only the other host of this very relationship is heard (promise 7). */
  #checkPartner(caller: PeerCaller, vmId: string): void {
    const { relationships } = this.#host.ports;
    if (relationships.find(vmId)?.remote.fingerprint !== caller.fingerprint) throw vmUnknownToPeer(vmId);
  }
}

const nothingDiffers = (vm: VmRecord): RangesByDisk => new Map(replicatedDisks(vm).map(({ diskId }) => [diskId, []]));

async function sealsOf(ports: DirectionHost['ports'], vm: VmRecord): Promise<Record<string, SealRecord>> {
  const seals: Record<string, SealRecord> = {};
  for (const record of replicatedDisks(vm)) {
    try {
      const disk = await ports.openDiskForReading(record);
      seals[record.diskId] = await disk.seal();
      await disk.close();
    } catch (error) {
      // Without its file a disk is made anew by the resynchronization.
      if (!(error instanceof UnderstudyError) || error.code !== 'DISK_NOT_FOUND') throw error;
    }
  }
  return seals;
}

function sameSeal(before: SealRecord | undefined, now: SealRecord | undefined, trustDisk: boolean): boolean {
  if (now === undefined || before === undefined) return false;
  return now.kind === 'none' ? trustDisk : JSON.stringify(before) === JSON.stringify(now);
}

/** When the guest wrote last, as far as it can be told: by the logs, and by the time stamps of plain files. */
function lastWrite(epochs: { openedAt: number; closedAt: number | null; disks: { entries: number | null }[] }[], vm: VmRecord): number | null {
  const times = epochs.filter(({ disks }) => disks.some(({ entries }) => (entries ?? 0) > 0)).map(({ openedAt }) => openedAt);
  for (const seal of Object.values(vm.tracking?.seals ?? {})) {
    if (seal.kind === 'file') times.push(Number(BigInt(String(seal.mtimeNs)) / 1_000_000n));
  }
  return times.length === 0 ? null : Math.max(...times);
}

const notPrepared = (name: string, state: string): UnderstudyError =>
  new UnderstudyError('state', 'NOT_PREPARED', `the primary of VM '${name}' is in state ${state}: no planned failover is prepared there`,
    `Prepare it on the primary first, its guest shut down: understudy failover '${name}' --prepare`);

const staleDirection = (name: string, why: string): UnderstudyError =>
  new UnderstudyError('state', 'STALE_DIRECTION', `the direction of VM '${name}' has changed since: ${why}`, `See on both hosts: understudy status '${name}'`);

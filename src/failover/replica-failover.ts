/**
 * Failover on the replica: a point of its disks, or the latest instant, served over NBD for a guest to write on.
 *
 * Invariants
 * - Until `complete` the replica disk is not written: what the guest writes goes to a diff disk, so that cancelling is deleting it and
 *   another point may be tried. What is served is one past instant (promise 2), whatever had been applied in part.
 * - What is served is on record before a guest can write to it, and a restart serves the same again. While it is on record nothing is
 *   applied and no point goes (replica-vm.ts, recovery-points.ts).
 * - A test failover changes nothing but its own diff disk; replication goes on receiving.
 * - A resync that is under way is cancelled by a failover, or, once its merge is on record, base and diff together are what is served (R19).
 */
import { UnderstudyError } from '../model/errors.ts';
import { ACTIVITY_EVENTS, makeEvent } from '../model/events.ts';
import { findPoint, pointId } from '../model/recovery-points.ts';
import type { FailoverRecord, PointRecord } from '../model/records.ts';
import type { Operation } from '../model/relationship.ts';
import { usable } from '../replication/recovery-points.ts';
import { entriesOf, latestOf, LOG_ENTRIES_MAX } from '../replication/replica-view.ts';
import type { Circumstances } from '../replication/relationships.ts';
import type { ReplicaVm } from '../replication/replica-vm.ts';
import { Serving, type FailoverParts } from './serving.ts';
import { Settling } from './settling.ts';

/** A set that is being applied may end before a test failover begins (R15); after a disaster nobody waits for it. */
const TEST_GRACE_MS = 5000;

export class ReplicaFailover {
  #parts: FailoverParts;
  #failovers: Serving;
  #tests: Serving;
  #settling: Settling;
  /** One operation per VM at a time: they share the names of its diff disks. */
  #turns = new Map<string, Promise<unknown>>();

  constructor(parts: FailoverParts) {
    this.#parts = parts;
    this.#failovers = new Serving(parts, 'failover');
    this.#tests = new Serving(parts, 'test');
    this.#settling = new Settling(parts, this.#failovers);
  }

  /** Serves again what was served before a stop or crash. A VM whose disks cannot be opened keeps the others waiting for nothing. */
  async start(): Promise<void> {
    for (const { vmId, side, failover, testFailover } of this.#parts.ports.catalog.relationships.list()) {
      if (side !== 'replica') continue;
      try {
        if (failover) await this.#failovers.begin(vmId, failover);
        if (testFailover) await this.#tests.begin(vmId, testFailover);
        this.#settling.wake(vmId);
      } catch (error) {
        this.#parts.ports.log.error({ vm: vmId, error }, 'a failover could not be served again');
      }
    }
  }

  async close(): Promise<void> {
    await this.#settling.close();
    await this.#failovers.close();
    await this.#tests.close();
  }

  /** Export names of what is served for guests, by disk: of the failover, else of the test; null when there is none. */
  servedAs(vmId: string): string[] | null {
    return this.#failovers.namesOf(vmId) ?? this.#tests.namesOf(vmId);
  }

  /** What guests are served, of a failover or of a test; empty when nothing is. */
  served(vmId: string, kind: 'failover' | 'test'): { diskId: string; name: string; bytes: number; logicalSectorSize: number }[] {
    const opened = (kind === 'test' ? this.#tests : this.#failovers).of(vmId) ?? [];
    return opened.map(({ record, name, served }) => ({
      diskId: record.diskId, name, bytes: served.virtualSize, logicalSectorSize: record.logicalSectorSize }));
  }

  /** What its guest has written since the failover or in the test, and what cancelling it drops; null when nothing is served. */
  writtenBytes(vmId: string, kind: 'failover' | 'test'): number | null {
    return (kind === 'test' ? this.#tests : this.#failovers).writtenBytes(vmId);
  }

  isServed(vmId: string): boolean {
    return this.#failovers.namesOf(vmId) !== null;
  }

  /** Serves the latest instant or the point that `asked` names. A test failover that runs is ended. */
  unplanned(vmId: string, asked = 'latest'): Promise<void> {
    return this.#inTurn(vmId, async () => {
      const vm = this.#checked(vmId, 'failover');
      if (vm.relationship.testFailover) await this.#endTest(vm, 'go on');
      const { resync } = vm.relationship;
      if (resync !== null && resync.phase !== 'merging') await this.#parts.cancelResync(vm);
      await this.#serve(vm, asked, 0, this.#failovers, (failover) => {
        this.#parts.ports.relationships.perform(vmId, 'failover', { failover });
      });
    });
  }

  /** The last step of a planned failover. `confirm` may still refuse; between it and the record nothing else happens. */
  planned(vmId: string, confirm: (throughEpoch: number) => void): Promise<void> {
    return this.#inTurn(vmId, async () => {
      const circumstances = { primaryPrepared: true };
      const vm = this.#checked(vmId, 'planned-failover', circumstances);
      if (vm.relationship.testFailover) await this.#endTest(vm, 'go on');
      await vm.drain();
      await this.#serve(vm, 'latest', 0, this.#failovers, (failover) => {
        confirm(failover.throughEpoch);
        this.#parts.ports.relationships.perform(vmId, 'planned-failover', { failover }, circumstances);
      });
    });
  }

  /** Takes the disks away from guests, everything written durable, for the moment of a reversal; `resume` undoes it. */
  suspend(vmId: string): Promise<void> {
    return this.#inTurn(vmId, async () => void (await this.#failovers.end(vmId)));
  }

  resume(vmId: string): Promise<void> {
    return this.#inTurn(vmId, async () => {
      const { failover } = this.#parts.ports.relationships.get(vmId);
      if (failover) await this.#failovers.begin(vmId, failover);
    });
  }

  /** What guests see, by disk id; null when nothing is served. */
  sizesOf(vmId: string): Map<string, number> | null {
    const opened = this.#failovers.of(vmId);
    return opened === undefined ? null : new Map(opened.map(({ record, served }) => [record.diskId, served.virtualSize]));
  }

  /** Serves a throw-away copy under the name `NAME - Test`. */
  test(vmId: string, asked = 'latest'): Promise<void> {
    return this.#inTurn(vmId, async () => {
      const vm = this.#checked(vmId, 'test-failover');
      const { relationships, clock } = this.#parts.ports;
      await this.#serve(vm, asked, TEST_GRACE_MS, this.#tests, (testFailover) => {
        relationships.perform(vmId, 'test-failover', { testFailover, lastTestFailoverTime: clock.now() });
        const pointId = this.#nameOf(vm, testFailover);
        relationships.note(vmId, makeEvent(ACTIVITY_EVENTS.testFailoverStarted, vm.vm.name, { pointId }));
      });
    });
  }

  /** Takes a failover back, or ends a test: what was written since is deleted (the bytes of it are returned), and replication goes on where it was. */
  cancel(vmId: string): Promise<number> {
    return this.#inTurn(vmId, async () => {
      const vm = this.#checked(vmId, 'cancel-failover');
      if (vm.relationship.testFailover) return this.#endTest(vm);
      const written = await this.#failovers.end(vmId);
      this.#parts.ports.relationships.perform(vmId, 'cancel-failover', { failover: null }, {},
        written === 0 ? 'asked by the user; nothing had been written there' : `asked by the user; ${written} bytes that were written there are dropped`);
      await this.#failovers.removeDisks(vmId);
      await this.#goOn(vm);
      return written;
    });
  }

  /** No way back: the other points go, and behind the running guest its disks become plain files. */
  complete(vmId: string): Promise<void> {
    return this.#inTurn(vmId, async () => {
      const vm = this.#checked(vmId, 'complete-failover');
      const { failover, resync } = vm.relationship;
      if (resync !== null) throw mergeRuns(vm.vm.name, 'completing the failover');
      if (!failover) throw new Error(`VM ${vmId} has failed over, and what it serves is not on record`);
      const { catalog, relationships } = this.#parts.ports;
      catalog.transaction(() => {
        relationships.perform(vmId, 'complete-failover', { failover: { ...failover, settling: 'layers' } });
        vm.watch?.changed('the VM has failed over to the replica, and its guest writes to the replica disks', { known: false });
      });
      this.#settling.wake(vmId);
    });
  }

  /** Before replication ends here. @throws FAILOVER_UNFINISHED while the disks alone are not what the guest sees */
  abandon(vmId: string): Promise<void> {
    return this.#inTurn(vmId, async () => {
      const vm = this.#parts.replicas.get(vmId);
      if (vm === undefined) return;
      if (vm.relationship.testFailover) await this.#endTest(vm);
      const { failover, state } = vm.relationship;
      if (!failover) return;
      if (failover.settling !== 'done') {
        throw new UnderstudyError('state', 'FAILOVER_UNFINISHED',
          `VM '${vm.vm.name}' is ${state}: what its guest wrote is not in the replica disks yet`,
          `Cancel the failover, or complete it (understudy failover complete '${vm.vm.name}') and wait until its disks are plain files.`);
      }
      await this.#failovers.end(vmId);
    });
  }

  async #serve(vm: ReplicaVm, asked: string, graceMs: number, serving: Serving, record: (chosen: FailoverRecord) => void): Promise<void> {
    const { record: chosen, release } = await this.#choose(vm, asked, graceMs);
    try {
      await serving.removeDisks(vm.vmId);
      // What cannot be opened fails here, before anything has changed.
      const opened = await serving.open(vm.vmId, chosen, { fresh: true });
      try {
        record(chosen);
      } catch (error) {
        await serving.discard(opened);
        throw error;
      }
      serving.publish(vm.vmId, opened);
    } finally {
      release();
    }
  }

  /** Stops applying, and finds what is asked for; apply stays stopped until `release`. */
  async #choose(vm: ReplicaVm, asked: string, graceMs: number): Promise<{ record: FailoverRecord; release: () => void }> {
    const record = { startedAt: this.#parts.ports.clock.now(), settling: null };
    if (asked !== 'latest') {
      const { release, point } = await this.#haltAt(vm, asked, graceMs);
      return { record: { ...record, pointEpoch: point.epoch, throughEpoch: point.epoch, time: point.time }, release };
    }
    // A very long inbox is shortened first, so that its index has a bound.
    await vm.applyUntil((waiting) => entriesOf(waiting) <= LOG_ENTRIES_MAX);
    const release = await vm.halt('failover', graceMs);
    try {
      const { throughEpoch, time } = await this.#latest(vm);
      return { record: { ...record, pointEpoch: null, throughEpoch, time }, release };
    } catch (error) {
      release();
      throw error;
    }
  }

  /** The point by its name, when apply stands still: the set that was being applied may have made a new one, for which the oldest has gone. */
  async #haltAt(vm: ReplicaVm, asked: string, graceMs: number): Promise<{ point: PointRecord; release: () => void }> {
    const find = () => usable(findPoint(vm.points.list(), asked), asked, vm.vm.name);
    find();
    // The merge goes on below, and its undo may not be complete yet.
    if (vm.relationship.resync !== null) throw mergeRuns(vm.vm.name, 'a failover to an older point');
    const release = await vm.halt('failover', graceMs);
    try {
      return { point: find(), release };
    } catch (error) {
      release();
      throw error;
    }
  }

  async #latest(vm: ReplicaVm) {
    const { name } = vm.vm;
    const latest = await latestOf(this.#parts.ports, vm);
    const { applying, consistentFrom } = vm.relationship;
    if (applying !== null && latest.throughEpoch < applying) {
      throw new UnderstudyError('state', 'LATEST_NOT_CONSISTENT',
        `epoch ${applying} is half applied to the replica of VM '${name}', and the rest of it cannot be read: ${latest.defect ?? 'it has gone'}`,
        `Fail over to an older point: understudy points '${name}'. Or repair the replica from its primary, if that is there.`);
    }
    if (latest.throughEpoch < consistentFrom) {
      throw new UnderstudyError('state', 'NOT_CONSISTENT_YET',
        `the replica of VM '${name}' has epoch ${latest.throughEpoch}; it is one instant of the VM only from ${consistentFrom} on`,
        'Wait until the logs of the initial replication have arrived.');
    }
    return latest;
  }

  /** `go on`: a failover does not wait for the test guest to be off; its disks go away under it. */
  async #endTest(vm: ReplicaVm, guest: 'wait' | 'go on' = 'wait'): Promise<number> {
    const { relationships } = this.#parts.ports;
    const off = this.#parts.stopTestGuest?.(vm.vmId);
    if (guest === 'wait') await off;
    const written = await this.#tests.end(vm.vmId);
    relationships.update(vm.vmId, { testFailover: null });
    relationships.note(vm.vmId, makeEvent(ACTIVITY_EVENTS.testFailoverStopped, vm.vm.name, {}));
    await this.#tests.removeDisks(vm.vmId);
    await this.#goOn(vm);
    return written;
  }

  async #goOn(vm: ReplicaVm): Promise<void> {
    await vm.points.tidy();
    vm.wake();
  }

  #nameOf(vm: ReplicaVm, { pointEpoch }: FailoverRecord): string {
    const point = vm.points.list().find(({ epoch }) => epoch === pointEpoch);
    return point === undefined ? 'latest' : pointId(point);
  }

  #checked(vmId: string, operation: Operation, circumstances: Circumstances = {}): ReplicaVm {
    this.#parts.ports.relationships.check(vmId, operation, circumstances);
    const vm = this.#parts.replicas.get(vmId);
    if (vm === undefined) throw new Error(`replica ${vmId} is not adopted`);
    return vm;
  }

  async #inTurn<T>(vmId: string, work: () => Promise<T>): Promise<T> {
    const turn = (this.#turns.get(vmId) ?? Promise.resolve()).then(work);
    const settled = turn.catch(() => undefined);
    this.#turns.set(vmId, settled);
    try {
      return await turn;
    } finally {
      if (this.#turns.get(vmId) === settled) this.#turns.delete(vmId);
    }
  }
}

const mergeRuns = (name: string, what: string): UnderstudyError =>
  new UnderstudyError('state', 'MERGE_RUNS', `the merge of a resynchronization of VM '${name}' is under way: ${what} has to wait`,
    'Wait until it is done (see: understudy resync status), or fail over to the latest instant.');

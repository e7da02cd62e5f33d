/**
 * The relationships of this host in the catalog: every change of state goes through the one table (model/relationship.ts) and is
 * committed together with its event.
 */
import { pastCycle, type PastCycle } from '../model/cycle-history.ts';
import { UnderstudyError } from '../model/errors.ts';
import type { ReplicationEvent } from '../model/events.ts';
import type { Clock } from '../model/ports.ts';
import type { Catalog, RelationshipRecord, VmRecord } from '../model/records.ts';
import { requireAllowed, type Operation, type Situation, type Step } from '../model/relationship.ts';
import { onEvent, type RelationshipEvent } from '../model/relationship-events.ts';
import { fold, rollOver, intervalReport, type Cycle } from '../model/statistics.ts';
import { ACTIVITY_EVENTS, makeEvent } from '../model/events.ts';
import type { HostSettings } from '../model/settings.ts';

export type Change = Partial<Omit<RelationshipRecord, 'vmId' | 'side' | 'state'>>;
/** What the record does not hold: whether a merge or a failover is under way. */
export type Circumstances = Partial<Pick<Situation, 'merging' | 'testFailoverRunning' | 'primaryPrepared' | 'startAt'>>;

export class Relationships {
  readonly catalog: Catalog;
  #clock: Clock;
  #zone: string;
  #settings: () => HostSettings;
  /** Told after every committed change: live pages and waiting loops. */
  #listeners = new Set<(vmId: string) => void>();
  #notWritten = new Map<string, unknown>();

  constructor(parts: { catalog: Catalog; clock: Clock; zone: string; hostSettings: () => HostSettings }) {
    this.catalog = parts.catalog;
    this.#clock = parts.clock;
    this.#zone = parts.zone;
    this.#settings = parts.hostSettings;
  }

  vm(vmId: string): VmRecord {
    const vm = this.catalog.vms.get(vmId);
    if (vm === undefined) throw new UnderstudyError('usage', 'VM_NOT_FOUND', `there is no VM ${vmId}`, 'See: understudy vm list');
    return vm;
  }

  find(vmId: string): RelationshipRecord | undefined {
    return this.catalog.relationships.get(vmId);
  }

  get(vmId: string): RelationshipRecord {
    const relationship = this.find(vmId);
    if (relationship !== undefined) return relationship;
    const { name } = this.vm(vmId);
    throw new UnderstudyError('state', 'NOT_REPLICATED', `VM '${name}' is in state Disabled: it is not replicated`,
      `Enable replication first: understudy enable '${name}' --replica HOST:PORT --fingerprint F`);
  }

  /** Why the last change of this relationship could not be put on record; undefined when it could. */
  notWritten(vmId: string): unknown {
    return this.#notWritten.get(vmId);
  }

  onChange(listener: (vmId: string) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  situation(vmId: string, circumstances: Circumstances = {}): Situation {
    const { name, side } = this.vm(vmId);
    const relationship = this.find(vmId);
    if (relationship === undefined) return { vmName: name, state: 'Disabled', side };
    const { remote, state } = relationship;
    return {
      vmName: name, state, side: relationship.side, otherHost: `${remote.name || remote.host}:${remote.port}`,
      hasBaseline: hasBaseline(relationship), resyncRequired: relationship.required !== null,
      testFailoverRunning: Boolean(relationship.testFailover),
      // As the primary last said of itself; a planned failover asks it again.
      primaryPrepared: relationship.remoteState === 'PreparedForFailover',
      merging: relationship.resync?.phase === 'merging',
      tookOver: (relationship.tookOver ?? null) !== null,
      startPending: (relationship.initial?.startAt ?? relationship.required?.startAt ?? null) !== null,
      ...circumstances,
    };
  }

  /** Throws the refusal when the operation is not possible now; changes nothing. */
  check(vmId: string, operation: Operation, circumstances: Circumstances = {}, reason?: string): Step {
    const situation = this.situation(vmId, circumstances);
    if (situation.state === 'Disabled' && operation !== 'enable') this.get(vmId);
    return requireAllowed(situation, operation, reason);
  }

  /** Carries an operation of the user out on the record: next state, further changes and event (which says `reason`) in one transaction. */
  perform(vmId: string, operation: Operation, change: Change = {}, circumstances: Circumstances = {}, reason?: string): Step {
    const step = this.check(vmId, operation, circumstances, reason);
    this.#commit(vmId, step, change);
    return step;
  }

  /** Something happened by itself. Null when it no longer applies; then nothing changes. */
  happened(vmId: string, event: RelationshipEvent, change: Change = {}): Step | null {
    if (this.find(vmId) === undefined) return null;
    const step = onEvent(this.situation(vmId), event);
    if (step !== null) this.#commit(vmId, step, change);
    return step;
  }

  /**
   * The direction changes: side, state, event and everything else in one transaction, with `also` what belongs into it. Throws
   * when the state does not allow it.
   */
  turn(vmId: string, event: Extract<RelationshipEvent, { kind: 'reversed' }>, change: Change, vm: VmRecord, also: () => void): void {
    const step = onEvent(this.situation(vmId), event);
    if (step === null) {
      const { state } = this.get(vmId);
      throw new UnderstudyError('state', 'INVALID_STATE', `VM '${vm.name}' is in state ${state}: its direction cannot change`, 'See its status.');
    }
    this.catalog.transaction(() => {
      this.catalog.vms.put({ ...vm, side: event.becomes });
      this.catalog.relationships.put({ ...this.get(vmId), ...change, side: event.becomes, state: step.next });
      if (step.event !== null) this.catalog.addEvent({ ...step.event, time: this.#clock.now(), vmId });
      also();
    });
    this.#tell(vmId);
  }

  update(vmId: string, change: Change): RelationshipRecord {
    const changed = { ...this.get(vmId), ...change };
    this.#write(vmId, () => this.catalog.relationships.put(changed));
    return changed;
  }

  /** As `update`, for what a power loss may take back: times that the next cycle tells again. */
  updateLazily(vmId: string, change: Change): void {
    const changed = { ...this.get(vmId), ...change };
    this.#write(vmId, () => this.catalog.relationships.put(changed), 'lazily');
  }

  /** Records an event that changes no state. */
  note(vmId: string | null, event: ReplicationEvent): void {
    this.catalog.transaction(() => this.catalog.addEvent({ ...event, time: this.#clock.now(), vmId }));
    if (vmId !== null) this.#tell(vmId);
  }

  /**
   * Counts a cycle; closes the monitoring interval when its time has come (event 29174). A power loss may take a count back, and `change` with
   * it, which is as for `updateLazily`.
   */
  count(vmId: string, cycle: Cycle | null, change: Change = {}): void {
    const relationship = this.find(vmId);
    if (relationship === undefined) return;
    const { current, finished } = rollOver(relationship.statistics, this.#clock.now(), this.#settings(), this.#zone);
    if (cycle === null && finished === null) return;
    this.#write(vmId, () => {
      this.catalog.relationships.put({ ...relationship, ...change, statistics: cycle === null ? current : fold(current, cycle) });
      if (cycle !== null) this.catalog.cycles.add(vmId, pastCycle(cycle, this.#clock.now()));
      if (finished === null) return;
      const event = makeEvent(ACTIVITY_EVENTS.intervalStatistics, this.vm(vmId).name, intervalReport(finished));
      this.catalog.addEvent({ ...event, time: this.#clock.now(), vmId });
    }, 'lazily');
  }

  /** For charts alone, on a replica: how long a set took from its closing until it was applied. */
  chart(vmId: string, cycle: Cycle): void {
    this.catalog.cycles.add(vmId, pastCycle(cycle, this.#clock.now()));
  }

  /** The last cycles, `atMost` of them, oldest first. */
  cycles(vmId: string, atMost?: number): PastCycle[] {
    return this.catalog.cycles.list(vmId, atMost);
  }

  remove(vmId: string): void {
    this.catalog.transaction(() => {
      this.catalog.cycles.remove(vmId);
      const step = this.check(vmId, 'remove');
      if (step.event !== null) this.catalog.addEvent({ ...step.event, time: this.#clock.now(), vmId });
      this.catalog.relationships.remove(vmId);
    });
    this.#tell(vmId);
  }

  #commit(vmId: string, step: Step, change: Change): void {
    this.#write(vmId, () => {
      this.catalog.relationships.put({ ...this.get(vmId), ...change, state: step.next });
      if (step.event !== null) this.catalog.addEvent({ ...step.event, time: this.#clock.now(), vmId });
    });
  }

  #write(vmId: string, work: () => void, how: 'durably' | 'lazily' = 'durably'): void {
    try {
      if (how === 'lazily') this.catalog.lazyTransaction(work);
      else this.catalog.transaction(work);
    } catch (error) {
      this.#notWritten.set(vmId, error);
      throw error;
    }
    this.#notWritten.delete(vmId);
    this.#tell(vmId);
  }

  #tell(vmId: string): void {
    for (const listener of this.#listeners) listener(vmId);
  }
}

/** The replica holds a whole copy: there is something to compare with, and to fail over to. */
export function hasBaseline(relationship: RelationshipRecord): boolean {
  return relationship.initial === null && relationship.baselineId !== '';
}

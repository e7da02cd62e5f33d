/**
 * The guests of this host's VMs, started and stopped through the adapter that is set for each.
 *
 * Invariants
 * - A failure to start never undoes a failover: what is served stays served, the record says why there is no guest, and starting may be
 *   repeated.
 * - An action is on record before it begins, so that a server that dies meanwhile does not take an unknown guest for a started one.
 * - One action at a time per guest. Turning it off does not wait for a start that hangs: that one is ended first.
 * - No guest is started on a side that keeps guests out (R22).
 */
import { keptOut } from '../model/direction.ts';
import { messageOf, UnderstudyError } from '../model/errors.ts';
import { ACTIVITY_EVENTS, makeEvent } from '../model/events.ts';
import { guestName, hypervisorOf, type GuestAction, type GuestRun, type HypervisorSettings } from '../model/hypervisor.ts';
import type { Clock, Logger } from '../model/ports.ts';
import type { VmRecord } from '../model/records.ts';
import type { Relationships } from '../replication/relationships.ts';
import { AdapterOutput, type Guest, type GuestDisk, type HypervisorAdapter } from './adapters/adapter.ts';
import { Lanes } from './lanes.ts';

export interface GuestControlParts {
  relationships: Relationships;
  clock: Clock;
  log: Logger;
  hostName: string;
  adapterFor(settings: HypervisorSettings): HypervisorAdapter;
  /** Where the guest's disks are served now; empty when they are not. */
  disks(vm: VmRecord, test: boolean): GuestDisk[];
  /** Open connections to the disks of the VM; a test's are not among them. */
  connections(vmId: string): number;
  /** Gives a guest that has been started its addresses; null when none are set. Takes as long as its boot. */
  giveAddresses?(guest: Guest, signal: AbortSignal): Promise<void> | null;
}

/** Between the end of a guest and the last of its connections. */
const CONNECTIONS_END_MS = 5000;
const LOOK_AGAIN_MS = 50;

export class GuestControl {
  #parts: GuestControlParts;
  #lanes = new Lanes();
  /** What is being done, by guest. */
  #acting = new Map<string, { stop: AbortController; done: Promise<void> }>();
  #closing = false;
  /** Whose addresses are being set, behind the command that has started them. */
  #addressing = new Map<string, AbortController>();

  constructor(parts: GuestControlParts) {
    this.#parts = parts;
  }

  /** At the start of the server: what was under way when the last one ended has failed. */
  recover(): void {
    for (const vm of this.#parts.relationships.catalog.vms.list()) {
      for (const test of [false, true]) {
        const run = runOf(vm, test);
        if (run?.endedAt !== null || run === undefined) continue;
        this.#record(vm.vmId, test, { ...run, endedAt: this.#parts.clock.now(), failure: interrupted(vm.name, run, test).toJSON() });
      }
    }
  }

  /** Ends what is under way; resolves when nothing of it is left. */
  async close(): Promise<void> {
    this.#closing = true;
    for (const stop of this.#addressing.values()) stop.abort(new Error('the server stops'));
    for (const { stop } of this.#acting.values()) stop.abort(new Error('the server stops'));
    await Promise.all([...this.#acting.values()].map(({ done }) => done));
  }

  settings(vmId: string): HypervisorSettings {
    return hypervisorOf(this.#parts.relationships.vm(vmId));
  }

  /** False: a person starts and stops the guest. */
  hasAdapter(vmId: string): boolean {
    return this.settings(vmId).adapter !== 'none';
  }

  /** After the disks are served. Resolves also when the adapter fails: then the record says so. */
  async start(vmId: string, { test = false } = {}): Promise<void> {
    if (!this.hasAdapter(vmId)) return this.#forget(vmId, test);
    this.#refuseKeptOut(vmId, test);
    const guest = this.#guest(vmId, test);
    if (guest.disks.length === 0) throw notServed(guest);
    const action = test ? 'start-test' : 'start';
    const done = await this.#act(guest, action, (adapter, signal) => adapter.start(guest, signal)).then(() => true, () => false);
    if (done) this.#giveAddresses(guest);
  }

  /** Shuts the guest down and waits until its last connection has ended. Rejects, with nothing changed, when it goes on. */
  async stop(vmId: string): Promise<void> {
    if (!this.hasAdapter(vmId)) return;
    const guest = this.#guest(vmId, false);
    await this.#act(guest, 'stop', (adapter, signal) => adapter.stop(guest, signal));
    const { clock, connections } = this.#parts;
    const end = clock.monotonic() + CONNECTIONS_END_MS;
    while (connections(vmId) > 0 && clock.monotonic() < end) await clock.sleep(LOOK_AGAIN_MS);
    if (connections(vmId) === 0) return;
    throw new UnderstudyError('state', 'GUEST_STILL_RUNS',
      `the adapter says that guest '${guest.name}' is off, and ${connections(vmId)} connections to its disks are open`,
      'Shut the guest down, or whatever else uses the disks; then try again.');
  }

  /** Off at once. Rejects when the adapter fails. */
  async powerOff(vmId: string, { test = false } = {}): Promise<void> {
    if (!this.hasAdapter(vmId)) return this.#forget(vmId, test);
    const guest = this.#guest(vmId, test);
    this.#acting.get(laneOf(vmId, test))?.stop.abort(new Error('it is turned off'));
    await this.#act(guest, test ? 'stop-test' : 'power-off', (adapter, signal) => adapter.powerOff(guest, signal));
    this.#forget(vmId, test);
  }

  /** As `powerOff`, for a test that ends: it ends even when its guest cannot be turned off, and the event says so. */
  async endTest(vmId: string): Promise<void> {
    if (runOf(this.#parts.relationships.vm(vmId), true) === undefined) return;
    await this.powerOff(vmId, { test: true }).catch(() => undefined);
  }

  async #act(guest: Guest, action: GuestAction, work: (adapter: HypervisorAdapter, signal: AbortSignal) => Promise<string>): Promise<void> {
    const { relationships, clock, adapterFor } = this.#parts;
    const { vmId, test, vmName, name } = guest;
    const lane = laneOf(vmId, test);
    this.#addressing.get(lane)?.abort(new Error('it is started or stopped anew'));
    await this.#lanes.run(lane, async () => {
      const stop = new AbortController();
      const { promise: done, resolve: ended } = Promise.withResolvers<void>();
      this.#acting.set(lane, { stop, done });
      const run: GuestRun = { action, startedAt: clock.now(), endedAt: null, failure: null, output: '' };
      this.#record(vmId, test, run);
      try {
        const adapter = adapterFor(this.settings(vmId));
        const output = await work(adapter, stop.signal);
        this.#record(vmId, test, { ...run, endedAt: clock.now(), output });
        const event = action.startsWith('start') ? ACTIVITY_EVENTS.guestStarted : ACTIVITY_EVENTS.guestStopped;
        relationships.note(vmId, makeEvent(event, vmName, { guest: name, adapter: adapter.kind }));
      } catch (error) {
        throw this.#failed(guest, run, error);
      } finally {
        this.#acting.delete(lane);
        ended();
      }
    });
  }

  /** A failure is told and stays on record; the guest runs all the same. */
  #giveAddresses(guest: Guest): void {
    const { vmId, vmName, name, test } = guest;
    const stop = new AbortController();
    const giving = this.#parts.giveAddresses?.(guest, stop.signal) ?? null;
    if (giving === null) return;
    this.#addressing.set(laneOf(vmId, test), stop);
    const outcome = giving.then(() => null, (error: unknown) => messageOf(error));
    void outcome.then((failure) => {
      if (stop.signal.aborted) return;
      this.#addressing.delete(laneOf(vmId, test));
      const run = runOf(this.#parts.relationships.vm(vmId), test);
      if (run === undefined) return;
      this.#record(vmId, test, { ...run, addresses: { failure } });
      this.#parts.relationships.note(vmId, failure === null ? makeEvent(ACTIVITY_EVENTS.guestAddressSet, vmName, { guest: name })
        : makeEvent(ACTIVITY_EVENTS.guestAddressFailed, vmName, { guest: name, reason: failure }));
    }).catch((error: unknown) => this.#parts.log.warn({ vm: vmName, error: messageOf(error) }, 'what became of the addresses of a guest is not on record'));
  }

  #failed({ vmId, vmName, name, test }: Guest, run: GuestRun, error: unknown): UnderstudyError {
    const known = this.#closing ? interrupted(vmName, run, test) : error instanceof UnderstudyError ? error
      : new UnderstudyError('io', 'ADAPTER_FAILED', `action '${run.action}' for guest '${name}' failed: ${messageOf(error)}`,
        'See the log of the server.', { cause: error });
    const { code, message, remedy } = known;
    const again = run.action.startsWith('start') && !this.#closing ? `${remedy} Then try again: ${startCommand(vmName, test)}` : remedy;
    const output = known.cause instanceof AdapterOutput ? known.cause.output : '';
    this.#parts.log.warn({ vm: vmName, action: run.action, code, error: message }, 'an adapter failed');
    this.#record(vmId, test, { ...run, endedAt: this.#parts.clock.now(), failure: { code, message, remedy: again }, output });
    this.#parts.relationships.note(vmId, makeEvent(ACTIVITY_EVENTS.adapterFailed, vmName, { guest: name, action: run.action, code, reason: message }));
    return known;
  }

  #guest(vmId: string, test: boolean): Guest {
    const { relationships, hostName, disks } = this.#parts;
    const vm = relationships.vm(vmId);
    const record = relationships.find(vmId);
    const instant = (test ? record?.testFailover : record?.failover)?.time ?? null;
    return { vmId, vmName: vm.name, name: guestName(vm.name, test), test, role: vm.side, hostName,
      time: instant === null ? null : new Date(instant).toISOString(), disks: disks(vm, test) };
  }

  #refuseKeptOut(vmId: string, test: boolean): void {
    const { relationships } = this.#parts;
    const refusal = test ? null : keptOut(relationships.vm(vmId).name, relationships.find(vmId));
    if (refusal !== null) throw refusal;
  }

  #forget(vmId: string, test: boolean): void {
    if (runOf(this.#parts.relationships.vm(vmId), test) !== undefined) this.#record(vmId, test, undefined);
  }

  #record(vmId: string, test: boolean, run: GuestRun | undefined): void {
    const { catalog } = this.#parts.relationships;
    catalog.transaction(() => {
      const { guest, testGuest, ...vm } = catalog.vms.get(vmId)!;
      const kept = { guest: test ? guest : run, testGuest: test ? run : testGuest };
      catalog.vms.put({ ...vm, ...(kept.guest && { guest: kept.guest }), ...(kept.testGuest && { testGuest: kept.testGuest }) });
    });
  }
}

const laneOf = (vmId: string, test: boolean): string => `${vmId}${test ? ' test' : ''}`;
const runOf = (vm: VmRecord, test: boolean): GuestRun | undefined => (test ? vm.testGuest : vm.guest);
const startCommand = (name: string, test: boolean): string => `understudy guest start '${name}'${test ? ' --test' : ''}`;

const interrupted = (name: string, { action }: GuestRun, test: boolean): UnderstudyError =>
  new UnderstudyError('io', 'ADAPTER_INTERRUPTED', `the server ended while action '${action}' ran`,
    `See whether the guest runs; if it does not: ${startCommand(name, test)}`);

const notServed = ({ vmName, test }: Guest): UnderstudyError =>
  new UnderstudyError('state', 'GUEST_NOT_SERVED', `the disks of VM '${vmName}' are not served on this host${test ? ' for a test' : ''}`,
    test ? `Start a test failover first: understudy failover '${vmName}' --test`
      : `On a primary: understudy vm attach '${vmName}'; on a replica: understudy failover '${vmName}'`);

/**
 * What is going on, as server-sent events: one look at the host for all pages that watch, and to each only what changed.
 *
 * Invariants
 * - Without a watcher nothing is computed.
 * - A tick looks at the VMs that said they changed, and at a share of the others, so that its cost does not grow with their number:
 *   the guests' I/O runs in this thread too.
 * - A watcher that does not read is cut off instead of being buffered for; its browser connects again and begins with everything.
 */
import type { EventRecord } from '../../model/records.ts';
import { OPERATIONS, type HostEvent } from '../api/contract.ts';
import type { Host } from '../host.ts';
import { queueShape } from '../operations/resync-operations.ts';
import { knownReplicas, liveVm, vmDetail } from './live-shapes.ts';

const TICK_MS = 1000;
/** VMs looked at in one tick besides those that changed. */
const LOOKS_PER_TICK = 50;
/** VMs looked at before guests get their turn. */
const LOOKS_PER_TURN = 10;
const EVENTS_AT_FIRST = 200;
const PING_TICKS = 10;

export interface Watcher {
  /** Name of the VM whose page is open. */
  vm: string | null;
  /** Whether the session still holds. */
  admitted(): boolean;
  send(event: string, data: unknown): void;
  /** Shows that the server is there although nothing happens. */
  ping(): void;
  /** The watcher's last message has been sent. */
  end(): void;
}

export class LiveFeed {
  readonly #host: Host;
  readonly #version: string;
  readonly #instance: string;
  readonly #watchers = new Map<Watcher, { detail: string }>();
  #rows = new Map<string, string>();
  #queue = '';
  #dirty = new Set<string>();
  #next = 0;
  #ticks = 0;
  #lastEvent = 0;
  #stop: AbortController | null = null;
  #loop: Promise<void> = Promise.resolve();

  constructor(host: Host, version: string) {
    this.#host = host;
    this.#version = version;
    this.#instance = host.parts.random.uuid();
  }

  get watching(): number {
    return this.#watchers.size;
  }

  /** Sends everything there is, then what changes, until the returned function is called. */
  async add(watcher: Watcher): Promise<() => void> {
    if (this.#stop === null) this.#begin();
    await this.#look([...this.#host.catalog.vms.list()].filter(({ vmId }) => !this.#rows.has(vmId)).map(({ vmId }) => vmId), false);
    const { identity, name } = this.#host;
    watcher.send('host', { name, fingerprint: identity.fingerprint, version: this.#version, instance: this.#instance,
      now: this.#host.parts.clock.now(), peerPort: this.#host.peer.address.port, zone: this.#host.parts.zone,
      operations: Object.keys(OPERATIONS), replicas: knownReplicas(this.#host) });
    watcher.send('vms', { all: true, put: [...this.#rows.values()].map((row) => JSON.parse(row) as unknown), removed: [] });
    watcher.send('queue', JSON.parse(this.#queueText()));
    watcher.send('events', { all: true, events: this.#host.catalog.events({ limit: EVENTS_AT_FIRST }).map(eventShape) });
    const kept = { detail: '' };
    this.#sendDetail(watcher, kept);
    this.#watchers.set(watcher, kept);
    return () => this.#remove(watcher);
  }

  async close(): Promise<void> {
    for (const watcher of this.#watchers.keys()) watcher.end();
    this.#watchers.clear();
    this.#stop?.abort();
    await this.#loop;
  }

  #begin(): void {
    const stop = new AbortController();
    this.#stop = stop;
    this.#rows = new Map();
    this.#lastEvent = this.#host.catalog.events({ limit: 1 }).at(-1)?.sequence ?? 0;
    const changed = (vmId: string) => void this.#dirty.add(vmId);
    const ends = [this.#host.relationships, this.#host.extended.relationships].map((end) => end.onChange(changed));
    const unsubscribe = () => ends.forEach((end) => end());
    this.#loop = this.#run(stop.signal).finally(unsubscribe);
  }

  #remove(watcher: Watcher): void {
    this.#watchers.delete(watcher);
    if (this.#watchers.size > 0) return;
    this.#stop?.abort();
    this.#stop = null;
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#host.parts;
    while (!signal.aborted) {
      try {
        await this.#tick();
      } catch (error) {
        log.error({ error }, 'the live pages could not be brought up to date');
      }
      await clock.sleep(TICK_MS, signal).catch(() => undefined);
    }
  }

  async #tick(): Promise<void> {
    this.#ticks++;
    for (const watcher of [...this.#watchers.keys()]) {
      if (this.#ticks % PING_TICKS === 0) watcher.ping();
      if (watcher.admitted()) continue;
      watcher.send('signed-out', {});
      watcher.end();
      this.#remove(watcher);
    }
    const vms = this.#host.catalog.vms.list();
    const changed = [...this.#dirty];
    this.#dirty.clear();
    const others = Array.from({ length: Math.min(LOOKS_PER_TICK, vms.length) }, (_, at) => vms[(this.#next + at) % vms.length]!.vmId);
    this.#next = vms.length === 0 ? 0 : (this.#next + others.length) % vms.length;
    await this.#look([...new Set([...changed, ...others])], true);
    this.#tellQueue();
    this.#tellEvents();
    for (const [watcher, kept] of this.#watchers) this.#sendDetail(watcher, kept);
  }

  /** Brings rows up to date; `tell`: watchers hear what changed. */
  async #look(vmIds: readonly string[], tell: boolean): Promise<void> {
    const put: unknown[] = [];
    for (const [at, vmId] of vmIds.entries()) {
      const vm = this.#host.catalog.vms.get(vmId);
      if (vm === undefined) continue;
      const row = liveVm(this.#host, vm);
      const text = JSON.stringify(row);
      if (this.#rows.get(vmId) !== text) put.push(row);
      this.#rows.set(vmId, text);
      if (at % LOOKS_PER_TURN === LOOKS_PER_TURN - 1) await new Promise((resolve) => setImmediate(resolve));
    }
    const present = new Set(this.#host.catalog.vms.list().map(({ vmId }) => vmId));
    const removed = [...this.#rows.keys()].filter((vmId) => !present.has(vmId));
    for (const vmId of removed) this.#rows.delete(vmId);
    if (tell && (put.length > 0 || removed.length > 0)) this.#tell('vms', { all: false, put, removed });
  }

  #tellQueue(): void {
    const text = this.#queueText();
    if (text === this.#queue) return;
    this.#queue = text;
    this.#tell('queue', JSON.parse(text));
  }

  #queueText(): string {
    return JSON.stringify(queueShape(this.#host));
  }

  #tellEvents(): void {
    const fresh = this.#host.catalog.events({ after: this.#lastEvent, limit: 1000 });
    if (fresh.length === 0) return;
    this.#lastEvent = fresh.at(-1)!.sequence;
    this.#tell('events', { all: false, events: fresh.map(eventShape) });
  }

  /** The whole of one VM, for its own page. */
  #sendDetail(watcher: Watcher, kept: { detail: string }): void {
    const vm = watcher.vm === null ? undefined : this.#host.catalog.vmByName(watcher.vm);
    const detail = vm === undefined ? null : vmDetail(this.#host, vm);
    const text = JSON.stringify(detail);
    if (watcher.vm === null || text === kept.detail) return;
    kept.detail = text;
    watcher.send('vm', detail);
  }

  #tell(event: string, data: unknown): void {
    for (const watcher of this.#watchers.keys()) watcher.send(event, data);
  }
}

const eventShape = ({ time, id, level, vmName, message, data, sequence }: EventRecord & { sequence: number }): HostEvent =>
  ({ time: new Date(time).toISOString(), id, level, vmName, message, data, sequence });

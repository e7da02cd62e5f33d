/**
 * What the server tells by itself, kept in one place for all pages. A row that did not change stays the same object, so that React
 * draws only what changed.
 */
import { useSyncExternalStore } from 'react';
import type { HostEvent, PastCycle, ResyncQueueEntry, ResyncStatus, Status, Vm, Health } from '../../../src/server/api/contract.ts';
import type { HypervisorSettings } from '../../../src/model/hypervisor.ts';
import type { RelationshipSettings } from '../../../src/model/settings.ts';
import type { LiveVm } from '../../../src/server/console/live-vm.ts';

export type { LiveVm, Status };
export type Action = LiveVm['actions'][number];

export interface HostFacts {
  name: string;
  fingerprint: string;
  version: string;
  /** Another one after each start of the server. */
  instance: string;
  now: number;
  peerPort: number;
  zone: string;
  /** Names of all operations of this server. */
  operations: string[];
  /** Hosts that keep replicas of this one's VMs, the one with most of them first. As of the last connection. */
  replicas: { name: string; replica: string; fingerprint: string; vms: number }[];
}

export type GuestRun = NonNullable<NonNullable<Vm['hypervisor']>['guest']>;

/** One relationship of a VM on this host: its own, or the leg to the extended replica that this host feeds. */
export interface End {
  /** How operations name it. */
  of: { name: string; extended?: true };
  status: Status;
  health: Health;
  settings: RelationshipSettings | null;
  remote: { host: string; port: number; fingerprint: string; name: string } | null;
  actions: Action[];
  resync: ResyncStatus | null;
  cycles: PastCycle[];
}

export interface VmDetail extends End {
  vm: Vm & { side: 'primary' | 'replica'; guests: number; hypervisor: HypervisorSettings & { guest: GuestRun | null; testGuest: GuestRun | null } };
  extended: End | null;
}

export type LiveEvent = HostEvent & { sequence: number };

export interface Live {
  connection: 'connecting' | 'live' | 'lost';
  /** Shown until dismissed: the server came back as another process. */
  restartedAt: number | null;
  host: HostFacts | null;
  vms: ReadonlyMap<string, LiveVm>;
  queue: readonly ResyncQueueEntry[];
  /** Newest first. */
  events: readonly LiveEvent[];
  /** Of the VM whose page is open: null when there is no such VM, undefined while it is not known yet. */
  detail: VmDetail | null | undefined;
}

const EVENTS_KEPT = 500;
const NOTHING: Live = {
  connection: 'connecting',
  restartedAt: null,
  host: null,
  vms: new Map(),
  queue: [],
  events: [],
  detail: undefined,
};
/** How long to wait before asking whether the session still holds. */
const RECHECK_MS = 2000;

let state = NOTHING;
let source: EventSource | null = null;
let openVm: string | null = null;
let whenSignedOut: () => void = () => {};
/** Server time minus ours. */
let skewMs = 0;
const listeners = new Set<() => void>();

export function useLive(): Live {
  return useSyncExternalStore(subscribe, () => state);
}

/** Times are the server's: a browser whose clock is off must not show a lag that is not there. */
export function serverNow(): number {
  return Date.now() + skewMs;
}

/** Begins, or moves to the page of another VM. */
export function watch(vm: string | null, signedOut: () => void): void {
  whenSignedOut = signedOut;
  if (source !== null && openVm === vm && source.readyState !== EventSource.CLOSED) return;
  openVm = vm;
  change({ detail: undefined });
  connect();
}

export function stopWatching(): void {
  source?.close();
  source = null;
  state = NOTHING;
}

export function dismissRestart(): void {
  change({ restartedAt: null });
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function change(part: Partial<Live>): void {
  state = { ...state, ...part };
  for (const listener of listeners) listener();
}

function connect(): void {
  source?.close();
  const own = new EventSource(openVm === null ? '/api/v1/live' : `/api/v1/live?vm=${encodeURIComponent(openVm)}`);
  source = own;
  const on = <T>(name: string, take: (data: T) => void) =>
    own.addEventListener(name, (event) => {
      if (own === source) take(JSON.parse((event as MessageEvent<string>).data) as T);
    });
  on<HostFacts>('host', (host) => {
    skewMs = host.now - Date.now();
    const restarted = state.host !== null && state.host.instance !== host.instance;
    change({ host, connection: 'live', ...(restarted ? { restartedAt: Date.now() } : {}) });
  });
  on<{ all: boolean; put: LiveVm[]; removed: string[] }>('vms', ({ all, put, removed }) => {
    const vms = new Map(all ? [] : state.vms);
    for (const vm of put) vms.set(vm.vmId, vm);
    for (const vmId of removed) vms.delete(vmId);
    change({ vms });
  });
  on<ResyncQueueEntry[]>('queue', (queue) => change({ queue }));
  on<{ all: boolean; events: LiveEvent[] }>('events', ({ all, events }) => {
    const before = all ? [] : state.events;
    // What came with the first look may be told once more.
    const newest = before[0]?.sequence ?? 0;
    change({ events: [...events.filter(({ sequence }) => sequence > newest).toReversed(), ...before].slice(0, EVENTS_KEPT) });
  });
  on<VmDetail | null>('vm', (detail) => change({ detail }));
  on('signed-out', () => {
    stopWatching();
    whenSignedOut();
  });
  own.addEventListener('error', () => {
    if (own !== source) return;
    change({ connection: 'lost' });
    // Refused for good, not just cut: ask why, and begin anew when it was nothing.
    if (own.readyState === EventSource.CLOSED) setTimeout(() => void recheck(own), RECHECK_MS);
  });
}

async function recheck(own: EventSource): Promise<void> {
  if (own !== source) return;
  const status = await fetch('/session').then(
    (response) => response.status,
    () => 0,
  );
  if (own !== source) return;
  if (status === 401) {
    stopWatching();
    whenSignedOut();
  } else if (status === 200) connect();
  else setTimeout(() => void recheck(own), RECHECK_MS);
}

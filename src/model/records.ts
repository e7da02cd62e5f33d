/**
 * What a host knows, as plain JSON records, and the catalog that keeps them. The catalog's transactions are durable when they
 * return; promises of tracking and replication rest on that. Times are milliseconds since 1970 UTC.
 */
import type { PastCycle } from './cycle-history.ts';
import type { GuestRun, HypervisorSettings } from './hypervisor.ts';
import type { ReplicationState, Side } from './replication-state.ts';
import type { Rung, TriggerNumber } from './resync-trigger.ts';
import type { RelationshipSettings } from './settings.ts';
import type { Statistics } from './statistics.ts';

/** Kept as the disk layer's `Seal`; the catalog does not look inside. */
export type SealRecord = { kind: string } & Record<string, unknown>;

export interface DiskRecord {
  diskId: string;
  /** Path or NBD URI, as opened. On a replica the path of the replica disk. */
  path: string;
  format: string;
  virtualSize: number;
  logicalSectorSize: number;
  geometry: { cylinders: number; heads: number; sectorsPerTrack: number } | null;
  /** Served to the guest but not replicated. */
  excluded?: true;
  /** A resize is under way and will be completed, also after a crash (R26): map and file may have this size already. */
  growTo?: number;
}

/** The disks that tracking and replication are about. */
export function replicatedDisks(vm: Pick<VmRecord, 'disks'>): DiskRecord[] {
  return vm.disks.filter(({ excluded }) => excluded !== true);
}

/** How far the tracking of a VM is known to be sound. Written at start, at every switch, at stop. */
export interface TrackingRecord {
  /** The epoch that new writes belong to. Never goes back. */
  epoch: number;
  /** `logging`: log and map; `map-only`: a trigger stopped the logs; the map goes on. */
  mode: 'logging' | 'map-only';
  /** True while disks are open for writing: found true at a start, the stop was not clean. */
  running: boolean;
  bootId: string;
  hostId: string;
  /** By disk id; taken at the clean stop. Meaningless while running. */
  seals: Record<string, SealRecord>;
  /** By disk id: the unique id of the newest log, which the next one names as its predecessor. */
  chain: Record<string, string>;
  /** False once a bit may be missing (R10): the next repair is a full compare. */
  mapTrusted: boolean;
}

export interface VmRecord {
  vmId: string;
  name: string;
  createdAt: number;
  side: Side;
  disks: DiskRecord[];
  /** Where tracking logs go; null: beside each disk. */
  logFolder: string | null;
  /** `on-demand`: served when a guest connects; `attached`: held and served; `stopped`: connections are refused. */
  attach: 'on-demand' | 'attached' | 'stopped';
  /** The user vouches that nobody else writes to disks that have no identity (R24). */
  trustDisk: boolean;
  tracking: TrackingRecord | null;
  /** How this host starts and stops the guest; absent: not at all. */
  hypervisor?: HypervisorSettings;
  /** What the adapter did last for the guest, and for the test guest. */
  guest?: GuestRun;
  testGuest?: GuestRun;
}

export interface EpochDisk {
  diskId: string;
  uniqueId: string;
  /** Null for the first log after a baseline. */
  previousUniqueId: string | null;
  path: string;
  /** Bytes of the closed file, its BLAKE3 in hex and its number of entries; null while open. */
  size: number | null;
  digest: string | null;
  entries: number | null;
  /** Size of the disk in this epoch; absent: its present one (R26). */
  diskSize?: number;
}

/** One set of tracking logs of the primary: all disks of the VM between two instants (R5). */
export interface EpochRecord {
  vmId: string;
  epoch: number;
  /**
   * `closing`: new writes go to the next one, its own are still finishing on disk. `received`: kept only in case it rots
   * there.
   */
  status: 'open' | 'closing' | 'closed' | 'received';
  openedAt: number;
  /** The instant that the set ends at: a recovery point when applied. */
  closedAt: number | null;
  /** The guest's applications were brought to rest at its end. */
  applicationConsistent?: true;
  disks: EpochDisk[];
}

/** One set of logs in the replica's inbox. */
export interface InboxRecord {
  vmId: string;
  epoch: number;
  status: 'receiving' | 'received';
  closedAt: number;
  /** The guest's applications were brought to rest at its end: it becomes a point of that kind. */
  applicationConsistent?: true;
  disks: (EpochDisk & { size: number; digest: string; entries: number; diskSize: number })[];
}

/** A set that was applied to a replica and is to go on to its extended replica: an inbox record whose files lie in the queue of that leg. */
export interface AppliedSetRecord extends InboxRecord {
  /** The epoch of the leg that it becomes part of. */
  legEpoch: number;
}

/** How far the leg to an extended replica remembers what was written to the replica's disks; as for a guest's writes. */
export interface LegTrackingRecord {
  vmId: string;
  tracking: TrackingRecord;
}

/** What is kept of legs to extended replicas: the other relationship of a VM whose replica is here. */
export interface ExtendedTables {
  readonly relationships: Table<[vmId: string], RelationshipRecord>;
  readonly epochs: Table<[vmId: string, epoch: number], EpochRecord>;
  readonly tracking: Table<[vmId: string], LegTrackingRecord>;
  readonly sets: Table<[vmId: string, epoch: number], AppliedSetRecord>;
  readonly cycles: CycleTable;
}

/**
 * One recovery point of a replica: the instant at the end of set `epoch`. Its undo logs hold what was overwritten while it was the
 * newest; the disk seen through them, and through those of all newer points, is the disk at that instant.
 */
export interface PointRecord {
  vmId: string;
  epoch: number;
  /** The instant, by the primary's clock. */
  time: number;
  kind: 'standard' | 'application-consistent';
  createdAt: number;
  /** Why it can no longer be failed over to; null when it can. */
  damaged: string | null;
  /** The newest set whose overwritten content is kept, durably (R14); `epoch` before the first. */
  undoneThrough: number;
  disks: {
    diskId: string;
    /** Bytes of the disk at that instant (R26). */
    virtualSize: number;
    /** Of the undo log. */
    path: string;
    /** Bytes of the undo log that count; 0: there is none yet. */
    end: number;
  }[];
}

/** What a failover or a test serves. */
export interface FailoverRecord {
  /** Of the point; null: the latest instant. */
  pointEpoch: number | null;
  /** The newest set that it shows; of those after the last applied one the logs are read in the inbox. */
  throughEpoch: number;
  /** The instant that is served. */
  time: number | null;
  startedAt: number;
  /**
   * After `failover complete`: first what the layers hold goes into the replica disk, then what the guest wrote; `done`: the disk is a
   * plain file. Null before.
   */
  settling: 'layers' | 'diff' | 'done' | null;
  /** From then on: bytes that guests see, by disk id. A replica disk may be larger than it was at the point. */
  sizes?: Record<string, number>;
  /** Whether the old primary holds changes that never came here; absent until it has been heard of. */
  primaryHolds?: boolean;
}

export interface RemoteHost {
  host: string;
  port: number;
  fingerprint: string;
  name: string;
}

export interface InitialReplication {
  method: 'network' | 'export' | 'existing';
  /** Null: at once. */
  startAt: number | null;
  /** Fencing token of this run (R18): messages of an earlier one are refused. */
  token: string;
  folder: string | null;
  /** Writes from this epoch on are in logs. */
  firstEpoch: number;
  /** Per disk id: every byte before it is on the replica and durable. */
  cursors: Record<string, number>;
  copied: boolean;
  /** Set when an export has finished: the imported copy is one instant once all epochs up to this one are applied. */
  consistentFrom?: number;
}

/** A primary that is ready to hand its VM over. */
export interface PreparedFailover {
  token: string;
  /** The last one; everything up to it is applied on the replica. */
  epoch: number;
  /** The replica has been told that it may take over: from then on only the replica can give the VM back. */
  given: boolean;
}

export interface RequiredResync {
  /** The change map names every region that may differ, whatever the trigger says: after a change of direction (R23). */
  mapKnows?: true;
  trigger: TriggerNumber;
  reason: string;
  rung: Rung;
  since: number;
  /** A start that a user has asked for; the automatic one is computed from the settings. */
  startAt: number | null;
  /** The primary's disk may be an older state than the replica: nothing tells (R21). */
  mayBeOlder?: true;
  /** Nothing starts by itself: the user cancelled, or the last run failed in a way that does not heal. */
  held?: boolean;
}

export type ResyncPhase = 'characteristics' | 'tracking' | 'comparing' | 'completing' | 'merging';

export interface ResyncDisk {
  totalBytes: number;
  /** All selected bytes before it are proven equal and durable in the diff disk. */
  cursor: number;
  compared: boolean;
  comparedBytes: number;
  differingBytes: number;
  sentBytes: number;
  wireBytes: number;
  /** The disk as a row of cells (resync/disk-map.ts), as far as the cursor; only shown. */
  map?: string;
}

/** One run of a resynchronization; on the replica only token, phase and epochs count. */
export interface ResyncRecord {
  token: string;
  phase: ResyncPhase;
  rung: Rung;
  trigger: TriggerNumber;
  reason: string;
  startedAt: number;
  /** Writes from this epoch on are in the logs of step 2; 0 before they are. */
  firstEpoch: number;
  throughEpoch: number | null;
  /** Replica: the merge keeps what it overwrites in the newest point's undo logs, so that the old points stay. */
  keepsPoints?: boolean;
  /** Replica: why its disks were no instant of the VM when it began, and are none again should it end before its merge. */
  lost?: RelationshipRecord['lost'];
  disks: Record<string, ResyncDisk>;
}

/** A verify between two of its windows. Ranges are bytes of disks, by disk id. */
export interface VerifyRecord {
  /** What it speaks of; with another baseline or other sizes it means nothing. */
  baselineId: string;
  sizes: Record<string, number>;
  startedAt: number;
  /** 1 is the look at everything; later ones are at what was written meanwhile. */
  pass: number;
  /** The oldest and the newest point that were compared. */
  from: number | null;
  at: number | null;
  windows: number;
  longestHoldMs: number;
  /** Not looked at yet in this pass; and to be looked at in the next one. */
  open: Record<string, { offset: number; length: number }[]>;
  again: Record<string, { offset: number; length: number }[]>;
  differingBytes: number;
  findings: { path: string; offset: number; length: number }[];
}

export interface RelationshipRecord {
  vmId: string;
  side: Side;
  state: ReplicationState;
  remote: RemoteHost;
  settings: RelationshipSettings;
  createdAt: number;
  trustGroup: string;
  /** Changes with every new baseline; both sides must name the same one before a log is taken. */
  baselineId: string;
  initial: InitialReplication | null;
  required: RequiredResync | null;
  resync: ResyncRecord | null;
  /** Primary: token of a run that is void and whose diff disks the replica still has to drop. */
  abandoned?: string | null;
  error: { code: string; message: string; remedy: string; since: number; retryAt: number | null; failures: number } | null;
  /** Primary: when an application-consistent point was tried last, and why it was none. */
  atRest?: { triedAt: number; failure: string | null };
  /** Primary: when the last epoch was acknowledged. Replica: when it was received. */
  /** Primary: when the last verify ended, whatever it found; absent before the first one. */
  lastVerifiedAt?: number;
  lastReplicationTime: number | null;
  lastReceivedEpoch: number;
  lastAppliedEpoch: number;
  /** The instant that the replica disk shows: `closedAt` of the last applied epoch. */
  lastAppliedTime: number | null;
  /** By disk id: unique id of the log that was applied last; the next one must name it as its predecessor (R13). */
  lastAppliedLogs: Record<string, string>;
  /** The replica is one past instant only from this epoch on: before, the initial copy and its logs are not together yet. */
  consistentFrom: number;
  /** Bytes of the initial copy, of logs and of resyncs that have been sent (primary) or received (replica). */
  transferred: { initialBytes: number; logBytes: number; wireBytes: number; resyncBytes: number };
  /** Primary: a verify that is under way or was cut, as it was after its last window. */
  verifying?: VerifyRecord | null;
  /** Replica: how its disks looked after the last apply; what differs now was changed behind our back (trigger 7). */
  appliedSeals: Record<string, SealRecord>;
  /** Replica: the epoch that is being applied; its disks are between two instants, and redo mends that (R13). */
  applying: number | null;
  /** Replica: an epoch that must be sent again because it cannot be used as it is. */
  wantedAgain: number | null;
  /** Replica: why it can no longer be known equal. */
  lost: { trigger: 6 | 7; reason: string } | null;
  /** Counts the changes of direction; the side that knows the smaller number is out of date (R21). Absent: 0. */
  generation?: number;
  /** Primary: prepared for a planned failover. */
  prepared?: PreparedFailover | null;
  /** Primary: the other host has taken over. Guests are kept out here until a person has chosen a direction (R22). */
  tookOver?: { id: string; since: number } | null;
  /** Primary since a change of direction: what the old primary has still to be told, and whether both disks are known equal. */
  turning?: { epoch: number; equal: boolean } | null;
  /** Primary since a change of direction: what this failover served has not been put together with the disks yet. */
  unmerged?: FailoverRecord | null;
  /** Replica: fed by a replica, not by the primary. */
  extended?: true;
  /** The other host was named by `enable` here: it needs no authorisation for this VM. */
  pairedBy?: 'enable';
  /** What the other side last said of itself. */
  remoteState: ReplicationState | null;
  mapTrusted: boolean;
  /** Replica: what is served since a failover. */
  failover?: FailoverRecord | null;
  /** Replica: what a test failover serves; while it runs nothing is applied (R15). */
  testFailover?: FailoverRecord | null;
  lastTestFailoverTime?: number | null;
  statistics: Statistics;
}

export interface AuthorizationRecord {
  /** SHA-256 of the peer's certificate, or `any`. */
  fingerprint: string;
  name: string | null;
  storageLocation: string;
  trustGroup: string;
  createdAt: number;
}

export interface EventRecord {
  time: number;
  id: number | string;
  level: 'Information' | 'Warning' | 'Error';
  vmId: string | null;
  vmName: string | null;
  message: string;
  data: Record<string, unknown>;
}

export interface EventFilter {
  vmName?: string;
  /** Only events after this sequence number. */
  after?: number;
  limit?: number;
}

/** A keyed set of records. `put` inserts or replaces. */
export interface Table<Key extends readonly unknown[], Row> {
  get(...key: Key): Row | undefined;
  put(row: Row): void;
  remove(...key: Key): void;
  /** In key order; with a first key part, only rows below it. */
  list(...prefix: Partial<Key>): Row[];
}

/** The last cycles of each VM. For charts alone: a power loss may take the last ones back. */
export interface CycleTable {
  /** `CYCLES_KEPT_MAX` are kept; older ones go now and then. */
  add(vmId: string, cycle: PastCycle): void;
  /** Oldest first; the newest `atMost` of them. */
  list(vmId: string, atMost?: number): PastCycle[];
  /** All of the VM. */
  remove(vmId: string): void;
}

export interface Catalog {
  /** All or nothing, durable on return. May be nested: the outermost commits. */
  transaction<T>(work: () => T): T;
  /**
   * As `transaction`, but durable only together with the next one: a power loss may take it back, a crash of the process not. For
   * counters and clocks, which nothing rests on; it costs no wait for the disk. A `transaction` inside is a bug.
   */
  lazyTransaction<T>(work: () => T): T;
  readonly vms: Table<[vmId: string], VmRecord>;
  readonly relationships: Table<[vmId: string], RelationshipRecord>;
  readonly epochs: Table<[vmId: string, epoch: number], EpochRecord>;
  readonly inbox: Table<[vmId: string, epoch: number], InboxRecord>;
  readonly points: Table<[vmId: string, epoch: number], PointRecord>;
  readonly cycles: CycleTable;
  readonly extended: ExtendedTables;
  readonly authorizations: Table<[fingerprint: string], AuthorizationRecord>;
  vmByName(name: string): VmRecord | undefined;
  addEvent(event: EventRecord): void;
  events(filter: EventFilter): (EventRecord & { sequence: number })[];
  /** Host-wide values: host id, name, settings. */
  value(key: string): unknown;
  setValue(key: string, value: unknown): void;
  close(): void;
}

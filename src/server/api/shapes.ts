/**
 * What travels between a host and its clients: the parameters of operations, and what comes back. Field names in
 * results are promises to scripts (docs/operating/cli.md). Sizes are bytes, times ISO 8601 UTC, durations seconds,
 * times of day HH:MM:SS local.
 */

import { z } from 'zod';
import { DISKS_PER_VM_MAX, FREQUENCIES_SEC } from '../../model/limits.ts';
import { HEALTH_NUMBERS, MODE_NUMBERS, RELATIONSHIP_TYPE_NUMBERS, STATES } from '../../model/replication-state.ts';
import { ADAPTERS, GUEST_CARDS_MAX } from '../../model/hypervisor.ts';
import { ROLES } from '../../model/roles.ts';
import { RUNGS } from '../../model/resync-trigger.ts';
import { MAP_CELLS_MAX } from '../../resync/disk-map.ts';
import { timeOfDaySchema, vmNameSchema } from '../../model/settings.ts';

// Bounds on what a client may send, before the host looks at it.
export const NAME_CHARS_MAX = 200;
const PATH_CHARS_MAX = 4096;
export const EVENTS_MAX = 10_000;

const namesOf = <Name extends string>(table: Record<Name, unknown>): [Name, ...Name[]] =>
  Object.keys(table) as [Name, ...Name[]];

// ── What people and programs send ────────────────────────────────────────

export const vmName = vmNameSchema.describe('name of the virtual machine');
const path = z
  .string()
  .min(1)
  .max(PATH_CHARS_MAX)
  .regex(/^[^\0]+$/);
/** The client makes paths absolute: the server has another working folder. */
export const absolutePath = path.regex(/^\//, 'an absolute path');
export const diskLocation = path
  .regex(/^(\/|nbd(s)?(\+unix)?:\/\/)/, 'an absolute path or an NBD URI')
  .describe('absolute path of an image or block device, or an NBD URI');
export const instant = z.iso.datetime({ offset: true }).describe('ISO 8601 with a zone');
export const timeOfDay = timeOfDaySchema.describe('local time of day');
export const hostPort = z
  .string()
  .max(300)
  .regex(/^(\[[^\]]+\]|[^:/\s]+):\d{1,5}$/, 'HOST:PORT')
  .describe('HOST:PORT');
export const fingerprint = z
  .string()
  .max(200)
  .regex(/^[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){31}$/, '64 hexadecimal digits, with or without colons')
  .describe("SHA-256 fingerprint of a host's certificate");
export const none = z.strictObject({});
export const named = z.strictObject({ name: vmName });
/** Which relationship of the VM is meant. */
export const extended = z.boolean().exactOptional().describe('of the extended replica that this host feeds, not of the replica itself');
export const end = z.strictObject({ name: vmName, extended });
export const maybeEnd = z.strictObject({ name: vmName.exactOptional(), extended });

/**
 * A `SettingsChange` of model/settings.ts: what is absent stays as it is (`set`) or takes its default (`enable`).
 * Ranges are checked by `changeSettings`, together with what was set before.
 */
export const settingsChange = z.strictObject({
  frequencySec: z
    .literal([...FREQUENCIES_SEC])
    .exactOptional()
    .describe('seconds between two log files'),
  recoveryHistory: z.int().exactOptional().describe('further hourly recovery points to keep'),
  applicationConsistentHours: z.int().exactOptional(),
  compression: z.boolean().exactOptional(),
  excludedDisks: z.array(diskLocation).max(DISKS_PER_VM_MAX).exactOptional(),
  autoResync: z
    .strictObject({
      enabled: z.boolean().exactOptional(),
      intervalStart: timeOfDay.exactOptional(),
      intervalEnd: timeOfDay.exactOptional(),
    })
    .exactOptional(),
  resyncPriority: z.int().exactOptional().describe("smaller goes first in the host's queue"),
  resyncShare: z
    .strictObject({
      diskBytesPerSec: z.int().nullable().exactOptional(),
      linkBytesPerSec: z.int().nullable().exactOptional(),
    })
    .exactOptional(),
  keepRecoveryPoints: z.boolean().exactOptional(),
  logLimitPercent: z.number().exactOptional().describe('of the virtual size of all disks'),
  boundedWaitMs: z.int().exactOptional(),
  verify: z
    .strictObject({
      everyDays: z.int().exactOptional(),
      at: timeOfDay.exactOptional(),
      diskBytesPerSec: z.int().exactOptional(),
    })
    .exactOptional(),
});

const word = z.string().min(1).max(NAME_CHARS_MAX);

/** How this host starts and stops the guest: of this side alone. Ranges are checked by `changeHypervisor`. */
export const hypervisorChange = z.strictObject({
  adapter: z.enum(ADAPTERS).exactOptional(),
  command: absolutePath.nullable().exactOptional().describe('program of the adapter command'),
  timeoutSec: z.int().exactOptional().describe('what one action may take'),
  libvirtUri: word.exactOptional(),
  libvirtDomain: word.nullable().exactOptional(),
  networks: z.record(word, word).exactOptional(),
  testNetwork: word.nullable().exactOptional(),
  guestAgent: z.union([z.literal('libvirt'), absolutePath]).nullable().exactOptional().describe('socket of the guest agent'),
  addresses: z.array(z.strictObject({
    card: word, address: word, prefix: z.int(), gateway: word.nullable().exactOptional(), dns: z.array(word).exactOptional(),
  })).max(GUEST_CARDS_MAX).exactOptional().describe('what the guest\'s network cards get after a failover to this host'),
});

// ── What the host answers ────────────────────────────────────────

const bytes = z.int().min(0);
const seconds = z.number().min(0);
const time = z.iso.datetime();

export const authorizationEntry = z.looseObject({
  fingerprint: z.string().describe('of the peer, or "any"'),
  name: z.string().nullable(),
  storage: z.string().nullable().describe('folder for replica disks; null = the default of the data folder'),
  trustGroup: z.string(),
});

const guestRun = z.looseObject({
  action: z.string(),
  startTime: time,
  endTime: time.nullable().describe('null = it runs'),
  failure: z.looseObject({ code: z.string(), message: z.string(), remedy: z.string() }).nullable(),
  output: z.string().describe('the end of what the adapter said'),
});

const hypervisor = z.looseObject({
  adapter: z.enum(ADAPTERS),
  guest: guestRun.nullable().describe('what the adapter did last for the guest'),
  testGuest: guestRun.nullable(),
});

export const vm = z.looseObject({
  vmId: z.string(),
  name: z.string(),
  hypervisor: hypervisor.optional(),
  disks: z.array(
    z.looseObject({
      path: z.string(),
      format: z.string(),
      virtualSize: bytes,
      logicalSectorSize: bytes.optional().describe('512 or 4096: a hypervisor has to be told, as NBD does not say'),
      uri: z
        .string()
        .nullable()
        .describe('where a hypervisor opens the disk once it is attached; null = not known yet'),
      tcpUri: z.string().nullable().optional().describe('the same over TCP, when `serve --nbd` was given'),
    }),
  ),
  attached: z.boolean(),
});

export const statistics = z.looseObject({
  monitoringStartTime: time.nullable(),
  monitoringEndTime: time.nullable(),
  averageReplicationBytes: z.number().min(0),
  maximumReplicationBytes: bytes,
  averageLatencySeconds: seconds.nullable(),
  maximumLatencySeconds: seconds.nullable(),
  replicationErrors: z.int().min(0),
  successfulReplications: z.int().min(0),
  missedReplications: z.int().min(0),
  pendingBytes: bytes,
  initialReplicationBytes: bytes.optional(),
  resynchronizedBytes: bytes.optional(),
  sentBytes: bytes.optional().describe('over the network, after compression'),
  lastTestFailoverTime: time.nullable().optional(),
});

const healthName = z.enum(namesOf(HEALTH_NUMBERS));
const relationshipName = z.enum(namesOf(RELATIONSHIP_TYPE_NUMBERS));
const stateName = z.enum(STATES).describe("PowerShell's VMReplicationState");

const served = z.looseObject({
  point: z.string().describe('id of the recovery point, or latest'),
  time: time.nullable().describe('the instant that it shows'),
  startTime: time,
  writtenBytes: bytes.optional().describe('what its guest has written since, in whole pages; failover.cancel drops it'),
  settling: z.enum(['layers', 'diff', 'done']).nullable().describe('after completion, how far the disks are; done: plain files'),
});

export const status = z.looseObject({
  vmId: z.string(),
  vmName: z.string(),
  state: stateName,
  stateNumber: z.int().describe("PowerShell's number"),
  wmiState: z.int().describe("WMI's number of the same state"),
  health: healthName,
  mode: z.enum(namesOf(MODE_NUMBERS)),
  relationship: relationshipName,
  frequencySec: z.int().nullable(),
  primaryServer: z.string().nullable(),
  replicaServer: z.string().nullable(),
  lastReplicationTime: time.nullable(),
  lastAppliedLogTime: time.nullable(),
  pendingBytes: bytes,
  autoResynchronizeEnabled: z.boolean(),
  autoResynchronizeIntervalStart: timeOfDay,
  autoResynchronizeIntervalEnd: timeOfDay,
  resynchronizeStartTime: time.nullable(),
  healthDetails: z.array(z.string()),
  initialReplicationStartTime: time.nullable().optional(),
  recoveryHistory: z.int().optional(),
  applicationConsistentHours: z.int().optional().describe('between application-consistent points; 0 = none'),
  applicationConsistentAttempt: z.looseObject({ time, failure: z.string().nullable() }).nullable().optional(),
  replicaPort: z.int().nullable().optional(),
  lagSeconds: seconds.nullable().optional().describe('age of what the replica could serve now'),
  logBytes: bytes.optional().describe('tracking logs that count against the limit'),
  logLimitBytes: bytes.optional().describe('beyond it a resynchronization is required'),
  secondsToLogLimit: seconds.nullable().optional().describe('forecast at the present rate; null = not in sight'),
  excludedDisks: z.array(z.string()).optional(),
  exportFolder: z.string().optional().describe('of an initial copy that travels by other means'),
  exportFinished: z.boolean().optional().describe('the folder may be carried to the replica and imported'),
  disks: z
    .array(z.looseObject({ path: z.string(), uri: z.string().nullable(), logicalSectorSize: bytes.optional() }))
    .optional()
    .describe('after a failover, or during a test: where each disk is served'),
  hypervisor: hypervisor.optional().describe('how this host starts the guest, and how that went'),
  failover: served.nullable().optional().describe('what is served since a failover'),
  testFailover: served.nullable().optional().describe('what a test failover serves'),
  droppedBytes: bytes.optional().describe('of failover.cancel on a replica: what the guest had written there since, and has gone'),
  recoveryPoints: z.int().min(0).optional().describe('on a replica: points beside the latest'),
});

export const health = z.looseObject({
  vmName: z.string(),
  health: healthName,
  state: stateName,
  relationship: relationshipName.optional(),
  lastReplicationTime: time.nullable().optional(),
  healthDetails: z.array(z.string()),
  statistics,
});

const resyncDisk = z.looseObject({
  path: z.string(),
  totalBytes: bytes,
  comparedBytes: bytes,
  differingBytes: bytes,
  sentBytes: bytes,
  map: z
    .string()
    .max(MAP_CELLS_MAX)
    .optional()
    .describe('the disk in cells: . not read, e equal, h hole, d differing, m mended, - not compared'),
});

export const resyncStatus = z.looseObject({
  vmName: z.string(),
  phase: z.string().describe('"none" when no resynchronization is required or running'),
  rung: z.enum(RUNGS).nullable(),
  reason: z.string().nullable(),
  percent: z.number().min(0).max(100).nullable(),
  disks: z.array(resyncDisk),
  etaSeconds: seconds.nullable(),
  bytesPerSecond: z.number().min(0).nullable().optional(),
  startTime: time.nullable().optional(),
  verify: z.looseObject({
    running: z.boolean().describe('false = it was cut, and goes on with the next one'), startTime: time.nullable(), comparedBytes: bytes, totalBytes: bytes,
    differingBytes: bytes, windows: z.int().min(0), heldSeconds: seconds.nullable().describe('so long the replica has not applied for it; null = it does'),
  }).nullable().optional(),
});

export const resyncPlan = z.looseObject({
  vmName: z.string(),
  rung: z.enum(RUNGS),
  reason: z.string(),
  readBytes: bytes.describe('to be read on each side'),
  estimatedSeconds: seconds.nullable(),
  disks: z.array(z.looseObject({ path: z.string(), totalBytes: bytes, readBytes: bytes })),
  refusals: z.array(z.string()).optional().describe('why it could not start now'),
  overwrites: z.string().optional().describe('what only the replica may still have: asks for overwriteReplica'),
  olderPointsLost: z.int().min(0).optional().describe('at most so many older recovery points are deleted when it has finished'),
});

export const resyncQueueEntry = z.looseObject({
  vmName: z.string(),
  standing: z.enum(['running', 'waiting', 'scheduled', 'paused']),
  position: z.int().min(0).describe('0 = running'),
  priority: z.int(),
  startTime: time.nullable().describe('not before'),
  reason: z.string().nullable().optional(),
});

export const pastCycle = z.looseObject({
  time,
  outcome: z.enum(['success', 'missed', 'late', 'failed-attempt']),
  bytes,
  latencySeconds: seconds,
});

export const pastResync = z.looseObject({
  startTime: time,
  endTime: time.nullable().describe('null = still going on'),
  rung: z.enum(RUNGS).nullable(),
  reason: z.string(),
  sentBytes: bytes.nullable(),
  seconds: seconds.nullable(),
  result: z.enum(['finished', 'cancelled', 'failed', 'running', 'superseded']),
});

export const programToken = z.looseObject({
  name: z.string(),
  role: z.enum(ROLES),
  createdAt: time,
  expiresAt: time,
});

export const event = z.looseObject({
  time,
  id: z.union([z.int(), z.string()]).describe("Hyper-V's number where one exists, else a name"),
  level: z.enum(['Information', 'Warning', 'Error']),
  vmName: z.string().nullable(),
  message: z.string(),
  data: z.record(z.string(), z.unknown()),
});

export const point = z.looseObject({
  id: z.string(),
  time,
  kind: z.enum(['standard', 'application-consistent', 'latest']),
  bytes: bytes.describe('what keeping it costs; free again when it goes'),
  keptBy: z.string().optional().describe('on a primary: the host that keeps this one and the older ones, and lists them'),
  lossSeconds: seconds.optional().describe('of the guest\'s time that a failover to it loses, against the latest'),
  damaged: z.string().nullable().optional().describe('why it cannot be used; null when it can'),
});

export const check = z.looseObject({
  check: z.string(),
  ok: z.boolean(),
  detail: z.string(),
  remedy: z.string().nullable(),
});

export const syncNow = z.looseObject({ vmName: z.string(), logSequence: z.int().min(0), bytes, seconds });

export const verifyResult = z.looseObject({
  vmName: z.string(),
  equal: z.boolean(),
  comparedBytes: bytes,
  differingBytes: bytes,
  unprovenBytes: bytes,
  at: time.describe('the newest instant for which the answer holds'),
  from: time.optional().describe('the oldest: each part of the disks was compared at one of its own in between'),
  windows: z.int().min(0).optional().describe('so often the replica was held'),
  longestHoldSeconds: seconds.optional(),
  repairedBytes: bytes.optional(),
});

/** One line of progress of a long operation. */
export const PROGRESS = z.looseObject({
  phase: z.string(),
  done: z.number().min(0),
  total: z.number().min(0).describe('0 = not known'),
  unit: z.literal('bytes'),
  rate: z.number().min(0).optional().describe('bytes per second'),
  etaSeconds: seconds.optional(),
  disk: z.string().optional(),
  message: z.string().optional(),
});
export interface Progress {
  phase: string;
  done: number;
  total: number;
  unit: 'bytes';
  rate?: number;
  etaSeconds?: number;
  disk?: string;
  message?: string;
}

/** How an operation fails, on every transport. `kind` decides exit code and HTTP status. */
export const FAILURE = z.looseObject({
  error: z.looseObject({
    kind: z.enum(['usage', 'state', 'peer', 'io']),
    code: z.string(),
    message: z.string(),
    remedy: z.string(),
  }),
});

export type Status = z.output<typeof status>;
export type Health = z.output<typeof health>;
export type Statistics = z.output<typeof statistics>;
export type Vm = z.output<typeof vm>;
export type AuthorizationEntry = z.output<typeof authorizationEntry>;
export type ResyncStatus = z.output<typeof resyncStatus>;
export type ResyncPlan = z.output<typeof resyncPlan>;
export type ResyncQueueEntry = z.output<typeof resyncQueueEntry>;
export type PastCycle = z.output<typeof pastCycle>;
export type PastResync = z.output<typeof pastResync>;
export type HostEvent = z.output<typeof event>;
export type RecoveryPoint = z.output<typeof point>;
export type Check = z.output<typeof check>;

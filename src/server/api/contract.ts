/**
 * What a server can be asked: one table, from which come the HTTP routes, the OpenAPI document, the command line's
 * client and the type that the host implements. The field names in results are promises to scripts
 * (docs/operating/cli.md): fields may be added, those that stand here stay. Sizes are bytes, times ISO 8601 UTC,
 * durations seconds, times of day HH:MM:SS local.
 *
 * Results are open objects: a host may answer with more than is named here.
 */

import { z } from 'zod';
import { DISKS_PER_VM_MAX } from '../../model/limits.ts';
import { ROLES, SESSION_HOURS_MAX, TOKEN_DAYS_MAX } from '../../model/roles.ts';
import {
  EVENTS_MAX,
  NAME_CHARS_MAX,
  absolutePath,
  authorizationEntry,
  check,
  diskLocation,
  end,
  event,
  extended,
  fingerprint,
  health,
  hostPort,
  hypervisorChange,
  instant,
  maybeEnd,
  named,
  none,
  point,
  resyncPlan,
  pastCycle,
  pastResync,
  programToken,
  resyncQueueEntry,
  resyncStatus,
  settingsChange,
  status,
  syncNow,
  verifyResult,
  vm,
  vmName,
} from './shapes.ts';
import type { Progress } from './shapes.ts';

export type {
  AuthorizationEntry,
  Check,
  Health,
  HostEvent,
  PastCycle,
  PastResync,
  Progress,
  RecoveryPoint,
  ResyncPlan,
  ResyncQueueEntry,
  ResyncStatus,
  Statistics,
  Status,
  Vm,
} from './shapes.ts';

export interface Operation {
  params: z.ZodType;
  result: z.ZodType;
  summary: string;
  /** May take longer than a person's patience: reports progress, and is aborted when the caller goes away. */
  long?: true;
  /** Changes nothing: what a read-only session of the console may call. */
  reads?: true;
  /** Only over the Unix socket: it gives or takes access, which nobody may do who has only been let in. */
  local?: true;
}

export const OPERATIONS = {
  'fingerprint': {
    summary: "This host's name and the fingerprint of its certificate.",
    params: none,
    result: z.looseObject({
      fingerprint: z.string(), name: z.string(), peerPort: z.int().optional(), monitoringIntervalSec: z.int().optional(),
      monitoringStart: z.string().optional(),
    }),
    reads: true,
  },
  'authorize': {
    summary: 'Lets a peer keep replicas on this host.',
    params: z.strictObject({
      fingerprint: z.union([z.literal('any'), fingerprint]),
      name: z.string().min(1).max(NAME_CHARS_MAX).exactOptional(),
      storage: absolutePath.exactOptional().describe('folder for the replica disks of this peer'),
      trustGroup: z.string().min(1).max(NAME_CHARS_MAX).exactOptional(),
    }),
    result: authorizationEntry,
  },
  'unauthorize': {
    summary: 'Takes an authorisation back; replicas that exist stay where they are.',
    params: z.strictObject({ fingerprint: z.union([z.literal('any'), fingerprint]) }),
    result: authorizationEntry,
  },
  'authorizations': {
    summary: 'Who may keep replicas on this host.',
    params: none,
    result: z.array(authorizationEntry),
    reads: true,
  },
  'test-connection': {
    summary: 'Greets a host that could keep replicas: whether it answers, is the one that is meant, and lets this host in.',
    params: z.strictObject({ replica: hostPort, fingerprint }),
    result: z.looseObject({ hostName: z.string(), clockSkewSeconds: z.number().describe('its clock minus ours'), seconds: z.number().min(0) }),
    reads: true,
    long: true,
  },
  'vm.add': {
    summary: 'Makes a virtual machine and its disks known to this host.',
    params: z.strictObject({
      name: vmName,
      disks: z.array(diskLocation).min(1).max(DISKS_PER_VM_MAX),
      logDir: absolutePath.exactOptional().describe('folder for the tracking logs'),
    }),
    result: vm,
  },
  'vm.list': { summary: 'All virtual machines of this host.', params: none, result: z.array(vm), reads: true },
  'vm.show': { summary: 'One virtual machine.', params: named, result: vm, reads: true },
  'vm.attach': {
    summary: 'Serves the disks over NBD, so that a hypervisor can open them.',
    params: z.strictObject({
      name: vmName,
      trustDisk: z
        .boolean()
        .exactOptional()
        .describe('the user vouches that nobody wrote where no mark can prove it (R24)'),
    }),
    result: vm,
    long: true,
  },
  'vm.stop': { summary: 'Stops serving the disks and seals them.', params: named, result: vm, long: true },
  'vm.resize': {
    summary: 'Grows a disk; its replica follows.',
    params: z.strictObject({ name: vmName, path: diskLocation, size: z.int().min(1).describe('bytes') }),
    result: vm,
    long: true,
  },
  'vm.remove': { summary: 'Forgets the virtual machine; its disks stay.', params: named, result: vm },
  'enable': {
    summary: 'Sets up replication of a virtual machine to a replica host.',
    params: z.strictObject({
      name: vmName,
      replica: hostPort,
      fingerprint,
      settings: settingsChange.exactOptional(),
    }),
    result: status,
  },
  'extend': {
    summary: 'Sets up extended replication: from the replica on this host to a third host.',
    params: z.strictObject({ name: vmName, replica: hostPort, fingerprint, settings: settingsChange.exactOptional() }),
    result: status,
  },
  'start': {
    summary: 'Starts the initial replication, now or at a time.',
    params: z
      .strictObject({
        name: vmName,
        extended,
        at: instant.exactOptional(),
        exportTo: absolutePath.exactOptional().describe('folder for a copy that travels by other means'),
        useExisting: z
          .boolean()
          .exactOptional()
          .describe('the replica already has a copy: compare, and send what differs'),
      })
      .refine(
        (given) => given.exportTo === undefined || given.useExisting !== true,
        'exportTo and useExisting exclude each other',
      ),
    result: status,
    long: true,
  },
  'stop-initial': { summary: 'Cancels a running or scheduled initial replication.', params: end, result: status },
  'import': {
    summary: 'Takes an exported initial copy in, on the replica.',
    params: z.strictObject({ name: vmName, from: absolutePath }),
    result: status,
    long: true,
  },
  'status': {
    summary: 'State, health and settings of replication: of one VM, or of all.',
    params: maybeEnd,
    result: z.union([z.array(status), status]),
    reads: true,
  },
  'health': {
    summary: 'Health with its reasons and the statistics of the monitoring interval: of one VM, or of all.',
    params: maybeEnd,
    result: z.union([z.array(health), health]),
    reads: true,
  },
  'sync-now': {
    summary: 'Ships and applies what is tracked so far, and waits.',
    params: end,
    result: syncNow,
    long: true,
  },
  'suspend': { summary: 'Pauses replication, or a running resynchronization.', params: end, result: status },
  'resume': {
    summary: 'Goes on with replication or resynchronization.',
    params: z
      .strictObject({
        name: vmName,
        extended,
        resynchronize: z.boolean().exactOptional().describe('compare from the start'),
        at: instant.exactOptional().describe('start of the resynchronization'),
        continue: z.boolean().exactOptional().describe('go on with a compare where it stopped'),
        offPeak: z.boolean().exactOptional().describe('start of the resynchronization in the hours of its settings'),
        overwriteReplica: z.boolean().exactOptional().describe('although the replica may have a later state'),
      })
      .refine((given) => given.offPeak !== true || (given.at === undefined && given.continue !== true), 'offPeak excludes at and continue')
      .refine(
        (given) => !(given.resynchronize === true && given.continue === true),
        'resynchronize and continue exclude each other',
      ),
    result: status,
  },
  'cancel-resync': {
    summary: 'Cancels a running resynchronization, or drops a scheduled one.',
    params: end,
    result: status,
  },
  'set': {
    summary: 'Changes settings of replication; what is not named stays.',
    params: z
      .strictObject({
        name: vmName,
        extended,
        settings: settingsChange.exactOptional(),
        replica: hostPort.exactOptional(),
        fingerprint: fingerprint.exactOptional(),
        initialReplicationStartTime: instant.exactOptional(),
        hypervisor: hypervisorChange.exactOptional().describe('of this host alone, on either side'),
      })
      .refine(({ extended: _, ...given }) => Object.keys(given).length > 1, 'at least one setting'),
    result: status,
  },
  'remove': { summary: 'Ends replication on this side; disks stay.', params: end, result: status },
  'reset-statistics': { summary: 'Begins a new monitoring interval.', params: end, result: status },
  'events': {
    summary: 'What happened: of one VM, or of all. With follow, every event from now on is streamed too.',
    params: z.strictObject({
      name: vmName.exactOptional(),
      follow: z.boolean().exactOptional(),
      since: instant.exactOptional(),
      limit: z.int().min(1).max(EVENTS_MAX).exactOptional().describe('the newest so many; 100 unless told'),
    }),
    result: z.array(event),
    long: true,
    reads: true,
  },
  'cycles': {
    summary: 'The last replication cycles: when, how large, how long.',
    params: end,
    result: z.array(pastCycle),
    reads: true,
  },
  'doctor': { summary: "The server's own checks.", params: none, result: z.array(check), reads: true },
  'resync.status': {
    summary: 'Phase, rung with its reason, and progress per disk.',
    params: end,
    result: resyncStatus,
    reads: true,
  },
  'resync.plan': {
    summary: 'What would be done now, why, and what it would cost.',
    params: end,
    result: resyncPlan,
    reads: true,
  },
  'resync.queue': {
    summary: 'Resynchronizations of this host in order.',
    params: none,
    result: z.array(resyncQueueEntry),
    reads: true,
  },
  'resync.history': {
    summary: 'Past resynchronizations: reason, rung, bytes and time, newest first.',
    params: named,
    result: z.array(pastResync),
    reads: true,
  },
  'verify': {
    summary: 'Proves that the replica equals a point of the primary.',
    params: z.strictObject({ name: vmName, extended, repair: z.boolean().exactOptional() }),
    result: verifyResult,
    long: true,
  },
  'failover': {
    summary: 'Serves the replica (test, planned, unplanned), or prepares the primary.',
    params: z.strictObject({
      name: vmName,
      kind: z.enum(['unplanned', 'test', 'prepare', 'planned']),
      point: z
        .string()
        .min(1)
        .max(NAME_CHARS_MAX)
        .exactOptional()
        .describe('id of a recovery point; the latest unless told'),
    }),
    result: status,
    long: true,
  },
  'failover.cancel': {
    summary: 'Undoes a failover, a test failover or a preparation.',
    params: named,
    result: status,
  },
  'failover.complete': {
    summary: 'Makes a failover final: the other recovery points go, the disks become plain files.',
    params: named,
    result: status,
  },
  'reverse': {
    summary: 'Changes the direction after a failover: this host becomes the primary, the other one its replica.',
    params: z.strictObject({
      name: vmName,
      discardPrimary: z
        .boolean()
        .exactOptional()
        .describe('what the old primary has written since the failover may go (split brain)'),
    }),
    result: status,
    long: true,
  },
  'guest.start': {
    summary: 'Starts the guest on the disks that are served, through the adapter.',
    params: z.strictObject({ name: vmName, test: z.boolean().exactOptional() }),
    result: status,
    long: true,
  },
  'guest.stop': {
    summary: 'Shuts the guest down through the adapter, or turns it off at once.',
    params: z.strictObject({ name: vmName, test: z.boolean().exactOptional(), now: z.boolean().exactOptional() }),
    result: status,
    long: true,
  },
  'points': { summary: 'Recovery points of a replica.', params: named, result: z.array(point), reads: true },
  'console.sign-in': {
    summary: 'A link that lets one browser in, once.',
    params: z.strictObject({
      role: z.enum(ROLES).exactOptional().describe('administrator unless told'),
      sessionHours: z.number().positive().max(SESSION_HOURS_MAX).exactOptional().describe('how long the session lasts; 12 unless told'),
    }),
    result: z.looseObject({ url: z.string(), role: z.enum(ROLES), expiresAt: z.iso.datetime(), pageBuilt: z.boolean() }),
    local: true,
  },
  'console.end-sessions': {
    summary: 'Signs every browser out.',
    params: none,
    result: z.looseObject({ ended: z.int().min(0) }),
    local: true,
  },
  'token.add': {
    summary: 'A token for programs: `Authorization: Bearer TOKEN`. It is shown this once.',
    params: z.strictObject({
      name: z.string().min(1).max(NAME_CHARS_MAX),
      role: z.enum(ROLES).exactOptional().describe('administrator unless told'),
      days: z.int().min(1).max(TOKEN_DAYS_MAX).exactOptional(),
    }),
    result: programToken.extend({ token: z.string() }),
    local: true,
  },
  'token.list': { summary: 'Tokens for programs, without their secrets.', params: none, result: z.array(programToken), local: true },
  'token.remove': {
    summary: 'Takes a token back at once.',
    params: z.strictObject({ name: z.string().min(1).max(NAME_CHARS_MAX) }),
    result: programToken,
    local: true,
  },
} as const satisfies Record<string, Operation>;

export type OperationName = keyof typeof OPERATIONS;
/** Validated parameters, as the host gets them. */
export type Params<N extends OperationName> = z.output<(typeof OPERATIONS)[N]['params']>;
export type Result<N extends OperationName> = z.output<(typeof OPERATIONS)[N]['result']>;

export interface CallContext {
  /**
   * Tells the caller how far a long operation is. Cheap, and ignored when nobody listens: call it as often as you
   * know more.
   */
  progress(progress: Progress): void;
  /**
   * Sends one element of the result ahead of its end (`events` with `follow`: each event; its result is then `[]`).
   */
  emit(item: unknown): void;
  /** Aborted when the caller went away: stop waiting, leave a state from which the operation can be repeated. */
  signal: AbortSignal;
  /** `local`: the command line over the Unix socket, mode 0600. `web`: a session of the console. */
  origin: 'local' | 'web';
}

/** What the host implements. Expected failures are rejections with an UnderstudyError. */
export type HostOperations = {
  [N in OperationName]: (params: Params<N>, context: CallContext) => Promise<Result<N>>;
};

/** Names are the last part of the path `/api/v1/NAME`. */
export function isOperation(name: string): name is OperationName {
  return Object.hasOwn(OPERATIONS, name);
}

/** What primary and replica say to each other about replication. Byte tables and order: docs/protocol/replication.md. */
import { z } from 'zod';
import { DISKS_PER_VM_MAX, FREQUENCIES_SEC } from '../model/limits.ts';
import { STATES } from '../model/replication-state.ts';
import { vmNameSchema } from '../model/settings.ts';
import type { PeerMessage } from '../peer/message.ts';

/** One call carries at most this much of a disk or a log before compression. */
export const CHUNK_BYTES = 1 << 20;
/** VMs in one report. */
export const REPORTED_VMS_MAX = 500;

const id = z.string().regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, 'a UUID');
const position = z.int().min(0);
const digest = z.string().regex(/^[0-9a-f]{64}$/, 'a BLAKE3 digest');
const encoding = z.enum(['raw', 'zstd']);
const diskId = z.string().regex(/^[a-z0-9-]{1,40}$/);
const byDisk = <T extends z.ZodType>(value: T) => z.record(diskId, value);
/** A plain file name: it becomes part of a path on the replica. */
const fileName = z.string().min(1).max(200).regex(/^[^/\0\p{Cc}]+$/u).refine((name) => name !== '.' && name !== '..');

const disk = z.strictObject({
  diskId,
  fileName,
  format: z.enum(['raw', 'vhd', 'vhdx']),
  virtualSize: position,
  logicalSectorSize: z.literal([512, 4096]),
  geometry: z.strictObject({ cylinders: position, heads: position, sectorsPerTrack: position }).nullable(),
});
export type OfferedDisk = z.infer<typeof disk>;

const relation = z.strictObject({
  vmId: id,
  name: vmNameSchema,
  primaryName: z.string().min(1).max(255),
  frequencySec: z.literal([...FREQUENCIES_SEC]),
  recoveryHistory: z.int().min(0).max(24),
  /** The caller is a replica itself, and feeds an extended replica. */
  extended: z.literal(true).exactOptional(),
  /** The port that the primary's own peer server listens on; for the way back. */
  primaryPort: z.int().min(0).max(65_535),
  disks: z.array(disk).min(1).max(DISKS_PER_VM_MAX),
});

const message = <P, R>(
  name: string, params: z.ZodType<P>, result: z.ZodType<R>, payloadBytesMax = 0,
): PeerMessage<P, R> => ({ name, params, result, payloadBytesMax, replyBytesMax: 0 });

/** Makes, or brings up to date, the placeholder on the replica. */
export const enableMessage = message('vm.enable', relation, z.strictObject({ replicaName: z.string().max(255), trustGroup: z.string() }));

/** Of a copy that the replica host has; `missing`: the file is not there. */
export const checkedCopy = z.strictObject({
  diskId, path: z.string().max(4096), missing: z.boolean(), format: z.string().max(20), virtualSize: position, logicalSectorSize: position,
  geometry: z.strictObject({ cylinders: position, heads: position, sectorsPerTrack: position }).nullable(),
});
export type CheckedCopy = z.infer<typeof checkedCopy>;

/** Whether a run could succeed; changes nothing. `disks`: the copies, where the method is `existing`. */
export const initialCheckMessage = message('initial.check',
  z.strictObject({ vmId: id, method: z.enum(['network', 'existing']) }),
  z.strictObject({ freeBytes: position, disks: z.array(checkedCopy).max(DISKS_PER_VM_MAX) }));

export const initialBeginMessage = message('initial.begin',
  z.strictObject({ vmId: id, token: id, method: z.enum(['network', 'export', 'existing']), firstEpoch: position }),
  // Where a run of the same token stopped; every byte before is durable.
  z.strictObject({ cursors: byDisk(position) }));

export const initialDataMessage = message('initial.data',
  z.strictObject({ vmId: id, token: id, diskId, offset: position, length: z.int().min(1).max(CHUNK_BYTES), encoding, digest }),
  z.strictObject({}), CHUNK_BYTES);

/** Makes everything before `offset` durable and remembers it. */
export const initialCheckpointMessage = message('initial.checkpoint',
  z.strictObject({ vmId: id, token: id, diskId, offset: position }), z.strictObject({}));

/**
 * The copy is complete; the token becomes the id of the baseline. It is one instant of the VM once all epochs up to
 * `consistentFrom` are applied.
 */
export const initialCompleteMessage = message('initial.complete',
  z.strictObject({ vmId: id, token: id, consistentFrom: position }), z.strictObject({}));

const logDisk = z.strictObject({
  diskId, uniqueId: id, previousUniqueId: id.nullable(), size: position, digest, entries: position, diskSize: position,
});
export type OfferedLog = z.infer<typeof logDisk>;

/** `wanted`: send from these offsets. `known`: received before. `gap`: epoch `expected` must come first. */
export const logOfferMessage = message('log.offer',
  z.strictObject({
    vmId: id, baselineId: id, epoch: position, closedAt: position, disks: z.array(logDisk).min(1).max(DISKS_PER_VM_MAX),
    /** The guest's applications were brought to rest for its end. */
    applicationConsistent: z.boolean().optional(),
  }),
  z.discriminatedUnion('status', [
    z.strictObject({ status: z.literal('wanted'), received: byDisk(position) }),
    z.strictObject({ status: z.literal('known') }),
    z.strictObject({ status: z.literal('gap'), expected: position }),
  ]));

export const logDataMessage = message('log.data',
  z.strictObject({
    vmId: id, epoch: position, diskId, offset: position, length: z.int().min(1).max(CHUNK_BYTES), encoding,
  }),
  z.strictObject({}), CHUNK_BYTES);

/** Resolves when the set is durable in the inbox, its digests checked (R12). */
export const logCommitMessage = message('log.commit', z.strictObject({ vmId: id, epoch: position }), z.strictObject({}));

const reported = z.strictObject({
  vmId: id,
  /** Null before the first baseline. */
  baselineId: id.nullable(),
  state: z.enum(STATES),
  /** Newest epoch that is closed. */
  epoch: position,
  /** Nothing has been written since that epoch ended, up to this instant; null when something has. */
  unchangedUntil: position.nullable(),
  /** Newest epoch that the replica is known to have applied: an older answer means that it was reverted. */
  applied: position,
  mapTrusted: z.boolean(),
  /** Something was written since that epoch ended, or may have been. */
  pending: z.boolean().exactOptional(),
  /** Changes of direction that the primary knows of. */
  generation: position.exactOptional(),
  /** How many points to keep: a change reaches the replica also when the one that told it of it was lost. */
  recoveryHistory: z.int().min(0).max(24).optional(),
});
export type ReportedVm = z.infer<typeof reported>;

const answered = z.strictObject({
  vmId: id,
  /** False when this host knows no such VM of the caller's: also the answer when it belongs to somebody else. */
  known: z.boolean(),
  baselineId: id.nullable(),
  state: z.enum(STATES),
  /** -1: none yet. */
  receivedEpoch: z.int().min(-1),
  appliedEpoch: z.int().min(-1),
  appliedTime: position.nullable(),
  inboxBytes: position,
  /** A log that the replica cannot use and asks to be sent again from here on; null when none. */
  wantedAgain: position.nullable(),
  /** Why the replica can no longer be known equal (triggers 6 and 7). */
  lost: z.strictObject({ trigger: z.literal([6, 7]), reason: z.string().max(2000) }).nullable(),
  failure: z.strictObject({ code: z.string().max(100), message: z.string().max(2000), remedy: z.string().max(2000) }).nullable(),
  /** What this host is of the VM, and the changes of direction that it knows of. */
  side: z.enum(['primary', 'replica']).exactOptional(),
  generation: position.exactOptional(),
  /** A failover is being carried out at this moment: `state` does not show it yet. */
  takingOver: z.literal(true).exactOptional(),
  /** The extended replica that this host feeds has taken the VM over. */
  extendedTookOver: z.literal(true).exactOptional(),
});
export type AnsweredVm = z.infer<typeof answered>;

/** One line per VM, once per cycle: heartbeat, empty epochs, and what the replica has done since (design §8). */
export const reportMessage = message('vm.report',
  z.strictObject({ vms: z.array(reported).max(REPORTED_VMS_MAX) }),
  z.strictObject({ vms: z.array(answered).max(REPORTED_VMS_MAX) }));

/** Waits until the epoch is applied, at most `waitMs`; answers what is applied then. */
export const waitAppliedMessage = message('vm.wait-applied',
  z.strictObject({ vmId: id, epoch: position, waitMs: z.int().min(0).max(30_000) }), answered);

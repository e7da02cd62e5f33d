/** What primary and replica say to each other about a resynchronization. Order and byte tables: docs/protocol/resync.md. */
import { z } from 'zod';
import { DISKS_PER_VM_MAX } from '../model/limits.ts';
import { RUNGS } from '../model/resync-trigger.ts';
import type { PeerMessage, PeerStreamMessage } from '../peer/message.ts';
import { checkedCopy } from '../replication/messages.ts';

const id = z.string().regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, 'a UUID');
const position = z.int().min(0);
const diskId = z.string().regex(/^[a-z0-9-]{1,40}$/);
const nothing = z.strictObject({});

const message = <P, R>(name: string, params: z.ZodType<P>, result: z.ZodType<R>): PeerMessage<P, R> =>
  ({ name, params, result, payloadBytesMax: 0, replyBytesMax: 0 });

/** Step 1: how the replica disks look. `missing`: the file is not there. Changes nothing. */
export const characteristicsMessage = message('resync.characteristics', z.strictObject({ vmId: id }), z.strictObject({
  disks: z.array(checkedCopy).max(DISKS_PER_VM_MAX),
}));
export type ReplicaCharacteristics = z.infer<typeof characteristicsMessage.result>['disks'][number];

/**
 * Step 3: the replica drains its inbox (R16), makes the diff disks of this run, or takes the same run up again. An earlier run's
 * diff disks are dropped.
 */
export const resyncBeginMessage = message('resync.begin',
  z.strictObject({ vmId: id, token: id, rung: z.enum(RUNGS), reason: z.string().max(2000), firstEpoch: position }), nothing);

/** Step 4, one disk at a time: the compare stream (docs/protocol/compare-stream.md). */
export const resyncCompareMessage: PeerStreamMessage<{ vmId: string; token: string; diskId: string; fresh: boolean }> = {
  name: 'resync.compare',
  // `fresh`: nothing of this disk is in the diff disk yet, so the base is what is scanned.
  params: z.strictObject({ vmId: id, token: id, diskId, fresh: z.boolean() }),
};

/** Initial replication onto an existing copy: the same compare, in place, since nobody can fail over to it yet. */
export const existingCompareMessage: PeerStreamMessage<{ vmId: string; token: string; diskId: string }> = {
  name: 'initial.compare',
  params: z.strictObject({ vmId: id, token: id, diskId }),
};

/**
 * Steps 5 and 6: the logs up to `throughEpoch` go into the diff disks, then the merge is on record and begins (R19). `keepPoints`: the
 * old recovery points shall stay, as far as they still rest on something.
 */
export const resyncMergeMessage = message('resync.merge',
  z.strictObject({ vmId: id, token: id, throughEpoch: position, keepPoints: z.boolean().optional() }), nothing);

/** Verify: the replica stays at this epoch while `hold`; refused when it is at another. A hold ends by itself after a while. */
export const verifyHoldMessage = message('verify.hold',
  z.strictObject({ vmId: id, token: id, epoch: position, hold: z.boolean() }), nothing);

/** Verify: compares only; the replica writes nothing. */
export const verifyCompareMessage: PeerStreamMessage<{ vmId: string; token: string; diskId: string }> = {
  name: 'verify.compare',
  params: z.strictObject({ vmId: id, token: id, diskId }),
};

/** How far the merge is. `token` is that of the replica's run, null when none is under way. */
export const resyncProgressMessage = message('resync.progress', z.strictObject({ vmId: id, waitMs: z.int().min(0).max(30_000) }),
  z.strictObject({
    token: id.nullable(), phase: z.enum(['comparing', 'merging']).nullable(), mergedBytes: position, totalBytes: position,
    baselineId: id.nullable(), failure: z.string().max(2000).nullable(),
  }));

/** Drops the diff disks; refused once the merge is on record. */
export const resyncCancelMessage = message('resync.cancel', z.strictObject({ vmId: id, token: id }), nothing);

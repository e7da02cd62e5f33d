/** What two hosts say to each other about who runs the VM. Order and field tables: docs/protocol/direction.md. */
import { z } from 'zod';
import { DISKS_PER_VM_MAX } from '../model/limits.ts';
import { relationshipSettingsSchema } from '../model/settings.ts';
import type { PeerMessage } from '../peer/message.ts';

const id = z.string().regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, 'a UUID');
const position = z.int().min(0);
const diskId = z.string().regex(/^[a-z0-9-]{1,40}$/);
const nothing = z.strictObject({});

/** Regions of all disks that one answer may name; 16 bytes each. More of them are joined first. */
export const SUSPECT_RANGES_MAX = 500_000;

const message = <P, R>(name: string, params: z.ZodType<P>, result: z.ZodType<R>, replyBytesMax = 0): PeerMessage<P, R> =>
  ({ name, params, result, payloadBytesMax: 0, replyBytesMax });

/** Replica → primary that has prepared: may I take over? The yes is on record there before it is said. */
export const handOverMessage = message('direction.hand-over', z.strictObject({ vmId: id }), z.strictObject({ token: id, epoch: position }));

/** Primary → replica: the preparation is void. Refused when the replica has taken over. */
export const takeBackMessage = message('direction.take-back', z.strictObject({ vmId: id, token: id }), nothing);

/** Replica → primary, before an unplanned failover: refused while a guest runs there; else guests are kept out from now on. */
export const takeOverMessage = message('direction.take-over', z.strictObject({ vmId: id }), nothing);

/** Replica → primary: something has changed here, ask again soon. */
export const lookMessage = message('direction.look', z.strictObject({ vmId: id }), nothing);

/**
 * Replica that has failed over → old primary: stop, and say how your disks differ from `epoch` of `baselineId`. The payload of the
 * answer holds the ranges that may differ, disk after disk in the order of `disks`: offset and length, 64 bits little-endian each.
 */
export const yieldMessage = message('direction.yield',
  z.strictObject({
    vmId: id, generation: position, baselineId: id, epoch: position, failedOverAt: position,
    /** The user has chosen: what was written on the old primary after the failover may go. */
    discard: z.boolean(),
  }),
  z.strictObject({
    /** Nothing was written since it handed over; the epoch that it ended with. Null: it was not prepared. */
    preparedEpoch: position.nullable(),
    /** The newest epoch of its own. */
    epoch: position,
    /** False: nobody knows what differs. */
    mapKnown: z.boolean(),
    disks: z.array(z.strictObject({ diskId, ranges: position })).max(DISKS_PER_VM_MAX),
    settings: relationshipSettingsSchema,
  }),
  SUSPECT_RANGES_MAX * 16);

/** New primary → old primary: you are the replica now. `equal` in the answer: its disks are what they were at `epoch`. */
export const turnMessage = message('direction.turn',
  z.strictObject({ vmId: id, generation: position, baselineId: id, epoch: position }),
  z.strictObject({ equal: z.boolean() }));

/** What is on record as required after another loss: the repair never gets smaller than the first loss asks for. Pure. */
import type { RequiredResync } from '../model/records.ts';
import { mayOverwriteNewer, type TriggerNumber } from '../model/resync-trigger.ts';

export interface Loss {
  trigger: TriggerNumber;
  reason: string;
  mapKnows?: true;
  mayBeOlder?: true;
}

/**
 * A change map explains triggers 2, 3 and 4 only, and a loss that says so. Whatever was lost before and no map has seen is still to be repaired: a log
 * limit or a crash in the middle of that repair must neither shrink it to the map's regions nor let it start by itself (R21).
 */
export function requiredAfter(before: RequiredResync | null, loss: Loss, mapTrusted: boolean, now: number): RequiredResync {
  const grave = loss.mapKnows === true ? 0 : gravity(loss);
  if (before !== null && before.mapKnows !== true && gravity(before) > grave) {
    return { ...before, rung: 'full-compare', startAt: null, held: false };
  }
  const byMap = grave === 0 && mapTrusted;
  // After a change of direction the map knows of both sides, and the start was asked for: a crash in between alters neither.
  const startAt = byMap && before?.mapKnows === true ? before.startAt : null;
  const { trigger, reason, mapKnows, mayBeOlder } = loss;
  return { trigger, reason, ...(mapKnows === true && { mapKnows }), ...(mayBeOlder === true && { mayBeOlder }),
    rung: byMap ? 'suspect-regions' : 'full-compare', since: now, startAt };
}

function gravity(loss: Pick<Loss, 'trigger' | 'mayBeOlder'>): number {
  const { trigger } = loss;
  if (mayOverwriteNewer(loss)) return 2;
  return trigger === 2 || trigger === 3 || trigger === 4 ? 0 : 1;
}

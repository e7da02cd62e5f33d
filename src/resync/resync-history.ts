/** Past resynchronizations of a VM, put together from its events. Pure. */
import { ACTIVITY_EVENTS, STATE_EVENTS } from '../model/events.ts';
import { BLOCK_BYTES } from '../model/limits.ts';
import type { EventRecord } from '../model/records.ts';
import type { Rung } from '../model/resync-trigger.ts';

export interface PastResync {
  startedAt: number;
  endedAt: number | null;
  rung: Rung | null;
  reason: string;
  sentBytes: number | null;
  result: 'finished' | 'cancelled' | 'failed' | 'running' | 'superseded';
}

/** Newest first. `superseded`: another one began before this one had ended, as after a loss of its logs. */
export function resyncHistory(events: readonly Pick<EventRecord, 'time' | 'id' | 'data'>[]): PastResync[] {
  const past: PastResync[] = [];
  const end = (endedAt: number, result: PastResync['result']) => {
    const last = past.at(-1);
    if (last?.result === 'running') Object.assign(last, { endedAt, result });
  };
  for (const { time, id, data } of events) {
    switch (id) {
      case STATE_EVENTS.resyncStarted.id:
        end(time, 'superseded');
        past.push({ startedAt: time, endedAt: null, rung: (data.rung as Rung | undefined) ?? null, reason: String(data.reason ?? ''),
          sentBytes: null, result: 'running' });
        break;
      case ACTIVITY_EVENTS.compareFinished.id: {
        const last = past.at(-1);
        const disks = (data.disks ?? []) as { blocksSent: number }[];
        if (last?.result === 'running') last.sentBytes = disks.reduce((sum, { blocksSent }) => sum + blocksSent * BLOCK_BYTES, 0);
        break;
      }
      case STATE_EVENTS.resyncFinished.id:
        end(time, 'finished');
        break;
      case STATE_EVENTS.resyncCancelled.id:
      case STATE_EVENTS.failoverStarted.id:
      case STATE_EVENTS.peerFailedOver.id:
      case STATE_EVENTS.removed.id:
        end(time, 'cancelled');
        break;
      // Lost on its way: its own logs outgrew the limit, say. The next one begins anew.
      case STATE_EVENTS.resyncRequired.id:
      case STATE_EVENTS.resyncFailed.id:
        end(time, 'failed');
        break;
    }
  }
  return past.reverse();
}

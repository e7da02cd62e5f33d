/** Statistics of the monitoring interval: begin a new one, or save everything as CSV. */
import { useId } from 'react';
import { call } from '../data/call.ts';
import { bytes, duration, when } from '../data/format.ts';
import { healthRows, toCsv } from '../data/health-rows.ts';
import type { End } from '../data/live.ts';
import { useSession } from '../data/session.ts';
import { useAction } from '../data/use-action.ts';
import { Refused } from './refused.tsx';

export function Interval({ end }: { end: End }) {
  const { of } = end;
  const { statistics } = end.health;
  const id = useId();
  const { session } = useSession();
  const action = useAction();
  const due = statistics.successfulReplications + statistics.missedReplications;
  const save = () => {
    const url = URL.createObjectURL(new Blob([toCsv(healthRows(end))], { type: 'text/csv' }));
    Object.assign(document.createElement('a'), { href: url, download: `${of.name} ${of.extended === true ? 'extended ' : ''}replication health.csv` }).click();
    URL.revokeObjectURL(url);
  };
  return (
    <section className="card" aria-labelledby={id}>
      <h2 id={id}>Monitoring interval</h2>
      <dl className="facts">
        <dt>From time</dt>
        <dd>{when(statistics.monitoringStartTime)}</dd>
        <dt>To time</dt>
        <dd>{when(statistics.monitoringEndTime)}</dd>
        <dt>Average size</dt>
        <dd>{bytes(statistics.averageReplicationBytes)}</dd>
        <dt>Maximum size</dt>
        <dd>{bytes(statistics.maximumReplicationBytes)}</dd>
        <dt>Average latency</dt>
        <dd>{duration(statistics.averageLatencySeconds)}</dd>
        <dt>Maximum latency</dt>
        <dd>{duration(statistics.maximumLatencySeconds)}</dd>
        <dt>Errors encountered</dt>
        <dd>{statistics.replicationErrors}</dd>
        <dt>Successful replication cycles</dt>
        <dd>
          {statistics.successfulReplications} out of {due}
          {due === 0 ? '' : ` (${Math.floor((statistics.successfulReplications / due) * 100)} %)`}
        </dd>
        <dt>Sent over the network</dt>
        <dd>{bytes(statistics.sentBytes)}</dd>
        <dt>Resynchronized</dt>
        <dd>{bytes(statistics.resynchronizedBytes)}</dd>
      </dl>
      <p className="actions">
        {session.role === 'reader' ? null : (
          <button type="button" disabled={action.running} onClick={() => void action.run(() => call('reset-statistics', of))}>
            Reset statistics
          </button>
        )}
        <button type="button" onClick={save}>
          Save as CSV
        </button>
      </p>
      <Refused refusal={action.refusal} />
    </section>
  );
}

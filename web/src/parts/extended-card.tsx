/** The extended replica that this host feeds: how it does, its last cycle, its resynchronization, its recovery points, and what may be done. */
import type { ResyncStatus } from '../../../src/server/api/contract.ts';
import { bytes, count, duration, frequency, localTimes, when } from '../data/format.ts';
import type { End } from '../data/live.ts';
import { hrefOf } from '../data/route.ts';
import { CycleCharts, OUTCOME_WORDS } from './cycle-charts.tsx';
import { Lag } from './gauges.tsx';
import { HealthMark } from './health.tsx';
import { Interval } from './interval.tsx';
import { Operations } from './operations.tsx';
import { RUNG_WORDS } from './resume-dialog.tsx';

function resyncWords({ phase, percent, rung, reason }: ResyncStatus): string {
  const far = percent === null ? '' : `, ${Math.floor(percent)} %`;
  return `${phase}${far} – ${RUNG_WORDS[rung ?? ''] ?? 'not decided yet'}: ${localTimes(reason ?? '')}`;
}

export function ExtendedCard({ end }: { end: End }) {
  const { of, status, health } = end;
  return (
    <section className="card spaced" aria-labelledby="extended">
      <div className="head">
        <h2 id="extended">Extended replica on {status.replicaServer}</h2>
        <div className="head-end">
          <Operations end={end} />
        </div>
      </div>
      {health.healthDetails.map((text) => (
        <p key={text} className={`note ${health.health === 'Critical' ? 'bad' : ''}`}>
          {localTimes(text)}
        </p>
      ))}
      <div className="columns">
        <Facts end={end} />
        <Interval end={end} />
      </div>
      <CycleCharts cycles={end.cycles} />
      <p className="hint">
        Its settings are on the page <a href={hrefOf({ page: 'vm', vm: of.name, tab: 'settings' })}>Settings</a>. Its recovery points and a failover
        to it are on the console of {status.replicaServer}.
      </p>
    </section>
  );
}

function Facts({ end: { of, status, health, resync, cycles } }: { end: End }) {
  const last = cycles.at(-1);
  const history = status.recoveryHistory ?? 0;
  return (
    <dl className="facts">
      <dt>State of the extended replica</dt>
      <dd>{String(status.stateText)}</dd>
      <dt>Health of the extended replica</dt>
      <dd>
        <HealthMark health={health.health} />
      </dd>
      <dt>It is fed every</dt>
      <dd>{frequency(status.frequencySec)}</dd>
      <dt>Its last cycle</dt>
      <dd>
        {last === undefined
          ? 'None yet'
          : `${when(last.time)}: ${OUTCOME_WORDS[last.outcome]}, ${bytes(last.bytes)} in ${duration(last.latencySeconds)}`}
      </dd>
      <dt>It shows</dt>
      <dd>{when(status.lastAppliedLogTime)}</dd>
      <dt>Its lag</dt>
      <dd>
        <Lag since={status.lastAppliedLogTime ?? status.lastReplicationTime} frequencySec={status.frequencySec} />
      </dd>
      <dt>Data yet to be sent to it</dt>
      <dd>{bytes(status.pendingBytes)}</dd>
      <dt>Its resynchronization</dt>
      <dd>
        {resync === null ? 'None is required' : resyncWords(resync)}
        {' · '}
        <a href={hrefOf({ page: 'vm', vm: of.name, tab: 'resync' })}>more</a>
      </dd>
      <dt>Its recovery points</dt>
      <dd>{history === 0 ? 'Only the latest' : `The latest and ${count(history, 'older one')}, an hour apart`}</dd>
    </dl>
  );
}

/** The extended replica that this host feeds: how it does, its last cycle, its resynchronization, its recovery points. */
import type { ResyncStatus } from '../../../src/server/api/contract.ts';
import { bytes, count, duration, frequency, localTimes, when } from '../data/format.ts';
import type { ExtendedDetail } from '../data/live.ts';
import { CycleCharts, OUTCOME_WORDS } from './cycle-charts.tsx';
import { DiskMap, DiskMapLegend } from './disk-map.tsx';
import { Lag } from './gauges.tsx';
import { HealthMark } from './health.tsx';
import { RUNG_WORDS } from './resume-dialog.tsx';

function resyncWords({ phase, percent, rung, reason }: ResyncStatus): string {
  const far = percent === null ? '' : `, ${Math.floor(percent)} %`;
  return `${phase}${far} – ${RUNG_WORDS[rung ?? ''] ?? 'not decided yet'}: ${localTimes(reason ?? '')}`;
}

export function ExtendedCard({ name, extended }: { name: string; extended: ExtendedDetail }) {
  const { status, health, resync, cycles } = extended;
  const last = cycles.at(-1);
  const history = status.recoveryHistory ?? 0;
  return (
    <section className="card" aria-labelledby="extended">
      <h2 id="extended">Extended replica on {status.replicaServer}</h2>
      {health.healthDetails.map((text) => (
        <p key={text} className={`note ${health.health === 'Critical' ? 'bad' : ''}`}>
          {localTimes(text)}
        </p>
      ))}
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
        <dd>
          {when(status.lastAppliedLogTime)}, <Lag since={status.lastAppliedLogTime ?? status.lastReplicationTime} frequencySec={status.frequencySec} />
        </dd>
        <dt>Data yet to be sent to it</dt>
        <dd>{bytes(status.pendingBytes)}</dd>
        <dt>Its resynchronization</dt>
        <dd>
          {resync === null ? 'None is required' : resyncWords(resync)}
        </dd>
        <dt>Its recovery points</dt>
        <dd>{history === 0 ? 'Only the latest' : `The latest and ${count(history, 'older one')}, an hour apart`}</dd>
      </dl>
      {resync === null || resync.disks.every(({ map }) => map === undefined) ? null : (
        <>
          <DiskMapLegend />
          {resync.disks.map((disk) => (
            <DiskMap key={disk.path} disk={disk} />
          ))}
        </>
      )}
      <CycleCharts cycles={cycles} />
      <p className="hint">
        It is steered on this host’s command line: <code>understudy status &apos;{name}&apos; --extended</code>, and <code>--extended</code> with the
        other commands. Its points are listed on {status.replicaServer}.
      </p>
    </section>
  );
}

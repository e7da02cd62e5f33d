/** Replication Health: every field of Hyper-V's window, with charts of the last cycles. */
import { bytes, count, frequency, localTimes, when } from '../data/format.ts';
import { serverNow, type VmDetail } from '../data/live.ts';
import { ExtendedCard } from '../parts/extended-card.tsx';
import { CycleCharts } from '../parts/cycle-charts.tsx';
import { Lag, LogGauge } from '../parts/gauges.tsx';
import { HealthMark } from '../parts/health.tsx';
import { Interval } from '../parts/interval.tsx';

export function HealthTab({ detail }: { detail: VmDetail }) {
  const { health, status } = detail;
  if (status.mode === 'None') return <Unprotected detail={detail} />;
  return (
    <>
      <div className="columns">
        <section className="card" aria-labelledby="now">
          <h2 id="now">Now</h2>
          <Details health={health} />
          <dl className="facts">
            <dt>Replication state</dt>
            <dd>{String(status.stateText)}</dd>
            <dt>Replication mode</dt>
            <dd>{status.mode}</dd>
            <dt>Current primary server</dt>
            <dd>{status.primaryServer ?? '–'}</dd>
            <dt>Current replica server</dt>
            <dd>{status.replicaServer ?? '–'}</dd>
            <dt>Replication health</dt>
            <dd>
              <HealthMark health={health.health} />
            </dd>
            <dt>Frequency</dt>
            <dd>{frequency(status.frequencySec)}</dd>
            <dt>Last synchronized at</dt>
            <dd>{when(status.lastReplicationTime)}</dd>
            <dt>The replica shows</dt>
            <dd>{when(status.lastAppliedLogTime)}</dd>
            <dt>Lag</dt>
            <dd>
              <Lag since={status.lastAppliedLogTime ?? status.lastReplicationTime} frequencySec={status.frequencySec} />
            </dd>
            <dt>Data yet to be {status.mode === 'Replica' ? 'applied' : 'replicated'}</dt>
            <dd>{bytes(status.pendingBytes)}</dd>
            {status.mode === 'Primary' ? (
              <>
                <dt>Tracking logs</dt>
                <dd>
                  <LogGauge
                    logBytes={status.logBytes ?? null}
                    logLimitBytes={status.logLimitBytes ?? null}
                    logLimitTime={limitTime(status.secondsToLogLimit)}
                  />
                </dd>
              </>
            ) : (
              <TestFailoverFacts detail={detail} />
            )}
          </dl>
        </section>
        <Interval end={detail} />
      </div>
      <section className="card" aria-labelledby="cycles">
        <h2 id="cycles">Last cycles</h2>
        <CycleCharts cycles={detail.cycles} />
      </section>
      {detail.extended === null ? null : <ExtendedCard end={detail.extended} />}
      <Disks detail={detail} />
    </>
  );
}

function Details({ health: { health, healthDetails } }: { health: VmDetail['health'] }) {
  if (healthDetails.length === 0) return <p className="note good">Replication does well.</p>;
  return (
    <ul className="details">
      {healthDetails.map((text) => (
        <li key={text} className={`note ${health === 'Critical' ? 'bad' : ''}`}>
          {localTimes(text)}
        </li>
      ))}
    </ul>
  );
}

const limitTime = (seconds: number | null | undefined): string | null =>
  seconds === null || seconds === undefined ? null : new Date(serverNow() + seconds * 1000).toISOString();

/** Fields of the replica's side. */
function TestFailoverFacts({ detail }: { detail: VmDetail }) {
  const test = detail.status.testFailover as { startTime: string; point: string } | null | undefined;
  return (
    <>
      <dt>Test failover status</dt>
      <dd>{test ? `Running, on ${test.point === 'latest' ? 'the latest point' : localTimes(test.point)}` : 'Not running'}</dd>
      <dt>Last test failover initiated at</dt>
      <dd>{when(test?.startTime ?? (detail.health.statistics.lastTestFailoverTime as string | null | undefined))}</dd>
    </>
  );
}

function Disks({ detail }: { detail: VmDetail }) {
  const excluded = new Set(detail.status.excludedDisks ?? []);
  return (
    <section aria-labelledby="disks">
      <h2 id="disks">Disks</h2>
      <div className="table-frame" tabIndex={0} role="region" aria-label="Disks">
        <table className="stack">
          <thead>
            <tr>
              <th>Disk</th>
              <th>Format</th>
              <th className="number">Size</th>
              <th>Served at</th>
            </tr>
          </thead>
          <tbody>
            {detail.vm.disks.map((disk) => (
              <tr key={disk.path}>
                <th scope="row">
                  {disk.path}
                  {excluded.has(disk.path) ? <small>not replicated</small> : null}
                </th>
                <td data-label="Format">{disk.format}</td>
                <td data-label="Size" className="number">
                  {bytes(disk.virtualSize)}
                </td>
                <td data-label="Served at">{disk.uri === null ? '–' : <code>{disk.uri}</code>}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function Unprotected({ detail }: { detail: VmDetail }) {
  return (
    <>
      <div className="card empty">
        <h2>Not replicated</h2>
        <p>Nothing of this VM is on another host. {count(detail.vm.disks.length, 'disk')} can be protected.</p>
        <p className="actions">
          <a className="button primary" href="#/enable">
            Enable replication…
          </a>
        </p>
      </div>
      <Disks detail={detail} />
    </>
  );
}

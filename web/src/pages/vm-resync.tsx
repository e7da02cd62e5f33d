/** Resynchronization of one VM: why, how, how far; the map of its disks; what was done before. */
import { useEffect, useState } from 'react';
import type { PastResync, ResyncStatus } from '../../../src/server/api/contract.ts';
import { call } from '../data/call.ts';
import { bytes, count, duration, localTimes, when } from '../data/format.ts';
import type { Action, End, Status, VmDetail } from '../data/live.ts';
import { useSession } from '../data/session.ts';
import { useAction } from '../data/use-action.ts';
import { ConfirmDialog } from '../parts/confirm-dialog.tsx';
import { DiskMap, DiskMapLegend } from '../parts/disk-map.tsx';
import { Refused } from '../parts/refused.tsx';
import { ResumeDialog, RUNG_WORDS } from '../parts/resume-dialog.tsx';

/** The steps of a run, in order, with what each does. */
const PHASES = [
  ['characteristics', 'Checking', 'sizes and formats of the disks'],
  ['tracking', 'Tracking', 'guest writes go to a fresh log'],
  ['comparing', 'Comparing', 'both sides read; what differs is sent'],
  ['completing', 'Completing', 'the log since the start is applied'],
  ['merging', 'Merging', 'the result becomes the replica; no way back'],
] as const;

export function ResyncTab({ detail }: { detail: VmDetail }) {
  const { status, extended } = detail;
  if (status.mode === 'None') return <p className="card">This VM is not replicated.</p>;
  if (status.mode === 'Primary') return <OfEnd end={detail} />;
  return (
    <>
      <p className="card">
        A resynchronization is steered on {status.mode === 'Replica' ? 'the primary' : 'the host that feeds this replica'}, host{' '}
        <strong>{status.primaryServer ?? 'unknown'}</strong>. The replica stays usable all the while.
      </p>
      {extended === null ? null : (
        <section aria-labelledby="of-extended">
          <h2 id="of-extended">Extended replica on {extended.status.replicaServer}</h2>
          <OfEnd end={extended} />
        </section>
      )}
    </>
  );
}

function OfEnd({ end }: { end: End }) {
  return (
    <>
      {end.resync === null ? <Idle end={end} /> : <Running end={end} resync={end.resync} />}
      <Past name={end.of.name} state={end.status.state} />
    </>
  );
}

function Idle({ end }: { end: End }) {
  const { status, actions } = end;
  const { session } = useSession();
  const [asking, setAsking] = useState(false);
  const possible = session.role !== 'reader' && (actions.includes('resynchronize') || actions.includes('suspend'));
  return (
    <section className="card">
      <h2>None is required</h2>
      <p>Primary and replica are known to be equal, but for what is under way.</p>
      <dl className="facts">
        <dt>If one becomes required</dt>
        <dd>{startWords(status)}</dd>
      </dl>
      {possible && status.state !== 'WaitingForStartResynchronize' ? (
        <p className="actions">
          <button type="button" onClick={() => setAsking(true)}>
            Resynchronize…
          </button>
        </p>
      ) : null}
      {asking ? <Resynchronize end={end} onClose={() => setAsking(false)} /> : null}
    </section>
  );
}

/** Of a healthy VM: suspend first, then the usual question. */
function Resynchronize({ end, onClose }: { end: End; onClose: () => void }) {
  const { of } = end;
  const { state } = end.status;
  if (state !== 'Replicating') return <ResumeDialog of={of} state={state} onClose={onClose} />;
  return (
    <ConfirmDialog
      title={`Pause replication of ${of.name} first?`}
      confirm="Pause replication"
      onClose={onClose}
      onConfirm={() => call('suspend', of)}
    >
      <p>
        This VM replicates. A resynchronization of a healthy VM begins with a pause; then <em>Resynchronize…</em> is offered here again.
      </p>
    </ConfirmDialog>
  );
}

function startWords({
  autoResynchronizeEnabled: on,
  autoResynchronizeIntervalStart: from,
  autoResynchronizeIntervalEnd: to,
}: Status): string {
  if (!on) return 'Somebody starts it (manually)';
  return from === '00:00:00' && to === '23:59:59'
    ? 'It starts at once'
    : `It starts by itself between ${from.slice(0, 5)} and ${to.slice(0, 5)}`;
}

function Running({ end, resync }: { end: End; resync: ResyncStatus }) {
  const phase = PHASES.findIndex(([name]) => name === resync.phase);
  return (
    <section className="card resync" aria-labelledby="run">
      <div className="head">
        <h2 id="run">{headline(resync)}</h2>
        <Steering end={end} resync={resync} />
      </div>
      <p>
        {RUNG_WORDS[resync.rung ?? ''] ?? 'How much has to be repaired is decided when it starts'}{' '}
        <span className="hint">– {localTimes(resync.reason ?? '')}</span>
      </p>
      {resync.phase === 'required' ? (
        <p className="note bad">
          {resync.startTime ? `It starts by itself ${when(resync.startTime)}.` : 'It waits until somebody resumes replication.'}
        </p>
      ) : null}
      {phase < 0 ? null : (
        <ol className="phases">
          {PHASES.map(([name, label, what], at) => (
            <li key={name} className={at < phase ? 'done' : at === phase ? 'current' : ''} aria-current={at === phase ? 'step' : undefined}>
              <strong>{label}</strong>
              <small>{what}</small>
            </li>
          ))}
        </ol>
      )}
      {resync.percent === null ? null : (
        <div
          className="progress"
          role="progressbar"
          aria-label="Compared"
          aria-valuemin={0}
          aria-valuemax={100}
          aria-valuenow={Math.floor(resync.percent)}
        >
          <i style={{ width: `${resync.percent}%` }} />
        </div>
      )}
      <Numbers resync={resync} />
      <DiskMapLegend />
      {resync.disks.map((disk) => (
        <DiskMap key={disk.path} disk={disk} />
      ))}
    </section>
  );
}

function Numbers({ resync }: { resync: ResyncStatus }) {
  const total = (key: 'totalBytes' | 'comparedBytes' | 'differingBytes' | 'sentBytes') =>
    resync.disks.reduce((sum, disk) => sum + disk[key], 0);
  return (
    <dl className="numbers">
      <div>
        <dt>Compared</dt>
        <dd>
          {bytes(total('comparedBytes'))} <small>of {bytes(total('totalBytes'))}</small>
        </dd>
      </div>
      <div>
        <dt>Differing</dt>
        <dd>{bytes(total('differingBytes'))}</dd>
      </div>
      <div>
        <dt>Sent</dt>
        <dd>{bytes(total('sentBytes'))}</dd>
      </div>
      <div>
        <dt>Rate</dt>
        <dd>{resync.bytesPerSecond ? `${bytes(resync.bytesPerSecond)}/s` : '–'}</dd>
      </div>
      <div>
        <dt>Time left</dt>
        <dd>{duration(resync.etaSeconds)}</dd>
      </div>
    </dl>
  );
}

function headline({ phase, percent }: ResyncStatus): string {
  if (phase === 'required') return 'Resynchronization required';
  if (phase === 'paused') return `Paused at ${Math.floor(percent ?? 0)} %`;
  return phase === 'comparing' ? `Resynchronizing – ${Math.floor(percent ?? 0)} %` : 'Resynchronizing';
}

function Steering({ end, resync }: { end: End; resync: ResyncStatus }) {
  const { session } = useSession();
  const action = useAction();
  const [asking, setAsking] = useState<'resume' | 'cancel' | null>(null);
  const { of } = end;
  const { state } = end.status;
  const may = (operation: Action) => session.role !== 'reader' && end.actions.includes(operation);
  const run = (work: () => Promise<unknown>) => void action.run(work);
  return (
    <span className="head-end">
      {state === 'Resynchronizing' && may('suspend') ? (
        <button type="button" disabled={action.running} onClick={() => run(() => call('suspend', of))}>
          Pause
        </button>
      ) : null}
      {state === 'ResynchronizeSuspended' && may('resume') ? (
        <button
          type="button"
          className="primary"
          disabled={action.running}
          onClick={() => run(() => call('resume', { ...of, continue: true }))}
        >
          Continue
        </button>
      ) : null}
      {state === 'WaitingForStartResynchronize' && may('resume') ? (
        <button type="button" className="primary" onClick={() => setAsking('resume')}>
          Resume replication…
        </button>
      ) : null}
      {may('cancel-resync') && (resync.phase !== 'required' || resync.startTime) ? (
        <button type="button" onClick={() => setAsking('cancel')}>
          Cancel…
        </button>
      ) : null}
      <Refused refusal={action.refusal} />
      {asking === 'resume' ? <ResumeDialog of={of} state={state} onClose={() => setAsking(null)} /> : null}
      {asking === 'cancel' ? (
        <ConfirmDialog
          title="Cancel the resynchronization?"
          confirm={resync.phase === 'required' ? 'Drop the start' : 'Cancel it'}
          danger
          onClose={() => setAsking(null)}
          onConfirm={() => call('cancel-resync', of)}
        >
          <p>
            {resync.phase === 'required'
              ? 'It stays required, and begins only when somebody resumes replication.'
              : 'The replica stays as it was before. A resynchronization is still required, and will start from zero. To go on later from here, pause it instead.'}
          </p>
        </ConfirmDialog>
      ) : null}
    </span>
  );
}

const RESULTS = { finished: 'Finished', cancelled: 'Cancelled', failed: 'Failed', running: 'Under way', superseded: 'Began anew' } as const;

function Past({ name, state }: { name: string; state: string }) {
  const [rows, setRows] = useState<PastResync[] | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    call('resync.history', { name }, stop.signal).then(setRows, () => undefined);
    return () => stop.abort();
  }, [name, state]);
  if (rows === null || rows.length === 0)
    return (
      <section>
        <h2>Past resynchronizations</h2>
        <p className="hint">{rows === null ? 'Loading…' : 'There was none.'}</p>
      </section>
    );
  return (
    <section aria-labelledby="past">
      <h2 id="past">
        Past resynchronizations <span className="hint">{count(rows.length, 'run')}</span>
      </h2>
      <div className="table-frame" tabIndex={0} role="region" aria-label="Past resynchronizations">
        <table className="stack">
          <thead>
            <tr>
              <th>Started</th>
              <th>Result</th>
              <th>Rung</th>
              <th className="number">Sent</th>
              <th className="number">Time</th>
              <th>Reason</th>
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={row.startTime}>
                <th scope="row">{when(row.startTime)}</th>
                <td data-label="Result">{RESULTS[row.result]}</td>
                <td data-label="Rung">{row.rung ?? '–'}</td>
                <td data-label="Sent" className="number">
                  {bytes(row.sentBytes)}
                </td>
                <td data-label="Time" className="number">
                  {duration(row.seconds)}
                </td>
                <td data-label="Reason">{localTimes(row.reason)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

/** Recovery points as a time line, and what can be begun from them: test, planned and unplanned failover, and the way back. */
import { useEffect, useState } from 'react';
import type { RecoveryPoint } from '../../../src/server/api/contract.ts';
import { call } from '../data/call.ts';
import { bytes, count, duration, when } from '../data/format.ts';
import { useLive, type VmDetail } from '../data/live.ts';
import { useNow } from '../data/use-now.ts';
import { useSession } from '../data/session.ts';
import { FailoverDialog, type FailoverKind } from '../parts/failover-dialog.tsx';

export function PointsTab({ detail }: { detail: VmDetail }) {
  const { status } = detail;
  if (status.mode === 'None') return <p className="card">This VM is not replicated.</p>;
  return (
    <>
      <Standing detail={detail} />
      <Actions detail={detail} />
      {status.mode === 'Replica' ? (
        <Points name={status.vmName} />
      ) : (
        <p className="card">
          Recovery points lie on the replica, host <strong>{status.replicaServer ?? 'unknown'}</strong>: its own console shows them.
        </p>
      )}
    </>
  );
}

/** What is going on, where it is not the usual. */
function Standing({ detail }: { detail: VmDetail }) {
  const { status, actions } = detail;
  if (status.state === 'FailedOverWaitingCompletion') {
    return (
      <p className="note">
        The VM is served from the replica here. Try it; then cancel, complete, or reverse. Until it is reversed, it is not protected.
      </p>
    );
  }
  if (status.state === 'FailedOver') return <p className="note">The failover is complete. Reverse replication to protect the VM again.</p>;
  if (status.state === 'PreparedForFailover') {
    return (
      <p className="note">
        A planned failover is prepared: everything has been sent, and the VM may not start here. Go on with it on the replica, host{' '}
        {status.replicaServer}.
      </p>
    );
  }
  if (status.mode === 'Replica' && actions.includes('cancel-failover'))
    return <p className="note">A test failover is running. Replication goes on; nothing of the test is kept.</p>;
  return null;
}

const WAYS: { kind: FailoverKind; label: string; what: string }[] = [
  { kind: 'test', label: 'Test failover…', what: 'Start a copy, to see that it works. Replication goes on; nothing is lost.' },
  { kind: 'prepare', label: 'Planned failover…', what: 'Move the VM to the replica. Nothing is lost; the VM must be off.' },
  { kind: 'planned', label: 'Planned failover…', what: 'Go on with what the primary has prepared. Nothing is lost.' },
  { kind: 'unplanned', label: 'Failover…', what: 'The primary is gone: serve the replica. What it has not received is lost.' },
  { kind: 'stop-test', label: 'Stop test failover', what: 'The test’s disks are deleted.' },
  { kind: 'cancel', label: 'Cancel failover…', what: 'Back to how it was. What was written since the failover is lost.' },
  { kind: 'complete', label: 'Complete failover…', what: 'Keep this state. Recovery points are deleted; there is no way back.' },
  { kind: 'reverse', label: 'Reverse replication…', what: 'From now on this host is the primary, and the other one gets the replica.' },
];

function Actions({ detail }: { detail: VmDetail }) {
  const { session } = useSession();
  const { host } = useLive();
  const [open, setOpen] = useState<FailoverKind | null>(null);
  if (session.role === 'reader') return null;
  const offered = WAYS.filter(({ kind }) => isOffered(kind, detail, host?.operations ?? []));
  if (offered.length === 0) return <p className="hint">In this state no failover can be begun here.</p>;
  return (
    <section aria-labelledby="ways">
      <h2 id="ways">Failover</h2>
      <ul className="cards ways">
        {offered.map(({ kind, label, what }) => (
          <li key={kind} className="card">
            <p>{what}</p>
            <p className="actions">
              <button type="button" onClick={() => setOpen(kind)}>
                {label}
              </button>
            </p>
          </li>
        ))}
      </ul>
      {open === null ? null : <FailoverDialog kind={open} detail={detail} onClose={() => setOpen(null)} />}
    </section>
  );
}

/** What the table of states allows, and this server knows. */
function isOffered(kind: FailoverKind, { actions, status }: VmDetail, operations: readonly string[]): boolean {
  const failedOver = status.state === 'FailedOverWaitingCompletion';
  switch (kind) {
    case 'test':
      return actions.includes('test-failover');
    case 'prepare':
      return actions.includes('prepare-failover');
    case 'planned':
      return actions.includes('planned-failover');
    case 'unplanned':
      return actions.includes('failover');
    case 'stop-test':
      return actions.includes('cancel-failover') && !failedOver && status.state !== 'PreparedForFailover';
    case 'cancel':
      return actions.includes('cancel-failover') && (failedOver || status.state === 'PreparedForFailover');
    case 'complete':
      return actions.includes('complete-failover') && operations.includes('failover.complete');
    case 'reverse':
      return actions.includes('reverse') && operations.includes('reverse');
    default:
      return kind satisfies never;
  }
}

const KINDS = { standard: 'Standard', 'application-consistent': 'Application-consistent', latest: 'Latest' } as const;

function Points({ name }: { name: string }) {
  const { vms } = useLive();
  const applied = [...vms.values()].find((vm) => vm.vmName === name)?.lastAppliedLogTime;
  const [points, setPoints] = useState<RecoveryPoint[] | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    call('points', { name }, stop.signal).then(setPoints, () => undefined);
    return () => stop.abort();
  }, [name, applied]);
  const now = useNow();
  if (points === null) return <p role="status">Loading…</p>;
  if (points.length === 0)
    return (
      <p className="card">
        There is no recovery point yet: the replica is not one instant of the VM before the first copy and its logs are together.
      </p>
    );
  const newest = points.toSorted((a, b) => b.time.localeCompare(a.time));
  return (
    <section aria-labelledby="points">
      <h2 id="points">
        Recovery points{' '}
        <span className="hint">
          {count(points.length, 'point')}, {bytes(points.reduce((sum, point) => sum + point.bytes, 0))}
        </span>
      </h2>
      <TimeLine points={newest} now={now} />
      <ol className="points">
        {newest.map((point) => (
          <li key={point.id} className={`card ${point.kind}`}>
            <strong>{when(point.time)}</strong>
            <span className="tag">{KINDS[point.kind]}</span>
            <small>
              {duration(Math.max(0, (now - Date.parse(point.time)) / 1000))} ago{point.bytes === 0 ? '' : `, takes ${bytes(point.bytes)}`}
            </small>
          </li>
        ))}
      </ol>
    </section>
  );
}

/** Where the points lie between the oldest and now. */
function TimeLine({ points, now }: { points: readonly RecoveryPoint[]; now: number }) {
  const oldest = Math.min(...points.map(({ time }) => Date.parse(time)));
  const span = Math.max(now - oldest, 60_000);
  const label = `${count(points.length, 'recovery point')} between ${when(new Date(oldest).toISOString())} and now`;
  return (
    <div className="time-line">
      <div className="line" role="img" aria-label={label}>
        {points.map((point) => (
          <i
            key={point.id}
            className={point.kind}
            title={`${KINDS[point.kind]}: ${when(point.time)}`}
            style={{ left: `${Math.min(100, Math.max(0, ((Date.parse(point.time) - oldest) / span) * 100))}%` }}
          />
        ))}
      </div>
      <p>
        <small>{when(new Date(oldest).toISOString())}</small>
        <small>now</small>
      </p>
    </div>
  );
}

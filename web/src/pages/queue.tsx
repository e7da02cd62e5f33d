/** Resynchronizations of this host in order. */
import { hrefOf } from '../data/route.ts';
import { useLive } from '../data/live.ts';
import { localTimes, when } from '../data/format.ts';

const STANDING = { running: 'Running', waiting: 'Waits for its turn', scheduled: 'Not begun', paused: 'Paused' } as const;

export function Queue() {
  const { queue, vms } = useLive();
  const percentOf = (name: string) => [...vms.values()].find((vm) => vm.vmName === name)?.percent ?? null;
  return (
    <>
      <h1>Queue</h1>
      <p className="hint intro">
        Resynchronizations run one after another, so that they do not slow the guests of this host. A smaller priority goes first; it is one
        of a VM’s settings.
      </p>
      {queue.length === 0 ? (
        <p className="card">No resynchronization runs, waits or is required.</p>
      ) : (
        <div className="table-frame" tabIndex={0} role="region" aria-label="Queue">
          <table className="stack">
            <thead>
              <tr>
                <th>VM</th>
                <th>Standing</th>
                <th>Starts</th>
                <th className="number">Priority</th>
                <th>Reason</th>
              </tr>
            </thead>
            <tbody>
              {queue.map((entry) => (
                <tr key={entry.vmName}>
                  <th scope="row">
                    <a href={hrefOf({ page: 'vm', vm: entry.vmName, tab: 'resync' })}>{entry.vmName}</a>
                  </th>
                  <td data-label="Standing">
                    {STANDING[entry.standing]}
                    {entry.standing === 'running' && percentOf(entry.vmName) !== null ? `, ${Math.floor(percentOf(entry.vmName)!)} %` : ''}
                    {entry.standing === 'waiting' ? ` (${entry.position})` : ''}
                  </td>
                  <td data-label="Starts">
                    {entry.standing === 'running' ? '–' : entry.startTime === null ? 'When somebody resumes it' : when(entry.startTime)}
                  </td>
                  <td data-label="Priority" className="number">
                    {entry.priority}
                  </td>
                  <td data-label="Reason">{localTimes(entry.reason ?? '–')}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </>
  );
}

/** A failover as guided steps: what it does, what is lost, what must be true before – and only then the button. */
import { useEffect, useState } from 'react';
import type { RecoveryPoint, Status } from '../../../src/server/api/contract.ts';
import { call } from '../data/call.ts';
import { bytes, duration, when } from '../data/format.ts';
import { serverNow, type VmDetail } from '../data/live.ts';
import { useAction } from '../data/use-action.ts';
import { Dialog } from './dialog.tsx';
import { Tick } from './fields.tsx';
import { Refused } from './refused.tsx';

export type FailoverKind = 'test' | 'prepare' | 'planned' | 'unplanned' | 'stop-test' | 'cancel' | 'complete' | 'reverse';

interface Guide {
  title: string;
  steps: string[];
  lost: (detail: VmDetail, point: RecoveryPoint | undefined) => string;
  /** Must be ticked: nobody but the person can know. */
  sure: string[];
  confirm: string;
  danger?: true;
  choosesPoint?: true;
  /** `divided`: the person has said that what the other side wrote goes. */
  run: (name: string, point: string | undefined, divided: boolean) => Promise<unknown>;
}

const failover = (kind: 'test' | 'prepare' | 'planned' | 'unplanned') => (name: string, point: string | undefined) =>
  call('failover', { name, kind, ...(point === undefined || point === 'latest' ? {} : { point }) });
const nothing = () => 'Nothing is lost.';

function lostBehind({ status }: VmDetail, point: RecoveryPoint | undefined): string {
  const time = point?.time ?? status.lastAppliedLogTime;
  if (time === null || time === undefined) return 'What the replica has not received is lost.';
  const age = Math.max(0, (serverNow() - Date.parse(time)) / 1000);
  return `Everything that the guest wrote after ${when(time)} is lost: the last ${duration(age)}.`;
}

const GUIDES: Record<FailoverKind, Guide> = {
  test: {
    title: 'Test failover',
    confirm: 'Start the test',
    choosesPoint: true,
    sure: [],
    lost: nothing,
    run: failover('test'),
    steps: [
      'A throw-away disk is laid over the chosen point and served.',
      'Start a test VM with the lines shown afterwards, without a network.',
      'Stop the test: its disk is deleted. Replication goes on all the while.',
    ],
  },
  prepare: {
    title: 'Planned failover: prepare the primary',
    confirm: 'Prepare',
    sure: ['The VM is shut down.'],
    lost: nothing,
    run: failover('prepare'),
    steps: [
      'The last changes are sent, and the VM is locked here.',
      'On the replica’s console: go on with the planned failover.',
      'There: reverse replication, and start the VM.',
    ],
  },
  planned: {
    title: 'Planned failover',
    confirm: 'Fail over',
    sure: [],
    lost: nothing,
    run: failover('planned'),
    steps: [
      'The replica is served here, with everything that was written.',
      'Start the VM with the lines shown afterwards.',
      'Reverse replication, so that it is protected again.',
    ],
  },
  unplanned: {
    title: 'Failover',
    confirm: 'Fail over',
    danger: true,
    choosesPoint: true,
    run: failover('unplanned'),
    lost: lostBehind,
    sure: ['The VM on the primary is off, and stays off. Two running copies would drift apart.'],
    steps: [
      'A running resynchronization is cancelled; the consistent disk under it is used.',
      'The chosen point is served. Start the VM and look.',
      'Cancel and try another point, or complete, or reverse.',
    ],
  },
  'stop-test': {
    title: 'Stop the test failover',
    confirm: 'Stop the test',
    sure: [],
    lost: () => 'What was written in the test is deleted. Nothing of the VM is lost.',
    steps: ['Shut the test VM down first.'],
    run: (name) => call('failover.cancel', { name }),
  },
  cancel: {
    title: 'Cancel the failover',
    confirm: 'Cancel the failover',
    danger: true,
    sure: [],
    run: (name) => call('failover.cancel', { name }),
    lost: ({ status }) =>
      status.mode === 'Primary' ? 'Nothing is lost: replication goes on as before.' : 'What was written since the failover is lost.',
    steps: ['The VM here must be shut down.', 'Replication goes on from the primary as before.'],
  },
  complete: {
    title: 'Complete the failover',
    confirm: 'Complete',
    danger: true,
    sure: [],
    lost: () => 'All recovery points of this VM are deleted. The failover cannot be cancelled any more.',
    steps: ['This state is kept for good.', 'Reverse replication afterwards, so that the VM is protected.'],
    run: (name) => call('failover.complete', { name }),
  },
  reverse: {
    title: 'Reverse replication',
    confirm: 'Reverse',
    sure: ['The old primary’s VM is off.'],
    run: (name, _point, divided) => call('reverse', { name, ...(divided ? { discardPrimary: true } : {}) }),
    lost: () => 'What only the old primary has, and the replica never received, is replaced there.',
    steps: [
      'This host becomes the primary.',
      'The old primary gets the replica: its disks are compared, and only what differs travels.',
      'The VM is protected again when that has finished.',
    ],
  },
};

export function FailoverDialog({ kind, detail, onClose }: { kind: FailoverKind; detail: VmDetail; onClose: () => void }) {
  const guide = GUIDES[kind];
  const { vmName } = detail.status;
  const points = usePoints(guide.choosesPoint === true ? vmName : null);
  const [chosen, setChosen] = useState('latest');
  const [sure, setSure] = useState<ReadonlySet<string>>(new Set());
  const [result, setResult] = useState<Status | null>(null);
  /** Null until the other host says that it was written too. */
  const [divided, setDivided] = useState<boolean | null>(null);
  const action = useAction();
  if (divided === null && action.refusal?.code === 'SPLIT_BRAIN') setDivided(false);
  const point = points.find(({ id }) => id === chosen) ?? points.find(({ kind: each }) => each === 'latest');
  const carryOut = async () => {
    let answer: unknown;
    if (!(await action.run(async () => (answer = await guide.run(vmName, point?.id, divided === true))))) return;
    const uris = ((answer as Status).disks ?? []).filter(({ uri }) => uri !== null);
    if (['test', 'planned', 'unplanned'].includes(kind) && uris.length > 0) setResult(answer as Status);
    else onClose();
  };
  if (result !== null) return <Served status={result} onClose={onClose} />;
  const ready = divided !== false && guide.sure.every((text) => sure.has(text));
  return (
    <Dialog
      title={`${guide.title}: ${vmName}`}
      onClose={onClose}
      footer={
        <>
          <button type="button" onClick={onClose}>
            Back
          </button>
          <button
            type="button"
            className={guide.danger === true || divided !== null ? 'danger' : 'primary'}
            disabled={!ready || action.running}
            onClick={() => void carryOut()}
          >
            {action.running ? 'Working…' : guide.confirm}
          </button>
        </>
      }
    >
      {guide.choosesPoint === true ? <PointChoice points={points} chosen={point?.id ?? 'latest'} onChoose={setChosen} /> : null}
      <ol className="guide">
        {guide.steps.map((step) => (
          <li key={step}>{step}</li>
        ))}
      </ol>
      <p className={`note ${guide.lost === nothing ? 'good' : 'bad'}`}>{guide.lost(detail, point)}</p>
      {guide.sure.map((text) => (
        <Tick key={text} checked={sure.has(text)} onChange={(on) => setSure(new Set(on ? [...sure, text] : [...sure].filter((each) => each !== text)))}>
          {text}
        </Tick>
      ))}
      <Refused refusal={action.refusal} />
      {divided === null ? null : (
        <Tick checked={divided} onChange={setDivided}>
          Keep what runs here, and drop what the old primary has written since it was replaced.
        </Tick>
      )}
    </Dialog>
  );
}

function usePoints(name: string | null): RecoveryPoint[] {
  const [points, setPoints] = useState<RecoveryPoint[]>([]);
  useEffect(() => {
    if (name === null) return undefined;
    const stop = new AbortController();
    call('points', { name }, stop.signal).then(setPoints, () => undefined);
    return () => stop.abort();
  }, [name]);
  return points.toSorted((a, b) => b.time.localeCompare(a.time));
}

function PointChoice({ points, chosen, onChoose }: { points: RecoveryPoint[]; chosen: string; onChoose: (id: string) => void }) {
  return (
    <label>
      Recovery point
      <select value={chosen} onChange={(event) => onChoose(event.target.value)}>
        {points.length === 0 ? <option value="latest">Latest</option> : null}
        {points.map(({ id, time, kind, bytes: size, damaged }) => (
          <option key={id} value={id} disabled={typeof damaged === 'string'}>
            {when(time)} – {kind}
            {typeof damaged === 'string' ? ', cannot be used' : size === 0 ? '' : `, ${bytes(size)}`}
          </option>
        ))}
      </select>
    </label>
  );
}

/** Where the hypervisor finds the disks now. */
function Served({ status, onClose }: { status: Status; onClose: () => void }) {
  const uris = (status.disks ?? []).flatMap(({ uri }) => (uri === null ? [] : [uri]));
  return (
    <Dialog
      title="The disks are served"
      onClose={onClose}
      footer={
        <button type="button" className="primary" onClick={onClose}>
          Close
        </button>
      }
    >
      <p>Give these to the hypervisor in the place of the VM’s disks:</p>
      <pre>
        <code>{uris.join('\n')}</code>
      </pre>
      <p className="hint">
        The command line prints them as lines for QEMU and libvirt: <code>understudy failover</code>.
      </p>
    </Dialog>
  );
}

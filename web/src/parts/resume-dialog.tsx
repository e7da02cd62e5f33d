/** Resume Replication, where a resynchronization is required: what it will do, why, what it costs – and when. */
import { useEffect, useState } from 'react';
import type { ResyncPlan } from '../../../src/server/api/contract.ts';
import { call, Refusal } from '../data/call.ts';
import { bytes, duration, inputTime, localTimes } from '../data/format.ts';
import { useAction } from '../data/use-action.ts';
import type { End, LiveVm } from '../data/live.ts';
import { Dialog } from './dialog.tsx';
import { Tick } from './fields.tsx';
import { Refused } from './refused.tsx';

export const RUNG_WORDS: Record<string, string> = {
  logs: 'Ship what is queued',
  'suspect-regions': 'Compare the suspect regions',
  'full-compare': 'Compare the whole disks',
  'full-copy': 'Copy the whole disks',
};

type Choice = 'now' | 'window' | 'at' | 'continue';

interface Props {
  of: End['of'];
  /** Of the VM: a paused run can go on where it stopped, a required one has its rung already. */
  state: LiveVm['state'];
  onClose: () => void;
}

export function ResumeDialog({ of, state, onClose }: Props) {
  const [choice, setChoice] = useState<Choice>(state === 'ResynchronizeSuspended' ? 'continue' : 'now');
  const [at, setAt] = useState(() => inputTime(new Date(Date.now() + 3_600_000)));
  const action = useAction();
  /** Whether something would be lost on the replica; a person has to say so, nothing else does. */
  const [overwrites, setOverwrites] = useState(false);
  const [accepted, setAccepted] = useState(false);
  const paused = state === 'ResynchronizeSuspended';
  const carryOut = async () => {
    const done = await action.run(async () => {
      if (choice === 'continue') await call('resume', { ...of, continue: true });
      else {
        await call('resume', {
          ...of,
          // Where one is required already, it is resumed at its own rung; else it is asked for.
          ...(state === 'WaitingForStartResynchronize' ? {} : { resynchronize: true }),
          ...(choice === 'at' ? { at: new Date(at).toISOString() } : {}),
          ...(choice === 'window' ? { offPeak: true } : {}),
          ...(overwrites && accepted ? { overwriteReplica: true } : {}),
        });
      }
    });
    if (done) onClose();
  };
  const choices = choicesOf(paused);
  const unsure = overwrites && choice !== 'continue';
  return (
    <Dialog
      title={`Resume replication of ${of.name}${of.extended === true ? ' to its extended replica' : ''}`}
      onClose={onClose}
      footer={
        <>
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button type="button" className="primary" disabled={action.running || (unsure && !accepted)} onClick={() => void carryOut()}>
            Resume
          </button>
        </>
      }
    >
      <Plan of={of} onOverwrites={setOverwrites} />
      {unsure ? <OverwriteTick checked={accepted} onChange={setAccepted} /> : null}
      <fieldset>
        <legend>When</legend>
        {choices.map(([value, label, hint]) => (
          <label key={value} className="choice">
            <input type="radio" name="when" checked={choice === value} onChange={() => setChoice(value)} />
            <span>
              {label}
              <small>{hint}</small>
            </span>
          </label>
        ))}
        {choice === 'at' ? (
          <label>
            Time
            <input type="datetime-local" value={at} onChange={(event) => setAt(event.target.value)} />
          </label>
        ) : null}
      </fieldset>
      <p className="hint">The replica stays usable all the while. It can be paused, and goes on where it stopped.</p>
      <Refused refusal={action.refusal} />
    </Dialog>
  );
}

function OverwriteTick({ checked, onChange }: { checked: boolean; onChange: (checked: boolean) => void }) {
  return (
    <Tick checked={checked} onChange={onChange} hint="What only the replica has is lost.">
      Overwrite the replica
    </Tick>
  );
}

function choicesOf(paused: boolean): [Choice, string, string][] {
  return [
    ...(paused
      ? [['continue', 'Continue where it stopped', 'Nothing that was compared is compared again.'] as [Choice, string, string]]
      : []),
    ['now', paused ? 'Start over now' : 'Now', paused ? 'Everything is compared anew.' : 'As soon as the queue of this host admits it.'],
    ['window', 'In the off-peak window', 'When the hours of this VM’s settings begin.'],
    ['at', 'At a time', 'Within the next 7 days.'],
  ];
}

/** What would be done now, before anybody decides. */
function Plan({ of, onOverwrites }: { of: End['of']; onOverwrites: (overwrites: boolean) => void }) {
  const [plan, setPlan] = useState<ResyncPlan | Refusal | null>(null);
  const { name, extended } = of;
  useEffect(() => {
    const stop = new AbortController();
    call('resync.plan', { name, ...(extended === true ? { extended } : {}) }, stop.signal).then((found) => {
      setPlan(found);
      onOverwrites(found.overwrites !== undefined);
    }, (error: unknown) => {
      if (error instanceof Refusal) setPlan(error);
    });
    return () => stop.abort();
  }, [name, extended, onOverwrites]);
  if (plan === null) return <p role="status">Asking what it would cost…</p>;
  if (plan instanceof Refusal) return <Refused refusal={plan} />;
  return (
    <dl className="facts">
      <dt>What</dt>
      <dd>
        {RUNG_WORDS[plan.rung] ?? plan.rung} <span className="tag">{plan.rung}</span>
      </dd>
      <dt>Why</dt>
      <dd>{localTimes(plan.reason)}</dd>
      <dt>To be read on each side</dt>
      <dd>{bytes(plan.readBytes)}</dd>
      <dt>Time, at least</dt>
      <dd>{duration(plan.estimatedSeconds)}</dd>
      <dt>Older recovery points</dt>
      <dd>{plan.olderPointsLost ? `At most ${plan.olderPointsLost} are deleted when it has finished` : 'None are lost'}</dd>
      {plan.overwrites === undefined ? null : (
        <>
          <dt>Overwritten</dt>
          <dd>{localTimes(plan.overwrites)}</dd>
        </>
      )}
      {(plan.refusals ?? []).map((refusal) => (
        <span key={refusal}>
          <dt>Refused now</dt>
          <dd>{refusal}</dd>
        </span>
      ))}
    </dl>
  );
}

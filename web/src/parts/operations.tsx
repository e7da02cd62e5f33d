/** What the table of states allows for a relationship now, as buttons; the server says which. */
import { useState } from 'react';
import { call } from '../data/call.ts';
import type { Action, End } from '../data/live.ts';
import { useSession } from '../data/session.ts';
import { useAction } from '../data/use-action.ts';
import { ConfirmDialog } from './confirm-dialog.tsx';
import { ImportDialog } from './import-dialog.tsx';
import { Refused } from './refused.tsx';
import { ResumeDialog } from './resume-dialog.tsx';

interface Offer {
  action: Action;
  label: string;
  /** Asked before; the title of the question and what it says. */
  question?: { title: string; text: string; danger?: true };
  run: (of: End['of']) => Promise<unknown>;
}

const OFFERS: Offer[] = [
  { action: 'start-initial', label: 'Start initial replication', run: (of) => call('start', of) },
  {
    action: 'stop-initial',
    label: 'Stop initial replication',
    run: (of) => call('stop-initial', of),
    question: { title: 'Stop the initial replication?', text: 'What has been copied so far is not used again.' },
  },
  { action: 'import', label: 'Import the first copy…', run: () => Promise.resolve() },
  { action: 'suspend', label: 'Pause', run: (of) => call('suspend', of) },
  { action: 'resume', label: 'Resume', run: (of) => call('resume', of) },
  { action: 'sync-now', label: 'Sync now', run: (of) => call('sync-now', of) },
  {
    action: 'verify',
    label: 'Verify',
    run: (of) => call('verify', of),
    question: {
      title: 'Verify the replica?',
      text: 'Both hosts read all of their disks, while the guest goes on. It proves that the replica equals a point of the primary; the result is among the events.',
    },
  },
  {
    action: 'remove',
    label: 'Remove replication…',
    run: (of) => call('remove', of),
    question: {
      title: 'Remove replication?',
      text: 'The VM is not protected any more. Disks stay on both hosts. Remove it on the other host too.',
      danger: true,
    },
  },
];

const REMOVE_LEG = {
  title: 'Remove the extended replica?',
  text: 'It is fed no more. Its disks stay on the third host; remove replication there too. The replica on this host is not touched.',
  danger: true,
} as const;

/** States in which to resume is to decide about a resynchronization. */
const RESYNC_STATES = ['WaitingForStartResynchronize', 'ResynchronizeSuspended'];

/** `steered`: what has buttons of its own beside. */
export function Operations({ end, steered = [] }: { end: End; steered?: readonly Action[] }) {
  const { session } = useSession();
  const action = useAction();
  const [asking, setAsking] = useState<Offer | 'resume' | 'import' | null>(null);
  const { of, actions } = end;
  const { state } = end.status;
  if (session.role === 'reader') return null;
  const asksWhen = RESYNC_STATES.includes(state);
  const choose = (offer: Offer) => {
    if (offer.action === 'import') setAsking('import');
    else if (offer.action === 'resume' && asksWhen) setAsking('resume');
    else if (offer.question !== undefined) setAsking(offer);
    else void action.run(() => offer.run(of));
  };
  return (
    <>
      <p className="actions">
        {OFFERS.filter((offer) => actions.includes(offer.action) && !steered.includes(offer.action)).map((offer) => (
          <button
            key={offer.action}
            type="button"
            disabled={action.running}
            className={offer.action === 'resume' ? 'primary' : undefined}
            onClick={() => choose(offer)}
          >
            {offer.label}
            {offer.action === 'resume' && asksWhen ? '…' : ''}
          </button>
        ))}
      </p>
      <Refused refusal={action.refusal} />
      {asking === 'resume' ? <ResumeDialog of={of} state={state} onClose={() => setAsking(null)} /> : null}
      {asking === 'import' ? <ImportDialog name={of.name} onClose={() => setAsking(null)} /> : null}
      {asking !== null && typeof asking === 'object' ? <Question offer={asking} of={of} onClose={() => setAsking(null)} /> : null}
    </>
  );
}

function Question({ offer, of, onClose }: { offer: Offer; of: End['of']; onClose: () => void }) {
  const question = offer.action === 'remove' && of.extended === true ? REMOVE_LEG : offer.question!;
  return (
    <ConfirmDialog
      title={question.title}
      confirm={offer.label.replace('…', '')}
      danger={question.danger === true}
      onClose={onClose}
      onConfirm={() => offer.run(of)}
    >
      <p>{question.text}</p>
    </ConfirmDialog>
  );
}

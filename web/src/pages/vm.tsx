/** One VM: its head with what may be done now, and its tabs. */
import { useState } from 'react';
import { call } from '../data/call.ts';
import { bytes, count } from '../data/format.ts';
import { useLive, type Action, type Status, type VmDetail } from '../data/live.ts';
import { hrefOf, VM_TABS, type VmTab } from '../data/route.ts';
import { useSession } from '../data/session.ts';
import { useAction } from '../data/use-action.ts';
import { HealthMark } from '../parts/health.tsx';
import { ConfirmDialog } from '../parts/confirm-dialog.tsx';
import { ImportDialog } from '../parts/import-dialog.tsx';
import { Refused } from '../parts/refused.tsx';
import { ResumeDialog } from '../parts/resume-dialog.tsx';
import { EventList } from '../parts/event-list.tsx';
import { GuestSettings } from './vm-guest-settings.tsx';
import { HealthTab } from './vm-health.tsx';
import { PointsTab } from './vm-points.tsx';
import { ResyncTab } from './vm-resync.tsx';
import { SettingsTab } from './vm-settings.tsx';

export function VmPage({ name, tab }: { name: string; tab: VmTab }) {
  const { detail, events } = useLive();
  if (detail === undefined)
    return (
      <p className="loading" role="status">
        Loading…
      </p>
    );
  if (detail === null) {
    return (
      <div className="card empty">
        <h1>{name}</h1>
        <p>This host has no VM of this name.</p>
        <p>
          <a href="#/">Back to the overview</a>
        </p>
      </div>
    );
  }
  return (
    <>
      <p className="crumbs">
        <a href="#/">Overview</a>
      </p>
      <Head detail={detail} tab={tab} />
      <nav className="tabs" aria-label={`About ${name}`}>
        {VM_TABS.map(([each, label]) => (
          <a key={each} href={hrefOf({ page: 'vm', vm: name, tab: each })} aria-current={each === tab ? 'page' : undefined}>
            {label}
          </a>
        ))}
      </nav>
      {tab === 'health' ? <HealthTab detail={detail} /> : null}
      {tab === 'resync' ? <ResyncTab detail={detail} /> : null}
      {tab === 'points' ? <PointsTab detail={detail} /> : null}
      {tab === 'settings' ? (
        <>
          <SettingsTab key={detail.vm.vmId} detail={detail} />
          <GuestSettings key={`${detail.vm.vmId} guest`} detail={detail} />
        </>
      ) : null}
      {tab === 'events' ? <EventList events={events.filter((event) => event.vmName === name)} vmName={name} /> : null}
    </>
  );
}

function Head({ detail, tab }: { detail: VmDetail; tab: VmTab }) {
  const { status, vm } = detail;
  const total = vm.disks.reduce((sum, { virtualSize }) => sum + virtualSize, 0);
  const initial = status.initialReplication as { percent: number } | null | undefined;
  return (
    <div className="vm-head">
      <div>
        <h1>{status.vmName}</h1>
        <p className="vm-facts">
          <HealthMark health={status.health} />
          <span>
            {String(status.stateText ?? 'Not replicated')}
            {initial === null || initial === undefined ? '' : ` – ${initial.percent} %`}
          </span>
          <span className="tag">{status.mode === 'None' ? 'Not replicated' : status.mode}</span>
          <small>
            {count(vm.disks.length, 'disk')}, {bytes(total)}
            {vm.attached ? ` · attached, ${count(vm.guests, 'guest connection')}` : ''}
          </small>
        </p>
        {detail.extended === null ? null : <ExtendedFacts status={detail.extended.status} />}
      </div>
      <Operations detail={detail} tab={tab} />
    </div>
  );
}

/** The extended replica that this host feeds, in one line; more of it is on the page Health. */
function ExtendedFacts({ status }: { status: Status }) {
  return (
    <p className="vm-facts">
      <HealthMark health={status.health} />
      <span>
        Extended replica on {status.replicaServer}: {String(status.stateText)}
      </span>
      <small>{status.healthDetails[0] ?? ''}</small>
    </p>
  );
}

interface Offer {
  action: Action;
  label: string;
  /** Asked before; the title of the question and what it says. */
  question?: { title: string; text: string; danger?: true };
  run: (name: string) => Promise<unknown>;
}

const OFFERS: Offer[] = [
  { action: 'start-initial', label: 'Start initial replication', run: (name) => call('start', { name }) },
  {
    action: 'stop-initial',
    label: 'Stop initial replication',
    run: (name) => call('stop-initial', { name }),
    question: { title: 'Stop the initial replication?', text: 'What has been copied so far is not used again.' },
  },
  { action: 'import', label: 'Import the first copy…', run: () => Promise.resolve() },
  { action: 'suspend', label: 'Pause', run: (name) => call('suspend', { name }) },
  { action: 'resume', label: 'Resume', run: (name) => call('resume', { name }) },
  { action: 'sync-now', label: 'Sync now', run: (name) => call('sync-now', { name }) },
  {
    action: 'verify',
    label: 'Verify',
    run: (name) => call('verify', { name }),
    question: {
      title: 'Verify the replica?',
      text: 'Both hosts read all of their disks, while the guest goes on. It proves that the replica equals a point of the primary; the result is among the events.',
    },
  },
  {
    action: 'remove',
    label: 'Remove replication…',
    run: (name) => call('remove', { name }),
    question: {
      title: 'Remove replication?',
      text: 'The VM is not protected any more. Disks stay on both hosts. Remove it on the other host too.',
      danger: true,
    },
  },
];

/** What the table of states allows now; the server says so. */
function Operations({ detail, tab }: { detail: VmDetail; tab: VmTab }) {
  const { session } = useSession();
  const action = useAction();
  const [asking, setAsking] = useState<Offer | 'resume' | 'import' | null>(null);
  const { vmName, state } = detail.status;
  if (session.role === 'reader') return null;
  // The page of a resynchronization has its own buttons for these.
  const steered: Action[] = tab === 'resync' && detail.resync !== null ? ['suspend', 'resume'] : [];
  const resyncStates = ['WaitingForStartResynchronize', 'ResynchronizeSuspended'];
  const choose = (offer: Offer) => {
    if (offer.action === 'import') setAsking('import');
    else if (offer.action === 'resume' && resyncStates.includes(state)) setAsking('resume');
    else if (offer.question !== undefined) setAsking(offer);
    else void action.run(() => offer.run(vmName));
  };
  return (
    <div className="operations">
      <p className="actions">
        {OFFERS.filter((offer) => detail.actions.includes(offer.action) && !steered.includes(offer.action)).map((offer) => (
          <button
            key={offer.action}
            type="button"
            disabled={action.running}
            className={offer.action === 'resume' ? 'primary' : undefined}
            onClick={() => choose(offer)}
          >
            {offer.label}
            {offer.action === 'resume' && resyncStates.includes(state) ? '…' : ''}
          </button>
        ))}
        {detail.status.mode === 'None' ? (
          <a className="button primary" href={`#/enable`}>
            Enable replication…
          </a>
        ) : null}
      </p>
      <Refused refusal={action.refusal} />
      {asking === 'resume' ? <ResumeDialog name={vmName} state={state} onClose={() => setAsking(null)} /> : null}
      {asking === 'import' ? <ImportDialog name={vmName} onClose={() => setAsking(null)} /> : null}
      {asking !== null && typeof asking === 'object' ? (
        <ConfirmDialog
          title={asking.question!.title}
          confirm={asking.label.replace('…', '')}
          danger={asking.question!.danger === true}
          onClose={() => setAsking(null)}
          onConfirm={() => asking.run(vmName)}
        >
          <p>{asking.question!.text}</p>
        </ConfirmDialog>
      ) : null}
    </div>
  );
}

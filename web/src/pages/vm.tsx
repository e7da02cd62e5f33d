/** One VM: its head with what may be done now, and its tabs. */
import { bytes, count } from '../data/format.ts';
import { useLive, type Status, type VmDetail } from '../data/live.ts';
import { hrefOf, VM_TABS, type VmTab } from '../data/route.ts';
import { useSession } from '../data/session.ts';
import { HealthMark } from '../parts/health.tsx';
import { EventList } from '../parts/event-list.tsx';
import { ExtendButton } from '../parts/extend-dialog.tsx';
import { Operations } from '../parts/operations.tsx';
import { Loading } from '../parts/loading.tsx';
import { GuestSettings } from './vm-guest-settings.tsx';
import { HealthTab } from './vm-health.tsx';
import { PointsTab } from './vm-points.tsx';
import { ResyncTab } from './vm-resync.tsx';
import { SettingsTab } from './vm-settings.tsx';

export function VmPage({ name, tab }: { name: string; tab: VmTab }) {
  const { detail, events } = useLive();
  if (detail === undefined)
    return <Loading />;
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
      <div className="operations">
        {/* The page of a resynchronization has its own buttons for these. */}
        <Operations end={detail} steered={tab === 'resync' && detail.resync !== null ? ['suspend', 'resume'] : []} />
        <FirstSteps detail={detail} />
      </div>
    </div>
  );
}

/** What sets replication up, where there is none yet. */
function FirstSteps({ detail }: { detail: VmDetail }) {
  const { session } = useSession();
  const { status, extended, of } = detail;
  if (session.role === 'reader') return null;
  if (status.mode === 'None')
    return (
      <p className="actions">
        <a className="button primary" href="#/enable">
          Enable replication…
        </a>
      </p>
    );
  return status.mode === 'Replica' && extended === null ? <ExtendButton name={of.name} frequencySec={status.frequencySec} /> : null;
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

/** Every VM in one glance: what needs attention first, each with the one button that mends it. */
import { memo, useDeferredValue, useMemo, useState } from 'react';
import { byAttention, remedyOf } from '../data/attention.ts';
import { call } from '../data/call.ts';
import { bytes, count, localTimes, when } from '../data/format.ts';
import { useLive, type LiveVm } from '../data/live.ts';
import { go, hrefOf } from '../data/route.ts';
import { useSession } from '../data/session.ts';
import { useAction } from '../data/use-action.ts';
import { FilterBox, SearchBox } from '../parts/fields.tsx';
import { Lag, LogGauge, Sparkline } from '../parts/gauges.tsx';
import { HealthMark } from '../parts/health.tsx';
import { Refused } from '../parts/refused.tsx';
import { ResumeDialog } from '../parts/resume-dialog.tsx';

const HEALTHS = ['Critical', 'Warning', 'Normal', 'NotApplicable'] as const;
/** Cards of what needs attention; the rest is in the list below. */
const CARDS_MAX = 6;

export function Overview() {
  const { vms, connection } = useLive();
  const [filter, setFilter] = useState<Filter>({ health: '', mode: '', state: '', peer: '', text: '' });
  const shown = useDeferredValue(filter);
  const all = useMemo(() => [...vms.values()].sort(byAttention), [vms]);
  const rows = useMemo(
    () =>
      all.filter(
        (vm) =>
          (shown.health === '' || vm.health === shown.health) &&
          (shown.mode === '' || vm.mode === shown.mode) &&
          (shown.state === '' || vm.stateText === shown.state) &&
          (shown.peer === '' || peerOf(vm) === shown.peer) &&
          `${vm.vmName} ${vm.stateText} ${vm.primaryServer ?? ''} ${vm.replicaServer ?? ''}`
            .toLowerCase()
            .includes(shown.text.toLowerCase()),
      ),
    [all, shown],
  );
  if (connection === 'connecting')
    return (
      <p className="loading" role="status">
        Loading…
      </p>
    );
  if (all.length === 0) return <Empty />;
  const urgent = all.filter(({ health }) => health === 'Critical' || health === 'Warning');
  return (
    <>
      <div className="head">
        <h1>Overview</h1>
        <span className="head-end">
          <a className="button" href="#/add">
            Add a VM
          </a>
          <a className="button primary" href="#/enable">
            Enable replication…
          </a>
        </span>
      </div>
      <Tally vms={all} chosen={filter.health} onChoose={(health) => setFilter({ ...filter, health })} />
      {urgent.length === 0 ? null : (
        <section aria-labelledby="attention">
          <h2 id="attention">Needs attention</h2>
          <ul className="cards">
            {urgent.slice(0, CARDS_MAX).map((vm) => (
              <AttentionCard key={vm.vmId} vm={vm} />
            ))}
          </ul>
          {urgent.length > CARDS_MAX ? <p className="hint">and {urgent.length - CARDS_MAX} more, first in the list below</p> : null}
        </section>
      )}
      <section aria-labelledby="all">
        <div className="head">
          <h2 id="all">Virtual machines</h2>
          <Filters vms={all} filter={filter} onChange={setFilter} />
        </div>
        <VmTable rows={rows} total={all.length} />
      </section>
    </>
  );
}

function Tally({ vms, chosen, onChoose }: { vms: LiveVm[]; chosen: string; onChoose: (health: string) => void }) {
  return (
    <div className="tally" role="group" aria-label="By health">
      {HEALTHS.map((health) => (
        <button key={health} type="button" aria-pressed={chosen === health} onClick={() => onChoose(chosen === health ? '' : health)}>
          <strong>{vms.filter((vm) => vm.health === health).length}</strong>
          <HealthMark health={health} />
        </button>
      ))}
    </div>
  );
}

interface Filter {
  health: string;
  mode: string;
  state: string;
  peer: string;
  text: string;
}

const MODES = ['Primary', 'Replica', ['None', 'Not replicated']] as const;

/** The other host. */
const peerOf = (vm: LiveVm): string | null => (vm.side === 'primary' ? vm.replicaServer : vm.primaryServer);

/** States and peers that there are, and the chosen one also when no VM has it any more: nothing is filtered unseen. */
function Filters({ vms, filter, onChange }: { vms: readonly LiveVm[]; filter: Filter; onChange: (filter: Filter) => void }) {
  const found = (values: (string | null)[], chosen: string) =>
    [...new Set([...values, chosen].filter((value): value is string => value !== null && value !== ''))].sort();
  const states = useMemo(() => found(vms.map(({ stateText }) => stateText), filter.state), [vms, filter.state]);
  const peers = useMemo(() => found(vms.map(peerOf), filter.peer), [vms, filter.peer]);
  return (
    <span className="filters">
      <SearchBox label="Find a VM, state or host" value={filter.text} onChange={(text) => onChange({ ...filter, text })} />
      <FilterBox label="State" every="Every state" options={states} value={filter.state} onChange={(state) => onChange({ ...filter, state })} />
      <FilterBox label="Mode" every="Every mode" options={MODES} value={filter.mode} onChange={(mode) => onChange({ ...filter, mode })} />
      <FilterBox label="Peer" every="Every peer" options={peers} value={filter.peer} onChange={(peer) => onChange({ ...filter, peer })} />
    </span>
  );
}

const VmTable = memo(function VmTable({ rows, total }: { rows: LiveVm[]; total: number }) {
  return (
    <div className="table-frame" tabIndex={0} role="region" aria-label="Virtual machines">
      <table className="vms">
        <thead>
          <tr>
            <th>Name</th>
            <th>State</th>
            <th>Health</th>
            <th>Mode</th>
            <th>Peer</th>
            <th>Lag</th>
            <th>Tracking logs</th>
            <th>Churn</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((vm) => (
            <VmRow key={vm.vmId} vm={vm} />
          ))}
        </tbody>
      </table>
      {rows.length === 0 ? <p className="hint">None of the {count(total, 'VM')} matches.</p> : null}
    </div>
  );
});

const VmRow = memo(function VmRow({ vm }: { vm: LiveVm }) {
  return (
    <tr>
      <th scope="row">
        <a href={hrefOf({ page: 'vm', vm: vm.vmName, tab: 'health' })}>{vm.vmName}</a>
        <small>
          {count(vm.diskCount, 'disk')}, {bytes(vm.totalBytes)}
        </small>
      </th>
      <td data-label="State">
        {vm.stateText}
        {vm.percent === null ? '' : ` ${Math.floor(vm.percent)} %`}
      </td>
      <td data-label="Health">
        <HealthMark health={vm.health} />
      </td>
      <td data-label="Mode">{vm.mode === 'None' ? '–' : vm.mode}</td>
      <td data-label="Peer">{peerOf(vm) ?? '–'}</td>
      <td data-label="Lag">
        <Lag since={vm.lastAppliedLogTime} frequencySec={vm.frequencySec} />
      </td>
      <td data-label="Tracking logs">
        <LogGauge logBytes={vm.logBytes} logLimitBytes={vm.logLimitBytes} logLimitTime={vm.logLimitTime} />
      </td>
      <td data-label="Churn">
        <Sparkline values={vm.churn} />
      </td>
    </tr>
  );
});

const AttentionCard = memo(function AttentionCard({ vm }: { vm: LiveVm }) {
  return (
    <li className={`card attention ${vm.health.toLowerCase()}`}>
      <div className="card-head">
        <h3>
          <a href={hrefOf({ page: 'vm', vm: vm.vmName, tab: 'health' })}>{vm.vmName}</a>
        </h3>
        <HealthMark health={vm.health} />
      </div>
      <p className="state">
        {vm.stateText}
        {vm.percent === null ? '' : ` – ${Math.floor(vm.percent)} %`}
      </p>
      <p>{localTimes(vm.healthDetails[0] ?? '')}</p>
      {vm.healthDetails.length > 1 ? <p className="hint">and {count(vm.healthDetails.length - 1, 'further reason')}</p> : null}
      {vm.resynchronizeStartTime === null ? null : <p className="hint">Starts by itself: {when(vm.resynchronizeStartTime)}</p>}
      <RemedyButton vm={vm} />
    </li>
  );
});

export function RemedyButton({ vm }: { vm: LiveVm }) {
  const { session } = useSession();
  const action = useAction();
  const [asking, setAsking] = useState(false);
  const remedy = remedyOf(vm);
  if (remedy === null) return null;
  if ('tab' in remedy) {
    const open = () => go({ page: 'vm', vm: vm.vmName, tab: remedy.tab });
    return (
      <p className="actions">
        <button type="button" onClick={open}>
          {remedy.label}
        </button>
      </p>
    );
  }
  if (session.role === 'reader') return null;
  const act = () => ('dialog' in remedy ? setAsking(true) : void action.run(() => call(remedy.operation, { name: vm.vmName })));
  return (
    <>
      <p className="actions">
        <button type="button" className="primary" disabled={action.running} onClick={act}>
          {remedy.label}
        </button>
      </p>
      <Refused refusal={action.refusal} />
      {asking ? <ResumeDialog name={vm.vmName} state={vm.state} onClose={() => setAsking(false)} /> : null}
    </>
  );
}

function Empty() {
  return (
    <div className="card empty">
      <h1>No virtual machine yet</h1>
      <p>Name a VM and its disks, and replicate it to another host.</p>
      <p className="actions">
        <a className="button primary" href="#/add">
          Add a VM
        </a>
      </p>
    </div>
  );
}

/** Every VM in one glance: what needs attention first, each with the one button that mends it. */
import { memo, useDeferredValue, useMemo, useState } from 'react';
import { byAttention, peerOf, remedyOf, worstHealth } from '../data/attention.ts';
import { call } from '../data/call.ts';
import { count, localTimes, when } from '../data/format.ts';
import { useLive, type LiveVm } from '../data/live.ts';
import { go, hrefOf } from '../data/route.ts';
import { useSession } from '../data/session.ts';
import { useAction } from '../data/use-action.ts';
import { FilterBox, SearchBox } from '../parts/fields.tsx';
import { HealthMark } from '../parts/health.tsx';
import { ImportDialog } from '../parts/import-dialog.tsx';
import { Loading } from '../parts/loading.tsx';
import { Refused } from '../parts/refused.tsx';
import { ResumeDialog } from '../parts/resume-dialog.tsx';
import { VmTable } from '../parts/vm-table.tsx';

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
          (shown.health === '' || worstHealth(vm) === shown.health) &&
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
    return <Loading />;
  if (all.length === 0) return <Empty />;
  const urgent = all.filter((vm) => ['Critical', 'Warning'].includes(worstHealth(vm)));
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
          <strong>{vms.filter((vm) => worstHealth(vm) === health).length}</strong>
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

const AttentionCard = memo(function AttentionCard({ vm }: { vm: LiveVm }) {
  const health = worstHealth(vm);
  // What is wrong with the extended replica alone.
  const leg = vm.extended !== null && health !== vm.health ? vm.extended : null;
  const [reason, ...further] = leg === null ? vm.healthDetails : [leg.reason ?? ''];
  return (
    <li className={`card attention ${health.toLowerCase()}`}>
      <div className="card-head">
        <h3>
          <a href={hrefOf({ page: 'vm', vm: vm.vmName, tab: 'health' })}>{vm.vmName}</a>
        </h3>
        <HealthMark health={health} />
      </div>
      <p className="state">
        {leg === null ? vm.stateText : `Extended replica on ${leg.replicaServer}: ${leg.stateText}`}
        {leg !== null || vm.percent === null ? '' : ` – ${Math.floor(vm.percent)} %`}
      </p>
      <p>{localTimes(reason ?? '')}</p>
      {further.length > 0 ? <p className="hint">and {count(further.length, 'further reason')}</p> : null}
      {vm.resynchronizeStartTime === null ? null : <p className="hint">Starts by itself: {when(vm.resynchronizeStartTime)}</p>}
      <RemedyButton vm={vm} />
    </li>
  );
});

function RemedyButton({ vm }: { vm: LiveVm }) {
  const { session } = useSession();
  const action = useAction();
  const [asking, setAsking] = useState<'resume-resync' | 'import' | null>(null);
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
  const act = () => ('dialog' in remedy ? setAsking(remedy.dialog) : void action.run(() => call(remedy.operation, { name: vm.vmName })));
  return (
    <>
      <p className="actions">
        <button type="button" className="primary" disabled={action.running} onClick={act}>
          {remedy.label}
        </button>
      </p>
      <Refused refusal={action.refusal} />
      {asking === 'resume-resync' ? <ResumeDialog of={{ name: vm.vmName }} state={vm.state} onClose={() => setAsking(null)} /> : null}
      {asking === 'import' ? <ImportDialog name={vm.vmName} onClose={() => setAsking(null)} /> : null}
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

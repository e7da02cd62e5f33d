/** Enable Replication: the original's eight pages, filled with good defaults, so that Next leads through. */
import { useState, type ReactNode } from 'react';
import { call } from '../data/call.ts';
import { fingerprintWords } from '../data/fingerprint-words.ts';
import { bytes, count, frequency, inputTime, when } from '../data/format.ts';
import { useLive, type HostFacts, type LiveVm } from '../data/live.ts';
import { go } from '../data/route.ts';
import { DEFAULT_DRAFT, settingsOf, type Draft } from '../data/settings-draft.ts';
import { useAction } from '../data/use-action.ts';
import { Refused } from '../parts/refused.tsx';
import { FrequencyChoice, PointsChoice } from '../parts/setting-choices.tsx';
import { Loading } from '../parts/loading.tsx';
import { ConnectionStep, DisksStep, MethodStep, ServerStep } from './enable-steps.tsx';

export interface Plan extends Draft {
  vm: string;
  method: 'now' | 'at' | 'export' | 'existing' | 'later';
  at: string;
  folder: string;
}

export interface StepProps {
  plan: Plan;
  onChange: (part: Partial<Plan>) => void;
}

interface Step {
  title: string;
  body: (props: StepProps) => ReactNode;
  /** Before the next page; refused, the page stays and says why. */
  check?: (plan: Plan) => Promise<unknown>;
}

const STEPS: Step[] = [
  { title: 'Before You Begin', body: Before },
  { title: 'Specify Replica Server', body: ServerStep },
  { title: 'Specify Connection Parameters', body: ConnectionStep, check: greet },
  { title: 'Choose Replication VHDs', body: DisksStep },
  { title: 'Configure Replication Frequency', body: ({ plan, onChange }) => <FrequencyChoice draft={plan} onChange={onChange} /> },
  { title: 'Configure Additional Recovery Points', body: ({ plan, onChange }) => <PointsChoice draft={plan} onChange={onChange} /> },
  { title: 'Choose Initial Replication Method', body: MethodStep },
  { title: 'Summary', body: Summary },
];

export function EnableWizard() {
  const { vms, host, connection } = useLive();
  const candidates = [...vms.values()].filter(({ mode }) => mode === 'None');
  if (connection === 'connecting' || host === null)
    return <Loading />;
  if (candidates.length === 0) {
    return (
      <div className="card empty">
        <h1>Enable replication</h1>
        <p>Every VM of this host is replicated already, or there is none.</p>
        <p className="actions">
          <a className="button primary" href="#/add">
            Add a VM
          </a>
        </p>
      </div>
    );
  }
  return <Wizard first={candidates[0]!} known={host.replicas} />;
}

/** Where the other VMs of this host go, this one will mostly go too. */
function planFor(vm: LiveVm, [usual]: HostFacts['replicas']): Plan {
  return {
    ...DEFAULT_DRAFT, vm: vm.vmName, replica: usual?.replica ?? '', fingerprint: usual?.fingerprint ?? '',
    method: 'now', at: inputTime(new Date(Date.now() + 3_600_000)), folder: '',
  };
}

/** That it answers, is the one that is meant, and lets this host in. */
function greet({ replica, fingerprint }: Plan): Promise<unknown> {
  return call('test-connection', { replica: replica.trim(), fingerprint: fingerprint.trim() });
}

function Wizard({ first, known }: { first: LiveVm; known: HostFacts['replicas'] }) {
  const [plan, setPlan] = useState<Plan>(() => planFor(first, known));
  const [at, setAt] = useState(0);
  const action = useAction();
  const { title, body: Body, check } = STEPS[at]!;
  const last = at === STEPS.length - 1;
  const turn = (to: number) => {
    action.clear();
    setAt(to);
  };
  const next = async () => {
    if (last) {
      if (await action.run(() => enable(plan))) go({ page: 'vm', vm: plan.vm, tab: 'health' });
    } else if (check === undefined || (await action.run(() => check(plan)))) turn(at + 1);
  };
  return (
    <>
      <p className="crumbs">
        <a href="#/">Overview</a>
      </p>
      <h1>Enable replication for {plan.vm}</h1>
      <div className="wizard">
        <ol className="steps" aria-label="Steps">
          {STEPS.map((step, number) => (
            <li key={step.title} aria-current={number === at ? 'step' : undefined} className={number < at ? 'done' : ''}>
              {step.title}
            </li>
          ))}
        </ol>
        <form
          className="card"
          onSubmit={(event) => {
            event.preventDefault();
            void next();
          }}
        >
          <p className="hint">
            Step {at + 1} of {STEPS.length}
          </p>
          <h2
            tabIndex={-1}
            key={title}
            ref={(heading) => {
              if (at > 0) heading?.focus();
            }}
          >
            {title}
          </h2>
          <Body plan={plan} onChange={(part) => setPlan({ ...plan, ...part })} />
          <Refused refusal={action.refusal} />
          <p className="actions end">
            <button type="button" disabled={at === 0 || action.running} onClick={() => turn(at - 1)}>
              Previous
            </button>
            <button type="submit" className="primary" disabled={action.running}>
              {action.running ? 'Working…' : last ? 'Finish' : 'Next'}
            </button>
          </p>
        </form>
      </div>
    </>
  );
}

async function enable(plan: Plan): Promise<void> {
  const name = plan.vm;
  await call('enable', { name, replica: plan.replica.trim(), fingerprint: plan.fingerprint.trim(), settings: settingsOf(plan) });
  if (plan.method === 'later') return;
  await call('start', {
    name,
    ...(plan.method === 'at' ? { at: new Date(plan.at).toISOString() } : {}),
    ...(plan.method === 'export' ? { exportTo: plan.folder } : {}),
    ...(plan.method === 'existing' ? { useExisting: true } : {}),
  });
}

function Before({ plan, onChange }: StepProps) {
  const { vms } = useLive();
  return (
    <>
      <p>A copy of the VM’s disks is kept on a second host, at most a few minutes old. The guest never waits for the link.</p>
      <ul className="plain-list">
        <li>
          Understudy runs on the other host, and you know its fingerprint (its page <em>Peers</em> shows it).
        </li>
        <li>
          That host has authorised this one, with room for {bytes([...vms.values()].find((vm) => vm.vmName === plan.vm)?.totalBytes)}.
        </li>
        <li>The VM’s disks are attached: the guest writes through Understudy.</li>
      </ul>
      <label>
        Virtual machine
        <select value={plan.vm} onChange={(event) => onChange({ vm: event.target.value, excludedDisks: [] })}>
          {[...vms.values()]
            .filter(({ mode }) => mode === 'None')
            .map(({ vmName }) => (
              <option key={vmName}>{vmName}</option>
            ))}
        </select>
      </label>
    </>
  );
}

function Summary({ plan }: StepProps) {
  const methods = {
    now: 'Over the network, at once',
    at: `Over the network, ${when(new Date(plan.at).toISOString())}`,
    export: `Exported to ${plan.folder}`,
    existing: 'Compared with a copy that is there',
    later: 'Later, by hand',
  };
  return (
    <dl className="facts">
      <dt>Virtual machine</dt>
      <dd>{plan.vm}</dd>
      <dt>Replica server</dt>
      <dd>{plan.replica}</dd>
      <dt>Fingerprint</dt>
      <dd>
        <code className="fingerprint">{plan.fingerprint}</code>
        <small className="words">{fingerprintWords(plan.fingerprint)}</small>
      </dd>
      <dt>Compression</dt>
      <dd>{plan.compression ? 'Yes' : 'No'}</dd>
      <dt>Disks left out</dt>
      <dd>{plan.excludedDisks.length === 0 ? 'None' : plan.excludedDisks.join(', ')}</dd>
      <dt>Frequency</dt>
      <dd>{frequency(plan.frequencySec)}</dd>
      <dt>Recovery points</dt>
      <dd>{plan.recoveryHistory === 0 ? 'Only the latest' : `${count(plan.recoveryHistory, 'additional point')}, hourly`}</dd>
      <dt>Resynchronization</dt>
      <dd>
        Automatically between {plan.from} and {plan.to}
      </dd>
      <dt>Initial replication</dt>
      <dd>{methods[plan.method]}</dd>
    </dl>
  );
}

/** Who starts the guest on this host: adapter, guest agent, addresses after a failover. Settings of this side alone. */
import { useId } from 'react';
import { call } from '../data/call.ts';
import { when } from '../data/format.ts';
import { guestChangesOf, guestDraftOf, type AddressDraft, type GuestDraft } from '../data/guest-draft.ts';
import type { GuestRun, VmDetail } from '../data/live.ts';
import { useSession } from '../data/session.ts';
import { useDraft } from '../data/use-draft.ts';
import { APPLY_WORDS, DraftForm } from '../parts/draft-form.tsx';
import { TextField } from '../parts/fields.tsx';

interface PartProps {
  draft: GuestDraft;
  onChange: (part: Partial<GuestDraft>) => void;
}

export function GuestSettings({ detail }: { detail: VmDetail }) {
  const { hypervisor, name } = detail.vm;
  const { session } = useSession();
  const form = useDraft(guestDraftOf(hypervisor));
  const { shown, set } = form;
  const change = guestChangesOf(form.base, shown);
  return (
    <DraftForm
      form={form}
      label="The guest on this host"
      locked={session.role === 'reader'}
      changed={change !== null}
      save={() => call('set', { name, hypervisor: change! })}
      words={APPLY_WORDS}
    >
      <section className="card">
        <h2>The guest on this host</h2>
        <p className="hint">Of this host alone: paths, networks and addresses are others on the other one. Set it there too.</p>
        <AdapterChoice draft={shown} onChange={set} />
        {shown.adapter === 'none' ? null : <LastRun run={hypervisor.guest} />}
      </section>
      <section className="card">
        <h2>Guest agent</h2>
        <AgentChoice draft={shown} onChange={set} />
      </section>
      <section className="card">
        <h2>Addresses after a failover to this host</h2>
        <Addresses draft={shown} onChange={set} />
      </section>
    </DraftForm>
  );
}

const ADAPTERS = [
  ['none', 'Nobody', 'A person starts it; a failover prints the lines for QEMU and libvirt.'],
  ['command', 'A program of yours', 'Called with what is to be done and where the disks are served.'],
  ['libvirt', 'libvirt', 'Through virsh; the domain comes from the primary.'],
] as const;

function AdapterChoice({ draft, onChange }: PartProps) {
  const name = useId();
  return (
    <fieldset>
      <legend>Who starts and stops it</legend>
      {ADAPTERS.map(([adapter, label, hint]) => (
        <label key={adapter} className="choice">
          <input type="radio" name={name} checked={draft.adapter === adapter} onChange={() => onChange({ adapter })} />
          <span>
            {label}
            <small>{hint}</small>
          </span>
        </label>
      ))}
      <div className="grid-form indent">
        {draft.adapter === 'command' ? (
          <TextField full required label="Path of the program" value={draft.command} onChange={(command) => onChange({ command })}
            pattern="/.*" placeholder="/usr/local/sbin/web1-guest" spellCheck={false} />
        ) : null}
        {draft.adapter === 'libvirt' ? <LibvirtFields draft={draft} onChange={onChange} /> : null}
        {draft.adapter === 'none' ? null : (
          <TextField type="number" min={1} max={3600} required label="One action may take, seconds" value={draft.timeoutSec}
            onChange={(timeoutSec) => onChange({ timeoutSec })} />
        )}
      </div>
    </fieldset>
  );
}

function LibvirtFields({ draft, onChange }: PartProps) {
  return (
    <>
      <TextField required label="Connection" value={draft.libvirtUri} onChange={(libvirtUri) => onChange({ libvirtUri })} spellCheck={false} />
      <TextField label="Domain" value={draft.libvirtDomain} onChange={(libvirtDomain) => onChange({ libvirtDomain })}
        placeholder="named as the VM" spellCheck={false} />
      <TextField label="Network of test guests" value={draft.testNetwork} onChange={(testNetwork) => onChange({ testNetwork })}
        placeholder="none: left unplugged" spellCheck={false} />
      <label className="full">
        Networks, OLD=NEW, one in each line
        <textarea rows={2} value={draft.networks} spellCheck={false} placeholder="*=default" onChange={(event) => onChange({ networks: event.target.value })} />
        <small>Cards of a network that is not named here are left unplugged; * is any, bridge:NAME a bridge.</small>
      </label>
    </>
  );
}

function LastRun({ run }: { run: GuestRun | null }) {
  if (run === null) return <p className="hint">The adapter has not been asked for anything yet.</p>;
  return (
    <p className={`note ${run.failure === null ? '' : 'bad'}`}>
      Last action: {run.action}, {when(run.startTime)}
      {run.failure === null ? (run.endTime === null ? ', under way' : ', done') : `: ${run.failure.message}`}
    </p>
  );
}

const AGENTS = [
  ['none', 'There is none'],
  ['libvirt', 'Through the libvirt domain'],
  ['socket', 'On a Unix socket of this host'],
] as const;

function AgentChoice({ draft, onChange }: PartProps) {
  const name = useId();
  return (
    <fieldset>
      <legend className="hint">QEMU’s agent in the guest brings it to rest for application-consistent points, and gives it its addresses.</legend>
      {AGENTS.map(([agent, label]) => (
        <label key={agent} className="choice">
          <input type="radio" name={name} checked={draft.agent === agent} onChange={() => onChange({ agent })} />
          <span>{label}</span>
        </label>
      ))}
      {draft.agent === 'socket' ? (
        <div className="grid-form indent">
          <TextField full required label="Path of the agent’s socket" value={draft.agentSocket} onChange={(agentSocket) => onChange({ agentSocket })}
            pattern="/.*" placeholder="/run/web1-agent.sock" spellCheck={false} />
        </div>
      ) : null}
    </fieldset>
  );
}

const NEW_ADDRESS: AddressDraft = { card: '', address: '', gateway: '', dns: '' };

function Addresses({ draft, onChange }: PartProps) {
  const { addresses } = draft;
  const change = (at: number, part: Partial<AddressDraft>) =>
    onChange({ addresses: addresses.map((each, index) => (index === at ? { ...each, ...part } : each)) });
  return (
    <>
      {addresses.length === 0 ? <p className="hint">The guest keeps those it has.</p> : null}
      {addresses.map((address, at) => (
        <fieldset key={at} className="grid-form">
          <legend>Network card {at + 1}</legend>
          <TextField required label="MAC, or interface in the guest" value={address.card} onChange={(card) => change(at, { card })}
            placeholder="52:54:00:12:34:56" spellCheck={false} />
          <TextField required label="Address and prefix" value={address.address} onChange={(text) => change(at, { address: text })}
            pattern="[^\/]+\/\d{1,3}" placeholder="10.0.0.5/24" title="ADDRESS/PREFIX" spellCheck={false} />
          <TextField label="Gateway" value={address.gateway} onChange={(gateway) => change(at, { gateway })} spellCheck={false} />
          <TextField label="Name servers, with commas" value={address.dns} onChange={(dns) => change(at, { dns })} spellCheck={false} />
          <p className="actions">
            <button type="button" onClick={() => onChange({ addresses: addresses.filter((_, index) => index !== at) })}>
              Remove card {at + 1}
            </button>
          </p>
        </fieldset>
      ))}
      <p className="actions">
        <button type="button" onClick={() => onChange({ addresses: [...addresses, NEW_ADDRESS] })}>
          Add an address
        </button>
      </p>
    </>
  );
}

/** Settings of one VM, as the original groups them: connection, disks, frequency, recovery points, resynchronization. */
import { call } from '../data/call.ts';
import type { VmDetail } from '../data/live.ts';
import { changesOf, draftOf, type Draft } from '../data/settings-draft.ts';
import { useSession } from '../data/session.ts';
import { useDraft } from '../data/use-draft.ts';
import { useAction } from '../data/use-action.ts';
import { CompressionTick, FingerprintField, ReplicaField } from '../parts/fields.tsx';
import { Refused } from '../parts/refused.tsx';
import { DiskChoice, FrequencyChoice, PointsChoice, ResyncChoice } from '../parts/setting-choices.tsx';

export function SettingsTab({ detail }: { detail: VmDetail }) {
  const { settings, remote } = detail;
  if (settings === null || remote === null) return <p className="card">This VM is not replicated.</p>;
  return <SettingsForm detail={detail} original={draftOf(settings, remote)} />;
}

function SettingsForm({ detail, original }: { detail: VmDetail; original: Draft }) {
  const { status } = detail;
  const form = useDraft(original);
  const { shown, saved, set } = form;
  const { session } = useSession();
  const action = useAction();
  const locked = session.role === 'reader' || !detail.actions.includes('set');
  const change = changesOf(form.base, shown);
  const save = async () => {
    if (!(await action.run(() => call('set', { name: status.vmName, ...change })))) return;
    form.store();
  };
  return (
    <form
      className="settings"
      onSubmit={(event) => {
        event.preventDefault();
        void save();
      }}
    >
      {status.mode === 'Replica' ? (
        <p className="note">Settings are changed on the primary, host {status.primaryServer ?? 'unknown'}; here they are shown.</p>
      ) : null}
      <fieldset disabled={locked} className="plain">
        <Connection draft={shown} onChange={set} />
        <section className="card">
          <h2>Disks</h2>
          <DiskChoice disks={detail.vm.disks} draft={shown} onChange={set} />
        </section>
        <section className="card">
          <h2>Replication frequency</h2>
          <FrequencyChoice draft={shown} onChange={set} />
        </section>
        <section className="card">
          <h2>Recovery points</h2>
          <PointsChoice draft={shown} onChange={set} />
        </section>
        <section className="card">
          <h2>Resynchronization</h2>
          <ResyncChoice draft={shown} onChange={set} />
        </section>
        <Limits draft={shown} onChange={set} />
      </fieldset>
      <div className="save-bar">
        <Refused refusal={action.refusal} />
        <p className="actions">
          <button type="submit" className="primary" disabled={locked || change === null || action.running}>
            Save
          </button>
          <button type="button" disabled={!form.dirty} onClick={form.discard}>
            Discard
          </button>
          <span role="status" className="hint">
            {saved ? 'Saved.' : change === null ? '' : 'Not saved yet.'}
          </span>
        </p>
      </div>
    </form>
  );
}

interface PartProps {
  draft: Draft;
  onChange: (part: Partial<Draft>) => void;
}

function Connection({ draft, onChange }: PartProps) {
  return (
    <section className="card">
      <h2>Connection</h2>
      <div className="grid-form">
        <ReplicaField value={draft.replica} onChange={(replica) => onChange({ replica })} />
        <FingerprintField
          label="Its fingerprint"
          value={draft.fingerprint}
          onChange={(fingerprint) => onChange({ fingerprint })}
          hint="From the page Peers of that host."
        />
        <CompressionTick checked={draft.compression} onChange={(compression) => onChange({ compression })} />
      </div>
    </section>
  );
}

function Limits({ draft, onChange }: PartProps) {
  const number = (key: 'logLimitPercent' | 'resyncPriority' | 'diskMiBPerSec' | 'linkMiBPerSec' | 'verifyDays') => ({
    type: 'number',
    min: 0,
    value: draft[key],
    onChange: (event: { target: { value: string } }) => onChange({ [key]: event.target.value }),
  });
  return (
    <section className="card">
      <h2>Limits</h2>
      <div className="grid-form">
        <label>
          Tracking logs at most, % of the disks
          <input {...number('logLimitPercent')} step="any" />
          <small>Past it a resynchronization is required.</small>
        </label>
        <label>
          Priority in the resynchronization queue
          <input {...number('resyncPriority')} max={100} />
          <small>Smaller goes first.</small>
        </label>
        <label>
          Reading by a resynchronization, MiB/s
          <input {...number('diskMiBPerSec')} step="any" placeholder="no limit" />
          <small>It yields to the guest in any case.</small>
        </label>
        <label>
          Sending by a resynchronization, MiB/s
          <input {...number('linkMiBPerSec')} step="any" placeholder="no limit" />
        </label>
        <label>
          Verify every so many days
          <input {...number('verifyDays')} max={90} />
          <small>0 is never.</small>
        </label>
        <label>
          Verify at
          <input type="time" value={draft.verifyAt} onChange={(event) => onChange({ verifyAt: event.target.value })} />
        </label>
      </div>
    </section>
  );
}

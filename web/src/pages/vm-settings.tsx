/** Settings of one VM, as the original groups them: connection, disks, frequency, recovery points, resynchronization. */
import { call } from '../data/call.ts';
import type { End, VmDetail } from '../data/live.ts';
import { changesOf, draftOf, type Draft } from '../data/settings-draft.ts';
import { useSession } from '../data/session.ts';
import { useDraft } from '../data/use-draft.ts';
import { DraftForm, SAVE_WORDS } from '../parts/draft-form.tsx';
import { CompressionTick, FingerprintField, ReplicaField } from '../parts/fields.tsx';
import { DiskChoice, FrequencyChoice, legFrequencies, PointsChoice, ResyncChoice } from '../parts/setting-choices.tsx';

export function SettingsTab({ detail }: { detail: VmDetail }) {
  const { settings, remote, extended, status } = detail;
  if (settings === null || remote === null) return <p className="card">This VM is not replicated.</p>;
  return (
    <>
      {status.mode === 'Primary' ? null : (
        <p className="note">Settings are changed on the primary, host {status.primaryServer ?? 'unknown'}; here they are shown.</p>
      )}
      <SettingsForm end={detail} original={draftOf(settings, remote)} label="Replication" disks={detail.vm.disks} />
      {extended === null ? null : <LegSettings end={extended} replicaSec={status.frequencySec} />}
    </>
  );
}

/** Of the extended replica that this host feeds: it has the replica's disks, and standard points. */
function LegSettings({ end, replicaSec }: { end: End; replicaSec: number | null }) {
  const { settings, remote, status } = end;
  if (settings === null || remote === null) return null;
  const title = `Extended replica on ${status.replicaServer}`;
  return (
    <>
      <h2 className="apart">{title}</h2>
      <SettingsForm end={end} original={draftOf(settings, remote)} label={title} frequencies={legFrequencies(replicaSec)} />
    </>
  );
}

interface FormProps {
  end: End;
  original: Draft;
  /** Names the form. */
  label: string;
  /** Absent: no disk can be left out, and points are standard ones. */
  disks?: VmDetail['vm']['disks'];
  frequencies?: Draft['frequencySec'][];
}

function SettingsForm({ end, original, label, disks, frequencies }: FormProps) {
  const form = useDraft(original);
  const { shown, set } = form;
  const { session } = useSession();
  const change = changesOf(form.base, shown);
  const locked = session.role === 'reader' || !end.actions.includes('set');
  return (
    <DraftForm form={form} label={label} locked={locked} changed={change !== null} save={() => call('set', { ...end.of, ...change })} words={SAVE_WORDS}>
      <Connection draft={shown} onChange={set} />
      {disks === undefined ? null : (
        <section className="card">
          <h2>Disks</h2>
          <DiskChoice disks={disks} draft={shown} onChange={set} />
        </section>
      )}
      <section className="card">
        <h2>Replication frequency</h2>
        <FrequencyChoice draft={shown} onChange={set} {...(frequencies === undefined ? {} : { choices: frequencies })} />
      </section>
      <section className="card">
        <h2>Recovery points</h2>
        <PointsChoice draft={shown} onChange={set} standardOnly={disks === undefined} />
      </section>
      <section className="card">
        <h2>Resynchronization</h2>
        <ResyncChoice draft={shown} onChange={set} />
      </section>
      <Limits draft={shown} onChange={set} />
    </DraftForm>
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

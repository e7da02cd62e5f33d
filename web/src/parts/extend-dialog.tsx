/** Extend Replication: from the replica on this host to a third one. */
import { useState } from 'react';
import { call } from '../data/call.ts';
import { DEFAULT_DRAFT } from '../data/settings-draft.ts';
import { ConfirmDialog } from './confirm-dialog.tsx';
import { FingerprintField, ReplicaField, Tick } from './fields.tsx';
import { FrequencyChoice, legFrequencies, PointsChoice } from './setting-choices.tsx';

export function ExtendButton({ name, frequencySec }: { name: string; frequencySec: number | null }) {
  const [open, setOpen] = useState(false);
  return (
    <p className="actions">
      <button type="button" onClick={() => setOpen(true)}>
        Extend replication…
      </button>
      {open ? <ExtendDialog name={name} frequencySec={frequencySec} onClose={() => setOpen(false)} /> : null}
    </p>
  );
}

function ExtendDialog({ name, frequencySec, onClose }: { name: string; frequencySec: number | null; onClose: () => void }) {
  const frequencies = legFrequencies(frequencySec);
  const [draft, setDraft] = useState({ ...DEFAULT_DRAFT, frequencySec: frequencies[0]! });
  const [start, setStart] = useState(true);
  const change = (part: Partial<typeof draft>) => setDraft({ ...draft, ...part });
  const [replica, fingerprint] = [draft.replica.trim(), draft.fingerprint.trim()];
  const carryOut = async () => {
    const settings = { frequencySec: draft.frequencySec, recoveryHistory: draft.recoveryHistory, keepRecoveryPoints: draft.keepRecoveryPoints };
    await call('extend', { name, replica, fingerprint, settings });
    if (start) await call('start', { name, extended: true });
  };
  return (
    <ConfirmDialog
      title={`Extend replication of ${name}`}
      confirm="Extend"
      blocked={replica === '' || fingerprint === ''}
      onClose={onClose}
      onConfirm={carryOut}
    >
      <p>The replica on this host feeds a copy on a third host, which has authorised this one. The primary need not know it, nor reach it.</p>
      <ReplicaField value={draft.replica} onChange={(text) => change({ replica: text })} />
      <FingerprintField
        label="Its fingerprint"
        value={draft.fingerprint}
        onChange={(text) => change({ fingerprint: text })}
        hint="From the page Peers of the third host."
        says="Its page must say: "
      />
      <FrequencyChoice draft={draft} onChange={change} choices={frequencies} />
      <PointsChoice draft={draft} onChange={change} standardOnly />
      <Tick checked={start} onChange={setStart} hint="Over the network. Otherwise it is started on this page, when you like.">
        Send the first copy at once
      </Tick>
    </ConfirmDialog>
  );
}

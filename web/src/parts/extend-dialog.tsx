/** Extend Replication: from the replica on this host to a third one. */
import { useState } from 'react';
import { call } from '../data/call.ts';
import { DEFAULT_DRAFT } from '../data/settings-draft.ts';
import { useAction } from '../data/use-action.ts';
import { Dialog } from './dialog.tsx';
import { FingerprintField, ReplicaField, Tick } from './fields.tsx';
import { Refused } from './refused.tsx';
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
  const action = useAction();
  const change = (part: Partial<typeof draft>) => setDraft({ ...draft, ...part });
  const carryOut = async () => {
    const { replica, fingerprint, frequencySec: every, recoveryHistory } = draft;
    const done = await action.run(async () => {
      await call('extend', { name, replica: replica.trim(), fingerprint: fingerprint.trim(), settings: { frequencySec: every, recoveryHistory } });
      if (start) await call('start', { name, extended: true });
    });
    if (done) onClose();
  };
  return (
    <Dialog
      title={`Extend replication of ${name}`}
      onClose={onClose}
      footer={
        <>
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button
            type="button"
            className="primary"
            disabled={draft.replica.trim() === '' || draft.fingerprint.trim() === '' || action.running}
            onClick={() => void carryOut()}
          >
            {action.running ? 'Working…' : 'Extend'}
          </button>
        </>
      }
    >
      <p>The replica on this host feeds a copy on a third host, which has authorised this one. The primary need not know it, nor reach it.</p>
      <ReplicaField value={draft.replica} onChange={(replica) => change({ replica })} />
      <FingerprintField
        label="Its fingerprint"
        value={draft.fingerprint}
        onChange={(fingerprint) => change({ fingerprint })}
        hint="From the page Peers of the third host."
        says="Its page must say: "
      />
      <FrequencyChoice draft={draft} onChange={change} choices={frequencies} />
      <PointsChoice draft={draft} onChange={change} standardOnly />
      <Tick checked={start} onChange={setStart} hint="Over the network. Otherwise it is started on this page, when you like.">
        Send the first copy at once
      </Tick>
      <Refused refusal={action.refusal} />
    </Dialog>
  );
}

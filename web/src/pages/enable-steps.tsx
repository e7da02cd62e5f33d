/** Pages of the wizard that ask for more than one choice. */
import { useEffect, useId, useState } from 'react';
import type { Vm } from '../../../src/server/api/contract.ts';
import { call } from '../data/call.ts';
import { useLive } from '../data/live.ts';
import { CompressionTick, FingerprintField, ReplicaField, TextField } from '../parts/fields.tsx';
import { DiskChoice } from '../parts/setting-choices.tsx';
import type { Plan, StepProps } from './enable.tsx';

export function ServerStep({ plan, onChange }: StepProps) {
  const known = useLive().host?.replicas ?? [];
  return (
    <ReplicaField
      known={known.map(({ replica }) => replica)}
      value={plan.replica}
      onChange={(replica) => {
        const fingerprint = known.find((host) => host.replica === replica)?.fingerprint;
        onChange(fingerprint === undefined ? { replica } : { replica, fingerprint });
      }}
      hint="A name or address, and the port where its peers reach it (7743 unless it was told otherwise)."
    />
  );
}

export function ConnectionStep({ plan, onChange }: StepProps) {
  return (
    <>
      <p>Both hosts prove who they are by certificates, and everything is encrypted (TLS 1.3).</p>
      <FingerprintField
        label="Fingerprint of the replica server"
        value={plan.fingerprint}
        onChange={(fingerprint) => onChange({ fingerprint })}
        hint="From the page Peers of that host, or understudy fingerprint."
        says="Its page must say: "
      />
      <CompressionTick checked={plan.compression} onChange={(compression) => onChange({ compression })} />
      <p className="hint">Next greets the host: that it answers, has this fingerprint, and lets this host in.</p>
    </>
  );
}

export function DisksStep({ plan, onChange }: StepProps) {
  const [vm, setVm] = useState<Vm | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    call('vm.show', { name: plan.vm }, stop.signal).then(setVm, () => undefined);
    return () => stop.abort();
  }, [plan.vm]);
  return (
    <>
      <p>Leave out what the replica does not need, such as a disk for swapping.</p>
      {vm === null ? <p role="status">Loading…</p> : <DiskChoice disks={vm.disks} draft={plan} onChange={onChange} />}
    </>
  );
}

const METHODS: [Plan['method'], string, string][] = [
  ['now', 'Send it over the network now', 'The guest goes on meanwhile.'],
  ['at', 'Send it over the network at a time', 'Within the next 7 days.'],
  ['export', 'Export it to a folder', 'Carry the folder to the replica host, and import it there.'],
  ['existing', 'Use a copy that is there already', 'Both sides are compared; only what differs travels.'],
  ['later', 'Not yet', 'The VM is not protected until it is started.'],
];

export function MethodStep({ plan, onChange }: StepProps) {
  const name = useId();
  return (
    <fieldset>
      <legend className="hidden">How the first copy is made</legend>
      {METHODS.map(([method, label, hint]) => (
        <label key={method} className="choice">
          <input type="radio" name={name} checked={plan.method === method} onChange={() => onChange({ method })} />
          <span>
            {label}
            <small>{hint}</small>
          </span>
        </label>
      ))}
      {plan.method === 'at' ? (
        <label>
          Time
          <input type="datetime-local" required value={plan.at} onChange={(event) => onChange({ at: event.target.value })} />
        </label>
      ) : null}
      {plan.method === 'export' ? (
        <TextField
          label="Folder on this host"
          required
          pattern="\/.*"
          title="An absolute path"
          value={plan.folder}
          placeholder="/media/usb/web1"
          onChange={(folder) => onChange({ folder })}
        />
      ) : null}
    </fieldset>
  );
}

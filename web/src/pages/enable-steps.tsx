/** Pages of the wizard that ask for more than one choice. */
import { useEffect, useId, useState } from 'react';
import type { Vm } from '../../../src/server/api/contract.ts';
import { call } from '../data/call.ts';
import { fingerprintWords } from '../data/fingerprint-words.ts';
import { DiskChoice } from '../parts/setting-choices.tsx';
import type { Plan, StepProps } from './enable.tsx';
import { fingerprintIn } from './peers.tsx';

export function ServerStep({ plan, onChange }: StepProps) {
  return (
    <label>
      Replica server and port
      <input
        required
        value={plan.replica}
        pattern="(\[[^\]]+\]|[^:\/\s]+):\d{1,5}"
        placeholder="munich:7743"
        spellCheck={false}
        title="HOST:PORT"
        onChange={(event) => onChange({ replica: event.target.value })}
      />
      <small>A name or address, and the port where its peers reach it (7743 unless it was told otherwise).</small>
    </label>
  );
}

export function ConnectionStep({ plan, onChange }: StepProps) {
  const fingerprint = fingerprintIn(plan.fingerprint);
  return (
    <>
      <p>Both hosts prove who they are by certificates, and everything is encrypted (TLS 1.3).</p>
      <label>
        Fingerprint of the replica server
        <input
          required
          value={plan.fingerprint}
          spellCheck={false}
          placeholder="8E:82:…"
          onChange={(event) => onChange({ fingerprint: fingerprintIn(event.target.value) ?? event.target.value })}
        />
        {fingerprint === null ? (
          <small>From the page Peers of that host, or understudy fingerprint.</small>
        ) : (
          <small className="words">Its page must say: {fingerprintWords(fingerprint)}</small>
        )}
      </label>
      <label className="choice">
        <input type="checkbox" checked={plan.compression} onChange={(event) => onChange({ compression: event.target.checked })} />
        <span>
          Compress what is sent<small>Skipped by itself where it does not help.</small>
        </span>
      </label>
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
        <label>
          Folder on this host
          <input
            required
            pattern="\/.*"
            title="An absolute path"
            value={plan.folder}
            placeholder="/media/usb/web1"
            onChange={(event) => onChange({ folder: event.target.value })}
          />
        </label>
      ) : null}
    </fieldset>
  );
}

/** This host's own fingerprint, and who may keep replicas here. Pairing is done by comparing fingerprints, on both sides. */
import { useEffect, useState } from 'react';
import type { AuthorizationEntry } from '../../../src/server/api/contract.ts';
import { call } from '../data/call.ts';
import { fingerprintIn, fingerprintWords } from '../data/fingerprint-words.ts';
import { useLive, type HostFacts } from '../data/live.ts';
import { useSession } from '../data/session.ts';
import { useAction } from '../data/use-action.ts';
import { ActionForm } from '../parts/action-form.tsx';
import { ConfirmDialog } from '../parts/confirm-dialog.tsx';
import { FingerprintField, TextField } from '../parts/fields.tsx';
import { QrCode } from '../parts/qr-code.tsx';
import { Loading } from '../parts/loading.tsx';

export function Peers() {
  const { host } = useLive();
  const [entries, setEntries] = useState<AuthorizationEntry[] | null>(null);
  const [loads, setLoads] = useState(0);
  useEffect(() => {
    const stop = new AbortController();
    call('authorizations', {}, stop.signal).then(setEntries, () => undefined);
    return () => stop.abort();
  }, [loads]);
  if (host === null)
    return <Loading />;
  return (
    <>
      <h1>Peers</h1>
      <section className="card own">
        <div>
          <h2>This host</h2>
          <dl className="facts">
            <dt>Name</dt>
            <dd>{host.name}</dd>
            <dt>Peers reach it at</dt>
            <dd>port {host.peerPort}</dd>
            <dt>Fingerprint</dt>
            <dd>
              <Fingerprint value={host.fingerprint} />
            </dd>
            <dt>As words</dt>
            <dd className="words">{fingerprintWords(host.fingerprint)}</dd>
          </dl>
          <p className="hint">
            A primary asks for it when replication is enabled; a replica when it authorises this host. Compare it on both screens, or read
            the words aloud.
          </p>
        </div>
        <QrCode text={`understudy:${host.name}:${host.peerPort}#${host.fingerprint}`} label="Fingerprint of this host as a QR code" />
      </section>
      <section aria-labelledby="authorised">
        <h2 id="authorised">May keep replicas here</h2>
        <Entries entries={entries} onChanged={() => setLoads(loads + 1)} />
      </section>
      <Replicas hosts={host.replicas} />
      <Authorize onDone={() => setLoads(loads + 1)} />
    </>
  );
}

function Fingerprint({ value }: { value: string }) {
  return <code className="fingerprint">{value}</code>;
}

function Entries({ entries, onChanged }: { entries: AuthorizationEntry[] | null; onChanged: () => void }) {
  const { session } = useSession();
  const [removing, setRemoving] = useState<AuthorizationEntry | null>(null);
  if (entries === null) return <p role="status">Loading…</p>;
  if (entries.length === 0)
    return <p className="hint">Nobody yet. Authorise a primary below, and it can send its replicas to this host.</p>;
  return (
    <div className="table-frame" tabIndex={0} role="region" aria-label="Authorised hosts">
      <table className="stack">
        <thead>
          <tr>
            <th>Name</th>
            <th>Fingerprint</th>
            <th>Storage</th>
            <th>Trust group</th>
            <th>
              <span className="hidden">Actions</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {entries.map((entry) => (
            <tr key={entry.fingerprint}>
              <th scope="row">{entry.name ?? (entry.fingerprint === 'any' ? 'Any host' : '–')}</th>
              <td data-label="Fingerprint">
                <Fingerprint value={entry.fingerprint} />
                {entry.fingerprint === 'any' ? null : <small className="words">{fingerprintWords(entry.fingerprint)}</small>}
              </td>
              <td data-label="Storage">{entry.storage ?? '–'}</td>
              <td data-label="Trust group">{entry.trustGroup}</td>
              <td>
                {session.role === 'reader' ? null : (
                  <button type="button" onClick={() => setRemoving(entry)}>
                    Take back…
                  </button>
                )}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {removing === null ? null : (
        <ConfirmDialog
          title="Take the authorisation back?"
          confirm="Take it back"
          danger
          onClose={() => setRemoving(null)}
          onConfirm={async () => {
            await call('unauthorize', { fingerprint: removing.fingerprint });
            onChanged();
          }}
        >
          <p>
            Nothing more is received from <strong>{removing.name ?? removing.fingerprint}</strong>. Replicas that exist stay on this host.
          </p>
        </ConfirmDialog>
      )}
    </div>
  );
}

/** The other way round: who keeps the replicas of this host, by the fingerprint that each was paired with. */
function Replicas({ hosts }: { hosts: HostFacts['replicas'] }) {
  if (hosts.length === 0) return null;
  return (
    <section aria-labelledby="keepers">
      <h2 id="keepers">Keep replicas of this host</h2>
      <div className="table-frame" tabIndex={0} role="region" aria-label="Keep replicas of this host">
        <table className="stack">
          <thead>
            <tr>
              <th>Name</th>
              <th>Fingerprint</th>
              <th>Address</th>
              <th className="number">VMs</th>
            </tr>
          </thead>
          <tbody>
            {hosts.map(({ name, replica, fingerprint, vms }) => (
              <tr key={`${replica} ${fingerprint}`}>
                <th scope="row">{name}</th>
                <td data-label="Fingerprint">
                  <Fingerprint value={fingerprint} />
                  <small className="words">{fingerprintWords(fingerprint)}</small>
                </td>
                <td data-label="Address">{replica}</td>
                <td data-label="VMs" className="number">
                  {vms}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function Authorize({ onDone }: { onDone: () => void }) {
  const { session } = useSession();
  const [form, setForm] = useState({ fingerprint: '', name: '', storage: '', trustGroup: '' });
  const action = useAction();
  if (session.role === 'reader') return null;
  const submit = async () => {
    const given = Object.fromEntries(
      Object.entries({ ...form, fingerprint: fingerprintIn(form.fingerprint) ?? form.fingerprint }).filter(([, value]) => value.trim() !== ''),
    );
    if (await action.run(() => call('authorize', given as { fingerprint: string }))) {
      setForm({ fingerprint: '', name: '', storage: '', trustGroup: '' });
      onDone();
    }
  };
  const field = (key: keyof typeof form) => ({ value: form[key], onChange: (text: string) => setForm({ ...form, [key]: text }) });
  return (
    <section className="card" aria-labelledby="authorise">
      <h2 id="authorise">Authorise a primary</h2>
      <ActionForm action={action} submit={submit} label="Authorise">
        <FingerprintField label="Its fingerprint" hint="It says so on its own page Peers, and with understudy fingerprint." {...field('fingerprint')} />
        <TextField label="What you call it" maxLength={200} {...field('name')} />
        <TextField label="Trust group" maxLength={200} placeholder="DEFAULT" {...field('trustGroup')} />
        <TextField full label="Folder for its replica disks" maxLength={4096} placeholder="in the data folder of this host" {...field('storage')} />
      </ActionForm>
    </section>
  );
}

/** A VM and its disks become known to this host. */
import { useState } from 'react';
import { call } from '../data/call.ts';
import { go } from '../data/route.ts';
import { useAction } from '../data/use-action.ts';
import { ActionForm } from '../parts/action-form.tsx';
import { TextField, Tick } from '../parts/fields.tsx';

export function AddVm() {
  const [name, setName] = useState('');
  const [disks, setDisks] = useState('');
  const [attach, setAttach] = useState(true);
  const action = useAction();
  const submit = async () => {
    const paths = disks
      .split('\n')
      .map((line) => line.trim())
      .filter((line) => line !== '');
    const done = await action.run(async () => {
      await call('vm.add', { name: name.trim(), disks: paths });
      if (attach) await call('vm.attach', { name: name.trim() });
    });
    if (done) go({ page: 'vm', vm: name.trim(), tab: 'health' });
  };
  return (
    <>
      <p className="crumbs">
        <a href="#/">Overview</a>
      </p>
      <h1>Add a VM</h1>
      <ActionForm action={action} submit={submit} label="Add" className="card intro">
        <TextField full label="Name" required maxLength={128} value={name} onChange={setName} />
        <label className="full">
          Disks, one in each line
          <textarea
            required
            rows={4}
            spellCheck={false}
            placeholder="/srv/vm/web1.raw"
            value={disks}
            onChange={(event) => setDisks(event.target.value)}
          />
          <small>Absolute paths on the host, block devices, or NBD URIs. Nothing is changed on them. The VM must be off.</small>
        </label>
        <Tick full checked={attach} onChange={setAttach} hint="Its disks are served, so that the hypervisor can open them.">
          Attach it at once
        </Tick>
      </ActionForm>
    </>
  );
}
